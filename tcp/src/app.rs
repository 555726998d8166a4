//! What an application sees of a connection.
//!
//! The stack calls an [`App`] once per connection and batch, with a [`Conn`] to act on:
//!
//! ```text
//! opened ─→ ready* ─→ closed        ready: new bytes, the peer's FIN, room to send again, the timer
//! turn, once in each turn of the loop: what an application begins by itself (see [`Opener`])
//! ```
//!
//! Callbacks run on the connection's core and must not block. Payload never moves: [`Conn::recv`]
//! gives the frame that the NIC wrote, [`Conn::send`] takes a frame over until it is acknowledged.
//!
//! Back-pressure: an application that can't send (`send_room() == 0`) stops calling `recv`; the
//! receive window closes, and `ready` comes with `writable` once there is room again.

use core::any::Any;
use core::net::{IpAddr, SocketAddr};

use crate::counters::{Counters, Totals};
use crate::frame::Chunk;
use crate::stack::ConnectError;
use crate::time::{Duration, Instant};

/// Names a connection of one stack. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnId {
    /// Slot, `< max_connections`; re-used after the connection is gone.
    pub index: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

/// Why `ready` was called. Several can hold at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// `recv` has something, or the peer's FIN arrived (`recv_finished`).
    pub readable: bool,
    /// `send_room` was used up and has grown again.
    pub writable: bool,
    /// The timer of [`Conn::set_timer`] went off.
    pub timer: bool,
    /// The peer calls octets urgent, or more of them than before: see [`Conn::urgent`] (RFC 9293 §3.8.5, MUST-32).
    pub urgent: bool,
    /// The peer may be out of reach: see [`Conn::trouble`]. Who doesn't care needn't look (RFC 9293 §3.9.1.8, MUST-47,
    /// SHLD-20).
    pub trouble: bool,
    /// [`Opener::wake`] asked for it.
    pub woken: bool,
}

/// What may be wrong with a connection that goes on all the same: soft errors (RFC 9293 §3.9.1.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// A router, or the peer's host, has said that our packets don't get there (§3.9.2.2, SHLD-25).
    Unreachable,
    /// The same segment was sent again three times (§3.8.3: R1, SHLD-9, SHLD-10).
    Unanswered,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// Both sides closed in order.
    Finished,
    /// The peer reset it; for an active open, "connection refused" (S1.5).
    Reset,
    /// The peer stopped answering: retransmission limit, keepalive or user timeout (S3.2).
    TimedOut,
    /// Our packets don't get there, a router or the peer's host says: nobody listens, or somebody forbids it;
    /// or the peer stopped answering, and such a word was the last that was heard (RFC 9293 §3.9.2.2, SHLD-25).
    Unreachable,
    /// `Conn::abort` was called, or the stack is shutting down.
    Aborted,
}

/// When a silent peer is asked whether it is still there (RFC 9293 §3.8.4); see [`Conn::set_keepalive`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Silence before the first probe (Linux: TCP_KEEPIDLE).
    pub idle: Duration,
    /// Time between probes (TCP_KEEPINTVL).
    pub interval: Duration,
    /// Probes in a row without an answer that end the connection (TCP_KEEPCNT).
    pub probes: u8,
}

impl Default for Keepalive {
    /// RFC 9293 §3.8.4 (MUST-28): two hours at least; then Linux's tcp_keepalive_intvl and tcp_keepalive_probes: eleven
    /// minutes of silence.
    fn default() -> Self {
        Self { idle: Duration::from_secs(7200), interval: Duration::from_secs(75), probes: 9 }
    }
}

/// How a connection's sending side stands: [`Conn::metrics`]. Octets, without headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Congestion window (RFC 5681 §2).
    pub cwnd: u32,
    /// Slow-start threshold; `None` as long as nothing has set one, or where the algorithm has none.
    pub ssthresh: Option<u32>,
    /// Sent, and as far as is known neither arrived nor lost (RFC 6675: pipe).
    pub in_flight: u32,
    /// Smoothed round-trip time (RFC 6298), once measured.
    pub srtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// A full segment.
    pub mss: u32,
    /// Segments sent again, ever.
    pub retransmits: u32,
}

