//! Packets in several frames: jumbo frames, and what was merged on the way. S6.1

use byway_tcp::counters::DropReason;
use byway_tcp::seq::SeqNumber;
use byway_tcp::stack::Config;
use byway_tcp::tcb::state::State;
use byway_tcp::time::Instant;
use byway_tcp::wire::tcp::{Flags, Options, SackBlocks};
use byway_tcp::wire::{Body, Checksums, parse};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::fragments::{echo, split};
use crate::probe::*;

/// What a frame of 2 KiB holds behind the kernel's headroom.
const ROOM: usize = 1792;
const JUMBO: u16 = 9000;

fn jumbo_config() -> Config {
    Config { receive_mtu: JUMBO, ..config() }
}

fn jumbo() -> Probe {
    Probe::with(jumbo_config(), 1024, Instant::from_millis(1000))
}

/// Cut as a port does that fills its frames.
fn scatter(frame: &[u8]) -> Vec<Vec<u8>> {
    frame.chunks(ROOM).map(<[u8]>::to_vec).collect()
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

fn timestamps(value: u32) -> Options {
    Options { timestamps: Some((value, 0)), ..Options::NONE }
}

/// S6.1: the MSS follows what may arrive; what is sent still fits a frame.
#[test]
fn s6_1_peers_are_told_what_may_arrive_and_get_what_fits_a_frame() {
    let mut p = jumbo();
    let mut peer = p.peer();
    let syn_ack = p.ask(&peer, &peer.seg(SYN).mss(8960));
    assert_eq!(syn_ack.options.mss, Some(8960));
    peer.seq += 1;
    peer.ack = syn_ack.end();
    p.give(&peer, &peer.seg(ACK));
    peer.id = *p.app.opened.last().expect("open");
    let sent = p.send(&peer, &text(5000));
    assert_eq!(sent.iter().map(|seg| seg.data.len()).collect::<Vec<_>>(), [1460, 1460, 1460, 620]);

    let remote = std::net::SocketAddr::new(v6(2), 9);
    p.stack.connect(remote, p.now).expect("connect");
    let (_, syn) = p.collect().pop().expect("SYN");
    assert_eq!(syn.options.mss, Some(8940));
}

/// S6.1: octet by octet what was sent, in the frames it arrived in, whatever the family and however many packets there
/// are in a batch.
#[test]
fn s6_1_a_segment_in_several_frames_is_delivered_without_a_copy() {
    for remote in [v4(2), v6(2)] {
        let mut p = jumbo();
        let peer = Peer { remote, ..p.peer() };
        let mut peer = p.open_as(peer, 8940);
        let data = text(8948);
        for round in 0..20 {
            let mut batch = Vec::new();
            for n in 0..5 {
                batch.push(scatter(&p.frame(&peer, &peer.seg(PSH_ACK).data(&data[..8948 - n]))));
                peer.seq += 8948 - n as u32;
            }
            assert_eq!(batch[0].len(), 6, "six frames hold it");
            let answers = p.give_packets(&batch);
            assert_eq!(answers.last().map(|(_, seg)| seg.ack), Some(peer.seq), "round {round}");
        }
        let expected: Vec<u8> =
            (0..20).flat_map(|_| (0..5).flat_map(|n| data[..8948 - n].to_vec())).collect();
        assert!(p.app.text(peer.id) == expected);
        let counters = p.stack.counters();
        assert_eq!(counters.payload_bytes_copied, 0);
        assert_eq!(counters.tcp_in_segs, 2 + 100, "a segment is one");
        assert_eq!(counters.dropped_total(), 0);
        p.stack.pool().assert_conserved();
    }
}

/// S6.1: what a port may make of a packet: any frames, empty ones, headers in a frame of their own, padding behind it.
#[test]
fn s6_1_the_frames_may_be_cut_anywhere_behind_the_headers() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut p = jumbo();
    let peer = p.peer();
    let mut peer = p.open_as(peer, 8940);
    let data = text(3000);
    let mut expected = Vec::new();
    for round in 0..2000 {
        let len = rng.random_range(1..3000);
        let mut frame = p.frame(&peer, &peer.seg(PSH_ACK).data(&data[..len]));
        frame.resize(frame.len() + if round % 3 == 0 { rng.random_range(0..100) } else { 0 }, 0xee);
        let mut cuts = vec![rng.random_range(54..=frame.len())];
        (0..rng.random_range(1..4)).for_each(|_| cuts.push(rng.random_range(cuts[0]..=frame.len())));
        cuts.sort_unstable();
        cuts.push(frame.len());
        let mut from = 0;
        let packet: Vec<_> =
            cuts.into_iter().map(|to| frame[core::mem::replace(&mut from, to)..to].to_vec()).collect();
        if packet.iter().any(|octets| octets.len() > ROOM) {
            continue;
        }
        expected.extend(&data[..len]);
        peer.seq = peer.seq.wrapping_add(len as u32);
        p.give_packets(&[packet]);
        assert!(p.app.text(peer.id).len() == expected.len(), "round {round}");
    }
    assert!(p.app.text(peer.id) == expected);
    assert_eq!(p.stack.counters().dropped_total(), 0);
    p.stack.pool().assert_conserved();
}

