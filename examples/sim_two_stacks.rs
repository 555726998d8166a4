//! Two stacks in memory, in virtual time: no root, no NIC, no thread, and the same every time. What a test of an
//! application needs.
//!
//! ```text
//! cargo run --example sim_two_stacks
//! ```

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use byway::aio::{Tasks, TcpListener, TcpStream, now, sleep};
use byway_datapath::config::Rings;
use byway_datapath::core_loop::CoreLoop;
use byway_datapath::port::MemPort;
use byway_tcp::frame::{FramePool, HeapMemory};
use byway_tcp::stack::{Cidr, Config, Listener, Stack};
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::MacAddr;
use futures_util::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 7;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Of the wire between them, each way.
const DELAY: Duration = Duration::from_millis(10);

type Host = CoreLoop<MemPort, HeapMemory, Tasks>;

/// A stack at one end of the wire, with a first task.
fn host(address: Ipv4Addr, main: impl Future<Output = ()> + 'static) -> Host {
    let last = address.octets()[3];
    let mut config = Config::new(MacAddr([2, 0, 0, 0, 0, last]), [last; 32]);
    config.addresses = vec![Cidr { address: address.into(), prefix: 24 }];
    config.max_connections = 16;
    let mut stack = Stack::new(config, FramePool::new(HeapMemory::new(1024, 2048)));
    stack.listen(Listener { port: PORT, backlog: 16 });
    let port = MemPort::new(Rings { fill: 256, rx: 256, tx: 256, completion: 256 });
    // Nothing here sleeps, so nothing has to be woken.
    CoreLoop::new(port, stack, Tasks::new(vec![PORT], || (), main))
}

/// The frames that `from` has sent.
fn sent(from: &mut Host) -> Vec<Vec<u8>> {
    let (port, stack) = from.split();
    std::iter::from_fn(|| port.take(stack.pool_mut(), <[u8]>::to_vec)).collect()
}

async fn greet() {
    let mut listener = TcpListener::bind(PORT).expect("the port is open");
    let (mut stream, peer) = listener.accept().await.expect("on this core");
    println!("{:?}: the server has a connection from {peer}", now());
    sleep(Duration::from_millis(5)).await;
    stream.write_all(b"hello from the other stack\n").await.expect("sends");
}

async fn listen(done: Rc<Cell<bool>>) {
    let mut stream = TcpStream::connect((SERVER, PORT).into()).await.expect("opens");
    println!("{:?}: the client is connected from {}", now(), stream.local_addr());
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.expect("reads");
    print!("{:?}: the client hears: {heard}", now());
    done.set(true);
}

fn main() {
    let done = Rc::new(Cell::new(false));
    let mut hosts = [host(SERVER, greet()), host(CLIENT, listen(Rc::clone(&done)))];
    // Each frame with when it arrives, and at whom.
    let mut wire: Vec<(Instant, usize, Vec<u8>)> = Vec::new();
    let mut time = Instant::ZERO;
    while !done.get() {
        for (to, host) in hosts.iter_mut().enumerate() {
            let (port, stack) = host.split();
            wire.retain(|(at, whom, frame)| {
                let arrived = *whom == to && *at <= time;
                !(arrived && port.inject(stack.pool_mut(), frame))
            });
            host.turn(time).expect("memory doesn't fail");
            wire.extend(sent(host).into_iter().map(|frame| (time + DELAY, 1 - to, frame)));
        }
        // To the next thing that happens; by a microsecond at least, so that something does.
        let arrivals = wire.iter().map(|(at, ..)| *at);
        let next = arrivals.chain(hosts.iter().map(Host::next_deadline)).min().unwrap_or(Instant::NEVER);
        assert!(next != Instant::NEVER, "nobody has anything to do, and it isn't done");
        time = next.max(time + Duration::from_micros(1));
    }
}
