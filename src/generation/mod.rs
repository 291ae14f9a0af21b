//! The request path: a conversation in, a stream of deltas out. Every protocol calls this and nothing else.

mod account;
mod answer;
mod request;
mod stop_strings;
mod tokenize;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use crate::chat::{Chat, ChatPrompt, Decoder, GenerationDefaults};
use crate::engine::{
    self, Ended, Engine, EngineLimits, Event, Health, MemoryPlan, Prompt, Sampled, Sampling, TokenStream,
};
use crate::error::{Error, Unavailable};
use crate::media::{Media, Medium, Pictures};
use crate::startup::Startup;
use crate::telemetry::Metrics;

use account::Account;
pub use account::{Costs, Ledger};
pub use answer::{Answer, Delta, Finish, PromptToken, Token, Usage};
pub use request::{ChatRequest, Conversation, Ending, Input, Length, MaxLength, Stop};
use stop_strings::StopStrings;

/// What a client reads whose whole answer did not come in time.
const TOO_LONG: &str = "the answer took longer than this server lets whole answers take (--request-timeout-s, SARDINE_REQUEST_TIMEOUT_S); \
     a stream has no such limit";

/// Everything a request needs, shared by all handlers. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    chat: Arc<Chat>,
    media: Arc<Media>,
    engine: Engine,
    /// How long a whole answer may take; `None`: as long as it takes.
    request_timeout: Option<Duration>,
    startup: Startup,
    metrics: Metrics,
    /// Where the costs of what is asked through this handle are written.
    ledger: Ledger,
}

impl Service {
    pub fn new(chat: Chat, media: Media, engine: Engine) -> Service {
        Service {
            chat: Arc::new(chat),
            media: Arc::new(media),
            engine,
            request_timeout: None,
            startup: Startup::new(),
            metrics: Metrics::new(),
            ledger: Ledger::default(),
        }
    }

    /// The same service, which fails a whole answer that takes longer, counted from its arrival. A stream shows that it gets
    /// on, and ends as its client likes.
    pub fn with_request_timeout(self, request_timeout: Option<Duration>) -> Service {
        Service { request_timeout, ..self }
    }

    /// The same service, of a process whose start is told on `startup`.
    pub fn with_startup(self, startup: Startup) -> Service {
        Service { startup, ..self }
    }

