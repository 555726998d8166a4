//! Two whole cores, wire to application, joined in memory and turned in virtual time.

use std::time::Duration;

use byway_datapath::capture::{Ring, Tap, Wish};
use byway_datapath::config::Rings;
use byway_datapath::core_loop::CoreLoop;
use byway_datapath::port::{MemPort, Port};
use byway_tcp::app::{App, Closed, Conn, ConnId, Opener, Ready};
use byway_tcp::counters::DropReason;
use byway_tcp::frame::{FramePool, HeapMemory, Owner};
use byway_tcp::stack::{Cidr, Config, Listener, Stack};
use byway_tcp::time::Instant;
use byway_tcp::wire::MacAddr;

const FRAMES: u32 = 4096;
const PORT: u16 = 7;
const RINGS: Rings = Rings { fill: 512, rx: 256, tx: 256, completion: 512 };

/// Sends back what it receives, in the frames it came in.
#[derive(Default)]
struct Echo {
    closed: Vec<Closed>,
}

impl App for Echo {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        conn.set_nodelay(true);
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        while conn.send_room() > 0 {
            let Some(chunk) = conn.recv() else { break };
            if let Err(chunk) = conn.send(chunk) {
                conn.release(chunk);
            }
        }
        if conn.recv_finished() {
            conn.shutdown();
        }
    }

    fn closed<C: Conn>(&mut self, _conn: &mut C, reason: Closed) {
        self.closed.push(reason);
    }
}

/// Sends `total` octets of a pattern and checks what comes back.
struct Source {
    total: usize,
    sent: usize,
    received: usize,
    closed: Option<Closed>,
}

impl Source {
    fn new(total: usize) -> Self {
        Self { total, sent: 0, received: 0, closed: None }
    }

    fn octet(at: usize) -> u8 {
        ((at * 31) >> 3) as u8
    }

    fn send<C: Conn>(&mut self, conn: &mut C) {
        while self.sent < self.total && conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { return };
            let len = conn.mss().min(self.total - self.sent);
            let octets: Vec<u8> = (self.sent..self.sent + len).map(Self::octet).collect();
            conn.append(&mut chunk, &octets);
            match conn.send(chunk) {
                Ok(()) => self.sent += len,
                Err(chunk) => return conn.release(chunk),
            }
        }
    }
}

impl App for Source {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        self.send(conn);
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        while let Some(chunk) = conn.recv() {
            for (place, &octet) in conn.bytes(&chunk).iter().enumerate() {
                assert_eq!(octet, Self::octet(self.received + place), "octet {}", self.received + place);
            }
            self.received += chunk.len();
            conn.release(chunk);
        }
        self.send(conn);
        if self.received == self.total {
            conn.shutdown();
        }
    }

    fn closed<C: Conn>(&mut self, _conn: &mut C, reason: Closed) {
        self.closed = Some(reason);
    }
}

type Core<A> = CoreLoop<MemPort, HeapMemory, A>;

fn core<A: App>(host: u8, rings: Rings, app: A) -> Core<A> {
    let mut config = Config::new(MacAddr([2, 0, 0, 0, 0, host]), [host; 32]);
    config.addresses = vec![Cidr { address: [10, 0, 0, host].into(), prefix: 24 }];
    config.max_connections = 64;
    config.max_time_wait = 64;
    config.time_wait = Duration::from_millis(10).into();
    let pool = FramePool::new(HeapMemory::new(FRAMES, 2048));
    CoreLoop::new(MemPort::new(rings), Stack::new(config, pool), app)
}

/// A server, a client, and the wire between them.
struct Pair {
    server: Core<Echo>,
    client: Core<Source>,
    now: Instant,
    /// Frames the wire moves from server to client between two turns; the other way, all.
    wire: usize,
}