/// Of the parts, which have room for headers of their own.
const PART: usize = 1600;

/// The parts of a segment as a sender might have sent them instead.
fn parts(seg: &Seg, header_len: usize) -> Vec<Seg> {
    let mut at = 0;
    let mut ends: Vec<_> =
        (1..).map(|n| n * PART - header_len).take_while(|&end| end < seg.data.len()).collect();
    ends.push(seg.data.len());
    ends.iter()
        .map(|&end| {
            let (first, last) = (at == 0, end == seg.data.len());
            let mut part = seg.clone().data(&seg.data[at..end]);
            part.seq = seg.seq.wrapping_add(at as u32);
            let within = if first { seg.flags.difference(FIN | PSH) } else { ACK };
            part.flags = if last && seg.flags.contains(FIN) { within | FIN } else { within };
            part.options = if first {
                seg.options
            } else {
                Options { timestamps: seg.options.timestamps, ..Options::NONE }
            };
            part.ecn = if last { seg.ecn } else { 0 };
            at = end;
            part
        })
        .collect()
}

/// S6.1: two stacks, of which one gets each segment in several frames, and the other what it can be cut into: they
/// answer the same, to the octet. Old, new, ahead, beyond the window; marks, SACK, FIN, urgent data.
#[test]
fn s6_1_a_segment_in_several_frames_is_what_it_can_be_cut_into() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut both = [jumbo(), jumbo()];
        let reads = rng.random_bool(0.8);
        let options = Options {
            mss: Some(8960),
            sack_permitted: true,
            timestamps: Some((1, 0)),
            window_scale: Some(7),
            ..Options::NONE
        };
        let mut peers = both.each_mut().map(|p| {
            p.app.reads = reads;
            let (mut peer, _) = p.half_open(options);
            p.give(&peer, &peer.seg(ACK).options(timestamps(1)));
            peer.id = *p.app.opened.last().expect("open");
            p.send(&peer, &text(4000));
            peer
        });
        for step in 0..20u32 {
            let offset = if rng.random_bool(0.6) {
                0
            } else {
                [1u32, 5000, 20_000, 70_000, u32::MAX - 3000, u32::MAX][rng.random_range(0..6)]
            };
            let flags = if rng.random_bool(0.05) {
                FIN_ACK
            } else {
                [ACK, PSH_ACK, ACK | URG, Flags(0x90)][rng.random_range(0..4)]
            };
            let mut sack = SackBlocks::default();
            if rng.random_bool(0.2) {
                sack.push(SeqNumber(peers[0].ack) + 1448, SeqNumber(peers[0].ack) + 2896);
            }
            let len = rng.random_range(ROOM..9000 - 72);
            let seg = Seg {
                seq: peers[0].seq.wrapping_add(offset),
                ack: peers[0].ack.wrapping_add([0, 0, 1448, 4000][rng.random_range(0..4)]),
                flags,
                window: 500,
                urgent: rng.random_range(1..100),
                options: Options { sack, ..timestamps(step + 2) },
                data: text(len),
                ecn: rng.random_range(0..4),
            };
            let whole = both[0].frame(&peers[0], &seg);
            let header_len = whole.len() - len;
            let scattered = both[0].give_packets(&[whole.chunks(PART).map(<[u8]>::to_vec).collect()]);
            let cut = both[1].batch(&peers[1], &parts(&seg, header_len));
            let scattered: Vec<_> = scattered.into_iter().map(|(_, seg)| seg).collect();
            assert_eq!(scattered, cut, "seed {seed}, step {step}: {:?} + {len}", seg.flags);
            let states = [0, 1].map(|n| both[n].state(&peers[n]));
            assert_eq!(states[0], states[1], "seed {seed}, step {step}");
            if offset == 0 {
                peers.iter_mut().for_each(|peer| peer.seq = peer.seq.wrapping_add(len as u32));
            }
            if states[0] != State::Established {
                break;
            }
        }
        let [a, b] = &both;
        assert!(a.app.text(peers[0].id) == b.app.text(peers[1].id), "seed {seed}");
        let (one, other) = (a.stack.counters(), b.stack.counters());
        let drops = |counters: &byway_tcp::counters::Counters| {
            DropReason::ALL.iter().map(|&reason| counters.dropped(reason)).collect::<Vec<_>>()
        };
        assert_eq!(drops(&one), drops(&other), "seed {seed}");
        assert_eq!(one.ip_in_ce_pkts, other.ip_in_ce_pkts);
        a.stack.pool().assert_conserved();
    }
}

