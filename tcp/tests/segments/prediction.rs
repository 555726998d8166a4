//! Header prediction against a peer that is nearly honest: the same segments, with and without it, lead to the same.
//!
//! Most of what the peer does here is what prediction is for. Now and then it repeats, overtakes itself, shrinks its
//! window, acknowledges the middle of a segment, marks, or sends timestamps from the past.

use byway_tcp::seq::SeqNumber;
use byway_tcp::stack::{Config, Ecn};
use byway_tcp::tcb::congestion::Algorithm;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::MacAddr;
use byway_tcp::wire::tcp::{Flags, Options, SackBlocks};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::probe::*;

const ECT0: u8 = 2;
const CE: u8 = 3;

/// One connection, what its peer knows, and everything that came of it.
struct Run {
    p: Probe,
    rng: SmallRng,
    peer: Peer,
    /// What the stack has sent ends here; where its segments ended; what the peer acknowledged last.
    sent: u32,
    ends: Vec<u32>,
    acked: u32,
    timestamps: Option<u32>,
    sack: bool,
    /// Segments the peer has sent, to be repeated, and some that it holds back, to be overtaken.
    said: Vec<Seg>,
    held: Vec<Seg>,
    said_all: Vec<String>,
}

impl Run {
    fn new(seed: u64, prediction: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let congestion = *Algorithm::ALL.choose(&mut rng).expect("some");
        let config = Config {
            prediction,
            congestion,
            ecn: [Ecn::Off, Ecn::Answer][rng.random_range(0..2)],
            receive_buffer: [4 << 10, 64 << 10, 1 << 20][rng.random_range(0..3)],
            send_buffer: [8 << 10, 1 << 20][rng.random_range(0..2)],
            quick_acks: [0, 4, 16][rng.random_range(0..3)],
            keepalive: rng.random_bool(0.2).then_some(Duration::from_secs(2)),
            ..config()
        };
        let frames = [48, 128, 1024][rng.random_range(0..3)];
        let start = Instant::from_millis(rng.random_range(0..40_000_000));
        let mut p = Probe::with(config, frames, start);
        p.app.lenient = true;
        p.app.reads = rng.random_bool(0.8);
        let mut peer = p.peer();
        peer.remote = if rng.random_bool(0.3) { v6(2) } else { v4(2) };
        peer.seq =
            if rng.random_bool(0.3) { rng.random_range(u32::MAX - 20_000..=u32::MAX) } else { rng.random() };
        let timestamps = rng.random_bool(0.5).then(|| rng.random());
        let sack = rng.random_bool(0.7);
        let options = Options {
            mss: Some([536, 1460][rng.random_range(0..2)]),
            window_scale: rng.random_bool(0.6).then(|| rng.random_range(0..8)),
            sack_permitted: sack,
            timestamps: timestamps.map(|value| (value, 0)),
            ..Options::NONE
        };
        let asks = if rng.random_bool(0.5) { Flags::ECE | Flags::CWR } else { Flags::NONE };
        let first_window = [500, 65_535][rng.random_range(0..2)];
        let syn_ack = p.ask(&peer, &peer.seg(SYN | asks).options(options).window(first_window));
        peer.seq = peer.seq.wrapping_add(1);
        peer.ack = syn_ack.seq.wrapping_add(1);
        p.now = p.now + Duration::from_micros(rng.random_range(1..100_000));
        let said = vec![peer.seg(ACK)];
        let (sent, ends) = (peer.ack, vec![peer.ack]);
        let mut run = Self {
            p,
            rng,
            peer,
            sent,
            ends,
            acked: sent,
            timestamps,
            sack,
            said,
            held: Vec::new(),
            said_all: Vec::new(),
        };
        let mut ack = run.peer.seg(ACK).window(first_window);
        ack.options.timestamps = timestamps.map(|value| (value, 0));
        run.give(vec![ack]);
        run.peer.id = *run.p.app.opened.last().expect("open");
        let nodelay = run.rng.random_bool(0.5);
        run.p.act(&run.peer, |_, conn| conn.set_nodelay(nodelay));
        run
    }

