//! Congestion control: how much may be in flight, and how fast it may go out.
//!
//! ```text
//!   acknowledgement ─→ loss recovery ─→ rate ─→ AckSample ─→ on_ack ─┐
//!   loss, ECE       ─→ on_congestion (once per window) ──────────────┤─→ cwnd, ssthresh, pacing rate ─→ output
//!   timeout         ─→ on_timeout                                    │
//!   it was a mistake ─→ on_undo ─────────────────────────────────────┘
//! ```
//!
//! Windows are octets. The sender asks [`Congestion::cwnd`] and tells what happened; it never computes a window
//! itself, but for the one of proportional rate reduction during fast recovery (RFC 6937), which loss recovery
//! steers towards [`Congestion::ssthresh`].

mod bbr;
mod cubic;
mod hystart;
#[cfg(test)]
mod path;
mod reno;
mod validation;
pub use bbr::Bbr;
pub use cubic::Cubic;
pub use reno::Reno;

use core::fmt;
use core::str::FromStr;

use crate::seq::SeqNumber;
use crate::tcb::rate::{LostSample, RateSample, RateSampler};
use crate::time::{Duration, Instant};

/// No window grows beyond what a scaled receive window can express (RFC 7323 §2.3).
const CWND_MAX: u32 = 1 << 30;

/// RFC 6928: min(10 * MSS, max(2 * MSS, 14600)).
pub fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

/// A window for smaller segments: as many of them, not as many octets (RFC 5681 §3.1). Larger ones don't widen it.
fn window_in_segments(cwnd: u32, before: u32, mss: u32) -> u32 {
    let scaled = u64::from(cwnd) * u64::from(mss.min(before)) / u64::from(before.max(1));
    (scaled as u32).max(mss)
}

/// Below this a window isn't paced: it goes out within 15 ticks of the timer wheel (131 µs), so that pacing would
/// only cut it into as many bursts, at the price of as many timers; in a data centre's 100 µs it couldn't at all.
const PACED_RTT_MIN: Duration = Duration::from_millis(2);

/// The rate that spreads a window over a round trip, octets per second: somewhat faster than the window moves, so
/// that pacing never is what limits, and not fully spread, so that what the application has goes out. As Linux:
/// 200 % while the window doubles each round trip, 120 % from half of ssthresh on.
///
/// Of the shortest round trip: a smoothed one is longer by what receivers hold ACKs back, up to 40 ms for the odd segment
/// of a small window, and pacing could then be slower than the ACKs that release the window.
fn window_rate(cwnd: u32, ssthresh: u32, min_rtt: Option<Duration>) -> Option<u64> {
    let min_rtt = min_rtt.filter(|rtt| *rtt >= PACED_RTT_MIN)?;
    let percent = if cwnd < ssthresh / 2 { 200 } else { 120 };
    Some(u64::from(cwnd) * percent * 10_000 / min_rtt.as_micros())
}

/// Where loss recovery stands (Linux's `CA` states, without Disorder).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// Nothing is missing, as far as is known.
    #[default]
    Open,
    /// The network marked a segment (RFC 3168); nothing was lost. Over when what was out then is acknowledged.
    Cwr,
    /// Segments were found lost by acknowledgements (RFC 5681 §3.2, RFC 8985).
    FastRecovery,
    /// The retransmission timer expired (RFC 5681 §3.1).
    Loss,
}

/// What one acknowledgement told, after loss recovery has looked at it.
#[derive(Clone, Copy, Debug)]
pub struct AckSample {
    /// When it arrived.
    pub now: Instant,
    /// SND.UNA after it.
    pub una: SeqNumber,
    /// SND.NXT.
    pub nxt: SeqNumber,
    /// Payload octets of a full segment.
    pub mss: u32,
    /// Octets by which SND.UNA moved.
    pub acked: u32,
    /// Octets newly known to have arrived: acknowledged or SACKed for the first time.
    pub delivered: u32,
    /// Octets newly taken for lost.
    pub lost: u32,
    /// Octets in flight before it.
    pub in_flight_before: u32,
    /// Octets in flight after it.
    pub in_flight: u32,
    /// The window was in the way of sending (RFC 7661: one that isn't used doesn't grow).
    pub limited: bool,
    /// Round-trip time of the newest segment that was sent once, if it acknowledged one.
    pub rtt: Option<Duration>,
    /// Smoothed round-trip time (RFC 6298).
    pub srtt: Option<Duration>,
    /// The rate at which the path delivers, if the ACK gives a sample; only for [`Algorithm::Bbr`].
    pub rate: Option<RateSample>,
    /// Where loss recovery stands after it.
    pub phase: Phase,
}

