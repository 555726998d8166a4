//! The load generator: requests on byway's own client side, and what became of them.
//!
//! ```text
//!   schedule ──→ a free connection ──→ request ──→ answer read (http, websocket, raw) ──→ report
//!      ↑ open loop: when it is intended             │
//!      └─ closed loop: as soon as one is free ←─────┘ nothing, nonsense, reset: an error, a pause, a new connection
//! ```
//!
//! One [`Load`] a core. Latency counts from the moment a request was intended to go: a server (or a generator) that
//! stands still has all the requests that it held up in its figures, not only those that were on the wire. Times are
//! those of the loop's turns, as everywhere on a core: a latency is true to within a turn, some microseconds.

mod client;
mod http;
mod job;
mod raw;
mod report;
mod schedule;
mod send;
mod websocket;

pub use client::Load;
pub use job::{Job, Pace, Protocol};
pub use report::{Failed, Progress, Report, grouped};
