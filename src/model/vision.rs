//! The vision tower: the patches of pictures to embeddings among the decoder's tokens.

use tch::{Device, Kind, Tensor};

use super::attention::attention;
use super::config::VisionConfig;
use super::kernels;
use super::layers::{LayerNorm, Linear};
use super::packing::pack;
use super::patch_positions::{PatchPositions, Table};
use super::rotary::{Rotation, VisionRotary};
use super::weights::At;
use crate::engine::Picture;

pub(super) struct VisionTower {
    patch_embed: Linear,
    pos_embed: Tensor, // [rows * rows, hidden]
    rotary: VisionRotary,
    blocks: Vec<Block>,
    merger: Merger,
    table: Table,
    device: Device,
}

impl VisionTower {
    pub fn load(at: &At, config: &VisionConfig, device: Device) -> VisionTower {
        let num_heads = config.num_heads as i64;
        let head_dim = config.hidden_size as i64 / num_heads;
        VisionTower {
            patch_embed: Linear::load_patch_convolution(&at.at("patch_embed.proj")),
            pos_embed: at.at("pos_embed").tensor("weight"),
            rotary: VisionRotary::new(head_dim, device),
            blocks: (0..config.depth).map(|index| Block::load(&at.at("blocks").at(index), num_heads)).collect(),
            merger: Merger::load(&at.at("merger"), config.spatial_merge_size.pow(2) as i64),
            table: Table { side: config.num_position_embeddings.isqrt(), merge: config.spatial_merge_size },
            device,
        }
    }

    /// The embeddings of some pictures, computed together: [tokens, the decoder's hidden size] each, in memory of its own. A
    /// picture attends to itself alone, so that a video's frames are pictures too.
    pub fn forward(&self, pictures: &[&Picture]) -> Vec<Tensor> {
        let patches = pictures.iter().map(|picture| {
            let patches = Tensor::from_slice(&picture.patches).view((picture.grid.num_patches() as i64, -1));
            patches.to_device_(self.device, self.pos_embed.kind(), true, false)
        });
        let patches = pack(patches.collect()); // [patches of all, patch_len]
        let grids = || pictures.iter().map(|picture| picture.grid);
        let positions = PatchPositions::new(grids(), &self.table, self.device);
        let lens: Vec<i64> = grids().map(|grid| grid.num_patches() as i64).collect();

        let embedded = self.patch_embed.forward(&patches); // [patches of all, hidden]
        let mut x = &embedded + self.learned_positions(&positions);
        let rotation = self.rotary.at(&positions.rows, &positions.columns);
        for block in &self.blocks {
            x = block.forward(&x, &rotation, &lens);
        }
        let merged = self.merger.forward(&x); // [tokens of all, the decoder's hidden size]
        if pictures.len() == 1 {
            return vec![merged];
        }
        let lens: Vec<i64> = grids().map(|grid| grid.num_tokens() as i64).collect();
        merged.split_with_sizes(lens, 0).iter().map(Tensor::copy).collect()
    }

    /// The learned table read between its rows and columns: summed in fp32, then rounded.
    fn learned_positions(&self, positions: &PatchPositions) -> Tensor {
        let hidden = self.pos_embed.size()[1];
        let taps = self.pos_embed.index_select(0, &positions.taps.flatten(0, 1)).view((-1, 4, hidden));
        let weighted = taps * positions.weights.unsqueeze(2); // fp32
        weighted.sum_dim_intlist(1, false, Kind::Float).to_kind(self.pos_embed.kind())
    }
}

struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    num_heads: i64,
}

impl Block {
    fn load(at: &At, num_heads: i64) -> Block {
        Block {
            norm1: LayerNorm::load(&at.at("norm1")),
            qkv: Linear::load_biased(&at.at("attn.qkv")),
            proj: Linear::load_biased(&at.at("attn.proj")),
            norm2: LayerNorm::load(&at.at("norm2")),
            linear_fc1: Linear::load_biased(&at.at("mlp.linear_fc1")),
            linear_fc2: Linear::load_biased(&at.at("mlp.linear_fc2")),
            num_heads,
        }
    }

    /// [patches of all pictures, hidden], of the same shape; `lens` are each picture's.
    fn forward(&self, x: &Tensor, rotation: &Rotation, lens: &[i64]) -> Tensor {
        let x = x + self.attend(&self.norm1.forward(x), rotation, lens);
        let inner = self.linear_fc1.forward(&self.norm2.forward(&x));
        let inner = kernels::gelu_tanh(&inner).unwrap_or_else(|| inner.gelu("tanh"));
        let mixed = self.linear_fc2.forward(&inner);
        x + mixed
    }

    /// Every patch of a picture sees every other of it.
    fn attend(&self, x: &Tensor, rotation: &Rotation, lens: &[i64]) -> Tensor {
        let (patches, hidden) = x.size2().expect("Invariant: activations are [patches, hidden]");
        let qkv = self.qkv.forward(x).view((patches, 3, self.num_heads, hidden / self.num_heads));
        let queries = rotation.rotate(&qkv.select(1, 0)).split_with_sizes(lens, 0);
        let keys = rotation.rotate(&qkv.select(1, 1)).split_with_sizes(lens, 0);
        let values = qkv.select(1, 2).split_with_sizes(lens, 0);
        let attended = queries.iter().zip(&keys).zip(&values).map(|((q, k), v)| attend(q, k, v));
        self.proj.forward(&pack(attended.collect()))
    }
}

/// Attention among the patches of a picture: [patches, heads, head_dim] each, to [patches, hidden].
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Tensor {
    let by_head = |x: &Tensor| x.transpose(0, 1).contiguous(); // [heads, patches, head_dim]
    kernels::attend_many(&queries.contiguous(), &by_head(keys), &by_head(values), false).unwrap_or_else(|| {
        let heads = |x: &Tensor| x.transpose(0, 1).unsqueeze(1); // [heads, 1, patches, head_dim]
        let attended = attention(&heads(queries), &heads(keys), &heads(values), None, false);
        attended.squeeze_dim(1).transpose(0, 1).flatten(1, 2)
    })
}

/// Joins each block of patches into one token of the decoder.
struct Merger {
    norm: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    block: i64,
}

impl Merger {
    fn load(at: &At, block: i64) -> Merger {
        Merger {
            norm: LayerNorm::load(&at.at("norm")),
            linear_fc1: Linear::load_biased(&at.at("linear_fc1")),
            linear_fc2: Linear::load_biased(&at.at("linear_fc2")),
            block,
        }
    }

    /// [patches, hidden] -> [patches / block, the decoder's hidden size]. Patches come block by block, so that joining
    /// them is a view. Here the GELU is the exact one, unlike in the blocks.
    fn forward(&self, x: &Tensor) -> Tensor {
        let joined = self.norm.forward(x).view((x.size()[0] / self.block, -1));
        self.linear_fc2.forward(&self.linear_fc1.forward(&joined).gelu("none"))
    }
}
