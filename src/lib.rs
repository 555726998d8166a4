//! byway: HTTP and WebSocket over a kernel-bypass TCP/IP stack on AF_XDP.
#![forbid(unsafe_code)]

pub mod aio;
pub mod app;
#[doc(hidden)]
pub mod cli;
pub mod launch;
pub mod load;