/// S6.1: nobody is there, or only a listener: one answer, and every frame comes back.
#[test]
fn s6_1_strangers_and_listeners_get_one_answer() {
    let mut p = jumbo();
    let free = p.stack.pool().free_count();
    // A closed port.
    let stranger = Peer { local_port: 81, ..p.peer() };
    let frame = p.frame(&stranger, &Seg::new(PSH_ACK, 5, 77).data(&text(5000)));
    let out = p.give_packets(&[scatter(&frame)]);
    assert!(matches!(&out[..], [(_, seg)] if seg.is(RST) && seg.seq == 77), "{out:?}");
    assert_eq!(p.stack.counters().dropped_total(), 1);
    // A SYN whose text is repeated when the connection is open.
    let peer = p.peer();
    let frame = p.frame(&peer, &peer.seg(SYN).mss(8960).data(&text(5000)));
    let out = p.give_packets(&[scatter(&frame)]);
    assert!(matches!(&out[..], [(_, seg)] if seg.is(SYN_ACK) && seg.ack == peer.seq + 1), "{out:?}");
    // Its ACK comes with text.
    let peer = Peer { seq: peer.seq + 1, ack: out[0].1.end(), ..peer };
    let frame = p.frame(&peer, &peer.seg(PSH_ACK).data(&text(8000)));
    let out = p.give_packets(&[scatter(&frame)]);
    assert_eq!(out.last().map(|(_, seg)| seg.ack), Some(peer.seq + 8000));
    let id = *p.app.opened.last().expect("open");
    assert!(p.app.text(id) == text(8000));
    // A reset with text.
    let peer = Peer { seq: peer.seq + 8000, id, ..peer };
    let frame = p.frame(&peer, &peer.seg(RST_ACK).data(&text(4000)));
    assert!(p.give_packets(&[scatter(&frame)]).is_empty());
    assert_eq!(p.state(&peer), State::Listen);
    assert_eq!(p.stack.pool().free_count(), free);
    p.stack.pool().assert_conserved();
}

