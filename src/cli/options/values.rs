//! What an option may say: names, lists, addresses, times, each with the words for what it may not.

use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use byway_tcp::stack::Cidr;
use byway_tcp::tcb::congestion::Algorithm;
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// `--backend`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Backend {
    /// byway's own, on AF_XDP, or not at all
    Xdp,
    /// The kernel's, through sockets: without privileges, and listening on the host's own addresses
    Kernel,
    /// XDP if it can be had, otherwise the kernel's, and why is said
    Auto,
}

/// `--attach`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Attach {
    /// Native if the driver can, otherwise generic
    Auto,
    /// In the driver, or not at all
    Native,
    /// Behind the driver: every interface can, slower
    Generic,
}

/// `--zero-copy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ZeroCopy {
    /// If the driver can
    Auto,
    /// Or not at all
    On,
    /// Copy mode
    Off,
}

/// `--idle`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Idle {
    /// Gives the core back; the next frame waits for a wake-up, some microseconds
    Adaptive,
    /// Never sleeps: the core is always full
    Spin,
}

impl Idle {
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Spin { "spin" } else { "adaptive" }
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// `--queues`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Queues {
    All,
    These(Vec<u32>),
}

impl FromStr for Queues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { list(text, "all").map(Self::These) }
    }
}

/// `--client-ports`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ports(pub(crate) Range<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "give, say, 62000-62999";
        let (first, last) = text.split_once('-').ok_or_else(|| format!("'{text}' is no range: {example}"))?;
        // 65535 would be the end of a range that isn't a port.
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first @ 1..), Ok(last @ ..=65_534)) if first <= last => Ok(Self(first..last + 1)),
            _ => Err(format!("'{text}' isn't a range of ports from 1 to 65534: {example}")),
        }
    }
}

/// `--cores`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cores {
    Auto,
    These(Vec<usize>),
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { list(text, "auto").map(Self::These) }
    }
}

fn list<T: FromStr + PartialEq>(text: &str, word: &str) -> Result<Vec<T>, String> {
    let mut numbers = Vec::new();
    for item in text.split(',') {
        let number =
            item.parse().map_err(|_| format!("'{item}' is no number: give '{word}' or, say, '0,1'"))?;
        if numbers.contains(&number) {
            return Err(format!("{item} is there twice"));
        }
        numbers.push(number);
    }
    Ok(numbers)
}

pub(super) fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

pub(super) fn algorithm() -> impl TypedValueParser<Value = Algorithm> {
    PossibleValuesParser::new(Algorithm::ALL.iter().map(|algorithm| algorithm.name()))
        .try_map(|name| name.parse::<Algorithm>().map_err(|()| "not a congestion control"))
}

/// As browsers serialise it (RFC 6454 §6.2), or nobody would ever be let in.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let example = "give, say, https://example.org or http://localhost:8080";
    let (scheme, host) = text.split_once("://").ok_or_else(|| format!("the scheme is missing: {example}"))?;
    let host_is_good =
        !host.is_empty() && host.bytes().all(|octet| octet.is_ascii_graphic() && !b"/?#@*".contains(&octet));
    if !scheme.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet))
        || scheme.is_empty()
    {
        return Err(format!("'{scheme}' is no scheme: {example}"));
    }
    if !host_is_good {
        return Err(format!("'{host}' is no host with or without a port, and nothing else: {example}"));
    }
    Ok(text.to_owned())
}

pub(crate) fn interface(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the name is empty: give one that `ip link` lists".to_owned()),
        name => Ok(name.to_owned()),
    }
}

pub(super) fn cidr(text: &str) -> Result<Cidr, String> {
    let example = "give, say, 192.0.2.7/24 or 2001:db8::7/64";
    let (address, prefix) =
        text.split_once('/').ok_or_else(|| format!("the prefix is missing: {example}"))?;
    let address: IpAddr = address.parse().map_err(|_| format!("'{address}' is no IP address: {example}"))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if prefix <= longest => Ok(Cidr { address, prefix }),
        _ => Err(format!("'{prefix}' is no prefix length from 0 to {longest}: {example}")),
    }
}

/// A number with `ms`, `s` or `m`.
pub(in crate::cli) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("'{text}' is no time: give, say, 500ms, 5s or 1m"))?;
    let millis = match &text[digits.len()..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "" => return Err("a unit is missing: give, say, 500ms, 5s or 1m".to_owned()),
        unit => return Err(format!("'{unit}' is no unit: give ms, s or m")),
    };
    // A day: longer than any drain, and far from overflowing a clock.
    match millis {
        Some(millis) if millis <= 86_400_000 => Ok(Duration::from_millis(millis)),
        _ => Err("longer than a day".to_owned()),
    }
}
