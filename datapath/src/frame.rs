//! Descriptors that point where we want.
//!
//! `xsk_rs` hands out one [`FrameDesc`] per frame, pointing at the default headroom, and keeps the
//! fields private. byway sends from wherever the headers happen to begin, so it has to choose
//! address and length itself. This file is the only one that reaches around that privacy:
//!
//! ```text
//!   FrameDesc, 4 words, order chosen by rustc:   │ ? │ ? │ ? │ ? │
//!   probe():  write a marker into one word, ask addr() and lengths() which field changed
//!   desc():   default descriptor + address and length written into the words so found
//! ```
//!
//! Nothing is read back through raw pointers (a word may be half padding); everything is checked
//! through `xsk_rs`'s own accessors at start-up, and a mismatch is an [`Error`], not a bad frame.

use core::mem::{align_of, size_of};

use xsk_rs::FrameDesc;

use crate::error::Error;

/// Size of a descriptor in machine words.
const WORDS: usize = size_of::<FrameDesc>() / size_of::<usize>();

// What `write_word` relies on: whole, aligned words and nothing to drop.
const _: () = assert!(size_of::<FrameDesc>().is_multiple_of(size_of::<usize>()));
const _: () = assert!(align_of::<FrameDesc>() == align_of::<usize>());
const _: () = assert!(!core::mem::needs_drop::<FrameDesc>());

/// Which words of a [`FrameDesc`] hold the address and the data length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DescLayout {
    addr_word: usize,
    len_word: usize,
}

impl DescLayout {
    /// Finds the two words, and verifies them with values that occur in practice.
    ///
    /// # Errors
    /// [`Error::DescriptorLayout`] if this build of `xsk_rs` is not the one we know.
    pub(crate) fn probe() -> Result<Self, Error> {
        // No address or length is as large, and no field starts out with it.
        const MARK: usize = 0x5a5a_1234_a5a5_4321;
        let (mut addr_word, mut len_word) = (None, None);
        for word in 0..WORDS {
            let mut desc = FrameDesc::default();
            write_word(&mut desc, word, MARK);
            let fields = (desc.addr(), desc.lengths().headroom(), desc.lengths().data(), desc.options());
            if fields == (MARK, 0, 0, 0) {
                addr_word = Some(word);
            } else if fields == (0, 0, MARK, 0) {
                len_word = Some(word);
            }
        }
        let (Some(addr_word), Some(len_word)) = (addr_word, len_word) else {
            return Err(Error::DescriptorLayout);
        };
        let layout = Self { addr_word, len_word };
        let verified = [(0, 0), (2048, 1514), (256, 60), (0x7fff_f800, 65_535), (usize::MAX >> 1, 1)]
            .into_iter()
            .all(|(addr, len)| {
                let desc = layout.desc(addr, len);
                desc.addr() == addr
                    && desc.lengths().data() == len
                    && desc.lengths().headroom() == 0
                    && desc.options() == 0
            });
        if verified { Ok(layout) } else { Err(Error::DescriptorLayout) }
    }

    /// A descriptor of `len` octets at `addr`, counted from the start of the UMEM.
    #[inline]
    pub(crate) fn desc(self, addr: usize, len: usize) -> FrameDesc {
        let mut desc = FrameDesc::default();
        write_word(&mut desc, self.addr_word, addr);
        write_word(&mut desc, self.len_word, len);
        desc
    }
}

/// Overwrites one word of a descriptor.
#[inline]
fn write_word(desc: &mut FrameDesc, word: usize, value: usize) {
    assert!(word < WORDS);
    let words = core::ptr::from_mut(desc).cast::<usize>();
    // SAFETY: `word < WORDS`, so the word lies inside `*desc`.
    let place = unsafe { words.add(word) };
    // SAFETY: `place` is aligned (asserted above: a descriptor is aligned as a word is) and ours
    // alone through `desc`. Any bits are valid there: xsk-rs 0.11 declares the descriptor's fields
    // as `usize` and `u32`, and it is `Copy` without a destructor.
    unsafe { place.write(value) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_this_xsk_rs_is_found() {
        let layout = DescLayout::probe().expect("layout");
        assert_ne!(layout.addr_word, layout.len_word);
    }

    #[test]
    fn a_descriptor_says_what_it_was_told_and_no_more() {
        let layout = DescLayout::probe().expect("layout");
        for index in [0usize, 1, 7, 65_535, 1 << 20] {
            for (offset, len) in [(0, 2048), (128, 60), (202, 1514), (2047, 1)] {
                let desc = layout.desc(index * 2048 + offset, len);
                assert_eq!(desc.addr(), index * 2048 + offset);
                assert_eq!(desc.lengths().data(), len);
                assert_eq!(desc.lengths().headroom(), 0);
                assert_eq!(desc.options(), 0);
                assert!(!desc.has_more_frames());
            }
        }
    }

    #[test]
    #[should_panic(expected = "word < WORDS")]
    fn a_word_outside_the_descriptor_is_refused() {
        write_word(&mut FrameDesc::default(), WORDS, 0);
    }
}