/// An application: one value per core, all its connections.
pub trait App {
    /// The handshake is complete, passive or active.
    fn opened<C: Conn>(&mut self, conn: &mut C);
    /// Something changed; see [`Ready`]. At most once per connection and batch.
    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready);
    /// The connection is over: release every chunk kept for it. Called exactly once for each
    /// connection that was `opened`, and for an active open that failed. `send` fails from here on.
    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed);
    /// The program is about to end: finish what is under way, start nothing new. Closing at once is the default.
    fn draining<C: Conn>(&mut self, conn: &mut C) {
        conn.shutdown();
    }
    /// Once in each turn of the loop, before the connections that have news are served, and not any more once
    /// the stack drains: a client opens its connections here, and wakes those on which it wants to begin something.
    fn turn<O: Opener>(&mut self, _opener: &mut O) {}
    /// What the program tells its applications while they run, between two turns: an application looks whether it is of
    /// a type it knows. Every core's has the same one.
    fn told(&mut self, _message: &(dyn Any + Send + Sync)) {}
    /// When [`turn`](Self::turn) is wanted at the latest, whether or not frames arrive. A time that has passed keeps
    /// the loop from sleeping: an application that can do nothing until a frame arrives says [`Instant::NEVER`].
    fn deadline(&self) -> Instant {
        Instant::NEVER
    }
}

/// What an application may begin by itself, for the duration of [`App::turn`].
pub trait Opener {
    /// The time of this turn.
    fn now(&self) -> Instant;
    /// Opens a connection actively (S1.1); `opened` or `closed` follows, with this name.
    ///
    /// # Errors
    /// See [`ConnectError`].
    fn connect(&mut self, remote: SocketAddr) -> Result<ConnId, ConnectError>;
    /// The same from one of our own addresses (RFC 9293 §3.9.1.1, MUST-43).
    ///
    /// # Errors
    /// See [`ConnectError`].
    fn connect_from(&mut self, local: IpAddr, remote: SocketAddr) -> Result<ConnId, ConnectError>;
    /// Calls `ready` with `woken` for a connection that is open, in this turn. Without effect on others.
    fn wake(&mut self, id: ConnId);
    /// Gives up a connection, open or not yet: `closed` follows, with [`Closed::Aborted`]. Without effect on one that
    /// is gone.
    fn abort(&mut self, id: ConnId);
}

/// A connection, for the duration of a callback.
pub trait Conn {
    /// Its name.
    fn id(&self) -> ConnId;
    /// Our address and port.
    fn local(&self) -> SocketAddr;
    /// The peer's address and port.
    fn peer(&self) -> SocketAddr;
    /// The time of this batch.
    fn now(&self) -> Instant;
    /// Payload octets that fit into one segment to this peer.
    fn mss(&self) -> usize;

    /// What is wrong, as long as the peer has acknowledged nothing since.
    fn trouble(&self) -> Option<Trouble>;

    /// The next received octets in order, in the frame they arrived in; this opens the window.
    /// `None`: nothing there (yet). The caller owns the chunk.
    fn recv(&mut self) -> Option<Chunk>;
    /// The peer has sent FIN and everything before it has been taken by `recv`.
    fn recv_finished(&self) -> bool;

    /// How many of the octets that `recv` gives next, arrived or not, the peer calls urgent (RFC 9293 §3.8.5, MUST-33).
    /// They stay in line (RFC 6093 §3.2): nothing is read out of order.
    fn urgent(&self) -> Option<u32>;

