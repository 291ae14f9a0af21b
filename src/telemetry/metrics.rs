//! The numbers that Prometheus reads: their names, their buckets, and what each event adds to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

/// From a probe's answer to an hour of pictures on a slow CPU.
const SECONDS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// From a GPU's token to one of two slow cores' that many answers share.
const SECONDS_PER_TOKEN: [f64; 14] =
    [0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5];

/// From a word to the longest context.
const TOKENS: [f64; 16] = [
    4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0,
    262144.0,
];

/// Samples wait in lists until they are put into buckets; where nobody reads the metrics, that is done every so many requests.
const REQUESTS_PER_UPKEEP: u64 = 256;

/// The metrics of one server, in a registry of its own: two servers in a process do not count each other's requests. Cheap to
/// clone.
#[derive(Clone)]
pub struct Metrics(Arc<Registry>);

struct Registry {
    recorder: PrometheusRecorder,
    num_requests: AtomicU64,
}

/// A request that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestEnd<'a> {
    /// The route's pattern, never the path that a client sent: a label has few values.
    pub route: &'a str,
    pub status: u16,
    /// Empty where nothing failed.
    pub error_type: &'static str,
    pub took: Duration,
    pub kind: RequestKind,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// An answer of the model: TGI's names count these alone.
    Generation,
    Other,
}

/// An answer that has ended, however it did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerEnd {
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    pub max_new_tokens: usize,
    pub queue_time: Duration,
    /// From the queue to the last token.
    pub inference_time: Duration,
    /// From the request's arrival; `None` where there was no token.
    pub first_token: Option<Duration>,
    /// Between two tokens, on the mean; `None` where there were not two.
    pub per_token: Option<Duration>,
}

