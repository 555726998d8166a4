//! Received octets: in order for the application, out of order until the hole is filled (S5.5).
//!
//! ```text
//!  in order:      head→[frame]→[frame]→tail                      up to RCV.NXT
//!  out of order:  first ──→ [frame]→[frame]   a range: frames without a gap between them
//!                   │ aux
//!                   └─────→ [frame]→…          next range, further ahead
//! ```
//!
//! Both lists are threaded through the frames' `Meta`. Ranges neither overlap nor touch, so they
//! are the SACK blocks. Octets accepted first stay (T13); a new segment is trimmed at both ends.

use crate::counters::DropReason;
use crate::frame::{Chunk, FramePool, Memory, NONE, Owner};
use crate::seq::SeqNumber;
use crate::wire::tcp::SackBlocks;

/// Ranges kept out of order (T12): what comes on top the peer has to send again. A sender that overfills a queue in
/// slow start loses every other segment for a while, some hundreds of 1,000 in flight; with 64 ranges CUBIC then sent
/// three times again what had been lost. A search walks at most so many, a microsecond.
const RANGES_MAX: u8 = 250;
/// A queue is crowded when so many frames hold less than [`PAYLOAD_WORTH_A_FRAME`] each on average, or when
/// it holds four times its connection's share. A segment that fits behind its predecessor's payload is
/// then copied there: one-octet segments must not pin 2 KiB each (T12). 64 frames are little, and a peer
/// that sends full segments never crowds a queue, so that its payload isn't copied.
const FRAMES_BEFORE_COPYING: u32 = 64;
/// Frames that hold little each, out of order: a quarter of a megabyte for a peer that sends single octets with holes
/// between them. Nobody else does.
const LITTLE_FRAMES_MAX: u32 = 2 * FRAMES_BEFORE_COPYING;
/// Octets: an eighth of a frame.
const PAYLOAD_WORTH_A_FRAME: u32 = 256;

/// What became of a segment's payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// RCV.NXT moves on by so many octets, holes filled included.
    InOrder(u32),
    /// Kept, ahead of a hole.
    OutOfOrder,
    /// Not kept.
    Dropped(DropReason),
}

/// Both lists of one connection.
#[derive(Debug)]
pub(crate) struct Reassembly {
    head: u32,
    tail: u32,
    frames: u32,
    pub(super) bytes: u32,
    first_range: u32,
    last_range: u32,
    /// The ranges that changed last, the latest first: the SACK blocks (RFC 2018 §4).
    recent: [u32; SackBlocks::MAX],
    ranges: u8,
    ooo_frames: u32,
    ooo_bytes: u32,
}

