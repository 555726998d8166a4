//! One core's thread over its sockets: turns, and between them what the control side asks.

use core::time::Duration;

use byway_tcp::app::App;
use byway_tcp::counters::Totals;
use byway_tcp::time::Instant;

use super::event_loop::EventLoop;
use super::{Plan, SocketCounters};
use crate::clock::Clock;
use crate::control::{Command, Event, Ledger, Mailbox, Page, Snapshot, Waker};
use crate::core_loop::LoopCounters;
use crate::error::Error;
use crate::pin;
use crate::port::{Held, PortCounters};
use crate::sys;

/// How soon a core that waits for the order to go, or to stop, looks again by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a core is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Listens, and accepts nothing yet.
    Waiting,
    /// Serves.
    Serving,
    /// Lets connections finish until then.
    Draining { until: Instant },
    /// Has no connection left.
    Drained,
}

/// A core's thread.
pub(crate) struct Core<'a, A> {
    core: usize,
    place: u32,
    event_loop: EventLoop<A>,
    mailbox: &'a Mailbox,
    phase: Phase,
}

impl<'a, A: App> Core<'a, A> {
    /// Pins the calling thread, and listens.
    pub(crate) fn open(
        plan: &Plan,
        place: usize,
        make_app: &impl Fn(usize, &Waker) -> A,
        mailbox: &'a Mailbox,
    ) -> Result<Self, Error> {
        let core = plan.cores[place];
        pin::pin(core)?;
        let event_loop = EventLoop::new(plan, make_app(place, mailbox.waker()), mailbox.waker())?;
        Ok(Self { core, place: place as u32, event_loop, mailbox, phase: Phase::Waiting })
    }

    /// Turns until told to stop.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.serve() {
            self.mailbox.tell(Event::Failed { core: self.core, error });
        }
        // Without a drain before: peers hear of the end all the same, and every frame is given back.
        self.event_loop.abort_all();
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            while let Some(command) = self.mailbox.next() {
                if matches!(command, Command::Stop) {
                    return Ok(());
                }
                self.obey(command);
            }
            match self.phase {
                Phase::Waiting | Phase::Drained => self.mailbox.waker().sleep(LOOK_EVERY)?,
                Phase::Serving => self.event_loop.turn(Instant::NEVER, self.mailbox.waker())?,
                Phase::Draining { until } => {
                    if self.event_loop.connection_count() == 0 || until <= Clock.now() {
                        self.end_drain();
                    } else {
                        self.event_loop.turn(until, self.mailbox.waker())?;
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Go => self.phase = Phase::Serving,
            Command::Snapshot(reply) => {
                let _ = reply.try_send(self.snapshot());
            }
            // `ss` shows the kernel's connections; nobody asks.
            Command::Connections { reply, .. } => {
                let _ = reply.try_send(Page::default());
            }
            Command::LearnTotals(elsewhere) => self.event_loop.learn_totals(elsewhere),
            Command::TellApp(message) => self.event_loop.tell_app(&*message),
            Command::Drain { limit } => {
                let until = Clock.now() + limit;
                self.phase = match self.phase {
                    Phase::Waiting | Phase::Serving => {
                        self.event_loop.drain();
                        Phase::Draining { until }
                    }
                    Phase::Draining { until: earlier } => Phase::Draining { until: until.min(earlier) },
                    Phase::Drained => Phase::Drained,
                };
            }
            // Packets are the kernel's; and `serve` has seen to the end.
            Command::Hear(_) | Command::Tap(_) | Command::Untap { .. } | Command::Stop => {}
        }
    }

    fn end_drain(&mut self) {
        let reset = self.event_loop.connection_count();
        self.event_loop.abort_all();
        self.phase = Phase::Drained;
        self.mailbox.tell(Event::Drained { core: self.core, reset });
    }

    fn snapshot(&self) -> Snapshot {
        let shared = &self.event_loop.shared;
        let mut counters = shared.counters.clone();
        counters.payload_bytes_copied = shared.pool.payload_bytes_copied();
        let (turns, busy_turns) = self.event_loop.turns();
        let sockets: SocketCounters = shared.sockets;
        Snapshot {
            core: self.core,
            queue: self.place,
            totals: Totals { counters, states: shared.states.clone() },
            ledger: Ledger::new(&shared.pool, Held::default()),
            port: PortCounters::default(),
            turns: LoopCounters {
                turns,
                busy_turns,
                preempted: sys::preemptions(),
                ..LoopCounters::default()
            },
            sockets,
        }
    }
}
