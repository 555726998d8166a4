//! `byway conns`: what `ss -tan` and `ss -tin` show of the kernel's connections (S3.3).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use byway_datapath::capture::filter::{Fields, Filter};
use byway_tcp::stack::ConnInfo;
use byway_tcp::tcb::congestion::Phase;
use byway_tcp::tcb::state::State;
use byway_tcp::timer::TimerKind;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::control::{self, End, Refusal, Target};
use super::failure::Failure;

const FILTERS: &str = "\
Filters: `sport = :80`, `dst 192.0.2.0/24`, `dst 192.0.2.9:4000`, `port 80`, `host 192.0.2.9`, with and, or, not and
parentheses; `byway capture --help` has them all. A number alone is a port of either side.

What is shown is read page by page while the connections go on: each as it was when its page's turn came.";

/// Options of `byway conns`.
#[derive(Args, Debug)]
#[command(after_help = FILTERS)]
pub(crate) struct Options {
    /// Only connections in this state; repeat for more
    #[arg(short = 't', long = "state", value_enum, value_name = "STATE")]
    states: Vec<StateFilter>,

    /// Timers, round-trip time, windows, congestion control and retransmissions, too
    #[arg(short, long)]
    info: bool,

    /// A JSON array, one connection a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,

    /// Which connections, as `ss` or `byway capture` would say it; `src` and `sport` are byway's own side
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
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
    #[serde(default)]
    rttvar_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_rtt_us: Option<u64>,
    rto_ms: u64,
    #[serde(default)]
    backoff: u8,
    /// What it waits for next, as `ss` calls it, and for how many ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timer: Option<(String, u64)>,
    #[serde(default)]
    congestion: String,
    /// Where loss recovery stands, and what congestion control is doing.
    #[serde(default)]
    phase: String,
    cwnd: u32,
    ssthresh: u32,
    mss: u16,
    #[serde(default)]
    unacked: u32,
    #[serde(default)]
    send_window: u32,
    #[serde(default)]
    recv_window: u32,
    retransmits: u32,
}

