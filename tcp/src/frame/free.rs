//! Frames that nobody holds.

use super::Owner;

/// The free frames, those on top that were used last. Two stacks, because a frame that was received was written by the
/// NIC or another core: to write into it costs the exchange of its cache lines, at which a core that sends from
/// frames of its own spent a tenth of its time. Those that were never used come last: a lightly loaded core touches few
/// pages.
#[derive(Debug)]
pub(super) struct FreeFrames {
    received: Vec<u32>,
    written: Vec<u32>,
    unused: core::ops::Range<u32>,
}

impl FreeFrames {
    /// So many, none of them used yet.
    pub(super) fn all(count: u32) -> Self {
        let empty = || Vec::with_capacity(count as usize);
        Self { received: empty(), written: empty(), unused: 0..count }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.received.iter().chain(&self.written).copied().chain(self.unused.clone())
    }

    /// The frame's owner was `last`.
    #[inline]
    pub(super) fn put(&mut self, index: u32, last: Owner) {
        match last {
            Owner::SendQueue | Owner::TxRing | Owner::Control => self.written.push(index),
            Owner::Free | Owner::Fill | Owner::Rx | Owner::App => self.received.push(index),
        }
    }

    #[inline]
    pub(super) fn take_to_fill(&mut self) -> Option<u32> {
        self.received.pop().or_else(|| self.written.pop()).or_else(|| self.unused.next())
    }

    #[inline]
    pub(super) fn take_to_write(&mut self) -> Option<u32> {
        self.written.pop().or_else(|| self.received.pop()).or_else(|| self.unused.next())
    }
}
