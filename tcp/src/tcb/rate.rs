//! Delivery rate: how fast the path takes octets out (draft-ietf-ccwg-bbr §4.1.2, "delivery rate samples").
//!
//! Each segment carries, from its transmission, how much had been delivered by then and since when
//! ([`TxRecord`]). When it is acknowledged, what was delivered meanwhile over the time that took is a sample of
//! the path's rate. The time is the longer of how long sending and how long acknowledging took, so that
//! neither compressed ACKs nor a burst of sending make the path seem faster than it is.

use crate::time::{Duration, Instant};

/// Microseconds modulo 2^32 (71 minutes): enough for any round trip.
#[inline]
pub fn stamp(now: Instant) -> u32 {
    (now.as_nanos() / 1000) as u32
}

/// Time from one stamp to a later one.
#[inline]
pub fn between(earlier: u32, later: u32) -> Duration {
    Duration::from_micros(u64::from(later.wrapping_sub(earlier)))
}

/// What a segment remembers of its last transmission. Counts are modulo 2^32.
#[derive(Clone, Copy, Debug, Default)]
pub struct TxRecord {
    /// Octets delivered, and lost, on the connection by then.
    delivered: u32,
    lost: u32,
    /// When the last of them was known to be delivered, µs.
    delivered_at: u32,
    /// When the segment was sent whose delivery that was, µs: the flight's beginning.
    first_sent_at: u32,
    /// Octets in flight, this segment included.
    in_flight: u32,
    /// The application, not the window, limited what was in flight.
    app_limited: bool,
}

/// A sample of the path's delivery rate.
#[derive(Clone, Copy, Debug)]
pub struct RateSample {
    /// Octets delivered …
    pub delivered: u32,
    /// … in this time.
    pub interval: Duration,
    /// The application limited the rate: the path may be faster.
    pub app_limited: bool,
    /// Octets delivered on the connection when the sampled segment was sent.
    pub prior_delivered: u64,
    /// Octets delivered on the connection now.
    pub total_delivered: u64,
    /// Octets in flight when the sampled segment was sent, itself included.
    pub tx_in_flight: u32,
    /// Octets lost between its transmission and now.
    pub lost: u32,
}

/// What the loss of a segment says.
#[derive(Clone, Copy, Debug)]
pub struct LostSample {
    /// Its octets.
    pub octets: u32,
    /// Octets in flight when it was sent, itself included.
    pub tx_in_flight: u32,
    /// Octets lost since then, itself included.
    pub lost: u32,
    /// The application, not the window, limited what was in flight.
    pub app_limited: bool,
}

impl RateSample {
    /// Octets per second.
    pub fn octets_per_second(&self) -> u64 {
        let micros = self.interval.as_micros().max(1);
        u64::from(self.delivered) * 1_000_000 / micros
    }
}

/// The newest of the segments that an ACK delivers.
#[derive(Clone, Copy, Debug)]
struct Newest {
    record: TxRecord,
    sent_at: u32,
}

/// A connection's bookkeeping for rate samples.
#[derive(Clone, Debug, Default)]
pub struct RateSampler {
    delivered: u64,
    lost: u64,
    delivered_at: u32,
    first_sent_at: u32,
    /// The application was out of data until this much is delivered; 0: it isn't.
    app_limited_until: u64,
    newest: Option<Newest>,
}

impl RateSampler {
    /// Octets delivered, ever.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// A segment of `len` octets goes out while `in_flight` others are.
    pub fn on_send(&mut self, in_flight: u32, len: u32, now: u32) -> TxRecord {
        if in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        TxRecord {
            delivered: self.delivered as u32,
            lost: self.lost as u32,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            in_flight: in_flight + len,
            app_limited: self.app_limited_until > 0,
        }
    }

