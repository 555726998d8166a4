//! The tasks of one core: polled between a connection's news and what it sends, and in each turn of the loop.
//!
//! ```text
//!   a waker, on any thread ──→ Remote: queue ──→ run: polled, each at most once a round
//!          └── on another thread, once until the core has looked: ends the core's sleep
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use byway_tcp::time::Instant;
use crossbeam::queue::{ArrayQueue, SegQueue};

use super::sockets::{Key, Sockets};
use super::time::Timers;

/// Tasks of a core at once: one for each of the default 65,536 connections, and one beside it. 2 MiB of queue.
pub const TASKS_MAX: u32 = 1 << 17;
/// Polls in a turn of the loop. One that moves a request through hyper takes 1 to 3 µs: with these a turn stays below
/// a millisecond, however many tasks wake themselves; what is left goes on in the next turn.
const POLLS_PER_TURN: u32 = 256;
/// Rounds over those who are awake, in one run: accepting, the connection's own task, and what that wakes in turn. A
/// task that always wakes itself is polled no more often.
const ROUNDS: u32 = 4;

/// A task's future.
pub(super) type Future0 = Pin<Box<dyn Future<Output = ()>>>;

/// What other threads have of a core.
pub(super) struct Remote {
    /// Tells a handle whether it is on its own core.
    pub(super) id: u64,
    awake: ArrayQueue<TaskId>,
    /// The queue was full: everybody is polled.
    missed: AtomicBool,
    /// The core will look before it sleeps.
    notified: AtomicBool,
    notify: Box<dyn Fn() + Send + Sync>,
    /// Streams that were dropped on other threads.
    pub(super) orphans: SegQueue<Key>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Remote {
    fn new(notify: Box<dyn Fn() + Send + Sync>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            awake: ArrayQueue::new(TASKS_MAX as usize),
            missed: AtomicBool::new(false),
            notified: AtomicBool::new(false),
            notify,
            orphans: SegQueue::new(),
        }
    }

    fn push(&self, id: TaskId) {
        if self.awake.push(id).is_err() {
            self.missed.store(true, Ordering::Release);
        }
        if !is_current(self.id) {
            self.notify();
        }
    }

    /// Ends the core's sleep, unless somebody has since it last looked.
    pub(super) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            (self.notify)();
        }
    }
}

/// Names a task.
#[derive(Clone, Copy, Debug)]
struct TaskId {
    index: u32,
    generation: u32,
}

/// What a task's wakers share.
struct TaskWake {
    id: TaskId,
    remote: Arc<Remote>,
    /// It is in the queue; or it is over, and never goes there again.
    queued: AtomicBool,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.remote.push(self.id);
        }
    }
}

struct Task {
    future: Future0,
    wake: Arc<TaskWake>,
    waker: Waker,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Not there while it is polled.
    task: Option<Task>,
}

#[derive(Default)]
struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// What the tasks of a core share with the application that runs them.
pub(super) struct Core {
    pub(super) remote: Arc<Remote>,
    tasks: RefCell<Tasks>,
    pub(super) sockets: RefCell<Sockets>,
    pub(super) timers: RefCell<Timers>,
    pub(super) now: Cell<Instant>,
    pub(super) draining: Cell<bool>,
    /// Who waits for the end.
    pub(super) on_drain: RefCell<OnDrain>,
    polls_left: Cell<u32>,
    #[cfg(feature = "tokio")]
    pub(super) tokio: std::cell::OnceCell<super::tokio::Beside>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("remote", &self.remote).finish_non_exhaustive()
    }
}

thread_local! {
    /// The core whose callback is under way.
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// The current core, inside of a task.
pub(super) fn current() -> Option<Rc<Core>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok()?
}

/// The same, if it is the one of that id.
pub(super) fn current_of(id: u64) -> Option<Rc<Core>> {
    current().filter(|core| core.remote.id == id)
}

fn is_current(id: u64) -> bool {
    let is = |current: &RefCell<Option<Rc<Core>>>| {
        current.borrow().as_ref().is_some_and(|core| core.remote.id == id)
    };
    CURRENT.try_with(is).unwrap_or(false)
}

/// A callback of the core; afterwards the one before is current again.
pub(super) struct Entered(Option<Rc<Core>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        drop(CURRENT.try_with(|current| current.replace(before)));
    }
}

