//! A connection whose handshake is over: records into plain chunks and back.
//!
//! ```text
//!   frame with whole records ── opened in place, closed up ───────────────→ one plain chunk, the same frame
//!   frame with part of one ──→ buffer ── opened in place ── copied ───────→ plain chunks in fresh frames
//!
//!   plain chunk ── header and tag around it, sealed in place ─────────────→ one record, the same frame
//! ```
//!
//! A record that lies in one frame, as a small request's does, is copied nowhere. One that spans frames has to become
//! contiguous for the AEAD, which checks all of it before any of it may be believed. `BywayTlsBytesCopied` counts
//! what that moves.

use core::fmt;
use core::ops::Range;

use byway_tcp::app::Conn;
use byway_tcp::frame::Chunk;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ExtractedSecrets, ProtocolVersion};

use super::record::{ALERT, DATA, HANDSHAKE, HEADER, Keys, RECORD_MAX, body_len};

/// Octets kept free in front of a plain chunk for the longest header (AES-GCM in TLS 1.2), and behind it for tag and
/// type.
const FRONT_MAX: usize = 13;
/// Key updates, and other records without payload, in a row: each costs us something and the peer little. As rustls
/// has it.
const IDLE_RECORDS_MAX: u8 = 32;
/// Records before a key's limit at which it is changed: what a callback may send beyond its room.
const SEAL_MARGIN: u64 = 64;
/// A KeyUpdate that asks for none in return (RFC 8446 §4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// Alert levels (RFC 8446 §6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Buffers for records that span frames, shared by a core's connections.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

/// Buffers kept although nobody needs them: 1 MiB.
const BUFFERS_MAX: usize = 64;

