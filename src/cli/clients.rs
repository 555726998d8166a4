//! Clients of a running byway's own sockets: some at a time, none for longer than it may take (D13).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use byway_datapath::clock::Clock;
use byway_datapath::pin;
use byway_tcp::time::Instant;

use super::failure::Failure;

/// How long is waited when no client can be accepted: out of descriptors, most likely, and no reason to spin.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers those whom `accept` brings until the process ends, up to `most` at a time, each on a thread of its own; who
/// comes then waits for one of them, in the kernel's backlog. Off the cores of `lanes`, as far as there are others.
pub(super) fn serve<S: Send + 'static>(
    name: &'static str,
    most: usize,
    lanes: &[(u32, usize)],
    mut accept: impl FnMut() -> io::Result<S> + Send + 'static,
    answer: impl Fn(S) + Send + Sync + 'static,
) -> Result<(), Failure> {
    let (answer, running) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    let cores: Vec<usize> = lanes.iter().map(|&(_, core)| core).collect();
    let body = move || {
        pin::leave(&cores);
        loop {
            let Ok(client) = accept() else {
                std::thread::sleep(AGAIN);
                continue;
            };
            let (answer, seat) = (Arc::clone(&answer), Seat::take(&running));
            // The last seat is this thread's own: so it accepts nobody meanwhile.
            if seat.before + 1 >= most {
                answer(client);
                continue;
            }
            let body = move || {
                let _seat = seat;
                answer(client);
            };
            // Without a thread the client is told nothing, and the connection ends.
            let _ = std::thread::Builder::new().name(format!("{name}-client")).spawn(body);
        }
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(body);
    thread.map(drop).map_err(|error| Failure::system(format!("starting the thread {name}: {error}")))
}

/// One of those that are answered, until it is dropped.
struct Seat {
    running: Arc<AtomicUsize>,
    before: usize,
}

impl Seat {
    fn take(running: &Arc<AtomicUsize>) -> Self {
        Self { running: Arc::clone(running), before: running.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose calls can be given a time.
pub(super) trait Timed: Read + Write {
    /// For the next calls, each.
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;
}

impl Timed for TcpStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Timed for &UnixStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

/// A client that has so long for all it reads and writes here, however it spreads that.
pub(super) struct Patience<S> {
    stream: S,
    until: Instant,
}

impl<S: Timed> Patience<S> {
    pub(super) fn new(stream: S, time: Duration) -> Self {
        Self { stream, until: Clock.now() + time }
    }

    fn within(&mut self) -> io::Result<&mut S> {
        let left = self.until.since(Clock.now());
        // A timeout of nothing would be none; less than a microsecond is nothing to setsockopt.
        if left < byway_tcp::time::Duration::from_micros(1) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_timeout(left.into())?;
        Ok(&mut self.stream)
    }
}

impl<S: Timed> Read for Patience<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.within()?.read(into)
    }
}

impl<S: Timed> Write for Patience<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.within()?.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D13: an octet now and then doesn't earn more time.
    #[test]
    fn d13_patience_is_for_all_calls_together() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::clone(&stop);
        let drip = std::thread::spawn(move || {
            while stopped.load(Ordering::Relaxed) == 0 && theirs.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut patient = Patience::new(&ours, Duration::from_millis(100));
        let error = std::iter::repeat_with(|| patient.read(&mut [0])).find_map(Result::err).expect("an end");
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        assert!(patient.write(b"y").is_err(), "neither way");
        stop.store(1, Ordering::Relaxed);
        drip.join().expect("no panic");
    }

    #[test]
    fn d13_so_many_clients_are_answered_at_once_and_no_more() {
        const MOST: usize = 3;
        let (come, clients) = std::sync::mpsc::channel::<usize>();
        let (begin, begun) = std::sync::mpsc::channel();
        let (go, leave) = std::sync::mpsc::channel::<()>();
        let leave = std::sync::Mutex::new(leave);
        let accept = move || clients.recv().map_err(io::Error::other);
        let answer = move |client| {
            begin.send(client).expect("the test goes on");
            let _ = leave.lock().expect("whole").recv();
        };
        serve("test-clients", MOST, &[], accept, answer).expect("a thread");
        (0..5).for_each(|client| come.send(client).expect("it listens"));
        let mut served: Vec<usize> = (0..MOST).map(|_| begun.recv().expect("served")).collect();
        served.sort_unstable();
        assert_eq!(served, [0, 1, 2]);
        assert!(begun.recv_timeout(Duration::from_millis(100)).is_err(), "the others wait");
        (0..5).for_each(|_| go.send(()).expect("they wait"));
        let mut rest = [begun.recv().expect("served"), begun.recv().expect("served")];
        rest.sort_unstable();
        assert_eq!(rest, [3, 4]);
    }
}
