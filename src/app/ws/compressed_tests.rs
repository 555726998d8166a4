//! permessage-deflate over real frames, as a client sees it. The client's codec is flate2's, on its own.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::super::super::testing::{HTTP, Peer, config};
use super::tests::*;

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A client's two histories.
struct Codec {
    deflate: Compress,
    inflate: Decompress,
}

impl Codec {
    /// `bits`: log2 of the server's window.
    fn new(bits: u8) -> Self {
        Self {
            deflate: Compress::new(Compression::new(6), false),
            inflate: Decompress::new_with_window_bits(false, bits),
        }
    }

    fn pack(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::with_capacity(plain.len() * 2 + 100);
        self.deflate.compress_vec(plain, &mut packed, FlushCompress::Sync).expect("deflates");
        match packed.strip_suffix(&TAIL) {
            Some(stripped) => stripped.to_vec(),
            None => vec![0],
        }
    }

    fn unpack(&mut self, packed: &[u8]) -> Vec<u8> {
        let (mut input, mut plain) = ([packed, &TAIL].concat(), Vec::new());
        loop {
            plain.reserve(1 << 16);
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let status =
                self.inflate.decompress_vec(&input, &mut plain, FlushDecompress::Sync).expect("inflates");
            assert_ne!(status, Status::StreamEnd);
            input.drain(..(self.inflate.total_in() - before.0) as usize);
            if (self.inflate.total_in(), self.inflate.total_out()) == before {
                assert!(input.is_empty());
                return plain;
            }
        }
    }

    /// Whole messages, inflated, and control frames where they were; with each whether it came compressed.
    fn messages(&mut self, octets: &[u8]) -> Vec<(OpCode, Vec<u8>, bool)> {
        let mut messages = Vec::new();
        let mut open: Option<(OpCode, Vec<u8>, bool)> = None;
        for (Received { fin, opcode, payload }, rsv1) in frames_with_rsv1(octets) {
            match opcode {
                OpCode::Control(_) => {
                    assert!(!rsv1);
                    messages.push((opcode, payload, false));
                    continue;
                }
                MORE => {
                    assert!(!rsv1, "only a message's first frame says that it is compressed");
                    open.as_mut().expect("continuation of a message").1.extend_from_slice(&payload);
                }
                opcode => {
                    assert!(open.replace((opcode, payload, rsv1)).is_none(), "a message inside another")
                }
            }
            if fin && let Some((opcode, payload, packed)) = open.take() {
                let plain = if packed { self.unpack(&payload) } else { payload };
                messages.push((opcode, plain, packed));
            }
        }
        assert!(
            open.is_none() || messages.last().is_some_and(|last| last.0 == CLOSE),
            "an unfinished message"
        );
        messages
    }

    /// Sends a message in one frame, and takes the answer.
    fn echo(&mut self, peer: &mut Peer, opcode: OpCode, plain: &[u8]) -> (Vec<u8>, bool) {
        peer.send(&compressed(opcode, true, &self.pack(plain)));
        let answer = peer.take();
        let mut messages = self.messages(&answer);
        assert_eq!(messages.len(), 1);
        let (kind, echo, packed) = messages.remove(0);
        assert!((kind, &echo[..]) == (opcode, plain));
        (answer, packed)
    }
}

/// A client's first frame of a compressed message.
fn compressed(opcode: OpCode, fin: bool, packed: &[u8]) -> Vec<u8> {
    let mut wire = frame(opcode, fin, packed);
    wire[0] |= 0x40;
    wire
}

fn open_with_offer(offer: &str, mut peer: Peer) -> (Peer, String) {
    let upgrade = UPGRADE.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"));
    peer.send(format!("GET / HTTP/1.1\r\n{upgrade}").as_bytes());
    let answer = String::from_utf8(peer.take()).expect("ASCII");
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    let line = answer.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    (peer, line.unwrap_or_default().to_owned())
}

fn open_deflate(parameters: &str) -> Peer {
    let (peer, answer) = open_with_offer(&format!("permessage-deflate{parameters}"), Peer::connect(HTTP));
    assert!(answer.starts_with("permessage-deflate"));
    peer
}

/// JSON-like: deflates well, and not into nothing.
fn records(len: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|id| {
            format!("{{\"id\":{id},\"price\":{},\"name\":\"sensor-{}\"}}\n", id * 7919 % 10_007, id % 17)
                .into_bytes()
        })
        .take(len)
        .collect()
}

