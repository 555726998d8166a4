//! A raw TCP service that echoes (RFC 862): as many octets back as were sent, the same ones.

/// How much of the echo has come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    got: usize,
}

impl Reader {
    /// Reads `octets`: whether the echo of `payload` is complete with them.
    ///
    /// # Errors
    /// If they aren't its echo.
    pub(super) fn next(&mut self, octets: &[u8], payload: &[u8]) -> Result<bool, &'static str> {
        let end = self.got + octets.len();
        if payload.get(self.got..end) != Some(octets) {
            return Err("what came back isn't what was sent");
        }
        self.got = if end == payload.len() { 0 } else { end };
        Ok(end == payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_complete_at_its_last_octet_and_nothing_else_is_taken() {
        let mut reader = Reader::default();
        for _ in 0..2 {
            assert_eq!(reader.next(b"hel", b"hello"), Ok(false));
            assert_eq!(reader.next(b"lo", b"hello"), Ok(true));
        }
        assert!(Reader::default().next(b"hellx", b"hello").is_err());
        assert!(Reader::default().next(b"hello!", b"hello").is_err());
    }
}
