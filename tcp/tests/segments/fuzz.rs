//! Random segments, mutated from those that fit, against connections whose application does random things.

use byway_tcp::frame::Owner;
use byway_tcp::seq::SeqNumber;
use byway_tcp::stack::Config;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::{Flags, Options, SackBlocks};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::probe::*;

const OFFSETS: [u32; 12] =
    [0, 0, 0, 1, 2, 100, 1460, 65_535, u32::MAX, u32::MAX - 1, 1 << 31, u32::MAX - 1460];

struct Fuzz {
    p: Probe,
    rng: SmallRng,
    peers: Vec<Peer>,
}

impl Fuzz {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let config = Config {
            max_connections: 16,
            max_time_wait: 4,
            user_timeout: Duration::from_secs(20),
            keepalive: rng.random_bool(0.5).then_some(Duration::from_secs(30)),
            ..config()
        };
        let frames = [64, 128, 512][rng.random_range(0..3)];
        let start = Instant::from_millis(rng.random_range(0..40_000_000));
        let mut p = Probe::with(config, frames, start);
        p.app.lenient = true;
        p.app.reads = rng.random_bool(0.7);
        p.app.closes = rng.random_bool(0.7);
        Self { p, rng, peers: Vec::new() }
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.peers.is_empty()).then(|| self.rng.random_range(0..self.peers.len()))
    }

    fn options(&mut self) -> Options {
        let rng = &mut self.rng;
        Options {
            mss: rng.random_bool(0.7).then(|| [1, 48, 536, 1460, 9000][rng.random_range(0..5)]),
            window_scale: rng.random_bool(0.5).then(|| rng.random_range(0..15)),
            sack_permitted: rng.random_bool(0.5),
            timestamps: rng.random_bool(0.3).then(|| (rng.random_range(0..1000), 0)),
            ..Options::NONE
        }
    }

    fn open(&mut self) {
        let mut peer = self.p.peer();
        peer.seq = self.rng.random();
        let options = self.options();
        if self.rng.random_bool(0.2) {
            let remote = std::net::SocketAddr::new(v4(2), peer.remote_port);
            let Ok(id) = self.p.stack.connect(remote, self.p.now) else { return };
            let syn = self.p.collect();
            let Some((_, syn)) = syn.iter().find(|(port, seg)| *port == peer.remote_port && seg.is(SYN))
            else {
                return;
            };
            peer.ack = syn.seq.wrapping_add(1);
            peer.local_port = self.p.info(id).expect("there").local.port();
            peer.id = id;
            if self.rng.random_bool(0.8) {
                self.p.give(&peer, &peer.seg(SYN_ACK).options(options));
                peer.seq = peer.seq.wrapping_add(1);
            }
        } else {
            let out = self.p.give(&peer, &Seg::new(SYN, peer.seq, 0).options(options));
            let Some(syn_ack) = out.first().filter(|seg| seg.is(SYN_ACK)) else { return };
            peer.seq = peer.seq.wrapping_add(1);
            peer.ack = syn_ack.seq.wrapping_add(1);
            if self.rng.random_bool(0.8) {
                let opened = self.p.app.opened.len();
                self.p.give(&peer, &peer.seg(ACK));
                if self.p.app.opened.len() > opened {
                    peer.id = *self.p.app.opened.last().expect("open");
                }
            }
        }
        self.peers.push(peer);
    }

    fn segment(&mut self, at: usize) {
        let peer = self.peers[at];
        let rng = &mut self.rng;
        let flags = match rng.random_range(0..20) {
            0 => Flags(rng.random_range(0..64)),
            1 => FIN_ACK,
            2 if rng.random_bool(0.2) => RST,
            3 => SYN,
            4..7 => PSH_ACK,
            7 => PSH_ACK | URG,
            _ => ACK,
        };
        let offset = if rng.random_bool(0.7) { 0 } else { OFFSETS[rng.random_range(0..OFFSETS.len())] };
        let ack_offset = if rng.random_bool(0.7) { 0 } else { OFFSETS[rng.random_range(0..OFFSETS.len())] };
        let len = if rng.random_bool(0.6) { 0 } else { [1, 2, 100, 1400][rng.random_range(0..4)] };
        let mut sack = SackBlocks::default();
        if rng.random_bool(0.2) {
            for _ in 0..rng.random_range(1..4) {
                let from = peer.ack.wrapping_add(rng.random_range(0..20_000));
                sack.push(SeqNumber(from), SeqNumber(from) + rng.random_range(0..5_000));
            }
        }
        let seg = Seg {
            seq: peer.seq.wrapping_add(offset),
            ack: peer.ack.wrapping_add(ack_offset),
            flags,
            window: [0, 1, 100, 1460, 65_535][rng.random_range(0..5)],
            ecn: rng.random_range(0..4),
            urgent: rng.random(),
            options: Options { sack, ..Options::NONE },
            data: vec![0x55; len],
        };
        let exact = offset == 0 && flags.contains(ACK) && !flags.intersects(SYN | RST);
        let before = self.p.octets;
        let out = self.p.give(&peer, &seg);
        assert!(self.p.octets.0 > before.0);
        let peer = &mut self.peers[at];
        for sent in out {
            // The peer keeps up, more or less.
            if self.rng.random_bool(0.8) && sent.end().wrapping_sub(peer.ack) < 1 << 30 {
                peer.ack = sent.end();
            }
            if exact && sent.flags.contains(ACK) && sent.ack.wrapping_sub(peer.seq) < 100_000 {
                peer.seq = sent.ack;
            }
        }
    }

    fn act(&mut self, at: usize) {
        let peer = self.peers[at];
        let what = self.rng.random_range(0..20);
        let len = self.rng.random_range(1..4000);
        let now = self.p.now;
        self.p.stack.with_conn(&mut self.p.app, peer.id, now, |app, conn| match what {
            0..8 => {
                write(conn, &vec![0xaa; len]);
            }
            8..14 => app.take(conn),
            14 => conn.set_nodelay(len % 2 == 0),
            15 => conn.set_timer(Some(now + Duration::from_millis(len as u64))),
            16 if len % 8 == 0 => conn.abort(),
            17 => {
                let mut kept = Vec::new();
                while kept.len() < 8
                    && let Some(chunk) = conn.alloc()
                {
                    kept.push(chunk);
                }
                for chunk in kept {
                    conn.release(chunk);
                }
            }
            18 if len % 4 == 0 => conn.shutdown(),
            19 => {
                conn.send_urgent();
                assert!(conn.urgent().is_none_or(|octets| octets < 1 << 20), "T18");
            }
            _ => {}
        });
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..6 => self.open(),
            6..60 => {
                if let Some(at) = self.pick() {
                    self.segment(at);
                }
            }
            60..85 => {
                if let Some(at) = self.pick() {
                    self.act(at);
                }
            }
            85..97 => {
                let millis = self.rng.random_range(0..300);
                self.p.wait_ms(millis);
            }
            97 => {
                let secs = self.rng.random_range(0..30);
                self.p.wait(Duration::from_secs(secs));
            }
            98 => self.p.slow_nic = self.rng.random_bool(0.3),
            _ => self.p.complete(),
        }
        if !self.p.slow_nic {
            self.p.complete();
        }
        self.p.collect();
        self.p.stack.assert_consistent();
        self.peers.retain(|peer| peer.id == NO_CONN || self.p.info(peer.id).is_some());
        if self.peers.len() > 20 {
            self.peers.remove(0);
        }
    }
}

