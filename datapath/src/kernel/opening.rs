//! Connections that the application opens: `connect` without waiting, and epoll says when it is done.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use byway_tcp::app::{App, ConnId, Opener};
use byway_tcp::stack::ConnectError;
use byway_tcp::time::Instant;
use rustix::event::epoll::{self, EventData};
use rustix::io::Errno;
use rustix::net;

use super::accepting::INTEREST;
use super::connection::Connection;
use super::event_loop::{EventLoop, Slot, Wishes};
use super::listener::{Options, unbound};
use super::shared::Shared;

/// What the application may begin in its turn.
pub(super) struct Turn<'a> {
    pub(super) wishes: &'a mut Wishes,
    pub(super) epoll: &'a OwnedFd,
    pub(super) slots: &'a mut Vec<Slot>,
    pub(super) free: &'a mut Vec<u32>,
    pub(super) open: &'a mut u32,
    pub(super) max_connections: u32,
    pub(super) options: &'a Options,
    pub(super) shared: &'a mut Shared,
}

impl Turn<'_> {
    /// The connection's place, its opening under way or already failed.
    fn open(&mut self, local: Option<IpAddr>, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        let nobody = remote.ip().is_unspecified() || remote.ip().is_multicast() || remote.port() == 0;
        if nobody {
            return Err(ConnectError::BadRemote);
        }
        if *self.open == self.max_connections {
            return Err(ConnectError::TableFull);
        }
        let socket = unbound(remote).map_err(|_| ConnectError::TableFull)?;
        self.options.apply(&socket).map_err(|_| ConnectError::TableFull)?;
        if let Some(local) = local {
            if local.is_ipv4() != remote.is_ipv4() {
                return Err(ConnectError::NoAddress);
            }
            net::bind(&socket, &SocketAddr::new(local, 0)).map_err(|_| ConnectError::NoAddress)?;
        }
        let failed = match net::connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => None,
            Err(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::AGAIN) => return Err(ConnectError::NoPort),
            Err(errno) => Some(errno),
        };
        self.admit(socket, remote, failed)
    }

    fn admit(
        &mut self,
        socket: OwnedFd,
        remote: SocketAddr,
        failed: Option<Errno>,
    ) -> Result<ConnId, ConnectError> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let id = ConnId { index, generation: self.slots[index as usize].generation };
        let mut connection = Connection::opening(socket, remote, self.shared);
        if epoll::add(self.epoll, connection.fd(), EventData::new_u64(word(id)), INTEREST).is_err() {
            // Nothing would ever be heard of it.
            connection.close(byway_tcp::app::Closed::Aborted, self.shared);
            self.free.push(index);
            return Err(ConnectError::TableFull);
        }
        if let Some(errno) = failed {
            connection.fail(errno);
            // Told when the turn is over.
            self.wishes.aborted.push(id);
        }
        *self.open += 1;
        self.shared.counters.tcp_active_opens += 1;
        self.slots[index as usize].connection = Some(connection);
        Ok(id)
    }
}

/// How epoll names a connection.
pub(super) fn word(id: ConnId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

impl Opener for Turn<'_> {
    fn now(&self) -> Instant {
        self.shared.now
    }

    /// The kernel chooses the own address, by its routes.
    fn connect(&mut self, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.open(None, remote)
    }

    fn connect_from(&mut self, local: IpAddr, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.open(Some(local), remote)
    }

    fn wake(&mut self, id: ConnId) {
        self.wishes.woken.push(id);
    }

    fn abort(&mut self, id: ConnId) {
        self.wishes.aborted.push(id);
    }
}

impl<A: App> EventLoop<A> {
    /// After an event of a connection that was being opened. False: it still is, or it is over.
    pub(super) fn complete_opening(&mut self, index: u32) -> bool {
        let Some(connection) = &mut self.slots[index as usize].connection else { return false };
        if !connection.complete_opening(&mut self.shared) {
            return false;
        }
        self.call(index, |app, conn| app.opened(conn));
        if self.draining {
            // It was half open when the others were asked to end.
            self.call(index, |app, conn| app.draining(conn));
        }
        true
    }
}
