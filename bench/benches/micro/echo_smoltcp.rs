//! The bench of `echo.rs` with smoltcp in byway's place, to print beside: the same client, segments and
//! options, the same split into what is measured and what isn't.
//!
//! smoltcp is made for devices with a handful of sockets, and is shown at its best here: the application
//! knows which sockets the batch was for, `poll_egress` is called no more often than the answers need,
//! Nagle is off, and its virtual NIC lends it buffers instead of copying. It keeps octets, not segments:
//! a batch of 64 requests on one connection is answered in three segments, where byway sends 64. It
//! looks at every socket for every segment and every turn, so 1,000 connections are as far as this goes.

use std::time::Duration;

use byway_bench::client::{Client, GATEWAY_IP, SERVER_IP, SERVER_MAC, SERVER_PORT};
use byway_bench::{PAYLOAD, RING, Shuffled, scaled, timed};
use byway_tcp::time::Instant;
use criterion::{BenchmarkId, Criterion, Throughput};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpCidr};

/// Octets of each socket's buffers: what a batch on one connection needs.
const BUFFER: usize = 64 * PAYLOAD;
/// Octets of an answer in front of its payload: Ethernet, IPv4, TCP with timestamps.
const HEADERS: usize = 14 + 20 + 32;
/// Octets of a frame's buffer.
const FRAME: usize = 2048;

/// A NIC in memory: received frames lie in buffers already, and sent ones stay there until the next turn.
struct Nic {
    received: Vec<[u8; FRAME]>,
    lengths: Vec<usize>,
    /// The frame of `received` that comes next, and where the batch ends.
    next: usize,
    end: usize,
    sent: Vec<[u8; FRAME]>,
    sent_lengths: Vec<usize>,
}

struct Received<'a>(&'a [u8]);

struct Sent<'a> {
    frames: &'a mut [[u8; FRAME]],
    lengths: &'a mut Vec<usize>,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let result = f(&mut self.frames[self.lengths.len()][..len]);
        self.lengths.push(len);
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, now: smoltcp::time::Instant) -> Option<(Received<'_>, Sent<'_>)> {
        _ = now;
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        let received = Received(&self.received[self.next - 1][..self.lengths[self.next - 1]]);
        Some((received, Sent { frames: &mut self.sent, lengths: &mut self.sent_lengths }))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Sent<'_>> {
        Some(Sent { frames: &mut self.sent, lengths: &mut self.sent_lengths })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        // 1,500 octets of IP, and room for timestamps, which smoltcp 0.12 forgets when it cuts segments.
        capabilities.max_transmission_unit = 14 + 1500 + 12;
        capabilities
    }
}

struct Server {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    now: Instant,
    /// On the way from one buffer to the other.
    octets: Vec<u8>,
    echoed: usize,
}

