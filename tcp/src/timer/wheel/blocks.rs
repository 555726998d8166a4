//! The lists' memory: stacks of ids in blocks of a cache line.

use crate::frame::NONE;

/// Ids that a block has places for.
pub(super) const PLACES: usize = 14;
pub(super) const PLACE_BITS: u32 = 4;

/// Timers of one list: a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Block {
    pub(super) ids: [u32; PLACES],
    pub(super) list: u32,
    /// The list's next block, which is full, or the next free one; [`NONE`]: there is none.
    pub(super) next: u32,
}

/// A list's first block, and how many of its places are taken: never none of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) block: u32,
    pub(super) taken: u32,
}

pub(super) const EMPTY: Head = Head { block: NONE, taken: 0 };

/// Blocks for all lists.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Those that were ever used.
    pub(super) all: Vec<Block>,
    /// The first of those given back.
    pub(super) free: u32,
}

impl Blocks {
    /// For so many timers in so many lists: of each list at most one block isn't full. All memory is reserved here.
    pub(super) fn new(timers: u32, lists: usize) -> Self {
        let count = timers as usize / PLACES + lists.min(timers as usize);
        assert!(count < 1 << (u32::BITS - PLACE_BITS), "{count} blocks");
        Self { all: Vec::with_capacity(count), free: NONE }
    }

    /// A block of `list`, in front of `next`.
    #[inline]
    pub(super) fn take(&mut self, list: usize, next: u32) -> u32 {
        let (index, list) = (self.free, list as u32);
        if index == NONE {
            debug_assert!(self.all.len() < self.all.capacity(), "there are blocks enough");
            self.all.push(Block { ids: [0; PLACES], list, next });
            return self.all.len() as u32 - 1;
        }
        let block = &mut self.all[index as usize];
        self.free = block.next;
        (block.list, block.next) = (list, next);
        index
    }

    /// Gives a list's first block back; the next one.
    #[inline]
    pub(super) fn give_back(&mut self, index: u32) -> u32 {
        let next = core::mem::replace(&mut self.all[index as usize].next, self.free);
        self.free = index;
        next
    }
}
