//! Answers of an HTTP/1.1 server (RFC 9112), read strictly: a server that says something doubtful is an error, and
//! none can make its reader hold more than a header block or go on for ever (H8).
//!
//! An answer without a length would end where the connection does, and one that was cut short couldn't be told from
//! a whole one: it is an error, too.

use crate::app::Limits;
use crate::app::http::body::{Body, Event as Step};
use crate::app::http::lines::{Lines, is};
use crate::app::http::request::{has_token, list, parse_length};
use crate::app::http::scanner::Gathered;
use crate::app::ws::handshake::ACCEPT;

/// Interim answers (1xx) to one request. One is usual (100), a few are thinkable (103, 102); a flood is not.
const INTERIM_MAX: u32 = 8;
/// Octets of one body, for `Limits::body`: four times what byway's own `/bytes/N` gives. What is slow is ended by the
/// request's time limit.
pub(super) const BODY_MAX: u64 = 4 << 30;

/// What a final answer's header block says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The server closes after it.
    pub(super) close: bool,
    /// What a WebSocket's opening needs.
    pub(super) upgrade: Option<[u8; ACCEPT]>,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// All octets are used up; more are needed.
    More,
    /// The answer is complete.
    Answered(Answer),
}

#[derive(Debug)]
enum Phase {
    Head,
    Body(Body, Answer),
}

/// How far an answer has been read.
#[derive(Debug)]
pub(super) struct Reader {
    phase: Phase,
    /// A header block that began in an earlier frame.
    gathered: Gathered,
    interim: u32,
}

impl Default for Reader {
    fn default() -> Self {
        Self { phase: Phase::Head, gathered: Gathered::default(), interim: 0 }
    }
}

impl Reader {
    /// Reads on in `octets`: how many of them are used up, and what came of it.
    ///
    /// # Errors
    /// What is wrong; where the next answer would begin is then unknown.
    pub(super) fn next(&mut self, octets: &[u8], limits: &Limits) -> Result<(usize, Event), &'static str> {
        let mut at = 0;
        loop {
            let rest = &octets[at..];
            if let Phase::Body(..) = self.phase {
                let (used, event) = self.read_body(rest, limits)?;
                return Ok((at + used, event));
            }
            // Nearly every block is all there, and all right.
            let at_once = if self.gathered.is_empty() { Head::parse(rest, limits).ok() } else { None };
            let (head, end) = match at_once {
                Some(at_once) => at_once,
                None => {
                    let Some(end) = self.gathered.add(rest, limits).map_err(|refusal| refusal.why)? else {
                        return Ok((octets.len(), Event::More));
                    };
                    let (head, _) = Head::parse(self.gathered.octets(), limits)?;
                    self.gathered.clear();
                    (head, end)
                }
            };
            at += end;
            if (100..200).contains(&head.answer.status) && head.answer.status != 101 {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err("a flood of interim answers");
                }
                continue;
            }
            self.interim = 0;
            match head.body {
                None => return Ok((at, Event::Answered(head.answer))),
                Some(body) => self.phase = Phase::Body(body, head.answer),
            }
        }
    }

    fn read_body(&mut self, octets: &[u8], limits: &Limits) -> Result<(usize, Event), &'static str> {
        let Phase::Body(body, answer) = &mut self.phase else { return Ok((0, Event::More)) };
        let mut at = 0;
        loop {
            let (used, step) = body.next(&octets[at..], limits).map_err(|refusal| refusal.why)?;
            at += used;
            match step {
                Step::More => return Ok((at, Event::More)),
                Step::Chunk(_) => {}
                Step::Data(octets) => {
                    at += octets;
                    body.took(octets);
                }
                Step::LineEnd(octets) => at += octets,
                Step::End => {
                    let answer = *answer;
                    self.phase = Phase::Head;
                    return Ok((at, Event::Answered(answer)));
                }
            }
        }
    }
}

/// A header block, understood.
struct Head {
    answer: Answer,
    /// What follows; nothing for answers without a body.
    body: Option<Body>,
}

