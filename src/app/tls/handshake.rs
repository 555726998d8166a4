//! The handshake: whole records into rustls, what it says into a buffer, until it gives the keys away.

use core::fmt;
use std::sync::Arc;

use byway_tcp::app::Conn;
use byway_tcp::frame::Chunk;
use rustls::server::{ServerConfig, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{Error, HandshakeKind};

use super::record::{HANDSHAKE, HEADER, RECORD_MAX};
use super::session::Session;

/// Octets of handshake that a peer may have under way: its messages may span records, but a ClientHello has 2 KiB even
/// with a post-quantum key share, and one full record is room for four. P2
const INPUT_MAX: usize = RECORD_MAX + HEADER;

/// What gathering came to.
pub(super) enum Gathered {
    /// A whole record is there; whether it is one that signatures and key agreements may follow.
    Record { costly: bool },
    /// More octets are needed.
    More,
    /// This isn't TLS: an HTTP method's first letter.
    PlainHttp,
    /// More than [`INPUT_MAX`].
    TooMuch,
}

/// What feeding a record came to.
pub(super) enum Fed {
    /// The peer's turn.
    More,
    /// Done: the records to come are the session's.
    Done { session: Box<Session>, resumed: bool },
    /// It can't go on; an alert may have been put into the output.
    Failed,
}

/// A handshake under way.
pub(super) struct Handshake {
    /// `None` once it has given its keys away.
    tls: Option<UnbufferedServerConnection>,
    /// What rustls hasn't used up: whole records (parts of one message), and from `record` the one being gathered.
    /// It grows with what arrives, not with what a header promises.
    input: Vec<u8>,
    record: usize,
    /// The rest of the frame that brought the record's end.
    pub(super) rest: Option<Chunk>,
}

impl Handshake {
    /// Nothing has come yet.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let tls = Some(UnbufferedServerConnection::new(config)?);
        Ok(Self { tls, input: Vec::new(), record: 0, rest: None })
    }

    /// Takes octets until a whole record is there.
    pub(super) fn gather<C: Conn>(&mut self, conn: &mut C) -> Gathered {
        loop {
            let record = &self.input[self.record..];
            if let Some(b'A'..=b'Z') = record.first() {
                return Gathered::PlainHttp;
            }
            let missing = match record.first_chunk::<HEADER>() {
                None => HEADER - record.len(),
                Some(&[20..24, 3, _, high, low]) => {
                    HEADER + usize::from(u16::from_be_bytes([high, low])) - record.len()
                }
                // rustls knows what is wrong with it.
                Some(_) => 0,
            };
            if missing == 0 {
                return Gathered::Record { costly: record[0] == HANDSHAKE };
            }
            if self.input.len() + missing > INPUT_MAX {
                return Gathered::TooMuch;
            }
            let Some(mut chunk) = self.rest.take().or_else(|| conn.recv()) else { return Gathered::More };
            let taken = missing.min(chunk.len());
            self.input.extend_from_slice(&conn.bytes(&chunk)[..taken]);
            chunk.advance(taken);
            if chunk.is_empty() {
                conn.release(chunk);
            } else {
                self.rest = Some(chunk);
            }
        }
    }

    /// Whether the records so far end within a message.
    pub(super) fn is_within_message(&self) -> bool {
        self.record > 0
    }

    /// Gives the gathered record to rustls; what that has to say is appended to `output`.
    pub(super) fn feed(&mut self, output: &mut Vec<u8>) -> Fed {
        let Some(tls) = &mut self.tls else { return Fed::Failed };
        loop {
            let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut self.input);
            let after = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut data, output);
                    After::Again
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    After::Again
                }
                Ok(ConnectionState::BlockedHandshake) => After::More,
                Ok(ConnectionState::WriteTraffic(_)) => After::MayWrite,
                // Closed, or data before the handshake's end, which nobody was offered.
                Ok(_) => After::Failed,
                Err(_) => {
                    last_words(tls, output);
                    After::Failed
                }
            };
            self.input.drain(..discard.min(self.input.len()));
            match after {
                After::Again => {}
                After::MayWrite if !tls.is_handshaking() => return self.finish(),
                After::More | After::MayWrite => {
                    // What is left is part of a message; the next record goes behind it.
                    self.record = self.input.len();
                    return Fed::More;
                }
                After::Failed => return Fed::Failed,
            }
        }
    }

    fn finish(&mut self) -> Fed {
        let Some(tls) = self.tls.take() else { return Fed::Failed };
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        // Fed by whole records, rustls has used up all, unless a message began behind the handshake's last.
        if !self.input.is_empty() {
            return Fed::Failed;
        }
        let Ok((secrets, keys)) = tls.dangerous_into_kernel_connection() else { return Fed::Failed };
        match Session::new(&secrets, keys, &mut self.rest) {
            Some(session) => Fed::Done { session: Box::new(session), resumed },
            None => Fed::Failed,
        }
    }
}

/// What [`Handshake::feed`] does next.
enum After {
    Again,
    More,
    MayWrite,
    Failed,
}

fn append(data: &mut EncodeTlsData<'_, ServerConnectionData>, output: &mut Vec<u8>) {
    // It says how much room it wants when it gets none.
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        let at = output.len();
        output.resize(at + needed.required_size, 0);
        data.encode(&mut output[at..]).expect("as much room as it wanted");
    }
}

/// The alert that a failure has left behind.
fn last_words(tls: &mut UnbufferedServerConnection, output: &mut Vec<u8>) {
    while let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
        tls.process_tls_records(&mut [])
    {
        append(&mut data, output);
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("input", &self.input.len()).finish_non_exhaustive()
    }
}
