//! One direction of a link: a rate, a queue, a delay, and what can go wrong on the way.
//!
//! ```text
//!  offer ─→ down? MTU? ─→ queue (tail drop, CE mark) ─→ rate ─→ lost? ─→ delay, jitter ─→ reordered? doubled? flipped?
//! ```
//!
//! The queue is arithmetic: what the sender has been promised (`free_at`) tells how many octets wait, so that
//! a frame costs one event however long the queue is.

use byway_tcp::time::{Duration, Instant};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::headers;

/// Two-state loss (Gilbert-Elliott): nothing is lost in the good state, `loss` in the bad one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bursts {
    /// Chance for each frame that the bad state begins.
    pub enter: f64,
    /// Chance for each frame that it ends.
    pub leave: f64,
    /// Share of frames lost meanwhile.
    pub loss: f64,
}

/// What goes wrong, by chance, for each frame.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Impairment {
    /// Share lost.
    pub loss: f64,
    /// Losses in a row.
    pub bursts: Option<Bursts>,
    /// Share held back by up to `reorder_by`, so that later ones overtake them.
    pub reorder: f64,
    /// See `reorder`.
    pub reorder_by: Duration,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share of which up to eight neighbouring bits flip: what TCP's checksum always finds.
    pub corrupt: f64,
}

/// A link as it is built.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinkSpec {
    /// Bits a second.
    pub rate: u64,
    /// Octets that wait at most; what comes on top is dropped.
    pub queue: u64,
    /// One way.
    pub delay: Duration,
    /// Added at random, without reordering.
    pub jitter: Duration,
    /// Octets waiting from which on ECN-capable packets are marked instead of queued in silence (RFC 3168 §5).
    pub mark: Option<u64>,
}

/// What has happened on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStats {
    /// Frames offered.
    pub offered: u64,
    /// Lost by chance, or because the link was down.
    pub lost: u64,
    /// Did not fit the queue.
    pub tail_dropped: u64,
    /// Too long for the link's MTU.
    pub too_long: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Held back.
    pub reordered: u64,
    /// Changed on the way.
    pub corrupted: u64,
    /// Marked CE.
    pub marked: u64,
}

/// A frame that will come out at the other end.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When.
    pub at: Instant,
    /// Its octets.
    pub frame: Vec<u8>,
    /// Bits were flipped.
    pub corrupted: bool,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    /// As built.
    pub spec: LinkSpec,
    /// What goes wrong at present.
    pub impairment: Impairment,
    /// Nothing gets through.
    pub down: bool,
    /// Largest IP packet, octets.
    pub mtu: usize,
    /// So far.
    pub stats: LinkStats,
    free_at: Instant,
    last_arrival: Instant,
    in_burst: bool,
}

impl Link {
    /// A clean link.
    pub fn new(spec: LinkSpec) -> Self {
        Self {
            spec,
            impairment: Impairment::default(),
            down: false,
            mtu: usize::MAX,
            stats: LinkStats::default(),
            free_at: Instant::ZERO,
            last_arrival: Instant::ZERO,
            in_burst: false,
        }
    }

    /// Sends `frame`; what will arrive of it, and when: none, one or two.
    pub fn offer(&mut self, mut frame: Vec<u8>, now: Instant, rng: &mut SmallRng) -> [Option<Delivery>; 2] {
        self.stats.offered += 1;
        if self.down {
            self.stats.lost += 1;
            return [None, None];
        }
        if frame.len() > self.mtu.saturating_add(headers::ETHERNET) {
            self.stats.too_long += 1;
            return [None, None];
        }
        let waiting = self.octets_in(self.free_at.since(now));
        if waiting + frame.len() as u64 > self.spec.queue {
            self.stats.tail_dropped += 1;
            return [None, None];
        }
        if self.spec.mark.is_some_and(|mark| waiting > mark) && headers::mark_ce(&mut frame) {
            self.stats.marked += 1;
        }
        self.free_at = self.free_at.max(now) + self.time_of(frame.len() as u64);
        if self.is_lost(rng) {
            self.stats.lost += 1;
            return [None, None];
        }
        let double = chance(rng, self.impairment.duplicate).then(|| frame.clone());
        self.stats.doubled += u64::from(double.is_some());
        let first = self.deliver(frame, rng);
        [Some(first), double.map(|copy| self.deliver(copy, rng))]
    }

    fn deliver(&mut self, mut frame: Vec<u8>, rng: &mut SmallRng) -> Delivery {
        let jitter = uniform(rng, self.spec.jitter);
        let in_order = (self.free_at + self.spec.delay + jitter).max(self.last_arrival);
        let at = if chance(rng, self.impairment.reorder) {
            self.stats.reordered += 1;
            in_order + uniform(rng, self.impairment.reorder_by)
        } else {
            self.last_arrival = in_order;
            in_order
        };
        // ARP has no checksum, nor have addresses in the Ethernet header: on a real link Ethernet's own guards both.
        let corrupted = chance(rng, self.impairment.corrupt) && !headers::is_arp(&frame);
        if corrupted {
            self.stats.corrupted += 1;
            flip(&mut frame, rng);
        }
        Delivery { at, frame, corrupted }
    }

