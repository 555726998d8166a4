//! A sans-IO TCP/IP stack.
#![forbid(unsafe_code)]

pub mod app;
pub mod counters;
pub mod frame;
pub mod neighbor;
pub mod seq;
pub mod stack;
pub mod tcb;
pub mod time;
pub mod timer;
pub mod wire;