impl Pair {
    fn new(rings: Rings, total: usize) -> Self {
        let mut server = core(1, rings, Echo::default());
        server.stack_mut().listen(Listener { port: PORT, backlog: 16 });
        let mut client = core(2, RINGS, Source::new(total));
        let now = Instant::from_millis(1000);
        client.stack_mut().connect(([10, 0, 0, 1], PORT).into(), now).expect("connects");
        Self { server, client, now, wire: usize::MAX }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_micros(10);
        self.client.turn(self.now).expect("turn");
        self.server.turn(self.now).expect("turn");
        carry(&mut self.client, &mut self.server, usize::MAX);
        carry(&mut self.server, &mut self.client, self.wire);
    }

    /// Turns until the client is through, at most a virtual minute.
    fn finish(&mut self) {
        for step in 0..6_000_000 {
            if self.client.app().closed.is_some() {
                return;
            }
            if step % 64 == 0 {
                self.client.assert_conserved();
                self.server.assert_conserved();
            }
            self.step();
        }
        let app = self.client.app();
        panic!("sent {}, received {} of {}", app.sent, app.received, app.total);
    }

    /// P3: with every connection gone each frame is free or in the fill ring.
    fn assert_idle(&mut self) {
        self.wire = usize::MAX;
        for _ in 0..20_000 {
            self.step();
        }
        assert_eq!(self.client.app().closed, Some(Closed::Finished));
        assert_eq!(self.server.app().closed, [Closed::Finished]);
        for (pool, held) in [
            (self.client.stack().pool(), self.client.port().held()),
            (self.server.stack().pool(), self.server.port().held()),
        ] {
            pool.assert_conserved();
            assert_eq!(pool.count(Owner::Fill), held.fill);
            assert_eq!(pool.free_count() + held.fill, FRAMES, "{pool:?}");
        }
    }
}

fn carry<A: App, B: App>(from: &mut Core<A>, to: &mut Core<B>, most: usize) {
    for _ in 0..most {
        let (port, stack) = from.split();
        let Some(frame) = port.take(stack.pool_mut(), <[u8]>::to_vec) else { return };
        let (port, stack) = to.split();
        port.inject(stack.pool_mut(), &frame);
    }
}

#[test]
fn a_megabyte_goes_there_and_back_and_frames_are_conserved() {
    let mut pair = Pair::new(RINGS, 1 << 20);
    pair.finish();
    pair.assert_idle();
    assert_eq!(pair.server.counters().tx_backlogs, 0);
    assert_eq!(pair.server.stack().pool().payload_bytes_copied(), 0);
}

/// D4: a TX ring that is full most of the time holds frames back and loses none.
#[test]
fn a_full_tx_ring_pushes_back() {
    let rings = Rings { tx: 16, completion: 16, ..RINGS };
    let mut pair = Pair::new(rings, 256 << 10);
    pair.wire = 3;
    pair.finish();
    assert!(pair.server.counters().tx_backlogs > 10, "{:?}", pair.server.counters());
    assert!(pair.server.port().counters().tx_ring_full > 10);
    pair.assert_idle();
}

/// D4: a completion ring that is full stops the NIC, not the loop.
#[test]
fn a_wire_that_stands_still_does_not_stop_the_loop() {
    let rings = Rings { tx: 16, completion: 16, ..RINGS };
    let mut pair = Pair::new(rings, 64 << 10);
    pair.wire = 3;
    for _ in 0..100 {
        pair.step();
    }
    pair.wire = 0;
    for _ in 0..1000 {
        pair.step();
    }
    pair.server.assert_conserved();
    pair.wire = usize::MAX;
    pair.finish();
    pair.assert_idle();
}

