use super::*;
use crate::seq::SeqNumber;

const MSS: u32 = 1460;
const SEGMENT: f64 = MSS as f64;

fn ack(now: Instant, acked: u32, rtt: Duration) -> AckSample {
    AckSample {
        now,
        una: SeqNumber(0),
        nxt: SeqNumber(0),
        mss: MSS,
        acked,
        delivered: acked,
        lost: 0,
        in_flight_before: acked,
        in_flight: 0,
        limited: true,
        rtt: Some(rtt),
        srtt: Some(rtt),
        rate: None,
        phase: Phase::Open,
    }
}

fn event(signal: Signal, now: Instant, flight: u32) -> CongestionEvent {
    CongestionEvent { signal, now, nxt: SeqNumber(0), flight, mss: MSS }
}

/// A controller that met congestion at `segments`, at time zero.
fn reduced(segments: u32) -> Cubic {
    let mut cubic = Cubic::new(MSS);
    cubic.cwnd = segments * MSS;
    cubic.on_congestion(&event(Signal::Loss, Instant::ZERO, segments * MSS));
    cubic
}

/// Acknowledges whole windows, `batch` segments an ACK, spread over each round trip, for `time`.
/// `look` sees every ACK, and the time in seconds.
fn acknowledge(
    cubic: &mut Cubic,
    rtt: Duration,
    time: Duration,
    batch: u32,
    mut look: impl FnMut(&mut Cubic, f64),
) {
    let mut now = Instant::ZERO;
    while now.since(Instant::ZERO) < time {
        let acks = (cubic.cwnd() / (batch * MSS)).max(1);
        for i in 0..acks {
            let at = now + rtt * i / acks;
            cubic.on_ack(&ack(at, batch * MSS, rtt));
            look(cubic, at.since(Instant::ZERO).as_secs_f64());
        }
        now = now + rtt;
    }
}

/// RFC 9438 §4.2 as it's written, in segments and seconds.
fn w_cubic(t: f64, w_max: f64, epoch: f64) -> f64 {
    let k = ((w_max - epoch) / 0.4).cbrt();
    0.4 * (t - k).powi(3) + w_max
}

#[test]
fn s7_2_cube_roots_are_exact() {
    for root in [0u64, 1, 2, 3, 1000, 65_535, 2_642_244] {
        let cube = root * root * root;
        assert_eq!(u64::from(cube_root(cube)), root);
        assert_eq!(u64::from(cube_root(cube + 3 * root * root)), root);
        if root > 0 {
            assert_eq!(u64::from(cube_root(cube - 1)), root - 1);
        }
    }
    assert_eq!(cube_root(u64::MAX), 2_642_245);
}

/// The window follows the curve of RFC 9438 §4.2 through the concave and the convex region.
#[test]
fn s7_2_the_window_follows_the_cubic_function() {
    for (segments, rtt_ms) in [(500, 50), (2_000, 100), (10_000, 200), (20_000, 20)] {
        let mut cubic = reduced(segments);
        let epoch = f64::from(cubic.cwnd()) / SEGMENT;
        let w_max = f64::from(segments);
        let rtt = Duration::from_millis(rtt_ms);
        // Once through the plateau and half as long beyond it.
        let k = ((w_max - epoch) / 0.4).cbrt();
        acknowledge(&mut cubic, rtt, Duration::from_secs_f64(1.5 * k), 1, |cubic, t| {
            let cwnd = f64::from(cubic.cwnd()) / SEGMENT;
            // cwnd goes after what the curve will be in a round trip, and is about one behind it.
            let rtt = rtt.as_secs_f64();
            let (low, high) = (w_cubic(t - rtt, w_max, epoch), w_cubic(t + rtt, w_max, epoch));
            let slack = 1.0 + w_max / 1000.0;
            assert!(low - slack <= cwnd && cwnd <= high + slack, "{segments} {t}: {low} {cwnd} {high}");
        });
        assert_eq!(cubic.mode(), "convex");
    }
}

/// Against RFC 9438's equations in floating point, ACK for ACK.
#[test]
fn s7_2_integers_agree_with_the_equations() {
    for (segments, rtt_ms) in [(20, 10), (100, 5), (1_000, 80), (5_000, 40)] {
        let mut cubic = reduced(segments);
        let rtt = Duration::from_millis(rtt_ms);
        let (w_max, mut cwnd) = (f64::from(segments), f64::from(segments) * 0.7);
        let (epoch, mut est) = (cwnd, cwnd);
        acknowledge(&mut cubic, rtt, Duration::from_secs(20), 1, |cubic, t| {
            est += if est >= w_max { 1.0 } else { 9.0 / 17.0 } / cwnd;
            if w_cubic(t, w_max, epoch) < est {
                cwnd = cwnd.max(est);
            } else {
                let target = w_cubic(t + rtt.as_secs_f64(), w_max, epoch).clamp(cwnd, 1.5 * cwnd);
                cwnd += (target - cwnd) / cwnd;
            }
            let ours = f64::from(cubic.cwnd()) / SEGMENT;
            assert!((ours - cwnd).abs() <= 0.5 + cwnd / 200.0, "{segments} {t}: {ours} {cwnd}");
        });
    }
}