impl Buffers {
    fn take(&mut self) -> Vec<u8> {
        // Without one it grows with what arrives: a header alone mustn't pin down 16 KiB.
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < BUFFERS_MAX && buffer.capacity() > 0 {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// How far the conversation has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trust {
    /// Records come.
    Open,
    /// The peer has sent close_notify: all it had to say is known.
    Closed,
    /// Something was wrong, or the peer says so: nothing more is believed.
    Broken { by_peer: bool },
}

/// One connection's keys and what is between records and chunks.
pub(super) struct Session {
    receiving: Keys,
    sending: Keys,
    /// Makes new keys of the old (TLS 1.3).
    keys: KernelConnection<ServerConnectionData>,
    tls13: bool,
    /// Records that one key may seal.
    seal_max: u64,
    /// A record being gathered; and once it is whole, what it held.
    buffer: Vec<u8>,
    /// Payload in `buffer` that nobody has taken yet.
    plain: Range<usize>,
    /// The rest of the frame that brought the buffered record's end.
    input: Option<Chunk>,
    pub(super) trust: Trust,
    /// Alert that is still to be sent, FIN behind it.
    last_word: Option<[u8; 2]>,
    /// Our keys are to change before the next record.
    owes_update: bool,
    idle_records: u8,
    /// Our side is closed.
    shut: bool,
    /// The peer's FIN without a close_notify has been counted.
    truncated: bool,
}

impl Session {
    /// Begins with `rest`, what came behind the handshake.
    pub(super) fn new(
        secrets: &ExtractedSecrets,
        keys: KernelConnection<ServerConnectionData>,
        rest: &mut Option<Chunk>,
    ) -> Option<Self> {
        let tls13 = keys.protocol_version() == ProtocolVersion::TLSv1_3;
        let suite = keys.negotiated_cipher_suite();
        let seal_max = match (suite.tls13(), suite) {
            (Some(suite), _) => suite.common.confidentiality_limit,
            (None, rustls::SupportedCipherSuite::Tls12(suite)) => suite.common.confidentiality_limit,
            (None, _) => return None,
        };
        Some(Self {
            receiving: Keys::new(tls13, secrets.rx.0, &secrets.rx.1)?,
            sending: Keys::new(tls13, secrets.tx.0, &secrets.tx.1)?,
            keys,
            tls13,
            seal_max,
            buffer: Vec::new(),
            plain: 0..0,
            input: rest.take(),
            trust: Trust::Open,
            last_word: None,
            owes_update: false,
            idle_records: 0,
            shut: false,
            truncated: false,
        })
    }

    // --- receiving ------------------------------------------------------------------------------

    /// The next octets that the peer has encrypted.
    pub(super) fn recv<C: Conn>(&mut self, conn: &mut C, buffers: &mut Buffers) -> Option<Chunk> {
        loop {
            if !self.plain.is_empty() {
                return self.hand_out(conn, buffers);
            }
            let Some(chunk) = self.input.take().or_else(|| conn.recv()) else {
                self.note_end(conn);
                return None;
            };
            if self.trust != Trust::Open {
                // Nothing comes after close_notify that counts (RFC 8446 §6.1).
                conn.release(chunk);
            } else if self.buffer.is_empty() {
                if let Some(plain) = self.open_in_frame(conn, chunk, buffers) {
                    return Some(plain);
                }
            } else {
                self.gather(conn, chunk, buffers);
            }
        }
    }

    /// Counts a FIN without a close_notify before it, unless we have closed first: then nobody waits for one.
    fn note_end<C: Conn>(&mut self, conn: &mut C) {
        if self.trust == Trust::Open && !self.shut && !self.truncated && conn.recv_finished() {
            self.truncated = true;
            conn.counters().tls_truncated += 1;
        }
    }

    /// All that the peer had to say has been taken. A FIN without a close_notify is an end, too: HTTP and WebSocket
    /// say themselves where a message ends (RFC 9112 §9.8), and one that was cut off isn't answered.
    pub(super) fn recv_finished<C: Conn>(&self, conn: &C) -> bool {
        self.plain.is_empty() && (self.trust != Trust::Open || self.input.is_none() && conn.recv_finished())
    }

    /// Opens the records that lie whole in a frame, and closes their payloads up; what is left begins a buffer.
    fn open_in_frame<C: Conn>(
        &mut self,
        conn: &mut C,
        mut chunk: Chunk,
        buffers: &mut Buffers,
    ) -> Option<Chunk> {
        let octets = conn.bytes_mut(&mut chunk);
        let (mut plain, mut copied, mut at) = (0..0, 0, 0);
        while let Some(header) = octets[at..].first_chunk::<HEADER>() {
            let len = match body_len(*header) {
                Ok(len) => HEADER + len,
                Err(alert) => {
                    self.fail(alert);
                    break;
                }
            };
            let Some(record) = octets.get_mut(at..at + len) else { break };
            let inside = self.open(record);
            if !inside.is_empty() {
                let inside = at + inside.start..at + inside.end;
                if plain.is_empty() {
                    plain = inside;
                } else {
                    octets.copy_within(inside.clone(), plain.end);
                    plain.end += inside.len();
                    copied += inside.len();
                }
            }
            at += len;
            if self.trust != Trust::Open {
                break;
            }
        }
        if self.trust == Trust::Open && at < octets.len() {
            self.buffer = buffers.take();
            self.buffer.extend_from_slice(&octets[at..]);
            copied += octets.len() - at;
        }
        conn.counters().tls_bytes_copied += copied as u64;
        self.heed(conn);
        if plain.is_empty() {
            conn.release(chunk);
            return None;
        }
        chunk.truncate(plain.end);
        chunk.advance(plain.start);
        Some(chunk)
    }

    /// Adds to the buffered record what it lacks, and opens it once it is whole.
    fn gather<C: Conn>(&mut self, conn: &mut C, mut chunk: Chunk, buffers: &mut Buffers) {
        while !chunk.is_empty() && self.trust == Trust::Open {
            let missing = match self.buffer.first_chunk::<HEADER>() {
                None => HEADER - self.buffer.len(),
                Some(header) => match body_len(*header) {
                    Ok(len) => HEADER + len - self.buffer.len(),
                    Err(alert) => {
                        self.fail(alert);
                        break;
                    }
                },
            };
            let taken = missing.min(chunk.len());
            self.buffer.extend_from_slice(&conn.bytes(&chunk)[..taken]);
            chunk.advance(taken);
            conn.counters().tls_bytes_copied += taken as u64;
            if taken == missing && self.is_whole() {
                let mut record = core::mem::take(&mut self.buffer);
                self.plain = self.open(&mut record);
                if self.plain.is_empty() {
                    buffers.give(record);
                } else {
                    self.buffer = record;
                }
                break;
            }
        }
        self.heed(conn);
        if chunk.is_empty() || self.trust != Trust::Open {
            conn.release(chunk);
        } else {
            self.input = Some(chunk);
        }
    }

    fn is_whole(&self) -> bool {
        debug_assert!(self.buffer.len() <= RECORD_MAX, "a record of {} octets", self.buffer.len());
        self.buffer.first_chunk::<HEADER>().is_some_and(|&[.., high, low]| {
            self.buffer.len() == HEADER + usize::from(u16::from_be_bytes([high, low]))
        })
    }

    /// Some of the buffered payload, in a frame. `None`: no frame is free, and `writable` comes when there is one.
    fn hand_out<C: Conn>(&mut self, conn: &mut C, buffers: &mut Buffers) -> Option<Chunk> {
        let mut chunk = self.alloc(conn)?;
        let most = self.mss(conn).min(self.tailroom(conn, &chunk));
        let end = self.plain.end.min(self.plain.start + most);
        conn.append(&mut chunk, &self.buffer[self.plain.start..end]);
        conn.counters().tls_bytes_copied += (end - self.plain.start) as u64;
        self.plain.start = end;
        if self.plain.is_empty() {
            buffers.give(core::mem::take(&mut self.buffer));
        }
        Some(chunk)
    }

    /// Opens a record in place and sees to what isn't payload. Where the payload lies in it.
    fn open(&mut self, record: &mut [u8]) -> Range<usize> {
        let (kind, inside) = match self.receiving.open(record) {
            Ok(opened) => opened,
            Err(alert) => {
                self.fail(alert);
                return 0..0;
            }
        };
        if kind == DATA && !inside.is_empty() {
            self.idle_records = 0;
            return inside;
        }
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            self.fail(AlertDescription::UnexpectedMessage);
            return 0..0;
        }
        let message = &record[inside];
        match (kind, message) {
            (DATA, _) => {}
            (ALERT, &[_, description]) => self.hear(AlertDescription::from(description)),
            (ALERT, _) => self.fail(AlertDescription::DecodeError),
            (HANDSHAKE, &[24, 0, 0, 1, asked @ (0 | 1)]) if self.tls13 => self.follow_update(asked == 1),
            // Another handshake (RFC 5246 §7.4.1.1), or what TLS 1.3 has only between others.
            _ => self.fail(AlertDescription::UnexpectedMessage),
        }
        0..0
    }

    fn hear(&mut self, alert: AlertDescription) {
        match alert {
            AlertDescription::CloseNotify => self.trust = Trust::Closed,
            // Says nothing (RFC 8446 §6.1).
            AlertDescription::UserCanceled => {}
            // What TLS 1.2 calls a warning means the same: the peer doesn't go on as we do.
            _ => self.trust = Trust::Broken { by_peer: true },
        }
    }

    /// The peer has changed its keys (RFC 8446 §4.6.3).
    fn follow_update(&mut self, asked: bool) {
        let keys = self.keys.update_rx_secret().ok();
        match keys.and_then(|(sequence, secrets)| Keys::new(true, sequence, &secrets)) {
            Some(keys) => self.receiving = keys,
            None => self.fail(AlertDescription::InternalError),
        }
        // One answer is enough for any number of requests.
        self.owes_update |= asked && !self.shut;
    }

    fn fail(&mut self, alert: AlertDescription) {
        self.trust = Trust::Broken { by_peer: false };
        if !self.shut {
            self.last_word = Some([FATAL, alert.into()]);
        }
    }

    /// Does what the records just opened ask for.
    fn heed<C: Conn>(&mut self, conn: &mut C) {
        match self.trust {
            Trust::Open | Trust::Closed => {
                if self.owes_update {
                    self.say(conn);
                }
                return;
            }
            Trust::Broken { by_peer: true } => conn.counters().tls_alerts_in += 1,
            Trust::Broken { by_peer: false } => conn.counters().tls_broken += 1,
        }
        (self.shut, self.owes_update) = (true, false);
        if self.last_word.is_none() {
            conn.shutdown();
        }
        self.say(conn);
    }

    // --- sending --------------------------------------------------------------------------------

    /// Payload octets of one record in one segment.
    pub(super) fn mss<C: Conn>(&self, conn: &C) -> usize {
        conn.mss().saturating_sub(self.sending.front() + self.sending.behind()).max(1)
    }

    /// An empty chunk with room for a header in front.
    pub(super) fn alloc<C: Conn>(&self, conn: &mut C) -> Option<Chunk> {
        let mut chunk = conn.alloc()?;
        conn.grow_back(&mut chunk, FRONT_MAX);
        chunk.advance(FRONT_MAX);
        Some(chunk)
    }

    /// Octets by which a chunk can grow and still be sealed.
    pub(super) fn tailroom<C: Conn>(&self, conn: &C, chunk: &Chunk) -> usize {
        conn.tailroom(chunk).saturating_sub(self.sending.behind())
    }

    /// As the connection has it, unless something of our own must go first.
    pub(super) fn send_room<C: Conn>(&self, conn: &C) -> usize {
        if self.shut || self.owes_update { 0 } else { conn.send_room() }
    }

    /// Encrypts a chunk and sends it; see [`Conn::send`].
    pub(super) fn send<C: Conn>(&mut self, conn: &mut C, mut chunk: Chunk) -> Result<(), Chunk> {
        let most = self.mss(conn);
        while !self.shut && chunk.len() > most {
            let Some(rest) = conn.split_off(&mut chunk, most) else { return Err(chunk) };
            self.send_record(conn, DATA, core::mem::replace(&mut chunk, rest))?;
        }
        self.send_record(conn, DATA, chunk)
    }

    fn send_record<C: Conn>(&mut self, conn: &mut C, kind: u8, mut chunk: Chunk) -> Result<(), Chunk> {
        if self.shut && kind == DATA {
            return Err(chunk);
        }
        if chunk.is_empty() {
            conn.release(chunk);
            return Ok(());
        }
        self.make_room(conn, &mut chunk);
        let (front, behind) = (self.sending.front(), self.sending.behind());
        chunk.grow_front(front);
        conn.grow_back(&mut chunk, behind);
        self.sending.seal(kind, conn.bytes_mut(&mut chunk));
        if let Err(refused) = conn.send(chunk) {
            // The peer would miss a record: nothing after it could be opened. The connection is over, or an
            // application went far beyond its room.
            self.shut = true;
            conn.abort();
            return Err(refused);
        }
        if kind == DATA && self.sending.sequence() + SEAL_MARGIN >= self.seal_max {
            self.change_keys(conn);
        }
        Ok(())
    }

    /// Moves a payload within its frame if there is no room around it: an application has used the room up in front,
    /// or cut a frame. A frame has room for `mss` octets and headers, wherever they lie.
    fn make_room<C: Conn>(&self, conn: &mut C, chunk: &mut Chunk) {
        let (front, behind) = (self.sending.front(), self.sending.behind());
        let len = chunk.len();
        if let Some(right) = front.checked_sub(chunk.headroom()).filter(|&right| right > 0) {
            conn.grow_back(chunk, right);
            conn.bytes_mut(chunk).copy_within(..len, right);
            chunk.advance(right);
            conn.counters().tls_bytes_copied += len as u64;
        } else if let Some(left) = behind.checked_sub(conn.tailroom(chunk)).filter(|&left| left > 0) {
            chunk.grow_front(left);
            conn.bytes_mut(chunk).copy_within(left.., 0);
            chunk.truncate(len);
            conn.counters().tls_bytes_copied += len as u64;
        }
    }

    /// These keys have sealed all they may (RFC 8446 §5.5): new ones, or the end in TLS 1.2, which has none.
    fn change_keys<C: Conn>(&mut self, conn: &mut C) {
        if self.tls13 {
            self.owes_update = true;
            self.say(conn);
        }
        if !self.tls13 || self.owes_update && self.sending.sequence() + 2 >= self.seal_max {
            // For want of room for the update: a key is never used beyond its limit.
            self.shutdown(conn);
        }
    }

    /// Sends what is owed, as far as there are room and frames (if not, `writable` comes): an update of our keys, then
    /// the last word and FIN.
    pub(super) fn say<C: Conn>(&mut self, conn: &mut C) {
        if self.owes_update && self.say_one(conn, HANDSHAKE, &KEY_UPDATE) {
            self.owes_update = false;
            let keys = self.keys.update_tx_secret().ok();
            match keys.and_then(|(sequence, secrets)| Keys::new(true, sequence, &secrets)) {
                Some(keys) => self.sending = keys,
                None => conn.abort(),
            }
        }
        if let Some(alert) = self.last_word
            && self.say_one(conn, ALERT, &alert)
        {
            self.last_word = None;
            conn.shutdown();
        }
    }

    fn say_one<C: Conn>(&mut self, conn: &mut C, kind: u8, octets: &[u8]) -> bool {
        if conn.send_room() == 0 {
            return false;
        }
        let Some(mut chunk) = self.alloc(conn) else { return false };
        conn.append(&mut chunk, octets);
        if let Err(refused) = self.send_record(conn, kind, chunk) {
            conn.release(refused);
        }
        true
    }

    /// Whether everything has been sent and acknowledged.
    pub(super) fn send_drained<C: Conn>(&self, conn: &C) -> bool {
        self.last_word.is_none() && !self.owes_update && conn.send_drained()
    }

    /// close_notify, and FIN behind it.
    pub(super) fn shutdown<C: Conn>(&mut self, conn: &mut C) {
        if !self.shut {
            self.shut = true;
            self.owes_update = false;
            self.last_word = Some([WARNING, AlertDescription::CloseNotify.into()]);
            self.say(conn);
        }
    }

    /// Gives back what is held.
    pub(super) fn release<C: Conn>(&mut self, conn: &mut C, buffers: &mut Buffers) {
        if let Some(input) = self.input.take() {
            conn.release(input);
        }
        self.plain = 0..0;
        buffers.give(core::mem::take(&mut self.buffer));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("trust", &self.trust)
            .field("shut", &self.shut)
            .finish_non_exhaustive()
    }
}
