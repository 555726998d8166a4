//! `Load`: the application of one core; its connections, and what each is doing.
//!
//! ```text
//!            ┌──────────────── closed by the server in order ───────────────┐
//!            ▼                                                              │
//!   vacant ──→ Connecting ──→ (Upgrading) ──→ Idle ⇄ Busy ──→ answered: report.latency
//!     ↑             │              │           │      │
//!     └── pause ←───┴──────────────┴───────────┴──────┘  refused, reset, late, nonsense: report.failures
//! ```
//!
//! The stages of a run: Opening (all connections, or one if each request gets its own; not measured) → Measuring →
//! Finishing (nothing new; what is under way may be answered) → Leaving (connections are closed) → Done.

mod leave;
mod talk;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use byway_tcp::app::{App, Closed, Conn, ConnId, Opener, Ready};
use byway_tcp::time::{Duration, Instant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::job::{Job, Pace, Protocol, texts};
use super::report::{Failed, Progress, Report};
use super::schedule::Schedule;
use super::{http, raw, websocket};
use crate::app::Limits;

/// Connections of a core that may be opening at once, while none is measured: half of the smallest backlog in use
/// (128, the standard libraries'), so that none is lost to the server's being slow to accept.
const OPENING_MAX: u32 = 64;
/// How often limits and pauses are looked at; a look costs a nanosecond a connection.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a place waits after its first failure; doubled with each further one in a row, up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_DOUBLINGS: u32 = 6;
/// How long the server may take to close a connection on which everything is said.
const PARTING: Duration = Duration::from_secs(1);
/// Names no place.
const NOBODY: u32 = u32::MAX;

/// Where the run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No turn yet.
    Waiting,
    /// Connections are opened; at the latest until then, if no further one opens.
    Opening {
        until: Instant,
    },
    Measuring,
    /// Until then at the latest.
    Finishing {
        until: Instant,
    },
    /// Nothing counts any more. Until then at the latest.
    Leaving {
        until: Instant,
    },
    Done,
}

/// What a place's connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// There is none: in `vacant`, to be opened.
    Vacant,
    /// There is none for a while.
    Paused,
    Connecting,
    /// The WebSocket's opening is under way.
    Upgrading,
    Idle,
    Busy,
    /// It is being closed, at the end.
    Leaving,
}

/// What is read from the server.
#[derive(Debug)]
enum Reader {
    Http(http::Reader),
    WebSocket(websocket::Reader),
    Raw(raw::Reader),
}

/// One of the connections, or the place for one.
#[derive(Debug)]
struct Place {
    id: Option<ConnId>,
    phase: Phase,
    /// The request at hand: when it was intended to go.
    wanted: Option<Instant>,
    /// Octets of it that are sent.
    sent: usize,
    reader: Reader,
    /// In front of what is sent by WebSocket.
    header: websocket::ClientHeader,
    mask: [u8; 4],
    key: [u8; websocket::KEY],
    /// Failures in a row.
    failures: u32,
    /// Answers on this connection.
    answers: u64,
    /// Is in `idle`, rightly or not any more.
    listed: bool,
}

/// The load generator's application on one core; its report goes out when it is dropped.
#[derive(Debug)]
pub struct Load {
    job: Job,
    limits: Limits,
    /// The request up to the payload; of a WebSocket, its opening up to the key, and what follows the key.
    head: Vec<u8>,
    tail: Vec<u8>,
    places: Vec<Place>,
    /// When each place's patience, or pause, ends. Apart from the places: it is looked through often.
    ends: Vec<Instant>,
    /// The place of each of the stack's slots.
    by_slot: Vec<u32>,
    vacant: VecDeque<u32>,
    idle: VecDeque<u32>,
    /// Places in Connecting.
    connecting: u32,
    /// Places with a request at hand.
    busy: u32,
    /// Places in Upgrading, Idle or Busy.
    open: u32,
    /// Places in Leaving.
    leaving: u32,
    /// Places whose first connection hasn't been tried.
    untried: u32,
    /// The first connection has opened, or failed. Until then there is no other: few can wait for the server's
    /// Ethernet address to be found, and the rest would wait for their SYN's repetition.
    proven: bool,
    /// Which own address was used last.
    local: usize,
    stage: Stage,
    /// The measurement's.
    began: Instant,
    end: Instant,
    last_answer: Instant,
    /// When limits and pauses are looked at next.
    look_at: Instant,
    /// The time of the last callback.
    now: Instant,
    /// With a rate, once the measurement has begun.
    schedule: Option<Schedule>,
    rng: SmallRng,
    report: Report,
    progress: Arc<Progress>,
    results: Sender<Report>,
}

