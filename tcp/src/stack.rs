//! `Stack`: all of one core's TCP/IP, driven from outside.
//!
//! Order of calls, once per turn of the loop: [`receive`](Stack::receive) what the port has,
//! [`advance`](Stack::advance) the timers, then [`poll_transmit`](Stack::poll_transmit) into the
//! port's TX ring. `now` never goes backwards.

use core::net::{IpAddr, SocketAddr};

use crate::app::{App, ConnId};
use crate::counters::Counters;
use crate::frame::{FramePool, FrameSlice, Memory};
use crate::tcb::state::State;
use crate::time::{Duration, Instant};
use crate::wire::{Checksums, MacAddr};

/// One of our own addresses with its on-link prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// The address itself.
    pub address: IpAddr,
    /// Leading bits shared by all hosts on the link.
    pub prefix: u8,
}

/// What a [`Stack`] is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet of the link, in octets.
    pub mtu: u16,
    /// Our own addresses.
    pub addresses: Vec<Cidr>,
    /// Next hops for what is not on-link; the first of the right family is used.
    pub gateways: Vec<IpAddr>,
    /// Connections at once, TIME-WAIT not counted.
    pub max_connections: u32,
    /// TIME-WAIT entries at once; the oldest gives way.
    pub max_time_wait: u32,
    /// Verification of received checksums.
    pub checksums: Checksums,
    /// Random, secret, per start: keys the connection table and the initial sequence numbers.
    pub secret: [u8; 32],
    /// 2 MSL (RFC 9293 §3.6.1).
    pub time_wait: Duration,
    /// FIN-WAIT-2 limit (S2.6).
    pub fin_timeout: Duration,
    /// Idle time before the first keepalive probe; `None` switches keepalive off (S3.2).
    pub keepalive: Option<Duration>,
    /// Unacknowledged data or an unanswered probe for so long ends the connection (RFC 5482).
    pub user_timeout: Duration,
    /// Upper bound of the receive window, in octets.
    pub receive_buffer: u32,
    /// Upper bound of queued and unacknowledged octets a connection.
    pub send_buffer: u32,
}

impl Config {
    /// Defaults of a server on an Ethernet link, each argued beside its value.
    pub fn new(mac: MacAddr, secret: [u8; 32]) -> Self {
        Self {
            mac,
            mtu: 1500,
            addresses: Vec::new(),
            gateways: Vec::new(),
            max_connections: 65_536,
            max_time_wait: 262_144,
            checksums: Checksums::Verify,
            secret,
            // Linux's TCP_TIMEWAIT_LEN: 2 MSL with the 30 s that implementations agreed on.
            time_wait: Duration::from_secs(60),
            // Linux's tcp_fin_timeout.
            fin_timeout: Duration::from_secs(60),
            // RFC 9293 §3.8.4: at least two hours by default.
            keepalive: Some(Duration::from_secs(7200)),
            // RFC 9293 §3.8.3: R2 at least 100 s; Linux's 15 retries are about 924 s, which keeps
            // a vanished peer's frames for a quarter of an hour. 120 s honours R2.
            user_timeout: Duration::from_secs(120),
            receive_buffer: 8 << 20,
            send_buffer: 4 << 20,
        }
    }
}

/// Per-listener settings.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Local port, on every own address.
    pub port: u16,
    /// Half-open connections at once.
    pub backlog: u32,
}

/// A connection as `byway conns` shows it.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// Its name.
    pub id: ConnId,
    /// Its state.
    pub state: State,
    /// Our side.
    pub local: SocketAddr,
    /// The other side; unspecified for a listener.
    pub peer: SocketAddr,
    /// Octets received and not yet taken by the application.
    pub recv_queue: u32,
    /// Octets sent or queued and not yet acknowledged.
    pub send_queue: u32,
    /// How long it has been in this state.
    pub in_state: Duration,
    /// Smoothed round-trip time, once measured.
    pub srtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// Congestion window, octets.
    pub cwnd: u32,
    /// Slow-start threshold, octets.
    pub ssthresh: u32,
    /// Effective send MSS, octets.
    pub mss: u16,
    /// Segments retransmitted, ever.
    pub retransmits: u32,
}

/// Why an active open can't even start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// No own address of the remote's family.
    NoAddress,
    /// Every local port towards that remote is in use.
    NoPort,
    /// The connection table is full.
    TableFull,
}

/// All of one core's TCP/IP.
#[derive(Debug)]
pub struct Stack<M> {
    pool: FramePool<M>,
    counters: Counters,
}

impl<M: Memory> Stack<M> {
    /// A stack over the frames of `pool`. Memory for `max_connections` is reserved here.
    pub fn new(_config: Config, pool: FramePool<M>) -> Self {
        Self { pool, counters: Counters::default() }
    }

    /// Opens a port passively (S1.1).
    pub fn listen(&mut self, _listener: Listener) {}

    /// Opens a connection actively (S1.1): `App::opened` or `App::closed` follows.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&mut self, _remote: SocketAddr, _now: Instant) -> Result<ConnId, ConnectError> {
        Err(ConnectError::NoAddress)
    }

    /// Takes a batch of received frames; all of them are the stack's afterwards. Calls the
    /// application once for each connection on which something happened.
    pub fn receive<A: App>(&mut self, _app: &mut A, frames: &[FrameSlice], _now: Instant) {
        for &slice in frames {
            let chunk = self.pool.received(slice);
            self.pool.release(chunk);
        }
    }

    /// Runs the timers that are due.
    pub fn advance<A: App>(&mut self, _app: &mut A, _now: Instant) {}

    /// Appends up to `room` frames to send; each is the kernel's until
    /// [`FramePool::completed`] is called with its index. Returns whether more is waiting.
    pub fn poll_transmit(&mut self, _room: usize, _now: Instant, _out: &mut Vec<FrameSlice>) -> bool {
        false
    }

    /// When [`advance`](Self::advance) has something to do next; [`Instant::NEVER`] if nothing is armed.
    pub fn next_deadline(&self) -> Instant {
        Instant::NEVER
    }

    /// Stops accepting connections; what is established goes on.
    pub fn drain(&mut self) {}

    /// Resets every connection, so that peers hear of the end.
    pub fn abort_all<A: App>(&mut self, _app: &mut A, _now: Instant) {}

    /// Connections that aren't closed, TIME-WAIT not counted.
    pub fn connection_count(&self) -> u32 {
        0
    }

    /// The frames: for reclaim, refill and the ledger.
    pub fn pool(&self) -> &FramePool<M> {
        &self.pool
    }

    /// The frames: for reclaim, refill and the ledger.
    pub fn pool_mut(&mut self) -> &mut FramePool<M> {
        &mut self.pool
    }

    /// The counters so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections in each state, by `State as usize`.
    pub fn connections_by_state(&self) -> [u32; State::COUNT] {
        [0; State::COUNT]
    }

    /// Shows connections from slot `from` on, at most `max` slots looked at, listeners first, TIME-WAIT
    /// last; returns the slot to go on with, `None` at the end. Keeps a turn of the loop short.
    pub fn connections(
        &self,
        _from: u32,
        _max: u32,
        _now: Instant,
        _show: &mut dyn FnMut(ConnInfo),
    ) -> Option<u32> {
        None
    }

    /// Moves neighbours learned from the link since the last call to `out` (to tell other cores).
    pub fn take_learned(&mut self, _out: &mut Vec<(IpAddr, MacAddr)>) {}

    /// Another core learned a neighbour.
    pub fn learn_neighbor(&mut self, _ip: IpAddr, _mac: MacAddr, _now: Instant) {}
}
