//! `byway conns`: what `ss -tan` and `ss -tin` show of the kernel's connections (S3.3).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use byway_tcp::stack::ConnInfo;
use byway_tcp::tcb::state::State;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::control::{self, End, Refusal, Target};
use super::failure::Failure;

/// Options of `byway conns`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only connections in this state; repeat for more
    #[arg(short = 't', long = "state", value_enum, value_name = "STATE")]
    states: Vec<StateFilter>,

    /// Round-trip time, window and retransmissions, too
    #[arg(short, long)]
    info: bool,

    /// A JSON array, one connection a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,

    /// Port (`:80` or `80`), address, or part of `address:port`, of either side
    filter: Option<String>,
}

/// `-t`, in `ss`'s words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum StateFilter {
    Listening,
    SynSent,
    SynRecv,
    Established,
    #[value(name = "fin-wait-1")]
    FinWait1,
    #[value(name = "fin-wait-2")]
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    All,
}

impl StateFilter {
    /// The state that is asked for; `None`: any.
    fn state(self) -> Option<State> {
        Some(match self {
            Self::Listening => State::Listen,
            Self::SynSent => State::SynSent,
            Self::SynRecv => State::SynReceived,
            Self::Established => State::Established,
            Self::FinWait1 => State::FinWait1,
            Self::FinWait2 => State::FinWait2,
            Self::CloseWait => State::CloseWait,
            Self::Closing => State::Closing,
            Self::LastAck => State::LastAck,
            Self::TimeWait => State::TimeWait,
            Self::All => return None,
        })
    }
}

/// A connection, as it crosses the control socket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    state: String,
    recv_queue: u32,
    send_queue: u32,
    local: SocketAddr,
    peer: SocketAddr,
    /// Place of the core among the cores.
    core: usize,
    in_state_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u64>,
    rto_ms: u64,
    cwnd: u32,
    ssthresh: u32,
    mss: u16,
    retransmits: u32,
}

impl Connection {
    pub(crate) fn new(core: usize, info: &ConnInfo) -> Self {
        Self {
            state: info.state.name().to_owned(),
            recv_queue: info.recv_queue,
            send_queue: info.send_queue,
            local: info.local,
            peer: info.peer,
            core,
            in_state_ms: info.in_state.as_millis(),
            rtt_us: info.srtt.map(|srtt| srtt.as_micros()),
            rto_ms: info.rto.as_millis(),
            cwnd: info.cwnd,
            ssthresh: info.ssthresh,
            mss: info.mss,
            retransmits: info.retransmits,
        }
    }

    fn is_listener(&self) -> bool {
        self.state == "LISTEN"
    }

    fn matches(&self, states: &[StateFilter], filter: Option<&Filter>) -> bool {
        let by_state = states.is_empty()
            || states.iter().any(|state| state.state().is_none_or(|state| state.name() == self.state));
        by_state && filter.is_none_or(|filter| filter.accepts(self.local) || filter.accepts(self.peer))
    }

    fn write(&self, out: &mut impl Write, info: bool) -> io::Result<()> {
        let Self { state, recv_queue, send_queue, .. } = self;
        let (local, peer) = (end(self.local), end(self.peer));
        writeln!(out, "{state:<10} {recv_queue:<6} {send_queue:<6} {local:>25} {peer:>25}")?;
        if info && !self.is_listener() {
            self.write_info(out)?;
        }
        Ok(())
    }

    fn write_info(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "\t rto:{}", self.rto_ms)?;
        if let Some(rtt) = self.rtt_us {
            write!(out, " rtt:{}.{:03}", rtt / 1000, rtt % 1000)?;
        }
        write!(out, " mss:{}", self.mss)?;
        // ss counts windows in segments.
        if let Some(segments) = self.cwnd.checked_div(u32::from(self.mss)) {
            write!(out, " cwnd:{segments}")?;
        }
        if self.ssthresh < u32::MAX
            && let Some(segments) = self.ssthresh.checked_div(u32::from(self.mss))
        {
            write!(out, " ssthresh:{segments}")?;
        }
        let Self { retransmits, in_state_ms, core, .. } = self;
        writeln!(out, " retrans:{retransmits} in-state:{in_state_ms}ms core:{core}")
    }
}

