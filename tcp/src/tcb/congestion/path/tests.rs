use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Warms up for `warm`, measures for `time`: utilisation, mean queue in BDPs, run.
fn measured(
    path: Path,
    algorithms: &[Algorithm],
    warm: Duration,
    time: Duration,
) -> (f64, f64, Vec<u64>, Run) {
    let mut run = Run::new(path, algorithms, 1);
    run.pass(warm);
    let shares = run.pass(time);
    let used = run.utilisation(&shares, time);
    let queue = run.mean_queue() / path.bdp() as f64;
    eprintln!(
        "{algorithms:?} over {path:?}: used {used:.4}, queue {queue:.3} BDP, Jain {:.4}",
        jain(&shares)
    );
    (used, queue, shares, run)
}

#[test]
fn s7_2_windows_fill_a_path_with_a_queue_of_its_bandwidth_delay_product() {
    let path = Path::new(100, 40, 10);
    for algorithm in [Algorithm::Reno, Algorithm::Cubic] {
        let (used, queue, _, _) = measured(path, &[algorithm], 5 * SECOND, 30 * SECOND);
        assert!(used > 0.97, "{algorithm}: {used}");
        assert!(queue < 1.0, "{algorithm}: {queue}");
    }
}

/// RFC 9406: a deep queue is noticed before it overflows; a shallow one is overrun by less than half as much.
#[test]
fn s7_2_slow_start_ends_before_the_queue_overflows() {
    let first = |queue: u64, algorithm: Algorithm| {
        let mut run = Run::new(Path::new(100, 40, queue), &[algorithm], 1);
        while run.flows[0].controller.ssthresh() == u32::MAX {
            run.pass(Duration::from_millis(1));
            assert!(run.now < Instant::from_millis(5000));
        }
        let cwnd = run.flows[0].controller.cwnd();
        run.pass(SECOND);
        (u64::from(cwnd), run.flows[0].lost, run.path.bdp())
    };
    let (cwnd, lost, bdp) = first(80, Algorithm::Cubic);
    assert!(lost == 0 && (bdp..8 * bdp).contains(&cwnd), "{cwnd} {lost} {bdp}");
    let (_, lost, _) = first(10, Algorithm::Cubic);
    let (_, without, _) = first(10, Algorithm::Reno);
    assert!(lost * 2 < without, "{lost} {without}");
}

/// The square-root law: a loss rate p lets Reno have about 1.22/√p segments a round trip.
#[test]
fn s7_1_random_loss_costs_reno_what_theory_says() {
    let path = Path { loss_ppm: 1_000, ..Path::new(1000, 40, 10) };
    let (_, _, shares, _) = measured(path, &[Algorithm::Reno], 5 * SECOND, 120 * SECOND);
    let segments_per_round_trip = shares[0] as f64 / f64::from(MSS) / 120.0 * 0.040;
    let theory = 1.22 / 0.001f64.sqrt();
    assert!((segments_per_round_trip / theory - 1.0).abs() < 0.15, "{segments_per_round_trip} {theory}");
}

/// RFC 9438 §5.1: where it is above Reno's, the average window is (C·(3 + β)/(4·(1 − β)))^¼·RTT^¾/p^¾ segments if
/// losses come at regular intervals; at random ones it's somewhat more.
#[test]
fn s7_2_random_loss_costs_cubic_what_theory_says() {
    let path = Path { loss_ppm: 100, ..Path::new(10_000, 100, 10) };
    let (_, _, shares, _) = measured(path, &[Algorithm::Cubic], 10 * SECOND, 300 * SECOND);
    let segments_per_round_trip = shares[0] as f64 / f64::from(MSS) / 300.0 * 0.100;
    let theory = (0.4f64 * 3.7 / 1.2).powf(0.25) * 0.1f64.powf(0.75) / 0.0001f64.powf(0.75);
    assert!((segments_per_round_trip / theory - 1.0).abs() < 0.3, "{segments_per_round_trip} {theory}");
}

