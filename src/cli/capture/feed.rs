//! The running byway's side of `byway capture`: a thread for each, from the cores' rings to the control socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use byway_datapath::capture::filter::Filter;
use byway_datapath::capture::{self, CAPTURES_MAX, Capture, Slot};
use byway_datapath::clock::Clock;
use byway_tcp::counters::DropReason;

use super::record::{self, Hello, Kind, Wish};
use crate::cli::control::{Answerer, write_line};

/// How often the rings are looked at: see [`capture::SLOTS`].
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Looks between two questions whether the client is still there. Such a question takes a tick of the kernel's clock.
const LOOKS_PER_ASK: u32 = 32;
/// Looks between two accounts of what was left out: about once a second.
const LOOKS_PER_COUNTS: u32 = 1024;
/// The shortest time for which a socket can be asked.
const AT_ONCE: Duration = Duration::from_micros(1);
/// Octets that are written at a time: a socket's buffer takes them.
const CHUNK: usize = 64 * 1024;

/// Begins, or says why not.
pub(in crate::cli) fn start(
    client: &UnixStream,
    wish: &str,
    answerer: &Answerer,
) -> io::Result<Result<(), String>> {
    if answerer.steering.is_none() {
        return Ok(Err("this byway serves over kernel sockets, whose packets `tcpdump` shows".to_owned()));
    }
    let wish = match read(wish) {
        Ok(wish) => wish,
        Err(why) => return Ok(Err(why)),
    };
    let Some(capture) = answerer.inquirer.capture(&wish) else {
        return Ok(Err(format!("{CAPTURES_MAX} captures are running already, or a core doesn't answer")));
    };
    let hello = Hello {
        interface: answerer.interface.clone(),
        lanes: answerer.inquirer.lanes().to_vec(),
        reasons: DropReason::ALL.iter().map(|reason| reason.name().to_owned()).collect(),
    };
    let client = client.try_clone()?;
    // One that stands still is waited for: a reader may be stopped, and no core waits.
    client.set_write_timeout(None)?;
    client.set_read_timeout(Some(AT_ONCE))?;
    let body = move || {
        let mut feed = Feed { client, capture, frames: Vec::new(), out: Vec::new() };
        // A client that went away is no news.
        let _ = write_line(&mut feed.client, &hello).and_then(|()| feed.run());
    };
    std::thread::Builder::new().name("byway-capture".into()).spawn(body)?;
    Ok(Ok(()))
}

fn read(wish: &str) -> Result<capture::Wish, String> {
    let wish: Wish = serde_json::from_str(wish).map_err(|error| format!("capture: {error}"))?;
    let filter = wish.filter.map(|text| text.parse::<Filter>()).transpose();
    Ok(capture::Wish {
        filter: filter.map_err(|error| error.to_string())?,
        snaplen: wish.snaplen.clamp(1, u16::MAX.into()) as u16,
        discarded: wish.discarded,
    })
}

struct Feed {
    client: UnixStream,
    capture: Capture,
    frames: Vec<(usize, Box<Slot>)>,
    out: Vec<u8>,
}

impl Feed {
    fn run(&mut self) -> io::Result<()> {
        // The host's time may be set meanwhile; the frames' order stays.
        let since_1970 = Clock.unix().as_nanos().saturating_sub(Clock.now().as_nanos());
        let mut looks = 0u32;
        loop {
            looks = looks.wrapping_add(1);
            let is_over = looks.is_multiple_of(LOOKS_PER_ASK) && self.is_over()?;
            if is_over {
                self.capture.end();
            }
            self.pass_on(since_1970)?;
            if is_over || looks.is_multiple_of(LOOKS_PER_COUNTS) {
                self.account(since_1970)?;
            }
            if is_over {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether the client has had enough: it closes its half.
    fn is_over(&mut self) -> io::Result<bool> {
        match self.client.read(&mut [0]) {
            Ok(count) => Ok(count == 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn pass_on(&mut self, since_1970: u64) -> io::Result<()> {
        self.capture.take(&mut self.frames);
        // Those of all cores in their order, as far as they are here.
        self.frames.sort_by_key(|(_, slot)| slot.at);
        for (place, slot) in self.frames.drain(..) {
            let kind = if slot.outbound { Kind::Sent } else { Kind::Received };
            let reason = slot.reason.map(|reason| reason as u16);
            let at = since_1970 + slot.at.as_nanos();
            record::put(&mut self.out, kind, at, place, (slot.octets(), slot.len), reason);
            self.capture.give_back(place, slot);
            if self.out.len() >= CHUNK {
                self.client.write_all(&self.out)?;
                self.out.clear();
            }
        }
        self.client.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn account(&mut self, since_1970: u64) -> io::Result<()> {
        let now = since_1970 + Clock.now().as_nanos();
        for (place, (wanted, left_out)) in self.capture.counts().enumerate() {
            let numbers = [wanted.to_le_bytes(), left_out.to_le_bytes()].concat();
            record::put(&mut self.out, Kind::Counts, now, place, (&numbers, 0), None);
        }
        self.client.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}
