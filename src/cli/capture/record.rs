//! Frames as they cross the control socket: a line of JSON that says what is to come, then records.
//!
//! ```text
//!   0         8         12         16         18         20     21        24
//!   ┌─────────┬─────────┬──────────┬──────────┬──────────┬──────┬─────────┐
//!   │ time    │ length  │ kept     │ core's   │ reason's │ kind │ (zeros) │ then the octets kept
//!   │ ns, UTC │ on wire │          │ place    │ place    │      │         │ all little-endian
//!   └─────────┴─────────┴──────────┴──────────┴──────────┴──────┴─────────┘
//! ```

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// What is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) filter: Option<String>,
    pub(super) snaplen: u32,
    pub(super) discarded: bool,
}

/// What is to come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) interface: String,
    /// Each core's queue, and which core it is.
    pub(super) lanes: Vec<(u32, usize)>,
    /// Names of the reasons for which frames are discarded, by place.
    pub(super) reasons: Vec<String>,
}

const HEAD: usize = 24;
/// Octets of a record beside its head, at most: no frame is longer.
const KEPT_MAX: u32 = 1 << 16;
const NO_REASON: u16 = u16::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Received = 0,
    Sent = 1,
    /// Two numbers of 64 bits: frames that the filter took, and those of them that were left out.
    Counts = 2,
}

/// A frame, or a core's counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Since 1970, in ns.
    pub(super) at: u64,
    /// On the wire.
    pub(super) len: u32,
    pub(super) place: u16,
    /// Place among the reasons.
    pub(super) reason: Option<u16>,
    pub(super) kind: Kind,
    /// What was kept.
    pub(super) octets: Vec<u8>,
}

/// Appends a record.
pub(super) fn put(
    out: &mut Vec<u8>,
    kind: Kind,
    at: u64,
    place: usize,
    (octets, len): (&[u8], u32),
    reason: Option<u16>,
) {
    out.extend(at.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend((octets.len() as u32).to_le_bytes());
    out.extend((place as u16).to_le_bytes());
    out.extend(reason.unwrap_or(NO_REASON).to_le_bytes());
    out.extend([kind as u8, 0, 0, 0]);
    out.extend(octets);
}

impl Record {
    /// The next one; `None` at the end.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        match from.read(&mut head)? {
            0 => return Ok(None),
            some => from.read_exact(&mut head[some..])?,
        }
        let le32 = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let le16 = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let kind = match head[20] {
            0 => Kind::Received,
            1 => Kind::Sent,
            2 => Kind::Counts,
            other => return Err(io::Error::other(format!("a record of kind {other}"))),
        };
        let kept = le32(12);
        if kept > KEPT_MAX {
            return Err(io::Error::other(format!("a record of {kept} octets")));
        }
        let mut octets = vec![0; kept as usize];
        from.read_exact(&mut octets)?;
        Ok(Some(Self {
            at: u64::from(le32(0)) | u64::from(le32(4)) << 32,
            len: le32(8),
            place: le16(16),
            reason: Some(le16(18)).filter(|&reason| reason != NO_REASON),
            kind,
            octets,
        }))
    }

    /// The numbers of [`Kind::Counts`].
    pub(super) fn counts(&self) -> Option<(u64, u64)> {
        let (wanted, left_out) = self.octets.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*wanted), u64::from_le_bytes(left_out.try_into().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_socket() {
        let mut out = Vec::new();
        put(&mut out, Kind::Sent, 1 << 60 | 7, 3, (b"abc", 1514), None);
        put(&mut out, Kind::Received, 2, 0, (b"", 60), Some(4));
        let counts = [9u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
        put(&mut out, Kind::Counts, 3, 1, (&counts, 0), None);
        let mut from = out.as_slice();
        let mut next = || Record::read(&mut from).expect("whole");
        let sent = next().expect("a frame");
        assert_eq!((sent.at, sent.len, sent.place, sent.kind), (1 << 60 | 7, 1514, 3, Kind::Sent));
        assert_eq!((sent.octets.as_slice(), sent.reason), (&b"abc"[..], None));
        assert_eq!(next().expect("a frame").reason, Some(4));
        assert_eq!(next().expect("counts").counts(), Some((9, 1)));
        assert_eq!(next(), None);
        assert!(Record::read(&mut &out[..10]).is_err(), "cut off");
        out[20] = 9;
        assert!(Record::read(&mut out.as_slice()).is_err(), "unknown");
    }
}