/// In `ss`'s words, as far as it has one.
fn timer_name(kind: TimerKind) -> &'static str {
    match kind {
        TimerKind::LossProbe | TimerKind::Retransmit => "on",
        TimerKind::Persist => "persist",
        TimerKind::KeepAlive => "keepalive",
        TimerKind::FinWait2 => "timewait",
        TimerKind::Reorder => "reorder",
        TimerKind::Pacing => "pacing",
        TimerKind::DelayedAck => "delack",
        TimerKind::App => "app",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "open",
        Phase::Cwr => "cwr",
        Phase::FastRecovery => "recovery",
        Phase::Loss => "loss",
    }
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
            rttvar_us: info.rttvar.as_micros(),
            min_rtt_us: info.min_rtt.map(|rtt| rtt.as_micros()),
            rto_ms: info.rto.as_millis(),
            backoff: info.backoff,
            timer: info.timer.map(|(kind, left)| (timer_name(kind).to_owned(), left.as_millis())),
            congestion: info.congestion.name().to_owned(),
            phase: format!("{}, {}", phase_name(info.phase), info.mode),
            unacked: info.unacked,
            send_window: info.send_window,
            recv_window: info.recv_window,
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
        by_state && filter.is_none_or(|filter| filter.accepts(&Fields::of_connection(self.local, self.peer)))
    }

    fn write(&self, out: &mut impl Write, info: bool) -> io::Result<()> {
        let Self { state, recv_queue, send_queue, .. } = self;
        let (local, peer) = (end(self.local), end(self.peer));
        writeln!(out, "{state:<10} {recv_queue:<6} {send_queue:<6} {local:>25} {peer:>25}")?;
        let has_more = !self.is_listener() && self.state != State::TimeWait.name();
        if info && has_more {
            self.write_info(out)?;
        }
        Ok(())
    }

    fn write_info(&self, out: &mut impl Write) -> io::Result<()> {
        let millis = |us: u64| format!("{}.{:03}", us / 1000, us % 1000);
        write!(out, "\t")?;
        if let Some((name, left)) = &self.timer {
            write!(out, " timer:({name},{left}ms,{})", self.backoff)?;
        }
        write!(out, " {} rto:{}", self.congestion, self.rto_ms)?;
        if self.backoff > 0 {
            write!(out, " backoff:{}", self.backoff)?;
        }
        if let Some(rtt) = self.rtt_us {
            write!(out, " rtt:{}/{}", millis(rtt), millis(self.rttvar_us))?;
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
        let Self { retransmits, in_state_ms, core, unacked, send_window, recv_window, .. } = self;
        write!(out, " unacked:{unacked} snd_wnd:{send_window} rcv_wnd:{recv_window} retrans:{retransmits}")?;
        if let Some(rtt) = self.min_rtt_us {
            write!(out, " minrtt:{}", millis(rtt))?;
        }
        writeln!(out, " ({}) in-state:{in_state_ms}ms core:{core}", self.phase)
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

/// The words of a filter; a bare number is a port.
fn filter(words: &[String]) -> Result<Option<Filter>, Failure> {
    let text = match words {
        [] => return Ok(None),
        [word] if word.parse::<u16>().is_ok() => format!(":{word}"),
        words => words.join(" "),
    };
    let parsed = text.parse::<Filter>();
    parsed.map(Some).map_err(|error| Failure { code: Failure::USAGE, message: error.to_string() })
}

impl Options {
    /// All connections of the byway behind this socket.
    pub(crate) fn of(control: PathBuf) -> Self {
        Self {
            states: Vec::new(),
            info: false,
            json: false,
            target: Target { control: Some(control), ..Target::default() },
            filter: Vec::new(),
        }
    }
}

/// Asks, filters, and shows.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let filter = filter(&options.filter)?;
    let lines = control::ask(&options.target, "conns")?;
    // All of it before any is shown: whoever reads us may stand still (`| less`), and byway cuts off who does.
    let mut text = Vec::new();
    let shown = show(lines, options, filter.as_ref(), &mut text);
    if io::stdout().lock().write_all(&text).is_err() {
        // The reader has seen enough (`| head`).
        return Ok(());
    }
    let tally = shown.map_err(|trouble| match trouble {
        Trouble::Read(what) => Failure::system(format!("the answer broke off ({what}): ask again")),
        Trouble::Refused(why) => Failure::system(why),
    })?;
    if !options.json {
        super::warn(&tally.summary());
    }
    if let Some(piled_up) = tally.piled_up() {
        super::warn(&piled_up);
    }
    Ok(())
}

/// What can go wrong on the way through.
#[derive(Debug)]
enum Trouble {
    Read(String),
    Refused(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Read(error.to_string())
    }
}

fn show(
    lines: impl Iterator<Item = io::Result<String>>,
    options: &Options,
    filter: Option<&Filter>,
    out: &mut impl Write,
) -> Result<Tally, Trouble> {
    let mut listeners = BTreeMap::new();
    let mut tally = Tally::default();
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
    let mut complete = None;
    for line in lines {
        let line = line?;
        if let Ok(End { end }) = serde_json::from_str(&line) {
            complete = Some(end);
            break;
        }
        let connection: Connection =
            serde_json::from_str(&line).map_err(|error| Trouble::Read(error.to_string()))?;
        if !connection.matches(&options.states, filter) {
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
            put(&connection, options, &mut tally, out)?;
        }
    }
    for listener in listeners.values() {
        put(listener, options, &mut tally, out)?;
    }
    if options.json {
        out.write_all(if tally.shown == 0 { b"[]\n" } else { b"\n]\n" })?;
    }
    match complete {
        Some(true) => Ok(tally),
        Some(false) => Err(Trouble::Read("a core didn't answer".to_owned())),
        None => Err(Trouble::Read("byway ended".to_owned())),
    }
}

/// What was shown.
#[derive(Default)]
struct Tally {
    shown: u64,
    by_state: BTreeMap<String, u64>,
    /// Of those that wait for the application to close.
    oldest: Option<Connection>,
}

impl Tally {
    fn count(&mut self, connection: &Connection) {
        self.shown += 1;
        *self.by_state.entry(connection.state.clone()).or_default() += 1;
        let is_older = |other: &Connection| connection.in_state_ms > other.in_state_ms;
        if connection.state == State::CloseWait.name() && self.oldest.as_ref().is_none_or(is_older) {
            self.oldest = Some(connection.clone());
        }
    }

    fn summary(&self) -> String {
        let states = self.by_state.iter().map(|(state, count)| format!(", {count} {state}"));
        format!("{} shown{}", self.shown, states.collect::<String>())
    }

    /// S2.3: an application that doesn't close shows here.
    fn piled_up(&self) -> Option<String> {
        let oldest = self.oldest.as_ref()?;
        let (count, seconds) = (self.by_state[&oldest.state], oldest.in_state_ms / 1000);
        Some(format!(
            "{count} in CLOSE-WAIT, the oldest for {seconds} s ({} from {}): the peer has closed, the application hasn't",
            end(oldest.local),
            end(oldest.peer)
        ))
    }
}

fn put(
    connection: &Connection,
    options: &Options,
    tally: &mut Tally,
    out: &mut impl Write,
) -> io::Result<()> {
    tally.count(connection);
    if options.json {
        out.write_all(if tally.shown == 1 { b"[\n" } else { b",\n" })?;
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
            rttvar_us: 500,
            min_rtt_us: Some(1200),
            rto_ms: 204,
            backoff: 1,
            timer: Some(("on".into(), 180)),
            congestion: "cubic".into(),
            phase: "open, slow start".into(),
            unacked: 16,
            send_window: 65_536,
            recv_window: 32_768,
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
        let filter = filter(&options.filter).expect("a filter");
        assert!(show(lines.into_iter(), options, filter.as_ref(), &mut out).is_ok());
        String::from_utf8(out).expect("text")
    }

    fn options(states: Vec<StateFilter>, filter: Option<&str>) -> Options {
        Options {
            states,
            info: false,
            json: false,
            target: Target::default(),
            filter: filter.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect(),
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
        let words = "timer:(on,180ms,1) cubic rto:204 backoff:1 rtt:1.234/0.500 mss:1448 cwnd:10 unacked:16 snd_wnd:65536 \
                     rcv_wnd:32768 retrans:2 minrtt:1.200 (open, slow start) in-state:1500ms core:0";
        assert_eq!(second.trim(), words);
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
        assert_eq!(count(options(vec![], Some("[2001:db8::2]:80"))), 1);
        assert_eq!(count(options(vec![], Some("sport = :80"))), 2);
        assert_eq!(count(options(vec![], Some("dst 10.0.0.0/24 and not dport 4001"))), 1);
        assert_eq!(count(options(vec![], Some("ip6 or dst 10.0.0.2:4000"))), 2);
        assert_eq!(count(options(vec![StateFilter::Listening], None)), 0);
    }

    #[test]
    fn s2_3_what_piles_up_in_close_wait_is_named() {
        let mut tally = Tally::default();
        assert_eq!(tally.piled_up(), None);
        let mut one = connection("CLOSE-WAIT", "10.0.0.1:80", "10.0.0.2:4000");
        tally.count(&one);
        (one.in_state_ms, one.peer) = (90_500, "10.0.0.3:4001".parse().expect("an end"));
        tally.count(&one);
        (one.in_state_ms, one.state) = (1_000_000, "ESTAB".into());
        tally.count(&one);
        let said = tally.piled_up().expect("a pile");
        let words = "2 in CLOSE-WAIT, the oldest for 90 s (10.0.0.1:80 from 10.0.0.3:4001)";
        assert!(said.starts_with(words), "{said}");
        assert_eq!(tally.summary(), "3 shown, 2 CLOSE-WAIT, 1 ESTAB");
    }

    #[test]
    fn a_filter_that_is_none_is_placed() {
        let words = ["dport", "=", "http"].map(str::to_owned);
        let failure = filter(&words).expect_err("no port");
        assert_eq!(failure.code, Failure::USAGE);
        assert!(failure.message.contains("character 9: 'http' is no port"), "{}", failure.message);
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        let mut out = Vec::new();
        let cut = show(std::iter::empty(), &options(vec![], None), None, &mut out);
        assert!(matches!(cut, Err(Trouble::Read(what)) if what == "byway ended"));
    }

    #[test]
    fn a_refusal_is_told_and_nothing_is_shown() {
        let mut out = Vec::new();
        let refusal = std::iter::once(Ok("{\"error\":\"ask `ss`\"}".to_owned()));
        let refused = show(refusal, &options(vec![], None), None, &mut out);
        assert!(out.is_empty() && matches!(refused, Err(Trouble::Refused(why)) if why == "ask `ss`"));
    }
}
