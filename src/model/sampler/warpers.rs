//! Transformers' logits warpers: what shapes the distribution that is drawn from. Applied when sampling, in order.

use tch::{Device, Kind, Tensor};

use crate::engine::Sampling;

/// The tokens that top_h looks at.
const TOP_H_WIDTH: i64 = 100;

/// Scores as good as the k-th best are kept, however many; so many of them are looked for. Scores from bf16 logits
/// are often equal, but not a hundred times.
const NUM_TIES: i64 = 128;

/// The best tokens that top_p looks at first, on the CPU.
const NUCLEUS_WIDTH: i64 = 1024;

/// The tokens that are left to choose from.
pub(super) struct Candidates {
    /// `[rows, n]`, -inf for those that were removed.
    pub scores: Tensor,
    /// `[rows, n]`, ascending in each row, so that a draw does not depend on how a device sorts; `None` for all
    /// tokens in order.
    pub ids: Option<Tensor>,
    /// `[rows, 1]`, the probability of all candidates together, before any was removed; `None` for 1.
    mass: Option<Tensor>,
}

impl Candidates {
    fn all(scores: &Tensor) -> Candidates {
        Candidates { scores: scores.shallow_clone(), ids: None, mass: None }
    }

    /// The `width` best of each row.
    fn best(scores: &Tensor, width: i64) -> Candidates {
        let (_, ids) = scores.topk(width, -1, true, false); // [rows, width]
        let (ids, _) = ids.sort(-1, false);
        Candidates { scores: scores.gather(-1, &ids, false), ids: Some(ids), mass: None }
    }
}

/// Whether both ask for the same warpers, so that their rows can be warped together.
pub(super) fn alike(a: &Sampling, b: &Sampling) -> bool {
    let settings = |s: &Sampling| {
        let shape = (s.temperature, s.top_h, s.top_k, s.top_p, s.min_p);
        (shape, s.typical_p, s.epsilon_cutoff, s.eta_cutoff, s.renormalize_logits)
    };
    settings(a) == settings(b)
}

/// Applies the warpers of `settings` to `scores`, `[rows, vocab]`.
pub(super) fn warp(scores: &Tensor, settings: &Sampling) -> Candidates {
    let Candidates { mut scores, ids, mass } = narrow(scores, settings);
    if settings.temperature != 1.0 {
        scores = &scores / f64::from(settings.temperature); // not in place: they may be the processors' own
    }
    if let Some(budget) = settings.top_h {
        scores = top_h(&scores, f64::from(budget));
    }
    if settings.top_k > 0 {
        scores = top_k(&scores, count(settings.top_k));
    }
    if settings.top_p < 1.0 {
        scores = top_p(&scores, f64::from(settings.top_p), mass.as_ref());
    }
    if settings.min_p > 0.0 {
        scores = min_p(&scores, f64::from(settings.min_p));
    }
    if settings.typical_p < 1.0 {
        scores = typical_p(&scores, f64::from(settings.typical_p));
    }
    if settings.epsilon_cutoff > 0.0 {
        scores = epsilon_cutoff(&scores, f64::from(settings.epsilon_cutoff));
    }
    if settings.eta_cutoff > 0.0 {
        scores = eta_cutoff(&scores, f64::from(settings.eta_cutoff));
    }
    if settings.renormalize_logits {
        scores = scores.log_softmax(-1, Kind::Float);
    }
    Candidates { scores, ids, mass }
}

/// The best tokens, where the others are certain to be removed: the warpers then work on hundreds of scores, not on the
/// vocabulary (sorting one takes a tenth of a second on a CPU).
fn narrow(scores: &Tensor, settings: &Sampling) -> Candidates {
    let num_tokens = scores.size()[1];
    let reach = match (settings.top_h, count(settings.top_k)) {
        (None, 0) => return nucleus(scores, settings).unwrap_or_else(|| Candidates::all(scores)),
        (None, k) => k,
        (Some(_), k) => k.max(TOP_H_WIDTH),
    };
    let width = reach.saturating_add(NUM_TIES);
    if width < num_tokens { Candidates::best(scores, width) } else { Candidates::all(scores) }
}

/// The best tokens, where they hold more than the mass that top_p keeps. Asking that reads the device, so it is done
/// on the CPU only; a GPU sorts the vocabulary.
fn nucleus(scores: &Tensor, settings: &Sampling) -> Option<Candidates> {
    let is_worthwhile = settings.top_p < 1.0 && scores.size()[1] >= 4 * NUCLEUS_WIDTH;
    if !is_worthwhile || scores.device() != Device::Cpu {
        return None;
    }
    let best = Candidates::best(scores, NUCLEUS_WIDTH);
    let logs = (scores / f64::from(settings.temperature)).log_softmax(-1, Kind::Float);
    let mass = logs.gather(-1, best.ids.as_ref()?, false).exp().sum_dim_intlist(-1, true, Kind::Float); // [rows, 1]
    let least = mass.min().double_value(&[]);
    (least > f64::from(settings.top_p) + 1e-3).then_some(Candidates { mass: Some(mass), ..best })
}

