//! A segment as scripts write it, and as octets. Built and read here and not by the stack's own `wire`,
//! so that the two check each other.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Letters of the control bits, from FIN upwards; `.` is ACK, as packetdrill has it.
const LETTERS: &str = "FSRP.UEW";
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
const URG: u8 = 0x20;

const ETHERNET: usize = 14;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The two ECN bits of the IP header (RFC 3168 §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ecn {
    #[default]
    NotEct,
    Ect1,
    Ect0,
    Ce,
}

impl Ecn {
    pub const NAMED: [(&str, Self); 4] =
        [("noecn", Self::NotEct), ("ect1", Self::Ect1), ("ect0", Self::Ect0), ("ce", Self::Ce)];

    fn of(bits: u8) -> Self {
        Self::NAMED[usize::from(bits & 3)].1
    }
}

/// A TCP option. `None` as a timestamp: `any`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opt {
    Nop,
    Mss(u16),
    Scale(u8),
    SackOk,
    Timestamps(Option<u32>, Option<u32>),
    Sack(Vec<(u32, u32)>),
    Unknown(u8, Vec<u8>),
    /// Octets as they are, legal or not.
    Raw(Vec<u8>),
}

/// A segment without its payload's octets. In scripts numbers count from where each side began, on the wire not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    pub ecn: Ecn,
    pub flags: u8,
    pub seq: u32,
    pub len: u32,
    pub ack: Option<u32>,
    /// `None` in an expectation: not looked at.
    pub window: Option<u16>,
    pub urgent: Option<u16>,
    /// `None` in an expectation, `<...>`: not looked at.
    pub options: Option<Vec<Opt>>,
    /// Given with a wrong checksum.
    pub bad_checksum: bool,
    /// Given with other octets than the stream has in that place.
    pub other_text: bool,
}

impl Packet {
    pub fn flags_of(letters: &str) -> Option<u8> {
        let mut flags = 0;
        for letter in letters.chars().filter(|&letter| letter != '-') {
            flags |= 1 << LETTERS.find(letter)?;
        }
        Some(flags)
    }

    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Sequence number of its first octet of text.
    pub fn text_at(&self) -> u32 {
        self.seq.wrapping_add(u32::from(self.has(SYN)))
    }

    /// What a segment that was sent has otherwise than this one, which was expected.
    pub fn differences(&self, sent: &Self) -> Vec<&'static str> {
        let options = self.options.as_ref().is_none_or(|wanted| {
            let sent = sent.options.as_deref().unwrap_or_default();
            let plain = |options: &[Opt]| -> Vec<Opt> {
                options.iter().filter(|&option| *option != Opt::Nop).cloned().collect()
            };
            let (wanted, sent) = (plain(wanted), plain(sent));
            wanted.len() == sent.len() && wanted.iter().zip(&sent).all(|(wanted, sent)| wanted.matches(sent))
        });
        let window = self.window.is_none() || self.window == sent.window;
        [
            ("flags", self.flags == sent.flags),
            ("sequence number", self.seq == sent.seq),
            ("length", self.len == sent.len),
            ("ack", self.ack == sent.ack),
            ("window", window),
            ("urgent pointer", self.urgent == sent.urgent),
            ("options", options),
            ("ECN bits", self.ecn == sent.ecn),
        ]
        .into_iter()
        .filter_map(|(what, same)| (!same).then_some(what))
        .collect()
    }
}

impl Opt {
    fn matches(&self, sent: &Self) -> bool {
        let any = |wanted: &Option<u32>, sent: &Option<u32>| wanted.is_none() || wanted == sent;
        match (self, sent) {
            (Self::Timestamps(value, echo), Self::Timestamps(sent_value, sent_echo)) => {
                any(value, sent_value) && any(echo, sent_echo)
            }
            _ => self == sent,
        }
    }

    fn emit(&self, to: &mut Vec<u8>) {
        match self {
            Self::Nop => to.push(1),
            Self::Mss(mss) => {
                to.extend([2, 4]);
                to.extend(mss.to_be_bytes());
            }
            Self::Scale(shift) => to.extend([3, 3, *shift]),
            Self::SackOk => to.extend([4, 2]),
            Self::Sack(blocks) => {
                to.extend([5, 2 + 8 * blocks.len() as u8]);
                for (left, right) in blocks {
                    to.extend(left.to_be_bytes());
                    to.extend(right.to_be_bytes());
                }
            }
            Self::Timestamps(value, echo) => {
                to.extend([8, 10]);
                to.extend(value.unwrap_or(0).to_be_bytes());
                to.extend(echo.unwrap_or(0).to_be_bytes());
            }
            Self::Unknown(kind, octets) => {
                to.extend([*kind, 2 + octets.len() as u8]);
                to.extend(octets);
            }
            Self::Raw(octets) => to.extend(octets),
        }
    }

