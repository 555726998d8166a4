//! What a connection has to send: in order, as far as the stack takes it.

use std::collections::VecDeque;

use byway_tcp::app::Conn;
use byway_tcp::frame::Chunk;

/// Chunks on their way to [`Conn::send`].
///
/// Small things that byway makes are collected in an open chunk, so that answers to pipelined
/// requests share a segment. Whoever adds something stops producing as soon as
/// [`is_blocked`](Self::is_blocked): that bounds the queue by what one received frame gives rise
/// to (and the text held back, see `Limits::held_chunks`).
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Item>,
    /// Being filled; comes after everything in `queue`.
    open: Option<Chunk>,
}

#[derive(Debug)]
enum Item {
    Chunk(Chunk),
    /// Made when there was no frame to put it into: under memory pressure only.
    Made(Vec<u8>),
}

impl Outbox {
    /// Something waits for room or memory.
    pub(super) fn is_blocked(&self) -> bool {
        !self.queue.is_empty()
    }

    /// A chunk is being filled.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Adds octets that byway made. Never fails; without a frame they wait on the heap.
    pub(super) fn write<C: Conn>(&mut self, conn: &mut C, octets: &[u8]) {
        if let Some(open) = &mut self.open
            && open.len() + octets.len() <= conn.mss()
            && octets.len() <= conn.tailroom(open)
        {
            conn.append(open, octets);
            return;
        }
        self.settle(conn);
        match conn.alloc() {
            Some(mut chunk) if octets.len() <= conn.tailroom(&chunk) => {
                conn.append(&mut chunk, octets);
                self.open = Some(chunk);
            }
            Some(chunk) => {
                conn.release(chunk);
                self.queue.push_back(Item::Made(octets.to_vec()));
            }
            None => self.queue.push_back(Item::Made(octets.to_vec())),
        }
    }

    /// Adds octets that byway made, as many as there are, in chunks. Never fails, as [`write`](Self::write).
    pub(super) fn write_all<C: Conn>(&mut self, conn: &mut C, mut octets: &[u8]) {
        while !octets.is_empty() {
            let mss = conn.mss();
            let space =
                self.open.as_ref().map_or(0, |open| conn.tailroom(open).min(mss.saturating_sub(open.len())));
            let (now, later) = octets.split_at(octets.len().min(if space > 0 { space } else { mss }));
            self.write(conn, now);
            octets = later;
        }
    }

    /// Room in the open chunk, opening one if there is none; `None` when there is no memory.
    pub(super) fn space<C: Conn>(&mut self, conn: &mut C) -> Option<usize> {
        let space =
            |conn: &C, chunk: &Chunk| conn.tailroom(chunk).min(conn.mss().saturating_sub(chunk.len()));
        if let Some(space) = self.open.as_ref().map(|open| space(conn, open)).filter(|&space| space > 0) {
            return Some(space);
        }
        self.settle(conn);
        if self.is_blocked() {
            return None;
        }
        let chunk = conn.alloc()?;
        let space = space(conn, &chunk);
        self.open = Some(chunk);
        Some(space)
    }

    /// Adds a chunk.
    pub(super) fn push<C: Conn>(&mut self, conn: &mut C, chunk: Chunk) {
        self.settle(conn);
        self.pass(conn, chunk);
    }

    /// Adds a chunk with octets that byway made in front of it.
    pub(super) fn push_with<C: Conn>(&mut self, conn: &mut C, front: &[u8], mut chunk: Chunk) {
        if front.len() <= chunk.headroom() && front.len() + chunk.len() <= conn.mss() {
            conn.prepend(&mut chunk, front);
        } else {
            self.write(conn, front);
        }
        self.push(conn, chunk);
    }

    /// Ends the open chunk: it goes out now.
    pub(super) fn settle<C: Conn>(&mut self, conn: &mut C) {
        if let Some(chunk) = self.open.take() {
            self.pass(conn, chunk);
        }
    }

    /// Sends what waits. `false`: some of it still does.
    #[inline]
    pub(super) fn flush<C: Conn>(&mut self, conn: &mut C) -> bool {
        // As nearly always.
        self.queue.is_empty() || self.flush_queue(conn)
    }

    fn flush_queue<C: Conn>(&mut self, conn: &mut C) -> bool {
        while conn.send_room() > 0 {
            let Some(item) = self.queue.pop_front() else { return true };
            let (sent, rest) = match item {
                Item::Chunk(chunk) => Self::send(conn, chunk),
                Item::Made(octets) => Self::send_made(conn, octets),
            };
            if let Some(rest) = rest {
                self.queue.push_front(rest);
            }
            if !sent {
                return false;
            }
        }
        self.queue.is_empty()
    }

    /// Gives everything back.
    pub(super) fn clear<C: Conn>(&mut self, conn: &mut C) {
        for item in self.queue.drain(..) {
            if let Item::Chunk(chunk) = item {
                conn.release(chunk);
            }
        }
        if let Some(chunk) = self.open.take() {
            conn.release(chunk);
        }
    }

    fn pass<C: Conn>(&mut self, conn: &mut C, chunk: Chunk) {
        if !self.queue.is_empty() || conn.send_room() == 0 {
            self.queue.push_back(Item::Chunk(chunk));
            return;
        }
        if chunk.len() <= conn.mss() {
            Self::send_whole(conn, chunk);
            return;
        }
        let (sent, rest) = Self::send(conn, chunk);
        self.queue.extend(rest);
        if sent {
            self.flush(conn);
        }
    }

    /// Sends a chunk, or the first segment of one that is longer. Whether that worked, and what is left.
    fn send<C: Conn>(conn: &mut C, mut chunk: Chunk) -> (bool, Option<Item>) {
        // Cut here, not in `Conn::send`: when memory is short the chunk waits, and is not lost.
        let rest = if chunk.len() > conn.mss() {
            let Some(rest) = conn.split_off(&mut chunk, conn.mss()) else {
                return (false, Some(Item::Chunk(chunk)));
            };
            Some(Item::Chunk(rest))
        } else {
            None
        };
        Self::send_whole(conn, chunk);
        (true, rest)
    }

    fn send_whole<C: Conn>(conn: &mut C, chunk: Chunk) {
        if let Err(refused) = conn.send(chunk) {
            // Our side is closed; `closed` follows.
            conn.release(refused);
        }
    }

    fn send_made<C: Conn>(conn: &mut C, octets: Vec<u8>) -> (bool, Option<Item>) {
        let Some(mut chunk) = conn.alloc() else { return (false, Some(Item::Made(octets))) };
        let (now, later) = octets.split_at(octets.len().min(conn.mss()).min(conn.tailroom(&chunk)));
        conn.append(&mut chunk, now);
        let rest = (!later.is_empty()).then(|| Item::Made(later.to_vec()));
        // Not longer than a segment: nothing of it is left.
        (Self::send(conn, chunk).0, rest)
    }
}
