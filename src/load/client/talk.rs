//! What is said and heard on one connection.

use byway_tcp::app::Conn;
use byway_tcp::time::Instant;
use rand::Rng;

use super::super::job::Protocol;
use super::super::report::Failed;
use super::super::{http, send, websocket};
use super::{Load, PARTING, Phase, Reader, Stage};
use crate::app::ws::frame::Opcode;
use crate::app::ws::handshake::accept_key;

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

impl Load {
    /// The connection is ready for a request: the one at hand, or the next that is due.
    pub(super) fn free<C: Conn>(&mut self, conn: &mut C, at: u32) {
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
    pub(super) fn send<C: Conn>(&mut self, conn: &mut C, at: u32) {
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
        send::parts(conn, parts, key, &mut place.sent);
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

    pub(super) fn read<C: Conn>(&mut self, conn: &mut C, at: u32) {
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
        let (total, counts) = (self.request_len(at), self.counts());
        let place = &mut self.places[at as usize];
        let unsent = place.sent < total;
        if let Some(wanted) = place.wanted.take() {
            self.busy -= 1;
            if counts {
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
    pub(super) fn part<C: Conn>(&mut self, conn: &mut C, timer: bool) {
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
        send::control(conn, Opcode::Pong, reader.control(), self.rng.random());
    }

    /// 1000, and FIN.
    pub(super) fn say_close<C: Conn>(&mut self, conn: &mut C) {
        send::control(conn, Opcode::Close, &1000u16.to_be_bytes(), self.rng.random());
        conn.shutdown();
    }
}
