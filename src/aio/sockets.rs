//! The connections of one core as their tasks see them: what has arrived and waits to be read, what was written and
//! waits to be sent.
//!
//! ```text
//!   Conn::recv ──pull──→ input ──→ poll_read        input full: `recv` stops, and the peer's window closes
//!   Conn::send ←─flush── output ←── poll_write      output full: `poll_write` waits
//!
//!   a task touches a socket whose connection isn't being served ──→ attention ──→ Opener::wake in the next turn
//! ```
//!
//! Every octet is copied twice on its way: a task may read and write at any time, and frames are at hand only in a
//! callback. Both copies are counted (`Conn::count_copied`).

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;

use byway_tcp::app::{Closed, Conn, ConnId, Opener};
use byway_tcp::stack::ConnectError;

use super::buffer::{Ring, Spares};
use super::executor::store_waker;

/// Connections of a port that no task has accepted yet. Linux's somaxconn; who comes then is reset.
const ACCEPT_MAX: usize = 4096;
/// Room that has to be left for another chunk: the kernel backend's frame, the largest.
const CHUNK_MAX: usize = byway_datapath::kernel::FRAME_SIZE;
/// An octet is copied into the buffer and out of it.
const COPIES: usize = 2;

/// Names a socket, as long as its handle is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

/// How far a socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// To be opened in the next turn.
    Wanted,
    /// Asked for; nothing heard yet.
    Opening(ConnId),
    Open(ConnId),
    /// Without a connection any more.
    Over,
}

/// One connection, for its task.
#[derive(Debug)]
struct Socket {
    phase: Phase,
    local: Option<SocketAddr>,
    peer: SocketAddr,
    input: Ring,
    /// `recv` may have more.
    more: bool,
    /// The peer's FIN is behind what is in `input`.
    finished: bool,
    output: Ring,
    /// FIN goes behind what is in `output`.
    shut: bool,
    nodelay: bool,
    /// What reading and writing says from now on.
    error: Option<ErrorKind>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// It is in [`Sockets::attention`].
    listed: bool,
    /// Its handle is gone.
    dropped: bool,
    /// Its handle went while octets were unread: they will never be, and the peer is to know (RFC 2525 §2.17).
    reset: bool,
}

impl Socket {
    fn new(phase: Phase, local: Option<SocketAddr>, peer: SocketAddr) -> Self {
        Self {
            phase,
            local,
            peer,
            input: Ring::default(),
            more: false,
            finished: false,
            output: Ring::default(),
            shut: false,
            nodelay: true,
            error: None,
            reader: None,
            writer: None,
            listed: false,
            dropped: false,
            reset: false,
        }
    }

    /// Takes what has arrived, as far as there is room. Whether that was anything, or the end.
    fn pull<C: Conn>(&mut self, conn: &mut C, spares: &mut Spares) -> bool {
        let mut moved = false;
        self.more = true;
        while self.input.room() >= CHUNK_MAX {
            let Some(chunk) = conn.recv() else {
                self.more = false;
                break;
            };
            let taken = self.input.write(conn.bytes(&chunk), spares);
            assert_eq!(taken, chunk.len(), "a chunk is longer than any frame");
            conn.note_copied(COPIES * taken);
            conn.release(chunk);
            moved = true;
        }
        if !self.more && !self.finished && conn.recv_finished() {
            (self.finished, moved) = (true, true);
        }
        moved
    }

    /// Sends what was written, in full segments, as far as there is room; then FIN. Whether that made room.
    fn flush<C: Conn>(&mut self, conn: &mut C, spares: &mut Spares) -> bool {
        let mut moved = false;
        while !self.output.is_empty() && conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { break };
            let mut left = conn.mss().min(conn.tailroom(&chunk));
            while left > 0 && !self.output.is_empty() {
                let front = self.output.front();
                let step = front.len().min(left);
                conn.append(&mut chunk, &front[..step]);
                self.output.consume(step, spares);
                left -= step;
            }
            conn.note_copied(COPIES * chunk.len());
            if let Err(refused) = conn.send(chunk) {
                // It is over; `closed` follows.
                conn.release(refused);
                self.output.clear(spares);
            }
            moved = true;
        }
        if self.shut && self.output.is_empty() {
            conn.shutdown();
        }
        moved
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    socket: Option<Box<Socket>>,
}

/// A port that a task listens on.
#[derive(Debug)]
struct Listening {
    port: u16,
    queue: VecDeque<Key>,
    acceptor: Option<Waker>,
}

/// What came of a step that may have to wait.
pub(super) type Step<T> = Option<Result<T, ErrorKind>>;

