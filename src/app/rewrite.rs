//! A received frame that becomes its own reply.
//!
//! ```text
//!   0          start        write        read            len
//!   │ headroom   │ the reply  │ used up    │ not yet read   │
//! ```
//!
//! What byway makes (a response head, a frame header) goes in front of the payload it belongs to,
//! over request octets that are used up; the payload stays where it is, or moves to the front by
//! the octets the reply is shorter, in the pass that unmasks it.

use byway_tcp::app::Conn;
use byway_tcp::frame::Chunk;

use super::outbox::Outbox;
use super::ws::mask;

/// Longest thing that may have to go in front of a frame without headroom: a WebSocket header.
const SPILL: usize = 10;

/// Where reading and writing stand in a frame; `start ≤ write ≤ read`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursors {
    /// First octet of the reply.
    pub(super) start: usize,
    /// One past the reply's last octet.
    pub(super) write: usize,
    /// First octet not yet read.
    pub(super) read: usize,
    /// Octets at the reply's start that byway made.
    made: usize,
    /// What had no place in front of the reply: sent before it.
    spill: [u8; SPILL],
    spilled: u8,
}

impl Cursors {
    /// Nothing of the frame is to be sent (yet).
    pub(super) fn is_blank(&self) -> bool {
        self.start == self.write && self.spilled == 0
    }

    /// Passes over octets that don't go into the reply.
    pub(super) fn skip(&mut self, octets: usize) {
        self.read += octets;
    }

    /// Adds octets that byway made to the reply. `false`, and nothing changed, if there is no
    /// place for them.
    pub(super) fn put(&mut self, buf: &mut [u8], octets: &[u8]) -> bool {
        if self.start == self.write {
            // Directly before what comes next, so that it need not move.
            let Some(start) = self.read.checked_sub(octets.len()) else { return false };
            self.start = start;
            self.write = start;
            self.made = 0;
        }
        let end = self.write + octets.len();
        if end > self.read {
            return false;
        }
        buf[self.write..end].copy_from_slice(octets);
        if self.start + self.made == self.write {
            self.made += octets.len();
        }
        self.write = end;
        true
    }

    /// As [`put`](Self::put); what has no place is sent in a chunk in front. At most one thing of
    /// up to 10 octets per frame can lack a place: a header that began in the frame before.
    pub(super) fn put_or_spill(&mut self, buf: &mut [u8], octets: &[u8]) {
        if !self.put(buf, octets) {
            assert!(self.is_blank(), "a reply outgrew its request");
            self.spill[..octets.len()].copy_from_slice(octets);
            self.spilled = octets.len() as u8;
        }
    }

    /// Adds the next `octets` unread octets to the reply, unmasked with `key`. Where they are now.
    pub(super) fn keep_unmasked(&mut self, buf: &mut [u8], octets: usize, key: [u8; 4]) -> usize {
        self.begin();
        let at = self.write;
        mask::unmask_to(buf, self.read, at, octets, key);
        self.read += octets;
        self.write += octets;
        at
    }

    /// Adds the next `octets` unread octets to the reply.
    pub(super) fn keep(&mut self, buf: &mut [u8], octets: usize) {
        self.begin();
        if self.write != self.read {
            buf.copy_within(self.read..self.read + octets, self.write);
        }
        self.read += octets;
        self.write += octets;
    }

    fn begin(&mut self) {
        if self.start == self.write {
            self.start = self.read;
            self.write = self.read;
            self.made = 0;
        }
    }
}

/// A received chunk with its cursors.
#[derive(Debug)]
pub(super) struct Rewrite {
    pub(super) chunk: Chunk,
    pub(super) cursors: Cursors,
}

impl Rewrite {
    /// Starts with nothing read. The headroom joins the buffer: a reply may begin there.
    pub(super) fn new(mut chunk: Chunk) -> Self {
        let headroom = chunk.headroom();
        chunk.grow_front(headroom);
        let cursors = Cursors { start: headroom, write: headroom, read: headroom, ..Cursors::default() };
        Self { chunk, cursors }
    }

    /// Octets not yet read.
    pub(super) fn unread_len(&self) -> usize {
        self.chunk.len() - self.cursors.read
    }

    /// What is not yet read.
    #[inline]
    pub(super) fn unread<'a, C: Conn>(&'a self, conn: &'a C) -> &'a [u8] {
        &conn.bytes(&self.chunk)[self.cursors.read..]
    }

    /// See [`Cursors::put`].
    pub(super) fn put<C: Conn>(&mut self, conn: &mut C, octets: &[u8]) -> bool {
        self.cursors.put(conn.bytes_mut(&mut self.chunk), octets)
    }

    /// See [`Cursors::keep`].
    pub(super) fn keep<C: Conn>(&mut self, conn: &mut C, octets: usize) {
        self.cursors.keep(conn.bytes_mut(&mut self.chunk), octets);
    }

    /// Gives the reply to `outbox`.
    pub(super) fn finish<C: Conn>(mut self, conn: &mut C, outbox: &mut Outbox) {
        let Cursors { start, write, made, spill, spilled, .. } = self.cursors;
        if spilled > 0 {
            outbox.write(conn, &spill[..usize::from(spilled)]);
        }
        if start == write {
            conn.release(self.chunk);
            return;
        }
        self.chunk.advance(start);
        self.chunk.truncate(write - start);
        if self.chunk.len() > conn.mss() && made > 0 {
            // The head pushed a full-size segment over the top: it goes ahead in its own, so that
            // the stack needn't cut the payload.
            let (mut head, mut left) = ([0; 64], made);
            while left > 0 {
                let step = left.min(head.len());
                head[..step].copy_from_slice(&conn.bytes(&self.chunk)[..step]);
                outbox.write(conn, &head[..step]);
                self.chunk.advance(step);
                left -= step;
            }
        }
        outbox.push(conn, self.chunk);
    }

    /// Gives the reply so far to `outbox` and goes on with what is unread in a frame of its own.
    /// The shorter part is copied and counted.
    ///
    /// # Errors
    /// Unchanged under memory pressure: go on when the connection is `writable`.
    pub(super) fn cut<C: Conn>(mut self, conn: &mut C, outbox: &mut Outbox) -> Result<Self, Self> {
        let Some(rest) = conn.split_off(&mut self.chunk, self.cursors.read) else { return Err(self) };
        self.finish(conn, outbox);
        Ok(Self::new(rest))
    }

    /// The unread octets as a chunk of their own, when nothing else of the frame is needed.
    pub(super) fn into_unread(mut self) -> Chunk {
        debug_assert!(self.cursors.is_blank(), "a reply would be lost");
        self.chunk.advance(self.cursors.read);
        self.chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_head_goes_directly_before_the_payload() {
        let mut buf = *b"........HEADpayload";
        let mut cursors = Cursors { start: 8, write: 8, read: 8, ..Cursors::default() };
        cursors.skip(4);
        assert!(cursors.put(&mut buf, b"0123456789"));
        cursors.keep(&mut buf, 7);
        assert_eq!(&buf[cursors.start..cursors.write], b"0123456789payload");
        assert_eq!(cursors.start, 2);
    }

    #[test]
    fn later_ones_are_closed_up() {
        let mut buf = *b"HEADoneHEADtwo";
        let mut cursors = Cursors::default();
        for _ in 0..2 {
            cursors.skip(4);
            assert!(cursors.put(&mut buf, b"hd"));
            cursors.keep(&mut buf, 3);
        }
        assert_eq!(&buf[cursors.start..cursors.write], b"hdonehdtwo");
        assert!(!cursors.put(&mut buf, b"more than there is room for"));
    }
}
