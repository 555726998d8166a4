//! What each host says on the wire, held against what it has heard there (RFC 9293 §3.4, §3.8.6, RFC 2018, 7323).
//!
//! TCP gets over most mistakes of its own: what is sent beyond the window or acknowledged too late is sent again, and
//! the octets still arrive. So it isn't enough to look at the octets.

use std::collections::BTreeMap;

use byway_tcp::time::{Duration, Instant};

use crate::headers::{ACK, ETHERNET, FIN, IPV4, RST, SYN, Segment, be16, be32, checksum, ethertype};

/// How long text in order may wait for its acknowledgement: the longest delay (40 ms), and some for rings that are full.
const ACK_DELAY_MAX: Duration = Duration::from_millis(100);

/// What can be expected of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// It had the time and the memory to answer at once, always.
    pub(crate) punctual: bool,
    /// It has answered SYNs without remembering what it said (RFC 4987 §3.6).
    pub(crate) forgetful: bool,
    /// When it last had something to say and didn't know the way.
    pub(crate) speechless_at: Instant,
}

/// A host, its address and port, the peer's.
type Key = (usize, Vec<u8>, u16, Vec<u8>, u16);

/// A segment with what `Segment` leaves out.
#[derive(Debug)]
struct Full {
    seg: Segment,
    src: Vec<u8>,
    dst: Vec<u8>,
    window: u32,
    shift: Option<u32>,
    timestamps: Option<(u32, u32)>,
    sack: Vec<(u32, u32)>,
}

impl Full {
    fn of(frame: &[u8]) -> Option<Self> {
        let seg = Segment::of(frame)?;
        let v4 = ethertype(frame) == IPV4;
        let addresses = if v4 { ETHERNET + 12..ETHERNET + 20 } else { ETHERNET + 8..ETHERNET + 40 };
        let (src, dst) = frame[addresses].split_at(if v4 { 4 } else { 16 });
        let at = if v4 { ETHERNET + usize::from(frame[ETHERNET] & 0xf) * 4 } else { ETHERNET + 40 };
        let tcp = &frame[at..];
        let mut full = Self {
            seg,
            src: src.to_vec(),
            dst: dst.to_vec(),
            window: u32::from(be16(tcp, 14)),
            shift: None,
            timestamps: None,
            sack: Vec::new(),
        };
        let mut options = &tcp[20..usize::from(tcp[12] >> 4) * 4];
        while let [kind, rest @ ..] = options {
            let len = match (kind, rest.first()) {
                (0, _) => break,
                (1, _) => 1,
                (_, Some(&len)) if (2..=options.len()).contains(&usize::from(len)) => usize::from(len),
                _ => break,
            };
            match (kind, &options[..len]) {
                (3, [_, _, shift]) => full.shift = Some(u32::from(*shift)),
                (5, blocks) => {
                    full.sack = blocks[2..].chunks_exact(8).map(|b| (be32(b, 0), be32(b, 4))).collect();
                }
                (8, stamps) if len == 10 => full.timestamps = Some((be32(stamps, 2), be32(stamps, 6))),
                _ => {}
            }
            options = &options[len..];
        }
        Some(full)
    }

    fn has(&self, flag: u8) -> bool {
        self.seg.flags & flag != 0
    }

    /// Sequence number behind its text and FIN.
    fn end(&self) -> u32 {
        self.seg.seq.wrapping_add(self.seg.len + u32::from(self.has(FIN)) + u32::from(self.has(SYN)))
    }
}

/// `a` lies behind `b`.
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The checksums of a segment, and of IPv4's header.
fn adds_up(frame: &[u8]) -> bool {
    let v4 = ethertype(frame) == IPV4;
    let at = if v4 { ETHERNET + usize::from(frame[ETHERNET] & 0xf) * 4 } else { ETHERNET + 40 };
    let len = be16(frame, ETHERNET + if v4 { 2 } else { 4 });
    let end = ETHERNET + usize::from(len) + if v4 { 0 } else { 40 };
    let addresses =
        if v4 { &frame[ETHERNET + 12..ETHERNET + 20] } else { &frame[ETHERNET + 8..ETHERNET + 40] };
    let pseudo = !checksum(addresses, 6 + (end - at) as u32);
    (!v4 || checksum(&frame[ETHERNET..at], 0) == 0) && checksum(&frame[at..end], u32::from(pseudo)) == 0
}