impl Load {
    /// Ready for the first turn, with all memory but the readers' of cut headers.
    pub fn new(job: Job, progress: Arc<Progress>, results: Sender<Report>) -> Self {
        let (head, tail) = texts(&job);
        let count = job.connections;
        let place = || Place {
            id: None,
            phase: Phase::Vacant,
            wanted: None,
            sent: 0,
            reader: Reader::Raw(raw::Reader::default()),
            header: websocket::ClientHeader::default(),
            mask: [0; 4],
            key: [0; websocket::KEY],
            failures: 0,
            answers: 0,
            listed: false,
        };
        Self {
            limits: Limits { body: http::BODY_MAX, ..Limits::default() },
            head,
            tail,
            places: std::iter::repeat_with(place).take(count as usize).collect(),
            ends: vec![Instant::NEVER; count as usize],
            by_slot: vec![NOBODY; job.slots as usize],
            vacant: (0..count).collect(),
            idle: VecDeque::with_capacity(count as usize),
            connecting: 0,
            busy: 0,
            open: 0,
            leaving: 0,
            untried: count,
            proven: false,
            local: 0,
            stage: Stage::Waiting,
            began: Instant::ZERO,
            end: Instant::NEVER,
            last_answer: Instant::ZERO,
            look_at: Instant::ZERO,
            now: Instant::ZERO,
            schedule: None,
            rng: SmallRng::seed_from_u64(job.seed),
            report: Report::new((2 * job.timeout).max(Duration::from_secs(60))),
            progress,
            results,
            job,
        }
    }

    // --- stages ---------------------------------------------------------------------------------

    fn advance_stage<O: Opener>(&mut self, opener: &mut O) {
        if self.progress.stop.load(Ordering::Relaxed) && self.counts() {
            self.finish();
        }
        match self.stage {
            Stage::Waiting => self.stage = Stage::Opening { until: self.now + self.job.timeout },
            Stage::Opening { until } => {
                let wished = if self.job.fresh { self.job.connections - 1 } else { 0 };
                if self.untried == wished && self.connecting == 0 || self.now >= until {
                    self.measure(opener);
                }
            }
            Stage::Measuring if self.now >= self.end => {
                self.stage = Stage::Finishing { until: self.end + self.job.timeout };
            }
            Stage::Finishing { until } => {
                if self.now >= until {
                    let unsent = self.schedule.as_mut().map_or(0, |schedule| schedule.skip_until(self.end));
                    self.report.failed(Failed::TimedOut, unsent + u64::from(self.busy));
                    self.finish();
                } else if self.busy == 0 && !self.owes() {
                    self.finish();
                }
            }
            Stage::Leaving { until } if self.has_left() || self.now >= until => self.end(),
            Stage::Measuring | Stage::Leaving { .. } | Stage::Done => {}
        }
    }

    /// From here on what is said counts.
    fn measure<O: Opener>(&mut self, opener: &mut O) {
        self.stage = Stage::Measuring;
        (self.began, self.end) = (self.now, self.now + self.job.duration);
        (self.report.bytes_received, self.report.bytes_sent) = (0, 0);
        self.progress.measuring.store(true, Ordering::Relaxed);
        if self.job.fresh {
            // The first one has shown the way; it has no request.
            for at in 0..self.job.connections {
                if let Some(id) = self.places[at as usize].id {
                    self.vacate(at);
                    opener.abort(id);
                }
            }
        }
        match self.job.pace {
            Pace::Rate(rate) => {
                self.schedule = Some(Schedule::new(self.now, rate, self.job.cores, self.job.place));
            }
            Pace::Max => {
                while let Some(at) = self.next_idle() {
                    self.want(at, self.now);
                    self.wake(at, opener);
                }
            }
        }
    }

    /// New requests, as far as it is time for them and connections are free.
    fn issue<O: Opener>(&mut self, opener: &mut O) {
        let Some(mut schedule) = self.schedule else { return };
        // Those that are late already fail without burdening the server any further.
        let late = schedule.skip_until((self.now - self.job.timeout).min(self.end));
        self.report.failed(Failed::TimedOut, late);
        while schedule.due() <= self.now && schedule.due() < self.end {
            let free = if self.job.fresh { self.vacant.pop_front() } else { self.next_idle() };
            let Some(at) = free else { break };
            self.want(at, schedule.take());
            if self.job.fresh {
                self.connect(at, opener);
            } else {
                self.wake(at, opener);
            }
        }
        self.schedule = Some(schedule);
    }

