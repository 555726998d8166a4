//! permessage-deflate (RFC 7692): a connection's inflater and deflater, and how many of them a core has.
//!
//! ```text
//!  received frame ──unmask in place──→ inflate ──→ plain, ≤ FRAGMENT + 1 ──→ deflate ──→ packed ──→ fresh chunks
//!                                        ↑ at most what the turn allows        ↑ a fragment at a time
//! ```
//!
//! A message is never in memory as a whole. How the answer is fragmented depends on the message alone: a fragment goes
//! out when there is one more octet than it takes, or when the message ends.

use std::sync::Arc;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::extension::Agreed;
use super::session::CloseCode;

/// Octets of a message that go into one fragment of the answer, before compression. A message up to this comes back in
/// one frame. It is also what is worked at in one piece, so it is short against the 1 ms a turn may take (0.1 ms), and
/// long against the 5 octets that flushing costs (0.06 %).
pub(super) const FRAGMENT: usize = 8 << 10;

/// Longest message that comes back as it is although it came compressed: header and block ends leave nothing to gain
/// in a segment that takes 66 octets of headers anyway.
const MIN: usize = 64;
/// The same without a history to refer to: JSON records of 55 octets then grow by 4 %.
const MIN_ALONE: usize = 256;

/// zlib-rs' fastest: JSON to 27 % at 560 MB/s (level 2: 19 % at 290, level 6: 16 % at 90), and records of 55 octets with
/// history to 35 % in 0.2 µs, against 3 µs at any other level. A core of byway's has segments to deal with.
const LEVEL: Compression = Compression::new(1);

/// What the sender took from the message's end (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Octets that setting up a [`State`] counts as: 10 to 60 µs, by whether its pages are there.
const SET_UP: usize = 8 << 10;
/// Octets that a call counts as at least: 0.2 µs for a message that inflates to nothing.
const CALL: usize = 32;
/// Octets that clearing the history counts as: 3.5 µs.
const CLEARING: usize = 512;

/// Room of a core for connections that compress.
#[derive(Debug)]
pub(in crate::app) struct Contexts {
    permit: Arc<()>,
    most: usize,
}

impl Contexts {
    pub(in crate::app) fn new(most: usize) -> Self {
        Self { permit: Arc::new(()), most }
    }

    /// Whether another connection may.
    pub(in crate::app) fn is_full(&self) -> bool {
        Arc::strong_count(&self.permit) > self.most
    }

    /// For a connection that may; the room is free again when it is dropped.
    pub(in crate::app) fn open(&self, agreed: Agreed) -> Deflate {
        Deflate { agreed, _permit: Arc::clone(&self.permit), state: None }
    }
}

/// One connection's compression.
#[derive(Debug)]
pub(in crate::app) struct Deflate {
    agreed: Agreed,
    _permit: Arc<()>,
    /// From the first compressed message on: most browsers' connections never send one.
    state: Option<Box<State>>,
}

/// 440 KiB: zlib-rs takes 47 KiB to inflate, 245 to 371 to deflate.
struct State {
    inflate: Decompress,
    deflate: Compress,
    /// Inflated and not yet sent.
    plain: [u8; FRAGMENT + 1],
    filled: usize,
    packed: Vec<u8>,
    message: Progress,
}

/// How far the current message has got.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Octets inflated.
    inflated: u64,
    /// Octets of [`TAIL`] that the inflater was given.
    tail: usize,
    /// A fragment has been sent.
    begun: bool,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("State").field("filled", &self.filled).finish_non_exhaustive()
    }
}

/// What came of [`Deflate::inflate`].
pub(super) struct Step<'a> {
    /// Octets of the input used up.
    pub(super) used: usize,
    /// What was inflated.
    pub(super) plain: &'a [u8],
    /// What it counts as against the turn's allowance.
    pub(super) cost: usize,
}

/// A fragment of an answer, to be sent.
pub(super) struct Fragment<'a> {
    pub(super) first: bool,
    /// Whether the message is compressed; the first fragment says so.
    pub(super) packed: bool,
    pub(super) octets: &'a [u8],
    pub(super) cost: usize,
}

impl Deflate {
    fn state(&mut self) -> (&mut State, usize) {
        let fresh = self.state.is_none();
        let bits = self.agreed.server_max_window_bits.unwrap_or(15);
        let state = self.state.get_or_insert_with(|| {
            Box::new(State {
                // The largest window takes in whatever the client uses.
                inflate: Decompress::new_with_window_bits(false, 15),
                deflate: Compress::new_with_window_bits(LEVEL, false, bits),
                plain: [0; FRAGMENT + 1],
                filled: 0,
                // A literal takes at most 9 bits at this level.
                packed: Vec::with_capacity(FRAGMENT + FRAGMENT / 4),
                message: Progress::default(),
            })
        });
        (state, if fresh { SET_UP } else { 0 })
    }

