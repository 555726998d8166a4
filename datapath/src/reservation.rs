//! byway's ports at addresses that the kernel has, too: held by kernel sockets, so that nobody else takes them.
//!
//! ```text
//!   quiet:  bound, listening behind a filter that drops everything    while the steering isn't in place: at the start,
//!     │ ▲                                                             at the end, and until a successor takes over
//!     ▼ │                                                             (linger.rs). The kernel answers nothing at all.
//!   held:   bound, and no more                                        while frames are steered to byway. The kernel refuses
//!                                                                     who comes over loopback, that is from the same host.
//! ```
//!
//! Neither state lets another program bind the port at that address, or at all addresses: EADDRINUSE. A socket that is
//! only bound would have the kernel answer frames with RST; so does a port that nobody holds (D10).

pub(crate) mod holder;
pub mod linger;

use core::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

use crate::error::Error;
use crate::sys;

/// Ports at each of a number of addresses.
#[derive(Debug)]
pub struct Reservation {
    ports: Vec<u16>,
    /// The interface's index: what link-local addresses mean.
    scope: u32,
    held: Vec<(SocketAddr, OwnedFd)>,
    /// A predecessor's, until they are taken or [`settle`](Self::settle)d. By address and port: thousands, for clients.
    inherited: HashMap<(IpAddr, u16), OwnedFd>,
    quiet: bool,
}

impl Reservation {
    /// Of `ports` at no address yet, quiet. Takes over what a predecessor on interface `index` holds.
    pub fn new(ports: Vec<u16>, index: u32) -> Self {
        let inherited = linger::take_over(index)
            .into_iter()
            .filter_map(|socket| {
                let endpoint: SocketAddr = net::getsockname(&socket).ok()?.try_into().ok()?;
                Some(((endpoint.ip(), endpoint.port()), socket))
            })
            .collect();
        Self { ports, scope: index, held: Vec::new(), inherited, quiet: true }
    }

    /// Holds the ports at `address`, all or none of them.
    ///
    /// # Errors
    /// Somebody has one: [`Error::PortHeld`] says who.
    pub fn take(&mut self, address: IpAddr) -> Result<(), Error> {
        let result = self.ports.clone().into_iter().try_for_each(|port| {
            let endpoint = self.endpoint(address, port);
            let socket = match self.inherited.remove(&(address, port)) {
                Some(socket) => socket,
                None => bound(endpoint)?,
            };
            hush(&socket, endpoint)?;
            if !self.quiet {
                unhush(&socket);
            }
            self.held.push((endpoint, socket));
            Ok(())
        });
        if result.is_err() {
            self.give_up(address);
        }
        result
    }

    /// Lets go of the ports at `address`.
    pub fn give_up(&mut self, address: IpAddr) {
        self.held.retain(|(endpoint, _)| endpoint.ip() != address);
    }

    /// The steering is in place: whoever comes over loopback may be refused. Lets go of what a predecessor held and
    /// nobody took.
    pub fn settle(&mut self) {
        self.quiet = false;
        self.inherited.clear();
        self.held.iter().for_each(|(_, socket)| unhush(socket));
    }

    /// The steering is about to go: from here on the kernel answers nothing at these ports.
    ///
    /// # Errors
    /// A socket can't listen.
    pub fn hush(&mut self) -> Result<(), Error> {
        self.quiet = true;
        self.held.iter().try_for_each(|(endpoint, socket)| hush(socket, *endpoint))
    }

    fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.held.iter().map(|(_, socket)| socket.as_fd())
    }

    fn endpoint(&self, address: IpAddr, port: u16) -> SocketAddr {
        match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, self.scope).into(),
            _ => SocketAddr::new(address, port),
        }
    }
}

/// A socket bound to `endpoint` for itself alone.
fn bound(endpoint: SocketAddr) -> Result<OwnedFd, Error> {
    let fail = |what| move |errno: Errno| Error::Reserve { endpoint, what, source: errno.into() };
    let socket = open(endpoint)?;
    match net::bind(&socket, &endpoint) {
        Ok(()) => return Ok(socket),
        Err(Errno::ACCESS) => return Err(Error::PrivilegedPort(endpoint.port())),
        Err(Errno::ADDRINUSE) => {}
        Err(errno) => return Err(fail("binding")(errno)),
    }
    if let Some(holder) = holder::of(endpoint) {
        return Err(Error::PortHeld { endpoint, holder });
    }
    // What keeps it are connections of a program that has ended, a minute long: those give way to who says that the
    // address may be used again. `hush` takes that back, and nobody else may.
    let socket = open(endpoint)?;
    sockopt::set_socket_reuseaddr(&socket, true).map_err(fail("binding"))?;
    match net::bind(&socket, &endpoint) {
        Ok(()) => Ok(socket),
        Err(Errno::ADDRINUSE) => {
            let holder = "a program that doesn't listen there, maybe another byway".to_owned();
            Err(Error::PortHeld { endpoint, holder })
        }
        Err(errno) => Err(fail("binding")(errno)),
    }
}

