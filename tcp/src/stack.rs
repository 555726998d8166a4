//! `Stack`: all of one core's TCP/IP, driven from outside.
//!
//! Order of calls, once per turn of the loop: [`receive`](Stack::receive) what the port has,
//! [`advance`](Stack::advance) the timers, then [`poll_transmit`](Stack::poll_transmit) into the
//! port's TX ring. `now` never goes backwards.
//!
//! ```text
//!  receive ─→ wire::parse ─┬─ TCP ─→ flow table ─→ Tcb::input ─┐
//!                          │            └─→ TIME-WAIT, LISTEN  ├─→ dirty ─→ App ─→ output list
//!  advance ─→ timer wheel ─┼───────────────────────────────────┘                      │
//!                          └─ ARP, NDP, ICMP ─→ answers ─────────→ poll_transmit ←────┘
//! ```
//!
//! Most segments of connections that nothing is wrong with take a shorter way to the same end: wire::plain instead of
//! wire::parse, Tcb::take_plain instead of Tcb::input.
//!
//! A batch is taken in completely before any application is called, so that each connection is
//! served once per batch and one ACK covers all its segments.

mod admission;
mod config;
mod conn;
mod control;
mod fragments;
mod merge;
mod news;
mod opener;
mod pressure;
mod receive;
mod scattered;
mod show;
mod transmit;

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

pub use config::{Cidr, Config, Ecn, Listener, Route, SynCookies};
pub use news::News;
pub use show::ConnInfo;

use crate::app::{App, Closed, Conn, ConnId, Ready};
use crate::counters::{Counters, DropReason, Totals};
use crate::destinations::Destinations;
use crate::flow_table::{FlowTable, FourTuple, HashKey};
use crate::fragments::Reassembler;
use crate::frame::{Chunk, FramePool, FrameSlice, Memory, Owner};
use crate::listener::{Listeners, Secrets};
use crate::neighbor::{self, NeighborTable, Question};
use crate::tcb::state::{State, States};
use crate::tcb::{Ctx, Hop, Output, Tcb};
use crate::time::Instant;
use crate::time_wait::TimeWaitTable;
use crate::timer::wheel::TimerWheel;

use conn::StackConn;
use control::RateLimit;
use news::Outbox;
use opener::StackOpener;
use receive::{Arrival, Hints};

/// 2^17 ns = 131 µs: fine enough for pacing, and the wheel tells deadlines of three days apart.
const TICK_SHIFT: u32 = 17;
/// Timers run per turn: a clock that jumps doesn't stall the loop (T28).
const EXPIRE_MAX: usize = 4096;
/// Connections with timers due whose memory is fetched together; see [`receive::AHEAD`].
const EXPIRE_AHEAD: usize = 32;
/// Below this an application is told when room comes back.
const ROOM_LOW: u32 = 16;
/// Frames that have to be free for each application that is told of them.
const STARVED_FRAMES: u32 = 4;

/// Why an active open can't even start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// No own address of the remote's family, or not this one.
    NoAddress,
    /// The remote's address or port isn't one that a single other host can have (RFC 9293 §3.10.1, MUST-46).
    BadRemote,
    /// Every local port towards that remote is in use, or none of the free ones brings the answers to this
    /// stack's queue ([`Config::rss`]).
    NoPort,
    /// The connection table is full.
    TableFull,
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoAddress => "no own address of the remote's family",
            Self::BadRemote => "the remote isn't one other host's address and port",
            Self::NoPort => "no local port towards the remote is free",
            Self::TableFull => "the connection table is full",
        })
    }
}

impl core::error::Error for ConnectError {}

/// A place for a connection, and which tenant it has had. Whole cache lines: in some of a million connections' a line more
/// would be far away. Which of them a segment needs is up to [`Tcb`].
#[derive(Debug)]
#[repr(C, align(64))]
struct Slot {
    generation: u32,
    /// Whether the slot is on the list of that name. A tenant may go before its turn comes; its successor
    /// then has that turn, and no list is ever longer than the slots are many.
    dirty: bool,
    output: bool,
    starved: bool,
    tcb: Option<Tcb>,
}

/// Octets of a slot in front of its connection, which keeps its own order by where that puts its cache lines.
#[cfg(test)]
pub(crate) const SLOT_FRONT: usize = core::mem::offset_of!(Slot, tcb);

