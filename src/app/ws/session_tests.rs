//! WebSockets over real frames, as a client sees them.

use byway_tcp::time::Duration;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tungstenite::protocol::frame::FrameHeader;
pub(super) use tungstenite::protocol::frame::coding::OpCode;
use tungstenite::protocol::frame::coding::{Control, Data};

use super::super::super::testing::{HTTP, Peer, config};

pub(super) const TEXT: OpCode = OpCode::Data(Data::Text);
pub(super) const BINARY: OpCode = OpCode::Data(Data::Binary);
pub(super) const MORE: OpCode = OpCode::Data(Data::Continue);
pub(super) const CLOSE: OpCode = OpCode::Control(Control::Close);
pub(super) const PING: OpCode = OpCode::Control(Control::Ping);
pub(super) const PONG: OpCode = OpCode::Control(Control::Pong);

/// A client's frame. The header is tungstenite's, the mask the plain XOR.
pub(super) fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let header = FrameHeader { is_final, opcode, mask: Some(key), ..FrameHeader::default() };
    let mut wire = Vec::new();
    header.format(payload.len() as u64, &mut wire).expect("a header");
    wire.extend(payload.iter().enumerate().map(|(index, octet)| octet ^ key[index % 4]));
    wire
}

/// A server's frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Received {
    pub(super) fin: bool,
    pub(super) opcode: OpCode,
    pub(super) payload: Vec<u8>,
}

/// The frames that `octets` consist of, read with tungstenite, and whether RSV1 is set.
pub(super) fn frames_with_rsv1(octets: &[u8]) -> Vec<(Received, bool)> {
    let mut cursor = std::io::Cursor::new(octets);
    let mut frames = Vec::new();
    while (cursor.position() as usize) < octets.len() {
        let (header, len) = FrameHeader::parse(&mut cursor).expect("a valid header").expect("a whole header");
        assert!(header.mask.is_none() && !header.rsv2 && !header.rsv3);
        let from = cursor.position() as usize;
        let payload = octets[from..from + len as usize].to_vec();
        cursor.set_position(from as u64 + len);
        frames.push((Received { fin: header.is_final, opcode: header.opcode, payload }, header.rsv1));
    }
    frames
}

/// The same where nothing is compressed.
pub(super) fn frames(octets: &[u8]) -> Vec<Received> {
    let plain = |(frame, rsv1): (Received, bool)| {
        assert!(!rsv1);
        frame
    };
    frames_with_rsv1(octets).into_iter().map(plain).collect()
}

/// What a client makes of the frames: whole messages, and control frames where they were.
pub(super) fn messages(octets: &[u8]) -> Vec<(OpCode, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut open: Option<(OpCode, Vec<u8>)> = None;
    for Received { fin, opcode, payload } in frames(octets) {
        match opcode {
            OpCode::Control(_) => messages.push((opcode, payload)),
            MORE => {
                let message = open.as_mut().expect("continuation of a message");
                message.1.extend_from_slice(&payload);
                if fin {
                    messages.extend(open.take());
                }
            }
            opcode => {
                assert!(open.is_none(), "a message inside a message");
                open = Some((opcode, payload));
                if fin {
                    messages.extend(open.take());
                }
            }
        }
    }
    // A message is left unfinished only when the connection is being closed.
    assert!(open.is_none() || messages.last().is_some_and(|last| last.0 == CLOSE), "an unfinished message");
    messages
}

pub(super) const UPGRADE: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A client whose handshake is done.
fn open_with(path: &str, mut peer: Peer) -> Peer {
    peer.send(format!("GET {path} HTTP/1.1\r\n{UPGRADE}").as_bytes());
    let answer = peer.take();
    assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
    peer
}

fn open(path: &str) -> Peer {
    open_with(path, Peer::connect(HTTP))
}

/// Sends `wire` and expects the connection to be closed with `code`, after `before`.
fn closes(wire: &[u8], before: &[(OpCode, &[u8])], code: u16) {
    for size in [1460, 1, 3] {
        let mut peer = open("/");
        peer.send_cut(wire, &[size]);
        let mut expected: Vec<_> =
            before.iter().map(|&(opcode, payload)| (opcode, payload.to_vec())).collect();
        expected.push((CLOSE, code.to_be_bytes().to_vec()));
        assert_eq!(messages(peer.received()), expected, "pieces of {size}");
        assert!(peer.server_finished());
        assert_eq!((peer.held(), peer.unread()), (0, 0));
        peer.close();
    }
}

