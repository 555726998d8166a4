//! A connection's socket, what epoll has told of it, and what waits to be sent.
//!
//! ```text
//!   epoll: IN ──→ readable ──recv finds less than it had room for──→ not readable, until epoll says so again
//!   epoll: OUT ─→ writable ──send takes less than all─────────────→ not writable, until epoll says so again
//!
//!   shutdown ─→ shut ── queue empty ──→ fin_sent ─┐
//!   recv = 0 ─→ finished ─────────────────────────┴─ both ──→ over: Finished
//! ```

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use byway_tcp::app::Closed;
use byway_tcp::frame::{Chunk, FramePool, HeapMemory, Owner};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use rustix::event::epoll::EventFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};

use super::listener::Accepted;
use super::shared::Shared;
use super::{FRAME_SIZE, SEND_CHUNKS};

/// Chunks that a connection may queue however short memory is, so that every connection makes its way.
const QUEUE_MIN: usize = 2;
/// And at most, if there is memory (see [`Shared::fair_share`]): 16 MiB. A peer may send a message of that size whole
/// before it reads the echo.
const QUEUE_MAX: usize = (16 << 20) / FRAME_SIZE;
/// A callback may go over its room a little (a head and its body), not without bound.
const OVER_ROOM: usize = 64;

/// Frames received from one connection before it is the others' turn: 256 KiB, some 50 µs of copying.
pub(super) const READS_PER_SERVE: u32 = 16;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) queue: VecDeque<Chunk>,
    readable: bool,
    writable: bool,
    /// A read that finds less than it has room for proves nothing: the peer's FIN, or urgent octets, lie behind.
    to_the_end: bool,
    /// Not open yet: `connect` is under way.
    opening: bool,
    /// The peer's FIN has been read.
    finished: bool,
    /// The application has closed its side.
    pub(super) shut: bool,
    fin_sent: bool,
    /// Why it has ended; the event loop tells the application and forgets it.
    pub(super) over: Option<Closed>,
    /// `alloc` failed, or there was no frame to receive into: `writable` is owed once there are frames again.
    pub(super) starved: bool,
    /// `send_room` was used up: `writable` is owed once there is room.
    pub(super) owed: bool,
    /// Chunks that the current callback has sent.
    sent_in_call: usize,
    /// Frames that may be received before it is the others' turn.
    pub(super) reads_left: u32,
    /// The application's timer.
    pub(super) timer: Instant,
    /// When octets last went either way.
    pub(super) moved_at: Instant,
    /// Octets the socket has taken, ever; and how many there were when its pace was last looked at.
    pub(super) sent: u64,
    pub(super) paced: (Instant, u64),
    pub(super) linger: Option<Duration>,
    pub(super) nodelay: bool,
    /// As it is counted in [`Shared::states`].
    state: State,
}

impl Connection {
    pub(super) fn new(accepted: Accepted, shared: &mut Shared) -> Self {
        let Accepted { socket, local, peer } = accepted;
        // The kernel has done this much before it shows a connection.
        shared.states.enter(State::Listen, State::SynReceived);
        shared.states.enter(State::SynReceived, State::Established);
        Self {
            socket,
            local,
            peer,
            queue: VecDeque::new(),
            readable: false,
            writable: true,
            to_the_end: false,
            opening: false,
            finished: false,
            shut: false,
            fin_sent: false,
            over: None,
            starved: false,
            owed: false,
            sent_in_call: 0,
            reads_left: 0,
            timer: Instant::NEVER,
            moved_at: shared.now,
            sent: 0,
            paced: (shared.now, 0),
            linger: None,
            nodelay: false,
            state: State::Established,
        }
    }

    /// One whose `connect` is under way.
    pub(super) fn opening(socket: OwnedFd, peer: SocketAddr, shared: &mut Shared) -> Self {
        // Not known yet.
        let local = SocketAddr::new(
            if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            0,
        );
        let mut connection = Self::new(Accepted { socket, local, peer }, shared);
        (connection.opening, connection.writable) = (true, false);
        connection.count_state(shared);
        connection
    }

    pub(super) fn is_opening(&self) -> bool {
        self.opening
    }

