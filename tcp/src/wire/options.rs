//! TCP options (RFC 9293 §3.1, RFC 7323, RFC 2018): at most 40 octets, never trusted.

use super::{be16, be32, checksum, put};
use crate::seq::SeqNumber;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Octets of options a header can carry: data offset 15 × 4 − 20.
const MAX_LEN: usize = 40;
/// Largest shift count (RFC 7323 §2.3): above it the window would exceed 2^30.
const MAX_WINDOW_SCALE: u8 = 14;
/// What nearly every segment of a connection with timestamps carries (RFC 7323 appendix A).
pub(super) const TIMESTAMPS_ONLY: [u8; 4] = [NOP, NOP, TIMESTAMPS, 10];

/// Octets of timestamps by themselves, padded.
const TIMESTAMPS_LEN: usize = 12;

/// Up to four SACK blocks (RFC 2018 §3), as many as 40 octets of options can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    blocks: [(SeqNumber, SeqNumber); Self::MAX],
    len: u8,
}

impl SackBlocks {
    /// Blocks that fit.
    pub const MAX: usize = 4;
    /// No block.
    pub const NONE: Self = Self { blocks: [(SeqNumber(0), SeqNumber(0)); Self::MAX], len: 0 };

    /// Number of blocks.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The blocks as (left edge, right edge), in the order of the option. A received one may be
    /// anything: nothing has been compared with the window yet.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (SeqNumber, SeqNumber)> + '_ {
        self.blocks[..self.len()].iter().copied()
    }

    /// Adds a block behind the others; false if there are four already.
    #[inline]
    pub fn push(&mut self, left: SeqNumber, right: SeqNumber) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *slot = (left, right);
        self.len += 1;
        true
    }
}

/// The options byway understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Largest segment the sender can receive, octets (RFC 9293 §3.7.1); only valid in a SYN.
    /// `None` also for 0, which says nothing (T11).
    pub mss: Option<u16>,
    /// Shift count of later windows (RFC 7323 §2), at most 14 (T14); only valid in a SYN.
    pub window_scale: Option<u8>,
    /// The sender can take SACK options (RFC 2018 §2); only valid in a SYN.
    pub sack_permitted: bool,
    /// TSval and TSecr (RFC 7323 §3).
    pub timestamps: Option<(u32, u32)>,
    /// Ranges received out of order (RFC 2018 §3).
    pub sack: SackBlocks,
}

impl Options {
    /// No option.
    pub const NONE: Self = Self {
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: SackBlocks::NONE,
    };

    /// Reads the octets between the fixed header and the data. A list that runs over its end stops
    /// there, and what came before holds; a known option of the wrong length is passed over; of
    /// two of a kind the later holds. All as Linux has it (T17; RFC 9293 §3.1, MUST-4 to MUST-7, MUST-64).
    #[inline]
    pub(super) fn parse(octets: &[u8]) -> Self {
        if octets.len() == 12 && octets.starts_with(&TIMESTAMPS_ONLY) {
            return Self { timestamps: Some((be32(octets, 4), be32(octets, 8))), ..Self::NONE };
        }
        if octets.is_empty() { Self::NONE } else { Self::parse_list(octets) }
    }

    fn parse_list(mut rest: &[u8]) -> Self {
        let mut options = Self::NONE;
        // At most 40 rounds: each takes an octet at least.
        while let [kind, after @ ..] = rest {
            match *kind {
                END => break,
                NOP => {
                    rest = after;
                    continue;
                }
                _ => {}
            }
            let Some(len @ 2..) = after.first().map(|&len| usize::from(len)) else { break };
            let Some((option, after)) = rest.split_at_checked(len) else { break };
            match (*kind, &option[2..]) {
                (MSS, value @ [_, _]) => options.mss = Some(be16(value, 0)).filter(|&mss| mss > 0),
                // RFC 7323 §2.3: a larger shift is taken for 14.
                (WINDOW_SCALE, [shift]) => options.window_scale = Some(MAX_WINDOW_SCALE.min(*shift)),
                (SACK_PERMITTED, []) => options.sack_permitted = true,
                (TIMESTAMPS, value) if value.len() == 8 => {
                    options.timestamps = Some((be32(value, 0), be32(value, 4)));
                }
                (SACK, value) if value.len().is_multiple_of(8) => {
                    options.sack = SackBlocks::NONE;
                    for block in value.chunks_exact(8) {
                        options.sack.push(SeqNumber(be32(block, 0)), SeqNumber(be32(block, 4)));
                    }
                }
                _ => {}
            }
            rest = after;
        }
        options
    }

