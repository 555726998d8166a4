//! What a datapath is told at start, and the argued defaults.

use byway_tcp::time::Duration;

use crate::error::Error;
use crate::port::BATCH;

/// Room that AF_XDP keeps in front of every received frame (`XDP_PACKET_HEADROOM`); more than
/// [`byway_tcp::frame::MAX_HEADERS`], so an answer's headers fit in front of any payload.
pub const XDP_HEADROOM: u32 = 256;

const _: () = assert!(XDP_HEADROOM as usize >= byway_tcp::frame::MAX_HEADERS);

/// Ethernet header with two VLAN tags, in front of an IP packet.
pub(crate) const LINK_HEADER_MAX: u32 = 14 + 2 * 4;

/// Octets that a driver counts the room of a zero-copy frame in; what is over isn't used, and a packet that needed it
/// comes in pieces, which are useless.
///
/// igb and igc tell the NIC whole KiB (SRRCTL.BSIZEPKT): of 2,048 octets less the headroom, one. i40e and ice count 128,
/// ixgbe gives the NIC the exact limit beside, virtio each frame's own length.
fn buffer_granule(driver: &str) -> u32 {
    match driver {
        "igb" | "igc" => 1024,
        _ => 128,
    }
}

/// Whether the NIC is to read and write the frames itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZeroCopy {
    /// Zero-copy if the driver can, otherwise copy mode, with the reason told.
    #[default]
    Auto,
    /// Zero-copy or an error.
    On,
    /// Copy mode.
    Off,
}

/// Preferred busy polling: the core itself runs the driver's receive loop, within its system calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusyPoll {
    /// How long one call may poll, in µs.
    pub usecs: u32,
    /// Frames per call.
    pub budget: u32,
}

impl Default for BusyPoll {
    fn default() -> Self {
        // The kernel documentation's example values (Documentation/networking/af_xdp.rst,
        // napi.rst): long enough for one batch of 64, short enough to keep the turn short.
        Self { usecs: 20, budget: 64 }
    }
}

/// Sizes of the four rings, in entries; powers of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rings {
    /// Frames waiting to be received into.
    pub fill: u32,
    /// Frames received.
    pub rx: u32,
    /// Frames to send.
    pub tx: u32,
    /// Frames sent.
    pub completion: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            // At least the NIC's ring plus ours (D3: a smaller one starves the NIC and gave zero-length packets);
            // 2,048 is the largest ring that common drivers use by default, 4,096 what most can have. An eighth of the
            // default's frames, and only in zero-copy mode: see `Rings::received_into`.
            fill: 8192,
            // 4,096 full-sized frames are 4.9 ms at 10 Gbit/s: longer than another process's turn on this core (3 ms),
            // so what comes meanwhile waits instead of getting lost. And so many small requests may be under way at
            // once: whoever loses the only segment of one waits 200 ms for its repetition.
            rx: 4096,
            // 2.4 ms towards the wire; the rest waits in the stack, where it can be retransmitted, resized and
            // acknowledged.
            tx: 2048,
            // Everything of the TX ring can be completed at once, and once more while the loop is late.
            completion: 4096,
        }
    }
}

impl Rings {
    /// Frames that the kernel and the NIC are given to receive into, until they are back.
    ///
    /// Each is used again only when all the others have been, so more of them than are needed cost cache misses: a
    /// twentieth to a tenth of a reflector's frames a second between 4,096 and 8,192. In copy mode the NIC's ring has
    /// the driver's own memory, and the kernel takes one of ours for a frame that has come: the RX ring's worth, and a
    /// batch more, so that what is too much finds the RX ring full and is counted as that.
    pub(crate) fn received_into(self, zero_copy: bool) -> u32 {
        if zero_copy { self.fill } else { self.fill.min(self.rx + BATCH as u32) }
    }
}

/// What one core's datapath is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Octets per frame: 2,048 or 4,096 (what an aligned UMEM allows below a page).
    pub frame_size: u32,
    /// Frames per core.
    pub frame_count: u32,
    /// Map the frames on 2 MiB pages when there are enough.
    pub huge_pages: bool,
    /// Ring sizes.
    pub rings: Rings,
    /// Zero-copy or not.
    pub zero_copy: ZeroCopy,
    /// Frames that the driver may spread one packet over in zero-copy mode
    /// ([`Features::zero_copy_segments`](crate::netdev::Features)); 1: it has to be whole. In copy mode the kernel
    /// spreads a large one over as many as it takes.
    pub zero_copy_segments: u32,
    /// Preferred busy polling; `None`: interrupts wake the core.
    pub busy_poll: Option<BusyPoll>,
    /// Longest time the loop spins after the last frame before it sleeps. Zero: sleeps at once. `None`: never, the core
    /// is the loop's alone.
    pub spin_max: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Holds 1,792 octets behind the headroom: a frame of MTU 1,500 with two VLAN tags.
            // 4,096 would halve how many segments the same memory and cache hold.
            frame_size: 2048,
            // 128 MiB: 100 ms at 10 Gbit/s in flight, and a frame each for 65,536 connections.
            frame_count: 65_536,
            huge_pages: true,
            rings: Rings::default(),
            zero_copy: ZeroCopy::Auto,
            zero_copy_segments: 1,
            busy_poll: None,
            // About ten times what it costs to sleep and be woken (a system call, a softirq, a
            // context switch: 3-5 µs); spinning longer than that can't win more than it burns.
            spin_max: Some(Duration::from_micros(50)),
        }
    }
}

