//! SYN cookies (RFC 4987 §3.6): when the backlog is full, the SYN-ACK itself remembers what a half-open entry would.
//!
//! ```text
//!   ISN:    │ keyed hash of tuple, peer's ISN, slot, MSS, terms : 24 │ slot : 5 │ MSS : 3 │
//!   TSval:  │ our millisecond clock, up to 64 ms late : 26           │ ECN │SACK│ scale : 4 │   if the peer has timestamps
//! ```
//!
//! The ACK that completes the handshake brings both back. Nothing is kept, so nothing can be filled up, and
//! a SYN is answered by one segment that is never repeated (T1, T26).

use core::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::flow_table::{FourTuple, HashKey};
use crate::seq::SeqNumber;
use crate::time::{Duration, Instant};

/// A cookie holds in the slot it was made in and in the next one: 64 to 128 s, which covers the minute in which
/// Linux repeats a SYN-ACK, and leaves a guesser little time.
const SLOT_MS: u64 = 64_000;
/// No cookie lives longer.
pub(crate) const LIFETIME: Duration = Duration::from_millis(2 * SLOT_MS);
const SLOT_BITS: u32 = 5;
const MSS_BITS: u32 = 3;
/// What remains is the hash: a guess hits with 2^-24.
const HASH_SHIFT: u32 = SLOT_BITS + MSS_BITS;

/// The MSS is rounded down to one of these: the least we send (T11), RFC 9293's defaults for IPv4 and IPv6, tunnels
/// and mobile networks, PPPoE and IPv6 on Ethernet, Ethernet, jumbo frames.
const MSS_TABLE: [u16; 1 << MSS_BITS] = [48, 536, 1220, 1360, 1400, 1440, 1460, 8960];

/// What a peer with timestamps gets besides its MSS: it sends them back (as Linux has it).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    /// Shift of the peer's windows, at most 14.
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) ecn: bool,
}

impl Terms {
    const BITS: u32 = 6;
    const MASK: u32 = (1 << Self::BITS) - 1;
    /// Not a shift: the peer doesn't scale.
    const NO_SCALE: u32 = 15;

    fn pack(self) -> u32 {
        let scale = self.window_scale.map_or(Self::NO_SCALE, u32::from);
        scale | u32::from(self.sack) << 4 | u32::from(self.ecn) << 5
    }

    /// From the timestamp that the peer echoes.
    pub(crate) fn of_stamp(stamp: u32) -> Self {
        let scale = stamp & 0xf;
        Self {
            window_scale: (scale != Self::NO_SCALE).then_some(scale as u8),
            sack: stamp & 1 << 4 != 0,
            ecn: stamp & 1 << 5 != 0,
        }
    }

    /// The latest timestamp not after `clock` that carries the terms, so that later ones are newer (RFC 7323 §5).
    pub(crate) fn stamp(self, clock: u32) -> u32 {
        let stamp = clock & !Self::MASK | self.pack();
        if stamp & Self::MASK > clock & Self::MASK { stamp.wrapping_sub(1 << Self::BITS) } else { stamp }
    }
}

/// Makes and checks cookies.
#[derive(Debug)]
pub(crate) struct Cookies(pub(super) HashKey);

impl Cookies {
    /// The initial sequence number that answers the SYN of number `irs`.
    pub(crate) fn make(
        &self,
        tuple: &FourTuple,
        irs: SeqNumber,
        mss: u16,
        terms: Option<Terms>,
        now: Instant,
    ) -> SeqNumber {
        let slot = slot(now);
        let index = MSS_TABLE.partition_point(|&entry| entry <= mss).saturating_sub(1) as u32;
        let low = (slot as u32 % (1 << SLOT_BITS)) << MSS_BITS | index;
        SeqNumber(self.hash(tuple, irs, slot, index, terms) << HASH_SHIFT | low)
    }

