//! One core's loop over its sockets: wait, serve what has news, then what time and memory have brought.
//!
//! ```text
//!   turn:  epoll_wait → application's turn → listeners, connections with events → timers → again → starved
//!                                                    │                                      ▲         ▲
//!                                              serve: ready → flush ── had its share ───────┘         │
//!                                                                 └─── no frame to be had ────────────┘
//! ```
//!
//! A connection is served to its share of octets and then waits for the others: `again` holds those that could go on
//! at once, and keeps the loop from sleeping; `starved` those that wait for frames.

use core::any::Any;
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use byway_tcp::app::{App, Closed, ConnId, Ready};
use byway_tcp::counters::{Counters, Totals};
use byway_tcp::frame::{FramePool, HeapMemory};
use byway_tcp::tcb::state::States;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::timer::TimerWheel;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::conn::SocketConn;
use super::connection::Connection;
use super::listener::{Listener, Options};
use super::opening::Turn;
use super::shared::Shared;
use super::{FRAME_SIZE, Plan, SocketCounters};
use crate::clock::Clock;
use crate::control::Waker;
use crate::error::Error;

/// Events taken at once: 64 connections' requests cost one wait, and the last of them waits for some 100 µs of work.
const EVENTS: usize = 256;
/// A timer's tick: 2^20 ns, about a millisecond; applications count in seconds.
const TICK_SHIFT: u32 = 20;

/// What an event is about, beside connections, whose word is their [`ConnId`].
const WAKER: u64 = u64::MAX;
/// And below it the listeners, by their place.
pub(super) const LISTENERS: u64 = u64::MAX << 32;

/// A place for a connection, and which tenant it has had.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) connection: Option<Connection>,
    /// It is in `again`, or in `starved`.
    pub(super) queued_again: bool,
    pub(super) queued_starved: bool,
}

/// What the application asked for in its turn.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) woken: Vec<ConnId>,
    pub(super) aborted: Vec<ConnId>,
}

/// The sockets of one core and the application behind them.
pub(super) struct EventLoop<A> {
    pub(super) app: A,
    pub(super) epoll: OwnedFd,
    pub(super) listeners: Vec<Listener>,
    /// Until when nothing is accepted; [`Instant::NEVER`]: until a connection ends.
    pub(super) paused: Option<Instant>,
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<u32>,
    pub(super) open: u32,
    pub(super) max_connections: u32,
    pub(super) again: VecDeque<u32>,
    pub(super) starved: VecDeque<u32>,
    pub(super) look_at: Instant,
    wishes: Wishes,
    events: Vec<Event>,
    pub(super) shared: Shared,
    /// What sockets are told that the application opens.
    options: Options,
    pub(super) draining: bool,
    turns: u64,
    busy_turns: u64,
}

impl<A: App> EventLoop<A> {
    /// Listens, and has accepted nothing yet. `waker` ends a wait.
    pub(super) fn new(plan: &Plan, app: A, waker: &Waker) -> Result<Self, Error> {
        let fail = |what| move |errno: Errno| Error::System { what, source: errno.into() };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(fail("opening an epoll instance"))?;
        let add = "registering with epoll";
        epoll::add(&epoll, waker.as_fd(), EventData::new_u64(WAKER), EventFlags::IN).map_err(fail(add))?;
        let mut listeners = Vec::new();
        for (place, &endpoint) in plan.endpoints.iter().enumerate() {
            let listener = Listener::open(endpoint, plan)?;
            let word = EventData::new_u64(LISTENERS | place as u64);
            epoll::add(&epoll, &listener, word, EventFlags::IN).map_err(fail(add))?;
            listeners.push(listener);
        }
        let mut states = States::default();
        states.listen(listeners.len() as u32);
        let shared = Shared {
            now: Clock.now(),
            pool: FramePool::new(HeapMemory::new(plan.frame_count, FRAME_SIZE)),
            wheel: TimerWheel::new(plan.max_connections, TICK_SHIFT),
            counters: Counters::default(),
            sockets: SocketCounters::default(),
            states,
            elsewhere: Box::default(),
        };
        Ok(Self {
            app,
            epoll,
            listeners,
            paused: None,
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            max_connections: plan.max_connections,
            again: VecDeque::new(),
            starved: VecDeque::new(),
            look_at: Instant::NEVER,
            wishes: Wishes::default(),
            events: Vec::with_capacity(EVENTS),
            shared,
            options: Options::of(plan),
            draining: false,
            turns: 0,
            busy_turns: 0,
        })
    }

    /// Connections that are open.
    pub(super) fn connection_count(&self) -> u32 {
        self.open
    }

    /// Turns, and those in which something happened.
    pub(super) fn turns(&self) -> (u64, u64) {
        (self.turns, self.busy_turns)
    }