/// S6.1: FIN counts when all before it is here, and with TIME-WAIT the text goes nowhere.
#[test]
fn s6_1_fin_comes_with_the_last_frame() {
    let mut p = jumbo();
    let peer = p.peer();
    let peer = p.open_as(peer, 8940);
    let frame = p.frame(&peer, &peer.seg(FIN_ACK).data(&text(6000)));
    let out = p.give_packets(&[scatter(&frame)]);
    assert_eq!(out.last().map(|(_, seg)| seg.ack), Some(peer.seq + 6001));
    assert_eq!(p.state(&peer), State::LastAck, "the application has closed, too");
    assert!(p.app.text(peer.id) == text(6000));
}

/// What isn't a segment, or not for us, is discarded as one packet, with its reason.
#[test]
fn what_is_no_segment_is_discarded_as_one() {
    let mut p = jumbo();
    let peer = p.peer();
    let peer = p.open_as(peer, 8940);
    let free = p.stack.pool().free_count();
    let good = p.frame(&peer, &peer.seg(PSH_ACK).data(&text(5000)));
    let bent = |bend: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        bend(&mut frame);
        scatter(&frame)
    };
    let mend = |frame: &mut [u8]| {
        frame[24..26].fill(0);
        let sum = byway_tcp::wire::checksum::finish(byway_tcp::wire::checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    };
    let rows: [(&str, Vec<Vec<u8>>, DropReason); 10] = [
        ("a bit of the last frame", bent(&|f| *f.last_mut().expect("octets") ^= 1), DropReason::TcpChecksum),
        ("a bit of the middle frame", bent(&|f| f[3000] ^= 0x80), DropReason::TcpChecksum),
        ("the IP header", bent(&|f| f[16] ^= 1), DropReason::IpChecksum),
        ("too short", bent(&|f| f.truncate(5000)), DropReason::Truncated),
        ("another's MAC", bent(&|f| f[5] = 9), DropReason::WrongMac),
        ("ARP", bent(&|f| f[13] = 6), DropReason::Scattered),
        (
            "UDP",
            bent(&|f| {
                f[23] = 17;
                mend(f)
            }),
            DropReason::Scattered,
        ),
        (
            "a fragment",
            bent(&|f| {
                f[20] = 0x20;
                mend(f)
            }),
            DropReason::Scattered,
        ),
        ("a group's MAC", bent(&|f| f[6] |= 1), DropReason::Martian),
        ("headers in two frames", vec![good[..40].to_vec(), good[40..1000].to_vec()], DropReason::Truncated),
    ];
    p.stack.note_verdicts(true);
    for (what, packet, reason) in rows {
        let before = p.stack.counters();
        assert!(p.give_packets(&[packet]).is_empty(), "{what}");
        let after = p.stack.counters();
        assert_eq!(after.dropped(reason), before.dropped(reason) + 1, "{what}");
        assert_eq!(after.dropped_total(), before.dropped_total() + 1, "{what}: as one");
        assert_eq!(p.stack.verdicts(), [Some(reason)], "{what}");
        assert_eq!(p.stack.pool().free_count(), free, "{what}");
    }
    // And the connection is as it was.
    let frame = p.frame(&peer, &peer.seg(PSH_ACK).data(b"hello"));
    p.give_packets(&[scatter(&good), vec![frame]]);
    assert_eq!(p.stack.verdicts(), [None, Some(DropReason::Duplicate)], "a verdict a packet");
    assert!(p.app.text(peer.id) == text(5000));
    p.stack.pool().assert_conserved();
}

