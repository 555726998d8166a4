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
    /// A pure ACK acknowledges an octet that hasn't arrived.
    AckUnseen,
    /// Text is sent far beyond the window.
    Overrun,
    /// A window's right edge moves left.
    ShrinkWindow,
    /// Something asserts.
    Panic,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::FlipOctet,
        Self::LeakFrame,
        Self::UncountedDiscard,
        Self::DropAcks,
        Self::HoldConnection,
        Self::AckStorm,
        Self::AckUnseen,
        Self::Overrun,
        Self::ShrinkWindow,
        Self::Panic,
    ];
}
