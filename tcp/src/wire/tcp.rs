//! The TCP header (RFC 9293 §3.1).
//!
//! ```text
//!  0           2           4                8                12   13    14       16       18
//!  ┌───────────┬───────────┬────────────────┬────────────────┬────┬─────┬────────┬────────┬────────┐
//!  │ src port  │ dst port  │ sequence       │ acknowledgement│off │flags│ window │checksum│ urgent │
//!  └───────────┴───────────┴────────────────┴────────────────┴────┴─────┴────────┴────────┴────────┘
//!    20: options, to offset × 4; then data
//! ```

use core::fmt;
use core::net::IpAddr;
use core::ops::{BitOr, BitOrAssign, Range};

use super::{Checksums, be16, be32, checksum, in_front, ip, octets, put};
use crate::counters::DropReason;
use crate::seq::SeqNumber;

pub use super::options::{Options, SackBlocks};

/// Octets of a header without options.
pub const MIN_LEN: usize = 20;

const SRC_PORT: usize = 0;
const DST_PORT: usize = 2;
pub(super) const SEQ: usize = 4;
pub(super) const ACK: usize = 8;
pub(super) const DATA_OFFSET: usize = 12;
pub(super) const FLAGS: usize = 13;
pub(super) const WINDOW: usize = 14;
pub(super) const CHECKSUM: usize = 16;
const URGENT: usize = 18;

/// The control bits (RFC 9293 §3.1, "ctl"). The four reserved bits are sent 0 and not looked at. S4.1
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

#[allow(missing_docs)] // The RFC's names.
impl Flags {
    pub const NONE: Self = Self(0);
    pub const FIN: Self = Self(0x01);
    pub const SYN: Self = Self(0x02);
    pub const RST: Self = Self(0x04);
    pub const PSH: Self = Self(0x08);
    pub const ACK: Self = Self(0x10);
    pub const URG: Self = Self(0x20);
    pub const ECE: Self = Self(0x40);
    pub const CWR: Self = Self(0x80);
}

impl Flags {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// Whether all of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those set in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those set here and not in `other`.
    #[inline]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, name) in Self::NAMES.iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if separator.is_empty() { f.write_str("NONE") } else { Ok(()) }
    }
}

/// A received segment, its checksum verified. Which flags make sense together is for the state
/// machine to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Sender's port.
    pub src_port: u16,
    /// Receiver's port.
    pub dst_port: u16,
    /// SEG.SEQ.
    pub seq: SeqNumber,
    /// SEG.ACK; meaningless without ACK.
    pub ack: SeqNumber,
    /// The control bits.
    pub flags: Flags,
    /// SEG.WND as on the wire, not scaled.
    pub window: u16,
    /// SEG.UP; meaningless without URG (T18: never used as an offset).
    pub urgent: u16,
    /// What could be read of the options.
    pub options: Options,
    /// Offset in the frame and length of the data, in octets.
    pub payload: (usize, usize),
    /// The IP header's two ECN bits (RFC 3168 §5). S4.2
    pub ecn: u8,
}

impl Segment {
    /// SEG.LEN: octets of sequence space, SYN and FIN counted (RFC 9293 §3.4).
    #[inline]
    pub fn seg_len(&self) -> u32 {
        self.payload.1 as u32
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }

    /// Reads the segment that `ip` carries.
    ///
    /// # Errors
    /// `Truncated` below 20 octets; `TcpHeader` if the data offset is below 5 or beyond the
    /// segment; `TcpChecksum` (RFC 9293 §3.1, MUST-3).
    #[inline]
    pub fn parse(frame: &[u8], ip: &ip::Header, checksums: Checksums) -> Result<Self, DropReason> {
        let segment = ip.payload_of(frame);
        Self::parse_summed(segment, segment.len(), checksum::sum(segment), ip, checksums)
    }

