//! AF_XDP for real, on a veth pair ("veth, copy mode": functional only, no figures).

mod lab;

use std::time::Duration;

use byway_bpf::{AttachMode, Mode, Steering};
use byway_datapath::Error;
use byway_datapath::config::{Config, Rings, ZeroCopy};
use byway_datapath::control::Waker;
use byway_datapath::link::{Link, kernel_addresses};
use byway_datapath::multicast::Groups;
use byway_datapath::port::{BATCH, Port};
use byway_datapath::umem::Umem;
use byway_datapath::xsk::Xsk;
use byway_tcp::frame::{FramePool, FrameSlice, Owner};
use lab::*;

const SECOND: Duration = Duration::from_secs(1);

fn small() -> Config {
    Config {
        frame_count: 4096,
        rings: Rings { fill: 1024, rx: 512, tx: 512, completion: 1024 },
        ..Config::default()
    }
}

fn umem(config: &Config) -> Umem {
    // SAFETY: it goes into one pool, which alone uses it.
    unsafe { Umem::new(config) }.expect("UMEM")
}

/// A port with its frames, attached, reflecting what it receives.
struct Reflector {
    // First, so that it is detached before the socket is closed (D9).
    steering: Steering,
    port: Xsk,
    pool: FramePool<Umem>,
    waker: Waker,
    rx: Vec<FrameSlice>,
    tx: Vec<FrameSlice>,
}

impl Reflector {
    fn new(config: &Config, attach: AttachMode) -> Self {
        let umem = umem(config);
        // SAFETY: the port gets the frames of the pool over this UMEM only.
        let mut port = unsafe { Xsk::open(&umem, config, OURS, 0) }.expect("socket");
        let mut pool = FramePool::new(umem);
        port.refill(&mut pool);
        let mut steering = Steering::load().expect("program");
        for address in own_addresses() {
            steering.add_address(address).expect("address");
        }
        steering.register_socket(0, port.fd()).expect("register");
        let index = Link::query(OURS).expect("link").index;
        let attached = steering.attach(index as i32, attach).expect("attach");
        let expected = if attach == AttachMode::Generic { Mode::Generic } else { Mode::Native };
        assert_eq!(attached.mode, expected);
        let waker = Waker::new().expect("waker");
        Self { steering, port, pool, waker, rx: Vec::new(), tx: Vec::new() }
    }

    /// One turn: what was received is sent back with the addresses swapped, from `shift` octets
    /// further to the front; what is in front of the Ethernet header then goes with it. What came in several frames
    /// goes in several.
    fn turn(&mut self, shift: u16) -> usize {
        self.port.reclaim(&mut self.pool);
        self.port.refill(&mut self.pool);
        self.rx.clear();
        let received = self.port.rx_burst(&mut self.rx);
        let mut goes_on = false;
        for slice in self.rx.drain(..) {
            let mut chunk = self.pool.received(slice);
            if std::mem::replace(&mut goes_on, slice.more) {
                self.pool.hand_to(&chunk, Owner::TxRing);
                self.pool.release(chunk);
                self.tx.push(slice);
                continue;
            }
            let octets = self.pool.bytes_mut(&mut chunk);
            let (to, from) = octets.split_at_mut(6);
            to.swap_with_slice(&mut from[..6]);
            let header: [u8; 14] = octets[..14].try_into().expect("an Ethernet header");
            if shift > 0 {
                self.pool.prepend(&mut chunk, &vec![0xee; usize::from(shift)]);
                self.pool.bytes_mut(&mut chunk)[..14].copy_from_slice(&header);
            }
            let len = chunk.len() as u16;
            self.pool.hand_to(&chunk, Owner::TxRing);
            self.pool.release(chunk);
            self.tx.push(FrameSlice { offset: slice.offset - shift, len, ..slice });
        }
        let sent = self.port.tx_burst(&self.tx);
        self.tx.drain(..sent);
        self.port.kick().expect("kick");
        received
    }

    fn turn_until(&mut self, shift: u16, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..2000 {
            if self.turn(shift) == 0 {
                if done(self) {
                    return;
                }
                self.port.park(Duration::from_millis(1), &self.waker).expect("park");
            }
        }
        panic!("not done: {:?}, {:?}", self.port.held(), self.port.counters());
    }

