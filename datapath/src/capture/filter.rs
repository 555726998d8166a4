//! Which frames, or which connections: the primitives of pcap-filter(7) that make sense for TCP/IP, and `ss`'s.
//!
//! ```text
//!   expression  term { and term } | term { or term }           and: &&   or: ||   not: !
//!   term        not term | ( expression ) | primitive          mixed and/or need parentheses
//!   primitive   arp | ip | ip6 | icmp | icmp6 | tcp | udp      alone, or before one of the others: tcp port 80
//!               [src|dst] host ADDRESS    [src|dst] net ADDRESS/PREFIX
//!               [src|dst] port N          [src|dst] portrange N-M
//!               src|dst ADDRESS[/PREFIX][:PORT]    sport|dport [=] [:]N        as ss says it
//!               ADDRESS[/PREFIX][:PORT]            :N                          of either side
//! ```
//!
//! IPv6 in front of a port: `[2001:db8::1]:80`. An expression is compiled into tests, each of which names the next
//! one for yes and for no, always further on: evaluation is bounded by their number, [`TESTS_MAX`], and allocates
//! nothing. Ports are those of TCP and UDP; a fragment but the first has none, nor has what follows IPv6 extension
//! headers. Up to two VLAN tags are looked through.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

use byway_tcp::wire::ethernet::{ARP, IPV4, IPV6, TPID_CUSTOMER, TPID_SERVICE};
use byway_tcp::wire::ip::{ICMP, ICMPV6, TCP};

/// Tests of a filter, at most: 64 of some ns each on a watched core.
pub const TESTS_MAX: usize = 64;
/// Octets of its text.
pub const TEXT_MAX: usize = 1024;
/// Parentheses and negations within each other.
const DEPTH_MAX: usize = 32;

const ACCEPT: u8 = u8::MAX;
const REJECT: u8 = u8::MAX - 1;

/// The one protocol here that byway itself has no use for (RFC 768).
const UDP: u8 = 17;

/// A compiled expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    text: String,
    /// The last is the first to be asked; each names only ones before it.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    test: Test,
    yes: u8,
    no: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Source,
    Destination,
    Either,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    EtherType(u16),
    Protocol(u8),
    Address(Side, Net),
    Ports(Side, u16, u16),
}

/// Addresses with a prefix in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Net {
    v4: bool,
    bits: u128,
    mask: u128,
}

impl Net {
    fn new(address: IpAddr, prefix: u8) -> Self {
        let (width, bits) = bits_of(address);
        let mask = u128::MAX.checked_shl(u32::from(width - prefix)).unwrap_or(0);
        Self { v4: address.is_ipv4(), bits: bits & mask, mask }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.v4 == address.is_ipv4() && bits_of(address).1 & self.mask == self.bits
    }
}

fn bits_of(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(v4) => (32, v4.to_bits().into()),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    }
}

/// What a filter asks after.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fields {
    ether_type: u16,
    protocol: Option<u8>,
    /// Source and destination; of ARP, its sender and target.
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
}

impl Fields {
    /// As far as the octets go.
    pub fn of_frame(frame: &[u8]) -> Self {
        let mut at = 12;
        let mut fields = Self::default();
        for _ in 0..3 {
            let Some(ether_type) = be16(frame, at) else { return fields };
            fields.ether_type = ether_type;
            at += 2;
            if ![TPID_CUSTOMER, TPID_SERVICE].contains(&ether_type) {
                break;
            }
            at += 2;
        }
        let packet = frame.get(at..).unwrap_or_default();
        match fields.ether_type {
            IPV4 => fields.read_ipv4(packet),
            IPV6 => fields.read_ipv6(packet),
            ARP => fields.addresses = pair(ipv4(packet, 14), ipv4(packet, 24)),
            _ => {}
        }
        fields
    }