/// Why the window has to shrink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Segments were found lost by acknowledgements.
    Loss,
    /// The peer echoes that the network marked a segment (RFC 3168 §6.1.2).
    Ecn,
}

/// A congestion event, told once per window of data.
#[derive(Clone, Copy, Debug)]
pub struct CongestionEvent {
    /// What happened.
    pub signal: Signal,
    /// When.
    pub now: Instant,
    /// SND.NXT: the event's window ends here.
    pub nxt: SeqNumber,
    /// FlightSize: octets sent and not cumulatively acknowledged (RFC 5681 §2).
    pub flight: u32,
    /// Payload octets of a full segment.
    pub mss: u32,
}

/// How the window comes down to `ssthresh` during fast recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Descent {
    /// Proportional rate reduction (RFC 6937).
    Proportional,
    /// The same with SACK; without, `ssthresh` plus an MSS for each duplicate ACK (RFC 5681 §3.2).
    Inflation,
    /// The controller's own `cwnd` rules.
    Own,
}

/// What a congestion controller is told and asked.
pub trait Congestion {
    /// Congestion window, octets.
    fn cwnd(&self) -> u32;
    /// Slow-start threshold, octets.
    fn ssthresh(&self) -> u32;
    /// Octets per second at which segments should leave; `None`: as fast as the window allows.
    fn pacing_rate(&self, min_rtt: Option<Duration>) -> Option<u64>;
    /// An acknowledgement arrived that told something new, in whatever phase.
    fn on_ack(&mut self, ack: &AckSample);
    /// What measures the path's rate, if the controller looks at that.
    fn sampler(&mut self) -> Option<&mut RateSampler> {
        None
    }
    /// A segment was taken for lost, before any [`on_congestion`](Self::on_congestion) for it. Only BBR looks at
    /// segments one by one.
    fn on_lost(&mut self, _lost: &LostSample, _now: Instant) {}
    /// Congestion was found; for [`Signal::Loss`] fast recovery begins (RFC 5681 §3.2).
    fn on_congestion(&mut self, event: &CongestionEvent);
    /// Fast recovery or [`Phase::Cwr`] is over: everything outstanding when it began has been acknowledged.
    fn on_recovered(&mut self, now: Instant, mss: u32);
    /// The retransmission timer expired (RFC 5681 §3.1); `first` unless it's the same segment again.
    fn on_timeout(&mut self, event: &CongestionEvent, first: bool);
    /// The last reduction was a mistake: nothing had been lost (RFC 4015, RFC 5682, RFC 3708).
    fn on_undo(&mut self, now: Instant);
    /// Sending begins again after nothing was out for `idle`, longer than an RTO (RFC 5681 §4.1, RFC 7661).
    fn on_idle(&mut self, now: Instant, idle: Duration, mss: u32);
    /// SYN or SYN-ACK was lost more than once: the initial window is one segment of `mss` octets (RFC 5681 §3.1). One
    /// retransmission says nothing, RTO being as short as 1 s (RFC 6928 §2).
    fn on_syn_lost(&mut self, mss: u32);
    /// Segments have become smaller or larger (path-MTU discovery): `mss` from here on, `before` till now.
    fn on_mss(&mut self, before: u32, mss: u32);
    /// How fast recovery comes down to `ssthresh`.
    fn descent(&self) -> Descent {
        Descent::Proportional
    }
    /// What it is doing, in a word or two, for plots and `byway conns`.
    fn mode(&self) -> &'static str;
}

/// A congestion control algorithm by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// CUBIC (RFC 9438). S7.2
    #[default]
    Cubic,
    /// Reno (RFC 5681). S7.1
    Reno,
    /// BBR version 3 (draft-ietf-ccwg-bbr). S7.2
    Bbr,
}