    /// The same service for one request, which writes into `ledger` what it costs.
    pub fn with_ledger(&self, ledger: Ledger) -> Service {
        Service { ledger, ..self.clone() }
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How far the process is on its way to serving, where it is not there.
    pub fn startup(&self) -> &Startup {
        &self.startup
    }

    /// Begins one answer. Dropping it cancels it.
    pub async fn start(&self, request: ChatRequest) -> Result<Generation, Error> {
        let mut answers = self.start_several(request, 1).await?;
        Ok(answers.remove(0))
    }

    /// Begins `count` answers to the same request, which differ in their seed: the request's, and the numbers after it.
    pub async fn start_several(&self, request: ChatRequest, count: usize) -> Result<Vec<Generation>, Error> {
        let arrived = Instant::now();
        self.check_ready()?; // before pictures are fetched for nobody
        let prepared = self.prepare(&request.media, request.input, request.length.truncate);
        let prepared = before(request.deadline, prepared).await.unwrap_or_else(|| Err(Error::missed_deadline()));
        let (ChatPrompt { prompt, opens_thinking }, share) = prepared?;
        let max_new_tokens = max_new_tokens(request.length.max, prompt.len(), self.engine.limits().max_model_len)?;
        if max_new_tokens == 0 && request.prompt_logprobs.is_none() {
            let message = "0 new tokens are asked for, and nothing about the prompt";
            return Err(Error::invalid_param("max_new_tokens", message));
        }
        let mut sampling = request.sampling;
        if let Some((at, _)) = &mut sampling.forced_eos {
            *at = (prompt.len() + max_new_tokens).saturating_sub(1);
        }
        let answer = Submission {
            arrived,
            prompt_ids: prompt.ids.as_slice().into(),
            prompt: Arc::new(prompt),
            opens_thinking,
            max_new_tokens,
            prompt_logprobs: request.prompt_logprobs,
            deadline: request.deadline,
            max_time: request.length.max_time,
            share,
            stop: request.stop,
            skip_special_tokens: request.skip_special_tokens,
        };
        (0..count).map(|index| self.submit(&answer, reseeded(&sampling, index))).collect()
    }

    /// Pictures fetched, the text rendered and tokenised; beside it, what its pictures take of the memory for them.
    async fn prepare(
        &self,
        media: &[Medium],
        input: Input,
        truncate: Option<usize>,
    ) -> Result<(ChatPrompt, PictureShare), Error> {
        let begun = Instant::now();
        let pictures = self.media.prepare(media).await.map_err(|error| match error {
            Error::Overloaded { why, .. } => self.engine.overloaded(why),
            other => other,
        })?;
        self.count_media(&pictures, begun);
        let share = pictures.share();
        let chat = self.chat.clone();
        let prompt = blocking(move || match &input {
            Input::Conversation(conversation) => chat.prompt(conversation, pictures.visuals(), truncate),
            Input::Raw(text) => {
                let prompt = chat.raw_prompt(text, pictures.visuals(), truncate)?;
                Ok(ChatPrompt { prompt, opens_thinking: false })
            }
            Input::Tokens(ids) => {
                let prompt = chat.token_prompt(ids, truncate)?;
                Ok(ChatPrompt { prompt, opens_thinking: false })
            }
        });
        Ok((prompt.await?, share))
    }

    fn count_media(&self, pictures: &Pictures, begun: Instant) {
        if pictures.visuals().is_empty() {
            return;
        }
        self.ledger.add_media(begun);
        for (stage, took) in pictures.stages() {
            self.metrics.count_media(stage, took);
        }
    }

    fn submit(&self, answer: &Submission, sampling: Sampling) -> Result<Generation, Error> {
        let events = self.engine.submit(engine::Request {
            prompt: answer.prompt.clone(),
            sampling: Arc::new(sampling),
            eos: answer.stop.eos.clone(),
            max_new_tokens: answer.max_new_tokens,
            prompt_logprobs: answer.prompt_logprobs,
            deadline: answer.deadline,
            max_time: answer.max_time,
            share: answer.share.clone(),
        })?;
        let places = (self.metrics.clone(), self.ledger.clone());
        let first = answer.prompt_logprobs.and(answer.prompt.ids.first());
        Ok(Generation {
            events: Some(events),
            prompt_ids: answer.prompt_ids.clone(),
            prompt_tokens: first.map(|id| first_prompt_token(&self.chat, *id)).into_iter().collect(),
            chat: self.chat.clone(),
            decoder: self.chat.decoder(answer.skip_special_tokens),
            stop: StopStrings::new(answer.stop.strings.clone(), answer.stop.keep_string),
            expires_if_whole: self.request_timeout.map(|timeout| answer.arrived + timeout),
            expires: None,
            opens_thinking: answer.opens_thinking,
            account: Account::new(places, answer.arrived, answer.prompt.len(), answer.max_new_tokens),
        })
    }

    pub fn health(&self) -> Health {
        self.engine.health()
    }

    /// The reason why nobody is served at the moment, as an error.
    pub fn check_ready(&self) -> Result<(), Error> {
        self.engine.check_ready()
    }

    /// Refuses requests from now on; those accepted are finished.
    pub fn drain(&self) {
        self.engine.drain();
    }

    pub fn queue_len(&self) -> usize {
        self.engine.queue_len()
    }

    pub fn num_running(&self) -> usize {
        self.engine.num_running()
    }

    /// What bounds a request.
    pub fn limits(&self) -> &EngineLimits {
        self.engine.limits()
    }

    /// What fits in the memory, and why; `None` where nobody planned.
    pub fn memory_plan(&self) -> Option<&MemoryPlan> {
        self.engine.memory_plan()
    }

    /// Bytes of the pictures that requests hold, from when they are prepared until the answer has ended.
    pub fn held_picture_bytes(&self) -> u64 {
        self.media.held_bytes()
    }

    /// The engine, for whoever reports how it is.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Token ids from 0 to this can be named in a request.
    pub fn vocab_size(&self) -> usize {
        self.chat.tokenizer().vocabulary().len()
    }

    /// Token ids of a text, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.chat.encode(text)
    }

    /// The bytes that a token stands for: maybe a part of a character, none for an id without a token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.chat.tokenizer().vocabulary().bytes(id)
    }

    /// The text of an input that is no conversation.
    pub fn text_of(&self, input: &Input) -> Result<String, Error> {
        match input {
            Input::Raw(text) => Ok(text.clone()),
            Input::Tokens(ids) => {
                let bytes: Vec<u8> = ids.iter().flat_map(|id| self.token_bytes(*id)).copied().collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Input::Conversation(conversation) => self.chat.render(conversation),
        }
    }

    /// The checkpoint's own generation settings.
    pub fn defaults(&self) -> &GenerationDefaults {
        self.chat.defaults()
    }
}