    fn read_all(mut rest: &[u8]) -> Result<Vec<Self>, String> {
        let mut options = Vec::new();
        while let [kind, after @ ..] = rest {
            if *kind == 0 {
                break;
            }
            if *kind == 1 {
                options.push(Self::Nop);
                rest = after;
                continue;
            }
            let len = after.first().map_or(0, |&len| usize::from(len));
            if len < 2 || len > rest.len() {
                return Err(format!("option {kind} of length {len}"));
            }
            let body = &rest[2..len];
            let word = |at: usize| be32(body, at);
            options.push(match (*kind, body.len()) {
                (2, 2) => Self::Mss(be16(body, 0)),
                (3, 1) => Self::Scale(body[0]),
                (4, 0) => Self::SackOk,
                (5, octets) if octets % 8 == 0 => {
                    Self::Sack((0..octets / 8).map(|block| (word(8 * block), word(8 * block + 4))).collect())
                }
                (8, 8) => Self::Timestamps(Some(word(0)), Some(word(4))),
                _ => Self::Unknown(*kind, body.to_vec()),
            });
            rest = &rest[len..];
        }
        Ok(options)
    }
}

/// Numbers before the beginning are shown as negative.
fn shown(number: u32) -> i64 {
    if number > 0xf000_0000 { i64::from(number) - (1 << 32) } else { i64::from(number) }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ecn != Ecn::NotEct {
            write!(f, "[{}] ", Ecn::NAMED[self.ecn as usize].0)?;
        }
        for (bit, letter) in LETTERS.chars().enumerate() {
            if self.flags & (1 << bit) != 0 {
                f.write_char(letter)?;
            }
        }
        if self.flags == 0 {
            f.write_char('-')?;
        }
        let end = self.seq.wrapping_add(self.len);
        write!(f, " {}:{}({})", shown(self.seq), shown(end), self.len)?;
        if let Some(ack) = self.ack {
            write!(f, " ack {}", shown(ack))?;
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if let Some(urgent) = self.urgent {
            write!(f, " urg {urgent}")?;
        }
        let Some(options) = &self.options else { return f.write_str(" <...>") };
        let shown: Vec<String> =
            options.iter().filter(|&option| *option != Opt::Nop).map(Opt::to_string).collect();
        if shown.is_empty() { Ok(()) } else { write!(f, " <{}>", shown.join(",")) }
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = |value: &Option<u32>| value.map_or("any".to_owned(), |value| value.to_string());
        match self {
            Self::Nop => f.write_str("nop"),
            Self::Mss(mss) => write!(f, "mss {mss}"),
            Self::Scale(shift) => write!(f, "wscale {shift}"),
            Self::SackOk => f.write_str("sackOK"),
            Self::Timestamps(value, echo) => write!(f, "TS val {} ecr {}", any(value), any(echo)),
            Self::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|&(left, right)| write!(f, " {}:{}", shown(left), shown(right)))
            }
            Self::Unknown(kind, octets) => {
                write!(f, "unk {kind} 0x")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
            Self::Raw(octets) => write!(f, "raw {octets:02x?}"),
        }
    }
}

// --- octets -----------------------------------------------------------------------------------------

fn be16(from: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([from[at], from[at + 1]])
}

fn be32(from: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]])
}

