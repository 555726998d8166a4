//! All cores together: started, told to go, asked, drained and stopped.
//!
//! ```text
//!   start ─→ every core pins itself, maps its frames, opens its socket, builds stack and app
//!     │      the caller puts sockets() into the steering program's map and attaches it
//!   go ────→ the loops turn
//!   drain ─→ no new connections; what is left after the limit is reset, and the resets are sent
//!     │      the caller detaches the steering: from here on frames go to the kernel
//!   stop ──→ sockets are closed, then memory is unmapped
//! ```
//!
//! Steering goes before the sockets, never after: closing sockets under an attached program has
//! crashed hosts (D9).

use core::net::IpAddr;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use byway_tcp::app::App;
use byway_tcp::counters::Totals;
use byway_tcp::stack::{Listener, News, Stack};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use crate::capture::{Capture, Wish};
use crate::clock::Clock;
use crate::config::{Config, LINK_HEADER_MAX};
use crate::control::{self, Command, Event, Handle, Mailbox, Message, Page, Snapshot, Waker};
use crate::core_loop::{CoreLoop, Idle, LoopCounters, Rest, Turn};
use crate::error::Error;
use crate::kernel::{self, SocketCounters};
use crate::pin;
use crate::port::Port as _;
use crate::sys;
use crate::umem::Umem;
use crate::xsk::{Bound, Xsk};

/// How long a core may take to answer a question. A turn takes microseconds and a sleep is ended
/// by the waker, so a core that takes this long is stopped or starved.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A core takes what waits for it at every turn: one that is behind is so for a moment, or has ended.
const TELL_TRIES: u32 = 100;
const TELL_AGAIN: Duration = Duration::from_millis(1);

/// How long the last frames (resets, mostly) may take to leave once the connections are gone.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// How often a drain looks whether it is to hurry.
const HURRY_EVERY: Duration = Duration::from_millis(50);

/// How much longer than its limit a drain is waited for before the cores are given up.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What all cores are told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The interface's name.
    pub interface: String,
    /// Queues, each with the core that serves it.
    pub lanes: Vec<(u32, usize)>,
    /// Frames, rings, sleeping.
    pub datapath: Config,
    /// Every core's stack.
    pub stack: byway_tcp::stack::Config,
    /// Ports open on every core.
    pub listeners: Vec<Listener>,
}

/// What a core got.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What the kernel granted the socket.
    pub bound: Bound,
    /// Whether the frames lie on huge pages.
    pub huge_pages: bool,
    /// Octets of a frame, headroom included.
    pub frame_size: u32,
    /// Largest IP packet that is taken and sent, in several frames if it has to.
    pub mtu: u16,
}

impl Ready {
    fn packet_max(&self) -> u32 {
        self.frame_size.max(u32::from(self.mtu) + LINK_HEADER_MAX)
    }
}

/// A running core, from outside.
#[derive(Debug)]
struct Core {
    queue: u32,
    core: usize,
    handle: Handle,
    opened: Opened,
    thread: Option<JoinHandle<()>>,
}

/// What a core has that is about to serve: nothing of this, if it has kernel sockets.
#[derive(Debug, Default)]
struct Opened {
    ready: Option<Ready>,
    /// A second descriptor of its socket. Given up before the core is told to stop.
    socket: Option<OwnedFd>,
}

/// Where a core says that it is about to serve, or why it never will.
type Report = Sender<Result<Opened, Error>>;

/// The running cores.
#[derive(Debug)]
pub struct Runtime {
    cores: Vec<Core>,
    /// How many captures there are.
    captures: Arc<AtomicUsize>,
    events: Receiver<Event>,
    /// Who asks the kernel for neighbours, if they are the kernel's.
    host: Option<(Sender<IpAddr>, Waker)>,
}

