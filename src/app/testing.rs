//! A connection without a stack, over real frames: [`TestConn`], and [`Peer`] at its other end.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use byway_tcp::app::{App, Closed, Conn, ConnId, Keepalive, Metrics, Opener, Ready, Trouble};
use byway_tcp::counters::{Counters, Totals};
use byway_tcp::frame::{Chunk, FramePool, HeapMemory, Owner};
use byway_tcp::stack::ConnectError;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Config, Ports, Service, WallClock};

pub(super) const HTTP: u16 = 80;
pub(super) const HTTPS: u16 = 443;
pub(super) const ECHO: u16 = 7;
pub(super) const DISCARD: u16 = 9;
pub(super) const CHARGEN: u16 = 19;

/// Octets in front of the payload in a received frame: XDP's 256 and Ethernet, IPv4, TCP headers.
const PAYLOAD_OFFSET: usize = 256 + 14 + 20 + 20;

/// The field in answers of a [`Peer`] in the first second.
pub(super) const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

/// The service's configuration in tests.
pub(super) fn config() -> Config {
    let clock = WallClock::default();
    clock.set(Instant::ZERO, Duration::from_secs(784_111_777));
    Config {
        ports: Ports {
            http: Some(HTTP),
            https: Some(HTTPS),
            echo: Some(ECHO),
            discard: Some(DISCARD),
            chargen: Some(CHARGEN),
        },
        clock,
        ..Config::default()
    }
}

/// A [`Conn`] whose receive and send queues are plain lists.
pub(super) struct TestConn {
    pool: FramePool<HeapMemory>,
    local: SocketAddr,
    now: Instant,
    mss: usize,
    inbound: VecDeque<Chunk>,
    fin_received: bool,
    in_flight: VecDeque<Chunk>,
    room: usize,
    sent: Vec<u8>,
    sent_lens: Vec<usize>,
    shut: bool,
    aborted: bool,
    timer: Option<Instant>,
    /// `send_room` was seen at 0, or `alloc` failed: `writable` is owed.
    starved: bool,
    /// Chance that `alloc` fails, and where chance comes from.
    alloc_failure: Option<(f64, SmallRng)>,
    totals: Totals,
    metrics: Option<Metrics>,
}