impl Core {
    pub(super) fn new(notify: Box<dyn Fn() + Send + Sync>, ports: Vec<u16>) -> Rc<Self> {
        Rc::new(Self {
            remote: Arc::new(Remote::new(notify)),
            tasks: RefCell::default(),
            sockets: RefCell::new(Sockets::new(ports)),
            timers: RefCell::new(Timers::new()),
            now: Cell::new(Instant::ZERO),
            draining: Cell::new(false),
            on_drain: RefCell::default(),
            polls_left: Cell::new(POLLS_PER_TURN),
            #[cfg(feature = "tokio")]
            tokio: std::cell::OnceCell::new(),
        })
    }

    /// Makes this the current core.
    pub(super) fn enter(self: &Rc<Self>, now: Instant) -> Entered {
        self.now.set(now);
        Entered(CURRENT.with(|current| current.replace(Some(Rc::clone(self)))))
    }

    /// A turn begins: from here on a wake from elsewhere ends the next sleep.
    pub(super) fn begin_turn(&self) {
        self.polls_left.set(POLLS_PER_TURN);
        self.remote.notified.swap(false, Ordering::AcqRel);
    }

    /// Adds a task, which is polled soon; hands it back when there are too many.
    pub(super) fn spawn(&self, future: Future0) -> Result<(), Future0> {
        let mut tasks = self.tasks.borrow_mut();
        let index = match tasks.free.pop() {
            Some(index) => index,
            None if tasks.slots.len() < TASKS_MAX as usize => {
                tasks.slots.push(Slot::default());
                tasks.slots.len() as u32 - 1
            }
            None => return Err(future),
        };
        let slot = &mut tasks.slots[index as usize];
        let id = TaskId { index, generation: slot.generation };
        let wake = Arc::new(TaskWake { id, remote: Arc::clone(&self.remote), queued: AtomicBool::new(true) });
        let waker = Waker::from(Arc::clone(&wake));
        slot.task = Some(Task { future, wake, waker });
        drop(tasks);
        self.remote.push(id);
        Ok(())
    }

    /// Whether somebody could go on at once.
    pub(super) fn is_busy(&self) -> bool {
        !self.remote.awake.is_empty() || self.remote.missed.load(Ordering::Acquire)
    }

    /// Polls who is awake, and whom they wake, as far as this turn's polls go.
    pub(super) fn run(&self) {
        for _ in 0..ROUNDS {
            #[cfg(feature = "tokio")]
            let guard = self.tokio.get().map(super::tokio::Beside::enter);
            self.run_round();
            #[cfg(feature = "tokio")]
            if let Some(tokio) = self.tokio.get() {
                drop(guard);
                tokio.run(self.now.get());
            }
            if self.remote.awake.is_empty() || self.polls_left.get() == 0 {
                return;
            }
        }
    }

    fn run_round(&self) {
        if self.remote.missed.swap(false, Ordering::AcqRel) {
            self.poll_everybody();
        }
        for _ in 0..self.remote.awake.len() {
            let Some(left) = self.polls_left.get().checked_sub(1) else { return };
            self.polls_left.set(left);
            let Some(id) = self.remote.awake.pop() else { return };
            self.poll(id);
        }
    }

    /// The queue has room for all tasks, and overflows only by those of late ones: see [`TaskWake::queued`].
    fn poll_everybody(&self) {
        let count = self.tasks.borrow().slots.len() as u32;
        for index in 0..count {
            let generation = self.tasks.borrow().slots[index as usize].generation;
            self.poll(TaskId { index, generation });
        }
    }

    fn poll(&self, id: TaskId) {
        let taken = {
            let mut tasks = self.tasks.borrow_mut();
            let slot = &mut tasks.slots[id.index as usize];
            if slot.generation == id.generation { slot.task.take() } else { None }
        };
        let Some(mut task) = taken else { return };
        task.wake.queued.swap(false, Ordering::AcqRel);
        let poll = || task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
        if let Ok(Poll::Pending) = catch_unwind(AssertUnwindSafe(poll)) {
            self.tasks.borrow_mut().slots[id.index as usize].task = Some(task);
            return;
        }
        // Over, or it has panicked, which ends a task and not the core; the hook has said where.
        task.wake.queued.store(true, Ordering::Release);
        let _ = catch_unwind(AssertUnwindSafe(move || drop(task)));
        let mut tasks = self.tasks.borrow_mut();
        let slot = &mut tasks.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        tasks.free.push(id.index);
    }

