//! The draft's example test cases (appendix "BBR Example Test Cases"), and what they leave out.

use super::*;
use crate::seq::SeqNumber;
use crate::tcb::congestion::path::{MSS, Path, Run};
use crate::tcb::congestion::{Algorithm, Controller};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn run(path: Path) -> Run {
    Run::new(path, &[Algorithm::Bbr], 1)
}

fn bbr(run: &mut Run) -> &mut Bbr {
    match &mut run.flows[0].controller {
        Controller::Bbr(bbr) => bbr,
        other => unreachable!("{other:?}"),
    }
}

/// Lets time pass until BBR is in `state`.
fn until(run: &mut Run, state: State) {
    let limit = run.now + 30 * SECOND;
    while bbr(run).cycle.state != state {
        run.pass(MS);
        assert!(run.now < limit, "{state:?} doesn't come");
    }
}

fn event(signal: Signal, run: &Run) -> CongestionEvent {
    CongestionEvent { signal, now: run.now, nxt: SeqNumber(0), flight: 100 * MSS, mss: MSS }
}

#[test]
fn s7_2_startup_ends_when_the_bandwidth_grows_no_more() {
    let mut run = run(Path::new(100, 40, 40));
    until(&mut run, State::Drain);
    let rate = run.path.rate;
    let bbr = bbr(&mut run);
    assert!(bbr.model.full_bw_reached && bbr.model.full_bw_now);
    let error = bbr.model.max_bw() as f64 / rate as f64 - 1.0;
    assert!(error.abs() < 0.02, "{error}");
    assert_eq!(bbr.cycle.state.pacing_gain(), 50);
}

/// From 10 segments to a bandwidth-delay product of 342, doubling each round trip.
#[test]
fn s7_2_startup_takes_a_logarithmic_number_of_round_trips() {
    let mut run = run(Path::new(100, 40, 40));
    until(&mut run, State::Drain);
    assert!(bbr(&mut run).model.round_count < 14, "{}", bbr(&mut run).model.round_count);
}

/// A queue of a tenth of the bandwidth-delay product overflows before the plateau shows.
#[test]
fn s7_2_startup_ends_on_loss() {
    let mut run = run(Path::new(100, 40, 1));
    until(&mut run, State::Drain);
    let bdp = run.path.bdp();
    let bbr = bbr(&mut run);
    assert!(bbr.model.full_bw_reached);
    assert!(bbr.model.inflight_longterm != INFINITE || bbr.model.full_bw_now);
    let max_bdp = bbr.model.max_bw() * 40 / 1000;
    assert!((bdp / 2..2 * bdp).contains(&max_bdp), "{max_bdp} {bdp}");
}

#[test]
fn s7_2_startup_goes_on_while_the_application_is_the_limit() {
    let mut run = run(Path::new(100, 40, 10));
    run.flows[0].supply = Some(1_000_000);
    run.pass(4 * SECOND);
    assert_eq!(bbr(&mut run).cycle.state, State::Startup);
    run.flows[0].supply = None;
    until(&mut run, State::Cruise);
    let max_bw = bbr(&mut run).model.max_bw();
    assert!(max_bw > 11_500_000, "{max_bw}");
}

#[test]
fn s7_2_drain_ends_with_the_queue() {
    let mut run = run(Path::new(100, 40, 40));
    until(&mut run, State::Drain);
    let begun = bbr(&mut run).model.round_count;
    while bbr(&mut run).cycle.state == State::Drain {
        run.pass(MS);
    }
    let rounds = bbr(&mut run).model.round_count - begun;
    assert!(rounds <= 4, "{rounds}");
    run.pass(20 * MS);
    assert!(run.mean_queue() < 0.1 * run.path.bdp() as f64, "{}", run.mean_queue());
}

/// DOWN, CRUISE, REFILL, UP, and again, two to three seconds or 63 round trips each.
#[test]
fn s7_2_probing_goes_round() {
    let mut run = run(Path::new(100, 40, 20));
    until(&mut run, State::Down);
    for _ in 0..2 {
        for state in [State::Cruise, State::Refill, State::Up, State::Down] {
            until(&mut run, state);
        }
    }
    let begun = run.now;
    until(&mut run, State::Refill);
    let took = run.now.since(begun);
    assert!((2 * SECOND..4 * SECOND).contains(&took), "{took:?}");
}

