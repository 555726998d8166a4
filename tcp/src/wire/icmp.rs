//! ICMP for IPv4 (RFC 792): echo, and errors about packets of ours.

use core::net::{IpAddr, Ipv4Addr};
use core::ops::Range;

use super::{MacAddr, be16, be32, checksum, ethernet, ip, octets, put};
use crate::counters::DropReason;
use crate::seq::SeqNumber;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

const CHECKSUM: usize = 2;
/// Octets before the quoted packet or the echo data.
const HEADER_LEN: usize = 8;
/// Unreachable's code "fragmentation needed and DF set".
const FRAGMENTATION_NEEDED: u8 = 4;

/// The segment of ours that an ICMP error quotes: by RFC 792 at least its IP header and 8 octets.
/// Anybody can write one, so `seq` must be in flight before it is believed (RFC 5927 §4; L8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Who sent the quoted segment: us.
    pub src: IpAddr,
    /// To whom it went.
    pub dst: IpAddr,
    /// Our port.
    pub src_port: u16,
    /// The peer's port.
    pub dst_port: u16,
    /// Its SEG.SEQ.
    pub seq: SeqNumber,
}

impl Quoted {
    /// Reads the first 8 octets of a quoted TCP segment.
    pub(super) fn parse(src: IpAddr, dst: IpAddr, segment: &[u8]) -> Result<Self, DropReason> {
        let start: &[u8; 8] = octets(segment, 0)?;
        Ok(Self {
            src,
            dst,
            src_port: be16(start, 0),
            dst_port: be16(start, 2),
            seq: SeqNumber(be32(start, 4)),
        })
    }

    /// Reads a quoted IPv4 header and what of TCP follows it.
    fn parse_v4(quote: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; 20] = octets(quote, 0)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || header_len < 20 {
            return Err(DropReason::ControlBody);
        }
        // Of another protocol, or a later fragment, whose first octets aren't a TCP header.
        if header[9] != ip::TCP || be16(header, 6) & 0x1fff != 0 {
            return Err(DropReason::Unsupported);
        }
        let address = |at| IpAddr::V4(Ipv4Addr::from_bits(be32(header, at)));
        Self::parse(address(12), address(16), quote.get(header_len..).ok_or(DropReason::Truncated)?)
    }
}

/// Why a packet of ours didn't arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It is larger than the next hop takes.
    TooBig {
        /// The next hop's MTU, octets; 0 from routers older than RFC 1191.
        mtu: u32,
    },
    /// Nobody there takes it (RFC 792; RFC 4443 §3.1).
    Unreachable,
    /// It went in circles (RFC 792; RFC 4443 §3.3).
    TimeExceeded,
    /// Its header wasn't understood (RFC 792; RFC 4443 §3.4).
    ParameterProblem,
}

/// An ICMP error of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Why.
    pub cause: Cause,
    /// Trying again won't help: nobody listens, or somebody forbids it. Others may pass by themselves
    /// (RFC 9293 §3.9.2.2).
    pub hard: bool,
    /// Which packet.
    pub quoted: Quoted,
}

/// An ICMP message that concerns byway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// To be answered by [`echo_reply_in_place`].
    EchoRequest,
    /// A packet of ours didn't arrive.
    Error(Report),
}

/// Verifies the checksum over the whole message.
#[inline]
pub(super) fn verify(frame: &[u8], ip: &ip::Header) -> Result<(), DropReason> {
    let message = ip.payload_of(frame);
    let _: &[u8; HEADER_LEN] = octets(message, 0)?;
    if checksum::is_valid(checksum::sum(message)) { Ok(()) } else { Err(DropReason::IcmpChecksum) }
}

/// Reads the message of a packet that [`super::parse`] let through.
///
/// # Errors
/// `Truncated` or `ControlBody` if it contradicts itself, `Unsupported` if it doesn't concern us.
pub fn parse(frame: &[u8], ip: &ip::Header) -> Result<Message, DropReason> {
    let message = ip.payload_of(frame);
    let header: &[u8; HEADER_LEN] = octets(message, 0)?;
    match (header[0], header[1]) {
        (ECHO_REQUEST, 0) => Ok(Message::EchoRequest),
        (ECHO_REQUEST, _) => Err(DropReason::ControlBody),
        (kind @ (UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM), code) => {
            let cause = match (kind, code) {
                (UNREACHABLE, FRAGMENTATION_NEEDED) => Cause::TooBig { mtu: u32::from(be16(header, 6)) },
                (UNREACHABLE, _) => Cause::Unreachable,
                (TIME_EXCEEDED, _) => Cause::TimeExceeded,
                _ => Cause::ParameterProblem,
            };
            // RFC 9293 §3.9.2.2: protocol and port unreachable; RFC 1812 §5.2.7.1: administratively
            // prohibited (9, 10, 13).
            let hard = kind == UNREACHABLE && matches!(code, 2 | 3 | 9 | 10 | 13);
            let quoted = Quoted::parse_v4(&message[HEADER_LEN..])?;
            // The error comes back to who sent the packet; anything else was made up.
            if quoted.src != ip.dst {
                return Err(DropReason::ControlBody);
            }
            Ok(Message::Error(Report { cause, hard, quoted }))
        }
        // RFC 6633: source quench changes nothing (RFC 9293 §3.9.2.2, MUST-55).
        _ => Err(DropReason::Unsupported),
    }
}

/// Turns an echo request without its headers, as it was put together from fragments, into its reply.
///
/// # Errors
/// It is anything else, or its checksum is wrong.
pub fn answer_echo(message: &mut [u8]) -> Result<(), DropReason> {
    let _: &[u8; HEADER_LEN] = octets(message, 0)?;
    if !checksum::is_valid(checksum::sum(message)) {
        return Err(DropReason::IcmpChecksum);
    }
    if message[..2] != [ECHO_REQUEST, 0] {
        return Err(DropReason::Unsupported);
    }
    make_reply(message);
    Ok(())
}

fn make_reply(message: &mut [u8]) {
    message[0] = ECHO_REPLY;
    put(message, CHECKSUM, [0, 0]);
    let sum = checksum::finish(checksum::sum(message));
    put(message, CHECKSUM, sum.to_be_bytes());
}

/// Turns a received echo request into its reply in the same frame (RFC 792; RFC 1122 §3.2.2.6):
/// the caller has seen that `ip.dst` is its own and unicast. IP options aren't answered. Returns
/// where the reply lies.
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
    make_reply(&mut frame[start..start + len]);
    let at = ip::emit(frame, start, start + len, ip.dst, ip.src, ip::ICMP, 0);
    link.answer(our_mac).emit(frame, at)..start + len
}
