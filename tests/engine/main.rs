//! The engine through its handle, over a model that counts.

mod admission;
mod bench;
mod deadlines;
mod leaks;
mod replicas;
mod scoring;
mod stepping;
