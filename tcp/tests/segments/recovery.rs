//! Loss recovery by time, and its mistakes (RFC 8985, 6937, 5682, 2883, 4015). S5.7

use byway_tcp::seq::SeqNumber;
use byway_tcp::tcb::congestion::{Algorithm, Phase};
use byway_tcp::time::Instant;
use byway_tcp::wire::tcp::{Options, SackBlocks};

use crate::probe::*;

/// Round trip of these tests.
const RTT_MS: u64 = 40;
const SACK: Options =
    Options { mss: Some(1460), sack_permitted: true, window_scale: Some(10), ..Options::NONE };

struct Path {
    p: Probe,
    peer: Peer,
    /// The peer's clock for timestamps, if it has any.
    echo: Option<u32>,
}

impl Path {
    /// A connection whose round trip is known.
    fn new(options: Options) -> Self {
        Self::with(options, 4096)
    }

    fn with(options: Options, frames: u32) -> Self {
        let config = byway_tcp::stack::Config { congestion: Algorithm::Reno, ..config() };
        let mut p = Probe::with(config, frames, Instant::from_millis(1000));
        let (mut peer, syn_ack) = p.half_open(options);
        p.wait_ms(RTT_MS);
        let echo = syn_ack.options.timestamps.map(|(value, _)| value);
        let timestamps = echo.map(|value| (1, value));
        let options = Options { timestamps, ..Options::NONE };
        p.give(&peer, &peer.seg(ACK).options(options));
        peer.id = *p.app.opened.last().expect("open");
        Self { p, peer, echo }
    }

    /// An ACK of so many segments, with blocks of segments ahead.
    fn ack(&self, segments: usize, blocks: &[(usize, usize)]) -> Seg {
        let at = |n: usize| SeqNumber(self.peer.ack.wrapping_add((n * self.mss()) as u32));
        let mut sack = SackBlocks::default();
        for &(from, to) in blocks {
            sack.push(at(from), at(to));
        }
        let timestamps = self.echo.map(|value| (1, value));
        Seg::new(ACK, self.peer.seq, at(segments).0).options(Options { sack, timestamps, ..Options::NONE })
    }

    fn mss(&self) -> usize {
        MSS - if self.echo.is_some() { 12 } else { 0 }
    }

    fn numbers(&self, segs: &[Seg]) -> Vec<usize> {
        segs.iter().map(|seg| seg.seq.wrapping_sub(self.peer.ack) as usize / self.mss()).collect()
    }

    fn send(&mut self, segments: usize) -> Vec<usize> {
        let octets = vec![1; segments * self.mss()];
        let out = self.p.send(&self.peer, &octets);
        self.numbers(&out)
    }

    fn give(&mut self, segments: usize, blocks: &[(usize, usize)]) -> Vec<usize> {
        let ack = self.ack(segments, blocks);
        let out = self.p.give(&self.peer, &ack);
        self.numbers(&out)
    }

    fn wait(&mut self, millis: u64) -> Vec<usize> {
        let out: Vec<_> = self.p.wait_ms(millis).into_iter().map(|(_, seg)| seg).collect();
        self.numbers(&out)
    }

    /// The window in segments, and the phase.
    fn window(&self) -> (usize, Phase) {
        let info = self.p.info(self.peer.id).expect("there");
        (info.cwnd as usize / self.mss(), info.phase)
    }
}

/// RFC 8985 §6.2: a segment that is late by less than a quarter of the round trip isn't sent again, once segments are
/// known to overtake each other; one that is later is.
#[test]
fn s5_7_rack_waits_for_what_may_only_be_late() {
    let mut path = Path::new(SACK);
    assert_eq!(path.send(10).len(), 10);
    path.wait(RTT_MS);
    // 0 comes after 1: reordering is seen, nothing is lost.
    path.give(0, &[(1, 2)]);
    path.give(2, &[]);
    assert_eq!(path.p.stack.counters().tcp_retrans_segs, 0);
    // 2 is missing, six came after it.
    path.send(10);
    path.give(2, &[(3, 9)]);
    assert_eq!(path.p.stack.counters().tcp_retrans_segs, 0, "it may be late");
    path.wait(8);
    assert_eq!(path.p.stack.counters().tcp_retrans_segs, 0, "a quarter of 40 ms");
    assert_eq!(path.wait(3), [2]);
    assert_eq!(path.window().1, Phase::FastRecovery);
    assert_eq!(path.p.stack.counters().tcp_timeouts, 0);
}

