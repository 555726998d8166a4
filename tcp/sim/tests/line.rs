//! One sender over a line of 100 Mbit/s, 20 ms each way, with a queue of one bandwidth-delay product: what
//! `make bench-impaired` measures beside the kernel, without a clock's or a host's chances.

use byway_sim::app::{Script, Step};
use byway_sim::host::{Host, HostSpec};
use byway_sim::link::{Impairment, LinkSpec};
use byway_sim::router::{Topology, host_ip, host_mac};
use byway_sim::scenario::{Change, Flow, PORT, Scenario};
use byway_sim::world::{Observer, World};
use byway_tcp::stack::{Cidr, Config};
use byway_tcp::tcb::congestion::Algorithm;
use byway_tcp::time::{Duration, Instant};

const RATE: u64 = 100_000_000;
const ONE_WAY: Duration = Duration::from_millis(20);
const QUEUE: u64 = 500_000;
/// Four seconds of the line.
const OCTETS: u64 = 48_000_000;
/// Payload of a segment with timestamps.
const WRITE: usize = 1448;

/// How a transfer went.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Payload that reached the application, the handshake's time included.
    mbits: f64,
    /// Retransmissions in what was sent.
    resent: f64,
}

/// Sees when the last octet has arrived, and what it took.
#[derive(Debug, Default)]
struct Meter {
    done: Option<Instant>,
    resent: u64,
    sent: u64,
}

impl Observer for Meter {
    fn turned(&mut self, at: Instant, host: usize, state: &Host) {
        if host == 1 && state.apps.delivered == OCTETS {
            self.done.get_or_insert(at);
        }
        if host == 0 {
            self.resent = state.stack.counters().tcp_retrans_segs;
            self.sent = state.nic.frames_out;
        }
    }
}

/// `busy`: every other so long the sender's loop doesn't turn.
fn transfer(congestion: Algorithm, impairment: Impairment, busy: Duration) -> Outcome {
    let host = |index: usize| {
        let mut config = Config::new(host_mac(index), [7; 32]);
        config.addresses.push(Cidr { address: host_ip(Topology::Switch, index, false), prefix: 24 });
        config.congestion = congestion;
        HostSpec {
            scatter: None,
            config,
            frames: 16_384,
            fill_ring: 2_048,
            tx_ring: 2_048,
            completion: Duration::from_micros(10),
            coalesce: Duration::ZERO,
        }
    };
    let link = LinkSpec { rate: RATE, queue: QUEUE, delay: ONE_WAY, jitter: Duration::ZERO, mark: None };
    let lan = LinkSpec { rate: 10 * RATE, queue: 10 * QUEUE, delay: Duration::from_micros(5), ..link };
    let mut changes = vec![(Duration::ZERO, Change::Impair(0, impairment))];
    if !busy.is_zero() {
        changes.extend((0..5_000).map(|turn| (2 * turn * busy, Change::Stall(0, busy))));
    }
    let script = |steps| Script { steps, echo: false, nodelay: false, write: WRITE };
    let scenario = Scenario {
        seed: 1,
        start: Instant::from_millis(1),
        topology: Topology::Switch,
        strips_sack: false,
        hosts: vec![host(0), host(1)],
        links: vec![link, lan, lan, link],
        changes,
        weather: Vec::new(),
        // Never, as far as this run goes.
        heals: Duration::from_secs(10_000),
        longest_outage: Duration::ZERO,
        flows: vec![Flow {
            kind: "bulk send",
            client: 0,
            server: 1,
            v6: false,
            port: PORT,
            start: Duration::ZERO,
            scripts: [
                script(vec![Step::Send(OCTETS), Step::Close, Step::Eof]),
                script(vec![Step::Eof, Step::Close]),
            ],
        }],
    };
    let mut meter = Meter::default();
    World::new(&scenario, None, &mut meter).run().expect("a good run");
    let took = meter.done.expect("all has arrived").since(scenario.start);
    Outcome {
        mbits: OCTETS as f64 * 8e-6 / took.as_secs_f64(),
        resent: meter.resent as f64 / meter.sent as f64,
    }
}

/// S5.7 RFC 8985: one segment in a hundred comes late, by up to 2 ms, which thirteen others overtake: that isn't
/// taken for loss, and costs next to nothing. (What slow start loses isn't the same in both.)
#[test]
fn s5_7_reordering_costs_nothing() {
    for &algorithm in Algorithm::ALL {
        let clean = transfer(algorithm, Impairment::default(), Duration::ZERO);
        let reordering =
            Impairment { reorder: 0.01, reorder_by: Duration::from_millis(2), ..Impairment::default() };
        let reordered = transfer(algorithm, reordering, Duration::ZERO);
        assert!(reordered.mbits > 0.98 * clean.mbits, "{algorithm}: {clean:?} {reordered:?}");
        assert!(reordered.resent < clean.resent + 0.003, "{algorithm}: {clean:?} {reordered:?}");
    }
}

/// S7.2 RFC 9406: slow start ends before it has lost half a window, so that the line is full from there on. Reno has
/// no such end: exactly S7.1.
#[test]
fn s7_2_slow_start_ends_in_time() {
    let cubic = transfer(Algorithm::Cubic, Impairment::default(), Duration::ZERO);
    // 95.6 are possible; the handshake and slow start take 0.35 s, three of them.
    assert!(cubic.mbits > 88.0 && cubic.resent < 0.01, "{cubic:?}");
}

/// S7.2: a core that others use half of the time doesn't slow down what is paced.
#[test]
fn s7_2_a_loop_that_comes_late_catches_up() {
    for &algorithm in Algorithm::ALL {
        let alone = transfer(algorithm, Impairment::default(), Duration::ZERO);
        let shared = transfer(algorithm, Impairment::default(), Duration::from_millis(3));
        assert!(shared.mbits > 0.97 * alone.mbits, "{algorithm}: {alone:?} {shared:?}");
    }
}
