//! What the counters of a byway that runs tell of its set-up.

use serde::Deserialize as _;

use super::super::control::{self, Target};
use super::super::stats::Stats;
use super::{Finding, counted};

/// The counters of a byway that runs there.
pub(super) fn ask(target: &Target) -> Option<Stats> {
    let line = control::ask(target, "stats").ok()?.next()?.ok()?;
    Stats::deserialize(&mut serde_json::Deserializer::from_str(&line)).ok()
}

/// Judges them.
pub(super) fn judge(interface: &str, stats: Option<&Stats>) -> Vec<Finding> {
    const CHECK: &str = "running";
    let Some(stats) = stats else {
        return vec![Finding::pass(CHECK, "no byway runs here, or its counters may not be read")];
    };
    let peer = "on the peer: ethtool -K PEER tx off; or byway serve --accept-partial-checksums";
    let whose = format!("ethtool -X {interface} equal N, N as many as byway serves");
    let rows = [
        (
            "rx_ring_full",
            "frames found byway's RX ring full: its core is away, or too slow",
            "byway serve --cores with one that is its own",
        ),
        (
            "fill_ring_empty",
            "times the NIC found no frame to receive into",
            "ethtool -G with fewer rx, or byway serve --frames with more",
        ),
        ("rx_dropped", "frames were dropped on their way into the socket", "byway serve --frames with more"),
        ("drop_no_socket", "frames came on queues that nobody serves", &whose),
        (
            "TcpInCsumErrors",
            "segments had bad checksums; a peer on the same host leaves them half done",
            peer,
        ),
        ("BywayDropNoNeighbor", "frames had no next hop", "byway serve --gateway"),
        (
            "stalls",
            &format!(
                "turns came late by more than the wheel's tick: the core is shared, and was given to others {} times",
                stats.value("preempted")
            ),
            "isolcpus=, and byway serve --cores",
        ),
    ];
    let mut findings: Vec<Finding> = rows
        .iter()
        .filter_map(|(counter, what, mend)| match stats.value(counter) {
            0 => None,
            count => Some(Finding::warn(CHECK, format!("{counter} {count}: {what}"), *mend)),
        })
        .collect();
    if findings.is_empty() {
        let connections = stats.value("ESTAB");
        findings.push(Finding::pass(
            CHECK,
            format!("a byway serves here, {} established", counted(connections, "connection")),
        ));
    }
    findings
}
