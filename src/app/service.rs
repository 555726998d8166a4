//! `Service`: the application of one core; which port speaks what.

use core::any::Any;
use std::collections::VecDeque;

use byway_tcp::app::{App, Closed, Conn, ConnId, Opener, Ready};
use byway_tcp::time::Instant;

use super::http::connection::Connection;
use super::http::date::WallClock;
use super::http::response::SpareMade;
use super::limits::Limits;
use super::peers::Peers;
use super::raw::{self, Chargen};
use super::stats::Feeds;
use super::tls::{self, Server, Tls};
use super::turns::{SHARES, Work};
use super::ws::deflate::Contexts;

/// The ports and what is spoken on them; `None` is off.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// HTTP/1.1 and WebSocket.
    pub http: Option<u16>,
    /// The same over TLS; [`Config::tls`] says with which certificate.
    pub https: Option<u16>,
    /// RFC 862.
    pub echo: Option<u16>,
    /// RFC 863.
    pub discard: Option<u16>,
    /// RFC 864.
    pub chargen: Option<u16>,
}

/// What a [`Service`] is told at start.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The ports.
    pub ports: Ports,
    /// The maxima.
    pub limits: Limits,
    /// What time it is, for `Date`.
    pub clock: WallClock,
    /// Pages that may open a WebSocket, as browsers name them (`https://example.org`); none
    /// listed means all may.
    pub allowed_origins: Vec<String>,
    /// Certificate and key of [`Ports::https`].
    pub tls: Option<Server>,
}

/// What of a [`Config`] changes while the application runs: told to it by [`App::told`].
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// See [`Config::allowed_origins`].
    pub allowed_origins: Vec<String>,
    /// See [`Config::tls`]: for handshakes that begin from now on. There is one if there was one at the start.
    pub tls: Option<Server>,
}

/// Connections' memory that is kept for those to come, so that opening one allocates nothing where as many come as go.
/// They go in bursts: 1024 are more than one turn of the loop can end, and 1 MiB.
const SPARE_MAX: usize = 1024;

/// All connections of one core.
///
/// State lies in a slab by [`ConnId::index`](byway_tcp::app::ConnId); the generation tells a
/// slot's tenants apart.
#[derive(Debug)]
pub struct Service {
    core: Core,
    tls: Option<tls::Core>,
    slots: Vec<Option<Slot>>,
    /// Counted where there is a limit.
    peers: Peers,
    /// Of connections that are over, for those to come.
    #[expect(clippy::vec_box, reason = "the box is what is kept")]
    spare: Vec<Box<Connection>>,
    /// Connections that have to wait for the loop's next turns, by their index, first come, first served.
    waiting: VecDeque<u32>,
    /// By index: whether it is in `waiting`. It stays there when its tenant leaves, so each is there once at most.
    is_waiting: Vec<bool>,
}

/// What the connections of a core share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) work: Work,
    pub(super) contexts: Contexts,
    pub(super) feeds: Feeds,
    pub(super) spare_made: SpareMade,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    tenant: Tenant,
}

/// What a connection speaks.
#[derive(Debug)]
enum Tenant {
    Echo,
    Discard,
    Chargen(Chargen),
    /// Boxed: it is the large one.
    Http(Box<Connection>),
    /// The second begins when the first is done with its handshake.
    Https(Box<Tls>, Option<Box<Connection>>),
}

impl Service {
    /// A service without connections.
    pub fn new(config: Config) -> Self {
        let contexts = Contexts::new(config.limits.deflaters);
        let tls = config.tls.clone().map(tls::Core::new);
        let feeds = Feeds::new(config.limits.feeds);
        let core = Core { config, work: Work::default(), contexts, feeds, spare_made: SpareMade::default() };
        Self {
            core,
            tls,
            slots: Vec::new(),
            peers: Peers::default(),
            spare: Vec::new(),
            waiting: VecDeque::new(),
            is_waiting: Vec::new(),
        }
    }

