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
fn a_timer_is_8_octets_and_its_place_in_a_block() {
    assert_eq!((size_of::<Node>(), size_of::<Block>(), TimerWheel::TIMER_SIZE), (8, 64, 13));
}

#[test]
fn fires_at_the_deadline_rounded_up_to_a_tick_and_not_before() {
    let mut wheel = TimerWheel::new(1, SHIFT);
    for ticks in [
        1_u64,
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
        assert_eq!(wheel.pop_expired(at(ticks.saturating_sub(AHEAD_MAX))), None);
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
    for ticks in [3, 300, 4095, 4096, 70_000, 20_000_000, AHEAD_MAX] {
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

#[test]
fn what_is_too_far_ahead_comes_up_on_the_way() {
    let mut wheel = TimerWheel::new(1, SHIFT);
    wheel.pop_expired(at(77));
    wheel.arm(0, at(77 + AHEAD_MAX + 1));
    assert_eq!(wheel.deadline(0), Some(at(77 + AHEAD_MAX)));
    assert_eq!(wheel.pop_expired(at(76 + AHEAD_MAX)), None);
    assert_eq!(wheel.pop_expired(at(77 + AHEAD_MAX)), Some(0));
}

/// Whatever order timers are armed and taken away in, there are blocks enough, the others come up, and in the end all
/// blocks are given back.
#[test]
fn blocks_are_as_many_as_are_ever_needed() {
    for timers in [1, 13, 14, 15, 29, 5000, 60_000] {
        let mut wheel = TimerWheel::new(timers, SHIFT);
        let reserved = wheel.blocks.all.capacity();
        // A slot each, then all in one slot, then spread over the levels.
        for (round, spread) in (1..).zip([1, 0, 7919, 1 << 14]) {
            let start = round << 32;
            wheel.pop_expired(at(start));
            let deadline = |id: u32| at(start + 100 + u64::from(id) * spread);
            (0..timers).for_each(|id| wheel.arm(id, deadline(id)));
            (0..timers).step_by(3).for_each(|id| wheel.cancel(id));
            (0..timers).step_by(6).for_each(|id| wheel.arm(id, deadline(timers - id)));
            assert_eq!(wheel.blocks.all.capacity(), reserved);
            let mut came = expired(&mut wheel, at(start + (1 << 31)));
            came.sort_unstable();
            assert_eq!(came, (0..timers).filter(|id| id % 3 != 0 || id % 6 == 0).collect::<Vec<_>>());
        }
        assert!(wheel.is_empty() && wheel.occupied.iter().all(|&word| word == 0));
        let next = |&at: &u32| Some(wheel.blocks.all[at as usize].next).filter(|&next| next != NONE);
        let free = core::iter::successors(Some(wheel.blocks.free).filter(|&at| at != NONE), next).count();
        assert_eq!(free, wheel.blocks.all.len());
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
    (any::<i64>(), 18_u32..63).prop_map(|(value, shift)| (value >> (63 - shift)).max(-(TICK as i64) * 400))
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
                self.model.insert(id, self.tick_of(deadline));
            }
            Op::ArmBy { id, ahead } => {
                let deadline = self.now.saturating_add_signed(ahead);
                self.wheel.arm_by(id, Instant::from_nanos(deadline));
                let wanted = self.tick_of(deadline);
                let tick = self.model.entry(id).or_insert(u64::MAX);
                *tick = wanted.min(*tick);
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

    fn tick_of(&self, deadline: u64) -> u64 {
        deadline.div_ceil(TICK).min(self.wheel.current + AHEAD_MAX)
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