    /// The peer's MSS, if `cookie` was made for this SYN lately. Costs one hash (T2).
    pub(crate) fn check(
        &self,
        tuple: &FourTuple,
        irs: SeqNumber,
        cookie: SeqNumber,
        terms: Option<Terms>,
        now: Instant,
    ) -> Option<u16> {
        let index = cookie.0 % (1 << MSS_BITS);
        let bits = u64::from(cookie.0 >> MSS_BITS) % (1 << SLOT_BITS);
        let age = slot(now).wrapping_sub(bits) % (1 << SLOT_BITS);
        let made = slot(now).checked_sub(age).filter(|_| age < 2)?;
        let right = self.hash(tuple, irs, made, index, terms) == cookie.0 >> HASH_SHIFT;
        right.then(|| MSS_TABLE[index as usize])
    }

    /// 24 bits. The terms are hashed too: an ACK whose timestamps were lost on the way would open a connection whose
    /// sides count windows differently.
    fn hash(&self, tuple: &FourTuple, irs: SeqNumber, slot: u64, index: u32, terms: Option<Terms>) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.0.0);
        tuple.feed(&mut hasher);
        hasher.write_u64(slot);
        hasher.write_u32(irs.0);
        hasher.write_u32(index << 8 | terms.map_or(0xff, Terms::pack));
        hasher.finish() as u32 >> HASH_SHIFT
    }
}

fn slot(now: Instant) -> u64 {
    now.as_millis() / SLOT_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            local_ip: [10, 0, 0, 1].into(),
            remote_ip: [10, 0, 0, 2].into(),
            local_port: 80,
            remote_port: port,
        }
    }

    fn cookies() -> Cookies {
        Cookies(HashKey([3; 16]))
    }

    proptest! {
        /// T1: what a SYN said comes back, for 64 s at least and 128 s at most; a timestamp is never ahead of the clock.
        #[test]
        fn t1_a_cookie_brings_back_what_it_was_given(
            irs: u32, mss in 48u16.., scale in proptest::option::of(0u8..=14), sack: bool, ecn: bool,
            clock: u32, at in 0u64..1 << 40, age in 0u64..200_000,
        ) {
            let terms = Terms { window_scale: scale, sack, ecn };
            let stamp = terms.stamp(clock);
            prop_assert_eq!(Terms::of_stamp(stamp), terms);
            prop_assert!(clock.wrapping_sub(stamp) < 64);
            let (made, then) = (Instant::from_millis(at), Instant::from_millis(at + age));
            for terms in [None, Some(terms)] {
                let cookie = cookies().make(&tuple(7), SeqNumber(irs), mss, terms, made);
                let found = cookies().check(&tuple(7), SeqNumber(irs), cookie, terms, then);
                match age {
                    0..64_000 => prop_assert!(found.is_some()),
                    64_000..128_000 => {}
                    _ => prop_assert_eq!(found, None),
                }
                if let Some(found) = found {
                    prop_assert!(found <= mss && (found == 8960 || mss - found < found * 11));
                }
            }
        }
    }

    /// T1: nothing but the cookie opens: not for another tuple, another SYN, other terms, another key; and a guess
    /// doesn't hit more often than 2^-24 (here: 2^20 guesses of the current slot, expected 0.06).
    #[test]
    fn t1_t2_forged_cookies_fail() {
        let (irs, now) = (SeqNumber(99), Instant::from_millis(1_000_000));
        let terms = Some(Terms { window_scale: Some(7), sack: true, ecn: false });
        let cookie = cookies().make(&tuple(7), irs, 1460, terms, now);
        assert_eq!(cookies().check(&tuple(7), irs, cookie, terms, now), Some(1460));
        assert_eq!(cookies().check(&tuple(8), irs, cookie, terms, now), None);
        assert_eq!(cookies().check(&tuple(7), irs + 1, cookie, terms, now), None);
        assert_eq!(cookies().check(&tuple(7), irs, cookie, None, now), None);
        assert_eq!(cookies().check(&tuple(7), irs, cookie + 1, terms, now), None);
        assert_eq!(Cookies(HashKey([4; 16])).check(&tuple(7), irs, cookie, terms, now), None);
        let guesses = 1u32 << 20;
        let hits = (0..guesses)
            .map(|guess| SeqNumber(guess.wrapping_mul(0x9e37_7900) | cookie.0 & 0xff))
            .filter(|&guess| guess != cookie)
            .filter(|&guess| cookies().check(&tuple(7), irs, guess, terms, now).is_some())
            .count();
        assert!(hits <= 1, "{hits} of {guesses}");
    }
}
