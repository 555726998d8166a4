//! Frames and who owns them.
//!
//! ```text
//!  index 0        1        2                    frame_count-1
//!  ┌────────┬────────┬────────┬── … ──┬────────┐   `Memory`: the bytes (a UMEM, or a heap for tests)
//!  └────────┴────────┴────────┴── … ──┴────────┘
//!      one frame:   │ headroom ≥ MAX_HEADERS │ payload (start, len) │ tailroom │
//!
//!  Free ─fill→ Fill ─received→ Rx ─recv→ App ─send→ SendQueue ─transmit→ TxRing ─completed→ SendQueue ─acked→ Free
//! ```
//!
//! A frame belongs to exactly one [`Owner`]; [`FramePool`] keeps the ledger (promise P3) and
//! refuses to show the bytes of a frame that the kernel owns. User space holds a frame as a
//! [`Chunk`], which can't be copied: it is moved from station to station until it is released.
//! The payload stays where the NIC wrote it; headers are written into the headroom in front.

mod free;

use core::fmt;
use core::ops::Range;

use crate::tcb::rate::TxRecord;

use free::FreeFrames;

#[cfg(test)]
mod tests;

/// Room kept in front of every payload for the largest headers byway writes:
/// Ethernet 14 + two VLAN tags 8 + IPv6 40 + TCP with all options 60 = 122, rounded up.
pub const MAX_HEADERS: usize = 128;

/// "No frame" in an intrusive list.
pub(crate) const NONE: u32 = u32::MAX;

/// One frame in so many is kept for what byway sends by itself (ACK, RST, ARP): neither the fill ring nor
/// an application gets at it (D2).
const CONTROL_RESERVE: u32 = 64;
/// One frame in so many is kept from applications, so that the fill ring can always be stocked: the ACKs
/// that free the send queues must be able to arrive.
const APP_RESERVE: u32 = 8;

/// The bytes behind the frames: a UMEM mapping, or a heap.
///
/// The methods are called by [`FramePool`] alone, and only for frames the ledger says user space
/// owns; an implementation over memory shared with a kernel relies on that.
pub trait Memory {
    /// Number of frames.
    fn frame_count(&self) -> u32;
    /// Octets per frame; the same for all, at most 65,535.
    fn frame_size(&self) -> usize;
    /// The whole frame, headroom included. `index < frame_count()`.
    fn frame(&self, index: u32) -> &[u8];
    /// The whole frame, headroom included. `index < frame_count()`.
    fn frame_mut(&mut self, index: u32) -> &mut [u8];
}

/// Frames on the heap: for tests, simulators and benches without a NIC.
#[derive(Debug)]
pub struct HeapMemory {
    bytes: Vec<u8>,
    frame_size: usize,
}

impl HeapMemory {
    /// `frame_count` zeroed frames of `frame_size` octets.
    pub fn new(frame_count: u32, frame_size: usize) -> Self {
        Self { bytes: vec![0; frame_count as usize * frame_size], frame_size }
    }
}

impl Memory for HeapMemory {
    fn frame_count(&self) -> u32 {
        (self.bytes.len() / self.frame_size) as u32
    }
    fn frame_size(&self) -> usize {
        self.frame_size
    }
    #[inline]
    fn frame(&self, index: u32) -> &[u8] {
        let at = index as usize * self.frame_size;
        &self.bytes[at..at + self.frame_size]
    }
    #[inline]
    fn frame_mut(&mut self, index: u32) -> &mut [u8] {
        let at = index as usize * self.frame_size;
        &mut self.bytes[at..at + self.frame_size]
    }
}

/// Who owns a frame. The ledger counts frames by owner; the counts always add up to all frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Owner {
    /// In the free list.
    Free,
    /// In the fill ring or being written by the NIC: the kernel's.
    Fill,
    /// Received: being parsed, in a receive queue, or out of order.
    Rx,
    /// In the application's hands as a [`Chunk`].
    App,
    /// In a connection's send queue, not (or no longer) in the TX ring.
    SendQueue,
    /// A frame without a connection's payload (ACK, ARP reply …) being built.
    Control,
    /// In the transmit batch, the TX ring or the completion ring: the kernel's.
    TxRing,
}

