//! Congestion window validation (RFC 7661): a window that the application doesn't use says less and less. S7.2
//!
//! ```text
//!               half of the window isn't used           loss: down to what really was in flight
//!   validated ───────────────────────────────→ kept ──→ 5 minutes: half of the window
//!       ↑                                        │      idle, however long: no restart from the initial window
//!       └──────────── it is used again ──────────┘
//! ```

use super::{AckSample, initial_window};
use crate::seq::SeqNumber;
use crate::time::{Duration, Instant};

/// RFC 7661 §4.4.3: how long a window keeps without use. Paths change over minutes, users come back within them.
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(300);
/// RFC 7661 §4.3: pipeACK looks back three round trips, and a second at least.
const SAMPLING_MIN: Duration = Duration::from_secs(1);

/// How much of its window a sender uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validation {
    /// The round trip being measured: SND.UNA and SND.NXT at its beginning.
    round: Option<(SeqNumber, SeqNumber)>,
    /// The most octets acknowledged in a round trip, in this half of the sampling period and the one before;
    /// `None`: undefined.
    samples: Option<(u32, u32)>,
    half_ends: Instant,
    /// Since when the window isn't validated; `NEVER`: it is.
    since: Instant,
}

impl Validation {
    pub(super) fn new() -> Self {
        Self { round: None, samples: None, half_ends: Instant::ZERO, since: Instant::NEVER }
    }

    /// Octets known to fit through the path in a round trip (§4.2); 0: undefined.
    pub(super) fn pipe_ack(&self) -> u32 {
        self.samples.map_or(0, |(now, before)| now.max(before))
    }

    /// Whether the sender is in the non-validated phase (§4.3).
    pub(super) fn lapsed(&self) -> bool {
        self.since != Instant::NEVER
    }

    /// Takes an ACK in; `cwnd` and `ssthresh` age if it's time.
    pub(super) fn on_ack(&mut self, ack: &AckSample, cwnd: &mut u32, ssthresh: &mut u32) {
        if ack.now >= self.half_ends {
            let half = (3 * ack.srtt.unwrap_or_default()).max(SAMPLING_MIN) / 2;
            let gone = ack.now.since(self.half_ends) >= half;
            self.samples = self.samples.map(|(now, _)| (0, if gone { 0 } else { now }));
            self.half_ends = ack.now + half;
        }
        let (start, end) = *self.round.get_or_insert((ack.una, ack.nxt));
        if end.leq(ack.una) {
            // Where nothing was out nothing was measured: the handshake's ACK leaves pipeACK undefined (§4.2).
            if start != ack.una {
                let (now, before) = self.samples.unwrap_or_default();
                self.samples = Some((now.max(ack.una.since(start)), before));
            }
            self.round = Some((ack.una, ack.nxt));
        }
        // In slow start the window runs ahead of pipeACK by more than twice, but it's in the way.
        if ack.limited || self.samples.is_none() || self.pipe_ack() >= *cwnd / 2 {
            self.since = Instant::NEVER;
        } else {
            self.since = self.since.min(ack.now);
            self.age(ack.now, ack.mss, cwnd, ssthresh);
        }
    }

    /// Nothing was sent for `idle`.
    pub(super) fn on_idle(
        &mut self,
        now: Instant,
        idle: Duration,
        mss: u32,
        cwnd: &mut u32,
        ssthresh: &mut u32,
    ) {
        if !self.lapsed() {
            // Later the pause goes on, and what has aged for it has.
            self.since = now - idle;
        }
        self.age(now, mss, cwnd, ssthresh);
    }

    /// What was measured before a loss isn't the path any more (§4.4.2).
    pub(super) fn reset(&mut self) {
        self.round = None;
        self.samples = None;
        self.since = Instant::NEVER;
    }

    /// §4.4.3: half of the window, and slow start back to three quarters, for each five minutes.
    fn age(&mut self, now: Instant, mss: u32, cwnd: &mut u32, ssthresh: &mut u32) {
        let periods = now.since(self.since).as_secs() / NON_VALIDATED_PERIOD.as_secs();
        if periods == 0 {
            return;
        }
        *ssthresh = (*ssthresh).max((u64::from(*cwnd) * 3 / 4) as u32);
        let halved = cwnd.checked_shr(periods.min(32) as u32).unwrap_or(0);
        // Never more than it was.
        *cwnd = (*cwnd).min(halved.max(initial_window(mss)));
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Congestion, CongestionEvent, Cubic, Phase, Signal};
    use super::*;

    const MSS: u32 = 1460;
    const RTT: Duration = Duration::from_millis(50);
    const MINUTE: Duration = Duration::from_secs(60);

    /// A sender that has `flight` octets acknowledged each round trip.
    struct Sender {
        cubic: Cubic,
        una: SeqNumber,
        now: Instant,
    }

    impl Sender {
        fn new() -> Self {
            Self { cubic: Cubic::new(MSS), una: SeqNumber(u32::MAX - 50_000), now: Instant::from_millis(1) }
        }