/// What is, rather than what has been: read off when somebody asks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gauges {
    /// By which clients see the model.
    pub model: String,
    /// Of each replica.
    pub num_running: Vec<usize>,
    /// Sequences that can run at once, as long as they are what they are.
    pub num_slots: usize,
    pub num_waiting: usize,
    pub kv_tokens_reserved: usize,
    /// Of the memory for keys and values, the part that is reserved.
    pub kv_usage_ratio: f64,
    pub picture_bytes: u64,
    /// Pictures that the vision tower computed, those that it did not have to, and what is kept of them.
    pub pictures_computed: u64,
    pub pictures_reused: u64,
    pub picture_cache_bytes: u64,
    pub num_idle_checks: u64,
    pub num_leaks: u64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let buckets = [
            (Matcher::Suffix("_seconds".to_owned()), &SECONDS[..]),
            (Matcher::Suffix("_duration".to_owned()), &SECONDS),
            (Matcher::Full("sardine_time_per_output_token_seconds".to_owned()), &SECONDS_PER_TOKEN),
            (Matcher::Full("tgi_request_mean_time_per_token_duration".to_owned()), &SECONDS_PER_TOKEN),
            (Matcher::Suffix("_tokens".to_owned()), &TOKENS),
            (Matcher::Suffix("_length".to_owned()), &TOKENS),
        ];
        let builder = buckets.into_iter().fold(PrometheusBuilder::new(), |builder, (matcher, values)| {
            builder.set_buckets_for_metric(matcher, values).expect("Invariant: there are buckets")
        });
        let metrics =
            Metrics(Arc::new(Registry { recorder: builder.build_recorder(), num_requests: AtomicU64::new(0) }));
        metrics.record(|| {
            describe();
            begin_at_zero();
        });
        metrics
    }

    /// Counts a request.
    pub fn count_request(&self, end: &RequestEnd) {
        let RequestEnd { route, status, error_type, took, kind } = end;
        let (route, took) = ((*route).to_owned(), took.as_secs_f64());
        self.record(|| {
            let labels =
                [("route", route.clone()), ("status", status.to_string()), ("error_type", (*error_type).to_owned())];
            counter!("sardine_requests_total", &labels).increment(1);
            histogram!("sardine_request_seconds", "route" => route).record(took);
            if *kind == RequestKind::Generation {
                counter!("tgi_request_count").increment(1);
                if error_type.is_empty() {
                    counter!("tgi_request_success").increment(1);
                    histogram!("tgi_request_duration").record(took);
                } else {
                    counter!("tgi_request_failure", "err" => *error_type).increment(1);
                }
            }
        });
        if self.0.num_requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(REQUESTS_PER_UPKEEP) {
            self.0.recorder.handle().run_upkeep();
        }
    }

    /// Counts an answer, once, at its end: nothing is counted token by token.
    pub fn count_answer(&self, end: &AnswerEnd) {
        let (queue, inference) = (end.queue_time.as_secs_f64(), end.inference_time.as_secs_f64());
        self.record(|| {
            counter!("sardine_prompt_tokens_total").increment(end.prompt_tokens as u64);
            counter!("sardine_generated_tokens_total").increment(end.generated_tokens as u64);
            histogram!("sardine_queue_seconds").record(queue);
            histogram!("tgi_request_queue_duration").record(queue);
            histogram!("tgi_request_inference_duration").record(inference);
            histogram!("tgi_request_input_length").record(end.prompt_tokens as f64);
            histogram!("tgi_request_generated_tokens").record(end.generated_tokens as f64);
            histogram!("tgi_request_max_new_tokens").record(end.max_new_tokens as f64);
            if let Some(first) = end.first_token {
                histogram!("sardine_time_to_first_token_seconds").record(first.as_secs_f64());
                let mean = inference / end.generated_tokens.max(1) as f64;
                histogram!("tgi_request_mean_time_per_token_duration").record(mean);
            }
            if let Some(per_token) = end.per_token {
                histogram!("sardine_time_per_output_token_seconds").record(per_token.as_secs_f64());
            }
        });
    }

    /// Counts a `stage` of the way of a picture: "fetch", "decode" or "prepare"; "see" of all that a request shows at once.
    pub fn count_media(&self, stage: &'static str, took: Duration) {
        self.record(|| histogram!("sardine_media_seconds", "stage" => stage).record(took.as_secs_f64()));
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self, now: &Gauges) -> String {
        self.record(|| {
            let (running, waiting) = (now.num_running.iter().sum::<usize>() as f64, now.num_waiting as f64);
            for (replica, running) in now.num_running.iter().enumerate() {
                gauge!("sardine_replica_requests_running", "replica" => replica.to_string()).set(*running as f64);
            }
            gauge!("sardine_requests_running").set(running);
            gauge!("sardine_slots").set(now.num_slots as f64);
            gauge!("sardine_requests_waiting").set(waiting);
            gauge!("sardine_kv_usage_ratio").set(now.kv_usage_ratio);
            gauge!("sardine_kv_tokens_reserved").set(now.kv_tokens_reserved as f64);
            gauge!("sardine_picture_bytes").set(now.picture_bytes as f64);
            counter!("sardine_pictures_computed_total").absolute(now.pictures_computed);
            counter!("sardine_pictures_reused_total").absolute(now.pictures_reused);
            gauge!("sardine_picture_cache_bytes").set(now.picture_cache_bytes as f64);
            counter!("sardine_idle_checks_total").absolute(now.num_idle_checks);
            counter!("sardine_leaks_total").absolute(now.num_leaks);
            gauge!("tgi_batch_current_size").set(running);
            gauge!("tgi_queue_size").set(waiting);
            // The inference extension asks for no label; vLLM's dashboards choose by this one.
            let model = [("model_name", now.model.clone())];
            gauge!("vllm:num_requests_running", &model).set(running);
            gauge!("vllm:num_requests_waiting", &model).set(waiting);
            gauge!("vllm:kv_cache_usage_perc", &model).set(now.kv_usage_ratio);
        });
        self.0.recorder.handle().render()
    }

    fn record(&self, what: impl FnOnce()) {
        with_local_recorder(&self.0.recorder, what);
    }
}

/// What is counted without a label is there before it has happened, so that a rate has where to begin.
fn begin_at_zero() {
    for name in
        ["sardine_prompt_tokens_total", "sardine_generated_tokens_total", "tgi_request_count", "tgi_request_success"]
    {
        counter!(name).absolute(0);
    }
    for name in [
        "sardine_queue_seconds",
        "sardine_time_to_first_token_seconds",
        "sardine_time_per_output_token_seconds",
        "tgi_request_duration",
        "tgi_request_queue_duration",
        "tgi_request_inference_duration",
        "tgi_request_mean_time_per_token_duration",
        "tgi_request_input_length",
        "tgi_request_generated_tokens",
        "tgi_request_max_new_tokens",
    ] {
        let _registered = histogram!(name);
    }
}

