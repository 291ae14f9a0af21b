//! Who runs when, on which memory. It knows token ids and plain data: no text, no tensor.
//!
//! `handle` is the async side's end, `worker` the thread that owns the model, `scheduler` the policy, `sequence` a request
//! on its way, `step` the seam to the model, `prompt` and `sampling` what a request is made of.

mod handle;
mod prompt;
mod sampling;
mod scheduler;
mod sequence;
mod step;
mod worker;

pub use handle::{Ended, Engine, EngineLimits, Event, Health, Request, TokenStream};
pub use prompt::{Grid, Picture, PlacedPicture, Prompt};
pub use sampling::Sampling;
pub use step::{ModelRunner, Outcome, Outputs, PictureRows, Row, Sample, Sampled, Score, Slot, Step};
