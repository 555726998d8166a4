//! How long a connection waits for its peer: user timeout, keepalive, linger, and the end of what the application
//! has closed (RFC 9293 §3.8.3, §3.8.4, RFC 5482). S3.2, T3, T5
//!
//! ```text
//!                          peer silent            peer answers, takes nothing
//!   default                user_timeout           for ever (MUST-37)
//!   closed by the app      orphan_timeout         orphan_timeout
//!   set_user_timeout(t)    t                      t
//! ```

use core::num::NonZeroU32;

use super::state::State;
use super::{Ctx, Tcb};
use crate::app::{Closed, Keepalive, Trouble};
use crate::seq::SeqNumber;
use crate::stack::Config;
use crate::time::{Duration, Instant};
use crate::timer::TimerKind;

/// R1 (RFC 9293 §3.8.3, SHLD-10): so many retransmissions of a segment, and the application is told.
const RETRANSMISSIONS_R1: u32 = 3;

/// What the application has set for one connection, in milliseconds: a table holds many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    user_timeout: Option<NonZeroU32>,
    /// 0: no keepalive.
    idle: u32,
    interval: u32,
    /// [`NO_LINGER`]: close doesn't wait.
    linger: u32,
    probes: u8,
}

const NO_LINGER: u32 = u32::MAX;

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn from_millis(millis: u32) -> Duration {
    Duration::from_millis(u64::from(millis))
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            user_timeout: None,
            idle: config.keepalive.map_or(0, millis),
            interval: millis(config.keepalive_interval),
            probes: config.keepalive_probes,
            linger: NO_LINGER,
        }
    }
}

/// What was in the send queue at a moment, to see how fast it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    una: SeqNumber,
    end: SeqNumber,
    at: Instant,
}

impl Holding {
    pub(super) fn new(start: SeqNumber, now: Instant) -> Self {
        Self { una: start, end: start, at: now }
    }
}

impl Tcb {
    // --- user timeout -------------------------------------------------------------------------

    pub(crate) fn set_user_timeout(&mut self, limit: Option<Duration>) {
        self.limits.user_timeout = limit.map(|limit| millis(limit).try_into().unwrap_or(NonZeroU32::MIN));
    }

    /// The peer's window is shut, or shrank to nothing before what was out: it is asked from time to time, and has
    /// nothing to fear as long as it answers (RFC 9293 §3.8.6, SHLD-17, MUST-37).
    fn is_shut(&self) -> bool {
        self.snd.wnd == 0 || self.snd.una == self.snd.nxt
    }

    /// RFC 9293 §3.8.3: R1 is reached, R2 isn't (MUST-20, SHLD-9).
    pub(super) fn note_timeout(&mut self) {
        self.ready.trouble |= self.recovery.timeouts() == RETRANSMISSIONS_R1;
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        if self.is_unreachable() {
            Some(Trouble::Unreachable)
        } else {
            (self.recovery.timeouts() >= RETRANSMISSIONS_R1).then_some(Trouble::Unanswered)
        }
    }

    /// When what waits to be acknowledged, or only to be sent, will have waited too long, whatever the peer answers.
    fn patience_ends(&self, config: &Config) -> Instant {
        if let Some(limit) = self.limits.user_timeout {
            // RFC 5482: the application's word (RFC 9293 §3.8.3, MUST-21).
            return self.stalled_since + from_millis(limit.get());
        }
        // R2 as a time (RFC 9293 §3.8.3, MUST-20). S3.2
        let end = if self.is_shut() { Instant::NEVER } else { self.stalled_since + config.user_timeout };
        if !self.fin_queued {
            return end;
        }
        // MUST-37 leaves the end to the application; who has closed won't decide it any more. As long as octets
        // arrive the other way somebody may still be there for them. T5
        end.min(self.stalled_since.max(self.in_order_at) + config.orphan_timeout)
    }

    /// Ends the connection if the peer had time enough (S3.2, S5.4). If not, the peer is asked once more.
    pub(super) fn give_up_if_due<M>(&mut self, ctx: &mut Ctx<'_, M>) -> bool {
        let answered = self.asked <= self.last_heard;
        let silent = self.limits.user_timeout.is_none()
            && !answered
            && self.is_shut()
            && ctx.now.since(self.asked) >= ctx.config.user_timeout;
        let due = silent || self.patience_ends(ctx.config) <= ctx.now;
        if due {
            self.give_up(ctx);
        } else if answered {
            self.asked = ctx.now;
        }
        due
    }

    /// Not later than `at`, if patience ends before: timers that back off would notice it too late.
    pub(super) fn by_patience(&self, at: Instant, config: &Config) -> Instant {
        at.min(self.patience_ends(config))
    }