/// RFC 1071, with the pseudo-header of `protocol` in front where there is one.
fn checksum(ends: Option<(IpAddr, IpAddr, u8)>, octets: &[u8]) -> u16 {
    let mut all = Vec::new();
    if let Some((src, dst, protocol)) = ends {
        for ip in [src, dst] {
            match ip {
                IpAddr::V4(ip) => all.extend(ip.octets()),
                IpAddr::V6(ip) => all.extend(ip.octets()),
            }
        }
        all.extend((octets.len() as u32).to_be_bytes());
        all.extend([0, 0, 0, protocol]);
    }
    all.extend(octets);
    if all.len() % 2 == 1 {
        all.push(0);
    }
    let mut sum: u32 = all.chunks(2).map(|pair| u32::from(be16(pair, 0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame around an IP payload.
fn frame(src: IpAddr, dst: IpAddr, ecn: Ecn, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from(MAC);
    frame.extend(PEER_MAC);
    frame.extend(if src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(ip_header(src, dst, ecn, protocol, payload.len()));
    frame.extend(payload);
    frame
}

fn ip_header(src: IpAddr, dst: IpAddr, ecn: Ecn, protocol: u8, payload: usize) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = (20 + payload as u16).to_be_bytes();
            let mut header = vec![0x45, ecn as u8, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = checksum(None, &header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = (payload as u16).to_be_bytes();
            let mut header = vec![0x60, (ecn as u8) << 4, 0, 0, len[0], len[1], protocol, 64];
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        _ => unreachable!("both ends have one family"),
    }
}

/// The frame of a segment from `src` to `dst`; numbers as on the wire.
pub fn build(src: SocketAddr, dst: SocketAddr, packet: &Packet, text: &[u8]) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some([Opt::Timestamps(..)]) = packet.options.as_deref() {
        // As nearly everybody writes them (RFC 7323 appendix A), which is what prediction knows.
        options.extend([1, 1]);
    }
    for option in packet.options.iter().flatten() {
        option.emit(&mut options);
    }
    while options.len() % 4 != 0 {
        options.push(1);
    }
    let mut segment = Vec::new();
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    segment.extend(packet.seq.to_be_bytes());
    segment.extend(packet.ack.unwrap_or(0).to_be_bytes());
    segment.extend([((20 + options.len()) as u8 / 4) << 4, packet.flags]);
    segment.extend(packet.window.unwrap_or(0).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(packet.urgent.unwrap_or(0).to_be_bytes());
    segment.extend(options);
    segment.extend(text);
    let mut sum = checksum(Some((src.ip(), dst.ip(), TCP)), &segment);
    if packet.bad_checksum {
        sum ^= 0x5555;
    }
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    frame(src.ip(), dst.ip(), packet.ecn, TCP, &segment)
}

/// An ICMP error from `from` about the segment that begins at `seq`, from `src` to `dst`: as much of it as
/// RFC 792 asks for, and all of the TCP header for IPv6.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    /// The second word: an MTU.
    pub rest: u32,
    pub seq: u32,
    pub len: u32,
}

pub fn build_icmp(from: IpAddr, src: SocketAddr, dst: SocketAddr, icmp: &Icmp) -> Vec<u8> {
    let mut message = vec![icmp.kind, icmp.code, 0, 0];
    message.extend(icmp.rest.to_be_bytes());
    message.extend(ip_header(src.ip(), dst.ip(), Ecn::NotEct, TCP, 20 + icmp.len as usize));
    message.extend(src.port().to_be_bytes());
    message.extend(dst.port().to_be_bytes());
    message.extend(icmp.seq.to_be_bytes());
    let to = src.ip();
    if to.is_ipv6() {
        message.extend([0, 0, 0, 0, 0x50, ACK, 0xff, 0xff, 0, 0, 0, 0]);
    }
    let (protocol, ends) = if to.is_ipv4() { (ICMP, None) } else { (ICMPV6, Some((from, to, ICMPV6))) };
    let sum = checksum(ends, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    frame(from, to, Ecn::NotEct, protocol, &message)
}

/// What the stack sent.
#[derive(Clone, Debug)]
pub enum Sent {
    Tcp {
        src: SocketAddr,
        dst: SocketAddr,
        packet: Packet,
        text: Vec<u8>,
    },
    /// ARP, NDP, ICMP: not what scripts are about.
    Other,
}

/// Reads a frame of the stack's, which has to be right in every field.
pub fn read(frame: &[u8]) -> Result<Sent, String> {
    let ip = &frame[ETHERNET..];
    let (src, dst, ecn, protocol, payload): (IpAddr, IpAddr, u8, u8, &[u8]) = match be16(frame, 12) {
        0x0800 => {
            let total = usize::from(be16(ip, 2));
            if ip[0] != 0x45 || checksum(None, &ip[..20]) != 0 || total > ip.len() {
                return Err(format!("IPv4 header {:02x?}", &ip[..20]));
            }
            let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
            (address(12), address(16), ip[1], ip[9], &ip[20..total])
        }
        0x86dd => {
            let end = 40 + usize::from(be16(ip, 4));
            if ip[0] >> 4 != 6 || end > ip.len() {
                return Err(format!("IPv6 header {:02x?}", &ip[..40]));
            }
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&ip[at..at + 16]);
                IpAddr::from(octets)
            };
            (address(8), address(24), ip[1] >> 4, ip[6], &ip[40..end])
        }
        _ => return Ok(Sent::Other),
    };
    if protocol != TCP {
        return Ok(Sent::Other);
    }
    if checksum(Some((src, dst, TCP)), payload) != 0 {
        return Err("a wrong TCP checksum".to_owned());
    }
    let header = usize::from(payload[12] >> 4) * 4;
    if payload[12] & 0x0f != 0 {
        return Err("reserved bits that aren't zero".to_owned());
    }
    let flags = payload[13];
    let (ack, urgent) = (be32(payload, 8), be16(payload, 18));
    if flags & ACK == 0 && ack != 0 || flags & URG == 0 && urgent != 0 {
        return Err(format!("ACK {ack} or urgent pointer {urgent} without its flag"));
    }
    let packet = Packet {
        ecn: Ecn::of(ecn),
        flags,
        seq: be32(payload, 4),
        len: (payload.len() - header) as u32,
        ack: (flags & ACK != 0).then_some(ack),
        window: Some(be16(payload, 14)),
        urgent: (flags & URG != 0).then_some(urgent),
        options: Some(Opt::read_all(&payload[20..header])?),
        ..Packet::default()
    };
    let (src, dst) = (SocketAddr::new(src, be16(payload, 0)), SocketAddr::new(dst, be16(payload, 2)));
    Ok(Sent::Tcp { src, dst, packet, text: payload[header..].to_vec() })
}
