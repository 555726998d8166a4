//! Ethernet II (RFC 894) with up to two VLAN tags (IEEE 802.1Q, 802.1ad).
//!
//! ```text
//!  0            6            12   14
//!  ┌────────────┬────────────┬────┬─────┬────┬─────
//!  │ destination│ source     │type│ TCI │type│ …       a tag is its type (TPID) and 16 bits of TCI
//!  └────────────┴────────────┴────┴─────┴────┴─────
//! ```

use super::{MacAddr, be16, in_front, octets, put};
use crate::counters::DropReason;

/// Ethertype of IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// Ethertype of ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// Ethertype of IPv6 (RFC 2464 §3).
pub const IPV6: u16 = 0x86dd;

/// TPID of a customer tag (802.1Q).
pub const TPID_CUSTOMER: u16 = 0x8100;
/// TPID of a service tag (802.1ad, "QinQ").
pub const TPID_SERVICE: u16 = 0x88a8;
/// Octets without tags.
const UNTAGGED_LEN: usize = 14;
const TAG_LEN: usize = 4;
/// The VLAN's number in the TCI; beside it priority and drop eligibility.
const VLAN_ID: u16 = 0x0fff;

/// Tags that may be stacked: one customer's inside one provider's (L9). More is not Ethernet as
/// 802.1ad knows it, and a bound is needed anyway.
pub const MAX_TAGS: usize = 2;

/// One VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VlanTag {
    /// Which kind: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority (3 bits), drop eligible (1), VLAN id (12).
    pub tci: u16,
}

/// A frame's VLAN tags, outermost first. Kept so that answers carry them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VlanTags {
    tags: [VlanTag; MAX_TAGS],
    len: u8,
}

impl VlanTags {
    /// No tag.
    pub const NONE: Self = Self { tags: [VlanTag { tpid: 0, tci: 0 }; MAX_TAGS], len: 0 };

    /// The tags, outermost first.
    #[inline]
    pub fn as_slice(&self) -> &[VlanTag] {
        &self.tags[..usize::from(self.len)]
    }

    /// The same VLAN, at normal priority: what identifies it (IEEE 802.1Q §9.6).
    #[inline]
    pub fn without_priority(mut self) -> Self {
        for tag in &mut self.tags {
            tag.tci &= VLAN_ID;
        }
        self
    }

    /// Adds a tag inside the others; false if there are two already.
    #[inline]
    pub fn push(&mut self, tag: VlanTag) -> bool {
        let Some(slot) = self.tags.get_mut(usize::from(self.len)) else { return false };
        *slot = tag;
        self.len += 1;
        true
    }
}

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Receiver.
    pub dst: MacAddr,
    /// Sender.
    pub src: MacAddr,
    /// VLAN tags, if any.
    pub vlan: VlanTags,
    /// What follows.
    pub ethertype: u16,
}

impl Header {
    /// Octets on the wire, tags included: 14, 18 or 22.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // A header is never empty.
    pub fn len(&self) -> usize {
        UNTAGGED_LEN + TAG_LEN * usize::from(self.vlan.len)
    }

    /// Reads a frame's Ethernet header.
    ///
    /// # Errors
    /// `Truncated`; `VlanDepth` at a third tag; `Unsupported` if the type is an 802.3 length
    /// (LLC, SNAP).
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        let addresses: &[u8; UNTAGGED_LEN] = octets(frame, 0)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *addresses;
        let mut header = Self {
            dst: MacAddr([d0, d1, d2, d3, d4, d5]),
            src: MacAddr([s0, s1, s2, s3, s4, s5]),
            vlan: VlanTags::NONE,
            ethertype: u16::from_be_bytes([t0, t1]),
        };
        while matches!(header.ethertype, TPID_CUSTOMER | TPID_SERVICE) {
            let tag: &[u8; TAG_LEN] = octets(frame, header.len())?;
            if !header.vlan.push(VlanTag { tpid: header.ethertype, tci: be16(tag, 0) }) {
                return Err(DropReason::VlanDepth);
            }
            header.ethertype = be16(tag, 2);
        }
        // IEEE 802.3 §3.2.6: below 0x600 the field is a length.
        if header.ethertype < 0x600 {
            return Err(DropReason::Unsupported);
        }
        Ok(header)
    }

    /// Writes the header directly in front of `start` and returns where it begins.
    ///
    /// # Panics
    /// If `start < len()`.
    #[inline]
    pub fn emit(&self, frame: &mut [u8], start: usize) -> usize {
        let mut at = start - 2;
        put(frame, at, self.ethertype.to_be_bytes());
        for tag in self.vlan.as_slice().iter().rev() {
            at -= TAG_LEN;
            put(frame, at, tag.tpid.to_be_bytes());
            put(frame, at + 2, tag.tci.to_be_bytes());
        }
        let addresses = in_front::<12>(frame, at);
        put(addresses, 0, self.dst.0);
        put(addresses, 6, self.src.0);
        at - 12
    }

    /// The header of an answer: back to the sender, from us, with the same tags.
    #[inline]
    pub fn answer(&self, our_mac: MacAddr) -> Self {
        Self { dst: self.src, src: our_mac, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        dst: MacAddr([2, 0, 0, 0, 0, 1]),
        src: MacAddr([2, 0, 0, 0, 0, 2]),
        vlan: VlanTags::NONE,
        ethertype: IPV4,
    };

    fn tagged(tpids: &[u16]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (i, tpid) in tpids.iter().enumerate() {
            frame.extend(tpid.to_be_bytes());
            frame.extend((0x2000 + i as u16).to_be_bytes());
        }
        frame.extend(IPV4.to_be_bytes());
        frame
    }

    #[test]
    fn l9_up_to_two_tags_survive_the_round_trip() {
        for tpids in [&[][..], &[0x8100], &[0x88a8], &[0x88a8, 0x8100]] {
            let frame = tagged(tpids);
            let header = Header::parse(&frame).expect("valid");
            assert_eq!((header.len(), header.ethertype), (frame.len(), IPV4));
            let mut copy = vec![0; 40];
            let at = header.emit(&mut copy, 40);
            assert_eq!(copy[at..], frame);
            let back = header.answer(MacAddr([2, 0, 0, 0, 0, 9]));
            assert_eq!((back.dst, back.vlan), (header.src, header.vlan));
        }
    }

    #[test]
    fn l9_a_third_tag_is_refused() {
        assert_eq!(Header::parse(&tagged(&[0x88a8, 0x8100, 0x8100])), Err(DropReason::VlanDepth));
    }

    #[test]
    fn l9_an_802_3_length_is_refused() {
        let mut frame = tagged(&[]);
        for (length, ok) in [(0_u16, false), (46, false), (0x5ff, false), (0x600, true)] {
            frame[12..14].copy_from_slice(&length.to_be_bytes());
            assert_eq!(Header::parse(&frame).is_ok(), ok);
        }
    }

    #[test]
    fn l1_every_prefix_is_truncated() {
        for tpids in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            let frame = tagged(tpids);
            for len in 0..frame.len() {
                assert_eq!(Header::parse(&frame[..len]), Err(DropReason::Truncated), "{len}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "room in front")]
    fn too_little_headroom_is_our_bug() {
        HEADER.emit(&mut [0; 64], 13);
    }
}