    fn give_up<M>(&mut self, ctx: &mut Ctx<'_, M>) {
        ctx.counters.tcp_abort_on_timeout += 1;
        // Who has answered all the while should hear of it.
        self.owed.reset = self.last_heard > self.stalled_since;
        self.finish(Closed::TimedOut, ctx);
    }

    // --- keepalive ----------------------------------------------------------------------------

    /// RFC 9293 §3.8.4 (MUST-24, MUST-27).
    pub(crate) fn set_keepalive(&mut self, keepalive: Option<Keepalive>, now: Instant) {
        self.limits.idle = 0;
        if let Some(Keepalive { idle, interval, probes }) = keepalive {
            self.limits.idle = millis(idle).max(1);
            self.limits.interval = millis(interval).max(1);
            self.limits.probes = probes;
        }
        self.watch(now);
    }

    /// Starts to watch over a peer that says nothing, if that is wanted.
    pub(super) fn watch(&mut self, now: Instant) {
        let lives = !matches!(
            self.state,
            State::Closed | State::Listen | State::SynSent | State::SynReceived | State::TimeWait
        );
        if lives && self.limits.idle > 0 {
            let heard = self.last_heard + from_millis(self.limits.idle);
            self.timers.set(TimerKind::KeepAlive, heard.max(now));
        } else {
            self.timers.clear(TimerKind::KeepAlive);
        }
    }

    /// RFC 9293 §3.8.4: not while anything is out (MUST-26), no end for a single probe (MUST-29), no octet in it
    /// (SHLD-12). S3.2
    pub(super) fn on_keepalive<M>(&mut self, ctx: &mut Ctx<'_, M>) {
        let Limits { idle, interval, probes, user_timeout, .. } = self.limits;
        let heard = self.last_heard + from_millis(idle);
        if self.tries == 0 && (heard > ctx.now || self.snd.una != self.snd.nxt) {
            // Something was heard meanwhile, or retransmission watches over the peer already.
            let next = if heard > ctx.now { heard } else { ctx.now + from_millis(idle) };
            self.timers.set(TimerKind::KeepAlive, next);
            return;
        }
        // As with Linux's TCP_USER_TIMEOUT: a limit that was set stands in for the number of probes.
        let over = match user_timeout {
            Some(limit) => self.tries > 0 && ctx.now.since(self.last_heard) >= from_millis(limit.get()),
            None => self.tries >= probes,
        };
        if over {
            return self.give_up(ctx);
        }
        self.tries = self.tries.saturating_add(1);
        ctx.counters.tcp_keepalives += 1;
        self.owed.probe = true;
        self.timers.set(TimerKind::KeepAlive, ctx.now + from_millis(interval));
    }

    // --- linger -------------------------------------------------------------------------------

    pub(crate) fn set_linger(&mut self, linger: Option<Duration>, now: Instant) {
        self.limits.linger = linger.map_or(NO_LINGER, |linger| millis(linger).min(NO_LINGER - 1));
        self.start_linger(now);
    }

    /// Whether closing is to cut off at once.
    pub(super) fn closes_hard(&self) -> bool {
        self.limits.linger == 0
    }

    /// The application has closed: so long has the peer to acknowledge everything.
    pub(super) fn start_linger(&mut self, now: Instant) {
        let waits = matches!(self.state, State::FinWait1 | State::Closing | State::LastAck);
        match self.limits.linger {
            _ if !waits => {}
            NO_LINGER => self.timers.clear(TimerKind::FinWait2),
            limit => self.timers.set(TimerKind::FinWait2, now + from_millis(limit)),
        }
    }

    /// FIN-WAIT-2 has lasted long enough (S2.6), or the application doesn't want to wait any longer for
    /// what it has sent.
    pub(super) fn on_close_limit<M>(&mut self, ctx: &mut Ctx<'_, M>) {
        if self.state != State::FinWait2 {
            ctx.counters.tcp_abort_on_linger += 1;
            self.owed.reset = true;
        }
        self.finish(Closed::TimedOut, ctx);
    }

    // --- memory pressure ----------------------------------------------------------------------

    /// Whether the peer takes what it is sent so slowly that, at its pace over the last `period` or longer, what was
    /// queued when it began would take it more than `patience` (T4). To be asked from time to time.
    pub(crate) fn is_too_slow(&mut self, period: Duration, patience: Duration, now: Instant) -> bool {
        let passed = now.since(self.holding.at);
        if passed < period {
            return false;
        }
        let Holding { una, end, .. } = self.holding;
        self.holding = Holding { una: self.snd.una, end: self.send.end(), at: now };
        // All gone that was there: nothing to complain of, however long ago that was.
        let (gone, held) = (self.snd.una.since(una), end.since(una));
        let share = |time: Duration, octets: u32| u128::from(time.as_nanos()) * u128::from(octets);
        gone < held && share(passed, held) > share(patience, gone)
    }
}