/// RFC 8985 §6.2 step 4: without reordering three segments above a hole are enough, at once.
#[test]
fn s5_7_rack_does_not_wait_where_nothing_was_ever_late() {
    let mut path = Path::new(SACK);
    path.send(10);
    path.wait(RTT_MS);
    assert_eq!(path.give(0, &[(1, 3)]), [], "two may be reordering");
    assert_eq!(path.give(0, &[(1, 4)])[0], 0);
    assert_eq!(path.window().1, Phase::FastRecovery);
}

/// RFC 8985 §6.2: a retransmission that is lost is noticed by what was sent after it, without a timeout.
#[test]
fn s5_7_rack_finds_a_lost_retransmission() {
    let mut path = Path::new(SACK);
    path.send(30);
    path.wait(RTT_MS);
    let again = path.give(0, &[(1, 4)]);
    assert_eq!(again, [0]);
    let mut end = 10;
    for to in 5..=10 {
        let more = path.give(0, &[(1, to)]);
        end = more.last().map_or(end, |last| last + 1);
    }
    assert!(end > 11, "new segments went out after the retransmission: {end}");
    path.wait(RTT_MS);
    let sent = path.give(0, &[(1, end)]);
    assert_eq!(sent[0], 0, "{sent:?}");
    assert_eq!(path.p.stack.counters().tcp_lost_retransmit, 1);
    assert_eq!(path.p.stack.counters().tcp_timeouts, 0);
}

/// RFC 6937: in recovery about one segment goes out for two that arrive, from the first on, and the window ends at
/// ssthresh.
#[test]
fn s5_7_prr_sends_in_proportion_to_what_arrives() {
    let mut path = Path::new(SACK);
    assert_eq!(path.send(40).len(), 10);
    path.wait(RTT_MS);
    // Slow start: twenty out, the first of which is lost.
    let burst = path.give(10, &[]).len();
    assert_eq!((burst, path.wait(RTT_MS).len()), (11, 9), "the rest is paced");
    path.give(10, &[(11, 12)]);
    path.give(10, &[(11, 13)]);
    let mut sent = path.give(10, &[(11, 14)]);
    assert_eq!(sent, [10]);
    for to in 15..=30 {
        let mut out = path.wait(RTT_MS / 20);
        out.extend(path.give(10, &[(11, to)]));
        assert!(out.len() <= 1, "no burst: {out:?}");
        sent.extend(out);
    }
    // 20 out, ssthresh 10: limited transmit's two (RFC 3042) are among them.
    assert!((8..=10).contains(&sent.len()), "{sent:?}");
    path.give(32, &[]);
    assert_eq!(path.window(), (10, Phase::Open));
}

/// RFC 8985 §7.3: the last segments are lost; after two round trips a probe of a new segment, or else of the last one,
/// tells what is missing, and nothing waits for the retransmission timeout.
#[test]
fn s5_7_tlp_finds_a_lost_tail() {
    let mut path = Path::new(SACK);
    path.send(8);
    path.wait(RTT_MS);
    assert_eq!(path.give(5, &[]), []);
    // 5, 6 and 7 are lost.
    assert_eq!(path.wait(2 * RTT_MS - 2), []);
    assert_eq!(path.wait(10), [7]);
    assert_eq!(path.p.stack.counters().tcp_loss_probes, 1);
    path.wait(RTT_MS);
    assert_eq!(path.give(5, &[(7, 8)])[..], [5]);
    path.wait(RTT_MS);
    assert_eq!(path.give(6, &[(7, 8)])[..], [6]);
    path.wait(RTT_MS);
    path.give(8, &[]);
    assert_eq!((path.window().1, path.p.stack.counters().tcp_timeouts), (Phase::Open, 0));
}

