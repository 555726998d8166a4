//! The applications: one small script for each end of each connection, and what it has seen.

use core::net::SocketAddr;
use std::collections::{BTreeMap, HashMap};

use byway_tcp::app::{App, Closed, Conn, ConnId, Ready};
use byway_tcp::time::{Duration, Instant};

use crate::fault::Fault;
use crate::stream::Stream;

/// How often an application asks whether everything is acknowledged.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What an end does next. It reads all the time unless it is deaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Sends so many octets.
    Send(u64),
    /// Goes on when so many octets have been received in all.
    Await(u64),
    /// Goes on when the peer has acknowledged everything.
    Drained,
    /// Waits.
    Pause(Duration),
    /// Stops reading.
    Deaf,
    /// Reads again.
    Hear,
    /// Waits for the peer's FIN.
    Eof,
    /// Closes its sending side.
    Close,
    /// Resets the connection.
    Abort,
}

/// One end's part in a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// In order.
    pub steps: Vec<Step>,
    /// Sends back what comes, before `steps` (which then only closes).
    pub echo: bool,
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// Octets a write.
    pub write: usize,
}

impl Script {
    /// Octets sent by `steps`.
    pub fn total(&self) -> u64 {
        self.steps.iter().map(|step| if let Step::Send(octets) = step { *octets } else { 0 }).sum()
    }

    /// Time spent waiting by itself.
    pub fn pauses(&self) -> Duration {
        self.steps.iter().map(|step| if let Step::Pause(time) = step { *time } else { Duration::ZERO }).sum()
    }

    /// Whether it ends by a reset.
    pub fn aborts(&self) -> bool {
        self.steps.contains(&Step::Abort)
    }
}

/// Which end of which connection, and what is sent and expected there.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which connection.
    pub flow: usize,
    /// The end that opens.
    pub client: bool,
    /// What it does.
    pub script: Script,
    /// What it sends.
    pub output: Stream,
    /// What it expects, and how much.
    pub input: (Stream, u64),
}

/// An end at work.
#[derive(Debug)]
pub struct End {
    /// What it is to do.
    pub plan: Plan,
    /// The step it is at, and what it has done of it.
    step: usize,
    step_sent: u64,
    /// When the pause is over.
    until: Option<Instant>,
    timer: bool,
    deaf: bool,
    /// Octets given to the stack.
    pub sent: u64,
    /// Octets taken from the stack, all of them as they should be.
    pub received: u64,
    /// The peer's FIN was seen.
    pub eof: bool,
    /// The handshake was completed.
    pub opened: bool,
    /// How it ended.
    pub closed: Option<Closed>,
}

impl End {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            step: 0,
            step_sent: 0,
            until: None,
            timer: false,
            deaf: false,
            sent: 0,
            received: 0,
            eof: false,
            opened: false,
            closed: None,
        }
    }

    /// Where it stands, for a report.
    pub fn describe(&self) -> String {
        let at = self.plan.script.steps.get(self.step);
        format!(
            "{} at step {} {at:?}: {} of {} octets sent, {} of {} received, eof {}, closed {:?}",
            if self.plan.client { "client" } else { "server" },
            self.step,
            self.sent,
            if self.plan.script.echo { self.plan.input.1 } else { self.plan.script.total() },
            self.received,
            self.plan.input.1,
            self.eof,
            self.closed
        )
    }
}

/// All applications of one host.
#[derive(Debug, Default)]
pub struct Apps {
    /// Ends by connection; they stay when the connection is gone.
    pub ends: HashMap<ConnId, End>,
    /// Ends that are to be opened by a peer: by its address and our port.
    pub expected: BTreeMap<(SocketAddr, u16), Plan>,
    /// What went wrong, in words.
    pub wrong: Vec<String>,
    /// Octets delivered, connections opened and ended: changes whenever something gets ahead.
    pub progress: u64,
    /// Payload octets delivered.
    pub delivered: u64,
    /// Ends that are closed.
    pub closed: usize,
    /// What is broken on purpose.
    pub fault: Option<Fault>,
    buffer: Vec<u8>,
}

impl Apps {
    /// An active open begun by `connect`.
    pub fn connecting(&mut self, id: ConnId, plan: Plan) {
        self.ends.insert(id, End::new(plan));
    }

    fn accuse(&mut self, flow: usize, what: &str) {
        self.wrong.push(format!("flow {flow}: {what}"));
    }