/// D3: the RX ring overflows while the core stands still; what was lost is sent again.
#[test]
fn a_core_that_stood_still_recovers() {
    let rings = Rings { fill: 128, rx: 64, ..RINGS };
    let mut pair = Pair::new(rings, 2 << 20);
    while pair.client.app().received < 200_000 {
        pair.step();
    }
    // The server's core stops for 100 ms; the client goes on.
    for _ in 0..10_000 {
        pair.now = pair.now + Duration::from_micros(10);
        pair.client.turn(pair.now).expect("turn");
        carry(&mut pair.client, &mut pair.server, usize::MAX);
    }
    let lost = pair.server.port().counters();
    assert!(lost.rx_ring_full + lost.fill_ring_empty > 0, "{lost:?}");
    pair.finish();
    assert_eq!(pair.server.counters().stalls, 1);
    assert!(pair.server.counters().gap_max_ns >= 99_000_000);
    pair.assert_idle();
}

/// D12: after a stall everything received is heard before a timer judges by the clock.
#[test]
fn a_stall_is_no_reason_to_retransmit() {
    let mut pair = Pair::new(RINGS, 256 << 10);
    // Until the client has data under way.
    while pair.client.app().received == 0 {
        pair.step();
    }
    // What is under way arrives, but both stand still for 5 s.
    carry(&mut pair.client, &mut pair.server, usize::MAX);
    pair.server.turn(pair.now).expect("turn");
    carry(&mut pair.server, &mut pair.client, usize::MAX);
    pair.now = pair.now + Duration::from_secs(5);
    pair.finish();
    assert_eq!(pair.client.counters().stalls, 1);
    assert_eq!(pair.server.counters().stalls, 1);
    assert!(pair.client.counters().gap_max_ns >= 4_999_000_000);
    assert_eq!(pair.client.stack().counters().tcp_timeouts, 0, "the client's ACKs lay in its ring");
    assert_eq!(pair.client.stack().counters().tcp_retrans_segs, 0);
    pair.assert_idle();
}

/// Sleeping as long as it meant to is no stall; oversleeping is.
#[test]
fn only_time_lost_against_the_plan_is_a_gap() {
    let mut core = core(1, RINGS, Echo::default());
    let start = Instant::from_millis(1000);
    core.turn(start).expect("turn");
    core.sleeping(start + Duration::from_millis(250));
    core.turn(start + Duration::from_millis(250)).expect("turn");
    assert_eq!(core.counters().gap_max_ns, 0);
    core.sleeping(start + Duration::from_millis(500));
    core.turn(start + Duration::from_millis(300)).expect("woken early");
    assert_eq!((core.counters().gap_max_ns, core.counters().stalls), (0, 0));
    core.sleeping(start + Duration::from_millis(400));
    core.turn(start + Duration::from_millis(1400)).expect("turn");
    assert_eq!((core.counters().gap_max_ns, core.counters().stalls), (1_000_000_000, 1));
}

#[test]
fn a_removed_device_ends_the_turn() {
    let mut core = core(1, RINGS, Echo::default());
    core.port_mut().remove_device();
    let error = core.turn(Instant::from_millis(1)).expect_err("gone");
    assert!(matches!(error, byway_datapath::Error::DeviceGone { .. }));
    core.assert_conserved();
}

/// Opens a connection when it is time, says a word each millisecond, and gives up another that nobody answers.
#[derive(Default)]
struct Caller {
    begins: Instant,
    next: Option<Instant>,
    talks: Option<ConnId>,
    waits: Option<ConnId>,
    said: u32,
    heard: usize,
    closed: Vec<(ConnId, Closed)>,
}

impl App for Caller {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        assert_eq!(Some(conn.id()), self.talks, "the name that `connect` gave");
        self.next = Some(conn.now() + Duration::from_millis(1));
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        while let Some(chunk) = conn.recv() {
            self.heard += chunk.len();
            conn.release(chunk);
        }
        if ready.woken {
            let mut chunk = conn.alloc().expect("memory");
            conn.append(&mut chunk, b"word");
            conn.send(chunk).expect("room");
            self.said += 1;
        }
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        self.closed.push((conn.id(), reason));
    }

    fn turn<O: Opener>(&mut self, opener: &mut O) {
        let now = opener.now();
        if self.talks.is_none() && now >= self.begins {
            self.talks = Some(opener.connect(([10, 0, 0, 1], PORT).into()).expect("connects"));
            self.waits = Some(opener.connect(([10, 0, 0, 77], PORT).into()).expect("connects"));
            assert!(opener.connect_from([10, 0, 0, 9].into(), ([10, 0, 0, 1], PORT).into()).is_err());
        }
        if let (Some(talks), Some(next)) = (self.talks, self.next.filter(|&next| next <= now)) {
            opener.wake(talks);
            self.next = Some(next + Duration::from_millis(1));
            if self.said == 10 {
                opener.abort(self.waits.expect("opened"));
            }
        }
    }

    fn deadline(&self) -> Instant {
        if self.talks.is_none() { self.begins } else { self.next.unwrap_or(Instant::NEVER) }
    }
}