    /// With the peer's clock, which now and then stands still, and once in a while goes back.
    fn stamped(&mut self, mut seg: Seg) -> Seg {
        let Some(clock) = &mut self.timestamps else { return seg };
        *clock = clock.wrapping_add([0, 1, 10, 1000][self.rng.random_range(0..4)]);
        let value = if self.rng.random_bool(0.01) { clock.wrapping_sub(5000) } else { *clock };
        let echo = self.p.now.as_millis() as u32;
        seg.options.timestamps = (!self.rng.random_bool(0.01)).then_some((value, echo));
        seg
    }

    fn give(&mut self, segs: Vec<Seg>) {
        self.said_all.push(format!("{segs:?}"));
        let out = self.p.batch(&self.peer, &segs);
        self.note(out);
    }

    fn note(&mut self, out: Vec<Seg>) {
        for seg in out {
            self.said_all.push(format!("{:?} {seg:?}", self.p.now));
            let ahead = seg.end().wrapping_sub(self.sent);
            if ahead > 0 && ahead < 1 << 30 && !seg.flags.intersects(SYN | RST) {
                self.sent = seg.end();
            }
            self.ends.push(seg.end());
        }
        let excess = self.ends.len().saturating_sub(64);
        self.ends.drain(..excess);
    }

    /// Where the peer's acknowledgement stands now.
    fn ack(&mut self) -> u32 {
        let out = self.sent.wrapping_sub(self.acked);
        let ack = match self.rng.random_range(0..20) {
            0..11 => self.sent,
            11..15 => *self.ends.choose(&mut self.rng).expect("some"),
            15 if out > 0 => self.acked.wrapping_add(self.rng.random_range(0..=out)),
            16 => self.acked.wrapping_sub(self.rng.random_range(0..3000)),
            _ => self.acked,
        };
        let ahead = ack.wrapping_sub(self.acked);
        if ahead <= out {
            self.acked = ack;
        }
        ack
    }

    fn segment(&mut self) -> Seg {
        let len = match self.rng.random_range(0..10) {
            0..4 => 0,
            4 => self.rng.random_range(1..1449),
            at => [1, 10, 100, 536, 1448][at - 5],
        };
        let mut seg = self.peer.seg(if self.rng.random_bool(0.5) { ACK } else { PSH_ACK });
        seg.ack = self.ack();
        seg.data = vec![len as u8; len];
        seg.window = match self.rng.random_range(0..30) {
            0 => 0,
            1..4 => self.rng.random_range(1..3000),
            4 => self.rng.random(),
            _ => 60_000,
        };
        match self.rng.random_range(0..60) {
            0 => seg.flags |= Flags::ECE,
            1 => seg.flags |= Flags::CWR,
            2 => (seg.flags, seg.urgent) = (seg.flags | URG, self.rng.random_range(0..2000)),
            // An acknowledgement that overtakes text.
            3 => seg.seq = seg.seq.wrapping_add(self.rng.random_range(0..3000)),
            4 => seg.seq = seg.seq.wrapping_sub(self.rng.random_range(0..3000)),
            _ => {}
        }
        if len > 0 {
            seg.ecn = if self.rng.random_bool(0.03) { CE } else { ECT0 };
        }
        let out = self.sent.wrapping_sub(self.acked);
        let mut seg = self.stamped(seg);
        if self.sack && out > 0 && self.rng.random_bool(0.1) {
            let mut blocks = SackBlocks::default();
            let start = self.acked.wrapping_add(self.rng.random_range(0..out));
            let end = *self.ends.choose(&mut self.rng).expect("some");
            blocks.push(SeqNumber(start), SeqNumber(end));
            seg.options.sack = blocks;
        }
        if seg.seq == self.peer.seq {
            self.peer.seq = seg.end();
        }
        self.said.push(seg.clone());
        let excess = self.said.len().saturating_sub(16);
        self.said.drain(..excess);
        seg
    }