impl Reassembly {
    pub(crate) fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            frames: 0,
            bytes: 0,
            first_range: NONE,
            last_range: NONE,
            recent: [NONE; SackBlocks::MAX],
            ranges: 0,
            ooo_frames: 0,
            ooo_bytes: 0,
        }
    }

    /// Octets in order that the application hasn't taken.
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub(crate) fn has_holes(&self) -> bool {
        self.ranges > 0
    }

    /// The next octets in order, now the application's.
    pub(crate) fn pop<M: Memory>(&mut self, pool: &mut FramePool<M>) -> Option<Chunk> {
        if self.head == NONE {
            return None;
        }
        let index = self.head;
        self.head = pool.meta(index).next;
        if self.head == NONE {
            self.tail = NONE;
        }
        self.frames -= 1;
        let chunk = pool.unpark(index, Owner::App);
        self.bytes -= chunk.len() as u32;
        Some(chunk)
    }

    /// Takes a payload whose first octet is `seq`, already trimmed to the window's right edge.
    /// `frames_max` bounds what is kept out of order.
    pub(crate) fn insert<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        mut chunk: Chunk,
        mut seq: SeqNumber,
        nxt: SeqNumber,
        frames_max: u32,
    ) -> Inserted {
        if seq.lt(nxt) {
            let old = nxt.since(seq) as usize;
            if old >= chunk.len() {
                pool.release(chunk);
                return Inserted::Dropped(DropReason::Duplicate);
            }
            chunk.advance(old);
            seq = nxt;
        }
        if chunk.is_empty() {
            pool.release(chunk);
            return Inserted::Dropped(DropReason::Duplicate);
        }
        if seq == nxt {
            Inserted::InOrder(self.append(pool, chunk, nxt, frames_max))
        } else if self.ooo_frames >= frames_max {
            pool.release(chunk);
            Inserted::Dropped(DropReason::OutOfOrderLimit)
        } else {
            self.insert_ahead(pool, chunk, seq, frames_max)
        }
    }

    /// Appends in order and takes over the ranges it reaches. Octets gained.
    fn append<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        mut chunk: Chunk,
        nxt: SeqNumber,
        frames_max: u32,
    ) -> u32 {
        if self.first_range == NONE {
            let len = chunk.len() as u32;
            self.append_frame(pool, chunk, frames_max);
            return len;
        }
        // A range that begins inside the new segment was there first: its octets stay.
        let ahead = SeqNumber(pool.meta(self.first_range).seq).since(nxt) as usize;
        if chunk.len() > ahead {
            self.keep_rest(pool, &chunk, nxt, self.first_range);
            chunk.truncate(ahead);
        }
        let mut reached = nxt + chunk.len() as u32;
        self.append_frame(pool, chunk, frames_max);
        while self.first_range != NONE && SeqNumber(pool.meta(self.first_range).seq) == reached {
            reached = self.take_first_range(pool, frames_max);
        }
        reached.since(nxt)
    }

    /// Moves the first range's frames to the in-order list. Sequence number after it.
    fn take_first_range<M: Memory>(&mut self, pool: &mut FramePool<M>, frames_max: u32) -> SeqNumber {
        let range = self.first_range;
        let meta = *pool.meta(range);
        let end = range_end(pool, range);
        let mut at = range;
        while at != NONE {
            let next = pool.meta(at).next;
            let chunk = pool.unpark(at, Owner::Rx);
            self.ooo_frames -= 1;
            self.ooo_bytes -= chunk.len() as u32;
            self.append_frame(pool, chunk, frames_max);
            at = next;
        }
        self.first_range = meta.aux;
        if self.last_range == range {
            self.last_range = NONE;
        }
        self.forget(range);
        self.ranges -= 1;
        end
    }

    /// `range` changed: it is the first to be reported.
    fn touch(&mut self, range: u32) {
        let known = self.recent.iter().position(|&other| other == range);
        self.recent[..=known.unwrap_or(SackBlocks::MAX - 1)].rotate_right(1);
        self.recent[0] = range;
    }

    /// `range` isn't one any more.
    fn forget(&mut self, range: u32) {
        if let Some(at) = self.recent.iter().position(|&other| other == range) {
            self.recent[at..].rotate_left(1);
            self.recent[SackBlocks::MAX - 1] = NONE;
        }
    }

    /// Appends what comes next, without a hole anywhere.
    #[inline]
    pub(crate) fn append_next<M: Memory>(&mut self, pool: &mut FramePool<M>, chunk: Chunk, frames_max: u32) {
        debug_assert!(!self.has_holes() && !chunk.is_empty());
        self.append_frame(pool, chunk, frames_max);
    }

    fn append_frame<M: Memory>(&mut self, pool: &mut FramePool<M>, chunk: Chunk, frames_max: u32) {
        self.bytes += chunk.len() as u32;
        if is_crowded(self.frames, self.bytes, frames_max) && pool.fits_behind(self.tail, &chunk) {
            pool.copy_to_parked(&chunk, self.tail);
            pool.release(chunk);
            return;
        }
        let index = pool.park(chunk, Owner::Rx);
        if self.tail == NONE {
            self.head = index;
        } else {
            pool.meta_mut(self.tail).next = index;
        }
        self.tail = index;
        self.frames += 1;
    }

    /// Keeps a segment ahead of a hole.
    fn insert_ahead<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        mut chunk: Chunk,
        mut seq: SeqNumber,
        frames_max: u32,
    ) -> Inserted {
        let (before, after) = self.neighbours(pool, seq);
        if before != NONE {
            let end = range_end(pool, before);
            if seq.lt(end) {
                let old = end.since(seq) as usize;
                if old >= chunk.len() {
                    pool.release(chunk);
                    // The block behind a DSACK holds it, or the peer takes it for no DSACK (RFC 2883 §4).
                    self.touch(before);
                    return Inserted::Dropped(DropReason::Duplicate);
                }
                chunk.advance(old);
                seq = end;
            }
        }
        if after != NONE {
            let gap = SeqNumber(pool.meta(after).seq).since(seq) as usize;
            if chunk.len() > gap {
                self.keep_rest(pool, &chunk, seq, after);
                chunk.truncate(gap);
            }
            if chunk.is_empty() {
                pool.release(chunk);
                return Inserted::Dropped(DropReason::Duplicate);
            }
        }
        self.link(pool, chunk, seq, (before, after), frames_max)
    }

    /// What of a segment lies beyond the range `range`, and between those further ahead: copied behind their text, where
    /// it fits in their frames, as it does unless they are long. A peer that sends again in larger segments what it
    /// had sent in small ones would fill one hole in each round trip otherwise. S5.5
    fn keep_rest<M: Memory>(&mut self, pool: &mut FramePool<M>, chunk: &Chunk, seq: SeqNumber, range: u32) {
        let end = seq + chunk.len() as u32;
        loop {
            let (from, tail, next) =
                (range_end(pool, range), pool.meta(range).range_tail, pool.meta(range).aux);
            if end.leq(from) {
                return;
            }
            let joins = next != NONE && SeqNumber(pool.meta(next).seq).leq(end);
            let to = if joins { SeqNumber(pool.meta(next).seq) } else { end };
            let octets = to.since(from);
            if !pool.copy_part_to_parked(chunk, from.since(seq) as usize, octets as usize, tail) {
                return;
            }
            self.ooo_bytes += octets;
            self.touch(range);
            if !joins {
                return;
            }
            self.join(pool, range, tail, next);
        }
    }

    /// The last range that starts at or before `seq`, and the one after it.
    fn neighbours<M: Memory>(&self, pool: &FramePool<M>, seq: SeqNumber) -> (u32, u32) {
        // The usual case: behind everything there is.
        if self.last_range != NONE && SeqNumber(pool.meta(self.last_range).seq).leq(seq) {
            return (self.last_range, NONE);
        }
        let (mut before, mut after) = (NONE, self.first_range);
        while after != NONE && SeqNumber(pool.meta(after).seq).leq(seq) {
            before = after;
            after = pool.meta(after).aux;
        }
        (before, after)
    }

    fn link<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        chunk: Chunk,
        seq: SeqNumber,
        (before, after): (u32, u32),
        frames_max: u32,
    ) -> Inserted {
        let end = seq + chunk.len() as u32;
        let joins_before = before != NONE && range_end(pool, before) == seq;
        let joins_after = after != NONE && SeqNumber(pool.meta(after).seq) == end;
        if !joins_before && !joins_after && self.ranges >= RANGES_MAX {
            pool.release(chunk);
            return Inserted::Dropped(DropReason::OutOfOrderLimit);
        }
        let octets = chunk.len() as u32;
        if joins_before && is_crowded(self.ooo_frames, self.ooo_bytes + octets, frames_max) {
            let tail = pool.meta(before).range_tail;
            if pool.fits_behind(tail, &chunk) {
                pool.copy_to_parked(&chunk, tail);
                pool.release(chunk);
                self.ooo_bytes += octets;
                self.touch(before);
                if joins_after {
                    self.join(pool, before, tail, after);
                }
                return Inserted::OutOfOrder;
            }
        }
        if octets < PAYLOAD_WORTH_A_FRAME && self.is_full_of_little() {
            pool.release(chunk);
            return Inserted::Dropped(DropReason::OutOfOrderLimit);
        }
        self.ooo_bytes += octets;
        let index = pool.park(chunk, Owner::Rx);
        self.ooo_frames += 1;
        let meta = pool.meta_mut(index);
        meta.seq = seq.0;
        meta.range_tail = index;
        meta.aux = NONE;
        if joins_before {
            let tail = pool.meta(before).range_tail;
            pool.meta_mut(tail).next = index;
            pool.meta_mut(before).range_tail = index;
            self.touch(before);
            if joins_after {
                self.join(pool, before, index, after);
            }
            return Inserted::OutOfOrder;
        }
        if joins_after {
            self.precede(pool, index, after);
        } else {
            pool.meta_mut(index).aux = after;
            self.ranges += 1;
            if after == NONE {
                self.last_range = index;
            }
        }
        if before == NONE {
            self.first_range = index;
        } else {
            pool.meta_mut(before).aux = index;
        }
        self.touch(index);
        Inserted::OutOfOrder
    }

    /// Whether many frames hold little each: what arrives in front of a range, or opens one, can't be copied behind
    /// anything (T12).
    fn is_full_of_little(&self) -> bool {
        self.ooo_frames >= LITTLE_FRAMES_MAX && self.ooo_bytes / self.ooo_frames < PAYLOAD_WORTH_A_FRAME
    }

    /// `index` becomes the head of the range that `after` headed.
    fn precede<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32, after: u32) {
        let old = *pool.meta(after);
        let meta = pool.meta_mut(index);
        meta.next = after;
        meta.range_tail = old.range_tail;
        meta.aux = old.aux;
        if self.last_range == after {
            self.last_range = index;
        }
        self.forget(after);
    }

    /// The range `before`, whose last frame is now `index`, has reached the range `after`.
    fn join<M: Memory>(&mut self, pool: &mut FramePool<M>, before: u32, index: u32, after: u32) {
        let old = *pool.meta(after);
        pool.meta_mut(index).next = after;
        let meta = pool.meta_mut(before);
        meta.range_tail = old.range_tail;
        meta.aux = old.aux;
        if self.last_range == after {
            self.last_range = before;
        }
        self.forget(after);
        self.ranges -= 1;
    }

    /// Ranges held out of order as SACK blocks, those that changed last first, so that each is reported several
    /// times and the loss of an ACK loses nothing (RFC 2018 §4).
    pub(crate) fn sack_blocks<M: Memory>(
        &self,
        pool: &FramePool<M>,
    ) -> impl Iterator<Item = (SeqNumber, SeqNumber)> {
        let block = move |range: u32| (SeqNumber(pool.meta(range).seq), range_end(pool, range));
        let mut at = self.first_range;
        let others = core::iter::from_fn(move || {
            while at != NONE {
                let range = at;
                at = pool.meta(range).aux;
                if !self.recent.contains(&range) {
                    return Some(range);
                }
            }
            None
        });
        self.recent.iter().copied().filter(|&range| range != NONE).chain(others).map(block)
    }

    /// Releases what lies ahead of a hole; the peer sends it again (RFC 2018 §8 allows it). Frames released.
    pub(crate) fn prune<M: Memory>(&mut self, pool: &mut FramePool<M>) -> u32 {
        let mut range = self.first_range;
        while range != NONE {
            let next = pool.meta(range).aux;
            release_list(pool, range);
            range = next;
        }
        let pruned = self.ooo_frames;
        *self =
            Self { head: self.head, tail: self.tail, frames: self.frames, bytes: self.bytes, ..Self::new() };
        pruned
    }

    /// Releases every frame.
    pub(crate) fn clear<M: Memory>(&mut self, pool: &mut FramePool<M>) {
        self.prune(pool);
        release_list(pool, self.head);
        *self = Self::new();
    }
}