    /// Inflates what it can of `octets`, of a message that may have `most` octets (W5).
    ///
    /// # Errors
    /// 1009 as soon as the message has more, 1007 if this isn't compressed data.
    pub(super) fn inflate(&mut self, octets: &[u8], most: u64) -> Result<Step<'_>, CloseCode> {
        let (state, set_up) = self.state();
        let from = state.filled;
        let (before_in, before_out) = (state.inflate.total_in(), state.inflate.total_out());
        let status = state.inflate.decompress(octets, &mut state.plain[from..], FlushDecompress::Sync);
        let used = (state.inflate.total_in() - before_in) as usize;
        state.filled += (state.inflate.total_out() - before_out) as usize;
        match status {
            Err(_) => return Err(CloseCode::DATA),
            // A block with BFINAL: whatever follows is a stream of its own (§7.2.3.4).
            Ok(Status::StreamEnd) => state.inflate.reset(false),
            Ok(Status::Ok | Status::BufError) => {}
        }
        let plain = &state.plain[from..state.filled];
        state.message.inflated += plain.len() as u64;
        if state.message.inflated > most {
            return Err(CloseCode::TOO_BIG);
        }
        // A block's tables cost the more the fewer octets come of it: up to 40 ns an octet of input.
        Ok(Step { used, plain, cost: set_up + CALL + 2 * used + plain.len() })
    }

    /// The same with what the sender took from the message's end. `None`: all is inflated.
    ///
    /// # Errors
    /// As [`inflate`](Self::inflate).
    pub(super) fn inflate_end(&mut self, most: u64) -> Result<Option<Step<'_>>, CloseCode> {
        let tail = self.state().0.message.tail;
        let full = self.is_full();
        let Step { used, plain, cost } = self.inflate(&TAIL[tail..], most)?;
        let made = plain.len();
        let (state, _) = self.state();
        state.message.tail += used;
        let plain = &state.plain[state.filled - made..state.filled];
        let over = used == 0 && made == 0 && !full;
        Ok((!over).then_some(Step { used, plain, cost }))
    }

    /// Whether a fragment has to go before more can be inflated.
    pub(super) fn is_full(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.filled > FRAGMENT)
    }

    /// The next fragment of the answer: a full one, or with `last` all that is left.
    pub(super) fn fragment(&mut self, last: bool) -> Fragment<'_> {
        let alone = self.agreed.server_no_context_takeover;
        let (state, _) = self.state();
        let first = !core::mem::replace(&mut state.message.begun, true);
        let octets = if last { state.filled } else { FRAGMENT };
        if last && first && octets < if alone { MIN_ALONE } else { MIN } {
            state.next_message();
            return Fragment { first, packed: false, octets: &state.plain[..octets], cost: CALL };
        }
        state.pack(octets);
        state.plain.copy_within(octets..state.filled, 0);
        state.filled -= octets;
        let mut cost = CALL;
        if last {
            state.strip_tail();
            state.next_message();
            if alone {
                state.deflate.reset();
                cost += CLEARING;
            }
        }
        Fragment { first, packed: true, octets: &state.packed, cost }
    }
}

impl State {
    /// Compresses the first `octets` of `plain`, to the last bit (§7.2.1).
    fn pack(&mut self, octets: usize) {
        self.packed.clear();
        let begin = self.deflate.total_in();
        loop {
            let used = (self.deflate.total_in() - begin) as usize;
            let status =
                self.deflate.compress_vec(&self.plain[used..octets], &mut self.packed, FlushCompress::Sync);
            debug_assert!(status.is_ok(), "deflating can't fail");
            if self.packed.len() < self.packed.capacity() {
                debug_assert_eq!((self.deflate.total_in() - begin) as usize, octets);
                return;
            }
            self.packed.reserve(FRAGMENT);
        }
    }

    /// Takes off what the receiver puts on again.
    fn strip_tail(&mut self) {
        let len = self.packed.len().saturating_sub(TAIL.len());
        if self.packed.ends_with(&TAIL) {
            self.packed.truncate(len);
        }
        if self.packed.is_empty() {
            // Nothing came after the last flush: an empty block, less its tail (§7.2.3.6).
            self.packed.push(0);
        }
    }

    fn next_message(&mut self) {
        self.message = Progress::default();
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w5_a_core_has_room_for_so_many_and_gets_it_back() {
        let contexts = Contexts::new(2);
        let (first, second) = (contexts.open(Agreed::default()), contexts.open(Agreed::default()));
        assert!(contexts.is_full());
        drop(first);
        assert!(!contexts.is_full());
        drop(second);
        assert!(Contexts::new(0).is_full());
    }
}
