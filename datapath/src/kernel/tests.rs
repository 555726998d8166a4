//! A loop turned by hand, and clients on loopback.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use byway_tcp::app::{App, Closed, Conn, ConnId, Keepalive, Opener, Ready};
use byway_tcp::stack::ConnectError;
use byway_tcp::time::Duration;
use rustix::event::epoll::EventFlags;
use rustix::net::{SendFlags, send, sockopt};

use super::Plan;
use super::connection::Connection;
use super::event_loop::EventLoop;
use super::patience::FIN_TIMEOUT;
use super::serving::STALLED;
use crate::clock::Clock;
use crate::control::Waker;

/// What is done to a connection that opens.
type Script = fn(&mut dyn FnMut(Act));

/// What an application does when a connection opens, and whether it echoes.
#[derive(Default)]
struct Scripted {
    open: Option<Script>,
    echoes: bool,
    sends: bool,
    wakes: Vec<ConnId>,
    aborts: Vec<ConnId>,
    connects: Vec<(Option<IpAddr>, SocketAddr)>,
    connected: Vec<Result<ConnId, ConnectError>>,
    opened: Vec<ConnId>,
    received: Vec<u8>,
    readies: Vec<Ready>,
    closed: Vec<Closed>,
}

/// [`Conn`] isn't for `dyn`: what a script asks of it.
enum Act {
    Nodelay,
    Dscp(u8),
    Keepalive(Keepalive),
    UserTimeout(Duration),
    Linger(Duration),
    Timer(Duration),
    Shutdown,
    Abort,
}

impl App for Scripted {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        self.opened.push(conn.id());
        let mut act = |act| match act {
            Act::Nodelay => conn.set_nodelay(true),
            Act::Dscp(dscp) => conn.set_dscp(dscp),
            Act::Keepalive(keepalive) => conn.set_keepalive(Some(keepalive)),
            Act::UserTimeout(limit) => conn.set_user_timeout(Some(limit)),
            Act::Linger(limit) => conn.set_linger(Some(limit)),
            Act::Timer(after) => conn.set_timer(Some(conn.now() + after)),
            Act::Shutdown => conn.shutdown(),
            Act::Abort => conn.abort(),
        };
        if let Some(open) = self.open {
            open(&mut act);
        }
        self.fill(conn);
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        self.readies.push(ready);
        while let Some(chunk) = conn.recv() {
            self.received.extend_from_slice(conn.bytes(&chunk));
            if !self.echoes {
                conn.release(chunk);
            } else if let Err(refused) = conn.send(chunk) {
                conn.release(refused);
            }
        }
        self.fill(conn);
        if conn.recv_finished() {
            conn.shutdown();
        }
    }

    fn closed<C: Conn>(&mut self, _: &mut C, reason: Closed) {
        self.closed.push(reason);
    }

    fn turn<O: Opener>(&mut self, opener: &mut O) {
        for (local, remote) in self.connects.drain(..) {
            self.connected.push(match local {
                Some(local) => opener.connect_from(local, remote),
                None => opener.connect(remote),
            });
        }
        self.wakes.drain(..).for_each(|id| opener.wake(id));
        self.aborts.drain(..).for_each(|id| opener.abort(id));
    }
}

impl Scripted {
    /// Sends as much as it may, if it is one that sends.
    fn fill<C: Conn>(&self, conn: &mut C) {
        while self.sends && conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { return };
            conn.append(&mut chunk, &[7; 10_000]);
            if let Err(refused) = conn.send(chunk) {
                return conn.release(refused);
            }
        }
    }
}

struct Bench {
    event_loop: EventLoop<Scripted>,
    waker: Waker,
    endpoint: SocketAddr,
}

impl Bench {
    fn new(app: Scripted, frame_count: u32) -> Self {
        let plan = Plan {
            cores: vec![0],
            endpoints: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            backlog: 16,
            max_connections: 8,
            frame_count,
            congestion: None,
            keepalive: None,
        };
        let waker = Waker::new().expect("waker");
        let event_loop = EventLoop::new(&plan, app, &waker).expect("listens");
        let endpoint = rustix::net::getsockname(&event_loop.listeners[0]).expect("bound");
        let endpoint = endpoint.try_into().expect("IP");
        Self { event_loop, waker, endpoint }
    }

    fn app(&self) -> &Scripted {
        &self.event_loop.app
    }

    /// A client, accepted.
    fn connect(&mut self) -> TcpStream {
        let before = self.app().opened.len();
        let stream = TcpStream::connect(self.endpoint).expect("connects");
        self.turn_until(|bench| bench.app().opened.len() > before);
        stream
    }