#[test]
fn w5_what_is_agreed_and_declined() {
    let answered = |offer: &str| open_with_offer(offer, Peer::connect(HTTP)).1;
    assert_eq!(answered("permessage-deflate; client_max_window_bits"), "permessage-deflate");
    assert_eq!(
        answered("permessage-deflate; server_max_window_bits=10"),
        "permessage-deflate; server_max_window_bits=10"
    );
    assert_eq!(answered("permessage-deflate; server_max_window_bits=8"), "");
    assert_eq!(answered("foo"), "");
    // On several lines it is one list.
    assert_eq!(answered("foo\r\nSec-WebSocket-Extensions: permessage-deflate"), "permessage-deflate");
    let mut none = config();
    none.limits.deflaters = 0;
    let (mut peer, answer) = open_with_offer("permessage-deflate", Peer::connect_with(HTTP, none, 256));
    assert_eq!(answer, "", "the core has no room for it");
    peer.send(&compressed(TEXT, true, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
    assert_eq!(messages(peer.received()), [(CLOSE, vec![3, 0xea])]);
}

/// The octets of RFC 7692 §7.2.3.
#[test]
fn w1_the_rfcs_examples() {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    for packed in [
        &hello[..],
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ] {
        for size in [1460, 1, 3] {
            let mut peer = open_deflate("");
            for _ in 0..3 {
                peer.send_cut(&compressed(TEXT, true, packed), &[size]);
                assert_eq!(messages(&peer.take()), [(TEXT, b"Hello".to_vec())], "{packed:?}");
            }
        }
    }
    // Sharing the history, in two fragments, and nothing at all.
    let mut peer = open_deflate("");
    peer.send(&compressed(TEXT, true, hello));
    peer.send(&compressed(TEXT, true, b"\xf2\x00\x11\x00\x00"));
    peer.send(&compressed(TEXT, false, &hello[..3]));
    peer.send(&frame(PING, true, b"between"));
    peer.send(&frame(MORE, true, &hello[3..]));
    peer.send(&compressed(BINARY, true, b"\x00"));
    peer.send(&compressed(BINARY, true, b""));
    let hello = (TEXT, b"Hello".to_vec());
    let expected = [
        hello.clone(),
        hello.clone(),
        (PONG, b"between".to_vec()),
        hello,
        (BINARY, vec![]),
        (BINARY, vec![]),
    ];
    assert_eq!(messages(peer.received()), expected);
    peer.close();
}

#[test]
fn w1_messages_of_all_sizes_under_all_parameters() {
    for (parameters, bits) in [
        ("", 15),
        ("; server_no_context_takeover", 15),
        ("; client_no_context_takeover; client_max_window_bits=9", 15),
        ("; server_max_window_bits=9", 9),
        ("; server_max_window_bits=11; server_no_context_takeover", 11),
    ] {
        let (mut peer, mut codec) = (open_deflate(parameters), Codec::new(bits));
        for len in [0, 1, 63, 64, 255, 256, 1_000, 8_191, 8_192, 8_193, 16_384, 16_385, 100_000, 1 << 20] {
            for (opcode, plain) in [(TEXT, records(len)), (BINARY, random(len, 7)), (TEXT, text(len))] {
                if parameters.contains("server_no") {
                    codec.inflate.reset(false);
                    codec.inflate = Decompress::new_with_window_bits(false, bits);
                }
                codec.echo(&mut peer, opcode, &plain);
            }
        }
        assert_eq!(peer.held(), 0);
        assert!(peer.longest_chunk() <= 1460);
        peer.close();
    }
}

#[test]
fn w5_an_answer_is_compressed_when_the_message_was_and_it_pays() {
    let (mut peer, mut codec) = (open_deflate(""), Codec::new(15));
    assert!(!codec.echo(&mut peer, TEXT, &records(63)).1);
    assert!(codec.echo(&mut peer, TEXT, &records(64)).1);
    let first = codec.echo(&mut peer, TEXT, &records(1_000)).0.len();
    let again = codec.echo(&mut peer, TEXT, &records(1_000)).0.len();
    assert!(first < 600 && again < 60, "{first}, and {again} with the history");
    // What comes plain goes back plain, and where it lies.
    let copied = peer.copied();
    peer.send(&frame(TEXT, true, &records(1_000)));
    assert_eq!(codec.messages(&peer.take()), [(TEXT, records(1_000), false)]);
    assert_eq!(peer.copied(), copied);

    let (mut peer, mut codec) = (open_deflate("; server_no_context_takeover"), Codec::new(15));
    assert!(!codec.echo(&mut peer, TEXT, &records(255)).1);
    let first = codec.echo(&mut peer, TEXT, &records(1_000)).0;
    assert_eq!(codec.echo(&mut peer, TEXT, &records(1_000)).0, first, "each by itself");
}

/// Copies are counted as what they are: inflated, and deflated.
#[test]
fn p2_what_a_compressed_message_costs_in_copies() {
    let (mut peer, mut codec) = (open_deflate(""), Codec::new(15));
    let answer = codec.echo(&mut peer, TEXT, &records(4_000)).0;
    assert_eq!(peer.copied(), 4_000 + answer.len() as u64 - 4, "with a header of 4 octets");
}

#[test]
fn w5_one_frame_up_to_a_fragment_and_then_fragments_of_one_size() {
    let (mut peer, mut codec) = (open_deflate(""), Codec::new(15));
    for (len, expected) in [(8_192, 1), (8_193, 2), (16_384, 2), (16_385, 3), (100_000, 13)] {
        let packed = codec.pack(&records(len));
        for size in [1460, 100, 1] {
            // The same message, in no history but its own.
            let mut other = open_deflate("");
            let wire = compressed(TEXT, true, &Codec::new(15).pack(&records(len)));
            other.send_cut(&wire, &[size]);
            assert_eq!(frames_with_rsv1(other.received()).len(), expected, "{len} by {size}");
        }
        peer.send(&compressed(TEXT, true, &packed));
    }
    let received = codec.messages(peer.received());
    assert!(
        received.iter().zip([8_192, 8_193, 16_384, 16_385, 100_000]).all(|(one, len)| one.1 == records(len))
    );
}

/// `len` zeros in a few octets.
fn bomb(len: usize) -> Vec<u8> {
    Codec::new(15).pack(&vec![0; len])
}

#[test]
fn w5_a_bomb_is_1009_at_the_cap_and_worked_at_in_pieces() {
    let cap = config().limits.message as usize;
    let packed = bomb(256 << 20);
    assert!(packed.len() < 300_000);
    let wire = [compressed(BINARY, false, &packed[..1000]), frame(MORE, true, &packed[1000..])].concat();
    let mut peer = open_deflate("");
    let mut pieces = wire.chunks(1460);
    let (mut before, mut turns) = (0, 0);
    while !peer.server_finished() {
        if !peer.turn() {
            peer.queue(pieces.next().expect("it is cut off before its end"));
            peer.hold_acks(true);
            peer.readable();
            peer.hold_acks(false);
        }
        // One call inflates no more than a share, and a fragment that it completes.
        assert!(peer.copied() - before <= 3 * 8_192, "{}", peer.copied() - before);
        peer.acknowledge();
        before = peer.copied();
        turns += 1;
    }
    assert!(turns >= cap / 8_192, "{turns} turns");
    assert!(peer.copied() as usize <= cap + cap / 100 + 8_193);
    assert_eq!(frames_with_rsv1(peer.received()).pop().expect("a frame").0.payload, 1009u16.to_be_bytes());
    peer.close();

    // Exactly the cap is no bomb.
    let mut peer = open_deflate("");
    peer.send(&compressed(BINARY, true, &bomb(cap)));
    let received = Codec::new(15).messages(peer.received());
    assert!(received.len() == 1 && received[0].1.len() == cap);
    peer.close();
    let mut peer = open_deflate("");
    peer.send(&compressed(BINARY, true, &bomb(cap + 1)));
    assert!(peer.received().ends_with(b"\x88\x02\x03\xf1"));
    peer.close();
}

#[test]
fn w5_who_waits_for_a_turn_is_not_forgotten_and_not_held_for_ever() {
    let wire = compressed(BINARY, true, &bomb(1 << 20));
    // The peer's FIN behind it doesn't cut the answer off.
    let mut peer = open_deflate("");
    peer.hold_acks(true);
    peer.send(&wire);
    peer.finish();
    assert!(!peer.server_finished());
    peer.hold_acks(false);
    peer.pump();
    assert!(peer.server_finished());
    assert_eq!(Codec::new(15).messages(peer.received())[0].1.len(), 1 << 20);
    peer.close();
    // It goes while it waits.
    let mut peer = open_deflate("");
    peer.hold_acks(true);
    peer.send(&wire);
    peer.close();
    // The program ends while it waits, and nobody is woken any more.
    let mut peer = open_deflate("");
    peer.hold_acks(true);
    peer.send(&wire);
    peer.drain();
    peer.acknowledge();
    assert!(peer.received().ends_with(b"\x88\x02\x03\xe9"), "1001");
    assert!(peer.server_finished());
    assert_eq!(peer.held(), 0);
    peer.close();
}

/// Sends `wire` and expects 1007 or whatever `code` is.
fn closes_with(wire: &[u8], code: u16) {
    for size in [1460, 1, 3] {
        let mut peer = open_deflate("");
        peer.send_cut(wire, &[size]);
        let frames = frames_with_rsv1(peer.received());
        assert_eq!(frames.last().expect("a frame").0.payload, code.to_be_bytes(), "pieces of {size}");
        assert!(peer.server_finished());
        assert_eq!((peer.held(), peer.unread()), (0, 0));
        peer.close();
    }
}

#[test]
fn w5_what_is_no_deflate_is_1007() {
    closes_with(&compressed(TEXT, true, b"\xff\xff\xff\xff"), 1007);
    closes_with(&compressed(BINARY, false, b"\x07"), 1007);
    // A distance behind the beginning.
    closes_with(&compressed(TEXT, true, b"\xf2\x00\x11\x00\x00"), 1007);
    // A stored block whose lengths don't agree.
    closes_with(&compressed(BINARY, true, b"\x00\x05\x00\xfa\xfeHello"), 1007);
}

#[test]
fn w3_w5_rsv1_only_where_a_compressed_message_begins() {
    let first = compressed(TEXT, false, b"\xf2\x48\xcd");
    closes_with(&[first, compressed(MORE, true, b"\xc9\xc9\x07\x00")].concat(), 1002);
    closes_with(&compressed(PING, true, b""), 1002);
    closes_with(&compressed(CLOSE, true, b"\x03\xe8"), 1002);
    closes_with(&[compressed(TEXT, false, b"\xf2"), frame(TEXT, true, b"inside")].concat(), 1002);
}

#[test]
fn w6_compressed_text_that_is_not_utf8_is_1007_at_the_first_bad_octet() {
    let packed = Codec::new(15).pack(b"good \xff bad");
    closes_with(&compressed(TEXT, true, &packed), 1007);
    // The message isn't complete, and the close comes all the same.
    closes_with(&compressed(TEXT, false, &packed), 1007);
    let unfinished = Codec::new(15).pack(b"ends inside \xe2\x82");
    closes_with(&compressed(TEXT, true, &unfinished), 1007);
    let mut peer = open_deflate("");
    peer.send(&compressed(BINARY, true, &packed));
    assert_eq!(messages(peer.received()), [(BINARY, b"good \xff bad".to_vec())]);
}

/// Blocks that come to nothing cost what they cost; they end at the cap of the message's octets or fragments.
#[test]
fn w4_w5_empty_blocks_and_empty_fragments() {
    let mut peer = open_deflate("");
    let nothing = [&b"\x00\x00\x00\xff\xff".repeat(100_000)[..], b"\x00"].concat();
    peer.send(&compressed(BINARY, true, &nothing));
    assert_eq!(messages(&peer.take()), [(BINARY, vec![])]);
    // Blocks that each end the stream.
    peer.send(&compressed(BINARY, true, &[&b"\x03\x00".repeat(100_000)[..], b"\x00"].concat()));
    assert_eq!(messages(&peer.take()), [(BINARY, vec![])]);
    peer.send(&compressed(TEXT, false, b""));
    peer.send(&frame(MORE, false, b"").repeat((1 << 18) - 1));
    assert!(!peer.server_finished());
    peer.send(&frame(MORE, false, b""));
    assert!(peer.received().ends_with(b"\x88\x02\x03\xf0"), "1008");
    peer.close();
}

#[test]
fn w7_compressed_echoes_wait_for_the_clients_reading() {
    let (mut peer, mut codec) = (open_deflate(""), Codec::new(15));
    peer.set_room(2);
    peer.hold_acks(true);
    let wire: Vec<u8> =
        (0..200).flat_map(|seed| compressed(BINARY, true, &codec.pack(&random(1000, seed)))).collect();
    peer.send(&wire);
    while peer.turn() {}
    assert!(peer.held() <= 8, "{}", peer.held());
    assert!(peer.unread() > 100);
    peer.hold_acks(false);
    peer.pump();
    let received = codec.messages(peer.received());
    assert!(received.iter().zip(0..).all(|(message, seed)| message.1 == random(1000, seed)));
    assert_eq!(received.len(), 200);
}

/// Messages of all kinds, compressed or not, in fragments, and the frames they are sent in.
fn script() -> impl Strategy<Value = (Vec<u8>, Vec<(OpCode, Vec<u8>)>)> {
    let len = prop_oneof![0usize..80, 100usize..140, 1000usize..3000, 8_100usize..25_000];
    let cuts = proptest::collection::vec(any::<prop::sample::Index>(), 0..4);
    let message = (0u8..5, any::<bool>(), len, cuts, any::<bool>());
    proptest::collection::vec(message, 1..10).prop_map(|messages| {
        let (mut wire, mut expected, mut codec) = (Vec::new(), Vec::new(), Codec::new(15));
        for (kind, packed, len, cuts, pinged) in messages {
            let (opcode, plain) = match kind {
                0 => (TEXT, text(len)),
                1 => (TEXT, records(len)),
                2 => (BINARY, random(len, len as u64)),
                3 => (BINARY, vec![0; len * 10]),
                _ => (PING, random(len % 126, 1)),
            };
            if opcode == PING {
                wire.extend(frame(PING, true, &plain));
                expected.push((PONG, plain));
                continue;
            }
            let payload = if packed { codec.pack(&plain) } else { plain.clone() };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(payload.len());
            let mut from = 0;
            for (index, &cut) in cuts.iter().enumerate() {
                let part = &payload[from..cut];
                let last = index + 1 == cuts.len();
                wire.extend(match (index, packed) {
                    (0, true) => compressed(opcode, last, part),
                    (0, false) => frame(opcode, last, part),
                    _ => frame(MORE, last, part),
                });
                from = cut;
                if pinged && !last {
                    wire.extend(frame(PING, true, b"p"));
                    expected.push((PONG, b"p".to_vec()));
                }
            }
            expected.push((opcode, plain));
        }
        (wire, expected)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Cuts, room, memory, segment size, headroom and the loop's turns change no message, compressed or not.
    #[test]
    fn h6_w5_messages_do_not_depend_on_the_circumstances(
        (wire, expected) in script(), parameters in 0usize..4,
        sizes in proptest::collection::vec(1usize..1460, 1..80), small: bool,
        room in 1usize..6, failure in prop_oneof![Just(0.0), Just(0.5), Just(0.9)],
        mss in prop_oneof![Just(1460usize), 48usize..600], offset in prop_oneof![Just(310usize), 128usize..140],
        seed: u64,
    ) {
        let (parameters, bits) = [
            ("", 15), ("; server_max_window_bits=9", 9), ("; server_max_window_bits=12", 12),
            ("; client_no_context_takeover", 15),
        ][parameters];
        let offer = format!("permessage-deflate{parameters}");
        let (mut peer, _) = open_with_offer(&offer, Peer::connect_with(HTTP, config(), 512));
        peer.set_mss(mss);
        peer.set_offset(offset);
        peer.set_room(room);
        peer.fail_allocs(failure, seed);
        let sizes: Vec<usize> = sizes.into_iter().map(|size| if small { size % 16 + 1 } else { size }).collect();
        peer.send_cut(&wire, &sizes);
        let received = Codec::new(bits).messages(peer.received());
        let received: Vec<_> = received.into_iter().map(|(opcode, plain, _)| (opcode, plain)).collect();
        // Pongs may come before the message inside which the pings were, which is answered at its end.
        prop_assert!(received == expected);
        prop_assert_eq!(peer.held(), 0);
        peer.close();
    }

    /// Whatever comes, nothing breaks and nothing leaks.
    #[test]
    fn p1_w5_compressed_octets_of_any_kind_are_survived(
        (mut wire, _) in script(), noise in proptest::collection::vec(any::<u8>(), 0..40),
        at in 0usize..3000, size in 1usize..200,
    ) {
        let at = at.min(wire.len());
        wire.splice(at..wire.len().min(at + noise.len()), noise);
        let mut peer = open_deflate("");
        peer.send_cut(&wire, &[size]);
        peer.finish();
        prop_assert!(peer.server_finished());
        peer.close();
    }
}
