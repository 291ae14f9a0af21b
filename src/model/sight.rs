//! How a step's pictures are seen: those that were seen before from memory, the others by the vision tower, several at once.

use std::collections::HashMap;
use std::sync::Arc;

use tch::Tensor;

use super::company::Company;
use super::features::FeatureCache;
use super::vision::VisionTower;
use crate::engine::{Digest, Picture};

/// Tokens of pictures that the tower sees at once, unless one alone has more: enough rows for a GEMM's full speed, and no
/// more memory than that takes.
pub(super) const TOKENS_A_PASS: usize = 512;

/// The vision tower, and its memory of what it saw.
pub(super) struct Sight {
    pub tower: VisionTower,
    pub features: FeatureCache,
    pub company: Company,
}

impl Sight {
    /// The embeddings of `pictures`, [tokens, the decoder's hidden size] each, and how many pictures the tower had to see for
    /// that: not those that it remembers, and one that comes several times once.
    pub fn see(&mut self, pictures: &[Arc<Picture>]) -> (Vec<Tensor>, usize) {
        let mut seen = HashMap::<&Digest, Option<Tensor>>::new();
        let mut new: Vec<&Picture> = Vec::new();
        for picture in pictures {
            let features = &mut self.features;
            seen.entry(picture.digest()).or_insert_with(|| {
                let known = features.get(picture.digest());
                if known.is_none() {
                    new.push(picture);
                }
                known
            });
        }
        for pass in self.company.passes(&new, TOKENS_A_PASS, |picture| picture.grid.num_tokens()) {
            for (picture, embeddings) in pass.iter().zip(self.tower.forward(pass)) {
                self.features.put(*picture.digest(), &embeddings);
                seen.insert(picture.digest(), Some(embeddings));
            }
        }
        let embeddings = |picture: &Arc<Picture>| seen[picture.digest()].as_ref().map(Tensor::shallow_clone);
        let embeddings = pictures.iter().map(|picture| embeddings(picture).expect("Invariant: known or just computed"));
        (embeddings.collect(), new.len())
    }
}