    fn assert_conserved(&self) {
        self.pool.assert_conserved();
        assert_eq!(self.pool.count(Owner::Fill), self.port.held().fill);
        assert_eq!(self.pool.count(Owner::TxRing), self.port.held().tx + self.tx.len() as u32);
    }
}

/// Sends so many numbered frames, which all reach the socket, whether its rings have room or not.
fn send_patiently(peer: &RawPeer, count: u32) {
    for mark in 0..count {
        peer.send(&tcp_frame(64, mark));
        // veth's own ring holds 256 frames; let the softirq empty it.
        if mark % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    std::thread::sleep(Duration::from_millis(20));
}

fn reflects(attach: AttachMode, lengths: &[usize]) {
    let peer = RawPeer::new();
    let mut reflector = Reflector::new(&small(), attach);
    assert!(!reflector.port.bound().zero_copy);
    let mut mark = 0;
    for shift in [0, 1, 40, 128] {
        for &len in lengths {
            mark += 1;
            let frame = tcp_frame(len, mark);
            peer.send(&frame);
            reflector.turn_until(shift, |reflector| reflector.port.held().tx == 0);
            let back = peer.receive(SECOND, |_| true).expect("the frame comes back");
            let shift = usize::from(shift);
            assert_eq!(back.len(), len + shift);
            assert_eq!(back[..6], frame[6..12], "to whom it came from");
            assert_eq!(back[shift + 14..], frame[14..], "shift {shift}, length {len}");
        }
    }
    reflector.assert_conserved();
    assert_eq!(reflector.port.counters().invalid_descriptors, 0);
}

const LENGTHS: [usize; 4] = [60, 61, 590, 1386];

#[test]
fn frames_come_back_from_any_offset_native() {
    lab(1, || reflects(AttachMode::Native, &LENGTHS));
}

#[test]
fn frames_come_back_from_any_offset_generic() {
    lab(1, || reflects(AttachMode::Generic, &LENGTHS));
}

/// The longest still are an MTU of 9,000 with what is put in front of them.
fn reflects_jumbo_frames(attach: AttachMode) {
    jumbo();
    reflects(attach, &[1792, 1793, 4000, 8886]);
}

#[test]
fn jumbo_frames_go_back_in_several_native() {
    lab(1, || reflects_jumbo_frames(AttachMode::Native));
}

#[test]
fn jumbo_frames_go_back_in_several_generic() {
    lab(1, || reflects_jumbo_frames(AttachMode::Generic));
}

fn jumbo() {
    for interface in [OURS, PEERS] {
        run(&format!("ip link set {interface} mtu 9000"));
    }
}

/// D4, P3: a TX ring that has no room for all of a packet takes none of it.
#[test]
fn packets_go_into_the_tx_ring_whole() {
    lab(1, || {
        jumbo();
        let peer = RawPeer::new();
        let rings = Rings { fill: 1024, rx: 512, tx: 16, completion: 64 };
        let mut reflector = Reflector::new(&Config { rings, ..small() }, AttachMode::Native);
        // 6 frames each.
        let sent: Vec<_> = (0..20).map(|mark| tcp_frame(9014, mark)).collect();
        sent.iter().for_each(|frame| peer.send(frame));
        reflector.turn_until(0, |reflector| reflector.port.held().tx == 0 && reflector.tx.is_empty());
        for frame in &sent {
            let back = peer.receive(SECOND, |_| true).expect("every packet comes back");
            assert!(back[12..] == frame[12..]);
        }
        assert!(reflector.port.counters().tx_ring_full > 0, "there wasn't always room");
        assert_eq!(reflector.port.counters().invalid_descriptors, 0);
        reflector.assert_conserved();
    });
}

/// P3: more frames than any ring holds, several times over, and none is lost or doubled.
#[test]
fn many_rounds_conserve_frames() {
    lab(1, || {
        let peer = RawPeer::new();
        let mut reflector = Reflector::new(&small(), AttachMode::Native);
        let rounds = 200;
        for round in 0..rounds {
            for place in 0..BATCH as u32 {
                peer.send(&tcp_frame(64, round * BATCH as u32 + place));
            }
            let mut back = 0;
            while back < BATCH as u32 {
                reflector.turn(0);
                while let Some(frame) = peer.receive(Duration::ZERO, |_| true) {
                    let mark = u32::from_be_bytes(frame[54..58].try_into().expect("4 octets"));
                    assert_eq!(mark, round * BATCH as u32 + back, "in order");
                    back += 1;
                }
            }
            reflector.assert_conserved();
        }
        reflector.turn_until(0, |reflector| reflector.port.held().tx == 0);
        reflector.assert_conserved();
        assert_eq!(reflector.pool.free_count() + reflector.port.held().fill, 4096);
        let counters = reflector.port.counters();
        assert_eq!((counters.rx_ring_full, counters.fill_ring_empty, counters.rx_dropped), (0, 0, 0));
    });
}

/// D4: a loop that doesn't look loses exactly what doesn't fit, counted, and recovers.
#[test]
fn what_is_lost_is_counted_exactly() {
    lab(1, || {
        let peer = RawPeer::new();
        let config = small();
        let mut reflector = Reflector::new(&config, AttachMode::Native);
        let sent = 3000;
        send_patiently(&peer, sent);
        let mut received = 0;
        loop {
            let count = reflector.turn(0);
            received += count as u64;
            if count == 0 {
                break;
            }
        }
        let steered = reflector.steering.counters().expect("verdicts");
        assert!(steered.contains(&("redirect_tcp", u64::from(sent))), "{steered:?}");
        let counters = reflector.port.counters();
        let lost = counters.rx_ring_full + counters.fill_ring_empty + counters.rx_dropped;
        assert_eq!(received, u64::from(config.rings.rx));
        assert_eq!(received + lost, u64::from(sent), "{counters:?}");
        reflector.turn_until(0, |reflector| reflector.port.held().tx == 0);
        peer.send(&tcp_frame(64, 77));
        reflector.turn_until(0, |reflector| reflector.port.held().tx == 0);
        let last = |frame: &[u8]| frame[54..58] == 77u32.to_be_bytes();
        peer.receive(SECOND, last).expect("it serves again");
        reflector.assert_conserved();
    });
}

/// D3: a burst that comes while the core does something else waits for it.
#[test]
fn a_burst_while_the_core_sleeps_is_not_lost() {
    lab(1, || {
        let peer = RawPeer::new();
        let config = Config { frame_count: 32_768, ..Config::default() };
        let mut reflector = Reflector::new(&config, AttachMode::Native);
        let sent = 4000;
        send_patiently(&peer, sent);
        reflector.turn_until(0, |reflector| reflector.port.held().tx == 0 && reflector.tx.is_empty());
        for mark in 0..sent {
            let back = peer.receive(SECOND, |_| true).expect("every frame comes back");
            assert_eq!(back[54..58], mark.to_be_bytes(), "in order");
        }
        let counters = reflector.port.counters();
        assert_eq!((counters.rx_ring_full, counters.fill_ring_empty, counters.rx_dropped), (0, 0, 0));
        reflector.assert_conserved();
    });
}

/// P3: packets of every length up to a jumbo frame's, more of them than a burst holds, arrive in one frame or several;
/// bursts end with a packet, and every frame comes back.
fn takes_jumbo_frames(attach: AttachMode, frame_size: u32) {
    jumbo();
    let peer = RawPeer::new();
    let mut reflector = Reflector::new(&Config { frame_size, ..small() }, attach);
    assert!(reflector.port.bound().scattered, "Linux 6.6 and newer");
    let room = frame_size as usize - 256;
    let lengths = (0..60).map(|n| [9014, 60, room, room + 1, 2 * room, 5000 + n][n % 6]);
    let sent: Vec<_> = lengths.enumerate().map(|(mark, len)| tcp_frame(len, mark as u32)).collect();
    let mut packets = Vec::new();
    for frames in sent.chunks(20) {
        frames.iter().for_each(|frame| peer.send(frame));
        let (mut packet, mut quiet) = (Vec::new(), 0);
        while quiet < 5 {
            reflector.port.reclaim(&mut reflector.pool);
            reflector.port.refill(&mut reflector.pool);
            if reflector.port.rx_burst(&mut reflector.rx) == 0 {
                quiet += 1;
                reflector.port.park(Duration::from_millis(20), &reflector.waker).expect("park");
            }
            assert!(reflector.rx.last().is_none_or(|slice| !slice.more), "a burst ends with a packet");
            for slice in reflector.rx.drain(..) {
                let chunk = reflector.pool.received(slice);
                assert!(chunk.len() == room || !slice.more);
                packet.extend_from_slice(reflector.pool.bytes(&chunk));
                reflector.pool.release(chunk);
                if !slice.more {
                    packets.push(std::mem::take(&mut packet));
                }
            }
            reflector.assert_conserved();
        }
    }
    assert!(packets == sent, "{:?}", packets.iter().map(Vec::len).collect::<Vec<_>>());
    let counters = reflector.port.counters();
    assert_eq!((counters.rx_ring_full, counters.fill_ring_empty, counters.rx_dropped), (0, 0, 0));
}

#[test]
fn jumbo_frames_arrive_in_several_native() {
    lab(1, || takes_jumbo_frames(AttachMode::Native, 4096));
}

#[test]
fn jumbo_frames_arrive_in_several_small_ones_native() {
    lab(1, || takes_jumbo_frames(AttachMode::Native, 2048));
}

#[test]
fn jumbo_frames_arrive_in_several_generic() {
    lab(1, || takes_jumbo_frames(AttachMode::Generic, 4096));
}

#[test]
fn zero_copy_on_veth_is_refused_with_the_reason() {
    lab(1, || {
        let open = |zero_copy| {
            let config = Config { zero_copy, ..small() };
            let umem = umem(&config);
            // SAFETY: neither is used any further.
            unsafe { Xsk::open(&umem, &config, OURS, 0) }
        };
        let error = open(ZeroCopy::On).expect_err("veth has none");
        assert!(matches!(error, Error::ZeroCopy { .. }));
        let text = error.to_string();
        assert!(
            text.contains("bwd0") && text.contains("EOPNOTSUPP") && text.contains("--zero-copy auto"),
            "{text}"
        );
        let fallen_back = open(ZeroCopy::Auto).expect("copy mode");
        assert!(!fallen_back.bound().zero_copy);
        assert!(
            fallen_back.bound().copy_reason.as_deref().is_some_and(|reason| reason.contains("EOPNOTSUPP"))
        );
        drop(fallen_back);
        let copy = open(ZeroCopy::Off).expect("copy mode");
        assert_eq!(copy.bound().copy_reason, None);
        assert!(copy.bound().tx_budget, "Linux 6.18 has it");
    });
}

/// D8.
#[test]
fn a_second_socket_on_a_queue_is_told_that_it_is_busy() {
    lab(2, || {
        let config = small();
        let open = |queue| {
            let umem = umem(&config);
            // SAFETY: neither is used any further.
            unsafe { Xsk::open(&umem, &config, OURS, queue) }
        };
        let first = open(0).expect("free");
        let error = open(0).expect_err("taken");
        assert!(error.to_string().contains("queue 0 of bwd0 is in use by an AF_XDP socket of "), "{error}");
        let _other = open(1).expect("another queue is free");
        drop(first);
        let _again = open(0).expect("free again");
    });
}

/// D5.
#[test]
fn a_removed_device_is_noticed_while_idle() {
    a_removed_device_is_noticed_by_parking(Duration::from_millis(100));
}

/// D5.
#[test]
fn a_removed_device_is_noticed_by_a_loop_that_never_sleeps() {
    a_removed_device_is_noticed_by_parking(Duration::ZERO);
}

fn a_removed_device_is_noticed_by_parking(timeout: Duration) {
    lab(1, move || {
        let mut reflector = Reflector::new(&small(), AttachMode::Native);
        reflector.port.park(Duration::from_millis(1), &reflector.waker).expect("idle");
        run(&format!("ip link del {OURS}"));
        let error = (0..5)
            .find_map(|_| {
                // Nothing else would notice.
                reflector.turn(0);
                reflector.port.park(timeout, &reflector.waker).err()
            })
            .expect("noticed");
        assert!(matches!(error, Error::DeviceGone { .. }), "{error}");
        assert_eq!(error.kind(), byway_datapath::error::Kind::DeviceGone);
    });
}

/// D5: frames wait while the link is down, and go out when it is back.
#[test]
fn a_link_that_flaps_loses_nothing_that_was_queued() {
    lab(1, || {
        let peer = RawPeer::new();
        let mut reflector = Reflector::new(&small(), AttachMode::Native);
        for flap in 0..10 {
            // The kernel gives the peer its queue back when it gets round to it; until then what is sent is lost.
            let mut tries = (0..1000).map(|_| std::thread::sleep(Duration::from_millis(10)));
            while !Link::query(PEERS).expect("peer").running {
                tries.next().expect("the peer has a carrier");
            }
            peer.send(&tcp_frame(100, flap));
            // The frame has to be here before the link goes, also on a loaded machine.
            reflector.port.park(10 * SECOND, &reflector.waker).expect("park");
            run(&format!("ip link set {OURS} down"));
            reflector.turn(0);
            assert!(reflector.port.held().tx > 0, "the frame waits");
            assert!(reflector.port.counters().link_down > 0);
            run(&format!("ip link set {OURS} up"));
            reflector.turn_until(0, |reflector| reflector.port.held().tx == 0);
            let back = peer.receive(SECOND, |frame| frame.len() == 100).expect("sent after the flap");
            assert_eq!(back[54..58], flap.to_be_bytes());
        }
        reflector.assert_conserved();
    });
}

#[test]
fn a_limit_of_locked_memory_is_named() {
    lab(1, || {
        const CAP_IPC_LOCK: u32 = 14;
        drop_capability(CAP_IPC_LOCK);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a writable rlimit.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }, 0);
        if limit.rlim_cur > 64 << 20 {
            eprintln!("skipped: this shell may lock {} octets", limit.rlim_cur);
            return;
        }
        // SAFETY: it isn't used.
        let error = unsafe { Umem::new(&Config::default()) }.expect_err("128 MiB are too much");
        assert!(matches!(error, Error::LockedMemory { bytes } if bytes == 128 << 20), "{error}");
    });
}