    fn turn(&mut self) {
        self.event_loop.turn(Clock.now() + Duration::from_millis(5), &self.waker).expect("turns");
        self.event_loop.shared.pool.assert_conserved();
    }

    fn turn_until(&mut self, enough: impl Fn(&Self) -> bool) {
        let patience = Clock.now() + Duration::from_secs(30);
        while !enough(self) {
            assert!(Clock.now() < patience, "it never comes");
            self.turn();
        }
    }

    fn connection(&mut self, index: usize) -> &mut Connection {
        self.event_loop.slots[index].connection.as_mut().expect("open")
    }

    /// All is given back.
    fn assert_empty(&self) {
        let shared = &self.event_loop.shared;
        assert_eq!(shared.pool.free_count(), shared.pool.total());
        assert_eq!(self.event_loop.connection_count(), 0);
        assert_eq!((shared.states.now()[1], shared.states.now().iter().sum::<u32>()), (1, 1));
        shared.states.assert_consistent();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.event_loop.abort_all();
        }
    }
}

fn scripted(open: Script) -> Scripted {
    Scripted { open: Some(open), ..Scripted::default() }
}

#[test]
fn options_reach_the_socket() {
    let mut bench = Bench::new(
        scripted(|act| {
            act(Act::Nodelay);
            act(Act::Dscp(46));
            let (idle, interval) = (Duration::from_millis(1_500), Duration::from_secs(7));
            act(Act::Keepalive(Keepalive { idle, interval, probes: 3 }));
            act(Act::UserTimeout(Duration::from_secs(9)));
        }),
        64,
    );
    let _client = bench.connect();
    let socket = bench.connection(0).fd();
    assert_eq!(sockopt::tcp_nodelay(socket), Ok(true));
    assert_eq!(sockopt::ip_tos(socket), Ok(46 << 2));
    assert_eq!(sockopt::socket_keepalive(socket), Ok(true));
    // The kernel counts whole seconds.
    assert_eq!(sockopt::tcp_keepidle(socket), Ok(Duration::from_secs(2).into()));
    assert_eq!(sockopt::tcp_keepintvl(socket), Ok(Duration::from_secs(7).into()));
    assert_eq!(sockopt::tcp_keepcnt(socket), Ok(3));
    assert_eq!(sockopt::tcp_user_timeout(socket), Ok(9_000));
}

#[test]
fn a_congestion_control_that_is_not_there_is_named() {
    let failure = super::check_congestion("nosuch").expect_err("not there").to_string();
    assert!(failure.contains("'nosuch'") && failure.contains("tcp_allowed"), "{failure}");
    assert!(super::own_congestion().is_some());
}

#[test]
fn a_connection_that_both_sides_close_is_finished() {
    let mut bench = Bench::new(Scripted { echoes: true, ..Scripted::default() }, 64);
    let mut client = bench.connect();
    client.write_all(b"there").expect("writes");
    client.shutdown(Shutdown::Write).expect("half-closes");
    bench.turn_until(|bench| !bench.app().closed.is_empty());
    assert_eq!(bench.app().closed, [Closed::Finished]);
    let mut back = String::new();
    client.read_to_string(&mut back).expect("reads");
    assert_eq!(back, "there");
    bench.assert_empty();
}

#[test]
fn aborts_and_lingers_of_zero_reset() {
    let scripts: [Script; 2] = [
        |act| act(Act::Abort),
        |act| {
            act(Act::Linger(Duration::ZERO));
            act(Act::Shutdown);
        },
    ];
    for script in scripts {
        let mut bench = Bench::new(scripted(script), 64);
        let mut client = bench.connect();
        bench.turn_until(|bench| !bench.app().closed.is_empty());
        assert_eq!(bench.app().closed, [Closed::Aborted]);
        assert_eq!(
            client.read(&mut [0; 1]).expect_err("a reset").kind(),
            std::io::ErrorKind::ConnectionReset
        );
        bench.assert_empty();
    }
}

#[test]
fn a_peer_that_resets_is_told_as_reset() {
    let mut bench = Bench::new(Scripted { sends: true, ..Scripted::default() }, 64);
    let client = bench.connect();
    // With octets unread, closing resets.
    drop(client);
    bench.turn_until(|bench| !bench.app().closed.is_empty());
    assert_eq!(bench.app().closed, [Closed::Reset]);
    bench.assert_empty();
}

