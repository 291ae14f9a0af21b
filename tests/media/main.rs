//! Pictures, from a client's text to the patches of the vision tower, against PIL, torchvision and Transformers.

mod corpus;
mod damaged;
mod decoding;
mod fetching;
mod fixtures;
mod harmful;
mod harmful_hosts;
mod hostile;
mod preparing;
mod requests;
mod video;
mod video_parts;
