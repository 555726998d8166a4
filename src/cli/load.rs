//! `byway load`: requests from byway's own client side, for a while; then what became of them.
//!
//! ```text
//!   check options → resolve the name → place.rs: from where → running.rs: frames flow
//!     ─── a crate::load::Load on each core ─── → drain → detach → table, --json, --plot, --hdr
//! ```

mod hdr;
mod place;
mod plot;
mod result;
mod target;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::load::{Failed, Job, Load, Pace, Progress, Protocol, Report};
use byway_datapath::clock::Clock;
use byway_datapath::control::{Event, Waker};
use byway_datapath::link::Link;
use byway_datapath::runtime::Plan;
use clap::Args;
use sha1::{Digest as _, Sha1};

use super::failure::Failure;
use super::host::Addresses;
use super::options::{Nic, duration};
use super::running::{self, Running};
use super::serve::stop_flag;
use target::Target;

/// What a WebSocket's and a raw service's messages have unless told otherwise: a small request.
const PAYLOAD: u32 = 64;
/// Longest payload: what byway's own server takes as one WebSocket message.
const PAYLOAD_MAX: i64 = 16 << 20;
/// Connections of a core that may be closing while their places have new ones: 1 s at 4,096 a second for those
/// whose server doesn't close by itself.
const PARTING: u32 = 4096;
/// TIME-WAIT of a client that comes back to the same server all the time. Linux lets clients use such a port again
/// after 1 s, too, relying on timestamps as byway does (tcp_tw_reuse; RFC 6191): 28,232 ports are as many
/// connections a second.
const TIME_WAIT: Duration = Duration::from_secs(1);
/// How long connections may take to close in order at the end.
const DRAIN: Duration = Duration::from_secs(1);
/// How often the main thread looks for signals and for the end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the cores may take to hear of an interruption, and to close what they have open, before that is done in one
/// go: whoever interrupts doesn't want to wait.
const HEAR: Duration = Duration::from_secs(2);

/// Help of `--client-ports`, with [`place::SHARED_PORTS`].
const CLIENT_PORTS: &str = "Ports of connections from a shared address, which nobody else then has, an open file each \
    [default: 61000-65534]";

/// Options of `byway load`.
#[derive(Args, Debug)]
#[command(args_override_self = true, mut_arg("client_ports", |arg| arg.help(CLIENT_PORTS)))]
pub(crate) struct Options {
    #[command(flatten)]
    nic: Nic,

    /// Connections, over all cores
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: u32,

    /// Requests a second over all connections, or max: each connection's next as soon as it is free
    #[arg(long, value_name = "N|max", default_value = "max")]
    rate: Rate,

    /// How long requests are made
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
    duration: Duration,

    /// Octets of each request's body or message [default: http 0, that is GET; ws and tcp 64]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=PAYLOAD_MAX))]
    payload: Option<u32>,

    /// A new connection for each request
    #[arg(long)]
    new_connection_per_request: bool,

    /// What takes longer, from the intended beginning on, is an error
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = span)]
    timeout: Duration,

    /// Write the result as a JSON object (its schema: deploy/load.schema.json)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the latencies by percentile as an SVG picture
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// Write the latencies by percentile as HdrHistogram does, in ms
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    /// http://HOST[:PORT]/PATH, ws://HOST[:PORT]/PATH or tcp://HOST:PORT (an echo service)
    #[arg(value_name = "URL")]
    url: Target,
}

/// `--rate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rate(Pace);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u64>() {
            _ if text == "max" => Ok(Self(Pace::Max)),
            // What no single host sends, and far from overflowing a schedule.
            Ok(rate @ 1..=1_000_000_000) => Ok(Self(Pace::Rate(rate))),
            Ok(_) => Err("give 1 to 1000000000 requests a second, or 'max'".to_owned()),
            Err(_) => Err(format!("'{text}' is no number: give requests a second, or 'max'")),
        }
    }
}

/// A time that isn't zero.
fn span(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it is zero".to_owned()),
        time => Ok(time),
    }
}

