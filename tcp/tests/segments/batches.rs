//! Batches of many connections' segments. Among many a batch is read ahead, which changes nothing of what is answered.

use byway_tcp::stack::Config;
use byway_tcp::time::Instant;
use byway_tcp::wire::tcp::Flags;

use crate::probe::*;

/// More than fit in the memory that is never far.
const CROWD: usize = 600;
/// Ends and beginnings are frequent, so that a batch brings both for the same pair of sockets.
const KINDS: [Flags; 8] = [SYN, RST, FIN_ACK, ACK, ACK, ACK, SYN_ACK, RST_ACK];

struct Side {
    probe: Probe,
    peers: Vec<Peer>,
}

/// A stack with `crowd` connections that do nothing, and peers of which some will talk.
fn side(crowd: usize) -> Side {
    let config = Config { max_connections: 1000, quick_acks: 0, ..config() };
    let mut probe = Probe::with(config, 4096, Instant::from_millis(1000));
    for _ in 0..crowd {
        probe.accept();
    }
    let peers = (0..16).map(|n| Peer { remote_port: 30_000 + n, ..probe.peer() }).collect();
    Side { probe, peers }
}

/// xorshift32.
fn random(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

/// What was counted since `before`, by name.
fn counted(probe: &Probe, before: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let now = probe.stack.counters();
    now.iter()
        .zip(before)
        .map(|((name, now), (_, before))| (name, now - before))
        .filter(|&(_, n)| n > 0)
        .collect()
}

#[test]
fn what_is_read_ahead_of_a_reset_a_syn_or_a_new_tenant_is_answered_alike() {
    let (mut few, mut many) = (side(0), side(CROWD));
    let before = [&few, &many].map(|side| side.probe.stack.counters().iter().collect::<Vec<_>>());
    let mut state = 0x2545_f491;
    let mut answers = 0;
    for round in 0..2_000 {
        let mut frames = [Vec::new(), Vec::new()];
        for _ in 0..1 + random(&mut state) % 40 {
            let who = random(&mut state) as usize % few.peers.len();
            let flags = KINDS[random(&mut state) as usize % KINDS.len()];
            let (ahead, len) = (random(&mut state) % 3, random(&mut state) as usize % 20);
            for (side, frames) in [&mut few, &mut many].into_iter().zip(&mut frames) {
                let peer = &mut side.peers[who];
                let mut seg = peer.seg(flags);
                if !flags.contains(SYN) {
                    seg.seq = seg.seq.wrapping_add(ahead / 2);
                }
                if flags == ACK {
                    seg = seg.data(&[7; 20][..len]);
                }
                if ahead == 0 {
                    peer.seq = seg.end();
                }
                frames.push(side.probe.frame(peer, &seg));
            }
        }
        let [to_few, to_many] = &frames;
        let said = [few.probe.give_frames(to_few), many.probe.give_frames(to_many)];
        let lines =
            said.each_ref().map(|said| said.iter().map(|line| format!("{line:?}")).collect::<Vec<_>>());
        assert_eq!(lines[0], lines[1], "batch {round}");
        for (port, seg) in &said[0] {
            answers += 1;
            for side in [&mut few, &mut many] {
                let peer = &mut side.peers[usize::from(port - 30_000)];
                peer.ack = seg.end();
                if seg.flags.contains(ACK) {
                    // Both are of one mind again.
                    peer.seq = seg.ack;
                }
            }
        }
        let waited = [&mut few, &mut many].map(|side| {
            side.probe.stack.assert_consistent();
            format!("{:?}", side.probe.wait_ms(round % 7))
        });
        assert_eq!(waited[0], waited[1], "behind batch {round}");
    }
    let counted = [counted(&few.probe, &before[0]), counted(&many.probe, &before[1])];
    assert_eq!(counted[0], counted[1]);
    assert!(answers > 5_000, "{answers}");
}