impl Server {
    fn new(connections: u32) -> Self {
        let mut nic = Nic {
            received: vec![[0; FRAME]; RING],
            lengths: vec![0; RING],
            next: 0,
            end: 0,
            sent: vec![[0; FRAME]; RING],
            sent_lengths: Vec::with_capacity(RING),
        };
        let config = Config::new(EthernetAddress(SERVER_MAC.0).into());
        let mut interface = Interface::new(config, &mut nic, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(SERVER_IP.into(), 24)).expect("room for one address");
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_IP).expect("room for one route");
        let mut sockets = SocketSet::new(Vec::new());
        let handles = (0..connections)
            .map(|_| {
                let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.set_nagle_enabled(false);
                socket.set_tsval_generator(Some(|| 1));
                socket.listen(SERVER_PORT).expect("a port");
                sockets.add(socket)
            })
            .collect();
        Self {
            nic,
            interface,
            sockets,
            handles,
            now: Instant::from_millis(1),
            octets: vec![0; BUFFER],
            echoed: 0,
        }
    }

    fn clock(&mut self) -> smoltcp::time::Instant {
        self.now = self.now + Duration::from_micros(1);
        smoltcp::time::Instant::from_micros((self.now.as_nanos() / 1000) as i64)
    }

    fn deliver(&mut self, octets: &[u8]) {
        if self.nic.next == self.nic.end {
            (self.nic.next, self.nic.end) = (0, 0);
        }
        self.nic.received[self.nic.end][..octets.len()].copy_from_slice(octets);
        self.nic.lengths[self.nic.end] = octets.len();
        self.nic.end += 1;
    }

    /// Opens the client's connections by the real handshake, one after the other: `handles[n]` is number n's.
    fn establish(&mut self, client: &mut Client) {
        for number in 0..self.handles.len() as u32 {
            let syn = client.syn(number, self.now).to_vec();
            self.deliver(&syn);
            loop {
                self.nic.sent_lengths.clear();
                let now = self.clock();
                self.interface.poll(now, &mut self.nic, &mut self.sockets);
                if self.nic.sent_lengths.is_empty() {
                    break;
                }
                for (frame, &len) in self.nic.sent.clone().iter().zip(&self.nic.sent_lengths.clone()) {
                    if let Some(reply) = client.heard(&frame[..len]) {
                        self.deliver(reply);
                    }
                }
            }
            let ack = client.ack(number, self.now).to_vec();
            self.deliver(&ack);
            let now = self.clock();
            self.interface.poll(now, &mut self.nic, &mut self.sockets);
            let socket = self.sockets.get::<tcp::Socket<'_>>(self.handles[number as usize]);
            assert_eq!(socket.state(), tcp::State::Established);
        }
    }

    /// One turn of the loop: `numbers` are the connections of the next frames in the NIC.
    fn turn(&mut self, numbers: &[u32], last: usize) {
        let now = self.clock();
        self.nic.sent_lengths.clear();
        self.nic.end = last;
        loop {
            let result = self.interface.poll_ingress_single(now, &mut self.nic, &mut self.sockets);
            if result == PollIngressSingleResult::None {
                break;
            }
        }
        let mut expected = 0;
        for &number in numbers {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handles[number as usize]);
            let len = socket.recv_slice(&mut self.octets).unwrap_or_default();
            expected += socket.send_slice(&self.octets[..len]).unwrap_or_default();
        }
        self.echoed += expected;
        let (mut frames, mut sent) = (0, 0);
        while sent < expected {
            self.interface.poll_egress(now, &mut self.nic, &mut self.sockets);
            assert!(frames < self.nic.sent_lengths.len(), "nothing moves any more");
            sent += self.nic.sent_lengths[frames..].iter().map(|len| len - HEADERS).sum::<usize>();
            frames = self.nic.sent_lengths.len();
        }
    }
}

struct Bench {
    server: Server,
    client: Client,
    order: Shuffled,
}

impl Bench {
    fn new(connections: u32) -> Self {
        let (mut server, mut client) = (Server::new(connections), Client::new(connections));
        server.establish(&mut client);
        Self { server, client, order: Shuffled::new(connections) }
    }

    fn run(&mut self, batch: usize, requests: u64) -> Duration {
        let (mut total, mut done) = (Duration::ZERO, 0);
        while done < requests {
            let round = (requests - done).min(RING as u64).next_multiple_of(batch as u64) as usize;
            let numbers: Vec<u32> = (0..round).map(|_| self.order.draw()).collect();
            for numbers in numbers.chunks(batch) {
                for &number in numbers {
                    self.server.deliver(self.client.request(number, self.server.now));
                }
                for &number in numbers {
                    self.client.expect(number, PAYLOAD);
                }
            }
            let echoed = self.server.echoed;
            total += timed(|| {
                for (index, numbers) in numbers.chunks(batch).enumerate() {
                    self.server.turn(numbers, (index + 1) * batch);
                }
            });
            assert_eq!(self.server.echoed - echoed, round * PAYLOAD);
            done += round as u64;
        }
        scaled(total, done, requests)
    }
}

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo/smoltcp");
    group.throughput(Throughput::Elements(1));
    for connections in [1, 1_000] {
        for batch in [1, 64] {
            let id = BenchmarkId::new(format!("{connections} connections"), format!("batch {batch}"));
            group.bench_function(id, |b| {
                let mut bench = Bench::new(connections);
                b.iter_custom(|requests| bench.run(batch, requests));
            });
        }
    }
    group.finish();
}
