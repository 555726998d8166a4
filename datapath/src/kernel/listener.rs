//! Listening sockets: one for each endpoint on each core; the kernel spreads connections over them (SO_REUSEPORT).

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use byway_tcp::app::Keepalive;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::Plan;
use super::options::set_keepalive;
use crate::error::Error;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    endpoint: SocketAddr,
}

/// What every connection's socket is told.
#[derive(Debug)]
pub(super) struct Options {
    keepalive: Option<Keepalive>,
    congestion: Option<&'static str>,
}

impl Options {
    pub(super) fn of(plan: &Plan) -> Self {
        Self { keepalive: plan.keepalive, congestion: plan.congestion }
    }

    /// Tells them, or says which one isn't taken.
    pub(super) fn apply(&self, socket: &OwnedFd) -> Result<(), Error> {
        let fail = |what| move |errno: Errno| Error::System { what, source: errno.into() };
        // Urgent octets stay in line, as `Conn::urgent` has them (RFC 6093 §3.2).
        sockopt::set_socket_oobinline(socket, true).map_err(fail("keeping urgent octets in line"))?;
        set_keepalive(socket, self.keepalive).map_err(fail("setting keepalive"))?;
        self.congestion.map_or(Ok(()), |name| set_congestion(socket, name))
    }
}

/// A connection that the kernel has completed.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: OwnedFd,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// What came of asking for a connection.
#[derive(Debug)]
pub(super) enum Asked {
    /// One.
    Accepted(Accepted),
    /// One that is gone again.
    Gone,
    /// None waits.
    Nobody,
    /// None can be had now: no descriptor, no memory.
    Short,
}

impl Listener {
    pub(super) fn open(endpoint: SocketAddr, plan: &Plan) -> Result<Self, Error> {
        let fail = |what| move |errno| explain(endpoint, what, errno);
        let socket = unbound(endpoint)?;
        sockopt::set_socket_reuseport(&socket, true).map_err(fail("sharing the port between cores"))?;
        net::bind(&socket, &endpoint).map_err(fail("binding"))?;
        // From here on what every accepted socket inherits.
        Options::of(plan).apply(&socket)?;
        net::listen(&socket, i32::try_from(plan.backlog).unwrap_or(i32::MAX)).map_err(fail("listening"))?;
        Ok(Self { socket, endpoint })
    }

    pub(super) fn accept(&self) -> Asked {
        match net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => self.describe(socket, peer).map_or(Asked::Gone, Asked::Accepted),
            Err(Errno::AGAIN) => Asked::Nobody,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Asked::Short,
            // A peer that gave up, or a network error of its own (accept(2) lists them): the next may be well.
            Err(_) => Asked::Gone,
        }
    }

    fn describe(&self, socket: OwnedFd, peer: Option<net::SocketAddrAny>) -> Option<Accepted> {
        let peer = SocketAddr::try_from(peer?).ok()?;
        let local = if self.endpoint.ip().is_unspecified() || self.endpoint.port() == 0 {
            SocketAddr::try_from(net::getsockname(&socket).ok()?).ok()?
        } else {
            self.endpoint
        };
        Some(Accepted { socket, local, peer })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Looks whether somebody else listens at `endpoint`. SO_REUSEPORT would share the port with another process of the
/// same user without a word.
///
/// # Errors
/// Somebody does, or nobody could: the address isn't this host's, or the port is for the privileged.
pub fn check_vacant(endpoint: SocketAddr) -> Result<(), Error> {
    let socket = unbound(endpoint)?;
    net::bind(&socket, &endpoint).map_err(|errno| explain(endpoint, "binding", errno))
}

/// Looks whether this process gets a congestion control of the kernel's.
///
/// # Errors
/// The kernel doesn't have it, or only the privileged may choose it.
pub fn check_congestion(name: &'static str) -> Result<(), Error> {
    set_congestion(&unbound((Ipv4Addr::UNSPECIFIED, 0).into())?, name)
}

/// The congestion control that the kernel chooses by itself.
pub fn own_congestion() -> Option<String> {
    let socket = unbound((Ipv4Addr::UNSPECIFIED, 0).into()).ok()?;
    sockopt::tcp_congestion(&socket).ok()
}

/// A TCP socket of `endpoint`'s family. Connections in TIME-WAIT don't keep the port (SO_REUSEADDR).
pub(super) fn unbound(endpoint: SocketAddr) -> Result<OwnedFd, Error> {
    let fail = |what| move |errno| explain(endpoint, what, errno);
    let family = if endpoint.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
        .map_err(fail("opening a socket"))?;
    sockopt::set_socket_reuseaddr(&socket, true).map_err(fail("allowing for TIME-WAIT"))?;
    if endpoint.is_ipv6() {
        // IPv4 has a listener of its own.
        sockopt::set_ipv6_v6only(&socket, true).map_err(fail("keeping IPv4 apart"))?;
    }
    Ok(socket)
}

fn set_congestion(socket: &OwnedFd, name: &'static str) -> Result<(), Error> {
    // Who has it as the default need not be allowed to choose.
    if sockopt::tcp_congestion(socket).is_ok_and(|current| current == name) {
        return Ok(());
    }
    sockopt::set_tcp_congestion(socket, name)
        .map_err(|errno| Error::NoCongestion { name, source: errno.into() })
}

fn explain(endpoint: SocketAddr, what: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::ADDRINUSE => Error::EndpointBusy(endpoint),
        Errno::ADDRNOTAVAIL => Error::NotOurAddress(endpoint.ip()),
        Errno::ACCESS => Error::PrivilegedPort(endpoint.port()),
        _ => Error::Listen { endpoint, what, source: errno.into() },
    }
}
