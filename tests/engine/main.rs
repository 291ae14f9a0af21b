//! The engine through its handle, over a model that counts: who gets tokens when, and what becomes of those who leave or fail.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use sardine::engine::{
    Ended, Engine, EngineLimits, Event, Grid, Health, ModelRunner, Outcome, Outputs, Picture, PlacedPicture, Prompt,
    Request, Row, Sampled, Sampling, Score, Slot, Step, TokenStream,
};
use sardine::error::{Error, Unavailable};

const PANICS: u32 = 900;
const FAILS: u32 = 901;
const EOS: u32 = 50;

/// Answers every token with the next number, and records the steps it was given. Waits for a permit before each step.
struct Counter {
    steps: Arc<Mutex<Vec<Step>>>,
    permits: mpsc::Receiver<()>,
}

impl ModelRunner for Counter {
    fn run(&mut self, step: &Step) -> Outputs {
        if !step.rows.is_empty() {
            let _ = self.permits.recv();
        }
        self.steps.lock().unwrap().push(step.clone());
        assert!(!step.rows.iter().any(|row| row.ids.contains(&PANICS)), "the kernel is broken\nat a place in C++");
        let scores = step.rows.iter().map(|row| row.score.as_ref().map_or_else(Vec::new, score));
        Outputs { rows: step.rows.iter().map(answer).collect(), scores: scores.collect() }
    }
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

struct Bench {
    engine: Engine,
    steps: Arc<Mutex<Vec<Step>>>,
    /// `None` once the model runs freely.
    permits: Option<mpsc::Sender<()>>,
}

impl Bench {
    /// An engine whose model runs freely.
    async fn free(limits: EngineLimits) -> Bench {
        let mut bench = Bench::held(limits).await;
        bench.permits = None;
        bench
    }

    /// An engine whose model runs a step for every call of [`Bench::allow`].
    async fn held(limits: EngineLimits) -> Bench {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let (permits, received) = mpsc::channel();
        let runner = Counter { steps: steps.clone(), permits: received };
        let (engine, loaded) = Engine::start(limits, move || Ok(Box::new(runner)));
        loaded.await.unwrap().unwrap();
        Bench { engine, steps, permits: Some(permits) }
    }

    fn allow(&self, steps: usize) {
        for _ in 0..steps {
            self.permits.as_ref().unwrap().send(()).unwrap();
        }
    }

    fn submit(&self, ids: &[u32], max_new_tokens: usize) -> TokenStream {
        self.engine.submit(request(ids, max_new_tokens)).unwrap()
    }

