//! An engine over a model that counts: it answers every token with the next number.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use sardine::engine::{
    Ended, Engine, EngineLimits, Event, Held, Loader, ModelRunner, Outcome, Outputs, Prompt, Request, Row, Sampled,
    Sampling, Score, Seen, Step, TokenStream,
};
use sardine::error::Error;

/// Ids that a step does not survive, that the model cannot answer, after which it can answer nothing, and that end a sequence.
pub const PANICS: u32 = 900;
pub const FAILS: u32 = 901;
pub const LOSES_THE_DEVICE: u32 = 902;
pub const EOS: u32 = 50;

/// Answers every token with the next number, and records the steps it was given. Waits for a permit before each step.
struct Counter {
    steps: Arc<Mutex<Vec<Step>>>,
    permits: Arc<Mutex<mpsc::Receiver<()>>>,
    held: Arc<Mutex<Held>>,
    /// Rows of a step that there is memory for.
    capacity: usize,
}

impl Counter {
    /// Nobody holds the lock while they wait: a replica that comes back for the next step would keep the others out.
    fn wait_for_permit(&self) {
        while self.permits.lock().unwrap().try_recv() == Err(mpsc::TryRecvError::Empty) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl ModelRunner for Counter {
    fn run(&mut self, step: &Step) -> Outputs {
        if !step.rows.is_empty() {
            self.wait_for_permit();
        }
        self.steps.lock().unwrap().push(step.clone());
        assert!(!step.rows.iter().any(|row| row.ids.contains(&PANICS)), "the kernel is broken\nat a place in C++");
        let loses = step.rows.iter().any(|row| row.ids.contains(&LOSES_THE_DEVICE));
        assert!(!loses, "CUDA error: an illegal memory access was encountered");
        assert!(step.rows.len() <= self.capacity, "CUDA out of memory. Tried to allocate 2.00 GiB.");
        let scores = step.rows.iter().map(|row| row.score.as_ref().map_or_else(Vec::new, score));
        Outputs { rows: step.rows.iter().map(answer).collect(), scores: scores.collect(), seen: see(step) }
    }

    fn held(&self) -> Held {
        *self.held.lock().unwrap()
    }
}

/// Every picture is computed, whenever a part of it comes.
fn see(step: &Step) -> Option<Seen> {
    let num_computed = step.rows.iter().map(|row| row.pictures.len()).sum();
    let now = Instant::now();
    (num_computed > 0).then_some(Seen { began: now, ended: now, num_computed, num_reused: 0, kept_bytes: 7 })
}

/// The larger a token, the less likely.
fn score(score: &Score) -> Vec<Sampled> {
    let top = vec![(0, 0.0); score.top];
    score.targets.iter().map(|id| Sampled { id: *id, logprob: -(*id as f32), top: top.clone() }).collect()
}

fn answer(row: &Row) -> Outcome {
    let last = *row.ids.last().unwrap();
    match &row.sample {
        None => Outcome::Prefilled,
        Some(_) if last == FAILS => Outcome::Failed("the logits are not numbers".to_owned()),
        Some(_) => Outcome::Sampled(Sampled { id: last + 1, logprob: 0.0, top: Vec::new() }),
    }
}

pub struct Bench {
    pub engine: Engine,
    pub steps: Arc<Mutex<Vec<Step>>>,
    /// What the model says that it holds when it should hold nothing.
    pub held: Arc<Mutex<Held>>,
    /// `None` once the model runs freely.
    permits: Option<mpsc::Sender<()>>,
}

impl Bench {
    /// An engine whose model runs freely.
    pub async fn free(limits: EngineLimits) -> Bench {
        let mut bench = Bench::held(limits).await;
        bench.permits = None;
        bench
    }

    /// An engine whose model runs a step for every call of [`Bench::allow`].
    pub async fn held(limits: EngineLimits) -> Bench {
        Bench::start(limits, 1, usize::MAX).await
    }

    /// [`Bench::held`] with several replicas of the model; a step of any takes a permit.
    pub async fn replicas(num_replicas: usize, limits: EngineLimits) -> Bench {
        Bench::start(limits, num_replicas, usize::MAX).await
    }

    /// [`Bench::held`] on a device whose memory suffices for steps of `capacity` rows.
    pub async fn narrow(capacity: usize, limits: EngineLimits) -> Bench {
        Bench::start(limits, 1, capacity).await
    }

    async fn start(limits: EngineLimits, num_replicas: usize, capacity: usize) -> Bench {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let (permits, received) = mpsc::channel();
        let held = Arc::new(Mutex::new(Held::default()));
        let received = Arc::new(Mutex::new(received));
        let loaders = (0..num_replicas).map(|_| {
            let runner = Counter { steps: steps.clone(), permits: received.clone(), held: held.clone(), capacity };
            Box::new(move || Ok(Box::new(runner) as Box<dyn ModelRunner>)) as Loader
        });
        let (engine, loaded) = Engine::start_replicas(limits, loaders.collect());
        loaded.await.unwrap().unwrap();
        Bench { engine, steps, held, permits: Some(permits) }
    }

    pub fn allow(&self, steps: usize) {
        for _ in 0..steps {
            self.permits.as_ref().unwrap().send(()).unwrap();
        }
    }

    pub fn submit(&self, ids: &[u32], max_new_tokens: usize) -> TokenStream {
        self.engine.submit(request(ids, max_new_tokens)).unwrap()
    }

    pub async fn wait_until(&self, what: &str, condition: impl Fn(&Bench) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn num_steps(&self) -> usize {
        self.steps.lock().unwrap().len()
    }
}

pub fn limits() -> EngineLimits {
    EngineLimits { max_batch_size: 2, max_queue: 4, prefill_chunk: 8, max_model_len: 1000, max_kv_tokens: 2000 }
}

pub fn request(ids: &[u32], max_new_tokens: usize) -> Request {
    let positions = (0..ids.len() as i64).map(|at| [at; 3]).collect();
    let prompt = Prompt { ids: ids.to_vec(), positions, rope_delta: 0, pictures: Vec::new() };
    let (prompt, sampling) = (Arc::new(prompt), Arc::new(Sampling::greedy()));
    Request {
        prompt,
        sampling,
        eos: vec![EOS],
        max_new_tokens,
        prompt_logprobs: None,
        deadline: None,
        max_time: None,
        share: None,
    }
}

/// The ids of a sequence and how it ended.
pub async fn collect(mut stream: TokenStream) -> (Vec<u32>, Result<Ended, Error>) {
    let mut ids = Vec::new();
    loop {
        match stream.recv().await.expect("a sequence says how it ends") {
            Event::Started | Event::Seen(_) | Event::Scored(_) => {}
            Event::Token(sampled) => ids.push(sampled.id),
            Event::Finished(ended) => return (ids, Ok(ended)),
            Event::Failed(error) => return (ids, Err(error)),
        }
    }
}
