//! TCP headers and options: S4.1, S4.5, T14, T17, T18.

use super::*;

/// Reads the only kind of packet these tests make.
fn segment_of(frame: &[u8], checksums: Checksums) -> Result<tcp::Segment, DropReason> {
    match parse(frame, checksums)?.body {
        Body::Tcp(_, segment) => Ok(segment),
        other => panic!("{other:?}"),
    }
}

/// An IPv4 segment with these raw option octets (a multiple of four) and "data".
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut body = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0x18, 2, 0, 0, 0, 0, 0];
    body[12] = ((20 + options.len()) / 4 * 16) as u8;
    body.extend(options);
    body.extend(b"data");
    reseal(body)
}

/// Gives a TCP segment its checksum and puts it into a frame.
fn reseal(mut body: Vec<u8>) -> Vec<u8> {
    let [(src, dst), _] = PAIRS;
    body[16..18].fill(0);
    let pseudo = checksum::pseudo_header(src, dst, ip::TCP, body.len());
    let sum = checksum::finish(pseudo + checksum::sum(&body));
    body[16..18].copy_from_slice(&sum.to_be_bytes());
    around(src, dst, ip::TCP, &body)
}

#[test]
fn t17_data_offset_below_five_or_beyond_the_segment() {
    for offset in 0..16_u8 {
        let mut body = with_options(&[])[34..].to_vec();
        body[12] = offset << 4;
        let result = segment_of(&reseal(body), Checksums::Verify);
        // 20 octets of header and 4 of data: an offset of 6 takes the data for an option.
        assert_eq!(result.err(), (!(5..=6).contains(&offset)).then_some(DropReason::TcpHeader), "{offset}");
    }
}

#[test]
fn s4_1_reserved_bits_are_not_looked_at() {
    let mut body = with_options(&[])[34..].to_vec();
    body[12] |= 0x0f;
    let segment = segment_of(&reseal(body), Checksums::Verify).expect("valid");
    assert_eq!((segment.flags, segment.payload.1), (Flags::ACK | Flags::PSH, 4));
}

#[test]
fn s4_1_t17_option_lists() {
    let mss = |mss| Options { mss: Some(mss), ..Options::NONE };
    let none = Options::NONE;
    let times = Options { timestamps: Some((0x0102_0304, 0x0506_0708)), ..none };
    let table: [(&str, &[u8], Options); 22] = [
        ("nothing", &[], none),
        ("40 NOPs", &[1; 40], none),
        ("40 ends", &[0; 40], none),
        ("mss", &[2, 4, 5, 0xb4], mss(1460)),
        ("mss 0 says nothing (T11)", &[2, 4, 0, 0], none),
        ("mss 1", &[2, 4, 0, 1], mss(1)),
        ("mss of length 3 is passed over", &[2, 3, 5, 1, 1, 1, 1, 1], none),
        ("mss twice: the later", &[2, 4, 0, 1, 2, 4, 0, 2], mss(2)),
        ("end hides what follows", &[0, 0, 0, 0, 2, 4, 5, 0xb4], none),
        ("length 0 ends the list", &[2, 4, 0, 9, 3, 0, 7, 1], mss(9)),
        ("length 1 ends the list", &[2, 4, 0, 9, 3, 1, 7, 1], mss(9)),
        ("an overrun ends the list", &[2, 4, 0, 9, 8, 10, 0, 0], mss(9)),
        ("no length ends the list", &[2, 4, 0, 9, 1, 1, 1, 3], mss(9)),
        ("unknown kinds are skipped", &[254, 6, 1, 2, 3, 4, 2, 4, 0, 9, 1, 1], mss(9)),
        ("window scale", &[1, 3, 3, 7], Options { window_scale: Some(7), ..none }),
        ("T14: window scale 15 is 14", &[1, 3, 3, 15], Options { window_scale: Some(14), ..none }),
        ("T14: window scale 255 is 14", &[1, 3, 3, 255], Options { window_scale: Some(14), ..none }),
        ("sack permitted", &[4, 2, 1, 1], Options { sack_permitted: true, ..none }),
        ("timestamps, as everybody sends them", &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], times),
        ("timestamps, otherwise", &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0], times),
        ("sack of 9 octets is passed over", &[5, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1], none),
        ("sack without a block", &[5, 2, 1, 1], none),
    ];
    for (name, octets, options) in table {
        let frame = with_options(octets);
        let segment = segment_of(&frame, Checksums::Verify).expect(name);
        assert_eq!(segment.options, options, "{name}");
        assert_eq!(&frame[segment.payload.0..], b"data", "{name}");
    }
}