/// RFC 9438 §4.3: on a short path the window grows by α a round trip, by 1 once it has reached cwnd_prior.
#[test]
fn s7_2_on_a_short_path_it_grows_like_reno() {
    let mut cubic = reduced(100);
    let rtt = Duration::from_millis(1);
    acknowledge(&mut cubic, rtt, Duration::from_millis(50), 1, |_, _| {});
    assert_eq!(cubic.mode(), "Reno-friendly");
    let grown = f64::from(cubic.cwnd()) / SEGMENT - 70.0;
    assert!((grown - 50.0 * 9.0 / 17.0).abs() < 1.0, "{grown}");
    // Past cwnd_prior.
    acknowledge(&mut cubic, rtt, Duration::from_millis(50), 1, |_, _| {});
    let before = cubic.cwnd();
    acknowledge(&mut cubic, rtt, Duration::from_millis(20), 1, |_, _| {});
    let grown = f64::from(cubic.cwnd() - before) / SEGMENT;
    assert!((grown - 20.0).abs() < 1.0, "{grown}");
}

#[test]
fn s7_2_it_comes_down_to_seven_tenths() {
    let cubic = reduced(100);
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (70 * MSS, 70 * MSS));
    // RFC 9438 §4.6: never below two segments after a loss.
    let mut cubic = Cubic::new(MSS);
    cubic.on_congestion(&event(Signal::Loss, Instant::ZERO, MSS));
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (2 * MSS, 2 * MSS));
}

/// RFC 8511, and RFC 9438 §4.6 on windows that have got small.
#[test]
fn s7_2_a_mark_costs_less_than_a_loss_down_to_one_segment() {
    let mut cubic = reduced(100);
    cubic.on_congestion(&event(Signal::Ecn, Instant::ZERO, 70 * MSS));
    assert_eq!(cubic.cwnd(), 70 * MSS * 85 / 100);
    for _ in 0..40 {
        cubic.on_congestion(&event(Signal::Ecn, Instant::ZERO, cubic.cwnd()));
    }
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (MSS, 2 * MSS));
}

/// RFC 9438 §4.7
#[test]
fn s7_2_fast_convergence_makes_room() {
    let mut cubic = reduced(100);
    assert_eq!(cubic.stage.w_max, 100 * MSS);
    cubic.on_congestion(&event(Signal::Loss, Instant::ZERO, 70 * MSS));
    // cwnd · (1 + β)/2
    assert_eq!(cubic.stage.w_max, 70 * MSS * 17 / 20);
    // Having got beyond W_max again, W_max is the window.
    cubic.cwnd = 90 * MSS;
    cubic.on_congestion(&event(Signal::Loss, Instant::ZERO, 90 * MSS));
    assert_eq!(cubic.stage.w_max, 90 * MSS);
}

/// RFC 9438 §4.8: one segment, slow start to β times what was out, then the curve from K = 0.
#[test]
fn s7_2_after_a_timeout_it_slow_starts_and_probes_from_there() {
    let mut cubic = reduced(1000);
    let now = Instant::from_millis(1000);
    cubic.on_timeout(&event(Signal::Loss, now, 700 * MSS), true);
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (MSS, 490 * MSS));
    cubic.on_timeout(&event(Signal::Loss, now, MSS), false);
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (MSS, 490 * MSS));
    let rtt = Duration::from_millis(100);
    while cubic.cwnd() < cubic.ssthresh() {
        let before = cubic.cwnd();
        cubic.on_ack(&ack(now, before, rtt));
        // What ssthresh leaves over of an ACK counts for congestion avoidance.
        let doubled = (2 * before).min(490 * MSS);
        assert!((doubled..doubled + MSS).contains(&cubic.cwnd()));
    }
    cubic.on_ack(&ack(now, MSS, rtt));
    assert_eq!((cubic.stage.k_ms, cubic.stage.w_max), (0, 490 * MSS));
}