/// S6.2: an echo request as large as the link takes is answered in packets that fit a frame.
#[test]
fn s6_2_a_large_ping_is_answered() {
    for (src, dst) in [(v4(2), v4(1)), (v6(2), v6(1))] {
        let mut p = jumbo();
        let (protocol, request) = echo(src, dst, 8000);
        let [frame] = &split(src, dst, protocol, &request, 0, 9000)[..] else { panic!("one packet") };
        p.give_packets(&[scatter(frame)]);
        let mut got: Vec<u8> = Vec::new();
        for frame in &p.others {
            let packet = parse(frame, Checksums::Verify).expect("valid");
            let Body::Fragment(ip, part) = packet.body else { panic!("{packet:?}") };
            assert_eq!((ip.src, ip.dst, part.offset), (dst, src, got.len()));
            got.extend(ip.payload_of(frame));
        }
        assert_eq!(got.len(), request.len());
        assert!(got[4..] == request[4..], "the data come back");
        let mut bent = scatter(frame);
        bent[2][7] ^= 1;
        let answers = p.others.len();
        p.give_packets(&[bent, scatter(&frame[..8000])]);
        assert_eq!(p.others.len(), answers, "neither is answered");
        assert_eq!(p.stack.counters().dropped_total(), 2);
        p.stack.pool().assert_conserved();
    }
}

/// A local kernel's super-frame: the checksum field holds the pseudo-header's sum over all of it.
#[test]
fn a_partial_checksum_counts_over_the_whole() {
    for (checksums, taken) in [(Checksums::Verify, 0), (Checksums::AcceptPartial, 20_000)] {
        let mut p = Probe::with(Config { checksums, ..jumbo_config() }, 1024, Instant::from_millis(1000));
        let peer = p.peer();
        let peer = p.open_as(peer, 8940);
        let mut frame = p.frame(&peer, &peer.seg(PSH_ACK).data(&text(20_000)));
        let len = frame.len() - 34;
        let pseudo = byway_tcp::wire::checksum::pseudo_header(v4(2), v4(1), 6, len);
        frame[50..52].copy_from_slice(&byway_tcp::wire::checksum::fold(pseudo).to_be_bytes());
        p.give_packets(&[scatter(&frame)]);
        assert_eq!(p.app.text(peer.id).len(), taken);
        p.stack.pool().assert_conserved();
    }
}

/// P1, P3: frames that a port never gives: any octets, cut anywhere, in any number, between good ones.
#[test]
fn p1_p3_any_frames_panic_nobody_and_none_is_lost() {
    for seed in 0..400 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut p = jumbo();
        p.app.lenient = true;
        p.app.reads = rng.random_bool(0.7);
        let peer = p.peer();
        let mut peer = p.open_as(peer, 8940);
        for _ in 0..20 {
            let batch: Vec<Vec<Vec<u8>>> = (0..rng.random_range(1..8))
                .map(|_| {
                    let len = rng.random_range(0..8000);
                    let flags = Flags(rng.random_range(0..=255));
                    let flags = if rng.random_bool(0.7) { PSH_ACK } else { flags };
                    let seg = peer.seg(flags).data(&text(len));
                    let mut frame = p.frame(
                        &Peer { remote: if rng.random_bool(0.2) { v6(2) } else { v4(2) }, ..peer },
                        &seg,
                    );
                    if flags == PSH_ACK {
                        peer.seq = peer.seq.wrapping_add(len as u32);
                    }
                    if rng.random_bool(0.3) {
                        (0..3).for_each(|_| {
                            let at = rng.random_range(0..frame.len().min(80));
                            frame[at] = rng.random();
                        });
                    }
                    if rng.random_bool(0.1) {
                        rng.fill_bytes(&mut frame);
                    }
                    if rng.random_bool(0.2) {
                        frame.truncate(rng.random_range(0..frame.len()));
                    }
                    let most = rng.random_range(1..=ROOM);
                    let least = if rng.random_bool(0.5) { ROOM } else { most };
                    let mut packet: Vec<Vec<u8>> = frame.chunks(least.max(200)).map(<[u8]>::to_vec).collect();
                    packet.resize(packet.len().max(1) + rng.random_range(0..2), Vec::new());
                    packet
                })
                .collect();
            p.give_packets(&batch);
            p.stack.pool().assert_conserved();
            p.wait_ms(rng.random_range(0..300));
            p.stack.assert_consistent();
        }
    }
}

