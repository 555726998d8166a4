//! ARP, ICMP and ICMPv6 with neighbour discovery: read, answered and asked. L7, L8.

use super::icmp::{Cause, Report};
use super::*;

fn arp_of(frame: &[u8]) -> Result<(ethernet::Header, arp::Packet), DropReason> {
    let packet = parse(frame, Checksums::Verify)?;
    match packet.body {
        Body::Arp(arp) => Ok((packet.link, arp)),
        other => panic!("{other:?}"),
    }
}

fn icmpv6_of(frame: &[u8]) -> Result<(ethernet::Header, ip::Header, icmpv6::Message), DropReason> {
    let packet = parse(frame, Checksums::Verify)?;
    match packet.body {
        Body::Icmpv6(ip) => Ok((packet.link, ip, icmpv6::parse(frame, &packet.link, &ip)?)),
        other => panic!("{other:?}"),
    }
}

/// An ICMPv6 message in a frame with hop limit 255.
fn neighbor_frame(src: Ipv6Addr, dst: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    let (src, dst) = (src.into(), dst.into());
    let mut frame = around(src, dst, ip::ICMPV6, &sealed(src, dst, body.to_vec()));
    frame[21] = 255;
    frame
}

/// A solicitation or advertisement body.
fn neighbor_body(kind: u8, flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, flags, 0, 0, 0], target.octets().as_slice(), options].concat()
}

const SOURCE_LINK: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 2];

#[test]
fn an_arp_request_becomes_its_reply() {
    for vlan in [VlanTags::NONE, two_tags()] {
        let mut frame = [0; 2048];
        let sent = arp::emit_request(&mut frame, 0, vlan, PEER, PEER_V4, OUR_V4, None);
        assert_eq!(sent, 0..28 + link(OUR_V4.into(), vlan).len());
        let (link, request) = arp_of(&frame[sent]).expect("valid");
        assert_eq!((link.dst, link.src, link.vlan), (MacAddr::BROADCAST, PEER, vlan));
        assert_eq!((request.operation, request.target_ip), (arp::Operation::Request, OUR_V4));

        let answer = arp::reply_in_place(&mut frame, &link, &request, OURS);
        let (link, reply) = arp_of(&frame[answer]).expect("valid");
        assert_eq!((link.dst, link.src, link.vlan), (PEER, OURS, vlan));
        assert_eq!(
            reply,
            arp::Packet {
                operation: arp::Operation::Reply,
                sender_mac: OURS,
                sender_ip: OUR_V4,
                target_mac: PEER,
                target_ip: PEER_V4,
            }
        );
    }
}

#[test]
fn an_arp_probe_for_presence_is_unicast() {
    let mut frame = [0; 2048];
    let sent = arp::emit_request(&mut frame, 100, VlanTags::NONE, OURS, OUR_V4, PEER_V4, Some(PEER));
    assert_eq!(sent.start, 100);
    let (link, request) = arp_of(&frame[sent]).expect("valid");
    assert_eq!((link.dst, request.sender_mac, request.sender_ip), (PEER, OURS, OUR_V4));
}

#[test]
fn l7_arp_that_is_not_ethernet_and_ipv4_or_not_from_a_station() {
    let table: [(&str, usize, &[u8], DropReason); 9] = [
        ("hardware type", 15, &[2], DropReason::ControlBody),
        ("protocol type", 16, &[0x86], DropReason::ControlBody),
        ("hardware length", 18, &[8], DropReason::ControlBody),
        ("protocol length", 19, &[16], DropReason::ControlBody),
        ("operation 0", 21, &[0], DropReason::ControlBody),
        ("operation 3", 21, &[3], DropReason::ControlBody),
        ("group sender", 22, &[0xff; 6], DropReason::Martian),
        ("multicast sender", 28, &[224, 0, 0, 1], DropReason::Martian),
        ("broadcast sender", 28, &[255; 4], DropReason::Martian),
    ];
    for (name, at, octets, reason) in table {
        let mut frame = arp_frame();
        frame[at..at + octets.len()].copy_from_slice(octets);
        assert_eq!(parse(&frame, Checksums::Verify), Err(reason), "{name}");
    }
    // RFC 5227: a probe has no sender yet, and is to be answered.
    let mut probe = arp_frame();
    probe[28..32].fill(0);
    assert!(arp_of(&probe).is_ok());
}

