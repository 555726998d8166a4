//! Requests: what a header block says.
//!
//! Strict where tolerance has led to request smuggling: two readers of one octet stream must not
//! see different requests (RFC 9112 §11.2).

use super::super::limits::Limits;
use super::super::ws::extension::Agreed;
use super::lines::{Lines, is};
use super::response::{Refusal, Status};
use super::target::{self, Target, is_authority};

/// The methods that byway tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::app) enum Method {
    Get,
    Head,
    Options,
    Connect,
    Other,
}

/// How the request's body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::app) enum Framing {
    /// No body.
    None,
    /// Octets, at least 1.
    Length(u64),
    Chunked,
}

/// A request's header block, understood.
#[derive(Debug)]
pub(in crate::app) struct Request<'h> {
    /// Of the header block.
    pub(in crate::app) octets: usize,
    pub(in crate::app) method: Method,
    /// Path without query.
    pub(in crate::app) path: &'h [u8],
    /// The target is of the scheme `https`, which asks for TLS.
    pub(in crate::app) https: bool,
    /// x of HTTP/1.x.
    pub(in crate::app) minor: u8,
    pub(in crate::app) framing: Framing,
    pub(in crate::app) keep_alive: bool,
    pub(in crate::app) fields: Fields<'h>,
}

/// The fields of an upgrade (RFC 6455 §4.2.1); what they mean together is `ws::handshake`'s.
#[derive(Debug, Default)]
pub(in crate::app) struct Upgrade<'h> {
    /// `Upgrade` names `websocket`.
    pub(in crate::app) websocket: bool,
    /// There is `Upgrade`.
    present: bool,
    /// `Connection` names `Upgrade`.
    pub(in crate::app) connection: bool,
    pub(in crate::app) key: Option<&'h [u8]>,
    pub(in crate::app) version: Option<&'h [u8]>,
    pub(in crate::app) origin: Option<&'h [u8]>,
    /// The first sub-protocol on the client's list that byway speaks.
    pub(in crate::app) protocol: Option<&'static str>,
    /// The first offer of permessage-deflate that byway can take.
    pub(in crate::app) deflate: Option<Agreed>,
}

/// The sub-protocols (S9.2).
const PROTOCOLS: [&str; 2] = ["chat", "superchat"];

impl<'h> Request<'h> {
    /// Reads a header block that is all there, whatever comes behind it. It has as many octets as
    /// [`Scanner`](super::scanner::Scanner) finds, which also says what is wrong with a block that isn't read here.
    ///
    /// # Errors
    /// With the status to answer; the connection is to be closed.
    pub(in crate::app) fn parse(octets: &'h [u8], limits: &Limits) -> Result<Self, Refusal> {
        let mut lines = Lines::new(octets);
        lines.skip_empty();
        let line = lines.start_line().ok_or(MALFORMED)?;
        let (method, target, minor) = parse_request_line(line)?;
        let mut request = Self {
            octets: 0,
            method,
            path: target.path,
            https: target.https,
            minor,
            framing: Framing::None,
            keep_alive: false,
            fields: Fields::default(),
        };
        let fields = &mut request.fields;
        lines.fields(Refusal::bad, |name, value| fields.take(name, value))?;
        if !lines.are_within(limits) {
            return Err(Refusal::new(Status::HEADERS_TOO_LARGE, "the header block is too large"));
        }
        // After an upgrade that isn't granted somebody in between may take what follows for the other protocol: it
        // isn't read (H7).
        request.keep_alive = !fields.close && !fields.upgrade.present && (minor > 0 || fields.keep_alive);
        if minor == 0 {
            // RFC 9110 §7.8, §10.1.1: in an HTTP/1.0 request they are ignored.
            (fields.upgrade, fields.expects_continue, fields.expects_other) =
                (Upgrade::default(), false, false);
        }
        request.framing = fields.check(minor, limits)?;
        request.octets = lines.octets();
        Ok(request)
    }
}

/// Whether a header block, or the beginning of one, is of a HEAD request, good or bad.
pub(super) fn is_head(mut block: &[u8]) -> bool {
    while let Some(rest) = block.strip_prefix(b"\r\n") {
        block = rest;
    }
    block.starts_with(b"HEAD ")
}

const MALFORMED: Refusal = Refusal::bad("the request line is malformed");

