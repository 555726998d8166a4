//! The skeleton that `build.rs` generates from `steer.bpf.c`: the object's bytes, its maps and its program.
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    missing_debug_implementations,
    unreachable_pub,
    unused,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
