//! Who runs when, on which memory. It knows token ids and plain data: no text, no tensor.

mod prompt;
mod sampling;
mod step;

pub use prompt::{Grid, Picture, PlacedPicture, Prompt};
pub use sampling::Sampling;
pub use step::{ModelRunner, Outcome, Outputs, PictureRows, Row, Sample, Sampled, Slot, Step};