    /// How many SACK blocks fit beside the other options: with timestamps three (RFC 2018 §3).
    fn sack_room(&self) -> usize {
        ((MAX_LEN - self.len_without_sack() - 4) / 8).min(self.sack.len())
    }

    fn len_without_sack(&self) -> usize {
        let sack_permitted = self.sack_permitted && self.timestamps.is_none();
        4 * (usize::from(self.mss.is_some()) + usize::from(self.window_scale.is_some()))
            + 4 * usize::from(sack_permitted)
            + 12 * usize::from(self.timestamps.is_some())
    }

    /// Octets that [`emit`](Self::emit) writes: a multiple of four, at most 40.
    #[inline]
    pub(super) fn emitted_len(&self) -> usize {
        match self.only_timestamps() {
            Some(_) => TIMESTAMPS_LEN,
            None => self.len_of_list(),
        }
    }

    /// The timestamps, if nothing else is there: so is nearly every segment.
    #[inline]
    fn only_timestamps(&self) -> Option<(u32, u32)> {
        let others = self.mss.is_some() | self.window_scale.is_some() | self.sack_permitted;
        if others | !self.sack.is_empty() { None } else { self.timestamps }
    }

    fn len_of_list(&self) -> usize {
        let blocks = if self.sack.is_empty() { 0 } else { self.sack_room() };
        self.len_without_sack() + if blocks > 0 { 4 + 8 * blocks } else { 0 }
    }

    /// Writes the options, each padded to four octets by NOPs in front, in Linux's order: MSS,
    /// SACK-permitted and timestamps in one, window scale, SACK blocks. Each but NOP has its length (RFC 9293 §3.1,
    /// MUST-68), and none ends the list early, so that no zeros have to follow (MUST-69). Returns their sum.
    #[inline]
    pub(super) fn emit(&self, to: &mut [u8]) -> u64 {
        if let (Some((value, echo)), Some(to)) =
            (self.only_timestamps(), to.first_chunk_mut::<TIMESTAMPS_LEN>())
        {
            put(to, 0, TIMESTAMPS_ONLY);
            put(to, 4, value.to_be_bytes());
            put(to, 8, echo.to_be_bytes());
            return u64::from(u32::from_be_bytes(TIMESTAMPS_ONLY)) + u64::from(value) + u64::from(echo);
        }
        self.emit_list(to);
        checksum::sum(to)
    }

    fn emit_list(&self, to: &mut [u8]) {
        debug_assert_eq!(to.len(), self.emitted_len());
        let mut at = 0;
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(to, at, [MSS, 4, high, low]);
            at += 4;
        }
        if let Some((value, echo)) = self.timestamps {
            let [front, second] = if self.sack_permitted { [SACK_PERMITTED, 2] } else { [NOP, NOP] };
            let mut option = [front, second, TIMESTAMPS, 10, 0, 0, 0, 0, 0, 0, 0, 0];
            put(&mut option, 4, value.to_be_bytes());
            put(&mut option, 8, echo.to_be_bytes());
            put(to, at, option);
            at += 12;
        } else if self.sack_permitted {
            put(to, at, [NOP, NOP, SACK_PERMITTED, 2]);
            at += 4;
        }
        if let Some(shift) = self.window_scale {
            put(to, at, [NOP, WINDOW_SCALE, 3, shift]);
            at += 4;
        }
        let blocks = if self.sack.is_empty() { 0 } else { self.sack_room() };
        if blocks > 0 {
            put(to, at, [NOP, NOP, SACK, 2 + 8 * blocks as u8]);
            at += 4;
            for (left, right) in self.sack.iter().take(blocks) {
                put(to, at, left.0.to_be_bytes());
                put(to, at + 4, right.0.to_be_bytes());
                at += 8;
            }
        }
    }
}
