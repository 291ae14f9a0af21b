//! The async side's handle on the engine: submit a prompt, get a stream of tokens, ask how it is.

use std::any::Any;
use std::ops::Add;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc as channel, oneshot};

use super::loads::Loads;
use super::plan::MemoryPlan;
use super::prompt::Prompt;
use super::queue::Refused;
use super::sampling::Sampling;
use super::sequence::Sequence;
use super::shared::Shared;
use super::status::{Health, PictureCounts, Status};
use super::step::{ModelRunner, Sampled, Seen};
use super::stream::TokenStream;
use super::worker;
use crate::error::{Error, Overload, Unavailable};

/// What protects the engine, each with one name in `settings`.
#[derive(Debug, Clone)]
pub struct EngineLimits {
    /// Sequences that run at the same time; a runner has as many slots.
    pub max_batch_size: usize,
    /// Requests that may wait for a slot; one more is refused.
    pub max_queue: usize,
    /// Tokens of a prompt that one step takes, so that a long prompt never stops the tokens of the others.
    pub prefill_chunk: usize,
    /// Tokens of the longest sequence, prompt included.
    pub max_model_len: usize,
    /// Tokens of all running sequences together, counting what each may grow to: what memory for keys and values there is.
    pub max_kv_tokens: usize,
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
    /// When the client stops waiting. A sequence that has not started by then is refused, one that runs ends with the step.
    pub deadline: Option<Instant>,
    /// The sequence ends with the first token after this, counted from when it leaves the queue.
    pub max_time: Option<Duration>,
    /// Dropped with the sequence and not before: what stands for the memory that it takes.
    pub share: Option<Arc<dyn Any + Send + Sync>>,
}

/// What a sequence tells its client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It left the queue.
    Started,
    /// The pictures that begin in the next part of the prompt were turned into embeddings.
    Seen(Seen),
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
    /// The client's deadline, or `max_time`.
    Deadline,
}

/// Loads the model; called on the thread that will run it.
pub type Loader = Box<dyn FnOnce() -> Result<Box<dyn ModelRunner>, String> + Send>;

/// A cheap handle on the engine's threads, shared by all requests.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    plan: Option<Arc<MemoryPlan>>,
    _handles: Arc<Handles>,
}