    /// Takes note of what epoll has told of `connect`. Whether it is done, and well.
    pub(super) fn complete_opening(&mut self, shared: &mut Shared) -> bool {
        // What went wrong has been noted before.
        if !self.writable || self.over.is_some() {
            return false;
        }
        match net::getsockname(&self.socket).map(SocketAddr::try_from) {
            Ok(Ok(local)) => self.local = local,
            _ => self.fail(Errno::CONNRESET),
        }
        (self.opening, self.moved_at) = (false, shared.now);
        self.count_state(shared);
        self.over.is_none()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes note of what epoll says.
    pub(super) fn note(&mut self, flags: EventFlags) {
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP);
        self.to_the_end |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::PRI);
        self.writable |= flags.contains(EventFlags::OUT);
        if flags.contains(EventFlags::ERR)
            && let Ok(Err(errno)) = sockopt::socket_error(&self.socket)
        {
            self.fail(errno);
        }
    }

    /// Whether a read may bring something.
    pub(super) fn is_readable(&self) -> bool {
        self.readable && !self.finished
    }

    pub(super) fn fail(&mut self, errno: Errno) {
        let reason = match errno {
            Errno::TIMEDOUT => Closed::TimedOut,
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN => Closed::Unreachable,
            _ => Closed::Reset,
        };
        self.over.get_or_insert(reason);
    }

    // --- receiving ------------------------------------------------------------------------------

    /// The next octets, in a frame of their own.
    pub(super) fn recv(&mut self, shared: &mut Shared) -> Option<Chunk> {
        if !self.is_readable() || self.reads_left == 0 || self.over.is_some() {
            return None;
        }
        let Some(mut chunk) = shared.input_chunk() else {
            self.starved = true;
            return None;
        };
        self.reads_left -= 1;
        let room = chunk.len();
        let read =
            retry_on_intr(|| net::recv(&self.socket, shared.pool.bytes_mut(&mut chunk), RecvFlags::DONTWAIT));
        match read {
            Ok((_, octets @ 1..)) => {
                shared.sockets.reads += 1;
                shared.sockets.octets_in += octets as u64;
                self.moved_at = shared.now;
                // Otherwise epoll will say when there is more.
                self.readable = octets == room || self.to_the_end;
                chunk.truncate(octets);
                return Some(chunk);
            }
            Ok((_, 0)) => {
                shared.sockets.reads += 1;
                (self.finished, self.readable) = (true, false);
            }
            Err(Errno::AGAIN) => {
                shared.sockets.reads_empty += 1;
                self.readable = false;
            }
            Err(errno) => self.fail(errno),
        }
        shared.pool.release(chunk);
        None
    }

    pub(super) fn recv_finished(&self) -> bool {
        self.finished
    }

    // --- sending --------------------------------------------------------------------------------

    pub(super) fn send_room(&self, shared: &Shared) -> usize {
        if self.shut || self.over.is_some() {
            return 0;
        }
        let most = QUEUE_MAX.min(shared.fair_share()).max(QUEUE_MIN);
        most.saturating_sub(self.queue.len()).min(SEND_CHUNKS.saturating_sub(self.sent_in_call))
    }

    /// A callback begins.
    pub(super) fn begin_call(&mut self) {
        (self.owed, self.sent_in_call) = (false, 0);
    }

    /// After a callback: whether the application used its room up and may go on. What it makes by itself waits until
    /// the socket has taken everything, and stays in the cache; what arrives is taken as long as there is memory, for
    /// its sender may not read before.
    pub(super) fn may_go_on(&self, shared: &Shared) -> bool {
        self.owed && if self.is_readable() { self.has_memory(shared) } else { self.queue.is_empty() }
    }

    /// Whether it may queue more, in a callback to come.
    fn has_memory(&self, shared: &Shared) -> bool {
        !self.shut && self.queue.len() < QUEUE_MAX.min(shared.fair_share()).max(QUEUE_MIN)
    }

    /// Whether the application has used its room up, and wants to hear when there is some again.
    pub(super) fn is_out_of_room(&self, shared: &Shared) -> bool {
        !self.shut && self.over.is_none() && self.send_room(shared) == 0
    }

    pub(super) fn send(&mut self, chunk: Chunk, shared: &mut Shared) -> Result<(), Chunk> {
        if self.shut || self.over.is_some() || self.queue.len() >= QUEUE_MAX + OVER_ROOM {
            return Err(chunk);
        }
        if chunk.is_empty() {
            shared.pool.release(chunk);
            return Ok(());
        }
        shared.pool.hand_to(&chunk, Owner::SendQueue);
        if self.queue.is_empty() {
            self.moved_at = shared.now;
            self.paced = (shared.now, self.sent);
        }
        self.queue.push_back(chunk);
        self.sent_in_call += 1;
        Ok(())
    }

    /// Gives the socket what it takes of the queue, and FIN behind it once the application has closed.
    pub(super) fn flush(&mut self, shared: &mut Shared) {
        while self.over.is_none() && self.writable && !self.queue.is_empty() {
            match self.write(&shared.pool) {
                Ok((octets, offered)) => {
                    shared.sockets.writes += 1;
                    shared.sockets.octets_out += octets as u64;
                    self.moved_at = shared.now;
                    self.sent += octets as u64;
                    self.forget(octets, shared);
                    if octets < offered {
                        shared.sockets.writes_full += 1;
                        self.writable = false;
                    }
                }
                Err(Errno::AGAIN) => {
                    shared.sockets.writes_full += 1;
                    self.writable = false;
                }
                Err(errno) => self.fail(errno),
            }
        }
        if self.over.is_none() && self.shut && self.queue.is_empty() {
            self.close_side(shared);
        }
    }

    /// One system call for up to [`SEND_CHUNKS`] chunks. How many octets it took, of how many.
    fn write(&self, pool: &FramePool<HeapMemory>) -> Result<(usize, usize), Errno> {
        if let [chunk] = self.queue.as_slices().0
            && self.queue.len() == 1
        {
            let octets = pool.bytes(chunk);
            let sent = retry_on_intr(|| net::send(&self.socket, octets, SendFlags::NOSIGNAL))?;
            return Ok((sent, octets.len()));
        }
        let mut slices = [IoSlice::new(&[]); SEND_CHUNKS];
        let mut offered = 0;
        let count = self.queue.len().min(SEND_CHUNKS);
        for (slice, chunk) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(pool.bytes(chunk));
            offered += chunk.len();
        }
        let mut none = SendAncillaryBuffer::default();
        let sent =
            retry_on_intr(|| net::sendmsg(&self.socket, &slices[..count], &mut none, SendFlags::NOSIGNAL))?;
        Ok((sent, offered))
    }

    /// The first `octets` of the queue are the kernel's now.
    fn forget(&mut self, mut octets: usize, shared: &mut Shared) {
        while let Some(mut chunk) = self.queue.pop_front() {
            if octets < chunk.len() {
                chunk.advance(octets);
                self.queue.push_front(chunk);
                return;
            }
            octets -= chunk.len();
            shared.pool.release(chunk);
        }
    }

    /// Sends FIN; over, if the peer has sent its own.
    fn close_side(&mut self, shared: &Shared) {
        if !self.fin_sent && !self.finished {
            match net::shutdown(&self.socket, Shutdown::Write) {
                Ok(()) => (self.fin_sent, self.moved_at) = (true, shared.now),
                Err(errno) => self.fail(errno),
            }
        } else if self.finished {
            // `close` sends FIN, if `shutdown` hasn't.
            self.over = Some(Closed::Finished);
        }
    }

    /// Whether the peer has acknowledged everything.
    pub(super) fn send_drained(&self) -> bool {
        // Who can't be asked has nothing to wait for.
        self.queue.is_empty() && crate::sys::unacknowledged(self.fd()).is_ok_and(|octets| octets == 0)
    }

    pub(super) fn shutdown(&mut self, index: u32, shared: &mut Shared) {
        if self.shut || self.over.is_some() {
            return;
        }
        if self.linger.is_some_and(|limit| limit.is_zero()) {
            return self.abort();
        }
        self.shut = true;
        self.moved_at = shared.now;
        if let Some(limit) = self.linger {
            // The nearest the kernel has, and it goes on after `close`.
            self.set_user_timeout(Some(limit));
        }
        shared.wheel.arm_by(index, self.deadline());
    }

    pub(super) fn abort(&mut self) {
        self.over.get_or_insert(Closed::Aborted);
    }

    /// Whether frames wait for the socket.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    // --- the end --------------------------------------------------------------------------------

    /// Counts it under the state it is in now.
    pub(super) fn count_state(&mut self, shared: &mut Shared) {
        let state = match (self.fin_sent, self.finished) {
            _ if self.opening => State::SynSent,
            (false, false) => State::Established,
            (true, false) => State::FinWait2,
            (_, true) => State::CloseWait,
        };
        if state != self.state {
            shared.states.enter(self.state, state);
            self.state = state;
        }
    }

    /// Closes the socket and gives all frames back.
    pub(super) fn close(mut self, reason: Closed, shared: &mut Shared) {
        for chunk in self.queue.drain(..) {
            shared.pool.release(chunk);
        }
        shared.states.enter(self.state, State::Closed);
        match reason {
            Closed::Finished => {}
            Closed::Aborted | Closed::TimedOut => {
                shared.counters.tcp_abort_on_timeout += u64::from(reason == Closed::TimedOut);
                shared.counters.tcp_estab_resets += 1;
                shared.counters.tcp_out_rsts += 1;
                // Then closing the socket resets the connection. If that can't be had, FIN has to do.
                let _ = sockopt::set_socket_linger(&self.socket, Some(core::time::Duration::ZERO));
            }
            Closed::Reset | Closed::Unreachable => shared.counters.tcp_estab_resets += 1,
        }
    }
}
