//! What is answered to which request.

use byway_tcp::app::Conn;

use super::super::outbox::Outbox;
use super::super::service::{Config, Core};
use super::super::stats;
use super::super::ws::extension::Agreed;
use super::super::ws::handshake;
use super::body::Body;
use super::request::{Framing, Method, Request};
use super::response::{Made, Refusal, Status};

/// The demonstration page, self-contained.
pub(super) static PAGE: &[u8] = include_bytes!("page.html");

/// What the page may do: run its own script and style, by their digests (a test has them, and says what they are
/// after a change), and talk to where it came from. Nothing from anywhere else, whatever is put into it.
pub(super) const PAGE_POLICY: &str = "default-src 'none'; \
    script-src 'sha256-A0834mZru+PeCaZEvrM4XTZD06c28wH3bIpxuOrdBzU='; \
    style-src 'sha256-AeyIt4l5sUmGHB5z9/PkeyoMUveYZo1hrbMcV85M0YQ='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TEXT: &str = "Content-Type: text/plain\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const OCTETS: &str = "Content-Type: application/octet-stream\r\n";

/// How a request is answered; the response's head is in the [`Made`] beside it.
#[derive(Debug)]
pub(super) enum Answer {
    /// The head (with a short body) is all.
    Made,
    /// The request's body comes back; `echo` is false where only the head may (HEAD).
    Body { body: Body, echo: bool },
    /// A body that byway generates.
    Generated(Source),
    /// From here on the connection speaks WebSocket.
    WebSocket { pushes: Option<Pushes>, deflate: Option<Agreed> },
}

/// What a WebSocket is told by itself, by its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pushes {
    /// `/ticker`.
    Ticks,
    /// `/feed`.
    Stats,
}

impl Pushes {
    fn on(path: &[u8]) -> Option<Self> {
        match path {
            b"/ticker" => Some(Self::Ticks),
            b"/feed" => Some(Self::Stats),
            _ => None,
        }
    }
}

/// Decides, and writes the response's head into `made`.
///
/// # Errors
/// If the request isn't served.
pub(super) fn answer<C: Conn>(
    request: &Request<'_>,
    made: &mut Made,
    conn: &C,
    core: &Core,
) -> Result<Answer, Refusal> {
    let config = &core.config;
    let over_tls = config.ports.https == Some(conn.local().port());
    if request.https && !over_tls {
        // RFC 9110 §7.4: such a request is to be believed only over TLS.
        return Err(Refusal::new(Status::MISDIRECTED, "https is not spoken here"));
    }
    if request.fields.upgrade.websocket {
        let accepted = handshake::accept(request, &config.allowed_origins)?;
        let pushes = Pushes::on(request.path);
        if pushes == Some(Pushes::Stats) && core.feeds.is_full() {
            return Err(Refusal::new(Status::UNAVAILABLE, "as many feeds as there may be are open"));
        }
        accepted.write(made);
        return Ok(Answer::WebSocket { pushes, deflate: accepted.deflate });
    }
    if request.framing != Framing::None {
        return Ok(echo(request, made, config));
    }
    if !matches!(request.method, Method::Get | Method::Head) {
        return Ok(short(request, made, config, Status::NOT_FOUND, b"nothing here\n"));
    }
    match request.path {
        b"/hello" => Ok(short(request, made, config, Status::OK, b"hello\n")),
        b"/" => Ok(page(request, made, config)),
        b"/stats" => {
            let octets = stats::stats(conn);
            Ok(generated(request, made, config, JSON, Source::Owned { octets, at: 0 }))
        }
        path => match path.strip_prefix(b"/bytes/").map(parse_count) {
            Some(Some(left)) if left <= config.limits.generated => {
                Ok(generated(request, made, config, OCTETS, Source::Pattern { at: 0, left }))
            }
            Some(Some(_)) => {
                head(request, made, config, Status::BAD_REQUEST, TEXT, 14);
                Ok(body_unless_head(request, made, b"at most 1 GiB\n"))
            }
            _ => Ok(short(request, made, config, Status::NOT_FOUND, b"nothing here\n")),
        },
    }
}

/// Digits only; a number beyond 64 bits is only too large.
fn parse_count(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |octet: &u8| u64::from(octet - b'0');
    Some(digits.iter().fold(0u64, |number, octet| number.saturating_mul(10).saturating_add(digit(octet))))
}

