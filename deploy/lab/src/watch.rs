//! Looks on: every frame of an interface, both ways, as tcpdump would see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::socket::{self, PacketSocket, Received};

/// How soon the thread notices that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A thread that collects an interface's frames until [`stop`](Self::stop).
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Watch {
    /// Begins to look on at `interface` of `namespace`; what crosses it from now on is seen.
    ///
    /// # Errors
    /// The interface doesn't exist, or packet sockets aren't allowed.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let mut socket = namespace.enter(|| PacketSocket::open(interface, true))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut frames = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let waited = socket::wait([&socket], LOOK_EVERY);
                let read = socket.receive(|received| {
                    if let Received::Frame(frame) = received {
                        frames.push(frame);
                    }
                });
                if waited.is_err() || read.is_err() {
                    break;
                }
            }
            frames
        });
        Ok(Self { stop, thread })
    }

    /// Ends, and gives the frames in the order in which they passed.
    pub fn stop(self) -> Vec<Vec<u8>> {
        // What has passed shall be seen.
        std::thread::sleep(2 * LOOK_EVERY);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KERNEL_INTERFACE, Lab, LabOptions, is_root};

    #[test]
    fn both_directions_are_seen() {
        if !is_root() {
            return;
        }
        let lab = Lab::new(LabOptions::default()).unwrap();
        lab.byway.run("ip addr add 192.0.2.1/24 dev byway0").unwrap();
        let watch = Watch::start(&lab.kernel, KERNEL_INTERFACE).unwrap();
        let refused = lab.kernel.enter(|| std::net::TcpStream::connect("192.0.2.1:9"));
        assert!(refused.is_err());
        let frames = watch.stop();
        let tcp = frames.iter().filter(|frame| frame.len() > 34 && frame[12..14] == [8, 0] && frame[23] == 6);
        assert!(tcp.count() >= 2, "a SYN and its RST");
    }
}