/// `method SP request-target SP HTTP-version`, single spaces only (RFC 9112 §3).
fn parse_request_line(line: &[u8]) -> Result<(Method, Target<'_>, u8), Refusal> {
    let (rest, version) = line.split_last_chunk::<9>().ok_or(MALFORMED)?;
    let (method, target) = match rest.strip_prefix(b"GET ") {
        Some(target) => (Method::Get, target),
        None => parse_method(rest).ok_or(MALFORMED)?,
    };
    let minor = if version == b" HTTP/1.1" { 1 } else { parse_version(version, target)? };
    Ok((method, Target::parse(target, method)?, minor))
}

/// The method, and what comes after the space behind it.
fn parse_method(octets: &[u8]) -> Option<(Method, &[u8])> {
    let (name, rest) = octets.split_at(octets.iter().position(|&octet| !is_tchar(octet))?);
    let method = match name {
        b"" => return None,
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"OPTIONS" => Method::Options,
        b"CONNECT" => Method::Connect,
        _ => Method::Other,
    };
    Some((method, rest.strip_prefix(b" ")?))
}

/// x of ` HTTP/1.x`, but 1 for higher ones, which are read as 1.1 (RFC 9110 §2.5).
fn parse_version(version: &[u8; 9], target: &[u8]) -> Result<u8, Refusal> {
    match version {
        [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => Ok((minor - b'0').min(1)),
        [b' ', b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] if !target.contains(&b' ') => {
            Err(Refusal::new(Status::VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here"))
        }
        _ => Err(MALFORMED),
    }
}

/// Header fields as they come, before they are seen together.
#[derive(Debug, Default)]
pub(in crate::app) struct Fields<'h> {
    host: Option<&'h [u8]>,
    length: Option<u64>,
    codings: Codings,
    close: bool,
    keep_alive: bool,
    /// `Expect: 100-continue`.
    pub(in crate::app) expects_continue: bool,
    expects_other: bool,
    pub(in crate::app) content_type: Option<&'h [u8]>,
    pub(in crate::app) upgrade: Upgrade<'h>,
}

/// What `Transfer-Encoding` lists.
#[derive(Debug, Default)]
struct Codings {
    present: bool,
    chunked: u32,
    chunked_last: bool,
    others: bool,
}

impl<'h> Fields<'h> {
    /// What is done with a field's value is apart, so that passing over the many others is as little as it looks.
    #[inline(never)]
    fn take(&mut self, name: &'h [u8], value: &'h [u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if is(name, b"host") => once(&mut self.host, value, "Host is repeated"),
            6 if is(name, b"expect") => self.take_expect(value),
            6 if is(name, b"origin") => once(&mut self.upgrade.origin, value, "Origin is repeated"),
            7 if is(name, b"upgrade") => self.take_upgrade(value),
            10 if is(name, b"connection") => self.take_connection(value),
            12 if is(name, b"content-type") => {
                once(&mut self.content_type, value, "Content-Type is repeated")
            }
            14 if is(name, b"content-length") => self.take_length(value),
            17 if is(name, b"transfer-encoding") => self.codings.take(value),
            17 if is(name, b"sec-websocket-key") => {
                once(&mut self.upgrade.key, value, "Sec-WebSocket-Key is repeated")
            }
            21 if is(name, b"sec-websocket-version") => {
                once(&mut self.upgrade.version, value, "Sec-WebSocket-Version is repeated")
            }
            22 if is(name, b"sec-websocket-protocol") => self.take_protocols(value),
            24 if is(name, b"sec-websocket-extensions") => self.take_extensions(value),
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn take_expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let known = value.eq_ignore_ascii_case(b"100-continue");
        self.expects_continue |= known;
        self.expects_other |= !known;
        Ok(())
    }

    #[inline(never)]
    fn take_upgrade(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.upgrade.present = true;
        self.upgrade.websocket |= has_token(value, b"websocket");
        Ok(())
    }

    #[inline(never)]
    fn take_connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade.connection |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }

    #[inline(never)]
    fn take_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let length = parse_length(value).ok_or(Refusal::bad("Content-Length isn't a number"))?;
        once(&mut self.length, length, "Content-Length is repeated")
    }

    #[inline(never)]
    fn take_extensions(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let offer = Agreed::from_field(value)?;
        self.upgrade.deflate = self.upgrade.deflate.or(offer);
        Ok(())
    }

    /// RFC 6455 §4.1: tokens, in the client's order of preference.
    #[inline(never)]
    fn take_protocols(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for name in list(value) {
            if !name.iter().copied().all(is_tchar) {
                return Err(Refusal::bad("Sec-WebSocket-Protocol isn't a list of tokens"));
            }
            let known = PROTOCOLS.into_iter().find(|known| known.as_bytes() == name);
            self.upgrade.protocol = self.upgrade.protocol.or(known);
        }
        Ok(())
    }

    /// What the fields say together: how the body is delimited, if nothing speaks against serving the request.
    fn check(&self, minor: u8, limits: &Limits) -> Result<Framing, Refusal> {
        match self.host {
            // RFC 9112 §3.2: 400 for an HTTP/1.1 request without Host, or with a bad one; it is empty where the target
            // has no authority. In absolute-form it must be there and is good for nothing (§3.2.2). H5
            None if minor > 0 => return Err(Refusal::bad("Host is missing")),
            Some(host) if !host.is_empty() && !is_authority(host) => {
                return Err(Refusal::bad("Host is malformed"));
            }
            _ => {}
        }
        let framing = self.framing(minor, limits)?;
        if self.content_type.is_some_and(|value| value.len() > limits.content_type) {
            return Err(Refusal::new(Status::HEADERS_TOO_LARGE, "Content-Type is too long"));
        }
        if self.expects_other {
            return Err(Refusal::new(Status::EXPECTATION_FAILED, "only 100-continue can be expected"));
        }
        Ok(framing)
    }

    /// RFC 9112 §6: where two readers could disagree, the request is refused (H3).
    fn framing(&self, minor: u8, limits: &Limits) -> Result<Framing, Refusal> {
        if !self.codings.present {
            return Ok(match self.length {
                None | Some(0) => Framing::None,
                Some(length) if length > limits.body => return Err(Refusal::BODY_TOO_LARGE),
                Some(length) => Framing::Length(length),
            });
        }
        if self.length.is_some() {
            return Err(Refusal::bad("Content-Length and Transfer-Encoding contradict each other"));
        }
        if minor == 0 {
            return Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        // §6.3: without chunked at the end nobody knows where the body ends. §6.1: it is applied once.
        if !self.codings.chunked_last || self.codings.chunked != 1 {
            return Err(Refusal::bad("Transfer-Encoding must end with chunked, said once"));
        }
        if self.codings.others {
            return Err(Refusal::new(Status::NOT_IMPLEMENTED, "chunked is the only transfer coding known"));
        }
        Ok(Framing::Chunked)
    }
}

impl Codings {
    #[inline(never)]
    fn take(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.present = true;
        for coding in list(value) {
            // Without parameters: it has none (§7.1).
            self.chunked_last = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked += u32::from(self.chunked_last);
            self.others |= !self.chunked_last;
        }
        Ok(())
    }
}

/// Digits only, and within 64 bits: never `FromStr`, which takes a sign (CVE-2021-32715).
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, &octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn once<T>(place: &mut Option<T>, value: T, why: &'static str) -> Result<(), Refusal> {
    if place.replace(value).is_some() { Err(Refusal::bad(why)) } else { Ok(()) }
}

/// The members of a comma-separated list, empty ones passed over (RFC 9110 §5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

pub(crate) fn has_token(value: &[u8], token: &[u8]) -> bool {
    list(value).any(|member| member.eq_ignore_ascii_case(token))
}

/// RFC 9110 §5.6.2.
#[inline]
pub(crate) fn is_tchar(octet: u8) -> bool {
    target::is_of(octet, target::TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<(Framing, bool), u16> {
        Request::parse(head.as_bytes(), &Limits::default())
            .map(|request| (request.framing, request.keep_alive))
            .map_err(|refusal| refusal.status.code)
    }

    fn with(fields: &str) -> Result<(Framing, bool), u16> {
        parse(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn h3_content_length_is_digits_once_and_within_64_bits() {
        assert_eq!(with("Content-Length: 5\r\n"), Ok((Framing::Length(5), true)));
        assert_eq!(with("Content-Length: 0\r\n"), Ok((Framing::None, true)));
        let most = Limits::default().body;
        assert_eq!(with(&format!("Content-Length: {most}\r\n")), Ok((Framing::Length(most), true)));
        assert_eq!(with(&format!("Content-Length: {}\r\n", most + 1)), Err(413));
        assert_eq!(with("Content-Length: 18446744073709551615\r\n"), Err(413));
        for value in ["+5", "-5", "0x5", "", "5,5", "5, 5", "5 5", "5a", "18446744073709551616", "٥"] {
            assert_eq!(with(&format!("Content-Length: {value}\r\n")), Err(400), "{value:?}");
        }
        assert_eq!(with("Content-Length: 5\r\nContent-Length: 5\r\n"), Err(400));
        assert_eq!(with("Content-Length: 5\r\ncontent-length: 6\r\n"), Err(400));
    }

    #[test]
    fn h3_transfer_encoding_is_chunked_alone() {
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), Ok((Framing::Chunked, true)));
        assert_eq!(with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Err(400));
        assert_eq!(with("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), Err(400));
        assert_eq!(with("Transfer-Encoding: chunked, chunked\r\n"), Err(400));
        assert_eq!(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Err(400));
        assert_eq!(with("Transfer-Encoding:\r\n"), Err(400));
        // RFC 9110 §5.6.1: empty members of a list are passed over.
        assert_eq!(with("Transfer-Encoding: , chunked ,\r\n"), Ok((Framing::Chunked, true)));
        for value in
            ["gzip", "identity", "chunked, gzip", "xchunked", "chunked;q=1", "\x0bchunked", "\"chunked\""]
        {
            assert_eq!(with(&format!("Transfer-Encoding: {value}\r\n")), Err(400), "{value:?}");
        }
        for value in ["gzip, chunked", "gzip;x=\",chunked", "chunke d, chunked"] {
            assert_eq!(with(&format!("Transfer-Encoding: {value}\r\n")), Err(501), "{value:?}");
        }
        assert_eq!(with("Transfer-Encoding: chunked, gzip, chunked\r\n"), Err(400));
        assert_eq!(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
    }

    #[test]
    fn h4_malformed_fields_are_refused() {
        for field in [
            "X : y",
            "X: a\r\n b",
            "X: a\0b",
            "X: a\rb",
            ": y",
            "X",
            " X: y",
            "X\t: y",
            "X: \x7f",
            "Ä: y",
            "X(: y",
        ] {
            assert_eq!(with(&format!("{field}\r\n")), Err(400), "{field:?}");
        }
        assert!(with("X:\r\nY: \t a \t\r\n").is_ok());
    }

    #[test]
    fn h5_host_is_there_once() {
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n"), Err(400));
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"), Err(400));
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), Err(400));
        for host in ["a/b", "a:b", "u@a", "a,b", "[::1", ":80", "http://a", "a:65536", "a a"] {
            assert_eq!(parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), Err(400), "{host}");
            assert_eq!(parse(&format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")), Err(400), "{host}");
        }
        assert_eq!(parse("GET http://a/ HTTP/1.1\r\n\r\n"), Err(400), "also in absolute-form");
        assert!(parse("GET / HTTP/1.1\r\nHost:\r\n\r\n").is_ok());
        assert!(parse("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").is_ok());
        assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok());
    }

    #[test]
    fn h5_request_lines() {
        let line = |line: &str| parse(&format!("{line}\r\nHost: a\r\n\r\n")).map(|_| ());
        for good in [
            "GET / HTTP/1.1",
            "G!T /x?y HTTP/1.1",
            "GET http://a HTTP/1.1",
            "GET HTTPS://a:1/x HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET / HTTP/1.7",
        ] {
            assert_eq!(line(good), Ok(()), "{good}");
        }
        for bad in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET x HTTP/1.1",
            "GET * HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "CONNECT / HTTP/1.1",
            "GET a:80 HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/11",
            "GET / HTTP/1.10",
            "GET / HTTP/1",
            "(ET / HTTP/1.1",
        ] {
            assert_eq!(line(bad), Err(400), "{bad}");
        }
        assert_eq!(line("CONNECT a:80 HTTP/1.1"), Err(501));
        for version in ["0.9", "2.0", "3.0"] {
            assert_eq!(line(&format!("GET / HTTP/{version}")), Err(505));
        }
        assert_eq!(parse("PRI * HTTP/2.0\r\n\r\n"), Err(505), "the HTTP/2 preface");
    }

    #[test]
    fn s9_1_persistence_by_version_and_connection() {
        let keeps = |line: &str, fields: &str| {
            parse(&format!("GET / {line}\r\nHost: a\r\n{fields}\r\n")).expect("valid").1
        };
        assert!(keeps("HTTP/1.1", ""));
        assert!(!keeps("HTTP/1.1", "Connection: x, CLOSE\r\n"));
        assert!(!keeps("HTTP/1.0", ""));
        assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
        assert!(!keeps("HTTP/1.0", "Connection: keep-alive\r\nConnection: close\r\n"));
    }

    /// Who hopes that what follows is taken for another protocol, by us or by somebody between, hopes in vain.
    #[test]
    fn h7_an_upgrade_is_the_last_request() {
        let keeps = |fields: &str| with(fields).expect("valid").1;
        assert!(!keeps("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"));
        assert!(!keeps("Upgrade: tls/1.0\r\n"));
        assert!(keeps("Connection: Upgrade\r\n"));
    }
}