impl Runtime {
    /// Starts a thread per lane and waits until each has its socket; none serves before [`go`](Self::go).
    ///
    /// `make_app` is called on each core's own thread, with the core's place among the lanes and what ends its sleep.
    ///
    /// # Errors
    /// The first core's that fails; the others are stopped and nothing is left behind.
    pub fn start<A, F>(plan: Plan, make_app: F) -> Result<Self, Error>
    where
        A: App,
        F: Fn(usize, &Waker) -> A + Send + Sync + 'static,
    {
        plan.datapath.check()?;
        let lanes = plan.lanes.clone();
        let shared = Arc::new((plan, make_app));
        Self::launch(&lanes, |place| {
            let shared = Arc::clone(&shared);
            move |mailbox: &Mailbox, report: Report| {
                let (plan, make_app) = &*shared;
                let (queue, core) = plan.lanes[place];
                match open(plan, make_app, place, mailbox.waker()) {
                    Ok((core_loop, ready, socket)) => {
                        let _ = report.send(Ok(Opened { ready: Some(ready), socket: Some(socket) }));
                        CoreThread::new(core, queue, core_loop, mailbox, plan.datapath.spin_max).run();
                    }
                    Err(error) => drop(report.send(Err(error))),
                }
            }
        })
    }

    /// The same over the kernel's TCP: a thread per core, which listens when this returns.
    ///
    /// # Errors
    /// The first core's that fails; the others are stopped and nothing is left behind.
    pub fn start_on_kernel<A, F>(plan: kernel::Plan, make_app: F) -> Result<Self, Error>
    where
        A: App,
        F: Fn(usize, &Waker) -> A + Send + Sync + 'static,
    {
        for &endpoint in &plan.endpoints {
            kernel::check_vacant(endpoint)?;
        }
        let lanes: Vec<_> = (0..).zip(plan.cores.iter().copied()).collect();
        let shared = Arc::new((plan, make_app));
        Self::launch(&lanes, |place| {
            let shared = Arc::clone(&shared);
            move |mailbox: &Mailbox, report: Report| {
                let (plan, make_app) = &*shared;
                match kernel::core::Core::open(plan, place, make_app, mailbox) {
                    Ok(core) => {
                        let _ = report.send(Ok(Opened::default()));
                        core.run();
                    }
                    Err(error) => drop(report.send(Err(error))),
                }
            }
        })
    }

    /// Starts a thread for each of `lanes` with the body that `make_body` gives for its place.
    fn launch<B>(lanes: &[(u32, usize)], make_body: impl Fn(usize) -> B) -> Result<Self, Error>
    where
        B: FnOnce(&Mailbox, Report) + Send + 'static,
    {
        let (news, events) = crossbeam::channel::bounded(control::EVENTS_MAX);
        let mut runtime = Self { cores: Vec::new(), captures: Arc::default(), events, host: None };
        let mut starting = Vec::new();
        for (place, &lane) in lanes.iter().enumerate() {
            starting.push(spawn(lane, news.clone(), make_body(place))?);
        }
        let mut failed = None;
        for Starting { queue, core, handle, thread, opened } in starting {
            match opened.recv() {
                Ok(Ok(opened)) => {
                    runtime.cores.push(Core { queue, core, handle, opened, thread: Some(thread) });
                }
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or(Some(Error::CorePanicked { core })),
            }
        }
        match failed {
            // Dropping the runtime stops those that did start.
            Some(error) => Err(error),
            None => Ok(runtime),
        }
    }

