//! A resized picture -> the normalised patches that the vision tower reads.

use super::Rgb;
use super::preprocess::Preprocess;

/// The patches of a picture whose sides are multiples of `preprocess.factor()`.
///
/// Returns `[num_patches, 3 * temporal * patch * patch]` with the patches in merge-block order: block row, block
/// column, row in the block, column in the block. A patch is (channel, temporal, row, column); a still picture is
/// repeated along the temporal axis.
pub fn patches(picture: &Rgb, preprocess: &Preprocess) -> Vec<f32> {
    patches_of_frames(std::slice::from_ref(picture), preprocess)
}

/// The patches of as many frames, all of the same size, as a patch has along the temporal axis, or of fewer: then the last is
/// repeated. As [`patches`] otherwise.
pub fn patches_of_frames(frames: &[Rgb], preprocess: &Preprocess) -> Vec<f32> {
    let picture = &frames[0];
    let (patch, merge) = (preprocess.patch_size, preprocess.merge_size);
    let (grid_height, grid_width) = (picture.height / patch, picture.width / patch);
    let patch_len = 3 * preprocess.temporal_patch_size * patch * patch;
    let mut patches = vec![0.0; grid_height * grid_width * patch_len];
    let mut out = patches.chunks_exact_mut(patch_len);
    for block_y in (0..grid_height).step_by(merge) {
        for block_x in (0..grid_width).step_by(merge) {
            for (y, x) in (0..merge * merge).map(|place| (block_y + place / merge, block_x + place % merge)) {
                let out = out.next().expect("there are as many patches as places in the grid");
                write_patch(frames, (y * patch, x * patch), preprocess, out);
            }
        }
    }
    patches
}

/// Writes the patch whose first pixel is at `(top, left)`: `[3, temporal, patch, patch]`.
fn write_patch(frames: &[Rgb], (top, left): (usize, usize), preprocess: &Preprocess, out: &mut [f32]) {
    let patch = preprocess.patch_size;
    for (channel, out) in out.chunks_exact_mut(preprocess.temporal_patch_size * patch * patch).enumerate() {
        let normalised = &preprocess.normalised[channel];
        for (frame, out) in frames.iter().zip(out.chunks_exact_mut(patch * patch)) {
            for (row, out) in out.chunks_exact_mut(patch).enumerate() {
                let pixels = frame.row(top + row)[left * 3..].chunks_exact(3);
                for (out, pixel) in out.iter_mut().zip(pixels) {
                    *out = normalised[usize::from(pixel[channel])];
                }
            }
        }
        let (written, repeats) = out.split_at_mut(frames.len() * patch * patch);
        let last = &written[written.len() - patch * patch..];
        repeats.chunks_exact_mut(patch * patch).for_each(|repeat| repeat.copy_from_slice(last));
    }
}
