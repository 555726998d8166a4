//! A path with one bottleneck, and senders that do what a controller tells them: what an algorithm comes to.
//!
//! ```text
//!   flow: window, pacing ─→ drop-tail queue ─→ rate ─→ delay ─→ one ACK a segment ─→ rate sample, controller
//! ```
//!
//! A segment that is sent again is a new one (as in QUIC), so that the model needs no send queue; three
//! acknowledged above it make a segment lost. Deterministic: the same seed, the same run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::tcb::rate::{RateSampler, TxRecord, stamp};

pub(super) const MSS: u32 = 1460;
/// What a segment takes of the link: headers would only scale the rate.
const WIRE: u64 = MSS as u64;

/// The bottleneck.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Octets per second.
    pub(super) rate: u64,
    /// Both ways, without the queue.
    pub(super) delay: Duration,
    /// Octets that may wait.
    pub(super) queue: u64,
    /// Segments lost at random, of a million.
    pub(super) loss_ppm: u32,
    /// Octets waiting from which segments are marked.
    pub(super) mark_from: u64,
}

impl Path {
    /// So many Mbit/s and ms, with a queue of `bdps` tenths of the bandwidth-delay product.
    pub(super) fn new(megabits: u64, millis: u64, tenth_bdps: u64) -> Self {
        let rate = megabits * 125_000;
        let queue = rate * millis / 1000 * tenth_bdps / 10;
        Self { rate, delay: Duration::from_millis(millis), queue, loss_ppm: 0, mark_from: u64::MAX }
    }

    pub(super) fn bdp(&self) -> u64 {
        self.rate * self.delay.as_millis() / 1000
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Out,
    Delivered,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    record: TxRecord,
    at: Instant,
    fate: Fate,
}

/// One sender.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) controller: Controller,
    sampler: RateSampler,
    /// Octets per second that the application has to send; `None`: always more.
    pub(super) supply: Option<u64>,
    begun: Instant,
    sent: VecDeque<Sent>,
    /// Number of the first of `sent`, in segments.
    base: u64,
    in_flight: u32,
    next_send: Instant,
    wake_at: Instant,
    limited: bool,
    min_rtt: Duration,
    srtt: Option<Duration>,
    phase: Phase,
    /// Segment number at which recovery ends, and at which another mark counts.
    point: u64,
    highest: u64,
    /// Proportional rate reduction: FlightSize at its start, delivered and sent since.
    prr: (u32, u32, u32),
    last_progress: Instant,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) marked: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Ack { flow: usize, number: u64, marked: bool },
    Wake { flow: usize },
    Timeout { flow: usize },
}

/// Flows over a path.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) path: Path,
    pub(super) flows: Vec<Flow>,
    pub(super) now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    order: u64,
    busy_until: Instant,
    random: SmallRng,
    /// Sum and number of waiting times, ns.
    waited: (u64, u64),
}

impl Run {
    /// Flows that begin 100 ms apart.
    pub(super) fn new(path: Path, algorithms: &[Algorithm], seed: u64) -> Self {
        let mut run = Self {
            path,
            flows: Vec::new(),
            now: Instant::ZERO,
            events: BinaryHeap::new(),
            order: 0,
            busy_until: Instant::ZERO,
            random: SmallRng::seed_from_u64(seed),
            waited: (0, 0),
        };
        for (flow, algorithm) in algorithms.iter().enumerate() {
            let begun = Instant::from_millis(1 + 100 * flow as u64);
            run.flows.push(Flow {
                controller: Controller::new(*algorithm, MSS, seed as u32 + 7919 * flow as u32),
                sampler: RateSampler::default(),
                supply: None,
                begun,
                sent: VecDeque::new(),
                base: 0,
                in_flight: 0,
                next_send: begun,
                wake_at: begun,
                limited: false,
                min_rtt: Duration::MAX,
                srtt: None,
                phase: Phase::Open,
                point: 0,
                highest: 0,
                prr: (0, 0, 0),
                last_progress: begun,
                delivered: 0,
                lost: 0,
                marked: 0,
            });
            run.schedule(begun, Event::Wake { flow });
            run.schedule(begun + RTO, Event::Timeout { flow });
        }
        run
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    /// Lets `time` pass. Returns the octets delivered to each flow meanwhile.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<u64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.delivered).collect();
        self.waited = (0, 0);
        let end = self.now + time;
        while let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at <= end
        {
            self.events.pop();
            self.now = at;
            match event {
                Event::Ack { flow, number, marked } => self.on_ack(flow, number, marked),
                Event::Wake { flow } => self.flows[flow].wake_at = Instant::NEVER,
                Event::Timeout { flow } => self.on_timer(flow),
            }
            let (Event::Ack { flow, .. } | Event::Wake { flow } | Event::Timeout { flow }) = event;
            self.transmit(flow);
        }
        self.now = end;
        self.flows.iter().zip(before).map(|(flow, before)| flow.delivered - before).collect()
    }

