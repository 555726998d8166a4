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
//! Finishing (nothing new; what is under way may be answered) → Done.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use byway_tcp::app::{App, Closed, Conn, ConnId, Opener, Ready};
use byway_tcp::time::{Duration, Instant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::report::{Failed, Progress, Report};
use super::schedule::Schedule;
use super::{http, raw, websocket};
use crate::app::Limits;
use crate::app::ws::frame::Opcode;
use crate::app::ws::handshake::accept_key;
use crate::app::ws::mask;

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

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Binary messages that are echoed.
    WebSocket,
    /// Octets that are echoed.
    Raw,
}

/// When requests are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Closed loop: the next as soon as a connection is free.
    Max,
    /// Open loop: all cores together so many a second, come what may.
    Rate(u64),
}

/// What one core is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The server.
    pub remote: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// `Host`: as the user named the server.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Own addresses of the server's family, used in turn.
    pub locals: Vec<IpAddr>,
    /// This core's connections.
    pub connections: u32,
    /// When requests are made.
    pub pace: Pace,
    /// How many cores there are, and which of them this one is.
    pub cores: u64,
    /// See `cores`.
    pub place: u64,
    /// How long requests are made.
    pub duration: Duration,
    /// How long a connection, and a request counted from its intention, may take.
    pub timeout: Duration,
    /// What is sent with each request, and comes back by WebSocket and raw TCP.
    pub payload: Arc<[u8]>,
    /// A connection for each request.
    pub fresh: bool,
    /// Slots of the core's stack: its `max_connections`.
    pub slots: u32,
    /// Seeds what a WebSocket client has to choose at random.
    pub seed: u64,
}

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