impl Options {
    fn payload(&self) -> usize {
        let usual = if self.url.protocol == Protocol::Http { 0 } else { PAYLOAD };
        self.payload.unwrap_or(usual) as usize
    }

    /// What contradicts itself, whatever the host.
    fn check(&self) -> Result<(), Failure> {
        self.nic.check()?;
        if self.url.protocol == Protocol::Raw && self.payload() == 0 {
            let text = "--payload 0 with tcp://: an echo of nothing can't be awaited: give 1 or more";
            return Err(Failure::configuration(text));
        }
        Ok(())
    }
}

/// Runs for as long as it was told, or until a signal.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    options.check()?;
    let link = running::look_at(&options.nic)?;
    let mut plan = plan(options, &link)?;
    let remote = options.url.resolve(&plan.stack.addresses)?;
    let locals = locals(options, &link, &mut plan, remote.ip())?;
    let files = Files::create(options)?;
    let jobs = jobs(options, &plan, remote, &locals)?;
    let stop = stop_flag(&[libc::SIGTERM, libc::SIGINT])?;

    let progress: Vec<Arc<Progress>> = jobs.iter().map(|_| Arc::default()).collect();
    let (results, reports) = mpsc::channel();
    let cores = progress.clone();
    let make_app = move |place: usize, _: &Waker| {
        Load::new(jobs[place].clone(), Arc::clone(&cores[place]), results.clone())
    };
    let running = Running::start(&options.nic, &link, &plan, Addresses::Planned, make_app, &stop)?;
    let facts = running.facts();
    let (interrupted, failed) = watch(&running, &progress, &stop);
    let ended = match failed {
        // What is still open is reset; that is nobody's fault here.
        None => running.finish(DRAIN, &stop).map(drop),
        Some(error) => Err(running.fail(error)),
    };
    // The cores have ended: all that come have come.
    let mut report = Report::new((2 * options.timeout).max(Duration::from_secs(60)).into());
    reports.try_iter().for_each(|core| report.merge(&core));
    let outcome = result::Outcome { options, remote, report: &report, facts: &facts, interrupted };
    outcome.print();
    files.write(&outcome)?;
    ended?;
    if report.requests == 0 && !interrupted {
        return Err(nothing(options, &report));
    }
    Ok(())
}

/// Waits for the cores to be done. Whether a signal came before, and whether a core failed.
fn watch(
    running: &Running<'_>,
    progress: &[Arc<Progress>],
    stop: &AtomicBool,
) -> (bool, Option<byway_datapath::Error>) {
    let mut line = result::Ticker::new(std::io::stderr().is_terminal(), Clock.now());
    let mut give_up = None;
    loop {
        let now = Clock.now();
        if stop.swap(false, Ordering::Relaxed) {
            progress.iter().for_each(|core| core.stop.store(true, Ordering::Relaxed));
            give_up.get_or_insert(now + HEAR);
        }
        let done = progress.iter().all(|core| core.done.load(Ordering::Acquire));
        if done || give_up.is_some_and(|give_up| now >= give_up) {
            return (give_up.is_some(), None);
        }
        line.tick(progress, now);
        if let Some(Event::Failed { error, .. }) = running.runtime.next_event(LOOK_EVERY) {
            return (false, Some(error));
        }
    }
}

/// Own addresses to open connections from. Of shared ones the plan keeps the one: ports are held there alone.
fn locals(options: &Options, link: &Link, plan: &mut Plan, remote: IpAddr) -> Result<Vec<IpAddr>, Failure> {
    let stack = &mut plan.stack;
    if !options.nic.host_address {
        return place::locals(stack, remote, options.connections);
    }
    let local = place::shared_local(link, stack, remote, options.connections)?;
    stack.addresses.retain(|own| own.address == local);
    Ok(vec![local])
}