/// S5.2: a connection's share of memory counts in frames, of which a large segment takes several.
#[test]
fn s5_2_a_window_counts_the_frames_that_segments_take() {
    let mut p = Probe::with(jumbo_config(), 1024, Instant::from_millis(1000));
    p.app.reads = false;
    let peer = p.peer();
    let mut peer = p.open_as(peer, 8940);
    let data = text(8940);
    for _ in 0..200 {
        let frame = p.frame(&peer, &peer.seg(PSH_ACK).data(&data));
        let out = p.give_packets(&[scatter(&frame)]);
        peer.seq = peer.seq.wrapping_add(8940);
        if out.last().is_some_and(|(_, seg)| seg.window == 0) {
            break;
        }
    }
    assert!(p.stack.pool().free_count() > 512, "{} of 1,024 left", p.stack.pool().free_count());
    let read = p.act(&peer, |app, conn| {
        app.reads = true;
        let mut octets = 0;
        while let Some(chunk) = conn.recv() {
            octets += chunk.len();
            conn.release(chunk);
        }
        assert!(octets > 30_000, "{octets}");
    });
    assert!(read.iter().any(|seg| seg.window > 0), "the window opens again");
}

fn merging(frames_sent: u8) -> Probe {
    Probe::with(Config { frames_sent, ..jumbo_config() }, 1024, Instant::from_millis(1000))
}

/// S6.1, S4.4: what leaves together leaves as one packet, as large as link and peer take; its checksum is right
/// (the probe looks), its text whole, and PSH at its end.
#[test]
fn s6_1_segments_that_leave_together_are_one_packet() {
    for peers in [8948, 5000, 1460] {
        for (remote, a_frame) in [(v4(2), 1448), (v6(2), 1428)] {
            let mut p = merging(16);
            let mut peer = Peer { remote, ..p.peer() };
            let syn_ack = p
                .ask(&peer, &peer.seg(SYN).mss(peers).options(Options { mss: Some(peers), ..timestamps(1) }));
            peer.seq += 1;
            peer.ack = syn_ack.end();
            p.give(&peer, &peer.seg(ACK).options(timestamps(2)));
            peer.id = *p.app.opened.last().expect("open");
            let out = p.send(&peer, &text(9000));
            let data: Vec<u8> = out.iter().flat_map(|seg| seg.data.clone()).collect();
            assert!(data == text(9000), "{remote} {peers}");
            let most = (usize::from(peers.min(if remote.is_ipv4() { 8960 } else { 8940 })) - 12) / 256 * 256;
            let mut expected: Vec<usize> = Vec::new();
            for frame in data.chunks(a_frame) {
                match expected.last_mut() {
                    Some(packet) if *packet + frame.len() <= most => *packet += frame.len(),
                    _ => expected.push(frame.len()),
                }
            }
            assert_eq!(out.iter().map(|seg| seg.data.len()).collect::<Vec<_>>(), expected);
            assert!(out[1..].iter().zip(&out).all(|(next, before)| before.end() == next.seq), "{out:?}");
            let pushed: Vec<_> = out.iter().map(|seg| seg.flags.contains(PSH)).collect();
            assert_eq!(pushed.iter().filter(|&&is| is).count(), 1);
            assert!(pushed.last().is_some_and(|&is| is));
            assert_eq!(p.stack.counters().tcp_out_segs, 1 + out.len() as u64, "as they are on the wire");
            let ack = Seg { ack: out.last().expect("sent").end(), ..peer.seg(ACK).options(timestamps(3)) };
            p.tell(&peer, &ack);
            assert_eq!(p.info(peer.id).expect("open").unacked, 0);
            p.stack.pool().assert_conserved();
        }
    }
}

