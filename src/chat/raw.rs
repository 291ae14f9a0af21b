//! How to tell a text that is a prompt already, and where its pictures go.

/// Opens every turn of a templated prompt.
const TURN_START: &str = "<|im_start|>";

/// What stands before and after the frames of a picture or a video.
pub(super) const VISION_START: &str = "<|vision_start|>";
pub(super) const VISION_END: &str = "<|vision_end|>";

/// What the template writes for a picture.
pub const PICTURE_PLACE: &str = "<|vision_start|><|image_pad|><|vision_end|>";

/// What the template writes for a video.
pub const VIDEO_PLACE: &str = "<|vision_start|><|video_pad|><|vision_end|>";

/// Whether `text` went through a chat template already.
pub fn is_templated(text: &str) -> bool {
    text.contains(TURN_START)
}
