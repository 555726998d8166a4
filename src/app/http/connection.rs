//! An HTTP connection: requests in, answers out, until it ends or becomes a WebSocket.
//!
//! ```text
//!          ┌───────────── keep-alive ─────────────┐
//!          ▼                                      │
//!   ┌───→ Head ──→ Body ──→ (answered) ──→ Generated ──→ (answered) ──→ Linger
//!   │      └──────────────────────────────────↗ 101 ──→ WebSocket ──────↗
//! ```

use byway_tcp::app::{Conn, Ready};
use byway_tcp::time::Instant;

use super::super::outbox::Outbox;
use super::super::rewrite::Rewrite;
use super::super::service::Core;
use super::super::ws::push::Push;
use super::super::ws::session::{Session, Turn};
use super::body::{Body, Event};
use super::request::{self, Method, Request};
use super::response::{Made, Refusal, Status};
use super::routes::{self, Answer, Pushes, Source};
use super::scanner::Gathered;

/// Nobody is told.
const IN_PIECES: Refusal = Refusal::bad("the header block is in pieces");

/// One HTTP connection's state.
#[derive(Debug)]
pub(in crate::app) struct Connection {
    phase: Phase,
    /// The received frame being read, and rewritten into its reply.
    input: Option<Rewrite>,
    outbox: Outbox,
    /// A header block that began in an earlier frame, or isn't all right.
    head: Gathered,
    /// What is to be said next: a response head that waits for the body's first octet, say. Its memory is the core's, and
    /// here only while there is something in it.
    made: Option<Box<Made>>,
    /// `made` is complete and waits only for a place.
    due: bool,
    keep_alive: bool,
    expects_continue: bool,
    /// When the phase (or, in `Head`, the request) began.
    since: Instant,
    /// When the timer goes off, at the latest. It is moved only to the front; when it goes off
    /// too early it is set again: a request then costs no timer operation.
    armed: Option<Instant>,
    /// Some of the next request has arrived, or none has ever: the header deadline holds.
    hurried: bool,
    /// Octets of the current body since the last look at its progress.
    progress: u64,
    /// The current answer's head has found its place.
    begun: bool,
    /// The current request is HEAD: also an error is answered without a body.
    bodiless: bool,
    /// The program is about to end: the current request is the last.
    draining: bool,
    shut: bool,
}

/// What the next octet belongs to.
#[derive(Debug)]
enum Phase {
    Head,
    Body {
        body: Body,
        echo: bool,
    },
    Generated(Source),
    WebSocket(Box<Session>),
    /// All is said: what still comes is discarded until the peer closes (RFC 9112 §9.6).
    Linger,
}

/// Whether to go on.
enum Step {
    Again,
    /// All input is used up.
    Starved,
    /// Room, memory, or another turn of the loop is needed.
    Blocked,
}

