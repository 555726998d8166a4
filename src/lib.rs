//! byway: HTTP and WebSocket over a kernel-bypass TCP/IP stack on AF_XDP, and what other programs need to run on it.
//!
//! | to | look at |
//! | --- | --- |
//! | write a protocol of one's own, from nothing | [`guide`] |
//! | run an application as `byway serve` runs byway's | [`launch`] |
//! | handle connections in callbacks, without a copy | [`byway_tcp::app`] |
//! | handle them in asynchronous tasks; hyper, axum | [`aio`] |
//! | use byway's own HTTP and WebSocket application | [`app`] |
//! | measure a server | [`load`] |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod aio;
pub mod app;
#[doc(hidden)]
pub mod cli;
pub mod guide;
pub mod launch;
pub mod load;
