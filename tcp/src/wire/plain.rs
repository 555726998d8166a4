//! The segment that nearly all are, read and written without a question more than it takes.
//!
//! ```text
//!  [ ethernet, untagged | IPv4 of 20 octets, or IPv6 of 40 | TCP | timestamps or no option | payload ]
//!                                                            └─ ACK, perhaps PSH, nothing else
//! ```
//!
//! [`read`] knows of nothing else: what it declines, [`super::parse`] reads, and says what's wrong with it if
//! something is. Of what `read` takes, both say the same, which the tests hold them to; but an address or a
//! MAC that no connection could have is only refused by `parse`, so `read` is for frames of known connections.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use super::options::TIMESTAMPS_ONLY;
use super::tcp::{Flags, Options, Segment};
use super::{MacAddr, be16, be32, checksum, ethernet, in_front, ip, put};
use crate::flow_table::FourTuple;
use crate::seq::SeqNumber;

const LINK_LEN: usize = 14;
const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const TIMESTAMPS_LEN: usize = 12;
const WITH_TIMESTAMPS: usize = TCP_LEN + TIMESTAMPS_LEN;
/// What [`write`] puts in front of an IPv4 payload, and the least that [`read`] looks at.
const SHORTEST: usize = LINK_LEN + V4_LEN + TCP_LEN;

/// A plain segment. ACK is set; whether PSH is says nothing to a receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    /// Whose it is: the local end is its destination.
    pub(crate) tuple: FourTuple,
    pub(crate) seq: SeqNumber,
    pub(crate) ack: SeqNumber,
    /// As on the wire, not scaled.
    pub(crate) window: u16,
    /// TSval and TSecr (RFC 7323 §3).
    pub(crate) timestamps: Option<(u32, u32)>,
    /// Offset in the frame and length, in octets.
    pub(crate) payload: (u16, u16),
    /// The IP header's two ECN bits (RFC 3168 §5).
    pub(crate) ecn: u8,
}

impl From<&Plain> for Segment {
    #[inline]
    fn from(plain: &Plain) -> Self {
        let (at, len) = plain.payload;
        Self {
            src_port: plain.tuple.remote_port,
            dst_port: plain.tuple.local_port,
            seq: plain.seq,
            ack: plain.ack,
            // Without PSH, which nobody looks at, and an urgent pointer that means nothing.
            flags: Flags::ACK,
            window: plain.window,
            urgent: 0,
            options: Options { timestamps: plain.timestamps, ..Options::NONE },
            payload: (usize::from(at), usize::from(len)),
            ecn: plain.ecn,
        }
    }
}

/// Reads a frame to the station `mac`, if it is a plain segment whose checksums are right.
#[inline]
pub(crate) fn read(frame: &[u8], mac: MacAddr) -> Option<Plain> {
    if frame.len() < SHORTEST || frame.len() > usize::from(u16::MAX) {
        return None;
    }
    let (head, _) = frame.split_first_chunk::<SHORTEST>()?;
    let source = MacAddr([head[6], head[7], head[8], head[9], head[10], head[11]]);
    if head[..6] != mac.0 || source == mac || source.is_group() {
        return None;
    }
    match be16(head, 12) {
        ethernet::IPV4 => {
            let words = [be32(head, 14), be32(head, 18), be32(head, 22), be32(head, 26), be32(head, 30)];
            let [first, place, hops, src, dst] = words.map(u64::from);
            // Version 4, no options; not a fragment (any of MF and offset); TCP.
            let is_plain =
                first >> 24 == 0x45 && place & 0x3fff == 0 && hops >> 16 & 0xff == u64::from(ip::TCP);
            let total_len = (first & 0xffff) as usize;
            if !is_plain || !checksum::is_valid(first + place + hops + src + dst) {
                return None;
            }
            let end = LINK_LEN + total_len;
            let pseudo = src + dst + u64::from(ip::TCP) + (total_len as u64).saturating_sub(V4_LEN as u64);
            let ips =
                (IpAddr::V4(Ipv4Addr::from_bits(dst as u32)), IpAddr::V4(Ipv4Addr::from_bits(src as u32)));
            read_tcp(frame, LINK_LEN + V4_LEN..end, pseudo, ips, (first >> 16 & 0b11) as u8)
        }
        ethernet::IPV6 => {
            let fixed = frame.get(LINK_LEN..)?.first_chunk::<V6_LEN>()?;
            let (first, second) = (be32(fixed, 0), be32(fixed, 4));
            if first >> 28 != 6 || second >> 8 & 0xff != u32::from(ip::TCP) {
                return None;
            }
            let len = second >> 16;
            let addresses = checksum::sum(&fixed[8..]);
            let pseudo = addresses + u64::from(ip::TCP) + u64::from(len);
            let address =
                |at: usize| fixed[at..].first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets)));
            let start = LINK_LEN + V6_LEN;
            read_tcp(
                frame,
                start..start + len as usize,
                pseudo,
                (address(24)?, address(8)?),
                (first >> 20 & 0b11) as u8,
            )
        }
        _ => None,
    }
}