    /// Reads, and goes through the script as far as possible.
    fn run<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        let Some(mut end) = self.ends.remove(&conn.id()) else { return };
        end.timer |= ready.timer;
        loop {
            if end.plan.script.echo && !end.eof {
                self.echo(conn, &mut end);
            } else if !end.deaf {
                self.read(conn, &mut end);
            }
            if !self.advance(conn, &mut end) {
                break;
            }
        }
        self.ends.insert(conn.id(), end);
    }

    fn read<C: Conn>(&mut self, conn: &mut C, end: &mut End) {
        while let Some(mut chunk) = conn.recv() {
            if self.fault == Some(Fault::FlipOctet) && !chunk.is_empty() {
                conn.bytes_mut(&mut chunk)[0] ^= 0x10;
                self.fault = None;
            }
            self.check(conn.bytes(&chunk), end);
            conn.release(chunk);
        }
        self.notice_eof(conn, end);
    }

    fn echo<C: Conn>(&mut self, conn: &mut C, end: &mut End) {
        while conn.send_room() > 0 {
            let Some(chunk) = conn.recv() else { break };
            self.check(conn.bytes(&chunk), end);
            let len = chunk.len() as u64;
            match conn.send(chunk) {
                Ok(()) => end.sent += len,
                Err(chunk) => {
                    conn.release(chunk);
                    if end.closed.is_none() {
                        self.accuse(end.plan.flow, "a chunk was refused although there was room");
                        conn.abort();
                    }
                    return;
                }
            }
        }
        self.notice_eof(conn, end);
    }

    fn check(&mut self, octets: &[u8], end: &mut End) {
        let (stream, total) = end.plan.input;
        if end.eof {
            self.accuse(end.plan.flow, "data after the end of the stream");
        }
        if let Some(at) = stream.differs(end.received, octets) {
            self.accuse(end.plan.flow, &format!("octet {at} is not what was sent"));
        }
        end.received += octets.len() as u64;
        if end.received > total {
            self.accuse(end.plan.flow, "more octets than were sent");
        }
        self.progress += 1;
        self.delivered += octets.len() as u64;
    }

    fn notice_eof<C: Conn>(&mut self, conn: &C, end: &mut End) {
        if conn.recv_finished() && !end.eof {
            end.eof = true;
            self.progress += 1;
            if end.received != end.plan.input.1 {
                let what = format!("FIN after {} of {} octets", end.received, end.plan.input.1);
                self.accuse(end.plan.flow, &what);
            }
        }
    }

    /// One step, or a part of it. False when it has to wait.
    fn advance<C: Conn>(&mut self, conn: &mut C, end: &mut End) -> bool {
        let Some(&step) = end.plan.script.steps.get(end.step) else { return false };
        let done = match step {
            Step::Send(octets) => self.send(conn, end, octets),
            Step::Await(octets) => end.received >= octets,
            // Nobody is told of it: ask again and again.
            Step::Drained => {
                let drained = conn.send_drained();
                conn.set_timer((!drained).then(|| conn.now() + ASK_AGAIN));
                drained
            }
            Step::Pause(time) => self.pause(conn, end, time),
            Step::Deaf => {
                end.deaf = true;
                true
            }
            Step::Hear => {
                end.deaf = false;
                true
            }
            Step::Eof => end.eof,
            Step::Close => {
                if self.fault == Some(Fault::HoldConnection) && !end.plan.client {
                    return false;
                }
                conn.shutdown();
                true
            }
            Step::Abort => {
                conn.abort();
                true
            }
        };
        if done {
            end.step += 1;
            end.step_sent = 0;
            self.progress += 1;
        }
        done
    }

    /// True when the timer has gone off, which must not be early.
    fn pause<C: Conn>(&mut self, conn: &mut C, end: &mut End, time: Duration) -> bool {
        let Some(until) = end.until else {
            let until = conn.now() + time;
            end.until = Some(until);
            end.timer = false;
            conn.set_timer(Some(until));
            return false;
        };
        if !core::mem::take(&mut end.timer) {
            return false;
        }
        end.until = None;
        if conn.now() < until {
            self.accuse(end.plan.flow, "the timer went off early");
        }
        true
    }

    /// Writes as much as there is room for. True when all `octets` are on their way.
    fn send<C: Conn>(&mut self, conn: &mut C, end: &mut End, octets: u64) -> bool {
        while end.step_sent < octets {
            if conn.send_room() == 0 {
                return false;
            }
            let Some(mut chunk) = conn.alloc() else { return false };
            let room = conn.tailroom(&chunk).min(end.plan.script.write) as u64;
            let len = room.min(octets - end.step_sent);
            self.buffer.resize(len as usize, 0);
            end.plan.output.fill(end.sent, &mut self.buffer);
            conn.append(&mut chunk, &self.buffer);
            if let Err(chunk) = conn.send(chunk) {
                conn.release(chunk);
                return false;
            }
            end.sent += len;
            end.step_sent += len;
        }
        true
    }
}

impl App for Apps {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        self.progress += 1;
        let id = conn.id();
        if !self.ends.contains_key(&id) {
            match self.expected.remove(&(conn.peer(), conn.local().port())) {
                Some(plan) => {
                    self.ends.insert(id, End::new(plan));
                }
                None => {
                    self.wrong.push(format!("{} opened a connection that nobody began", conn.peer()));
                    return conn.abort();
                }
            }
        }
        if let Some(end) = self.ends.get_mut(&id) {
            end.opened = true;
            conn.set_nodelay(end.plan.script.nodelay);
        }
        assert_ne!(self.fault, Some(Fault::Panic), "broken on purpose");
        self.run(conn, Ready::default());
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        self.run(conn, ready);
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        self.progress += 1;
        let Some(end) = self.ends.get_mut(&conn.id()) else { return };
        let flow = end.plan.flow;
        if end.closed.replace(reason).is_some() {
            self.accuse(flow, "closed twice");
        } else {
            self.closed += 1;
        }
    }
}
