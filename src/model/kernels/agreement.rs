//! How tests compare a kernel with the libtorch operators that it stands for.

use tch::{Kind, Tensor};

/// The same numbers, but that functions like `exp` may differ in their last bits, and in bf16 a few numbers may so be rounded
/// the other way.
pub(in super::super) fn assert_agree(ours: &Tensor, theirs: &Tensor) {
    assert_eq!((ours.kind(), ours.size()), (theirs.kind(), theirs.size()));
    let step = if ours.kind() == Kind::BFloat16 { f64::from(2_f32.powi(-7)) } else { 2e-6 };
    let (wide, theirs_wide) = (ours.to_kind(Kind::Double), theirs.to_kind(Kind::Double));
    let worst = ((&wide - &theirs_wide).abs() / (theirs_wide.abs() + 1e-6)).max().double_value(&[]);
    assert!(worst <= step, "off by {worst} of the number");
    if ours.kind() == Kind::BFloat16 {
        let others = ours.ne_tensor(theirs).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!(others < 1e-3, "{others} of the numbers are others");
    }
}