fn plan(options: &Options, link: &Link) -> Result<Plan, Failure> {
    if link.rx_queues > 1 && link.rss.is_none() {
        return Err(Failure::configuration(format!(
            "{0} ({1}) has {2} queues and doesn't tell how it spreads flows over them, so answers might reach the \
             wrong core: `ethtool -L {0} combined 1`, or rx 1 tx 1",
            link.name, link.driver, link.rx_queues
        )));
    }
    let mut plan = running::plan(&options.nic, link)?;
    // A core without a connection would have nothing to do.
    plan.lanes.truncate(options.connections as usize);
    let each = options.connections.div_ceil(plan.lanes.len() as u32);
    plan.stack.max_connections = each * 2 + PARTING;
    plan.stack.time_wait = TIME_WAIT.into();
    if options.nic.host_address && options.nic.client_ports.is_none() {
        plan.stack.client_ports = place::SHARED_PORTS;
    }
    if let Some(secret) = secret(&link.name) {
        plan.stack.secret = secret;
    }
    Ok(plan)
}

/// The stack's secret, the same for as long as the kernel runs, as the kernel's own is. The server may have the last
/// run's connections in TIME-WAIT for a minute, and takes a SYN on one of their ports only if sequence number or
/// timestamp are newer (RFC 6191). Both go by the clock, plus what the secret makes of the addresses and ports: with
/// another secret they would be older as often as not, and each such open would wait in vain.
///
/// Hosts can't know it; users of this one could, and guess sequence numbers of connections that carry no one's data.
fn secret(interface: &str) -> Option<[u8; 32]> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let mut secret = [0; 32];
    for (number, half) in (0u8..).zip(secret.chunks_mut(16)) {
        let digest = Sha1::new()
            .chain_update(b"byway load")
            .chain_update([number])
            .chain_update(interface)
            .chain_update(&boot)
            .finalize();
        half.copy_from_slice(&digest[..16]);
    }
    Some(secret)
}

fn jobs(
    options: &Options,
    plan: &Plan,
    remote: std::net::SocketAddr,
    locals: &[IpAddr],
) -> Result<Vec<Job>, Failure> {
    let cores = plan.lanes.len() as u32;
    // Looks like nothing that a compressor, or a server that sends zeros, could guess.
    let octet = |at: u64| at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    let payload: Arc<[u8]> = (0..options.payload() as u64).map(octet).collect();
    (0..cores)
        .map(|place| {
            let mut seed = [0; 8];
            getrandom::fill(&mut seed).map_err(|error| Failure::system(format!("no randomness: {error}")))?;
            Ok(Job {
                remote,
                protocol: options.url.protocol,
                host: options.url.authority.clone(),
                path: options.url.path.clone(),
                locals: locals.to_vec(),
                connections: options.connections / cores + u32::from(place < options.connections % cores),
                pace: options.rate.0,
                cores: cores.into(),
                place: place.into(),
                duration: options.duration.into(),
                timeout: options.timeout.into(),
                payload: Arc::clone(&payload),
                fresh: options.new_connection_per_request,
                slots: plan.stack.max_connections,
                seed: u64::from_ne_bytes(seed),
            })
        })
        .collect()
}

/// Not a single answer: said as an error, with what was seen instead.
fn nothing(options: &Options, report: &Report) -> Failure {
    let most = Failed::ALL.into_iter().max_by_key(|&how| report.count(how)).filter(|_| report.errors() > 0);
    let why = match most {
        None => "nothing was asked",
        Some(Failed::Refused) => "connection refused: is the server running, on this port?",
        Some(Failed::Reset) => "connections reset by the server",
        Some(Failed::Closed) => "the server closes without an answer",
        Some(Failed::TimedOut) => {
            "no answer within --timeout: is the server there, and reachable from --address?"
        }
        Some(Failed::Unreachable) => "unreachable, says a router or the host",
        Some(Failed::Protocol) => report.example.unwrap_or("what comes isn't an answer"),
        Some(Failed::Status) => "every answer is an error status: check the URL's path",
        Some(Failed::NoPort) => "no port is free",
    };
    Failure::system(format!("no request to {} was answered: {why}", options.url))
}

/// The files that were asked for, opened before anything is measured for them, and overwritten only afterwards.
struct Files {
    json: Option<(PathBuf, File)>,
    plot: Option<(PathBuf, File)>,
    hdr: Option<(PathBuf, File)>,
}

