//! A WebSocket after its handshake: messages in, the same messages out.
//!
//! ```text
//!  whole frame in hand ──────────────→ echoed in place: new header, payload unmasked
//!  binary, ping: part in hand ───────→ header with the full length at once, payload as it comes
//!  text: part in hand, frame to itself → held back until the frame is complete (or the bound is
//!                                      reached: then echoed as a fragment), because a bad octet
//!                                      must be answered by Close, which can't be put inside a frame
//!  text: part in hand behind replies → echoed as a fragment: the replies can't wait for the rest
//!  compressed ───────────────────────→ inflated and deflated, in `compressed`
//! ```

use std::collections::VecDeque;

use byway_tcp::app::Conn;
use byway_tcp::frame::Chunk;
use byway_tcp::time::Instant;

use super::super::limits::Limits;
use super::super::outbox::Outbox;
use super::super::rewrite::{Cursors, Rewrite};
use super::super::service::Core;
use super::deflate::Deflate;
use super::frame::{CLIENT_HEADER, CONTROL_PAYLOAD, Header, Opcode, ReplyHeader};
use super::mask;
use super::push::Push;
use super::utf8::Utf8;

/// Room to send, in chunks, that must be left for text to be held back: what the stack grants even when
/// memory is short.
const SPARE_ROOM: usize = 8;

/// Why a WebSocket is closed (RFC 6455 §7.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CloseCode(pub(crate) u16);

impl CloseCode {
    /// The endpoint is going away.
    const GOING_AWAY: Self = Self(1001);
    /// Protocol error.
    pub(super) const PROTOCOL: Self = Self(1002);
    /// A message's data doesn't fit its type: text that isn't UTF-8.
    pub(super) const DATA: Self = Self(1007);
    /// A message goes against the policy: too many fragments.
    pub(super) const POLICY: Self = Self(1008);
    /// A message is too large.
    pub(super) const TOO_BIG: Self = Self(1009);

    /// Codes that may be sent (§7.4): the registered ones that aren't reserved for local use, and
    /// those of libraries and applications.
    fn is_valid(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1011 | 3000..=4999)
    }
}

/// One WebSocket's state.
#[derive(Debug)]
pub(in crate::app) struct Session {
    /// A header that began in the chunk before.
    carry: [u8; CLIENT_HEADER],
    carried: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The message that is being received in fragments, or the one `frame` is of.
    message: Option<Message>,
    utf8: Utf8,
    /// Payload of a Close frame.
    control: [u8; CONTROL_PAYLOAD],
    controlled: usize,
    /// Text of `frame` that is held back, unmasked and checked.
    held: VecDeque<Chunk>,
    held_octets: usize,
    /// When what is held goes out as it is.
    held_until: Option<Instant>,
    push: Option<Push>,
    /// Messages answered that haven't been counted yet.
    answered: u64,
    deflate: Option<Deflate>,
    /// Unread octets of a compressed message's frame that are unmasked already.
    unmasked: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    /// What the next frame of the echo is called: continuation once a part has been echoed.
    opcode: Opcode,
    /// The key for the next octet.
    key: [u8; 4],
    /// Octets of payload, and those still to come.
    len: u64,
    left: u64,
    /// Whether the echo's header has been written, its payload not yet completely.
    streaming: bool,
}

impl Frame {
    fn took(&mut self, octets: usize) {
        self.left -= octets as u64;
        self.key = mask::rotate(self.key, octets);
    }
}

#[derive(Clone, Copy, Debug)]
struct Message {
    text: bool,
    compressed: bool,
    octets: u64,
    fragments: u32,
}

/// What came of a turn.
pub(in crate::app) enum Turn {
    /// There is more to do.
    Again,
    /// All input is used up.
    Starved,
    /// Memory is needed, or the loop's next turn.
    Blocked,
    /// A Close frame has been written; nothing more is to be said or read.
    Closed,
}

/// What came of reading a chunk.
enum Outcome {
    /// All is read.
    Starved,
    /// All is read; the unread octets (unmasked) are text to hold back.
    Hold,
    /// The text held back goes out under this header, before the chunk's own reply.
    Release(ReplyHeader),
    /// What comes next is compressed.
    Inflate,
    /// The peer is to be told why.
    Fail(CloseCode),
    /// The peer said Close; its payload is in `control`.
    Close,
}

