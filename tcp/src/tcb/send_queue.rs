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
//! allocates nothing.

use crate::frame::{Chunk, FramePool, Memory, Meta, NONE, Owner};
use crate::seq::SeqNumber;
use crate::time::{Duration, Instant};

/// The peer has it, by SACK.
pub(crate) const SACKED: u8 = 1;
/// Taken for lost, to be sent again.
pub(crate) const LOST: u8 = 2;
/// Sent again since it was last taken for lost.
pub(crate) const RETRANSMITTED: u8 = 4;

/// The send queue of one connection.
#[derive(Debug)]
pub(crate) struct SendQueue {
    head: u32,
    tail: u32,
    /// First frame that was never sent.
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
    /// The furthest frame that is [`SACKED`].
    sacked_last: u32,
    /// Frames before this one have been judged lost or not; so many of them are [`SACKED`].
    judged: u32,
    judged_sacked: u32,
}

/// What an acknowledgement removed.
#[derive(Debug, Default)]
pub(crate) struct Acked {
    /// RTT of the newest frame, if nothing that went was ever sent twice (Karn's rule, RFC 6298 §3) and
    /// the frame hadn't been SACKed: its cumulative ACK then tells how long the hole took, not the path.
    pub(crate) rtt: Option<Duration>,
}

/// Microseconds modulo 2^32 (71 minutes): enough for any RTT.
fn stamp(now: Instant) -> u32 {
    (now.as_nanos() / 1000) as u32
}

