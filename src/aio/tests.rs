//! Tasks at both ends of two stacks in memory, in virtual time.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use byway_datapath::config::Rings;
use byway_datapath::core_loop::CoreLoop;
use byway_datapath::port::MemPort;
use byway_tcp::frame::{FramePool, HeapMemory, Owner};
use byway_tcp::stack::{Cidr, Config, Listener, Stack};
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::MacAddr;
use futures_util::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::executor::TASKS_MAX;
use super::*;

const PORT: u16 = 7;
const FRAMES: u32 = 2048;
const LAST: [u8; 2] = [1, 2];

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, LAST[host])
}

fn server() -> SocketAddr {
    (address(1), PORT).into()
}

type Host = CoreLoop<MemPort, HeapMemory, Tasks>;

/// A client (0) and a server (1) at the ends of a wire without delay.
struct Pair {
    hosts: [Host; 2],
    now: Instant,
    notified: [Arc<AtomicU32>; 2],
}

type Main = Pin<Box<dyn Future<Output = ()>>>;

impl Pair {
    fn new(client: impl Future<Output = ()> + 'static, server: impl Future<Output = ()> + 'static) -> Self {
        let mut mains: [Option<Main>; 2] = [Some(Box::pin(client)), Some(Box::pin(server))];
        let notified = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let hosts = [0, 1].map(|host| {
            let mut config = Config::new(MacAddr([2, 0, 0, 0, 0, LAST[host]]), [LAST[host]; 32]);
            config.addresses = vec![Cidr { address: address(host).into(), prefix: 24 }];
            config.max_connections = 64;
            let mut stack = Stack::new(config, FramePool::new(HeapMemory::new(FRAMES, 2048)));
            stack.listen(Listener { port: PORT, backlog: 16 });
            let count = Arc::clone(&notified[host]);
            let notify = move || {
                count.fetch_add(1, Ordering::Relaxed);
            };
            let app = Tasks::new(vec![PORT], notify, mains[host].take().expect("one each"));
            CoreLoop::new(MemPort::new(Rings { fill: 512, rx: 256, tx: 256, completion: 512 }), stack, app)
        });
        Self { hosts, now: Instant::from_millis(1), notified }
    }

    /// A turn of each; then the frames cross. Whether there were some.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for host in &mut self.hosts {
            moved |= host.turn(self.now).expect("memory doesn't fail").is_busy();
        }
        let [first, second] = &mut self.hosts;
        moved | carry(first, second) | carry(second, first)
    }

    /// Turns until `enough`, with time going on when nothing else does.
    fn run_until(&mut self, enough: impl Fn() -> bool) {
        for _ in 0..200_000 {
            if enough() {
                return;
            }
            if !self.turn() {
                let next = self.hosts.iter().map(Host::next_deadline).min().unwrap_or(Instant::NEVER);
                self.now =
                    next.clamp(self.now + Duration::from_micros(10), self.now + Duration::from_secs(1));
            }
        }
        panic!("nothing comes of it");
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            if !self.turn() {
                self.now = self.now + Duration::from_micros(100);
            }
        }
    }

    /// Nothing is left of what tasks have had (P3).
    fn assert_clean(&mut self) {
        self.run_for(Duration::from_millis(300));
        for host in &mut self.hosts {
            host.assert_conserved();
            assert_eq!(host.stack().pool().count(Owner::App), 0);
            assert_eq!(host.app().core.sockets.borrow().count(), 0, "sockets are left");
        }
    }

    fn copied(&self, host: usize) -> u64 {
        self.hosts[host].stack().pool().payload_bytes_copied()
    }
}

fn carry(from: &mut Host, to: &mut Host) -> bool {
    let mut moved = false;
    let mut octets = Vec::new();
    loop {
        let (port, stack) = from.split();
        octets.clear();
        if port.take(stack.pool_mut(), |frame| octets.extend_from_slice(frame)).is_none() {
            return moved;
        }
        moved = true;
        let (port, stack) = to.split();
        port.inject(stack.pool_mut(), &octets);
    }
}