    /// Each queue with its socket, for the steering program's map.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.cores.iter().filter_map(|core| Some((core.queue, core.opened.socket.as_ref()?.as_fd())))
    }

    /// Each lane with what its core got: queue, core, facts.
    pub fn ready(&self) -> impl Iterator<Item = (u32, usize, &Ready)> {
        self.cores.iter().filter_map(|core| Some((core.queue, core.core, core.opened.ready.as_ref()?)))
    }

    /// Lets the cores serve.
    pub fn go(&self) {
        self.tell_all(|| Command::Go);
    }

    /// What may be asked of the cores from other threads.
    pub fn inquirer(&self) -> Inquirer {
        Inquirer {
            cores: self.cores.iter().map(|core| core.handle.clone()).collect(),
            lanes: self.cores.iter().map(|core| (core.queue, core.core)).collect(),
            captures: Arc::clone(&self.captures),
            packet_max: self.ready().map(|(.., ready)| ready.packet_max()).max().unwrap_or(0),
        }
    }

    /// Waits up to `timeout` for news that concern the caller; passes what cores tell each
    /// other on by itself.
    pub fn next_event(&self, timeout: Duration) -> Option<Event> {
        match self.events.recv_timeout(timeout) {
            Ok(Event::News { core, news }) => {
                self.pass_on(core, &news);
                None
            }
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Tells each core what the others have counted and hold, so that an application can show all of it.
    pub fn share_totals(&self) {
        if self.cores.len() < 2 {
            return;
        }
        let snapshots = self.inquirer().snapshots();
        for core in &self.cores {
            let mut elsewhere = Box::<Totals>::default();
            for snapshot in snapshots.iter().filter(|snapshot| snapshot.core != core.core) {
                elsewhere.merge(&snapshot.totals);
            }
            core.handle.send(Command::LearnTotals(elsewhere));
        }
    }

    /// Tells every core's application. False if one of them hasn't heard: its core doesn't keep up, or has ended.
    pub fn tell_apps(&self, message: &Message) -> bool {
        self.inquirer().send_all(|| Command::TellApp(Arc::clone(message)))
    }

    /// Whether every core answers, within the time a snapshot may take.
    pub fn answers(&self) -> bool {
        self.inquirer().snapshots().len() == self.cores.len()
    }

    /// Stops accepting, lets connections finish for up to `limit` or until `hurried` says so, and
    /// resets what is left. Returns how many had to be reset.
    ///
    /// # Errors
    /// When a core fails meanwhile; the others are drained nevertheless.
    pub fn drain(&self, limit: Duration, hurried: impl Fn() -> bool) -> Result<u32, Error> {
        // A core whose thread has ended takes no order, and there is nothing to wait for.
        let told = self.cores.iter().filter(|core| core.handle.send(Command::Drain { limit }));
        let mut waiting: Vec<usize> = told.map(|core| core.core).collect();
        let mut deadline = Clock.now() + limit + FLUSH_LIMIT + DRAIN_GRACE;
        let (mut reset, mut failed, mut hurrying) = (0, None, false);
        while !waiting.is_empty() {
            let now = Clock.now();
            if !hurrying && hurried() {
                hurrying = true;
                self.tell_all(|| Command::Drain { limit: Duration::ZERO });
                deadline = deadline.min(now + FLUSH_LIMIT + DRAIN_GRACE);
            }
            let left = deadline.since(now);
            if left.is_zero() {
                break;
            }
            match self.next_event(left.min(HURRY_EVERY.into()).into()) {
                Some(Event::Drained { core, reset: count }) => {
                    reset += count;
                    waiting.retain(|&other| other != core);
                }
                Some(Event::Failed { core, error }) => {
                    failed = failed.or(Some(error));
                    waiting.retain(|&other| other != core);
                }
                Some(Event::News { .. }) | None => {}
            }
        }
        failed.map_or(Ok(reset), Err)
    }

    /// Ends the loops, closes the sockets and unmaps the memory. The steering has been detached.
    ///
    /// # Errors
    /// [`Error::CorePanicked`], after everything else has been stopped.
    pub fn stop(mut self) -> Result<(), Error> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for core in &mut self.cores {
            core.opened.socket = None;
            core.handle.send(Command::Stop);
        }
        for core in &mut self.cores {
            let panicked = core.thread.take().is_some_and(|thread| thread.join().is_err());
            if panicked {
                result = Err(Error::CorePanicked { core: core.core });
            }
        }
        result
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for core in &self.cores {
            core.handle.send(command());
        }
    }

    /// Where the cores' questions for neighbours go that are the kernel's ([`News::Wanted`]): those that there is no room
    /// for are dropped, and asked again in a second. The waker is woken for each.
    pub fn ask_host(&mut self, questions: Sender<IpAddr>, waker: Waker) {
        self.host = Some((questions, waker));
    }

    fn pass_on(&self, from: usize, news: &[News]) {
        if let Some((questions, waker)) = &self.host {
            for piece in news {
                if let News::Wanted(ip) = piece {
                    let _ = questions.try_send(*ip);
                    waker.wake();
                }
            }
        }
        for core in self.cores.iter().filter(|core| core.core != from) {
            core.handle.send(Command::Hear(news.to_vec()));
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Nothing to do about a core that panicked: its own message has been printed.
        let _ = self.shut_down();
    }
}

/// Asks the cores; for the control socket's thread.
#[derive(Clone, Debug)]
pub struct Inquirer {
    cores: Vec<Handle>,
    lanes: Vec<(u32, usize)>,
    captures: Arc<AtomicUsize>,
    /// Octets of the largest packet that can be seen, link headers included.
    packet_max: u32,
}

impl Inquirer {
    /// Every core's counters. A core that doesn't answer is left out.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.cores.iter().filter_map(|core| core.ask(ANSWER_TIMEOUT, Command::Snapshot)).collect()
    }

    /// Tells every core. One that doesn't keep up is waited for, but not for ever: false if one hasn't heard.
    pub fn tell(&self, news: &[News]) -> bool {
        self.send_all(|| Command::Hear(news.to_vec()))
    }

    fn send_all(&self, command: impl Fn() -> Command) -> bool {
        let told = |core: &Handle| {
            (0..TELL_TRIES).any(|attempt| {
                if attempt > 0 {
                    std::thread::sleep(TELL_AGAIN);
                }
                core.send(command())
            })
        };
        self.cores.iter().filter(|core| !told(core)).count() == 0
    }

    /// How many cores there are.
    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// Each core's queue, and which core it is.
    pub fn lanes(&self) -> &[(u32, usize)] {
        &self.lanes
    }

    /// Watches every core's frames, until the capture is dropped. `None`: a core doesn't answer, or there are
    /// [`CAPTURES_MAX`](crate::capture::CAPTURES_MAX) already.
    pub fn capture(&self, wish: &Wish) -> Option<Capture> {
        let mut capture = Capture::begin(&self.captures)?;
        for core in &self.cores {
            capture.watch(core, wish, self.packet_max).then_some(())?;
        }
        Some(capture)
    }

    /// A page of the connections of the core at `place`, in the memory of an earlier one. `None`: it doesn't answer.
    pub fn connections(&self, place: usize, from: u32, mut page: Page) -> Option<Page> {
        page.connections.clear();
        page.connections.reserve(control::PAGE_MAX as usize);
        self.cores.get(place)?.ask(ANSWER_TIMEOUT, |reply| Command::Connections { from, page, reply })
    }
}

