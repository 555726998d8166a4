//! IPv4 and IPv6 headers: L2, L4, L5, L6, L10.

use super::fragment::Fragment;
use super::*;

/// Rewrites the IPv4 header checksum of an untagged frame.
fn reseal_v4(frame: &mut [u8]) {
    let len = usize::from(frame[14] & 0x0f).max(5) * 4;
    let end = (14 + len).min(frame.len());
    frame[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&frame[14..end]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn tcp4() -> Vec<u8> {
    let [(src, dst), _] = PAIRS;
    tcp_frame(src, dst, VlanTags::NONE, &Options::NONE, b"data")
}

/// An IPv4 TCP frame with `options` in its IP header, a multiple of four octets.
fn with_ip_options(options: &[u8]) -> Vec<u8> {
    let mut frame = tcp4();
    frame.splice(34..34, options.iter().copied());
    frame[14] = 0x45 + (options.len() / 4) as u8;
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    reseal_v4(&mut frame);
    frame
}

#[test]
fn l2_contradicting_lengths_and_versions() {
    let total = (tcp4().len() - 14) as u16;
    let table: [(&str, &dyn Fn(&mut Vec<u8>), DropReason); 7] = [
        ("ihl 0", &|f| f[14] = 0x40, DropReason::IpHeader),
        ("ihl 4", &|f| f[14] = 0x44, DropReason::IpHeader),
        ("ihl beyond the total length", &|f| f[14] = 0x4f, DropReason::IpHeader),
        ("version 5", &|f| f[14] = 0x55, DropReason::IpHeader),
        ("version 6 in an IPv4 frame", &|f| f[14] = 0x65, DropReason::IpHeader),
        ("total length below the header", &|f| f[16..18].copy_from_slice(&[0, 19]), DropReason::IpHeader),
        (
            "total length beyond the frame",
            &|f| f[16..18].copy_from_slice(&(total + 1).to_be_bytes()),
            DropReason::Truncated,
        ),
    ];
    for (name, bend, reason) in table {
        let mut frame = tcp4();
        bend(&mut frame);
        reseal_v4(&mut frame);
        assert_eq!(parse(&frame, Checksums::Verify), Err(reason), "{name}");
    }
    let [_, (src, dst)] = PAIRS;
    let mut frame = tcp_frame(src, dst, VlanTags::NONE, &Options::NONE, b"data");
    frame[14] = 0x45;
    assert_eq!(parse(&frame, Checksums::Verify), Err(DropReason::IpHeader), "version 4 in an IPv6 frame");
}

#[test]
fn s4_5_a_wrong_header_checksum_has_its_own_counter() {
    let mut frame = tcp4();
    frame[24] ^= 1;
    assert_eq!(parse(&frame, Checksums::Verify), Err(DropReason::IpChecksum));
}

#[test]
fn l4_fragments() {
    // DF, the reserved bit, and neither: whole. MF or an offset: a fragment.
    for (bits, expected) in [
        (0x0000, Ok(None)),
        (0x4000, Ok(None)),
        (0x8000, Ok(None)),
        (0x2000, Ok(Some(Fragment { id: 0x1234, offset: 0, more: true }))),
        (0x0003, Ok(Some(Fragment { id: 0x1234, offset: 24, more: false }))),
        // RFC 3128: the flags of a TCP header in a second fragment.
        (0x0001, Err(DropReason::FragmentHeader)),
        (0x0002, Err(DropReason::FragmentHeader)),
        (0x2003, Ok(Some(Fragment { id: 0x1234, offset: 24, more: true }))),
        // 65,528 + 24 is beyond the largest datagram.
        (0x1fff, Err(DropReason::FragmentHeader)),
    ] {
        let mut frame = tcp4();
        frame[18..20].copy_from_slice(&[0x12, 0x34]);
        frame[20..22].copy_from_slice(&u16::to_be_bytes(bits));
        reseal_v4(&mut frame);
        let found = parse(&frame, Checksums::Verify).map(|packet| match packet.body {
            Body::Fragment(_, fragment) => Some(fragment),
            _ => None,
        });
        assert_eq!(found, expected, "{bits:x}");
    }
}

/// S6.2: only the payload is split: 3008 octets at MTU 1500 are 1480 + 1480 + 48.
#[test]
fn s6_2_a_payload_is_split_in_units_of_eight() {
    let lens = |len, mtu, dst| fragment::split(len, mtu, dst).map(|range| range.len()).collect::<Vec<_>>();
    let [(a4, _), (a6, _)] = PAIRS;
    assert_eq!(lens(3008, 1500, a4), [1480, 1480, 48]);
    assert_eq!(lens(3008, 1500, a6), [1448, 1448, 112]);
    assert_eq!(lens(1480, 1500, a4), [1480]);
    assert_eq!(lens(1481, 1500, a4), [1480, 1]);
    assert_eq!(lens(1460, 1500, a6), [1460], "whole: without a fragment header");
    assert_eq!(lens(1461, 1500, a6), [1448, 13]);
    assert_eq!(lens(0, 1500, a4), [0]);
}

proptest! {
    #[test]
    fn s6_2_every_octet_is_in_one_fragment_which_is_read_as_it_was_written(
        len in 1_usize..9000, mtu in 68_usize..1600, v6: bool, id: u32,
    ) {
        let (src, dst) = PAIRS[usize::from(v6)];
        let payload: Vec<u8> = (0..len).map(|n| (n * 7 % 251) as u8).collect();
        let mut got = Vec::new();
        for range in fragment::split(len, mtu, dst) {
            let more = range.end < len;
            let mut frame = vec![0; 128];
            frame.extend(&payload[range.clone()]);
            let end = frame.len();
            let part = Fragment { id: if v6 { id } else { id & 0xffff }, offset: range.start, more };
            if range.len() == len {
                break;
            }
            let at = part.emit(&mut frame, 128, end, src, dst, 17);
            prop_assert!(end - at <= mtu);
            let at = link(src, VlanTags::NONE).emit(&mut frame, at);
            let packet = parse(&frame[at..], Checksums::Verify);
            let Ok(Packet { body: Body::Fragment(ip, read), .. }) = packet else { panic!("{packet:?}") };
            prop_assert_eq!((read, ip.src, ip.dst, ip.protocol), (part, src, dst, 17));
            got.extend_from_slice(ip.payload_of(&frame[at..]));
        }
        prop_assert!(got.is_empty() || got == payload);
    }
}

#[test]
fn l5_source_routes_are_refused_and_other_options_skipped() {
    let table: [(&str, &[u8], Option<DropReason>); 10] = [
        ("nops", &[1, 1, 1, 1], None),
        ("end, then rubbish", &[0, 131, 0, 255], None),
        ("router alert", &[148, 4, 0, 0], None),
        ("record route", &[7, 7, 4, 0, 0, 0, 0, 0], None),
        ("loose source route", &[131, 7, 4, 10, 0, 0, 1, 0], Some(DropReason::SourceRoute)),
        ("strict source route", &[1, 137, 7, 4, 10, 0, 0, 1], Some(DropReason::SourceRoute)),
        ("length 0", &[7, 0, 0, 0], Some(DropReason::IpHeader)),
        ("length 1", &[7, 1, 0, 0], Some(DropReason::IpHeader)),
        ("overrun", &[7, 5, 0, 0], Some(DropReason::IpHeader)),
        ("no length", &[1, 1, 1, 7], Some(DropReason::IpHeader)),
    ];
    for (name, options, reason) in table {
        let result = parse(&with_ip_options(options), Checksums::Verify);
        assert_eq!(result.err(), reason, "{name}");
        if let Ok(Packet { body: Body::Tcp(_, segment), .. }) = result {
            assert_eq!(segment.payload, (14 + 20 + options.len() + 20, 4), "{name}");
        }
    }
    assert!(parse(&with_ip_options(&[1; 40]), Checksums::Verify).is_ok(), "40 octets of NOP");
}

#[test]
fn l6_addresses_that_no_peer_has() {
    let v4 =
        |s: &str, d: &str| (s.parse::<Ipv4Addr>().unwrap().into(), d.parse::<Ipv4Addr>().unwrap().into());
    let v6 =
        |s: &str, d: &str| (s.parse::<Ipv6Addr>().unwrap().into(), d.parse::<Ipv6Addr>().unwrap().into());
    let table: [(IpAddr, IpAddr); 19] = [
        v4("0.0.0.0", "192.0.2.1"),
        v4("0.1.2.3", "192.0.2.1"),
        v4("127.0.0.1", "192.0.2.1"),
        v4("127.255.0.9", "192.0.2.1"),
        v4("224.0.0.1", "192.0.2.1"),
        v4("239.9.9.9", "192.0.2.1"),
        v4("255.255.255.255", "192.0.2.1"),
        v4("192.0.2.1", "192.0.2.1"),
        v4("192.0.2.2", "224.0.0.251"),
        v4("192.0.2.2", "255.255.255.255"),
        v4("192.0.2.2", "127.0.0.1"),
        v6("::", "2001:db8::1"),
        v6("::1", "2001:db8::1"),
        v6("ff02::1", "2001:db8::1"),
        v6("::ffff:192.0.2.2", "2001:db8::1"),
        v6("2001:db8::1", "2001:db8::1"),
        v6("2001:db8::2", "ff02::1"),
        v6("2001:db8::2", "::"),
        v6("2001:db8::2", "::1"),
    ];
    for (src, dst) in table {
        let tcp = tcp_frame(src, dst, VlanTags::NONE, &Options::NONE, b"");
        assert_eq!(parse_whole(&tcp), Err(DropReason::Martian), "tcp {src} to {dst}");
        let echo = echo_frame(src, dst, b"");
        assert_eq!(parse_whole(&echo), Err(DropReason::Martian), "echo {src} to {dst}");
    }
}

#[test]
fn l6_a_group_mac_around_a_unicast_packet() {
    for (src, dst) in PAIRS {
        for mut frame in [tcp_frame(src, dst, VlanTags::NONE, &Options::NONE, b""), echo_frame(src, dst, b"")]
        {
            for mac in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([0x33, 0x33, 0, 0, 0, 1])]
            {
                frame[..6].copy_from_slice(&mac.0);
                assert_eq!(parse_whole(&frame), Err(DropReason::Martian), "{mac:?}");
            }
        }
    }
}

#[test]
fn protocols_we_do_not_speak_are_unsupported() {
    for (src, dst) in PAIRS {
        for protocol in 0..=255 {
            let result = parse(&around(src, dst, protocol, &[0; 40]), Checksums::Verify);
            let (v4, v6) = (src.is_ipv4(), src.is_ipv6());
            let spoken = match protocol {
                ip::TCP => true,
                ip::ICMP => v4,
                ip::ICMPV6 | 0 | 43 | 44 | 60 => v6,
                _ => false,
            };
            assert_eq!(result == Err(DropReason::Unsupported), !spoken, "{protocol} {result:?}");
        }
    }
}

/// An IPv6 TCP frame behind these extension headers; each names its own kind, and the chain is
/// linked here.
fn with_extensions(chain: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let [_, (src, dst)] = PAIRS;
    let plain = tcp_frame(src, dst, VlanTags::NONE, &Options::NONE, b"data");
    let mut body = Vec::new();
    for (index, (_, header)) in chain.iter().enumerate() {
        let mut header = header.clone();
        header[0] = chain.get(index + 1).map_or(ip::TCP, |next| next.0);
        body.extend(header);
    }
    body.extend(&plain[54..]);
    around(src, dst, chain.first().map_or(ip::TCP, |first| first.0), &body)
}

#[test]
fn l10_extension_headers_are_walked_with_a_bound() {
    use DropReason::{ExtensionHeaders, FragmentHeader, IpHeader};
    let pad = |kind| (kind, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let option = |octets: [u8; 6]| (60, [&[0, 0], octets.as_slice()].concat());
    let routing = |kind, left| (43, vec![0, 0, kind, left, 0, 0, 0, 0]);
    let fragment = |bits: u16| (44, [&[0, 0], bits.to_be_bytes().as_slice(), &[0; 4]].concat());
    let table: Vec<(&str, Vec<(u8, Vec<u8>)>, Option<DropReason>)> = vec![
        ("none", vec![], None),
        ("hop-by-hop first", vec![pad(0)], None),
        ("hop-by-hop second", vec![pad(60), pad(0)], Some(ExtensionHeaders)),
        ("all in RFC 8200's order", vec![pad(0), pad(60), routing(4, 0), fragment(0), pad(60)], None),
        ("eight", vec![pad(60); 8], None),
        ("nine", vec![pad(60); 9], Some(ExtensionHeaders)),
        ("a hundred", vec![pad(60); 100], Some(ExtensionHeaders)),
        ("routing header 0", vec![routing(0, 0)], Some(ExtensionHeaders)),
        ("routing header 0, segments left", vec![routing(0, 1)], Some(ExtensionHeaders)),
        ("segment routing, nothing left", vec![routing(4, 0)], None),
        ("segment routing, one left", vec![routing(4, 1)], Some(ExtensionHeaders)),
        ("atomic fragment", vec![fragment(0)], None),
        ("atomic fragment, reserved bits", vec![fragment(6)], None),
        ("first fragment", vec![fragment(1)], None),
        ("second fragment in the TCP header", vec![fragment(8)], Some(FragmentHeader)),
        ("third fragment in the TCP header", vec![fragment(16)], Some(FragmentHeader)),
        ("beyond the largest datagram", vec![fragment(0xfff8)], Some(FragmentHeader)),
        ("last fragment", vec![fragment(24)], None),
        ("option that may be skipped", vec![option([0x1e, 4, 0, 0, 0, 0])], None),
        ("option that must be understood", vec![option([0xc2, 4, 0, 0, 0, 0])], Some(ExtensionHeaders)),
        ("option that overruns", vec![option([0x1e, 5, 0, 0, 0, 0])], Some(IpHeader)),
        ("option without length", vec![option([1, 3, 0, 0, 0, 1])], Some(IpHeader)),
        ("six single pads", vec![option([0; 6])], None),
        ("22 single pads", vec![(60, [&[0, 2][..], &[0; 22]].concat())], Some(ExtensionHeaders)),
    ];
    for (name, chain, reason) in table {
        let frame = with_extensions(&chain);
        let result = parse(&frame, Checksums::Verify);
        assert_eq!(result.err(), reason, "{name}");
        if let Ok(Packet { body: Body::Tcp(_, segment), .. }) = result {
            assert_eq!(&frame[segment.payload.0..], b"data", "{name}");
        }
        // L1 for these kinds, too.
        for len in 0..frame.len() {
            assert!(parse(&frame[..len], Checksums::Verify).is_err(), "{name} cut to {len}");
        }
    }
}

#[test]
fn l10_an_extension_header_longer_than_the_packet_is_truncated() {
    let mut frame = with_extensions(&[(60, vec![0, 0, 1, 4, 0, 0, 0, 0])]);
    frame[55] = 255;
    assert_eq!(parse(&frame, Checksums::Verify), Err(DropReason::Truncated));
}

#[test]
fn l4_we_send_atomic_datagrams_with_df() {
    let frame = tcp4();
    assert_eq!(frame[18..22], [0, 0, 0x40, 0]);
    assert_eq!(frame[22], 64);
}

#[test]
fn s4_2_the_ecn_bits_arrive() {
    for (src, dst) in PAIRS {
        for ecn in 0..4 {
            let mut frame = vec![0; 128];
            let options = Options::NONE;
            let segment = Emit {
                src_port: 1,
                dst_port: 2,
                seq: SeqNumber(0),
                ack: SeqNumber(0),
                flags: Flags::ACK,
                window: 0,
                urgent: 0,
                options: &options,
            };
            let at = segment.emit(&mut frame, 128..128, src, dst);
            let at = ip::emit(&mut frame, at, 128, src, dst, ip::TCP, ecn);
            let at = link(src, VlanTags::NONE).emit(&mut frame, at);
            let Ok(Packet { body: Body::Tcp(ip, _), .. }) = parse(&frame[at..], Checksums::Verify) else {
                panic!("valid")
            };
            assert_eq!((ip.ecn, ip.hop_limit, ip.protocol), (ecn, 64, ip::TCP));
        }
    }
}