#[test]
fn a_timer_goes_off_once() {
    let mut bench = Bench::new(scripted(|act| act(Act::Timer(Duration::from_millis(20)))), 64);
    let _client = bench.connect();
    bench.turn_until(|bench| bench.app().readies.iter().any(|ready| ready.timer));
    (0..10).for_each(|_| bench.turn());
    assert_eq!(bench.app().readies.iter().filter(|ready| ready.timer).count(), 1);
}

#[test]
fn the_application_wakes_and_aborts_by_name() {
    let mut bench = Bench::new(Scripted::default(), 64);
    let _client = bench.connect();
    let id = bench.app().opened[0];
    let stale = ConnId { generation: id.generation + 1, ..id };
    bench.event_loop.app.wakes = vec![stale, id];
    bench.turn();
    assert_eq!(bench.app().readies.iter().filter(|ready| ready.woken).count(), 1);
    bench.event_loop.app.aborts = vec![stale];
    bench.turn();
    assert!(bench.app().closed.is_empty());
    bench.event_loop.app.aborts = vec![id];
    bench.turn();
    assert_eq!(bench.app().closed, [Closed::Aborted]);
    bench.assert_empty();
}

/// A read up to an urgent octet finds less than there is, which isn't the end of what there is.
#[test]
fn urgent_octets_stay_in_line() {
    let mut bench = Bench::new(Scripted::default(), 64);
    let mut client = bench.connect();
    client.write_all(b"before").expect("writes");
    assert_eq!(send(&client, b"!", SendFlags::OOB), Ok(1));
    client.write_all(b"behind").expect("writes");
    bench.turn_until(|bench| bench.app().received.len() >= 13);
    assert_eq!(bench.app().received, b"before!behind");
}

#[test]
fn an_event_of_an_earlier_tenant_is_nobodys() {
    let mut bench = Bench::new(Scripted::default(), 64);
    drop(bench.connect());
    bench.turn_until(|bench| !bench.app().closed.is_empty());
    let _client = bench.connect();
    let [earlier, later] = bench.app().opened[..] else { panic!("two were opened") };
    assert_eq!((earlier.index, later.index), (0, 0));
    let before = bench.app().readies.len();
    bench.event_loop.on_event(earlier, EventFlags::IN | EventFlags::HUP);
    assert_eq!(bench.app().readies.len(), before);
    bench.event_loop.on_event(later, EventFlags::IN);
    assert_eq!(bench.app().readies.len(), before + 1);
}

/// T5: a peer that keeps its side open for ever.
#[test]
fn a_peer_that_never_closes_is_given_up() {
    let mut bench = Bench::new(scripted(|act| act(Act::Shutdown)), 64);
    let _client = bench.connect();
    let now = bench.event_loop.shared.now;
    let connection = bench.connection(0);
    assert_eq!((connection.expire(now), connection.over), (false, None));
    let limit = now + FIN_TIMEOUT;
    assert_eq!(connection.deadline(), limit);
    connection.expire(limit);
    assert_eq!(connection.over, Some(Closed::TimedOut));
    bench.event_loop.finish(0);
    assert_eq!(bench.event_loop.shared.counters.tcp_abort_on_timeout, 1);
    bench.assert_empty();
}

/// T3: peers that read nothing hold all frames that applications may have, until others wait for them.
#[test]
fn who_takes_nothing_gives_way_to_who_starves() {
    let mut bench = Bench::new(Scripted { sends: true, ..Scripted::default() }, 64);
    let mut clients: Vec<_> = (0..8).map(|_| bench.connect()).collect();
    // The kernel's buffers take some megabytes of each first.
    bench.turn_until(|bench| {
        let waiting = |slot: &super::event_loop::Slot| {
            slot.connection.as_ref().is_some_and(|connection| connection.is_waiting())
        };
        bench.event_loop.slots.iter().all(waiting)
    });
    let (mut before, mut quiet) = (0, 0);
    while quiet < 20 {
        bench.turn();
        let sent = bench.event_loop.shared.sockets.octets_out;
        quiet = if sent == before { quiet + 1 } else { 0 };
        before = sent;
    }
    let held = bench.event_loop.shared.pool.total() - bench.event_loop.shared.pool.free_count();
    assert!((8..=56).contains(&held), "{held}");
    // One of them reads on meanwhile.
    let mut octets = vec![0; 1 << 16];
    while bench.event_loop.shared.sockets.octets_out == before {
        assert!(clients[0].read(&mut octets).expect("reads") > 0);
        bench.turn();
    }
    let since = bench.event_loop.shared.now;
    // The one that moved in this very turn isn't due yet.
    bench.event_loop.relieve_at(since + STALLED - Duration::from_nanos(1));
    assert_eq!(bench.app().closed, [Closed::Aborted; 7]);
    assert_eq!(bench.event_loop.shared.counters.tcp_abort_on_memory, 7);
    assert_eq!(bench.event_loop.connection_count(), 1);
    bench.event_loop.abort_all();
    bench.assert_empty();
}