        fn round(&mut self, flight: u32) {
            let limited = flight >= self.cubic.cwnd() / 2;
            let nxt = self.una + flight;
            let acks = flight.div_ceil(MSS);
            for i in 0..acks {
                let acked = MSS.min(nxt.since(self.una));
                self.una += acked;
                let in_flight = nxt.since(self.una);
                self.cubic.on_ack(&AckSample {
                    now: self.now,
                    una: self.una,
                    nxt: if i + 1 == acks { nxt + flight } else { nxt },
                    mss: MSS,
                    acked,
                    delivered: acked,
                    lost: 0,
                    in_flight_before: in_flight + acked,
                    in_flight,
                    limited,
                    rtt: Some(RTT),
                    srtt: Some(RTT),
                    rate: None,
                    phase: Phase::Open,
                });
            }
            self.now = self.now + RTT;
        }

        fn rounds(&mut self, time: Duration, flight: u32) {
            let end = self.now + time;
            while self.now < end {
                self.round(flight);
            }
        }

        fn fill(&mut self, segments: u32) {
            while self.cubic.cwnd() < segments * MSS {
                self.round(self.cubic.cwnd());
            }
        }

        fn lose(&mut self, flight: u32) {
            let event =
                CongestionEvent { signal: Signal::Loss, now: self.now, nxt: self.una, flight, mss: MSS };
            self.cubic.on_congestion(&event);
        }
    }

    #[test]
    fn s7_2_an_unused_window_is_kept_for_five_minutes() {
        let mut sender = Sender::new();
        sender.fill(320);
        let cwnd = sender.cubic.cwnd();
        sender.rounds(4 * MINUTE, 10 * MSS);
        assert_eq!(sender.cubic.cwnd(), cwnd);
        sender.rounds(2 * MINUTE, 10 * MSS);
        assert_eq!(sender.cubic.cwnd(), cwnd / 2);
        sender.rounds(5 * MINUTE, 10 * MSS);
        assert_eq!(sender.cubic.cwnd(), cwnd / 4);
        sender.rounds(60 * MINUTE, 10 * MSS);
        // What is used by half is validated.
        assert!((20 * MSS..21 * MSS).contains(&sender.cubic.cwnd()), "{}", sender.cubic.cwnd());
    }

    #[test]
    fn s7_2_a_pause_costs_half_of_the_window_for_each_five_minutes() {
        for (pause, halvings) in [(MINUTE, 0), (6 * MINUTE, 1), (11 * MINUTE, 2), (1000 * MINUTE, 31)] {
            let mut sender = Sender::new();
            sender.fill(320);
            let cwnd = sender.cubic.cwnd();
            sender.cubic.on_idle(sender.now + pause, pause, MSS);
            assert_eq!(sender.cubic.cwnd(), (cwnd >> halvings).max(10 * MSS), "{pause:?}");
        }
    }

    /// A window that the peer keeps shut is asked about from time to time; the pause is one all the same.
    #[test]
    fn s7_2_one_pause_counts_once_however_often_it_is_told() {
        let mut sender = Sender::new();
        sender.fill(320);
        let cwnd = sender.cubic.cwnd();
        for minutes in [6, 7, 8, 9, 10] {
            sender.cubic.on_idle(sender.now + minutes * MINUTE, minutes * MINUTE, MSS);
        }
        assert_eq!(sender.cubic.cwnd(), cwnd / 2);
        sender.cubic.on_idle(sender.now + 11 * MINUTE, 11 * MINUTE, MSS);
        assert_eq!(sender.cubic.cwnd(), cwnd / 4);
    }

    /// §4.4.2: a loss shows what the window was worth: not more than was in flight lately.
    #[test]
    fn s7_2_a_loss_shrinks_an_unused_window_to_what_was_used() {
        let mut sender = Sender::new();
        sender.fill(320);
        sender.rounds(MINUTE, 20 * MSS);
        assert_eq!(sender.cubic.cwnd(), 320 * MSS);
        // Five segments are out when it's noticed, twenty were within the last second.
        sender.lose(5 * MSS);
        assert_eq!(sender.cubic.cwnd(), 20 * MSS * 7 / 10);
    }

    #[test]
    fn s7_2_a_used_window_shrinks_by_what_is_in_flight() {
        let mut sender = Sender::new();
        sender.fill(320);
        sender.round(sender.cubic.cwnd());
        let cwnd = sender.cubic.cwnd();
        sender.lose(cwnd);
        assert_eq!(sender.cubic.cwnd(), (u64::from(cwnd) * 7 / 10) as u32);
    }

    #[test]
    fn s7_2_a_window_never_grows_by_ageing() {
        let mut sender = Sender::new();
        sender.lose(2 * MSS);
        let cwnd = sender.cubic.cwnd();
        sender.cubic.on_idle(sender.now + 60 * MINUTE, 60 * MINUTE, MSS);
        assert!(sender.cubic.cwnd() <= cwnd.max(10 * MSS));
        assert_eq!(sender.cubic.cwnd(), cwnd);
    }
}
