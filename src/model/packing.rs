//! A step's rows as one list of tokens, so that norms, linears and MLPs run once for all of them.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::engine::{Row, Slot};

/// The rows of a step, one after the other.
pub(super) struct Packed {
    pub ids: Tensor,       // [tokens]
    pub positions: Tensor, // [3, tokens]
    /// One for each row, in their order.
    pub spans: Vec<Span>,
    /// The same tokens, in as few batches as the recurrent layers can take them in.
    pub batches: Vec<Batch>,
}

/// Where one row's tokens lie in the packed list, and which sequence they continue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub slot: Slot,
    /// Its first token in the packed list.
    pub first: i64,
    pub len: i64,
    /// Tokens that the sequence may grow to.
    pub max_len: i64,
}

/// The tokens whose outputs are asked for, where these are not all: the last ones of every row. The last layer computes no
/// others.
pub(super) struct Asked {
    /// Where each row's lie in the packed list.
    within: Vec<Span>,
    /// Where they lie among themselves.
    pub spans: Vec<Span>,
}

impl Asked {
    /// Up to `most` tokens of each span; `None` where there are no more.
    pub fn last_of(spans: &[Span], most: i64) -> Option<Asked> {
        if spans.iter().all(|span| span.len <= most) {
            return None;
        }
        let within = spans.iter().map(|span| {
            let len = span.len.min(most);
            Span { first: span.first + span.len - len, len, ..*span }
        });
        let within: Vec<Span> = within.collect();
        let mut end = 0;
        let spans = within.iter().map(|span| {
            end += span.len;
            Span { first: end - span.len, ..*span }
        });
        Some(Asked { spans: spans.collect(), within })
    }

    /// Their part of a packed tensor [tokens, ...].
    pub fn of(&self, packed: &Tensor) -> Tensor {
        pack(self.within.iter().map(|span| span.of(packed)).collect())
    }
}

/// Rows that a recurrent layer runs as one, because their states lie side by side: one token of each of some sequences in
/// neighbouring slots, or any number of tokens of a single one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    pub slots: Range<usize>,
    /// Its first token in the packed list.
    pub first: i64,
    /// All its tokens.
    pub len: i64,
}

impl Batch {
    /// This batch's part of a packed tensor [tokens, ...].
    pub fn of(&self, packed: &Tensor) -> Tensor {
        packed.narrow(0, self.first, self.len)
    }

    /// Whether every sequence has a single token.
    pub fn is_one_each(&self) -> bool {
        self.len == self.slots.len() as i64
    }
}

impl Span {
    /// This row's part of a packed tensor [tokens, ...].
    pub fn of(&self, packed: &Tensor) -> Tensor {
        packed.narrow(0, self.first, self.len)
    }

    /// The row's last token: [1, ...].
    pub fn last_of(&self, packed: &Tensor) -> Tensor {
        packed.narrow(0, self.first + self.len - 1, 1)
    }
}

impl Packed {
    pub fn new(rows: &[&Row], device: Device) -> Packed {
        let mut spans = Vec::with_capacity(rows.len());
        let mut numbers: [Vec<i64>; 4] = Default::default(); // ids, t, h, w
        for row in rows {
            let (first, len) = (numbers[0].len() as i64, row.ids.len() as i64);
            spans.push(Span { slot: row.slot, first, len, max_len: row.max_len as i64 });
            numbers[0].extend(row.ids.iter().map(|id| i64::from(*id)));
            for axis in 0..3 {
                numbers[axis + 1].extend(row.positions.iter().map(|position| position[axis]));
            }
        }
        // One upload, which a CUDA device need not be waited for.
        let host = Tensor::from_slice(&numbers.concat()).view([4, -1]);
        let numbers = host.to_device_(device, Kind::Int64, true, false);
        Packed { ids: numbers.get(0), positions: numbers.narrow(0, 1, 3), batches: batches(&spans), spans }
    }
}

/// Joins neighbours among `spans`: in the list of tokens, and in the slots.
fn batches(spans: &[Span]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for span in spans {
        match batches.last_mut() {
            Some(batch) if batch.is_one_each() && span.len == 1 && batch.slots.end == span.slot.0 => {
                batch.slots.end += 1;
                batch.len += 1;
            }
            _ => batches.push(Batch { slots: span.slot.0..span.slot.0 + 1, first: span.first, len: span.len }),
        }
    }
    batches
}

/// Puts what each span made, [span's tokens, ...], back into one packed tensor.
pub(super) fn pack(mut parts: Vec<Tensor>) -> Tensor {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0) }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::{Asked, Span};
    use crate::engine::Slot;

    #[test]
    fn of_every_row_its_last_tokens_are_asked_for() {
        let span = |slot, first, len| Span { slot: Slot(slot), first, len, max_len: 9 };
        let spans = [span(3, 0, 2), span(1, 2, 5), span(0, 7, 4)];
        let asked = Asked::last_of(&spans, 3).unwrap();
        assert_eq!(asked.spans, [span(3, 0, 2), span(1, 2, 3), span(0, 5, 3)]);
        let tokens = asked.of(&Tensor::from_slice(&[0_i64, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).unsqueeze(1));
        assert!(tokens.squeeze_dim(1).equal(&Tensor::from_slice(&[0_i64, 1, 4, 5, 6, 8, 9, 10])));
        assert!(Asked::last_of(&spans, 5).is_none());
    }
}