impl Conn for TestConn {
    fn id(&self) -> ConnId {
        ConnId { index: 3, generation: 1 }
    }
    fn local(&self) -> SocketAddr {
        self.local
    }
    fn peer(&self) -> SocketAddr {
        ([192, 0, 2, 9], 40_000).into()
    }
    fn now(&self) -> Instant {
        self.now
    }
    fn mss(&self) -> usize {
        self.mss
    }
    fn recv(&mut self) -> Option<Chunk> {
        let chunk = self.inbound.pop_front()?;
        self.pool.hand_to(&chunk, Owner::App);
        Some(chunk)
    }
    fn recv_finished(&self) -> bool {
        self.fin_received && self.inbound.is_empty()
    }
    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        self.pool.bytes(chunk)
    }
    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        self.pool.bytes_mut(chunk)
    }
    fn alloc(&mut self) -> Option<Chunk> {
        let unlucky = self.alloc_failure.as_mut().is_some_and(|(chance, rng)| rng.random_bool(*chance));
        let chunk = if unlucky { None } else { self.pool.alloc(Owner::App) };
        self.starved |= chunk.is_none();
        chunk
    }
    fn tailroom(&self, chunk: &Chunk) -> usize {
        self.pool.tailroom(chunk)
    }
    fn grow_back(&self, chunk: &mut Chunk, octets: usize) {
        self.pool.grow_back(chunk, octets);
    }
    fn append(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.pool.append(chunk, octets);
    }
    fn prepend(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.pool.prepend(chunk, octets);
    }
    fn split_off(&mut self, chunk: &mut Chunk, at: usize) -> Option<Chunk> {
        let tail = self.pool.split_off(chunk, at);
        self.starved |= tail.is_none();
        tail
    }
    fn note_copied(&mut self, octets: usize) {
        self.pool.note_copied(octets);
    }
    fn release(&mut self, chunk: Chunk) {
        self.pool.release(chunk);
    }
    fn send_room(&self) -> usize {
        if self.shut || self.aborted { 0 } else { self.room.saturating_sub(self.in_flight.len()) }
    }
    fn send(&mut self, chunk: Chunk) -> Result<(), Chunk> {
        if self.shut || self.aborted || self.send_room() == 0 {
            return Err(chunk);
        }
        if chunk.is_empty() {
            self.pool.release(chunk);
            return Ok(());
        }
        self.sent.extend_from_slice(self.pool.bytes(&chunk));
        self.sent_lens.push(chunk.len());
        self.in_flight.push_back(chunk);
        Ok(())
    }
    fn trouble(&self) -> Option<Trouble> {
        None
    }
    fn urgent(&self) -> Option<u32> {
        None
    }
    fn send_urgent(&mut self) {}
    fn send_drained(&self) -> bool {
        self.in_flight.is_empty()
    }
    fn shutdown(&mut self) {
        self.shut = true;
    }
    fn abort(&mut self) {
        self.aborted = true;
    }
    fn set_timer(&mut self, at: Option<Instant>) {
        self.timer = at;
    }
    fn set_nodelay(&mut self, _on: bool) {}
    fn set_dscp(&mut self, _dscp: u8) {}
    fn set_user_timeout(&mut self, _limit: Option<Duration>) {}
    fn set_keepalive(&mut self, _keepalive: Option<Keepalive>) {}
    fn set_linger(&mut self, _linger: Option<Duration>) {}
    fn counters(&mut self) -> &mut Counters {
        &mut self.totals.counters
    }
    fn metrics(&self) -> Option<Metrics> {
        self.metrics
    }
    fn totals(&self) -> Totals {
        self.totals.clone()
    }
}

/// Notes whether the connection is woken.
struct Waker {
    now: Instant,
    woken: bool,
}

impl Opener for Waker {
    fn now(&self) -> Instant {
        self.now
    }
    fn connect(&mut self, _remote: SocketAddr) -> Result<ConnId, ConnectError> {
        unreachable!("a service opens nothing")
    }
    fn connect_from(&mut self, _local: IpAddr, _remote: SocketAddr) -> Result<ConnId, ConnectError> {
        unreachable!("a service opens nothing")
    }
    fn wake(&mut self, id: ConnId) {
        self.woken |= id == ConnId { index: 3, generation: 1 };
    }
    fn abort(&mut self, _id: ConnId) {
        unreachable!("a service gives nothing up by name")
    }
}

/// A client of the service: sends octets cut as the test wants, collects what comes back.
pub(super) struct Peer {
    service: Service,
    conn: TestConn,
    hold_acks: bool,
    offset: usize,
    /// The program is about to end: the loop calls `turn` no more.
    drained: bool,
    closed: bool,
}

impl Peer {
    /// A connection to `port` with 256 frames of 2 KiB and room for 64 chunks.
    pub(super) fn connect(port: u16) -> Self {
        Self::connect_with(port, config(), 256)
    }

    /// A connection to `port` of a service with `config`, over `frames` frames.
    pub(super) fn connect_with(port: u16, config: Config, frames: u32) -> Self {
        let mut totals = Totals::default();
        totals.states.enter(State::Closed, State::Established);
        let conn = TestConn {
            pool: FramePool::new(HeapMemory::new(frames, 2048)),
            local: ([192, 0, 2, 1], port).into(),
            now: Instant::from_millis(1),
            mss: 1460,
            inbound: VecDeque::new(),
            fin_received: false,
            in_flight: VecDeque::new(),
            room: 64,
            sent: Vec::new(),
            sent_lens: Vec::new(),
            shut: false,
            aborted: false,
            timer: None,
            starved: false,
            alloc_failure: None,
            totals,
            metrics: None,
        };
        let mut peer = Self {
            service: Service::new(config),
            conn,
            hold_acks: false,
            offset: PAYLOAD_OFFSET,
            drained: false,
            closed: false,
        };
        peer.service.opened(&mut peer.conn);
        peer
    }