struct Starting {
    queue: u32,
    core: usize,
    handle: Handle,
    thread: JoinHandle<()>,
    opened: Receiver<Result<Opened, Error>>,
}

fn spawn<B>((queue, core): (u32, usize), news: Sender<Event>, body: B) -> Result<Starting, Error>
where
    B: FnOnce(&Mailbox, Report) + Send + 'static,
{
    let (handle, mailbox) = control::mailbox(news)?;
    let (report, opened) = crossbeam::channel::bounded(1);
    let body = move || {
        let guard = PanicGuard { core, mailbox: &mailbox };
        body(&mailbox, report);
        drop(guard);
    };
    let thread = std::thread::Builder::new()
        .name(format!("byway-q{queue}"))
        .spawn(body)
        .map_err(|source| Error::System { what: "starting a thread", source })?;
    Ok(Starting { queue, core, handle, thread, opened })
}

/// Tells the control side when the thread unwinds.
struct PanicGuard<'a> {
    core: usize,
    mailbox: &'a Mailbox,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = Error::CorePanicked { core: self.core };
            self.mailbox.tell(Event::Failed { core: self.core, error });
        }
    }
}

type OpenedLoop<A> = (CoreLoop<Xsk, Umem, A>, Ready, OwnedFd);

/// On the core's own thread, so that its memory is local and first touched there.
fn open<A: App>(
    plan: &Plan,
    make_app: &impl Fn(usize, &Waker) -> A,
    place: usize,
    waker: &Waker,
) -> Result<OpenedLoop<A>, Error> {
    let (queue, core) = plan.lanes[place];
    pin::pin(core)?;
    pin::sharpen_sleeps();
    // SAFETY: the UMEM goes into the pool below, and nowhere else.
    let umem = unsafe { Umem::new(&plan.datapath) }?;
    let huge_pages = umem.huge_pages();
    // SAFETY: the port goes into the loop below, together with the stack whose pool is over this
    // very UMEM; the loop gives the port that pool and that stack's frames only.
    let port = unsafe { Xsk::open(&umem, &plan.datapath, &plan.interface, queue) }?;
    let what = "duplicating a socket's descriptor";
    let socket = port.fd().try_clone_to_owned().map_err(|source| Error::System { what, source })?;
    let bound = port.bound().clone();
    let (datapath, mut config) = (&plan.datapath, plan.stack.clone());
    let most = if bound.scattered { datapath.scattered_mtu_max(bound.zero_copy) } else { config.mtu };
    config.receive_mtu = config.receive_mtu.min(most).max(config.mtu);
    if config.receive_mtu > config.mtu {
        // Not limited any more by the headroom of what is received.
        config.mtu = config.mtu.max(config.receive_mtu.min(datapath.sent_mtu_max()));
        config.frames_sent = datapath.frames_sent_max(bound.zero_copy);
    }
    let (frame_size, mtu) = (datapath.frame_size, config.receive_mtu);
    let ready = Ready { bound, huge_pages, frame_size, mtu };
    let pool = byway_tcp::frame::FramePool::new(umem);
    config.rss = config.rss.map(|rss| rss.for_queue(queue));
    let mut stack = Stack::new(config, pool);
    for &listener in &plan.listeners {
        stack.listen(listener);
    }
    Ok((CoreLoop::new(port, stack, make_app(place, waker)), ready, socket))
}