/// What came of reading.
enum Heard {
    /// Nothing yet.
    More,
    Upgraded,
    /// The request is answered; whether the server closes.
    Answered {
        close: bool,
    },
    Ping,
    /// The server says goodbye.
    Close,
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
            limits: Limits::default(),
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
        if self.progress.stop.load(Ordering::Relaxed) && self.stage != Stage::Done {
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
            Stage::Measuring | Stage::Done => {}
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

    fn finish(&mut self) {
        if self.progress.measuring.load(Ordering::Relaxed) {
            let until = self.now.min(self.end).max(self.last_answer);
            self.report.elapsed = until.since(self.began);
        }
        self.stage = Stage::Done;
        self.progress.tell(&self.report, self.open);
        self.progress.done.store(true, Ordering::Release);
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
            Stage::Waiting | Stage::Done => false,
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
        if self.stage != Stage::Done {
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

    /// The connection is ready for a request: the one at hand, or the next that is due.
    fn free<C: Conn>(&mut self, conn: &mut C, at: u32) {
        if self.places[at as usize].wanted.is_none() {
            match (&mut self.schedule, self.stage) {
                (None, Stage::Measuring) if self.now < self.end => self.want(at, self.now),
                (Some(schedule), Stage::Measuring | Stage::Finishing { .. })
                    if schedule.due() <= self.now && schedule.due() < self.end =>
                {
                    let due = schedule.take();
                    self.want(at, due);
                }
                _ => {}
            }
        }
        if self.places[at as usize].wanted.is_some() {
            return self.begin(conn, at);
        }
        let place = &mut self.places[at as usize];
        place.phase = Phase::Idle;
        self.ends[at as usize] = Instant::NEVER;
        if !core::mem::replace(&mut place.listed, true) {
            self.idle.push_back(at);
        }
    }

    fn begin<C: Conn>(&mut self, conn: &mut C, at: u32) {
        let place = &mut self.places[at as usize];
        place.phase = Phase::Busy;
        place.sent = 0;
        if self.job.protocol == Protocol::WebSocket {
            place.mask = self.rng.random();
            let len = self.job.payload.len() as u64;
            place.header = websocket::ClientHeader::new(Opcode::Binary, len, place.mask);
        }
        self.ends[at as usize] = place.wanted.unwrap_or(self.now) + self.job.timeout;
        self.send(conn, at);
    }

    /// Octets of a whole request.
    fn request_len(&self, at: u32) -> usize {
        let head = match self.job.protocol {
            Protocol::Http => self.head.len(),
            Protocol::WebSocket => self.places[at as usize].header.as_slice().len(),
            Protocol::Raw => 0,
        };
        head + self.job.payload.len()
    }

    /// Sends on, as far as room and memory allow.
    fn send<C: Conn>(&mut self, conn: &mut C, at: u32) {
        let place = &mut self.places[at as usize];
        let payload = &self.job.payload[..];
        let (parts, key): ([&[u8]; 3], _) = match (place.phase, self.job.protocol) {
            (Phase::Upgrading, _) => ([&self.head, &place.key, &self.tail], None),
            (Phase::Busy, Protocol::Http) => ([&self.head, &[], payload], None),
            (Phase::Busy, Protocol::WebSocket) => ([place.header.as_slice(), &[], payload], Some(place.mask)),
            (Phase::Busy, Protocol::Raw) => ([&[], &[], payload], None),
            _ => return,
        };
        let before = place.sent;
        send_parts(conn, parts, key, &mut place.sent);
        self.report.bytes_sent += (place.sent - before) as u64;
    }

    /// What came is the place's; reads it.
    fn hear(&mut self, octets: &[u8], at: u32) -> Result<(usize, Heard), Failed> {
        let place = &mut self.places[at as usize];
        if place.phase == Phase::Idle && !matches!(place.reader, Reader::WebSocket(_)) {
            self.report.example.get_or_insert("an answer to nothing");
            return Err(Failed::Protocol);
        }
        let payload = &self.job.payload[..];
        let mut wrong = |why: &'static str| {
            self.report.example.get_or_insert(why);
            Failed::Protocol
        };
        Ok(match &mut place.reader {
            Reader::Raw(reader) => match reader.next(octets, payload).map_err(wrong)? {
                true => (octets.len(), Heard::Answered { close: false }),
                false => (octets.len(), Heard::More),
            },
            Reader::WebSocket(reader) => {
                let (used, event) = reader.next(octets, payload).map_err(&mut wrong)?;
                let heard = match event {
                    websocket::Event::More => Heard::More,
                    websocket::Event::Echoed if place.phase == Phase::Busy => {
                        Heard::Answered { close: false }
                    }
                    websocket::Event::Echoed => return Err(wrong("an echo of nothing")),
                    websocket::Event::Ping => Heard::Ping,
                    websocket::Event::Close => Heard::Close,
                };
                (used, heard)
            }
            Reader::Http(reader) => {
                let (used, event) = reader.next(octets, &self.limits).map_err(&mut wrong)?;
                let http::Event::Answered(answer) = event else { return Ok((used, Heard::More)) };
                if answer.status >= 400 {
                    self.report.status.get_or_insert(answer.status);
                }
                if place.phase == Phase::Upgrading {
                    if answer.status >= 400 {
                        return Err(Failed::Status);
                    }
                    if answer.status != 101 || answer.upgrade != Some(accept_key(&place.key)) {
                        return Err(wrong("the WebSocket's opening isn't answered as it has to be"));
                    }
                    return Ok((used, Heard::Upgraded));
                }
                if answer.status == 101 {
                    return Err(wrong("101 without having been asked"));
                }
                if answer.status >= 400 {
                    self.report.failed(Failed::Status, 1);
                    // Not an answer that latencies are told of; the connection is all right.
                    if place.wanted.take().is_some() {
                        self.busy -= 1;
                    }
                }
                (used, Heard::Answered { close: answer.close })
            }
        })
    }

    fn read<C: Conn>(&mut self, conn: &mut C, at: u32) {
        while let Some(mut chunk) = conn.recv() {
            self.report.bytes_received += chunk.len() as u64;
            let mut ours = true;
            while ours && !chunk.is_empty() {
                let heard = self.hear(conn.bytes(&chunk), at);
                ours = match heard {
                    Err(how) => {
                        self.fail(at, how);
                        conn.abort();
                        false
                    }
                    Ok((used, heard)) => {
                        chunk.advance(used);
                        self.follow(conn, at, heard, chunk.is_empty())
                    }
                };
            }
            conn.release(chunk);
            if !ours {
                return self.part(conn, false);
            }
        }
        if conn.recv_finished() {
            self.finished_by_server(conn, at);
        }
    }

    /// Acts on what was heard; whether the connection is still the place's.
    fn follow<C: Conn>(&mut self, conn: &mut C, at: u32, heard: Heard, nothing_more: bool) -> bool {
        match heard {
            Heard::More => {}
            Heard::Upgraded => {
                self.places[at as usize].reader = Reader::WebSocket(websocket::Reader::default());
                self.free(conn, at);
            }
            Heard::Ping => self.pong(conn, at),
            Heard::Close => {
                // Before FIN: an answer to its Close (RFC 6455 §5.5.1).
                self.say_close(conn);
                self.finished_by_server(conn, at);
                return false;
            }
            Heard::Answered { close } => return self.answered(conn, at, close, nothing_more),
        }
        true
    }

    fn answered<C: Conn>(&mut self, conn: &mut C, at: u32, close: bool, nothing_more: bool) -> bool {
        let total = self.request_len(at);
        let place = &mut self.places[at as usize];
        let unsent = place.sent < total;
        if let Some(wanted) = place.wanted.take() {
            self.busy -= 1;
            if self.stage != Stage::Done {
                self.report.answered(self.now.since(wanted));
                self.last_answer = self.now;
            }
        }
        place.answers += 1;
        place.failures = 0;
        // A server may answer before it has the whole request; then the rest has no end on this connection.
        if self.job.fresh || close || unsent {
            self.vacate(at);
            if self.job.protocol == Protocol::WebSocket {
                self.say_close(conn);
            } else if unsent || !close {
                // A server that says that it closes does so first, and has the TIME-WAIT.
                conn.shutdown();
            }
            conn.set_timer(Some(self.now + PARTING));
            return false;
        }
        if !nothing_more && self.job.protocol != Protocol::WebSocket {
            self.report.example.get_or_insert("more than an answer");
            self.fail(at, Failed::Protocol);
            conn.abort();
            return false;
        }
        self.free(conn, at);
        true
    }

    /// FIN, or a WebSocket's Close: in order if nothing is owed.
    fn finished_by_server<C: Conn>(&mut self, conn: &mut C, at: u32) {
        let place = &self.places[at as usize];
        if place.wanted.is_some() || place.answers == 0 {
            self.fail(at, Failed::Closed);
        } else {
            self.vacate(at);
        }
        conn.shutdown();
        conn.set_timer(Some(self.now + PARTING));
    }

    /// A connection that is nobody's any more: until the server closes, too.
    fn part<C: Conn>(&mut self, conn: &mut C, timer: bool) {
        while let Some(chunk) = conn.recv() {
            conn.release(chunk);
        }
        if conn.recv_finished() {
            conn.shutdown();
        }
        if timer {
            conn.abort();
        }
    }

    fn pong<C: Conn>(&mut self, conn: &mut C, at: u32) {
        let place = &self.places[at as usize];
        let Reader::WebSocket(reader) = &place.reader else { return };
        // Not into the middle of a message that is still being sent; the server asks again (§5.5.3).
        if place.phase == Phase::Busy && place.sent < self.request_len(at) {
            return;
        }
        send_control(conn, Opcode::Pong, reader.control(), self.rng.random());
    }

    /// 1000, and FIN.
    fn say_close<C: Conn>(&mut self, conn: &mut C) {
        send_control(conn, Opcode::Close, &1000u16.to_be_bytes(), self.rng.random());
        conn.shutdown();
    }
}

/// The request, or the WebSocket's opening, in the two parts that never change.
fn texts(job: &Job) -> (Vec<u8>, Vec<u8>) {
    let (path, host) = (&job.path, &job.host);
    let common = format!("{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: byway-load\r\n");
    match job.protocol {
        Protocol::Raw => (Vec::new(), Vec::new()),
        Protocol::WebSocket => {
            let head = format!(
                "GET {common}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            );
            (head.into_bytes(), b"\r\n\r\n".to_vec())
        }
        Protocol::Http => {
            let close = if job.fresh { "Connection: close\r\n" } else { "" };
            let len = job.payload.len();
            let head = if len == 0 {
                format!("GET {common}{close}\r\n")
            } else {
                let body = format!("Content-Type: application/octet-stream\r\nContent-Length: {len}\r\n");
                format!("POST {common}{body}{close}\r\n")
            };
            (head.into_bytes(), Vec::new())
        }
    }
}

/// Sends `parts`, one after the other, from octet `sent` on; with a key, the last of them masked.
fn send_parts<C: Conn>(conn: &mut C, parts: [&[u8]; 3], key: Option<[u8; 4]>, sent: &mut usize) {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    while *sent < total && conn.send_room() > 0 {
        let Some(mut chunk) = conn.alloc() else { return };
        let mut room = conn.mss().min(conn.tailroom(&chunk));
        let mut begin = 0;
        for (number, part) in parts.iter().enumerate() {
            let from = (*sent + chunk.len()).saturating_sub(begin);
            begin += part.len();
            let Some(rest) = part.get(from..).filter(|_| *sent + chunk.len() < begin) else { continue };
            let octets = &rest[..rest.len().min(room)];
            let at = chunk.len();
            conn.append(&mut chunk, octets);
            if let Some(key) = key.filter(|_| number == 2) {
                mask::unmask(&mut conn.bytes_mut(&mut chunk)[at..], mask::rotate(key, from));
            }
            room -= octets.len();
        }
        let len = chunk.len();
        match conn.send(chunk) {
            Ok(()) => *sent += len,
            // Closed already, or no room after all: `closed` or `writable` follows.
            Err(refused) => return conn.release(refused),
        }
    }
}

/// A control frame, if there is room for it: without, the connection has other troubles.
fn send_control<C: Conn>(conn: &mut C, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    let header = websocket::ClientHeader::new(opcode, payload.len() as u64, key);
    send_parts(conn, [header.as_slice(), &[], payload], Some(key), &mut 0);
}

impl App for Load {
    fn turn<O: Opener>(&mut self, opener: &mut O) {
        self.now = opener.now();
        self.advance_stage(opener);
        if self.stage == Stage::Done {
            return;
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
        if self.stage != Stage::Done {
            self.finish();
        }
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

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