    /// Connections whose memory is kept.
    #[cfg(test)]
    pub(super) fn spare(&self) -> usize {
        self.spare.len()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// A connection whose share of the turn is used up goes on in a later one.
    fn wait_if_exhausted(&mut self, index: u32) {
        let waits = self.core.work.is_exhausted();
        if waits && !core::mem::replace(&mut self.is_waiting[index as usize], true) {
            self.waiting.push_back(index);
        }
    }

    fn tenant_for<C: Conn>(&mut self, conn: &C) -> Option<Tenant> {
        let port = Some(conn.local().port());
        let ports = &self.core.config.ports;
        if port == ports.echo {
            Some(Tenant::Echo)
        } else if port == ports.discard {
            Some(Tenant::Discard)
        } else if port == ports.chargen {
            Some(Tenant::Chargen(Chargen::default()))
        } else if port == ports.http {
            Some(Tenant::Http(begin(&mut self.spare, conn.now())))
        } else if port == ports.https && self.tls.is_some() {
            Some(Tenant::Https(Box::new(Tls::new()), None))
        } else {
            None
        }
    }
}

impl App for Service {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        let Some(tenant) = self.tenant_for(conn) else {
            // A listener was opened on a port that nobody speaks on: a configuration mistake.
            conn.abort();
            return;
        };
        if let Some(limit) = self.core.config.limits.connections_per_peer
            && !self.peers.enter(conn.peer().ip(), limit)
        {
            conn.abort();
            return;
        }
        conn.set_nodelay(true);
        let id = conn.id();
        let index = id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
            self.is_waiting.resize(index + 1, false);
        }
        self.slots[index] = Some(Slot { generation: id.generation, tenant });
        // Chargen speaks first; and data may have come with the handshake's last segment.
        self.ready(conn, Ready { readable: true, ..Ready::default() });
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        self.core.config.clock.look(conn.now());
        let id = conn.id();
        let slot = self.slots.get_mut(id.index as usize).and_then(Option::as_mut);
        let Some(slot) = slot.filter(|slot| slot.generation == id.generation) else { return };
        match &mut slot.tenant {
            Tenant::Echo => raw::echo(conn),
            Tenant::Discard => raw::discard(conn),
            Tenant::Chargen(chargen) => chargen.ready(conn),
            Tenant::Http(connection) => {
                self.core.work.begin();
                connection.ready(conn, ready, &self.core);
                self.wait_if_exhausted(id.index);
            }
            Tenant::Https(tls, connection) => {
                let Some(core) = &mut self.tls else { return };
                let limits = &self.core.config.limits;
                self.core.work.begin();
                if let Some(mut over) = tls.advance(conn, &ready, core, limits) {
                    let connection = connection.get_or_insert_with(|| begin(&mut self.spare, over.now()));
                    connection.ready(&mut over, ready, &self.core);
                }
                tls.settle(conn, limits);
                self.wait_if_exhausted(id.index);
            }
        }
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, _reason: Closed) {
        let id = conn.id();
        let Some(slot) = self.slots.get_mut(id.index as usize) else { return };
        let Some(Slot { tenant, .. }) = slot.take_if(|slot| slot.generation == id.generation) else { return };
        if self.core.config.limits.connections_per_peer.is_some() {
            self.peers.leave(conn.peer().ip());
        }
        let connection = match tenant {
            Tenant::Echo | Tenant::Discard | Tenant::Chargen(_) => None,
            Tenant::Http(connection) => Some(connection),
            Tenant::Https(mut tls, connection) => {
                if let Some(core) = &mut self.tls {
                    tls.closed(conn, core);
                }
                connection
            }
        };
        if let Some(mut connection) = connection {
            connection.closed(conn, &self.core);
            if self.spare.len() < SPARE_MAX {
                self.spare.push(connection);
            }
        }
    }

    /// Wakes as many of those who wait as the turn has shares for.
    fn turn<O: Opener>(&mut self, opener: &mut O) {
        self.core.work.refill();
        if let Some(tls) = &mut self.tls {
            tls.turn(opener);
        }
        for _ in 0..SHARES {
            let Some(index) = self.waiting.pop_front() else { break };
            self.is_waiting[index as usize] = false;
            if let Some(slot) = &self.slots[index as usize] {
                opener.wake(ConnId { index, generation: slot.generation });
            }
        }
    }

    fn told(&mut self, message: &(dyn Any + Send + Sync)) {
        let Some(Renewal { allowed_origins, tls }) = message.downcast_ref() else { return };
        self.core.config.allowed_origins.clone_from(allowed_origins);
        if let (Some(core), Some(server)) = (&mut self.tls, tls) {
            core.renew(server.clone());
        }
    }

    fn deadline(&self) -> Instant {
        let tls = self.tls.as_ref().map_or(Instant::NEVER, tls::Core::deadline);
        if self.waiting.is_empty() { tls } else { Instant::ZERO }
    }

    fn draining<C: Conn>(&mut self, conn: &mut C) {
        self.core.config.clock.look(conn.now());
        let id = conn.id();
        let slot = self.slots.get_mut(id.index as usize).and_then(Option::as_mut);
        let Some(slot) = slot.filter(|slot| slot.generation == id.generation) else { return };
        match &mut slot.tenant {
            Tenant::Http(connection) => {
                self.core.work.begin();
                connection.drain(conn, &self.core);
            }
            Tenant::Https(tls, connection) => {
                let Some(core) = &mut self.tls else { return };
                let limits = &self.core.config.limits;
                self.core.work.begin();
                if let Some(mut over) = tls.drain(conn, core, limits) {
                    let connection = connection.get_or_insert_with(|| begin(&mut self.spare, over.now()));
                    connection.drain(&mut over, &self.core);
                }
                tls.settle(conn, limits);
            }
            Tenant::Echo | Tenant::Discard | Tenant::Chargen(_) => {
                // Nothing says where a raw stream could end well; what still comes is discarded.
                conn.shutdown();
                slot.tenant = Tenant::Discard;
                raw::discard(conn);
            }
        }
    }
}

/// A connection that has just opened, in the memory of one that is over if there is any.
#[expect(clippy::vec_box, reason = "the box is what is kept")]
fn begin(spare: &mut Vec<Box<Connection>>, now: Instant) -> Box<Connection> {
    match spare.pop() {
        Some(mut connection) => {
            connection.reopen(now);
            connection
        }
        None => Box::new(Connection::new(now)),
    }
}
