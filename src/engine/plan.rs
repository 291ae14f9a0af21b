//! The memory plan: how many sequences, of which length, fit in the memory there is. Made once at the start, from costs
//! alone: it clamps what was asked for rather than refuse to start, and the engine obeys it.

use serde::Serialize;

use super::picture_room::{PicturePlace, PictureRoom};

/// What a model costs, in bytes; told by whoever knows its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Counted once: mapped weights are the files in the page cache.
    pub weights: u64,
    /// The activations of the largest step, whatever the context.
    pub step: u64,
    /// What a step needs beside that for each token that a sequence may have.
    pub step_per_context_token: u64,
    /// The vision tower's activations for each token of a picture.
    pub vision_per_token: u64,
    /// Tokens of the largest picture; 0 without a vision tower.
    pub largest_picture: usize,
    /// Tokens of smaller pictures that the tower sees at once; 0 without one.
    pub pictures_a_pass: usize,
    /// What a sequence holds whatever its length: its recurrent states.
    pub per_sequence: u64,
    /// Keys and values of one token of one sequence.
    pub per_kv_token: u64,
}

impl Costs {
    /// The vision tower's activations, where sequences have at most `max_model_len` tokens.
    fn vision(&self, max_model_len: usize) -> u64 {
        self.vision_per_token * self.largest_picture.min(max_model_len).max(self.pictures_a_pass) as u64
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Sequences at the same time; at least 1.
    pub max_batch_size: usize,
    /// Tokens of the longest sequence; `None` leaves them to the plan.
    pub max_model_len: Option<usize>,
    /// Tokens of the longest sequence that the model was made for.
    pub trained_len: usize,
    /// Room for the prepared pictures of requests.
    pub pictures: PictureRoom,
    /// Bytes for what the vision tower made of pictures, which is kept for those that come again.
    pub picture_cache: u64,
}

/// What is served within which memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// Where the model computes: a device, or several with a whole model and memory like this each.
    pub device: String,
    /// `None` where nobody knows: then nothing is clamped.
    pub available_bytes: Option<u64>,
    pub weights_bytes: u64,
    /// Activations of the largest step.
    pub step_bytes: u64,
    /// The vision tower's activations for the largest picture, or for several smaller ones at once.
    pub picture_bytes: u64,
    /// Recurrent states of all sequences.
    pub sequences_bytes: u64,
    /// Keys and values of all sequences.
    pub kv_bytes: u64,
    /// Prepared pictures of the requests that wait or run.
    pub waiting_pictures_bytes: u64,
    pub waiting_pictures_place: PicturePlace,
    /// What is kept of pictures that were seen, at most.
    pub picture_cache_bytes: u64,
    /// The sum of those above, less pictures that are not in this memory.
    pub planned_bytes: u64,
    /// Recurrent states of one sequence.
    pub bytes_per_sequence: u64,
    /// Keys and values of one token.
    pub bytes_per_kv_token: u64,
    /// Tokens of the largest picture that fits in the context; 0 without a vision tower.
    pub largest_picture_tokens: usize,
    pub wanted_batch_size: usize,
    pub wanted_model_len: Option<usize>,
    /// Sequences at the same time.
    pub max_batch_size: usize,
    /// Tokens of the longest sequence, prompt included.
    pub max_model_len: usize,
    /// Tokens whose keys and values fit, over all sequences.
    pub max_kv_tokens: usize,
}

/// The context that is offered unasked although not all sequences can have it at once: more than most requests need.
const USUAL_MODEL_LEN: usize = 32_768;
/// Below this context, fewer sequences at once are better than a shorter one.
const SHORT_MODEL_LEN: usize = 4096;
/// The least that is offered, whatever the memory: a server that answers short questions beats none.
const LEAST_MODEL_LEN: usize = 256;
/// A context that the plan chooses is a multiple of this.
const GRAIN: usize = 256;

