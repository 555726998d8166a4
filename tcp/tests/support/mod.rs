//! Two stacks, a link between them, and a clock that jumps: everything from one seed.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use byway_tcp::app::{App, Closed, Conn, ConnId, Ready};
use byway_tcp::frame::{FramePool, FrameSlice, HeapMemory, Owner};
use byway_tcp::stack::{Cidr, Config, Listener, Stack};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::MacAddr;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub const ECHO: u16 = 7;
pub const DISCARD: u16 = 9;
/// Accepts and never reads.
pub const DEAF: u16 = 10;
/// Closes as soon as it is open.
pub const CLOSER: u16 = 11;

/// What a client does once it is connected.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Octets to send; octet n is `pattern(n)`.
    pub send: usize,
    /// Octets a write.
    pub write: usize,
    /// Close after sending, not after reading everything back.
    pub half_close: bool,
    pub nodelay: bool,
    /// Never read.
    pub deaf: bool,
}

impl Plan {
    pub fn bulk(send: usize) -> Self {
        Self { send, write: 1400, half_close: false, nodelay: true, deaf: false }
    }
}

pub fn pattern(at: usize) -> u8 {
    (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

#[derive(Debug, Default)]
pub struct Client {
    pub plan: Option<Plan>,
    pub sent: usize,
    pub received: usize,
    pub corrupt: bool,
    pub opened: bool,
    pub finished: bool,
    pub closed: Option<Closed>,
}

/// Servers by port, clients by plan.
#[derive(Debug, Default)]
pub struct TestApp {
    pub clients: HashMap<ConnId, Client>,
    pub next_plan: Option<Plan>,
    pub opened: usize,
    pub closed: BTreeMap<String, usize>,
    pub served: usize,
    pub discarded: Vec<u8>,
}

impl TestApp {
    fn client<C: Conn>(&mut self, conn: &mut C) {
        let id = conn.id();
        let Some(client) = self.clients.get_mut(&id) else { return };
        let deaf = client.plan.as_ref().is_some_and(|plan| plan.deaf);
        while !deaf && let Some(chunk) = conn.recv() {
            for &octet in conn.bytes(&chunk) {
                client.corrupt |= octet != pattern(client.received);
                client.received += 1;
            }
            conn.release(chunk);
        }
        let Some(plan) = client.plan.clone() else { return };
        while client.sent < plan.send && conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { break };
            let len = plan.write.min(plan.send - client.sent);
            let octets: Vec<u8> = (client.sent..client.sent + len).map(pattern).collect();
            conn.append(&mut chunk, &octets);
            if let Err(chunk) = conn.send(chunk) {
                conn.release(chunk);
                break;
            }
            client.sent += len;
        }
        let all_back = client.received == plan.send;
        if client.sent == plan.send && (plan.half_close || all_back) {
            conn.shutdown();
        }
        client.finished |= conn.recv_finished();
    }
}

impl App for TestApp {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        self.opened += 1;
        let id = conn.id();
        if let Some(client) = self.clients.get_mut(&id) {
            client.opened = true;
            let nodelay = client.plan.as_ref().is_none_or(|plan| plan.nodelay);
            conn.set_nodelay(nodelay);
            self.client(conn);
        } else if conn.local().port() == CLOSER {
            conn.shutdown();
        } else {
            conn.set_nodelay(true);
        }
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        let id = conn.id();
        if self.clients.contains_key(&id) {
            return self.client(conn);
        }
        match conn.local().port() {
            ECHO => {
                while conn.send_room() > 0 {
                    let Some(chunk) = conn.recv() else { break };
                    self.served += chunk.len();
                    if let Err(chunk) = conn.send(chunk) {
                        conn.release(chunk);
                    }
                }
            }
            DEAF => return,
            _ => {
                while let Some(chunk) = conn.recv() {
                    self.served += chunk.len();
                    self.discarded.extend_from_slice(conn.bytes(&chunk));
                    conn.release(chunk);
                }
            }
        }
        if conn.recv_finished() {
            conn.shutdown();
        }
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        *self.closed.entry(format!("{reason:?}")).or_default() += 1;
        if let Some(client) = self.clients.get_mut(&conn.id()) {
            client.closed = Some(reason);
        }
    }
}

/// A stack with its application and a heap of frames.
#[derive(Debug)]
pub struct Host {
    pub stack: Stack<HeapMemory>,
    pub app: TestApp,
    fill: Vec<u32>,
}

pub const FRAMES: u32 = 2048;

pub fn config(last: u8) -> Config {
    let mut config = Config::new(MacAddr([2, 0, 0, 0, 0, last]), [last; 32]);
    config.addresses = vec![
        Cidr { address: IpAddr::from([10, 0, 0, last]), prefix: 24 },
        Cidr { address: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]), prefix: 64 },
    ];
    config.max_connections = 4096;
    config.max_time_wait = 4096;
    config
}

impl Host {
    pub fn new(config: Config) -> Self {
        Self::with_frames(config, FRAMES)
    }

    pub fn with_frames(config: Config, frames: u32) -> Self {
        let mut stack = Stack::new(config, FramePool::new(HeapMemory::new(frames, 2048)));
        for port in [ECHO, DISCARD, DEAF, CLOSER] {
            stack.listen(Listener { port, backlog: 1024 });
        }
        Self { stack, app: TestApp::default(), fill: Vec::new() }
    }