#[test]
fn a_missing_privilege_is_named() {
    lab(1, || {
        const CAP_NET_RAW: u32 = 13;
        drop_capability(CAP_NET_RAW);
        // SAFETY: it isn't used.
        let error = unsafe { Umem::new(&small()) }.expect_err("no CAP_NET_RAW");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    });
}

/// Without it a NIC that filters multicast never shows byway who asks for its IPv6 address.
#[test]
fn the_group_that_asks_for_an_own_address_is_received_for_as_long_as_byway_wants_it() {
    lab(1, || {
        let received = || {
            let output = std::process::Command::new("ip").args(["maddress", "show", "dev", OURS]).output();
            String::from_utf8(output.expect("ip").stdout).expect("text").contains("33:33:ff:34:56:78")
        };
        assert!(!received());
        let own = "fd77::9:ff12:3434:5678".parse().expect("an address");
        let groups = Groups::join(Link::query(OURS).expect("link").index, [OWN.into(), own]).expect("joins");
        assert!(received());
        drop(groups);
        assert!(!received());
    });
}

#[test]
fn facts_about_a_veth_are_right() {
    lab(2, || {
        // The kernel notes a carrier when it gets round to it.
        let query = || Link::query(OURS).expect("link");
        let tries = (0..100).map(|_| std::thread::sleep(Duration::from_millis(50)));
        assert!(query().running || tries.into_iter().any(|()| query().running));
        let link = query();
        assert_eq!((link.rx_queues, link.mtu, link.up), (2, 1500, true));
        assert_eq!(link.driver, "veth");
        assert!(link.kernel_addresses().expect("addresses").is_empty());
        let peer = Link::query(PEERS).expect("link");
        let addresses = peer.kernel_addresses().expect("addresses");
        assert!(addresses.iter().any(|cidr| cidr.address == PEER && cidr.prefix == 24), "{addresses:?}");
        assert!(addresses.iter().any(|cidr| cidr.prefix == 64), "{addresses:?}");
        assert!(kernel_addresses().expect("addresses").iter().any(|(name, _)| name == "lo"));
        assert!(!link.strips_vlan_tags(), "a veth has no hardware");
        run(&format!("ip link set {OURS} mtu 1400 down"));
        let now = link.again().expect("still there");
        assert_eq!((now.up, now.running, now.mtu, now.rx_queues), (false, false, 1400, 2));
        assert_eq!(now, Link { mtu: 1400, up: false, running: false, ..link });
        run(&format!("ip link del {OURS}"));
        now.again().expect_err("gone");
    });
}