impl MemoryPlan {
    /// What of `wanted` fits in `available_bytes` on `device`.
    ///
    /// A context that was asked for is kept as long as one sequence of it fits: first fewer sequences run at once, then the
    /// context shrinks. One that was not asked for is as long as all sequences can have at once, or where that is less than
    /// 32768, as one of them can have beside the others' states, up to 32768. Keys and values share what is left: such a
    /// plan runs many short sequences at once, or few long ones.
    pub fn new(costs: &Costs, wanted: Wanted, device: String, available_bytes: Option<u64>) -> MemoryPlan {
        let pictures = wanted.pictures;
        let pictures_here = if pictures.place == PicturePlace::Device { pictures.bytes } else { 0 };
        let set_aside = pictures_here.saturating_add(wanted.picture_cache);
        let memory = Memory { costs, bytes: available_bytes.map(|bytes| bytes.saturating_sub(set_aside)) };
        let wished = wanted.max_model_len.unwrap_or_else(|| memory.default_len(wanted)).min(wanted.trained_len);
        let batch = (1..=wanted.max_batch_size).rev().find(|batch| memory.fits(*batch, wished));
        let (max_batch_size, max_model_len) = match batch {
            Some(batch) => (batch, wished),
            None => (1, longest(wished, |len| memory.fits(1, len)).max(LEAST_MODEL_LEN.min(wished))),
        };
        let all_at_once = max_batch_size.saturating_mul(max_model_len);
        let max_kv_tokens = memory.kv_tokens(max_batch_size, max_model_len).clamp(max_model_len, all_at_once);
        let largest_picture_tokens = costs.largest_picture.min(max_model_len);
        let mut plan = MemoryPlan {
            device,
            available_bytes,
            weights_bytes: costs.weights,
            step_bytes: costs.step + costs.step_per_context_token * max_model_len as u64,
            picture_bytes: costs.vision(max_model_len),
            sequences_bytes: costs.per_sequence * max_batch_size as u64,
            kv_bytes: costs.per_kv_token * max_kv_tokens as u64,
            waiting_pictures_bytes: pictures.bytes,
            waiting_pictures_place: pictures.place,
            picture_cache_bytes: wanted.picture_cache,
            planned_bytes: set_aside,
            bytes_per_sequence: costs.per_sequence,
            bytes_per_kv_token: costs.per_kv_token,
            largest_picture_tokens,
            wanted_batch_size: wanted.max_batch_size,
            wanted_model_len: wanted.max_model_len,
            max_batch_size,
            max_model_len,
            max_kv_tokens,
        };
        plan.planned_bytes +=
            plan.weights_bytes + plan.step_bytes + plan.picture_bytes + plan.sequences_bytes + plan.kv_bytes;
        plan
    }

    /// Bytes that the plan lacks: even the least does not fit.
    pub fn lacking_bytes(&self) -> u64 {
        self.available_bytes.map_or(0, |available| self.planned_bytes.saturating_sub(available))
    }

    /// What was asked for and does not fit, in words; empty where everything does.
    pub fn clamped(&self) -> Vec<String> {
        let mut clamped = Vec::new();
        if self.max_batch_size < self.wanted_batch_size {
            let (fits, wanted) = (self.max_batch_size, self.wanted_batch_size);
            clamped.push(format!("--max-batch-size {wanted} does not fit in the memory: {fits} at once"));
        }
        if let Some(wanted) = self.wanted_model_len.filter(|wanted| *wanted > self.max_model_len) {
            clamped.push(format!("--max-model-len {wanted} does not fit in the memory: {} tokens", self.max_model_len));
        }
        if self.lacking_bytes() > 0 {
            clamped.push(format!(
                "the model needs {} more than there is: it may be slow, or killed",
                in_units(self.lacking_bytes())
            ));
        }
        clamped
    }