    /// One to a few segments, in order but for what was held back or is repeated.
    fn segments(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..[1, 1, 1, 2, 5][self.rng.random_range(0..5)] {
            let seg = self.segment();
            match self.rng.random_range(0..40) {
                0 => self.held.push(seg),
                1 => batch.extend([seg.clone(), seg]),
                2 => batch.extend([self.said.choose(&mut self.rng).expect("some").clone(), seg]),
                _ => batch.push(seg),
            }
        }
        if self.rng.random_bool(0.5) {
            batch.append(&mut self.held);
        }
        self.give(batch);
    }

    fn act(&mut self) {
        let what = self.rng.random_range(0..40);
        let len = [1, 10, 200, 1448, 4000, 12_000][self.rng.random_range(0..6)];
        let out = self.p.stack.with_conn(&mut self.p.app, self.peer.id, self.p.now, |app, conn| match what {
            0..28 => {
                write(conn, &vec![0xaa; len]);
            }
            28..36 => app.take(conn),
            36 | 37 => conn.set_nodelay(what == 36),
            38 => conn.send_urgent(),
            _ => conn.set_dscp(10),
        });
        self.said_all.push(format!("{:?}", out.is_some()));
        let out = self.p.collect().into_iter().map(|(_, seg)| seg).collect();
        self.note(out);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..55 => self.segments(),
            55..80 => self.act(),
            80..98 => {
                let micros = [10, 500, 5_000, 50_000][self.rng.random_range(0..4)];
                self.wait(Duration::from_micros(micros));
            }
            98 => {
                let millis = self.rng.random_range(0..3000);
                self.wait(Duration::from_millis(millis));
            }
            _ => self.p.slow_nic = self.rng.random_bool(0.3),
        }
        if !self.p.slow_nic {
            self.p.complete();
            let out = self.p.collect().into_iter().map(|(_, seg)| seg).collect();
            self.note(out);
        }
        self.p.stack.assert_consistent();
        self.said_all.push(format!("{:?}", self.p.info(self.peer.id)));
    }

    fn wait(&mut self, time: Duration) {
        for (after, seg) in self.p.wait(time) {
            self.said_all.push(format!("after {after:?}"));
            self.note(vec![seg]);
        }
    }

    /// Everything that was said, done and counted.
    fn transcript(seed: u64, prediction: bool) -> Vec<String> {
        let mut run = Self::new(seed, prediction);
        for _ in 0..300 {
            run.step();
        }
        let p = &run.p;
        run.said_all.push(format!("{:?}", p.app));
        run.said_all.push(format!("{:?}", p.stack.counters()));
        run.p.slow_nic = false;
        run.p.complete();
        run.p.stack.abort_all(&mut run.p.app, run.p.now);
        run.p.collect();
        run.p.assert_idle();
        run.said_all
    }
}

/// P7: the same segments, octets, timers, events and counters.
#[test]
fn p7_prediction_makes_no_difference_to_a_peer_that_is_nearly_honest() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        let (with, without) = (Run::transcript(seed, true), Run::transcript(seed, false));
        let differs = with.iter().zip(&without).position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!("seed {seed}: {}\nwith prediction: {}\nwithout: {}", with[at - 1], with[at], without[at]);
        }
        assert_eq!(with.len(), without.len(), "seed {seed}");
    }
}

/// L3 L6: what is for another station, from a group, or from ourselves, is no segment of any connection.
#[test]
fn l3_l6_frames_of_impossible_stations_are_not_predicted() {
    let group = MacAddr([3, 0, 0, 0, 0, 2]);
    let pairs = [(PEER_MAC, MAC), (PEER_MAC, MacAddr::BROADCAST), (MAC, PEER_MAC), (MAC, group), (MAC, MAC)];
    for (dst, src) in pairs {
        let mut p = Probe::new();
        let peer = p.accept();
        let mut frame = p.frame(&peer, &peer.seg(PSH_ACK).data(b"text"));
        frame[..6].copy_from_slice(&dst.0);
        frame[6..12].copy_from_slice(&src.0);
        p.give_frames(&[frame]);
        let taken = p.app.text(peer.id).len();
        assert_eq!(taken, if (dst, src) == (MAC, PEER_MAC) { 4 } else { 0 }, "{dst:?} {src:?}");
        assert_eq!(p.stack.counters().dropped_total(), u64::from(taken == 0), "{dst:?} {src:?}");
    }
}
