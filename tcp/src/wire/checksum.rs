//! The internet checksum (RFC 1071): the ones' complement sum of 16-bit words.
//!
//! Sums are taken over words in the machine's own byte order and swapped once at the end, which
//! gives the same result (RFC 1071 §2 (B)); 64-bit words in 128-bit sums defer the carries (§2 (A)): an addition
//! and a carry for eight octets, which the vectors of every x86-64 don't beat. What is a number already, as a
//! header's fields before they are written, is added as one: 32 bits of it are two words and the carry between them.

use core::net::IpAddr;

/// Octets per step of [`sum`]'s main loop, a word for each of its accumulators.
const BLOCK: usize = 32;

/// The ones' complement sum of `octets` as big-endian 16-bit words, an odd last octet padded with
/// zero. At most 0xffff. Sums are added up, with each other and with 32-bit numbers, 2^31 of them before a [`fold`].
#[inline]
pub fn sum(octets: &[u8]) -> u64 {
    let (blocks, rest) = octets.as_chunks::<BLOCK>();
    // Four chains of additions, so that none waits for the one before.
    let mut sums = [0_u128; 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += u128::from(u64::from_ne_bytes(*word));
        }
    }
    let [mut total, ..] = sums;
    for sum in &sums[1..] {
        total += sum;
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        total += u128::from(u64::from_ne_bytes(*word));
    }
    total += u128::from(last_word(rest));
    u64::from(u16::from_be(fold_wide(total)))
}

/// Fewer than eight octets, in the machine's order, padded with zeros.
#[inline]
fn last_word(mut octets: &[u8]) -> u64 {
    let (mut word, mut shift) = (0, 0);
    let mut add = |part: u64, bits: u32| {
        word |= part << shift;
        shift += bits;
    };
    if let Some((four, rest)) = octets.split_first_chunk::<4>() {
        add(u64::from(u32::from_le_bytes(*four)), 32);
        octets = rest;
    }
    if let Some((two, rest)) = octets.split_first_chunk::<2>() {
        add(u64::from(u16::from_le_bytes(*two)), 16);
        octets = rest;
    }
    if let Some(&one) = octets.first() {
        add(u64::from(one), 8);
    }
    u64::from_le(word)
}

/// Adds the carries back in, without the branches of an exact sum of 128 bits.
#[inline]
fn fold_wide(total: u128) -> u16 {
    // The upper half counts carries: far from overflowing anything.
    let (low, carries) = (total as u64, (total >> 64) as u64);
    let halves = (low >> 32) + (low & 0xffff_ffff) + carries;
    let once = (halves >> 32) + (halves & 0xffff_ffff);
    let twice = (once >> 16) + (once & 0xffff);
    let thrice = (twice >> 16) + (twice & 0xffff);
    ((thrice >> 16) + (thrice & 0xffff)) as u16
}

/// The sum over `first` octets followed by those of `second`, from their sums. `first_len` is the
/// number of octets before the second: after an odd number, the second's octets trade places
/// (RFC 1071 §2 (B)).
#[inline]
pub fn combine(first: u64, first_len: usize, second: u64) -> u64 {
    let second = fold(second);
    first + u64::from(if first_len % 2 == 1 { second.swap_bytes() } else { second })
}

/// Adds the carries back in: a 16-bit ones' complement sum.
#[inline]
pub fn fold(sum: u64) -> u16 {
    let halves = (sum >> 32) + (sum & 0xffff_ffff);
    let once = (halves >> 16) + (halves & 0xffff);
    let twice = (once >> 16) + (once & 0xffff);
    ((twice >> 16) + (twice & 0xffff)) as u16
}

/// The value of a header's checksum field, from the sum over everything else.
#[inline]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Whether a sum over octets that include a checksum field says that they arrived as sent.
#[inline]
pub fn is_valid(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// The sum over the pseudo-header of TCP (RFC 9293 §3.1) or ICMPv6 (RFC 8200 §8.1).
/// `len` is the upper layer's length in octets, its header included.
#[inline]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u64 {
    debug_assert_eq!(src.is_ipv4(), dst.is_ipv4(), "mixed address families");
    address(src) + address(dst) + u64::from(protocol) + len as u64
}

/// The sum over an address.
#[inline]
pub(super) fn address(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            [bits >> 96, bits >> 64, bits >> 32, bits].into_iter().map(|word| u64::from(word as u32)).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word. Like `sum`, it gives 0 only for octets that are all zero; ones'
    /// complement has a second zero, 0xffff.
    fn naive(octets: &[u8]) -> u16 {
        let mut total: u32 = 0;
        for pair in octets.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn s4_5_the_example_of_rfc_1071() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&octets), 0xddf2);
        assert_eq!(finish(sum(&octets)), !0xddf2);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xff; 4096]), 0xffff);
        assert_eq!(sum(&[0; 65]), 0);
    }

    proptest! {
        #[test]
        fn s4_5_agrees_with_the_naive_sum(
            octets in prop::collection::vec(any::<u8>(), 0..3000), skip in 0_usize..9,
        ) {
            let slice = &octets[skip.min(octets.len())..];
            prop_assert_eq!(sum(slice), u64::from(naive(slice)));
        }

        #[test]
        fn s4_5_parts_combine_to_the_whole(
            octets in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300,
        ) {
            let (first, second) = octets.split_at(cut.min(octets.len()));
            prop_assert_eq!(fold(combine(sum(first), first.len(), sum(second))), naive(&octets));
        }

        #[test]
        fn s4_5_the_pseudo_header_sums_its_fields(src: [u8; 16], dst: [u8; 16], protocol: u8, len in 0_usize..65536) {
            let mut v6 = [src.as_slice(), &dst, &(len as u32).to_be_bytes()].concat();
            v6.extend([0, 0, 0, protocol]);
            prop_assert_eq!(fold(pseudo_header(src.into(), dst.into(), protocol, len)), naive(&v6));

            let (src, dst): ([u8; 4], [u8; 4]) = (*src.first_chunk().unwrap(), *dst.first_chunk().unwrap());
            let mut v4 = [src, dst].concat();
            v4.extend([0, protocol]);
            v4.extend((len as u16).to_be_bytes());
            prop_assert_eq!(fold(pseudo_header(src.into(), dst.into(), protocol, len)), naive(&v4));
        }
    }
}
