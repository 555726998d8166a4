//! What the applications send: octets that depend on the stream and the position alone.
//!
//! Each octet can be checked where it arrives, without keeping what was sent; a stream that is shifted, swapped
//! with another or cut anywhere differs at once.

/// One direction of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of that number in the run of `seed`.
    pub fn new(seed: u64, number: u64) -> Self {
        Self { key: mix(mix(seed.wrapping_add(1)).wrapping_add(number)) }
    }

    /// Fills `to` with the octets from position `at` on.
    pub fn fill(&self, mut at: u64, to: &mut [u8]) {
        let mut rest = to;
        while !rest.is_empty() {
            let word = self.word(at / 8);
            let skip = (at % 8) as usize;
            let len = rest.len().min(8 - skip);
            rest[..len].copy_from_slice(&word[skip..skip + len]);
            at += len as u64;
            rest = &mut rest[len..];
        }
    }

    /// The position of the first octet that differs from what was sent; `from` begins at position `at`.
    pub fn differs(&self, mut at: u64, from: &[u8]) -> Option<u64> {
        let mut rest = from;
        while !rest.is_empty() {
            let word = self.word(at / 8);
            let skip = (at % 8) as usize;
            let len = rest.len().min(8 - skip);
            if rest[..len] != word[skip..skip + len] {
                let same = rest.iter().zip(&word[skip..]).take_while(|(got, sent)| got == sent).count();
                return Some(at + same as u64);
            }
            at += len as u64;
            rest = &rest[len..];
        }
        None
    }

    fn word(&self, index: u64) -> [u8; 8] {
        mix(self.key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit of `z`.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_gives_the_same_stream_and_every_change_is_found() {
        let stream = Stream::new(7, 3);
        let mut whole = [0; 100];
        stream.fill(0, &mut whole);
        for from in 0..100 {
            let mut part = vec![0; 100 - from];
            stream.fill(from as u64, &mut part);
            assert_eq!(part, whole[from..]);
            assert_eq!(stream.differs(from as u64, &part), None);
            let mut changed = whole;
            changed[from] ^= 1;
            assert_eq!(stream.differs(0, &changed), Some(from as u64));
        }
        assert!(stream.differs(1, &whole).is_some(), "shifted by one");
        assert!(Stream::new(7, 4).differs(0, &whole).is_some(), "another stream");
    }
}