impl Head {
    /// Reads a header block that is all there, whatever comes behind it, and how many octets it has. What is wrong with
    /// one that isn't read, or whether it is only not all there, the scanner says.
    fn parse(octets: &[u8], limits: &Limits) -> Result<(Self, usize), &'static str> {
        let mut lines = Lines::new(octets);
        let (status, minor) = parse_status_line(lines.start_line().ok_or(MALFORMED)?)?;
        let mut known = Fields::default();
        lines.fields(|why| why, |name, value| known.take(name, value))?;
        if !lines.are_within(limits) {
            return Err("the header block is too large");
        }
        Ok((known.conclude(status, minor, limits)?, lines.octets()))
    }
}

const MALFORMED: &str = "the status line is malformed";

/// `HTTP/1.x SP 3DIGIT SP [reason]` (RFC 9112 §4).
fn parse_status_line(line: &[u8]) -> Result<(u16, u8), &'static str> {
    let rest = line.strip_prefix(b"HTTP/").ok_or("the answer isn't HTTP")?;
    let &[b'1', b'.', minor @ b'0'..=b'9', b' ', a @ b'1'..=b'5', b, c, ref reason @ ..] = rest else {
        return Err(MALFORMED);
    };
    if !b.is_ascii_digit() || !c.is_ascii_digit() {
        return Err(MALFORMED);
    }
    // The blank before an empty reason is often left out.
    if !reason.is_empty() && reason[0] != b' ' {
        return Err(MALFORMED);
    }
    let digit = |octet: u8| u16::from(octet - b'0');
    Ok((digit(a) * 100 + digit(b) * 10 + digit(c), (minor - b'0').min(1)))
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    codings: u32,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    websocket: bool,
    upgrade: bool,
    accept: Option<[u8; ACCEPT]>,
    /// An extension or a protocol that wasn't asked for (RFC 6455 §4.1).
    unasked: bool,
}

impl Fields {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match name.len() {
            7 if is(name, b"upgrade") => self.websocket |= has_token(value, b"websocket"),
            10 if is(name, b"connection") => {
                self.close |= has_token(value, b"close");
                self.keep_alive |= has_token(value, b"keep-alive");
                self.upgrade |= has_token(value, b"upgrade");
            }
            14 if is(name, b"content-length") => {
                let length = parse_length(value).ok_or("Content-Length isn't a number")?;
                if self.length.replace(length).is_some() {
                    return Err("Content-Length is repeated");
                }
            }
            17 if is(name, b"transfer-encoding") => {
                for coding in list(value) {
                    self.codings += 1;
                    self.chunked = coding.eq_ignore_ascii_case(b"chunked");
                }
            }
            20 if is(name, b"sec-websocket-accept") => {
                let accept = value.try_into().map_err(|_| "Sec-WebSocket-Accept is malformed")?;
                if self.accept.replace(accept).is_some() {
                    return Err("Sec-WebSocket-Accept is repeated");
                }
            }
            22 if is(name, b"sec-websocket-protocol") => self.unasked = true,
            24 if is(name, b"sec-websocket-extensions") => self.unasked = true,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 §6.3, with every doubt an error.
    fn conclude(self, status: u16, minor: u8, limits: &Limits) -> Result<Head, &'static str> {
        let close = self.close || minor == 0 && !self.keep_alive;
        let upgrade = self.accept.filter(|_| self.websocket && self.upgrade && !self.unasked);
        let answer = Answer { status, close, upgrade };
        if status == 304 {
            return Ok(Head { answer, body: None });
        }
        if status < 200 || status == 204 {
            // Neither field may be there (RFC 9110 §8.6, RFC 9112 §6.1); who believes it takes the next answer for a body.
            if self.codings > 0 || self.length.is_some_and(|length| length > 0) {
                return Err("an answer that has no body says that one follows");
            }
            return Ok(Head { answer, body: None });
        }
        let body = match (self.codings, self.length) {
            (0, None) => return Err("an answer says neither its length nor that it is chunked"),
            (0, Some(length)) if length > limits.body => return Err("the body is too long"),
            (0, Some(length)) => Body::Length(length),
            (1, None) if self.chunked && minor > 0 => Body::chunked(),
            (_, None) => return Err("Transfer-Encoding is anything but chunked"),
            (_, Some(_)) => return Err("Content-Length and Transfer-Encoding contradict each other"),
        };
        Ok(Head { answer, body: Some(body) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { body: BODY_MAX, ..Limits::default() }
    }

    /// Reads all of `octets`, in pieces of `size`: the answers, or what is wrong.
    fn read(octets: &[u8], size: usize) -> Result<Vec<Answer>, &'static str> {
        let limits = limits();
        let (mut reader, mut answers) = (Reader::default(), Vec::new());
        for piece in octets.chunks(size) {
            let mut at = 0;
            while at < piece.len() {
                let (used, event) = reader.next(&piece[at..], &limits)?;
                at += used;
                match event {
                    Event::More => assert_eq!(at, piece.len(), "all of it is used up"),
                    Event::Answered(answer) => answers.push(answer),
                }
            }
        }
        Ok(answers)
    }