/// An end as `ss -n` writes it: `*` for what is unspecified.
fn end(address: SocketAddr) -> String {
    let port = if address.port() == 0 { "*".to_owned() } else { address.port().to_string() };
    match address.ip() {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// What either end of a connection is held against.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Filter {
    Port(u16),
    Text(String),
}

impl Filter {
    fn new(text: &str) -> Self {
        let digits = text.strip_prefix(':').unwrap_or(text);
        digits.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Port)
    }

    fn accepts(&self, address: SocketAddr) -> bool {
        match self {
            Self::Port(port) => address.port() == *port,
            Self::Text(text) => end(address).contains(text),
        }
    }
}

impl Options {
    /// All connections of the byway behind this socket.
    pub(crate) fn of(control: PathBuf) -> Self {
        Self {
            states: Vec::new(),
            info: false,
            json: false,
            target: Target { control: Some(control), ..Target::default() },
            filter: None,
        }
    }
}

/// Asks, filters, and shows.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let lines = control::ask(&options.target, "conns")?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match show(lines, options, &mut out) {
        // The reader has seen enough (`| head`).
        Err(Trouble::Write) => Ok(()),
        Err(Trouble::Read(what)) => {
            let _ = out.flush();
            Err(Failure::system(format!("the answer broke off ({what}): ask again")))
        }
        Err(Trouble::Refused(why)) => Err(Failure::system(why)),
        Ok(()) => Ok(()),
    }
}

/// What can go wrong on the way through.
enum Trouble {
    Write,
    Read(String),
    Refused(String),
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Write
    }
}

fn show(
    lines: impl Iterator<Item = io::Result<String>>,
    options: &Options,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let filter = options.filter.as_deref().map(Filter::new);
    let mut listeners = BTreeMap::new();
    let mut oldest_close_wait = (0u64, 0u64);
    let mut lines = lines.peekable();
    if let Some(Ok(first)) = lines.peek()
        && let Ok(Refusal { error }) = serde_json::from_str(first)
    {
        return Err(Trouble::Refused(error));
    }
    if !options.json {
        let (local, peer) = ("Local Address:Port", "Peer Address:Port");
        writeln!(out, "{:<10} {:<6} {:<6} {local:>25} {peer:>25}", "State", "Recv-Q", "Send-Q")?;
    }
    let mut shown = 0u64;
    let mut complete = None;
    for line in lines {
        let line = line.map_err(|error| Trouble::Read(error.to_string()))?;
        if let Ok(End { end }) = serde_json::from_str(&line) {
            complete = Some(end);
            break;
        }
        let connection: Connection =
            serde_json::from_str(&line).map_err(|error| Trouble::Read(error.to_string()))?;
        if connection.state == "CLOSE-WAIT" {
            oldest_close_wait = (oldest_close_wait.0 + 1, oldest_close_wait.1.max(connection.in_state_ms));
        }
        if !connection.matches(&options.states, filter.as_ref()) {
            continue;
        }
        // Each core listens on each port; to the peer that is one listener.
        if connection.is_listener() {
            let merged = listeners.entry(connection.local).or_insert_with(|| Connection {
                recv_queue: 0,
                send_queue: 0,
                ..connection.clone()
            });
            merged.recv_queue += connection.recv_queue;
            merged.send_queue += connection.send_queue;
        } else {
            put(&connection, options, &mut shown, out)?;
        }
    }
    for listener in listeners.values() {
        put(listener, options, &mut shown, out)?;
    }
    if options.json {
        out.write_all(if shown == 0 { b"[]\n" } else { b"\n]\n" })?;
    }
    out.flush()?;
    match complete {
        Some(true) => {}
        Some(false) => return Err(Trouble::Read("a core didn't answer".to_owned())),
        None => return Err(Trouble::Read("byway ended".to_owned())),
    }
    // S2.3: an application that doesn't close shows here.
    if let (count @ 1.., oldest) = oldest_close_wait {
        super::warn(&format!("{count} in CLOSE-WAIT, the oldest for {} s", oldest / 1000));
    }
    Ok(())
}

