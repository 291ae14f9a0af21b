//! Choosing the next tokens: processors, warpers, then the best token or a draw, all on the logits' device.
//!
//! The order is that of Transformers' `_get_logits_processor`, on fp32 scores. One read of the device per call,
//! whatever the batch.

mod processors;
mod random;
mod report;
mod warpers;

use tch::{Device, Kind, Tensor};

use crate::engine::{Outcome, Sample};
pub use report::{NOT_FINITE, score};
use warpers::Candidates;

/// Tokens whose probabilities are cumulated at a time.
const DRAW_BLOCK: i64 = 512;

/// Chooses a token for each row of `logits`, `[rows, vocab]` of any floating kind, as its request says. A row whose
/// logits are not numbers, or whose request forbids every token, fails alone.
pub fn sample(logits: &Tensor, requests: &[&Sample]) -> Vec<Outcome> {
    if requests.is_empty() {
        return Vec::new();
    }
    let raw = logits.to_kind(Kind::Float);
    let scores = processors::apply(&raw, requests);
    report::outcomes(&raw, &choose(&scores, requests), requests)
}

/// The scores that a choice is made from, `[rows, vocab]` fp32: what Transformers' processors and warpers make of
/// `logits`.
pub fn processed_scores(logits: &Tensor, requests: &[&Sample]) -> Tensor {
    let scores = processors::apply(&logits.to_kind(Kind::Float), requests).copy();
    for Group { rows, request } in groups(requests) {
        let index = row_index(&rows, scores.device());
        let selected = scores.index_select(0, &index);
        let warped = match request.settings.do_sample {
            true => whole(&warpers::warp(&selected, &request.settings), &selected),
            false if request.settings.renormalize_logits => selected.log_softmax(-1, Kind::Float),
            false => selected,
        };
        let _ = scores.shallow_clone().index_copy_(0, &index, &warped);
    }
    scores
}

/// The chosen tokens, and how good the best one was: not a number, or -inf, where there was nothing to choose from.
struct Choice {
    /// `[rows]`, int64.
    ids: Tensor,
    /// `[rows]`, fp32.
    best: Tensor,
}

/// Rows whose requests choose in the same way.
struct Group<'a> {
    rows: Vec<usize>,
    request: &'a Sample,
}

fn groups<'a>(requests: &[&'a Sample]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    for (row, request) in requests.iter().enumerate() {
        let settings = &request.settings;
        let is_same = |group: &&mut Group| {
            let other = &group.request.settings;
            settings.do_sample == other.do_sample && warpers::alike(settings, other)
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.rows.push(row),
            None => groups.push(Group { rows: vec![row], request }),
        }
    }
    groups
}

/// One choice for each row of `scores`, `[rows, vocab]`.
fn choose(scores: &Tensor, requests: &[&Sample]) -> Choice {
    let groups = groups(requests);
    if let [group] = groups.as_slice() {
        return choose_alike(scores, group, requests);
    }
    let (num_rows, device) = (requests.len() as i64, scores.device());
    let mut choice = Choice {
        ids: Tensor::zeros([num_rows], (Kind::Int64, device)),
        best: Tensor::zeros([num_rows], (Kind::Float, device)),
    };
    for group in &groups {
        let index = row_index(&group.rows, device);
        let chosen = choose_alike(&scores.index_select(0, &index), group, requests);
        let _ = choice.ids.index_copy_(0, &index, &chosen.ids);
        let _ = choice.best.index_copy_(0, &index, &chosen.best);
    }
    choice
}

/// One choice for each row of a group; `scores` holds its rows only.
fn choose_alike(scores: &Tensor, group: &Group, requests: &[&Sample]) -> Choice {
    if !group.request.settings.do_sample {
        let (best, ids) = scores.max_dim(-1, false);
        return Choice { ids, best };
    }
    let uniforms: Vec<f64> = group
        .rows
        .iter()
        .map(|row| random::uniform(requests[*row].settings.seed, requests[*row].num_generated))
        .collect();
    let candidates = warpers::warp(scores, &group.request.settings);
    let drawn = draw(&candidates.scores, &uniforms);
    let ids = match &candidates.ids {
        Some(ids) => ids.gather(-1, &drawn, false),
        None => drawn,
    };
    Choice { ids: ids.squeeze_dim(-1), best: candidates.scores.amax(-1, false) }
}

/// An index into each row of `scores`, `[rows, n]` -> `[rows, 1]`: the first whose cumulated probability passes the
/// row's uniform number. Found first among blocks of tokens, then within one: cumulating a whole vocabulary takes
/// longer than all else.
fn draw(scores: &Tensor, uniforms: &[f64]) -> Tensor {
    let (num_rows, num_tokens) = scores.size2().expect("scores are [rows, n]");
    let uniforms = Tensor::from_slice(uniforms).to_device_(scores.device(), Kind::Double, true, false).unsqueeze(-1);
    let num_blocks = (num_tokens as u64).div_ceil(DRAW_BLOCK as u64) as i64;
    let probabilities = scores.softmax(-1, Kind::Float);
    let blocks = probabilities.constant_pad_nd([0, num_blocks * DRAW_BLOCK - num_tokens]);
    let blocks = blocks.view([num_rows, num_blocks, DRAW_BLOCK]);
    let masses = blocks.sum_dim_intlist(-1, false, Kind::Double); // [rows, blocks]
    let cumulated = masses.cumsum(-1, Kind::Double);
    let target = uniforms * cumulated.narrow(-1, -1, 1); // [rows, 1]; the total is nearly 1
    let block = first_beyond(&cumulated, &target);
    let before = cumulated.gather(-1, &block, false) - masses.gather(-1, &block, false);
    let index = block.unsqueeze(-1).expand([-1, -1, DRAW_BLOCK], false);
    let within = blocks.gather(1, &index, false).squeeze_dim(1).cumsum(-1, Kind::Double); // [rows, DRAW_BLOCK]
    (block * DRAW_BLOCK + first_beyond(&within, &(target - before))).clamp_max(num_tokens - 1)
}

/// The index of the first number of each row that is above the row's target: `[rows, n]`, `[rows, 1]` -> `[rows, 1]`.
fn first_beyond(ascending: &Tensor, target: &Tensor) -> Tensor {
    let last = ascending.size()[1] - 1;
    ascending.le_tensor(target).sum_dim_intlist(-1, true, Kind::Int64).clamp_max(last)
}

/// The candidates' scores among all tokens, -inf for the others. `like`: `[rows, vocab]`.
fn whole(candidates: &Candidates, like: &Tensor) -> Tensor {
    match &candidates.ids {
        None => candidates.scores.shallow_clone(),
        Some(ids) => like.full_like(f64::NEG_INFINITY).scatter(-1, ids, &candidates.scores),
    }
}

fn row_index(rows: &[usize], device: Device) -> Tensor {
    let rows: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    Tensor::from_slice(&rows).to_device_(device, Kind::Int64, true, false)
}