fn top_k(scores: &Tensor, k: i64) -> Tensor {
    let kth = kth_best(scores, k);
    remove(scores, &scores.lt_tensor(&kth))
}

fn count(k: usize) -> i64 {
    i64::try_from(k).unwrap_or(i64::MAX)
}

/// The k-th best score of each row, `[rows, 1]`.
fn kth_best(scores: &Tensor, k: i64) -> Tensor {
    let k = k.min(scores.size()[1]);
    let (best, _) = scores.topk(k, -1, true, true);
    best.narrow(-1, k - 1, 1)
}

/// The smallest set of best tokens with a mass of `p`, found from the worst end as Transformers does. `mass`: that of
/// `scores`, where they are not all tokens.
fn top_p(scores: &Tensor, p: f64, mass: Option<&Tensor>) -> Tensor {
    let (sorted, order) = scores.sort(-1, false);
    let cumulated = sorted.softmax(-1, Kind::Float).cumsum(-1, Kind::Float);
    let removed = match mass {
        None => cumulated.le(1.0 - p),
        Some(mass) => (cumulated * mass).le_tensor(&(mass - p)),
    };
    let _ = removed.narrow(-1, -1, 1).fill_(0);
    remove(scores, &unsort(&removed, &order))
}

fn min_p(scores: &Tensor, p: f64) -> Tensor {
    let probabilities = scores.softmax(-1, Kind::Float);
    let threshold = probabilities.amax(-1, true) * p;
    remove(scores, &probabilities.lt_tensor(&threshold))
}

/// The tokens whose information is nearest to the entropy, up to a mass of `p` (Meister et al., 2022).
fn typical_p(scores: &Tensor, p: f64) -> Tensor {
    let logs = scores.log_softmax(-1, Kind::Float);
    let entropy = -(&logs * logs.exp()).nansum(-1, true, Kind::Float);
    let (distance, order) = (-&logs - entropy).abs().sort(-1, false);
    let mass = scores.gather(-1, &order, false).softmax(-1, Kind::Float).cumsum(-1, Kind::Float);
    let last = mass.lt(p).sum_dim_intlist(-1, true, Kind::Int64).clamp_max(distance.size()[1] - 1);
    let removed = distance.gt_tensor(&distance.gather(-1, &last, false));
    let _ = removed.narrow(-1, 0, 1).fill_(0);
    remove(scores, &unsort(&removed, &order))
}

/// The best tokens while their part of the entropy of the best hundred stays within the share `budget` of it.
fn top_h(scores: &Tensor, budget: f64) -> Tensor {
    let (best, ids) = scores.topk(TOP_H_WIDTH.min(scores.size()[1]), -1, true, true);
    let probabilities = best.softmax(-1, Kind::Float);
    let terms = -(&probabilities * probabilities.log()); // NaN where a probability is 0
    let entropy = categorical_entropy(&best);
    let kept = terms.cumsum(-1, Kind::Float).le_tensor(&(entropy * budget));
    let _ = kept.narrow(-1, 0, 1).fill_(1);
    let removed = scores.ones_like().to_kind(Kind::Bool).scatter(-1, &ids, &kept.logical_not());
    remove(scores, &removed)
}

fn epsilon_cutoff(scores: &Tensor, epsilon: f64) -> Tensor {
    let removed = scores.softmax(-1, Kind::Float).lt(epsilon);
    remove(scores, &removed.logical_and(&scores.lt_tensor(&scores.amax(-1, true))))
}

/// As `epsilon_cutoff`, with a threshold that falls as the entropy grows (Hewitt et al., 2022).
fn eta_cutoff(scores: &Tensor, epsilon: f64) -> Tensor {
    let entropy = categorical_entropy(scores);
    let eta = ((-entropy).exp() * epsilon.sqrt()).clamp_max(epsilon);
    let removed = scores.softmax(-1, Kind::Float).lt_tensor(&eta);
    remove(scores, &removed.logical_and(&scores.lt_tensor(&scores.amax(-1, true))))
}

/// The entropy of each row, `[rows, 1]`, a token with probability 0 counting nothing.
fn categorical_entropy(scores: &Tensor) -> Tensor {
    let logs = scores.log_softmax(-1, Kind::Float).clamp_min(f64::from(f32::MIN));
    -(&logs * logs.exp()).sum_dim_intlist(-1, true, Kind::Float)
}

/// `flags`, in the order of `order`, back in the order of the tokens.
fn unsort(flags: &Tensor, order: &Tensor) -> Tensor {
    flags.scatter(-1, order, flags)
}

fn remove(scores: &Tensor, removed: &Tensor) -> Tensor {
    scores.masked_fill(removed, f64::NEG_INFINITY)
}