    fn everywhere(octets: &[u8]) -> Result<Vec<Answer>, &'static str> {
        let whole = read(octets, octets.len());
        for size in 1..octets.len().min(60) {
            assert_eq!(read(octets, size), whole, "{:?} by {size}", String::from_utf8_lossy(octets));
        }
        whole
    }

    fn answer(status: u16, close: bool) -> Answer {
        Answer { status, close, upgrade: None }
    }

    #[test]
    fn answers_wherever_they_are_cut() {
        let all = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n\
            HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let expected = [(200, false), (404, false), (204, false), (304, false), (200, true)];
        assert_eq!(everywhere(all), Ok(expected.map(|(status, close)| answer(status, close)).to_vec()));
    }

    #[test]
    fn persistence_by_version_and_connection() {
        let closes = |head: &str| {
            everywhere(format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).expect("valid")[0].close
        };
        assert!(!closes("HTTP/1.1 200 OK"));
        assert!(closes("HTTP/1.1 200 OK\r\nConnection: Close"));
        assert!(closes("HTTP/1.0 200 OK"));
        assert!(!closes("HTTP/1.0 200 OK\r\nConnection: keep-alive"));
    }

    #[test]
    fn h8_doubtful_answers_are_errors() {
        let flood = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
        let bomb = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(20_000));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200));
        for octets in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n folded\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 200OK\r\n\r\n",
            "HTTP/1.1 099 No\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            " HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "\x15\x03\x01\x00\x02",
            &flood,
            &bomb,
            &many,
        ] {
            assert!(everywhere(octets.as_bytes()).is_err(), "{octets:?}");
        }
    }

    /// A body without end is ended by a bound, however it is said to go on.
    #[test]
    fn h8_an_infinite_body_is_an_error() {
        let limits = limits();
        let mut reader = Reader::default();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        reader.next(head, &limits).expect("a head");
        // 256 MiB chunks, of which the octets are passed over in one piece.
        let chunk = [b"10000000\r\n".as_slice(), &vec![b'x'; 1 << 20]].concat();
        let outcome = (0..100).try_for_each(|_| {
            reader.next(&chunk, &limits)?;
            for _ in 1..256 {
                reader.next(&chunk[10..], &limits)?;
            }
            reader.next(b"\r\n", &limits).map(drop)
        });
        assert_eq!(outcome, Err("the body is too long"));
    }

    #[test]
    fn a_websockets_opening() {
        let fields = "Upgrade: WebSocket\r\nConnection: Upgrade\r\n";
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let opened = |more: &str| {
            let head = format!("HTTP/1.1 101 Switching Protocols\r\n{more}\r\n");
            everywhere(head.as_bytes()).expect("valid")[0].upgrade
        };
        assert_eq!(opened(&format!("{fields}{accept}")), Some(*b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(opened(fields), None);
        assert_eq!(opened(accept), None);
        assert_eq!(opened(&format!("{fields}{accept}Sec-WebSocket-Extensions: x\r\n")), None);
        assert_eq!(opened(&format!("{fields}{accept}Sec-WebSocket-Protocol: chat\r\n")), None);
    }
}
