//! `byway serve --backend kernel`: the same application over the kernel's TCP.
//!
//! ```text
//!   options → endpoints free? → a listener per core and endpoint → "byway ready backend=kernel …" ─── serving
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use byway_datapath::control::Waker;
use byway_datapath::kernel::{self, Plan};
use byway_datapath::runtime::Runtime;
use byway_tcp::app::{App, Keepalive};
use byway_tcp::tcb::congestion::Algorithm;

use super::control::{Answerer, Server, default_path};
use super::failure::Failure;
use super::options::Launch;
use super::running::{self, joined};
use super::serve::{BACKLOG, Seat, end_drained, tell_systemd, watch};
use super::{metrics, warn};

/// Fewest frames that `--frames` may ask for: 64 of the kernel backend's, 1 MiB.
const FRAMES_MIN: u32 = 512;
/// What `--frames` counts.
const FRAME_OF_OPTION: u32 = 2048;

/// Descriptors of a core beside its connections' (epoll, its waker), and of the process (standard ones, control).
const FILES_PER_CORE: u64 = 4;
const FILES_OF_PROCESS: u64 = 32;

/// Serves until told to stop.
pub(super) fn run<A: App>(
    options: &Launch,
    stop: &AtomicBool,
    ready: impl FnOnce(&str),
    make_app: impl Fn(Seat) -> A + Send + Sync + 'static,
) -> Result<(), Failure> {
    // Said once byway serves: a refusal is one line.
    let mut notes = Vec::new();
    let plan = plan(options, &mut notes)?;
    let control = control(options, &mut notes)?;
    let metrics = options.serving.metrics.map(metrics::bind).transpose()?;
    let count = plan.cores.len();
    let make_app = move |place, waker: &Waker| make_app(Seat { place, count, waker: waker.clone() });
    let runtime = Runtime::start_on_kernel(plan.clone(), make_app)?;
    runtime.go();
    notes.iter().for_each(|note| warn(note));
    let shown = match &control {
        Some((path, ..)) => path.clone(),
        None => "none".to_owned(),
    };
    let interface = options.network.nic.interface.clone().unwrap_or_else(|| "*".to_owned());
    let answerer = Arc::new(Answerer { interface, inquirer: runtime.inquirer(), steering: None });
    if let Some(listener) = metrics {
        metrics::serve(listener, Arc::clone(&answerer))?;
    }
    // Kept until the end, and the file with it.
    let _server = match control {
        Some((_, server, listener)) => {
            Server::serve(listener, answerer)?;
            Some(server)
        }
        None => None,
    };
    ready(&ready_line(options, &plan, &shown));
    tell_systemd("READY=1");
    let failed = watch(&runtime, stop, options, || {});
    tell_systemd("STOPPING=1");
    if let Some(error) = failed {
        // What the other cores still serve is reset.
        let _ = runtime.drain(core::time::Duration::ZERO, || false);
        runtime.stop()?;
        return Err(error.into());
    }
    let drained = runtime.drain(options.serving.drain, || stop.load(std::sync::atomic::Ordering::Relaxed));
    runtime.stop()?;
    end_drained(drained?);
    Ok(())
}

/// `--check`: what can be known without serving.
pub(super) fn check(options: &Launch) -> Result<(), Failure> {
    let mut notes = Vec::new();
    let plan = plan(options, &mut notes)?;
    for &endpoint in &plan.endpoints {
        kernel::check_vacant(endpoint)?;
    }
    notes.iter().for_each(|note| warn(note));
    let (cores, endpoints) = (joined(&plan.cores), joined(&plan.endpoints));
    super::say(&format!("byway could serve over kernel sockets on {endpoints}: cores {cores}"));
    Ok(())
}

