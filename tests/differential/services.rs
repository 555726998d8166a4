//! The same services on both sides: as an application of byway's, and on the kernel's sockets.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use byway_lab::Namespace;
use byway_tcp::app::{App, Closed, Conn, ConnId, Ready};
use byway_tcp::stack::Listener;

use crate::segment::TARGET;
use crate::support::inside::Inside;

/// Sends back what arrives; closes when the peer has.
pub(crate) const ECHO: u16 = 7;
/// Throws away what arrives; closes when the peer has.
pub(crate) const DISCARD: u16 = 9;
/// Throws away what arrives; never closes.
pub(crate) const HOLD: u16 = 11;
/// Closes its side when the first octet arrives; throws away what arrives.
pub(crate) const CLOSER: u16 = 13;
/// Sends [`GREETING`] octets at once; throws away what arrives, and closes when the peer has.
pub(crate) const GREETER: u16 = 19;
/// Nobody listens there.
pub(crate) const NOBODY: u16 = 21;

/// Two whole segments of 1460 and a part.
pub(crate) const GREETING: usize = 4000;

const PORTS: [u16; 5] = [ECHO, DISCARD, HOLD, CLOSER, GREETER];
/// More than there are cases.
const BACKLOG: u32 = 4096;

/// byway's side.
#[derive(Debug, Default)]
struct Services {
    /// What a greeter has sent.
    greeted: HashMap<ConnId, usize>,
}

impl App for Services {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        if conn.local().port() == GREETER {
            self.greet(conn);
        }
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        let port = conn.local().port();
        let mut any = false;
        while port != ECHO || conn.send_room() > 0 {
            let Some(chunk) = conn.recv() else { break };
            any = true;
            let rest = if port == ECHO { conn.send(chunk).err() } else { Some(chunk) };
            if let Some(rest) = rest {
                conn.release(rest);
            }
        }
        if port == GREETER {
            self.greet(conn);
        }
        let closes = match port {
            CLOSER => any,
            HOLD => false,
            _ => conn.recv_finished(),
        };
        if closes {
            conn.shutdown();
        }
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, _reason: Closed) {
        self.greeted.remove(&conn.id());
    }
}

impl Services {
    fn greet<C: Conn>(&mut self, conn: &mut C) {
        let sent = self.greeted.entry(conn.id()).or_default();
        while *sent < GREETING && conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { return };
            let take = (GREETING - *sent).min(conn.mss());
            conn.append(&mut chunk, &[b'g'; GREETING][..take]);
            match conn.send(chunk) {
                Ok(()) => *sent += take,
                Err(refused) => return conn.release(refused),
            }
        }
    }
}

/// Serves by byway until told to stop.
pub(crate) fn serve_byway(namespace: &Namespace, ready: impl FnOnce(), stop: &AtomicBool) {
    namespace.join().expect("enters");
    let mut inside = Inside::start(|stack| {
        for port in PORTS {
            stack.listen(Listener { port, backlog: BACKLOG });
        }
        Services::default()
    });
    ready();
    inside.turn_until(|_| stop.load(Ordering::Relaxed));
}

/// A connection of the kernel's, with the octets it still has to send.
struct Served {
    stream: TcpStream,
    port: u16,
    unsent: Vec<u8>,
    finished: bool,
}

/// Serves by the kernel until told to stop.
pub(crate) fn serve_kernel(namespace: &Namespace, ready: impl FnOnce(), stop: &AtomicBool) {
    namespace.join().expect("enters");
    let listeners = PORTS.map(|port| {
        let listener = TcpListener::bind((TARGET, port)).expect("binds");
        // SAFETY: listen takes two integers; std's backlog of 128 is for other purposes.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG as i32) }, 0);
        listener.set_nonblocking(true).expect("nonblocking");
        leave_urgent_data_in_line(&listener);
        listener
    });
    ready();
    let mut served: Vec<Served> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        wait(&listeners, &served);
        for (listener, port) in listeners.iter().zip(PORTS) {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).expect("nonblocking");
                let unsent = if port == GREETER { vec![b'g'; GREETING] } else { Vec::new() };
                served.push(Served { stream, port, unsent, finished: false });
            }
        }
        served.retain_mut(Served::go_on);
    }
}

/// RFC 6093 §4, as byway. Accepted connections inherit it.
fn leave_urgent_data_in_line(listener: &TcpListener) {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to an integer, of the length given, which outlives the call.
    let rc = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_OOBINLINE,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(rc, 0, "SO_OOBINLINE: {}", std::io::Error::last_os_error());
}

impl Served {
    /// Whether there is more to come.
    fn go_on(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        while !self.finished {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.finished = true,
                Ok(read) if self.port == ECHO => self.unsent.extend_from_slice(&buffer[..read]),
                Ok(_) if self.port == CLOSER => {
                    let _ = self.stream.shutdown(Shutdown::Write);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        // Dropping the stream closes it.
        self.port == HOLD || !self.finished
    }
}

/// Until a socket has something to do, or it is time to look whether to stop.
fn wait(listeners: &[TcpListener], served: &[Served]) {
    let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let mut entries: Vec<_> =
        listeners.iter().map(|listener| entry(listener.as_raw_fd(), libc::POLLIN)).collect();
    for Served { stream, unsent, finished, .. } in served {
        let events =
            if *finished { 0 } else { libc::POLLIN } | if unsent.is_empty() { 0 } else { libc::POLLOUT };
        if events != 0 {
            entries.push(entry(stream.as_raw_fd(), events));
        }
    }
    // SAFETY: the pointer is to as many entries as said, which outlive the call.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, 20) };
}