/// The segment at `place` in the frame, of `ips`, ours and the peer's.
#[inline]
fn read_tcp(frame: &[u8], place: Range<usize>, pseudo: u64, ips: (IpAddr, IpAddr), ecn: u8) -> Option<Plain> {
    let segment = frame.get(place.clone())?;
    let fixed = segment.first_chunk::<TCP_LEN>()?;
    // Data offset, four reserved bits that nobody looks at, flags.
    let (header_len, flags) = (usize::from(fixed[12] >> 4) * 4, Flags(fixed[13]));
    let timestamps = match header_len {
        TCP_LEN => None,
        WITH_TIMESTAMPS => {
            let options = segment.get(TCP_LEN..)?.first_chunk::<TIMESTAMPS_LEN>()?;
            if options[..4] != TIMESTAMPS_ONLY {
                return None;
            }
            Some((be32(options, 4), be32(options, 8)))
        }
        _ => return None,
    };
    let plain = flags.difference(Flags::PSH) == Flags::ACK;
    if !plain || !checksum::is_valid(pseudo + checksum::sum(segment)) {
        return None;
    }
    let (local_ip, remote_ip) = ips;
    Some(Plain {
        tuple: FourTuple { local_ip, remote_ip, local_port: be16(fixed, 2), remote_port: be16(fixed, 0) },
        seq: SeqNumber(be32(fixed, 4)),
        ack: SeqNumber(be32(fixed, 8)),
        window: be16(fixed, 14),
        timestamps,
        payload: ((place.start + header_len) as u16, (segment.len() - header_len) as u16),
        ecn,
    })
}

/// What [`write`] writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) tuple: &'a FourTuple,
    /// Ethernet addresses: the next hop's, and ours.
    pub(crate) to: MacAddr,
    pub(crate) from: MacAddr,
    pub(crate) seq: SeqNumber,
    pub(crate) ack: SeqNumber,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    pub(crate) timestamps: Option<(u32, u32)>,
    /// DSCP and ECN (RFC 2474 §3, RFC 3168 §5).
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
}