/// Where a core is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Has its socket; the steering isn't attached yet.
    Waiting,
    /// Serves.
    Serving,
    /// Lets connections finish until then.
    Draining { until: byway_tcp::time::Instant },
    /// Has reset `reset` connections and sends what is left, until then at the latest.
    Flushing { until: byway_tcp::time::Instant, reset: u32 },
    /// Has nothing more to send; the steering is being detached.
    Drained,
}

/// `pause` instructions after a turn without work: about 0.1 µs on current processors, a tenth of what a frame costs.
/// The hyperthread beside this one, often the client or another queue's core, gets the execution units meanwhile.
const PAUSES: usize = 8;

/// A core's thread between its turns.
struct CoreThread<'a, A> {
    core: usize,
    queue: u32,
    core_loop: CoreLoop<Xsk, Umem, A>,
    mailbox: &'a Mailbox,
    idle: Idle,
    phase: Phase,
    /// Whether the last turn had work.
    is_busy: bool,
}

impl<'a, A: App> CoreThread<'a, A> {
    fn new(
        core: usize,
        queue: u32,
        core_loop: CoreLoop<Xsk, Umem, A>,
        mailbox: &'a Mailbox,
        spin_max: Option<byway_tcp::time::Duration>,
    ) -> Self {
        let (idle, phase) = (Idle::new(spin_max), Phase::Waiting);
        Self { core, queue, core_loop, mailbox, idle, phase, is_busy: false }
    }

