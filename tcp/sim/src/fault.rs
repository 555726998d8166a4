//! What can be broken on purpose, to see that the checker finds it.

/// One thing that is wrong: with the network's, the NIC's or an application's part in a run, as a fault in the
/// stack would look from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The first octet that an application reads differs from what was sent.
    FlipOctet,
    /// A transmitted frame never comes back.
    LeakFrame,
    /// A frame disappears between the NIC and the stack, and nobody counts it.
    UncountedDiscard,
    /// From the end of the impairments on no pure ACK arrives any more.
    DropAcks,
    /// A server never closes.
    HoldConnection,
    /// Every pure ACK is sent some thirty times.
    AckStorm,
    /// Something asserts.
    Panic,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::FlipOctet,
        Self::LeakFrame,
        Self::UncountedDiscard,
        Self::DropAcks,
        Self::HoldConnection,
        Self::AckStorm,
        Self::Panic,
    ];
}