    /// The payload.
    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8];
    /// The payload, to be changed in place.
    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8];
    /// An empty chunk with room for at least `mss` octets. `None` under memory pressure: stop, and
    /// go on when `ready` says `writable`.
    fn alloc(&mut self) -> Option<Chunk>;
    /// Octets by which the chunk can grow at its end.
    fn tailroom(&self, chunk: &Chunk) -> usize;
    /// Lengthens the payload by `octets` stale octets, to be written. Panics past `tailroom`.
    fn grow_back(&self, chunk: &mut Chunk, octets: usize);
    /// Appends octets that the application makes. Panics past `tailroom`.
    fn append(&mut self, chunk: &mut Chunk, octets: &[u8]);
    /// Puts octets that the application makes in front. Panics past `chunk.headroom()`.
    fn prepend(&mut self, chunk: &mut Chunk, octets: &[u8]);
    /// Cuts the chunk after `at` octets; the shorter part is copied and counted. `None` under memory
    /// pressure, with the chunk unchanged: go on when `ready` says `writable`.
    fn split_off(&mut self, chunk: &mut Chunk, at: usize) -> Option<Chunk>;
    /// Counts octets of payload that the application itself has moved, through a codec, say: `BywayPayloadBytesCopied`
    /// holds them as well.
    fn note_copied(&mut self, octets: usize);
    /// Gives a chunk back.
    fn release(&mut self, chunk: Chunk);

    /// How many more chunks `send` is ready to take. It takes more than that only as far as memory
    /// allows: a callback should not start a message it has no room for.
    fn send_room(&self) -> usize;
    /// Queues a chunk; its frame is the stack's until acknowledged. A chunk longer than `mss` is
    /// cut (and the tail copied and counted). An empty chunk is released.
    ///
    /// # Errors
    /// The chunk comes back when the sending side is closed, or the connection has no room at all.
    fn send(&mut self, chunk: Chunk) -> Result<(), Chunk>;
    /// Calls everything urgent that was queued up to here (RFC 9293 §3.8.5, MUST-30). New protocols shouldn't
    /// (RFC 6093 §5): what a peer or a middlebox makes of it differs.
    fn send_urgent(&mut self);
    /// Whether everything sent has been acknowledged by the peer.
    fn send_drained(&self) -> bool;
    /// Closes the sending side: FIN follows what is queued (S2.2). Idempotent.
    fn shutdown(&mut self);
    /// Resets the connection now; `closed` follows with [`Closed::Aborted`]. Idempotent.
    fn abort(&mut self);

    /// Calls `ready` with `timer` at or after `at`; `None` stops it. One timer per connection.
    fn set_timer(&mut self, at: Option<Instant>);
    /// How long data may wait to be acknowledged, or for the peer's window to open, before the connection ends with
    /// [`Closed::TimedOut`]; `None` goes back to `Config::user_timeout`. As Linux's TCP_USER_TIMEOUT a limit set here
    /// also ends a connection whose peer answers every probe with a closed window (RFC 5482; by default such a
    /// connection stays, RFC 9293 MUST-37), and stands in for the number of keepalive probes. Milliseconds. S3.2, T3
    fn set_user_timeout(&mut self, limit: Option<Duration>);
    /// When a silent peer is probed; `None` switches keepalive off. `Config::keepalive` is what it starts with.
    /// Milliseconds. S3.2
    fn set_keepalive(&mut self, keepalive: Option<Keepalive>);
    /// What [`shutdown`](Self::shutdown) does about octets that the peer hasn't acknowledged. `None`, the default: sends
    /// them and FIN for as long as it takes. Zero: resets at once, as SO_LINGER with zero; queued octets are lost and
    /// nothing waits in TIME-WAIT. Otherwise the connection is reset, with [`Closed::TimedOut`], if the peer hasn't
    /// acknowledged everything, FIN included, in that time. There SO_LINGER only makes `close` wait, and the
    /// kernel goes on alone; here nobody waits, and the time is the connection's. Milliseconds.
    fn set_linger(&mut self, linger: Option<Duration>);
    /// Differentiated services code point of this connection's segments from now on, six bits, 0 at first (RFC 9293
    /// §3.9.1.9, MUST-48, SHLD-21). Routers may put other segments first or behind: once, at the beginning, is enough.
    fn set_dscp(&mut self, dscp: u8);
    /// Sends small segments at once (true) or as Nagle says (false, the default) (S8.1).
    fn set_nodelay(&mut self, on: bool);

    /// What this core has counted; an application's own events are counted here, too.
    fn counters(&mut self) -> &mut Counters;
    /// How the sending side of this connection stands, now. `None` where nobody knows. For a look now and then, not for
    /// every segment: where the kernel does TCP, this asks it.
    fn metrics(&self) -> Option<Metrics>;
    /// What the stacks of all cores have counted and hold: this core's as of now, the others' as last told.
    fn totals(&self) -> Totals;
}