    /// Turns until told to stop, or until the device is gone.
    fn run(mut self) {
        if let Err(error) = self.serve() {
            self.mailbox.tell(Event::Failed { core: self.core, error });
            // The socket stays until the steering is detached (D9).
            while !self.obey_until_stop() {
                let _ = self.mailbox.waker().sleep(Idle::SLEEP_MAX.into());
            }
        }
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let now = Clock.now();
            while let Some(command) = self.mailbox.next() {
                if matches!(command, Command::Stop) {
                    return Ok(());
                }
                self.obey(command, now);
            }
            let turn = match self.phase {
                Phase::Waiting => Turn::default(),
                _ => self.core_loop.turn(now)?,
            };
            self.is_busy = turn.is_busy();
            if self.core_loop.stack().has_news() {
                self.tell_news();
            }
            self.advance_phase(turn, now);
            let deadline = self.next_deadline();
            match self.idle.after(turn, now, deadline) {
                Rest::Sleep(timeout) => {
                    self.core_loop.sleeping(now + timeout);
                    self.core_loop.port_mut().park(timeout.into(), self.mailbox.waker())?;
                }
                Rest::Spin if !turn.is_busy() => (0..PAUSES).for_each(|_| core::hint::spin_loop()),
                Rest::Spin => {}
            }
        }
    }

    fn obey(&mut self, command: Command, now: byway_tcp::time::Instant) {
        match command {
            Command::Go => self.phase = Phase::Serving,
            Command::Snapshot(reply) => {
                let _ = reply.try_send(self.snapshot());
            }
            Command::Connections { from, mut page, reply } => {
                let begun = Clock.now();
                let Page { connections, .. } = &mut page;
                let mut show = |info| connections.push(info);
                page.next = self.core_loop.stack().connections(from, control::PAGE_MAX, now, &mut show);
                page.cost = self.is_busy.then(|| Clock.now().since(begun).into());
                let _ = reply.try_send(page);
            }
            Command::LearnTotals(elsewhere) => self.core_loop.learn_totals(elsewhere),
            Command::Hear(news) => self.core_loop.hear(&news, now),
            Command::TellApp(message) => self.core_loop.tell_app(&*message),
            Command::Tap(tap) => self.core_loop.add_tap(tap),
            Command::Untap { id, reply } => {
                let _ = reply.try_send(self.core_loop.remove_tap(id));
            }
            Command::Drain { limit } => match self.phase {
                Phase::Waiting | Phase::Serving => {
                    self.core_loop.drain(now);
                    self.phase = Phase::Draining { until: now + limit };
                }
                Phase::Draining { until } => self.phase = Phase::Draining { until: until.min(now + limit) },
                Phase::Flushing { .. } | Phase::Drained => {}
            },
            Command::Stop => {}
        }
    }

    /// After a failure: answers nothing, waits for the order to stop.
    fn obey_until_stop(&self) -> bool {
        std::iter::from_fn(|| self.mailbox.next()).any(|command| matches!(command, Command::Stop))
    }

    fn advance_phase(&mut self, turn: Turn, now: byway_tcp::time::Instant) {
        match self.phase {
            Phase::Draining { until } => {
                let open = self.core_loop.stack().connection_count();
                if open == 0 || now >= until {
                    self.core_loop.abort_all(now);
                    self.phase = Phase::Flushing { until: now + FLUSH_LIMIT, reset: open };
                }
            }
            Phase::Flushing { until, reset } if self.core_loop.is_flushed(turn) || now >= until => {
                self.phase = Phase::Drained;
                self.mailbox.tell(Event::Drained { core: self.core, reset });
            }
            Phase::Waiting | Phase::Serving | Phase::Flushing { .. } | Phase::Drained => {}
        }
    }

    /// The next timer: the stack's, or the phase's.
    fn next_deadline(&self) -> byway_tcp::time::Instant {
        let deadline = self.core_loop.next_deadline();
        match self.phase {
            Phase::Draining { until } | Phase::Flushing { until, .. } => deadline.min(until),
            Phase::Waiting => byway_tcp::time::Instant::NEVER,
            Phase::Serving | Phase::Drained => deadline,
        }
    }

    fn tell_news(&mut self) {
        let mut news = Vec::new();
        self.core_loop.take_news(&mut news);
        self.mailbox.tell(Event::News { core: self.core, news });
    }

    fn snapshot(&self) -> Snapshot {
        let stack = self.core_loop.stack();
        let port = self.core_loop.port();
        Snapshot {
            core: self.core,
            queue: self.queue,
            totals: Totals { counters: stack.counters(), states: stack.states().clone() },
            ledger: control::Ledger::new(stack.pool(), port.held()),
            port: port.counters(),
            turns: LoopCounters { preempted: sys::preemptions(), ..self.core_loop.counters() },
            sockets: SocketCounters::default(),
        }
    }
}
