//! Pictures, from a client's text to the patches of the vision tower, against PIL, torchvision and Transformers.

mod decoding;
mod fetching;
mod fixtures;
mod preparing;
mod requests;
mod video;
