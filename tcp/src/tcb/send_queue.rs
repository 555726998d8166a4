//! What the application has sent and the peer hasn't acknowledged (S5.1).
//!
//! ```text
//!   head                         unsent             tail
//!    │                             │                 │
//!    ▼                             ▼                 ▼
//!  [frame]→[frame]→[frame]→[frame]→[frame]→ … →[frame]
//!  └───── sent, not acked ────────┘└─ may be sent as windows open ─┘
//!  SND.UNA                      SND.NXT             end
//! ```
//!
//! One frame is one segment. The list is threaded through the frames' `Meta`, so queueing
//! allocates nothing. A second list, in the order of transmission, holds the frames in flight: sent,
//! neither SACKED nor LOST. What was sent longest ago is at its front, where loss detection looks (RFC 8985 §6.2).
//! The first frame of each run of SACKED ones knows the run's last, so that looking for the end of a SACK block passes
//! holes and runs, not frames.

use crate::frame::{Chunk, FramePool, Memory, NONE, Owner};
use crate::seq::SeqNumber;
use crate::tcb::rate::TxRecord;
use crate::wire::checksum;

/// The peer has it, by SACK.
pub(crate) const SACKED: u8 = 1;
/// Taken for lost, to be sent again.
pub(crate) const LOST: u8 = 2;
/// In the list of what is in flight.
const IN_FLIGHT: u8 = 4;

/// The send queue of one connection.
#[derive(Debug)]
pub(crate) struct SendQueue {
    head: u32,
    tail: u32,
    /// First frame that was never sent as a whole.
    unsent: u32,
    frames: u32,
    bytes: u32,
    /// Sequence number after the last queued octet; FIN's number once it is queued.
    end: SeqNumber,
    /// Octets marked [`SACKED`].
    pub(crate) sacked: u32,
    /// Frames marked [`SACKED`].
    pub(crate) sacked_frames: u32,
    /// Octets marked [`LOST`].
    pub(crate) lost: u32,
    /// No frame before this one is [`LOST`].
    lost_from: u32,
    /// The furthest frame that is [`SACKED`], and the furthest that was sent.
    sacked_last: u32,
    sent_last: u32,
    /// First frame of the run that [`sacked_last`](Self::sacked_last) ends.
    last_run: u32,
    /// Frames in flight, by the time of their last transmission.
    earliest: u32,
    latest: u32,
}

/// A frame, or the beginning of one, that is known to have arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    /// Octets newly delivered.
    pub(crate) octets: u32,
    /// Number behind the last of them.
    pub(crate) end: SeqNumber,
    /// The whole frame, not just its beginning.
    pub(crate) whole: bool,
    /// How often it was sent.
    pub(crate) sent: u8,
    /// When it was sent last, and what was known then.
    pub(crate) at: u32,
    pub(crate) record: TxRecord,
}

impl SendQueue {
    /// Empty; the first octet will be `start`.
    pub(crate) fn new(start: SeqNumber) -> Self {
        Self {
            head: NONE,
            tail: NONE,
            unsent: NONE,
            frames: 0,
            bytes: 0,
            end: start,
            sacked: 0,
            sacked_frames: 0,
            lost: 0,
            lost_from: NONE,
            sacked_last: NONE,
            sent_last: NONE,
            last_run: NONE,
            earliest: NONE,
            latest: NONE,
        }
    }

    /// Reads something of the first frame's bookkeeping, which an acknowledgement will need: so that it is near.
    #[inline]
    pub(crate) fn touch<M: Memory>(&self, pool: &FramePool<M>) -> u32 {
        if self.head == NONE { 0 } else { pool.meta(self.head).seq ^ pool.transmission(self.head).at }
    }

