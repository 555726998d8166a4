//! `byway capture`: the frames of a running byway, as tcpdump shows the kernel's. S4.6
//!
//! ```text
//!   core ─ ring ─→ feed.rs, a thread there ─ control socket: record.rs ─→ here ─┬→ byway_pcapng ─→ FILE, or | tshark -r -
//!   core ─ ring ──┘                                                             └→ text.rs ─→ terminal
//! ```

pub(super) mod feed;
mod record;
mod text;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use byway_datapath::capture::filter::Filter;
use byway_pcapng::Writer;
use clap::Args;

use super::control::{self, Refusal, Target};
use super::failure::Failure;
use super::{counted, warn};
use record::{Hello, Kind, Record, Wish};

/// How often a look is taken whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long byway may take for the last frames once it was told to end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Octets between here and the socket, and between here and the file.
const BUFFER: usize = 256 * 1024;

const FILTERS: &str = "\
Filters: primitives with and, or, not (also && || !) and parentheses, which a mixture of and and or needs:
  arp  ip  ip6  icmp  icmp6  tcp  udp             alone, or before one of these: tcp port 80
  [src|dst] host ADDRESS    [src|dst] net ADDRESS/PREFIX
  [src|dst] port N          [src|dst] portrange N-M
  src|dst ADDRESS[/PREFIX][:PORT]    sport|dport [=] [:]N    ADDRESS[/PREFIX][:PORT]    :N

Frames have the time of the turn of the loop in which they were received or given to the NIC. Those that the stack
discards have the reason as comment, by the counter's name in `byway stats`. Frames that the XDP program leaves to the
kernel are tcpdump's. What is read too slowly is left out and counted; byway itself never waits.";

/// Options of `byway capture`.
#[derive(Args, Debug)]
#[command(after_help = FILTERS)]
pub(crate) struct Options {
    /// Write pcapng to this file, `-` for standard output; without, a line for each frame is shown
    #[arg(short, value_name = "FILE")]
    write: Option<PathBuf>,

    /// End after so many frames
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Keep so many octets of each frame
    #[arg(short, long, value_name = "N", default_value_t = 65_535, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    snaplen: u32,

    /// Only frames that the stack discards
    #[arg(long)]
    discarded: bool,

    #[command(flatten)]
    target: Target,

    /// Which frames; several words are one filter
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// Shows or writes frames until there are enough, a signal comes, byway ends, or nobody reads on.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let filter = match options.filter.join(" ") {
        text if text.trim().is_empty() => None,
        text => Some(text),
    };
    if let Some(text) = &filter {
        text.parse::<Filter>()
            .map_err(|error| Failure { code: Failure::USAGE, message: error.to_string() })?;
    }
    let stop = stop_flag()?;
    let wish = Wish { filter: filter.clone(), snaplen: options.snaplen, discarded: options.discarded };
    let question = serde_json::to_string(&wish).map_err(|error| Failure::system(error.to_string()))?;
    let socket = control::connect(&options.target, &format!("capture {question}"))?;
    let mut from = BufReader::with_capacity(BUFFER, socket);
    let hello = greeting(&mut from)?;
    let sink = Sink::open(options, &hello, filter.as_deref())?;
    let ender = Ender::start(from.get_ref(), &stop)?;
    let mut capture = Capture { counts: vec![(0, 0); hello.lanes.len()], hello, sink, shown: 0, last: 0 };
    let ended = capture.follow(&mut from, options.count, &ender);
    capture.finish(ended)
}

/// Set by the first signal; a second one ends the process, whatever it waits for.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let register = |signal| {
        // In this order: the first signal isn't its own second one.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))
    };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        register(signal).map_err(|error| Failure::system(format!("handling signals: {error}")))?;
    }
    Ok(stop)
}

/// What is to come, or why nothing is.
fn greeting(from: &mut BufReader<UnixStream>) -> Result<Hello, Failure> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(|error| Failure::system(format!("the control socket: {error}")))?;
    match serde_json::from_str(&line) {
        Ok(hello) => Ok(hello),
        Err(error) => Err(Failure::system(match serde_json::from_str(&line) {
            Ok(Refusal { error }) => error,
            Err(_) => format!("byway's answer isn't understood ({error}): is it of another version?"),
        })),
    }
}

/// Tells byway to send the last of it, when a signal comes or enough was seen.
#[derive(Clone)]
struct Ender {
    asked: Arc<AtomicBool>,
}

impl Ender {
    fn start(socket: &UnixStream, signal: &Arc<AtomicBool>) -> Result<Self, Failure> {
        let fail = |error: io::Error| Failure::system(format!("waiting for signals: {error}"));
        let (socket, signal) = (socket.try_clone().map_err(fail)?, Arc::clone(signal));
        let asked = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&asked);
        let body = move || {
            while !signal.load(Ordering::Relaxed) && !heard.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_EVERY);
            }
            // That it has ended is what is wanted.
            let _ = socket.shutdown(Shutdown::Write);
            std::thread::sleep(END_WITHIN);
            let _ = socket.shutdown(Shutdown::Both);
        };
        std::thread::Builder::new().name("byway-end".into()).spawn(body).map_err(fail)?;
        Ok(Self { asked })
    }

    fn end(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}