    /// The same of a segment of `len` octets that begins with `segment`, headers included, and has this
    /// [`sum`](checksum::sum).
    #[inline]
    pub(crate) fn parse_summed(
        segment: &[u8],
        len: usize,
        sum: u64,
        ip: &ip::Header,
        checksums: Checksums,
    ) -> Result<Self, DropReason> {
        let fixed: &[u8; MIN_LEN] = octets(segment, 0)?;
        let header_len = usize::from(fixed[DATA_OFFSET] >> 4) * 4;
        if header_len < MIN_LEN || header_len > segment.len() {
            return Err(DropReason::TcpHeader);
        }
        let pseudo = checksum::pseudo_header(ip.src, ip.dst, ip::TCP, len);
        if !checksum::is_valid(pseudo + sum) {
            let partial = be16(fixed, CHECKSUM) == checksum::fold(pseudo);
            if checksums == Checksums::Verify || !partial {
                return Err(DropReason::TcpChecksum);
            }
        }
        Ok(Self {
            src_port: be16(fixed, SRC_PORT),
            dst_port: be16(fixed, DST_PORT),
            seq: SeqNumber(be32(fixed, SEQ)),
            ack: SeqNumber(be32(fixed, ACK)),
            flags: Flags(fixed[FLAGS]),
            window: be16(fixed, WINDOW),
            urgent: be16(fixed, URGENT),
            options: Options::parse(&segment[MIN_LEN..header_len]),
            payload: (ip.payload.0 + header_len, len - header_len),
            ecn: ip.ecn,
        })
    }
}

/// A segment to send: everything but its payload, which lies in the frame already.
#[derive(Clone, Copy, Debug)]
pub struct Emit<'a> {
    /// Our port.
    pub src_port: u16,
    /// The peer's port.
    pub dst_port: u16,
    /// SEG.SEQ.
    pub seq: SeqNumber,
    /// SEG.ACK; 0 without ACK.
    pub ack: SeqNumber,
    /// The control bits.
    pub flags: Flags,
    /// SEG.WND, scaled down already.
    pub window: u16,
    /// SEG.UP; 0 without URG.
    pub urgent: u16,
    /// Options. SACK blocks that don't fit beside the others are left out.
    pub options: &'a Options,
}

impl Emit<'_> {
    /// Octets of the header with its options: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        MIN_LEN + self.options.emitted_len()
    }

    /// Writes the header directly in front of `payload`, checksum included (MUST-2), and returns
    /// where it begins. The payload may be empty: then `payload.start` says where.
    ///
    /// # Panics
    /// If there is no room in front of the payload, or it ends beyond the frame.
    #[inline]
    pub fn emit(&self, frame: &mut [u8], payload: Range<usize>, src: IpAddr, dst: IpAddr) -> usize {
        let sum = checksum::sum(&frame[payload.clone()]);
        self.emit_summed(frame, payload, sum, src, dst)
    }

    /// The same, if the payload's [`sum`](checksum::sum) is known.
    #[inline]
    pub(crate) fn emit_summed(
        &self,
        frame: &mut [u8],
        payload: Range<usize>,
        sum: u64,
        src: IpAddr,
        dst: IpAddr,
    ) -> usize {
        let header_len = self.header_len();
        let start = payload.start - header_len;
        // Of whole 32-bit words: the payload's octets keep their places in the sum.
        let options = self.options.emit(&mut frame[start + MIN_LEN..payload.start]);
        let ports = u32::from(self.src_port) << 16 | u32::from(self.dst_port);
        let control = u32::from_be_bytes([((header_len / 4) << 4) as u8, self.flags.0, 0, 0]);
        let control = control | u32::from(self.window);
        let words = [ports, self.seq.0, self.ack.0, control, u32::from(self.urgent)];
        let fixed = words.into_iter().map(u64::from).sum::<u64>();
        let pseudo = checksum::pseudo_header(src, dst, ip::TCP, header_len + payload.len());
        let checksum = checksum::finish(pseudo + fixed + options + sum);
        let header = in_front::<MIN_LEN>(frame, start + MIN_LEN);
        put(header, SRC_PORT, ports.to_be_bytes());
        put(header, SEQ, self.seq.0.to_be_bytes());
        put(header, ACK, self.ack.0.to_be_bytes());
        put(header, DATA_OFFSET, control.to_be_bytes());
        put(header, CHECKSUM, checksum.to_be_bytes());
        put(header, URGENT, self.urgent.to_be_bytes());
        start
    }
}