    /// The plan for a person, a line for each part.
    pub fn table(&self) -> String {
        let (picture, pictures) = match (self.largest_picture_tokens, self.waiting_pictures_place) {
            (0, _) => ("no vision tower".to_owned(), ""),
            (tokens, PicturePlace::Device) => (format!("the largest, {tokens} tokens"), "of requests that wait or run"),
            (tokens, PicturePlace::Host) => (
                format!("the largest, {tokens} tokens"),
                "of requests that wait or run, in the machine's own memory: not part of the plan",
            ),
        };
        let available = self.available_bytes.map_or("unknown".to_owned(), in_units);
        let each = |bytes: u64, what: &str| format!("{what}, {} each", in_units(bytes));
        let rows = [
            ("available", available, format!("on {}", self.device)),
            ("weights", in_units(self.weights_bytes), String::new()),
            ("a step", in_units(self.step_bytes), "activations of the largest".to_owned()),
            ("a picture", in_units(self.picture_bytes), picture),
            (
                "states",
                in_units(self.sequences_bytes),
                each(self.bytes_per_sequence, &count(self.max_batch_size, "sequence")),
            ),
            (
                "keys, values",
                in_units(self.kv_bytes),
                each(self.bytes_per_kv_token, &format!("{} tokens", self.max_kv_tokens)),
            ),
            ("pictures", in_units(self.waiting_pictures_bytes), pictures.to_owned()),
            ("seen pictures", in_units(self.picture_cache_bytes), "kept for those that come again".to_owned()),
            ("planned", in_units(self.planned_bytes), String::new()),
            (
                "serves",
                String::new(),
                format!("{} at once, of at most {} tokens", self.max_batch_size, self.max_model_len),
            ),
        ];
        let line = |(what, size, detail): &(&str, String, String)| format!("{what:<13}{size:>11}  {detail}");
        rows.iter().map(|row| line(row).trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

/// The memory to plan for, and what is put there.
struct Memory<'a> {
    costs: &'a Costs,
    bytes: Option<u64>,
}

impl Memory<'_> {
    /// Tokens whose keys and values fit beside everything else, with `batch` sequences and a context of `len`.
    fn kv_tokens(&self, batch: usize, len: usize) -> usize {
        let Some(bytes) = self.bytes else { return usize::MAX };
        let costs = self.costs;
        let others = costs.weights
            + costs.step
            + costs.step_per_context_token * len as u64
            + costs.vision(len)
            + costs.per_sequence * batch as u64;
        match bytes.checked_sub(others) {
            Some(left) => left.checked_div(costs.per_kv_token).map_or(usize::MAX, |tokens| tokens as usize),
            None => 0,
        }
    }

    /// Whether `batch` sequences may run at once, one of them of `len` tokens.
    fn fits(&self, batch: usize, len: usize) -> bool {
        self.kv_tokens(batch, len) >= len.max(1)
    }

    /// The context where none was asked for.
    fn default_len(&self, wanted: Wanted) -> usize {
        let usual = wanted.trained_len.min(USUAL_MODEL_LEN);
        if self.bytes.is_none() {
            return usual;
        }
        let batch = wanted.max_batch_size;
        let for_all = longest(wanted.trained_len, |len| self.kv_tokens(batch, len) >= batch.saturating_mul(len));
        let for_one = longest(usual, |len| self.fits(batch, len));
        for_all.max(for_one).max(SHORT_MODEL_LEN)
    }
}

/// The longest context up to `most` that `fits`, which shorter ones do where a longer one does.
fn longest(most: usize, fits: impl Fn(usize) -> bool) -> usize {
    if fits(most) {
        return most;
    }
    let (mut fitting, mut failing) = (0, most.div_ceil(GRAIN)); // in grains
    while failing - fitting > 1 {
        let middle = fitting.midpoint(failing);
        if fits(middle * GRAIN) { fitting = middle } else { failing = middle }
    }
    fitting * GRAIN
}

/// "1 sequence", "8 sequences"
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// "8.5 GiB"
fn in_units(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Costs, MemoryPlan, PicturePlace, PictureRoom, Wanted};

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    /// Of the size of a model of four billion weights.
    const COSTS: Costs = Costs {
        weights: 8 * GIB,
        step: 128 * MIB,
        step_per_context_token: 1536,
        vision_per_token: 128 << 10,
        largest_picture: 16_384,
        pictures_a_pass: 512,
        per_sequence: 49 * MIB,
        per_kv_token: 32 << 10,
    };

    const NO_PICTURES: PictureRoom = PictureRoom { bytes: 0, place: PicturePlace::Device };

    fn wanted(max_model_len: Option<usize>) -> Wanted {
        Wanted { max_batch_size: 8, max_model_len, trained_len: 262_144, pictures: NO_PICTURES, picture_cache: 0 }
    }

    fn plan(wanted: Wanted, available: u64) -> MemoryPlan {
        MemoryPlan::new(&COSTS, wanted, "cpu".to_owned(), Some(available))
    }