    /// A connection's: what is sent has our side as its source.
    pub fn of_connection(local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            ether_type: if local.is_ipv4() { IPV4 } else { IPV6 },
            protocol: Some(TCP),
            addresses: Some((local.ip(), peer.ip())),
            ports: Some((local.port(), peer.port())),
        }
    }

    /// Source and destination, with ports if there are any.
    pub fn ends(&self) -> Option<[(IpAddr, Option<u16>); 2]> {
        let (source, destination) = self.addresses?;
        let (from, to) = self.ports.unzip();
        Some([(source, from), (destination, to)])
    }

    fn read_ipv4(&mut self, packet: &[u8]) {
        let Some(&first) = packet.first() else { return };
        self.protocol = packet.get(9).copied();
        self.addresses = pair(ipv4(packet, 12), ipv4(packet, 16));
        let is_first = be16(packet, 6).is_some_and(|word| word & 0x1fff == 0);
        if is_first {
            self.read_ports(packet, usize::from(first & 0x0f) * 4);
        }
    }

    fn read_ipv6(&mut self, packet: &[u8]) {
        let address = |at: usize| {
            let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
            Some(IpAddr::from(octets))
        };
        self.protocol = packet.get(6).copied();
        self.addresses = pair(address(8), address(24));
        self.read_ports(packet, 40);
    }

    fn read_ports(&mut self, packet: &[u8], at: usize) {
        if matches!(self.protocol, Some(TCP | UDP)) {
            self.ports = be16(packet, at).zip(be16(packet, at + 2));
        }
    }
}

fn be16(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

fn ipv4(octets: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = octets.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn pair(source: Option<IpAddr>, destination: Option<IpAddr>) -> Option<(IpAddr, IpAddr)> {
    source.zip(destination)
}

impl Test {
    #[inline]
    fn holds(&self, fields: &Fields) -> bool {
        match self {
            Self::EtherType(ether_type) => fields.ether_type == *ether_type,
            Self::Protocol(protocol) => fields.protocol == Some(*protocol),
            Self::Address(side, net) => {
                fields.addresses.is_some_and(|ends| side.any(ends, |address| net.contains(address)))
            }
            Self::Ports(side, first, last) => {
                fields.ports.is_some_and(|ends| side.any(ends, |port| (*first..=*last).contains(&port)))
            }
        }
    }
}

impl Side {
    #[inline]
    fn any<T>(self, (source, destination): (T, T), holds: impl Fn(T) -> bool) -> bool {
        match self {
            Self::Source => holds(source),
            Self::Destination => holds(destination),
            Self::Either => holds(source) || holds(destination),
        }
    }
}

impl Filter {
    /// Whether a frame is one of those asked for.
    #[inline]
    pub fn accepts_frame(&self, frame: &[u8]) -> bool {
        self.accepts(&Fields::of_frame(frame))
    }

    /// Whether something with these fields is.
    pub fn accepts(&self, fields: &Fields) -> bool {
        let mut at = (self.steps.len() - 1) as u8;
        loop {
            let step = &self.steps[usize::from(at)];
            at = if step.test.holds(fields) { step.yes } else { step.no };
            if at >= REJECT {
                return at == ACCEPT;
            }
        }
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What is wrong with an expression, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterError {
    what: String,
    /// In octets from the text's beginning.
    at: usize,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter, character {}: {}", self.at + 1, self.what)
    }
}

impl core::error::Error for FilterError {}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_MAX {
            return Err(FilterError { what: format!("longer than {TEXT_MAX} octets"), at: TEXT_MAX });
        }
        let mut parser = Parser { words: words(text), next: 0, end: text.len(), tests: 0 };
        let expression = parser.expression(0)?;
        if let Some(&(at, word)) = parser.words.get(parser.next) {
            return Err(FilterError { what: format!("'{word}' is not expected here"), at });
        }
        let mut steps = Vec::with_capacity(parser.tests);
        compile(&expression, ACCEPT, REJECT, &mut steps);
        Ok(Self { text: text.to_owned(), steps })
    }
}

enum Expression {
    Test(Test),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// Appends the steps of `expression`, the last of its tests first; returns where it begins.
fn compile(expression: &Expression, yes: u8, no: u8, steps: &mut Vec<Step>) -> u8 {
    match expression {
        Expression::Test(test) => {
            steps.push(Step { test: *test, yes, no });
            (steps.len() - 1) as u8
        }
        Expression::Not(term) => compile(term, no, yes, steps),
        Expression::And(terms) => terms.iter().rev().fold(yes, |next, term| compile(term, next, no, steps)),
        Expression::Or(terms) => terms.iter().rev().fold(no, |next, term| compile(term, yes, next, steps)),
    }
}

/// Words with where they begin.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let len = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if let Some(operator) =
            ["&&", "||", "==", "(", ")", "!", "="].iter().find(|operator| rest.starts_with(*operator))
        {
            operator.len()
        } else {
            let ends = |c: char| c.is_whitespace() || "()!=&|".contains(c);
            rest.find(ends).filter(|&len| len > 0).unwrap_or(if ends(first) {
                first.len_utf8()
            } else {
                rest.len()
            })
        };
        words.push((at, &rest[..len]));
        at += len;
    }
    words
}

