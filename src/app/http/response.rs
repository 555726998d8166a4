//! Response heads, written into a fixed buffer.

use core::cell::RefCell;

use super::date::WallClock;

/// A status code with its reason phrase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Status {
    /// RFC 9110 §15.
    pub(in crate::app) code: u16,
    /// With its end.
    line: &'static str,
}

impl Status {
    pub(in crate::app) const SWITCHING_PROTOCOLS: Self = Self::new("HTTP/1.1 101 Switching Protocols\r\n");
    pub(in crate::app) const OK: Self = Self::new("HTTP/1.1 200 OK\r\n");
    pub(in crate::app) const BAD_REQUEST: Self = Self::new("HTTP/1.1 400 Bad Request\r\n");
    pub(in crate::app) const FORBIDDEN: Self = Self::new("HTTP/1.1 403 Forbidden\r\n");
    pub(in crate::app) const NOT_FOUND: Self = Self::new("HTTP/1.1 404 Not Found\r\n");
    pub(in crate::app) const REQUEST_TIMEOUT: Self = Self::new("HTTP/1.1 408 Request Timeout\r\n");
    const CONTENT_TOO_LARGE: Self = Self::new("HTTP/1.1 413 Content Too Large\r\n");
    pub(in crate::app) const URI_TOO_LONG: Self = Self::new("HTTP/1.1 414 URI Too Long\r\n");
    pub(in crate::app) const EXPECTATION_FAILED: Self = Self::new("HTTP/1.1 417 Expectation Failed\r\n");
    pub(in crate::app) const MISDIRECTED: Self = Self::new("HTTP/1.1 421 Misdirected Request\r\n");
    pub(in crate::app) const UPGRADE_REQUIRED: Self = Self::new("HTTP/1.1 426 Upgrade Required\r\n");
    pub(in crate::app) const HEADERS_TOO_LARGE: Self =
        Self::new("HTTP/1.1 431 Request Header Fields Too Large\r\n");
    pub(in crate::app) const NOT_IMPLEMENTED: Self = Self::new("HTTP/1.1 501 Not Implemented\r\n");
    pub(in crate::app) const UNAVAILABLE: Self = Self::new("HTTP/1.1 503 Service Unavailable\r\n");
    pub(in crate::app) const VERSION_NOT_SUPPORTED: Self =
        Self::new("HTTP/1.1 505 HTTP Version Not Supported\r\n");

    const fn new(line: &'static str) -> Self {
        let [.., a, b, c] = line.as_bytes().first_chunk::<12>().expect("a status line");
        let code = 100 * (*a - b'0') as u16 + 10 * (*b - b'0') as u16 + (*c - b'0') as u16;
        Self { code, line }
    }
}

/// Why a request isn't served: the status, and a line for the person who looks at it.
///
/// The connection is closed after it: where the next request begins is no longer certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(in crate::app) status: Status,
    pub(crate) why: &'static str,
}

impl Refusal {
    /// Of a body (RFC 9110 §15.5.14).
    pub(in crate::app) const BODY_TOO_LARGE: Self =
        Self::new(Status::CONTENT_TOO_LARGE, "the body is too long");

    pub(in crate::app) const fn new(status: Status, why: &'static str) -> Self {
        Self { status, why }
    }

    /// 400.
    pub(in crate::app) const fn bad(why: &'static str) -> Self {
        Self::new(Status::BAD_REQUEST, why)
    }
}

/// Room for the longest thing made in one piece: an echo's head, that is the fixed fields (190),
/// a Content-Type (`Limits::content_type`, 256) and a chunk-size line (18).
const CAPACITY: usize = 512;

/// Octets that byway made and that wait for their place: a head, a chunk-size line.
#[derive(Debug)]
pub(in crate::app) struct Made {
    octets: [u8; CAPACITY],
    len: usize,
}

/// A core's memory for what is made, so that it takes what is under way, and not what is open.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the box is what is kept")]
pub(in crate::app) struct SpareMade(RefCell<Vec<Box<Made>>>);