impl Algorithm {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Cubic, Self::Reno, Self::Bbr];

    /// As on the command line and in Linux's `tcp_congestion_control`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
            Self::Bbr => "bbr",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name).ok_or(())
    }
}

/// A connection's controller: chosen by name, called without a table of pointers.
#[derive(Clone, Debug)]
pub enum Controller {
    /// CUBIC (RFC 9438).
    Cubic(Cubic),
    /// Reno (RFC 5681).
    Reno(Reno),
    /// BBR (draft-ietf-ccwg-bbr), elsewhere: it's larger than the others, and connections that don't use it
    /// shouldn't pay.
    Bbr(Box<Bbr>),
}

impl Controller {
    /// At connection start, with segments of `mss` octets. `seed` is for what should differ between connections.
    pub fn new(algorithm: Algorithm, mss: u32, seed: u32) -> Self {
        match algorithm {
            Algorithm::Cubic => Self::Cubic(Cubic::new(mss)),
            Algorithm::Reno => Self::Reno(Reno::new(mss)),
            Algorithm::Bbr => Self::Bbr(Box::new(Bbr::new(mss, seed))),
        }
    }
}

/// Calls the method of whichever controller it is.
macro_rules! each {
    ($controller:expr, $it:ident => $call:expr) => {
        match $controller {
            Controller::Cubic($it) => $call,
            Controller::Reno($it) => $call,
            Controller::Bbr($it) => $call,
        }
    };
}

impl Controller {
    /// Which algorithm it is.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Cubic(_) => Algorithm::Cubic,
            Self::Reno(_) => Algorithm::Reno,
            Self::Bbr(_) => Algorithm::Bbr,
        }
    }

    /// Whether it has a [`sampler`](Congestion::sampler).
    #[inline]
    pub(super) fn samples(&self) -> bool {
        matches!(self, Self::Bbr(_))
    }
}

