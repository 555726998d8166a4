//! Packets in several frames, as a port gives them where the link takes more than a frame holds (jumbo frames), or where
//! a local kernel or a NIC has put segments together. S6.1
//!
//! ```text
//!   [ headers │ text ][ text ][ text ]    one packet: lengths and checksum are verified over all of its frames
//!     SEQ 1             2       3         then each frame's text is a segment of its own, and isn't moved
//! ```
//!
//! To cut a segment is what any sender might have done, so that nothing behind this file knows of packets in several
//! frames. The control bits go with the octet they stand at: SYN with the first, FIN with the last.
//! How many frames there are is bounded by the port's burst, and the octets that count by the IP header's length.

use super::Stack;
use crate::counters::DropReason;
use crate::flow_table::FourTuple;
use crate::frame::{FrameSlice, Memory, Owner};
use crate::time::Instant;
use crate::wire::tcp::{Flags, Options, Segment};
use crate::wire::{self, checksum, ethernet, ip};

impl<M: Memory> Stack<M> {
    /// Takes the packet that begins with the first of `frames` and goes on in the next; the frames behind it.
    #[cold]
    pub(super) fn receive_scattered<'a>(
        &mut self,
        frames: &'a [FrameSlice],
        now: Instant,
    ) -> &'a [FrameSlice] {
        // A port gives whole packets: if the last frame isn't here, what is here is too short.
        let end = frames.iter().position(|slice| !slice.more).map_or(frames.len(), |last| last + 1);
        let (frames, others) = frames.split_at(end);
        self.counters.frames_in += frames.len() as u64;
        self.counters.octets_in += frames.iter().map(|slice| u64::from(slice.len)).sum::<u64>();
        if let Err(reason) = self.act_on_scattered(frames, now) {
            self.counters.drop(reason);
        }
        // What hasn't been taken.
        for &slice in frames {
            if self.pool.owner(slice.index) == Owner::Fill {
                let chunk = self.pool.received(slice);
                self.pool.release(chunk);
            }
        }
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.push(self.counters.take_latest());
        }
        others
    }

    fn act_on_scattered(&mut self, frames: &[FrameSlice], now: Instant) -> Result<(), DropReason> {
        let octets = |&slice: &FrameSlice| self.pool.arrived(slice);
        let beyond = frames[1..].iter().map(|slice| usize::from(slice.len)).sum();
        let head = octets(&frames[0]);
        let (link, ip) = wire::parse_scattered(head, beyond)?;
        self.check_link(&link)?;
        let (at, len) = ip.payload;
        let here = head.get(at..).ok_or(DropReason::Truncated)?;
        // What is beyond the packet's end is padding.
        let parts = core::iter::once(here).chain(frames[1..].iter().map(octets)).scan(len, |left, octets| {
            let part = &octets[..octets.len().min(*left)];
            *left -= part.len();
            Some(part)
        });
        match ip.protocol {
            ip::TCP => {
                let (sum, _) = parts.fold((0, 0), |(sum, before), part| {
                    (checksum::combine(sum, before, checksum::sum(part)), before + part.len())
                });
                let here = &here[..here.len().min(len)];
                let seg = Segment::parse_summed(here, len, sum, &ip, self.config.checksums)?;
                self.take_scattered(&link, &ip, &seg, frames, now);
                Ok(())
            }
            ip::ICMP | ip::ICMPV6 => {
                self.check_ours(&link, &ip)?;
                let whole = self.reassembler.hold(&link, &ip, parts, now, &mut self.counters);
                self.answer_large(&whole, now)
            }
            _ => Err(DropReason::Scattered),
        }
    }

    /// The whole is valid: its parts, in order.
    fn take_scattered(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        seg: &Segment,
        frames: &[FrameSlice],
        now: Instant,
    ) {
        let tuple = FourTuple::of(ip, seg);
        let whole = seg.payload.1;
        // Of these only the number counts. A sender of text with SYN says it again (RFC 9293 §3.10.7.4).
        let is_control = seg.flags.intersects(Flags::SYN | Flags::RST);
        let (mut at, mut done, mut begun) = (seg.payload.0, 0, false);
        for &slice in frames {
            let chunk = self.pool.received(slice);
            let len = chunk.len().saturating_sub(at).min(whole - done);
            let place = (core::mem::take(&mut at), len);
            if len == 0 && (begun || whole > 0) {
                self.pool.release(chunk);
                continue;
            }
            let part = part(seg, done, place);
            let ip = ip::Header { payload: place, ..*ip };
            done += len;
            if !core::mem::replace(&mut begun, true) {
                self.receive_tcp(link, &ip, &part, chunk, now);
            } else if let Some(index) = self.find(&tuple).filter(|_| !is_control) {
                // What becomes of the last part is said of the whole.
                self.counters.take_latest();
                self.input(index, link, &ip, &part, chunk, now);
            } else {
                self.pool.release(chunk);
            }
        }
    }
}

/// The part of `seg` whose text is `done` octets into it, and lies at `place` in its frame.
fn part(seg: &Segment, done: usize, place: (usize, usize)) -> Segment {
    let (is_first, is_last) = (done == 0, done + place.1 == seg.payload.1);
    let at_the_end = Flags::FIN | Flags::PSH;
    let within = if is_first { Flags(!at_the_end.0) } else { Flags::ACK };
    let kept = if is_last { within | at_the_end } else { within };
    let options = Options { timestamps: seg.options.timestamps, ..Options::NONE };
    Segment {
        seq: seg.seq + done as u32,
        flags: Flags(seg.flags.0 & kept.0),
        // SACK blocks, said again, would report the same loss or duplicate again (RFC 2883).
        options: if is_first { seg.options } else { options },
        payload: place,
        // A mark is one segment's, and counted once.
        ecn: if is_last { seg.ecn } else { 0 },
        ..*seg
    }
}