/// RFC 9438 §4.9: what was no loss leaves the curve as if nothing had happened.
#[test]
fn s5_7_what_was_no_loss_is_undone() {
    let rtt = Duration::from_millis(100);
    for timeout in [false, true] {
        let (mut cubic, mut twin) = (reduced(1000), reduced(1000));
        for each in [&mut cubic, &mut twin] {
            acknowledge(each, rtt, Duration::from_secs(3), 1, |_, _| {});
        }
        let lost = event(Signal::Loss, Instant::from_millis(3000), cubic.cwnd());
        if timeout {
            cubic.on_timeout(&lost, true);
        } else {
            cubic.on_congestion(&lost);
        }
        assert!(cubic.cwnd() < twin.cwnd());
        cubic.on_undo(Instant::from_millis(3100));
        for each in [&mut cubic, &mut twin] {
            each.on_ack(&ack(Instant::from_millis(3200), MSS, rtt));
        }
        assert_eq!((cubic.cwnd(), cubic.ssthresh()), (twin.cwnd(), twin.ssthresh()));
    }
    // §4.9.2, last paragraph: a window that has outgrown its old size stays.
    let mut cubic = reduced(100);
    cubic.cwnd = 200 * MSS;
    cubic.on_undo(Instant::ZERO);
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (200 * MSS, 70 * MSS));
}

/// RFC 9438 §4.2, §5.8: t doesn't run while the application is the limit.
#[test]
fn s7_2_the_curve_waits_for_the_application() {
    let rtt = Duration::from_millis(100);
    let (mut paused, mut steady) = (reduced(1000), reduced(1000));
    for each in [&mut paused, &mut steady] {
        acknowledge(each, rtt, Duration::from_secs(2), 1, |_, _| {});
    }
    let before = paused.cwnd();
    let mut now = Instant::from_millis(2000);
    let rest = Duration::from_secs(60);
    while now < Instant::from_millis(2000) + rest {
        paused.on_ack(&AckSample { limited: false, ..ack(now, MSS, rtt) });
        now = now + rtt;
    }
    assert_eq!(paused.cwnd(), before);
    for millis in 2000..4000 {
        steady.on_ack(&ack(Instant::from_millis(millis), 10 * MSS, rtt));
        paused.on_ack(&ack(Instant::from_millis(millis) + rest, 10 * MSS, rtt));
    }
    assert_eq!(paused.cwnd(), steady.cwnd());
}

/// An ACK for a batch does what the ACKs one by one would do, also for whole windows at once.
#[test]
fn s7_2_batched_acks_grow_the_window_alike() {
    for (segments, rtt_ms) in [(500, 50), (5_000, 100)] {
        let rtt = Duration::from_millis(rtt_ms);
        let mut windows = Vec::new();
        for batch in [1, 16, 64, segments / 2, segments] {
            let mut cubic = reduced(segments);
            acknowledge(&mut cubic, rtt, Duration::from_secs(20), batch, |_, _| {});
            windows.push(f64::from(cubic.cwnd()) / SEGMENT);
        }
        let one_by_one = windows[0];
        assert!(windows.iter().all(|w| (w / one_by_one - 1.0).abs() < 0.03), "{windows:?}");
    }
}

/// RFC 9438 §4.2: the target is at most 1.5 cwnd, however long nothing was acknowledged.
#[test]
fn s7_2_no_window_grows_by_more_than_half_in_a_round_trip() {
    let mut cubic = reduced(1000);
    let rtt = Duration::from_millis(100);
    cubic.on_ack(&ack(Instant::ZERO, MSS, rtt));
    let before = cubic.cwnd();
    cubic.on_ack(&ack(Instant::from_millis(3_600_000), before, rtt));
    assert!(cubic.cwnd() <= before + before / 2, "{}", cubic.cwnd());
}

#[test]
fn t23_split_acks_gain_nothing() {
    let rtt = Duration::from_millis(40);
    let (mut whole, mut split) = (reduced(300), reduced(300));
    for round in 0..100 {
        let now = Instant::from_millis(40 * round);
        for _ in 0..200 {
            whole.on_ack(&ack(now, MSS, rtt));
            for _ in 0..10 {
                split.on_ack(&ack(now, MSS / 10, rtt));
            }
        }
    }
    let (whole, split) = (f64::from(whole.cwnd()), f64::from(split.cwnd()));
    assert!((split / whole - 1.0).abs() < 0.001, "{whole} {split}");
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut cubic = Cubic::new(MSS);
    let start = cubic.cwnd();
    cubic.on_ack(&AckSample { limited: false, ..ack(Instant::ZERO, MSS, Duration::from_millis(10)) });
    assert_eq!(cubic.cwnd(), start);
}