    fn is_lost(&mut self, rng: &mut SmallRng) -> bool {
        let mut lost = chance(rng, self.impairment.loss);
        if let Some(bursts) = self.impairment.bursts {
            let turns = chance(rng, if self.in_burst { bursts.leave } else { bursts.enter });
            self.in_burst ^= turns;
            lost |= self.in_burst && chance(rng, bursts.loss);
        }
        lost
    }

    fn time_of(&self, octets: u64) -> Duration {
        Duration::from_nanos((u128::from(octets) * 8_000_000_000 / u128::from(self.spec.rate)) as u64)
    }

    fn octets_in(&self, time: Duration) -> u64 {
        (u128::from(time.as_nanos()) * u128::from(self.spec.rate) / 8_000_000_000) as u64
    }
}

/// True in that share of cases. Draws nothing for 0, so that an impairment that is off costs nothing.
pub(crate) fn chance(rng: &mut SmallRng, share: f64) -> bool {
    share > 0.0 && rng.random_bool(share)
}

fn uniform(rng: &mut SmallRng, up_to: Duration) -> Duration {
    match up_to.as_nanos() {
        0 => Duration::ZERO,
        nanos => Duration::from_nanos(rng.random_range(0..nanos)),
    }
}

/// Flips one bit, and some of the seven behind it, anywhere in the IP packet.
fn flip(frame: &mut [u8], rng: &mut SmallRng) {
    let first = rng.random_range(headers::ETHERNET * 8..frame.len() * 8);
    let pattern: u8 = rng.random::<u8>() | 0x80;
    for bit in 0..8 {
        let at = first + bit;
        if pattern & (0x80 >> bit) != 0 && at < frame.len() * 8 {
            frame[at / 8] ^= 0x80 >> (at % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn spec() -> LinkSpec {
        LinkSpec {
            rate: 8_000_000,
            queue: 3_000,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            mark: None,
        }
    }

    #[test]
    fn rate_delay_and_queue_are_as_asked() {
        let (mut link, mut rng) = (Link::new(spec()), SmallRng::seed_from_u64(1));
        let now = Instant::from_millis(5);
        let arrivals: Vec<_> = (0..4).map(|_| link.offer(vec![0; 1_000], now, &mut rng)[0].clone()).collect();
        // A megabyte a second: a millisecond each, and the fourth doesn't fit.
        for (at, arrival) in [16, 17, 18].into_iter().zip(&arrivals) {
            assert_eq!(arrival.as_ref().map(|delivery| delivery.at), Some(Instant::from_millis(at)));
        }
        assert!(arrivals[3].is_none() && link.stats.tail_dropped == 1);
        assert!(link.offer(vec![0; 1_000], Instant::from_millis(6), &mut rng)[0].is_some(), "room again");
    }

    #[test]
    fn shares_are_as_asked_and_one_flip_is_at_most_eight_bits_wide() {
        let (mut link, mut rng) = (Link::new(spec()), SmallRng::seed_from_u64(2));
        link.impairment = Impairment {
            loss: 0.2,
            duplicate: 0.1,
            corrupt: 0.5,
            reorder: 0.3,
            reorder_by: Duration::from_millis(50),
            ..Impairment::default()
        };
        let mut now = Instant::ZERO;
        for _ in 0..10_000 {
            now = now + Duration::from_millis(1);
            for delivery in link.offer(vec![0; 500], now, &mut rng).into_iter().flatten() {
                let set: Vec<usize> =
                    (0..4_000).filter(|bit| delivery.frame[bit / 8] & (0x80 >> (bit % 8)) != 0).collect();
                assert_eq!(!set.is_empty(), delivery.corrupted);
                if let (Some(first), Some(last)) = (set.first(), set.last()) {
                    assert!(*first >= headers::ETHERNET * 8 && last - first < 8);
                }
            }
        }
        let stats = link.stats;
        assert!((1_800..2_200).contains(&stats.lost), "{stats:?}");
        assert!((700..900).contains(&stats.doubled), "{stats:?}");
        assert!((4_100..4_700).contains(&stats.corrupted), "{stats:?}");
        assert!((2_400..2_900).contains(&stats.reordered), "{stats:?}");
    }

    #[test]
    fn bursts_lose_many_in_a_row_and_the_share_they_should() {
        let (mut link, mut rng) = (Link::new(spec()), SmallRng::seed_from_u64(3));
        link.impairment.bursts = Some(Bursts { enter: 0.01, leave: 0.1, loss: 1.0 });
        let (mut now, mut run, mut longest) = (Instant::ZERO, 0, 0);
        for _ in 0..20_000 {
            now = now + Duration::from_millis(1);
            let lost = link.offer(vec![0; 100], now, &mut rng)[0].is_none();
            run = if lost { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        // enter / (enter + leave) = 9 %.
        assert!((1_400..2_300).contains(&link.stats.lost), "{:?}", link.stats);
        assert!(longest > 20, "{longest}");
    }
}