fn open(endpoint: SocketAddr) -> Result<OwnedFd, Error> {
    let fail = |what| move |errno: Errno| Error::Reserve { endpoint, what, source: errno.into() };
    let family = if endpoint.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))
        .map_err(fail("opening a socket"))?;
    // The address may be gone again by now, or come back later.
    if endpoint.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true).map_err(fail("binding"))?;
    } else {
        sockopt::set_ipv6_freebind(&socket, true).map_err(fail("binding"))?;
    }
    sys::drop_all(socket.as_fd()).map_err(|source| Error::Reserve { endpoint, what: "filtering", source })?;
    Ok(socket)
}

/// What comes meets a listener, whose filter drops it; without a listener the kernel would answer RST.
fn hush(socket: &OwnedFd, endpoint: SocketAddr) -> Result<(), Error> {
    let fail = |errno: Errno| Error::Reserve { endpoint, what: "listening", source: errno.into() };
    // Beside connections in TIME-WAIT, see `bound`. Linux asks again who has the port when a socket begins to listen,
    // and then forgets that the address might be used again, as long as this socket says no.
    sockopt::set_socket_reuseaddr(socket, true).map_err(fail)?;
    net::listen(socket, 0).map_err(|errno| match errno {
        Errno::ADDRINUSE => Error::PortHeld {
            endpoint,
            holder: holder::of(endpoint).unwrap_or_else(|| "a program".to_owned()),
        },
        errno => fail(errno),
    })?;
    sockopt::set_socket_reuseaddr(socket, false).map_err(fail)
}

/// Ends the listening, not the binding. It fails for one that doesn't listen.
fn unhush(socket: &OwnedFd) {
    let _ = net::shutdown(socket, Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use byway_lab::{Namespace, is_root};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn in_namespace(body: impl FnOnce() + Send) {
        if is_root() {
            Namespace::new().expect("a namespace").enter(body);
        }
    }

    fn connect() -> io::ErrorKind {
        let limit = Duration::from_millis(300);
        TcpStream::connect_timeout(&SocketAddr::new(HERE, 80), limit).expect_err("nobody serves").kind()
    }

    /// D10: quiet, nothing is answered; held, the same host is refused; always, the port is taken.
    #[test]
    fn d10_a_reserved_port_is_taken_and_quiet_when_told_to() {
        in_namespace(|| {
            let mut ours = Reservation::new(vec![80, 81], 1);
            ours.take(HERE).expect("free");
            for round in 0..3 {
                assert_eq!(connect(), io::ErrorKind::TimedOut, "quiet, round {round}");
                // std's listener sets SO_REUSEADDR, as servers do.
                for taken in ["127.0.0.1:80", "0.0.0.0:81", "[::]:80"] {
                    let error = TcpListener::bind(taken).expect_err(taken);
                    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{taken}");
                }
                ours.settle();
                assert_eq!(connect(), io::ErrorKind::ConnectionRefused, "held, round {round}");
                for taken in ["127.0.0.1:80", "0.0.0.0:81", "[::]:80"] {
                    let error = TcpListener::bind(taken).expect_err(taken);
                    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{taken}");
                }
                ours.hush().expect("listens");
            }
            TcpListener::bind("127.0.0.2:80").expect("another address is free");
            ours.give_up(HERE);
            TcpListener::bind("127.0.0.1:80").expect("given up");
        });
    }

    #[test]
    fn who_has_a_port_is_named() {
        in_namespace(|| {
            for other in ["127.0.0.1:80", "0.0.0.0:80", "[::]:80"] {
                let _other = TcpListener::bind(other).expect(other);
                let mut ours = Reservation::new(vec![79, 80], 1);
                let error = ours.take(HERE).expect_err(other).to_string();
                let me = format!("pid {} (", std::process::id());
                assert!(error.contains("127.0.0.1:80 is in use by ") && error.contains(&me), "{error}");
                TcpListener::bind("127.0.0.1:79").expect("all or none");
            }
        });
    }

    /// A server that has just ended leaves connections in TIME-WAIT; its port is free nevertheless.
    #[test]
    fn time_wait_of_an_ended_server_keeps_nobody_out() {
        in_namespace(|| {
            let server = TcpListener::bind("127.0.0.1:80").expect("free");
            let client = TcpStream::connect("127.0.0.1:80").expect("connects");
            drop(server.accept().expect("accepts"));
            drop(server);
            drop(client);
            let mut ours = Reservation::new(vec![80], 1);
            ours.take(HERE).expect("nobody has it");
            assert_eq!(TcpListener::bind("127.0.0.1:80").expect_err("ours").kind(), io::ErrorKind::AddrInUse);
            assert_eq!(connect(), io::ErrorKind::TimedOut);
        });
    }

    /// D10: what lingers holds the ports quietly, for its time or until the next comes.
    #[test]
    fn d10_a_successor_takes_over_what_lingers() {
        in_namespace(|| {
            let linger = |time| {
                let mut ours = Reservation::new(vec![80], 1);
                ours.take(HERE).expect("free, or inherited");
                linger::leave(ours, time).expect("leaves");
            };
            linger(Duration::from_secs(60));
            assert_eq!(connect(), io::ErrorKind::TimedOut);
            assert_eq!(TcpListener::bind("127.0.0.1:80").expect_err("kept").kind(), io::ErrorKind::AddrInUse);
            // It ends with this, or the test wouldn't for a minute.
            linger(Duration::from_millis(200));
            let free = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(20));
                TcpListener::bind("127.0.0.1:80").is_ok()
            });
            assert!(free, "given up after its time");
        });
    }
}
