//! SACK blocks that arrive (RFC 2018 §5, RFC 2883).

use super::Digest;
use crate::frame::{FramePool, Memory};
use crate::seq::SeqNumber;
use crate::tcb::send_queue::SendQueue;
use crate::wire::tcp::{SackBlocks, Segment};

/// Holes and runs of SACKED frames that SACK blocks may make us look at (T10): so many at once, and so many more with
/// each ACK. What isn't looked at stays outstanding, and is acknowledged in the end.
const WALK_BURST: u32 = 8192;
const WALK_PER_ACK: u32 = 64;

/// The walks over the send queue that SACK blocks cause.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// What was looked at and not yet made good by ACKs.
    walked: u32,
    /// Blocks of the last ACK, as far as they are marked: most come again with the next.
    marked: SackBlocks,
}

impl Walk {
    /// Marks what the blocks cover. Those outside SND.UNA..SND.NXT, `range`, are ignored (T10).
    pub(super) fn take<M: Memory>(
        &mut self,
        queue: &mut SendQueue,
        blocks: &SackBlocks,
        (una, nxt): (SeqNumber, SeqNumber),
        pool: &mut FramePool<M>,
        digest: &mut Digest<'_>,
    ) {
        self.walked = self.walked.saturating_sub(WALK_PER_ACK);
        let known = core::mem::take(&mut self.marked);
        for (start, end) in blocks.iter() {
            let valid = end.acknowledges(una, nxt) && start.acknowledges(una, end - 1);
            if !valid {
                continue;
            }
            if !known.iter().any(|block| block == (start, end)) {
                let budget = WALK_BURST - self.walked;
                let left = queue.mark_block(pool, (start, end), budget, |delivered| digest.take(delivered));
                self.walked += budget - left;
            }
            if self.walked < WALK_BURST {
                self.marked.push(start, end);
            }
        }
    }

    /// The peer has dropped what it had SACKed.
    pub(super) fn forget(&mut self) {
        self.marked = SackBlocks::default();
    }
}

/// The octets that arrived twice, if the first block says so: it lies below the ACK, or within the second block
/// (RFC 2883 §4).
pub(super) fn duplicate(seg: &Segment) -> Option<(SeqNumber, SeqNumber)> {
    let mut blocks = seg.options.sack.iter();
    let (start, end) = blocks.next()?;
    let below = end.leq(seg.ack) && start.lt(end);
    let within = blocks.next().is_some_and(|(from, to)| from.leq(start) && end.leq(to));
    (below || within).then_some((start, end))
}