fn octets(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A flag that both the test and a task have.
fn flag() -> (Rc<Cell<bool>>, Rc<Cell<bool>>) {
    let flag = Rc::new(Cell::new(false));
    (Rc::clone(&flag), flag)
}

/// Echoes on every connection.
async fn echo() {
    let mut listener = TcpListener::bind(PORT).expect("free");
    loop {
        let (stream, _) = listener.accept().await.expect("here");
        let echo = async move {
            let (reader, mut writer) = stream.split();
            let _ = futures_util::io::copy(reader, &mut writer).await;
            let _ = writer.close().await;
        };
        spawn(echo).expect("room");
    }
}

#[test]
fn a_megabyte_comes_back_copied_twice_each_way_and_nothing_is_left() {
    const LEN: usize = 1 << 20;
    let (set, done) = flag();
    let client = async move {
        let stream = TcpStream::connect(server()).await.expect("opens");
        assert_eq!((stream.peer_addr(), stream.local_addr().ip()), (server(), address(0).into()));
        let (mut reader, mut writer) = stream.split();
        let write = async {
            writer.write_all(&octets(LEN)).await.expect("writes");
            writer.close().await.expect("half-closes");
        };
        let read = async {
            let mut back = Vec::new();
            reader.read_to_end(&mut back).await.expect("reads");
            assert!(back == octets(LEN), "{} octets, or others", back.len());
        };
        futures_util::join!(write, read);
        set.set(true);
    };
    let mut pair = Pair::new(client, echo());
    pair.run_until(|| done.get());
    pair.assert_clean();
    for host in 0..2 {
        assert_eq!(pair.copied(host), 4 * LEN as u64);
    }
}

/// P2: who doesn't read holds its peer back; and nothing is lost.
#[test]
fn back_pressure_goes_both_ways_and_is_bounded() {
    const LEN: usize = 4 << 20;
    let written = Rc::new(Cell::new(0));
    let (go, may_read) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let client = {
        let written = Rc::clone(&written);
        async move {
            let mut stream = TcpStream::connect(server()).await.expect("opens");
            let all = octets(LEN);
            while written.get() < LEN {
                let some = stream.write(&all[written.get()..]).await.expect("writes");
                written.set(written.get() + some);
            }
        }
    };
    let (reading, reads) = (Rc::clone(&go), Rc::clone(&may_read));
    let server = async move {
        let mut listener = TcpListener::bind(PORT).expect("free");
        let (mut stream, _) = listener.accept().await.expect("here");
        while !reading.get() {
            sleep(Duration::from_millis(10)).await;
        }
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("reads");
        assert!(all == octets(LEN), "{} octets, or others", all.len());
        reads.set(all.len());
    };
    let mut pair = Pair::new(client, server);
    pair.run_for(Duration::from_secs(1));
    let held = written.get();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(written.get(), held, "somebody still takes octets");
    // A buffer of 64 KiB here and there, the receive window, and what frames give the send queue.
    assert!((64 << 10..2 << 20).contains(&held), "{held}");
    go.set(true);
    pair.run_until(|| may_read.get() == LEN);
    pair.assert_clean();
}

/// What a client hears when the server drops its stream: octets read, and how it ended.
fn after_drop(unread: bool) -> (Vec<u8>, Option<ErrorKind>) {
    let outcome = Rc::new(RefCell::new(None));
    let heard = Rc::clone(&outcome);
    let client = async move {
        let mut stream = TcpStream::connect(super::tests::server()).await.expect("opens");
        stream.write_all(b"a question").await.expect("writes");
        let mut all = Vec::new();
        let result = stream.read_to_end(&mut all).await;
        *heard.borrow_mut() = Some((all, result.err().map(|error| error.kind())));
    };
    let server = async move {
        let mut listener = TcpListener::bind(PORT).expect("free");
        let (mut stream, _) = listener.accept().await.expect("here");
        if unread {
            sleep(Duration::from_millis(50)).await;
        } else {
            stream.read_exact(&mut [0; 10]).await.expect("reads");
        }
        stream.write_all(b"an answer").await.expect("writes");
        if unread {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let mut pair = Pair::new(client, server);
    pair.run_until(|| outcome.borrow().is_some());
    pair.assert_clean();
    outcome.take().expect("an outcome")
}

#[test]
fn a_dropped_stream_closes_in_order_unless_something_is_unread() {
    assert_eq!(after_drop(false), (b"an answer".to_vec(), None));
    assert_eq!(after_drop(true), (b"an answer".to_vec(), Some(ErrorKind::ConnectionReset)));
}

#[test]
fn opens_that_fail_say_why() {
    let (set, done) = flag();
    let client = async move {
        let open = async |peer: SocketAddr| TcpStream::connect(peer).await.expect_err("fails").kind();
        assert_eq!(open((address(1), 99).into()).await, ErrorKind::ConnectionRefused);
        assert_eq!(open(([0, 0, 0, 0], 7).into()).await, ErrorKind::InvalidInput);
        assert_eq!(open("[2001:db8::1]:7".parse().expect("address")).await, ErrorKind::AddrNotAvailable);
        // Nobody is there; and a connection given up is none any more.
        let nobody = TcpStream::connect(([10, 0, 0, 9], 7).into());
        assert!(timeout(Duration::from_millis(500), nobody).await.is_err());
        assert_eq!(TcpListener::bind(99).expect_err("not open").kind(), ErrorKind::AddrNotAvailable);
        let _held = TcpListener::bind(PORT).expect("free");
        assert_eq!(TcpListener::bind(PORT).expect_err("taken").kind(), ErrorKind::AddrInUse);
        set.set(true);
    };
    let mut pair = Pair::new(client, async {
        // A port that is open, and no task for it: who comes is reset.
        std::future::pending::<()>().await;
    });
    pair.run_until(|| done.get());
    pair.assert_clean();
}

#[test]
fn connections_nobody_listens_for_are_reset() {
    let (set, done) = flag();
    let client = async move {
        let mut stream = TcpStream::connect(server()).await.expect("the port is open");
        let error = stream.read(&mut [0; 1]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let error = stream.write(&[0; 1]).await.expect_err("still");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        set.set(true);
    };
    let mut pair = Pair::new(client, std::future::pending());
    pair.run_until(|| done.get());
    pair.assert_clean();
}

/// P4: tasks that always wake themselves have their share of polls and no more, and others make their way.
#[test]
fn a_turn_is_bounded_whoever_wakes_himself() {
    let polls = Rc::new(Cell::new(0u32));
    let (set, done) = flag();
    let counted = Rc::clone(&polls);
    let client = async move {
        for _ in 0..1000 {
            let counted = Rc::clone(&counted);
            let spinner = std::future::poll_fn(move |cx| {
                counted.set(counted.get() + 1);
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            });
            spawn(spinner).expect("room");
        }
        let mut stream = TcpStream::connect(server()).await.expect("opens");
        stream.write_all(b"through").await.expect("writes");
        stream.read_exact(&mut [0; 7]).await.expect("reads");
        set.set(true);
    };
    let mut pair = Pair::new(client, echo());
    for _ in 0..100 {
        let before = polls.get();
        pair.turn();
        assert!(polls.get() - before <= 256, "{} polls in a turn", polls.get() - before);
        assert_eq!(pair.hosts[0].next_deadline(), Instant::ZERO, "the loop mustn't sleep");
    }
    pair.run_until(|| done.get());
    assert!(polls.get() > 1000);
}

#[test]
fn sleeps_end_late_by_a_tick_at_most_and_never_early() {
    const COUNT: usize = 300;
    let ended = Rc::new(RefCell::new(Vec::new()));
    let list = Rc::clone(&ended);
    let client = async move {
        for n in (0..COUNT as u64).rev() {
            let list = Rc::clone(&list);
            let sleeper = async move {
                let (begun, time) = (now(), Duration::from_micros(37 * n * n));
                sleep(time).await;
                list.borrow_mut().push((begun + time, now()));
            };
            spawn(sleeper).expect("room");
        }
        // One that ends otherwise leaves no timer.
        assert_eq!(timeout(Duration::from_secs(3600), async { 7 }).await, Ok(7));
        assert_eq!(timeout(Duration::from_millis(1), std::future::pending::<()>()).await, Err(Elapsed));
    };
    let mut pair = Pair::new(client, async {});
    pair.run_until(|| ended.borrow().len() == COUNT);
    for &(wanted, ended) in ended.borrow().iter() {
        assert!(wanted <= ended, "early");
        assert!(ended.since(wanted) <= Duration::from_micros(131 + 10), "{:?} late", ended.since(wanted));
    }
    assert_eq!(pair.hosts[0].app().core.timers.borrow().next_deadline(), Instant::NEVER);
}

#[test]
fn another_thread_wakes_a_task_and_ends_the_sleep_once() {
    let shared: Arc<std::sync::Mutex<Option<Waker>>> = Arc::default();
    let (set, done) = flag();
    let told = Arc::clone(&shared);
    let client = async move {
        let mut first = true;
        std::future::poll_fn(|cx| {
            if !core::mem::replace(&mut first, false) {
                return Poll::Ready(());
            }
            *told.lock().expect("whole") = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        set.set(true);
    };
    let mut pair = Pair::new(client, async {});
    pair.run_for(Duration::from_millis(1));
    assert!(!done.get());
    let waker = shared.lock().expect("whole").take().expect("told");
    let late = waker.clone();
    std::thread::spawn(move || (0..100).for_each(|_| waker.wake_by_ref())).join().expect("wakes");
    assert_eq!(pair.notified[0].load(Ordering::Relaxed), 1, "a system call for each wake");
    assert_eq!(pair.hosts[0].next_deadline(), Instant::ZERO);
    pair.turn();
    assert!(done.get());
    // Of a task that is gone.
    late.wake();
    pair.turn();
}

#[test]
fn a_task_that_panics_ends_alone() {
    let (set, done) = flag();
    let client = async move {
        let bug = spawn(async { panic!("a bug, for the test") }).expect("room");
        let fine = spawn(async { 7 }).expect("room");
        assert_eq!((bug.await, fine.await), (Err::<(), _>(Panicked), Ok(7)));
        set.set(true);
    };
    let mut pair = Pair::new(client, async {});
    pair.run_until(|| done.get());
    assert_eq!(pair.hosts[0].app().core.task_count(), 0);
}

/// P2: tasks are bounded, and who is refused is told.
#[test]
fn tasks_are_bounded() {
    let (set, done) = flag();
    let client = async move {
        for _ in 1..TASKS_MAX {
            drop(spawn(std::future::pending::<()>()).expect("room"));
        }
        assert!(matches!(spawn(async {}), Err(Full)));
        set.set(true);
    };
    let mut pair = Pair::new(client, async {});
    pair.run_until(|| done.get());
    assert!(matches!(spawn(async {}), Err(Full)), "no core is here");
}

/// A stream may travel, and works only where it belongs.
#[test]
fn on_another_thread_a_stream_fails_and_closes() {
    let (set, done) = flag();
    let client = async move {
        let mut stream = TcpStream::connect(server()).await.expect("opens");
        stream.write_all(b"here").await.expect("writes");
        stream.read_exact(&mut [0; 4]).await.expect("reads");
        let there = move || {
            let mut cx = Context::from_waker(Waker::noop());
            let read = Pin::new(&mut stream.read(&mut [0; 1])).poll(&mut cx);
            assert!(matches!(read, Poll::Ready(Err(_))), "{read:?}");
        };
        std::thread::spawn(there).join().expect("fails in order");
        set.set(true);
    };
    let mut pair = Pair::new(client, echo());
    pair.run_until(|| done.get());
    assert!(pair.notified[0].load(Ordering::Relaxed) > 0, "nobody would look");
    pair.assert_clean();
}

#[test]
fn draining_lets_what_is_under_way_finish() {
    let (set, done) = flag();
    let client = async move {
        let mut stream = TcpStream::connect(server()).await.expect("opens");
        stream.write_all(b"question").await.expect("writes");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("reads");
        assert_eq!(answer, b"the last answer");
        set.set(true);
    };
    let (got, asked) = flag();
    let server = async move {
        let mut listener = TcpListener::bind(PORT).expect("free");
        let (mut stream, _) = listener.accept().await.expect("here");
        stream.read_exact(&mut [0; 8]).await.expect("reads");
        got.set(true);
        draining().await;
        sleep(Duration::from_millis(30)).await;
        stream.write_all(b"the last answer").await.expect("writes");
    };
    let mut pair = Pair::new(client, server);
    pair.run_until(|| asked.get());
    let now = pair.now;
    pair.hosts[1].drain(now);
    pair.run_until(|| done.get());
    pair.run_for(Duration::from_millis(300));
    assert_eq!(pair.hosts[1].app().core.sockets.borrow().count(), 0);
}

/// An application that ends gives everything back, streams in tasks that never end included.
#[test]
fn the_end_drops_tasks_with_their_streams() {
    let (set, open) = flag();
    let client = async move {
        let stream = TcpStream::connect(server()).await.expect("opens");
        set.set(true);
        let _stays = stream;
        std::future::pending::<()>().await;
    };
    let mut pair = Pair::new(client, echo());
    pair.run_until(|| open.get());
    let now = pair.now;
    pair.hosts[0].abort_all(now);
    pair.run_for(Duration::from_millis(10));
    pair.hosts[0].assert_conserved();
    let core = Rc::clone(&pair.hosts[0].app().core);
    drop(pair);
    assert_eq!((core.task_count(), core.sockets.borrow().count()), (0, 0));
}