struct Parser<'a> {
    words: Vec<(usize, &'a str)>,
    next: usize,
    end: usize,
    tests: usize,
}

impl<'a> Parser<'a> {
    fn expression(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let first = self.term(depth)?;
        let (is_and, is_or) = (["and", "&&"], ["or", "||"]);
        let mut terms = vec![first];
        let mut operator: Option<bool> = None;
        while let Some((at, word)) = self.peek() {
            let and = is_and.contains(&word);
            if !and && !is_or.contains(&word) {
                break;
            }
            if operator.is_some_and(|before| before != and) {
                let what = "'and' beside 'or': say by parentheses which goes first".to_owned();
                return Err(FilterError { what, at });
            }
            operator = Some(and);
            self.next += 1;
            terms.push(self.term(depth)?);
        }
        Ok(match operator {
            None => terms.remove(0),
            Some(true) => Expression::And(terms),
            Some(false) => Expression::Or(terms),
        })
    }

    fn term(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let (at, word) = self.take("a primitive, say 'port 80'")?;
        if depth == DEPTH_MAX {
            return Err(FilterError { what: format!("more than {DEPTH_MAX} deep"), at });
        }
        match word {
            "not" | "!" => Ok(Expression::Not(Box::new(self.term(depth + 1)?))),
            "(" => {
                let inner = self.expression(depth + 1)?;
                match self.take("')'")? {
                    (_, ")") => Ok(inner),
                    (at, word) => {
                        Err(FilterError { what: format!("'{word}' is not expected here, but ')'"), at })
                    }
                }
            }
            _ => self.primitive(at, word),
        }
    }

    fn primitive(&mut self, at: usize, word: &'a str) -> Result<Expression, FilterError> {
        let protocol = match word {
            "arp" => Some(Test::EtherType(ARP)),
            "ip" => Some(Test::EtherType(IPV4)),
            "ip6" => Some(Test::EtherType(IPV6)),
            "icmp" => Some(Test::Protocol(ICMP)),
            "icmp6" => Some(Test::Protocol(ICMPV6)),
            "tcp" => Some(Test::Protocol(TCP)),
            "udp" => Some(Test::Protocol(UDP)),
            _ => None,
        };
        let Some(protocol) = protocol else { return self.sided(at, word) };
        let protocol = self.test(protocol, at)?;
        match self.peek() {
            Some((
                at,
                word @ ("src" | "dst" | "host" | "net" | "port" | "portrange" | "sport" | "dport"),
            )) => {
                self.next += 1;
                Ok(Expression::And(vec![protocol, self.sided(at, word)?]))
            }
            _ => Ok(protocol),
        }
    }

    /// A primitive that may say of which side.
    fn sided(&mut self, at: usize, word: &'a str) -> Result<Expression, FilterError> {
        let side = match word {
            "src" | "sport" => Side::Source,
            "dst" | "dport" => Side::Destination,
            _ => Side::Either,
        };
        if matches!(word, "sport" | "dport") {
            return self.port(side);
        }
        if side == Side::Either {
            return self.of_kind(side, at, word);
        }
        let (at, word) = self.after_equals("'host', 'net', 'port' or an address")?;
        self.of_kind(side, at, word)
    }