/// S5.6, S6.2: what is lost is repeated in frames of its own, and after a timeout nothing is merged any more.
#[test]
fn s6_2_what_was_lost_for_its_size_is_repeated_in_smaller_pieces() {
    let mut p = merging(16);
    let peer = p.peer();
    let peer = p.open_as(peer, 8940);
    let out = p.send(&peer, &text(6000));
    assert_eq!(out.iter().map(|seg| seg.data.len()).collect::<Vec<_>>(), [6000]);
    let repeated: Vec<_> = p.wait_ms(5000).into_iter().map(|(_, seg)| seg).collect();
    assert!(!repeated.is_empty() && repeated.iter().all(|seg| seg.data.len() <= MSS), "{repeated:?}");
    let ack = Seg { ack: out[0].end(), ..peer.seg(ACK) };
    p.tell(&peer, &ack);
    let peer = Peer { ack: out[0].end(), ..peer };
    let out = p.send(&peer, &text(6000));
    assert!(out.len() > 1 && out.iter().all(|seg| seg.data.len() <= MSS), "{out:?}");
}

/// P3: two stacks, of which one merges: the same text under the same numbers, whatever is written, acknowledged and
/// lost; the one that merges sends no more packets.
#[test]
fn p3_merged_or_not_the_same_text_is_sent() {
    for seed in 0..200 {
        let mut both = [merging(1), merging(4)];
        let mut sent = [0, 0];
        let results = [0, 1].map(|n| {
            let mut rng = SmallRng::seed_from_u64(seed);
            let p = &mut both[n];
            let mss = [600, 1460, 3000, 8960][rng.random_range(0..4)];
            let (mut peer, _) =
                p.half_open(Options { mss: Some(mss), sack_permitted: true, ..timestamps(1) });
            p.give(&peer, &peer.seg(ACK).options(timestamps(1)));
            peer.id = *p.app.opened.last().expect("open");
            let start = peer.ack;
            let mut stream = vec![None; 200_000];
            let mut highest = start;
            for step in 0..30u32 {
                let len = rng.random_range(1..4000);
                let chunk = text(len);
                let out = p.act(&peer, |_, conn| {
                    for part in chunk.chunks(rng.random_range(200..1600)) {
                        let Some(mut chunk) = conn.alloc() else { break };
                        conn.append(&mut chunk, part);
                        if let Err(chunk) = conn.send(chunk) {
                            conn.release(chunk);
                        }
                    }
                });
                let later = if rng.random_bool(0.2) { p.wait_ms(400) } else { Vec::new() };
                for seg in out.iter().chain(later.iter().map(|(_, seg)| seg)) {
                    sent[n] += 1;
                    assert!(seg.data.len() <= usize::from(mss.min(8960)) - 12, "{} of {mss}", seg.data.len());
                    let at = seg.seq.wrapping_sub(start) as usize;
                    for (place, &octet) in stream[at..].iter_mut().zip(&seg.data) {
                        assert!(place.is_none_or(|old| old == octet), "seed {seed}");
                        *place = Some(octet);
                    }
                    highest = if seg.end().wrapping_sub(highest) < 1 << 31 { seg.end() } else { highest };
                }
                if rng.random_bool(0.5) {
                    p.give(&peer, &Seg { ack: highest, ..peer.seg(ACK).options(timestamps(step + 2)) });
                }
                p.stack.assert_consistent();
            }
            p.stack.pool().assert_conserved();
            let text: Vec<u8> = stream.into_iter().map_while(|octet| octet).collect();
            text
        });
        let shorter = results[0].len().min(results[1].len());
        assert!(shorter > 0 && results[0][..shorter] == results[1][..shorter], "seed {seed}");
        assert!(sent[1] <= sent[0], "seed {seed}: {sent:?}");
    }
}
