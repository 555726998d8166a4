//! Where a header block ends, of requests and of answers.

use memchr::memchr;

use super::super::limits::Limits;
use super::request::is_tchar;
use super::response::{Refusal, Status};

/// Lines that a header block may have, the request line included, the empty one at the end not.
pub(super) fn max_lines(limits: &Limits) -> usize {
    limits.headers.saturating_add(1)
}

/// Looks for the end of a header block, wherever the frames cut it. Each octet is looked at once,
/// and what is wrong is found at the same octet however the block is cut (H6).
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// Octets of the block so far.
    octets: usize,
    /// Octets of the current line so far.
    line_octets: usize,
    /// Lines so far, the request line included, empty lines before it not.
    lines: usize,
    /// The request line's method has ended.
    named: bool,
    /// The octet before.
    last: u8,
}

impl Scanner {
    /// Whether any octet of a block has come, but for empty lines before it.
    pub(crate) fn has_begun(&self) -> bool {
        self.lines > 0 || self.line_octets > 0
    }

    /// Looks through the next octets. `Some(n)`: the block ends after the first `n` of them.
    ///
    /// # Errors
    /// A bare LF, or a limit passed (H2, H4).
    pub(crate) fn scan(&mut self, octets: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let mut at = 0;
        while at < octets.len() {
            self.check_first(octets[at])?;
            let rest = &octets[at..];
            let newline = memchr(b'\n', rest);
            let step = newline.map_or(rest.len(), |index| index + 1);
            self.octets += step;
            self.line_octets += step;
            self.check_limits(&rest[..step], limits)?;
            // Who has a whole request line needn't ask.
            self.named |= newline.is_none() && self.lines == 0 && rest.contains(&b' ');
            at += step;
            let before = if step >= 2 { rest[step - 2] } else { self.last };
            self.last = rest[step - 1];
            if newline.is_some() && self.end_line(before, limits)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// A request begins with a method: what can't be one (a TLS hello, say) is refused at once.
    fn check_first(&self, octet: u8) -> Result<(), Refusal> {
        if self.lines == 0 && self.line_octets == 0 && !is_tchar(octet) && octet != b'\r' {
            return Err(Refusal::bad("the request doesn't begin with a method"));
        }
        Ok(())
    }

    /// `piece`: the octets that were added last, all of one line.
    fn check_limits(&self, piece: &[u8], limits: &Limits) -> Result<(), Refusal> {
        if self.lines == 0 && self.line_octets > limits.request_line {
            // Up to the first octet too many, wherever the piece ends.
            let seen = piece.len() + limits.request_line + 1 - self.line_octets;
            if self.named || piece[..seen].contains(&b' ') {
                return Err(Refusal::new(Status::URI_TOO_LONG, "the request line is too long"));
            }
            // Longer than any that is implemented (RFC 9112 §3).
            return Err(Refusal::new(Status::NOT_IMPLEMENTED, "the method is too long"));
        }
        if self.octets > limits.header_block {
            return Err(Refusal::new(Status::HEADERS_TOO_LARGE, "the header block is too long"));
        }
        Ok(())
    }

    /// A line ended with LF; whether it was the block's last.
    fn end_line(&mut self, before: u8, limits: &Limits) -> Result<bool, Refusal> {
        if before != b'\r' {
            return Err(Refusal::bad("a line ends with a bare LF"));
        }
        let empty = self.line_octets == 2;
        self.line_octets = 0;
        if empty {
            // Empty lines before the request line are passed over (RFC 9112 §2.2).
            return Ok(self.lines > 0);
        }
        self.lines += 1;
        if self.lines > max_lines(limits) {
            return Err(Refusal::new(Status::HEADERS_TOO_LARGE, "too many header fields"));
        }
        Ok(false)
    }
}

/// A header block that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    scanner: Scanner,
    /// Opened when the first block is cut; bounded by `Limits::header_block` and a frame.
    octets: Vec<u8>,
}

impl Gathered {
    /// Octets for which memory is kept when it is re-used: most blocks are shorter, and few are cut at all.
    const KEPT: usize = 2048;