    fn of_kind(&mut self, side: Side, at: usize, word: &'a str) -> Result<Expression, FilterError> {
        match word {
            "host" => {
                let (at, word) = self.take("an address")?;
                let address = word.parse().map_err(|_| no_address(at, word))?;
                self.address(side, address, None, at)
            }
            "net" => {
                let (at, word) = self.take("a network")?;
                let (address, prefix) = net(word).ok_or_else(|| no_net(at, word))?;
                self.address(side, address, Some(prefix), at)
            }
            "port" => self.port(side),
            "portrange" => {
                let (at, word) = self.take("a range of ports")?;
                let ends = word.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                match ends {
                    Some((first, last)) if first <= last => self.test(Test::Ports(side, first, last), at),
                    _ => Err(FilterError { what: format!("'{word}' is no range, as 8000-8080 is"), at }),
                }
            }
            _ => self.bare(side, at, word),
        }
    }

    /// ADDRESS, ADDRESS/PREFIX, ADDRESS:PORT, :PORT.
    fn bare(&mut self, side: Side, at: usize, word: &str) -> Result<Expression, FilterError> {
        if let Some((address, prefix)) = net(word) {
            return self.address(side, address, Some(prefix), at);
        }
        if let Ok(address) = word.trim_start_matches('[').trim_end_matches(']').parse() {
            return self.address(side, address, None, at);
        }
        if let Some(port) = word.strip_prefix(':').and_then(|port| port.parse().ok()) {
            return self.test(Test::Ports(side, port, port), at);
        }
        if let Ok(end) = word.parse::<SocketAddr>() {
            let of = |parser: &mut Self, side| {
                let address = parser.address(side, end.ip(), None, at)?;
                let port = parser.test(Test::Ports(side, end.port(), end.port()), at)?;
                Ok(Expression::And(vec![address, port]))
            };
            if side != Side::Either {
                return of(self, side);
            }
            // The port of that very side.
            return Ok(Expression::Or(vec![of(self, Side::Source)?, of(self, Side::Destination)?]));
        }
        if word.parse::<u16>().is_ok() {
            return Err(FilterError { what: format!("'{word}' of what? A port is 'port {word}'"), at });
        }
        let what = format!(
            "'{word}' is no primitive: host, net, port, portrange, src, dst, sport, dport, tcp, udp, icmp, icmp6, ip, \
             ip6, arp, or an address"
        );
        Err(FilterError { what, at })
    }

    fn port(&mut self, side: Side) -> Result<Expression, FilterError> {
        let (at, word) = self.after_equals("a port")?;
        match word.strip_prefix(':').unwrap_or(word).parse() {
            Ok(port) => self.test(Test::Ports(side, port, port), at),
            Err(_) => Err(FilterError { what: format!("'{word}' is no port from 0 to 65535"), at }),
        }
    }

    fn address(
        &mut self,
        side: Side,
        address: IpAddr,
        prefix: Option<u8>,
        at: usize,
    ) -> Result<Expression, FilterError> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        self.test(Test::Address(side, Net::new(address, prefix.unwrap_or(longest))), at)
    }

    fn test(&mut self, test: Test, at: usize) -> Result<Expression, FilterError> {
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(FilterError { what: format!("more than {TESTS_MAX} tests"), at });
        }
        Ok(Expression::Test(test))
    }

    fn peek(&self) -> Option<(usize, &'a str)> {
        self.words.get(self.next).copied()
    }

    fn after_equals(&mut self, wanted: &str) -> Result<(usize, &'a str), FilterError> {
        if matches!(self.peek(), Some((_, "=" | "==" | "eq"))) {
            self.next += 1;
        }
        self.take(wanted)
    }

    fn take(&mut self, wanted: &str) -> Result<(usize, &'a str), FilterError> {
        let word = self.peek();
        self.next += 1;
        word.ok_or_else(|| FilterError { what: format!("ends where {wanted} is expected"), at: self.end })
    }
}

fn net(word: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = word.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= bits_of(address).0).then_some((address, prefix))
}

fn no_address(at: usize, word: &str) -> FilterError {
    FilterError { what: format!("'{word}' is no IP address"), at }
}

fn no_net(at: usize, word: &str) -> FilterError {
    FilterError { what: format!("'{word}' is no network, as 192.0.2.0/24 is"), at }
}

#[cfg(test)]
mod tests;