impl Session {
    /// A session; with `push`, one that also speaks by itself; with `deflate`, one of compressed messages.
    pub(in crate::app) fn new(push: Option<Push>, deflate: Option<Deflate>) -> Self {
        Self {
            carry: [0; CLIENT_HEADER],
            carried: 0,
            frame: None,
            message: None,
            utf8: Utf8::default(),
            control: [0; CONTROL_PAYLOAD],
            controlled: 0,
            held: VecDeque::new(),
            held_octets: 0,
            held_until: None,
            push,
            answered: 0,
            deflate,
            unmasked: 0,
        }
    }

    /// Reads on in `input`, which becomes the reply.
    pub(in crate::app) fn turn<C: Conn>(
        &mut self,
        conn: &mut C,
        input: &mut Option<Rewrite>,
        outbox: &mut Outbox,
        core: &Core,
    ) -> Turn {
        let turn = self.read_on(conn, input, outbox, core);
        conn.counters().app_answered += core::mem::take(&mut self.answered);
        turn
    }

    fn read_on<C: Conn>(
        &mut self,
        conn: &mut C,
        input: &mut Option<Rewrite>,
        outbox: &mut Outbox,
        core: &Core,
    ) -> Turn {
        if self.is_compressed() {
            return match self.turn_compressed(conn, input, outbox, core) {
                Ok(turn) => turn,
                Err(code) => self.fail(conn, input, outbox, code),
            };
        }
        let limits = &core.config.limits;
        let Some(rewrite) = input else { return Turn::Starved };
        let buf = conn.bytes_mut(&mut rewrite.chunk);
        match self.read(buf, &mut rewrite.cursors, limits) {
            Outcome::Starved => Turn::Starved,
            Outcome::Inflate => Turn::Again,
            Outcome::Hold => {
                if let Some(rewrite) = input.take() {
                    self.hold(conn, rewrite.into_unread(), outbox, limits);
                }
                Turn::Again
            }
            Outcome::Release(header) => {
                self.release_held(conn, header, outbox);
                Turn::Again
            }
            Outcome::Fail(code) => self.fail(conn, input, outbox, code),
            Outcome::Close => {
                let (code, len) = self.answer_to_close();
                self.say_close(conn, input, outbox, &code.0.to_be_bytes()[..len]);
                Turn::Closed
            }
        }
    }

    /// Reads frames in `buf` from `cursors.read` on and writes their replies over them.
    fn read(&mut self, buf: &mut [u8], cursors: &mut Cursors, limits: &Limits) -> Outcome {
        loop {
            if self.frame.is_none() {
                match self.read_header(&buf[cursors.read..]) {
                    Err(code) => return Outcome::Fail(code),
                    Ok((used, header)) => {
                        cursors.skip(used);
                        let Some(header) = header else { return Outcome::Starved };
                        if let Err(code) = self.begin(header, limits) {
                            return Outcome::Fail(code);
                        }
                        if self.is_compressed() {
                            return Outcome::Inflate;
                        }
                    }
                }
            }
            if let Some(outcome) = self.read_payload(buf, cursors) {
                return outcome;
            }
        }
    }

    /// The next header, when it is complete, and how many of `octets` it used up.
    fn read_header(&mut self, octets: &[u8]) -> Result<(usize, Option<Header>), CloseCode> {
        let deflate = self.deflate.is_some();
        if self.carried == 0
            && let Some((header, used)) = Header::parse(octets, deflate)?
        {
            return Ok((used, Some(header)));
        }
        let before = self.carried;
        let taken = octets.len().min(CLIENT_HEADER - before);
        self.carry[before..before + taken].copy_from_slice(&octets[..taken]);
        match Header::parse(&self.carry[..before + taken], deflate)? {
            Some((header, used)) => {
                self.carried = 0;
                Ok((used - before, Some(header)))
            }
            None => {
                self.carried = before + taken;
                Ok((taken, None))
            }
        }
    }

    /// A frame begins: what may come when (§5.4), and the limits (W4), before any payload.
    fn begin(&mut self, header: Header, limits: &Limits) -> Result<(), CloseCode> {
        let Header { fin, compressed, opcode, len, key } = header;
        if !opcode.is_control() {
            let message = match (opcode, &mut self.message) {
                (Opcode::Continuation, Some(message)) => message,
                (Opcode::Continuation, None) | (_, Some(_)) => return Err(CloseCode::PROTOCOL),
                (opcode, message @ None) => {
                    let text = opcode == Opcode::Text;
                    message.insert(Message { text, compressed, octets: 0, fragments: 0 })
                }
            };
            message.octets = message.octets.saturating_add(len);
            message.fragments += 1;
            if message.octets > limits.message {
                return Err(CloseCode::TOO_BIG);
            }
            if message.fragments > limits.fragments {
                return Err(CloseCode::POLICY);
            }
        }
        self.frame = Some(Frame { fin, opcode, key, len, left: len, streaming: false });
        Ok(())
    }

