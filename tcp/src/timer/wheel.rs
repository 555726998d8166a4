//! A hierarchical timing wheel (Varghese and Lauck, 1987, scheme 7), without allocation.
//!
//! ```text
//!  near: 4,096 slots of 1 tick, the next 4,096 ticks, round and round
//!         ┌──┬──┬──┬─ … ─┬──┬──┐
//!         └──┴──┴──┴─ … ─┴──┴──┘
//!             ▲ now
//!  far: deadline in ticks, digit by digit:   5    4    3    2    1 │ 12 bits
//!                                                              └─── level 1: 256 slots of 4,096 ticks
//!                                                         └──────── level 2: 256 slots of 2^20 ticks …
//! ```
//!
//! A timer that is due within 4,096 ticks has a slot for its very tick: with the stack's ticks half a second, which most
//! retransmission timers don't reach beyond. Others lie at the level of the highest digit in which their deadline
//! differs from the current tick, in the slot that this digit names. When time enters such a slot, its timers are due
//! or sink to lower levels, which happens to each timer at most five times, and in practice once or never.
//!
//! Every slot is a doubly linked list through an array of nodes, one per id. A bit per slot says
//! whether it is occupied, so that passing over an hour of silence looks at some words instead of
//! counting the ticks (T28).

use crate::frame::NONE;
use crate::time::Instant;

/// Slots of one tick. Of each 16 KiB that the stack's ticks make half a second of: twice Linux's least RTO, and
/// what a tail loss probe waits for within a continent.
const NEAR: usize = 1 << NEAR_BITS;
const NEAR_BITS: u32 = 12;
/// Slots of each level beyond, and the bits of a tick that it looks at.
const FAR: usize = 1 << FAR_BITS;
const FAR_BITS: u32 = 8;
/// With the near slots' bits these hold every deadline that a node can, so there is no list of timers too far
/// away. The levels above the second cost 3 KiB and are empty until timers are days long.
const FAR_LEVELS: usize = 5;
/// The near slots' lists come first, then level by level.
const LISTS: usize = NEAR + FAR_LEVELS * FAR;

/// Bits of [`Node::place`] that name the list: fewer than 2^13, and "none".
const LIST_BITS: u32 = 13;
const LIST_MASK: u64 = (1 << LIST_BITS) - 1;
/// In place of a list: not armed.
const UNARMED: u64 = LIST_MASK;
/// Latest tick: 51 bits, 73 years of the shortest ticks. Later deadlines are cut to it.
const MAX_TICK: u64 = (1 << (64 - LIST_BITS)) - 1;
/// Shortest tick: 2^10 ns, about a microsecond; below it [`MAX_TICK`] could come.
const MIN_TICK_SHIFT: u32 = 10;

/// One timer: 16 octets.
#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    prev: u32,
    /// Deadline in ticks, and below it the index of the list, or [`UNARMED`].
    place: u64,
}

impl Node {
    #[inline]
    fn tick(&self) -> u64 {
        self.place >> LIST_BITS
    }
    #[inline]
    fn list(&self) -> usize {
        (self.place & LIST_MASK) as usize
    }
    #[inline]
    fn is_armed(&self) -> bool {
        self.place & LIST_MASK != UNARMED
    }
}

/// Timers of a fixed number of owners, each with at most one deadline.
#[derive(Debug)]
pub struct TimerWheel {
    nodes: Box<[Node]>,
    /// First node of each list.
    heads: Box<[u32; LISTS]>,
    /// Which lists aren't empty.
    occupied: [u64; LISTS / 64],
    tick_shift: u32,
    /// No timer's deadline lies before this tick.
    current: u64,
    /// Nor does any occupied list begin before this one, and none is [`entered`](Self::entered) till then.
    quiet_until: u64,
    /// The higher level's list that time has entered and whose timers aren't all sorted yet.
    entered: Option<usize>,
    len: u32,
}

impl TimerWheel {
    /// Octets a timer takes.
    pub const NODE_SIZE: usize = size_of::<Node>();

    /// A wheel for the ids `0..capacity`. A tick lasts `2^tick_shift` ns; 16 (65 µs) suits TCP,
    /// whose shortest timers are around a millisecond. Time starts at [`Instant::ZERO`].
    ///
    /// # Panics
    /// If `tick_shift` is below 10 or above 32.
    pub fn new(capacity: u32, tick_shift: u32) -> Self {
        assert!((MIN_TICK_SHIFT..=32).contains(&tick_shift), "tick of 2^{tick_shift} ns");
        assert!(capacity < NONE, "the last id means none");
        Self {
            nodes: vec![Node { next: NONE, prev: NONE, place: UNARMED }; capacity as usize]
                .into_boxed_slice(),
            heads: Box::new([NONE; LISTS]),
            occupied: [0; LISTS / 64],
            tick_shift,
            current: 0,
            quiet_until: 0,
            entered: None,
            len: 0,
        }
    }

