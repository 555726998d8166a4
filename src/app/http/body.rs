//! Request bodies: `Content-Length` and chunked (RFC 9112 §6, §7.1).

use super::super::limits::Limits;
use super::request::is_tchar;
use super::response::{Refusal, Status};

/// What comes next in a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// All octets are used up; more are needed.
    More,
    /// A chunk of so many octets begins.
    Chunk(u64),
    /// So many octets of payload lie in front; say [`Body::took`] when they are dealt with.
    Data(usize),
    /// So many octets of the line end after a chunk's payload lie in front.
    LineEnd(usize),
    /// The body is complete.
    End,
}

/// How far a body has been read.
#[derive(Debug)]
pub(crate) enum Body {
    /// Octets to come.
    Length(u64),
    Chunked(Chunked),
}

impl Body {
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunked {
            at: At::Size { digits: 0 },
            left: 0,
            total: 0,
            line: 0,
            extensions: 0,
            trailers: 0,
        })
    }

    /// Reads on in `octets`: how many of them are used up, and what comes then.
    ///
    /// # Errors
    /// If the framing is malformed or a limit is passed; where the body ends is then unknown.
    pub(crate) fn next(&mut self, octets: &[u8], limits: &Limits) -> Result<(usize, Event), Refusal> {
        match self {
            Self::Length(0) => Ok((0, Event::End)),
            Self::Length(left) => Ok((0, data(*left, octets.len()))),
            Self::Chunked(chunked) => chunked.next(octets, limits),
        }
    }

    /// `octets` of payload have been dealt with.
    pub(crate) fn took(&mut self, octets: usize) {
        match self {
            Self::Length(left) => *left -= octets as u64,
            Self::Chunked(chunked) => {
                chunked.left -= octets as u64;
                if chunked.left == 0 {
                    chunked.at = At::DataCr;
                }
            }
        }
    }
}

fn data(left: u64, available: usize) -> Event {
    match usize::try_from(left).unwrap_or(usize::MAX).min(available) {
        0 => Event::More,
        octets => Event::Data(octets),
    }
}

/// A chunked body. Strict: hexadecimal digits, CRLF, nothing lenient (H3, H4).
#[derive(Debug)]
pub(crate) struct Chunked {
    at: At,
    /// Octets of the current chunk still to come; while its size is read, the size so far.
    left: u64,
    /// Octets of all chunks so far.
    total: u64,
    /// Octets of the current size line.
    line: usize,
    /// Octets of all extensions.
    extensions: usize,
    /// Octets of all trailer lines.
    trailers: usize,
}

/// What the next octet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Size {
        digits: u8,
    },
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// First octet of a trailer line, or of the empty line that ends the body.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (§7.1.1). Who reads it loosely may find
/// another line end than who reads it by the grammar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extension {
    /// After the semicolon.
    BeforeName,
    Name,
    /// After white space; a value may follow what came before it.
    Gap {
        value: bool,
    },
    BeforeValue,
    Token,
    Quoted,
    /// After a backslash.
    Escaped,
    Unquoted,
}

impl Extension {
    /// Where the next octet leads, if it may stand here.
    fn next(self, octet: u8) -> Option<Self> {
        let white = matches!(octet, b' ' | b'\t');
        let text = matches!(octet, b'\t' | b' '..=b'~' | 0x80..);
        Some(match self {
            Self::BeforeName if white => self,
            Self::BeforeName | Self::Name if is_tchar(octet) => Self::Name,
            Self::Name if white => Self::Gap { value: true },
            Self::Name | Self::Gap { value: true } if octet == b'=' => Self::BeforeValue,
            Self::Gap { .. } | Self::BeforeValue if white => self,
            Self::Name | Self::Gap { .. } | Self::Token | Self::Unquoted if octet == b';' => Self::BeforeName,
            Self::BeforeValue if octet == b'"' => Self::Quoted,
            Self::BeforeValue | Self::Token if is_tchar(octet) => Self::Token,
            Self::Token | Self::Unquoted if white => Self::Gap { value: false },
            Self::Quoted if octet == b'"' => Self::Unquoted,
            Self::Quoted if octet == b'\\' => Self::Escaped,
            Self::Quoted | Self::Escaped if text => Self::Quoted,
            _ => return None,
        })
    }

    /// Whether the line may end here.
    fn is_whole(self) -> bool {
        matches!(self, Self::Name | Self::Token | Self::Unquoted)
    }
}