impl Slot {
    #[inline]
    fn is_of(&self, tuple: &FourTuple) -> bool {
        // What differs most is compared first.
        self.tcb.as_ref().is_some_and(|tcb| tcb.tuple.remote_port == tuple.remote_port && tcb.tuple == *tuple)
    }
}

/// All of one core's TCP/IP.
#[derive(Debug)]
pub struct Stack<M> {
    config: Config,
    pool: FramePool<M>,
    counters: Counters,
    /// What the other cores have told of themselves.
    elsewhere: Box<Totals>,
    states: States,
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    flows: FlowTable,
    wheel: TimerWheel,
    time_wait: TimeWaitTable,
    listeners: Listeners,
    neighbors: NeighborTable,
    secrets: Secrets,
    rate: RateLimit,
    /// Of ICMP errors.
    errors: RateLimit,
    destinations: Destinations,
    reassembler: Reassembler,
    /// Finished frames that belong to no connection.
    control: VecDeque<FrameSlice>,
    /// Frames of the batch that are read and not acted on.
    arrivals: Vec<Arrival>,
    hints: Hints,
    /// What became of the frames of the batch, if somebody watches.
    verdicts: Option<Vec<Option<DropReason>>>,
    /// Connections whose application has to be called.
    dirty: Vec<u32>,
    /// Connections that may have something to send.
    output: VecDeque<u32>,
    /// Connections whose application was refused a frame.
    starved: VecDeque<u32>,
    /// What connections send while they are buried.
    parting: Vec<FrameSlice>,
    woken: Vec<u32>,
    questions: Vec<Question>,
    /// What the other cores should hear of.
    outbox: Outbox,
    ports_tried: u32,
    draining: bool,
    /// Where [`relieve`](Self::relieve) has got to.
    hand: u32,
    /// When it goes on; [`Instant::NEVER`] when there is memory enough.
    relieve_at: Instant,
    /// The first turn has asked for the gateways.
    asked_gateways: bool,
}

impl<M: Memory> Stack<M> {
    /// A stack over the frames of `pool`. Memory for `max_connections` is reserved here.
    pub fn new(config: Config, pool: FramePool<M>) -> Self {
        let key = |at: usize| {
            let mut key = [0u8; 16];
            key.copy_from_slice(&config.secret[at..at + 16]);
            key
        };
        let max = config.max_connections;
        let mut neighbors = NeighborTable::new(neighbor::DEFAULT_CAPACITY, key(16));
        for &gateway in &config.gateways {
            neighbors.pin(gateway);
        }
        Self {
            secrets: Secrets::new(&config.secret),
            flows: FlowTable::new(HashKey(key(0)), max),
            time_wait: TimeWaitTable::new(HashKey(key(0)), &config),
            wheel: TimerWheel::new(max, TICK_SHIFT),
            slots: Vec::with_capacity(max as usize),
            free_slots: Vec::with_capacity(max as usize),
            arrivals: Vec::with_capacity(receive::AHEAD),
            hints: Hints::new(),
            verdicts: None,
            dirty: Vec::with_capacity(max as usize),
            output: VecDeque::with_capacity(max as usize),
            starved: VecDeque::new(),
            parting: Vec::new(),
            woken: Vec::new(),
            questions: Vec::new(),
            outbox: Outbox::default(),
            control: VecDeque::new(),
            counters: Counters::default(),
            elsewhere: Box::default(),
            states: States::default(),
            listeners: Listeners::default(),
            neighbors,
            rate: RateLimit::default(),
            errors: RateLimit::default(),
            destinations: Destinations::new(key(16)),
            reassembler: Reassembler::new(key(16)),
            ports_tried: 0,
            draining: false,
            hand: 0,
            relieve_at: Instant::NEVER,
            asked_gateways: false,
            config,
            pool,
        }
    }

    /// Opens a port passively, on every own address (S1.1), whatever connections have it already (RFC 9293 §3.9.1.1,
    /// MUST-41, MUST-42). Again for the same port: no effect.
    pub fn listen(&mut self, listener: Listener) {
        self.open(listener, None);
    }

    /// The same at one of our own addresses (RFC 9293 §3.9.1.1, MUST-43).
    pub fn listen_at(&mut self, address: IpAddr, listener: Listener) {
        self.open(listener, Some(address));
    }

    fn open(&mut self, listener: Listener, address: Option<IpAddr>) {
        self.listeners.add(listener, address);
        self.states.listen(self.listeners.all().len() as u32);
    }

