//! The timer wheel, with 1 to a million timers armed. Ids come in an order that no prefetcher
//! guesses; time is virtual, a microsecond per operation or less.

use std::hint::black_box;
use std::time::Duration;

use byway_bench::Shuffled;
use byway_tcp::time::Instant;
use byway_tcp::timer::{TimerKind, TimerWheel, Timers};
use criterion::{BenchmarkId, Criterion, Throughput};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub(crate) const ARMED: [u32; 4] = [1, 1_000, 100_000, 1_000_000];
/// The stack's tick: 2^17 ns.
const TICK_SHIFT: u32 = 17;
/// Linux's shortest retransmission timeout.
pub(crate) const RTO: Duration = Duration::from_millis(200);

/// Time between two operations: a microsecond, or so little that each of `armed` timers is moved every 100 ms and so
/// stays ahead of the [`RTO`].
pub(crate) fn step(armed: u32) -> Duration {
    Duration::from_micros(1).min(Duration::from_millis(100) / armed)
}

/// Time until a timer is due: the RTO ± 50 %.
pub(crate) fn distance(rng: &mut SmallRng) -> Duration {
    Duration::from_micros(rng.random_range(100_000..300_000))
}

/// A wheel with ids up to `capacity`, of which the first `armed` are.
fn wheel(capacity: u32, armed: u32) -> TimerWheel {
    let mut wheel = TimerWheel::new(capacity, TICK_SHIFT);
    let mut rng = SmallRng::seed_from_u64(1);
    for id in 0..armed {
        wheel.arm(id, Instant::ZERO + distance(&mut rng));
    }
    wheel
}

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(1));

    // Others stay armed while one is armed and cancelled again; time stands still.
    for armed in ARMED {
        let mut wheel = wheel(2 * armed, armed);
        let mut rng = SmallRng::seed_from_u64(2);
        let deadlines: [_; 1024] = core::array::from_fn(|_| Instant::ZERO + distance(&mut rng));
        let (mut ids, mut round) = (Shuffled::new(armed), 0);
        group.bench_function(BenchmarkId::new("arm+cancel", armed), |b| {
            b.iter(|| {
                let id = armed + ids.draw();
                round += 1;
                wheel.arm(id, deadlines[round % 1024]);
                wheel.cancel(id);
            });
        });
    }

    // Each ACK moves its connection's timeout to now + RTO before it is due. The wheel follows the clock
    // as it does once per turn of the loop, and nothing ever expires.
    for armed in ARMED {
        let mut wheel = wheel(armed, armed);
        let (mut ids, step) = (Shuffled::new(armed), step(armed));
        let mut now = Instant::ZERO;
        for id in 0..armed {
            wheel.arm(id, now + RTO);
        }
        group.bench_function(BenchmarkId::new("re-arm", armed), |b| {
            b.iter(|| {
                now = now + step;
                let id = ids.draw();
                wheel.arm(id, now + RTO);
                assert!(wheel.pop_expired(now).is_none());
            });
        });
    }

    // The same as the stack does it: the deadline is the connection's, and the wheel is told only of
    // earlier ones. What it costs to be woken for nothing, every 200 ms, is in here.
    for armed in ARMED {
        let mut wheel = wheel(armed, 0);
        let mut timers = vec![Timers::new(); armed as usize];
        let (mut ids, step) = (Shuffled::new(armed), step(armed));
        let mut now = Instant::ZERO;
        group.bench_function(BenchmarkId::new("re-arm, lazily", armed), |b| {
            b.iter(|| {
                now = now + step;
                let id = ids.draw();
                timers[id as usize].set(TimerKind::Retransmit, now + RTO);
                timers[id as usize].schedule(&mut wheel, id);
                while let Some(woken) = wheel.pop_expired(now) {
                    black_box(timers[woken as usize].pop_due(now));
                    timers[woken as usize].schedule(&mut wheel, woken);
                }
            });
        });
    }

    // Every timer expires and is armed again; time jumps from one to the next.
    for armed in ARMED {
        let mut wheel = wheel(armed, armed);
        let mut rng = SmallRng::seed_from_u64(3);
        let distances: [_; 1024] = core::array::from_fn(|_| distance(&mut rng));
        let (mut now, mut round) = (Instant::ZERO, 0);
        group.bench_function(BenchmarkId::new("arm+expire", armed), |b| {
            b.iter(|| {
                let id = loop {
                    if let Some(id) = wheel.pop_expired(now) {
                        break id;
                    }
                    now = wheel.next_deadline();
                };
                round += 1;
                wheel.arm(id, now + distances[round % 1024]);
            });
        });
    }
    group.finish();
}