/// Time since the frame was last sent.
fn age(meta: &Meta, now: Instant) -> Duration {
    Duration::from_micros(u64::from(stamp(now).wrapping_sub(meta.aux)))
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
            judged: NONE,
            judged_sacked: 0,
        }
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
        let index = pool.park(chunk, Owner::SendQueue);
        pool.meta_mut(index).seq = self.end.0;
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
        self.bytes += len as u32;
        self.end += len as u32;
        Ok(())
    }

    /// The frame was put into the TX ring: all of it or, if it isn't `whole`, its first octets.
    pub(crate) fn sent<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32, whole: bool, now: Instant) {
        let meta = pool.meta_mut(index);
        meta.aux = stamp(now);
        meta.sent = meta.sent.saturating_add(1);
        if meta.flags & LOST != 0 {
            meta.flags = (meta.flags & !LOST) | RETRANSMITTED;
            self.lost -= u32::from(meta.len);
        }
        if index == self.unsent && whole {
            self.unsent = meta.next;
        }
    }

    /// Frees everything before `una`.
    pub(crate) fn acknowledge<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        una: SeqNumber,
        now: Instant,
    ) -> Acked {
        let mut acked = Acked::default();
        let mut ambiguous = false;
        while self.head != NONE {
            let index = self.head;
            let meta = *pool.meta(index);
            let seq = SeqNumber(meta.seq);
            let len = u32::from(meta.len);
            if una.leq(seq) || meta.sent == 0 {
                break;
            }
            let gone = una.since(seq).min(len);
            ambiguous |= meta.sent > 1;
            self.forget(meta.flags, gone);
            self.bytes -= gone;
            if gone < len {
                let meta = pool.meta_mut(index);
                meta.seq = una.0;
                meta.start += gone as u16;
                meta.len -= gone as u16;
                break;
            }
            if meta.flags & SACKED != 0 {
                self.sacked_frames -= 1;
                if self.judged != NONE && self.judged != index {
                    self.judged_sacked -= 1;
                }
            } else {
                acked.rtt = Some(age(&meta, now));
            }
            self.head = meta.next;
            for place in [&mut self.lost_from, &mut self.judged] {
                if *place == index {
                    *place = meta.next;
                }
            }
            if self.sacked_last == index {
                self.sacked_last = NONE;
            }
            if index == self.tail {
                self.tail = NONE;
            }
            self.frames -= 1;
            pool.release_index(index);
        }
        if ambiguous {
            acked.rtt = None;
        }
        acked
    }

    fn forget(&mut self, flags: u8, octets: u32) {
        if flags & SACKED != 0 {
            self.sacked -= octets;
        }
        if flags & LOST != 0 {
            self.lost -= octets;
        }
    }

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

    /// Where to look for a SACK block that begins at `start`: nearly always behind what is SACKED already.
    pub(crate) fn near<M: Memory>(&self, pool: &FramePool<M>, start: SeqNumber) -> Option<u32> {
        let last = self.sacked_last;
        if last != NONE && SeqNumber(pool.meta(last).seq).leq(start) {
            return Some(last);
        }
        self.next_outstanding(pool, None)
    }

    /// Marks what `threshold` SACKED frames lie above, and hasn't been judged before. Whether it found any.
    /// Amortised O(1): each frame is judged once.
    pub(crate) fn judge<M: Memory>(&mut self, pool: &mut FramePool<M>, threshold: u32) -> bool {
        let mut found = false;
        while self.sacked_frames - self.judged_sacked >= threshold {
            let index = if self.judged == NONE { self.head } else { self.judged };
            let meta = pool.meta(index);
            let next = meta.next;
            if meta.flags & SACKED != 0 {
                if self.sacked_frames - self.judged_sacked == threshold {
                    self.judged = index;
                    break;
                }
                self.judged_sacked += 1;
            } else if meta.flags & (LOST | RETRANSMITTED) == 0 {
                self.mark_lost(pool, index);
                found = true;
            }
            self.judged = next;
        }
        found
    }

    /// Whether `index` lies before the frame `place`.
    fn is_before<M: Memory>(pool: &FramePool<M>, index: u32, place: u32) -> bool {
        place != NONE && SeqNumber(pool.meta(index).seq).lt(SeqNumber(pool.meta(place).seq))
    }

    /// The peer has it. Its RTT, if that is news and the frame was sent once.
    pub(crate) fn mark_sacked<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        index: u32,
        now: Instant,
    ) -> Option<Duration> {
        if pool.meta(index).flags & SACKED != 0 {
            return None;
        }
        if Self::is_before(pool, index, self.judged) {
            self.judged_sacked += 1;
        }
        if self.sacked_last == NONE || Self::is_before(pool, self.sacked_last, index) {
            self.sacked_last = index;
        }
        let meta = pool.meta_mut(index);
        if meta.flags & LOST != 0 {
            self.lost -= u32::from(meta.len);
        }
        meta.flags = (meta.flags | SACKED) & !LOST;
        self.sacked += u32::from(meta.len);
        self.sacked_frames += 1;
        (meta.sent == 1).then(|| age(meta, now))
    }

    pub(crate) fn mark_lost<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32) {
        let meta = pool.meta_mut(index);
        if meta.flags & (SACKED | LOST) == 0 {
            meta.flags = (meta.flags | LOST) & !RETRANSMITTED;
            self.lost += u32::from(meta.len);
            if self.lost_from == NONE || Self::is_before(pool, index, self.lost_from) {
                self.lost_from = index;
            }
        }
    }

    /// The peer has dropped it again. To be called for every frame, or for none.
    pub(crate) fn clear_sacked<M: Memory>(&mut self, pool: &mut FramePool<M>, index: u32) {
        self.sacked_last = NONE;
        self.judged = NONE;
        self.judged_sacked = 0;
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
            pool.append(&mut chunk, &vec![7; len]);
            queue.push(&mut pool, chunk);
        }
        (queue, pool)
    }

    fn send_all(queue: &mut SendQueue, pool: &mut FramePool<HeapMemory>, now: Instant) {
        while let Some(index) = queue.unsent() {
            pool.transmit_parked(index);
            queue.sent(pool, index, true, now);
            pool.completed(index);
        }
    }

    #[test]
    fn s5_1_partial_and_full_acknowledgement_across_the_wrap() {
        let (mut queue, mut pool) = queue(&[10, 10, 10]);
        let start = SeqNumber(u32::MAX - 5);
        assert_eq!(queue.end(), start + 30);
        send_all(&mut queue, &mut pool, Instant::from_millis(1));
        let acked = queue.acknowledge(&mut pool, start + 15, Instant::from_millis(3));
        assert_eq!(acked.rtt, Some(Duration::from_millis(2)));
        assert_eq!((queue.frames(), queue.bytes()), (2, 15));
        let head = queue.outstanding(&pool).next().expect("rest");
        assert_eq!((pool.meta(head).seq, pool.meta(head).len), ((start + 15).0, 5));
        queue.acknowledge(&mut pool, start + 30, Instant::from_millis(4));
        assert!(queue.is_empty());
        assert_eq!(pool.free_count(), pool.total());
        pool.assert_conserved();
    }

    #[test]
    fn s5_6_a_retransmitted_segment_gives_no_rtt() {
        let (mut queue, mut pool) = queue(&[10]);
        send_all(&mut queue, &mut pool, Instant::from_millis(1));
        let head = queue.outstanding(&pool).next().expect("sent");
        queue.mark_lost(&mut pool, head);
        assert_eq!(queue.lost, 10);
        queue.sent(&mut pool, head, true, Instant::from_millis(9));
        assert_eq!(queue.lost, 0);
        let acked = queue.acknowledge(&mut pool, queue.end(), Instant::from_millis(10));
        assert_eq!(acked.rtt, None);
    }

    #[test]
    fn a_part_that_was_sent_cuts_the_frame_when_it_is_acknowledged() {
        let (mut queue, mut pool) = queue(&[10, 4]);
        let start = SeqNumber(u32::MAX - 5);
        let head = queue.unsent().expect("unsent");
        pool.transmit_parked(head);
        queue.sent(&mut pool, head, false, Instant::ZERO);
        assert_eq!((queue.unsent(), queue.outstanding(&pool).next()), (Some(head), None));
        pool.completed(head);
        queue.acknowledge(&mut pool, start + 3, Instant::ZERO);
        assert_eq!((pool.meta(head).seq, pool.meta(head).len, queue.bytes()), ((start + 3).0, 7, 11));
        send_all(&mut queue, &mut pool, Instant::ZERO);
        queue.acknowledge(&mut pool, start + 14, Instant::ZERO);
        assert_eq!((pool.free_count(), pool.payload_bytes_copied()), (pool.total(), 0));
    }

    proptest::proptest! {
        /// The places that searches start from never hide a frame: every answer is that of a walk from the head.
        #[test]
        fn p4_searches_find_what_a_walk_finds(steps in proptest::collection::vec((0u8..5, 0usize..40), 1..120)) {
            let (mut queue, mut pool) = queue(&[10; 40]);
            send_all(&mut queue, &mut pool, Instant::ZERO);
            let mut acked = 0;
            for (step, at) in steps {
                let frames: Vec<_> = queue.outstanding(&pool).collect();
                let Some(&index) = frames.get(at) else { continue };
                match step {
                    0 => { queue.mark_sacked(&mut pool, index, Instant::ZERO); }
                    1 => queue.mark_lost(&mut pool, index),
                    2 => {
                        if let Some(lost) = queue.first_lost(&pool) {
                            pool.transmit_parked(lost);
                            queue.sent(&mut pool, lost, true, Instant::ZERO);
                            pool.completed(lost);
                        }
                    }
                    3 if at < 4 => {
                        acked += at as u32;
                        queue.acknowledge(&mut pool, SeqNumber(u32::MAX - 5) + 10 * acked, Instant::ZERO);
                    }
                    _ => {
                        queue.judge(&mut pool, 3);
                        let mut above = queue.sacked_frames;
                        for index in queue.outstanding(&pool) {
                            let flags = pool.meta(index).flags;
                            above -= u32::from(flags & SACKED != 0);
                            proptest::prop_assert!(above < 3 || flags != 0, "judged");
                        }
                    }
                }
                let flags = |index: &u32| pool.meta(*index).flags;
                let frames: Vec<_> = queue.outstanding(&pool).collect();
                let lost = frames.iter().copied().find(|index| flags(index) & LOST != 0);
                proptest::prop_assert_eq!(queue.first_lost(&pool), lost);
                let last = frames.iter().copied().rfind(|index| flags(index) & SACKED != 0);
                let hint = (queue.sacked_last != NONE).then_some(queue.sacked_last);
                proptest::prop_assert!(hint == last, "{:?} {:?}", hint, last);
            }
            queue.clear(&mut pool);
            proptest::prop_assert_eq!(pool.free_count(), pool.total());
        }
    }

    #[test]
    fn marks_are_counted_once() {
        let (mut queue, mut pool) = queue(&[10, 10]);
        send_all(&mut queue, &mut pool, Instant::ZERO);
        let head = queue.outstanding(&pool).next().expect("sent");
        queue.mark_lost(&mut pool, head);
        queue.mark_lost(&mut pool, head);
        queue.mark_sacked(&mut pool, head, Instant::ZERO);
        queue.mark_sacked(&mut pool, head, Instant::ZERO);
        queue.mark_lost(&mut pool, head);
        assert_eq!((queue.sacked, queue.lost), (10, 0));
        queue.clear_sacked(&mut pool, head);
        assert_eq!(queue.sacked, 0);
    }
}
