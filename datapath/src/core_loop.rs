//! One core's loop: a port, a stack and an application, run to completion.
//!
//! ```text
//!   turn:  reclaim → refill → receive ─→ stack and application → timers → transmit → kick
//!            │         │         │                                           │
//!          sent      empty    ≤ 64 frames                        ≤ 4 × 64 frames; what doesn't fit
//!          frames    frames                                      the TX ring waits for the next turn
//! ```
//!
//! A turn never waits and never repeats itself until something happens: whatever a ring can't take
//! now stays where it is, and the next turn tries again. When turns find nothing to do, [`Idle`]
//! decides between one more and a sleep.

use core::any::Any;

use byway_tcp::app::App;
use byway_tcp::counters::Totals;
use byway_tcp::frame::{FrameSlice, Memory, Owner};
use byway_tcp::stack::{News, Stack};
use byway_tcp::time::{Duration, Instant};

use crate::capture::{Tap, Taps};
use crate::error::Error;
use crate::port::{BATCH, Port};

/// Transmit batches per turn. An HTTP response to each of 64 requests is a frame or two; bulk
/// senders get 256 frames (25 µs of work, 300 µs at 10 Gbit/s) before ACKs are looked at again.
const TX_BATCHES: usize = 4;

/// A turn that begins so much later than the one before found the core stalled (D12): the loop
/// then receives everything that waited before it lets a timer judge by the clock. Shorter than
/// any retransmission timeout (RFC 6298: 1 s; Linux: 200 ms), longer than any busy turn.
const STALL: Duration = Duration::from_millis(5);

/// Turns between comparisons of the port's counts with the pool's (P3): two loads each, and a
/// leaked frame shows within a millisecond under load.
const LEDGER_EVERY: u64 = 1024;

/// Turns between recounts of every frame, in debug builds only: O(frames), 100 µs.
const RECOUNT_EVERY: u64 = 16_384;

/// What a turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// Frames received.
    pub received: usize,
    /// Frames put into the TX ring.
    pub transmitted: usize,
    /// Frames that left, whose memory came back.
    pub reclaimed: usize,
    /// Whether there is more to send than the TX ring could take.
    pub backlog: bool,
}

impl Turn {
    /// Whether anything happened.
    pub fn is_busy(&self) -> bool {
        self.received + self.transmitted + self.reclaimed > 0
    }
}

/// What the loop counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoopCounters {
    /// Turns.
    pub turns: u64,
    /// Turns in which something happened.
    pub busy_turns: u64,
    /// Longest time between two turns in which the loop didn't mean to sleep, in ns (D12).
    pub gap_max_ns: u64,
    /// How often the kernel gave the core to another thread, though the loop had more to do: whoever asks a core fills
    /// it in. Where it grows with `stalls`, the core isn't the loop's own.
    pub preempted: u64,
    /// Turns that began late by more than 5 ms.
    pub stalls: u64,
    /// Turns that left frames for the next one because the TX ring was full.
    pub tx_backlogs: u64,
}

/// A port, a stack and an application on one core.
#[derive(Debug)]
pub struct CoreLoop<P, M, A> {
    // The port goes first: its rings are closed before the memory goes.
    port: P,
    stack: Stack<M>,
    app: A,
    rx: Vec<FrameSlice>,
    tx: Vec<FrameSlice>,
    counters: LoopCounters,
    taps: Taps,
    /// When the next turn is due if the loop doesn't stall: the last turn, or a sleep's end.
    expected: Option<Instant>,
}

impl<P: Port, M: Memory, A: App> CoreLoop<P, M, A> {
    /// A loop that hasn't turned yet, with the fill ring filled.
    pub fn new(mut port: P, mut stack: Stack<M>, app: A) -> Self {
        port.refill(stack.pool_mut());
        // A zero-copy driver found the ring empty when the socket was bound: it takes frames now, before the first one
        // is steered here. What is wrong, the first turn finds, too.
        let _ = port.kick();
        Self {
            rx: Vec::with_capacity(port.rx_ring_size().max(BATCH as u32) as usize),
            tx: Vec::with_capacity(BATCH),
            port,
            stack,
            app,
            counters: LoopCounters::default(),
            taps: Taps::default(),
            expected: None,
        }
    }