    /// Adds what has come next. `Some(n)`: the block ends after the first `n` octets of it.
    ///
    /// # Errors
    /// As [`Scanner::scan`].
    pub(crate) fn add(&mut self, octets: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        let end = self.scanner.scan(octets, limits);
        let own = if let Ok(Some(end)) = end { &octets[..end] } else { octets };
        self.octets.extend_from_slice(own);
        end
    }

    /// What has come so far.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Whether nothing has come, not even empty lines.
    pub(crate) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Whether any octet of a block has come, but for empty lines before it.
    pub(crate) fn has_begun(&self) -> bool {
        self.scanner.has_begun()
    }

    /// The next block begins.
    pub(crate) fn clear(&mut self) {
        self.scanner = Scanner::default();
        self.octets.clear();
    }

    /// Another connection begins.
    pub(crate) fn reopen(&mut self) {
        self.clear();
        self.octets.shrink_to(Self::KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h6_the_scanner_finds_the_same_wherever_it_is_cut() {
        let limits = Limits { request_line: 30, header_block: 60, headers: 2, ..Limits::default() };
        let blocks: [(&[u8], Result<usize, u16>); 12] = [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Ok(27)),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Ok(31)),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(400)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(400)),
            (b"\nGET", Err(400)),
            (b"\x16\x03\x01", Err(400)),
            (b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Err(414)),
            (b"GETTTTTTTTTTTTTTTTTTTTTTTTTTTTTT / HTTP/1.1\r\n", Err(501)),
            (b"GETTTTTTTTTTTTTTTTTTTTTTTTTTTTT / HTTP/1.1\r\n", Err(501)),
            (b"GETTTTTTTTTTTTTTTTTTTTTTTTTTTT / HTTP/1.1\r\n", Err(414)),
            (b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Err(431)),
            (b"GET / HTTP/1.1\r\nA: a\r\nB: a\r\nC: a\r\n\r\n", Err(431)),
        ];
        for (block, expected) in blocks {
            for size in 1..=block.len() {
                let mut scanner = Scanner::default();
                let mut at = 0;
                let mut found = None;
                for piece in block.chunks(size) {
                    match scanner.scan(piece, &limits) {
                        Ok(None) => at += piece.len(),
                        Ok(Some(n)) => found = Some(Ok(at + n)),
                        Err(refusal) => found = Some(Err(refusal.status.code)),
                    }
                    if found.is_some() {
                        break;
                    }
                }
                assert_eq!(found, Some(expected), "{:?} by {size}", String::from_utf8_lossy(block));
            }
        }
    }

    proptest::proptest! {
        /// H6: a block in one piece, and in two.
        #[test]
        fn h6_a_whole_block_ends_where_its_lines_say(
            pieces in proptest::collection::vec(proptest::sample::select(vec!["\r\n", "\r", "\n", "a", "a: b\r\n"]), 1..14),
            long in 0_usize..3, cut in 0_usize..40, body in "(hello|\r\n\r\n|GET / HTTP/1.1\r\n\r\n)?",
        ) {
            let limits = Limits { headers: 4, ..Limits::default() };
            let block = format!("a{}{}\r\n\r\n{body}", "b".repeat(200 * long), pieces.concat()).into_bytes();
            let mut scanner = Scanner::default();
            let whole = scanner.scan(&block, &limits).map_err(|refusal| refusal.why);
            let (first, second) = block.split_at(cut.min(block.len() - 1));
            let mut scanner = Scanner::default();
            let halves = match scanner.scan(first, &limits) {
                Ok(None) => scanner.scan(second, &limits).map(|end| end.map(|end| first.len() + end)),
                ended => ended,
            };
            proptest::prop_assert_eq!(whole, halves.map_err(|refusal| refusal.why));
        }
    }
}
