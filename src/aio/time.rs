//! Time in tasks: that of the loop's turn, and timers from a wheel of the core's own.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use byway_tcp::time::{Duration, Instant};
use byway_tcp::timer::TimerWheel;

use super::executor::{current, current_of, store_waker};

/// Timers of a core at once: one for each task that may be there. 16 octets each. A sleep beyond them is polled in
/// every turn instead.
const TIMERS_MAX: u32 = super::executor::TASKS_MAX;
/// A tick: 2^17 ns = 131 µs, as the stack's. A sleep is that much late at most, and never early.
const TICK_SHIFT: u32 = 17;
/// Timers that go off in a turn: a clock that jumps doesn't stall the loop (T28).
const EXPIRE_MAX: u32 = 4096;

/// Names a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    index: u32,
    generation: u32,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    waker: Option<Waker>,
}

/// The timers of a core.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: TimerWheel,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self { wheel: TimerWheel::new(TIMERS_MAX, TICK_SHIFT), slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.wheel.next_deadline()
    }

    /// Those that are due.
    pub(super) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        for _ in 0..EXPIRE_MAX {
            let Some(index) = self.wheel.pop_expired(now) else { return };
            wakers.extend(self.slots[index as usize].waker.take());
            self.release(index);
        }
    }

    /// `None`: there are too many.
    fn arm(&mut self, at: Instant, waker: &Waker) -> Option<Key> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < TIMERS_MAX as usize => {
                self.slots.push(Slot::default());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        slot.waker = Some(waker.clone());
        self.wheel.arm(index, at);
        Some(Key { index, generation: slot.generation })
    }

    /// The waker of a timer that hasn't gone off.
    fn waker(&mut self, key: Key) -> Option<&mut Option<Waker>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.generation == key.generation).then_some(&mut slot.waker)
    }

    fn cancel(&mut self, key: Key) -> Option<Waker> {
        let waker = self.waker(key)?.take();
        self.wheel.cancel(key.index);
        self.release(key.index);
        waker
    }

    fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }
}

/// The time of this turn of the loop; [`Instant::ZERO`] outside of tasks.
pub fn now() -> Instant {
    current().map_or(Instant::ZERO, |core| core.now.get())
}

/// Waits for that long: up to 131 µs longer, and never less.
pub fn sleep(duration: impl Into<Duration>) -> Sleep {
    sleep_until(now() + duration)
}

/// Waits until then.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None }
}

/// See [`sleep`]. To be awaited in a task; it may be dropped anywhere.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    /// The core, and the timer there.
    timer: Option<(u64, Key)>,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Lets it end at another time.
    pub fn reset(&mut self, deadline: Instant) {
        self.cancel();
        self.deadline = deadline;
    }

    fn cancel(&mut self) {
        // Elsewhere nobody is waiting any more either: the timer goes off for nothing.
        if let Some((id, key)) = self.timer.take()
            && let Some(core) = current_of(id)
        {
            let waker = core.timers.borrow_mut().cancel(key);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Outside of tasks there is no time.
        let Some(core) = current() else { return Poll::Pending };
        if self.deadline <= core.now.get() {
            self.cancel();
            return Poll::Ready(());
        }
        let mut timers = core.timers.borrow_mut();
        if let Some((id, key)) = self.timer
            && id == core.remote.id
            && let Some(place) = timers.waker(key)
        {
            store_waker(place, cx.waker());
            return Poll::Pending;
        }
        match timers.arm(self.deadline, cx.waker()) {
            Some(key) => self.timer = Some((core.remote.id, key)),
            None => {
                drop(timers);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Time is up before the future was ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("time is up")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(_: Elapsed) -> Self {
        std::io::ErrorKind::TimedOut.into()
    }
}

/// What the future gives, if it does within `limit`; then it is dropped.
///
/// # Errors
/// [`Elapsed`].
pub async fn timeout<F: Future>(limit: impl Into<Duration>, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut limit) = (pin!(future), sleep(limit));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut limit).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
