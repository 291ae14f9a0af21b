//! What the model remembers of each running sequence: its slot.

use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::config::{Config, LayerType, TextConfig};
use super::pages::ask_for_huge;
use crate::engine::{Held, Picture, Slot};

/// The memory of all sequences that can run at once.
pub(super) struct Slots {
    /// One for each slot.
    sequences: Vec<Memory>,
    /// One for each layer, of all slots.
    layers: Vec<LayerMemory>,
}

/// What a slot remembers beside the layers' memories.
#[derive(Default)]
pub(super) struct Memory {
    /// Tokens that it holds.
    pub num_tokens: usize,
    /// Embeddings of pictures that are not consumed yet: [picture's tokens, hidden].
    pub pictures: Vec<(Arc<Picture>, Tensor)>,
}

enum LayerMemory {
    Recurrent(States),
    KeyValues(Vec<KeyValues>),
}

impl Slots {
    /// `num_slots` empty slots for activations of `kind` on `device`. Memory is taken when a slot is first used.
    pub fn new(num_slots: usize, config: &Config, (kind, device): (Kind, Device)) -> Slots {
        let layer = |layer_type: &LayerType| match layer_type {
            LayerType::LinearAttention => LayerMemory::Recurrent(States::new(num_slots, &config.text, (kind, device))),
            LayerType::FullAttention => {
                let empty = |_| KeyValues::new(&config.text, kind, device);
                LayerMemory::KeyValues((0..num_slots).map(empty).collect())
            }
        };
        Slots {
            sequences: (0..num_slots).map(|_| Memory::default()).collect(),
            layers: config.text.layer_types.iter().map(layer).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    pub fn memory(&mut self, slot: Slot) -> &mut Memory {
        &mut self.sequences[slot.0]
    }

    /// Forgets an ended sequence. The keys' and values' memory is given back, the recurrent states' is kept.
    pub fn release(&mut self, slot: Slot) {
        *self.memory(slot) = Memory::default();
        for layer in &mut self.layers {
            if let LayerMemory::KeyValues(key_values) = layer {
                key_values[slot.0].clear();
            }
        }
    }

    /// Makes a slot ready for a new sequence, whatever it held.
    pub fn begin(&mut self, slot: Slot) {
        self.release(slot);
        for layer in &mut self.layers {
            if let LayerMemory::Recurrent(states) = layer {
                states.begin(slot);
            }
        }
    }

    /// What the slots hold that were begun and not released.
    pub fn held(&self) -> Held {
        let capacities = self.layers.iter().filter_map(|layer| match layer {
            LayerMemory::KeyValues(key_values) => Some(key_values.iter().map(|store| store.capacity as usize).sum()),
            LayerMemory::Recurrent(_) => None,
        });
        Held {
            sequences: self.sequences.iter().filter(|memory| memory.num_tokens > 0).count(),
            kv_tokens: capacities.max().unwrap_or(0),
            pictures: self.sequences.iter().map(|memory| memory.pictures.len()).sum(),
        }
    }

    /// The states of a layer of linear attention.
    pub fn states(&self, layer: usize) -> &States {
        match &self.layers[layer] {
            LayerMemory::Recurrent(states) => states,
            LayerMemory::KeyValues(_) => unreachable!("Invariant: layers and their memories are made from one list"),
        }
    }

    /// The keys and values of a layer of full attention.
    pub fn key_values(&mut self, slot: Slot, layer: usize) -> &mut KeyValues {
        match &mut self.layers[layer] {
            LayerMemory::KeyValues(key_values) => &mut key_values[slot.0],
            LayerMemory::Recurrent(_) => unreachable!("Invariant: layers and their memories are made from one list"),
        }
    }
}

/// What a Gated DeltaNet layer carries from token to token, whatever the length. The slots' states lie side by side, so that
/// those of neighbouring slots are one tensor.
pub(super) struct States {
    conv: Tensor,
    rule: Tensor,
    num_slots: usize,
}

impl States {
    fn new(num_slots: usize, text: &TextConfig, (kind, device): (Kind, Device)) -> States {
        let keys = text.linear_num_key_heads * text.linear_key_head_dim;
        let values = text.linear_num_value_heads * text.linear_value_head_dim;
        let conv_shape = [0, text.linear_conv_kernel_dim as i64 - 1, (2 * keys + values) as i64];
        let heads = text.linear_num_value_heads as i64;
        let rule_shape = [0, heads, text.linear_key_head_dim as i64, text.linear_value_head_dim as i64];
        States {
            conv: Tensor::empty(conv_shape, (kind, device)),
            rule: Tensor::empty(rule_shape, (Kind::Float, device)),
            num_slots,
        }
    }

    /// The convolution's windows into the past of some slots, to be changed in place: the last rows of the projection before
    /// it, [slots, kernel - 1, channels].
    pub fn conv(&self, slots: &Range<usize>) -> Tensor {
        self.conv.narrow(0, slots.start as i64, slots.len() as i64)
    }

    /// The delta rule's matrices of some slots, to be changed in place: [slots, value heads, key_dim, value_dim], fp32.
    pub fn rule(&self, slots: &Range<usize>) -> Tensor {
        self.rule.narrow(0, slots.start as i64, slots.len() as i64)
    }

    /// Zeros for a sequence that begins.
    fn begin(&mut self, slot: Slot) {
        self.grow(slot.0 + 1);
        let slot = slot.0..slot.0 + 1;
        let _ = self.conv(&slot).zero_();
        let _ = self.rule(&slot).zero_();
    }

    /// Makes room for so many slots, and for twice as many as there were: a server of one client never pays for the slots of
    /// a large batch, and a busy one moves its states a few times only.
    fn grow(&mut self, needed: usize) {
        let held = self.rule.size()[0] as usize;
        if needed <= held {
            return;
        }
        let wanted = (2 * held).min(self.num_slots).max(needed) as i64;
        for store in [&mut self.conv, &mut self.rule] {
            let mut shape = store.size();
            shape[0] = wanted;
            let larger = Tensor::empty(shape, (store.kind(), store.device()));
            ask_for_huge(&larger);
            larger.narrow(0, 0, held as i64).copy_(store);
            *store = larger;
        }
    }
}

/// Keys and values of one sequence in one layer, contiguous: [kv_heads, capacity, head_dim] each.
pub(super) struct KeyValues {
    keys: Option<Tensor>,
    values: Option<Tensor>,
    num_tokens: i64,
    capacity: i64,
    num_heads: i64,
    head_dim: i64,
    kind: Kind,
    device: Device,
}

impl KeyValues {
    /// The first allocation, in tokens; it doubles from there.
    const FIRST_CAPACITY: i64 = 256;

    fn new(text: &TextConfig, kind: Kind, device: Device) -> KeyValues {
        let (num_heads, head_dim) = (text.num_key_value_heads as i64, text.head_dim as i64);
        KeyValues { keys: None, values: None, num_tokens: 0, capacity: 0, num_heads, head_dim, kind, device }
    }

    fn clear(&mut self) {
        (self.keys, self.values, self.num_tokens, self.capacity) = (None, None, 0, 0);
    }

    /// Appends keys and values [tokens, kv_heads, head_dim] of a sequence that will not outgrow `max_len`, and returns
    /// all there are: views of [kv_heads, num_tokens, head_dim].
    pub fn append(&mut self, keys: &Tensor, values: &Tensor, max_len: i64) -> (Tensor, Tensor) {
        let added = keys.size()[0];
        let total = self.num_tokens + added;
        if total > self.capacity {
            self.grow(total, max_len);
        }
        let put = |store: &Option<Tensor>, new: &Tensor| {
            let store = store.as_ref().expect("Invariant: a store that has grown is there");
            store.narrow(1, self.num_tokens, added).copy_(&new.transpose(0, 1));
            store.narrow(1, 0, total)
        };
        let all = (put(&self.keys, keys), put(&self.values, values));
        self.num_tokens = total;
        all
    }

    fn grow(&mut self, needed: i64, max_len: i64) {
        let doubled = (2 * self.capacity).max(KeyValues::FIRST_CAPACITY);
        self.capacity = doubled.min(max_len).max(needed);
        let shape = [self.num_heads, self.capacity, self.head_dim];
        for store in [&mut self.keys, &mut self.values] {
            let larger = Tensor::empty(shape, (self.kind, self.device));
            ask_for_huge(&larger);
            if let Some(old) = store.take() {
                larger.narrow(1, 0, self.num_tokens).copy_(&old.narrow(1, 0, self.num_tokens));
            }
            *store = Some(larger);
        }
    }
}