    /// Deals with what `buf` has of the current frame's payload. `None`: the frame is complete.
    fn read_payload(&mut self, buf: &mut [u8], cursors: &mut Cursors) -> Option<Outcome> {
        let Some(frame) = &mut self.frame else { return None };
        let octets = (buf.len() - cursors.read).min(usize::try_from(frame.left).unwrap_or(usize::MAX));
        if octets == 0 && frame.left > 0 {
            return Some(Outcome::Starved);
        }
        let text = self.message.is_some_and(|message| message.text);
        match frame.opcode {
            Opcode::Pong => {
                // An answer to a ping nobody sent (§5.5.3).
                cursors.skip(octets);
                frame.took(octets);
            }
            Opcode::Close => {
                let place = &mut self.control[self.controlled..self.controlled + octets];
                place.copy_from_slice(&buf[cursors.read..cursors.read + octets]);
                mask::unmask(place, frame.key);
                self.controlled += octets;
                cursors.skip(octets);
                frame.took(octets);
                if frame.left == 0 {
                    return Some(Outcome::Close);
                }
            }
            Opcode::Ping => stream(frame, Opcode::Pong, buf, cursors, octets),
            Opcode::Text | Opcode::Continuation if text => return self.read_text(buf, cursors, octets),
            opcode => stream(frame, opcode, buf, cursors, octets),
        }
        if frame.left > 0 {
            return Some(Outcome::Starved);
        }
        self.frame_ends();
        None
    }

    /// The current frame is complete, and with its last frame the message.
    fn frame_ends(&mut self) {
        if let Some(frame) = self.frame.take()
            && frame.fin
            && !frame.opcode.is_control()
        {
            self.message = None;
            self.answered += 1;
        }
    }

    /// Text is checked before it is sent (see the picture at the top of this file).
    fn read_text(&mut self, buf: &mut [u8], cursors: &mut Cursors, octets: usize) -> Option<Outcome> {
        let Some(frame) = &mut self.frame else { return None };
        let complete = octets as u64 == frame.left;
        let ends = complete && frame.fin;
        if !complete && cursors.is_blank() {
            let part = &mut buf[cursors.read..cursors.read + octets];
            mask::unmask(part, frame.key);
            frame.took(octets);
            return Some(match self.utf8.push(part) {
                Ok(()) => Outcome::Hold,
                Err(_) => Outcome::Fail(CloseCode::DATA),
            });
        }
        let before = *cursors;
        let header = ReplyHeader::new(ends, frame.opcode, (self.held_octets + octets) as u64);
        if self.held.is_empty() {
            cursors.put_or_spill(buf, header.as_slice());
        }
        let at = cursors.keep_unmasked(buf, octets, frame.key);
        let checked = self.utf8.push(&buf[at..at + octets]);
        if checked.and_then(|()| if ends { self.utf8.finish() } else { Ok(()) }).is_err() {
            *cursors = before;
            return Some(Outcome::Fail(CloseCode::DATA));
        }
        frame.took(octets);
        frame.opcode = Opcode::Continuation;
        if !complete {
            return Some(Outcome::Starved);
        }
        self.frame_ends();
        (!self.held.is_empty()).then_some(Outcome::Release(header))
    }

    /// Holds text back; beyond the bound, what is held goes out as a fragment.
    fn hold<C: Conn>(&mut self, conn: &mut C, chunk: Chunk, outbox: &mut Outbox, limits: &Limits) {
        self.held_octets += chunk.len();
        self.held.push_back(chunk);
        // Held frames are out of the pool just as queued ones are: when memory gets short, and with it
        // the room to send, nothing is held, lest idle halves of messages starve everybody (D2).
        let affordable = conn.send_room() > self.held.len() + SPARE_ROOM;
        if self.held_octets < limits.held_octets && self.held.len() < limits.held_chunks && affordable {
            self.held_until.get_or_insert(conn.now() + limits.held_time);
            return;
        }
        self.release_part(conn, outbox);
    }

    /// Sends what is held back as a fragment of its message.
    fn release_part<C: Conn>(&mut self, conn: &mut C, outbox: &mut Outbox) {
        if let Some(frame) = &mut self.frame {
            let header = ReplyHeader::new(false, frame.opcode, self.held_octets as u64);
            frame.opcode = Opcode::Continuation;
            self.release_held(conn, header, outbox);
        }
    }

