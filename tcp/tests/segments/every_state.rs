//! T16: every combination of the eight flags in every state.

use byway_tcp::frame::Owner;
use byway_tcp::stack::Config;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::{Flags, Options};

use crate::probe::*;

type Open = fn(&mut Probe) -> Peer;

/// A way into each state: CLOSED is a port that nobody opened.
const STATES: [(State, Open); State::COUNT] = [
    (State::Closed, |p| Peer { local_port: 81, ack: 77, ..p.peer() }),
    (State::Listen, |p| Peer { ack: 77, ..p.peer() }),
    (State::SynSent, |p| p.connect().0),
    (State::SynReceived, |p| p.half_open(Options::NONE).0),
    (State::Established, Probe::accept),
    (State::FinWait1, Probe::fin_wait_1),
    (State::FinWait2, Probe::fin_wait_2),
    (State::CloseWait, Probe::close_wait),
    (State::Closing, Probe::closing),
    (State::LastAck, Probe::last_ack),
    (State::TimeWait, Probe::time_wait),
];

/// What RFC 9293 §3.10.7 says of a segment at exactly RCV.NXT that acknowledges everything and carries no text,
/// after the application has been told: the next state, and the answer. FIN makes the application close too.
fn expected(state: State, flags: Flags) -> (State, Option<Flags>) {
    use State::*;
    let (syn, ack, rst, fin) =
        (flags.contains(SYN), flags.contains(ACK), flags.contains(RST), flags.contains(FIN));
    match state {
        // §3.10.7.1
        Closed if rst => (Closed, None),
        Closed => (Closed, Some(if ack { RST } else { RST_ACK })),
        // §3.10.7.2
        Listen if rst => (Listen, None),
        Listen if ack => (Listen, Some(RST)),
        // RFC 3168 §6.1.1: who asks for ECN is told that it's there. Otherwise ECE and CWR say nothing here.
        Listen if syn && !fin && flags.contains(Flags::ECE | Flags::CWR) => {
            (SynReceived, Some(SYN_ACK | Flags::ECE))
        }
        Listen if syn && !fin => (SynReceived, Some(SYN_ACK)),
        Listen => (Listen, None),
        // §3.10.7.3
        SynSent if rst => (if ack { Closed } else { SynSent }, None),
        SynSent if syn && ack && fin => (LastAck, Some(FIN_ACK)),
        SynSent if syn && ack => (Established, Some(ACK)),
        SynSent if syn => (SynReceived, Some(SYN_ACK)),
        SynSent => (SynSent, None),
        // §3.10.7.4; RFC 1337, RFC 5961 §3, §4
        TimeWait if rst => (TimeWait, None),
        // §3.6.1 asks for a larger number than this.
        TimeWait if syn || fin => (TimeWait, Some(ACK)),
        TimeWait => (TimeWait, None),
        _ if rst => (Listen, None),
        _ if syn => (state, Some(ACK)),
        _ if !ack => (state, None),
        SynReceived | Established if fin => (LastAck, Some(FIN_ACK)),
        SynReceived | Established => (Established, None),
        FinWait1 | FinWait2 if fin => (TimeWait, Some(ACK)),
        FinWait1 | FinWait2 => (FinWait2, None),
        // There is no second FIN: its number lies beyond the end.
        Closing => (TimeWait, None),
        LastAck => (Listen, None),
        CloseWait => (CloseWait, None),
    }
}

fn fresh() -> Probe {
    Probe::with(Config { max_time_wait: 4096, ..config() }, 512, Instant::from_millis(1000))
}

#[test]
fn t16_exact_segments_do_what_the_rfc_says() {
    for (state, open) in STATES {
        let mut p = fresh();
        for bits in 0..=u8::MAX {
            let flags = Flags(bits);
            let peer = open(&mut p);
            assert_eq!(p.state(&peer), state);
            let seg = Seg { ack: peer.ack, ..peer.seg(flags) };
            let out = p.give(&peer, &seg);
            let (next, answer) = expected(state, flags);
            assert_eq!(p.state(&peer), next, "{state:?} {flags:?} {out:?}");
            assert_eq!(out.first().map(|seg| seg.flags), answer, "{state:?} {flags:?}");
            assert!(out.len() <= 1, "{state:?} {flags:?} {out:?}");
            p.stack.abort_all(&mut p.app, p.now);
            p.collect();
            p.assert_idle();
        }
    }
}

/// Wherever its numbers lie, with text or without: no panic, frames conserved, at most one answer, and no
/// state that the RFC doesn't lead to.
#[test]
fn t16_any_segment_in_any_state_is_survived() {
    let offsets = [0u32, 1, 1000, 65_534, 70_000, 1 << 31, 3 << 30, u32::MAX, u32::MAX - 3000];
    for (state, open) in STATES {
        let mut p = fresh();
        for bits in 0..64 {
            for seq in offsets {
                for ack in [0u32, u32::MAX, 1, u32::MAX - 70_000, 1 << 31] {
                    let peer = open(&mut p);
                    let data: &[u8] = if (seq ^ ack) & 1 == 0 { b"text" } else { b"" };
                    let seg = Seg {
                        seq: peer.seq.wrapping_add(seq),
                        ack: peer.ack.wrapping_add(ack),
                        window: seq as u16,
                        urgent: ack as u16,
                        ..peer.seg(Flags(bits)).data(data)
                    };
                    let out = p.give(&peer, &seg);
                    assert!(out.len() <= 1, "{state:?} {seg:?} {out:?}");
                    let now = p.state(&peer);
                    let mut allowed = vec![state, expected(state, Flags(bits)).0];
                    // A part of the flags may count: the ACK of a segment whose text is refused, a SYN without …
                    allowed.extend([expected(state, ACK).0, expected(state, FIN_ACK).0]);
                    if state == State::TimeWait {
                        allowed.push(State::SynReceived);
                    }
                    if matches!(state, State::FinWait1) {
                        allowed.push(State::Closing);
                    }
                    assert!(allowed.contains(&now), "{state:?} → {now:?} by {seg:?}");
                    p.stack.abort_all(&mut p.app, p.now);
                    p.collect();
                }
            }
        }
        p.assert_idle();
        assert_eq!(p.stack.pool().count(Owner::App), 0);
        p.wait(Duration::from_secs(61));
        assert_eq!(p.stack.connections_by_state().iter().sum::<u32>(), 1, "the listener");
    }
}
