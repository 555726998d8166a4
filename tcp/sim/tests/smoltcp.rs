//! byway against smoltcp, the most used TCP/IP stack in Rust, over the simulator's links: somebody else's reading of
//! the RFCs at the other end.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use byway_sim::app::{Plan, Script, Step};
use byway_sim::host::{Host, HostSpec};
use byway_sim::link::{Impairment, Link, LinkSpec};
use byway_sim::router::{Topology, host_ip, host_mac};
use byway_sim::stream::Stream;
use byway_tcp::app::Closed;
use byway_tcp::stack::{Cidr, Config, Listener};
use byway_tcp::time::{Duration, Instant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};

const PORT: u16 = 1000;
const BUFFER: usize = 32 << 10;

/// What smoltcp is given, and what it gives.
#[derive(Default)]
struct Wire {
    rx: VecDeque<Vec<u8>>,
    tx: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.rx.pop_front()?), Sending(&mut self.tx)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// smoltcp with one connection, which sends a stream, closes, and reads to the end.
struct Smol {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    output: Stream,
    sent: u64,
    total: u64,
    input: Stream,
    received: u64,
    closed: bool,
    /// It waits for the peer's FIN before it sends its own.
    closes_last: bool,
}

impl Smol {
    fn new(seed: u64, output: (Stream, u64), input: Stream) -> Self {
        let mut wire = Wire::default();
        let mut config = InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(host_mac(1).0)));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, SmolInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for (v6, prefix) in [(false, 24), (true, 64)] {
                let address = IpAddress::from(host_ip(Topology::Switch, 1, v6));
                addresses.push(IpCidr::new(address, prefix)).expect("room for two addresses");
            }
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(seed.is_multiple_of(2));
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let (output, total) = output;
        Self {
            wire,
            interface,
            sockets,
            handle,
            output,
            sent: 0,
            total,
            input,
            received: 0,
            closed: false,
            closes_last: false,
        }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn connect(&mut self, remote: SocketAddr) {
        let remote = IpEndpoint::new(IpAddress::from(remote.ip()), remote.port());
        let socket = self.sockets.get_mut::<tcp::Socket>(self.handle);
        socket.connect(self.interface.context(), remote, 50_000).expect("connect");
    }

    fn turn(&mut self, now: Instant) {
        let at = SmolInstant::from_micros((now.as_nanos() / 1_000) as i64);
        // Until what the application does leads to nothing more to send.
        for _ in 0..3 {
            self.interface.poll(at, &mut self.wire, &mut self.sockets);
            self.act();
        }
    }

    fn act(&mut self) {
        let (output, input) = (self.output, self.input);
        let (mut sent, mut received, total) = (self.sent, self.received, self.total);
        let socket = self.sockets.get_mut::<tcp::Socket>(self.handle);
        while socket.can_recv() {
            let read = socket.recv(|octets| {
                assert_eq!(input.differs(received, octets), None, "smoltcp read something else");
                (octets.len(), octets.len())
            });
            received += read.expect("can_recv") as u64;
        }
        while socket.can_send() && sent < total {
            let wrote = socket.send(|room| {
                let len = room.len().min((total - sent) as usize);
                output.fill(sent, &mut room[..len]);
                (len, len)
            });
            sent += wrote.expect("can_send") as u64;
        }
        let in_turn = !self.closes_last || !socket.may_recv();
        if sent == total && in_turn && socket.may_send() && !self.closed {
            socket.close();
            self.closed = true;
        }
        (self.sent, self.received) = (sent, received);
    }

    fn next_turn(&mut self, now: Instant) -> Instant {
        let at = SmolInstant::from_micros((now.as_nanos() / 1_000) as i64);
        match self.interface.poll_at(at, &self.sockets) {
            Some(next) => {
                // Its clock is coarser; it is called when its microsecond has begun.
                let nanos = next.total_micros().max(0) as u64 * 1_000;
                Instant::from_nanos(nanos).max(now + Duration::from_micros(1))
            }
            None => Instant::NEVER,
        }
    }
}

/// One run: both sides, the links, and what flies.
struct Run {
    byway: Host,
    smol: Smol,
    links: [Link; 2],
    rng: SmallRng,
    flying: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    serial: u64,
    now: Instant,
    heals: Instant,
    closes_first: bool,
}