    /// Drops all tasks, at the end.
    pub(super) fn clear(&self) {
        let tasks = core::mem::take(&mut *self.tasks.borrow_mut());
        let _ = catch_unwind(AssertUnwindSafe(move || drop(tasks)));
    }

    /// How many tasks there are.
    #[cfg(test)]
    pub(super) fn task_count(&self) -> usize {
        let tasks = self.tasks.borrow();
        tasks.slots.len() - tasks.free.len()
    }
}

/// Wakes everybody who was collected while something was borrowed: wakers may be anybody's code.
pub(super) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// Puts a waker in place of the one before, unless both wake the same task.
pub(super) fn store_waker(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(before) => before.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

// --- spawning -----------------------------------------------------------------------------------

/// A task was refused: [`TASKS_MAX`] are there, or no core is here to run it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no more tasks on this core")
    }
}

impl std::error::Error for Full {}

/// A task has panicked; the panic's own message has been printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task has panicked")
    }
}

impl std::error::Error for Panicked {}

#[derive(Debug)]
struct Joint<T> {
    result: Option<Result<T, Panicked>>,
    waker: Option<Waker>,
}

/// Sets the result, also when the task unwinds.
struct Joining<T>(Rc<RefCell<Joint<T>>>);

impl<T> Joining<T> {
    fn set(&self, result: Result<T, Panicked>) {
        let mut joint = self.0.borrow_mut();
        joint.result.get_or_insert(result);
        let waker = joint.waker.take();
        drop(joint);
        wake_all(waker);
    }
}

impl<T> Drop for Joining<T> {
    fn drop(&mut self) {
        if self.0.borrow().result.is_none() {
            self.set(Err(Panicked));
        }
    }
}

/// Waits for a task's result; dropped, the task goes on by itself.
#[derive(Debug)]
pub struct JoinHandle<T>(Rc<RefCell<Joint<T>>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut joint = self.0.borrow_mut();
        match joint.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                store_waker(&mut joint.waker, cx.waker());
                Poll::Pending
            }
        }
    }
}

/// Runs a future as a task of this core, beside the others. It needn't be `Send`: it never leaves the core's thread.
/// Costs three allocations.
///
/// # Errors
/// [`Full`].
pub fn spawn<F>(future: F) -> Result<JoinHandle<F::Output>, Full>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let joint = Rc::new(RefCell::new(Joint { result: None, waker: None }));
    let joining = Joining(Rc::clone(&joint));
    let task = async move { joining.set(Ok(future.await)) };
    let core = current().ok_or(Full)?;
    core.spawn(Box::pin(task)).map_err(|_| Full)?;
    Ok(JoinHandle(joint))
}

/// Waits until the program is told to end: then finish what is under way. Connections that aren't closed within
/// `--drain` are reset, and tasks end where they are.
pub fn draining() -> Draining {
    Draining { place: None }
}

/// See [`draining`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Draining {
    /// The core, and where its waker is.
    place: Option<(u64, usize)>,
}

/// Who waits for the end.
#[derive(Default)]
pub(super) struct OnDrain {
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl OnDrain {
    /// Takes everybody out.
    pub(super) fn take(&mut self) -> Vec<Waker> {
        self.places.iter_mut().filter_map(Option::take).collect()
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(core) = current() else { return Poll::Pending };
        if core.draining.get() {
            return Poll::Ready(());
        }
        let mut waiting = core.on_drain.borrow_mut();
        let place = match self.place {
            Some((id, place)) if id == core.remote.id => place,
            _ => {
                let place = waiting.free.pop().unwrap_or_else(|| {
                    waiting.places.push(None);
                    waiting.places.len() - 1
                });
                self.place = Some((core.remote.id, place));
                place
            }
        };
        store_waker(&mut waiting.places[place], cx.waker());
        Poll::Pending
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some((id, place)) = self.place
            && let Some(core) = current_of(id)
        {
            let waker = {
                let mut waiting = core.on_drain.borrow_mut();
                waiting.free.push(place);
                waiting.places[place].take()
            };
            drop(waker);
        }
    }
}

/// Lets the others go first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