    /// Number of armed timers.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `id` has a deadline.
    #[inline]
    pub fn is_armed(&self, id: u32) -> bool {
        self.nodes[id as usize].is_armed()
    }

    /// The deadline of `id`, rounded up to a tick; a deadline that was past when armed is given as
    /// the tick of that moment.
    #[inline]
    pub fn deadline(&self, id: u32) -> Option<Instant> {
        let node = &self.nodes[id as usize];
        node.is_armed().then(|| self.instant(node.tick()))
    }

    /// Sets the deadline of `id`, in place of an earlier one. A deadline in the past comes up at the
    /// next [`pop_expired`](Self::pop_expired); [`Instant::NEVER`] is none.
    ///
    /// # Panics
    /// If `id` isn't below the capacity.
    #[inline]
    pub fn arm(&mut self, id: u32, deadline: Instant) {
        self.cancel(id);
        if deadline != Instant::NEVER {
            let tick = self.tick_of(deadline);
            self.link(id, tick);
            self.len += 1;
        }
    }

    /// Arms `id` unless it comes up by `deadline` anyway.
    ///
    /// # Panics
    /// If `id` isn't below the capacity.
    #[inline]
    pub fn arm_by(&mut self, id: u32, deadline: Instant) {
        if deadline == Instant::NEVER {
            return;
        }
        let node = &self.nodes[id as usize];
        if !node.is_armed() || self.tick_of(deadline) < node.tick() {
            self.arm(id, deadline);
        }
    }

    /// Takes the deadline of `id` away; nothing happens if there is none.
    ///
    /// # Panics
    /// If `id` isn't below the capacity.
    #[inline]
    pub fn cancel(&mut self, id: u32) {
        if self.nodes[id as usize].is_armed() {
            self.unlink(id);
            self.len -= 1;
        }
    }