impl Chunked {
    fn next(&mut self, octets: &[u8], limits: &Limits) -> Result<(usize, Event), Refusal> {
        for (used, &octet) in octets.iter().enumerate() {
            match self.at {
                At::Data => return Ok((used, data(self.left, octets.len() - used))),
                At::DataCr | At::DataLf => {
                    return self.data_line_end(&octets[used..]).map(|len| (used, Event::LineEnd(len)));
                }
                _ => {}
            }
            if let Some(event) = self.octet(octet, limits)? {
                return Ok((used + 1, event));
            }
        }
        Ok((octets.len(), Event::More))
    }

    /// The CRLF after a chunk's payload, or the part of it that is there.
    fn data_line_end(&mut self, octets: &[u8]) -> Result<usize, Refusal> {
        let mut len = 0;
        for &octet in octets.iter().take(2) {
            let (expected, then) = match self.at {
                At::DataCr => (b'\r', At::DataLf),
                At::DataLf => (b'\n', At::Size { digits: 0 }),
                _ => break,
            };
            if octet != expected {
                // What came before it is passed on first, as if the octets had come apart (H6).
                if len > 0 {
                    break;
                }
                return Err(Refusal::bad("a chunk doesn't end with CRLF"));
            }
            self.at = then;
            len += 1;
        }
        if matches!(self.at, At::Size { .. }) {
            (self.left, self.line) = (0, 0);
        }
        Ok(len)
    }

    /// One octet of a size line or of the trailers.
    fn octet(&mut self, octet: u8, limits: &Limits) -> Result<Option<Event>, Refusal> {
        match self.at {
            At::Size { .. } | At::Extension(_) | At::SizeLf => self.size_line(octet, limits),
            _ => self.trailer(octet, limits),
        }
    }

    fn size_line(&mut self, octet: u8, limits: &Limits) -> Result<Option<Event>, Refusal> {
        const MALFORMED: Refusal = Refusal::bad("a chunk-size line is malformed");
        self.line += 1;
        if self.line > limits.chunk_line {
            return Err(Refusal::bad("a chunk-size line is too long"));
        }
        match (self.at, octet) {
            (At::Size { digits }, digit) if digit.is_ascii_hexdigit() => {
                let value = (digit as char).to_digit(16).unwrap_or_default();
                // A shift would drop overflowing digits silently (RUSTSEC-2021-0079).
                let size = self.left.checked_mul(16).ok_or(Refusal::bad("a chunk size is beyond 64 bits"))?;
                self.left = size + u64::from(value);
                self.at = At::Size { digits: digits.saturating_add(1) };
            }
            (At::Size { digits: 1.. }, b'\r') => self.at = At::SizeLf,
            (At::Extension(extension), b'\r') if extension.is_whole() => self.at = At::SizeLf,
            (At::Size { digits: 1.. }, b';') => self.at = At::Extension(Extension::BeforeName),
            (At::Size { digits: 1.. }, b' ' | b'\t') => {
                self.at = At::Extension(Extension::Gap { value: false })
            }
            (At::Extension(extension), octet) => {
                self.at = At::Extension(extension.next(octet).ok_or(MALFORMED)?);
                self.extensions += 1;
                if self.extensions > limits.chunk_extensions {
                    return Err(Refusal::bad("too many chunk extensions"));
                }
            }
            (At::SizeLf, b'\n') if self.left == 0 => self.at = At::Trailer,
            (At::SizeLf, b'\n') => {
                self.total = self.total.saturating_add(self.left);
                if self.total > limits.body {
                    return Err(Refusal::BODY_TOO_LARGE);
                }
                self.at = At::Data;
                return Ok(Some(Event::Chunk(self.left)));
            }
            _ => return Err(MALFORMED),
        }
        Ok(None)
    }

