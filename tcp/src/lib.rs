//! A sans-IO TCP/IP stack.
#![forbid(unsafe_code)]

pub mod app;
pub mod counters;
pub mod flow_table;
pub mod frame;
mod listener;
pub mod neighbor;
pub mod seq;
pub mod stack;
pub mod tcb;
pub mod time;
mod time_wait;
pub mod timer;
pub mod wire;
