//! Rotary positions: interleaved mRoPE of the decoder, and rows and columns of the vision tower.

use tch::{Device, Kind, Tensor};

use super::config::Rope;
use super::elementwise::elementwise;
use super::kernels;

/// The decoder's rotary angles: each frequency is driven by one of a token's three positions.
pub(super) struct TextRotary {
    inverse_frequencies: Tensor, // [rotary / 2], fp32
    /// Which of (t, h, w) drives each frequency: h every third from the second on, w every third from the third on, as
    /// long as their sections last; t the rest.
    axis: Tensor, // [rotary / 2]
}

impl TextRotary {
    pub fn new(rope: &Rope, device: Device) -> TextRotary {
        let [_, height, width] = rope.mrope_section;
        let axis: Vec<i64> = (0..rope.dim / 2)
            .map(|frequency| match frequency % 3 {
                1 if frequency < 3 * height => 1,
                2 if frequency < 3 * width => 2,
                _ => 0,
            })
            .collect();
        TextRotary {
            inverse_frequencies: inverse_frequencies(rope.theta, rope.dim as i64).to_device(device),
            axis: Tensor::from_slice(&axis).to_device(device),
        }
    }

    /// The rotation of tokens at `positions` [3, tokens], in the activations' type, as Transformers rotates.
    pub fn at(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let driven = positions.to_kind(Kind::Float).index_select(0, &self.axis).tr(); // [tokens, rotary / 2]
        Rotation::by(&(driven * &self.inverse_frequencies), kind)
    }
}

/// The vision tower's rotary angles: a quarter of a head's channels turns with the row, a quarter with the column, and
/// the other half is their partner in the rotation.
pub(super) struct VisionRotary {
    inverse_frequencies: Tensor, // [head_dim / 4], fp32
}

impl VisionRotary {
    const THETA: f64 = 10_000.0;

    pub fn new(head_dim: i64, device: Device) -> VisionRotary {
        let inverse_frequencies = inverse_frequencies(VisionRotary::THETA, head_dim / 2).to_device(device);
        VisionRotary { inverse_frequencies }
    }

    /// The rotation of patches at `rows` and `columns`, both [patches] and fp32. It stays fp32 whatever the activations.
    pub fn at(&self, rows: &Tensor, columns: &Tensor) -> Rotation {
        let by_row = rows.unsqueeze(1) * &self.inverse_frequencies;
        let by_column = columns.unsqueeze(1) * &self.inverse_frequencies;
        Rotation::by(&Tensor::cat(&[by_row, by_column], 1), Kind::Float)
    }
}

/// `theta^(-2n / dim)` for n in 0..dim/2, in the order of operations of Transformers, so that the last bit agrees.
fn inverse_frequencies(theta: f64, dim: i64) -> Tensor {
    let exponents = Tensor::arange_start_step(0, dim, 2, (Kind::Float, Device::Cpu)) / dim as f64;
    Tensor::pow_scalar(theta, &exponents).reciprocal()
}

/// Cosines and sines for some tokens, each repeated for both halves of the rotated channels.
pub(super) struct Rotation {
    cos: Tensor, // [tokens, 1, rotary]
    sin: Tensor,
}

impl Rotation {
    /// From angles [tokens, rotary / 2].
    fn by(angles: &Tensor, kind: Kind) -> Rotation {
        let twice = |half: Tensor| Tensor::cat(&[&half, &half], 1).unsqueeze(1).to_kind(kind);
        Rotation { cos: twice(elementwise(angles, Tensor::cos)), sin: twice(elementwise(angles, Tensor::sin)) }
    }

    /// That of some of the tokens: `of` picks theirs from a packed tensor [tokens, ...].
    pub fn only(&self, of: impl Fn(&Tensor) -> Tensor) -> Rotation {
        Rotation { cos: of(&self.cos), sin: of(&self.sin) }
    }

    /// Rotates the first channels of each head and passes the others: [tokens, heads, head_dim], of the same shape. The
    /// halves are partners (NeoX), not neighbouring pairs.
    pub fn rotate(&self, x: &Tensor) -> Tensor {
        kernels::rotate(&x.contiguous(), &self.cos, &self.sin).unwrap_or_else(|| self.by_libtorch(x))
    }

    fn by_libtorch(&self, x: &Tensor) -> Tensor {
        let (rotary, head_dim) = (self.cos.size()[2], x.size()[2]);
        let turned = x.narrow(2, 0, rotary).to_kind(self.cos.kind());
        let (first, second) = (turned.narrow(2, 0, rotary / 2), turned.narrow(2, rotary / 2, rotary / 2));
        let partners = Tensor::cat(&[-second, first], 2);
        let turned = (turned * &self.cos + partners * &self.sin).to_kind(x.kind());
        if rotary == head_dim {
            return turned;
        }
        Tensor::cat(&[turned, x.narrow(2, rotary, head_dim - rotary)], 2)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::Rotation;

    #[test]
    fn both_forms_of_a_rotation_are_the_same_bits() {
        // The decoder's in fp32 and in bf16, and the vision tower's.
        for (kind, angles_kind) in
            [(Kind::Float, Kind::Float), (Kind::BFloat16, Kind::BFloat16), (Kind::BFloat16, Kind::Float)]
        {
            for (rotary, head_dim) in [(64, 256), (12, 24), (72, 72)] {
                let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
                let rotation = Rotation::by(&random(&[9, rotary / 2]), angles_kind);
                let x = random(&[9, 3, 2 * head_dim]).to_kind(kind).narrow(2, 0, head_dim);
                assert!(rotation.rotate(&x).equal(&rotation.by_libtorch(&x)), "{rotary} of {head_dim} in {kind:?}");
            }
        }
    }
}