    fn release_held<C: Conn>(&mut self, conn: &mut C, header: ReplyHeader, outbox: &mut Outbox) {
        if let Some(first) = self.held.pop_front() {
            outbox.push_with(conn, header.as_slice(), first);
        }
        for chunk in self.held.drain(..) {
            outbox.push(conn, chunk);
        }
        self.held_octets = 0;
        self.held_until = None;
    }

    /// What to answer to the peer's Close (§5.5.1): its code, or what is wrong with it; and how
    /// many octets of the code to send.
    fn answer_to_close(&self) -> (CloseCode, usize) {
        let payload = &self.control[..self.controlled];
        let Some((&code, reason)) = payload.split_first_chunk::<2>() else {
            return (CloseCode::PROTOCOL, 2 * payload.len());
        };
        let code = CloseCode(u16::from_be_bytes(code));
        if !code.is_valid() {
            (CloseCode::PROTOCOL, 2)
        } else if core::str::from_utf8(reason).is_err() {
            (CloseCode::DATA, 2)
        } else {
            (code, 2)
        }
    }

    fn fail<C: Conn>(
        &mut self,
        conn: &mut C,
        input: &mut Option<Rewrite>,
        outbox: &mut Outbox,
        code: CloseCode,
    ) -> Turn {
        self.say_close(conn, input, outbox, &code.0.to_be_bytes());
        Turn::Closed
    }

    /// Writes a Close frame behind the replies so far; the rest of the input isn't read.
    fn say_close<C: Conn>(
        &mut self,
        conn: &mut C,
        input: &mut Option<Rewrite>,
        outbox: &mut Outbox,
        payload: &[u8],
    ) {
        self.release(conn);
        let mut frame = [0; 4];
        let header = ReplyHeader::new(true, Opcode::Close, payload.len() as u64);
        frame[..2].copy_from_slice(header.as_slice());
        frame[2..2 + payload.len()].copy_from_slice(payload);
        let frame = &frame[..2 + payload.len()];
        if let Some(mut rewrite) = input.take() {
            rewrite.cursors.skip(rewrite.unread_len());
            let placed = rewrite.put(conn, frame);
            rewrite.finish(conn, outbox);
            if placed {
                return;
            }
        }
        outbox.write(conn, frame);
    }

    /// Says Close because the program is about to end, unless it would land inside a frame. Whether
    /// it has been said.
    pub(in crate::app) fn leave<C: Conn>(&mut self, conn: &mut C, outbox: &mut Outbox) -> bool {
        let inside = self.frame.is_some_and(|frame| frame.streaming);
        if !inside {
            self.say_close(conn, &mut None, outbox, &CloseCode::GOING_AWAY.0.to_be_bytes());
        }
        !inside
    }

    /// Gives back what is held.
    pub(in crate::app) fn release<C: Conn>(&mut self, conn: &mut C) {
        for chunk in self.held.drain(..) {
            conn.release(chunk);
        }
        self.held_octets = 0;
        self.held_until = None;
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub(in crate::app) fn next_tick(&self) -> Option<Instant> {
        let push = self.push.as_ref().map(|push| push.next);
        push.into_iter().chain(self.held_until).min()
    }

    /// Time has passed: a message may fall due.
    pub(in crate::app) fn clock(&mut self, now: Instant) {
        if let Some(push) = &mut self.push {
            push.clock(now);
        }
    }

    /// Pushes the message that is due, unless it would land inside another (§5.4). To be called
    /// when no reply is being written.
    pub(in crate::app) fn tick<C: Conn>(&mut self, conn: &mut C, outbox: &mut Outbox, core: &Core) {
        if self.held_until.is_some_and(|until| until <= conn.now()) {
            self.release_part(conn, outbox);
        }
        let inside = self.message.is_some() || self.frame.is_some_and(|frame| frame.streaming);
        if let Some(push) = self.push.as_mut().filter(|push| push.due && !inside) {
            push.say(conn, outbox, core);
        }
    }
}

/// Sends the next `octets` of `frame` back as they are: the header with the full length first.
fn stream(frame: &mut Frame, opcode: Opcode, buf: &mut [u8], cursors: &mut Cursors, octets: usize) {
    if !frame.streaming {
        let header = ReplyHeader::new(frame.fin, opcode, frame.len);
        cursors.put_or_spill(buf, header.as_slice());
        frame.streaming = true;
    }
    cursors.keep_unmasked(buf, octets, frame.key);
    frame.took(octets);
}

#[path = "compressed.rs"]
mod compressed;
#[cfg(test)]
#[path = "compressed_tests.rs"]
mod compressed_tests;
#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