    pub(crate) fn frames(&self) -> u32 {
        self.frames
    }

    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    pub(crate) fn end(&self) -> SeqNumber {
        self.end
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// First frame that was never sent.
    pub(crate) fn unsent(&self) -> Option<u32> {
        (self.unsent != NONE).then_some(self.unsent)
    }

    /// Last frame, if it was never sent: where Nagle's small writes are gathered.
    pub(crate) fn unsent_tail(&self) -> Option<u32> {
        (self.unsent != NONE).then_some(self.tail)
    }

    pub(crate) fn is_tail(&self, index: u32) -> bool {
        index == self.tail
    }

    /// Appends a chunk of at most one MSS.
    pub(crate) fn push<M: Memory>(&mut self, pool: &mut FramePool<M>, chunk: Chunk) {
        let len = chunk.len() as u32;
        // Here, where the payload is near: it was just written or received. Until it is sent, perhaps again, much may
        // lie between.
        let sum = checksum::sum(pool.bytes(&chunk)) as u32;
        let index = pool.park(chunk, Owner::SendQueue);
        let meta = pool.meta_mut(index);
        (meta.seq, meta.aux) = (self.end.0, sum);
        if self.tail == NONE {
            self.head = index;
        } else {
            pool.meta_mut(self.tail).next = index;
        }
        self.tail = index;
        if self.unsent == NONE {
            self.unsent = index;
        }
        self.frames += 1;
        self.bytes += len;
        self.end += len;
    }

    /// Copies `chunk` behind the last frame's payload, if that was never sent and stays within
    /// `mss` (Nagle's gathering). Gives the chunk back if it doesn't fit.
    pub(crate) fn gather<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        chunk: Chunk,
        mss: usize,
    ) -> Result<(), Chunk> {
        let Some(index) = self.unsent_tail() else { return Err(chunk) };
        if pool.owner(index) == Owner::TxRing {
            return Err(chunk);
        }
        let len = chunk.len();
        let meta = *pool.meta(index);
        let used = usize::from(meta.len);
        if used + len > mss || usize::from(meta.start) + used + len > pool.frame_size() {
            return Err(chunk);
        }
        pool.copy_to_parked(&chunk, index);
        pool.release(chunk);
        pool.meta_mut(index).aux = NONE;
        self.bytes += len as u32;
        self.end += len as u32;
        Ok(())
    }