/// An application begins things by itself, when it wants to, and not any more once it is to end.
#[test]
fn an_application_opens_wakes_and_gives_up_connections_in_its_turn() {
    let begins = Instant::from_millis(1005);
    let mut server = core(1, RINGS, Echo::default());
    server.stack_mut().listen(Listener { port: PORT, backlog: 16 });
    let mut client = core(2, RINGS, Caller { begins, ..Caller::default() });
    let mut now = Instant::from_millis(1000);
    client.turn(now).expect("turn");
    // Its own wish, or what the stack has to do before.
    assert!(client.next_deadline() <= begins && client.app().talks.is_none());
    while now < Instant::from_millis(1105) {
        now = now + Duration::from_micros(100);
        client.turn(now).expect("turn");
        server.turn(now).expect("turn");
        carry(&mut client, &mut server, usize::MAX);
        carry(&mut server, &mut client, usize::MAX);
    }
    let app = client.app();
    assert!(app.said > 90 && app.heard >= 4 * 90, "said {}, heard {}", app.said, app.heard);
    assert_eq!(app.closed, [(app.waits.expect("opened"), Closed::Aborted)]);
    client.stack().assert_consistent();

    let said = app.said;
    client.drain(now);
    for _ in 0..100 {
        now = now + Duration::from_millis(1);
        client.turn(now).expect("turn");
        server.turn(now).expect("turn");
        carry(&mut client, &mut server, usize::MAX);
        carry(&mut server, &mut client, usize::MAX);
    }
    assert_eq!(client.app().said, said);
    assert_eq!(client.app().closed.len(), 2);
    client.assert_conserved();
}

/// S4.6: everything that goes in and out is seen, in its order, as it was on the wire though the echo changes it in place.
#[test]
fn s4_6_a_tap_sees_every_frame_as_it_was() {
    let mut pair = Pair::new(RINGS, 64 << 10);
    let wish = Wish { filter: None, snaplen: 2048, discarded: false };
    let ring = Ring::new(4096, wish.snaplen);
    pair.server.add_tap(Tap::new(7, &wish, ring.clone()));
    pair.finish();
    pair.assert_idle();
    let frames: Vec<_> = std::iter::from_fn(|| ring.take()).collect();
    assert_eq!(ring.counts(), (frames.len() as u64, 0));
    let counters = pair.server.stack().counters();
    let outbound = frames.iter().filter(|frame| frame.outbound).count() as u64;
    assert_eq!((frames.len() as u64 - outbound, outbound), (counters.frames_in, counters.frames_out));
    assert!(frames.is_sorted_by_key(|frame| frame.at));
    // Both ways the same text, of which the echo is in the very frames that brought it.
    for outbound in [false, true] {
        let mut seen = 0;
        for frame in frames.iter().filter(|frame| frame.outbound == outbound) {
            let packet =
                byway_tcp::wire::parse(frame.octets(), Default::default()).expect("checksums are right");
            if let byway_tcp::wire::Body::Tcp(_, segment) = packet.body {
                let (at, len) = segment.payload;
                let text = (seen..seen + len).map(Source::octet);
                assert!(text.eq(frame.octets()[at..at + len].iter().copied()), "octets from {seen} on");
                seen += len;
            }
        }
        assert_eq!(seen, 64 << 10);
    }
    assert!(pair.server.remove_tap(8).is_none());
    assert!(pair.server.remove_tap(7).is_some());
    assert!(pair.server.stack().verdicts().is_empty());
}

