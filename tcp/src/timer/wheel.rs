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
//! A slot is a stack of ids in blocks of a cache line, all of them full but the first, and each id knows its place: a
//! timer that is taken away leaves it to the last that came. Of many connections nearly every one's memory is far away;
//! linked one to the next, a slot's timers would be fetched one after the other. A bit per slot says
//! whether it is occupied, so that passing over an hour of silence looks at some words instead of
//! counting the ticks (T28).

mod blocks;

use crate::frame::NONE;
use crate::time::Instant;

use blocks::{Block, Blocks, EMPTY, Head, PLACE_BITS, PLACES};

/// Slots of one tick. Of each 16 KiB that the stack's ticks make half a second of: twice Linux's least RTO, and
/// what a tail loss probe waits for within a continent.
const NEAR: usize = 1 << NEAR_BITS;
const NEAR_BITS: u32 = 12;
/// Slots of each level beyond, and the bits of a tick that it looks at.
const FAR: usize = 1 << FAR_BITS;
const FAR_BITS: u32 = 8;
/// With the near slots' bits these hold every tick, so there is no list of timers too far away. The levels above the
/// second cost 6 KiB and are empty until timers are days long, or such a digit changes.
const FAR_LEVELS: usize = 5;
/// The near slots' lists come first, then level by level.
const LISTS: usize = NEAR + FAR_LEVELS * FAR;

/// Latest tick: 52 bits, 146 years of the shortest ticks. Later deadlines are cut to it.
const MAX_TICK: u64 = (1 << (NEAR_BITS + FAR_LEVELS as u32 * FAR_BITS)) - 1;
/// Shortest tick: 2^10 ns, about a microsecond; below it [`MAX_TICK`] could come.
const MIN_TICK_SHIFT: u32 = 10;
/// Ticks that a deadline may be ahead, so that 32 bits tell it: three days of the stack's ticks. Timers further ahead
/// come up then, for nothing.
const AHEAD_MAX: u64 = (1 << 31) - 1;

/// One timer: 8 octets.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Deadline in ticks, its lower half.
    tick: u32,
    /// Index of the block, and in the lowest bits the place in it; [`NONE`]: not armed.
    at: u32,
}

impl Node {
    #[inline]
    fn is_armed(&self) -> bool {
        self.at != NONE
    }
    #[inline]
    fn place(&self) -> (usize, usize) {
        ((self.at >> PLACE_BITS) as usize, (self.at & ((1 << PLACE_BITS) - 1)) as usize)
    }
}

/// Timers of a fixed number of owners, each with at most one deadline.
#[derive(Debug)]
pub struct TimerWheel {
    nodes: Box<[Node]>,
    heads: Box<[Head]>,
    blocks: Blocks,
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
    /// Octets an armed timer takes.
    pub const TIMER_SIZE: usize = size_of::<Node>() + size_of::<Block>().div_ceil(PLACES);

    /// A wheel for the ids `0..capacity`. A tick lasts `2^tick_shift` ns; 16 (65 µs) suits TCP,
    /// whose shortest timers are around a millisecond. Time starts at [`Instant::ZERO`].
    ///
    /// # Panics
    /// If `tick_shift` is below 10 or above 32.
    pub fn new(capacity: u32, tick_shift: u32) -> Self {
        assert!((MIN_TICK_SHIFT..=32).contains(&tick_shift), "tick of 2^{tick_shift} ns");
        assert!(capacity < NONE, "the last id means none");
        Self {
            nodes: vec![Node { tick: 0, at: NONE }; capacity as usize].into_boxed_slice(),
            heads: vec![EMPTY; LISTS].into_boxed_slice(),
            blocks: Blocks::new(capacity, LISTS),
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
        node.is_armed().then(|| self.instant(self.tick(node)))
    }

    /// Sets the deadline of `id`, in place of an earlier one. A deadline in the past comes up at the
    /// next [`pop_expired`](Self::pop_expired), one more than 2^31 ticks ahead then; [`Instant::NEVER`] is none.
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
        if !node.is_armed() || self.tick_of(deadline) < self.tick(node) {
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
            if self.is_occupied(here) {
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
        if self.entered.is_some_and(|list| self.is_occupied(list)) {
            return self.instant(self.current);
        }
        self.first_occupied().map_or(Instant::NEVER, |(_, tick)| self.instant(tick))
    }

    /// Takes timers out of a list that time has entered: the first that is due is returned, those
    /// before it sink to lower levels.
    fn sort_entered(&mut self, list: usize, target: u64) -> Option<u32> {
        while self.is_occupied(list) {
            let id = self.pop(list);
            let tick = self.tick(&self.nodes[id as usize]);
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

    #[inline]
    fn is_occupied(&self, list: usize) -> bool {
        self.heads[list].taken > 0
    }

    /// Takes the last timer that came out of a list that isn't empty. Its tick stays readable.
    #[inline]
    fn pop(&mut self, list: usize) -> u32 {
        let Head { block, taken } = self.heads[list];
        debug_assert!(taken > 0, "empty list");
        let id = self.blocks.all[block as usize].ids[taken as usize - 1];
        if taken > 1 {
            self.heads[list].taken = taken - 1;
        } else {
            self.drop_block(list, block);
        }
        self.nodes[id as usize].at = NONE;
        self.len -= 1;
        id
    }

    /// The last timer of a list's first block has left it.
    #[inline]
    fn drop_block(&mut self, list: usize, block: u32) {
        let next = self.blocks.give_back(block);
        self.heads[list] = if next == NONE { EMPTY } else { Head { block: next, taken: PLACES as u32 } };
        if next == NONE {
            self.occupied[list / 64] &= !(1 << (list % 64));
        }
    }

    /// Puts an id on the list where `tick`, or the current one if later, belongs.
    #[inline]
    fn link(&mut self, id: u32, tick: u64) {
        let tick = tick.clamp(self.current, self.current + AHEAD_MAX);
        let (list, begins) = self.place_of(tick);
        self.quiet_until = self.quiet_until.min(begins);
        let mut head = self.heads[list];
        if head.taken == 0 || head.taken as usize == PLACES {
            head = Head { block: self.blocks.take(list, head.block), taken: 0 };
            self.occupied[list / 64] |= 1 << (list % 64);
        }
        self.blocks.all[head.block as usize].ids[head.taken as usize] = id;
        self.nodes[id as usize] = Node { tick: tick as u32, at: head.block << PLACE_BITS | head.taken };
        self.heads[list] = Head { taken: head.taken + 1, ..head };
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

    /// Takes an armed timer out of its list: the last that came takes its place.
    #[inline]
    fn unlink(&mut self, id: u32) {
        let node = self.nodes[id as usize];
        let (block, place) = node.place();
        let last = self.pop(self.blocks.all[block].list as usize);
        if last != id {
            self.blocks.all[block].ids[place] = last;
            self.nodes[last as usize].at = node.at;
            self.nodes[id as usize].at = NONE;
        }
    }

    /// A timer's deadline in ticks: none lies before the current one.
    #[inline]
    fn tick(&self, node: &Node) -> u64 {
        self.current + u64::from(node.tick.wrapping_sub(self.current as u32))
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
mod tests;