/// One end of a conversation.
#[derive(Debug, Default)]
struct Side {
    /// The peer's SYN: its number, window and shift.
    syn_heard: Option<(u32, u32, Option<u32>)>,
    /// Ours.
    iss: Option<u32>,
    shift: Option<u32>,
    /// What has arrived ahead of `in_order`, and up to where all has.
    ranges: Vec<(u32, u32)>,
    in_order: u32,
    fin_heard: Option<u32>,
    stamps_heard: Vec<u32>,
    /// Right edge of the largest window that was granted.
    granted: u32,
    /// What was said: the furthest number, acknowledgement and window.
    nxt: u32,
    ack: Option<u32>,
    edge: u32,
    fin: Option<u32>,
    stamp: Option<u32>,
    /// It may not take all that has arrived.
    doubtful: bool,
    /// Since when something in order isn't acknowledged.
    owes_since: Option<Instant>,
}

impl Side {
    fn hear_syn(&mut self, seg: &Full) {
        let (seq, first) = (seg.seg.seq, seg.seg.seq.wrapping_add(1));
        if self.syn_heard.is_some_and(|(known, ..)| known == seq) {
            return;
        }
        self.syn_heard = Some((seq, seg.window, seg.shift));
        (self.ranges, self.in_order, self.fin_heard) = (Vec::new(), first, None);
        (self.ack, self.edge, self.owes_since) = (None, first, None);
        self.stamps_heard.clear();
        if let Some(iss) = self.iss {
            self.granted = iss.wrapping_add(1 + seg.window);
        }
    }

    fn hear(&mut self, now: Instant, seg: &Full) {
        if seg.has(SYN) {
            self.hear_syn(seg);
        }
        let Some((_, _, their_shift)) = self.syn_heard else { return };
        self.stamps_heard.extend(seg.timestamps.map(|(value, _)| value));
        if seg.has(ACK) && self.iss.is_some() {
            let shift = if seg.has(SYN) || self.shift.is_none() { 0 } else { their_shift.unwrap_or(0) };
            let edge = seg.seg.ack.wrapping_add(seg.window << shift);
            if after(edge, self.granted) {
                self.granted = edge;
            }
        }
        if seg.has(SYN) || seg.has(RST) {
            return;
        }
        if seg.has(FIN) {
            self.fin_heard = Some(seg.end());
        }
        self.take(now, seg.seg.seq, seg.end());
    }

    fn take(&mut self, now: Instant, start: u32, end: u32) {
        if after(end, self.in_order) && after(end, start) {
            self.ranges.push((start, end));
        }
        let before = self.in_order;
        while let Some(at) = self.ranges.iter().position(|&(start, _)| !after(start, self.in_order)) {
            let (_, end) = self.ranges.swap_remove(at);
            if after(end, self.in_order) {
                self.in_order = end;
            }
        }
        if self.in_order != before {
            self.owes_since.get_or_insert(now);
        }
    }

    /// Whether all of the range has arrived.
    fn has(&self, (start, end): (u32, u32)) -> bool {
        let mut at = if after(self.in_order, start) { self.in_order } else { start };
        while after(end, at) {
            let Some(&(_, to)) = self.ranges.iter().find(|&&(from, to)| !after(from, at) && after(to, at))
            else {
                return false;
            };
            at = to;
        }
        after(end, start)
    }

    fn begin(&mut self, seg: &Full) {
        let iss = seg.seg.seq;
        if self.iss != Some(iss) {
            (self.iss, self.shift, self.nxt) = (Some(iss), seg.shift, iss.wrapping_add(1));
            (self.fin, self.stamp, self.ack, self.edge) = (None, None, None, self.in_order);
            self.granted = self.nxt;
            if let Some((_, window, _)) = self.syn_heard.filter(|_| seg.has(ACK)) {
                self.granted = self.nxt.wrapping_add(window);
            }
        }
    }