    /// Trailer fields are read over: nothing in them may change how a message is framed or
    /// routed (RFC 9110 §6.5.1), and an echo needs none of the rest.
    fn trailer(&mut self, octet: u8, limits: &Limits) -> Result<Option<Event>, Refusal> {
        self.trailers += 1;
        if self.trailers > limits.trailer_block {
            return Err(Refusal::new(Status::HEADERS_TOO_LARGE, "the trailers are too long"));
        }
        self.at = match (self.at, octet) {
            (At::Trailer, b'\r') => At::LastLf,
            (At::Trailer | At::TrailerName, octet) if is_tchar(octet) => At::TrailerName,
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => At::TrailerValue,
            (At::TrailerLf, b'\n') => At::Trailer,
            (At::LastLf, b'\n') => return Ok(Some(Event::End)),
            _ => return Err(Refusal::bad("a trailer line is malformed")),
        };
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `octets` in pieces of `size`: the payload, whether the end came, what is left.
    fn decode(octets: &[u8], size: usize) -> Result<(Vec<u8>, Option<usize>), u16> {
        let limits = Limits { chunk_extensions: 40, body: 1 << 32, ..Limits::default() };
        let (mut body, mut payload) = (Body::chunked(), Vec::new());
        let mut done = 0;
        for piece in octets.chunks(size) {
            let mut rest = piece;
            loop {
                let (used, event) = body.next(rest, &limits).map_err(|refusal| refusal.status.code)?;
                rest = &rest[used..];
                match event {
                    Event::More => break,
                    Event::Chunk(_) => {}
                    Event::Data(len) => {
                        payload.extend_from_slice(&rest[..len]);
                        rest = &rest[len..];
                        body.took(len);
                    }
                    Event::LineEnd(len) => rest = &rest[len..],
                    Event::End => return Ok((payload, Some(done + piece.len() - rest.len()))),
                }
            }
            done += piece.len();
        }
        Ok((payload, None))
    }

    fn everywhere(octets: &[u8]) -> Result<(Vec<u8>, Option<usize>), u16> {
        let whole = decode(octets, octets.len());
        for size in 1..octets.len() {
            assert_eq!(decode(octets, size), whole, "{:?} by {size}", String::from_utf8_lossy(octets));
        }
        whole
    }

    #[test]
    fn s9_1_chunked_bodies_wherever_they_are_cut() {
        let body = b"5\r\nhello\r\n00006;a=b;c=\"d e\"\r\n world\r\n0\r\nX: y\r\nZ:\r\n\r\nGET";
        assert_eq!(everywhere(body), Ok((b"hello world".to_vec(), Some(body.len() - 3))));
        assert_eq!(everywhere(b"A\r\n0123456789\r\n0;x\r\n\r\n"), Ok((b"0123456789".to_vec(), Some(22))));
        assert_eq!(everywhere(b"5\r\nhel"), Ok((b"hel".to_vec(), None)));
        assert_eq!(everywhere(b"100000000\r\nx"), Ok((b"x".to_vec(), None)), "the largest there may be");
        assert_eq!(everywhere(b"100000001\r\nx"), Err(413));
        assert_eq!(everywhere(b"1\r\nx\r\n100000000\r\nx"), Err(413), "all together");
        assert_eq!(everywhere(b"ffffffffffffffff\r\nx"), Err(413));
    }

    #[test]
    fn h4_extensions_as_the_grammar_has_them() {
        for extension in
            [";a", ";a=b", "; a = b ;c", " ;a", "\t; a\t=\t\"\"", ";a=\"b;\\\"c \u{ff}\"", ";a=\"b\" ;c=d;e"]
        {
            let body = format!("2{extension}\r\nhi\r\n0\r\n\r\n");
            assert_eq!(everywhere(body.as_bytes()), Ok((b"hi".to_vec(), Some(body.len()))), "{extension}");
        }
    }

    #[test]
    fn h3_h4_malformed_chunks_are_refused() {
        let long_extension = format!("1;{}\r\nx\r\n", "e".repeat(300));
        let many_extensions = "1;eeeeeeeee\r\nx\r\n".repeat(5);
        for body in [
            "\r\n",
            ";x\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5;\r\nhello\r\n",
            "5;a=\r\nhello\r\n",
            "5;=b\r\nhello\r\n",
            "5;a;\r\nhello\r\n",
            "5;a \r\nhello\r\n",
            "5;a=b c\r\nhello\r\n",
            "5 =b\r\nhello\r\n",
            "5;a=b =c\r\nhello\r\n",
            "5;a=\"b\r\nhello\r\n",
            "5;a=\"b\"c\r\nhello\r\n",
            "5;a=\"b\\\r\n\"\r\nhello\r\n",
            "5;a(b\r\nhello\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX y: z\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX(: y\r\n\r\n",
            "0\r\nX: y\r\n folded\r\n\r\n",
            "g\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n",
            "5\r\nhelloX",
            "5\r\r\nhello",
            "5;a\rb\r\nhello",
            "5;a\nhello",
            "5;\0\r\nhello",
            "10000000000000000\r\n",
            "fffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\nX: y\n",
            "0\r\n folded\r\n",
            "0\r\n: y\r\n",
            "0\r\nX: \0\r\n",
            "0\r\nX: a\rb\r\n",
            &long_extension,
            &many_extensions,
        ] {
            assert_eq!(everywhere(body.as_bytes()), Err(400), "{body:?}");
        }
        let trailers = format!("0\r\n{}", "X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(200));
        assert_eq!(decode(trailers.as_bytes(), 100), Err(431));
    }
}
