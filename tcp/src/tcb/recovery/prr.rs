//! Proportional rate reduction (RFC 6937, draft-ietf-tcpm-prr-rfc6937bis): in fast recovery what goes out is in proportion
//! to what arrives, so that the window is at ssthresh when recovery ends, without a silence before and a burst after.

/// One recovery's account, in octets.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Prr {
    /// prr_out
    out: u32,
    /// prr_delivered
    delivered: u32,
    /// RecoverFS: in flight when recovery began.
    flight: u32,
    /// What may be in flight now.
    window: u32,
}

impl Prr {
    /// Recovery begins with `flight` octets in flight. The first lost segment goes out whatever the window says.
    pub(super) fn begin(&mut self, flight: u32, ssthresh: u32) {
        *self = Self { delivered: 0, out: 0, flight: flight.max(1), window: flight.min(ssthresh) };
    }

    /// `octets` of data go out.
    pub(super) fn on_send(&mut self, octets: u32) {
        self.out = self.out.saturating_add(octets);
    }

    /// `delivered` octets arrived, `flight` are in flight now. `safe`: the ACK moved on and tells of no new loss.
    pub(super) fn on_ack(&mut self, delivered: u32, flight: u32, ssthresh: u32, mss: u32, safe: bool) {
        self.delivered = self.delivered.saturating_add(delivered);
        let allowed = if flight > ssthresh {
            let share = u64::from(self.delivered) * u64::from(ssthresh);
            let share = share.div_ceil(u64::from(self.flight)).min(u64::from(u32::MAX));
            (share as u32).saturating_sub(self.out)
        } else {
            // The reduction bound: conservative while losses go on, else catching up as slow start would.
            let conservative = self.delivered.saturating_sub(self.out).max(delivered);
            let bound = if safe { conservative + mss } else { conservative };
            bound.min(ssthresh - flight)
        };
        self.window = flight.saturating_add(allowed);
    }

    pub(super) fn window(&self) -> u32 {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// RFC 6937 §3.1's setting: 20 segments out, the first is lost, ssthresh is 10.
    #[test]
    fn s5_7_one_goes_out_for_two_that_arrive_and_the_end_is_at_ssthresh() {
        let (mut prr, ssthresh) = (Prr::default(), 10 * MSS);
        prr.begin(20 * MSS, ssthresh);
        // The retransmission of the lost one.
        prr.on_send(MSS);
        let mut flight = 20 * MSS;
        let mut sent = 0;
        for _ in 0..19 {
            flight -= MSS;
            prr.on_ack(MSS, flight, ssthresh, MSS, false);
            while flight + MSS <= prr.window() {
                flight += MSS;
                sent += 1;
                prr.on_send(MSS);
            }
        }
        assert_eq!((sent, flight), (9, 10 * MSS));
        prr.on_ack(MSS, flight, ssthresh, MSS, true);
        assert_eq!(prr.window(), ssthresh);
    }

    #[test]
    fn s5_7_heavy_loss_is_met_by_conservation_and_by_slow_start_once_it_ends() {
        let (mut prr, ssthresh) = (Prr::default(), 10 * MSS);
        prr.begin(20 * MSS, ssthresh);
        prr.on_send(MSS);
        // 15 of 20 are lost: only what arrives is replaced.
        prr.on_ack(MSS, 4 * MSS, ssthresh, MSS, false);
        assert_eq!(prr.window(), 5 * MSS);
        prr.on_send(MSS);
        prr.on_ack(MSS, 4 * MSS, ssthresh, MSS, true);
        assert_eq!(prr.window(), 6 * MSS);
    }
}