const OWNERS: usize = 7;

/// A run of payload octets in one frame, owned by whoever holds it.
///
/// Not `Copy`, not `Clone`: pass it on (`Conn::send`) or give it back (`Conn::release`). Dropping
/// one leaks its frame, which debug builds answer with a panic.
#[must_use = "a chunk owns a frame: send it or release it"]
pub struct Chunk {
    index: u32,
    start: u16,
    len: u16,
}

impl Chunk {
    /// Octets of payload.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no payload.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets by which the payload can grow at the front ([`grow_front`](Self::grow_front)).
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.start).saturating_sub(MAX_HEADERS)
    }

    /// Drops the first `octets` of the payload.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline]
    pub fn advance(&mut self, octets: usize) {
        assert!(octets <= self.len(), "advance past the end of a chunk");
        self.start += octets as u16;
        self.len -= octets as u16;
    }

    /// Keeps the first `octets` of the payload.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline]
    pub fn truncate(&mut self, octets: usize) {
        assert!(octets <= self.len(), "truncate past the end of a chunk");
        self.len = octets as u16;
    }

    /// Moves the payload's start `octets` to the front; what stands there is stale until written.
    ///
    /// # Panics
    /// If `octets > headroom()`.
    #[inline]
    pub fn grow_front(&mut self, octets: usize) {
        assert!(octets <= self.headroom(), "no headroom");
        self.start -= octets as u16;
        self.len += octets as u16;
    }

    /// Index of the frame, for traces and tests.
    #[inline]
    pub fn index(&self) -> u32 {
        self.index
    }

    #[inline]
    pub(crate) fn start(&self) -> usize {
        usize::from(self.start)
    }

    #[inline]
    fn into_parts(self) -> (u32, u16, u16) {
        let parts = (self.index, self.start, self.len);
        core::mem::forget(self);
        parts
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({}: {}+{})", self.index, self.start, self.len)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if cfg!(debug_assertions) && !std::thread::panicking() {
            panic!("frame {} leaked: a chunk was dropped, not sent or released", self.index);
        }
    }
}

/// A frame and where its octets lie, as it crosses between the stack and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameSlice {
    /// Index of the frame.
    pub index: u32,
    /// First octet, counted from the frame's start.
    pub offset: u16,
    /// Number of octets.
    pub len: u16,
    /// The packet goes on in the next slice: it is larger than a frame (`XDP_PKT_CONTD`).
    pub more: bool,
}

/// What the stack keeps beside each frame while it sits in one of a connection's queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    /// Next frame in the queue, or [`NONE`].
    pub(crate) next: u32,
    /// Sequence number of the first payload octet.
    pub(crate) seq: u32,
    /// Out-of-order queue: head of the next range, or [`NONE`]. Send queue: the payload's checksum (see
    /// [`sum`](crate::wire::checksum::sum)), or [`NONE`] if it isn't known.
    pub(crate) aux: u32,
    /// Out-of-order queue, in a range's head: the range's last frame.
    pub(crate) range_tail: u32,
    pub(crate) start: u16,
    pub(crate) len: u16,
    owner: Owner,
    /// Released while the kernel still had it: free it on completion.
    orphan: bool,
    /// Send queue: how often it has been sent, saturating.
    pub(crate) sent: u8,
    pub(crate) flags: u8,
}

/// What is kept of the last transmission of a frame in a send queue. Apart from [`Meta`], which every received
/// frame touches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transmission {
    /// When, as [`stamp`](crate::tcb::rate::stamp) has it.
    pub(crate) at: u32,
    /// Neighbours among the frames in flight, in the order of transmission, or [`NONE`].
    pub(crate) earlier: u32,
    pub(crate) later: u32,
    pub(crate) record: TxRecord,
}

/// All frames of one core: the free ones, the ledger, and the bytes.
pub struct FramePool<M> {
    memory: M,
    free: FreeFrames,
    meta: Vec<Meta>,
    transmissions: Vec<Transmission>,
    counts: [u32; OWNERS],
    frame_size: usize,
    /// Payload octets moved by user space, ever: 0 on the zero-copy paths.
    payload_bytes_copied: u64,
}