/// Five seconds without a shorter round trip: 200 ms with half of the bandwidth-delay product.
#[test]
fn s7_2_the_round_trip_is_measured_every_five_seconds() {
    let mut run = run(Path::new(100, 40, 20));
    until(&mut run, State::ProbeRtt);
    let begun = run.now;
    assert!((4 * SECOND..6 * SECOND).contains(&begun.since(Instant::ZERO)), "{begun:?}");
    run.pass(100 * MS);
    assert!(run.mean_queue() < 30_000.0);
    assert!(u64::from(bbr(&mut run).cwnd()) <= run.path.bdp() * 6 / 10);
    until(&mut run, State::Cruise);
    let took = run.now.since(begun);
    assert!((200 * MS..350 * MS).contains(&took), "{took:?}");
    // Its samples are no measure of the bandwidth.
    run.pass(2 * SECOND);
    let max_bw = bbr(&mut run).model.max_bw();
    assert!(max_bw > run.path.rate * 95 / 100, "{max_bw}");
    assert_eq!(bbr(&mut run).model.min_rtt_us / 1000, 40);
}

/// A pause measures as well: nothing is in flight.
#[test]
fn s7_2_an_idle_application_saves_probing_the_round_trip() {
    let mut run = run(Path::new(100, 40, 20));
    until(&mut run, State::Cruise);
    let now = run.now;
    let bbr = bbr(&mut run);
    let before = (bbr.cwnd, bbr.model.bw);
    bbr.on_idle(now + 10 * SECOND, 10 * SECOND, MSS);
    assert_eq!(bbr.cwnd, before.0);
    assert_eq!(bbr.pacing_rate, before.1 / 100 * 99);
    assert!(bbr.idle_restart);
}

#[test]
fn s7_2_ten_times_the_bandwidth_is_found() {
    let mut run = run(Path::new(10, 40, 20));
    run.pass(5 * SECOND);
    run.path = Path::new(100, 40, 20);
    run.pass(15 * SECOND);
    let shares = run.pass(5 * SECOND);
    assert!(run.utilisation(&shares, 5 * SECOND) > 0.9, "{shares:?}");
}

#[test]
fn s7_2_a_tenth_of_the_bandwidth_is_noticed() {
    let mut run = run(Path::new(100, 40, 20));
    run.pass(5 * SECOND);
    run.path = Path { queue: run.path.queue, ..Path::new(10, 40, 20) };
    run.pass(15 * SECOND);
    let max_bw = bbr(&mut run).model.max_bw();
    assert!(max_bw < 1_500_000, "{max_bw}");
}

#[test]
fn s5_7_a_timeout_that_was_none_is_undone() {
    let mut run = run(Path::new(100, 40, 20));
    until(&mut run, State::Cruise);
    let told = event(Signal::Loss, &run);
    let now = run.now;
    let bbr = bbr(&mut run);
    let before =
        (bbr.cwnd, bbr.model.bw_shortterm, bbr.model.inflight_shortterm, bbr.model.inflight_longterm);
    bbr.on_timeout(&told, true);
    assert_eq!(bbr.cwnd, MSS);
    bbr.model.lower_bounds(bbr.cwnd);
    bbr.on_undo(now);
    let after = (bbr.cwnd, bbr.model.bw_shortterm, bbr.model.inflight_shortterm, bbr.model.inflight_longterm);
    assert_eq!(before, after);
}

