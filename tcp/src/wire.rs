//! Wire formats: views over received octets, and headers written in front of a payload.

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl core::fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// How strictly the TCP checksum of received segments is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksums {
    /// Every segment's checksum must be right.
    #[default]
    Verify,
    /// Also accept the folded pseudo-header sum that a local kernel leaves for offload
    /// (veth, virtio with checksum offload on).
    AcceptPartial,
}