/// The body comes back as it is framed: same length, or the same chunks.
fn echo(request: &Request<'_>, made: &mut Made, config: &Config) -> Answer {
    made.status(Status::OK).date(&config.clock);
    if let Some(content_type) = request.fields.content_type {
        made.field("Content-Type", content_type);
    }
    let body = match request.framing {
        Framing::Length(length) => {
            made.length(length);
            Body::Length(length)
        }
        Framing::Chunked | Framing::None => {
            made.field("Transfer-Encoding", b"chunked");
            Body::chunked()
        }
    };
    made.persistence(request.keep_alive, request.minor).end();
    Answer::Body { body, echo: request.method != Method::Head }
}

fn head(
    request: &Request<'_>,
    made: &mut Made,
    config: &Config,
    status: Status,
    content_type: &'static str,
    length: u64,
) {
    made.status(status).date(&config.clock).push(content_type.as_bytes()).length(length);
    made.persistence(request.keep_alive, request.minor).end();
}

fn short(request: &Request<'_>, made: &mut Made, config: &Config, status: Status, body: &[u8]) -> Answer {
    head(request, made, config, status, TEXT, body.len() as u64);
    body_unless_head(request, made, body)
}

fn body_unless_head(request: &Request<'_>, made: &mut Made, body: &[u8]) -> Answer {
    if request.method != Method::Head {
        made.push(body);
    }
    Answer::Made
}

fn page(request: &Request<'_>, made: &mut Made, config: &Config) -> Answer {
    made.status(Status::OK).date(&config.clock).field("Content-Type", b"text/html; charset=utf-8");
    made.field("Content-Security-Policy", PAGE_POLICY.as_bytes()).field("Referrer-Policy", b"no-referrer");
    made.length(PAGE.len() as u64).persistence(request.keep_alive, request.minor).end();
    if request.method == Method::Head { Answer::Made } else { Answer::Generated(Source::Static(PAGE)) }
}

fn generated(
    request: &Request<'_>,
    made: &mut Made,
    config: &Config,
    content_type: &'static str,
    source: Source,
) -> Answer {
    head(request, made, config, Status::OK, content_type, source.len());
    if request.method == Method::Head { Answer::Made } else { Answer::Generated(source) }
}

/// The pattern of `/bytes/N`: octet i is `i mod 251`. A prime period shows octets that were lost,
/// doubled or swapped by any power of two.
const PERIOD: u64 = 251;
const TABLE: usize = 16 * PERIOD as usize;
static PATTERN: [u8; TABLE] = {
    let mut pattern = [0; TABLE];
    let mut at = 0;
    while at < TABLE {
        pattern[at] = (at % PERIOD as usize) as u8;
        at += 1;
    }
    pattern
};

/// A response body that byway generates, and how far it has got.
#[derive(Debug)]
pub(super) enum Source {
    Static(&'static [u8]),
    Owned { octets: Vec<u8>, at: usize },
    Pattern { at: u64, left: u64 },
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Self::Static(octets) => octets.len() as u64,
            Self::Owned { octets, at } => (octets.len() - at) as u64,
            Self::Pattern { left, .. } => *left,
        }
    }

    /// The next octets, at most `space`, and what is left after them.
    fn take(&mut self, space: usize) -> &[u8] {
        match self {
            Self::Static(octets) => {
                let (now, later) = octets.split_at(space.min(octets.len()));
                *octets = later;
                now
            }
            Self::Owned { octets, at } => {
                let from = *at;
                *at = octets.len().min(from + space);
                &octets[from..*at]
            }
            Self::Pattern { at, left } => {
                let from = (*at % PERIOD) as usize;
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(space).min(TABLE - from);
                *at += len as u64;
                *left -= len as u64;
                &PATTERN[from..from + len]
            }
        }
    }

    /// Generates as far as there is room and memory; whether all is done.
    pub(super) fn fill<C: Conn>(&mut self, conn: &mut C, outbox: &mut Outbox) -> bool {
        while self.len() > 0 {
            let Some(space) = outbox.space(conn) else { return false };
            outbox.write(conn, self.take(space));
        }
        true
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod page_tests;
