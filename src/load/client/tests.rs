//! The load generator and byway's own services (or a server that misbehaves), wire to application, in virtual time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};

use byway_datapath::config::Rings;
use byway_datapath::core_loop::CoreLoop;
use byway_datapath::port::{MemPort, Port as _};
use byway_tcp::app::{App, Closed, Conn, Ready};
use byway_tcp::frame::{FramePool, HeapMemory, Owner};
use byway_tcp::stack::{Cidr, Config, Listener, Stack};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::MacAddr;

use super::*;
use crate::app::ws::handshake::accept_key;
use crate::app::{Config as ServiceConfig, Ports, Service};

const RINGS: Rings = Rings { fill: 512, rx: 256, tx: 256, completion: 512 };
const HTTP: u16 = 80;
const ECHO: u16 = 7;
/// One turn of each side, and the way between them.
const STEP: Duration = Duration::from_micros(20);

type Core<A> = CoreLoop<MemPort, HeapMemory, A>;

fn core<A: App>(host: u8, app: A) -> Core<A> {
    let mut config = Config::new(MacAddr([2, 0, 0, 0, 0, host]), [host; 32]);
    config.addresses = vec![Cidr { address: [10, 0, 0, host].into(), prefix: 24 }];
    config.max_connections = 256;
    config.max_time_wait = 4096;
    config.time_wait = Duration::from_secs(1);
    let pool = FramePool::new(HeapMemory::new(4096, 2048));
    CoreLoop::new(MemPort::new(RINGS), Stack::new(config, pool), app)
}

fn carry<A: App, B: App>(from: &mut Core<A>, to: &mut Core<B>) {
    loop {
        let (port, stack) = from.split();
        let Some(frame) = port.take(stack.pool_mut(), <[u8]>::to_vec) else { return };
        let (port, stack) = to.split();
        port.inject(stack.pool_mut(), &frame);
    }
}

fn job(protocol: Protocol) -> Job {
    let port = if protocol == Protocol::Raw { ECHO } else { HTTP };
    Job {
        remote: ([10, 0, 0, 1], port).into(),
        protocol,
        host: "10.0.0.1".into(),
        path: "/hello".into(),
        locals: vec![[10, 0, 0, 2].into()],
        connections: 10,
        pace: Pace::Max,
        cores: 1,
        place: 0,
        duration: Duration::from_millis(50),
        timeout: Duration::from_secs(2),
        payload: if protocol == Protocol::Http { Arc::default() } else { (0..100).collect() },
        fresh: false,
        slots: 256,
        seed: 1,
    }
}

/// Both sides, and the time.
struct World<A> {
    server: Core<A>,
    client: Core<Load>,
    progress: Arc<Progress>,
    reports: Receiver<Report>,
    now: Instant,
    /// The server's core stands still between these.
    stall: (Instant, Instant),
}

impl<A: App> World<A> {
    fn new(job: Job, app: A) -> Self {
        let mut server = core(1, app);
        for port in [HTTP, ECHO] {
            server.stack_mut().listen(Listener { port, backlog: 128 });
        }
        let (progress, (results, reports)) = (Arc::<Progress>::default(), channel());
        let client = core(2, Load::new(job, Arc::clone(&progress), results));
        let now = Instant::from_millis(1000);
        Self { server, client, progress, reports, now, stall: (Instant::NEVER, Instant::NEVER) }
    }

    fn step(&mut self) {
        self.step_by(STEP);
    }

    fn step_by(&mut self, step: Duration) {
        self.now = self.now + step;
        self.client.turn(self.now).expect("turn");
        carry(&mut self.client, &mut self.server);
        if self.now < self.stall.0 || self.now >= self.stall.1 {
            self.server.turn(self.now).expect("turn");
        }
        carry(&mut self.server, &mut self.client);
    }

    fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.step();
        }
    }

    /// To its end, at most a virtual minute; then nothing is left anywhere.
    fn run(mut self) -> Report {
        let until = self.now + Duration::from_secs(60);
        while !self.progress.done.load(Ordering::Relaxed) {
            assert!(self.now < until, "{:?}", self.client.app());
            self.step();
        }
        self.end()
    }

    fn end(mut self) -> Report {
        self.client.drain(self.now);
        (0..500).for_each(|_| self.step_by(Duration::from_millis(1)));
        self.client.abort_all(self.now);
        (0..2500).for_each(|_| self.step_by(Duration::from_millis(1)));
        let Self { client, reports, .. } = self;
        let pool = client.stack().pool();
        client.assert_conserved();
        client.stack().assert_consistent();
        assert_eq!(client.stack().connection_count(), 0);
        assert_eq!(pool.free_count() + pool.count(Owner::Fill), pool.total(), "frames were leaked");
        let app = client.app();
        assert_eq!((app.open, app.connecting, app.busy), (0, 0, 0), "{app:?}");
        assert!(app.places.iter().all(|place| place.id.is_none() && place.wanted.is_none()));
        drop(client);
        reports.recv().expect("the report goes out with the application")
    }
}

fn service() -> Service {
    let ports = Ports { http: Some(HTTP), echo: Some(ECHO), ..Ports::default() };
    Service::new(ServiceConfig { ports, ..ServiceConfig::default() })
}

/// Takes connections and answers nothing, or closes or resets each as soon as something comes.
struct Deaf(fn(&mut dyn Conn));

impl App for Deaf {
    fn opened<C: Conn>(&mut self, _: &mut C) {}
    fn ready<C: Conn>(&mut self, conn: &mut C, _: Ready) {
        while let Some(chunk) = conn.recv() {
            conn.release(chunk);
            (self.0)(conn);
        }
        if conn.recv_finished() {
            conn.shutdown();
        }
    }
    fn closed<C: Conn>(&mut self, _: &mut C, _: Closed) {}
}

