//! What Hugging Face's two contracts, the toolkit's and TGI's, share on the wire.
//!
//! `parameters` resolves what a request sets (the two contracts differ in a [`parameters::Dialect`]), `text` finds the pictures in a text, `question` asks the model, and the answer comes back as
//! a `record` with `details`, or as `events`.

pub(in crate::http) mod details;
pub(in crate::http) mod error;
pub(in crate::http) mod events;
pub(in crate::http) mod parameters;
pub(in crate::http) mod question;
pub(in crate::http) mod record;
pub(in crate::http) mod text;
