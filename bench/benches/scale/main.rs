//! Ten million connections at once: what each of them takes, and what a segment costs among them.
//!
//! All are opened by the real handshake, in memory, and stay. Then a random hundredth of them sends requests, in
//! random order, measured as in [`byway_bench::echo`]. Memory is what the process has resident beyond the client's
//! own: control blocks, tables, timers, lists and frames, whatever they are for.

use std::time::Duration;

use byway_bench::client::Client;
use byway_bench::exchange::Exchanges;
use byway_bench::server::Server;
use byway_bench::{Shuffled, timed};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: byway_datapath::huge::HugePages = byway_datapath::huge::HugePages;

/// As many as the process has memory for, if that is less; `BYWAY_CONNECTIONS` says otherwise.
const CONNECTIONS: u32 = 10_000_000;
/// One in so many has something to say.
const IDLE_SHARE: u32 = 100;
/// Requests of each of these, per measurement: the first is the warm-up.
const ROUNDS: u64 = 3;
/// What a connection may take before this bench asks for more memory than there is.
const OCTETS_MAX: usize = 1200;

fn main() {
    let wanted = std::env::var("BYWAY_CONNECTIONS").ok().and_then(|count| count.parse().ok());
    let wanted: u32 = wanted.unwrap_or(CONNECTIONS);
    let fitting =
        u32::try_from(kib("/proc/meminfo", "MemAvailable:") * 1024 / OCTETS_MAX).unwrap_or(u32::MAX);
    if fitting < wanted {
        println!("there is memory for {fitting} connections, not for {wanted}");
    }
    println!("| connections | octets each | of them frames | handshake | echo, batch 1 | batch 64 |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for connections in [1, 1_000_000, wanted.min(fitting)] {
        measure(connections);
    }
}

fn measure(connections: u32) {
    let active = connections.div_ceil(IDLE_SHARE);
    let mut client = Client::new(connections);
    let order = Shuffled::some(active, connections);
    let before = resident();
    let mut server = Server::with_unacknowledged(connections, active);
    let opened = timed(|| server.establish(&mut client, connections));
    let each = |octets: usize| octets / connections as usize;
    let (all, frames) = (resident() - before, server.buffers());
    let mut bench = Exchanges::of(server, client, order);
    let [one, many] = [1, 64].map(|batch| {
        let requests = ROUNDS * u64::from(active).max(100_000);
        bench.run(batch, requests / ROUNDS);
        per(bench.run(batch, requests), requests)
    });
    let handshake = per(opened, u64::from(connections));
    let (all, frames) = (each(all), each(frames.min(all)));
    println!("| {connections} | {all} | ≤ {frames} | {handshake} ns | {one} ns | {many} ns |");
}

fn per(time: Duration, count: u64) -> u128 {
    time.as_nanos() / u128::from(count)
}

/// Octets of this process's memory that are there.
fn resident() -> usize {
    kib("/proc/self/status", "VmRSS:") * 1024
}

fn kib(file: &str, field: &str) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