pub(super) fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut octets = vec![0; len];
    SmallRng::seed_from_u64(seed).fill(&mut octets[..]);
    octets
}

/// Text of `len` octets in code points of one to four octets.
pub(super) fn text(len: usize) -> Vec<u8> {
    let mut text: Vec<u8> = "aä€🦀".bytes().cycle().take(len / 10 * 10).collect();
    text.resize(len, b'.');
    text
}

#[test]
fn s9_2_the_upgrade_and_the_frames_behind_it() {
    let mut peer = Peer::connect(HTTP);
    let mut wire = format!("GET /x HTTP/1.1\r\n{UPGRADE}").into_bytes();
    wire.extend(frame(TEXT, true, b"Hello"));
    wire.extend(frame(BINARY, true, b""));
    peer.send(&wire);
    let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(peer.received(), [&head[..], b"\x81\x05Hello\x82\x00"].concat());
    peer.close();
}

#[test]
fn h7_bytes_after_the_upgrade_are_not_http() {
    let mut peer = Peer::connect(HTTP);
    peer.send(format!("GET /x HTTP/1.1\r\n{UPGRADE}GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let answer = peer.take();
    assert!(answer.ends_with(b"\r\n\r\n\x88\x02\x03\xea"), "1002");
}

#[test]
fn s9_5_a_message_comes_back_in_its_own_frame() {
    for (opcode, len) in [(TEXT, 0), (TEXT, 5), (BINARY, 125), (TEXT, 126), (BINARY, 1400), (TEXT, 1452)] {
        let mut peer = open("/");
        let before = peer.chunks_sent();
        peer.fail_allocs(1.0, 1);
        peer.send(&frame(opcode, true, &text(len)));
        assert_eq!(frames(peer.received()), [Received { fin: true, opcode, payload: text(len) }]);
        assert_eq!((peer.copied(), peer.chunks_sent() - before), (0, 1));
        peer.close();
    }
}

#[test]
fn s9_5_many_messages_in_a_chunk_are_answered_in_one() {
    let mut peer = open("/");
    let before = peer.chunks_sent();
    let wire: Vec<u8> = (0..10_000).flat_map(|number| frame(TEXT, true, &text(number % 200))).collect();
    peer.send(&wire);
    let received = messages(peer.received());
    assert_eq!(received.len(), 10_000);
    assert!(received.iter().enumerate().all(|(number, message)| *message == (TEXT, text(number % 200))));
    assert_eq!((peer.copied(), peer.held()), (0, 0));
    assert!(peer.chunks_sent() - before <= wire.len().div_ceil(1460) + 10);
    assert!(peer.longest_chunk() <= 1460);
}

#[test]
fn s9_5_binary_is_streamed_without_a_copy() {
    let payload = random(1_000_000, 1);
    let mut peer = open_with("/", Peer::connect_with(HTTP, config(), 16));
    peer.set_room(4);
    let before = peer.chunks_sent();
    let wire = frame(BINARY, true, &payload);
    peer.send(&wire);
    let received = frames(peer.received());
    assert_eq!(received.len(), 1, "one frame for one frame");
    assert!(received[0].payload == payload);
    assert_eq!((peer.copied(), peer.longest_chunk()), (0, 1460));
    assert_eq!(peer.chunks_sent() - before, wire.len().div_ceil(1460));
    peer.close();

    // The frame's header ends at a segment's end: the reply's goes ahead in its own.
    let mut peer = open("/");
    peer.send_cut(&wire, &[14, 1460]);
    assert!(frames(peer.received())[0].payload == payload);
    assert_eq!((peer.copied(), peer.longest_chunk()), (0, 1460));
}

#[test]
fn s9_5_text_over_several_chunks_is_held_and_echoed_whole() {
    let payload = text(60_000);
    let wire = frame(TEXT, true, &payload);
    let mut peer = open("/");
    let (last, before) = (wire.len() - 1, peer.chunks_sent());
    peer.send(&wire[..last]);
    assert!(peer.received().is_empty());
    assert_eq!(peer.held() as usize, last.div_ceil(1460));
    peer.send(&wire[last..]);
    assert_eq!(frames(peer.received()), [Received { fin: true, opcode: TEXT, payload }]);
    assert_eq!((peer.copied(), peer.held()), (0, 0));
    assert_eq!(peer.chunks_sent() - before, last.div_ceil(1460) + 1);
    assert!(peer.longest_chunk() <= 1460);
}

#[test]
fn s9_5_w4_16_mib_pass_with_64_frames() {
    let payload = text(16 << 20);
    for (opcode, size) in [(TEXT, 1460), (BINARY, 1460), (TEXT, 1000)] {
        let mut peer = open_with("/", Peer::connect_with(HTTP, config(), 64));
        peer.send_cut(&frame(opcode, true, &payload), &[size]);
        let received = messages(peer.received());
        assert_eq!(received.len(), 1);
        assert!(received[0] == (opcode, payload.clone()));
        assert_eq!((peer.copied(), peer.held()), (0, 0));
        assert!(peer.longest_chunk() <= 1460);
        peer.close();
    }
}

#[test]
fn w4_messages_over_the_cap_are_1009_on_the_header() {
    let over = FrameHeader { is_final: true, opcode: BINARY, mask: Some([0; 4]), ..FrameHeader::default() };
    for len in [(16 << 20) + 1, u64::MAX >> 1] {
        let mut wire = Vec::new();
        over.format(len, &mut wire).expect("a header");
        closes(&wire, &[], 1009);
    }
    // The cap counts all fragments.
    let mut peer = open("/");
    peer.send(&frame(BINARY, false, &random(16 << 20, 2)));
    peer.take();
    peer.send(&frame(MORE, true, b"x"));
    assert_eq!(messages(peer.received()), [(CLOSE, 1009u16.to_be_bytes().to_vec())]);
}

#[test]
fn w4_a_fragment_bomb_is_cut_off() {
    let mut peer = open("/");
    peer.send(&frame(TEXT, false, b""));
    peer.send(&frame(MORE, false, b"").repeat((1 << 18) - 1));
    assert!(!peer.server_finished());
    peer.send(&frame(MORE, false, b""));
    assert!(peer.received().ends_with(b"\x88\x02\x03\xf0"), "1008");
    assert!(peer.server_finished());
}

#[test]
fn s9_5_fragments_come_back_fragment_for_fragment() {
    let mut peer = open("/");
    let euro = "€".as_bytes();
    let fragments =
        [(TEXT, false, &euro[..1]), (MORE, false, &[]), (MORE, false, &euro[1..2]), (MORE, true, &euro[2..])];
    for (opcode, fin, payload) in fragments {
        peer.send(&frame(opcode, fin, payload));
        let expected = Received { fin, opcode, payload: payload.to_vec() };
        assert_eq!(frames(&peer.take()), [expected]);
        peer.send(&frame(PING, true, b"between"));
        assert_eq!(messages(&peer.take()), [(PONG, b"between".to_vec())]);
    }
    peer.send(&frame(TEXT, true, b"next"));
    assert_eq!(messages(&peer.take()), [(TEXT, b"next".to_vec())]);
}

#[test]
fn s9_5_pings_are_answered_pongs_are_not() {
    let mut peer = open("/");
    let payload = random(125, 3);
    peer.send(&[frame(PONG, true, b"unasked"), frame(PING, true, b""), frame(PING, true, &payload)].concat());
    assert_eq!(messages(&peer.take()), [(PONG, vec![]), (PONG, payload.clone())]);
    peer.send_cut(&frame(PING, true, &payload), &[1]);
    assert_eq!(messages(&peer.take()), [(PONG, payload)]);
}

#[test]
fn w7_a_ping_flood_is_held_up_by_the_clients_own_reading() {
    let mut peer = open("/");
    peer.set_room(2);
    peer.hold_acks(true);
    peer.send(&frame(PING, true, &[7; 125]).repeat(1000));
    assert!(peer.held() <= 2);
    assert!(peer.unread() > 80);
    peer.hold_acks(false);
    peer.pump();
    assert_eq!(messages(peer.received()).len(), 1000);
}

/// What piled up while the client didn't read is worked off a batch or so in a turn: here frames that need no answer,
/// and so aren't held up by its reading.
#[test]
fn w4_w7_a_backlog_is_spread_over_turns() {
    let mut peer = open_with("/", Peer::connect_with(HTTP, config(), 512));
    peer.queue(&frame(PONG, true, b"").repeat(100_000)[..1460 * 400]);
    peer.hold_acks(true);
    peer.readable();
    assert_eq!(peer.unread(), 400 - 72);
    let mut turns = 0;
    while peer.turn() {
        turns += 1;
    }
    assert_eq!((peer.unread(), turns), (0, 5));
    // 1460 isn't a multiple of a pong's 6 octets: the last one ends with what comes now.
    let rest = frame(PONG, true, b"").repeat(100_000).split_off(1460 * 400)[..4].to_vec();
    assert_eq!((1460 * 400 + rest.len()) % 6, 0);
    peer.send(&[rest, frame(TEXT, true, b"in step")].concat());
    assert_eq!(messages(peer.received()), [(TEXT, b"in step".to_vec())]);
    peer.close();
}

#[test]
fn s9_5_the_closing_handshake_echoes_the_code() {
    for code in [1000u16, 1001, 1003, 1007, 1011, 3000, 4999] {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice("bye ä".as_bytes());
        closes(&frame(CLOSE, true, &payload), &[], code);
    }
    let mut peer = open("/");
    peer.send(
        &[frame(TEXT, true, b"last"), frame(CLOSE, true, b""), frame(TEXT, true, b"too late")].concat(),
    );
    assert_eq!(messages(peer.received()), [(TEXT, b"last".to_vec()), (CLOSE, vec![])]);
    assert!(peer.server_finished());
    peer.send(b"what still comes is discarded");
    assert_eq!(peer.unread(), 0);
    peer.finish();
    peer.pass(Duration::from_secs(60));
    assert!(!peer.server_aborted());
}

#[test]
fn w6_close_frames_that_are_wrong() {
    for code in [0u16, 999, 1004, 1005, 1006, 1012, 1015, 1100, 2000, 2999, 5000, 65535] {
        closes(&frame(CLOSE, true, &code.to_be_bytes()), &[], 1002);
    }
    closes(&frame(CLOSE, true, &[3]), &[], 1002);
    closes(&frame(CLOSE, true, b"\x03\xe8\xff"), &[], 1007);
    closes(&frame(CLOSE, true, b"\x03\xe8\xe2\x82"), &[], 1007);
}

#[test]
fn w2_w3_violations_are_1002_after_what_was_right() {
    let good = frame(TEXT, true, b"good");
    let before: &[(OpCode, &[u8])] = &[(TEXT, b"good")];
    let mut unmasked = Vec::new();
    let header = FrameHeader { is_final: true, opcode: TEXT, mask: None, ..FrameHeader::default() };
    header.format(2, &mut unmasked).expect("a header");
    for bad in [
        unmasked,
        vec![0xc1, 0x80, 0, 0, 0, 0],
        vec![0x83, 0x80, 0, 0, 0, 0],
        vec![0x8b, 0x80, 0, 0, 0, 0],
        vec![0x09, 0x80, 0, 0, 0, 0],
        vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0],
        vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0],
        vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1],
        frame(MORE, true, b"of nothing"),
    ] {
        closes(&[&good[..], &bad].concat(), before, 1002);
    }
    let inside = [frame(TEXT, false, b"a"), frame(TEXT, true, b"b")].concat();
    for size in [1, 100] {
        let mut peer = open("/");
        peer.send_cut(&inside, &[size]);
        let received = frames(peer.received());
        assert_eq!(received[0], Received { fin: false, opcode: TEXT, payload: b"a".to_vec() });
        assert_eq!(received[1], Received { fin: true, opcode: CLOSE, payload: vec![3, 0xea] });
        peer.close();
    }
}