/// Where frames go.
enum Sink {
    Pcapng(Writer<Box<dyn Write>>),
    Text(BufWriter<io::Stdout>),
}

impl Sink {
    fn open(options: &Options, hello: &Hello, filter: Option<&str>) -> Result<Self, Failure> {
        let Some(path) = &options.write else {
            return Ok(Self::Text(BufWriter::new(io::stdout())));
        };
        let fail = |error: io::Error| Failure::system(format!("writing {}: {error}", path.display()));
        let to: Box<dyn Write> = if path.as_os_str() == "-" {
            Box::new(BufWriter::with_capacity(BUFFER, io::stdout()))
        } else {
            Box::new(BufWriter::with_capacity(BUFFER, File::create(path).map_err(fail)?))
        };
        let mut writer = Writer::new(to, concat!("byway ", env!("CARGO_PKG_VERSION"))).map_err(fail)?;
        for (queue, core) in &hello.lanes {
            let name = format!("{} queue {queue}", hello.interface);
            writer
                .interface(&name, Some(&format!("byway on core {core}")), options.snaplen, filter)
                .map_err(fail)?;
        }
        // Whoever reads live sees at once that it has begun.
        writer.flush().map_err(fail)?;
        Ok(Self::Pcapng(writer))
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Pcapng(writer) => writer.flush(),
            Self::Text(out) => out.flush(),
        }
    }
}

/// A capture that runs.
struct Capture {
    hello: Hello,
    sink: Sink,
    shown: u64,
    /// What each core counted: frames that the filter took, and those of them that were left out.
    counts: Vec<(u64, u64)>,
    /// Time of the last record.
    last: u64,
}

/// What ended a capture too early.
enum Trouble {
    Read(io::Error),
    Write(io::Error),
}

impl Capture {
    fn follow(
        &mut self,
        from: &mut BufReader<UnixStream>,
        count: Option<u64>,
        ender: &Ender,
    ) -> Result<(), Trouble> {
        while let Some(record) = Record::read(from).map_err(Trouble::Read)? {
            self.last = self.last.max(record.at);
            if let (Kind::Counts, Some(counts)) = (record.kind, record.counts()) {
                self.note(&record, counts);
            } else if count.is_none_or(|count| self.shown < count) {
                self.show(&record).map_err(Trouble::Write)?;
            }
            if count == Some(self.shown) {
                ender.end();
            }
            // Nothing more is here: whoever reads live gets what there is.
            if from.buffer().is_empty() {
                self.sink.flush().map_err(Trouble::Write)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, record: &Record, counts: (u64, u64)) {
        let Some(before) = self.counts.get_mut(usize::from(record.place)) else { return };
        if counts.1 > before.1 {
            let (missed, queue) = (counts.1 - before.1, self.hello.lanes[usize::from(record.place)].0);
            warn(&format!(
                "{} of queue {queue} left out: this reader is too slow; a filter or --snaplen helps",
                counted(missed, "frame")
            ));
        }
        *before = counts;
    }

    fn show(&mut self, record: &Record) -> io::Result<()> {
        let Record { at, len, place, .. } = *record;
        let name = |reason| self.hello.reasons.get(usize::from(reason)).map(String::as_str);
        let reason = record.reason.map(|reason| name(reason).unwrap_or("for a reason without a name"));
        let outbound = record.kind == Kind::Sent;
        let frame = (record.octets.as_slice(), len);
        self.shown += 1;
        match &mut self.sink {
            Sink::Pcapng(writer) => {
                let comment = reason.map(|reason| format!("discarded: {reason}"));
                writer.packet(place.into(), at, outbound, frame, comment.as_deref())
            }
            Sink::Text(out) => {
                let queue = self.hello.lanes.get(usize::from(place)).map_or(0, |lane| lane.0);
                writeln!(out, "{}", text::line(at, queue, outbound, frame, reason))
            }
        }
    }

    /// Completes the file, and sums up as tcpdump does.
    fn finish(mut self, ended: Result<(), Trouble>) -> Result<(), Failure> {
        let written = match &ended {
            Err(Trouble::Write(_)) => Ok(()),
            _ => self.complete(),
        };
        let left_out: u64 = self.counts.iter().map(|counts| counts.1).sum();
        // A byway that ended gave no last account.
        let taken = self.counts.iter().map(|counts| counts.0).sum::<u64>().max(self.shown + left_out);
        warn(&format!(
            "{} captured, {taken} taken by the filter, {left_out} left out because this reader was too slow",
            counted(self.shown, "frame")
        ));
        match (ended, written) {
            (Err(Trouble::Read(error)), _) => Err(Failure::system(format!("the capture broke off: {error}"))),
            // The reader has seen enough (`| head`).
            (Err(Trouble::Write(error)), _) | (_, Err(error))
                if error.kind() == io::ErrorKind::BrokenPipe =>
            {
                Ok(())
            }
            (Err(Trouble::Write(error)), _) | (_, Err(error)) => {
                Err(Failure::system(format!("writing the capture: {error}")))
            }
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    fn complete(&mut self) -> io::Result<()> {
        if let Sink::Pcapng(writer) = &mut self.sink {
            for (interface, &(taken, left_out)) in self.counts.iter().enumerate() {
                writer.statistics(interface as u32, self.last, taken, left_out)?;
            }
        }
        self.sink.flush()
    }
}
