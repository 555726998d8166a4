//! `Service`: the application of one core; which port speaks what.

use byway_tcp::app::{App, Closed, Conn, Opener, Ready};
use byway_tcp::time::Instant;

use super::http::connection::Connection;
use super::limits::Limits;
use super::raw::{self, Chargen};
use super::tls::{Core, Server, Tls};

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
    /// Pages that may open a WebSocket, as browsers name them (`https://example.org`); none
    /// listed means all may.
    pub allowed_origins: Vec<String>,
    /// Certificate and key of [`Ports::https`].
    pub tls: Option<Server>,
}

/// All connections of one core.
///
/// State lies in a slab by [`ConnId::index`](byway_tcp::app::ConnId); the generation tells a
/// slot's tenants apart.
#[derive(Debug)]
pub struct Service {
    config: Config,
    tls: Option<Core>,
    slots: Vec<Option<Slot>>,
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
    /// Boxed: it is the large one, and opened per connection.
    Http(Box<Connection>),
    /// The second begins when the first is done with its handshake.
    Https(Box<Tls>, Option<Box<Connection>>),
}

impl Service {
    /// A service without connections.
    pub fn new(config: Config) -> Self {
        let tls = config.tls.clone().map(Core::new);
        Self { config, tls, slots: Vec::new() }
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    fn tenant_for<C: Conn>(&self, conn: &C) -> Option<Tenant> {
        let port = Some(conn.local().port());
        let ports = &self.config.ports;
        if port == ports.echo {
            Some(Tenant::Echo)
        } else if port == ports.discard {
            Some(Tenant::Discard)
        } else if port == ports.chargen {
            Some(Tenant::Chargen(Chargen::default()))
        } else if port == ports.http {
            Some(Tenant::Http(Box::new(Connection::new(conn.now()))))
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
        conn.set_nodelay(true);
        let id = conn.id();
        let index = id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Slot { generation: id.generation, tenant });
        // Chargen speaks first; and data may have come with the handshake's last segment.
        self.ready(conn, Ready { readable: true, ..Ready::default() });
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        let id = conn.id();
        let slot = self.slots.get_mut(id.index as usize).and_then(Option::as_mut);
        let Some(slot) = slot.filter(|slot| slot.generation == id.generation) else { return };
        match &mut slot.tenant {
            Tenant::Echo => raw::echo(conn),
            Tenant::Discard => raw::discard(conn),
            Tenant::Chargen(chargen) => chargen.ready(conn),
            Tenant::Http(connection) => connection.ready(conn, ready, &self.config),
            Tenant::Https(tls, connection) => {
                let Some(core) = &mut self.tls else { return };
                if let Some(mut over) = tls.advance(conn, &ready, core, &self.config.limits) {
                    let connection = connection.get_or_insert_with(|| Box::new(Connection::new(over.now())));
                    connection.ready(&mut over, ready, &self.config);
                }
                tls.settle(conn, &self.config.limits);
            }
        }
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, _reason: Closed) {
        let id = conn.id();
        let Some(slot) = self.slots.get_mut(id.index as usize) else { return };
        let Some(slot) = slot.take_if(|slot| slot.generation == id.generation) else { return };
        match slot.tenant {
            Tenant::Echo | Tenant::Discard | Tenant::Chargen(_) => {}
            Tenant::Http(mut connection) => connection.closed(conn),
            Tenant::Https(mut tls, connection) => {
                if let Some(mut connection) = connection {
                    connection.closed(conn);
                }
                if let Some(core) = &mut self.tls {
                    tls.closed(conn, core);
                }
            }
        }
    }
    fn draining<C: Conn>(&mut self, conn: &mut C) {
        let id = conn.id();
        let slot = self.slots.get_mut(id.index as usize).and_then(Option::as_mut);
        let Some(slot) = slot.filter(|slot| slot.generation == id.generation) else { return };
        match &mut slot.tenant {
            Tenant::Http(connection) => connection.drain(conn, &self.config),
            Tenant::Https(tls, connection) => {
                let Some(core) = &mut self.tls else { return };
                if let Some(mut over) = tls.drain(conn, core, &self.config.limits) {
                    let connection = connection.get_or_insert_with(|| Box::new(Connection::new(over.now())));
                    connection.drain(&mut over, &self.config);
                }
                tls.settle(conn, &self.config.limits);
            }
            Tenant::Echo | Tenant::Discard | Tenant::Chargen(_) => {
                // Nothing says where a raw stream could end well; what still comes is discarded.
                conn.shutdown();
                slot.tenant = Tenant::Discard;
                raw::discard(conn);
            }
        }
    }

    fn turn<O: Opener>(&mut self, opener: &mut O) {
        if let Some(core) = &mut self.tls {
            core.turn(opener);
        }
    }

    fn deadline(&self) -> Instant {
        self.tls.as_ref().map_or(Instant::NEVER, Core::deadline)
    }
}