    /// Share of the link that was used, of what could be in `time`.
    pub(super) fn utilisation(&self, delivered: &[u64], time: Duration) -> f64 {
        delivered.iter().sum::<u64>() as f64 / (self.path.rate as f64 * time.as_secs_f64())
    }

    /// Octets waiting when a segment arrived, on average since [`pass`](Self::pass) began.
    pub(super) fn mean_queue(&self) -> f64 {
        let (nanos, segments) = self.waited;
        nanos as f64 / segments.max(1) as f64 * self.path.rate as f64 / 1e9
    }

    fn transmit(&mut self, flow: usize) {
        loop {
            let it = &mut self.flows[flow];
            let unstarted = self.now < it.begun;
            if unstarted || !it.has_data(self.now) {
                if !unstarted {
                    it.sampler.on_app_limited(it.in_flight);
                    it.limited = false;
                    let soon = self.now + Duration::from_millis(1);
                    self.wake(flow, soon);
                }
                return;
            }
            if !it.window_open() {
                it.limited = true;
                return;
            }
            it.limited = false;
            if self.now < it.next_send {
                let at = it.next_send;
                self.wake(flow, at);
                return;
            }
            self.send(flow);
        }
    }

    fn wake(&mut self, flow: usize, at: Instant) {
        if at < self.flows[flow].wake_at {
            self.flows[flow].wake_at = at;
            self.schedule(at, Event::Wake { flow });
        }
    }

    fn send(&mut self, flow: usize) {
        let now = self.now;
        let it = &mut self.flows[flow];
        let record = it.sampler.on_send(it.in_flight, MSS, stamp(now));
        let number = it.base + it.sent.len() as u64;
        it.sent.push_back(Sent { record, at: now, fate: Fate::Out });
        it.in_flight += MSS;
        it.prr.2 += MSS;
        if let Some(rate) = it.controller.pacing_rate(it.srtt) {
            let gap = Duration::from_nanos(u64::from(MSS) * 1_000_000_000 / rate.max(1));
            it.next_send = now.max(it.next_send) + gap;
        }
        let out = Duration::from_nanos(WIRE * 1_000_000_000 / self.path.rate);
        // Two segments' time of jitter on the way to the queue: without it flows fall into step, and always the
        // same one finds the queue full.
        let arrives = now + out * self.random.random_range(0..200) / 100;
        let waiting = self.busy_until.since(arrives);
        let octets = waiting.as_nanos() * self.path.rate / 1_000_000_000;
        let unlucky = self.random.random_range(0..1_000_000) < self.path.loss_ppm;
        self.waited.0 += waiting.as_nanos();
        self.waited.1 += 1;
        if octets + WIRE > self.path.queue || unlucky {
            return;
        }
        let marked = octets >= self.path.mark_from;
        self.busy_until = self.busy_until.max(arrives) + out;
        let back = self.busy_until + self.path.delay;
        self.schedule(back, Event::Ack { flow, number, marked });
    }

    fn on_ack(&mut self, flow: usize, number: u64, marked: bool) {
        let (now, delay) = (self.now, self.path.delay);
        self.flows[flow].acknowledge(number, marked, now, delay);
    }

    fn on_timer(&mut self, flow: usize) {
        let now = self.now;
        let it = &mut self.flows[flow];
        if it.in_flight > 0 && now.since(it.last_progress) >= RTO {
            it.time_out(now);
        }
        let again = now + RTO / 4;
        self.schedule(again, Event::Timeout { flow });
    }
}

const RTO: Duration = Duration::from_secs(1);

impl Flow {
    fn has_data(&self, now: Instant) -> bool {
        let wanted = self.delivered + u64::from(self.in_flight) + u64::from(MSS);
        self.supply.is_none_or(|rate| {
            let nanos = u128::from(now.since(self.begun).as_nanos());
            u128::from(wanted) <= nanos * u128::from(rate) / 1_000_000_000
        })
    }

    /// RFC 6937 in fast recovery, the window otherwise.
    fn window_open(&self) -> bool {
        let proportional = self.phase == Phase::FastRecovery && self.controller.descent() != Descent::Own;
        if !proportional {
            return self.in_flight + MSS <= self.controller.cwnd() || self.in_flight == 0;
        }
        let (flight, delivered, out) = self.prr;
        let ssthresh = self.controller.ssthresh();
        let allowed = if self.in_flight > ssthresh {
            u64::from(delivered) * u64::from(ssthresh) / u64::from(flight.max(1))
        } else {
            u64::from(out) + u64::from(ssthresh - self.in_flight)
        };
        u64::from(out) + u64::from(MSS) <= allowed
    }