fn host(rng: &mut SmallRng) -> Host {
    let mut config = Config::new(host_mac(0), rng.random());
    for (v6, prefix) in [(false, 24), (true, 64)] {
        config.addresses.push(Cidr { address: host_ip(Topology::Switch, 0, v6), prefix });
    }
    config.max_connections = 16;
    config.receive_buffer = rng.random_range(8 << 10..256 << 10);
    config.keepalive = Some(Duration::from_secs(20));
    let spec = HostSpec {
        scatter: None,
        config,
        frames: 512,
        fill_ring: 32,
        tx_ring: 64,
        completion: Duration::from_micros(10),
        coalesce: Duration::ZERO,
    };
    let mut host = Host::new(spec, None);
    host.stack.listen(Listener { port: PORT, backlog: 8 });
    host
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let [ours, theirs] = [0, 1].map(|way| Stream::new(seed, way));
        let [sends, receives] = [0, 1].map(|_| rng.random_range(0..200_000u64));
        let v6 = seed / 2 % 2 == 1;
        let byway_opens = seed.is_multiple_of(2);
        let now = Instant::from_millis(1);
        let mut byway = host(&mut rng);
        let mut smol = Smol::new(seed, (theirs, receives), ours);
        let share = [0.0, 0.01, 0.03, 0.08][seed as usize / 4 % 4];
        let closes_first = rng.random_bool(0.5);
        // smoltcp 0.12 stops its retransmission timer when a FIN arrives, and at every ACK in CLOSE-WAIT, CLOSING and
        // LAST-ACK (socket/tcp.rs, `set_for_idle`): what it loses from then on is lost for good. So the first
        // FIN is byway's only where nothing is lost any more.
        let steps = match (closes_first, share > 0.0) {
            (true, false) => vec![Step::Send(sends), Step::Close, Step::Eof],
            (true, true) => vec![
                Step::Send(sends),
                Step::Await(receives),
                Step::Pause(Duration::from_secs(1)),
                Step::Close,
                Step::Eof,
            ],
            (false, _) => vec![Step::Send(sends), Step::Eof, Step::Close],
        };
        smol.closes_last = closes_first && share > 0.0;
        let script =
            Script { steps, echo: false, nodelay: rng.random_bool(0.5), write: rng.random_range(100..1_900) };
        let plan = Plan { flow: 0, client: byway_opens, script, output: ours, input: (theirs, receives) };
        if byway_opens {
            smol.socket().listen(PORT).expect("listen");
            byway
                .connect(SocketAddr::new(host_ip(Topology::Switch, 1, v6), PORT), plan, now)
                .expect("connect");
        } else {
            let client: IpAddr = host_ip(Topology::Switch, 1, v6);
            byway.apps.expected.insert((SocketAddr::new(client, 50_000), PORT), plan);
            smol.connect(SocketAddr::new(host_ip(Topology::Switch, 0, v6), PORT));
        }
        byway.wake_at = now;
        let spec = LinkSpec {
            rate: rng.random_range(5_000_000..500_000_000),
            queue: 200_000,
            delay: Duration::from_micros(rng.random_range(10..30_000)),
            jitter: Duration::ZERO,
            mark: None,
        };
        let impairment = Impairment {
            loss: share,
            duplicate: share,
            reorder: share,
            reorder_by: 2 * spec.delay,
            corrupt: share / 2.0,
            bursts: None,
        };
        let links = [(); 2].map(|()| {
            let mut link = Link::new(spec);
            link.impairment = impairment;
            link
        });
        let heals = now + Duration::from_secs(20);
        Self { byway, smol, links, rng, flying: BTreeMap::new(), serial: 0, now, heals, closes_first }
    }

    fn send(&mut self, from_byway: bool, frame: Vec<u8>) {
        let link = &mut self.links[usize::from(from_byway)];
        for delivery in link.offer(frame, self.now, &mut self.rng).into_iter().flatten() {
            self.serial += 1;
            self.flying.insert((delivery.at, self.serial), (from_byway, delivery.frame));
        }
    }

    /// One moment: what arrives then, and what both sides do about it.
    fn step(&mut self) {
        let arrival = self.flying.keys().next().map_or(Instant::NEVER, |key| key.0);
        let next = arrival.min(self.byway.wake_at).min(self.smol.next_turn(self.now));
        self.now = self.now.max(next);
        let all_here = self.byway.apps.ends.values().any(|end| end.received == self.smol.total);
        if self.now >= self.heals || (self.closes_first && all_here) {
            self.links.iter_mut().for_each(|link| link.impairment = Impairment::default());
        }
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from_byway, frame) = entry.remove();
            if from_byway {
                self.smol.wire.rx.push_back(frame);
            } else {
                self.byway.arrive(frame, false);
            }
        }
        let mut out = Vec::new();
        self.byway.turn(self.now, &mut out);
        assert_eq!(self.byway.apps.wrong, Vec::<String>::new());
        out.into_iter().for_each(|frame| self.send(true, frame));
        self.smol.turn(self.now);
        for frame in core::mem::take(&mut self.smol.wire.tx) {
            self.send(false, frame);
        }
    }

    fn is_over(&mut self) -> bool {
        let open = self.smol.socket().is_open() && self.smol.socket().state() != tcp::State::TimeWait;
        !open && self.byway.apps.ends.len() == 1 && self.byway.apps.closed == 1
    }
}

/// S1.1 S2.1 S5.5: streams of both directions arrive whole, and both sides close in order, whoever opened.
#[test]
fn s5_5_streams_between_byway_and_smoltcp_are_whole() {
    for seed in 0..200 {
        let mut run = Run::new(seed);
        let end = run.now + Duration::from_secs(600);
        while !run.is_over() {
            run.step();
            let states = (run.smol.socket().state(), run.smol.sent, run.smol.received);
            assert!(run.now < end, "seed {seed} is stuck: {states:?} {:?}", run.byway.apps.ends);
        }
        let end = run.byway.apps.ends.values().next().expect("one connection");
        assert_eq!(end.closed, Some(Closed::Finished), "seed {seed}: {}", end.describe());
        assert!(end.eof && end.received == run.smol.total, "seed {seed}: {}", end.describe());
        assert_eq!((run.smol.sent, run.smol.received), (run.smol.total, end.sent), "seed {seed}");
        assert!(end.sent == end.plan.script.total(), "seed {seed}");
        let now = run.now;
        run.byway.check(now).expect("byway's invariants");
    }
}
