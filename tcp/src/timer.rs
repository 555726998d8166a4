//! A connection's timers, and the wheel that wakes connections.
//!
//! ```text
//!  Tcb ── Timers: one deadline per kind ──earliest──→ TimerWheel: one node per connection
//!            ▲                                              │
//!            └── pop_due(now): which kinds ←── pop_expired(now): which connections
//! ```
//!
//! Nearly every segment moves a deadline to a later moment (the retransmission timer starts anew
//! with each ACK, RFC 6298 §5.3). That is one store here; the wheel keeps the earlier moment, wakes
//! the connection then for nothing, and is armed anew. Only a deadline *before* the armed one
//! touches the wheel, whose node, of many connections, is far away.

pub mod wheel;

pub use wheel::TimerWheel;

use crate::time::Instant;

/// What a connection waits for. TIME-WAIT isn't among them: its compact table has a wheel of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum TimerKind {
    /// Tail loss probe (RFC 8985 §7). Before the retransmission timeout: due at the same moment, it goes first.
    LossProbe,
    /// Retransmission timeout (RFC 6298).
    Retransmit,
    /// What may only be late is lost by then (RFC 8985 §6.2 step 5).
    Reorder,
    /// The next segment may leave, by the pacing rate.
    Pacing,
    /// Delayed acknowledgement (RFC 9293 §3.8.6.3).
    DelayedAck,
    /// Zero-window probe (RFC 9293 §3.8.6.1).
    Persist,
    /// Keepalive (RFC 9293 §3.8.4).
    KeepAlive,
    /// Limit of FIN-WAIT-2, and of other states that only the peer can end (S2.6, T5).
    FinWait2,
    /// The application's own.
    App,
}

impl TimerKind {
    /// Number of kinds.
    pub const COUNT: usize = 9;

    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::LossProbe,
        Self::Retransmit,
        Self::Reorder,
        Self::Pacing,
        Self::DelayedAck,
        Self::Persist,
        Self::KeepAlive,
        Self::FinWait2,
        Self::App,
    ];
}

/// The deadlines of one connection.
#[derive(Clone, Debug)]
pub struct Timers {
    deadlines: [Instant; TimerKind::COUNT],
    /// The wheel wakes the connection by then; [`Instant::NEVER`]: not at all; [`Instant::ZERO`]: it has to be told
    /// of an earlier deadline.
    pub(crate) woken_by: Instant,
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}

impl Timers {
    /// Nothing set.
    pub const fn new() -> Self {
        Self { deadlines: [Instant::NEVER; TimerKind::COUNT], woken_by: Instant::NEVER }
    }

    /// Sets a deadline, in place of the kind's earlier one. Call [`schedule`](Self::schedule) once
    /// all are set.
    #[inline]
    pub fn set(&mut self, kind: TimerKind, at: Instant) {
        self.deadlines[kind as usize] = at;
        if at < self.woken_by {
            self.woken_by = Instant::ZERO;
        }
    }

    /// Takes a deadline away; nothing happens if there is none.
    #[inline]
    pub fn clear(&mut self, kind: TimerKind) {
        self.deadlines[kind as usize] = Instant::NEVER;
    }

    /// Takes all deadlines away.
    #[inline]
    pub fn clear_all(&mut self) {
        self.deadlines = [Instant::NEVER; TimerKind::COUNT];
    }

    /// Whether the kind has a deadline.
    #[inline]
    pub fn is_set(&self, kind: TimerKind) -> bool {
        self.deadline(kind) != Instant::NEVER
    }

    /// The kind's deadline; [`Instant::NEVER`] if it has none.
    #[inline]
    pub fn deadline(&self, kind: TimerKind) -> Instant {
        self.deadlines[kind as usize]
    }

    /// The earliest deadline; [`Instant::NEVER`] if there is none.
    #[inline]
    pub fn earliest(&self) -> Instant {
        self.deadlines.iter().copied().min().unwrap_or(Instant::NEVER)
    }

    /// The earliest deadline of those that only TCP sets, and whose it is.
    pub fn next_of_tcp(&self) -> Option<(TimerKind, Instant)> {
        let kinds = TimerKind::ALL.into_iter().filter(|&kind| kind != TimerKind::App && self.is_set(kind));
        kinds.map(|kind| (kind, self.deadline(kind))).min_by_key(|&(_, at)| at)
    }

