//! One seed, or many on all cores.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::fault::Fault;
use crate::scenario::{Choices, Scenario};
use crate::world::{Observer, Summary, World};

/// What is the same for all seeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What the scenarios may contain.
    pub choices: Choices,
    /// What is broken on purpose.
    pub fault: Option<Fault>,
}

/// A seed that didn't go well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// Why, in one line.
    pub why: String,
}

/// How a seed went.
pub type Outcome = Result<Summary, Failure>;

thread_local! {
    /// Where a panic of the run on this thread is noted.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static RUNNING: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics in a run are its result, and nothing to print.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.with_borrow(|running| *running) {
                PANIC.with_borrow_mut(|panic| *panic = Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

/// Runs the scenario of `seed`.
///
/// # Errors
/// The first thing that was wrong; a panic of the stack is one.
pub fn one(seed: u64, options: &Options, observer: &mut dyn Observer) -> Outcome {
    let scenario = Scenario::draw(seed, options.choices);
    note_panics();
    RUNNING.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| World::new(&scenario, options.fault, observer).run()));
    RUNNING.set(false);
    let result = result.unwrap_or_else(|_| {
        let said = PANIC.take().unwrap_or_default();
        Err(format!("panic: {}", said.replace('\n', " ")))
    });
    result.map_err(|why| Failure { seed, why })
}

/// Runs the seeds of `seeds` on all cores, and calls `each` here with every outcome, as they come.
pub fn many(seeds: std::ops::Range<u64>, options: &Options, mut each: impl FnMut(u64, Outcome)) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let (sender, outcomes) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || sender.send((seed, one(seed, options, &mut ()))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, outcome) in outcomes {
            each(seed, outcome);
        }
    });
}