    /// One turn, at `now`.
    ///
    /// # Errors
    /// The port's: the device is gone.
    pub fn turn(&mut self, now: Instant) -> Result<Turn, Error> {
        let stalled = self.note_gap(now);
        let reclaimed = self.port.reclaim(self.stack.pool_mut());
        self.port.refill(self.stack.pool_mut());
        let received = self.receive(now, stalled);
        self.stack.advance(&mut self.app, now);
        let (transmitted, backlog) = self.transmit(now);
        self.port.kick()?;

        let turn = Turn { received, transmitted, reclaimed, backlog };
        self.counters.turns += 1;
        self.counters.busy_turns += u64::from(turn.is_busy());
        self.counters.tx_backlogs += u64::from(backlog);
        self.check_ledger();
        Ok(turn)
    }

    /// Notes that the loop is about to sleep until `until` at the latest.
    pub fn sleeping(&mut self, until: Instant) {
        self.expected = Some(until);
    }

    /// When a timer is due, or the application wants its turn.
    pub fn next_deadline(&self) -> Instant {
        let app = if self.stack.is_draining() { Instant::NEVER } else { self.app.deadline() };
        self.stack.next_deadline().min(app)
    }

    /// Stops accepting connections and asks the application to end those there are.
    pub fn drain(&mut self, now: Instant) {
        self.stack.drain(&mut self.app, now);
    }

    /// Resets every connection; the following turns send the resets.
    pub fn abort_all(&mut self, now: Instant) {
        self.stack.abort_all(&mut self.app, now);
    }

    /// Whether nothing is left to be sent.
    pub fn is_flushed(&self, last: Turn) -> bool {
        last.transmitted == 0 && !last.backlog && self.tx.is_empty() && self.port.held().tx == 0
    }

    /// Tells the stack what another core says.
    pub fn hear(&mut self, news: &[News], now: Instant) {
        for piece in news {
            self.stack.hear(piece, now);
        }
    }

    /// Tells the stack what the other cores have counted and hold.
    pub fn learn_totals(&mut self, elsewhere: Box<Totals>) {
        self.stack.learn_totals(elsewhere);
    }

    /// Tells the application something of its own.
    pub fn tell_app(&mut self, message: &(dyn Any + Send + Sync)) {
        self.app.told(message);
    }

    /// Moves what other cores should hear of to `out`.
    pub fn take_news(&mut self, out: &mut Vec<News>) {
        self.stack.take_news(out);
    }

    /// From now on every frame goes past `tap`, too.
    pub fn add_tap(&mut self, tap: Tap) {
        self.taps.add(tap);
        self.stack.note_verdicts(true);
    }

    /// The end of that; the tap is the caller's to free.
    pub fn remove_tap(&mut self, id: u64) -> Option<Tap> {
        let tap = self.taps.remove(id);
        self.stack.note_verdicts(self.taps.is_on());
        tap
    }

    /// The port.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// The stack.
    pub fn stack(&self) -> &Stack<M> {
        &self.stack
    }

    /// The stack.
    pub fn stack_mut(&mut self) -> &mut Stack<M> {
        &mut self.stack
    }