#[test]
fn s7_2_two_flows_share_a_bottleneck() {
    let path = Path::new(100, 40, 10);
    for algorithm in [Algorithm::Reno, Algorithm::Cubic] {
        let (used, _, shares, _) = measured(path, &[algorithm; 2], 20 * SECOND, 60 * SECOND);
        assert!(used > 0.97, "{algorithm}: {used}");
        assert!(jain(&shares) > 0.95, "{algorithm}: {shares:?}");
    }
}

/// RFC 9438 §4.3: fair to Reno where Reno does well, on short or slow paths. On others CUBIC takes what Reno
/// would leave unused for minutes (§5.1).
#[test]
fn s7_2_cubic_is_friendly_to_reno() {
    for (path, fair) in [(Path::new(20, 20, 10), 0.95), (Path::new(100, 40, 10), 0.8)] {
        let pair = [Algorithm::Cubic, Algorithm::Reno];
        let (used, _, shares, _) = measured(path, &pair, 20 * SECOND, 60 * SECOND);
        assert!(used > 0.97 && jain(&shares) > fair, "{shares:?}");
    }
}

/// RFC 3168, RFC 8511: marks keep a queue short that losses would let fill.
#[test]
fn s4_2_marks_replace_losses() {
    for algorithm in [Algorithm::Reno, Algorithm::Cubic] {
        let path = Path { mark_from: 250_000, ..Path::new(100, 40, 40) };
        let (used, queue, _, run) = measured(path, &[algorithm], 5 * SECOND, 20 * SECOND);
        assert!(used > 0.9 && queue < 1.0, "{algorithm}: {used} {queue}");
        assert!(run.flows[0].marked > 0);
    }
}

/// RFC 7661: a window that the application doesn't use doesn't grow beyond what it does.
#[test]
fn s7_2_a_slow_application_gets_no_window_it_does_not_use() {
    for algorithm in [Algorithm::Reno, Algorithm::Cubic] {
        let mut run = Run::new(Path::new(100, 40, 10), &[algorithm], 1);
        run.flows[0].supply = Some(250_000);
        let shares = run.pass(30 * SECOND);
        assert!(shares[0] > 7_000_000);
        // 10 kB a round trip: twice that is used by half.
        assert!(run.flows[0].controller.cwnd() <= 2 * 14_600, "{}", run.flows[0].controller.cwnd());
    }
}

/// The point of BBR: the whole bandwidth, and little of the queue.
#[test]
fn s7_2_bbr_fills_the_path_and_not_the_queue() {
    for tenth_bdps in [10, 100] {
        let (used, queue, _, run) =
            measured(Path::new(100, 40, tenth_bdps), &[Algorithm::Bbr], 5 * SECOND, 30 * SECOND);
        assert!(used > 0.95, "{used}");
        assert!(queue < 0.5, "{queue}");
        let flow = &run.flows[0];
        assert!(flow.lost * 200 < flow.delivered, "{} of {}", flow.lost, flow.delivered);
    }
}

#[test]
fn s7_2_bbr_bears_random_loss() {
    let path = Path { loss_ppm: 10_000, ..Path::new(100, 40, 10) };
    let (used, _, _, _) = measured(path, &[Algorithm::Bbr], 5 * SECOND, 30 * SECOND);
    assert!(used > 0.8, "{used}");
    let (cubic, _, _, _) = measured(path, &[Algorithm::Cubic], 5 * SECOND, 30 * SECOND);
    assert!(cubic < used / 4.0, "{cubic} {used}");
}

#[test]
fn s7_2_two_bbr_flows_share_a_bottleneck() {
    let path = Path::new(100, 40, 10);
    let pair = [Algorithm::Bbr; 2];
    // The first has four fifths when the second begins; half a minute to a minute and a half later it's even.
    let (_, _, early, _) = measured(path, &pair, Duration::ZERO, 10 * SECOND);
    let (used, queue, shares, _) = measured(path, &pair, 90 * SECOND, 60 * SECOND);
    assert!(used > 0.95 && queue < 1.0, "{used} {queue}");
    assert!(jain(&early) < 0.8 && jain(&shares) > 0.95, "{early:?} {shares:?}");
}
