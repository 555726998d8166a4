//! What a turn of the core's loop may spend on work that a peer can multiply: a segment of 1,460 octets inflates to a
//! megabyte and a half, and the others' frames wait meanwhile.
//!
//! ```text
//!   ready ──→ Work::begin ──→ spend … spend ──→ used up: the connection lines up ──┐
//!     ↑                                                                            ▼
//!     └───────────── woken, one share each ←── Service::turn: a new allowance ←── queue
//! ```

use core::cell::Cell;

/// Work that one connection may have in a call, in octets inflated: one fragment (`ws::deflate::FRAGMENT`). To inflate
/// and deflate so many of the worst kind, random ones, takes 0.11 ms, of JSON 0.03 ms (zlib-rs, level 1).
const SHARE: usize = 8 << 10;

/// Shares in an allowance. A turn of the loop lies across two, each of which the last share can exceed by one: at worst
/// 2 × (3 + 1) shares, 0.9 ms.
pub(super) const SHARES: usize = 3;

/// Received chunks that one connection may read in a call: more than a batch of the loop has (64), so that only what
/// has piled up while the peer didn't read its answers is spread over turns. The worst, of one-octet messages, takes
/// 5 µs a chunk.
const CHUNKS_SHARE: usize = 72;
/// The same for all connections, in an allowance: twice 96 chunks of the worst are 1 ms. W4, W7
const CHUNKS: usize = 96;

/// The allowance of one core. Shared by the connections, which see it one at a time.
#[derive(Debug)]
pub(super) struct Work {
    left: Cell<usize>,
    share: Cell<usize>,
    chunks_left: Cell<usize>,
    chunks_share: Cell<usize>,
    exhausted: Cell<bool>,
}

impl Default for Work {
    fn default() -> Self {
        let work = Self {
            left: Cell::new(0),
            share: Cell::new(0),
            chunks_left: Cell::new(0),
            chunks_share: Cell::new(0),
            exhausted: Cell::new(false),
        };
        work.refill();
        work
    }
}

impl Work {
    /// The loop has turned.
    pub(super) fn refill(&self) {
        self.left.set(SHARES * SHARE);
        self.chunks_left.set(CHUNKS);
    }

    /// A connection's turn begins.
    pub(super) fn begin(&self) {
        self.share.set(self.left.get().min(SHARE));
        self.chunks_share.set(self.chunks_left.get().min(CHUNKS_SHARE));
        self.exhausted.set(false);
    }

    /// Whether the connection may go on. If not, it has to wait to be woken.
    pub(super) fn may_go_on(&self) -> bool {
        let good = self.share.get() > 0;
        self.exhausted.set(!good);
        good
    }

    /// Something was done.
    pub(super) fn spend(&self, octets: usize) {
        self.left.set(self.left.get().saturating_sub(octets));
        self.share.set(self.share.get().saturating_sub(octets));
    }

    /// Whether the connection may read another chunk. If not, it has to wait to be woken.
    pub(super) fn may_read(&self) -> bool {
        let good = self.chunks_share.get() > 0;
        self.exhausted.set(!good);
        good
    }

    /// It has read one.
    pub(super) fn read(&self) {
        self.chunks_share.set(self.chunks_share.get().saturating_sub(1));
        self.chunks_left.set(self.chunks_left.get().saturating_sub(1));
    }

    /// Whether the connection whose turn it was has to wait.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w5_nobody_has_more_than_a_share_and_all_together_no_more_than_an_allowance() {
        let work = Work::default();
        for turn in 0..3 {
            for connection in 0..6 {
                work.begin();
                let mut pieces = 0;
                while work.may_go_on() {
                    work.spend(SHARE / 4);
                    pieces += 1;
                }
                assert!(work.is_exhausted());
                assert_eq!(pieces, if connection < SHARES { 4 } else { 0 }, "{connection} in turn {turn}");
            }
            work.begin();
            assert!(!work.is_exhausted(), "who asks for nothing waits for nothing");
            work.refill();
        }
    }

    #[test]
    fn w4_reading_is_bounded_the_same_way_and_by_itself() {
        let work = Work::default();
        let mut read = Vec::new();
        for _ in 0..3 {
            work.begin();
            work.spend(SHARE);
            read.push((0..1000).take_while(|_| work.may_read()).map(|_| work.read()).count());
            assert!(work.is_exhausted());
        }
        assert_eq!(read, [CHUNKS_SHARE, CHUNKS - CHUNKS_SHARE, 0]);
    }
}