/// RFC 8985 §7.4.2: the probe mended the only loss: the window shrinks; not if the peer got it twice.
#[test]
fn s5_7_tlp_that_mends_a_loss_shrinks_the_window() {
    for doubled in [false, true] {
        let mut path = Path::new(SACK);
        path.send(6);
        path.wait(RTT_MS);
        path.give(5, &[]);
        assert_eq!(path.wait(2 * RTT_MS + 210), [5], "one segment's ACK may be delayed");
        path.send(1);
        path.wait(RTT_MS);
        path.give(7, if doubled { &[(5, 6)] } else { &[] });
        let counters = path.p.stack.counters();
        assert_eq!((counters.tcp_loss_probe_recovery, counters.tcp_timeouts), (u64::from(!doubled), 0));
        assert_eq!(path.window().0 >= 10, doubled, "{:?}", path.window());
    }
}

/// RFC 5682 §3.1: the timer was too early; an original arrives, the windows are put back, nothing else is sent again.
#[test]
fn s5_7_frto_undoes_a_timeout_that_was_a_mistake() {
    let mut path = Path::new(SACK);
    path.send(10);
    path.wait(RTT_MS);
    path.give(2, &[]);
    path.send(10);
    let (before, _) = path.window();
    // Nothing comes back for longer than the timer: first the probe, then the timeout.
    let sent = path.wait(600);
    assert_eq!(sent.last(), Some(&2), "{sent:?}");
    assert_eq!((path.window(), path.p.stack.counters().tcp_timeouts), ((1, Phase::Loss), 1));
    // The originals had only been late. That 2 and 3 are acknowledged doesn't say it yet: 3 may have waited for 2. Two new
    // segments are sent (step 2b); 4 and 5 never went out twice, and nobody has waited for them.
    path.give(4, &[]);
    path.give(6, &[]);
    assert!(path.window().0 >= before && path.window().1 == Phase::Open, "{:?}", path.window());
    let counters = path.p.stack.counters();
    assert_eq!((counters.tcp_spurious_rtos, counters.tcp_retrans_segs), (1, 1), "the probe was new");
}

/// RFC 5682 §3.1: it was none: after the first ACK new segments, and duplicates for these bring the lost ones.
#[test]
fn s5_7_frto_goes_on_when_the_loss_was_real() {
    let mut path = Path::new(SACK);
    path.send(10);
    path.wait(RTT_MS);
    path.give(1, &[]);
    path.send(8);
    path.wait(1000);
    let timeouts = path.p.stack.counters().tcp_timeouts;
    assert!(timeouts >= 1);
    let out = path.give(2, &[]);
    assert!(!out.is_empty());
    let mut end = 2;
    for _ in 0..200 {
        path.wait(RTT_MS);
        end += 1;
        path.give(end, &[]);
        if path.p.info(path.peer.id).expect("there").send_queue == 0 {
            break;
        }
    }
    assert_eq!(path.window().1, Phase::Open);
    assert_eq!(path.p.info(path.peer.id).expect("there").send_queue, 0);
}

/// RFC 3522, 4015: the ACK echoes a timestamp from before the retransmission.
#[test]
fn s5_7_eifel_undoes_a_fast_retransmit() {
    let mut path = Path::new(Options { timestamps: Some((1, 0)), ..SACK });
    path.send(20);
    path.wait(RTT_MS);
    let (before, _) = path.window();
    assert_eq!(path.give(0, &[(1, 4)])[0], 0);
    assert!(path.window().0 < before);
    path.wait(5);
    // 0 was late after all: its own timestamp comes back, which is that of the handshake's time.
    path.give(4, &[]);
    assert_eq!(path.p.stack.counters().tcp_full_undo, 1);
    assert!(path.window().0 >= before && path.window().1 == Phase::Open, "{:?}", path.window());
}

