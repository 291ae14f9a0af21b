//! The async side's handle on the engine: submit a prompt, get a stream of tokens, ask how it is.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc as channel, oneshot};

use super::plan::MemoryPlan;
use super::prompt::Prompt;
use super::queue::{Queue, Refused};
use super::sampling::Sampling;
use super::sequence::Sequence;
use super::status::{Health, Load, Status};
use super::step::{ModelRunner, Sampled};
use super::stream::TokenStream;
use super::worker;
use crate::error::{Error, Overload, Unavailable};

/// What protects the engine, each with one name in `settings`.
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

/// A cheap handle on the engine's thread, shared by all requests.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    plan: Option<Arc<MemoryPlan>>,
    _handles: Arc<Handles>,
}

/// What the engine's thread and everybody else have in common.
pub(super) struct Shared {
    pub queue: Queue,
    pub status: Status,
    pub limits: EngineLimits,
}

/// When the last handle is gone the queue is closed, and the engine's thread ends once it is empty.
struct Handles(Arc<Shared>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Shared {
    fn load(&self) -> Load {
        Load {
            num_waiting: self.queue.len(),
            num_running: self.status.num_running(),
            num_slots: self.status.num_slots(),
            mean_slot_time: self.status.mean_slot_time(),
        }
    }

    pub fn overloaded(&self, why: Overload) -> Error {
        Error::Overloaded { why, retry_after: self.load().retry_after() }
    }
}

impl Engine {
    /// Starts the engine's thread, which loads the model with `load` and then serves. The receiver gets the outcome of the
    /// load; until then requests are refused with [`Unavailable::Loading`].
    pub fn start(
        limits: EngineLimits,
        load: impl FnOnce() -> Result<Box<dyn ModelRunner>, String> + Send + 'static,
    ) -> (Engine, oneshot::Receiver<Result<(), String>>) {
        let (queue, status) = (Queue::new(limits.max_queue), Status::loading(limits.max_batch_size));
        let shared = Arc::new(Shared { queue, status, limits });
        let (loaded, outcome) = oneshot::channel();
        let thread_shared = shared.clone();
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker::main(load, loaded, &thread_shared))
            .expect("the operating system refused a thread");
        (Engine { _handles: Arc::new(Handles(shared.clone())), shared, plan: None }, outcome)
    }

    /// The same engine, which tells the plan that its limits come from.
    pub fn with_memory_plan(self, plan: MemoryPlan) -> Engine {
        Engine { plan: Some(Arc::new(plan)), ..self }
    }

    /// Queues `request`. Errors where the queue is full, the request could never run or not before its deadline, or nobody is
    /// served; dropping the stream cancels.
    pub fn submit(&self, request: Request) -> Result<TokenStream, Error> {
        self.check_ready()?;
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
        let limit = self.shared.limits.max_model_len.min(self.shared.limits.max_kv_tokens);
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
        self.shared.status.health()
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
        self.shared.status.was_ready()
    }

    /// How long the engine's thread has been at one turn of its work: one step, however long the prompt or large the picture
    /// in it. `None` while it has nothing to do or loads the model.
    pub fn busy_for(&self) -> Option<Duration> {
        self.shared.status.busy_for()
    }

    /// Refuses requests from now on; those accepted are finished.
    pub fn drain(&self) {
        self.shared.status.set_health(Health::Unavailable(Unavailable::ShuttingDown));
    }

    /// Requests that wait for a slot.
    pub fn queue_len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Sequences that hold a slot.
    pub fn num_running(&self) -> usize {
        self.shared.status.num_running()
    }

    /// Tokens that the running sequences may grow to together, of [`EngineLimits::max_kv_tokens`].
    pub fn num_reserved_tokens(&self) -> usize {
        self.shared.status.num_reserved_tokens()
    }

    /// How often the engine had nothing to do and looked whether anything was still held.
    pub fn num_checks(&self) -> u64 {
        self.shared.status.num_checks()
    }

    /// How often it had nothing to do and yet something was held for somebody. Anything but 0 is a bug.
    pub fn num_leaks(&self) -> u64 {
        self.shared.status.num_leaks()
    }

    pub fn limits(&self) -> &EngineLimits {
        &self.shared.limits
    }

    /// Where the limits come from; `None` where nobody planned.
    pub fn memory_plan(&self) -> Option<&MemoryPlan> {
        self.plan.as_deref()
    }
}