    fn say(&mut self, now: Instant, seg: &Full, manners: Manners) -> Result<(), &'static str> {
        if seg.has(SYN) {
            self.begin(seg);
        }
        let Some((_, _, their_shift)) = self.syn_heard.filter(|_| self.iss.is_some()) else { return Ok(()) };
        if seg.has(RST) || (seg.has(SYN) && !seg.has(ACK)) {
            return Ok(());
        }
        if !seg.has(ACK) {
            return Err("a segment without ACK");
        }
        self.say_text(seg)?;
        self.say_stamp(seg)?;
        let ack = seg.seg.ack;
        if after(ack, self.in_order) {
            return Err("an acknowledgement of what has not arrived");
        }
        if self.ack.is_some_and(|known| after(known, ack)) {
            return Err("an acknowledgement that goes back");
        }
        self.ack = Some(ack);
        if ack == self.in_order
            && let Some(since) = self.owes_since.take()
            && manners.punctual
            && !self.doubtful
            && since > manners.speechless_at
            && now.since(since) > ACK_DELAY_MAX
        {
            return Err("an acknowledgement that comes too late");
        }
        if !seg.sack.iter().all(|&block| self.has(block)) {
            return Err("a SACK block of what has not arrived");
        }
        // The window says nothing once the peer has said everything.
        let all = self.fin_heard.is_some_and(|fin| !after(fin, ack));
        let shift = if seg.has(SYN) || their_shift.is_none() { 0 } else { self.shift.unwrap_or(0) };
        let edge = ack.wrapping_add(seg.window << shift);
        let known = !seg.has(SYN) || !manners.forgetful;
        if !all && known && after(self.edge, edge.wrapping_add(1 << shift)) {
            return Err("a window whose right edge moves left");
        }
        if after(edge, self.edge) {
            self.edge = edge;
        }
        Ok(())
    }

    fn say_text(&mut self, seg: &Full) -> Result<(), &'static str> {
        let end = seg.end();
        if after(seg.seg.seq, self.nxt) {
            return Err("a sequence number that leaves a gap");
        }
        if self.fin.is_some_and(|fin| after(end, fin) || (seg.has(FIN) && end != fin)) {
            return Err("text behind FIN, or another FIN");
        }
        if seg.has(FIN) {
            self.fin = Some(end);
        }
        if (seg.seg.len > 0 || seg.has(FIN)) && after(end, self.granted) {
            return Err("text or FIN beyond the window");
        }
        if after(end, self.nxt) {
            self.nxt = end;
        }
        Ok(())
    }

    fn say_stamp(&mut self, seg: &Full) -> Result<(), &'static str> {
        let Some((value, echo)) = seg.timestamps else { return Ok(()) };
        if self.stamp.is_some_and(|known| after(known, value)) {
            return Err("a timestamp that goes back");
        }
        self.stamp = Some(value);
        if !self.stamps_heard.contains(&echo) {
            return Err("the echo of a timestamp that nobody sent");
        }
        // Those before it aren't echoed any more.
        self.stamps_heard.retain(|&heard| !after(echo, heard));
        Ok(())
    }
}

/// Hears and sees everything.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    sides: BTreeMap<Key, Side>,
}

impl Witness {
    /// A frame arrives at a host. `corrupted`: with bits flipped, which only some fields of IPv6 hide.
    pub(crate) fn hears(&mut self, now: Instant, host: usize, frame: &[u8], corrupted: bool) {
        if Segment::of(frame).is_none() || (corrupted && !adds_up(frame)) {
            return;
        }
        let Some(seg) = Full::of(frame) else { return };
        let (local, remote) = (seg.seg.ports.1, seg.seg.ports.0);
        let key = (host, seg.dst.clone(), local, seg.src.clone(), remote);
        let side = self.sides.entry(key).or_default();
        // Who knows whether the rest of its header is fine.
        side.doubtful |= corrupted;
        side.hear(now, &seg);
    }

    /// A host sends a frame.
    ///
    /// # Errors
    /// What it mustn't say.
    pub(crate) fn says(
        &mut self,
        now: Instant,
        host: usize,
        frame: &[u8],
        manners: Manners,
    ) -> Result<(), String> {
        let Some(seg) = Full::of(frame) else { return Ok(()) };
        let (local, remote) = seg.seg.ports;
        let key = (host, seg.src.clone(), local, seg.dst.clone(), remote);
        let side = self.sides.entry(key).or_default();
        side.say(now, &seg, manners).map_err(|what| format!("host {host} said {what}: {seg:?}; {side:?}"))
    }
}