/// All sockets of a core.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Ports that the core has open.
    ports: Vec<u16>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The socket of each connection, by [`ConnId::index`].
    by_conn: Vec<Option<Key>>,
    listening: Vec<Listening>,
    /// To be opened, from this own address if one was named.
    wanted: Vec<(Key, Option<IpAddr>)>,
    /// Whose connection has to be woken.
    attention: Vec<Key>,
    /// Whose connection is being served: it is flushed afterwards, anyway.
    serving: Option<Key>,
    /// There are no more turns: connections look after themselves.
    pub(super) draining: bool,
    spares: Spares,
}

impl Sockets {
    pub(super) fn new(ports: Vec<u16>) -> Self {
        Self {
            ports,
            slots: Vec::new(),
            free: Vec::new(),
            by_conn: Vec::new(),
            listening: Vec::new(),
            wanted: Vec::new(),
            attention: Vec::new(),
            serving: None,
            draining: false,
            spares: Spares::default(),
        }
    }

    // --- the tasks' side ------------------------------------------------------------------------

    pub(super) fn bind(&mut self, port: u16) -> Result<(), ErrorKind> {
        if !self.ports.contains(&port) {
            return Err(ErrorKind::AddrNotAvailable);
        }
        if self.listening.iter().any(|other| other.port == port) {
            return Err(ErrorKind::AddrInUse);
        }
        self.listening.push(Listening { port, queue: VecDeque::new(), acceptor: None });
        Ok(())
    }

    /// Connections nobody has accepted are reset.
    pub(super) fn unbind(&mut self, port: u16) {
        let Some(place) = self.listening.iter().position(|listening| listening.port == port) else { return };
        for key in self.listening.swap_remove(place).queue {
            if let Some(socket) = self.socket(key) {
                socket.more = true;
            }
            // Nobody has ever waited for it.
            let _ = self.drop_handle(key);
        }
    }

    pub(super) fn accept(&mut self, port: u16, waker: &Waker) -> Option<(Key, SocketAddr, SocketAddr)> {
        let listening = self.listening.iter_mut().find(|listening| listening.port == port)?;
        let Some(key) = listening.queue.pop_front() else {
            store_waker(&mut listening.acceptor, waker);
            return None;
        };
        let socket = self.socket(key)?;
        Some((key, socket.local?, socket.peer))
    }

    pub(super) fn connect(&mut self, local: Option<IpAddr>, peer: SocketAddr) -> Key {
        let key = self.insert(Socket::new(Phase::Wanted, None, peer));
        self.wanted.push((key, local));
        key
    }

    /// The own address, once the connection is open.
    pub(super) fn poll_opened(&mut self, key: Key, waker: &Waker) -> Step<SocketAddr> {
        let socket = self.socket(key)?;
        match (socket.phase, socket.error, socket.local) {
            (Phase::Wanted | Phase::Opening(_), ..) => {
                store_waker(&mut socket.reader, waker);
                None
            }
            (_, None, Some(local)) => Some(Ok(local)),
            (_, error, _) => Some(Err(error.unwrap_or(ErrorKind::NotConnected))),
        }
    }