    #[test]
    fn with_memory_for_everything_nothing_is_clamped() {
        let plan = plan(wanted(None), 80 * GIB);
        assert_eq!((plan.max_batch_size, plan.max_model_len, plan.max_kv_tokens), (8, 262_144, 8 * 262_144));
        assert!(plan.clamped().is_empty());
    }

    #[test]
    fn a_context_that_was_not_asked_for_is_what_all_sequences_can_have_at_once() {
        let plan = plan(wanted(None), 40 * GIB);
        assert_eq!(plan.max_batch_size, 8);
        assert!(plan.max_model_len > 100_000 && plan.max_model_len.is_multiple_of(256), "{}", plan.max_model_len);
        assert!(plan.max_kv_tokens >= 8 * plan.max_model_len && plan.lacking_bytes() == 0);
    }

    #[test]
    fn a_small_memory_keeps_the_usual_context_and_shares_keys_and_values() {
        let plan = plan(wanted(None), 14 * GIB);
        assert_eq!((plan.max_batch_size, plan.max_model_len), (8, 32_768));
        assert!((32_768..8 * 32_768).contains(&plan.max_kv_tokens), "{}", plan.max_kv_tokens);
        assert!(plan.planned_bytes <= 14 * GIB && plan.planned_bytes > 14 * GIB - MIB);
    }

    #[test]
    fn a_context_that_was_not_asked_for_yields_before_sequences_do_until_it_is_short() {
        let plan = |room| plan(wanted(None), COSTS.weights + COSTS.step + 8 * COSTS.per_sequence + room);
        let (some, little) = (plan(2 * GIB), plan(400 * MIB));
        assert_eq!(some.max_batch_size, 8);
        assert!((4096..32_768).contains(&some.max_model_len), "{some:?}");
        assert_eq!(little.max_model_len, 4096);
        assert!(little.max_batch_size < 8 && little.lacking_bytes() == 0, "{little:?}");
    }

    #[test]
    fn fewer_sequences_run_at_once_before_the_context_shrinks() {
        let room_for_one = COSTS.weights + COSTS.step + 16_384 * (128 << 10) + 65_536 * ((32 << 10) + 1536);
        let plan = plan(wanted(Some(65_536)), room_for_one + 3 * COSTS.per_sequence);
        assert_eq!((plan.max_batch_size, plan.max_model_len, plan.max_kv_tokens), (3, 65_536, 65_536));
        assert_eq!(plan.clamped(), ["--max-batch-size 8 does not fit in the memory: 3 at once"]);
    }

    #[test]
    fn the_context_shrinks_where_not_even_one_sequence_fits() {
        let plan = plan(wanted(Some(262_144)), 12 * GIB);
        assert_eq!(plan.max_batch_size, 1);
        assert!(plan.max_model_len < 65_536 && plan.lacking_bytes() == 0, "{plan:?}");
        assert!(plan.clamped()[1].starts_with("--max-model-len 262144 does not fit in the memory: "), "{plan:?}");
    }

    #[test]
    fn a_tiny_memory_still_serves_something_and_says_what_is_lacking() {
        for available in [0, GIB, COSTS.weights] {
            let plan = plan(wanted(None), available);
            assert_eq!((plan.max_batch_size, plan.max_model_len, plan.max_kv_tokens), (1, 256, 256));
            assert!(plan.lacking_bytes() > 0 && plan.clamped().last().unwrap().contains("may be slow"), "{plan:?}");
        }
    }

    #[test]
    fn the_pictures_of_requests_take_their_room_from_keys_and_values_unless_they_are_elsewhere() {
        let plan = |bytes, place| plan(Wanted { pictures: PictureRoom { bytes, place }, ..wanted(None) }, 14 * GIB);
        let (none, here, elsewhere) =
            (plan(0, PicturePlace::Device), plan(GIB, PicturePlace::Device), plan(GIB, PicturePlace::Host));
        assert_eq!(none.max_kv_tokens - here.max_kv_tokens, (GIB / COSTS.per_kv_token) as usize);
        assert_eq!(
            (here.lacking_bytes(), here.planned_bytes - here.kv_bytes),
            (0, none.planned_bytes - none.kv_bytes + GIB)
        );
        assert_eq!((elsewhere.max_kv_tokens, elsewhere.planned_bytes), (none.max_kv_tokens, none.planned_bytes));
        assert!(here.table().contains("pictures         1.0 GiB  of requests that wait or run\n"), "{}", here.table());
        assert!(elsewhere.table().contains("the machine's own memory"), "{}", elsewhere.table());
    }

