//! What the packet path costs, piece by piece and whole, on one core and in memory.
//!
//! Only printed and compared, never judged: what is fast enough is measured on real links.

mod echo_smoltcp;
mod flow_table;
mod timers;
mod timers_library;
mod whole;
mod wire;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: byway_datapath::huge::HugePages = byway_datapath::huge::HugePages;

criterion_group! {
    name = pieces;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = wire::bench, timers::bench, timers_library::bench, flow_table::bench
}

criterion_group! {
    name = whole;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = whole::bench_echo, whole::bench_hello, echo_smoltcp::bench, whole::bench_connections, whole::bench_bulk
}

criterion_main!(pieces, whole);
