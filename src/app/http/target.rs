//! What a request names: its target (RFC 9112 §3.2) and the authority in it and in `Host` (RFC 3986 §3.2).

use std::net::Ipv6Addr;
use std::str::from_utf8;

use memchr::memchr;

use super::request::Method;
use super::response::{Refusal, Status};

/// Where octets may stand, as bits of [`CLASSES`].
const PATH: u8 = 1;
const QUERY: u8 = 2;
const REG_NAME: u8 = 4;
/// RFC 9110 §5.6.2: methods and field names.
pub(super) const TOKEN: u8 = 8;
/// What nearly all hosts' names and IPv4 addresses are made of.
const PLAIN: u8 = 16;

/// What RFC 3986 §3 allows where, and what browsers send beyond it: the URL Standard's percent-encode sets leave
/// `[]|^` in paths and also `\`, `` ` ``, `{}` in queries as they are. None of them ends anything for any reader.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    // Without the comma in names: it is what joins the values of repeated fields (RFC 9110 §5.3).
    let sets: [(&[u8], u8); 6] = [
        (b"-.", PLAIN),
        (b"-._~%!$&'()*+;=", PATH | QUERY | REG_NAME),
        (b",:@/[]|^", PATH | QUERY),
        (b"?\\`{}", QUERY),
        (b"!#$%&'*+-.^_`|~", TOKEN),
        (
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            PATH | QUERY | REG_NAME | TOKEN | PLAIN,
        ),
    ];
    let mut set = 0;
    while set < sets.len() {
        let mut at = 0;
        while at < sets[set].0.len() {
            classes[sets[set].0[at] as usize] |= sets[set].1;
            at += 1;
        }
        set += 1;
    }
    classes
};

#[inline]
pub(super) fn is_of(octet: u8, class: u8) -> bool {
    CLASSES[usize::from(octet)] & class != 0
}

/// Without a way out at the first that isn't: there is none nearly always, and so several are looked up at once.
fn all(octets: &[u8], class: u8) -> bool {
    octets.iter().fold(class, |common, &octet| common & CLASSES[usize::from(octet)]) != 0
}

/// A request's target, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target<'t> {
    /// Path without query; `*` for OPTIONS of the server itself.
    pub(super) path: &'t [u8],
    /// In absolute-form, the scheme is `https`.
    pub(super) https: bool,
}

impl<'t> Target<'t> {
    /// # Errors
    /// 400; 501 for CONNECT, which byway doesn't speak (RFC 9110 §9.1).
    #[inline]
    pub(super) fn parse(target: &'t [u8], method: Method) -> Result<Self, Refusal> {
        if target.first() == Some(&b'/') && method != Method::Connect && all(target, PATH) {
            // As nearly always.
            return Ok(Self { path: target, https: false });
        }
        Self::parse_any(target, method)
    }

    fn parse_any(target: &'t [u8], method: Method) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = Refusal::bad("the request target is malformed");
        if method == Method::Connect {
            // Authority-form, with a port (RFC 9110 §9.3.6).
            let port = target.rsplit(|&octet| octet == b':').next().is_some_and(|port| !port.is_empty());
            return Err(if port && target.contains(&b':') && is_authority(target) {
                Refusal::new(Status::NOT_IMPLEMENTED, "this is not a proxy")
            } else {
                MALFORMED
            });
        }
        if target == b"*" && method == Method::Options {
            return Ok(Self { path: target, https: false });
        }
        let (relative, https) = match target.first() {
            Some(b'/') => (target, false),
            _ => split_absolute(target).ok_or(MALFORMED)?,
        };
        let end = memchr(b'?', relative).unwrap_or(relative.len());
        let (path, query) = relative.split_at(end);
        if !all(path, PATH) || !all(query, QUERY) {
            return Err(MALFORMED);
        }
        // Of a URL without one the path is "/".
        Ok(Self { path: if path.is_empty() { b"/" } else { path }, https })
    }
}

/// Path and query of an absolute-form with a good authority, and whether its scheme is `https`.
fn split_absolute(target: &[u8]) -> Option<(&[u8], bool)> {
    let (scheme, rest) = target.split_at(target.iter().position(|&octet| octet == b':')?);
    let https = scheme.eq_ignore_ascii_case(b"https");
    if !https && !scheme.eq_ignore_ascii_case(b"http") {
        return None;
    }
    let rest = rest.strip_prefix(b"://")?;
    let end = rest.iter().position(|octet| b"/?".contains(octet)).unwrap_or(rest.len());
    let (authority, relative) = rest.split_at(end);
    is_authority(authority).then_some((relative, https))
}