    pub(super) fn set_room(&mut self, chunks: usize) {
        self.conn.room = chunks;
    }

    pub(super) fn set_mss(&mut self, octets: usize) {
        self.conn.mss = octets;
    }

    /// Where payload begins in received frames; 128 leaves no headroom.
    pub(super) fn set_offset(&mut self, octets: usize) {
        self.offset = octets;
    }

    /// From now on `alloc` fails with probability `chance`.
    pub(super) fn fail_allocs(&mut self, chance: f64, seed: u64) {
        self.conn.alloc_failure = (chance > 0.0).then(|| (chance, SmallRng::seed_from_u64(seed)));
    }

    /// Whether what the service sends stays unacknowledged.
    pub(super) fn hold_acks(&mut self, hold: bool) {
        self.hold_acks = hold;
    }

    /// Sends `octets` in full-size segments, each a batch of its own.
    pub(super) fn send(&mut self, octets: &[u8]) {
        self.send_cut(octets, &[self.conn.mss]);
    }

    /// Sends `octets` in segments of the sizes given, the last size repeating.
    pub(super) fn send_cut(&mut self, octets: &[u8], sizes: &[usize]) {
        let mut rest = octets;
        let mut sizes = sizes.iter().copied();
        let mut size = self.conn.mss;
        while !rest.is_empty() {
            size = sizes.next().unwrap_or(size).clamp(1, self.conn.mss);
            let (now, later) = rest.split_at(size.min(rest.len()));
            self.arrive(now);
            self.ready(Ready { readable: true, ..Ready::default() });
            rest = later;
            if !self.hold_acks {
                self.pump();
            }
        }
    }

    /// Puts `octets` into the receive queue in full-size segments, without telling the service.
    pub(super) fn queue(&mut self, octets: &[u8]) {
        for piece in octets.chunks(self.conn.mss) {
            self.arrive(piece);
        }
    }

    /// Tells the service that there is something to read.
    pub(super) fn readable(&mut self) {
        self.ready(Ready { readable: true, ..Ready::default() });
        if !self.hold_acks {
            self.pump();
        }
    }

    fn arrive(&mut self, octets: &[u8]) {
        let index = self.conn.pool.fill().expect("a free frame for what arrives");
        let slice = self.conn.pool.write_as_nic(index, self.offset, octets);
        let chunk = self.conn.pool.received(slice);
        self.conn.inbound.push_back(chunk);
    }

    fn ready(&mut self, ready: Ready) {
        self.service.ready(&mut self.conn, ready);
        self.conn.pool.assert_conserved();
    }

    /// Lets the loop turn: the service wakes whom it made wait. Whether that was anybody.
    pub(super) fn turn(&mut self) -> bool {
        let mut waker = Waker { now: self.conn.now, woken: false };
        self.service.turn(&mut waker);
        if waker.woken {
            self.ready(Ready { woken: true, ..Ready::default() });
        }
        waker.woken
    }

    /// Acknowledges what was sent and says `writable`, if the service waits for it, and lets the loop turn. Whether
    /// anything happened.
    pub(super) fn pump_once(&mut self) -> bool {
        let full = !self.conn.shut && !self.conn.aborted && self.conn.send_room() == 0;
        let acked = self.conn.in_flight.len();
        self.acknowledge();
        let starved = core::mem::take(&mut self.conn.starved);
        if full || starved {
            self.ready(Ready { writable: true, ..Ready::default() });
        }
        let woken = !self.drained && self.turn();
        full || starved || woken || acked > 0
    }

    /// Acknowledges what was sent, and that is all.
    pub(super) fn acknowledge(&mut self) {
        while let Some(chunk) = self.conn.in_flight.pop_front() {
            self.conn.pool.release(chunk);
        }
    }