impl<M: Memory> FramePool<M> {
    /// A pool in which every frame is free.
    pub fn new(memory: M) -> Self {
        let count = memory.frame_count();
        let frame_size = memory.frame_size();
        assert!(frame_size <= usize::from(u16::MAX), "frame offsets are 16 bits");
        let meta = Meta {
            next: NONE,
            seq: 0,
            aux: 0,
            range_tail: NONE,
            start: 0,
            len: 0,
            owner: Owner::Free,
            orphan: false,
            sent: 0,
            flags: 0,
        };
        let transmission = Transmission { at: 0, earlier: NONE, later: NONE, record: TxRecord::default() };
        let mut counts = [0; OWNERS];
        counts[Owner::Free as usize] = count;
        Self {
            memory,
            free: FreeFrames::all(count),
            meta: vec![meta; count as usize],
            transmissions: vec![transmission; count as usize],
            counts,
            frame_size,
            payload_bytes_copied: 0,
        }
    }

    /// Frames in all.
    pub fn total(&self) -> u32 {
        self.meta.len() as u32
    }

    /// Frames that nobody holds.
    #[inline]
    pub fn free_count(&self) -> u32 {
        self.counts[Owner::Free as usize]
    }

    /// Octets per frame.
    #[inline]
    pub fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// Frames a connection may take for its queues: an eighth of what is free beyond the reserve (the dynamic
    /// threshold of shared-memory switches). As queues grow the share shrinks: N greedy connections that keep
    /// moving converge on total / (8 + N) each. Against those that don't move, see `stack/pressure.rs`.
    #[inline]
    pub(crate) fn fair_share(&self) -> u32 {
        self.for_apps() / 8
    }

    /// Frames that applications may take now.
    #[inline]
    pub(crate) fn for_apps(&self) -> u32 {
        self.free_count().saturating_sub(self.total() / APP_RESERVE)
    }

    /// Whether received payload has to be refused, lest the fill ring runs dry.
    #[inline]
    pub(crate) fn is_scarce(&self) -> bool {
        self.free_count() <= self.total() / 32
    }

    /// Frames held by `owner`.
    pub fn count(&self, owner: Owner) -> u32 {
        self.counts[owner as usize]
    }

    /// Payload octets that user space has copied from one place to another, ever.
    pub fn payload_bytes_copied(&self) -> u64 {
        self.payload_bytes_copied
    }

    #[inline]
    fn pass(&mut self, index: u32, to: Owner) {
        let meta = &mut self.meta[index as usize];
        self.counts[meta.owner as usize] -= 1;
        self.counts[to as usize] += 1;
        meta.owner = to;
    }

    /// Recounts every frame and compares with the running counts (P3). O(frames): for tests and
    /// for every Nth turn of the loop.
    ///
    /// # Panics
    /// If a frame was lost, doubled, or is both free and owned.
    pub fn assert_conserved(&self) {
        let mut counts = [0u32; OWNERS];
        for meta in &self.meta {
            counts[meta.owner as usize] += 1;
        }
        assert_eq!(counts, self.counts, "ledger: counts by owner drifted");
        assert_eq!(
            self.free.iter().count() as u32,
            self.free_count(),
            "ledger: free list and free count differ"
        );
        assert!(
            self.free.iter().all(|index| self.meta[index as usize].owner == Owner::Free),
            "ledger: an owned frame is in the free list"
        );
    }

    // --- towards the port -----------------------------------------------------------------

    /// Takes a free frame for the fill ring; `None` when only the reserve for answers is left (D2).
    #[inline]
    pub fn fill(&mut self) -> Option<u32> {
        if self.free_count() <= self.total() / CONTROL_RESERVE {
            return None;
        }
        let index = self.free.take_to_fill()?;
        self.pass(index, Owner::Fill);
        Some(index)
    }

    /// Takes back a frame that didn't fit into the fill ring.
    ///
    /// # Panics
    /// If it isn't in the fill ring's hands.
    pub fn unfill(&mut self, index: u32) {
        assert_eq!(self.meta[index as usize].owner, Owner::Fill, "unfill: frame {index}");
        self.pass(index, Owner::Free);
        self.free.put(index, Owner::Fill);
    }