#[test]
fn w6_text_that_is_not_utf8_is_1007_at_the_first_bad_octet() {
    closes(&frame(TEXT, true, b"\xff"), &[], 1007);
    closes(&frame(TEXT, true, b"ends inside \xe2\x82"), &[], 1007);
    closes(
        &[frame(BINARY, true, b"\xff"), frame(TEXT, true, b"\xed\xa0\x80")].concat(),
        &[(BINARY, b"\xff")],
        1007,
    );
    // The frame isn't complete, and the close comes all the same.
    let mut bad = text(5000);
    bad[3000] = 0xff;
    let wire = frame(TEXT, true, &bad);
    closes(&wire[..4000], &[], 1007);
    // Over fragments: the first octets could still become a code point, the last can't.
    let mut peer = open("/");
    peer.send(&frame(TEXT, false, b"\xf4"));
    assert_eq!(frames(&peer.take()).len(), 1);
    peer.send(&frame(MORE, false, b"\x90")[..7]);
    assert_eq!(messages(&peer.take()), [(CLOSE, vec![3, 0xef])]);
    peer.close();
    let mut peer = open("/");
    peer.send(&frame(TEXT, false, b"\xe2\x82"));
    peer.take();
    peer.send(&frame(MORE, true, b""));
    assert_eq!(messages(&peer.take()), [(CLOSE, vec![3, 0xef])]);
}