#[test]
fn every_protocol_closed_and_open_loop_kept_and_fresh() {
    for protocol in [Protocol::Http, Protocol::WebSocket, Protocol::Raw] {
        for pace in [Pace::Max, Pace::Rate(1000)] {
            for fresh in [false, true] {
                for payload in [100usize, 5000] {
                    let mut job = Job { pace, fresh, ..job(protocol) };
                    job.payload = (0..payload).map(|at| at as u8).collect();
                    let report = World::new(job, service()).run();
                    let what = format!("{protocol:?} {pace:?} fresh {fresh} payload {payload}: {report:?}");
                    assert_eq!(report.errors(), 0, "{what}");
                    match pace {
                        Pace::Max => assert!(report.requests >= 500, "{what}"),
                        Pace::Rate(_) => assert_eq!(report.requests, 50, "{what}"),
                    }
                    // A fresh run opens one connection before it begins.
                    let opened = if fresh { report.requests + 1 } else { 10 };
                    assert_eq!(report.opened, opened, "{what}");
                    assert_eq!(report.latency.len(), report.requests);
                    assert!(report.bytes_received >= report.requests, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_stall_is_in_the_latency_of_all_that_it_held_up() {
    let job = Job {
        pace: Pace::Rate(1000),
        duration: Duration::from_secs(1),
        connections: 2,
        ..job(Protocol::Http)
    };
    let mut world = World::new(job, service());
    world.stall = (Instant::from_millis(1300), Instant::from_millis(1700));
    let report = world.run();
    assert_eq!((report.requests, report.errors()), (1000, 0));
    let waited = |millis: u64| report.latency.len() - report.latency.count_between(0, millis * 1_000_000);
    // Intended 1 ms apart while nobody answered for 400 ms: as many of each waiting time.
    assert!((380..=420).contains(&waited(1)), "{}", waited(1));
    assert!((180..=220).contains(&waited(200)), "{}", waited(200));
    assert!(report.latency.max() >= 390_000_000);
}

#[test]
fn more_than_the_server_can_do_is_told_by_timeouts() {
    // With one connection and 40 µs to each answer there are 25,000 a second, not 100,000.
    let (duration, timeout) = (Duration::from_millis(400), Duration::from_millis(100));
    let job = Job { pace: Pace::Rate(100_000), connections: 1, duration, timeout, ..job(Protocol::Raw) };
    let report = World::new(job, service()).run();
    assert_eq!(
        report.requests + report.errors(),
        40_000,
        "every intended request is accounted for: {report:?}"
    );
    assert_eq!(report.errors(), report.count(Failed::TimedOut));
    assert!(report.requests > 5_000 && report.errors() > 10_000, "{report:?}");
    assert!(report.latency.max() <= 110_000_000, "{report:?}");
}

#[test]
fn servers_that_do_not_answer_cost_a_pause_each_time() {
    let silent: fn(&mut dyn Conn) = |_| {};
    let closing: fn(&mut dyn Conn) = |conn| conn.shutdown();
    let resetting: fn(&mut dyn Conn) = |conn| conn.abort();
    for (how, kind) in [(silent, Failed::TimedOut), (closing, Failed::Closed), (resetting, Failed::Reset)] {
        for (protocol, fresh) in [
            (Protocol::Http, false),
            (Protocol::Http, true),
            (Protocol::WebSocket, false),
            (Protocol::Raw, true),
        ] {
            let (duration, timeout) = (Duration::from_secs(2), Duration::from_millis(300));
            let report = World::new(Job { fresh, duration, timeout, ..job(protocol) }, Deaf(how)).run();
            let what = format!("{kind:?} {protocol:?} fresh {fresh}: {report:?}");
            assert_eq!((report.requests, report.errors()), (0, report.count(kind)), "{what}");
            // Pauses of 100, 200, 400, 800 ms: in 2.6 s a place fails at most five times.
            assert!((20..=60).contains(&report.errors()), "{what}");
        }
    }
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let mut job = job(Protocol::Http);
    job.remote.set_port(81);
    let report = World::new(job, service()).run();
    assert_eq!(report.requests, 0);
    assert!(report.errors() >= 10 && report.errors() == report.count(Failed::Refused), "{report:?}");
}

#[test]
fn stopping_from_outside_ends_it_at_once_with_what_there_is() {
    let mut world =
        World::new(Job { duration: Duration::from_secs(3600), ..job(Protocol::WebSocket) }, service());
    world.run_for(Duration::from_millis(200));
    world.progress.stop.store(true, Ordering::Relaxed);
    world.run_for(Duration::from_millis(30));
    assert!(world.progress.done.load(Ordering::Relaxed));
    let report = world.end();
    assert!(report.requests > 0 && report.errors() == 0, "{report:?}");
    assert!(report.elapsed < Duration::from_millis(250) && !report.elapsed.is_zero());
}

/// An answer to the last request that says goodbye, again and again: a new connection without a pause.
#[test]
fn an_announced_close_is_no_failure() {
    struct Polite;
    impl App for Polite {
        fn opened<C: Conn>(&mut self, _: &mut C) {}
        fn ready<C: Conn>(&mut self, conn: &mut C, _: Ready) {
            while let Some(chunk) = conn.recv() {
                conn.release(chunk);
                let mut answer = conn.alloc().expect("memory");
                conn.append(
                    &mut answer,
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                );
                conn.send(answer).expect("room");
                conn.shutdown();
            }
        }
        fn closed<C: Conn>(&mut self, _: &mut C, _: Closed) {}
    }
    let report = World::new(job(Protocol::Http), Polite).run();
    assert_eq!(report.errors(), 0, "{report:?}");
    assert!(report.requests > 200 && report.opened >= report.requests, "{report:?}");
}

/// Nothing of the client's stays behind in the server's table while it runs.
#[test]
fn as_many_connections_as_were_asked_for_are_open() {
    let mut world = World::new(
        Job { connections: 100, duration: Duration::from_millis(50), ..job(Protocol::Raw) },
        service(),
    );
    world.run_for(Duration::from_millis(40));
    assert_eq!(world.server.stack().connections_by_state()[State::Established as usize], 100);
    assert_eq!(world.progress.open.load(Ordering::Relaxed), 100);
    assert!(world.client.port().held().tx < RINGS.tx);
    world.run();
}

/// A server with more connections than its rings have places hears of every one's end.
#[test]
fn connections_are_closed_in_order_and_a_few_at_a_time() {
    for protocol in [Protocol::Http, Protocol::WebSocket, Protocol::Raw] {
        let job = Job { connections: 250, pace: Pace::Rate(10_000), ..job(protocol) };
        let mut world = World::new(job, service());
        while !world.progress.done.load(Ordering::Relaxed) {
            world.step();
            let states = world.client.stack().connections_by_state();
            let closing =
                [State::FinWait1, State::FinWait2, State::Closing].map(|state| states[state as usize]);
            assert!(closing.iter().sum::<u32>() <= OPENING_MAX, "{closing:?}");
        }
        assert_eq!(world.client.stack().connection_count(), 0);
        assert_eq!(world.server.stack().connection_count(), 0);
        let counters = world.server.stack().counters();
        assert_eq!((counters.tcp_estab_resets, world.server.port().counters().rx_ring_full), (0, 0));
        assert_eq!(world.end().errors(), 0);
    }
}

/// Opens WebSockets as it should, and then says what no server may.
struct Hostile(Vec<u8>);

impl App for Hostile {
    fn opened<C: Conn>(&mut self, _: &mut C) {}
    fn ready<C: Conn>(&mut self, conn: &mut C, _: Ready) {
        while let Some(chunk) = conn.recv() {
            let request = String::from_utf8_lossy(conn.bytes(&chunk)).into_owned();
            conn.release(chunk);
            let Some(key) = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")) else {
                continue;
            };
            let mut answer =
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".to_vec();
            answer.extend_from_slice(b"Sec-WebSocket-Accept: ");
            answer.extend_from_slice(&accept_key(key.as_bytes()));
            answer.extend_from_slice(b"\r\n\r\n");
            answer.extend_from_slice(&self.0);
            for piece in answer.chunks(1000) {
                let mut chunk = conn.alloc().expect("memory");
                conn.append(&mut chunk, piece);
                conn.send(chunk).expect("room");
            }
        }
        if conn.recv_finished() {
            conn.shutdown();
        }
    }
    fn closed<C: Conn>(&mut self, _: &mut C, _: Closed) {}
}

#[test]
fn w2_w3_w5_a_hostile_server_is_left_and_counted() {
    let payload: Vec<u8> = (0..100).collect();
    let masked = [&[0x82, 0x80 | 100, 0, 0, 0, 0], &payload[..]].concat();
    for frames in [
        masked,
        // Compressed, which nobody asked for.
        b"\xc2\x05hello".to_vec(),
        b"\x83\x00".to_vec(),
        b"\x8b\x00".to_vec(),
        b"\x09\x00".to_vec(),
        b"\x89\x7e\x00\x7e".to_vec(),
        b"\x82\x7e\x00\x05hello".to_vec(),
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x82\x7f\x00\x00\x00\x00\xff\xff\xff\xff".to_vec(),
        b"\x80\x00".to_vec(),
        b"\x02\x01\x00\x82\x00".to_vec(),
        // An echo of something else, and one before there was anything to echo.
        b"\x82\x01x".to_vec(),
    ] {
        let report = World::new(job(Protocol::WebSocket), Hostile(frames.clone())).run();
        let what = format!("{frames:02x?}: {report:?}");
        assert_eq!((report.requests, report.errors()), (0, report.count(Failed::Protocol)), "{what}");
        assert!(report.errors() >= 10, "{what}");
    }
    // Pings without end are answered as far as the server reads, and don't hinder; an endless text of nothing neither.
    for frames in [b"\x89\x7d".iter().copied().chain([7; 125]).collect::<Vec<u8>>(), b"\x01\x00".to_vec()] {
        let mut flood = frames.repeat(50);
        if frames[0] == 1 {
            flood = [&frames[..], &b"\x00\x00".repeat(2000)].concat();
        }
        let report = World::new(job(Protocol::WebSocket), Hostile(flood)).run();
        assert_eq!(report.requests, 0);
        assert_eq!(report.errors(), report.count(Failed::TimedOut), "{report:?}");
    }
}
