//! A packet socket on an interface. All system calls on frames are here.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result};

/// Frames per system call. 64 times 2 µs of sending is still short against a millisecond of delay.
pub(super) const BATCH: usize = 64;

/// A burst of some thousand frames, at the 2304 octets that the kernel counts for each. The bridge reads at
/// leisure.
const BUFFER_OCTETS: libc::c_int = 16 << 20;

/// linux/if_packet.h; not in the libc crate.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Every protocol, in network order.
const ETH_P_ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// What [`PacketSocket::receive`] found.
#[derive(Debug)]
pub(super) enum Received {
    Frame(Vec<u8>),
    /// A frame of this length, more than fits the MTU.
    Oversized(usize),
}

/// Sees every frame that comes in by an interface, and sends frames out by it as they are.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: OwnedFd,
    /// The largest frame: the MTU and the Ethernet header with two tags.
    pub(super) frame_max: usize,
    buffers: Vec<u8>,
}

impl PacketSocket {
    /// Opens it, to see what comes in and, if `both_ways`, what goes out, too.
    pub(super) fn open(interface: &str, both_ways: bool) -> Result<Self> {
        Self::try_open(interface, both_ways).with_context(|| format!("cannot listen on {interface}"))
    }

    fn try_open(interface: &str, both_ways: bool) -> Result<Self> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: if_nametoindex reads the NUL-terminated name, which outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error().into());
        }
        // Protocol 0: nothing arrives before the socket is bound to its interface.
        // SAFETY: socket takes three integers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("packet socket (takes CAP_NET_RAW)");
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };

        let frame_max = mtu(&fd, interface).context("MTU")? + 14 + 8;
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index as libc::c_int,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, promiscuous).context("promiscuous mode")?;
        // A bridge would take what it sends itself for what comes in.
        set(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, libc::c_int::from(!both_ways))
            .context("PACKET_IGNORE_OUTGOING")?;
        // The forcing kind takes CAP_NET_ADMIN; the other is capped at net.core.rmem_max.
        for (force, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            set(&fd, libc::SOL_SOCKET, force, BUFFER_OCTETS)
                .or_else(|_| set(&fd, libc::SOL_SOCKET, plain, BUFFER_OCTETS))
                .context("buffer size")?;
        }
        bind(&fd, index).context("bind")?;
        Ok(Self { fd, frame_max, buffers: vec![0; BATCH * frame_max] })
    }

    /// Takes up to [`BATCH`] frames that have come in. None if none has.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Received)) -> io::Result<usize> {
        let mut vectors: Vec<libc::iovec> = self
            .buffers
            .chunks_exact_mut(self.frame_max)
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors.iter_mut().map(message).collect();
        // MSG_TRUNC: the length of a frame that does not fit is told all the same.
        // SAFETY: every message points to one iovec in `vectors` and that to a chunk of `buffers`, apart from
        // all the others; all three outlive the call, and no reference to the octets is alive during it.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        };
        let count = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => match io::Error::last_os_error() {
                error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
                error => return Err(error),
            },
        };
        for (message, buffer) in messages[..count].iter().zip(self.buffers.chunks_exact(self.frame_max)) {
            each(match buffer.get(..message.msg_len as usize) {
                Some(frame) => Received::Frame(frame.to_vec()),
                None => Received::Oversized(message.msg_len as usize),
            });
        }
        Ok(count)
    }

    /// Sends frames in order: how many the kernel took. Of those it refuses (the interface is down, or the
    /// frame is too large for it) the first is skipped and the others are tried.
    pub(super) fn send(&self, frames: &mut [Vec<u8>]) -> usize {
        let mut vectors: Vec<libc::iovec> = frames
            .iter_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors.iter_mut().map(message).collect();
        let (mut at, mut sent) = (0, 0);
        while at < messages.len() {
            let rest = &mut messages[at..];
            // SAFETY: every message points to one iovec in `vectors` and that to a frame of the caller's, all
            // of which outlive the call; the kernel only reads the frames.
            let count = unsafe {
                libc::sendmmsg(self.fd.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            match usize::try_from(count) {
                Ok(count) => (at, sent) = (at + count, sent + count),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => (),
                Err(_) => at += 1,
            }
        }
        sent
    }

    /// Frames that the kernel had no more room to keep, since the last time this was asked.
    pub(super) fn missed(&self) -> u64 {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the pointers are to locals that outlive the call, the first to as many octets as the second
        // says.
        let rc = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if rc == 0 { u64::from(statistics.tp_drops) } else { 0 }
    }
}

/// Lets the calling thread run before any other that is ready, where that is allowed: a line does not wait for
/// the hosts at its ends.
pub(super) fn go_first() {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a local that outlives the call; 0 is the calling thread. Without CAP_SYS_NICE
    // nothing changes, and the bridge is as punctual as the scheduler lets it be.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameter) };
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Waits until one of the sockets has frames, or for `timeout`.
pub(super) fn wait<'a>(
    sockets: impl IntoIterator<Item = &'a PacketSocket>,
    timeout: Duration,
) -> io::Result<()> {
    let mut entries: Vec<libc::pollfd> = sockets
        .into_iter()
        .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
    };
    // SAFETY: both pointers are to locals that outlive the call, the first to as many entries as it says; no
    // mask.
    let ready = unsafe {
        libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, &raw const timeout, std::ptr::null())
    };
    match io::Error::last_os_error() {
        error if ready < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

fn message(vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data, for which all octets zero are a value: no name, no vectors, no control
    // data.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = vector;
    message.msg_hdr.msg_iovlen = 1;
    message
}

fn set<T>(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a value of the length given, which outlives the call; the callers name
    // options of T.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: ETH_P_ALL,
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a sockaddr_ll of the length given, which is what AF_PACKET takes; it outlives
    // the call.
    let rc = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mtu(fd: &OwnedFd, interface: &str) -> io::Result<usize> {
    // SAFETY: ifreq is plain data, for which all octets zero are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One octet less than there is room for, so that the NUL stays.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFMTU takes an ifreq, which outlives the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFMTU has filled this member of the union; any bits are an i32 anyway.
    Ok(unsafe { request.ifr_ifru.ifru_mtu } as usize)
}
