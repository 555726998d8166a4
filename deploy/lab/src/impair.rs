//! A bridge in user space between two interfaces that loses, duplicates, reorders, corrupts and delays.
//!
//! ```text
//!              ┌───────────── Lane (no I/O, time passed in) ─────────────┐
//!   socket ──▶ │ dice ─▶ lost? corrupted? ─▶ held? ─▶ rate queue ─▶ delay │ ──▶ socket        one lane per direction
//!              └─────────────────────────────────────────────────────────┘
//! ```
//!
//! Where the kernel has no netem this takes its place. Every frame throws the same number of dice, whether or
//! not they count, so what happens to the n-th frame of a direction depends on the seed and n alone: not on
//! time, and a higher loss only loses more of the same frames.
//!
//! Several interfaces may share one end, as hosts share a line: their frames meet in one lane, and what comes
//! back goes to the one whose address it bears.
//!
//! VLAN tags do not pass: the kernel takes them off before a packet socket sees the frame.

mod bridge;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use bridge::{Impair, Report};

/// A frame that is held back goes out after this many later ones have come in.
const HELD_FOR_FRAMES: u32 = 3;

/// A frame that is held back goes out by then even if no later ones come: longer than a burst, shorter than a
/// retransmission timeout.
const HELD_AT_MOST: Duration = Duration::from_millis(5);

/// Destination, source and type of an Ethernet frame, which corruption leaves alone: a wrong address would be
/// a loss.
const ETHERNET_HEADER: usize = 14;

/// What happens to the frames of a direction. The default is nothing.
#[derive(Clone, Debug)]
pub struct ImpairOptions {
    /// Of everything that is left to chance.
    pub seed: u64,
    /// The probability of a frame to be lost.
    pub loss: f64,
    /// The probability of a frame to arrive twice.
    pub duplicate: f64,
    /// The probability of a frame to be overtaken by those behind it.
    pub reorder: f64,
    /// The probability of a frame to have one bit flipped, behind the Ethernet header.
    pub corrupt: f64,
    /// How long every frame takes.
    pub delay: Duration,
    /// How much longer or shorter, evenly distributed. Frames overtake each other if it is more than their
    /// distance.
    pub jitter: Duration,
    /// How many bits fit the line in a second, if there is a limit.
    pub rate_bits: Option<u64>,
    /// How many frames wait for the line at most; those that come when it is full are lost.
    pub queue_packets: usize,
    /// How many octets of frames wait for the line at most, if that is what limits the queue, too.
    pub queue_octets: Option<usize>,
    /// From how many waiting octets on a packet of an ECN-capable transport is marked as having met
    /// congestion (RFC 3168 §5). Without it none is.
    pub mark_octets: Option<usize>,
}

impl ImpairOptions {
    /// Leaves delay, rate and queue, and nothing to chance.
    pub fn without_chance(&mut self) {
        (self.loss, self.duplicate, self.reorder, self.corrupt) = (0.0, 0.0, 0.0, 0.0);
    }
}

/// What happens to the frames of each direction. From one [`ImpairOptions`]: the same to both.
#[derive(Clone, Debug)]
pub struct Directions {
    /// From the first end to the second.
    pub a_to_b: ImpairOptions,
    /// From the second end to the first.
    pub b_to_a: ImpairOptions,
}

impl From<ImpairOptions> for Directions {
    fn from(both: ImpairOptions) -> Self {
        Self { a_to_b: both.clone(), b_to_a: both }
    }
}

impl Default for ImpairOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate_bits: None,
            // netem's own default.
            queue_packets: 1000,
            queue_octets: None,
            mark_octets: None,
        }
    }
}

