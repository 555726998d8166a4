//! Pacing: segments leave at the rate that congestion control asks for, not in a burst each time the window opens
//! (RFC 9002 §7.7 argues the same for QUIC). S7.2

use super::congestion::Congestion;
use super::rtt::RTO_MAX;
use super::{Ctx, Tcb};
use crate::time::{Duration, Instant};
use crate::timer::TimerKind;

/// Segments that may leave at once after a pause: an initial window's worth (RFC 6928; RFC 9002 §7.7 has the same
/// bound). It also keeps the rate up when the loop or the timer wheel, which ticks every 131 µs, comes late.
const BURST_SEGMENTS: u64 = 10;
/// A loop that comes late, since its core was busy with somebody else's work, makes up for it: what waited for its time
/// goes out as if it had been sent then, as far as a quarter of a round trip back, so that the burst stays small beside
/// what is in flight, and no more than ten milliseconds, a scheduler's slice or two. Without it a sender on a
/// shared core never reaches its rate, and BBR takes that for the path's.
const CATCH_UP_SHARE: u32 = 4;
const CATCH_UP_MAX: Duration = Duration::from_millis(10);

/// When the next segment may leave.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Octets a second; 0: not paced.
    rate: u64,
    next: Instant,
    /// Segments wait for their time, and for nothing else.
    behind: bool,
    /// Nothing leaves before, at whatever rate: see [`hold`](Tcb::hold).
    held: Instant,
    /// Holds in a row.
    holds: u8,
}

impl Tcb {
    /// Takes the rate over from congestion control.
    pub(super) fn set_pace(&mut self) {
        self.pace.rate = self.congestion.pacing_rate(self.rtt.min_rtt()).unwrap_or(0);
    }

    /// Whether a segment has to wait for its time; then the timer is set.
    pub(super) fn must_wait<M>(&mut self, ctx: &Ctx<'_, M>) -> bool {
        let next = if self.pace.rate == 0 { self.pace.held } else { self.pace.next.max(self.pace.held) };
        if next <= ctx.now {
            return false;
        }
        self.timers.set(TimerKind::Pacing, next);
        true
    }

    /// Output has come to a stop; `unfinished`: only for now.
    pub(super) fn note_pause(&mut self, unfinished: bool) {
        self.pace.behind = unfinished || self.timers.is_set(TimerKind::Pacing);
    }

    /// The network marks a window that can't get smaller: what it would let out waits for RTO, and twice as long each
    /// time (RFC 9438 §4.6, RFC 3168 §6.1.2).
    pub(super) fn hold(&mut self, now: Instant) {
        let rto = self.rtt.rto() * (1 << self.pace.holds.min(8));
        self.pace.held = now + rto.min(RTO_MAX);
        self.pace.holds = self.pace.holds.saturating_add(1);
    }

    /// Something was acknowledged that the network hasn't marked.
    pub(super) fn release(&mut self) {
        self.pace.holds = 0;
    }

    /// `octets` of data go out.
    pub(super) fn paced(&mut self, octets: u32, now: Instant) {
        if self.pace.rate == 0 {
            return;
        }
        let time = |octets: u64| Duration::from_nanos(octets * 1_000_000_000 / self.pace.rate);
        let burst = time(BURST_SEGMENTS * u64::from(self.snd.mss));
        let late = if self.pace.behind {
            (self.rtt.srtt().unwrap_or_default() / CATCH_UP_SHARE).min(CATCH_UP_MAX)
        } else {
            Duration::ZERO
        };
        let earliest = now - burst.max(late);
        self.pace.next = self.pace.next.max(earliest) + time(u64::from(octets));
    }
}