    /// The port and the stack at once: for peers in memory, who need the port's rings and the
    /// stack's frames.
    pub fn split(&mut self) -> (&mut P, &mut Stack<M>) {
        (&mut self.port, &mut self.stack)
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// What was counted so far.
    pub fn counters(&self) -> LoopCounters {
        self.counters
    }

    /// Compares the port's counts with the pool's, and recounts every frame.
    ///
    /// # Panics
    /// If a frame was lost or doubled (P3).
    pub fn assert_conserved(&self) {
        self.assert_port_agrees();
        self.stack.pool().assert_conserved();
    }

    /// Measures how late this turn is; true if so late that the core must have stalled.
    fn note_gap(&mut self, now: Instant) -> bool {
        let gap = self.expected.map_or(Duration::ZERO, |expected| now.since(expected));
        self.expected = Some(now);
        self.counters.gap_max_ns = self.counters.gap_max_ns.max(gap.as_nanos());
        let stalled = gap > STALL;
        self.counters.stalls += u64::from(stalled);
        stalled
    }

    /// Receives one batch, or after a stall everything that waits: ACKs that lie in the ring must
    /// be heard before the timers they disarm (D12).
    fn receive(&mut self, now: Instant, stalled: bool) -> usize {
        let rounds = if stalled { (self.port.rx_ring_size() as usize).div_ceil(BATCH) } else { 1 };
        let mut received = 0;
        for _ in 0..rounds {
            self.rx.clear();
            let count = self.port.rx_burst(&mut self.rx);
            if count > 0 {
                if self.taps.is_on() {
                    self.taps.see_received(self.stack.pool(), &self.rx, now);
                }
                self.stack.receive(&mut self.app, &self.rx, now);
                if self.taps.is_on() {
                    self.taps.see_verdicts(self.stack.verdicts());
                }
            }
            received += count;
            if count < BATCH {
                break;
            }
        }
        received
    }

    /// Moves frames from the stack to the TX ring; returns how many, and whether more are waiting.
    fn transmit(&mut self, now: Instant) -> (usize, bool) {
        let mut transmitted = 0;
        for _ in 0..TX_BATCHES {
            let more = self.stack.poll_transmit(BATCH - self.tx.len(), now, &mut self.tx);
            if self.tx.is_empty() {
                return (transmitted, false);
            }
            let count = self.port.tx_burst(&self.tx);
            if self.taps.is_on() {
                self.taps.see_sent(self.stack.pool(), &self.tx[..count], now);
            }
            transmitted += count;
            self.tx.drain(..count);
            if !self.tx.is_empty() {
                return (transmitted, true);
            }
            if !more {
                return (transmitted, false);
            }
        }
        // More is waiting, but the ring isn't full: the next turn goes on at once.
        (transmitted, false)
    }

    fn check_ledger(&self) {
        if self.counters.turns.is_multiple_of(LEDGER_EVERY) {
            self.assert_port_agrees();
        }
        if cfg!(debug_assertions) && self.counters.turns.is_multiple_of(RECOUNT_EVERY) {
            self.stack.pool().assert_conserved();
        }
    }

    fn assert_port_agrees(&self) {
        let held = self.port.held();
        let pool = self.stack.pool();
        assert_eq!(held.fill, pool.count(Owner::Fill), "ledger: fill ring and pool disagree");
        let sending = held.tx + self.tx.len() as u32;
        assert_eq!(sending, pool.count(Owner::TxRing), "ledger: TX ring and pool disagree");
    }
}

/// What to do between two turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Turn again.
    Spin,
    /// Sleep, at most so long.
    Sleep(Duration),
}

/// When a loop that has nothing to do goes to sleep.
///
/// Sleeping costs the next frame a wake-up; spinning costs a core that others (on small machines
/// the peer itself) could use. The loop spins for as long as spinning would lately have paid, as
/// KVM's halt polling does: an idle time shorter than the maximum doubles the spin, a longer one
/// halves it. A loop whose frames come every 20 µs never sleeps; one that waits for its clients
/// sleeps after 3 µs. Told never to sleep, it spins for ever: no wake-up, and a core that is always full; only when
/// nothing came for a while it looks up, for as long as a system call takes, whether its device is still there.
#[derive(Debug)]
pub struct Idle {
    /// `None`: never sleeps.
    spin_max: Option<Duration>,
    spin: Duration,
    /// Since when there has been nothing to do, sleeps included.
    since: Option<Instant>,
}

impl Idle {
    /// Longest sleep. Bounds how late the loop notices that its device is gone; four wake-ups a
    /// second cost nothing.
    pub const SLEEP_MAX: Duration = Duration::from_millis(250);

    /// Longest sleep while the TX ring is full: completions don't wake a sleeper. At 10 Gbit/s
    /// 1 ms empties half the ring.
    const BACKLOG_SLEEP: Duration = Duration::from_millis(1);

    /// Sleeping takes longer than this anyway.
    const SLEEP_MIN: Duration = Duration::from_micros(5);

    /// Spins at most `spin_max` in a row; zero: sleeps whenever there is nothing to do; `None`: never sleeps.
    pub fn new(spin_max: Option<Duration>) -> Self {
        Self { spin_max, spin: spin_max.unwrap_or_default(), since: None }
    }