/// What a request's pictures take of the memory for them, for as long as it is kept.
type PictureShare = Option<Arc<dyn Any + Send + Sync>>;

/// What the answers to one request share.
struct Submission {
    arrived: Instant,
    prompt: Arc<Prompt>,
    /// The prompt without its pictures, which an answer must not keep once the engine has let them go.
    prompt_ids: Arc<[u32]>,
    opens_thinking: bool,
    max_new_tokens: usize,
    prompt_logprobs: Option<usize>,
    deadline: Option<Instant>,
    max_time: Option<Duration>,
    share: PictureShare,
    stop: Stop,
    skip_special_tokens: bool,
}

/// An answer on its way. Dropping it cancels it: the engine's slot is free at the next step.
pub struct Generation {
    /// `None` once the answer has ended.
    events: Option<TokenStream>,
    prompt_ids: Arc<[u32]>,
    /// Those that the engine has scored so far.
    prompt_tokens: Vec<PromptToken>,
    chat: Arc<Chat>,
    decoder: Decoder,
    stop: StopStrings,
    /// When it has taken too long, if it is wanted whole.
    expires_if_whole: Option<Instant>,
    /// When it has taken too long.
    expires: Option<Instant>,
    opens_thinking: bool,
    account: Account,
}

impl Generation {
    /// The next piece; `None` after the last. An error ends the answer.
    pub async fn next(&mut self) -> Option<Result<Delta, Error>> {
        loop {
            match self.event().await? {
                Event::Started => self.account.start(),
                Event::Seen(seen) => self.account.add_seen(&seen),
                Event::Scored(tokens) => self.prompt_scored(tokens),
                Event::Token(sampled) => return Some(Ok(self.token(sampled))),
                Event::Finished(ended) => match self.end(ended) {
                    Some(rest) => return Some(Ok(rest)),
                    None => return None,
                },
                Event::Failed(error) => return Some(Err(self.fail(error))),
            }
        }
    }

    /// Waits until the request has left the queue. An error ends the answer.
    pub async fn admitted(&mut self) -> Result<(), Error> {
        if self.account.has_started() {
            return Ok(());
        }
        match self.event().await {
            None => Ok(()),
            Some(Event::Started) => {
                self.account.start();
                Ok(())
            }
            Some(Event::Failed(error)) => Err(self.fail(error)),
            Some(_) => unreachable!("Invariant: a sequence begins with Started"),
        }
    }

    /// What the engine says next, its silence included; `None` once the answer has ended.
    async fn event(&mut self) -> Option<Event> {
        let events = self.events.as_mut()?;
        Some(match before(self.expires, events.recv()).await {
            Some(Some(event)) => event,
            Some(None) => Event::Failed(Error::Unavailable(Unavailable::Unhealthy)),
            None => Event::Failed(Error::Timeout(TOO_LONG.to_owned())),
        })
    }

    /// The same answer, wanted whole: it fails where it takes longer than the server lets whole answers take.
    pub fn whole(self) -> Generation {
        Generation { expires: self.expires_if_whole, ..self }
    }

    /// All of it.
    pub async fn collect(self) -> Result<Answer, Error> {
        let mut generation = self.whole();
        let (mut text, mut tokens) = (String::new(), Vec::new());
        while let Some(delta) = generation.next().await {
            let delta = delta?;
            text.push_str(&delta.text);
            tokens.extend(delta.tokens);
        }
        let finish = generation.finish().unwrap_or(Finish::Length);
        let usage = generation.usage();
        Ok(Answer { prompt: generation.prompt_tokens, text, tokens, finish, usage })
    }

    /// The ids of the prompt's tokens.
    pub fn prompt_ids(&self) -> Arc<[u32]> {
        self.prompt_ids.clone()
    }

    /// The prompt's tokens, where the request asked for them: complete when [`Generation::next`] returns for the first time.
    /// Empty where it did not.
    pub fn prompt_tokens(&self) -> &[PromptToken] {
        &self.prompt_tokens
    }

    /// Why it ended; `None` before it has.
    pub fn finish(&self) -> Option<Finish> {
        self.account.finished()
    }

    /// The prompt ended inside an open `<think>` block: the answer begins as reasoning.
    pub fn opens_thinking(&self) -> bool {
        self.opens_thinking
    }

    /// What it cost so far.
    pub fn usage(&self) -> Usage {
        self.account.usage()
    }