/// What became of the frames of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Came in.
    pub received: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Had a bit flipped.
    pub corrupted: u64,
    /// Marked as having met congestion.
    pub marked: u64,
    /// Lost because the queue was full.
    pub overflowed: u64,
    /// Lost because the bridge was late: the kernel keeps only so many frames for it. A fault of the lab's, not
    /// of the line it imitates.
    pub missed: u64,
    /// Lost because they were larger than the other interface takes: segmentation offload is on at an end.
    pub oversized: u64,
    /// The kernel did not take them: the other interface is down.
    pub refused: u64,
    /// Went out.
    pub sent: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, lost, duplicated, reordered, corrupted, marked, .. } = self;
        let Self { overflowed, missed, oversized, refused, sent, .. } = self;
        write!(
            f,
            "received {received}, lost {lost}, duplicated {duplicated}, reordered {reordered}, corrupted {corrupted}, \
             marked {marked}, overflowed {overflowed}, missed {missed}, oversized {oversized}, refused {refused}, \
             sent {sent}"
        )
    }
}

/// Chance, for one direction.
#[derive(Debug)]
struct Dice {
    rng: SmallRng,
}

/// What the dice say about one frame, each evenly distributed.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Throw {
    loss: f64,
    duplicate: f64,
    reorder: f64,
    corrupt: f64,
    bit: f64,
    jitter: [f64; 2],
}

impl Dice {
    /// The directions of one seed are independent of each other.
    fn new(seed: u64, direction: u64) -> Self {
        // An odd constant: distinct for every direction, and never a seed that a user would have typed for
        // the other.
        Self {
            rng: SmallRng::seed_from_u64(seed.wrapping_add(direction.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        }
    }

    fn throw(&mut self) -> Throw {
        let [loss, duplicate, reorder, corrupt, bit, one, two] = self.rng.random();
        Throw { loss, duplicate, reorder, corrupt, bit, jitter: [one, two] }
    }
}

type Frame = Vec<u8>;

/// A frame on the line; the earliest first, and in order of arrival among equals.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Due {
    at: Duration,
    order: u64,
    frame: Frame,
}

#[derive(Debug)]
struct Held {
    overtakers: u32,
    until: Duration,
    delay: Duration,
    frame: Frame,
}

/// One direction: frames in by [`accept`](Self::accept), out by [`release`](Self::release). Times count from
/// any one moment.
#[derive(Debug)]
struct Lane {
    options: ImpairOptions,
    dice: Dice,
    held: VecDeque<Held>,
    /// When each frame that waits for the line will be on it whole, and its octets.
    departures: VecDeque<(Duration, usize)>,
    /// The octets of all of them.
    waiting: usize,
    due: BinaryHeap<Reverse<Due>>,
    order: u64,
    counts: Counts,
}

impl Lane {
    fn new(options: &ImpairOptions, direction: u64) -> Self {
        Self {
            options: options.clone(),
            dice: Dice::new(options.seed, direction),
            held: VecDeque::new(),
            departures: VecDeque::new(),
            waiting: 0,
            due: BinaryHeap::new(),
            order: 0,
            counts: Counts::default(),
        }
    }

    fn accept(&mut self, mut frame: Frame, now: Duration) {
        self.counts.received += 1;
        let throw = self.dice.throw();
        let ImpairOptions { loss, duplicate, reorder, corrupt, delay, jitter, .. } = self.options;
        if throw.loss < loss {
            self.counts.lost += 1;
            return self.overtake(now);
        }
        let delays = throw.jitter.map(|dice| (delay + jitter.mul_f64(2.0 * dice)).saturating_sub(jitter));
        if throw.corrupt < corrupt && flip(&mut frame, throw.bit) {
            self.counts.corrupted += 1;
        }
        if throw.duplicate < duplicate {
            self.counts.duplicated += 1;
            self.queue(frame.clone(), delays[1], now);
        }
        if throw.reorder < reorder {
            self.counts.reordered += 1;
            // Before it joins them: a frame does not overtake itself.
            self.overtake(now);
            let until = now + HELD_AT_MOST;
            self.held.push_back(Held { overtakers: HELD_FOR_FRAMES, until, delay: delays[0], frame });
        } else {
            self.queue(frame, delays[0], now);
            self.overtake(now);
        }
    }