/// When the last handle is gone the queue is closed, and the engine's threads end once it is empty.
struct Handles(Arc<Shared>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Engine {
    /// Starts the engine's thread, which loads the model with `load` and then serves. The receiver gets the outcome of the
    /// load; until then requests are refused with [`Unavailable::Loading`].
    pub fn start(
        limits: EngineLimits,
        load: impl FnOnce() -> Result<Box<dyn ModelRunner>, String> + Send + 'static,
    ) -> (Engine, oneshot::Receiver<Result<(), String>>) {
        Engine::start_replicas(limits, vec![Box::new(load)])
    }

    /// [`Engine::start`] with a thread for each of several replicas of one model, on devices of their own: requests wait in one
    /// queue, and each starts on the least loaded. `limits` bound each replica, `max_queue` all of them. The receiver gets the
    /// outcome once all are loaded, or one is not.
    pub fn start_replicas(
        limits: EngineLimits,
        loaders: Vec<Loader>,
    ) -> (Engine, oneshot::Receiver<Result<(), String>>) {
        let shared = Arc::new(Shared::new(loaders.len(), limits));
        let (loaded, outcome) = oneshot::channel();
        let loads = Arc::new(Loads::new(loaders.len(), loaded));
        for (replica, load) in loaders.into_iter().enumerate() {
            let (shared, loads) = (shared.clone(), loads.clone());
            let tell = move |outcome| loads.tell(outcome);
            std::thread::Builder::new()
                .name(format!("engine-{replica}"))
                .spawn(move || worker::main(replica, load, tell, &shared))
                .expect("the operating system refused a thread");
        }
        (Engine { _handles: Arc::new(Handles(shared.clone())), shared, plan: None }, outcome)
    }

    /// The same engine, which tells the plan that its limits come from.
    pub fn with_memory_plan(self, plan: MemoryPlan) -> Engine {
        Engine { plan: Some(Arc::new(plan)), ..self }
    }

    /// Queues `request`. Errors where the queue is full, the request could never run or not before its deadline, or nobody is
    /// served; dropping the stream cancels.
    pub fn submit(&self, request: Request) -> Result<TokenStream, Error> {
        self.shared.check_open()?;
        self.check_size(&request)?;
        self.check_deadline(&request)?;
        let deadline = request.deadline;
        let (events, received) = channel::unbounded_channel();
        let ticket = self.shared.queue.push(Sequence::new(request, events)).map_err(|refused| match refused {
            Refused::Full => self.shared.overloaded(Overload::QueueFull { places: self.shared.limits.max_queue }),
            Refused::Closed => Error::Unavailable(Unavailable::Unhealthy),
        })?;
        Ok(TokenStream::new(received, self.shared.clone(), ticket, deadline))
    }

    /// A request that no free memory would be enough for would stop all behind it for ever.
    fn check_size(&self, request: &Request) -> Result<(), Error> {
        let (tokens, new_tokens) = (request.prompt.len(), request.max_new_tokens);
        let limit = self.shared.replica_limits.max_model_len.min(self.shared.replica_limits.max_kv_tokens);
        if tokens.saturating_add(new_tokens) > limit {
            return Err(Error::TooLong { tokens, new_tokens, limit });
        }
        Ok(())
    }

    /// Refuses at once what would most likely be refused in the queue.
    fn check_deadline(&self, request: &Request) -> Result<(), Error> {
        let Some(deadline) = request.deadline else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::missed_deadline());
        }
        let expected = self.shared.load().expected_wait();
        if expected > left {
            return Err(self.shared.overloaded(Overload::WaitTooLong { expected, left }));
        }
        Ok(())
    }

    /// The error of a request that is not taken: it says when to come again, by what was measured.
    pub fn overloaded(&self, why: Overload) -> Error {
        self.shared.overloaded(why)
    }

    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Waits until a replica stops serving although nobody told it to, and why: the process should be started anew.
    pub async fn died(&self) -> String {
        self.shared.died().await
    }

    /// The reason why nobody is served at the moment, as an error.
    pub fn check_ready(&self) -> Result<(), Error> {
        match self.health() {
            Health::Ready => Ok(()),
            Health::Unavailable(why) => Err(Error::Unavailable(why)),
        }
    }

    /// It has been ready, whatever it is now.
    pub fn was_ready(&self) -> bool {
        self.shared.replicas.iter().all(Status::was_ready)
    }

    /// How long a thread of the engine has been at one turn of its work: one step, however long the prompt or large the picture
    /// in it; the longest of them. `None` while they have nothing to do or load the model.
    pub fn busy_for(&self) -> Option<Duration> {
        self.shared.replicas.iter().filter_map(Status::busy_for).max()
    }

    /// Refuses requests from now on; those accepted are finished.
    pub fn drain(&self) {
        for status in &self.shared.replicas {
            status.set_health(Health::Unavailable(Unavailable::ShuttingDown));
        }
    }

    /// Requests that wait for a slot.
    pub fn queue_len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Sequences that hold a slot.
    pub fn num_running(&self) -> usize {
        self.shared.sum(Status::num_running)
    }

    /// Sequences that each replica runs.
    pub fn num_running_each(&self) -> Vec<usize> {
        self.shared.replicas.iter().map(Status::num_running).collect()
    }

    /// Sequences that can run at once, as long as they are what they are.
    pub fn num_slots(&self) -> usize {
        self.shared.sum(Status::num_slots)
    }

    /// Tokens that the running sequences may grow to together, of [`EngineLimits::max_kv_tokens`].
    pub fn num_reserved_tokens(&self) -> usize {
        self.shared.sum(Status::num_reserved_tokens)
    }

    /// What became of the pictures of all requests.
    pub fn pictures(&self) -> PictureCounts {
        self.shared.replicas.iter().map(Status::pictures).fold(PictureCounts::default(), PictureCounts::add)
    }

    /// How often the engine had nothing to do and looked whether anything was still held.
    pub fn num_checks(&self) -> u64 {
        self.shared.replicas.iter().map(Status::num_checks).sum()
    }

    /// How often it had nothing to do and yet something was held for somebody. Anything but 0 is a bug.
    pub fn num_leaks(&self) -> u64 {
        self.shared.replicas.iter().map(Status::num_leaks).sum()
    }

    /// What bounds a request, and what all replicas together can do.
    pub fn limits(&self) -> &EngineLimits {
        &self.shared.limits
    }

    /// Where the limits come from; `None` where nobody planned.
    pub fn memory_plan(&self) -> Option<&MemoryPlan> {
        self.plan.as_deref()
    }
}
