//! Downloads from a server that behaves like the hub, and from one that does not.

mod downloading;
mod hub;
mod refusing;
mod server;
