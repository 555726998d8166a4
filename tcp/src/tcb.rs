//! The transmission control block (RFC 9293 §3.3.1).
pub mod state;
