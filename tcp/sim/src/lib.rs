//! A deterministic network around `byway-tcp`: everything that happens follows from a seed.
//!
//! ```text
//!  seed ─→ scenario ─→ world: a clock that jumps ─→ verdict, or the first thing that was wrong
//!                        ├─ host: a Stack over a heap of frames, a NIC's rings, app: scripts that check every octet
//!                        ├─ link: rate, queue, delay, and what goes wrong
//!                        └─ router: a switch, or a router with its own MTU
//!              observers: digest (same seed, same octets), capture (pcapng), plot (cwnd over time)
//! ```
//!
//! Checked in every run: what a reader gets is what was written, octet by octet; every connection comes to its
//! end in bounded time once nothing is wrong any more, and no state outlasts its timers; frames are conserved,
//! and all free at the end; queues stay within what is configured; nobody sends without anybody getting ahead;
//! the counters agree with what the NIC saw.

#![warn(missing_docs)]

pub mod app;
pub mod capture;
pub mod fault;
pub mod headers;
pub mod host;
pub mod link;
pub mod plot;
pub mod router;
pub mod scenario;
pub mod stream;
pub mod world;

mod digest;
mod run;
mod witness;

pub use digest::Digest;
pub use run::{Failure, Options, Outcome, many, one};