    /// The kernel filled a frame: `slice` holds what the NIC wrote.
    ///
    /// # Panics
    /// If the frame wasn't in the fill ring, or the slice reaches past its end.
    #[inline]
    pub fn received(&mut self, slice: FrameSlice) -> Chunk {
        assert_eq!(self.meta[slice.index as usize].owner, Owner::Fill, "received: frame {}", slice.index);
        assert!(
            usize::from(slice.offset) + usize::from(slice.len) <= self.frame_size,
            "received past the end"
        );
        self.pass(slice.index, Owner::Rx);
        Chunk { index: slice.index, start: slice.offset, len: slice.len }
    }

    /// The kernel is done with a transmitted frame.
    ///
    /// # Panics
    /// If it wasn't in the TX ring.
    #[inline]
    pub fn completed(&mut self, index: u32) {
        let meta = &mut self.meta[index as usize];
        assert_eq!(meta.owner, Owner::TxRing, "completed: frame {index}");
        if meta.orphan {
            meta.orphan = false;
            self.pass(index, Owner::Free);
            self.free.put(index, Owner::TxRing);
        } else {
            self.pass(index, Owner::SendQueue);
        }
    }

    // --- chunks -----------------------------------------------------------------------------

    /// An empty chunk with [`MAX_HEADERS`] in front, or `None` when no frame is free.
    #[inline]
    pub fn alloc(&mut self, owner: Owner) -> Option<Chunk> {
        if owner == Owner::App && self.free_count() <= self.total() / APP_RESERVE {
            return None;
        }
        let index = self.free.take_to_write()?;
        self.pass(index, owner);
        Some(Chunk { index, start: MAX_HEADERS as u16, len: 0 })
    }

    /// Gives a frame back. One that the kernel still has is freed on completion.
    #[inline]
    pub fn release(&mut self, chunk: Chunk) {
        let (index, ..) = chunk.into_parts();
        self.release_index(index);
    }

    #[inline]
    pub(crate) fn release_index(&mut self, index: u32) {
        let meta = &mut self.meta[index as usize];
        match meta.owner {
            Owner::TxRing => {
                assert!(!meta.orphan, "frame {index} released twice");
                meta.orphan = true;
            }
            Owner::Free | Owner::Fill => panic!("frame {index} released by somebody who doesn't own it"),
            last => {
                self.pass(index, Owner::Free);
                self.free.put(index, last);
            }
        }
    }

    /// Passes a chunk between user-space owners.
    #[inline]
    pub fn hand_to(&mut self, chunk: &Chunk, owner: Owner) {
        self.pass(chunk.index, owner);
    }