impl Files {
    fn create(options: &Options) -> Result<Self, Failure> {
        let create = |path: &Option<PathBuf>| {
            let open = |path: &PathBuf| File::options().write(true).create(true).truncate(false).open(path);
            path.as_ref()
                .map(|path| open(path).map(|file| (path.clone(), file)).map_err(|why| cannot(path, &why)))
                .transpose()
        };
        Ok(Self { json: create(&options.json)?, plot: create(&options.plot)?, hdr: create(&options.hdr)? })
    }

    fn write(self, outcome: &result::Outcome<'_>) -> Result<(), Failure> {
        let write = |file: Option<(PathBuf, File)>, text: &dyn Fn() -> String| match file {
            None => Ok(()),
            Some((path, mut file)) => {
                // Pipes and terminals have no length to set.
                let _ = file.set_len(0);
                file.write_all(text().as_bytes()).map_err(|why| cannot(&path, &why))
            }
        };
        write(self.json, &|| outcome.json())?;
        write(self.plot, &|| plot::draw(&outcome.title(), &outcome.report.latency))?;
        write(self.hdr, &|| hdr::log(&outcome.report.latency))
    }
}

fn cannot(path: &Path, why: &std::io::Error) -> Failure {
    Failure::configuration(format!("writing {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn load(arguments: &str) -> Result<Options, String> {
        let all = format!("byway load --interface eth0 {arguments}");
        match crate::cli::Cli::try_parse_from(all.split_whitespace()) {
            Ok(crate::cli::Cli { verb: crate::cli::Verb::Load(load) }) => Ok(load),
            Ok(_) => unreachable!("load was asked for"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_documented_command_line_parses() {
        let options = load(
            "--address 192.0.2.7/24 --gateway 192.0.2.1 --connections 1000 --rate 5000 --duration 30s --payload 10 \
             --new-connection-per-request --json a.json --plot a.svg --hdr a.hdr --queues 0 --cores 1 --attach native \
             --zero-copy off --busy-poll on --accept-partial-checksums --congestion bbr --control /tmp/x.sock \
             http://192.0.2.1/echo",
        )
        .expect("parses");
        options.check().expect("fits");
        assert_eq!((options.connections, options.rate), (1000, Rate(Pace::Rate(5000))));
        let defaults = load("--address 192.0.2.7/24 ws://192.0.2.1").expect("parses");
        assert_eq!((defaults.rate, defaults.duration), (Rate(Pace::Max), Duration::from_secs(10)));
        assert_eq!(defaults.payload(), 64);
        assert_eq!(load("--address 192.0.2.7/24 http://192.0.2.1").expect("parses").payload(), 0);
    }

    #[test]
    fn mistakes_are_refused_with_what_to_do() {
        let own = "--address 192.0.2.7/24";
        for (arguments, word) in [
            ("http://192.0.2.1/", "--address"),
            (&format!("{own} --rate fast http://192.0.2.1/"), "'max'"),
            (&format!("{own} --rate 0 http://192.0.2.1/"), "'max'"),
            (&format!("{own} --duration 10 http://192.0.2.1/"), "unit is missing"),
            (&format!("{own} --duration 0s http://192.0.2.1/"), "zero"),
            (&format!("{own} --payload 99999999 http://192.0.2.1/"), "16777216"),
            (&format!("{own} --conections 5 http://192.0.2.1/"), "--connections"),
            (own, "URL"),
        ] {
            let error = load(arguments).expect_err(arguments);
            assert!(error.contains(word), "{error}");
        }
        let echo_of_nothing = load(&format!("{own} --payload 0 tcp://192.0.2.1:7")).expect("parses").check();
        assert_eq!(echo_of_nothing.expect_err("refused").code, Failure::CONFIGURATION);
    }

    #[test]
    fn the_secret_outlives_a_run_and_is_an_interfaces_own() {
        let first = secret("eth0").expect("a boot has an identity");
        assert_eq!(secret("eth0"), Some(first));
        assert_ne!(secret("eth1"), Some(first));
        assert_ne!(first[..16], first[16..]);
    }
}