fn is_crowded(frames: u32, bytes: u32, frames_max: u32) -> bool {
    frames >= FRAMES_BEFORE_COPYING && (bytes / frames < PAYLOAD_WORTH_A_FRAME || frames / 4 >= frames_max)
}

fn range_end<M: Memory>(pool: &FramePool<M>, range: u32) -> SeqNumber {
    let tail = pool.meta(pool.meta(range).range_tail);
    SeqNumber(tail.seq) + u32::from(tail.len)
}

fn release_list<M: Memory>(pool: &mut FramePool<M>, mut at: u32) {
    while at != NONE {
        let next = pool.meta(at).next;
        pool.release_index(at);
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HeapMemory;
    use proptest::prelude::*;

    struct Receiver {
        queue: Reassembly,
        pool: FramePool<HeapMemory>,
        nxt: SeqNumber,
        read: Vec<u8>,
    }

    impl Receiver {
        fn new(first: u32) -> Self {
            Self {
                queue: Reassembly::new(),
                pool: FramePool::new(HeapMemory::new(512, 2048)),
                nxt: SeqNumber(first),
                read: Vec::new(),
            }
        }

        fn segment(&mut self, seq: SeqNumber, payload: &[u8]) -> Inserted {
            let mut chunk = self.pool.alloc(Owner::Rx).expect("free");
            self.pool.append(&mut chunk, payload);
            let inserted = self.queue.insert(&mut self.pool, chunk, seq, self.nxt, 256);
            if let Inserted::InOrder(octets) = inserted {
                self.nxt += octets;
            }
            self.pool.assert_conserved();
            inserted
        }

        fn drain(&mut self) {
            while let Some(chunk) = self.queue.pop(&mut self.pool) {
                self.read.extend_from_slice(self.pool.bytes(&chunk));
                self.pool.release(chunk);
            }
        }
    }

    #[test]
    fn s5_5_a_filled_hole_releases_what_was_behind_it() {
        let mut r = Receiver::new(100);
        assert_eq!(r.segment(SeqNumber(103), b"def"), Inserted::OutOfOrder);
        assert_eq!(r.segment(SeqNumber(109), b"jkl"), Inserted::OutOfOrder);
        let blocks: Vec<_> = r.queue.sack_blocks(&r.pool).map(|(a, b)| (a.0, b.0)).collect();
        assert_eq!(blocks, [(109, 112), (103, 106)]);
        assert_eq!(r.segment(SeqNumber(106), b"ghi"), Inserted::OutOfOrder);
        let blocks: Vec<_> = r.queue.sack_blocks(&r.pool).map(|(a, b)| (a.0, b.0)).collect();
        assert_eq!(blocks, [(103, 112)]);
        assert_eq!(r.segment(SeqNumber(100), b"abc"), Inserted::InOrder(12));
        r.drain();
        assert_eq!(r.read, b"abcdefghijkl");
        assert!(!r.queue.has_holes());
        assert_eq!(r.pool.free_count(), r.pool.total());
    }

    #[test]
    fn t13_octets_accepted_first_stay() {
        let mut r = Receiver::new(0);
        r.segment(SeqNumber(2), b"CD");
        r.segment(SeqNumber(1), b"bxx");
        r.segment(SeqNumber(0), b"axxx");
        r.drain();
        assert_eq!(r.read, b"abCD");
        assert_eq!(r.segment(SeqNumber(0), b"zzzz"), Inserted::Dropped(DropReason::Duplicate));
    }

    /// RFC 2018 §8: what was dropped isn't reported any more.
    #[test]
    fn d2_what_was_pruned_is_not_reported() {
        let mut r = Receiver::new(0);
        assert_eq!(r.segment(SeqNumber(10), b"abc"), Inserted::OutOfOrder);
        assert_eq!(r.queue.sack_blocks(&r.pool).count(), 1);
        assert_eq!(r.queue.prune(&mut r.pool), 1);
        assert_eq!(r.queue.sack_blocks(&r.pool).count(), 0);
        assert_eq!(r.segment(SeqNumber(10), b"abc"), Inserted::OutOfOrder);
        assert_eq!(r.queue.sack_blocks(&r.pool).count(), 1);
        r.queue.clear(&mut r.pool);
    }

    #[test]
    fn t12_ranges_and_frames_are_bounded() {
        for (len, bound) in [(1, LITTLE_FRAMES_MAX), (PAYLOAD_WORTH_A_FRAME, u32::from(RANGES_MAX))] {
            let mut r = Receiver::new(0);
            let mut kept = 0;
            for n in 0..1000 {
                let text = vec![b'x'; len as usize];
                if r.segment(SeqNumber((len + 1) * n + 1), &text) == Inserted::OutOfOrder {
                    kept += 1;
                }
            }
            assert_eq!(kept, bound);
            r.queue.clear(&mut r.pool);
            assert_eq!(r.pool.free_count(), r.pool.total());
        }
    }

    #[test]
    fn t12_one_octet_segments_share_frames() {
        let mut r = Receiver::new(0);
        for n in 0..5000u32 {
            assert_eq!(r.segment(SeqNumber(n), &[n as u8]), Inserted::InOrder(1));
        }
        for n in 0..5000u32 {
            assert_eq!(r.segment(SeqNumber(6000 + n), &[n as u8]), Inserted::OutOfOrder);
        }
        assert!(r.pool.count(Owner::Rx) < 150, "{:?}", r.pool);
        r.drain();
        let expected: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        assert_eq!(r.read, expected);
    }

    /// T12: however single octets arrive, they don't pin a frame each: from behind, in pairs that close their own
    /// gap, and with the hole filled each time.
    #[test]
    fn t12_one_octet_segments_share_frames_in_whatever_order() {
        let (mut r, mut model) = (Receiver::new(0), 0u32);
        for n in (1..400u32).rev() {
            r.segment(SeqNumber(n), b"x");
        }
        assert!(r.pool.count(Owner::Rx) < 200, "descending: {:?}", r.pool);
        r.queue.clear(&mut r.pool);
        for n in (2..400u32).step_by(2) {
            r.segment(SeqNumber(n + 1), b"x");
            r.segment(SeqNumber(n), b"x");
        }
        assert!(r.pool.count(Owner::Rx) < 200, "pairs: {:?}", r.pool);
        r.queue.clear(&mut r.pool);
        for _ in 0..50 {
            let first = r.nxt + 1;
            for n in (0..60u32).rev() {
                r.segment(first + n, &[(model + 1 + n) as u8]);
            }
            assert!(matches!(r.segment(r.nxt, &[model as u8]), Inserted::InOrder(61)));
            model += 61;
        }
        assert!(r.pool.count(Owner::Rx) < 200, "filled: {:?}", r.pool);
        r.drain();
        let expected: Vec<u8> = (0..model).map(|n| n as u8).collect();
        assert_eq!(r.read, expected);
    }

    proptest! {
        /// Against a model: every octet is taken from the first segment that brought it. T13, T14
        #[test]
        fn agrees_with_a_byte_map(
            first in prop_oneof![Just(0u32), Just(0x7fff_fff0), Just(0xffff_ffc0), any::<u32>()],
            segments in proptest::collection::vec((0u32..200, 1usize..40, any::<bool>()), 1..120),
        ) {
            let mut r = Receiver::new(first);
            let mut model: Vec<Option<u8>> = vec![None; 300];
            let (mut tag, mut model_nxt) = (0u8, 0usize);
            for (offset, len, drain) in segments {
                tag = tag.wrapping_add(1);
                let before: Vec<_> = r.queue.sack_blocks(&r.pool).map(|(a, b)| (a.since(SeqNumber(first)) as usize, b.since(SeqNumber(first)) as usize)).collect();
                let inserted = r.segment(SeqNumber(first) + offset, &vec![tag; len]);
                let after = r.nxt.since(SeqNumber(first)) as usize;
                // What is taken is new, and all that is new is taken, within the bounds on ranges.
                let held = |at: usize, blocks: &[(usize, usize)]| blocks.iter().any(|&(a, b)| a <= at && at < b);
                let now: Vec<_> = r.queue.sack_blocks(&r.pool).map(|(a, b)| (a.since(SeqNumber(first)) as usize, b.since(SeqNumber(first)) as usize)).collect();
                let covered = offset as usize..offset as usize + len;
                for (at, octet) in model.iter_mut().enumerate().take(covered.end).skip(covered.start) {
                    if at >= model_nxt && !held(at, &before) && (at < after || held(at, &now)) {
                        prop_assert!(octet.is_none());
                        *octet = Some(tag);
                    }
                }
                if inserted != Inserted::Dropped(DropReason::OutOfOrderLimit) {
                    prop_assert!(covered.clone().all(|at| at < after || held(at, &now)));
                }
                for pair in now.iter() { prop_assert!(pair.0 < pair.1); }
                model_nxt = after;
                prop_assert!(model[..model_nxt].iter().all(Option::is_some));
                if drain { r.drain(); }
            }
            r.drain();
            let expected: Vec<u8> = model[..model_nxt].iter().map(|o| o.expect("received")).collect();
            prop_assert_eq!(&r.read, &expected);
            r.queue.clear(&mut r.pool);
            prop_assert_eq!(r.pool.free_count(), r.pool.total());
        }
    }
}