impl Connection {
    /// A connection that has just opened.
    pub(in crate::app) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Head,
            input: None,
            outbox: Outbox::default(),
            head: Gathered::default(),
            made: None,
            due: false,
            keep_alive: true,
            expects_continue: false,
            since: now,
            armed: None,
            hurried: true,
            progress: 0,
            begun: false,
            bodiless: false,
            draining: false,
            shut: false,
        }
    }

    /// The memory of a connection that is over becomes one that has just opened.
    pub(in crate::app) fn reopen(&mut self, now: Instant) {
        let mut head = core::mem::take(&mut self.head);
        head.reopen();
        let outbox = core::mem::take(&mut self.outbox);
        *self = Self { head, outbox, ..Self::new(now) };
    }

    /// Something changed: goes on as far as input, room and memory allow.
    pub(in crate::app) fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready, core: &Core) {
        self.run(conn, core);
        if ready.timer {
            self.armed = None;
            self.timer(conn, core);
            self.run(conn, core);
        }
        self.tick(conn, core);
        self.outbox.settle(conn);
        self.end(conn, core);
        self.arm(conn, core);
        if let Some(said) = self.made.take_if(|made| made.is_empty()) {
            core.spare_made.give(said);
        }
    }

    /// The program is about to end: what is under way is finished, nothing new begun.
    pub(in crate::app) fn drain<C: Conn>(&mut self, conn: &mut C, core: &Core) {
        self.draining = true;
        self.keep_alive = false;
        self.run(conn, core);
        if matches!(self.phase, Phase::Head) && self.input.is_none() && !self.head.has_begun() {
            self.linger(conn);
        }
        self.ready(conn, Ready::default(), core);
    }

    /// The connection is over: gives every chunk back.
    pub(in crate::app) fn closed<C: Conn>(&mut self, conn: &mut C, core: &Core) {
        if let Some(mut unsaid) = self.made.take() {
            unsaid.clear();
            core.spare_made.give(unsaid);
        }
        if let Some(input) = self.input.take() {
            conn.release(input.chunk);
        }
        if let Phase::WebSocket(session) = &mut self.phase {
            session.release(conn);
        }
        self.outbox.clear(conn);
        // What the phase holds isn't kept with the rest.
        self.phase = Phase::Linger;
    }

    /// Lets a WebSocket say something of its own.
    fn tick<C: Conn>(&mut self, conn: &mut C, core: &Core) {
        let Phase::WebSocket(session) = &mut self.phase else { return };
        session.clock(conn.now());
        if self.draining
            && core.work.is_exhausted()
            && let Some(input) = self.input.take()
        {
            // Nobody is woken any more: the message is given up.
            conn.release(input.chunk);
        }
        if self.input.is_some() || self.outbox.is_blocked() {
            return;
        }
        if !self.draining {
            session.tick(conn, &mut self.outbox, core);
        } else if session.leave(conn, &mut self.outbox) {
            self.linger(conn);
        }
    }

    fn run<C: Conn>(&mut self, conn: &mut C, core: &Core) {
        loop {
            if !self.outbox.flush(conn) {
                return;
            }
            match self.step(conn, core) {
                Step::Again => {}
                Step::Blocked => return,
                Step::Starved => {
                    if let Some(used_up) = self.input.take() {
                        used_up.finish(conn, &mut self.outbox);
                    } else if !self.draining && !core.work.may_read() {
                        return;
                    } else if let Some(chunk) = conn.recv() {
                        core.work.read();
                        self.input = Some(Rewrite::new(chunk));
                    } else if self.expects_continue {
                        // No octet of the body has come: the peer waits (RFC 9110 §10.1.1).
                        self.expects_continue = false;
                        self.outbox.write(conn, b"HTTP/1.1 100 Continue\r\n\r\n");
                    } else {
                        return;
                    }
                }
            }
        }
    }

    fn step<C: Conn>(&mut self, conn: &mut C, core: &Core) -> Step {
        if self.due {
            if !self.place(conn) {
                return Step::Blocked;
            }
            self.due = false;
            if self.outbox.is_blocked() {
                return Step::Blocked;
            }
        }
        match &mut self.phase {
            Phase::Head => self.read_head(conn, core),
            Phase::Body { .. } => self.read_body(conn, core),
            Phase::Generated(source) => {
                if !source.fill(conn, &mut self.outbox) {
                    return Step::Blocked;
                }
                self.answered(conn);
                Step::Again
            }
            Phase::WebSocket(session) => match session.turn(conn, &mut self.input, &mut self.outbox, core) {
                Turn::Again => Step::Again,
                Turn::Starved => Step::Starved,
                Turn::Blocked => Step::Blocked,
                Turn::Closed => {
                    self.linger(conn);
                    Step::Again
                }
            },
            Phase::Linger => {
                if let Some(input) = &mut self.input {
                    input.cursors.skip(input.unread_len());
                }
                Step::Starved
            }
        }
    }

    /// Looks for a whole header block in what has come, and answers it.
    fn read_head<C: Conn>(&mut self, conn: &mut C, core: &Core) -> Step {
        let Some(input) = self.input.as_mut().filter(|input| input.unread_len() > 0) else {
            return Step::Starved;
        };
        let unread = input.unread(conn);
        let limits = &core.config.limits;
        // Nearly every block is all there, and all right. Otherwise it is the gathered octets that say what it is: the
        // same however they came.
        let mut request = if self.head.is_empty() { Request::parse(unread, limits) } else { Err(IN_PIECES) };
        let mut end = request.as_ref().map_or(0, |request| request.octets);
        if request.is_err() {
            end = match self.head.add(unread, limits) {
                Ok(Some(end)) => end,
                Ok(None) => {
                    if self.head.has_begun() && !self.hurried {
                        (self.since, self.hurried) = (conn.now(), true);
                    }
                    input.cursors.skip(input.unread_len());
                    return Step::Starved;
                }
                Err(refusal) => return self.refuse(conn, refusal, core),
            };
            request = Request::parse(self.head.octets(), limits);
        }
        let request = match &mut request {
            Ok(request) => request,
            Err(refusal) => {
                let refusal = *refusal;
                return self.refuse(conn, refusal, core);
            }
        };
        request.keep_alive &= !self.draining;
        // What a feed says isn't compressed: no place among those that compress is taken for it.
        if core.contexts.is_full() || request.path == b"/feed" {
            request.fields.upgrade.deflate = None;
        }
        self.bodiless = request.method == Method::Head;
        self.keep_alive = request.keep_alive;
        self.expects_continue = request.fields.expects_continue;
        let answer = routes::answer(request, made(&mut self.made, core), conn, core);
        input.cursors.skip(end);
        if !self.head.is_empty() {
            self.head.clear();
        }
        match answer {
            Ok(answer) => self.follow(conn, answer, core),
            Err(refusal) => self.refuse(conn, refusal, core),
        }
    }

    fn follow<C: Conn>(&mut self, conn: &mut C, answer: Answer, core: &Core) -> Step {
        self.since = conn.now();
        self.hurried = false;
        self.begun = false;
        let body = matches!(answer, Answer::Body { .. });
        self.expects_continue &= body && self.input.as_ref().is_none_or(|input| input.unread_len() == 0);
        self.due = !body;
        match answer {
            Answer::Made => self.answered(conn),
            Answer::Body { body, echo } => {
                self.progress = 0;
                self.phase = Phase::Body { body, echo };
            }
            Answer::Generated(source) => {
                self.phase = Phase::Generated(source);
            }
            Answer::WebSocket { pushes, deflate } => {
                let now = conn.now();
                let push = pushes.map(|pushes| match pushes {
                    Pushes::Ticks => Push::ticks(now, core.config.limits.tick),
                    Pushes::Stats => Push::stats(now, core.config.limits.feed, core.feeds.open(now)),
                });
                let deflate = deflate.map(|agreed| core.contexts.open(agreed));
                self.phase = Phase::WebSocket(Box::new(Session::new(push, deflate)));
            }
        }
        Step::Again
    }

    /// Reads on in a body and sends it back.
    fn read_body<C: Conn>(&mut self, conn: &mut C, core: &Core) -> Step {
        loop {
            let Phase::Body { body, echo } = &mut self.phase else { return Step::Again };
            let echo = *echo;
            let unread = self.input.as_ref().map_or(&[][..], |input| input.unread(conn));
            self.expects_continue &= unread.is_empty();
            let (used, event) = match body.next(unread, &core.config.limits) {
                Ok(next) => next,
                Err(refusal) => return self.break_off(conn, refusal, core),
            };
            if let Some(input) = &mut self.input {
                input.cursors.skip(used);
            }
            match event {
                Event::More => return Step::Starved,
                Event::Chunk(size) if echo => {
                    made(&mut self.made, core).push_hex(size).push(b"\r\n");
                }
                Event::Chunk(_) => {}
                Event::Data(octets) => {
                    if self.has_made() && !self.place(conn) {
                        return Step::Blocked;
                    }
                    self.pass_on(conn, octets, echo);
                    if let Phase::Body { body, .. } = &mut self.phase {
                        body.took(octets);
                    }
                    self.progress += octets as u64;
                }
                Event::LineEnd(octets) => self.pass_on(conn, octets, echo),
                Event::End => {
                    if echo && matches!(body, Body::Chunked(_)) {
                        made(&mut self.made, core).push(b"0\r\n\r\n");
                    }
                    self.due = self.has_made();
                    self.answered(conn);
                    return Step::Again;
                }
            }
        }
    }

    fn has_made(&self) -> bool {
        self.made.as_ref().is_some_and(|made| !made.is_empty())
    }

    /// Sends the next `octets` of input back, or doesn't.
    fn pass_on<C: Conn>(&mut self, conn: &mut C, octets: usize, echo: bool) {
        let Some(input) = &mut self.input else { return };
        if echo {
            input.keep(conn, octets);
        } else {
            input.cursors.skip(octets);
        }
    }

    /// Finds a place for `made`: over used-up octets of the frame being read if they suffice, else
    /// in a chunk of its own. `false`: no memory.
    fn place<C: Conn>(&mut self, conn: &mut C) -> bool {
        let made = self.made.as_ref().map_or(&[][..], |made| made.as_slice());
        let mut placed = false;
        if let Some(input) = &mut self.input {
            // Answers to pipelined requests are collected instead of spread over frames.
            let collect = self.due && (self.outbox.is_open() || input.unread_len() > 0);
            // A generated body goes behind its head, into the same chunk.
            let apart = matches!(self.phase, Phase::Generated(_)) || (collect && input.cursors.is_blank());
            placed = !apart && input.put(conn, made);
        }
        if !placed {
            // What the frame has become so far goes first.
            if let Some(input) = self.input.take_if(|input| !input.cursors.is_blank()) {
                if input.unread_len() == 0 {
                    input.finish(conn, &mut self.outbox);
                } else {
                    match input.cut(conn, &mut self.outbox) {
                        Ok(rest) => self.input = Some(rest),
                        Err(unchanged) => {
                            self.input = Some(unchanged);
                            return false;
                        }
                    }
                }
            }
            self.outbox.write(conn, made);
        }
        if let Some(made) = &mut self.made {
            made.clear();
        }
        self.begun = true;
        true
    }

    /// The request is answered; the next one, or the end.
    fn answered<C: Conn>(&mut self, conn: &mut C) {
        conn.counters().app_answered += 1;
        self.since = conn.now();
        self.hurried = false;
        self.bodiless = false;
        self.expects_continue = false;
        if self.keep_alive {
            // It is that already where a head is the whole answer: nothing is to be dropped.
            if !matches!(self.phase, Phase::Head) {
                self.phase = Phase::Head;
            }
        } else {
            self.linger(conn);
        }
    }

    /// Answers with an error; what follows is never parsed.
    fn refuse<C: Conn>(&mut self, conn: &mut C, refusal: Refusal, core: &Core) -> Step {
        if let Some(input) = &mut self.input {
            input.cursors.skip(input.unread_len());
        }
        let bodiless = self.bodiless || request::is_head(self.head.octets());
        made(&mut self.made, core).refusal(refusal, &core.config.clock, !bodiless);
        self.due = true;
        self.linger(conn);
        Step::Again
    }

    /// A body's framing is malformed: an error if the answer hasn't begun, else the connection
    /// ends without the body's end, which tells the peer.
    fn break_off<C: Conn>(&mut self, conn: &mut C, refusal: Refusal, core: &Core) -> Step {
        if !self.begun {
            return self.refuse(conn, refusal, core);
        }
        self.linger(conn);
        Step::Again
    }

    fn linger<C: Conn>(&mut self, conn: &mut C) {
        if matches!(self.phase, Phase::Linger) {
            return;
        }
        if let Phase::WebSocket(session) = &mut self.phase {
            session.release(conn);
        }
        self.phase = Phase::Linger;
        self.since = conn.now();
        self.expects_continue = false;
    }

    /// Closes our side when all is said, or when the peer has closed its own and all it said is
    /// answered.
    fn end<C: Conn>(&mut self, conn: &mut C, core: &Core) {
        if self.outbox.is_blocked() || self.due {
            return;
        }
        let at_work = matches!(self.phase, Phase::Generated(_)) || core.work.is_exhausted();
        let over = conn.recv_finished() && self.input.is_none() && !at_work;
        if over {
            self.linger(conn);
        }
        if matches!(self.phase, Phase::Linger) && !self.shut {
            self.shut = true;
            conn.shutdown();
        }
    }

    /// When something must have happened.
    fn deadline(&self, core: &Core) -> Option<Instant> {
        let limits = &core.config.limits;
        match &self.phase {
            Phase::Head if self.hurried => Some(self.since + limits.header_deadline),
            Phase::Head => Some(self.since + limits.idle),
            Phase::Body { .. } => Some(self.since + limits.body_check),
            Phase::Generated(_) => None,
            Phase::WebSocket(session) => session.next_tick(),
            Phase::Linger => Some(self.since + limits.linger),
        }
    }

    fn arm<C: Conn>(&mut self, conn: &mut C, core: &Core) {
        if let Some(at) = self.deadline(core)
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            conn.set_timer(Some(at));
        }
    }

    fn timer<C: Conn>(&mut self, conn: &mut C, core: &Core) {
        let now = conn.now();
        if self.deadline(core).is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.outbox.is_blocked() || self.due || self.input.is_some() || !conn.send_drained() {
            // It is the peer's reading that we wait for. Nothing bounds that yet but a shortage of memory (T4).
            self.since = now;
            return;
        }
        match &self.phase {
            Phase::Head if self.head.has_begun() => {
                let late = Refusal::new(Status::REQUEST_TIMEOUT, "the request took too long");
                self.refuse(conn, late, core);
            }
            Phase::Head => self.linger(conn),
            Phase::Body { .. } if self.progress < core.config.limits.body_progress => {
                if self.begun {
                    self.linger(conn);
                } else {
                    let late = Refusal::new(Status::REQUEST_TIMEOUT, "the body took too long");
                    self.refuse(conn, late, core);
                }
            }
            Phase::Body { .. } => (self.since, self.progress) = (now, 0),
            Phase::Linger => {
                self.since = now;
                // Once the peer has closed, the rest is the stack's (LAST-ACK).
                if !conn.recv_finished() {
                    conn.abort();
                }
            }
            Phase::Generated(_) | Phase::WebSocket(_) => {}
        }
    }
}

/// Where something is to be made: in what waits already, or in memory of the core's.
fn made<'a>(own: &'a mut Option<Box<Made>>, core: &Core) -> &'a mut Made {
    own.get_or_insert_with(|| core.spare_made.take())
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
