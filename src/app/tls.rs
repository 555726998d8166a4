//! TLS 1.2 and 1.3 between a connection and what it speaks: [`TlsConn`] is a [`Conn`] around a [`Conn`].
//!
//! ```text
//!   Conn ──→ handshake.rs: rustls ── keys ──→ session.rs ──→ TlsConn ──→ http, ws
//!                   └── alert, linger ←──────────┘ record.rs: opened and sealed in their frames
//! ```
//!
//! rustls does the handshake; HTTP and WebSocket can't tell. The application isn't called before the handshake is
//! over, nor after something was wrong with a record: an alert has been sent then, FIN behind it, and what still
//! comes is discarded until the peer closes, or for `Limits::linger`.
//!
//! A handshake holds the core for as long as its signature takes. A core works on a few in one turn of its loop
//! (`Server::per_turn`); the others wait for the next ones, in order, and nobody else for them.

mod config;
mod handshake;
mod record;
mod session;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use std::collections::VecDeque;

use byway_tcp::app::{Conn, ConnId, Keepalive, Metrics, Opener, Ready, Trouble};
use byway_tcp::counters::{Counters, Totals};
use byway_tcp::frame::Chunk;
use byway_tcp::time::{Duration, Instant};

use super::limits::Limits;
pub use config::Server;
use handshake::{Fed, Gathered, Handshake};
use session::{Buffers, Session, Trust};

/// Handshakes that wait for a turn on one core: as many as a slow key gets through in some seconds, less than
/// `Limits::handshake`. Beyond it the newest are reset.
const WAITING_MAX: usize = 4096;

/// What browsers and people get who leave the `s` out.
const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: use https or wss.\n";

/// What all TLS connections of a core share.
#[derive(Debug)]
pub(super) struct Core {
    server: Server,
    /// Handshake messages that this turn may still work on.
    left: u32,
    /// Who waits for a turn, each connection at most once.
    waiting: VecDeque<ConnId>,
    buffers: Buffers,
}

impl Core {
    pub(super) fn new(server: Server) -> Self {
        let left = server.per_turn;
        Self { server, left, waiting: VecDeque::new(), buffers: Buffers::default() }
    }

    /// Handshakes that begin from now on are made with `server`'s certificate.
    pub(super) fn renew(&mut self, server: Server) {
        self.server = server;
    }

    /// A turn of the loop: those that waited longest are woken.
    pub(super) fn turn<O: Opener>(&mut self, opener: &mut O) {
        self.left = self.server.per_turn;
        for _ in 0..self.left {
            let Some(id) = self.waiting.pop_front() else { return };
            opener.wake(id);
        }
    }

    /// When the next turn is wanted.
    pub(super) fn deadline(&self) -> Instant {
        if self.waiting.is_empty() { Instant::NEVER } else { Instant::ZERO }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Tls {
    phase: Phase,
    /// What the handshake has to say, and how much of it is sent.
    output: Vec<u8>,
    sent: usize,
    /// When patience ends: with the handshake, or with a peer that doesn't close. `None`: it is the application's.
    until: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// Just opened.
    New,
    Handshake {
        handshake: Box<Handshake>,
        /// It is in `Core::waiting`.
        waits: bool,
    },
    Open(Box<Session>),
    /// FIN follows what is said; what comes is discarded.
    Over,
}

impl Tls {
    pub(super) fn new() -> Self {
        Self { phase: Phase::New, output: Vec::new(), sent: 0, until: None }
    }

    /// Something changed. The connection as the application sees it, if it is to hear of that.
    pub(super) fn advance<'a, C: Conn>(
        &'a mut self,
        conn: &'a mut C,
        ready: &Ready,
        core: &'a mut Core,
        limits: &Limits,
    ) -> Option<TlsConn<'a, C>> {
        if self.until.is_some_and(|until| until <= conn.now()) {
            if !matches!(self.phase, Phase::Open(_) | Phase::Over) {
                conn.counters().tls_handshake_timeouts += 1;
            }
            conn.abort();
            return None;
        }
        if matches!(self.phase, Phase::New) {
            self.begin(conn, core, limits);
        }
        if matches!(self.phase, Phase::Handshake { .. }) && self.flush(conn) {
            self.shake_hands(conn, ready.woken, core, limits);
        }
        if !self.flush(conn) {
            return None;
        }
        match &mut self.phase {
            Phase::Open(session) => {
                session.say(conn);
                if let Trust::Broken { .. } = session.trust {
                    discard(conn);
                    return None;
                }
                Some(TlsConn { inner: conn, session, buffers: &mut core.buffers })
            }
            Phase::Over => {
                conn.shutdown();
                discard(conn);
                None
            }
            Phase::New | Phase::Handshake { .. } => None,
        }
    }

