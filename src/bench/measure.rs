//! The measurements: tokens a second while several answers are written, time to the first token, the longest gap.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::Shown;
use super::report::{Looked, Shares};
use super::target::{Arrivals, Target, Work};

/// An answer as it was received: when it was asked for, and when there were how many tokens.
struct Received {
    asked: Instant,
    tokens: Vec<(Instant, usize)>,
    /// Names and seconds; empty where the engine is not in this process.
    stages: Vec<(&'static str, f64)>,
}

impl Received {
    /// Seconds from asking to the first token.
    fn first_token(&self) -> Result<f64, String> {
        let (first, _) = self.tokens.first().ok_or("the answer has no token")?;
        Ok((*first - self.asked).as_secs_f64())
    }

    /// Seconds of all stages of this name.
    fn stage(&self, name: &str) -> f64 {
        self.stages.iter().filter(|(stage, _)| *stage == name).map(|(_, seconds)| seconds).sum()
    }
}

/// What is known of answers that were written at the same time.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Decoded {
    pub(super) sequences: usize,
    /// Of all sequences together, from the moment each had its first token to the first end.
    pub(super) tokens_per_s: f64,
    /// Milliseconds between two tokens of one sequence: mean, and the longest.
    pub(super) ms_per_token: f64,
    pub(super) longest_gap_ms: f64,
}

/// Numbers that no call gave before, in this run of the program or in another.
pub(super) fn new_numbers() -> impl Iterator<Item = u64> {
    static RUN: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    (0..u64::MAX).map(move |at| RUN.hash_one((call, at)))
}

/// Token ids that no tokenizer lacks and that no server has in its cache yet.
pub(super) fn prompt(len: usize) -> Work {
    Work::Tokens(new_numbers().take(len).map(|number| 100 + (number % 1000) as u32).collect())
}

/// `sequences` answers of `num_tokens` tokens each, all at once.
pub(super) async fn decode(target: &Target, sequences: usize, num_tokens: usize) -> Result<Decoded, String> {
    let answers = (0..sequences).map(|_| receive(target, prompt(32), num_tokens));
    Ok(summarise(&try_join_all(answers).await?))
}

/// Seconds from asking to the first token.
pub(super) async fn first_token(target: &Target, work: Work) -> Result<f64, String> {
    receive(target, work, 1).await?.first_token()
}

/// The way to the first token of an answer about what is `shown`, and once more, when the server may know it.
pub(super) async fn looked(target: &Target, shown: Shown, work: Work) -> Result<Looked, String> {
    let first = receive(target, work.clone(), 1).await?;
    let again_s = first_token(target, work).await?;
    let seconds = first.first_token()?;
    let shares = (!first.stages.is_empty()).then(|| {
        let (media_s, vision_s) = (first.stage("media"), first.stage("see"));
        Shares { media_s, vision_s, language_s: seconds - media_s - vision_s }
    });
    Ok(Looked { shown, seconds, shares, again_s })
}

/// As [`decode`], while a prompt of `intruder` tokens arrives in the middle.
pub(super) async fn disturbed(
    target: &Target,
    sequences: usize,
    num_tokens: usize,
    intruder: usize,
) -> Result<Decoded, String> {
    let answers = try_join_all((0..sequences).map(|_| receive(target, prompt(32), num_tokens)));
    let intrusion = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        receive(target, prompt(intruder), 1).await
    };
    let (answers, intrusion) = tokio::join!(answers, intrusion);
    intrusion?;
    Ok(summarise(&answers?))
}

async fn receive(target: &Target, work: Work, num_tokens: usize) -> Result<Received, String> {
    let asked = Instant::now();
    let mut arrivals: Arrivals = target.start(&work, num_tokens).await?;
    let mut tokens = Vec::with_capacity(num_tokens);
    while let Some(arrived) = arrivals.next().await {
        tokens.push(arrived?);
    }
    let written = tokens.last().map_or(0, |(_, count)| *count);
    if arrivals.are_counted() && written != num_tokens {
        return Err(format!(
            "an answer has {written} tokens where {num_tokens} were asked for: a server that does not keep to `max_tokens` and \
             `ignore_eos` cannot be compared; raise its limits, or ask for fewer (--tokens)"
        ));
    }
    Ok(Received { asked, tokens, stages: arrivals.stages() })
}

/// Looks at the time in which all answers were being written.
fn summarise(answers: &[Received]) -> Decoded {
    let firsts = answers.iter().filter_map(|answer| answer.tokens.first()).map(|(at, _)| *at);
    let lasts = answers.iter().filter_map(|answer| answer.tokens.last()).map(|(at, _)| *at);
    let (Some(begin), Some(end)) = (firsts.max(), lasts.min()) else {
        return Decoded { sequences: answers.len(), tokens_per_s: 0.0, ms_per_token: 0.0, longest_gap_ms: 0.0 };
    };
    let seconds = end.saturating_duration_since(begin).as_secs_f64();
    let until = |answer: &Received, moment: Instant| {
        answer.tokens.iter().take_while(|(at, _)| *at <= moment).last().map_or(0, |(_, count)| *count)
    };
    let written: usize = answers.iter().map(|answer| until(answer, end) - until(answer, begin)).sum();
    let gaps = answers.iter().flat_map(|answer| answer.tokens.windows(2)).map(|pair| pair[1].0 - pair[0].0);
    Decoded {
        sequences: answers.len(),
        tokens_per_s: written as f64 / seconds,
        ms_per_token: 1e3 * seconds * answers.len() as f64 / written.max(1) as f64,
        longest_gap_ms: gaps.max().unwrap_or_default().as_secs_f64() * 1e3,
    }
}