    /// Frames that are due, in the order in which they go out.
    fn release(&mut self, now: Duration, out: &mut Vec<Frame>) {
        self.let_go(now);
        while let Some(due) = self.due.peek_mut() {
            if due.0.at > now {
                break;
            }
            out.push(std::collections::binary_heap::PeekMut::pop(due).0.frame);
        }
    }

    /// When [`release`](Self::release) will have something next.
    fn next(&self) -> Option<Duration> {
        let due = self.due.peek().map(|due| due.0.at);
        let held = self.held.iter().map(|held| held.until).min();
        due.into_iter().chain(held).min()
    }

    /// One more frame has come behind those that are held back.
    fn overtake(&mut self, now: Duration) {
        for held in &mut self.held {
            held.overtakers -= 1;
        }
        self.let_go(now);
    }

    fn let_go(&mut self, now: Duration) {
        while self.held.front().is_some_and(|held| held.overtakers == 0 || held.until <= now) {
            if let Some(held) = self.held.pop_front() {
                self.queue(held.frame, held.delay, now);
            }
        }
    }

    /// Puts a frame on the line behind those that wait for it, then on its way.
    fn queue(&mut self, mut frame: Frame, delay: Duration, now: Duration) {
        let mut departure = now;
        if let Some(rate) = self.options.rate_bits {
            while let Some((_, octets)) = self.departures.front().filter(|(departure, _)| *departure <= now) {
                self.waiting -= octets;
                self.departures.pop_front();
            }
            let octets_max = self.options.queue_octets.unwrap_or(usize::MAX);
            if self.departures.len() >= self.options.queue_packets || self.waiting + frame.len() > octets_max
            {
                self.counts.overflowed += 1;
                return;
            }
            if self.options.mark_octets.is_some_and(|limit| self.waiting > limit) && mark(&mut frame) {
                self.counts.marked += 1;
            }
            let nanoseconds = frame.len() as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
            let before = self.departures.back().map_or(now, |(departure, _)| *departure);
            departure = before + Duration::from_nanos(nanoseconds as u64);
            self.departures.push_back((departure, frame.len()));
            self.waiting += frame.len();
        }
        self.order += 1;
        self.due.push(Reverse(Due { at: departure + delay, order: self.order, frame }));
    }
}

/// Marks a packet of an ECN-capable transport "congestion experienced" (RFC 3168 §5); false for any other.
fn mark(frame: &mut [u8]) -> bool {
    const CE: u8 = 0b11;
    let Some((header, packet)) = frame.split_at_mut_checked(ETHERNET_HEADER) else { return false };
    match ([header[12], header[13]], packet) {
        // The octet behind version and length, which the header's checksum covers (RFC 1624 eq. 3).
        ([0x08, 0x00], packet @ [_, _, _, _, _, _, _, _, _, _, _, _, ..]) if packet[1] & CE != 0 => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= CE;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let checksum = u16::from_be_bytes([packet[10], packet[11]]);
            let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
            let folded = (sum & 0xffff) + (sum >> 16);
            let folded = (folded & 0xffff) + (folded >> 16);
            packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
            true
        }
        // The traffic class lies across the first two octets; its last two bits are in the second.
        ([0x86, 0xdd], [_, class, ..]) if *class & (CE << 4) != 0 => {
            *class |= CE << 4;
            true
        }
        _ => false,
    }
}

/// Flips the bit of the frame behind its Ethernet header that lies at `bit`, a fraction of the whole.
fn flip(frame: &mut [u8], bit: f64) -> bool {
    let body = frame.get_mut(ETHERNET_HEADER..).unwrap_or_default();
    let at = (bit * (body.len() * 8) as f64) as usize;
    match body.get_mut(at / 8) {
        Some(octet) => *octet ^= 1 << (at % 8),
        None => return false,
    }
    true
}

#[cfg(test)]
mod tests;