/// P1 P3 T5: no panic, no lost frame, no connection without a timer, and all ends when told to.
#[test]
fn p1_p3_t5_random_segments_and_applications() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        // A failure replays with this seed.
        let result = std::panic::catch_unwind(|| {
            let mut fuzz = Fuzz::new(seed);
            for _ in 0..400 {
                fuzz.step();
            }
            let mut p = fuzz.p;
            p.slow_nic = false;
            p.complete();
            if seed % 2 == 0 {
                p.stack.abort_all(&mut p.app, p.now);
                p.collect();
                assert_eq!(p.stack.connection_count(), 0);
            } else {
                // Nobody says anything any more: all that isn't ESTABLISHED or CLOSE-WAIT ends by itself.
                p.wait(Duration::from_secs(1000));
                let own = [State::Listen, State::Established, State::CloseWait];
                let others: u32 = State::ALL.iter().filter(|s| !own.contains(s)).map(|s| p.count(*s)).sum();
                assert_eq!(others, 0, "{:?}", p.stack.connections_by_state());
                p.stack.abort_all(&mut p.app, p.now);
                p.collect();
            }
            p.stack.assert_consistent();
            p.assert_idle();
            assert_eq!(p.stack.pool().count(Owner::App), 0);
            let heard = p.app.closed.len();
            assert!(heard >= p.app.opened.len(), "everybody who was opened was closed");
            p.wait(Duration::from_secs(130));
            assert_eq!(p.stack.connections_by_state().iter().sum::<u32>(), 1, "the listener");
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}