    /// Decides after a turn that began at `now`, with the next timer at `deadline`.
    pub fn after(&mut self, turn: Turn, now: Instant, deadline: Instant) -> Rest {
        if turn.is_busy() {
            if let (Some(since), Some(spin_max)) = (self.since.take(), self.spin_max) {
                let paid = now.since(since) < spin_max;
                let spin = if paid { self.spin * 2 } else { self.spin / 2 };
                self.spin = spin.clamp(spin_max / 16, spin_max);
            }
            return Rest::Spin;
        }
        let since = *self.since.get_or_insert(now);
        if self.spin_max.is_none() {
            if now.since(since) < Self::SLEEP_MAX {
                return Rest::Spin;
            }
            // A port asks after its device only when it is parked, for however short.
            self.since = Some(now);
            return Rest::Sleep(Duration::ZERO);
        }
        // Of what waits behind a full ring, only the ring's emptying helps: that it is due (the
        // stack says "now") is no reason to spin.
        let until_due = if turn.backlog { Self::BACKLOG_SLEEP } else { deadline.since(now) };
        if now.since(since) < self.spin || until_due < Self::SLEEP_MIN {
            return Rest::Spin;
        }
        Rest::Sleep(until_due.min(Self::SLEEP_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Turn = Turn { received: 1, transmitted: 0, reclaimed: 0, backlog: false };
    const QUIET: Turn = Turn { received: 0, transmitted: 0, reclaimed: 0, backlog: false };

    fn micros(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    #[test]
    fn an_idle_loop_spins_a_while_and_then_sleeps_until_the_timer() {
        let mut idle = Idle::new(Some(Duration::from_micros(50)));
        assert_eq!(idle.after(QUIET, micros(100), Instant::NEVER), Rest::Spin);
        assert_eq!(idle.after(QUIET, micros(149), Instant::NEVER), Rest::Spin);
        assert_eq!(idle.after(QUIET, micros(150), Instant::NEVER), Rest::Sleep(Idle::SLEEP_MAX));
        let soon = idle.after(QUIET, micros(150), micros(1150));
        assert_eq!(soon, Rest::Sleep(Duration::from_millis(1)));
        assert_eq!(idle.after(QUIET, micros(150), micros(152)), Rest::Spin, "too short to sleep");
        assert_eq!(idle.after(QUIET, micros(150), micros(1)), Rest::Spin, "the timer is due");
    }

    #[test]
    fn a_loop_told_never_to_sleep_spins() {
        let mut idle = Idle::new(None);
        for turn in 0..100 {
            let turn_of = if turn % 10 == 0 { BUSY } else { QUIET };
            assert_eq!(idle.after(turn_of, micros(turn * 20_000), Instant::NEVER), Rest::Spin);
        }
    }

    /// D5: a port asks after its device when it is parked.
    #[test]
    fn a_loop_told_never_to_sleep_still_parks_its_port_for_no_time() {
        let mut idle = Idle::new(None);
        for look in 0..3 {
            let quiet_since = 1 + look * 250_000;
            assert_eq!(idle.after(QUIET, micros(quiet_since + 1), Instant::NEVER), Rest::Spin);
            assert_eq!(idle.after(QUIET, micros(quiet_since + 249_999), Instant::NEVER), Rest::Spin);
            let rest = idle.after(QUIET, micros(quiet_since + 250_001), Instant::NEVER);
            assert_eq!(rest, Rest::Sleep(Duration::ZERO));
        }
    }

    #[test]
    fn spinning_adapts_to_what_arrives() {
        let mut idle = Idle::new(Some(Duration::from_micros(64)));
        // Frames a millisecond apart: spinning doesn't pay.
        for turn in 1..10 {
            idle.after(QUIET, micros(turn * 1000), Instant::NEVER);
            idle.after(BUSY, micros(turn * 1000 + 999), Instant::NEVER);
        }
        idle.after(QUIET, micros(20_000), Instant::NEVER);
        assert_eq!(idle.after(QUIET, micros(20_004), Instant::NEVER), Rest::Sleep(Idle::SLEEP_MAX));
        // Frames 20 µs apart: it does.
        for turn in 0..5 {
            idle.after(QUIET, micros(30_000 + turn * 20), Instant::NEVER);
            idle.after(BUSY, micros(30_000 + turn * 20 + 19), Instant::NEVER);
        }
        idle.after(QUIET, micros(40_000), Instant::NEVER);
        assert_eq!(idle.after(QUIET, micros(40_060), Instant::NEVER), Rest::Spin);
    }

    #[test]
    fn a_full_ring_is_neither_spun_on_nor_slept_on() {
        let mut idle = Idle::new(Some(Duration::ZERO));
        let full = Turn { backlog: true, ..QUIET };
        for deadline in [Instant::ZERO, Instant::NEVER] {
            let rest = idle.after(full, micros(1), deadline);
            assert_eq!(rest, Rest::Sleep(Duration::from_millis(1)));
        }
    }
}