/// A probe that a loss ended begins again if it was none.
#[test]
fn s5_7_a_probe_that_was_ended_by_mistake_goes_on() {
    for state in [State::Startup, State::Up] {
        let mut run = run(Path::new(100, 40, 40));
        until(&mut run, state);
        run.pass(90 * MS);
        let told = event(Signal::Loss, &run);
        let now = run.now;
        let bbr = bbr(&mut run);
        assert_eq!(bbr.cycle.state, state);
        bbr.on_congestion(&told);
        if state == State::Startup {
            bbr.leave_startup_for_loss();
        } else {
            // Five of a hundred segments.
            let lost = LostSample { octets: MSS, tx_in_flight: 100 * MSS, lost: 5 * MSS, app_limited: false };
            bbr.on_lost(&lost, now);
        }
        assert_ne!(bbr.cycle.state, state);
        bbr.on_undo(now);
        let back = if state == State::Up { State::Refill } else { state };
        assert_eq!(bbr.cycle.state, back);
        assert_eq!(bbr.model.inflight_longterm, INFINITE);
        assert_eq!(bbr.model.full_bw_reached, state == State::Up);
    }
}

/// §"When not Probing for Bandwidth": what is delivered bounds what is sent, by no more than 30 % a round trip.
#[test]
fn s7_2_loss_while_cruising_lowers_the_short_term_bounds() {
    let mut run = run(Path::new(100, 40, 20));
    until(&mut run, State::Cruise);
    let now = run.now;
    let bw = bbr(&mut run).model.bw;
    bbr(&mut run)
        .on_lost(&LostSample { octets: MSS, tx_in_flight: 300 * MSS, lost: MSS, app_limited: false }, now);
    run.pass(90 * MS);
    let lowered = bbr(&mut run).model.bw;
    assert!(lowered <= bw && lowered >= bw * 70 / 100, "{lowered} {bw}");
    assert_ne!(bbr(&mut run).model.inflight_shortterm, INFINITE);
    until(&mut run, State::Refill);
    assert_eq!(bbr(&mut run).model.inflight_shortterm, INFINITE);
}

/// A mark counts as congestion (draft §"ECN").
#[test]
fn s4_2_marks_end_startup_and_bound_what_is_in_flight() {
    let mut path = Path::new(100, 40, 40);
    path.mark_from = 50_000;
    let mut run = run(path);
    until(&mut run, State::Drain);
    let queued = u64::from(bbr(&mut run).model.inflight_longterm);
    assert!(queued < 3 * run.path.bdp(), "{queued}");
    run.pass(5 * SECOND);
    let shares = run.pass(20 * SECOND);
    assert!(run.utilisation(&shares, 20 * SECOND) > 0.85, "{shares:?}");
    assert!(run.mean_queue() < 100_000.0, "{}", run.mean_queue());
}

#[test]
fn s7_2_where_losses_became_too_many() {
    // (2 % · before − lost before)/98 % more than before: 2 % of what is in flight then.
    let sample = |tx_in_flight, lost| LostSample { octets: 10_000, tx_in_flight, lost, app_limited: false };
    let inflight = model::inflight_at_loss(&sample(110_000, 10_000));
    assert_eq!(inflight, 100_000 + 2_040);
    assert!(model::too_high(10_000, 110_000) && !model::too_high(2_000, 100_000));
    assert_eq!(model::inflight_at_loss(&sample(10_000, 2_000_000)), 0);
}

#[test]
fn s7_2_products_saturate() {
    assert_eq!(bdp(12_500_000, 40_000, 100), 500_000);
    assert_eq!(bdp(12_500_000, 40_000, 225), 1_125_000);
    assert!(bdp(u64::MAX, 60_000_000, 225) < INFINITE);
}

/// Time and randomness are arguments: the same seed waits alike, others between two and three seconds, too.
#[test]
fn s7_2_flows_probe_at_different_times() {
    let waits: Vec<_> = (0..50u32)
        .map(|seed| {
            let mut bbr = Bbr::new(MSS, seed.wrapping_mul(0x9e37_79b9));
            bbr.probe_wait()
        })
        .collect();
    assert!(waits.iter().all(|wait| (2 * SECOND..=3 * SECOND).contains(wait)), "{waits:?}");
    let spread = *waits.iter().max().unwrap() - *waits.iter().min().unwrap();
    assert!(spread > 700 * MS, "{spread:?}");
    assert_eq!(Bbr::new(MSS, 5).probe_wait(), Bbr::new(MSS, 5).probe_wait());
}

impl Bbr {
    fn probe_wait(&mut self) -> Duration {
        self.pick_probe_wait();
        self.cycle.bw_probe_wait
    }
}
