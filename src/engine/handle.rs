//! The async side's handle on the engine: submit a prompt, get a stream of tokens, ask how it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc as channel, oneshot};

use super::prompt::Prompt;
use super::sampling::Sampling;
use super::sequence::Sequence;
use super::step::{ModelRunner, Sampled};
use super::worker;
use crate::error::{Error, Unavailable};

/// What protects the engine, each with one name in `settings.rs`.
#[derive(Debug, Clone)]
pub struct EngineLimits {
    /// Sequences that run at the same time; the runner has as many slots.
    pub max_batch_size: usize,
    /// Requests that may wait for a slot; one more is refused.
    pub max_queue: usize,
    /// Tokens of a prompt that one step takes, so that a long prompt never stops the tokens of the others.
    pub prefill_chunk: usize,
    /// Tokens of the longest sequence, prompt included.
    pub max_model_len: usize,
}

/// A prompt and how to continue it.
#[derive(Debug, Clone)]
pub struct Request {
    pub prompt: Arc<Prompt>,
    pub sampling: Arc<Sampling>,
    /// Token ids that end the sequence.
    pub eos: Vec<u32>,
    /// Prompt and new tokens together fit in `max_model_len`. With 0 the sequence ends when its prompt is read.
    pub max_new_tokens: usize,
    /// Asks for the log-probabilities of the prompt's own tokens, with so many alternatives to each.
    pub prompt_logprobs: Option<usize>,
    /// The sequence ends with the first token after this.
    pub deadline: Option<Instant>,
}

/// What a sequence tells its client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It left the queue.
    Started,
    /// How likely the next tokens of the prompt were, where that was asked for: in pieces, from the second token on (nothing
    /// comes before the first), all of them before the first [`Event::Token`].
    Scored(Vec<Sampled>),
    Token(Sampled),
    /// The last event of a sequence that ended well.
    Finished(Ended),
    /// The last event of a sequence that did not.
    Failed(Error),
}

/// Why the engine ended a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Eos,
    Length,
    Deadline,
}

/// The events of one sequence. Dropping it cancels the sequence: its slot is free at the next step.
pub type TokenStream = channel::UnboundedReceiver<Event>;

/// Whether the engine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ready,
    Unavailable(Unavailable),
}

/// A cheap handle on the engine's thread, shared by all requests.
#[derive(Clone)]
pub struct Engine {
    submissions: mpsc::Sender<Sequence>,
    status: Arc<Status>,
    queue: Arc<Semaphore>,
    limits: EngineLimits,
}

/// What the engine's thread publishes about itself.
pub(super) struct Status {
    health: AtomicU8,
    pub(super) num_running: AtomicUsize,
    /// Moving average of how long a sequence holds its slot.
    mean_slot_ms: AtomicU64,
}

impl Status {
    pub(super) fn set_health(&self, health: Health) {
        self.health.store(encode(health), Ordering::Release);
    }

    /// Ready, unless the process began to shut down meanwhile.
    pub(super) fn finish_loading(&self) {
        let (loading, ready) = (encode(Health::Unavailable(Unavailable::Loading)), encode(Health::Ready));
        let _ = self.health.compare_exchange(loading, ready, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Counts a sequence that held its slot for `held`.
    pub(super) fn record_sequence(&self, held: Duration) {
        let (mean, held) = (self.mean_slot_ms.load(Ordering::Relaxed), held.as_millis() as u64);
        let mean = if mean == 0 { held } else { (7 * mean + held) / 8 };
        self.mean_slot_ms.store(mean, Ordering::Relaxed);
    }

    fn health(&self) -> Health {
        decode(self.health.load(Ordering::Acquire))
    }
}

impl Engine {
    /// Starts the engine's thread, which loads the model with `load` and then serves. The receiver gets the outcome of the
    /// load; until then requests are refused with [`Unavailable::Loading`].
    pub fn start(
        limits: EngineLimits,
        load: impl FnOnce() -> Result<Box<dyn ModelRunner>, String> + Send + 'static,
    ) -> (Engine, oneshot::Receiver<Result<(), String>>) {
        let status = Arc::new(Status {
            health: AtomicU8::new(encode(Health::Unavailable(Unavailable::Loading))),
            num_running: AtomicUsize::new(0),
            mean_slot_ms: AtomicU64::new(0),
        });
        let (submissions, received) = mpsc::channel();
        let (loaded, outcome) = oneshot::channel();
        let (thread_status, thread_limits) = (status.clone(), limits.clone());
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker::main(load, loaded, received, &thread_limits, &thread_status))
            .expect("the operating system refused a thread");
        let queue = Arc::new(Semaphore::new(limits.max_queue));
        (Engine { submissions, status, queue, limits }, outcome)
    }

    /// Queues `request`. Errors where the queue is full or nobody is served; dropping the stream cancels.
    pub fn submit(&self, request: Request) -> Result<TokenStream, Error> {
        self.check_ready()?;
        let place = self.queue.clone().try_acquire_owned().map_err(|_| self.overloaded())?;
        let (events, stream) = channel::unbounded_channel();
        self.submissions
            .send(Sequence::new(request, events, place))
            .map_err(|_| Error::Unavailable(Unavailable::Unhealthy))?;
        Ok(stream)
    }

    pub fn health(&self) -> Health {
        self.status.health()
    }

    /// The reason why nobody is served at the moment, as an error.
    pub fn check_ready(&self) -> Result<(), Error> {
        match self.health() {
            Health::Ready => Ok(()),
            Health::Unavailable(why) => Err(Error::Unavailable(why)),
        }
    }

    /// Refuses requests from now on; those accepted are finished.
    pub fn drain(&self) {
        self.status.set_health(Health::Unavailable(Unavailable::ShuttingDown));
    }

    /// Requests that wait for a slot.
    pub fn queue_len(&self) -> usize {
        self.limits.max_queue - self.queue.available_permits()
    }

    /// Sequences that hold a slot.
    pub fn num_running(&self) -> usize {
        self.status.num_running.load(Ordering::Relaxed)
    }

    pub fn limits(&self) -> &EngineLimits {
        &self.limits
    }

    /// The time until a place in the queue is likely free: how long one batch of sequences takes, as measured.
    fn overloaded(&self) -> Error {
        let mean = Duration::from_millis(self.status.mean_slot_ms.load(Ordering::Relaxed));
        let retry_after = (mean / self.limits.max_batch_size as u32).max(Duration::from_secs(1));
        Error::Overloaded { queue: self.limits.max_queue, retry_after }
    }
}

fn encode(health: Health) -> u8 {
    match health {
        Health::Ready => 0,
        Health::Unavailable(Unavailable::Loading) => 1,
        Health::Unavailable(Unavailable::ShuttingDown) => 2,
        Health::Unavailable(Unavailable::Unhealthy) => 3,
    }
}

fn decode(health: u8) -> Health {
    match health {
        0 => Health::Ready,
        1 => Health::Unavailable(Unavailable::Loading),
        2 => Health::Unavailable(Unavailable::ShuttingDown),
        _ => Health::Unavailable(Unavailable::Unhealthy),
    }
}