    /// Takes away one timer whose deadline, rounded up to a tick, is at or before `now`. Call it
    /// until `None`, or as often as a turn of the loop has time for; timers can be armed and
    /// cancelled in between. Due timers come in the order of their deadlines (of one tick: in any
    /// order), except after a pause of 4,096 ticks or more. `now` never goes backwards; if it does,
    /// nothing is due.
    ///
    /// Cost: O(1) per timer returned or sunk; that many of a slot's timers sink in one call is the
    /// price of never firing early.
    #[inline]
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let target = (now.as_nanos() >> self.tick_shift).min(MAX_TICK);
        if target < self.quiet_until {
            self.current = self.current.max(target);
            return None;
        }
        self.search_expired(target)
    }

    fn search_expired(&mut self, target: u64) -> Option<u32> {
        if target < self.current {
            return None;
        }
        self.quiet_until = 0;
        loop {
            let here = self.current as usize % NEAR;
            if self.heads[here] != NONE {
                return Some(self.pop(here));
            }
            if let Some(list) = self.entered
                && let Some(id) = self.sort_entered(list, target)
            {
                return Some(id);
            }
            let (list, tick) = self.first_occupied().unwrap_or((0, u64::MAX));
            if tick > target {
                // No slot between here and `target` is occupied, so every timer left is in a slot that
                // begins later, and of those beyond the near ones shares the digits above its level's with
                // `target` as well.
                (self.current, self.quiet_until) = (target, tick);
                return None;
            }
            self.current = tick;
            if list >= NEAR {
                self.entered = Some(list);
            }
        }
    }

    /// When to call [`pop_expired`](Self::pop_expired) next: never later than the earliest deadline
    /// rounded up to a tick, and exactly then if no more than 4,096 ticks are between and no slot of a higher level
    /// begins before: of that only the beginning shows. [`Instant::NEVER`] if nothing is armed.
    #[inline]
    pub fn next_deadline(&self) -> Instant {
        if self.is_empty() {
            return Instant::NEVER;
        }
        if self.entered.is_some_and(|list| self.heads[list] != NONE) {
            return self.instant(self.current);
        }
        self.first_occupied().map_or(Instant::NEVER, |(_, tick)| self.instant(tick))
    }

    /// Takes timers out of a list that time has entered: the first that is due is returned, those
    /// before it sink to lower levels.
    fn sort_entered(&mut self, list: usize, target: u64) -> Option<u32> {
        while self.heads[list] != NONE {
            let id = self.pop(list);
            let tick = self.nodes[id as usize].tick();
            if tick <= target {
                return Some(id);
            }
            self.link(id, tick);
            self.len += 1;
        }
        self.entered = None;
        None
    }

    /// The first occupied list from the current tick on, and the first tick it can hold.
    #[inline]
    fn first_occupied(&self) -> Option<(usize, u64)> {
        let near = self.first_near();
        let far = self.first_far();
        match (near, far) {
            (Some(near), Some(far)) => Some(if far.1 <= near.1 { far } else { near }),
            (near, far) => near.or(far),
        }
    }

    /// Round from the current tick's slot to the one before it.
    #[inline]
    fn first_near(&self) -> Option<(usize, u64)> {
        let from = self.current as usize % NEAR;
        let words = &self.occupied[..NEAR / 64];
        let slot = first_set(words, from).or_else(|| first_set(words, 0))?;
        let ahead = (slot + NEAR - from) % NEAR;
        Some((slot, self.current + ahead as u64))
    }

    /// All of a level's timers come before all of the next one's.
    #[inline]
    fn first_far(&self) -> Option<(usize, u64)> {
        for level in 0..FAR_LEVELS {
            let shift = NEAR_BITS + FAR_BITS * level as u32;
            let lists = NEAR + level * FAR;
            let from = (self.current >> shift) as usize % FAR;
            if let Some(slot) = first_set(&self.occupied[lists / 64..(lists + FAR) / 64], from) {
                // Below this level's digit everything is zero, above it as in the current tick.
                let above = (self.current >> (shift + FAR_BITS)) << (shift + FAR_BITS);
                let tick = above | ((slot as u64) << shift);
                return Some((lists + slot, tick.max(self.current)));
            }
        }
        None
    }

    /// Takes the first timer out of a list that isn't empty.
    #[inline]
    fn pop(&mut self, list: usize) -> u32 {
        let id = self.heads[list];
        debug_assert_ne!(id, NONE, "empty list");
        self.unlink(id);
        self.len -= 1;
        id
    }

    /// Puts a node at the head of the list where `tick`, or the current one if later, belongs.
    #[inline]
    fn link(&mut self, id: u32, tick: u64) {
        let tick = tick.max(self.current);
        let (list, begins) = self.place_of(tick);
        self.quiet_until = self.quiet_until.min(begins);
        let next = self.heads[list];
        self.nodes[id as usize] = Node { next, prev: NONE, place: (tick << LIST_BITS) | list as u64 };
        if next != NONE {
            self.nodes[next as usize].prev = id;
        }
        self.heads[list] = id;
        self.occupied[list / 64] |= 1 << (list % 64);
    }

    /// The list for a tick that isn't past, and the first tick it can hold.
    #[inline]
    fn place_of(&self, tick: u64) -> (usize, u64) {
        if tick - self.current < NEAR as u64 {
            return (tick as usize % NEAR, tick);
        }
        // More than that away, they differ in a digit beyond the near slots'.
        let level = ((tick ^ self.current).ilog2() - NEAR_BITS) / FAR_BITS;
        let shift = NEAR_BITS + FAR_BITS * level;
        let slot = (tick >> shift) as usize % FAR;
        (NEAR + level as usize * FAR + slot, tick >> shift << shift)
    }

    /// Takes an armed node out of its list; its tick stays readable.
    #[inline]
    fn unlink(&mut self, id: u32) {
        let node = self.nodes[id as usize];
        let list = node.list();
        self.nodes[id as usize].place |= UNARMED;
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        if node.prev != NONE {
            self.nodes[node.prev as usize].next = node.next;
            return;
        }
        self.heads[list] = node.next;
        if node.next == NONE {
            self.occupied[list / 64] &= !(1 << (list % 64));
        }
    }

    /// The first tick at or after `deadline`.
    #[inline]
    fn tick_of(&self, deadline: Instant) -> u64 {
        deadline.as_nanos().div_ceil(1 << self.tick_shift).min(MAX_TICK)
    }

    #[inline]
    fn instant(&self, tick: u64) -> Instant {
        Instant::from_nanos(tick.saturating_mul(1 << self.tick_shift))
    }
}

