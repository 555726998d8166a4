//! The same as timers.rs asks of byway's wheel, of a library's: hierarchical_hash_wheel_timer's, which can cancel.
//!
//! It keeps each timer in an allocation of its own, found by id in a hash table, and leaves what was cancelled in its
//! slot until time gets there; its tick is 1 ms (byway's 0.13 ms).

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use byway_bench::Shuffled;
use criterion::{BenchmarkId, Criterion, Throughput};
use hierarchical_hash_wheel_timer::IdOnlyTimerEntry;
use hierarchical_hash_wheel_timer::wheels::Skip;
use hierarchical_hash_wheel_timer::wheels::cancellable::{CancellableTimerEntry as _, QuadWheelWithOverflow};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::timers::{ARMED, RTO, distance, step};

type Entry = IdOnlyTimerEntry<u32>;

/// The library's wheel, with a clock in front as byway's has one.
struct Wheel {
    wheel: QuadWheelWithOverflow<Entry>,
    /// What of the next tick has passed.
    passed: Duration,
    due: Vec<Rc<Entry>>,
}

const TICK: Duration = Duration::from_millis(1);
const MICROSECOND: Duration = Duration::from_micros(1);
/// Longer than all operations of a bench together, a microsecond each.
const AN_HOUR: Duration = Duration::from_secs(3600);

impl Wheel {
    /// With the ids `0..armed` armed.
    fn new(armed: u32, mut delay: impl FnMut() -> Duration) -> Self {
        let mut wheel = Self { wheel: QuadWheelWithOverflow::new(), passed: Duration::ZERO, due: Vec::new() };
        (0..armed).for_each(|id| wheel.arm(id, delay()));
        wheel
    }

    /// In place of an earlier deadline, if there is one.
    fn arm(&mut self, id: u32, delay: Duration) {
        self.wheel.insert(Entry { id, delay }).expect("in the future");
    }

    fn cancel(&mut self, id: u32) {
        self.wheel.cancel(&id).expect("it is armed");
    }

    /// Lets time pass in which nothing is due.
    fn pass(&mut self, step: Duration) {
        self.passed += step;
        while self.passed >= TICK {
            self.passed -= TICK;
            assert!(self.wheel.tick().is_empty());
        }
    }

    /// The next timer that is due; time jumps to it.
    fn expire(&mut self) -> u32 {
        loop {
            if let Some(entry) = self.due.pop() {
                return *entry.id();
            }
            match self.wheel.can_skip() {
                Skip::Millis(ticks) => self.wheel.skip(ticks),
                Skip::None => {}
                Skip::Empty => unreachable!("all that expires is armed again"),
            }
            self.due = self.wheel.tick();
        }
    }
}

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer/library");
    group.throughput(Throughput::Elements(1));
    let mut rng = SmallRng::seed_from_u64(2);
    let distances: [_; 1024] = core::array::from_fn(|_| distance(&mut rng));

    for armed in ARMED {
        let mut wheel = Wheel::new(armed, || AN_HOUR);
        let (mut ids, mut round) = (Shuffled::new(armed), 0);
        group.bench_function(BenchmarkId::new("arm+cancel", armed), |b| {
            b.iter(|| {
                // Otherwise what was cancelled would never go.
                wheel.pass(MICROSECOND);
                let id = armed + ids.draw();
                round += 1;
                wheel.arm(id, distances[round % 1024]);
                wheel.cancel(id);
            });
        });
    }

    for armed in ARMED {
        let mut wheel = Wheel::new(armed, || RTO);
        let (mut ids, step) = (Shuffled::new(armed), step(armed));
        group.bench_function(BenchmarkId::new("re-arm", armed), |b| {
            b.iter(|| {
                wheel.pass(step);
                wheel.arm(ids.draw(), RTO);
            });
        });
    }

    for armed in ARMED {
        let mut wheel = Wheel::new(armed, || distance(&mut rng));
        let mut round = 0;
        group.bench_function(BenchmarkId::new("arm+expire", armed), |b| {
            b.iter(|| {
                let id = wheel.expire();
                round += 1;
                wheel.arm(black_box(id), distances[round % 1024]);
            });
        });
    }
    group.finish();
}
