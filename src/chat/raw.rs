//! How to tell a text that is a prompt already, and where its pictures go.

/// Opens every turn of a templated prompt.
const TURN_START: &str = "<|im_start|>";

/// What the template writes for a picture.
pub const PICTURE_PLACE: &str = "<|vision_start|><|image_pad|><|vision_end|>";

/// Whether `text` went through a chat template already.
pub fn is_templated(text: &str) -> bool {
    text.contains(TURN_START)
}
