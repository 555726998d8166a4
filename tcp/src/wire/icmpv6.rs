//! ICMPv6 (RFC 4443): echo, neighbour discovery (RFC 4861) and packet-too-big (RFC 8201).
//!
//! ```text
//!  0      1      2          4                    8                  24
//!  ┌──────┬──────┬──────────┬────────────────────┬──────────────────┬──────────────────────────
//!  │ type │ code │ checksum │ R S O reserved     │ target address   │ options: type, len/8, …
//!  └──────┴──────┴──────────┴────────────────────┴──────────────────┴──────────────────────────
//!                                       neighbour solicitation and advertisement
//! ```

use core::net::{IpAddr, Ipv6Addr};
use core::ops::Range;

use super::ethernet::{self, VlanTags};
use super::icmp::{Cause, Quoted, Report};
use super::{MacAddr, be32, checksum, ip, octets, put};
use crate::counters::DropReason;

const UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

const CHECKSUM: usize = 2;
const FLAGS: usize = 4;
const TARGET: usize = 8;
/// Octets of a solicitation or advertisement before its options.
const NEIGHBOR_LEN: usize = 24;
/// Octets before the quoted packet or the echo data.
const HEADER_LEN: usize = 8;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

const OPTION_SOURCE_LINK: u8 = 1;
const OPTION_TARGET_LINK: u8 = 2;
/// A link-layer address option for Ethernet (RFC 2464 §6).
const LINK_OPTION_LEN: usize = 8;
/// Octets of every neighbour message we send.
const SENT_LEN: usize = NEIGHBOR_LEN + LINK_OPTION_LEN;

/// Neighbour discovery comes from the link itself: a router would have counted this down
/// (RFC 4861 §7.1).
const NEIGHBOR_HOP_LIMIT: u8 = 255;
/// Options read in one message before giving up. RFC 4861 defines five kinds, RFC 3971 four more.
const MAX_OPTIONS: usize = 16;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A question for a neighbour's address (RFC 4861 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// Who is asked for.
    pub target: Ipv6Addr,
    /// The asking station's address, if it says so. Nothing can be learned without.
    pub source_link: Option<MacAddr>,
}

/// A neighbour's answer, or its own announcement (RFC 4861 §4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// Whose address this is about.
    pub target: Ipv6Addr,
    /// Where it is, if it says so.
    pub target_link: Option<MacAddr>,
    /// It is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// It asks to replace what is known.
    pub overriding: bool,
}

/// An ICMPv6 message that concerns byway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// To be answered by [`echo_reply_in_place`].
    EchoRequest,
    /// To be answered by [`advertisement_in_place`] if its target is ours.
    Solicitation(Solicitation),
    /// A neighbour's address.
    Advertisement(Advertisement),
    /// A packet of ours didn't arrive (RFC 4443 §3).
    Error(Report),
}

/// Verifies the checksum over pseudo-header and message, and the addresses that no message may have.
#[inline]
pub(super) fn verify(frame: &[u8], ip: &ip::Header) -> Result<(), DropReason> {
    let message = ip.payload_of(frame);
    let _: &[u8; 4] = octets(message, 0)?;
    let pseudo = checksum::pseudo_header(ip.src, ip.dst, ip::ICMPV6, message.len());
    if !checksum::is_valid(pseudo + checksum::sum(message)) {
        return Err(DropReason::IcmpChecksum);
    }
    match ip.src {
        IpAddr::V6(src) if !ip::no_source_v6(src) && ip.src != ip.dst => Ok(()),
        _ => Err(DropReason::Martian),
    }
}

/// Reads the message of a packet that [`super::parse`] let through.
///
/// # Errors
/// `Truncated` or `ControlBody` if it breaks a rule of RFC 4443 or RFC 4861 §7.1, `Martian` if an
/// answer would go to nobody or to many, `Unsupported` if it doesn't concern us.
pub fn parse(frame: &[u8], link: &ethernet::Header, ip: &ip::Header) -> Result<Message, DropReason> {
    let message = ip.payload_of(frame);
    let header: &[u8; HEADER_LEN] = octets(message, 0)?;
    match (header[0], header[1]) {
        (ECHO_REQUEST, 0) => {
            // RFC 4443 §4.2 allows answering a multicast echo; one question, many answers (T25).
            ip::check_unicast(link, ip)?;
            Ok(Message::EchoRequest)
        }
        (SOLICITATION, 0) => parse_solicitation(message, ip).map(Message::Solicitation),
        (ADVERTISEMENT, 0) => parse_advertisement(message, ip).map(Message::Advertisement),
        (ECHO_REQUEST | SOLICITATION | ADVERTISEMENT, _) => Err(DropReason::ControlBody),
        (kind @ (UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM), code) => {
            ip::check_unicast(link, ip)?;
            let (cause, hard) = match kind {
                // Administratively prohibited, port unreachable, failed policy, reject route (RFC 4443 §3.1).
                UNREACHABLE => (Cause::Unreachable, matches!(code, 1 | 4 | 5 | 6)),
                // RFC 4443 §3.2: the code is ignored.
                PACKET_TOO_BIG => (Cause::TooBig { mtu: be32(header, 4) }, false),
                TIME_EXCEEDED => (Cause::TimeExceeded, false),
                // Unknown next header: nobody there speaks TCP.
                _ => (Cause::ParameterProblem, code == 1),
            };
            let quoted = parse_quote(message)?;
            // The error comes back to who sent the packet; anything else was made up.
            if quoted.src != ip.dst {
                return Err(DropReason::ControlBody);
            }
            Ok(Message::Error(Report { cause, hard, quoted }))
        }
        _ => Err(DropReason::Unsupported),
    }
}