    fn seq(number: u64) -> SeqNumber {
        SeqNumber((number * u64::from(MSS)) as u32)
    }

    fn nxt(&self) -> u64 {
        self.base + self.sent.len() as u64
    }

    fn event(&self, signal: Signal, now: Instant, flight: u32) -> CongestionEvent {
        CongestionEvent { signal, now, nxt: Self::seq(self.nxt()), flight, mss: MSS }
    }

    fn acknowledge(&mut self, number: u64, marked: bool, now: Instant, path_delay: Duration) {
        let flight_before = self.in_flight;
        let Some(sent) = number.checked_sub(self.base).and_then(|i| self.sent.get_mut(i as usize)) else {
            return;
        };
        if sent.fate != Fate::Out {
            // It was late, not lost.
            return;
        }
        sent.fate = Fate::Delivered;
        let (record, sent_at) = (sent.record, sent.at);
        self.in_flight -= MSS;
        self.delivered += u64::from(MSS);
        self.last_progress = now;
        self.highest = self.highest.max(number);
        let rtt = now.since(sent_at);
        assert!(rtt >= path_delay);
        self.min_rtt = self.min_rtt.min(rtt);
        self.srtt = Some(self.srtt.map_or(rtt, |srtt| srtt - srtt / 8 + rtt / 8));
        self.sampler.on_delivered(&record, stamp(sent_at), MSS, stamp(now));
        let lost =
            self.find_lost(now, |sent, number, highest| sent.fate == Fate::Out && number + 3 <= highest);
        self.react(marked, lost, flight_before, now);
        self.prr.1 += MSS;
        while self.sent.front().is_some_and(|sent| sent.fate != Fate::Out) {
            self.sent.pop_front();
            self.base += 1;
        }
        if self.phase != Phase::Open && self.base >= self.point {
            self.phase = Phase::Open;
            self.controller.on_recovered(now, MSS);
        }
        let rate = self.sampler.take_sample(Some(self.min_rtt), stamp(now));
        let sample = AckSample {
            now,
            una: Self::seq(self.base),
            nxt: Self::seq(self.nxt()),
            mss: MSS,
            acked: MSS,
            delivered: MSS,
            lost,
            in_flight_before: flight_before,
            in_flight: self.in_flight,
            limited: self.limited || flight_before >= self.controller.cwnd() / 2,
            rtt: Some(rtt),
            srtt: self.srtt,
            rate,
            phase: self.phase,
        };
        self.controller.on_ack(&sample);
        assert!((MSS..=CWND_MAX).contains(&self.controller.cwnd()), "{:?}", self.controller);
    }

    fn find_lost(&mut self, now: Instant, is_lost: impl Fn(&Sent, u64, u64) -> bool) -> u32 {
        let mut octets = 0;
        // Only the oldest can be.
        for i in 0..self.sent.len() {
            let number = self.base + i as u64;
            if number > self.highest {
                break;
            }
            if is_lost(&self.sent[i], number, self.highest) {
                self.sent[i].fate = Fate::Lost;
                octets += MSS;
                let lost = self.sampler.on_lost(&self.sent[i].record, MSS);
                self.controller.on_lost(&lost, now);
            } else if self.sent[i].fate == Fate::Out {
                break;
            }
        }
        self.in_flight -= octets;
        self.lost += u64::from(octets);
        octets
    }

    fn react(&mut self, marked: bool, lost: u32, flight: u32, now: Instant) {
        if lost > 0 && matches!(self.phase, Phase::Open | Phase::Cwr) {
            self.controller.on_congestion(&self.event(Signal::Loss, now, flight));
            self.phase = Phase::FastRecovery;
            self.point = self.nxt();
            self.prr = (flight, 0, 0);
        } else if marked && self.phase == Phase::Open && self.highest >= self.point {
            self.controller.on_congestion(&self.event(Signal::Ecn, now, flight));
            self.phase = Phase::Cwr;
            self.point = self.nxt();
        }
        self.marked += u64::from(marked);
    }

    fn time_out(&mut self, now: Instant) {
        let flight = self.in_flight;
        self.controller.on_timeout(&self.event(Signal::Loss, now, flight), self.phase != Phase::Loss);
        self.highest = self.nxt();
        self.find_lost(now, |sent, _, _| sent.fate == Fate::Out);
        self.phase = Phase::Loss;
        self.point = self.nxt();
        self.last_progress = now;
    }
}

/// Jain's index of fairness.
pub(super) fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[cfg(test)]
mod tests;
