//! Sequence numbers (RFC 9293 §3.4): 32 bits, compared modulo 2^32.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A point in a connection's sequence space.
///
/// Comparison wraps, so it isn't transitive over the whole space and there is
/// no `PartialOrd`: use [`lt`](Self::lt), [`leq`](Self::leq) and
/// [`in_window`](Self::in_window).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// `self < other` on the circle: true when `other` lies less than 2^31 ahead.
    #[inline]
    pub fn lt(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// `self <= other` on the circle.
    #[inline]
    pub fn leq(self, other: Self) -> bool {
        self == other || self.lt(other)
    }

    /// `self > other` on the circle.
    #[inline]
    pub fn gt(self, other: Self) -> bool {
        other.lt(self)
    }

    /// `self >= other` on the circle.
    #[inline]
    pub fn geq(self, other: Self) -> bool {
        other.leq(self)
    }

    /// Whether `first <= self < first + size`.
    #[inline]
    pub fn in_window(self, first: Self, size: u32) -> bool {
        self.0.wrapping_sub(first.0) < size
    }

    /// Whether `una < self <= nxt`: what an acknowledgement must be to move SND.UNA (RFC 9293 §3.4). Unlike two
    /// comparisons it can't be met by a number half the space away (T7).
    #[inline]
    pub fn acknowledges(self, una: Self, nxt: Self) -> bool {
        let ahead = self.since(una);
        ahead != 0 && ahead <= nxt.since(una)
    }

    /// How far `self` lies ahead of `earlier`, in octets of sequence space.
    #[inline]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The later of two points.
    #[inline]
    pub fn max(self, other: Self) -> Self {
        if self.lt(other) { other } else { self }
    }

    /// The earlier of two points.
    #[inline]
    pub fn min(self, other: Self) -> Self {
        if self.lt(other) { self } else { other }
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;
    #[inline]
    fn add(self, octets: u32) -> Self {
        Self(self.0.wrapping_add(octets))
    }
}

impl AddAssign<u32> for SeqNumber {
    #[inline]
    fn add_assign(&mut self, octets: u32) {
        self.0 = self.0.wrapping_add(octets);
    }
}

impl Sub<u32> for SeqNumber {
    type Output = Self;
    #[inline]
    fn sub(self, octets: u32) -> Self {
        Self(self.0.wrapping_sub(octets))
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNumber as S;
    use proptest::prelude::*;

    #[test]
    fn t14_windows_hold_across_the_wrap() {
        for base in [0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            let first = S(base);
            assert!(first.in_window(first, 1));
            assert!(!first.in_window(first, 0));
            assert!((first + 9).in_window(first, 10));
            assert!(!(first + 10).in_window(first, 10));
            assert!(!(first - 1).in_window(first, 10));
            assert!(first.lt(first + 1) && !(first + 1).lt(first));
        }
    }

    #[test]
    fn t7_no_number_far_away_acknowledges_anything() {
        for base in [0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            let una = S(base);
            for sent in [0, 1, 1000, 1 << 30] {
                let nxt = una + sent;
                assert_eq!(nxt.acknowledges(una, nxt), sent > 0);
                assert_eq!((una + 1).acknowledges(una, nxt), sent > 0);
                for far in [una, nxt + 1, una - 1, una + (1 << 31), nxt + (1 << 31), nxt - (1 << 31)] {
                    assert!(!far.acknowledges(una, nxt), "{far:?} {una:?} {nxt:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn order_agrees_with_distance(base: u32, ahead in 1u32..0x7fff_ffff) {
            let (a, b) = (S(base), S(base) + ahead);
            prop_assert!(a.lt(b) && a.leq(b) && b.gt(a) && b.geq(a));
            prop_assert_eq!(b.since(a), ahead);
            prop_assert_eq!(a.max(b), b);
            prop_assert_eq!(a.min(b), a);
        }
    }
}
