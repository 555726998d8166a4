//! The transmission control block (RFC 9293 §3.3.1).
pub mod congestion;
pub(crate) mod reassembly;
pub mod rtt;
pub(crate) mod send_queue;
pub mod state;
