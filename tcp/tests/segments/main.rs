//! Crafted segments against one stack, in virtual time: a file per state of RFC 9293, then what holds in
//! all of them.
#![allow(dead_code, unreachable_pub)] // Each group uses its part of the probe.

mod probe;

mod batches;
mod closing;
mod cookies;
mod ecn;
mod established;
mod every_state;
mod fragments;
mod fuzz;
mod icmp;
mod limits;
mod listen;
mod prediction;
mod recovery;
mod scattered;
mod sender;
mod strangers;
mod syn_received;
mod syn_sent;
mod time_wait;
mod vlan;
