//! The engine through its handle, over a model that counts.

mod admission;
mod bench;
mod deadlines;
mod leaks;
mod scoring;
mod stepping;