    /// Gives `take` what has arrived; it says how much of it it took. At the end that is nothing.
    pub(super) fn poll_read(
        &mut self,
        key: Key,
        waker: &Waker,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Step<usize> {
        let Self { slots, spares, .. } = self;
        let socket = socket_of(slots, key)?;
        let mut taken = 0;
        // In two pieces, where the ring begins anew.
        while !socket.input.is_empty() {
            let step = take(socket.input.front());
            socket.input.consume(step, spares);
            taken += step;
            if step == 0 {
                break;
            }
        }
        if taken > 0 {
            let room = socket.more && socket.input.room() >= CHUNK_MAX;
            if room {
                self.touch(key);
            }
            return Some(Ok(taken));
        }
        if !socket.input.is_empty() || socket.finished {
            return Some(Ok(0));
        }
        if let Some(error) = socket.error {
            return Some(Err(error));
        }
        store_waker(&mut socket.reader, waker);
        None
    }

    /// Takes what there is room for of the pieces that `pieces` gives.
    pub(super) fn poll_write<'a>(
        &mut self,
        key: Key,
        waker: &Waker,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Step<usize> {
        let Self { slots, spares, .. } = self;
        let socket = socket_of(slots, key)?;
        if let Some(error) = socket.error {
            return Some(Err(error));
        }
        if socket.shut || socket.phase == Phase::Over {
            return Some(Err(ErrorKind::BrokenPipe));
        }
        let (mut taken, mut empty) = (0, true);
        for piece in pieces {
            empty &= piece.is_empty();
            taken += socket.output.write(piece, spares);
        }
        if taken == 0 && !empty {
            store_waker(&mut socket.writer, waker);
            return None;
        }
        if taken > 0 {
            self.touch(key);
        }
        Some(Ok(taken))
    }

    /// FIN follows what was written.
    pub(super) fn shutdown(&mut self, key: Key) {
        if let Some(socket) = self.socket(key)
            && !core::mem::replace(&mut socket.shut, true)
        {
            self.touch(key);
        }
    }

    pub(super) fn set_nodelay(&mut self, key: Key, on: bool) {
        if let Some(socket) = self.socket(key) {
            socket.nodelay = on;
            self.touch(key);
        }
    }

    /// The handle is gone: the connection is closed, as the kernel does it. What comes back is to be dropped when
    /// nothing is borrowed.
    pub(super) fn drop_handle(&mut self, key: Key) -> [Option<Waker>; 2] {
        let Self { slots, spares, .. } = self;
        let Some(socket) = socket_of(slots, key) else { return [None, None] };
        socket.dropped = true;
        socket.reset = socket.more || !socket.input.is_empty();
        socket.shut = true;
        socket.input.clear(spares);
        let wakers = [socket.reader.take(), socket.writer.take()];
        match socket.phase {
            Phase::Wanted | Phase::Over => self.remove(key),
            Phase::Opening(_) | Phase::Open(_) => self.touch(key),
        }
        wakers
    }

    // --- the connections' side ------------------------------------------------------------------

    /// Whether somebody has asked for something that takes a turn.
    pub(super) fn is_waiting(&self) -> bool {
        !self.wanted.is_empty() || !self.attention.is_empty()
    }

    /// Opens what is to be opened, and wakes the connections of those that tasks have touched.
    pub(super) fn turn<O: Opener>(&mut self, opener: &mut O, wakers: &mut Vec<Waker>) {
        for (key, local) in core::mem::take(&mut self.wanted) {
            let Some(socket) = socket_of(&mut self.slots, key) else { continue };
            let opened = match local {
                Some(local) => opener.connect_from(local, socket.peer),
                None => opener.connect(socket.peer),
            };
            match opened {
                Ok(id) => {
                    socket.phase = Phase::Opening(id);
                    self.name(id, key);
                }
                Err(error) => {
                    (socket.phase, socket.error) = (Phase::Over, Some(kind_of(error)));
                    wakers.extend(socket.reader.take());
                }
            }
        }
        let mut attention = core::mem::take(&mut self.attention);
        for key in attention.drain(..) {
            let Some(socket) = self.socket(key) else { continue };
            if !core::mem::take(&mut socket.listed) {
                // Its connection was served since.
                continue;
            }
            match socket.phase {
                Phase::Open(id) if socket.reset => opener.abort(id),
                Phase::Open(id) => opener.wake(id),
                Phase::Opening(id) if socket.dropped => opener.abort(id),
                Phase::Opening(_) | Phase::Wanted | Phase::Over => {}
            }
        }
        self.attention = attention;
    }

    /// A handshake is complete. False: nobody wants it.
    pub(super) fn opened<C: Conn>(&mut self, conn: &C, wakers: &mut Vec<Waker>) -> bool {
        if let Some(key) = self.key_of(conn.id()) {
            let Some(socket) = self.socket(key) else { return false };
            (socket.phase, socket.local) = (Phase::Open(conn.id()), Some(conn.local()));
            wakers.extend(socket.reader.take());
            return !socket.dropped;
        }
        let port = conn.local().port();
        let Some(place) = self.listening.iter().position(|listening| listening.port == port) else {
            return false;
        };
        if self.listening[place].queue.len() >= ACCEPT_MAX {
            return false;
        }
        let key = self.insert(Socket::new(Phase::Open(conn.id()), Some(conn.local()), conn.peer()));
        self.name(conn.id(), key);
        let listening = &mut self.listening[place];
        listening.queue.push_back(key);
        wakers.extend(listening.acceptor.take());
        true
    }

    /// Takes what has arrived. Whether that was anything.
    pub(super) fn pull<C: Conn>(&mut self, conn: &mut C, wakers: &mut Vec<Waker>) -> bool {
        let Some(key) = self.key_of(conn.id()) else { return false };
        self.serving = Some(key);
        let Self { slots, spares, .. } = self;
        let Some(socket) = socket_of(slots, key) else { return false };
        let moved = socket.pull(conn, spares);
        if socket.dropped {
            // Nobody will read what comes.
            if socket.reset || !socket.input.is_empty() {
                socket.input.clear(spares);
                conn.abort();
            }
            return false;
        }
        if moved {
            wakers.extend(socket.reader.take());
        }
        moved
    }

    /// Sends what was written.
    pub(super) fn flush<C: Conn>(&mut self, conn: &mut C, wakers: &mut Vec<Waker>) {
        self.serving = None;
        let Some(key) = self.key_of(conn.id()) else { return };
        let Self { slots, spares, .. } = self;
        let Some(socket) = socket_of(slots, key) else { return };
        socket.listed = false;
        if socket.reset {
            return conn.abort();
        }
        conn.set_nodelay(socket.nodelay);
        if socket.flush(conn, spares) {
            wakers.extend(socket.writer.take());
        }
    }

    /// Whether the connection being served could give more at once.
    pub(super) fn could_go_on(&mut self, id: ConnId) -> bool {
        let Some(key) = self.key_of(id) else { return false };
        self.socket(key)
            .is_some_and(|socket| socket.more && !socket.dropped && socket.input.room() >= CHUNK_MAX)
    }

    /// It goes on in the next turn.
    pub(super) fn go_on_later(&mut self, id: ConnId) {
        if let Some(key) = self.key_of(id) {
            self.touch(key);
        }
    }

    /// The connection is over.
    pub(super) fn closed(&mut self, id: ConnId, reason: Closed, wakers: &mut Vec<Waker>) {
        let Some(key) = self.key_of(id) else { return };
        self.by_conn[id.index as usize] = None;
        self.serving = None;
        let Self { slots, spares, .. } = self;
        let Some(socket) = socket_of(slots, key) else { return };
        let opening = matches!(socket.phase, Phase::Opening(_));
        socket.phase = Phase::Over;
        socket.more = false;
        socket.output.clear(spares);
        socket.error = match reason {
            Closed::Finished => None,
            Closed::Reset if opening => Some(ErrorKind::ConnectionRefused),
            Closed::Reset => Some(ErrorKind::ConnectionReset),
            Closed::TimedOut => Some(ErrorKind::TimedOut),
            Closed::Unreachable => Some(ErrorKind::HostUnreachable),
            Closed::Aborted => Some(ErrorKind::ConnectionAborted),
        };
        socket.finished |= reason == Closed::Finished;
        wakers.extend(socket.reader.take());
        wakers.extend(socket.writer.take());
        if socket.dropped {
            self.remove(key);
        }
    }

    // --- small helpers --------------------------------------------------------------------------

    fn socket(&mut self, key: Key) -> Option<&mut Socket> {
        socket_of(&mut self.slots, key)
    }

    fn insert(&mut self, socket: Socket) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.socket = Some(Box::new(socket));
        Key { index, generation: slot.generation }
    }