/// The first set bit at or after `from`.
#[inline]
fn first_set(words: &[u64], from: usize) -> Option<usize> {
    let first = words[from / 64] & (!0 << (from % 64));
    if first != 0 {
        return Some(from / 64 * 64 + first.trailing_zeros() as usize);
    }
    let after = from / 64 + 1;
    let (index, word) = words[after..].iter().enumerate().find(|&(_, &word)| word != 0)?;
    Some((after + index) * 64 + word.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SHIFT: u32 = 16;
    const TICK: u64 = 1 << SHIFT;

    fn at(ticks: u64) -> Instant {
        Instant::from_nanos(ticks * TICK)
    }

    fn expired(wheel: &mut TimerWheel, now: Instant) -> Vec<u32> {
        core::iter::from_fn(|| wheel.pop_expired(now)).collect()
    }

    #[test]
    fn a_node_is_16_octets() {
        assert_eq!(size_of::<Node>(), 16);
    }

    #[test]
    fn fires_at_the_deadline_rounded_up_to_a_tick_and_not_before() {
        let mut wheel = TimerWheel::new(1, SHIFT);
        for ticks in [
            1,
            255,
            256,
            4095,
            4096,
            4097,
            65_536,
            (1 << 20) - 1,
            1 << 20,
            (1 << 28) + 1,
            1 << 36,
            (1 << 40) + 12_345,
        ] {
            let mut wheel = TimerWheel::new(1, SHIFT);
            wheel.arm(0, Instant::from_nanos(ticks * TICK - TICK + 1));
            assert_eq!(wheel.deadline(0), Some(at(ticks)));
            assert_eq!(wheel.pop_expired(Instant::from_nanos(ticks * TICK - 1)), None, "{ticks}");
            assert_eq!(wheel.pop_expired(at(ticks)), Some(0), "{ticks}");
            assert!(wheel.is_empty() && !wheel.is_armed(0));
        }
        wheel.arm(0, Instant::NEVER);
        assert_eq!((wheel.len(), wheel.next_deadline()), (0, Instant::NEVER));
    }

    #[test]
    fn a_deadline_in_the_past_comes_up_at_the_next_call() {
        let mut wheel = TimerWheel::new(2, SHIFT);
        assert_eq!(wheel.pop_expired(at(1000)), None);
        wheel.arm(0, at(10));
        wheel.arm(1, Instant::ZERO);
        assert!(wheel.next_deadline() <= at(1000));
        assert_eq!(wheel.pop_expired(at(999)), None, "time went backwards");
        assert_eq!(expired(&mut wheel, at(1000)).len(), 2);
    }

    #[test]
    fn an_expired_timer_can_be_armed_again_in_between() {
        let mut wheel = TimerWheel::new(2, SHIFT);
        wheel.arm(0, at(5));
        wheel.arm(1, at(6));
        let mut seen = Vec::new();
        while let Some(id) = wheel.pop_expired(at(10)) {
            seen.push(id);
            let deadline = if seen.len() < 6 { at(3) } else { at(11) };
            wheel.arm(id, deadline);
        }
        assert_eq!(seen.len(), 7);
        assert_eq!(wheel.len(), 2);
        assert_eq!(expired(&mut wheel, at(11)).len(), 2);
    }

    #[test]
    fn arm_by_only_moves_a_deadline_forward() {
        let mut wheel = TimerWheel::new(1, SHIFT);
        wheel.arm_by(0, at(50));
        wheel.arm_by(0, at(70));
        wheel.arm_by(0, Instant::NEVER);
        assert_eq!(wheel.deadline(0), Some(at(50)));
        wheel.arm_by(0, at(40));
        assert_eq!(wheel.deadline(0), Some(at(40)));
    }

    #[test]
    fn t28_an_hour_of_silence_costs_no_more_than_a_tick() {
        let mut wheel = TimerWheel::new(3, SHIFT);
        let hour = 3_600_000_000_000 / TICK;
        let mut now = 0;
        // Counting ticks, this would take 5.5 billion steps.
        for round in 0..100_000 {
            wheel.arm(0, at(now + hour / 2));
            wheel.arm(1, at(now + hour + 1));
            now += hour;
            assert_eq!(wheel.pop_expired(at(now)), Some(0), "{round}");
            assert_eq!(wheel.pop_expired(at(now)), None, "{round}");
        }
    }

    #[test]
    fn t28_after_a_jump_the_caller_decides_how_many_come_up_at_once() {
        let mut wheel = TimerWheel::new(10_000, SHIFT);
        for id in 0..10_000 {
            wheel.arm(id, at(1 + u64::from(id) * 7));
        }
        let mut turns = 0;
        while !wheel.is_empty() {
            assert!(wheel.next_deadline() <= at(1_000_000));
            for _ in 0..64 {
                wheel.pop_expired(at(1_000_000));
            }
            turns += 1;
        }
        assert_eq!(turns, 10_000_u32.div_ceil(64));
    }

    /// A loop that sleeps until `next_deadline` hears of every timer, and is woken for nothing at
    /// most once per level.
    #[test]
    fn sleeping_until_next_deadline_finds_every_timer() {
        for ticks in [3, 300, 4095, 4096, 70_000, 20_000_000, 5_000_000_000, 1 << 45] {
            let mut wheel = TimerWheel::new(1, SHIFT);
            wheel.pop_expired(at(77));
            wheel.arm(0, at(77 + ticks));
            let mut wakes = 0;
            loop {
                wakes += 1;
                let now = wheel.next_deadline();
                assert!(now <= at(77 + ticks) && wakes <= 1 + FAR_LEVELS);
                if wheel.pop_expired(now).is_some() {
                    assert_eq!(now, at(77 + ticks));
                    break;
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm { id: u32, ahead: i64 },
        ArmBy { id: u32, ahead: i64 },
        Cancel { id: u32 },
        Advance { nanos: u64, limit: usize },
    }

    /// Distances of all magnitudes, a few negative.
    fn distance() -> impl Strategy<Value = i64> {
        (any::<i64>(), 18_u32..63)
            .prop_map(|(value, shift)| (value >> (63 - shift)).max(-(TICK as i64) * 400))
    }

    fn op() -> impl Strategy<Value = Op> {
        let id = 0_u32..24;
        prop_oneof![
            6 => (id.clone(), distance()).prop_map(|(id, ahead)| Op::Arm { id, ahead }),
            2 => (id.clone(), distance()).prop_map(|(id, ahead)| Op::ArmBy { id, ahead }),
            2 => id.prop_map(|id| Op::Cancel { id }),
            5 => (any::<u64>(), 16_u32..56, 1_usize..40)
                .prop_map(|(value, shift, limit)| Op::Advance { nanos: value >> (63 - shift), limit }),
        ]
    }

    /// The wheel and what it must be equal to.
    struct Pair {
        wheel: TimerWheel,
        model: BTreeMap<u32, u64>,
        now: u64,
    }

    impl Pair {
        fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
            match *op {
                Op::Arm { id, ahead } => {
                    let deadline = self.now.saturating_add_signed(ahead);
                    self.wheel.arm(id, Instant::from_nanos(deadline));
                    self.model.insert(id, deadline.div_ceil(TICK));
                }
                Op::ArmBy { id, ahead } => {
                    let deadline = self.now.saturating_add_signed(ahead);
                    self.wheel.arm_by(id, Instant::from_nanos(deadline));
                    let tick = self.model.entry(id).or_insert(u64::MAX);
                    *tick = deadline.div_ceil(TICK).min(*tick);
                }
                Op::Cancel { id } => {
                    self.wheel.cancel(id);
                    self.model.remove(&id);
                }
                Op::Advance { nanos, limit } => {
                    self.now = self.now.saturating_add(nanos);
                    self.advance(limit)?;
                }
            }
            self.check()
        }

        /// Takes at most `limit` timers: each is due, and "no more" is true.
        fn advance(&mut self, limit: usize) -> Result<(), TestCaseError> {
            let target = self.now / TICK;
            for _ in 0..limit {
                let Some(id) = self.wheel.pop_expired(Instant::from_nanos(self.now)) else {
                    prop_assert!(self.model.values().all(|&tick| tick > target));
                    break;
                };
                let tick = self.model.remove(&id);
                prop_assert!(tick.is_some_and(|tick| tick <= target), "{id} {tick:?} at {target}");
            }
            Ok(())
        }

        fn check(&self) -> Result<(), TestCaseError> {
            prop_assert_eq!(self.wheel.len() as usize, self.model.len());
            let next = self.wheel.next_deadline();
            prop_assert_eq!(next == Instant::NEVER, self.model.is_empty());
            for id in 0..24 {
                let deadline = self.wheel.deadline(id);
                prop_assert_eq!(deadline.is_some(), self.model.contains_key(&id));
                if let (Some(deadline), Some(&tick)) = (deadline, self.model.get(&id)) {
                    prop_assert!(next <= deadline);
                    // What was past already when armed is given as the present.
                    let present = tick * TICK <= self.now && deadline.as_nanos() <= self.now;
                    prop_assert!(deadline == at(tick) || present, "{deadline:?} {tick}");
                }
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_a_sorted_map(start in 0_u64..1 << 62, ops in prop::collection::vec(op(), 1..80)) {
            let wheel = TimerWheel::new(24, SHIFT);
            let mut pair = Pair { wheel, model: BTreeMap::new(), now: start };
            pair.advance(1)?;
            for op in &ops {
                pair.apply(op)?;
            }
            // Everything left comes up in the end.
            pair.now = u64::MAX - 1;
            pair.advance(usize::MAX)?;
            pair.check()?;
        }
    }
}
