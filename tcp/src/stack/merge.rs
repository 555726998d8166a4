//! Segments that leave together leave as one packet in several frames, where the link and the peer take it. S6.1
//!
//! ```text
//!   [ headers │ text ]  [ headers │ text ]      as TCP sends them, one after the other in one turn
//!   [ headers'│ text ]────────────[ text ]      one packet (XDP_PKT_CONTD): the first frame's headers speak for both
//! ```
//!
//! The mirror of scattered.rs: to TCP each frame remains a segment that is sent, acknowledged, lost and repeated by
//! itself. Only new text is merged, and on a connection that had a retransmission timeout, or whose path is smaller,
//! nothing any more: what is repeated must not be lost for its size.

use super::Stack;
use crate::frame::{FramePool, FrameSlice, Memory};
use crate::seq::SeqNumber;
use crate::tcb::Tcb;
use crate::wire::ip;
use crate::wire::merge::{Sent, rewrite};
use crate::wire::tcp::Flags;

impl<M: Memory> Stack<M> {
    /// Merges what a connection has just added to `out`, and the port doesn't have yet, as far as it is new: `fresh`
    /// or later.
    #[cold]
    pub(super) fn merge(&mut self, index: u32, fresh: SeqNumber, mut out: &mut [FrameSlice]) {
        let Some(tcb) = &self.slots[index as usize].tcb else { return };
        let ip_at = 14 + 4 * tcb.hop.station.vlan.as_slice().len();
        let at = (ip_at, ip_at + ip::header_len(tcb.tuple.remote_ip));
        let most = (usize::from(tcb.merged_mss()), usize::from(self.config.frames_sent));
        while let Some(&first) = out.first() {
            let head = Sent::read(self.pool.transmitted(first), at);
            let is_new = fresh.leq(head.seq) && head.may_begin();
            let count = if is_new { fitting(&self.pool, &head, out, at, most) } else { 1 };
            let (packet, others) = out.split_at_mut(count);
            if count > 1 {
                merge_all(&mut self.pool, tcb, packet, at);
                self.counters.tcp_out_segs -= count as u64 - 1;
            }
            out = others;
        }
    }
}

/// How many of `slices`, of which `head` is the first, make one packet of at most so many octets of text and frames.
fn fitting<M: Memory>(
    pool: &FramePool<M>,
    head: &Sent<'_>,
    slices: &[FrameSlice],
    at: (usize, usize),
    (octets, frames): (usize, usize),
) -> usize {
    let (mut len, mut ended) = (head.len, false);
    let others = slices.iter().take(frames).skip(1).take_while(|&&slice| {
        let next = Sent::read(pool.transmitted(slice), at);
        let fits = !ended && head.goes_on(&next, len) && len + next.len <= octets;
        (len, ended) = (len + next.len, next.flags.contains(Flags::FIN));
        fits
    });
    1 + others.count()
}

/// Makes one packet of `slices`.
fn merge_all<M: Memory>(pool: &mut FramePool<M>, tcb: &Tcb, slices: &mut [FrameSlice], at: (usize, usize)) {
    let ips = (tcb.tuple.local_ip, tcb.tuple.remote_ip);
    let (mut sum, mut len, mut flags) = (0, 0, Flags::NONE);
    let last = slices.len() - 1;
    for (place, slice) in slices.iter_mut().enumerate() {
        let sent = Sent::read(pool.transmitted(*slice), at);
        sum = crate::wire::checksum::combine(sum, len, sent.sum(ips.0, ips.1));
        (len, flags) = (len + sent.len, flags | sent.flags);
        let headers = if place == 0 { 0 } else { sent.headers_len() as u16 };
        slice.more = place < last;
        slice.offset += headers;
        slice.len -= headers;
    }
    let frame = &mut pool.amend(slices[0].index)[usize::from(slices[0].offset)..];
    rewrite(frame, at, ips, flags, len, sum);
}
