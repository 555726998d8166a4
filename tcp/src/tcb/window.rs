//! The receive window: how much the peer may send (RFC 9293 §3.8.6), grown as the path shows that it can use it. S5.2
//!
//! ```text
//!   RCV.NXT                        edge (never moves left)
//!   ──┴──────── RCV.WND ────────────┴─────→       limit = min(tuned, share of the frames, receive_buffer)
//!     └ in a round trip so much came: twice as much may come in the next one
//! ```

use super::{Ctx, Tcb, receive_share};
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::time::{Duration, Instant};

/// The window a connection starts with, and starts anew with after a pause: the largest that a SYN can offer. An
/// initial window (RFC 6928) fits four times, so that it has grown before slow start needs more; and who opens many
/// connections and says nothing is promised little.
const INITIAL: u32 = u16::MAX as u32;
/// After a pause this long nothing is known about the path; its sender's own window has started over long ago (RFC
/// 5681 §4.1).
const PAUSE: Duration = Duration::from_secs(10);
/// Taken for the round trip when nothing was measured: too long only makes the window larger. RFC 6298 §2.1's guess.
const RTT_UNKNOWN: Duration = Duration::from_secs(1);
/// Segments of room beyond what is expected, for what arrives in a burst (Linux has as many).
const SPARE_SEGMENTS: u32 = 16;

/// Octets: smaller segments come from who has little to say, and may have waited. The smallest MSS that a host has to
/// take (RFC 9293 §3.7.1), less timestamps.
const WORTH_MEASURING: usize = 536 - 12;

/// What arrives in a round trip, and the window that follows from it (as Linux's dynamic right-sizing). Arrival counts, not
/// what the application reads: one that can't send its answer has stopped reading, and its peer may be about to write
/// a whole long message before it reads. What such peers hold is bounded by their share, see `stack/pressure.rs`.
#[derive(Debug)]
pub(super) struct Tuning {
    limit: u32,
    /// Octets since the round trip began, and in the one before.
    pub(super) arrived: u32,
    before: u32,
    since: Instant,
    /// Round trip from the timestamps that the peer echoes, in µs; 0: none yet.
    rtt_us: u32,
    /// The last echo: what it says twice isn't measured twice.
    echo: u32,
}

impl Tuning {
    pub(super) fn new(now: Instant) -> Self {
        Self { limit: INITIAL, arrived: 0, before: 0, since: now, rtt_us: 0, echo: 0 }
    }

    /// A full segment echoed a timestamp of ours, `age` old. The peer may have had nothing to send meanwhile: one long
    /// silence moves the estimate by an eighth at most.
    fn measured(&mut self, age: Duration) {
        let us = u32::try_from(age.as_micros()).unwrap_or(u32::MAX).max(1);
        self.rtt_us = match self.rtt_us {
            0 => us,
            old => old - old / 8 + us.min(old.saturating_mul(2)) / 8,
        };
    }

    /// `octets` arrived in order.
    fn arrived(&mut self, octets: u32, mss: u32, rtt: Duration, max: u32, now: Instant) {
        let passed = now.since(self.since);
        if passed >= PAUSE {
            *self = Self { rtt_us: self.rtt_us, echo: self.echo, ..Self::new(now) };
        } else if passed >= rtt {
            self.turn(mss, max);
            self.since = now;
        }
        self.arrived = self.arrived.saturating_add(octets);
    }

    /// A round trip is over.
    fn turn(&mut self, mss: u32, max: u32) {
        if self.arrived > self.before {
            // Twice what came, because the sender may double it, and as much more as the last round trip grew.
            let twice = u64::from(self.arrived) * 2 + u64::from(SPARE_SEGMENTS * mss);
            let grown = u64::from(self.arrived - self.before);
            let more = if self.before == 0 {
                twice
            } else {
                twice.min(twice.saturating_mul(grown) / u64::from(self.before))
            };
            let wanted = u32::try_from(twice + more).unwrap_or(u32::MAX).min(max);
            self.limit = self.limit.max(wanted);
        }
        self.before = core::mem::take(&mut self.arrived);
    }
}

impl Tcb {
    /// A segment with these timestamps and `len` octets of text moved RCV.NXT by `octets`.
    pub(super) fn tune_window<M>(
        &mut self,
        timestamps: Option<(u32, u32)>,
        len: usize,
        octets: u32,
        ctx: &Ctx<'_, M>,
    ) {
        if octets == 0 {
            return;
        }
        if let (Some(ts), Some((_, echo))) = (self.timestamps, timestamps)
            && len >= WORTH_MEASURING
            && echo != self.tuning.echo
        {
            self.tuning.echo = echo;
            let age = Duration::from_millis(u64::from(ts.value(ctx.now).wrapping_sub(echo)));
            // Below a tick the other estimate knows better.
            let age = if age.is_zero() { self.rtt.srtt().unwrap_or(age) } else { age };
            self.tuning.measured(age);
        }
        let rtt = match self.tuning.rtt_us {
            0 => self.rtt.srtt().unwrap_or(RTT_UNKNOWN),
            us => Duration::from_micros(u64::from(us)),
        };
        self.tuning.arrived(octets, u32::from(self.rcv.mss), rtt, ctx.config.receive_buffer, ctx.now);
    }

    /// Upper bound of what may be buffered for the application now, octets. S5.2
    fn receive_limit<M: Memory>(&self, ctx: &Ctx<'_, M>) -> u32 {
        let least = 2 * u32::from(self.rcv.mss);
        receive_share(ctx.pool, ctx.config, self.rcv.mss).min(self.tuning.limit.max(least))
    }