#[test]
fn t17_four_sack_blocks_are_read_across_the_wrap() {
    let mut octets = vec![1, 1, 5, 34];
    for edge in [0xffff_fff0_u32, 5, 10, 20, 30, 40, 50, 50] {
        octets.extend(edge.to_be_bytes());
    }
    let segment = segment_of(&with_options(&octets), Checksums::Verify).expect("valid");
    let blocks: Vec<_> = segment.options.sack.iter().map(|(l, r)| (l.0, r.0)).collect();
    assert_eq!(blocks, [(0xffff_fff0, 5), (10, 20), (30, 40), (50, 50)]);
}

#[test]
fn s4_1_sack_blocks_that_do_not_fit_are_left_out() {
    let mut sack = SackBlocks::NONE;
    for i in 0..4 {
        assert!(sack.push(SeqNumber(10 * i), SeqNumber(10 * i + 5)));
    }
    assert!(!sack.push(SeqNumber(0), SeqNumber(1)));
    let none = Options { sack, ..Options::NONE };
    let timestamps = Options { timestamps: Some((1, 2)), ..none };
    let syn = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..timestamps };
    for (options, header_len, blocks) in [(none, 56, 4), (timestamps, 60, 3), (syn, 60, 2)] {
        let [(src, dst), _] = PAIRS;
        let frame = tcp_frame(src, dst, VlanTags::NONE, &options, b"data");
        let segment = segment_of(&frame, Checksums::Verify).expect("valid");
        assert_eq!(segment.payload, (34 + header_len, 4));
        assert_eq!(segment.options.sack.len(), blocks);
        assert_eq!(segment.options.timestamps, options.timestamps);
    }
}

#[test]
fn s4_5_a_wrong_tcp_checksum_has_its_own_counter() {
    let mut frame = with_options(&[]);
    *frame.last_mut().unwrap() ^= 1;
    assert_eq!(segment_of(&frame, Checksums::Verify), Err(DropReason::TcpChecksum));
    assert_eq!(segment_of(&frame, Checksums::AcceptPartial), Err(DropReason::TcpChecksum));
}

#[test]
fn s4_5_the_sum_a_local_kernel_leaves_for_offload() {
    for (src, dst) in PAIRS {
        let mut frame = tcp_frame(src, dst, VlanTags::NONE, &Options::NONE, b"some data");
        let tcp_at = frame.len() - 29;
        let pseudo = checksum::fold(checksum::pseudo_header(src, dst, ip::TCP, 29));
        frame[tcp_at + 16..tcp_at + 18].copy_from_slice(&pseudo.to_be_bytes());
        assert_eq!(segment_of(&frame, Checksums::Verify), Err(DropReason::TcpChecksum));
        assert!(segment_of(&frame, Checksums::AcceptPartial).is_ok());
        frame[tcp_at + 17] ^= 1;
        assert_eq!(segment_of(&frame, Checksums::AcceptPartial), Err(DropReason::TcpChecksum));
    }
}

#[test]
fn seg_len_counts_syn_and_fin() {
    for (flags, len) in [
        (Flags::NONE, 4),
        (Flags::ACK | Flags::RST, 4),
        (Flags::SYN, 5),
        (Flags::FIN | Flags::ACK, 5),
        (Flags::SYN | Flags::FIN, 6),
    ] {
        let mut body = with_options(&[])[34..].to_vec();
        body[13] = flags.0;
        let segment = segment_of(&reseal(body), Checksums::Verify).expect("valid");
        assert_eq!(segment.seg_len(), len, "{flags:?}");
    }
    assert_eq!(format!("{:?} {:?}", Flags::SYN | Flags::ACK, Flags::NONE), "SYN|ACK NONE");
}

