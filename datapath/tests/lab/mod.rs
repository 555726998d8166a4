//! A laboratory per test: a thread in a network namespace of its own, with a veth pair.
//!
//! ```text
//!   bwd0 ── byway's side                       bwd1 ── the peer's: raw frames, or the kernel's TCP
//!   (XDP program, AF_XDP sockets)              (10.77.0.2/24, fd77::2/64, checksums in full)
//! ```
//!
//! The namespace has no name: it and everything in it ends with the thread. byway's own addresses
//! (10.77.0.1, fd77::1) aren't the kernel's, so the same namespace can be the peer.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use byway_datapath::link::Link;

pub(crate) const OURS: &str = "bwd0";
pub(crate) const PEERS: &str = "bwd1";
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// Runs `test` in a laboratory whose veths have `queues` queues. Skips it, loudly, without root.
pub(crate) fn lab(queues: u32, test: impl FnOnce() + Send + 'static) {
    // SAFETY: takes no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: needs root for a network namespace");
        return;
    }
    let thread = std::thread::spawn(move || {
        // SAFETY: only this thread changes its namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
        build(queues);
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn build(queues: u32) {
    let sizes = format!("numtxqueues {queues} numrxqueues {queues}");
    run(&format!("ip link add {OURS} {sizes} type veth peer name {PEERS} {sizes}"));
    // The peer writes full checksums, as a wire would carry them.
    run(&format!("ethtool -K {PEERS} tx off"));
    run(&format!("ip addr add {PEER}/24 dev {PEERS}"));
    run(&format!("ip addr add fd77::2/64 dev {PEERS} nodad"));
    run("ip link set lo up");
    run(&format!("ip link set {OURS} addrgenmode none up"));
    run(&format!("ip link set {PEERS} addrgenmode none up"));
}

/// Runs a command in this namespace.
pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).output().expect("it starts");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The peer as a source and sink of raw frames.
#[derive(Debug)]
pub(crate) struct RawPeer {
    socket: OwnedFd,
}

impl RawPeer {
    pub(crate) fn new() -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // Of no protocol until it is bound: otherwise it would get every interface's frames meanwhile.
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel just gave us this descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: zeroes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = Link::query(PEERS).expect("peer").index as i32;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: a sockaddr_ll and its length.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        let buffer = 64i32 << 20;
        // SAFETY: four readable octets.
        let set = unsafe {
            let length = size_of_val(&buffer) as libc::socklen_t;
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const buffer).cast(), length)
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        Self { socket }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: `frame` is readable for its length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame from byway's side that `wanted` accepts; `None` after `timeout` without any.
    pub(crate) fn receive(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut frame = vec![0u8; 65_536];
        loop {
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd.
            let ready = unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis() as i32) };
            if ready == 0 {
                return None;
            }
            // SAFETY: zeroes are a valid sockaddr_ll.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut length = size_of_val(&from) as libc::socklen_t;
            // SAFETY: `frame` is writable for its length, `from` for `length`.
            let received = unsafe {
                let (fd, to) = (self.socket.as_raw_fd(), frame.as_mut_ptr().cast());
                libc::recvfrom(fd, to, frame.len(), 0, (&raw mut from).cast(), &raw mut length)
            };
            assert!(received >= 0, "{}", io::Error::last_os_error());
            let octets = &frame[..received as usize];
            if from.sll_pkttype != libc::PACKET_OUTGOING && wanted(octets) {
                return Some(octets.to_vec());
            }
        }
    }
}

/// An Ethernet frame with an IPv4 TCP segment from the peer to byway, its checksums left out: of
/// interest to who steers, not to who checks. `len` counts from the Ethernet header on.
pub(crate) fn tcp_frame(len: usize, mark: u32) -> Vec<u8> {
    assert!(len >= 58);
    let ours = Link::query(OURS).expect("ours");
    let peers = Link::query(PEERS).expect("peer's");
    let mut frame = vec![0u8; len];
    frame[0..6].copy_from_slice(&ours.mac.0);
    frame[6..12].copy_from_slice(&peers.mac.0);
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    frame[22] = 64;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&PEER.octets());
    frame[30..34].copy_from_slice(&OWN.octets());
    frame[34..36].copy_from_slice(&4000u16.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46] = 5 << 4;
    frame[54..58].copy_from_slice(&mark.to_be_bytes());
    for (place, octet) in frame[58..].iter_mut().enumerate() {
        *octet = place as u8;
    }
    frame
}

pub(crate) fn own_addresses() -> [IpAddr; 2] {
    [OWN.into(), OWN6.into()]
}

/// Takes a capability from the calling thread, for good.
pub(crate) fn drop_capability(number: u32) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // _LINUX_CAPABILITY_VERSION_3: two sets of 32 bits each of effective, permitted, inheritable.
    let header = Header { version: 0x2008_0522, pid: 0 };
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: the header, and room for two sets.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    assert_eq!(got, 0, "{}", io::Error::last_os_error());
    for set in &mut sets[number as usize / 32] {
        *set &= !(1 << (number % 32));
    }
    // SAFETY: the header, and two sets.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