/// T4: who takes an octet now and then moves, but would keep the frames for ever.
#[test]
fn who_drips_is_told_from_who_is_busy() {
    let mut bench = Bench::new(Scripted { sends: true, ..Scripted::default() }, 64);
    let _client = bench.connect();
    bench.turn_until(|bench| {
        bench.event_loop.slots[0].connection.as_ref().is_some_and(Connection::is_waiting)
    });
    let (second, connection) = (Duration::from_secs(1), bench.connection(0));
    let (now, taken) = (connection.moved_at, connection.sent);
    for (octets, slow) in [(taken, false), (1, true)] {
        connection.paced = (now - second, taken - octets);
        assert_eq!(connection.is_too_slow(second, 60 * second, now), slow, "{octets} octets");
    }
}

/// S1.1: an active open, octets both ways, and the close; the loop's own listener isn't in it.
#[test]
fn the_application_opens_connections() {
    let mut bench = Bench::new(Scripted { echoes: true, ..Scripted::default() }, 64);
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let remote = server.local_addr().expect("bound");
    let other = IpAddr::from([127, 0, 0, 2]);
    for local in [None, Some(other)] {
        bench.event_loop.app.connects.push((local, remote));
        let before = bench.app().opened.len();
        bench.turn_until(|bench| bench.app().opened.len() > before);
        let id = *bench.app().opened.last().expect("opened");
        assert_eq!(bench.app().connected.last(), Some(&Ok(id)));
        let (mut stream, peer) = server.accept().expect("accepts");
        assert_eq!(bench.connection(id.index as usize).local, peer);
        if let Some(local) = local {
            assert_eq!(peer.ip(), local);
        }
        stream.write_all(b"to and fro").expect("writes");
        stream.shutdown(Shutdown::Write).expect("half-closes");
        let before = bench.app().closed.len();
        bench.turn_until(|bench| bench.app().closed.len() > before);
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("reads");
        assert_eq!(back, b"to and fro");
    }
    assert_eq!(bench.app().closed, [Closed::Finished; 2]);
    assert_eq!(bench.event_loop.shared.counters.tcp_active_opens, 2);
    bench.assert_empty();
}

/// What can't be opened ends as over byway's own TCP, and leaves nothing.
#[test]
fn opens_that_fail_are_told() {
    let mut bench = Bench::new(Scripted::default(), 64);
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let nobody = gone.local_addr().expect("bound");
    drop(gone);
    let far = IpAddr::from([192, 0, 2, 1]);
    bench.event_loop.app.connects = vec![
        (None, nobody),
        (None, ([0, 0, 0, 0], 80).into()),
        (None, ([127, 0, 0, 1], 0).into()),
        (Some(far), nobody),
        (Some("::1".parse().expect("IPv6")), nobody),
    ];
    bench.turn_until(|bench| !bench.app().closed.is_empty());
    assert_eq!(bench.app().closed, [Closed::Reset], "refused");
    assert!(bench.app().opened.is_empty());
    use ConnectError::{BadRemote, NoAddress};
    assert_eq!(bench.app().connected[1..], [Err(BadRemote), Err(BadRemote), Err(NoAddress), Err(NoAddress)]);
    bench.assert_empty();
}

/// P2: no more than `max_connections`; and one that is given up before it is open is told of its end, too.
#[test]
fn opens_are_bounded_and_can_be_given_up() {
    let mut bench = Bench::new(Scripted::default(), 64);
    let remote = bench.endpoint;
    // Nobody accepts them before the next turn: the kernel does.
    bench.event_loop.app.connects = vec![(None, remote); 9];
    bench.turn_until(|bench| bench.app().connected.len() == 9);
    let full = bench.app().connected.iter().filter(|result| **result == Err(ConnectError::TableFull)).count();
    assert_eq!(full, 1);
    bench.event_loop.app.aborts = bench.app().connected.iter().flatten().copied().collect();
    bench.turn_until(|bench| bench.app().closed.len() >= 8);
    assert!(bench.app().closed[..8].iter().all(|&how| how == Closed::Aborted), "{:?}", bench.app().closed);
    bench.turn_until(|bench| bench.event_loop.connection_count() == 0);
}