    /// Opens what is to be open.
    fn open<O: Opener>(&mut self, opener: &mut O) {
        // As many as there are now: one that fails at once isn't tried for ever.
        for _ in 0..self.vacant.len() {
            if !self.may_open() {
                break;
            }
            let Some(at) = self.vacant.pop_front() else { break };
            if self.job.fresh && self.stage == Stage::Measuring {
                self.want(at, self.now);
            }
            self.connect(at, opener);
        }
    }

    /// Whether places may be filled now. With a rate and fresh connections [`issue`](Self::issue) does it in time.
    fn may_open(&self) -> bool {
        if self.untried == self.job.connections {
            return matches!(self.stage, Stage::Opening { .. });
        }
        if !self.proven {
            return false;
        }
        if self.job.fresh {
            return self.schedule.is_none() && self.stage == Stage::Measuring;
        }
        let wished = match self.stage {
            Stage::Opening { .. } | Stage::Measuring => true,
            Stage::Finishing { .. } => self.owes(),
            Stage::Waiting | Stage::Leaving { .. } | Stage::Done => false,
        };
        wished && self.connecting < OPENING_MAX
    }

    /// Requests were intended to go before the end and have not gone yet.
    fn owes(&self) -> bool {
        self.schedule.is_some_and(|schedule| schedule.due() < self.end)
    }

    /// Ends what takes too long, and pauses.
    fn look<O: Opener>(&mut self, opener: &mut O) {
        self.look_at = self.now + LOOK_EVERY;
        for at in 0..self.ends.len() {
            if self.ends[at] > self.now {
                continue;
            }
            let at = at as u32;
            let place = &mut self.places[at as usize];
            if place.phase == Phase::Paused {
                self.vacate(at);
            } else {
                let id = place.id;
                self.fail(at, Failed::TimedOut);
                if let Some(id) = id {
                    opener.abort(id);
                }
            }
        }
    }

    // --- a place's life -------------------------------------------------------------------------

    fn connect<O: Opener>(&mut self, at: u32, opener: &mut O) {
        self.local = (self.local + 1) % self.job.locals.len();
        // The vacant are a queue: everyone's first time comes before anyone's second.
        self.untried = self.untried.saturating_sub(1);
        let place = &mut self.places[at as usize];
        match opener.connect_from(self.job.locals[self.local], self.job.remote) {
            Ok(id) => {
                place.id = Some(id);
                place.phase = Phase::Connecting;
                place.answers = 0;
                place.reader = match self.job.protocol {
                    Protocol::Raw => Reader::Raw(raw::Reader::default()),
                    Protocol::Http | Protocol::WebSocket => Reader::Http(http::Reader::default()),
                };
                self.by_slot[id.index as usize] = at;
                self.ends[at as usize] = place.wanted.unwrap_or(self.now) + self.job.timeout;
                self.connecting += 1;
            }
            // Ports are free again when TIME-WAITs are over.
            Err(_) => self.fail(at, Failed::NoPort),
        }
    }

    /// The place has no connection and may have one.
    fn vacate(&mut self, at: u32) {
        self.let_go(at);
        self.places[at as usize].phase = Phase::Vacant;
        self.ends[at as usize] = Instant::NEVER;
        self.vacant.push_back(at);
    }

    /// The connection, if there is one, isn't the place's any more.
    fn let_go(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        match place.phase {
            Phase::Vacant | Phase::Paused => {}
            Phase::Connecting => {
                self.connecting -= 1;
                self.proven = true;
            }
            Phase::Upgrading | Phase::Idle | Phase::Busy => self.open -= 1,
            Phase::Leaving => self.leaving -= 1,
        }
        if let Some(id) = place.id.take() {
            self.by_slot[id.index as usize] = NOBODY;
        }
        if place.wanted.take().is_some() {
            self.busy -= 1;
        }
    }

    /// The place's connection, and its request if there is one, have failed: a pause, so that a server that is down
    /// sees no storm. The connection itself is the caller's to end.
    fn fail(&mut self, at: u32, how: Failed) {
        self.let_go(at);
        let place = &mut self.places[at as usize];
        place.phase = Phase::Paused;
        self.ends[at as usize] = self.now + PAUSE * (1 << place.failures.min(PAUSE_DOUBLINGS));
        place.failures += 1;
        if self.counts() {
            self.report.failed(how, 1);
        }
    }

    fn place_of(&self, id: ConnId) -> Option<u32> {
        let &at = self.by_slot.get(id.index as usize)?;
        (self.places.get(at as usize)?.id == Some(id)).then_some(at)
    }

