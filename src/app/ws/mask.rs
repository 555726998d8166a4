//! Masking (RFC 6455 §5.3): XOR with a repeated four-octet key.

/// Octets per turn: two SSE or one AVX register.
const LANE: usize = 32;

/// The key repeated over a lane.
fn widen(key: [u8; 4]) -> [u8; LANE] {
    let mut wide = [0; LANE];
    for (index, octet) in wide.iter_mut().enumerate() {
        *octet = key[index % 4];
    }
    wide
}

/// The key as it stands `octets` further into the payload.
pub(crate) fn rotate(mut key: [u8; 4], octets: usize) -> [u8; 4] {
    key.rotate_left(octets % 4);
    key
}

/// Unmasks (or masks) `octets` in place.
pub(crate) fn unmask(octets: &mut [u8], key: [u8; 4]) {
    let wide = widen(key);
    let mut lanes = octets.chunks_exact_mut(LANE);
    for lane in &mut lanes {
        for (octet, mask) in lane.iter_mut().zip(&wide) {
            *octet ^= mask;
        }
    }
    for (octet, mask) in lanes.into_remainder().iter_mut().zip(&wide) {
        *octet ^= mask;
    }
}

/// A lane unmasked. By words: of a loop over octets that knows the key's pattern, the compiler keeps half octet by octet.
fn flip(mut lane: [u8; LANE], key: [u8; 4]) -> [u8; LANE] {
    let [a, b, c, d] = key;
    let mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    for word in lane.as_chunks_mut::<8>().0 {
        *word = (u64::from_ne_bytes(*word) ^ mask).to_ne_bytes();
    }
    lane
}

/// Unmasks `len` octets at `from` to `to`, in one pass.
///
/// # Panics
/// If `to > from`, or they don't lie in `buf`.
pub(in crate::app) fn unmask_to(buf: &mut [u8], from: usize, to: usize, len: usize, key: [u8; 4]) {
    if from == to {
        unmask(&mut buf[from..from + len], key);
        return;
    }
    assert!(to < from, "payload only moves to the front");
    let wide = widen(key);
    // Each lane is read before it is written, and writes stay behind the next lane's reads.
    let buf = &mut buf[to..from + len];
    let shift = from - to;
    let mut at = 0;
    while at + LANE <= len {
        let mut lane = [0; LANE];
        lane.copy_from_slice(&buf[at + shift..at + shift + LANE]);
        buf[at..at + LANE].copy_from_slice(&flip(lane, key));
        at += LANE;
    }
    for (index, mask) in (at..len).zip(&wide) {
        buf[index] = buf[index + shift] ^ mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn oracle(octets: &[u8], key: [u8; 4]) -> Vec<u8> {
        octets.iter().enumerate().map(|(index, octet)| octet ^ key[index % 4]).collect()
    }

    #[test]
    fn rfc6455_5_7_masked_hello() {
        let mut octets = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut octets, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(&octets, b"Hello");
    }

    proptest! {
        #[test]
        fn every_length_and_shift_is_the_plain_xor(
            octets in proptest::collection::vec(any::<u8>(), 0..200), shift in 0usize..40, key: [u8; 4],
        ) {
            let mut buf = vec![0; shift];
            buf.extend_from_slice(&octets);
            unmask_to(&mut buf, shift, 0, octets.len(), key);
            prop_assert_eq!(&buf[..octets.len()], oracle(&octets, key));
        }

        #[test]
        fn the_key_turns_with_the_payload(
            octets in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..100, key: [u8; 4],
        ) {
            let cut = cut.min(octets.len());
            let mut pieces = octets.clone();
            let (first, second) = pieces.split_at_mut(cut);
            unmask(first, key);
            unmask(second, rotate(key, cut));
            prop_assert_eq!(&pieces, &oracle(&octets, key));
        }
    }
}