impl Congestion for Controller {
    fn cwnd(&self) -> u32 {
        each!(self, it => it.cwnd())
    }
    fn ssthresh(&self) -> u32 {
        each!(self, it => it.ssthresh())
    }
    fn pacing_rate(&self, min_rtt: Option<Duration>) -> Option<u64> {
        each!(self, it => it.pacing_rate(min_rtt))
    }
    fn on_ack(&mut self, ack: &AckSample) {
        each!(self, it => it.on_ack(ack))
    }
    fn sampler(&mut self) -> Option<&mut RateSampler> {
        each!(self, it => it.sampler())
    }
    fn on_lost(&mut self, lost: &LostSample, now: Instant) {
        each!(self, it => it.on_lost(lost, now))
    }
    fn on_congestion(&mut self, event: &CongestionEvent) {
        each!(self, it => it.on_congestion(event))
    }
    fn on_recovered(&mut self, now: Instant, mss: u32) {
        each!(self, it => it.on_recovered(now, mss))
    }
    fn on_timeout(&mut self, event: &CongestionEvent, first: bool) {
        each!(self, it => it.on_timeout(event, first))
    }
    fn on_undo(&mut self, now: Instant) {
        each!(self, it => it.on_undo(now))
    }
    fn on_idle(&mut self, now: Instant, idle: Duration, mss: u32) {
        each!(self, it => it.on_idle(now, idle, mss))
    }
    fn on_syn_lost(&mut self, mss: u32) {
        each!(self, it => it.on_syn_lost(mss))
    }
    fn on_mss(&mut self, before: u32, mss: u32) {
        each!(self, it => it.on_mss(before, mss))
    }
    fn descent(&self) -> Descent {
        each!(self, it => it.descent())
    }
    fn mode(&self) -> &'static str {
        each!(self, it => it.mode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Anything that a connection can tell, in any order, as far as its own limits go: no more in flight than the
    /// largest window.
    fn tell(controller: &mut Controller, mss: &mut u32, what: u8, numbers: &[u32; 8], now: Instant) {
        let [a, b, c, d, e, f, g, h] = *numbers;
        let octets = |number: u32| number % (CWND_MAX + 1);
        let signal = if a % 2 == 0 { Signal::Loss } else { Signal::Ecn };
        let event = CongestionEvent { signal, now, nxt: SeqNumber(b), flight: octets(c), mss: *mss };
        match what {
            0 => controller.on_congestion(&event),
            1 => controller.on_timeout(&event, a % 2 == 0),
            2 => controller.on_undo(now),
            3 => controller.on_recovered(now, *mss),
            4 => controller.on_idle(now, Duration::from_millis(u64::from(a)), *mss),
            5 => {
                let before = core::mem::replace(mss, 1 + a % 65_495);
                controller.on_mss(before, *mss);
            }
            6 => {
                let (octets, tx_in_flight) = (octets(a), octets(b));
                let lost = LostSample { octets, tx_in_flight, lost: c, app_limited: d % 2 == 0 };
                controller.on_lost(&lost, now);
            }
            _ => {
                let time = |number: u32| Duration::from_nanos(u64::from(number) * u64::from(number % 1000));
                let rate = RateSample {
                    delivered: octets(d),
                    interval: time(e),
                    app_limited: f % 2 == 0,
                    prior_delivered: u64::from(f) * u64::from(g),
                    total_delivered: u64::from(f) * u64::from(g) + u64::from(octets(d)),
                    tx_in_flight: octets(h),
                    lost: g % 1000,
                };
                let phases = [Phase::Open, Phase::Open, Phase::Cwr, Phase::FastRecovery, Phase::Loss];
                controller.on_ack(&AckSample {
                    now,
                    una: SeqNumber(a),
                    nxt: SeqNumber(a) + octets(b),
                    mss: *mss,
                    acked: octets(c),
                    delivered: octets(d),
                    lost: octets(e) * (f % 2),
                    in_flight_before: octets(g),
                    in_flight: octets(h),
                    limited: a % 4 != 0,
                    rtt: (b % 3 > 0).then(|| time(b)),
                    srtt: (c % 8 > 0).then(|| time(c)),
                    rate: (d % 3 > 0).then_some(rate),
                    phase: phases[(e % 5) as usize],
                });
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn t11_t23_no_sequence_of_events_makes_a_window_impossible(
            seed: u32,
            mss in 1u32..65_496,
            events in prop::collection::vec((0u8..16, any::<[u32; 8]>(), any::<u16>()), 1..100),
        ) {
            for algorithm in Algorithm::ALL {
                let (mut mss, mut now) = (mss, Instant::from_millis(1));
                let mut controller = Controller::new(*algorithm, mss, seed);
                for (what, numbers, step) in &events {
                    // From microseconds to an hour.
                    now = now + Duration::from_micros(u64::from(*step) * u64::from(*step) + 1);
                    tell(&mut controller, &mut mss, *what, numbers, now);
                    prop_assert!((mss..=CWND_MAX).contains(&controller.cwnd()), "{:?} {}", controller, mss);
                    prop_assert!(controller.ssthresh() >= 2, "{:?}", controller);
                    for srtt in [None, Some(Duration::ZERO), Some(Duration::from_millis(40))] {
                        prop_assert!(controller.pacing_rate(srtt) != Some(0), "{:?}", controller);
                    }
                }
            }
        }
    }

    #[test]
    fn s7_2_initial_window_is_rfc_6928() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(9000), 18_000);
    }

    #[test]
    fn s7_1_algorithms_have_the_names_of_linux() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(*algorithm));
        }
        assert_eq!("Reno".parse::<Algorithm>(), Err(()));
    }

    #[test]
    fn s7_2_a_window_is_spread_over_the_round_trip() {
        let srtt = Some(Duration::from_millis(100));
        // 100 kB each 100 ms are 1 MB/s.
        assert_eq!(window_rate(100_000, u32::MAX, srtt), Some(2_000_000));
        assert_eq!(window_rate(100_000, 100_000, srtt), Some(1_200_000));
        assert_eq!(window_rate(100_000, u32::MAX, None), None);
        assert_eq!(window_rate(100_000, u32::MAX, Some(Duration::from_micros(100))), None);
        assert_eq!(window_rate(CWND_MAX, u32::MAX, Some(PACED_RTT_MIN)), Some(1_073_741_824_000));
    }
}