    /// The window of a SYN is never scaled (RFC 7323 §2.2).
    pub(super) fn syn_window<M: Memory>(&mut self, ctx: &Ctx<'_, M>) -> u16 {
        let window = self.receive_limit(ctx).min(u32::from(u16::MAX));
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt + window);
        // Repeated when memory is shorter, it offers no less.
        self.rcv.wnd().min(u32::from(u16::MAX)) as u16
    }

    /// Advances the right edge as far as the buffer allows and gives the header's field (RFC 9293 §3.8.6). S5.2
    pub(super) fn window<M: Memory>(&mut self, ctx: &Ctx<'_, M>) -> u16 {
        self.rcv.edge = self.edge_to_offer(ctx);
        // Rounded down: the edge that the peer sees may then seem to move left by less than a step, which
        // RFC 7323 §2.4 provides for. Rounded up, it would move right with every octet (P2).
        (self.rcv.wnd() >> self.rcv.scale).min(u32::from(u16::MAX)) as u16
    }

    /// Where the right edge may be: never left of where it was, moved only by worthwhile steps
    /// (RFC 9293 §3.8.6.2.2, MUST-39: a segment, or half the buffer). S5.2
    fn edge_to_offer<M: Memory>(&self, ctx: &Ctx<'_, M>) -> SeqNumber {
        let limit = self.receive_limit(ctx);
        let room = limit.saturating_sub(self.recv.bytes()).min(u32::from(u16::MAX) << self.rcv.scale);
        // In steps that the header's field can express.
        let wanted = self.rcv.nxt + (room >> self.rcv.scale << self.rcv.scale);
        let step = (limit / 2).min(u32::from(self.rcv.mss));
        let edge = self.rcv.edge.max(self.rcv.nxt);
        if edge.lt(wanted) && wanted.since(edge) >= step { wanted } else { edge }
    }

    /// The application has read: tell the peer when the window grew by two segments or half of
    /// what the peer believes (RFC 9293 §3.8.6.2.2). S5.2
    pub(super) fn window_update_if_due<M: Memory>(&mut self, ctx: &Ctx<'_, M>) {
        if !self.state.can_receive() || self.owed.ack || !self.was_read {
            return;
        }
        let edge = self.edge_to_offer(ctx);
        let known = self.rcv.wnd();
        let grown = edge.since(self.rcv.nxt).saturating_sub(known);
        if grown > 0 && (known < 2 * u32::from(self.rcv.mss) || grown >= known) {
            self.owed.ack = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1460;
    const RTT: Duration = Duration::from_millis(20);

    /// One round trip's segments, evenly spaced.
    fn round(tuning: &mut Tuning, octets: u32, now: &mut Instant) {
        for _ in 0..10 {
            *now = *now + RTT / 10;
            tuning.arrived(octets / 10, MSS, RTT, 16 << 20, *now);
        }
    }

    /// S5.2: the window stays ahead of slow start from ten segments on, and is no more than a few times what comes.
    #[test]
    fn s5_2_the_window_stays_ahead_of_slow_start() {
        let mut now = Instant::from_millis(5);
        let mut tuning = Tuning::new(now);
        let mut cwnd = 10 * MSS;
        while cwnd < 2 << 20 {
            assert!(tuning.limit >= cwnd, "{} for {cwnd}", tuning.limit);
            round(&mut tuning, cwnd, &mut now);
            cwnd *= 2;
        }
        assert!(tuning.limit <= 16 << 20);
        // At a steady rate it stays.
        let before = tuning.limit;
        for _ in 0..100 {
            round(&mut tuning, cwnd / 2, &mut now);
        }
        assert!(tuning.limit <= before.max(5 * cwnd), "{} {before}", tuning.limit);
    }

    /// S5.2 T3: who says little is promised little, and after a pause everybody starts over.
    #[test]
    fn s5_2_t3_slow_and_idle_peers_keep_a_small_window() {
        let mut now = Instant::from_millis(5);
        let mut tuning = Tuning::new(now);
        for _ in 0..1000 {
            round(&mut tuning, 5_000, &mut now);
        }
        assert_eq!(tuning.limit, INITIAL);
        round(&mut tuning, 1 << 20, &mut now);
        round(&mut tuning, 1 << 20, &mut now);
        assert!(tuning.limit >= 2 << 20);
        now = now + PAUSE;
        tuning.arrived(1, MSS, RTT, 16 << 20, now);
        assert_eq!(tuning.limit, INITIAL);
    }

    /// P1: a peer that echoes old timestamps makes a round trip as long as it likes, and a fast link fills it.
    #[test]
    fn p1_as_much_in_one_round_trip_as_can_be_counted() {
        let mut now = Instant::from_millis(5);
        let mut tuning = Tuning::new(now);
        for octets in [1, u32::MAX, 1] {
            tuning.arrived(octets, MSS, RTT, 16 << 20, now);
            now = now + RTT;
        }
        assert_eq!(tuning.limit, 16 << 20);
    }

    /// One long silence isn't a long path.
    #[test]
    fn a_silence_moves_the_round_trip_little() {
        let mut tuning = Tuning::new(Instant::ZERO);
        tuning.measured(RTT);
        tuning.measured(Duration::from_secs(100));
        assert_eq!(tuning.rtt_us, 22_500);
        for _ in 0..50 {
            tuning.measured(2 * RTT);
        }
        assert!((39_000..=40_000).contains(&tuning.rtt_us), "{}", tuning.rtt_us);
    }
}
