//! UTF-8 checked as it arrives (RFC 6455 §8.1): the first bad octet is reported at once.

use simdutf8::compat::from_utf8;

/// The text isn't UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Invalid;

/// A check that goes on over frames and fragments, with at most three octets of an unfinished
/// code point in hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    carry: [u8; 4],
    carried: usize,
}

impl Utf8 {
    /// Takes the next octets of the text.
    ///
    /// # Errors
    /// If no text in UTF-8 goes on like this.
    pub(super) fn push(&mut self, mut octets: &[u8]) -> Result<(), Invalid> {
        while self.carried > 0 {
            let Some((&first, rest)) = octets.split_first() else { return Ok(()) };
            self.carry[self.carried] = first;
            self.carried += 1;
            octets = rest;
            match core::str::from_utf8(&self.carry[..self.carried]) {
                Ok(_) => self.carried = 0,
                // `None`: good so far, but unfinished; never with four octets.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Invalid),
            }
        }
        match from_utf8(octets) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let tail = &octets[error.valid_up_to()..];
                self.carry[..tail.len()].copy_from_slice(tail);
                self.carried = tail.len();
                Ok(())
            }
            Err(_) => Err(Invalid),
        }
    }

    /// The text is over; the next begins afresh.
    ///
    /// # Errors
    /// If it ended inside a code point.
    pub(super) fn finish(&mut self) -> Result<(), Invalid> {
        let unfinished = core::mem::take(&mut self.carried) > 0;
        if unfinished { Err(Invalid) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Index of the octet at which the check gives up.
    fn fails_at(text: &[u8]) -> Option<usize> {
        let mut utf8 = Utf8::default();
        text.iter().position(|&octet| utf8.push(&[octet]).is_err())
    }

    #[test]
    fn w6_the_first_bad_octet_is_reported() {
        assert_eq!(fails_at("κόσμε 🦀".as_bytes()), None);
        assert_eq!(fails_at(b"ab\xf4\x90\x80\x80"), Some(3), "above U+10FFFF");
        assert_eq!(fails_at(b"\xed\xa0\x80"), Some(1), "a surrogate");
        assert_eq!(fails_at(b"\xc0\xaf"), Some(0), "overlong");
        assert_eq!(fails_at(b"\xe0\x80\x80"), Some(1), "overlong");
        assert_eq!(fails_at(b"\xf5"), Some(0));
        assert_eq!(fails_at(b"\x80"), Some(0));
        assert_eq!(fails_at(b"\xce\xbae"), None);
        assert_eq!(fails_at(b"\xcee"), Some(1));
    }

    #[test]
    fn w6_an_unfinished_code_point_is_an_error_only_at_the_end() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xf0\x9f"), Ok(()));
        assert_eq!(utf8.finish(), Err(Invalid));
        assert_eq!(utf8.push(b"fresh"), Ok(()));
        assert_eq!(utf8.finish(), Ok(()));
    }

    proptest! {
        #[test]
        fn w6_any_cut_gives_the_same_verdict(
            text in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xf0), 0x80u8..0xc0, 0x20u8..0x7f], 0..40),
            cut in 0usize..40,
        ) {
            let cut = cut.min(text.len());
            let mut utf8 = Utf8::default();
            let verdict = utf8.push(&text[..cut]).and_then(|()| utf8.push(&text[cut..])).and_then(|()| utf8.finish());
            prop_assert_eq!(verdict.is_ok(), core::str::from_utf8(&text).is_ok());
        }
    }
}