/// RFC 4861 §7.1.1, rule by rule.
fn parse_solicitation(message: &[u8], ip: &ip::Header) -> Result<Solicitation, DropReason> {
    let (target, options) = parse_neighbor(message, ip)?;
    let source_link = link_option(options, OPTION_SOURCE_LINK)?;
    if ip.src == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // Duplicate address detection: asked of the solicited-node group, by nobody in particular.
        let asked_group = matches!(ip.dst, IpAddr::V6(dst) if is_solicited_node(dst));
        if !asked_group || source_link.is_some() {
            return Err(DropReason::ControlBody);
        }
    }
    Ok(Solicitation { target, source_link })
}

/// RFC 4861 §7.1.2, rule by rule.
fn parse_advertisement(message: &[u8], ip: &ip::Header) -> Result<Advertisement, DropReason> {
    let (target, options) = parse_neighbor(message, ip)?;
    let flags = message[FLAGS];
    let solicited = flags & FLAG_SOLICITED != 0;
    if solicited && ip.dst.is_multicast() {
        return Err(DropReason::ControlBody);
    }
    // §4.4: from an address of the sender's interface.
    if ip.src.is_unspecified() {
        return Err(DropReason::Martian);
    }
    Ok(Advertisement {
        target,
        target_link: link_option(options, OPTION_TARGET_LINK)?,
        router: flags & FLAG_ROUTER != 0,
        solicited,
        overriding: flags & FLAG_OVERRIDE != 0,
    })
}

/// What both have in common: hop limit 255, 24 octets, a unicast target.
fn parse_neighbor<'a>(message: &'a [u8], ip: &ip::Header) -> Result<(Ipv6Addr, &'a [u8]), DropReason> {
    if ip.hop_limit != NEIGHBOR_HOP_LIMIT {
        return Err(DropReason::ControlBody);
    }
    let target = Ipv6Addr::from(*octets::<16>(message, TARGET)?);
    // Beside multicast: no station has an address of these kinds.
    if target.is_unspecified() || ip::no_source_v6(target) {
        return Err(DropReason::ControlBody);
    }
    Ok((target, &message[NEIGHBOR_LEN..]))
}

/// The Ethernet address in the first option of kind `wanted`; unknown options are skipped, and an
/// option of length zero makes the whole message invalid (RFC 4861 §4.6).
fn link_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DropReason> {
    let mut found = None;
    for _ in 0..MAX_OPTIONS {
        let [kind, units, ..] = *options else { break };
        let len = 8 * usize::from(units);
        if len == 0 {
            return Err(DropReason::ControlBody);
        }
        let (option, rest) = options.split_at_checked(len).ok_or(DropReason::Truncated)?;
        if kind == wanted && found.is_none() {
            let mac = MacAddr(*octets(option, 2)?);
            // Many stations for one address: never learned, never answered.
            if mac.is_group() {
                return Err(DropReason::Martian);
            }
            found = Some(mac);
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(DropReason::ControlBody) }
}

/// The quoted packet's IPv6 header and start of TCP; we send no extension headers.
fn parse_quote(message: &[u8]) -> Result<Quoted, DropReason> {
    let quote = &message[HEADER_LEN..];
    let header: &[u8; 40] = octets(quote, 0)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::ControlBody);
    }
    if header[6] != ip::TCP {
        return Err(DropReason::Unsupported);
    }
    let src = Ipv6Addr::from(*octets::<16>(header, 8)?);
    let dst = Ipv6Addr::from(*octets::<16>(header, 24)?);
    Quoted::parse(src.into(), dst.into(), &quote[40..])
}

/// The group to which a solicitation for `target` goes (RFC 4291 §2.7.1): ff02::1:ff00:0/104 and the
/// last 24 bits. A stack that owns `target` listens to it.
pub const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a as u16, low)
}

fn is_solicited_node(ip: Ipv6Addr) -> bool {
    solicited_node(ip) == ip
}

/// The Ethernet group of an IPv6 group: 33:33 and the last 32 bits (RFC 2464 §7).
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// Turns an echo request from `src` to us at `dst` without its headers, as it was put together from fragments,
/// into its reply.
///
/// # Errors
/// It is anything else, or its checksum is wrong.
pub fn answer_echo(message: &mut [u8], src: IpAddr, dst: IpAddr) -> Result<(), DropReason> {
    let _: &[u8; HEADER_LEN] = octets(message, 0)?;
    let pseudo = checksum::pseudo_header(src, dst, ip::ICMPV6, message.len());
    if !checksum::is_valid(pseudo + checksum::sum(message)) {
        return Err(DropReason::IcmpChecksum);
    }
    if message[..2] != [ECHO_REQUEST, 0] {
        return Err(DropReason::Unsupported);
    }
    message[0] = ECHO_REPLY;
    seal(message, dst, src);
    Ok(())
}