    /// Cuts a frame after `at` octets: what lies behind moves into a frame of its own, copied and counted, with
    /// the same marks. False, and nothing changed, when no frame is free.
    ///
    /// # Panics
    /// If the frame is no longer than that, or the kernel has it.
    pub(crate) fn cut<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32, at: u16) -> bool {
        let meta = *pool.meta(index);
        assert!(0 < at && at < meta.len && meta.flags & SACKED == 0, "nothing to cut");
        let Some(mut rest) = pool.alloc(Owner::SendQueue) else { return false };
        pool.copy_payload(index, usize::from(meta.start + at), &mut rest, usize::from(meta.len - at));
        let behind = pool.park(rest, Owner::SendQueue);
        let rest = pool.meta_mut(behind);
        rest.seq = meta.seq.wrapping_add(u32::from(at));
        (rest.next, rest.sent, rest.flags, rest.aux) = (meta.next, meta.sent, meta.flags, NONE);
        rest.flags &= !IN_FLIGHT;
        *pool.transmission_mut(behind) = *pool.transmission(index);
        if meta.flags & IN_FLIGHT != 0 {
            self.join_flight(pool, behind, index);
        }
        let front = pool.meta_mut(index);
        (front.len, front.next, front.aux) = (at, behind, NONE);
        for last in [&mut self.tail, &mut self.sent_last] {
            if *last == index {
                *last = behind;
            }
        }
        self.frames += 1;
        true
    }

    /// The frame was put into the TX ring: all of it or, if it isn't `whole`, its first octets.
    pub(crate) fn sent<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32, whole: bool, at: u32) {
        pool.transmission_mut(index).at = at;
        let meta = pool.meta_mut(index);
        meta.sent = meta.sent.saturating_add(1);
        if meta.flags & LOST != 0 {
            meta.flags &= !LOST;
            self.lost -= u32::from(meta.len);
        }
        let next = meta.next;
        if index == self.unsent {
            if !whole {
                return;
            }
            self.unsent = next;
            self.sent_last = index;
        }
        self.leave_flight(pool, index);
        self.join_flight(pool, index, self.latest);
    }

    /// Whether whatever is out is out whole and neither [`SACKED`] nor [`LOST`].
    #[inline]
    pub(crate) fn is_plain<M: Memory>(&self, pool: &FramePool<M>) -> bool {
        let whole = self.unsent == NONE || pool.meta(self.unsent).sent == 0;
        self.sacked == 0 && self.lost == 0 && whole
    }

    /// The next frame to be sent is on its way, whole, for the first time.
    pub(crate) fn sent_first<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32, at: u32) {
        debug_assert_eq!(index, self.unsent);
        let meta = pool.meta_mut(index);
        (meta.sent, meta.flags) = (1, IN_FLIGHT);
        (self.unsent, self.sent_last) = (meta.next, index);
        let transmission = pool.transmission_mut(index);
        (transmission.at, transmission.earlier, transmission.later) = (at, self.latest, NONE);
        match self.latest {
            NONE => self.earliest = index,
            latest => pool.transmission_mut(latest).later = index,
        }
        self.latest = index;
    }

    /// Whether a frame ends at `end`, which is ahead of the first and not behind what was sent.
    pub(crate) fn ends_at<M: Memory>(&self, pool: &FramePool<M>, end: SeqNumber) -> bool {
        let mut at = self.head;
        while at != self.unsent {
            let meta = pool.meta(at);
            let behind = SeqNumber(meta.seq) + u32::from(meta.len);
            if end.leq(behind) {
                return behind == end;
            }
            at = meta.next;
        }
        false
    }

    /// Frees the frames before `una`, where one of them ends. All that is out was sent once and in order, and is in
    /// flight. When the last of those that are gone was sent.
    pub(crate) fn acknowledge_whole<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        una: SeqNumber,
    ) -> Option<u32> {
        let mut last = NONE;
        while self.head != self.unsent {
            let index = self.head;
            let meta = pool.meta(index);
            if una.leq(SeqNumber(meta.seq)) {
                break;
            }
            debug_assert!(meta.sent == 1 && meta.flags == IN_FLIGHT, "{meta:?}");
            self.bytes -= u32::from(meta.len);
            self.head = meta.next;
            self.frames -= 1;
            last = index;
            pool.release_index(index);
        }
        if last == NONE {
            return None;
        }
        self.lost_from = NONE;
        if self.head == NONE {
            self.tail = NONE;
        }
        if self.head == self.unsent {
            (self.sent_last, self.earliest, self.latest) = (NONE, NONE, NONE);
        } else {
            self.earliest = self.head;
            pool.transmission_mut(self.head).earlier = NONE;
        }
        Some(pool.transmission(last).at)
    }

    /// Frees everything before `una`, and tells of each frame that arrived by that.
    pub(crate) fn acknowledge<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        una: SeqNumber,
        mut delivered: impl FnMut(&Delivered),
    ) {
        while self.head != NONE {
            let index = self.head;
            let meta = *pool.meta(index);
            let seq = SeqNumber(meta.seq);
            let len = u32::from(meta.len);
            if una.leq(seq) || meta.sent == 0 {
                break;
            }
            let gone = una.since(seq).min(len);
            if meta.flags & SACKED == 0 {
                delivered(&Self::delivery(pool, index, gone));
            }
            self.forget(meta.flags, gone);
            self.bytes -= gone;
            if gone < len {
                let meta = pool.meta_mut(index);
                meta.seq = una.0;
                meta.start += gone as u16;
                meta.len -= gone as u16;
                meta.aux = NONE;
                break;
            }
            if meta.flags & SACKED != 0 {
                self.sacked_frames -= 1;
                self.shorten_run(pool, index);
            }
            self.leave_flight(pool, index);
            self.head = meta.next;
            if self.lost_from == index {
                self.lost_from = meta.next;
            }
            for place in [&mut self.sacked_last, &mut self.sent_last, &mut self.tail] {
                if *place == index {
                    *place = NONE;
                }
            }
            self.frames -= 1;
            pool.release_index(index);
        }
    }

    fn delivery<M: Memory>(pool: &FramePool<M>, index: u32, octets: u32) -> Delivered {
        let (meta, transmission) = (pool.meta(index), pool.transmission(index));
        Delivered {
            octets,
            end: SeqNumber(meta.seq) + octets,
            whole: octets == u32::from(meta.len),
            sent: meta.sent,
            at: transmission.at,
            record: transmission.record,
        }
    }

    fn forget(&mut self, flags: u8, octets: u32) {
        if flags & SACKED != 0 {
            self.sacked -= octets;
        }
        if flags & LOST != 0 {
            self.lost -= octets;
        }
    }

    // --- what is in flight, by time ------------------------------------------------------------

    /// The frame in flight that was sent longest ago.
    pub(crate) fn earliest_sent(&self) -> Option<u32> {
        (self.earliest != NONE).then_some(self.earliest)
    }

    /// The furthest frame that was sent.
    pub(crate) fn last_sent(&self) -> Option<u32> {
        (self.sent_last != NONE).then_some(self.sent_last)
    }

    /// Puts a frame behind `earlier`, or in front of all.
    fn join_flight<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32, earlier: u32) {
        let later = if earlier == NONE { self.earliest } else { pool.transmission(earlier).later };
        pool.meta_mut(index).flags |= IN_FLIGHT;
        let transmission = pool.transmission_mut(index);
        (transmission.earlier, transmission.later) = (earlier, later);
        match earlier {
            NONE => self.earliest = index,
            earlier => pool.transmission_mut(earlier).later = index,
        }
        match later {
            NONE => self.latest = index,
            later => pool.transmission_mut(later).earlier = index,
        }
    }

    fn leave_flight<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32) {
        let meta = pool.meta_mut(index);
        if meta.flags & IN_FLIGHT == 0 {
            return;
        }
        meta.flags &= !IN_FLIGHT;
        let (earlier, later) = (pool.transmission(index).earlier, pool.transmission(index).later);
        match earlier {
            NONE => self.earliest = later,
            earlier => pool.transmission_mut(earlier).later = later,
        }
        match later {
            NONE => self.latest = earlier,
            later => pool.transmission_mut(later).earlier = earlier,
        }
    }

    // --- by sequence number --------------------------------------------------------------------

    /// Frames that were sent and not yet acknowledged, oldest first.
    #[cfg(test)]
    pub(crate) fn outstanding<'a, M: Memory>(
        &self,
        pool: &'a FramePool<M>,
    ) -> impl Iterator<Item = u32> + use<'a, M> {
        let (mut at, unsent) = (self.head, self.unsent);
        core::iter::from_fn(move || {
            if at == NONE || at == unsent {
                return None;
            }
            let index = at;
            at = pool.meta(index).next;
            Some(index)
        })
    }

    /// Next frame after `index` among those sent, or the first with `None`.
    pub(crate) fn next_outstanding<M: Memory>(&self, pool: &FramePool<M>, index: Option<u32>) -> Option<u32> {
        let at = index.map_or(self.head, |index| pool.meta(index).next);
        (at != NONE && at != self.unsent).then_some(at)
    }

    /// The first frame taken for lost. Amortised O(1): a search goes on where the last one ended.
    pub(crate) fn first_lost<M: Memory>(&mut self, pool: &FramePool<M>) -> Option<u32> {
        if self.lost == 0 {
            return None;
        }
        while self.lost_from != NONE && pool.meta(self.lost_from).flags & LOST == 0 {
            self.lost_from = pool.meta(self.lost_from).next;
        }
        (self.lost_from != NONE).then_some(self.lost_from)
    }

    /// Marks what a SACK block covers and tells of each frame that is news. Looks at no more than `budget` frames and
    /// runs; what is left of it.
    pub(crate) fn mark_block<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        (start, end): (SeqNumber, SeqNumber),
        mut budget: u32,
        mut delivered: impl FnMut(&Delivered),
    ) -> u32 {
        // Nearly always the furthest run grows.
        let grows = self.last_run != NONE && SeqNumber(pool.meta(self.last_run).seq).leq(start);
        let mut at = if grows { Some(self.last_run) } else { self.next_outstanding(pool, None) };
        let mut run = NONE;
        while let Some(index) = at
            && budget > 0
        {
            budget -= 1;
            let meta = *pool.meta(index);
            let seq = SeqNumber(meta.seq);
            if meta.flags & SACKED != 0 {
                // The first of a run, because the walk comes from outside.
                run = self.join_runs(pool, run, index);
                at = self.next_outstanding(pool, Some(pool.meta(run).range_tail));
                continue;
            }
            if end.leq(seq) {
                break;
            }
            let covered = start.leq(seq) && (seq + u32::from(meta.len)).leq(end);
            if covered {
                delivered(&self.mark_sacked(pool, index));
                run = self.join_runs(pool, run, index);
            } else {
                run = NONE;
            }
            at = self.next_outstanding(pool, Some(index));
        }
        budget
    }

    /// The run that begins at `next` follows that of `run`, if there is one. The first frame of what they are now.
    fn join_runs<M: Memory>(&mut self, pool: &mut FramePool<M>, run: u32, next: u32) -> u32 {
        let tail = pool.meta(next).range_tail;
        let first = if run == NONE { next } else { run };
        pool.meta_mut(first).range_tail = tail;
        if tail == self.sacked_last {
            self.last_run = first;
        }
        first
    }

    /// The first frame of a run goes.
    fn shorten_run<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32) {
        let (next, tail) = (pool.meta(index).next, pool.meta(index).range_tail);
        let rest = if tail == index { NONE } else { next };
        if rest != NONE {
            pool.meta_mut(rest).range_tail = tail;
        }
        if self.last_run == index {
            self.last_run = rest;
        }
    }

    /// Whether `index` lies before the frame `place`.
    fn is_before<M: Memory>(pool: &FramePool<M>, index: u32, place: u32) -> bool {
        place != NONE && SeqNumber(pool.meta(index).seq).lt(SeqNumber(pool.meta(place).seq))
    }

    /// The peer has a frame, which is news. It is a run by itself so far.
    fn mark_sacked<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32) -> Delivered {
        let meta = *pool.meta(index);
        if self.sacked_last == NONE || Self::is_before(pool, self.sacked_last, index) {
            self.sacked_last = index;
        }
        self.leave_flight(pool, index);
        self.forget(meta.flags, u32::from(meta.len));
        let meta = pool.meta_mut(index);
        meta.flags = (meta.flags | SACKED) & !LOST;
        meta.range_tail = index;
        let octets = u32::from(meta.len);
        self.sacked += octets;
        self.sacked_frames += 1;
        Self::delivery(pool, index, octets)
    }

    /// Takes a frame for lost; its octets, if it wasn't already and hasn't arrived.
    pub(crate) fn mark_lost<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32) -> u32 {
        if pool.meta(index).flags & (SACKED | LOST) != 0 {
            return 0;
        }
        self.leave_flight(pool, index);
        let meta = pool.meta_mut(index);
        meta.flags |= LOST;
        let octets = u32::from(meta.len);
        self.lost += octets;
        if self.lost_from == NONE || Self::is_before(pool, index, self.lost_from) {
            self.lost_from = index;
        }
        octets
    }

    /// Nothing was lost after all: what hasn't been sent again is in flight as before. O(frames taken for lost),
    /// each of which was marked once.
    pub(crate) fn unmark_lost<M: Memory>(&mut self, pool: &mut FramePool<M>) {
        // Sent before everything that was sent since.
        let mut behind = NONE;
        while let Some(index) = self.first_lost(pool) {
            let meta = pool.meta_mut(index);
            meta.flags &= !LOST;
            self.lost -= u32::from(meta.len);
            self.join_flight(pool, index, behind);
            behind = index;
        }
    }

    /// The peer has dropped it again. To be called for every frame, or for none.
    pub(crate) fn clear_sacked<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32) {
        (self.sacked_last, self.last_run) = (NONE, NONE);
        let meta = pool.meta_mut(index);
        if meta.flags & SACKED != 0 {
            meta.flags &= !SACKED;
            self.sacked -= u32::from(meta.len);
            self.sacked_frames -= 1;
        }
    }

    /// Releases every frame.
    pub(crate) fn clear<M: Memory>(&mut self, pool: &mut FramePool<M>) {
        while self.head != NONE {
            let index = self.head;
            self.head = pool.meta(index).next;
            pool.release_index(index);
        }
        *self = Self::new(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HeapMemory;

    fn queue(lens: &[usize]) -> (SendQueue, FramePool<HeapMemory>) {
        let mut pool = FramePool::new(HeapMemory::new(64, 2048));
        // Starts just below the wrap (T14).
        let mut queue = SendQueue::new(SeqNumber(u32::MAX - 5));
        for &len in lens {
            let mut chunk = pool.alloc(Owner::App).expect("free");
            let octets: Vec<u8> = (0..len).map(|octet| octet as u8).collect();
            pool.append(&mut chunk, &octets);
            queue.push(&mut pool, chunk);
        }
        (queue, pool)
    }

    fn send(queue: &mut SendQueue, pool: &mut FramePool<HeapMemory>, index: u32, whole: bool, at: u32) {
        pool.transmit_parked(index);
        queue.sent(pool, index, whole, at);
        pool.completed(index);
    }

    fn send_all(queue: &mut SendQueue, pool: &mut FramePool<HeapMemory>, at: u32) {
        while let Some(index) = queue.unsent() {
            send(queue, pool, index, true, at);
        }
    }

    fn acknowledge(
        queue: &mut SendQueue,
        pool: &mut FramePool<HeapMemory>,
        una: SeqNumber,
    ) -> Vec<Delivered> {
        let mut all = Vec::new();
        queue.acknowledge(pool, una, |delivered| all.push(*delivered));
        all
    }

    #[test]
    fn s5_1_partial_and_full_acknowledgement_across_the_wrap() {
        let (mut queue, mut pool) = queue(&[10, 10, 10]);
        let start = SeqNumber(u32::MAX - 5);
        assert_eq!(queue.end(), start + 30);
        send_all(&mut queue, &mut pool, 1000);
        let told = acknowledge(&mut queue, &mut pool, start + 15);
        let told: Vec<_> = told.iter().map(|d| (d.octets, d.end, d.whole, d.sent, d.at)).collect();
        assert_eq!(told, [(10, start + 10, true, 1, 1000), (5, start + 15, false, 1, 1000)]);
        assert_eq!((queue.frames(), queue.bytes()), (2, 15));
        let head = queue.outstanding(&pool).next().expect("rest");
        assert_eq!((pool.meta(head).seq, pool.meta(head).len), ((start + 15).0, 5));
        acknowledge(&mut queue, &mut pool, start + 30);
        assert!(queue.is_empty() && queue.earliest_sent().is_none() && queue.last_sent().is_none());
        assert_eq!(pool.free_count(), pool.total());
        pool.assert_conserved();
    }

    #[test]
    fn s5_6_a_retransmitted_segment_says_so() {
        let (mut queue, mut pool) = queue(&[10]);
        send_all(&mut queue, &mut pool, 1000);
        let head = queue.outstanding(&pool).next().expect("sent");
        assert_eq!((queue.mark_lost(&mut pool, head), queue.lost), (10, 10));
        send(&mut queue, &mut pool, head, true, 9000);
        assert_eq!(queue.lost, 0);
        let end = queue.end();
        let told = acknowledge(&mut queue, &mut pool, end);
        assert_eq!((told[0].sent, told[0].at), (2, 9000));
    }

    #[test]
    fn a_part_that_was_sent_cuts_the_frame_when_it_is_acknowledged() {
        let (mut queue, mut pool) = queue(&[10, 4]);
        let start = SeqNumber(u32::MAX - 5);
        let head = queue.unsent().expect("unsent");
        send(&mut queue, &mut pool, head, false, 0);
        assert_eq!((queue.unsent(), queue.outstanding(&pool).next()), (Some(head), None));
        acknowledge(&mut queue, &mut pool, start + 3);
        assert_eq!((pool.meta(head).seq, pool.meta(head).len, queue.bytes()), ((start + 3).0, 7, 11));
        send_all(&mut queue, &mut pool, 0);
        acknowledge(&mut queue, &mut pool, start + 14);
        assert_eq!((pool.free_count(), pool.payload_bytes_copied()), (pool.total(), 0));
    }

    proptest::proptest! {
        /// The places that searches start from never hide a frame, and the list of what is in flight is what
        /// the marks say, in the order of transmission: every answer is that of a walk from the head.
        #[test]
        fn p4_searches_find_what_a_walk_finds(steps in proptest::collection::vec((0u8..5, 0usize..40), 1..120)) {
            let (mut queue, mut pool) = queue(&[10; 40]);
            send_all(&mut queue, &mut pool, 0);
            let mut acked = 0;
            let mut time = 0;
            for (step, at) in steps {
                let frames: Vec<_> = queue.outstanding(&pool).collect();
                let Some(&index) = frames.get(at) else { continue };
                match step {
                    0 => {
                        let start = SeqNumber(pool.meta(index).seq);
                        let octets = 10 * (1 + time % 4);
                        queue.mark_block(&mut pool, (start, start + octets), 100, |_| {});
                        time += 1;
                    }
                    1 => { queue.mark_lost(&mut pool, index); }
                    2 => {
                        if let Some(lost) = queue.first_lost(&pool) {
                            time += 1;
                            send(&mut queue, &mut pool, lost, true, time);
                        }
                    }
                    3 if at < 4 => {
                        acked += at as u32;
                        acknowledge(&mut queue, &mut pool, SeqNumber(u32::MAX - 5) + 10 * acked);
                    }
                    4 if at < 4 => queue.unmark_lost(&mut pool),
                    _ => {}
                }
                let flags = |index: &u32| pool.meta(*index).flags;
                let frames: Vec<_> = queue.outstanding(&pool).collect();
                let lost = frames.iter().copied().find(|index| flags(index) & LOST != 0);
                let octets = 10 * frames.iter().filter(|index| flags(index) & LOST != 0).count();
                proptest::prop_assert_eq!(queue.lost as usize, octets);
                proptest::prop_assert_eq!(queue.first_lost(&pool), lost);
                let last = frames.iter().copied().rfind(|index| flags(index) & SACKED != 0);
                let hint = (queue.sacked_last != NONE).then_some(queue.sacked_last);
                proptest::prop_assert!(hint == last, "{:?} {:?}", hint, last);
                let mut runs = frames.chunk_by(|a, b| flags(a) & flags(b) & SACKED != 0).rev();
                let mut last_run = None;
                for run in runs.by_ref().filter(|run| flags(&run[0]) & SACKED != 0) {
                    proptest::prop_assert_eq!(Some(&pool.meta(run[0]).range_tail), run.last());
                    last_run = last_run.or(Some(run[0]));
                }
                proptest::prop_assert_eq!(last_run, (queue.last_run != NONE).then_some(queue.last_run));
                let mut flight: Vec<_> =
                    frames.iter().copied().filter(|index| flags(index) & (LOST | SACKED) == 0).collect();
                let mut listed = Vec::new();
                let mut next = queue.earliest;
                while next != NONE {
                    listed.push(next);
                    next = pool.transmission(next).later;
                }
                proptest::prop_assert_eq!(listed.last().copied(), (queue.latest != NONE).then_some(queue.latest));
                listed.sort_unstable();
                flight.sort_unstable();
                proptest::prop_assert_eq!(listed, flight);
            }
            queue.clear(&mut pool);
            proptest::prop_assert_eq!(pool.free_count(), pool.total());
        }
    }

    proptest::proptest! {
        /// S6.2: cutting changes neither the octets, their numbers, their marks, nor what searches find.
        #[test]
        fn s6_2_a_cut_frame_is_the_same_octets(
            lens in proptest::collection::vec(2usize..60, 1..8),
            cuts in proptest::collection::vec((0usize..16, 1u16..59, 0u8..3), 1..20),
            unsent in 0usize..8,
        ) {
            let (mut queue, mut pool) = queue(&lens);
            let octets = queue.bytes();
            while queue.frames() as usize > unsent && let Some(index) = queue.unsent() {
                if SeqNumber(pool.meta(index).seq).since(SeqNumber(u32::MAX - 5)) as usize >= lens.len() * 20 {
                    break;
                }
                send(&mut queue, &mut pool, index, true, 1);
            }
            for (at, cut, mark) in cuts {
                let mut all = Vec::new();
                let mut next = queue.head;
                while next != NONE {
                    all.push(next);
                    next = pool.meta(next).next;
                }
                let index = all[at % all.len()];
                let sent = pool.meta(index).sent > 0;
                match mark {
                    0 if sent => drop(queue.mark_lost(&mut pool, index)),
                    1 if sent => drop(queue.mark_sacked(&mut pool, index)),
                    _ => {}
                }
                let meta = *pool.meta(index);
                if cut < meta.len && meta.flags & SACKED == 0 {
                    proptest::prop_assert!(queue.cut(&mut pool, index, cut));
                }
            }
            let (mut at, mut seq, mut lost, mut sacked, mut frames) =
                (queue.head, SeqNumber(u32::MAX - 5), 0, 0, 0);
            let mut last = NONE;
            while at != NONE {
                let meta = *pool.meta(at);
                proptest::prop_assert_eq!(SeqNumber(meta.seq), seq);
                if meta.aux != NONE {
                    let payload = usize::from(meta.start)..usize::from(meta.start + meta.len);
                    proptest::prop_assert_eq!(u64::from(meta.aux), checksum::sum(&pool.frame_mut(at)[payload]));
                }
                seq += u32::from(meta.len);
                lost += if meta.flags & LOST != 0 { u32::from(meta.len) } else { 0 };
                sacked += if meta.flags & SACKED != 0 { u32::from(meta.len) } else { 0 };
                frames += 1;
                (last, at) = (at, meta.next);
            }
            proptest::prop_assert_eq!((seq, last, frames), (queue.end(), queue.tail, queue.frames()));
            proptest::prop_assert_eq!((lost, sacked, octets), (queue.lost, queue.sacked, queue.bytes()));
            // What is in flight, and nothing else, is on the list of that.
            let (mut flying, mut flight) = (queue.earliest_sent(), 0);
            while let Some(index) = flying {
                proptest::prop_assert!(pool.meta(index).flags & (LOST | SACKED) == 0);
                flight += u32::from(pool.meta(index).len);
                flying = Some(pool.transmission(index).later).filter(|&later| later != NONE);
            }
            let unsent = queue.unsent().map_or(0, |index| queue.end().since(SeqNumber(pool.meta(index).seq)));
            proptest::prop_assert_eq!(flight + unsent + lost + sacked, octets);
            send_all(&mut queue, &mut pool, 2);
            acknowledge(&mut queue, &mut pool, seq);
            proptest::prop_assert_eq!((pool.free_count(), queue.bytes()), (pool.total(), 0));
        }
    }

    #[test]
    fn s5_7_what_was_sent_again_goes_behind_what_was_sent_before() {
        let (mut queue, mut pool) = queue(&[10, 10, 10]);
        send_all(&mut queue, &mut pool, 1);
        let frames: Vec<_> = queue.outstanding(&pool).collect();
        queue.mark_lost(&mut pool, frames[0]);
        assert_eq!(queue.earliest_sent(), Some(frames[1]));
        send(&mut queue, &mut pool, frames[0], true, 2);
        queue.mark_lost(&mut pool, frames[1]);
        queue.mark_lost(&mut pool, frames[2]);
        assert_eq!(queue.earliest_sent(), Some(frames[0]));
        queue.unmark_lost(&mut pool);
        let order: Vec<_> =
            core::iter::successors(queue.earliest_sent(), |&index| match pool.transmission(index).later {
                NONE => None,
                later => Some(later),
            })
            .collect();
        assert_eq!(order, [frames[1], frames[2], frames[0]]);
        queue.clear(&mut pool);
    }

    /// A growing block, and one in the middle, cost what is new in them and the holes before.
    #[test]
    fn t10_looking_for_a_blocks_end_passes_runs_not_frames() {
        let (mut queue, mut pool) = queue(&[10; 52]);
        send_all(&mut queue, &mut pool, 0);
        let at = |n: u32| SeqNumber(u32::MAX - 5) + 10 * n;
        let mut mark = |from, to| 100 - queue.mark_block(&mut pool, (at(from), at(to)), 100, |_| {});
        // 0, 1 and 30 are missing.
        assert_eq!(mark(2, 3), 4);
        for n in 4..30 {
            assert!(mark(2, n) <= 3, "{n}");
        }
        for n in 32..50 {
            assert!(mark(31, n) <= 6, "{n}");
        }
        // 1, then 30 is filled.
        assert!(mark(1, 30) <= 6);
        assert!(mark(1, 50) <= 6);
        assert!(mark(1, 51) <= 3);
        queue.clear(&mut pool);
    }

    #[test]
    fn marks_are_counted_once() {
        let (mut queue, mut pool) = queue(&[10, 10]);
        send_all(&mut queue, &mut pool, 0);
        let head = queue.outstanding(&pool).next().expect("sent");
        assert_eq!(queue.mark_lost(&mut pool, head), 10);
        assert_eq!(queue.mark_lost(&mut pool, head), 0);
        let start = SeqNumber(u32::MAX - 5);
        for news in [1, 0] {
            let mut told = 0;
            queue.mark_block(&mut pool, (start, start + 10), 100, |_| told += 1);
            assert_eq!(told, news);
        }
        assert_eq!(queue.mark_lost(&mut pool, head), 0);
        assert_eq!((queue.sacked, queue.lost), (10, 0));
        queue.clear_sacked(&mut pool, head);
        assert_eq!(queue.sacked, 0);
    }
}