fn any_options() -> impl Strategy<Value = Options> {
    let block = any::<(u32, u32)>().prop_map(|(l, r)| (SeqNumber(l), SeqNumber(r)));
    (
        prop::option::of(1_u16..),
        prop::option::of(0_u8..=14),
        any::<bool>(),
        any::<Option<(u32, u32)>>(),
        prop::collection::vec(block, 0..=4),
    )
        .prop_map(|(mss, window_scale, sack_permitted, timestamps, blocks)| {
            let mut options = Options { mss, window_scale, sack_permitted, timestamps, ..Options::NONE };
            for (left, right) in blocks {
                options.sack.push(left, right);
            }
            options
        })
}

proptest! {
    #[test]
    fn s4_1_what_is_sent_is_read_back(
        v6: bool, tagged: bool,
        ports: (u16, u16), seq: u32, ack: u32, flags: u8, window: u16, urgent: u16,
        options in any_options(), data in prop::collection::vec(any::<u8>(), 0..1460), ecn in 0_u8..4,
    ) {
        let (src, dst) = PAIRS[usize::from(v6)];
        let vlan = if tagged { two_tags() } else { VlanTags::NONE };
        let sent = Emit {
            src_port: ports.0, dst_port: ports.1, seq: SeqNumber(seq), ack: SeqNumber(ack),
            flags: Flags(flags), window, urgent, options: &options,
        };
        let mut frame = vec![0xa5; 2048];
        frame[128..128 + data.len()].copy_from_slice(&data);
        let end = 128 + data.len();
        let tcp_at = sent.emit(&mut frame, 128..end, src, dst);
        prop_assert_eq!(tcp_at, 128 - sent.header_len());
        prop_assert!(sent.header_len() <= 60 && sent.header_len().is_multiple_of(4));
        let ip_at = ip::emit(&mut frame, tcp_at, end, src, dst, ip::TCP, ecn);
        prop_assert_eq!(ip_at, tcp_at - ip::header_len(src));
        let at = link(src, vlan).emit(&mut frame, ip_at);

        let packet = parse(&frame[at..end + 6], Checksums::Verify).expect("valid");
        prop_assert_eq!(packet.link, link(src, vlan));
        let Body::Tcp(ip, segment) = packet.body else { panic!("{packet:?}") };
        prop_assert_eq!((ip.src, ip.dst, ip.ecn), (src, dst, ecn));
        prop_assert_eq!((segment.src_port, segment.dst_port), ports);
        prop_assert_eq!((segment.seq.0, segment.ack.0, segment.flags.0), (seq, ack, flags));
        prop_assert_eq!((segment.window, segment.urgent), (window, urgent));
        prop_assert_eq!(segment.payload, (128 - at, data.len()));
        // The blocks that fit, first ones first.
        let fitting = segment.options.sack.len();
        let mut expected = options;
        expected.sack = SackBlocks::NONE;
        for (left, right) in options.sack.iter().take(fitting) {
            expected.sack.push(left, right);
        }
        prop_assert_eq!(segment.options, expected);
        prop_assert!(fitting == options.sack.len() || sent.header_len() + 8 > 60);
    }

    /// RFC 9293 §3.1: each option but NOP has its length (MUST-68), and the last one ends where the data begin, so
    /// that no end of the list with its zeros is needed (MUST-69).
    #[test]
    fn s4_1_what_is_sent_has_lengths_and_no_rest(options in any_options()) {
        let (src, dst) = PAIRS[0];
        let sent = Emit {
            src_port: 1, dst_port: 2, seq: SeqNumber(3), ack: SeqNumber(4),
            flags: Flags::ACK, window: 5, urgent: 0, options: &options,
        };
        let mut frame = vec![0xa5; 256];
        let at = sent.emit(&mut frame, 128..128, src, dst);
        let mut rest = &frame[at + 20..128];
        while let [kind, after @ ..] = rest {
            prop_assert_ne!(*kind, 0, "no end of list");
            rest = match (*kind, after.first()) {
                (1, _) => after,
                (2 | 3 | 4 | 5 | 8, Some(&len @ 2..)) if usize::from(len) <= rest.len() => {
                    &rest[usize::from(len)..]
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
        }
    }

    #[test]
    fn t17_random_options_never_panic(octets in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut octets = octets;
        octets.truncate(octets.len() / 4 * 4);
        let segment = segment_of(&with_options(&octets), Checksums::Verify).expect("options aren't fatal");
        prop_assert!(segment.options.window_scale.unwrap_or(0) <= 14);
    }
}
