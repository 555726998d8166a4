//! The lines of a header block, of requests and of answers (RFC 9112 §2.1, §5), in one pass: names are looked up octet
//! by octet, the rest is looked through by words for what ends or spoils it. Strict: a line ends with CRLF, and no other
//! control character but a tab is in it.

use super::super::limits::Limits;
use super::request::is_tchar;
use super::scanner::max_lines;

/// Reads a header block from its front. It needn't be known yet where, or whether, the block ends.
#[derive(Debug)]
pub(crate) struct Lines<'h> {
    octets: &'h [u8],
    /// What hasn't been read.
    rest: &'h [u8],
    /// Octets of the start line, its end included.
    start_line: usize,
    /// Lines so far, the start line included, empty ones not.
    count: usize,
}

impl<'h> Lines<'h> {
    pub(crate) fn new(octets: &'h [u8]) -> Self {
        Self { octets, rest: octets, start_line: 0, count: 0 }
    }

    /// Passes over empty lines (RFC 9112 §2.2).
    pub(crate) fn skip_empty(&mut self) {
        while let Some(rest) = self.rest.strip_prefix(b"\r\n") {
            self.rest = rest;
        }
    }

    /// The first line, without its end. `None`: it isn't whole, or has control characters in it.
    #[inline]
    pub(crate) fn start_line(&mut self) -> Option<&'h [u8]> {
        let (line, rest) = split_line(self.rest)?;
        self.start_line = self.rest.len() - rest.len();
        self.count += 1;
        self.rest = rest;
        Some(line)
    }

    /// Takes name and value of each field, without white space around the value, up to the empty line.
    ///
    /// # Errors
    /// What `take` says, and what is wrong with a line: perhaps only that the rest of it is missing.
    #[inline]
    pub(crate) fn fields<E>(
        &mut self,
        malformed: impl FnOnce(&'static str) -> E,
        mut take: impl FnMut(&'h [u8], &'h [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.rest;
        while !rest.starts_with(b"\r\n") {
            let Some((name, value, next)) = split_field(rest) else {
                return Err(malformed("a header field is malformed"));
            };
            take(name, value)?;
            self.count += 1;
            rest = next;
        }
        self.rest = &rest[2..];
        Ok(())
    }

    /// Octets read so far.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len() - self.rest.len()
    }

    /// Whether what was read is within the limits, as [`Scanner`](super::scanner::Scanner) sees them.
    pub(crate) fn are_within(&self, limits: &Limits) -> bool {
        self.start_line <= limits.request_line
            && self.octets() <= limits.header_block
            && self.count <= max_lines(limits)
    }
}

/// Name and value of the field in front, and what comes after it; `None` if there is no good one.
#[inline]
fn split_field(octets: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // Octet by octet: most names are hardly longer than a word.
    let (name, rest) = octets.split_at(octets.iter().position(|&octet| !is_tchar(octet))?);
    let rest = rest.strip_prefix(b":").filter(|_| !name.is_empty())?;
    let (value, rest) = split_line(rest.strip_prefix(b" ").unwrap_or(rest))?;
    // Octets as low as that are white space: a line has no other control characters.
    let blank = |octet: Option<&u8>| octet.is_some_and(|&octet| octet <= b' ');
    let value = if blank(value.first()) || blank(value.last()) { value.trim_ascii() } else { value };
    Some((name, value, rest))
}

/// The rest of a line, without its end, and what comes after it.
#[inline(always)]
fn split_line(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = text(octets);
    if octets.get(end) == Some(&b'\t') {
        end = text_with_tabs(octets, end);
    }
    let (line, rest) = octets.split_at(end);
    Some((line, rest.strip_prefix(b"\r\n")?))
}

/// Whether a field's name, which is a token, is `known`, which is made of small letters and hyphens. Of a token's
/// octets only a letter, large or small, becomes that letter by bit 5, and only a hyphen a hyphen.
#[inline]
pub(crate) fn is<const N: usize>(name: &[u8], known: &[u8; N]) -> bool {
    let differs = |(octet, known): (&u8, &u8)| (octet | 0x20) ^ known;
    name.len() == N && name.iter().zip(known).map(differs).fold(0, |some, one| some | one) == 0
}

/// A one in each octet of a word.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
/// The top bit of each.
const TOPS: u64 = ONES << 7;

/// So many octets in front are no control characters (RFC 5234: 0x00 to 0x1f, and 0x7f).
#[inline(always)]
fn text(octets: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let mut at = 0;
    while let Some(word) = octets[at..].first_chunk::<WORD>() {
        let others = printable(u64::from_le_bytes(*word)) ^ TOPS;
        if others != 0 {
            return at + others.trailing_zeros() as usize / WORD;
        }
        at += WORD;
    }
    at + octets[at..].iter().take_while(|octet| !octet.is_ascii_control()).count()
}

/// Or tabs. One has been found.
#[cold]
fn text_with_tabs(octets: &[u8], tab: usize) -> usize {
    let mut at = tab;
    while octets.get(at) == Some(&b'\t') {
        at += 1;
        at += text(&octets[at..]);
    }
    at
}

/// The top bit of each of a word's octets that is no control character.
#[inline]
fn printable(word: u64) -> u64 {
    // Seven bits each, so that no sum reaches the next octet.
    let low = word & !TOPS;
    let from_0x20 = low + ONES * (0x80 - 0x20);
    let is_0x7f = low + ONES;
    (from_0x20 & !is_0x7f | word) & TOPS
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
