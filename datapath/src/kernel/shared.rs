//! What all connections of a core share: frames, timers, counters.

use byway_tcp::counters::{Counters, Totals};
use byway_tcp::frame::{Chunk, FramePool, FrameSlice, HeapMemory, MAX_HEADERS, Owner};
use byway_tcp::tcb::state::States;
use byway_tcp::time::Instant;
use byway_tcp::timer::TimerWheel;

use super::{FRAME_SIZE, SocketCounters};

/// Where received octets go in a frame. What lies before, beyond [`MAX_HEADERS`], is headroom for an answer's head, as
/// AF_XDP's 256 octets and the packet's own headers leave it.
const INPUT_OFFSET: usize = MAX_HEADERS + 192;

/// One frame in so many is kept from applications, and one in so many from receiving: as in the other backend.
const APP_RESERVE: u32 = 8;
const INPUT_RESERVE: u32 = 32;

/// What all connections of a core share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The time of this turn.
    pub(super) now: Instant,
    pub(super) pool: FramePool<HeapMemory>,
    pub(super) wheel: TimerWheel,
    pub(super) counters: Counters,
    pub(super) sockets: SocketCounters,
    /// Connections in each state, as far as a socket shows it.
    pub(super) states: States,
    /// What the other cores have counted and hold.
    pub(super) elsewhere: Box<Totals>,
}

impl Shared {
    /// Frames a connection may have in its queue: an eighth of what is free beyond the reserve.
    pub(super) fn fair_share(&self) -> usize {
        (self.pool.free_count().saturating_sub(self.pool.total() / APP_RESERVE) / 8) as usize
    }

    /// Whether an application could take a frame.
    pub(super) fn has_frames(&self) -> bool {
        self.fair_share() > 0
    }

    /// A chunk with all its room as payload, to be received into.
    pub(super) fn input_chunk(&mut self) -> Option<Chunk> {
        if self.pool.free_count() <= self.pool.total() / INPUT_RESERVE {
            return None;
        }
        let index = self.pool.fill()?;
        let len = (FRAME_SIZE - INPUT_OFFSET) as u16;
        let chunk = self.pool.received(FrameSlice { index, offset: INPUT_OFFSET as u16, len, more: false });
        self.pool.hand_to(&chunk, Owner::App);
        Some(chunk)
    }
}