    /// Waits for events, until `by` at the latest, and serves them.
    pub(super) fn turn(&mut self, by: Instant, waker: &Waker) -> Result<(), Error> {
        self.wait(by.min(self.next_deadline()))?;
        self.shared.now = Clock.now();
        self.turns += 1;
        self.busy_turns += u64::from(!self.events.is_empty());
        if !self.draining {
            self.app_turn();
        }
        for place in 0..self.events.len() {
            let Event { flags, data, .. } = self.events[place];
            self.dispatch(data.u64(), flags, waker);
        }
        while let Some(index) = self.shared.wheel.pop_expired(self.shared.now) {
            self.expire(index);
        }
        self.serve_again();
        self.feed_starved();
        if self.paused.is_some_and(|until| until <= self.shared.now) {
            self.resume_accepting();
        }
        if cfg!(debug_assertions) && self.turns.is_multiple_of(1024) {
            self.shared.pool.assert_conserved();
        }
        Ok(())
    }

    fn next_deadline(&self) -> Instant {
        if !self.again.is_empty() {
            return Instant::ZERO;
        }
        let app = if self.draining { Instant::NEVER } else { self.app.deadline() };
        let paused = self.paused.unwrap_or(Instant::NEVER);
        self.shared.wheel.next_deadline().min(app).min(paused).min(self.look_at)
    }

    fn wait(&mut self, until: Instant) -> Result<(), Error> {
        let timeout = (until != Instant::NEVER).then(|| {
            let left = if until == Instant::ZERO { Duration::ZERO } else { until.since(Clock.now()) };
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: (left.as_nanos() % 1_000_000_000) as i64 }
        });
        self.events.clear();
        self.shared.sockets.waits += 1;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(count) => self.shared.sockets.events += count as u64,
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::System { what: "waiting for events (epoll_wait)", source: errno.into() });
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, word: u64, flags: EventFlags, waker: &Waker) {
        if word == WAKER {
            waker.clear();
        } else if word >= LISTENERS {
            self.accept(word as u32 as usize);
        } else {
            let id = ConnId { index: word as u32, generation: (word >> 32) as u32 };
            self.on_event(id, flags);
        }
    }

    fn app_turn(&mut self) {
        let Self { app, wishes, epoll, slots, free, open, options, shared, .. } = self;
        let max_connections = self.max_connections;
        app.turn(&mut Turn { wishes, epoll, slots, free, open, max_connections, options, shared });
        if self.wishes.woken.is_empty() && self.wishes.aborted.is_empty() {
            return;
        }
        let Wishes { mut woken, mut aborted } = core::mem::take(&mut self.wishes);
        for id in woken.drain(..) {
            if self.connection(id).is_some() && !self.is_opening(id.index) {
                self.serve(id.index, Ready { woken: true, ..Ready::default() });
            }
        }
        for id in aborted.drain(..) {
            if let Some(connection) = self.connection(id) {
                connection.abort();
                self.settle(id.index);
            }
        }
        self.wishes = Wishes { woken, aborted };
    }

    fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.connection.as_mut()
    }

    /// Whether the connection in that slot is being opened.
    pub(super) fn is_opening(&self, index: u32) -> bool {
        self.slots[index as usize].connection.as_ref().is_some_and(Connection::is_opening)
    }

    fn expire(&mut self, index: u32) {
        let Some(connection) = &mut self.slots[index as usize].connection else { return };
        let timer = connection.expire(self.shared.now);
        if connection.over == Some(Closed::TimedOut) {
            return self.finish(index);
        }
        if timer {
            self.serve(index, Ready { timer, ..Ready::default() });
        }
        if let Some(connection) = &self.slots[index as usize].connection {
            self.shared.wheel.arm_by(index, connection.deadline());
        }
    }

    /// Tells the application, closes the socket, and frees the slot.
    pub(super) fn finish(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(mut connection) = slot.connection.take() else { return };
        let reason = connection.over.unwrap_or(Closed::Aborted);
        let id = ConnId { index, generation: slot.generation };
        let conn = &mut SocketConn { id, connection: &mut connection, shared: &mut self.shared };
        self.app.closed(conn, reason);
        connection.close(reason, &mut self.shared);
        self.shared.wheel.cancel(index);
        // The last generation's word would be taken for a listener's.
        slot.generation = (slot.generation + 1) % (u32::MAX - 1);
        self.free.push(index);
        self.open -= 1;
        if self.paused == Some(Instant::NEVER) {
            self.resume_accepting();
        }
    }

    /// Resets every connection.
    pub(super) fn abort_all(&mut self) {
        for index in 0..self.slots.len() as u32 {
            if let Some(connection) = &mut self.slots[index as usize].connection {
                connection.abort();
                self.finish(index);
            }
        }
        self.shared.pool.assert_conserved();
    }

    /// Tells the application something of its own.
    pub(super) fn tell_app(&mut self, message: &(dyn Any + Send + Sync)) {
        self.app.told(message);
    }

    /// Takes note of what the other cores have counted and hold.
    pub(super) fn learn_totals(&mut self, elsewhere: Box<Totals>) {
        self.shared.elsewhere = elsewhere;
    }
}
