//! Who runs when, on which memory. It knows token ids and plain data: no text, no tensor.
//!
//! `handle` is the async side's end and `stream` what it gets, `queue` where requests wait, `worker` a thread that owns the
//! model or one of its replicas, `loads` what becomes of
//! loading them, `failure` what goes wrong there, `scheduler` the policy, `sequence` a request on its way,
//! `status` what a thread publishes, `shared` what both sides have in common, `step` the seam to the model, `plan` what fits
//! in the memory, `picture_room` what of it the pictures of requests may take, `prompt` and `sampling` what a request is made
//! of. `warm_up` is for whoever loads the model.

mod failure;
mod handle;
mod loads;
mod picture_room;
mod plan;
#[cfg(test)]
mod policy;
mod prompt;
mod queue;
mod sampling;
mod scheduler;
mod sequence;
mod shared;
mod status;
mod step;
mod stream;
mod warm_up;
mod worker;

pub use handle::{Ended, Engine, EngineLimits, Event, Loader, Request};
pub use picture_room::{PictureDemand, PicturePlace, PictureRoom};
pub use plan::{Costs, MemoryPlan, Wanted};
pub use prompt::{Clip, Digest, Grid, Picture, PlacedPicture, Prompt, Visuals};
pub use sampling::Sampling;
pub use status::{Health, PictureCounts};
pub use step::{Held, ModelRunner, Outcome, Outputs, PictureRows, Row, Sample, Sampled, Score, Seen, Slot, Step};
pub use stream::TokenStream;
pub use warm_up::warm_up;