impl SpareMade {
    /// As many as a turn of the loop can leave waiting at once, and bring back; half a MiB.
    const MAX: usize = 1024;

    pub(in crate::app) fn take(&self) -> Box<Made> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Box::new(Made::new()))
    }

    /// Takes an empty one back.
    pub(in crate::app) fn give(&self, made: Box<Made>) {
        debug_assert!(made.is_empty());
        let mut spare = self.0.borrow_mut();
        if spare.len() < Self::MAX {
            spare.push(made);
        }
    }
}

impl Made {
    pub(in crate::app) const fn new() -> Self {
        Self { octets: [0; CAPACITY], len: 0 }
    }

    pub(in crate::app) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(in crate::app) fn clear(&mut self) {
        self.len = 0;
    }

    pub(in crate::app) fn as_slice(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// Adds `octets`; the callers' limits see to it that they fit.
    #[inline]
    pub(in crate::app) fn push(&mut self, octets: &[u8]) -> &mut Self {
        let end = self.len + octets.len();
        self.octets[self.len..end].copy_from_slice(octets);
        self.len = end;
        self
    }

    /// Adds a number in decimal.
    #[inline]
    pub(in crate::app) fn push_decimal(&mut self, number: u64) -> &mut Self {
        // As short bodies have it.
        if number < 10 { self.push(&[b'0' + number as u8]) } else { self.push_number::<10>(number) }
    }

    /// Adds a number in hexadecimal.
    pub(in crate::app) fn push_hex(&mut self, number: u64) -> &mut Self {
        self.push_number::<16>(number)
    }

    fn push_number<const BASE: u64>(&mut self, mut number: u64) -> &mut Self {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(number % BASE) as usize];
            number /= BASE;
            if number == 0 {
                return self.push(&digits[at..]);
            }
        }
    }

    /// Begins a response.
    #[inline]
    pub(in crate::app) fn status(&mut self, status: Status) -> &mut Self {
        self.push(status.line.as_bytes())
    }

    /// Adds `Date`, if the time is known.
    #[inline]
    pub(in crate::app) fn date(&mut self, clock: &WallClock) -> &mut Self {
        match clock.field() {
            Some(field) => self.push(field),
            None => self,
        }
    }

    /// Adds a field.
    #[inline]
    pub(in crate::app) fn field(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.push(name.as_bytes()).push(b": ").push(value).push(b"\r\n")
    }

    /// Adds `Content-Length`.
    #[inline]
    pub(in crate::app) fn length(&mut self, octets: u64) -> &mut Self {
        self.push(b"Content-Length: ").push_decimal(octets).push(b"\r\n")
    }

    /// Adds `Connection`, where it isn't what the client assumes: an HTTP/1.0 client doesn't
    /// expect a connection to persist, an HTTP/1.1 client does (RFC 9112 §9.3).
    #[inline]
    pub(in crate::app) fn persistence(&mut self, keep_alive: bool, minor: u8) -> &mut Self {
        match (keep_alive, minor) {
            (true, 0) => self.field("Connection", b"keep-alive"),
            (false, 1..) => self.field("Connection", b"close"),
            _ => self,
        }
    }

    /// Ends the head.
    #[inline]
    pub(in crate::app) fn end(&mut self) -> &mut Self {
        self.push(b"\r\n")
    }

    /// A whole response that ends the connection; `content` is false in answer to HEAD (RFC 9110 §9.3.2).
    pub(in crate::app) fn refusal(&mut self, refusal: Refusal, clock: &WallClock, content: bool) {
        self.clear();
        self.status(refusal.status).date(clock);
        if refusal.status == Status::UPGRADE_REQUIRED {
            // RFC 6455 §4.4; RFC 9110 §15.5.22 asks for Upgrade as well.
            self.field("Sec-WebSocket-Version", b"13").field("Upgrade", b"websocket");
            self.field("Connection", b"Upgrade, close");
        } else {
            self.field("Connection", b"close");
        }
        self.field("Content-Type", b"text/plain").length(refusal.why.len() as u64 + 1).end();
        if content {
            self.push(refusal.why.as_bytes()).push(b"\n");
        }
    }
}