    #[test]
    fn what_is_kept_of_seen_pictures_takes_its_room_from_keys_and_values() {
        let (none, some) =
            (plan(wanted(None), 14 * GIB), plan(Wanted { picture_cache: 256 * MIB, ..wanted(None) }, 14 * GIB));
        assert_eq!(none.max_kv_tokens - some.max_kv_tokens, (256 * MIB / COSTS.per_kv_token) as usize);
        assert!(some.table().contains("seen pictures  256.0 MiB"), "{}", some.table());
    }

    #[test]
    fn small_pictures_need_room_to_be_seen_several_at_once() {
        let picture_bytes = |largest_picture| {
            let costs = Costs { largest_picture, ..COSTS };
            MemoryPlan::new(&costs, wanted(None), "cpu".to_owned(), Some(80 * GIB)).picture_bytes
        };
        assert_eq!((picture_bytes(25), picture_bytes(1024)), (512 * (128 << 10), 1024 * (128 << 10)));
    }

    #[test]
    fn without_knowledge_of_the_memory_everything_is_as_asked() {
        let plan = MemoryPlan::new(&COSTS, wanted(None), "cuda:0".to_owned(), None);
        assert_eq!((plan.max_batch_size, plan.max_model_len, plan.max_kv_tokens), (8, 32_768, 8 * 32_768));
        assert!(plan.clamped().is_empty());
    }

    #[test]
    fn a_context_never_exceeds_what_the_model_was_made_for() {
        let short = Wanted { trained_len: 4096, ..wanted(None) };
        assert_eq!(plan(short, 80 * GIB).max_model_len, 4096);
        assert_eq!(plan(short, 12 * GIB).max_model_len, 4096);
    }

    #[test]
    fn the_table_says_everything_in_a_few_lines() {
        let table = plan(wanted(None), 14 * GIB).table();
        assert!(
            table.contains("weights          8.0 GiB") && table.contains("8 at once, of at most 32768 tokens"),
            "{table}"
        );
    }

    mod any {
        use proptest::prelude::*;

        use super::super::{Costs, MemoryPlan, PicturePlace, PictureRoom, Wanted};

        proptest! {
            #[test]
            fn a_plan_fits_or_is_the_least_there_is(
                available in 0_u64..1 << 40,
                (weights, step, vision_per_token) in (0_u64..1 << 36, 0_u64..1 << 30, 0_u64..1 << 18),
                (per_sequence, per_kv_token) in (0_u64..1 << 28, 0_u64..1 << 18),
                (max_batch_size, trained_len) in (1_usize..1024, 1_usize..1 << 20),
                asked in proptest::option::of(1_usize..1 << 20),
                (picture_bytes, picture_cache) in (0_u64..1 << 30, 0_u64..1 << 30),
            ) {
                let costs = Costs {
                    weights, step, step_per_context_token: 100, vision_per_token, largest_picture: 16_384, pictures_a_pass: 512,
                    per_sequence, per_kv_token,
                };
                let max_model_len = asked.map(|len| len.min(trained_len));
                let pictures = PictureRoom { bytes: picture_bytes, place: PicturePlace::Device };
                let wanted = Wanted { max_batch_size, max_model_len, trained_len, pictures, picture_cache };
                let plan = MemoryPlan::new(&costs, wanted, "cpu".to_owned(), Some(available));
                prop_assert!((1..=max_batch_size).contains(&plan.max_batch_size));
                prop_assert!((1..=max_model_len.unwrap_or(trained_len)).contains(&plan.max_model_len));
                prop_assert!(plan.max_kv_tokens >= plan.max_model_len);
                let is_least = plan.max_batch_size == 1 && plan.max_model_len <= 256;
                prop_assert!(plan.planned_bytes <= available || is_least, "{plan:?}");
            }
        }
    }
}