    fn next_idle(&mut self) -> Option<u32> {
        loop {
            let at = self.idle.pop_front()?;
            let place = &mut self.places[at as usize];
            place.listed = false;
            if place.phase == Phase::Idle && place.wanted.is_none() {
                return Some(at);
            }
        }
    }

    fn want(&mut self, at: u32, when: Instant) {
        self.places[at as usize].wanted = Some(when);
        self.busy += 1;
    }

    fn wake<O: Opener>(&mut self, at: u32, opener: &mut O) {
        if let Some(id) = self.places[at as usize].id {
            opener.wake(id);
        }
    }
}

impl App for Load {
    fn turn<O: Opener>(&mut self, opener: &mut O) {
        self.now = opener.now();
        self.advance_stage(opener);
        match self.stage {
            Stage::Leaving { .. } => return self.leave(opener),
            Stage::Done => return,
            _ => {}
        }
        if self.now >= self.look_at {
            self.look(opener);
        }
        self.issue(opener);
        self.open(opener);
        self.progress.tell(&self.report, self.open);
    }

    fn deadline(&self) -> Instant {
        let free = if self.job.fresh { !self.vacant.is_empty() } else { !self.idle.is_empty() };
        let due = self.schedule.filter(|_| free).map_or(Instant::NEVER, |schedule| schedule.due());
        match self.stage {
            Stage::Waiting => Instant::ZERO,
            Stage::Done => Instant::NEVER,
            _ if !self.vacant.is_empty() && self.may_open() => Instant::ZERO,
            Stage::Opening { .. } => self.look_at,
            Stage::Measuring => due.min(self.end).min(self.look_at),
            Stage::Finishing { .. } if self.busy == 0 && !self.owes() => Instant::ZERO,
            Stage::Finishing { until } => {
                let due = if due < self.end { due } else { Instant::NEVER };
                due.min(until).min(self.look_at)
            }
            Stage::Leaving { .. } if self.has_left() || self.may_leave() => Instant::ZERO,
            Stage::Leaving { until } => until,
        }
    }

    fn opened<C: Conn>(&mut self, conn: &mut C) {
        self.now = conn.now();
        let Some(at) = self.place_of(conn.id()) else { return conn.abort() };
        conn.set_nodelay(true);
        self.connecting -= 1;
        self.proven = true;
        if let Stage::Opening { until } = &mut self.stage {
            *until = self.now + self.job.timeout;
        }
        self.open += 1;
        self.report.opened += 1;
        if self.job.protocol == Protocol::WebSocket {
            let place = &mut self.places[at as usize];
            place.phase = Phase::Upgrading;
            place.key = websocket::key(self.rng.random());
            place.sent = 0;
            self.send(conn, at);
        } else {
            self.places[at as usize].phase = Phase::Idle;
            self.free(conn, at);
        }
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        self.now = conn.now();
        let Some(at) = self.place_of(conn.id()) else { return self.part(conn, ready.timer) };
        if self.places[at as usize].phase == Phase::Leaving {
            return self.take_leave(conn, ready);
        }
        if ready.woken && self.places[at as usize].phase == Phase::Idle {
            self.free(conn, at);
        } else if ready.writable {
            self.send(conn, at);
        }
        self.read(conn, at);
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        self.now = conn.now();
        let Some(at) = self.place_of(conn.id()) else { return };
        if self.places[at as usize].phase == Phase::Leaving {
            return self.vacate(at);
        }
        let connecting = self.places[at as usize].phase == Phase::Connecting;
        self.fail(
            at,
            match reason {
                Closed::Reset if connecting => Failed::Refused,
                Closed::Reset => Failed::Reset,
                Closed::TimedOut => Failed::TimedOut,
                Closed::Unreachable => Failed::Unreachable,
                Closed::Finished | Closed::Aborted => Failed::Closed,
            },
        );
    }

    fn draining<C: Conn>(&mut self, conn: &mut C) {
        self.now = conn.now();
        if self.counts() {
            self.finish();
        }
        self.end();
        if let Some(at) = self.place_of(conn.id()) {
            let quiet = self.places[at as usize].phase == Phase::Idle;
            self.fail(at, Failed::Closed);
            if quiet && self.job.protocol == Protocol::WebSocket {
                self.say_close(conn);
            }
        }
        conn.shutdown();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let report = core::mem::replace(&mut self.report, Report::new(Duration::from_secs(1)));
        // Nobody waits for it any more: then nobody misses it.
        let _ = self.results.send(report);
    }
}
