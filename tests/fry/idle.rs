//! Whether a server has given back all that it took, by its own metrics.

use std::time::Duration;

use crate::server::Server;

/// Everything that was taken is given back: nobody runs or waits, nothing is reserved, and the idle engine found nothing held.
/// `ask` asks something and waits for its answer.
pub async fn is_idle<Asked: Future>(server: &Server, ask: impl FnOnce() -> Asked) {
    let nobody = |metrics: &str| {
        ["inf_batch_current_size", "inf_queue_size", "sardine_kv_tokens_reserved", "sardine_picture_bytes"]
            .iter()
            .all(|gauge| sample(metrics, gauge) == 0)
    };
    let before = metrics_once(server, nobody).await;
    let checks = sample(&before, "sardine_idle_checks_total");
    // Whatever is counted from now on was looked at after all of them had left.
    ask().await;
    let has_looked = |metrics: &str| nobody(metrics) && sample(metrics, "sardine_idle_checks_total") > checks;
    let after = metrics_once(server, has_looked).await;
    assert_eq!(sample(&after, "sardine_leaks_total"), 0, "{after}");
}

/// The metrics as soon as they are as wished.
pub async fn metrics_once(server: &Server, wished: impl Fn(&str) -> bool) -> String {
    let mut metrics = String::new();
    for _ in 0..400 {
        metrics = server.get("metrics").await;
        if wished(&metrics) {
            return metrics;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {metrics}");
}

/// A sample of Prometheus' text format.
pub fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}