    fn begin<C: Conn>(&mut self, conn: &mut C, core: &Core, limits: &Limits) {
        match Handshake::new(core.server.config.clone()) {
            Ok(handshake) => {
                self.phase = Phase::Handshake { handshake: Box::new(handshake), waits: false };
                self.be_patient(conn, limits.handshake);
            }
            // No randomness to be had, say.
            Err(_) => conn.abort(),
        }
    }

    fn be_patient<C: Conn>(&mut self, conn: &mut C, time: Duration) {
        let until = conn.now() + time;
        self.until = Some(until);
        conn.set_timer(Some(until));
    }

    /// Goes on with the handshake as far as records have come and turns allow.
    fn shake_hands<C: Conn>(&mut self, conn: &mut C, woken: bool, core: &mut Core, limits: &Limits) {
        let Phase::Handshake { handshake, waits } = &mut self.phase else { return };
        if *waits && !woken {
            return;
        }
        *waits = false;
        loop {
            let costly = match handshake.gather(conn) {
                Gathered::Record { costly } => {
                    // Who waits already comes first.
                    if costly && (core.left == 0 || !woken && !core.waiting.is_empty()) {
                        if core.waiting.len() >= WAITING_MAX {
                            conn.counters().tls_handshakes_failed += 1;
                            return conn.abort();
                        }
                        *waits = true;
                        return core.waiting.push_back(conn.id());
                    }
                    costly
                }
                Gathered::More if conn.recv_finished() => break,
                Gathered::More => return,
                Gathered::TooMuch => break,
                Gathered::PlainHttp => {
                    self.output.extend_from_slice(USE_HTTPS);
                    break;
                }
            };
            let fed = handshake.feed(&mut self.output);
            // A part of a message is only kept.
            core.left -= u32::from(costly && !handshake.is_within_message());
            match fed {
                Fed::More => {}
                Fed::Done { session, resumed } => {
                    conn.counters().tls_handshakes += 1;
                    conn.counters().tls_handshakes_resumed += u64::from(resumed);
                    // The timer is the application's from here on.
                    (self.phase, self.until) = (Phase::Open(session), None);
                    return;
                }
                Fed::Failed => break,
            }
        }
        conn.counters().tls_handshakes_failed += 1;
        self.release_rest(conn);
        self.phase = Phase::Over;
        self.be_patient(conn, limits.linger);
    }

    /// Sends what the handshake says. `false`: some of it still waits, for room or memory.
    fn flush<C: Conn>(&mut self, conn: &mut C) -> bool {
        while self.sent < self.output.len() {
            if conn.send_room() == 0 {
                return false;
            }
            let Some(mut chunk) = conn.alloc() else { return false };
            let left = &self.output[self.sent..];
            let octets = left.len().min(conn.mss()).min(conn.tailroom(&chunk));
            conn.append(&mut chunk, &left[..octets]);
            self.sent += octets;
            if let Err(refused) = conn.send(chunk) {
                // Our side is closed; `closed` follows.
                conn.release(refused);
            }
        }
        (self.output, self.sent) = (Vec::new(), 0);
        true
    }

    /// After the application was called: if something was wrong with a record, the peer has a while to close.
    pub(super) fn settle<C: Conn>(&mut self, conn: &mut C, limits: &Limits) {
        if let Phase::Open(session) = &self.phase
            && let Trust::Broken { .. } = session.trust
            && self.until.is_none()
        {
            self.be_patient(conn, limits.linger);
        }
    }