/// `uri-host [ ":" port ]` with a host that isn't empty, and without userinfo, which RFC 9110 §4.2.4 calls an error.
#[inline]
pub(super) fn is_authority(octets: &[u8]) -> bool {
    !octets.is_empty() && all(octets, PLAIN) || is_any_authority(octets)
}

fn is_any_authority(octets: &[u8]) -> bool {
    let (host, rest) = if octets.first() == Some(&b'[') {
        let Some(end) = octets.iter().position(|&octet| octet == b']') else { return false };
        (&octets[..=end], &octets[end + 1..])
    } else {
        octets.split_at(memchr(b':', octets).unwrap_or(octets.len()))
    };
    is_host(host) && (rest.is_empty() || rest[0] == b':' && is_port(&rest[1..]))
}

fn is_host(host: &[u8]) -> bool {
    match host {
        [b'[', inner @ .., b']'] => from_utf8(inner).is_ok_and(|inner| inner.parse::<Ipv6Addr>().is_ok()),
        _ => !host.is_empty() && all(host, REG_NAME) && percents_are_encodings(host),
    }
}

fn percents_are_encodings(octets: &[u8]) -> bool {
    if memchr(b'%', octets).is_none() {
        return true;
    }
    octets
        .split(|&octet| octet == b'%')
        .skip(1)
        .all(|after| matches!(after, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()))
}

/// `*DIGIT`, and a port there is.
fn is_port(octets: &[u8]) -> bool {
    let number = octets.iter().try_fold(0u32, |number, &octet| {
        octet.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u32::from(octet - b'0')))
    });
    number.is_some_and(|number| number <= u32::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h5_authorities() {
        for good in [
            "a",
            "a:",
            "a:80",
            "a:00080",
            "a.example:65535",
            "127.0.0.1",
            "[::1]",
            "[::ffff:192.0.2.1]:80",
            "%41b",
            "a_b!$&'()*+;=~-c",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":",
            ":80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "u:p@a",
            "a,b",
            "a:65536",
            "a:+1",
            "a:8x",
            "a:80:80",
            "a\\b",
            "[::1",
            "::1",
            "[::1]80",
            "[::1]]",
            "[]",
            "[::g]",
            "[::1%25eth0]",
            "%4",
            "%zz",
            "a%",
            "a\"",
            "<a>",
            "a:99999999999999999999",
            "\u{e4}",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn h5_the_four_forms() {
        let parse = |target: &'static str, method: Method| {
            Target::parse(target.as_bytes(), method)
                .map(|target| (from_utf8(target.path).expect("ASCII"), target.https))
                .map_err(|refusal| refusal.status.code)
        };
        for (target, path) in [
            ("/", "/"),
            ("//x", "//x"),
            ("/a;b=c,d:@!$&'()*+~/%41?x=/?", "/a;b=c,d:@!$&'()*+~/%41"),
            ("/a|b[c]^?{\\`}", "/a|b[c]^"),
            ("/?", "/"),
            ("http://a", "/"),
            ("http://a?x", "/"),
            ("HTTP://[::1]:80/x?y", "/x"),
        ] {
            assert_eq!(parse(target, Method::Get), Ok((path, false)), "{target}");
        }
        assert_eq!(parse("Https://a/x", Method::Get), Ok(("/x", true)));
        assert_eq!(parse("*", Method::Options), Ok(("*", false)));
        for target in [
            "",
            "x",
            "*",
            "a:80",
            "/#f",
            "/a#",
            "/\"",
            "/<",
            "/>",
            "/\\",
            "/{",
            "/`",
            "/?#",
            "/\u{e9}",
            "/\x7f",
            "/\0",
            "http:/a",
            "http:a",
            "http://",
            "http:///x",
            "http://?x",
            "http://u@a/",
            "http://a:x/",
            "http://a b/",
            "http://a#f",
            "http://a\\@b/",
            "ftp://a/",
            "://a/",
            "?x",
        ] {
            assert_eq!(parse(target, Method::Get), Err(400), "{target}");
        }
        for (target, code) in [
            ("a:80", 501),
            ("[::1]:443", 501),
            ("a", 400),
            ("a:", 400),
            ("/", 400),
            ("http://a:80/", 400),
            ("*", 400),
        ] {
            assert_eq!(parse(target, Method::Connect), Err(code), "{target}");
        }
    }
}