fn plan(options: &Launch, notes: &mut Vec<String>) -> Result<Plan, Failure> {
    let nic = &options.network.nic;
    if nic.frames < FRAMES_MIN {
        let text = format!("--frames {}: kernel sockets need {FRAMES_MIN} at least", nic.frames);
        return Err(Failure::configuration(text));
    }
    if let Some(interface) = &nic.interface {
        notes.push(format!(
            "--interface {interface} binds nothing with kernel sockets: they listen on addresses, whichever \
             interface packets for them come in by"
        ));
    }
    let cores = running::allowed_cores(&nic.cores)?;
    let endpoints = endpoints(options);
    let max_connections = connections_max(options, cores.len() as u64, endpoints.len() as u64, notes)?;
    Ok(Plan {
        cores,
        endpoints,
        backlog: BACKLOG,
        max_connections,
        frame_count: nic.frames / (kernel::FRAME_SIZE as u32 / FRAME_OF_OPTION),
        congestion: congestion(nic.congestion, notes)?,
        keepalive: Some(Keepalive::default()),
    })
}

/// What `--congestion` says, if this process may choose it. Without it nobody has asked for byway's default: then the
/// kernel's does, too.
fn congestion(asked: Algorithm, notes: &mut Vec<String>) -> Result<Option<&'static str>, Failure> {
    match kernel::check_congestion(asked.name()) {
        Ok(()) => Ok(Some(asked.name())),
        Err(error) if asked == Algorithm::default() => {
            let own = kernel::own_congestion().unwrap_or_default();
            notes.push(format!("congestion control {own} instead of {asked}: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The given addresses, or all there are; each with every port.
fn addresses(options: &Launch) -> Vec<IpAddr> {
    if !options.network.nic.addresses.is_empty() {
        return options.network.nic.addresses.iter().map(|own| own.address).collect();
    }
    let mut all = vec![Ipv4Addr::UNSPECIFIED.into()];
    if kernel::speaks_ipv6() {
        all.push(Ipv6Addr::UNSPECIFIED.into());
    }
    all
}

fn endpoints(options: &Launch) -> Vec<SocketAddr> {
    let of = |address| options.services.iter().map(move |&(_, port)| SocketAddr::new(address, port));
    addresses(options).into_iter().flat_map(of).collect()
}

/// A connection is a file, and their number is limited.
fn connections_max(
    options: &Launch,
    cores: u64,
    endpoints: u64,
    notes: &mut Vec<String>,
) -> Result<u32, Failure> {
    let files = kernel::raise_file_limit();
    let wanted = options.serving.max_connections;
    let fit = (files.saturating_sub(FILES_OF_PROCESS) / cores).saturating_sub(FILES_PER_CORE + endpoints);
    let fit = u32::try_from(fit).unwrap_or(u32::MAX);
    let raise = "raise the limit (`ulimit -n`, systemd `LimitNOFILE=`)";
    if fit == 0 {
        let text =
            format!("this process may open {files} files, too few for {cores} cores' sockets: {raise}");
        return Err(Failure::system(text));
    }
    if fit < wanted {
        notes.push(format!(
            "{fit} connections at once on each core instead of {wanted}: this process may open {files} files; {raise}"
        ));
    }
    Ok(fit.min(wanted))
}

/// The control socket. Without a word of where, and without the right to put it where it belongs, byway serves without.
fn control(
    options: &Launch,
    notes: &mut Vec<String>,
) -> Result<Option<(String, Server, UnixListener)>, Failure> {
    let nic = &options.network.nic;
    let path = match (&nic.control, &nic.interface) {
        (None, None) => match options.services.first() {
            Some((_, port)) => default_path(&format!("kernel-{port}")),
            None => default_path(&format!("kernel-client-{}", std::process::id())),
        },
        _ => nic.control_path(),
    };
    match Server::bind(&path) {
        Ok((server, listener)) => Ok(Some((path.display().to_string(), server, listener))),
        Err(failure) if nic.control.is_none() && failure.code == Failure::PERMISSION => {
            notes.push(format!("no `byway stats`: {}", failure.message));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

fn ready_line(options: &Launch, plan: &Plan, control: &str) -> String {
    let ports = options.services.iter().map(|(name, port)| format!("{port}({name})"));
    format!(
        "byway ready backend=kernel cores={} max-connections={} congestion={} addresses={} ports={} control={control}",
        joined(&plan.cores),
        plan.max_connections,
        plan.congestion.map_or_else(|| kernel::own_congestion().unwrap_or_default(), str::to_owned),
        joined(addresses(options)),
        joined(ports),
    )
}
