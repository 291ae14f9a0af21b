//! How a step's pictures are seen: those that were seen before from memory, the others by the vision tower, several at once.

use std::collections::HashMap;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::features::FeatureCache;
use super::kernels;
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

/// Which pictures may be computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Any: their last bits may depend on the others'.
    Any,
    /// Those of more tokens than this, whose bits do not depend on it.
    Above(usize),
    /// Each is computed by itself.
    Nobody,
}

impl Company {
    /// What the operators for activations of `kind` on `device` allow. On a CPU a picture's bits never depend on its company, on a
    /// GPU not where that is asked for.
    pub fn of(kind: Kind, device: Device, batch_invariant: bool) -> Company {
        match device {
            Device::Cpu if kernels::keep_rows_apart(kind) => Company::Above(kernels::MAX_FEW_ROWS as usize),
            Device::Cpu => Company::Nobody,
            _ if batch_invariant => Company::Nobody,
            _ => Company::Any,
        }
    }

    fn is_for(self, picture: &Picture) -> bool {
        match self {
            Company::Any => true,
            Company::Above(tokens) => picture.grid.num_tokens() > tokens,
            Company::Nobody => false,
        }
    }

    /// Cuts `pictures` into those that are computed together, each in its place in the order.
    fn passes<'p>(self, pictures: &[&'p Picture]) -> Vec<Vec<&'p Picture>> {
        let mut passes: Vec<(Vec<&Picture>, usize)> = Vec::new(); // and the tokens that there is room for
        for picture in pictures {
            let tokens = picture.grid.num_tokens();
            match passes.last_mut() {
                Some((pass, room)) if self.is_for(picture) && tokens <= *room => {
                    pass.push(picture);
                    *room -= tokens;
                }
                _ if self.is_for(picture) => passes.push((vec![picture], TOKENS_A_PASS.saturating_sub(tokens))),
                _ => passes.push((vec![picture], 0)),
            }
        }
        passes.into_iter().map(|(pass, _)| pass).collect()
    }
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
        for pass in self.company.passes(&new) {
            for (picture, embeddings) in pass.iter().zip(self.tower.forward(&pass)) {
                self.features.put(*picture.digest(), &embeddings);
                seen.insert(picture.digest(), Some(embeddings));
            }
        }
        let embeddings = |picture: &Arc<Picture>| seen[picture.digest()].as_ref().map(Tensor::shallow_clone);
        let embeddings = pictures.iter().map(|picture| embeddings(picture).expect("Invariant: known or just computed"));
        (embeddings.collect(), new.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Company, Picture, TOKENS_A_PASS};
    use crate::engine::Grid;

    /// Pictures of so many tokens.
    fn pictures(tokens: &[usize]) -> Vec<Picture> {
        let grid = |tokens: &usize| Grid { height: 2, width: 2 * tokens };
        tokens.iter().map(|tokens| Picture::new(Vec::new(), grid(tokens))).collect()
    }

    fn passes(company: Company, tokens: &[usize]) -> Vec<Vec<usize>> {
        let pictures = pictures(tokens);
        let passes = company.passes(&pictures.iter().collect::<Vec<_>>());
        passes.iter().map(|pass| pass.iter().map(|picture| picture.grid.num_tokens()).collect()).collect()
    }

    #[test]
    fn pictures_share_a_pass_as_long_as_there_is_room() {
        assert_eq!(passes(Company::Any, &[200, 300, 12, 1, 511]), [vec![200, 300, 12], vec![1, 511]]);
        assert_eq!(passes(Company::Any, &[TOKENS_A_PASS + 1, 5, 6]), [vec![TOKENS_A_PASS + 1], vec![5, 6]]);
    }

    #[test]
    fn where_company_counts_a_picture_is_alone() {
        assert_eq!(passes(Company::Nobody, &[20, 30]), [[20], [30]]);
        assert_eq!(passes(Company::Above(16), &[20, 30, 16, 17]), [vec![20, 30], vec![16], vec![17]]);
    }
}