/// D13: nobody takes what was seen, and the loop goes on as if nobody watched.
#[test]
fn d13_a_full_tap_leaves_frames_out_and_holds_nothing_up() {
    let steps = |slots: Option<usize>| {
        let mut pair = Pair::new(RINGS, 64 << 10);
        let wish = Wish { filter: None, snaplen: 60, discarded: false };
        let ring = Ring::new(slots.unwrap_or(1), wish.snaplen);
        if slots.is_some() {
            pair.server.add_tap(Tap::new(0, &wish, ring.clone()));
        }
        pair.finish();
        pair.assert_idle();
        let frames = pair.server.stack().counters();
        (pair.now, frames.frames_in + frames.frames_out, ring)
    };
    let (unwatched, frames, _) = steps(None);
    let (watched, seen, ring) = steps(Some(8));
    assert_eq!((watched, seen), (unwatched, frames), "not a turn more");
    assert_eq!(ring.counts(), (frames, frames - 8));
    let kept = std::iter::from_fn(|| ring.take()).map(|frame| (frame.octets().len(), frame.len));
    let kept: Vec<_> = kept.collect();
    assert_eq!(kept.len(), 8);
    assert!(kept.iter().all(|&(kept, len)| kept == (len as usize).min(60)), "{kept:?}");
}

/// S4.6: a discarded frame has its reason, its neighbours in the batch have none.
#[test]
fn s4_6_a_tap_says_why_a_frame_was_discarded() {
    let mut pair = Pair::new(RINGS, 1 << 10);
    let wish = Wish { filter: None, snaplen: 2048, discarded: true };
    let ring = Ring::new(16, wish.snaplen);
    pair.server.add_tap(Tap::new(0, &wish, ring.clone()));
    // Beside what the client sends.
    (0..4).for_each(|_| pair.step());
    let (port, stack) = pair.server.split();
    port.inject(stack.pool_mut(), &[0xff; 60]);
    port.inject(stack.pool_mut(), b"short");
    pair.finish();
    let reasons: Vec<_> = std::iter::from_fn(|| ring.take()).map(|frame| frame.reason).collect();
    let counters = pair.server.stack().counters();
    assert_eq!(reasons.len() as u64, counters.dropped_total());
    assert_eq!(reasons, [Some(DropReason::Martian), Some(DropReason::Truncated)]);
    assert_eq!(ring.counts(), (2, 0));
}

/// P3, S4.6: a packet in several frames that no segment is: discarded as one, seen as one, and its frames come back.
#[test]
fn p3_a_packet_in_several_frames_is_one_to_those_who_watch() {
    let mut pair = Pair::new(RINGS, 1 << 10);
    let wish = Wish { filter: None, snaplen: 4000, discarded: true };
    let ring = Ring::new(16, wish.snaplen);
    pair.server.add_tap(Tap::new(0, &wish, ring.clone()));
    (0..4).for_each(|_| pair.step());
    let (port, stack) = pair.server.split();
    assert!(port.inject_scattered(stack.pool_mut(), &[&[0xff; 1700], &[0xee; 1700], &[0xdd; 1000]]));
    assert!(port.inject(stack.pool_mut(), b"short"));
    pair.finish();
    pair.assert_idle();
    let seen: Vec<_> = std::iter::from_fn(|| ring.take()).collect();
    let [scattered, short] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((scattered.reason, scattered.len), (Some(DropReason::Martian), 4400));
    assert_eq!(scattered.octets(), [&[0xff; 1700][..], &[0xee; 1700], &[0xdd; 600]].concat());
    assert_eq!((short.reason, short.len), (Some(DropReason::Truncated), 5));
    assert_eq!(pair.server.stack().counters().dropped_total(), 2);
}