/// RFC 2883, 3708: each segment that was sent again arrived twice.
#[test]
fn s5_7_dsack_undoes_a_fast_retransmit() {
    let mut path = Path::new(SACK);
    path.send(20);
    path.wait(RTT_MS);
    let (before, _) = path.window();
    assert_eq!(path.give(0, &[(1, 4)])[0], 0);
    path.wait(5);
    path.give(4, &[]);
    path.wait(RTT_MS);
    path.give(4, &[(0, 1)]);
    let counters = path.p.stack.counters();
    assert_eq!((counters.tcp_dsack_recv, counters.tcp_dsack_undo), (1, 1));
    assert!(path.window().0 >= before && path.window().1 == Phase::Open, "{:?}", path.window());
}

/// RFC 2883: what arrives twice is told, once, in the first block: below the ACK, and above a hole.
#[test]
fn s5_7_dsack_is_sent() {
    let mut path = Path::new(SACK);
    let peer = path.peer;
    let first = |seg: &Seg| {
        let (start, end) = seg.options.sack.iter().next().expect("a block");
        (start.0.wrapping_sub(peer.seq), end.0.wrapping_sub(peer.seq))
    };
    path.p.give(&peer, &peer.seg(ACK).data(&[1; 100]));
    let again = path.p.ask(&peer, &peer.seg(ACK).data(&[1; 100]));
    assert_eq!(first(&again), (0, 100));
    let ahead = Seg { seq: peer.seq.wrapping_add(200), ..peer.seg(ACK).data(&[1; 50]) };
    assert_eq!(first(&path.p.ask(&peer, &ahead)), (200, 250));
    let again = path.p.ask(&peer, &ahead);
    let blocks: Vec<_> = again.options.sack.iter().collect();
    assert_eq!((first(&again), blocks.len()), ((200, 250), 2));
    assert_eq!(blocks[0], blocks[1]);
    // Partly new: only what was here before.
    let both = path.p.ask(&peer, &peer.seg(ACK).data(&[1; 150]));
    assert_eq!(first(&both), (0, 100));
}

/// T10: duplicates that the network made, or a peer invents, widen nothing and undo nothing.
#[test]
fn t10_dsacks_of_what_was_never_sent_twice_change_nothing() {
    let mut path = Path::new(SACK);
    path.send(10);
    path.wait(RTT_MS);
    for n in 0..5 {
        path.give(n + 1, &[(n, n + 1)]);
    }
    assert_eq!(path.p.stack.counters().tcp_dsack_undo, 0);
    assert_eq!(path.window().1, Phase::Open);
    assert_eq!(path.give(5, &[(6, 9)])[0], 5, "three above a hole are still enough");
}

/// T10: marking a window lost and taking that back costs a look at each of its segments. A peer that shows a loss with
/// each segment it SACKs, and takes it back with each octet it acknowledges (Eifel), gets that a few times, not for
/// each ACK.
#[test]
fn t10_losses_are_taken_back_a_few_times_in_a_window() {
    let mut path = Path::with(Options { timestamps: Some((1, 0)), ..SACK }, 16_384);
    let mut have = 0;
    while have < 1_000 {
        let mut end = have + path.send(60).len();
        have += 60;
        while end < have {
            end += path.wait(2).len();
            end += path.give(end, &[]).len();
        }
        path.give(end, &[]);
    }
    let out = path.send(60);
    assert!(out.len() > 50, "{}", out.len());
    path.wait(RTT_MS);
    let last = have + out.len();
    for n in 1..50 {
        path.give(have, &[(last - n, last)]);
        path.wait(RTT_MS / 2);
        let mut octet = path.ack(have, &[(last - n, last)]);
        octet.ack = octet.ack.wrapping_add(n as u32);
        path.p.give(&path.peer, &octet);
    }
    let counters = path.p.stack.counters();
    assert!((1..=4).contains(&counters.tcp_full_undo), "{}", counters.tcp_full_undo);
}
