//! The URL: what is spoken, with whom, about what.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use crate::load::Protocol;
use byway_tcp::stack::Cidr;

use super::super::failure::Failure;

/// Longest path: what RFC 9112 §3 asks servers to take, less the rest of the line.
const PATH_MAX: usize = 7900;

/// A parsed URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// Name or literal address, without brackets.
    host: String,
    port: u16,
    /// As it goes into `Host`: the port only where it isn't the scheme's own.
    pub(super) authority: String,
    /// Path and query; empty for raw TCP.
    pub(super) path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str =
            "give, say, http://192.0.2.1/hello, ws://[2001:db8::1]:8080/ or tcp://192.0.2.1:7";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("no scheme: {EXAMPLE}"))?;
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "http" => Protocol::Http,
            "ws" => Protocol::WebSocket,
            "tcp" => Protocol::Raw,
            "https" | "wss" => return Err("TLS isn't spoken yet: give http:// or ws://".to_owned()),
            _ => return Err(format!("'{scheme}' isn't http, ws or tcp: {EXAMPLE}")),
        };
        if !text.is_ascii() || text.bytes().any(|octet| octet <= b' ' || octet == 0x7f) {
            return Err("a blank, or a character that isn't ASCII: write it as %XX".to_owned());
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("user names aren't sent: leave out what is before '@'".to_owned());
        }
        let (host, port) = split(authority).ok_or_else(|| format!("'{authority}' is no host: {EXAMPLE}"))?;
        let usual = if protocol == Protocol::Raw { None } else { Some(80) };
        let port = match port {
            None => usual.ok_or_else(|| format!("the port is missing: {EXAMPLE}"))?,
            Some(digits) => match digits.parse::<u16>() {
                Ok(port @ 1..) if digits.bytes().all(|octet| octet.is_ascii_digit()) => port,
                _ => return Err(format!("'{digits}' is no port from 1 to 65535")),
            },
        };
        let path = match (protocol, path) {
            (Protocol::Raw, "" | "/") => String::new(),
            (Protocol::Raw, _) => return Err("tcp:// has no path".to_owned()),
            (_, path) if path.starts_with('/') => path.to_owned(),
            (_, query) => format!("/{query}"),
        };
        if path.len() > PATH_MAX {
            return Err(format!("the path is longer than {PATH_MAX} octets"));
        }
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let authority = if Some(port) == usual { bracketed } else { format!("{bracketed}:{port}") };
        Ok(Self { protocol, host: host.to_owned(), port, authority, path })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let fits = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
            if !host.bytes().all(fits) {
                return None;
            }
            (host, port)
        }
    };
    match (host, port.strip_prefix(':')) {
        ("", _) => None,
        (_, None) if !port.is_empty() => None,
        (host, port) => Some((host, port)),
    }
}

impl Target {
    /// The server's address, by the system's resolver if it isn't a literal: the first of a family that `own` has.
    pub(super) fn resolve(&self, own: &[Cidr]) -> Result<SocketAddr, Failure> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let host = &self.host;
        let found: Vec<SocketAddr> = (host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|why| Failure::system(format!("resolving {host}: {why}: give an address instead")))?
            .collect();
        let ours = |found: &&SocketAddr| own.iter().any(|own| own.address.is_ipv4() == found.is_ipv4());
        found
            .iter()
            .find(ours)
            .or(found.first())
            .copied()
            .ok_or_else(|| Failure::system(format!("resolving {host}: it has no address: give one instead")))
    }

    /// What the URL begins with.
    pub(super) fn scheme(&self) -> &'static str {
        match self.protocol {
            Protocol::Http => "http",
            Protocol::WebSocket => "ws",
            Protocol::Raw => "tcp",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_understood() {
        for (url, host, port, authority, path) in [
            ("http://192.0.2.1", "192.0.2.1", 80, "192.0.2.1", "/"),
            ("HTTP://192.0.2.1:80/hello?x=1#y", "192.0.2.1", 80, "192.0.2.1", "/hello?x=1"),
            ("http://example.org:8080?q", "example.org", 8080, "example.org:8080", "/?q"),
            ("ws://[2001:db8::1]:8080/chat", "2001:db8::1", 8080, "[2001:db8::1]:8080", "/chat"),
            ("ws://[2001:db8::1]", "2001:db8::1", 80, "[2001:db8::1]", "/"),
            ("tcp://192.0.2.1:7", "192.0.2.1", 7, "192.0.2.1:7", ""),
            ("tcp://192.0.2.1:80/", "192.0.2.1", 80, "192.0.2.1:80", ""),
        ] {
            let target: Target = url.parse().expect(url);
            let Target { protocol: _, host: h, port: p, authority: a, path: q } = &target;
            assert_eq!((h.as_str(), *p, a.as_str(), q.as_str()), (host, port, authority, path), "{url}");
        }
        let shown: Target = "HTTP://192.0.2.1:80/hello".parse().expect("a URL");
        assert_eq!(shown.to_string(), "http://192.0.2.1/hello");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (url, word) in [
            ("192.0.2.1", "scheme"),
            ("ftp://192.0.2.1", "ftp"),
            ("https://192.0.2.1", "TLS"),
            ("tcp://192.0.2.1", "port is missing"),
            ("tcp://192.0.2.1:7/x", "no path"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://2001:db8::1/", "port"),
            ("http://[::1/", "no host"),
            ("http://[nothing]/", "no host"),
            ("http://[::1]80/", "no host"),
            ("http://a:0/", "port"),
            ("http://a:65536/", "port"),
            ("http://a:+80/", "port"),
            ("http://u@a/", "@"),
            ("http://a/ä", "ASCII"),
            ("http://a/x y", "blank"),
            ("http://a/x\r\nEvil: y", "blank"),
            ("http://a\"b/", "no host"),
        ] {
            let why = url.parse::<Target>().expect_err(url);
            assert!(why.contains(word), "{url}: {why}");
        }
    }
}