    pub fn connect(&mut self, remote: SocketAddr, plan: Plan, now: Instant) -> ConnId {
        let id = self.stack.connect(remote, now).expect("connect");
        self.app.clients.insert(id, Client { plan: Some(plan), ..Client::default() });
        id
    }

    /// Frames from the link, as a NIC would write them.
    pub fn deliver(&mut self, frames: &[Vec<u8>], now: Instant) {
        let mut slices = Vec::new();
        for octets in frames {
            while self.fill.len() < 64 {
                let Some(index) = self.stack.pool_mut().fill() else { break };
                self.fill.push(index);
            }
            let Some(index) = self.fill.pop() else { continue };
            slices.push(self.stack.pool_mut().write_as_nic(index, 256, octets));
        }
        self.stack.receive(&mut self.app, &slices, now);
    }

    pub fn advance(&mut self, now: Instant) {
        self.stack.advance(&mut self.app, now);
    }

    /// What the stack sends now.
    pub fn transmit(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let mut out: Vec<FrameSlice> = Vec::new();
            let more = self.stack.poll_transmit(64, now, &mut out);
            let any = !out.is_empty();
            for slice in out {
                frames.push(self.stack.pool().transmitted(slice).to_vec());
                self.stack.pool_mut().completed(slice.index);
            }
            if !more || !any {
                break;
            }
        }
        self.stack.pool().assert_conserved();
        frames
    }

    /// No frame is held by anything but the fill ring.
    pub fn assert_idle(&self) {
        let pool = self.stack.pool();
        pool.assert_conserved();
        assert_eq!(pool.free_count() + pool.count(Owner::Fill), pool.total(), "{pool:?}");
    }

    pub fn in_state(&self, state: State) -> u32 {
        self.stack.connections_by_state()[state as usize]
    }
}

/// What happens to frames on the way.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
    pub corrupt: f64,
}

impl Link {
    pub fn clean(delay: Duration) -> Self {
        Self { delay, loss: 0.0, duplicate: 0.0, reorder: 0.0, corrupt: 0.0 }
    }

    pub fn bad(share: f64) -> Self {
        Self {
            delay: Duration::from_micros(200),
            loss: share,
            duplicate: share,
            reorder: share,
            corrupt: share,
        }
    }
}

/// Two hosts and the frames between them.
#[derive(Debug)]
pub struct Pair {
    pub a: Host,
    pub b: Host,
    pub now: Instant,
    pub link: Link,
    rng: SmallRng,
    flying: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    serial: u64,
    /// Frames sent, in order: (from a, octets).
    pub trace: Vec<(bool, Vec<u8>)>,
}

impl Pair {
    pub fn new(seed: u64, link: Link) -> Self {
        Self::of(Host::new(config(1)), Host::new(config(2)), seed, link)
    }

    pub fn of(a: Host, b: Host, seed: u64, link: Link) -> Self {
        Self {
            a,
            b,
            now: Instant::from_millis(1),
            link,
            rng: SmallRng::seed_from_u64(seed),
            flying: BTreeMap::new(),
            serial: 0,
            trace: Vec::new(),
        }
    }

    fn send(&mut self, from_a: bool, frame: Vec<u8>) {
        self.trace.push((from_a, frame.clone()));
        if self.rng.random_bool(self.link.loss) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.link.duplicate));
        for _ in 0..copies {
            let mut frame = frame.clone();
            // ARP has no checksum; on a real link Ethernet's guards it.
            let is_arp = frame[12..14] == [0x08, 0x06];
            if self.rng.random_bool(self.link.corrupt) && !is_arp {
                let bit = self.rng.random_range(14 * 8..frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            let mut at = self.now + self.link.delay;
            if self.rng.random_bool(self.link.reorder) {
                at = at + self.link.delay * self.rng.random_range(1..4);
            }
            self.serial += 1;
            self.flying.insert((at, self.serial), (from_a, frame));
        }
    }

    fn collect(&mut self) {
        for frame in self.a.transmit(self.now) {
            self.send(true, frame);
        }
        for frame in self.b.transmit(self.now) {
            self.send(false, frame);
        }
    }

    /// Sends what is to be sent; when the next thing happens.
    fn next_event(&mut self) -> Instant {
        self.collect();
        let arrival = self.flying.keys().next().map_or(Instant::NEVER, |key| key.0);
        arrival.min(self.a.stack.next_deadline()).min(self.b.stack.next_deadline())
    }

    /// One event. False when nothing will ever happen again.
    pub fn step(&mut self) -> bool {
        let next = self.next_event();
        if next == Instant::NEVER {
            return false;
        }
        self.now = self.now.max(next);
        let mut batches = [Vec::new(), Vec::new()];
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from_a, frame) = entry.remove();
            batches[usize::from(from_a)].push(frame);
        }
        let [to_a, to_b] = batches;
        if !to_a.is_empty() {
            self.a.deliver(&to_a, self.now);
        }
        if !to_b.is_empty() {
            self.b.deliver(&to_b, self.now);
        }
        self.a.advance(self.now);
        self.b.advance(self.now);
        true
    }

    /// Runs until `done` or until `limit` of virtual time has passed; panics in the latter case.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.step(), "nothing moves any more: {:#?}", self.a.app.clients);
            assert!(self.now <= end, "not done after {limit:?}: {:#?}", self.a.app.clients);
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.next_event() <= end {
            self.step();
        }
        self.now = end;
    }
}

pub fn v4(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, last]), port)
}

pub fn v6(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]), port)
}