    /// `octets` of a segment sent at `sent_at` are acknowledged or SACKed for the first time.
    pub fn on_delivered(&mut self, record: &TxRecord, sent_at: u32, octets: u32, now: u32) {
        self.delivered += u64::from(octets);
        self.delivered_at = now;
        let newer = self.newest.is_none_or(|n| sent_at.wrapping_sub(n.sent_at) as i32 >= 0);
        if newer {
            self.newest = Some(Newest { record: *record, sent_at });
            self.first_sent_at = sent_at;
        }
    }

    /// `octets` of a segment are taken for lost.
    pub fn on_lost(&mut self, record: &TxRecord, octets: u32) -> LostSample {
        self.lost += u64::from(octets);
        LostSample {
            octets,
            tx_in_flight: record.in_flight,
            lost: (self.lost as u32).wrapping_sub(record.lost),
            app_limited: record.app_limited,
        }
    }

    /// The application has nothing more to send though the window would let it.
    pub fn on_app_limited(&mut self, in_flight: u32) {
        self.app_limited_until = (self.delivered + u64::from(in_flight)).max(1);
    }

    /// The sample of an ACK, once its segments have been told. `None` if it delivered nothing, or faster than
    /// any round trip: the clock says nothing then.
    pub fn take_sample(&mut self, min_rtt: Option<Duration>, now: u32) -> Option<RateSample> {
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let Newest { record, sent_at } = self.newest.take()?;
        let sending = between(record.first_sent_at, sent_at);
        let acknowledging = between(record.delivered_at, now);
        let interval = sending.max(acknowledging);
        if interval.is_zero() || min_rtt.is_some_and(|min| interval < min) {
            return None;
        }
        let delivered = (self.delivered as u32).wrapping_sub(record.delivered);
        Some(RateSample {
            delivered,
            interval,
            app_limited: record.app_limited,
            prior_delivered: self.delivered - u64::from(delivered),
            total_delivered: self.delivered,
            tx_in_flight: record.in_flight,
            lost: (self.lost as u32).wrapping_sub(record.lost),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_2_a_steady_flow_gives_the_paths_rate() {
        let mut sampler = RateSampler::default();
        // A segment of 1000 octets each 10 ms, over a path of 50 ms.
        let mut records = std::collections::VecDeque::new();
        let mut last = None;
        for tick in 0..40u32 {
            let now = tick * 10_000;
            if tick >= 5
                && let Some((record, sent_at)) = records.pop_front()
            {
                sampler.on_delivered(&record, sent_at, 1000, now);
                last = sampler.take_sample(Some(Duration::from_millis(50)), now);
            }
            let in_flight = 1000 * records.len() as u32;
            records.push_back((sampler.on_send(in_flight, 1000, now), now));
        }
        let sample = last.expect("a sample");
        assert_eq!(sample.octets_per_second(), 100_000);
        assert_eq!((sample.tx_in_flight, sample.lost, sample.app_limited), (5000, 0, false));
    }

    #[test]
    fn compressed_acks_do_not_make_the_path_faster() {
        let mut sampler = RateSampler::default();
        let records: Vec<_> =
            (0..10u32).map(|i| (sampler.on_send(1000 * i, 1000, i * 10_000), i * 10_000)).collect();
        // All ten ACKs at once, 60 ms after the last was sent.
        for (record, sent_at) in &records {
            sampler.on_delivered(record, *sent_at, 1000, 150_000);
        }
        let sample = sampler.take_sample(None, 150_000).expect("a sample");
        assert_eq!((sample.delivered, sample.interval), (10_000, Duration::from_millis(150)));
    }

    #[test]
    fn a_sample_of_an_idle_application_is_marked() {
        let mut sampler = RateSampler::default();
        sampler.on_app_limited(0);
        let record = sampler.on_send(0, 1000, 0);
        sampler.on_delivered(&record, 0, 1000, 20_000);
        assert!(sampler.take_sample(None, 20_000).expect("a sample").app_limited);
        let record = sampler.on_send(0, 1000, 30_000);
        sampler.on_delivered(&record, 30_000, 1000, 50_000);
        assert!(!sampler.take_sample(None, 50_000).expect("a sample").app_limited);
        assert!(sampler.take_sample(None, 60_000).is_none());
    }
}