    /// Takes the earliest deadline away if it is at or before `now`, and says whose it was. Of equal
    /// ones the kind that comes first in [`TimerKind::ALL`].
    #[inline]
    pub fn pop_due(&mut self, now: Instant) -> Option<TimerKind> {
        let (index, &at) = self.deadlines.iter().enumerate().min_by_key(|&(_, at)| at)?;
        if at > now || at == Instant::NEVER {
            return None;
        }
        self.deadlines[index] = Instant::NEVER;
        Some(TimerKind::ALL[index])
    }

    /// Reads something of each cache line of it, so that they are near. Without a branch: one that is foreseen wrongly would
    /// wait for what isn't.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        self.deadlines[0].as_nanos() ^ self.woken_by.as_nanos()
    }

    /// The wheel has woken the connection, and won't again unless [`schedule`](Self::schedule) follows.
    #[inline]
    pub fn woken(&mut self) {
        self.woken_by = Instant::ZERO;
    }

    /// Makes sure that the wheel wakes connection `id` by the earliest deadline. A wheel armed
    /// earlier is left alone: it wakes for nothing once, and is armed anew by the `schedule` that
    /// follows every wake.
    ///
    /// # Panics
    /// If `id` isn't below the wheel's capacity.
    #[inline]
    pub fn schedule(&mut self, wheel: &mut TimerWheel, id: u32) {
        if self.woken_by == Instant::ZERO {
            self.woken_by = self.earliest();
            wheel.arm_by(id, self.woken_by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn kinds_are_numbered_in_order() {
        for (index, kind) in TimerKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    #[test]
    fn due_kinds_come_in_the_order_of_their_deadlines() {
        let mut timers = Timers::new();
        assert_eq!((timers.earliest(), timers.pop_due(Instant::NEVER)), (Instant::NEVER, None));
        timers.set(TimerKind::KeepAlive, ms(30));
        timers.set(TimerKind::Retransmit, ms(20));
        timers.set(TimerKind::DelayedAck, ms(10));
        timers.set(TimerKind::Persist, ms(40));
        timers.set(TimerKind::FinWait2, ms(15));
        timers.clear(TimerKind::FinWait2);
        assert_eq!(timers.earliest(), ms(10));
        assert_eq!(timers.pop_due(ms(9)), None);
        assert_eq!(timers.pop_due(ms(30)), Some(TimerKind::DelayedAck));
        assert_eq!(timers.pop_due(ms(30)), Some(TimerKind::Retransmit));
        assert_eq!(timers.pop_due(ms(30)), Some(TimerKind::KeepAlive));
        assert_eq!(timers.pop_due(ms(30)), None);
        assert!(timers.is_set(TimerKind::Persist));
        timers.clear_all();
        assert_eq!(timers.earliest(), Instant::NEVER);
    }

    #[test]
    fn a_deadline_that_moves_later_leaves_the_wheel_alone() {
        let mut wheel = TimerWheel::new(4, 16);
        let mut timers = Timers::new();
        timers.set(TimerKind::Retransmit, ms(200));
        timers.schedule(&mut wheel, 3);
        let armed = wheel.deadline(3);
        timers.set(TimerKind::Retransmit, ms(900));
        timers.schedule(&mut wheel, 3);
        assert_eq!(wheel.deadline(3), armed);

        // It wakes for nothing, and is armed anew.
        assert_eq!(wheel.pop_expired(ms(201)), Some(3));
        timers.woken();
        assert_eq!(timers.pop_due(ms(201)), None);
        timers.schedule(&mut wheel, 3);
        assert_eq!(wheel.pop_expired(ms(899)), None);
        assert_eq!(wheel.pop_expired(ms(901)), Some(3));
        timers.woken();
        assert_eq!(timers.pop_due(ms(901)), Some(TimerKind::Retransmit));

        // An earlier one does touch it.
        timers.set(TimerKind::KeepAlive, ms(5000));
        timers.schedule(&mut wheel, 3);
        timers.set(TimerKind::DelayedAck, ms(940));
        timers.schedule(&mut wheel, 3);
        assert_eq!(wheel.pop_expired(ms(941)), Some(3));
        timers.woken();
        timers.clear_all();
        timers.schedule(&mut wheel, 3);
        assert!(!wheel.is_armed(3));
    }
}