    fn fail(&mut self, error: Error) -> Error {
        self.events = None;
        self.account.fail(&error);
        error
    }

    fn prompt_scored(&mut self, tokens: Vec<Sampled>) {
        self.account.tick();
        for sampled in tokens {
            let Token { id, text, logprob, special, top } = self.describe(sampled);
            self.prompt_tokens.push(PromptToken { id, text, logprob: Some(logprob), special, top });
        }
    }

    fn token(&mut self, sampled: Sampled) -> Delta {
        self.account.add_token();
        let piece = self.decoder.push(sampled.id);
        let watched = self.stop.push(&piece);
        if watched.stopped {
            self.account.finish(Finish::StopString);
            self.events = None;
        }
        Delta { text: watched.text, tokens: vec![self.describe(sampled)] }
    }

    /// The engine ended the sequence: what was held back is text after all, and may still complete a stop string.
    fn end(&mut self, ended: Ended) -> Option<Delta> {
        self.events = None;
        let tail = self.decoder.finish();
        let watched = self.stop.push(&tail);
        let finish = match ended {
            Ended::Eos => Finish::Eos,
            Ended::Length => Finish::Length,
            Ended::Deadline => Finish::Time,
        };
        self.account.finish(if watched.stopped { Finish::StopString } else { finish });
        let held = if watched.stopped { String::new() } else { self.stop.finish() };
        let text = watched.text + &held;
        (!text.is_empty()).then(|| Delta { text, tokens: Vec::new() })
    }

    fn describe(&self, sampled: Sampled) -> Token {
        Token {
            id: sampled.id,
            text: self.chat.token_text(sampled.id),
            logprob: sampled.logprob,
            special: self.chat.is_special(sampled.id),
            top: sampled.top.into_iter().map(|(id, logprob)| (id, self.chat.token_text(id), logprob)).collect(),
        }
    }
}

/// The one that nothing comes before, so that nothing can be said about it.
fn first_prompt_token(chat: &Chat, id: u32) -> PromptToken {
    PromptToken { id, text: chat.token_text(id), logprob: None, special: chat.is_special(id), top: Vec::new() }
}

/// How many new tokens fit: at least one unless none is asked for, or the request is refused.
fn max_new_tokens(max: MaxLength, prompt: usize, limit: usize) -> Result<usize, Error> {
    let wanted = match max {
        MaxLength::New(tokens) => tokens,
        MaxLength::NewAtMost(tokens) => tokens.min(limit.saturating_sub(prompt)).max(1),
        MaxLength::Total(total) if total <= prompt => {
            let message = format!(
                "the prompt has {prompt} tokens, and `max_length` {total} counts them too; use `max_new_tokens`"
            );
            return Err(Error::invalid_param("max_length", message));
        }
        MaxLength::Total(total) => total - prompt,
    };
    if prompt + wanted > limit {
        return Err(Error::TooLong { tokens: prompt, new_tokens: wanted, limit });
    }
    Ok(wanted)
}

fn reseeded(sampling: &Sampling, index: usize) -> Sampling {
    Sampling { seed: sampling.seed.wrapping_add(index as u64), ..sampling.clone() }
}

/// What `work` comes to; `None` where it has come to nothing by the deadline.
async fn before<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline.into(), work).await.ok(),
        None => Some(work.await),
    }
}

/// Runs `work` off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        let message = format!("preparing the prompt failed: {panic}");
        Err(Error::Generation { message, deterministic: true })
    })
}

#[cfg(test)]
mod tests {
    use super::{MaxLength, max_new_tokens};
    use crate::error::Error;

    #[test]
    fn a_default_length_is_cut_to_the_context_and_an_explicit_one_is_refused() {
        assert_eq!(max_new_tokens(MaxLength::NewAtMost(256), 100, 120), Ok(20));
        let refused = Error::TooLong { tokens: 100, new_tokens: 256, limit: 120 };
        assert_eq!(max_new_tokens(MaxLength::New(256), 100, 120), Err(refused));
    }

    #[test]
    fn a_prompt_that_fills_the_context_is_refused_even_with_a_default_length() {
        let refused = Error::TooLong { tokens: 120, new_tokens: 1, limit: 120 };
        assert_eq!(max_new_tokens(MaxLength::NewAtMost(256), 120, 120), Err(refused));
    }

    #[test]
    fn max_length_counts_the_prompt() {
        assert_eq!(max_new_tokens(MaxLength::Total(130), 100, 1000), Ok(30));
        assert!(max_new_tokens(MaxLength::Total(100), 100, 1000).is_err());
    }
}