#[test]
fn s9_3_the_ticker_pushes_and_echoes() {
    let mut peer = open("/ticker");
    peer.pass(Duration::from_millis(999));
    assert!(peer.received().is_empty());
    peer.pass(Duration::from_millis(1));
    assert_eq!(messages(&peer.take()), [(TEXT, br#"{"tick":1,"seconds":1}"#.to_vec())]);
    peer.send(&frame(TEXT, true, b"hi"));
    assert_eq!(messages(&peer.take()), [(TEXT, b"hi".to_vec())]);
    peer.pass(Duration::from_secs(3));
    let ticks = messages(&peer.take());
    assert_eq!(ticks.len(), 3);
    assert_eq!(ticks[2].1, br#"{"tick":4,"seconds":4}"#);
    peer.close();
    let mut peer = open("/tick");
    peer.pass(Duration::from_secs(3));
    assert!(peer.received().is_empty());
}

#[test]
fn s9_3_a_tick_never_lands_inside_a_message() {
    for (first, second) in [
        // A streamed frame, a fragmented message, held text that has begun to go out.
        (frame(BINARY, true, &random(5000, 4)), None),
        (frame(TEXT, false, b"first"), Some(frame(MORE, true, b"second"))),
        (frame(TEXT, true, &text(200_000)), None),
    ] {
        let mut peer = open("/ticker");
        let cut = if second.is_some() { first.len() } else { first.len() - 1 };
        peer.send(&first[..cut]);
        peer.pass(Duration::from_secs(3));
        peer.send(&first[cut..]);
        peer.send(&second.unwrap_or_default());
        let received = messages(peer.received());
        assert_eq!(received.len(), 2, "the message, then one tick");
        assert_eq!(received[1].1, br#"{"tick":1,"seconds":3}"#);
        peer.close();
    }
}

/// P5 D2: a peer that falls silent in the middle of a text doesn't keep frames from the others.
#[test]
fn w7_text_of_a_silent_peer_is_not_held_for_ever() {
    let mut peer = open("/");
    let message = text(20_000);
    let octets = frame(TEXT, true, &message);
    for part in octets[..octets.len() - 1].chunks(1_000) {
        peer.send(part);
    }
    assert!(peer.received().is_empty(), "held back");
    peer.pass(Duration::from_millis(2_100));
    assert!(peer.received().len() > 15_000, "{} octets came", peer.received().len());
    peer.send(&octets[octets.len() - 1..]);
    assert_eq!(messages(&peer.take()), [(TEXT, message)]);
    peer.close();
}

#[test]
fn s9_3_ticks_wait_for_room_and_do_not_pile_up() {
    let mut peer = open("/ticker");
    peer.set_room(1);
    peer.hold_acks(true);
    peer.pass(Duration::from_secs(100));
    assert!(peer.held() <= 2);
    peer.hold_acks(false);
    peer.pump();
    let received = messages(peer.received());
    assert!(received.len() <= 3, "{received:?}");
}

#[test]
fn s9_5_the_peers_fin_without_close_ends_the_connection() {
    let mut peer = open("/");
    peer.send(&frame(TEXT, true, &text(3000))[..2000]);
    assert!(peer.held() > 0);
    peer.finish();
    assert!(peer.server_finished());
    assert_eq!(peer.held(), 0);
}

#[test]
fn s9_5_a_draining_server_says_going_away() {
    let mut peer = open("/ticker");
    peer.drain();
    assert_eq!(messages(peer.received()), [(CLOSE, vec![3, 0xe9])]);
    assert!(peer.server_finished());
    peer.close();
    let mut peer = open("/");
    let wire = frame(BINARY, true, &random(5000, 4));
    peer.send(&wire[..4000]);
    peer.drain();
    assert!(!peer.server_finished(), "not inside a frame");
    peer.send(&wire[4000..]);
    assert_eq!(messages(peer.received()), [(BINARY, random(5000, 4)), (CLOSE, vec![3, 0xe9])]);
    assert!(peer.server_finished());
}

#[test]
fn d2_no_text_is_held_when_room_is_short() {
    let payload = text(20_000);
    let mut peer = open("/");
    peer.set_room(10);
    peer.send(&frame(TEXT, true, &payload)[..19_000]);
    assert!(peer.held() <= 2, "{}", peer.held());
    peer.send(&frame(TEXT, true, &payload)[19_000..]);
    assert_eq!(messages(peer.received()), [(TEXT, payload)]);
    assert_eq!(peer.copied(), 0);
}

/// Messages of all kinds and the frames they are sent in.
fn script() -> impl Strategy<Value = (Vec<u8>, Vec<(OpCode, Vec<u8>)>)> {
    let len = prop_oneof![0usize..20, 100usize..140, 1000usize..3000];
    let message = (0u8..4, len, proptest::collection::vec(0usize..3000, 0..4), any::<bool>());
    proptest::collection::vec(message, 1..12).prop_map(|messages| {
        let (mut wire, mut expected) = (Vec::new(), Vec::new());
        for (kind, len, mut cuts, pinged) in messages {
            let (opcode, payload) = match kind {
                0 | 1 => (TEXT, text(len)),
                2 => (BINARY, random(len, len as u64)),
                _ => (PING, random(len % 126, 1)),
            };
            if opcode == PING {
                wire.extend(frame(PING, true, &payload));
                expected.push((PONG, payload));
                continue;
            }
            cuts.iter_mut().for_each(|cut| *cut %= payload.len() + 1);
            cuts.sort_unstable();
            let mut from = 0;
            for (index, &cut) in cuts.iter().enumerate() {
                wire.extend(frame(if index == 0 { opcode } else { MORE }, false, &payload[from..cut]));
                from = cut;
                if pinged {
                    wire.extend(frame(PING, true, b"p"));
                    expected.push((PONG, b"p".to_vec()));
                }
            }
            wire.extend(frame(if cuts.is_empty() { opcode } else { MORE }, true, &payload[from..]));
            expected.push((opcode, payload));
        }
        (wire, expected)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Cuts, room, memory, segment size and headroom change no message.
    #[test]
    fn h6_messages_do_not_depend_on_the_circumstances(
        (wire, expected) in script(),
        sizes in proptest::collection::vec(1usize..1460, 1..80), small: bool,
        room in 1usize..6, failure in prop_oneof![Just(0.0), Just(0.5), Just(0.9)],
        mss in prop_oneof![Just(1460usize), 48usize..600], offset in prop_oneof![Just(310usize), 128usize..140],
        seed: u64,
    ) {
        let mut peer = open_with("/", Peer::connect_with(HTTP, config(), 512));
        peer.set_mss(mss);
        peer.set_offset(offset);
        peer.set_room(room);
        peer.fail_allocs(failure, seed);
        let sizes: Vec<usize> = sizes.into_iter().map(|size| if small { size % 16 + 1 } else { size }).collect();
        peer.send_cut(&wire, &sizes);
        prop_assert_eq!(messages(peer.received()), expected);
        prop_assert_eq!((peer.copied(), peer.held()), (0, 0));
        peer.close();
    }

    /// Whatever comes, nothing breaks and nothing leaks.
    #[test]
    fn p1_octets_of_any_kind_are_survived(
        (mut wire, _) in script(), noise in proptest::collection::vec(any::<u8>(), 0..40),
        at in 0usize..3000, size in 1usize..200,
    ) {
        let at = at.min(wire.len());
        wire.splice(at..wire.len().min(at + noise.len()), noise);
        let mut peer = open("/ticker");
        peer.send_cut(&wire, &[size]);
        peer.pass(Duration::from_secs(2));
        frames_or_part(peer.received());
        peer.finish();
        prop_assert!(peer.server_finished());
        peer.close();
    }
}

/// Every header is valid; the last frame may be incomplete.
fn frames_or_part(octets: &[u8]) {
    let mut cursor = std::io::Cursor::new(octets);
    while (cursor.position() as usize) < octets.len() {
        let (_, len) = FrameHeader::parse(&mut cursor).expect("a valid header").expect("a whole header");
        cursor.set_position(cursor.position() + len);
    }
}