    fn remove(&mut self, key: Key) {
        let slot = &mut self.slots[key.index as usize];
        if slot.generation == key.generation && slot.socket.take().is_some() {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(key.index);
        }
    }

    fn name(&mut self, id: ConnId, key: Key) {
        let index = id.index as usize;
        if index >= self.by_conn.len() {
            self.by_conn.resize(index + 1, None);
        }
        self.by_conn[index] = Some(key);
    }

    fn key_of(&mut self, id: ConnId) -> Option<Key> {
        let key = (*self.by_conn.get(id.index as usize)?)?;
        let phase = self.socket(key)?.phase;
        matches!(phase, Phase::Open(own) | Phase::Opening(own) if own == id).then_some(key)
    }

    fn touch(&mut self, key: Key) {
        if self.serving == Some(key) || self.draining {
            return;
        }
        if let Some(socket) = socket_of(&mut self.slots, key)
            && matches!(socket.phase, Phase::Open(_) | Phase::Opening(_))
            && !core::mem::replace(&mut socket.listed, true)
        {
            self.attention.push(key);
        }
    }

    /// How many sockets there are, their handles gone or not.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

fn socket_of(slots: &mut [Slot], key: Key) -> Option<&mut Socket> {
    let slot = slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
    slot.socket.as_deref_mut()
}

fn kind_of(error: ConnectError) -> ErrorKind {
    match error {
        ConnectError::NoAddress => ErrorKind::AddrNotAvailable,
        ConnectError::BadRemote => ErrorKind::InvalidInput,
        ConnectError::NoPort => ErrorKind::AddrInUse,
        ConnectError::TableFull => ErrorKind::QuotaExceeded,
    }
}