/// Writes all headers in front of `payload`, whose [`sum`](checksum::sum) is known, and returns where they begin.
///
/// # Panics
/// If there is no room, or the packet is longer than 64 KiB.
#[inline]
pub(crate) fn write(frame: &mut [u8], payload: Range<usize>, sum: u64, what: &Write<'_>) -> usize {
    let FourTuple { local_ip, remote_ip, local_port, remote_port } = *what.tuple;
    let mut at = payload.start;
    let mut sum = sum + u64::from(ip::TCP);
    let mut offset_and_flags = u32::from_be_bytes([(TCP_LEN / 4 * 16) as u8, what.flags.0, 0, 0]);
    if let Some((value, echo)) = what.timestamps {
        let options = in_front::<TIMESTAMPS_LEN>(frame, at);
        put(options, 0, TIMESTAMPS_ONLY);
        put(options, 4, value.to_be_bytes());
        put(options, 8, echo.to_be_bytes());
        sum += u64::from(u32::from_be_bytes(TIMESTAMPS_ONLY)) + u64::from(value) + u64::from(echo);
        offset_and_flags += (TIMESTAMPS_LEN as u32 / 4) << 28;
        at -= TIMESTAMPS_LEN;
    }
    let ports = u32::from(local_port) << 16 | u32::from(remote_port);
    let control = offset_and_flags | u32::from(what.window);
    sum += u64::from(ports) + u64::from(what.seq.0) + u64::from(what.ack.0) + u64::from(control);
    let header = in_front::<TCP_LEN>(frame, at);
    put(header, 0, ports.to_be_bytes());
    put(header, 4, what.seq.0.to_be_bytes());
    put(header, 8, what.ack.0.to_be_bytes());
    put(header, 12, control.to_be_bytes());
    at -= TCP_LEN;
    let len = u16::try_from(payload.end - at).expect("a frame is shorter than 64 KiB");
    sum += u64::from(len) + checksum::address(local_ip) + checksum::address(remote_ip);
    put(header, 16, (u32::from(checksum::finish(sum)) << 16).to_be_bytes());
    let (class, hops) = (what.traffic_class, what.hop_limit);
    at = ip::emit_hops(frame, at, payload.end, local_ip, remote_ip, ip::TCP, class, hops);
    let ethertype = if local_ip.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let link = in_front::<LINK_LEN>(frame, at);
    put(link, 0, what.to.0);
    put(link, 6, what.from.0);
    put(link, 12, ethertype.to_be_bytes());
    at - LINK_LEN
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tcp::Emit;
    use super::super::{Body, Checksums, parse};
    use super::*;

    const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn tuple(v6: bool, ports: (u16, u16)) -> FourTuple {
        let ip = |v4: &str, other: &str| if v6 { other } else { v4 }.parse().expect("an address");
        FourTuple {
            local_ip: ip("198.51.100.2", "2001:db8::bb:5678"),
            remote_ip: ip("192.0.2.1", "2001:db8::aa:1234"),
            local_port: ports.0,
            remote_port: ports.1,
        }
    }

    fn written(what: &Write<'_>, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xa5; 128];
        frame.extend(payload);
        let at = write(&mut frame, 128..128 + payload.len(), checksum::sum(payload), what);
        frame.split_off(at)
    }

    proptest! {
        /// It writes what the other emitters do, and what it reads is what `parse` reads.
        #[test]
        fn s4_1_both_ways_agree_with_the_ways_for_everything(
            v6: bool, ports: (u16, u16), seq: u32, ack: u32, psh: bool, window: u16,
            timestamps: Option<(u32, u32)>, traffic_class: u8, hop_limit: u8,
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let tuple = tuple(v6, ports);
            let (seq, ack) = (SeqNumber(seq), SeqNumber(ack));
            let flags = if psh { Flags::ACK | Flags::PSH } else { Flags::ACK };
            let what = Write {
                tuple: &tuple, to: OURS, from: PEER, seq, ack, flags, window, timestamps, traffic_class, hop_limit,
            };
            let frame = written(&what, &payload);

            let options = Options { timestamps, ..Options::NONE };
            let (src_port, dst_port) = ports;
            let emit = Emit { src_port, dst_port, seq, ack, flags, window, urgent: 0, options: &options };
            let (src, dst) = (tuple.local_ip, tuple.remote_ip);
            let mut other = vec![0; 128];
            other.extend(&payload);
            let end = other.len();
            let at = emit.emit(&mut other, 128..end, src, dst);
            let at = ip::emit_hops(&mut other, at, end, src, dst, ip::TCP, traffic_class, hop_limit);
            let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
            let vlan = ethernet::VlanTags::NONE;
            let at = ethernet::Header { dst: OURS, src: PEER, vlan, ethertype }.emit(&mut other, at);
            prop_assert_eq!(&frame, &other[at..]);

            let plain = read(&frame, OURS).expect("plain");
            let packet = parse(&frame, Checksums::Verify).expect("valid");
            let Body::Tcp(header, segment) = packet.body else { panic!("{packet:?}") };
            prop_assert_eq!(plain.tuple, FourTuple::of(&header, &segment));
            prop_assert_eq!(Segment::from(&plain), Segment { flags: Flags::ACK, urgent: 0, ..segment });
            prop_assert!(read(&frame, PEER).is_none());
        }

        /// L1 L2 L3 T16 T17: what was bent is not read, or as `parse` has it; and nothing panics.
        #[test]
        fn l1_l3_what_was_bent_is_read_as_parse_reads_it(
            v6: bool, timestamps: Option<(u32, u32)>, payload in prop::collection::vec(any::<u8>(), 0..40),
            bends in prop::collection::vec((0_usize..140, any::<u8>()), 0..4), len in 0_usize..200, mend: bool,
        ) {
            let tuple = tuple(v6, (80, 40_000));
            let what = Write {
                tuple: &tuple, to: OURS, from: PEER, seq: SeqNumber(1), ack: SeqNumber(2), flags: Flags::ACK,
                window: 3, timestamps, traffic_class: 0, hop_limit: 64,
            };
            let mut frame = written(&what, &payload);
            for (at, octet) in bends {
                if let Some(place) = frame.get_mut(at) {
                    *place ^= octet;
                }
            }
            if mend {
                mend_checksums(&mut frame);
            }
            frame.resize(frame.len().min(len.max(1)), 0);
            let parsed = parse(&frame, Checksums::Verify);
            if let Some(plain) = read(&frame, OURS) {
                // Addresses that no connection has are parse's to refuse.
                if let Ok(packet) = parsed {
                    let Body::Tcp(header, segment) = packet.body else { panic!("{packet:?}") };
                    prop_assert_eq!(plain.tuple, FourTuple::of(&header, &segment));
                    prop_assert_eq!(Segment::from(&plain), Segment { flags: Flags::ACK, urgent: 0, ..segment });
                } else {
                    prop_assert_eq!(parsed, Err(crate::counters::DropReason::Martian));
                }
            }
        }
    }

    /// So that bends of the header get past the checksums.
    fn mend_checksums(frame: &mut [u8]) {
        let v4 = frame.len() > SHORTEST && be16(frame, 12) == ethernet::IPV4;
        if v4 {
            put(frame, LINK_LEN + 10, [0; 2]);
            let sum = checksum::finish(checksum::sum(&frame[LINK_LEN..LINK_LEN + V4_LEN]));
            put(frame, LINK_LEN + 10, sum.to_be_bytes());
            let at = LINK_LEN + V4_LEN;
            put(frame, at + 16, [0; 2]);
            let addresses = checksum::sum(&frame[LINK_LEN + 12..at]);
            let pseudo = addresses + u64::from(ip::TCP) + (frame.len() - at) as u64;
            let sum = checksum::finish(pseudo + checksum::sum(&frame[at..]));
            put(frame, at + 16, sum.to_be_bytes());
        }
    }
}
