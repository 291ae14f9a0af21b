//! What the model remembers of each running sequence: its slot.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::config::{Config, LayerType, TextConfig};
use crate::engine::{Picture, Slot};

/// The memory of all sequences that can run at once.
pub(super) struct Slots {
    slots: Vec<Memory>,
}

/// The memory of one sequence.
pub(super) struct Memory {
    /// Tokens that it holds.
    pub num_tokens: usize,
    layers: Vec<LayerMemory>,
    /// Embeddings of pictures that are not consumed yet: [picture's tokens, hidden].
    pub pictures: Vec<(Arc<Picture>, Tensor)>,
}

enum LayerMemory {
    Recurrent(Recurrent),
    KeyValues(KeyValues),
}

impl Slots {
    /// `num_slots` empty slots for activations of `kind` on `device`. Memory is taken when a slot is first used.
    pub fn new(num_slots: usize, config: &Config, (kind, device): (Kind, Device)) -> Slots {
        let layer = |layer_type: &LayerType| match layer_type {
            LayerType::LinearAttention => LayerMemory::Recurrent(Recurrent::new(&config.text, kind, device)),
            LayerType::FullAttention => LayerMemory::KeyValues(KeyValues::new(&config.text, kind, device)),
        };
        let memory = |_| Memory {
            num_tokens: 0,
            layers: config.text.layer_types.iter().map(layer).collect(),
            pictures: Vec::new(),
        };
        Slots { slots: (0..num_slots).map(memory).collect() }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn memory(&mut self, slot: Slot) -> &mut Memory {
        &mut self.slots[slot.0]
    }

    /// Forgets an ended sequence. The keys' and values' memory is given back, the recurrent states' is kept.
    pub fn release(&mut self, slot: Slot) {
        let memory = self.memory(slot);
        memory.num_tokens = 0;
        memory.pictures.clear();
        for layer in &mut memory.layers {
            if let LayerMemory::KeyValues(key_values) = layer {
                key_values.clear();
            }
        }
    }

    /// Makes a slot ready for a new sequence, whatever it held.
    pub fn begin(&mut self, slot: Slot) {
        self.release(slot);
        for layer in &mut self.memory(slot).layers {
            if let LayerMemory::Recurrent(recurrent) = layer {
                recurrent.zero();
            }
        }
    }

    /// The state of a layer of linear attention.
    pub fn recurrent(&mut self, slot: Slot, layer: usize) -> &mut Recurrent {
        match &mut self.slots[slot.0].layers[layer] {
            LayerMemory::Recurrent(recurrent) => recurrent,
            LayerMemory::KeyValues(_) => unreachable!("Invariant: layers and their memories are made from one list"),
        }
    }

    /// The keys and values of a layer of full attention.
    pub fn key_values(&mut self, slot: Slot, layer: usize) -> &mut KeyValues {
        match &mut self.slots[slot.0].layers[layer] {
            LayerMemory::KeyValues(key_values) => key_values,
            LayerMemory::Recurrent(_) => unreachable!("Invariant: layers and their memories are made from one list"),
        }
    }
}

/// What a Gated DeltaNet layer carries from token to token, whatever the length.
pub(super) struct Recurrent {
    /// The last columns of the projection before the convolution: [channels, kernel - 1].
    conv: Option<Tensor>,
    /// The delta rule's matrix: [value heads, key_head_dim, value_head_dim], fp32.
    state: Option<Tensor>,
    conv_shape: [i64; 2],
    state_shape: [i64; 3],
    kind: Kind,
    device: Device,
}

impl Recurrent {
    fn new(text: &TextConfig, kind: Kind, device: Device) -> Recurrent {
        let keys = text.linear_num_key_heads * text.linear_key_head_dim;
        let values = text.linear_num_value_heads * text.linear_value_head_dim;
        let conv_shape = [(2 * keys + values) as i64, text.linear_conv_kernel_dim as i64 - 1];
        let heads = text.linear_num_value_heads as i64;
        let state_shape = [heads, text.linear_key_head_dim as i64, text.linear_value_head_dim as i64];
        Recurrent { conv: None, state: None, conv_shape, state_shape, kind, device }
    }

    fn zero(&mut self) {
        for tensor in [&mut self.conv, &mut self.state].into_iter().flatten() {
            let _ = tensor.zero_();
        }
    }

    /// The convolution's window into the past; zeros at the start of a sequence.
    pub fn conv(&mut self) -> &mut Tensor {
        self.conv.get_or_insert_with(|| Tensor::zeros(self.conv_shape, (self.kind, self.device)))
    }

    /// The delta rule's state, changed in place; zeros at the start of a sequence.
    pub fn state(&mut self) -> &mut Tensor {
        self.state.get_or_insert_with(|| Tensor::zeros(self.state_shape, (Kind::Float, self.device)))
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
            if let Some(old) = store.take() {
                larger.narrow(1, 0, self.num_tokens).copy_(&old.narrow(1, 0, self.num_tokens));
            }
            *store = Some(larger);
        }
    }
}
