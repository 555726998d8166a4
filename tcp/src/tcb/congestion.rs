//! Congestion control: how much may be in flight.
//!
//! Windows are octets. The sender asks [`Congestion::cwnd`] and tells what happened; it never
//! computes a window itself.

mod reno;
pub use reno::Reno;

/// RFC 6928: min(10 * MSS, max(2 * MSS, 14600)).
pub fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

/// What a congestion controller is told and asked.
pub trait Congestion {
    /// Congestion window.
    fn cwnd(&self) -> u32;
    /// Slow-start threshold.
    fn ssthresh(&self) -> u32;
    /// `acked` octets were newly acknowledged, outside recovery. `limited` says whether the window was in
    /// the way of sending (RFC 7661: a window that isn't used doesn't grow).
    fn on_ack(&mut self, acked: u32, mss: u32, limited: bool);
    /// Loss found by duplicate ACKs or SACK, once per window (RFC 5681 §3.2).
    fn on_loss(&mut self, flight: u32, mss: u32);
    /// Recovery is over: everything outstanding when it began has been acknowledged.
    fn on_recovered(&mut self, mss: u32);
    /// The retransmission timer expired (RFC 5681 §3.1); `first` unless it's the same segment again.
    fn on_timeout(&mut self, flight: u32, mss: u32, first: bool);
    /// Nothing was sent for longer than an RTO (RFC 5681 §4.1).
    fn on_idle(&mut self, mss: u32);
}