#[test]
fn echo_requests_become_replies() {
    for (src, dst) in PAIRS {
        for data in [&b""[..], b"x", b"0123456789abcdef"] {
            let mut frame = echo_frame(src, dst, data);
            frame.resize(2048, 0xa5);
            let packet = parse(&frame, Checksums::Verify).expect("valid");
            let answer = match packet.body {
                Body::Icmpv4(ip) => {
                    assert_eq!(icmp::parse(&frame, &ip), Ok(icmp::Message::EchoRequest));
                    icmp::echo_reply_in_place(&mut frame, &packet.link, &ip, OURS)
                }
                Body::Icmpv6(ip) => {
                    assert_eq!(icmpv6::parse(&frame, &packet.link, &ip), Ok(icmpv6::Message::EchoRequest));
                    icmpv6::echo_reply_in_place(&mut frame, &packet.link, &ip, OURS)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(answer, 0..echo_frame(src, dst, data).len());
            let reply = &frame[answer];
            let packet = parse(reply, Checksums::Verify).expect("checksums are right");
            assert_eq!((packet.link.dst, packet.link.src), (PEER, OURS));
            let (Body::Icmpv4(ip) | Body::Icmpv6(ip)) = packet.body else { panic!("{packet:?}") };
            assert_eq!((ip.src, ip.dst, ip.hop_limit), (dst, src, 64));
            let message = ip.payload_of(reply);
            assert_eq!(message[0], if src.is_ipv4() { 0 } else { 129 });
            assert_eq!(message[4..8], [0x12, 0x34, 0, 1]);
            assert_eq!(&message[8..], data);
        }
    }
}

#[test]
fn l5_an_echo_is_answered_without_the_options_it_came_with() {
    let [(src, dst), _] = PAIRS;
    let mut frame = echo_frame(src, dst, b"ping");
    // A record-route option of 8 octets.
    frame.splice(34..34, [7, 7, 4, 0, 0, 0, 0, 0]);
    frame[14] = 0x47;
    frame[17] += 8;
    frame[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&frame[14..42]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let packet = parse(&frame, Checksums::Verify).expect("valid");
    let Body::Icmpv4(ip) = packet.body else { panic!("{packet:?}") };
    let answer = icmp::echo_reply_in_place(&mut frame, &packet.link, &ip, OURS);
    assert_eq!(answer.start, 8);
    assert_eq!(frame[answer.clone()][14], 0x45);
    assert!(parse(&frame[answer], Checksums::Verify).is_ok());
}

#[test]
fn a_solicitation_becomes_the_advertisement() {
    // With and without the source's link-layer address: the answer has the same length.
    for options in [&SOURCE_LINK[..], &[]] {
        let body = neighbor_body(135, 0, OUR_V6, options);
        let mut frame = neighbor_frame(PEER_V6, icmpv6::solicited_node(OUR_V6), &body);
        frame.resize(2048, 0xa5);
        let (link, ip, message) = icmpv6_of(&frame).expect("valid");
        let icmpv6::Message::Solicitation(asked) = message else { panic!("{message:?}") };
        assert_eq!((asked.target, asked.source_link), (OUR_V6, (!options.is_empty()).then_some(PEER)));

        let answer = icmpv6::advertisement_in_place(&mut frame, &link, &ip, &asked, OURS);
        assert_eq!(answer, 0..86);
        let (link, ip, message) = icmpv6_of(&frame[answer]).expect("valid");
        assert_eq!((link.dst, link.src), (PEER, OURS));
        assert_eq!((ip.src, ip.dst, ip.hop_limit), (OUR_V6.into(), PEER_V6.into(), 255));
        assert_eq!(
            message,
            icmpv6::Message::Advertisement(icmpv6::Advertisement {
                target: OUR_V6,
                target_link: Some(OURS),
                router: false,
                solicited: true,
                overriding: true,
            })
        );
    }
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes() {
    let body = neighbor_body(135, 0, OUR_V6, &[]);
    let mut frame = neighbor_frame(Ipv6Addr::UNSPECIFIED, icmpv6::solicited_node(OUR_V6), &body);
    frame.resize(2048, 0);
    let (link, ip, message) = icmpv6_of(&frame).expect("valid");
    let icmpv6::Message::Solicitation(asked) = message else { panic!("{message:?}") };
    let answer = icmpv6::advertisement_in_place(&mut frame, &link, &ip, &asked, OURS);
    let (link, ip, message) = icmpv6_of(&frame[answer]).expect("valid");
    assert_eq!(link.dst, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(ip.dst, IpAddr::V6("ff02::1".parse().unwrap()));
    let icmpv6::Message::Advertisement(answer) = message else { panic!("{message:?}") };
    assert!(!answer.solicited && answer.overriding);
}

#[test]
fn our_solicitation_goes_to_the_group_or_to_the_neighbor_alone() {
    let mut frame = [0; 2048];
    for (probe, mac, dst) in [
        (None, MacAddr([0x33, 0x33, 0xff, 0xbb, 0x56, 0x78]), "ff02::1:ffbb:5678".parse().unwrap()),
        (Some(PEER), PEER, PEER_V6),
    ] {
        let sent =
            icmpv6::emit_neighbor_solicitation(&mut frame, 64, two_tags(), OURS, OUR_V6, PEER_V6, probe);
        assert_eq!(sent, 64..64 + 22 + 40 + 32);
        let (link, ip, message) = icmpv6_of(&frame[sent]).expect("valid");
        assert_eq!((link.dst, link.vlan, ip.dst), (mac, two_tags(), IpAddr::V6(dst)));
        let asked = icmpv6::Solicitation { target: PEER_V6, source_link: Some(OURS) };
        assert_eq!(message, icmpv6::Message::Solicitation(asked));
    }
}

#[test]
fn rfc_4861_7_1_what_makes_a_neighbor_message_invalid() {
    use DropReason::{ControlBody, Martian, Truncated, Unsupported};
    let group = icmpv6::solicited_node(OUR_V6);
    let all_nodes = "ff02::1".parse().unwrap();
    let none = Ipv6Addr::UNSPECIFIED;
    let ns = |target: Ipv6Addr, options: &[u8]| neighbor_body(135, 0, target, options);
    let na = |flags, options: &[u8]| neighbor_body(136, flags, PEER_V6, options);
    let coded = |mut body: Vec<u8>| {
        body[1] = 1;
        body
    };
    let table: Vec<(&str, Ipv6Addr, Ipv6Addr, Vec<u8>, Option<DropReason>)> = vec![
        ("solicitation", PEER_V6, group, ns(OUR_V6, &SOURCE_LINK), None),
        ("unicast solicitation", PEER_V6, OUR_V6, ns(OUR_V6, &SOURCE_LINK), None),
        ("code 1", PEER_V6, group, coded(ns(OUR_V6, &SOURCE_LINK)), Some(ControlBody)),
        ("multicast target", PEER_V6, group, ns(group, &SOURCE_LINK), Some(ControlBody)),
        ("no target", PEER_V6, group, ns(none, &SOURCE_LINK), Some(ControlBody)),
        ("23 octets", PEER_V6, group, ns(OUR_V6, &[])[..23].to_vec(), Some(Truncated)),
        ("option of length 0", PEER_V6, group, ns(OUR_V6, &[14, 0, 0, 0, 0, 0, 0, 0]), Some(ControlBody)),
        ("option overruns", PEER_V6, group, ns(OUR_V6, &[14, 2, 0, 0, 0, 0, 0, 0]), Some(Truncated)),
        ("half an option", PEER_V6, group, ns(OUR_V6, &[14]), Some(ControlBody)),
        (
            "unknown option first",
            PEER_V6,
            group,
            ns(OUR_V6, &[[14, 1, 0, 0, 0, 0, 0, 0], SOURCE_LINK].concat()),
            None,
        ),
        ("17 options", PEER_V6, group, ns(OUR_V6, &[14, 1, 0, 0, 0, 0, 0, 0].repeat(17)), Some(ControlBody)),
        ("group as source link", PEER_V6, group, ns(OUR_V6, &[1, 1, 3, 0, 0, 0, 0, 2]), Some(Martian)),
        ("duplicate address detection", none, group, ns(OUR_V6, &[]), None),
        ("the same with source link", none, group, ns(OUR_V6, &SOURCE_LINK), Some(ControlBody)),
        ("the same to one host", none, OUR_V6, ns(OUR_V6, &[]), Some(ControlBody)),
        ("from a group", all_nodes, OUR_V6, ns(OUR_V6, &[]), Some(Martian)),
        ("solicited advertisement", PEER_V6, OUR_V6, na(0x60, &[2, 1, 2, 0, 0, 0, 0, 2]), None),
        ("unsolicited advertisement", PEER_V6, all_nodes, na(0x20, &[2, 1, 2, 0, 0, 0, 0, 2]), None),
        ("solicited to a group", PEER_V6, all_nodes, na(0x60, &[]), Some(ControlBody)),
        ("advertisement from nobody", none, OUR_V6, na(0x60, &[]), Some(Martian)),
        ("router advertisement", PEER_V6, all_nodes, neighbor_body(134, 0, PEER_V6, &[]), Some(Unsupported)),
        ("listener report", PEER_V6, all_nodes, neighbor_body(143, 0, PEER_V6, &[]), Some(Unsupported)),
    ];
    for (name, src, dst, body, reason) in table {
        let frame = neighbor_frame(src, dst, &body);
        assert_eq!(icmpv6_of(&frame).err(), reason, "{name}");
    }
    // Through a router: nobody on the link asked.
    let mut frame = neighbor_frame(PEER_V6, group, &ns(OUR_V6, &SOURCE_LINK));
    frame[21] = 254;
    assert_eq!(icmpv6_of(&frame).err(), Some(ControlBody));
}

#[test]
fn s4_5_wrong_icmp_checksums_have_their_own_counter() {
    for (src, dst) in PAIRS {
        let mut frame = echo_frame(src, dst, b"ping");
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&frame, Checksums::Verify), Err(DropReason::IcmpChecksum));
    }
}

/// The start of a segment of ours, as a router quotes it.
fn quoted_segment(src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let frame = tcp_frame(dst, src, VlanTags::NONE, &Options::NONE, b"never arrived");
    frame[14..14 + ip::header_len(src) + 8].to_vec()
}

#[test]
fn l8_errors_quote_the_segment_they_are_about() {
    let [(a4, b4), (a6, b6)] = PAIRS;
    let quoted =
        |src, dst| icmp::Quoted { src, dst, src_port: 40_000, dst_port: 80, seq: SeqNumber(0xffff_fff0) };

    let too_big = [&[3, 4, 0, 0, 0, 0, 0x05, 0x00][..], &quoted_segment(a4, b4)].concat();
    let frame = around(a4, b4, ip::ICMP, &sealed(a4, b4, too_big.clone()));
    let Ok(Packet { body: Body::Icmpv4(ip), .. }) = parse(&frame, Checksums::Verify) else { panic!("valid") };
    let cause = Cause::TooBig { mtu: 1280 };
    let report = Report { cause, hard: false, quoted: quoted(b4, a4) };
    assert_eq!(icmp::parse(&frame, &ip), Ok(icmp::Message::Error(report)));

    let too_big_v6 = [&[2, 0, 0, 0, 0, 0, 0x05, 0x00][..], &quoted_segment(a6, b6)].concat();
    let frame = around(a6, b6, ip::ICMPV6, &sealed(a6, b6, too_big_v6.clone()));
    let report = Report { cause, hard: false, quoted: quoted(b6, a6) };
    assert_eq!(icmpv6_of(&frame).expect("valid").2, icmpv6::Message::Error(report));

    // Every shorter quote is refused.
    for len in 4..too_big.len() {
        let frame = around(a4, b4, ip::ICMP, &sealed(a4, b4, too_big[..len].to_vec()));
        assert!(parse_whole(&frame).is_err(), "{len}");
    }
    for len in 4..too_big_v6.len() {
        let frame = around(a6, b6, ip::ICMPV6, &sealed(a6, b6, too_big_v6[..len].to_vec()));
        assert!(parse_whole(&frame).is_err(), "{len}");
    }
}

/// The error of a frame, if it has one.
fn report_of(frame: &[u8]) -> Result<Report, DropReason> {
    let packet = parse(frame, Checksums::Verify)?;
    match packet.body {
        Body::Icmpv4(ip) => match icmp::parse(frame, &ip)? {
            icmp::Message::Error(report) => Ok(report),
            other => panic!("{other:?}"),
        },
        Body::Icmpv6(ip) => match icmpv6::parse(frame, &packet.link, &ip)? {
            icmpv6::Message::Error(report) => Ok(report),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// RFC 9293 §3.9.2.2, RFC 1812 §5.2.7.1, RFC 4443 §3.1: which errors are final.
#[test]
fn l8_hard_and_soft_errors_of_both_families() {
    let [(a4, b4), (a6, b6)] = PAIRS;
    let v4 = |kind, code| {
        let body = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &quoted_segment(a4, b4)].concat();
        report_of(&around(a4, b4, ip::ICMP, &sealed(a4, b4, body)))
    };
    let v6 = |kind, code| {
        let body = [&[kind, code, 0, 0, 0, 0, 5, 0][..], &quoted_segment(a6, b6)].concat();
        report_of(&around(a6, b6, ip::ICMPV6, &sealed(a6, b6, body)))
    };
    for code in 0..=255 {
        let report = v4(3, code).expect("valid");
        let cause = if code == 4 { Cause::TooBig { mtu: 0 } } else { Cause::Unreachable };
        assert_eq!((report.cause, report.hard), (cause, [2, 3, 9, 10, 13].contains(&code)), "{code}");
        let report = v6(1, code).expect("valid");
        assert_eq!((report.cause, report.hard), (Cause::Unreachable, [1, 4, 5, 6].contains(&code)), "{code}");
        assert_eq!(v4(11, code).map(|report| (report.cause, report.hard)), Ok((Cause::TimeExceeded, false)));
        let report = v6(4, code).expect("valid");
        assert_eq!((report.cause, report.hard), (Cause::ParameterProblem, code == 1), "{code}");
    }
    assert_eq!(v4(12, 0).map(|report| report.cause), Ok(Cause::ParameterProblem));
    assert_eq!(v6(2, 0).map(|report| report.cause), Ok(Cause::TooBig { mtu: 1280 }));
    assert_eq!(v6(3, 0).map(|report| report.cause), Ok(Cause::TimeExceeded));
    // MUST-55: source quench says nothing; nor does what only a router has to know.
    assert_eq!(v4(4, 0), Err(DropReason::Unsupported));
    assert_eq!(v4(5, 1), Err(DropReason::Unsupported));
}

/// An error about somebody else's packet was made up: routers send them to the packet's sender.
#[test]
fn l8_an_error_about_a_packet_of_another_host_is_refused() {
    for ((src, dst), kind) in PAIRS.into_iter().zip([3, 1]) {
        let head = [kind, 0, 0, 0, 0, 0, 0, 0];
        let quote = quoted_segment(dst, src);
        let protocol = if src.is_ipv4() { ip::ICMP } else { ip::ICMPV6 };
        let body = [&head[..], &quote].concat();
        assert_eq!(
            report_of(&around(src, dst, protocol, &sealed(src, dst, body))),
            Err(DropReason::ControlBody)
        );
    }
}

proptest! {
    /// Errors whose quotes are bent and cut: refused or read, never a panic, and never of another host.
    #[test]
    fn p1_l8_bent_quotes_never_panic(
        v6: bool, kind in 0_u8..14, code: u8, rest: [u8; 4],
        bends in prop::collection::vec((0_usize..60, any::<u8>()), 0..4), cut in 0_usize..60,
    ) {
        let (src, dst) = PAIRS[usize::from(v6)];
        let mut quote = quoted_segment(src, dst);
        for (at, octet) in bends {
            let len = quote.len();
            quote[at % len] = octet;
        }
        quote.truncate(cut);
        let body = [&[kind, code, 0, 0][..], &rest, &quote].concat();
        let protocol = if v6 { ip::ICMPV6 } else { ip::ICMP };
        let frame = around(src, dst, protocol, &sealed(src, dst, body));
        if let Ok(packet) = parse_whole(&frame) {
            let report = match packet.body {
                Body::Icmpv4(ip) => match icmp::parse(&frame, &ip) {
                    Ok(icmp::Message::Error(report)) => Some(report),
                    _ => None,
                },
                Body::Icmpv6(ip) => match icmpv6::parse(&frame, &packet.link, &ip) {
                    Ok(icmpv6::Message::Error(report)) => Some(report),
                    _ => None,
                },
                _ => None,
            };
            prop_assert!(report.is_none_or(|report| report.quoted.src == dst));
        }
    }
}