    /// Acknowledges and says `writable` until the service has nothing more to send.
    pub(super) fn pump(&mut self) {
        let mut turns = 0;
        while self.pump_once() {
            turns += 1;
            assert!(turns < 3_000_000, "the service never comes to rest");
        }
    }

    /// The same, and what it leads to.
    pub(super) fn turn_and_pump(&mut self) -> bool {
        let woken = self.turn();
        if woken {
            self.pump();
        }
        woken
    }

    /// The program is about to end.
    pub(super) fn drain(&mut self) {
        self.drained = true;
        self.service.draining(&mut self.conn);
        self.conn.pool.assert_conserved();
        if !self.hold_acks {
            self.pump();
        }
    }

    /// The peer's FIN.
    pub(super) fn finish(&mut self) {
        self.conn.fin_received = true;
        self.ready(Ready { readable: true, ..Ready::default() });
        if !self.hold_acks {
            self.pump();
        }
    }

    /// Lets time pass, with the timer going off when it is due.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.conn.now + duration;
        while let Some(at) = self.conn.timer.filter(|&at| at <= until) {
            self.conn.now = self.conn.now.max(at);
            self.conn.timer = None;
            self.ready(Ready { timer: true, ..Ready::default() });
            if !self.hold_acks {
                self.pump();
            }
        }
        self.conn.now = until;
    }

    /// All octets the service sent so far.
    pub(super) fn received(&self) -> &[u8] {
        &self.conn.sent
    }

    /// All octets since the last `take`.
    pub(super) fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.conn.sent)
    }

    /// Chunks the service sent so far.
    pub(super) fn chunks_sent(&self) -> usize {
        self.conn.sent_lens.len()
    }

    /// The longest chunk the service sent.
    pub(super) fn longest_chunk(&self) -> usize {
        self.conn.sent_lens.iter().copied().max().unwrap_or(0)
    }

    /// Segments waiting in the receive queue.
    pub(super) fn unread(&self) -> usize {
        self.conn.inbound.len()
    }

    /// Frames the application holds on to.
    pub(super) fn held(&self) -> u32 {
        self.conn.pool.count(Owner::App) - self.conn.in_flight.len() as u32
    }

    /// Payload octets copied so far.
    pub(super) fn copied(&self) -> u64 {
        self.conn.pool.payload_bytes_copied()
    }

    /// What the connection says of itself.
    pub(super) fn set_metrics(&mut self, metrics: Option<Metrics>) {
        self.conn.metrics = metrics;
    }

    pub(super) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.conn.totals.counters
    }

    /// Whether the service has closed its side.
    pub(super) fn server_finished(&self) -> bool {
        self.conn.shut
    }

    /// Whether the service has reset the connection.
    pub(super) fn server_aborted(&self) -> bool {
        self.conn.aborted
    }

    /// The connection ends; every frame must be free again (P3).
    pub(super) fn close(mut self) {
        self.end();
    }

    /// The connection ends, and another one opens in the same place of the same service.
    pub(super) fn again(&mut self) {
        self.end();
        self.closed = false;
        let conn = &mut self.conn;
        (conn.fin_received, conn.shut, conn.aborted, conn.starved) = (false, false, false, false);
        conn.timer = None;
        conn.sent.clear();
        conn.sent_lens.clear();
        self.service.opened(&mut self.conn);
        assert_eq!(self.service.spare(), 0, "what was kept is used again");
    }

    fn end(&mut self) {
        self.closed = true;
        self.service.closed(&mut self.conn, Closed::Finished);
        let queued = self.conn.inbound.drain(..).chain(self.conn.in_flight.drain(..));
        for chunk in queued {
            self.conn.pool.release(chunk);
        }
        self.conn.pool.assert_conserved();
        assert_eq!(self.conn.pool.free_count(), self.conn.pool.total(), "frames were leaked");
        assert_eq!(self.service.connections(), 0);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !self.closed && !std::thread::panicking() {
            self.end();
        }
    }
}