impl Config {
    /// Checks that the values fit together.
    ///
    /// # Errors
    /// [`Error::Config`], naming the value and what it has to be.
    pub fn check(&self) -> Result<(), Error> {
        let Rings { fill, rx, tx, completion } = self.rings;
        for (name, size) in [("fill", fill), ("rx", rx), ("tx", tx), ("completion", completion)] {
            if !size.is_power_of_two() {
                return Err(Error::config(format!("{name} ring of {size} entries: take a power of two")));
            }
        }
        if fill <= rx {
            return Err(Error::config(format!(
                "fill ring ({fill}) not larger than RX ring ({rx}): enlarge it"
            )));
        }
        if completion < tx {
            let hint = "enlarge it, or the kernel stops sending";
            return Err(Error::config(format!(
                "completion ring ({completion}) smaller than TX ring ({tx}): {hint}"
            )));
        }
        if self.frame_size != 2048 && self.frame_size != 4096 {
            return Err(Error::config(format!("frames of {} octets: take 2048 or 4096", self.frame_size)));
        }
        let least = 2 * (fill + tx);
        if self.frame_count < least {
            let count = self.frame_count;
            return Err(Error::config(format!(
                "{count} frames can't feed these rings: take at least {least}"
            )));
        }
        if u64::from(self.frame_count) * u64::from(self.frame_size) > u64::from(u32::MAX) {
            return Err(Error::config("more than 4 GiB of frames a core: take fewer or smaller ones".into()));
        }
        Ok(())
    }

    /// Largest IP packet that can be sent from one frame: all behind its header of 20 octets fits behind
    /// [`MAX_HEADERS`](byway_tcp::frame::MAX_HEADERS).
    pub fn sent_mtu_max(&self) -> u16 {
        (self.frame_size - byway_tcp::frame::MAX_HEADERS as u32 + 20) as u16
    }

    /// Largest IP packet that can be received in several frames.
    pub fn scattered_mtu_max(&self, zero_copy: bool) -> u16 {
        let room = if zero_copy {
            (self.frame_size - XDP_HEADROOM) * self.zero_copy_segments - LINK_HEADER_MAX
        } else {
            u32::MAX
        };
        // No larger one can say its length (RFC 791).
        u16::try_from(room).unwrap_or(u16::MAX)
    }

    /// Frames that a packet may lie in that is sent, where packets may lie in several.
    pub fn frames_sent_max(&self, zero_copy: bool) -> u8 {
        /// No kernel is built with a smaller MAX_SKB_FRAGS than 17; a frame of 4 KiB each, that is 64 KiB.
        const FRAGMENTS: u32 = 16;
        let most = if zero_copy { self.zero_copy_segments } else { FRAGMENTS };
        most.clamp(1, FRAGMENTS) as u8
    }

    /// Largest IP packet that a NIC with this driver writes into one frame, behind the kernel's headroom.
    pub fn mtu_max(&self, driver: &str) -> u32 {
        let room = self.frame_size - XDP_HEADROOM;
        // In copy mode the NIC writes into the driver's own memory.
        let granule = if self.zero_copy == ZeroCopy::Off { 1 } else { buffer_granule(driver) };
        room / granule * granule - LINK_HEADER_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together_and_hold_an_ethernet_frame() {
        let config = Config::default();
        config.check().expect("defaults");
        assert!(config.mtu_max("veth") >= 1500);
    }

    /// Seen on an emulated igb: every packet above 1,024 octets was cut up.
    #[test]
    fn a_nic_that_counts_whole_kib_needs_larger_frames_for_zero_copy() {
        let mtu_max = |frame_size, driver, zero_copy| {
            Config { frame_size, zero_copy, ..Config::default() }.mtu_max(driver)
        };
        for zero_copy in [ZeroCopy::Auto, ZeroCopy::On] {
            for driver in ["igb", "igc"] {
                assert_eq!(mtu_max(2048, driver, zero_copy), 1002);
                assert_eq!(mtu_max(4096, driver, zero_copy), 3050);
            }
            assert_eq!(mtu_max(2048, "ixgbe", zero_copy), 1770);
            assert_eq!(mtu_max(4096, "virtio_net", zero_copy), 3818);
        }
        assert_eq!(mtu_max(2048, "igb", ZeroCopy::Off), 1770);
    }

    #[test]
    fn several_frames_hold_what_the_link_takes() {
        let config =
            |zero_copy_segments| Config { frame_size: 4096, zero_copy_segments, ..Config::default() };
        assert_eq!(config(1).scattered_mtu_max(true), 3818);
        assert_eq!(config(3).scattered_mtu_max(true), 11_498);
        assert_eq!(config(u8::MAX.into()).scattered_mtu_max(true), u16::MAX);
        assert_eq!(config(1).scattered_mtu_max(false), u16::MAX);
        let (mss, room) = (config(1).sent_mtu_max() - 60 - 12, config(1).frame_size - XDP_HEADROOM);
        assert!(u32::from(mss) >= room, "an echo sends what it got in a frame");
    }

    /// D3.
    #[test]
    fn no_ring_behind_the_fill_ring_starves_it() {
        let rings = Rings::default();
        let largest_usual_nic_ring = 4096;
        assert!(rings.received_into(true) >= largest_usual_nic_ring + rings.rx);
        assert!(rings.received_into(false) > rings.rx, "the driver has its own memory");
        assert!(rings.received_into(false) <= rings.fill);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let broken = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().expect_err("must be refused").to_string()
        };
        assert!(broken(|c| c.rings.rx = 1000).contains("power of two"));
        assert!(broken(|c| c.rings.fill = 1024).contains("fill ring"));
        assert!(broken(|c| c.rings.completion = 64).contains("completion ring"));
        assert!(broken(|c| c.frame_size = 3000).contains("2048 or 4096"));
        assert!(broken(|c| c.frame_count = 1000).contains("at least"));
        assert!(broken(|c| c.frame_count = u32::MAX).contains("4 GiB"));
    }
}