    async fn wait_until(&self, what: &str, condition: impl Fn(&Bench) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn num_steps(&self) -> usize {
        self.steps.lock().unwrap().len()
    }
}

fn limits() -> EngineLimits {
    EngineLimits { max_batch_size: 2, max_queue: 4, prefill_chunk: 8, max_model_len: 1000 }
}

fn request(ids: &[u32], max_new_tokens: usize) -> Request {
    let positions = (0..ids.len() as i64).map(|at| [at; 3]).collect();
    let prompt = Prompt { ids: ids.to_vec(), positions, rope_delta: 0, pictures: Vec::new() };
    let (prompt, sampling) = (Arc::new(prompt), Arc::new(Sampling::greedy()));
    Request { prompt, sampling, eos: vec![EOS], max_new_tokens, prompt_logprobs: None, deadline: None }
}

async fn all(mut stream: TokenStream) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.recv().await {
        events.push(event);
    }
    events
}

/// The ids of a sequence and how it ended.
async fn collect(mut stream: TokenStream) -> (Vec<u32>, Result<Ended, Error>) {
    let mut ids = Vec::new();
    loop {
        match stream.recv().await.expect("a sequence says how it ends") {
            Event::Started | Event::Scored(_) => {}
            Event::Token(sampled) => ids.push(sampled.id),
            Event::Finished(ended) => return (ids, Ok(ended)),
            Event::Failed(error) => return (ids, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_sequence_ends_at_its_length_or_at_a_stop_token() {
    let bench = Bench::free(limits()).await;
    assert_eq!(collect(bench.submit(&[1, 2, 3], 4)).await, (vec![4, 5, 6, 7], Ok(Ended::Length)));
    assert_eq!(collect(bench.submit(&[47], 100)).await, (vec![48, 49, 50], Ok(Ended::Eos)));
}

#[tokio::test]
async fn a_deadline_ends_a_sequence_with_the_token_after_it() {
    let bench = Bench::free(limits()).await;
    let past = Request { deadline: Some(Instant::now()), ..request(&[1], 100) };
    assert_eq!(collect(bench.engine.submit(past).unwrap()).await, (vec![2], Ok(Ended::Deadline)));
}

#[tokio::test]
async fn a_long_prompt_does_not_stop_the_tokens_of_others() {
    let bench = Bench::held(limits()).await;
    let mut short = bench.submit(&[100], 50);
    bench.allow(1);
    bench.wait_until("the first step ran", |bench| bench.num_steps() == 1).await;
    let long = bench.submit(&(200..220).collect::<Vec<_>>(), 1);
    bench.allow(4);
    bench.wait_until("the prompt is read", |bench| bench.num_steps() == 5).await;
    let steps = bench.steps.lock().unwrap().clone();
    // The step after the submission may already have been waiting for its permit without it.
    let with_both: Vec<_> = steps.iter().filter(|step| step.rows.len() == 2).collect();
    assert!(with_both.iter().all(|step| step.rows[0].ids.len() == 1 && step.rows[1].ids.len() <= 8));
    assert_eq!(with_both.iter().map(|step| step.rows[1].ids.len()).sum::<usize>(), 20);
    assert_eq!(collect(long).await, (vec![220], Ok(Ended::Length)));
    assert!(matches!(short.recv().await, Some(Event::Started)));
}

#[tokio::test]
async fn only_the_last_chunk_of_a_prompt_asks_for_a_token() {
    let bench = Bench::free(limits()).await;
    collect(bench.submit(&(0..20).collect::<Vec<_>>(), 1)).await.1.unwrap();
    let steps = bench.steps.lock().unwrap();
    let chunks: Vec<_> =
        steps.iter().flat_map(|step| &step.rows).map(|row| (row.start, row.ids.len(), row.sample.is_some())).collect();
    assert_eq!(chunks, [(0, 8, false), (8, 8, false), (16, 4, true)]);
}

#[tokio::test]
async fn a_prompt_that_is_scored_is_told_whole_before_its_first_token() {
    let bench = Bench::free(limits()).await;
    let ids: Vec<u32> = (0..20).collect();
    let scored = Request { prompt_logprobs: Some(2), ..request(&ids, 1) };
    let events = all(bench.engine.submit(scored).unwrap()).await;
    let pieces: Vec<Vec<u32>> = events
        .iter()
        .filter_map(|event| match event {
            Event::Scored(tokens) => Some(tokens.iter().map(|token| token.id).collect()),
            _ => None,
        })
        .collect();
    // The last target of a chunk is the first id of the next; the prompt's last id predicts the answer.
    assert_eq!(pieces, [(1..9).collect::<Vec<_>>(), (9..17).collect(), (17..20).collect()]);
    let Event::Scored(first) = &events[1] else { panic!("{events:?}") };
    assert_eq!(first[0], Sampled { id: 1, logprob: -1.0, top: vec![(0, 0.0); 2] });
    assert!(matches!(&events[4..], [Event::Token(_), Event::Finished(Ended::Length)]), "{events:?}");
}

#[tokio::test]
async fn a_prompt_that_is_only_scored_ends_without_a_token() {
    let bench = Bench::free(limits()).await;
    for num_ids in [1, 8, 20] {
        let ids: Vec<u32> = (0..num_ids).collect();
        let scored = Request { prompt_logprobs: Some(0), ..request(&ids, 0) };
        let events = all(bench.engine.submit(scored).unwrap()).await;
        let num_scored: usize = events.iter().map(|event| if let Event::Scored(s) = event { s.len() } else { 0 }).sum();
        assert_eq!(num_scored, ids.len() - 1);
        assert_eq!(events.last(), Some(&Event::Finished(Ended::Length)));
        assert!(!events.iter().any(|event| matches!(event, Event::Token(_))), "{events:?}");
    }
}

#[tokio::test]
async fn a_picture_is_cut_where_the_chunk_ends() {
    let bench = Bench::free(limits()).await;
    let grid = Grid { height: 4, width: 8 };
    let picture = Arc::new(Picture { patches: vec![0.0; 4], grid });
    let mut request = request(&(0..20).collect::<Vec<_>>(), 1);
    Arc::get_mut(&mut request.prompt).unwrap().pictures = vec![PlacedPicture { picture, placeholders: 6..14 }];
    collect(bench.engine.submit(request).unwrap()).await.1.unwrap();
    let steps = bench.steps.lock().unwrap();
    let parts: Vec<_> = steps
        .iter()
        .flat_map(|step| &step.rows)
        .flat_map(|row| row.pictures.iter().map(|part| (part.rows.clone(), part.first_embedding)))
        .collect();
    assert_eq!(parts, [(6..8, 0), (0..6, 2)]);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_at_the_next_step() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, ..limits() }).await;
    let leaving = bench.submit(&[100], 900);
    let next = bench.submit(&[10], 1);
    bench.allow(1);
    bench.wait_until("the first step ran", |bench| bench.num_steps() == 1).await;
    drop(leaving);
    bench.allow(2);
    assert_eq!(collect(next).await, (vec![11], Ok(Ended::Length)));
    let steps = bench.steps.lock().unwrap();
    assert!(steps.len() <= 4, "the slot was freed after {} steps", steps.len());
    assert!(steps.iter().any(|step| step.released == [Slot(0)]));
}

#[tokio::test]
async fn memory_is_freed_when_the_last_sequence_ends() {
    let bench = Bench::free(limits()).await;
    collect(bench.submit(&[1], 1)).await.1.unwrap();
    bench
        .wait_until("the slot was released", |bench| {
            bench.steps.lock().unwrap().last().is_some_and(|step| step.rows.is_empty() && step.released == [Slot(0)])
        })
        .await;
    assert_eq!((bench.engine.num_running(), bench.engine.queue_len()), (0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_and_serves_again_when_a_place_is_free() {
    let bench = Bench::held(EngineLimits { max_batch_size: 1, max_queue: 1, ..limits() }).await;
    let first = bench.submit(&[1], 1);
    bench.wait_until("the first left the queue", |bench| bench.engine.queue_len() == 0).await;
    let second = bench.submit(&[1], 1);
    let refused = bench.engine.submit(request(&[1], 1)).unwrap_err();
    assert!(
        matches!(refused, Error::Overloaded { queue: 1, retry_after } if retry_after >= Duration::from_secs(1)),
        "{refused:?}"
    );
    bench.allow(2);
    collect(first).await.1.unwrap();
    collect(second).await.1.unwrap();
    bench.wait_until("the queue is empty", |bench| bench.engine.queue_len() == 0).await;
    bench.allow(1);
    collect(bench.submit(&[1], 1)).await.1.unwrap();
}

#[tokio::test]
async fn a_panic_of_the_model_fails_its_step_and_the_next_request_works() {
    let bench = Bench::free(limits()).await;
    let (_, outcome) = collect(bench.submit(&[PANICS], 3)).await;
    assert_eq!(outcome, Err(Error::Generation { message: "the kernel is broken".to_owned(), deterministic: false }));
    assert_eq!(collect(bench.submit(&[1], 2)).await, (vec![2, 3], Ok(Ended::Length)));
}

#[tokio::test]
async fn one_sequence_that_fails_does_not_harm_the_others_of_its_step() {
    let bench = Bench::held(limits()).await;
    let (fine, failing) = (bench.submit(&[1], 3), bench.submit(&[FAILS], 3));
    bench.allow(8);
    assert!(matches!(collect(failing).await.1, Err(Error::Generation { deterministic: true, .. })));
    assert_eq!(collect(fine).await, (vec![2, 3, 4], Ok(Ended::Length)));
}

#[tokio::test]
async fn an_engine_that_drains_finishes_what_it_accepted_and_refuses_the_rest() {
    let bench = Bench::held(limits()).await;
    let accepted = bench.submit(&[1], 2);
    bench.engine.drain();
    let refused = bench.engine.submit(request(&[1], 1)).unwrap_err();
    assert_eq!(refused, Error::Unavailable(Unavailable::ShuttingDown));
    bench.allow(2);
    assert_eq!(collect(accepted).await, (vec![2, 3], Ok(Ended::Length)));
}

#[tokio::test]
async fn a_model_that_does_not_load_says_why_and_nobody_waits_for_it() {
    let (engine, loaded) = Engine::start(limits(), || Err("model.safetensors: the file is cut short".to_owned()));
    assert_eq!(loaded.await.unwrap(), Err("model.safetensors: the file is cut short".to_owned()));
    let begun = Instant::now();
    while engine.health() != Health::Unavailable(Unavailable::Unhealthy) {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(engine.submit(request(&[1], 1)).unwrap_err(), Error::Unavailable(Unavailable::Unhealthy));
}