fn describe() {
    describe_counter!("sardine_requests_total", "Requests that have ended.");
    describe_counter!("sardine_prompt_tokens_total", "Tokens of the prompts of answers that were begun.");
    describe_counter!("sardine_generated_tokens_total", "Tokens that were generated.");
    describe_counter!(
        "sardine_pictures_computed_total",
        "Pictures, or groups of a video's frames, that the vision tower computed."
    );
    describe_counter!("sardine_pictures_reused_total", "Those that were the same as one whose embeddings were kept.");
    describe_gauge!(
        "sardine_picture_cache_bytes",
        "Bytes of the embeddings that are kept for pictures that come again."
    );
    describe_counter!("sardine_idle_checks_total", "Looks at the idle engine for memory that is still held.");
    describe_counter!("sardine_leaks_total", "Looks that found some: it is freed, and yet anything but 0 is a bug.");
    describe_histogram!("sardine_queue_seconds", "How long an answer's request waited for its turn.");
    describe_histogram!("sardine_time_to_first_token_seconds", "From a request's arrival to its answer's first token.");
    describe_histogram!("sardine_time_per_output_token_seconds", "Between two tokens of an answer, its mean.");
    describe_histogram!("sardine_request_seconds", "From a request's head to the last byte of its answer.");
    describe_histogram!(
        "sardine_media_seconds",
        "A picture's way: fetch, decode, prepare, and see, which is the vision tower."
    );
    describe_gauge!("sardine_requests_running", "Sequences that run.");
    describe_gauge!("sardine_replica_requests_running", "Sequences that run on one of the devices.");
    describe_gauge!(
        "sardine_slots",
        "Sequences that can run at once, as long as they are what they are: fewer where the memory is short."
    );
    describe_gauge!("sardine_requests_waiting", "Sequences that wait for their turn.");
    describe_gauge!("sardine_kv_usage_ratio", "The reserved part of the memory for keys and values.");
    describe_gauge!(
        "sardine_kv_tokens_reserved",
        "Tokens whose keys and values are reserved for the running sequences."
    );
    describe_gauge!("sardine_picture_bytes", "Bytes of the prepared pictures of the requests that wait or run.");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AnswerEnd, Gauges, Metrics, REQUESTS_PER_UPKEEP, RequestEnd, RequestKind};

    #[test]
    fn two_servers_do_not_count_each_others_answers() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.count_answer(&AnswerEnd {
            prompt_tokens: 3,
            generated_tokens: 2,
            max_new_tokens: 5,
            queue_time: Duration::ZERO,
            inference_time: Duration::from_millis(20),
            first_token: Some(Duration::from_millis(10)),
            per_token: Some(Duration::from_millis(7)),
        });
        let (one, other) = (one.render(&Gauges::default()), other.render(&Gauges::default()));
        assert!(one.contains("\nsardine_prompt_tokens_total 3\n"), "{one}");
        assert!(one.contains("sardine_time_per_output_token_seconds_bucket{le=\"0.005\"} 0\n"), "{one}");
        assert!(one.contains("sardine_time_per_output_token_seconds_bucket{le=\"0.0075\"} 1\n"), "{one}");
        assert!(other.contains("sardine_prompt_tokens_total 0\n"), "{other}");
        assert!(other.contains("sardine_queue_seconds_count 0\n"), "{other}");
    }

    #[test]
    fn requests_that_nobody_reads_of_are_put_into_buckets_all_the_same() {
        let metrics = Metrics::new();
        let end = RequestEnd {
            route: "/",
            status: 200,
            error_type: "",
            took: Duration::from_millis(1),
            kind: RequestKind::Generation,
        };
        (0..2 * REQUESTS_PER_UPKEEP).for_each(|_| metrics.count_request(&end));
        let text = metrics.render(&Gauges::default());
        assert!(text.contains("sardine_request_seconds_count{route=\"/\"} 512\n"), "{text}");
        assert!(text.contains("tgi_request_success 512\n"), "{text}");
    }
}