    /// Opens a connection actively (S1.1): `App::opened` or `App::closed` follows.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&mut self, remote: SocketAddr, now: Instant) -> Result<ConnId, ConnectError> {
        // RFC 9293 §3.9.1.1 (MUST-44); it stays the connection's (MUST-45).
        let own = self.config.addresses.iter().find(|own| own.address.is_ipv4() == remote.is_ipv4());
        self.connect_from(own.ok_or(ConnectError::NoAddress)?.address, remote, now)
    }

    /// The same from one of our own addresses (RFC 9293 §3.9.1.1, MUST-43).
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect_from(
        &mut self,
        local_ip: IpAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Result<ConnId, ConnectError> {
        if !self.config.is_own(local_ip) || local_ip.is_ipv4() != remote.is_ipv4() {
            return Err(ConnectError::NoAddress);
        }
        if !self.config.can_connect(remote) {
            return Err(ConnectError::BadRemote);
        }
        let mut tuple =
            FourTuple { local_ip, remote_ip: remote.ip(), local_port: 0, remote_port: remote.port() };
        tuple.local_port = self.free_port(tuple).ok_or(ConnectError::NoPort)?;
        let (iss, offset) = (self.secrets.isn(&tuple, now), self.secrets.timestamp_offset(&tuple));
        let mut tcb = Tcb::active(tuple, iss, offset, Hop::unknown(), &mut self.ctx(now));
        self.recall_path(&mut tcb, now);
        let Some(id) = self.admit(tcb) else {
            self.states.enter(State::SynSent, State::Closed);
            return Err(ConnectError::TableFull);
        };
        self.counters.tcp_active_opens += 1;
        self.schedule_output(id.index);
        Ok(id)
    }

    /// RFC 6056 §3.3.3 (double hash would be §3.3.4): a keyed offset per remote, then the next free one whose
    /// answers reach this stack: about as many tries as there are queues. T20
    fn free_port(&mut self, tuple: FourTuple) -> Option<u16> {
        let ports = self.config.client_ports.clone();
        let count = ports.len() as u32;
        let offset = self.secrets.port_offset(&tuple);
        let arrivals = self.config.rss.as_ref().map(|rss| rss.arrivals(&tuple));
        for _ in 0..count {
            self.ports_tried = self.ports_tried.wrapping_add(1);
            let port = ports.start + (offset.wrapping_add(self.ports_tried) % count) as u16;
            if arrivals.as_ref().is_some_and(|arrivals| !arrivals.are_ours(port)) {
                continue;
            }
            let tuple = FourTuple { local_port: port, ..tuple };
            let taken = self.find(&tuple).is_some() || self.time_wait.contains(&tuple, &self.config);
            if !taken {
                return Some(port);
            }
        }
        None
    }

    /// Runs the timers that are due.
    pub fn advance<A: App>(&mut self, app: &mut A, now: Instant) {
        for _ in 0..EXPIRE_MAX / EXPIRE_AHEAD {
            if !self.run_timers(now) {
                break;
            }
        }
        let gone = self.time_wait.advance(EXPIRE_MAX as u32, &self.config, now);
        self.states.enter_all(State::TimeWait, State::Closed, gone);
        if !core::mem::replace(&mut self.asked_gateways, true) {
            self.ask_gateways(now);
        }
        if now >= self.neighbors.next_deadline() {
            let mut questions = core::mem::take(&mut self.questions);
            self.neighbors.advance(now, |question| questions.push(question));
            for question in questions.drain(..) {
                self.ask(question, now);
            }
            self.questions = questions;
            self.wake_resolved();
        }
        self.relieve(now);
        self.feed_starved();
        if !self.draining {
            app.turn(&mut StackOpener { stack: self, now });
        }
        self.serve(app, now);
    }

    /// Runs those of the first [`EXPIRE_AHEAD`] connections that the wheel wakes. False when it wakes no more.
    #[inline]
    fn run_timers(&mut self, now: Instant) -> bool {
        let Some(first) = self.wheel.pop_expired(now) else { return false };
        let (mut woken, mut count) = ([first; EXPIRE_AHEAD], 1);
        while count < EXPIRE_AHEAD
            && let Some(index) = self.wheel.pop_expired(now)
        {
            woken[count] = index;
            count += 1;
        }
        // Fetched together, as in `receive`.
        let timers =
            |&index: &u32| self.slots[index as usize].tcb.as_ref().map_or(0, |tcb| tcb.timers.touch());
        core::hint::black_box(woken[..count].iter().fold(0, |touched, index| touched ^ timers(index)));
        for &index in &woken[..count] {
            self.run_timers_of(index, now);
        }
        count == EXPIRE_AHEAD
    }

    fn run_timers_of(&mut self, index: u32, now: Instant) {
        let Some((tcb, mut ctx)) = self.tcb(index, now) else { return };
        tcb.timers.woken();
        let mut due = false;
        while let Some(kind) = tcb.timers.pop_due(now) {
            due = true;
            tcb.on_timer(kind, &mut ctx);
        }
        // Mostly none is: they have moved to later since the wheel was armed.
        if due {
            if tcb.has_news() {
                self.mark_dirty(index);
            }
            self.schedule_output(index);
        }
        self.sync_timer(index);
    }

    /// Tells applications that were refused a frame: who waits longest first, no more than there are frames.
    #[inline]
    fn feed_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let mut frames = self.pool.for_apps();
        while frames >= STARVED_FRAMES {
            let Some(index) = self.starved.pop_front() else { break };
            self.slots[index as usize].starved = false;
            let Some(tcb) = self.slots[index as usize].tcb.as_mut() else { continue };
            if core::mem::take(&mut tcb.starved) {
                tcb.ready.writable = true;
                self.mark_dirty(index);
                frames -= STARVED_FRAMES;
            }
        }
    }

    /// Calls the application for every dirty connection.
    fn serve<A: App>(&mut self, app: &mut A, now: Instant) {
        while let Some(index) = self.dirty.pop() {
            self.slots[index as usize].dirty = false;
            self.serve_one(app, index, now);
        }
    }

    fn serve_one<A: App>(&mut self, app: &mut A, index: u32, now: Instant) {
        let id = ConnId { index, generation: self.slots[index as usize].generation };
        let draining = self.draining;
        let Some((tcb, ctx)) = self.tcb(index, now) else { return };
        let mut conn = StackConn { id, tcb, ctx };
        if core::mem::take(&mut conn.tcb.opening) {
            conn.tcb.opened = true;
            app.opened(&mut conn);
            if draining {
                // It was half open when the others were asked to end.
                app.draining(&mut conn);
            }
        }
        let ready = core::mem::take(&mut conn.tcb.ready);
        if conn.tcb.opened && ready != Ready::default() {
            app.ready(&mut conn, ready);
        }
        let StackConn { tcb, ctx, .. } = conn;
        tcb.wants_room |= tcb.state.can_send() && !tcb.has_room(ROOM_LOW, ctx.pool, ctx.config);
        let starved = tcb.starved;
        let over = match tcb.over {
            // What arrived before the end is still the application's (S2.4).
            Some(Closed::Finished) if tcb.state == State::TimeWait && !tcb.recv.is_empty() => None,
            over => over,
        };
        if starved && !core::mem::replace(&mut self.slots[index as usize].starved, true) {
            self.starved.push_back(index);
        }
        match over {
            Some(reason) => self.bury(app, id, reason, now),
            None => self.schedule_output(index),
        }
        // The wheel is armed when the output is done: an ACK that rides on the answer clears its timer first.
    }

    /// Tells the application, answers what is owed, and frees everything of a connection that is over.
    fn bury<A: App>(&mut self, app: &mut A, id: ConnId, reason: Closed, now: Instant) {
        let index = id.index;
        let mut out = core::mem::take(&mut self.parting);
        let Some((tcb, mut ctx)) = self.tcb(index, now) else { return };
        let was_listed = tcb.opened || !tcb.passive;
        tcb.emit_reset_if_owed(&mut out, &mut ctx);
        if reason == Closed::Finished {
            // The last ACK, before the connection is forgotten.
            while tcb.output(usize::MAX, &mut out, &mut ctx) == Output::More && ctx.pool.free_count() > 0 {}
        }
        if was_listed {
            let mut conn = StackConn { id, tcb, ctx };
            app.closed(&mut conn, reason);
        }
        self.control.extend(out.drain(..));
        self.parting = out;
        let Some(mut tcb) = self.slots[index as usize].tcb.take() else { return };
        tcb.recv.clear(&mut self.pool);
        tcb.send.clear(&mut self.pool);
        self.flows.remove(&tcb.tuple, index);
        self.wheel.cancel(index);
        if tcb.in_backlog {
            self.half_open_done(&tcb.tuple);
        }
        if tcb.state == State::TimeWait {
            self.counters.tcp_time_waits += 1;
            let numbers = (tcb.snd.nxt, tcb.rcv.nxt);
            let recent = tcb.timestamps.map(|ts| ts.recent);
            if !self.time_wait.insert(&tcb.tuple, numbers, recent, &self.config, now) {
                self.states.enter(State::TimeWait, State::Closed);
            }
        }
        self.slots[index as usize].generation = id.generation.wrapping_add(1);
        self.free_slots.push(index);
    }

    /// When [`advance`](Self::advance) has something to do next; [`Instant::NEVER`] if nothing is armed.
    pub fn next_deadline(&self) -> Instant {
        if !self.output.is_empty() || !self.control.is_empty() {
            return Instant::ZERO;
        }
        self.wheel
            .next_deadline()
            .min(self.time_wait.next_deadline())
            .min(self.neighbors.next_deadline())
            .min(self.relieve_at)
    }

    /// Acts on one connection from outside a callback: an operator's command, a test. `None` if it is gone.
    pub fn with_conn<A: App, R>(
        &mut self,
        app: &mut A,
        id: ConnId,
        now: Instant,
        act: impl FnOnce(&mut A, &mut dyn Conn) -> R,
    ) -> Option<R> {
        if !self.is_current(id) {
            return None;
        }
        let (tcb, ctx) = self.tcb(id.index, now)?;
        let result = act(app, &mut StackConn { id, tcb, ctx });
        self.mark_dirty(id.index);
        self.serve(app, now);
        Some(result)
    }

    /// Stops accepting connections and asks the application to end those there are (`App::draining`).
    pub fn drain<A: App>(&mut self, app: &mut A, now: Instant) {
        self.draining = true;
        for index in 0..self.slots.len() as u32 {
            let id = ConnId { index, generation: self.slots[index as usize].generation };
            let Some((tcb, ctx)) = self.tcb(index, now) else { continue };
            if tcb.opened && tcb.over.is_none() {
                app.draining(&mut StackConn { id, tcb, ctx });
                self.mark_dirty(index);
            }
        }
        self.serve(app, now);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Resets every connection, so that peers hear of the end.
    pub fn abort_all<A: App>(&mut self, app: &mut A, now: Instant) {
        for index in 0..self.slots.len() as u32 {
            let Some((tcb, mut ctx)) = self.tcb(index, now) else { continue };
            tcb.abort(&mut ctx);
            self.mark_dirty(index);
        }
        self.serve(app, now);
    }

    /// The frames: for reclaim, refill and the ledger.
    pub fn pool(&self) -> &FramePool<M> {
        &self.pool
    }

    /// The frames: for reclaim, refill and the ledger.
    pub fn pool_mut(&mut self) -> &mut FramePool<M> {
        &mut self.pool
    }

    /// Checks what must hold between calls (T5): what is on which list, the counts by state, and that every
    /// connection whose end isn't in the application's hands has something that wakes it. O(connections): for
    /// tests and simulations.
    ///
    /// # Panics
    /// If it doesn't hold.
    pub fn assert_consistent(&self) {
        assert!(self.dirty.is_empty(), "everybody was served");
        let mut states = [0; State::COUNT];
        states[State::Listen as usize] = self.listeners.all().len() as u32;
        states[State::TimeWait as usize] = self.time_wait.len();
        for (index, slot) in (0u32..).zip(&self.slots) {
            let listed = self.output.iter().filter(|&&other| other == index).count();
            assert_eq!(listed, usize::from(slot.output), "slot {index} on the output list");
            let Some(tcb) = &slot.tcb else { continue };
            states[tcb.state as usize] += 1;
            assert_eq!(self.find(&tcb.tuple), Some(index), "{tcb:?}");
            assert_ne!(tcb.state, State::Closed, "buried at once: {tcb:?}");
            let wakes = tcb.timers.earliest();
            let woken = slot.output || wakes != Instant::NEVER;
            let patient = matches!(tcb.state, State::Established | State::CloseWait) && !tcb.is_waiting();
            assert!(woken || patient, "nothing wakes {tcb:?}");
            let armed = self.wheel.deadline(index).is_some();
            assert!(armed || slot.output || wakes == Instant::NEVER, "its timer isn't in the wheel: {tcb:?}");
        }
        assert_eq!(&states, self.states.now(), "connections by state");
        self.states.assert_consistent();
        let half_open =
            self.slots.iter().filter(|slot| slot.tcb.as_ref().is_some_and(|tcb| tcb.in_backlog)).count()
                as u32;
        let counted = self.listeners.all().iter().map(|port| port.half_open).sum::<u32>();
        assert_eq!(half_open, counted, "half-open connections");
    }

    // --- small helpers --------------------------------------------------------------------------

    fn ctx(&mut self, now: Instant) -> Ctx<'_, M> {
        Ctx {
            pool: &mut self.pool,
            counters: &mut self.counters,
            states: &mut self.states,
            config: &self.config,
            elsewhere: &self.elsewhere,
            listeners: &self.listeners,
            now,
        }
    }

    /// A connection and what its steps work with.
    fn tcb(&mut self, index: u32, now: Instant) -> Option<(&mut Tcb, Ctx<'_, M>)> {
        let tcb = self.slots[index as usize].tcb.as_mut()?;
        let ctx = Ctx {
            pool: &mut self.pool,
            counters: &mut self.counters,
            states: &mut self.states,
            config: &self.config,
            elsewhere: &self.elsewhere,
            listeners: &self.listeners,
            now,
        };
        Some((tcb, ctx))
    }

    fn find(&self, tuple: &FourTuple) -> Option<u32> {
        self.find_hashed(self.flows.hash(tuple), tuple)
    }

    /// The same with its [hash](FlowTable::hash).
    fn find_hashed(&self, hash: u64, tuple: &FourTuple) -> Option<u32> {
        self.flows.find(hash, |index| tuple_of(&self.slots, index) == tuple)
    }

    /// Whether the slot still has this tenant, or is free for the next one.
    fn is_current(&self, id: ConnId) -> bool {
        self.slots.get(id.index as usize).is_some_and(|slot| slot.generation == id.generation)
    }

    fn is_full(&self) -> bool {
        self.free_slots.is_empty() && self.slots.len() as u32 == self.config.max_connections
    }

    /// Gives a connection a slot. `None`, and the connection gone, when there is none.
    fn admit(&mut self, tcb: Tcb) -> Option<ConnId> {
        let index = match self.free_slots.pop() {
            Some(index) => index,
            None if (self.slots.len() as u32) < self.config.max_connections => {
                self.slots.push(Slot {
                    generation: 0,
                    tcb: None,
                    dirty: false,
                    output: false,
                    starved: false,
                });
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let tuple = tcb.tuple;
        let slot = &mut self.slots[index as usize];
        let id = ConnId { index, generation: slot.generation };
        slot.tcb = Some(tcb);
        let slots = &self.slots;
        let entered = self.flows.insert(&tuple, index, |index| tuple_of(slots, index));
        assert!(entered, "the flow table holds as many as there are slots");
        Some(id)
    }

    fn half_open_done(&mut self, tuple: &FourTuple) {
        if let Some(port) = self.listeners.find(tuple) {
            port.half_open -= 1;
        }
    }

    fn mark_dirty(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.tcb.is_some() && !core::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(index);
        }
    }

    fn schedule_output(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.tcb.is_some() && !core::mem::replace(&mut slot.output, true) {
            self.output.push_back(index);
        }
    }

    /// Arms the wheel for the connection's earliest timer; later ones are found when it fires.
    fn sync_timer(&mut self, index: u32) {
        if let Some(tcb) = &mut self.slots[index as usize].tcb {
            tcb.timers.schedule(&mut self.wheel, index);
        }
    }

    fn discard(&mut self, chunk: Chunk, reason: DropReason) {
        self.counters.drop(reason);
        self.pool.release(chunk);
    }

    /// Hands a finished frame of no connection to the port, the octets of `range` of the whole frame.
    fn send_control(&mut self, chunk: Chunk, range: core::ops::Range<usize>) {
        self.pool.hand_to(&chunk, Owner::Control);
        let slice = self.pool.transmit_once(chunk, range);
        self.control.push_back(slice);
    }
}

fn tuple_of(slots: &[Slot], index: u32) -> &FourTuple {
    match &slots[index as usize].tcb {
        Some(tcb) => &tcb.tuple,
        None => unreachable!("the flow table names an empty slot"),
    }
}
