//! A sans-IO TCP/IP stack: frames in, frames out, time and randomness passed in.
//!
//! The caller owns the threads, the NIC and the clock; [`stack::Stack`] owns everything between
//! Ethernet and the application:
//!
//! ```text
//!  frames ─→ wire ─→ stack ─→ flow_table ─→ tcb (input, ack, recovery, reassembly) ─→ app
//!  frames ←─ wire ←─ stack ←───────────────── tcb (output, send_queue)            ←──┘
//!                      └─ neighbor (ARP, NDP), listener (LISTEN), time_wait, timer
//! ```
//!
//! In RFC terms: `tcb` is RFC 9293 §3.10 with RFC 5681, 6298, 6582, 7323 and 2018; `neighbor` is
//! RFC 826 and RFC 4861; `listener` is RFC 6528 and RFC 4987 (SYN cookies); `wire` is Ethernet, 802.1Q, RFC 791, 8200, 792 and 4443.
//!
//! Payload is never copied on its way: see [`frame`]. Applications implement [`app::App`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod app;
pub mod counters;
mod destinations;
pub mod flow_table;
mod fragments;
pub mod frame;
mod listener;
pub mod neighbor;
pub mod rss;
pub mod seq;
pub mod stack;
pub mod tcb;
pub mod time;
mod time_wait;
pub mod timer;
pub mod wire;

/// Octets, of every x86-64 and most of the others.
pub(crate) const CACHE_LINE: usize = 64;