    /// The payload.
    #[inline]
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        &self.frame(chunk.index)[chunk.start()..chunk.start() + chunk.len()]
    }

    /// The payload, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self, chunk: &mut Chunk) -> &mut [u8] {
        let range = chunk.start()..chunk.start() + chunk.len();
        &mut self.frame_mut(chunk.index)[range]
    }

    /// Octets by which `chunk` can grow at the end.
    #[inline]
    pub fn tailroom(&self, chunk: &Chunk) -> usize {
        self.frame_size - chunk.start() - chunk.len()
    }

    /// Lengthens the payload by `octets`; what stands there is stale until written.
    ///
    /// # Panics
    /// If `octets > tailroom(chunk)`.
    #[inline]
    pub fn grow_back(&self, chunk: &mut Chunk, octets: usize) {
        assert!(octets <= self.tailroom(chunk), "no tailroom");
        chunk.len += octets as u16;
    }

    /// Appends octets that the application makes itself (not counted as copied payload).
    ///
    /// # Panics
    /// If they don't fit.
    #[inline]
    pub fn append(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        let at = chunk.len();
        self.grow_back(chunk, octets.len());
        self.bytes_mut(chunk)[at..].copy_from_slice(octets);
    }

    /// Puts octets that the application makes itself in front of the payload.
    ///
    /// # Panics
    /// If `octets.len() > chunk.headroom()`.
    #[inline]
    pub fn prepend(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        chunk.grow_front(octets.len());
        self.bytes_mut(chunk)[..octets.len()].copy_from_slice(octets);
    }

    /// Cuts `chunk` after `at` octets. The shorter part is copied into a fresh frame (and counted
    /// as copied payload), because two segments can't have their headers in one frame.
    /// `None`, and `chunk` unchanged, when no frame is free.
    ///
    /// # Panics
    /// If `at > chunk.len()`.
    pub fn split_off(&mut self, chunk: &mut Chunk, at: usize) -> Option<Chunk> {
        assert!(at <= chunk.len(), "split past the end of a chunk");
        let owner = self.meta[chunk.index as usize].owner;
        let mut fresh = self.alloc(owner)?;
        let tail_len = chunk.len() - at;
        if tail_len <= at {
            self.copy_payload(chunk.index, chunk.start() + at, &mut fresh, tail_len);
            chunk.truncate(at);
            Some(fresh)
        } else {
            self.copy_payload(chunk.index, chunk.start(), &mut fresh, at);
            chunk.advance(at);
            core::mem::swap(chunk, &mut fresh);
            Some(fresh)
        }
    }

    /// Appends `len` octets at `from` of frame `index` to `to`, counting them.
    pub(crate) fn copy_payload(&mut self, index: u32, from: usize, to: &mut Chunk, len: usize) {
        // Frames are separate borrows of one memory; a bounce buffer keeps this safe code. It is
        // off the zero-copy paths by definition.
        let mut bounce = [0u8; 2048];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(bounce.len());
            bounce[..step].copy_from_slice(&self.frame(index)[from + done..from + done + step]);
            self.append(to, &bounce[..step]);
            done += step;
        }
        self.payload_bytes_copied += len as u64;
    }

    /// Counts octets of payload that somebody else has copied.
    pub fn note_copied(&mut self, octets: usize) {
        self.payload_bytes_copied += octets as u64;
    }

    /// Whether `chunk`'s payload fits behind that of the parked frame `index`.
    #[inline]
    pub(crate) fn fits_behind(&self, index: u32, chunk: &Chunk) -> bool {
        let meta = &self.meta[index as usize];
        usize::from(meta.start) + usize::from(meta.len) + chunk.len() <= self.frame_size
    }

    /// Copies `chunk`'s payload behind that of the parked frame `index`, counting it.
    pub(crate) fn copy_to_parked(&mut self, chunk: &Chunk, index: u32) {
        let fits = self.copy_part_to_parked(chunk, 0, chunk.len(), index);
        assert!(fits, "who copies has asked `fits_behind`");
    }

    /// The same with `octets` of it, `from` its start, if there is room. Whether there was.
    pub(crate) fn copy_part_to_parked(
        &mut self,
        chunk: &Chunk,
        from: usize,
        octets: usize,
        index: u32,
    ) -> bool {
        let meta = self.meta[index as usize];
        if usize::from(meta.start) + usize::from(meta.len) + octets > self.frame_size {
            return false;
        }
        let mut to = Chunk { index, start: meta.start, len: meta.len };
        self.copy_payload(chunk.index, chunk.start() + from, &mut to, octets);
        self.meta[index as usize].len = to.len;
        core::mem::forget(to);
        true
    }

    // --- towards the connections' queues ---------------------------------------------------

    #[inline]
    pub(crate) fn meta(&self, index: u32) -> &Meta {
        &self.meta[index as usize]
    }

    #[inline]
    pub(crate) fn meta_mut(&mut self, index: u32) -> &mut Meta {
        &mut self.meta[index as usize]
    }

    #[inline]
    pub(crate) fn transmission(&self, index: u32) -> &Transmission {
        &self.transmissions[index as usize]
    }

    #[inline]
    pub(crate) fn transmission_mut(&mut self, index: u32) -> &mut Transmission {
        &mut self.transmissions[index as usize]
    }

    #[inline]
    pub(crate) fn owner(&self, index: u32) -> Owner {
        self.meta[index as usize].owner
    }

    /// Lays a chunk down in a queue: its place is remembered in [`Meta`], its token ends here.
    #[inline]
    pub(crate) fn park(&mut self, chunk: Chunk, owner: Owner) -> u32 {
        let (index, start, len) = chunk.into_parts();
        self.pass(index, owner);
        let meta = &mut self.meta[index as usize];
        meta.start = start;
        meta.len = len;
        meta.next = NONE;
        meta.sent = 0;
        meta.flags = 0;
        index
    }

    /// Picks a parked frame up again.
    #[inline]
    pub(crate) fn unpark(&mut self, index: u32, owner: Owner) -> Chunk {
        self.pass(index, owner);
        let meta = &self.meta[index as usize];
        Chunk { index, start: meta.start, len: meta.len }
    }

    /// Hands a parked frame to the kernel. It comes back by [`completed`](Self::completed).
    #[inline]
    pub(crate) fn transmit_parked(&mut self, index: u32) {
        self.pass(index, Owner::TxRing);
    }

    /// Hands a finished frame to the kernel, the octets of `range`; it is free once completed.
    #[inline]
    pub(crate) fn transmit_once(&mut self, chunk: Chunk, range: Range<usize>) -> FrameSlice {
        let (index, ..) = chunk.into_parts();
        self.pass(index, Owner::TxRing);
        self.meta[index as usize].orphan = true;
        FrameSlice { index, offset: range.start as u16, len: range.len() as u16, more: false }
    }

    /// The whole frame, for writing headers into the headroom.
    ///
    /// # Panics
    /// If the kernel owns it.
    #[inline]
    pub(crate) fn frame_mut(&mut self, index: u32) -> &mut [u8] {
        let owner = self.meta[index as usize].owner;
        assert!(!matches!(owner, Owner::Fill | Owner::TxRing | Owner::Free), "frame {index} is the kernel's");
        self.memory.frame_mut(index)
    }

    #[inline]
    fn frame(&self, index: u32) -> &[u8] {
        let owner = self.meta[index as usize].owner;
        assert!(!matches!(owner, Owner::Fill | Owner::TxRing | Owner::Free), "frame {index} is the kernel's");
        self.memory.frame(index)
    }

    /// The whole frame, of one that is on its way to the port and hasn't been given to it: the caller has its slice.
    ///
    /// # Panics
    /// If it isn't being sent.
    pub(crate) fn amend(&mut self, index: u32) -> &mut [u8] {
        assert_eq!(self.owner(index), Owner::TxRing, "frame {index} isn't being sent");
        self.memory.frame_mut(index)
    }

    /// What the NIC wrote, of a frame that the port has given and [`received`](Self::received) hasn't taken: for those
    /// who watch.
    pub fn arrived(&self, slice: FrameSlice) -> &[u8] {
        assert_eq!(self.owner(slice.index), Owner::Fill, "frame {} isn't arriving", slice.index);
        self.octets_of(slice)
    }

    /// What is handed to the kernel, which only reads it, read back: for those who watch, and for in-memory ports,
    /// whose "kernel" is the caller.
    pub fn transmitted(&self, slice: FrameSlice) -> &[u8] {
        assert_eq!(self.owner(slice.index), Owner::TxRing, "frame {} isn't being sent", slice.index);
        self.octets_of(slice)
    }

    fn octets_of(&self, slice: FrameSlice) -> &[u8] {
        &self.memory.frame(slice.index)
            [usize::from(slice.offset)..usize::from(slice.offset) + usize::from(slice.len)]
    }

    /// Writes `octets` into a frame of the fill ring at `offset`, as a NIC would: for in-memory
    /// ports, whose "kernel" is the caller.
    ///
    /// # Panics
    /// If the frame isn't in the fill ring, or the octets don't fit.
    pub fn write_as_nic(&mut self, index: u32, offset: usize, octets: &[u8]) -> FrameSlice {
        assert_eq!(self.owner(index), Owner::Fill, "frame {index} isn't in the fill ring");
        self.memory.frame_mut(index)[offset..offset + octets.len()].copy_from_slice(octets);
        FrameSlice { index, offset: offset as u16, len: octets.len() as u16, more: false }
    }
}

impl<M> fmt::Debug for FramePool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramePool").field("total", &self.meta.len()).field("counts", &self.counts).finish()
    }
}