fn put(connection: &Connection, options: &Options, shown: &mut u64, out: &mut impl Write) -> io::Result<()> {
    *shown += 1;
    if options.json {
        out.write_all(if *shown == 1 { b"[\n" } else { b",\n" })?;
        Ok(serde_json::to_writer(&mut *out, connection)?)
    } else {
        connection.write(out, options.info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(state: &str, local: &str, peer: &str) -> Connection {
        Connection {
            state: state.into(),
            recv_queue: 0,
            send_queue: 16,
            local: local.parse().expect("address"),
            peer: peer.parse().expect("address"),
            core: 0,
            in_state_ms: 1500,
            rtt_us: Some(1234),
            rto_ms: 204,
            cwnd: 14_480,
            ssthresh: u32::MAX,
            mss: 1448,
            retransmits: 2,
        }
    }

    fn shown(connections: &[Connection], options: &Options) -> String {
        let mut lines: Vec<io::Result<String>> =
            connections.iter().map(|one| Ok(serde_json::to_string(one).expect("JSON"))).collect();
        lines.push(Ok("{\"end\":true}".to_owned()));
        let mut out = Vec::new();
        assert!(show(lines.into_iter(), options, &mut out).is_ok());
        String::from_utf8(out).expect("text")
    }

    fn options(states: Vec<StateFilter>, filter: Option<&str>) -> Options {
        Options {
            states,
            info: false,
            json: false,
            target: Target::default(),
            filter: filter.map(str::to_owned),
        }
    }

    #[test]
    fn s3_3_columns_are_those_of_ss() {
        let established = connection("ESTAB", "10.0.0.1:80", "10.0.0.2:4000");
        let text = shown(std::slice::from_ref(&established), &options(vec![], None));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..3], ["State", "Recv-Q", "Send-Q"]);
        assert_eq!(lines[1], ["ESTAB", "0", "16", "10.0.0.1:80", "10.0.0.2:4000"]);
        let info = shown(&[established], &Options { info: true, ..options(vec![], None) });
        let second = info.lines().nth(2).expect("second line");
        assert!(second.contains("rto:204 rtt:1.234 mss:1448 cwnd:10 retrans:2"), "{second}");
    }

    #[test]
    fn json_is_one_array() {
        let json = |connections: &[Connection]| -> Vec<Connection> {
            let text = shown(connections, &Options { json: true, ..options(vec![], None) });
            serde_json::from_str(&text).expect("an array")
        };
        let one = connection("ESTAB", "10.0.0.1:80", "10.0.0.2:4000");
        let other = connection("LISTEN", "[::]:80", "[::]:0");
        assert_eq!(json(&[]), []);
        assert_eq!(json(&[one.clone(), other.clone()]), [one, other]);
    }

    #[test]
    fn listeners_of_all_cores_are_one() {
        let listener = connection("LISTEN", "0.0.0.0:80", "0.0.0.0:0");
        let text = shown(&[listener.clone(), listener], &options(vec![], None));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("32") && text.contains("0.0.0.0:*"), "{text}");
    }

    #[test]
    fn filters_by_state_port_and_part() {
        let all = [
            connection("ESTAB", "10.0.0.1:80", "10.0.0.2:4000"),
            connection("TIME-WAIT", "10.0.0.1:80", "10.0.0.3:4001"),
            connection("ESTAB", "[2001:db8::1]:8080", "[2001:db8::2]:80"),
        ];
        let count = |options| shown(&all, &options).lines().count() - 1;
        assert_eq!(count(options(vec![], None)), 3);
        assert_eq!(count(options(vec![StateFilter::All], None)), 3);
        assert_eq!(count(options(vec![StateFilter::TimeWait], None)), 1);
        assert_eq!(count(options(vec![StateFilter::TimeWait, StateFilter::Established], None)), 3);
        assert_eq!(count(options(vec![], Some(":4000"))), 1);
        assert_eq!(count(options(vec![], Some("80"))), 3);
        assert_eq!(count(options(vec![], Some("8080"))), 1);
        assert_eq!(count(options(vec![], Some("10.0.0.3"))), 1);
        assert_eq!(count(options(vec![], Some("db8::2]"))), 1);
        assert_eq!(count(options(vec![StateFilter::Listening], None)), 0);
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        let mut out = Vec::new();
        let cut = show(std::iter::empty(), &options(vec![], None), &mut out);
        assert!(matches!(cut, Err(Trouble::Read(what)) if what == "byway ended"));
    }

    #[test]
    fn a_refusal_is_told_and_nothing_is_shown() {
        let mut out = Vec::new();
        let refusal = std::iter::once(Ok("{\"error\":\"ask `ss`\"}".to_owned()));
        let refused = show(refusal, &options(vec![], None), &mut out);
        assert!(out.is_empty() && matches!(refused, Err(Trouble::Refused(why)) if why == "ask `ss`"));
    }
}
