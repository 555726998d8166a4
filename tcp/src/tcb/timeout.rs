//! What the timers do (RFC 9293 §3.8).

use super::state::State;
use super::{Ctx, Tcb};
use crate::app::Closed;
use crate::frame::Memory;
use crate::time::Duration;
use crate::timer::TimerKind;

/// SYN retransmissions before an active open fails (RFC 9293 §3.8.3, MUST-22): 1 + 2 + … + 32 + 60 + 60 s are the three
/// minutes that MUST-23 wants (Linux's 6 retransmissions are two).
const SYN_RETRIES: u8 = 7;
/// SYN-ACK retransmissions (Linux: 5). A spoofed SYN costs its victim at most six segments (T26).
const SYN_ACK_RETRIES: u8 = 5;
/// The same while backlogs are more than half full: an entry goes after three seconds instead of a minute, so that
/// a burst of spoofed SYNs doesn't shut the door for long (Linux does likewise). T1
const SYN_ACK_RETRIES_CROWDED: u8 = 1;
/// Persist back-off stops doubling here: 200 ms << 9 is beyond the 60 s bound anyway.
const PERSIST_BACKOFF_MAX: u8 = 9;

impl Tcb {
    /// The timer `kind` went off.
    pub(crate) fn on_timer<M: Memory>(&mut self, kind: TimerKind, ctx: &mut Ctx<'_, M>) {
        match kind {
            TimerKind::LossProbe => self.on_probe_timeout(ctx),
            TimerKind::Retransmit => self.on_retransmit(ctx),
            TimerKind::Reorder => self.on_reorder_timeout(ctx),
            TimerKind::DelayedAck if self.owed.unacked > 0 => self.on_delayed_ack(ctx),
            TimerKind::Persist => self.on_persist(ctx),
            TimerKind::KeepAlive => self.on_keepalive(ctx),
            // The peer vanished after acknowledging our FIN (S2.6); or TIME-WAIT is over with octets the
            // application never took (S2.4).
            TimerKind::FinWait2 => {
                if self.state == State::TimeWait {
                    self.recv.clear(ctx.pool);
                    self.over = Some(Closed::Finished);
                } else {
                    self.on_close_limit(ctx);
                }
            }
            TimerKind::App => self.ready.timer = true,
            _ => {}
        }
    }

    /// RFC 6298 §5.4 to 5.7. S5.6
    fn on_retransmit<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        ctx.counters.tcp_timeouts += 1;
        match self.state {
            State::SynSent | State::SynReceived => {
                // Who has just asked again was answered, and its ACK may be on its way: nobody forged that address.
                let asked_again = ctx.now.since(self.last_sent) < self.rtt.rto() / 2;
                let limit = match self.state {
                    State::SynSent => SYN_RETRIES,
                    _ if ctx.backlog_is_crowded() && !asked_again => SYN_ACK_RETRIES_CROWDED,
                    _ => SYN_ACK_RETRIES,
                };
                if self.tries >= limit {
                    return self.finish(Closed::TimedOut, ctx);
                }
                self.tries += 1;
                self.owed.syn = true;
                self.rtt.back_off();
                return;
            }
            _ => {}
        }
        if self.snd.una == self.snd.nxt {
            return self.on_no_next_hop(ctx);
        }
        if self.give_up_if_due(ctx) {
            return;
        }
        self.rtt.back_off();
        let part_out = self.send.next_outstanding(ctx.pool, None).is_none() && !self.fin_sent;
        if part_out {
            // Only the first octets of the next segment are out, sent into a small window. Once more, or, if the
            // window has closed meanwhile, ask: the peer may have them.
            self.owed.part_again = true;
            self.owed.probe = self.snd.wnd == 0;
            self.timers.set(TimerKind::Retransmit, self.by_patience(ctx.now + self.rtt.rto(), ctx.config));
            return;
        }
        self.on_retransmission_timeout(ctx);
        // Perhaps its size was too much for somebody.
        self.merge_up_to(0);
        self.note_timeout();
        self.suspect_black_hole(ctx);
        if self.send.bytes() == 0 && self.fin_sent {
            self.owed.fin = true;
        }
        self.timers.set(TimerKind::Retransmit, self.by_patience(ctx.now + self.rtt.rto(), ctx.config));
    }

    /// Nothing is out: the timer only stands in for a next hop that can't be found. What waits to be sent
    /// doesn't wait for ever. S3.2
    fn on_no_next_hop<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        if self.send.unsent().is_none() && !self.fin_is_due() {
            return;
        }
        if self.rtt.rto() >= super::rtt::RTO_MAX {
            ctx.counters.tcp_abort_on_timeout += 1;
            return self.finish(Closed::TimedOut, ctx);
        }
        self.rtt.back_off();
    }

    /// The window is closed and data waits: ask (RFC 9293 §3.8.6.1, MUST-35, MUST-36). S5.3
    fn on_persist<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        if self.give_up_if_due(ctx) {
            return;
        }
        if self.snd.wnd == 0 {
            ctx.counters.tcp_win_probes += 1;
            self.owed.probe = true;
        } else {
            self.owed.override_sws = true;
        }
        self.persist_backoff = (self.persist_backoff + 1).min(PERSIST_BACKOFF_MAX);
    }

    /// When to probe next: after RTO, then ever more seldom (RFC 9293 §3.8.6.1, SHLD-29, SHLD-30). S5.3
    pub(super) fn persist_interval(&self) -> Duration {
        let base = self.rtt.rto();
        (base * (1 << self.persist_backoff.min(PERSIST_BACKOFF_MAX))).min(super::rtt::RTO_MAX)
    }
}
