//! The application on the stack: echo over HTTP, WebSocket and raw TCP.
//!
//! ```text
//!  recv ──→ chunk ──→ raw (RFC 862–864) ────────────────→ outbox ──→ send
//!      (└──→ tls, both ways)
//!                └──→ http::request → http::connection ─↗    ↑
//!                                 └──→ ws::handshake → ws::session
//! ```
//!
//! Payload stays in the frame it arrived in: a reply is made by rewriting the received frame
//! (`rewrite`) and sending that; only what byway makes itself goes into fresh chunks.

pub(crate) mod http;
mod limits;
mod outbox;
mod peers;
mod raw;
mod rewrite;
mod service;
mod stats;
#[cfg(test)]
mod testing;
mod tls;
mod turns;
pub(crate) mod ws;

pub use http::date::WallClock;
pub use limits::Limits;
pub use service::{Config, Ports, Renewal, Service};
pub use tls::Server as TlsServer;
