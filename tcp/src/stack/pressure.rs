//! Memory that doesn't come back by itself is taken back (D2, T3).
//!
//! A connection's queues are bounded by its share of what is free, and a share is an eighth of it: a few dozen
//! peers that never read, each holding its share for ever, would leave nothing for the others. So when a share
//! is less than what a connection needs to make way, a hand goes round over the connections and takes from those
//! that don't move: what waits behind a hole first, then the connection.

use super::{ROOM_LOW, Stack};
use crate::frame::Memory;
use crate::time::{Duration, Instant};

/// Connections looked at in one turn of the loop: a few microseconds.
const LOOKS_PER_TURN: usize = 64;
/// A loop that has nothing else to do comes back so soon: 64 thousand looks a second.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// A peer that has acknowledged nothing for so long, while others wait for memory, gives way: long against any
/// retransmission that can still succeed soon, short against what users wait for.
const STALLED: Duration = Duration::from_secs(5);
/// So does one that acknowledges an octet now and then (T4): who would need more than a minute for what is queued for
/// it. A share under pressure is some dozen segments; the slowest modem takes them in seconds.
const PATIENCE: Duration = Duration::from_secs(60);

impl<M: Memory> Stack<M> {
    /// Called every turn; does nothing as long as a connection's share is worth having.
    #[inline]
    pub(super) fn relieve(&mut self, now: Instant) {
        self.relieve_at = Instant::NEVER;
        // A small pool's shares are small without any pressure.
        if self.pool.fair_share() < ROOM_LOW.min(self.pool.total() / 64) {
            self.look_round(now);
        }
    }

    fn look_round(&mut self, now: Instant) {
        self.relieve_at = now + LOOK_AGAIN;
        for _ in 0..LOOKS_PER_TURN.min(self.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.len() as u32;
            let index = self.hand;
            let Some((tcb, mut ctx)) = self.tcb(index, now) else { continue };
            // Where nothing is accepted any more the hole could never be closed; otherwise a peer that is
            // busy closing it keeps what it has sent (RFC 2018 §8 discourages taking SACKed octets back).
            let stuck = ctx.pool.is_scarce() || tcb.has_hole_since(now - STALLED);
            if stuck && tcb.recv.prune(ctx.pool) > 0 {
                ctx.counters.tcp_ofo_pruned += 1;
            }
            let drips = tcb.is_too_slow(STALLED, PATIENCE, now);
            if tcb.over.is_none() && (drips || tcb.has_stalled_since(now - STALLED)) {
                ctx.counters.tcp_abort_on_memory += 1;
                tcb.abort(&mut ctx);
                self.mark_dirty(index);
            }
        }
    }
}