/// Turns a received echo request into its reply in the same frame (RFC 4443 §4.2): the caller has
/// seen that `ip.dst` is its own. Returns where the reply lies.
///
/// # Panics
/// If `frame` isn't the one the headers were read from.
pub fn echo_reply_in_place(
    frame: &mut [u8],
    link: &ethernet::Header,
    ip: &ip::Header,
    our_mac: MacAddr,
) -> Range<usize> {
    let (start, len) = ip.payload;
    frame[start] = ECHO_REPLY;
    seal(&mut frame[start..start + len], ip.dst, ip.src);
    let at = ip::emit(frame, start, start + len, ip.dst, ip.src, ip::ICMPV6, 0);
    link.answer(our_mac).emit(frame, at)..start + len
}

/// Turns a received solicitation for an address of ours into the advertisement, in the same frame
/// (RFC 4861 §7.2.4). It always carries our link-layer address, so it can be 8 octets longer than
/// the question. Returns where it lies.
///
/// # Panics
/// If `frame` has fewer than 94 octets (22 of Ethernet, 40 of IPv6, 32).
pub fn advertisement_in_place(
    frame: &mut [u8],
    link: &ethernet::Header,
    ip: &ip::Header,
    solicitation: &Solicitation,
    our_mac: MacAddr,
) -> Range<usize> {
    // Somebody checks whether the address is free: tell everybody that it isn't, as no answer to
    // "unspecified" can be sent.
    let (dst, mac, flags) = if ip.src.is_unspecified() {
        (IpAddr::V6(ALL_NODES), multicast_mac(ALL_NODES), FLAG_OVERRIDE)
    } else {
        (ip.src, solicitation.source_link.unwrap_or(link.src), FLAG_SOLICITED | FLAG_OVERRIDE)
    };
    let link = ethernet::Header { dst: mac, ..link.answer(our_mac) };
    let message = NeighborMessage {
        kind: ADVERTISEMENT,
        flags,
        target: solicitation.target,
        option: OPTION_TARGET_LINK,
        mac: our_mac,
    };
    message.emit(frame, 0, &link, solicitation.target.into(), dst)
}

/// Writes a solicitation for `target` at `start`: to its solicited-node group, or to `probe` alone
/// when only a known neighbour's presence is asked (RFC 4861 §7.2.2, §7.3.3). Returns where it lies.
///
/// # Panics
/// If `frame` has no 94 octets from `start` on.
pub fn emit_neighbor_solicitation(
    frame: &mut [u8],
    start: usize,
    vlan: VlanTags,
    our_mac: MacAddr,
    our_ip: Ipv6Addr,
    target: Ipv6Addr,
    probe: Option<MacAddr>,
) -> Range<usize> {
    let group = solicited_node(target);
    let (dst, mac) = match probe {
        Some(mac) => (target, mac),
        None => (group, multicast_mac(group)),
    };
    let link = ethernet::Header { dst: mac, src: our_mac, vlan, ethertype: ethernet::IPV6 };
    let message =
        NeighborMessage { kind: SOLICITATION, flags: 0, target, option: OPTION_SOURCE_LINK, mac: our_mac };
    message.emit(frame, start, &link, our_ip.into(), dst.into())
}

/// A solicitation or advertisement with one link-layer address option.
struct NeighborMessage {
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: u8,
    mac: MacAddr,
}

impl NeighborMessage {
    /// Writes the whole frame from `start` on and returns where it lies.
    fn emit(
        &self,
        frame: &mut [u8],
        start: usize,
        link: &ethernet::Header,
        src: IpAddr,
        dst: IpAddr,
    ) -> Range<usize> {
        let body = start + link.len() + ip::header_len(dst);
        let end = body + SENT_LEN;
        let message = &mut frame[body..end];
        message.fill(0);
        message[0] = self.kind;
        message[FLAGS] = self.flags;
        put(message, TARGET, self.target.octets());
        put(message, NEIGHBOR_LEN, [self.option, (LINK_OPTION_LEN / 8) as u8]);
        put(message, NEIGHBOR_LEN + 2, self.mac.0);
        seal(message, src, dst);
        let at = ip::emit_hops(frame, body, end, src, dst, ip::ICMPV6, 0, NEIGHBOR_HOP_LIMIT);
        link.emit(frame, at)..end
    }
}

/// Writes the checksum (RFC 4443 §2.3).
fn seal(message: &mut [u8], src: IpAddr, dst: IpAddr) {
    put(message, CHECKSUM, [0, 0]);
    let pseudo = checksum::pseudo_header(src, dst, ip::ICMPV6, message.len());
    let sum = checksum::finish(pseudo + checksum::sum(message));
    put(message, CHECKSUM, sum.to_be_bytes());
}