    /// The program is about to end: the connection for the application, if it has begun anything.
    pub(super) fn drain<'a, C: Conn>(
        &'a mut self,
        conn: &'a mut C,
        core: &'a mut Core,
        limits: &Limits,
    ) -> Option<TlsConn<'a, C>> {
        if !matches!(self.phase, Phase::Open(_)) {
            self.release_rest(conn);
            self.phase = Phase::Over;
            self.be_patient(conn, limits.linger);
        }
        self.advance(conn, &Ready::default(), core, limits)
    }

    /// The connection is over: gives every chunk back.
    pub(super) fn closed<C: Conn>(&mut self, conn: &mut C, core: &mut Core) {
        self.release_rest(conn);
        if let Phase::Open(session) = &mut self.phase {
            session.release(conn, &mut core.buffers);
        }
    }

    fn release_rest<C: Conn>(&mut self, conn: &mut C) {
        if let Phase::Handshake { handshake, .. } = &mut self.phase
            && let Some(rest) = handshake.rest.take()
        {
            conn.release(rest);
        }
    }
}

fn discard<C: Conn>(conn: &mut C) {
    while let Some(chunk) = conn.recv() {
        conn.release(chunk);
    }
}

/// A connection over TLS: what `recv` gives is decrypted, what `send` takes is encrypted, a record for each chunk.
///
/// A record is made to fit a segment (`mss` is smaller by 22 or 29 octets): the peer can use each as it comes. Urgent
/// marks (RFC 6093) would point into ciphertext: there are none.
pub(super) struct TlsConn<'a, C> {
    inner: &'a mut C,
    session: &'a mut Session,
    buffers: &'a mut Buffers,
}

impl<C: Conn> Conn for TlsConn<'_, C> {
    fn id(&self) -> ConnId {
        self.inner.id()
    }

    fn local(&self) -> SocketAddr {
        self.inner.local()
    }

    fn peer(&self) -> SocketAddr {
        self.inner.peer()
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn mss(&self) -> usize {
        self.session.mss(self.inner)
    }

    fn trouble(&self) -> Option<Trouble> {
        self.inner.trouble()
    }

    fn recv(&mut self) -> Option<Chunk> {
        self.session.recv(self.inner, self.buffers)
    }

    fn recv_finished(&self) -> bool {
        self.session.recv_finished(self.inner)
    }

    fn urgent(&self) -> Option<u32> {
        None
    }

    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        self.inner.bytes(chunk)
    }

    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        self.inner.bytes_mut(chunk)
    }

    fn alloc(&mut self) -> Option<Chunk> {
        self.session.alloc(self.inner)
    }

    fn tailroom(&self, chunk: &Chunk) -> usize {
        self.session.tailroom(self.inner, chunk)
    }

    fn grow_back(&self, chunk: &mut Chunk, octets: usize) {
        self.inner.grow_back(chunk, octets);
    }

    fn append(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.inner.append(chunk, octets);
    }

    fn prepend(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.inner.prepend(chunk, octets);
    }

    fn split_off(&mut self, chunk: &mut Chunk, at: usize) -> Option<Chunk> {
        self.inner.split_off(chunk, at)
    }

    fn release(&mut self, chunk: Chunk) {
        self.inner.release(chunk);
    }

    fn note_copied(&mut self, octets: usize) {
        self.inner.note_copied(octets);
    }

    fn send_room(&self) -> usize {
        self.session.send_room(self.inner)
    }

    fn send(&mut self, chunk: Chunk) -> Result<(), Chunk> {
        self.session.send(self.inner, chunk)
    }

    fn send_urgent(&mut self) {}

    fn send_drained(&self) -> bool {
        self.session.send_drained(self.inner)
    }

    fn shutdown(&mut self) {
        self.session.shutdown(self.inner);
    }

    fn abort(&mut self) {
        self.inner.abort();
    }

    fn set_timer(&mut self, at: Option<Instant>) {
        self.inner.set_timer(at);
    }

    fn set_user_timeout(&mut self, limit: Option<Duration>) {
        self.inner.set_user_timeout(limit);
    }

    fn set_keepalive(&mut self, keepalive: Option<Keepalive>) {
        self.inner.set_keepalive(keepalive);
    }

    fn set_linger(&mut self, linger: Option<Duration>) {
        self.inner.set_linger(linger);
    }

    fn set_dscp(&mut self, dscp: u8) {
        self.inner.set_dscp(dscp);
    }

    fn set_nodelay(&mut self, on: bool) {
        self.inner.set_nodelay(on);
    }

    fn counters(&mut self) -> &mut Counters {
        self.inner.counters()
    }

    fn metrics(&self) -> Option<Metrics> {
        self.inner.metrics()
    }

    fn totals(&self) -> Totals {
        self.inner.totals()
    }
}
