//! `byway serve`: checks, ready, serving; and the way back.
//!
//! ```text
//!   check options → running.rs: frames flow → "byway ready …" ─── serving ─── SIGTERM, SIGINT or a failure
//!     → running.rs: drain → detach → stop cores → exit
//! ```
//!
//! With `--backend kernel` sockets.rs stands in for running.rs; with `auto` it does if that fails to start.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use byway_bpf::Steering;
use byway_datapath::clock::Clock;
use byway_datapath::control::{Event, Waker};
use byway_datapath::link::Link;
use byway_datapath::runtime::{Plan, Runtime};
use byway_tcp::app::{App, Keepalive};
use byway_tcp::stack::Listener;

use super::failure::Failure;
use super::host::Addresses;
use super::notify::{notify, watchdog};
use super::options::{Backend, Launch, Serve};
use super::reload::Reload;
use super::running::{self, Facts, Running, joined};
use super::{counted, host, metrics, say, sockets, warn};
use crate::app::{self, WallClock};

/// Half-open connections of a port: Linux's somaxconn.
pub(super) const BACKLOG: u32 = 4096;

/// How often the main thread looks for signals when no core has news.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often the cores hear of each other's counters, for `/stats`, and of the time of day: about once a second.
const LOOKS_PER_SHARE: u32 = 20;

/// Where an application runs.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Its core's place, of `count`.
    pub(crate) place: usize,
    pub(crate) count: usize,
    /// Ends its core's sleep.
    pub(crate) waker: Waker,
}

/// Runs until told to stop by a signal.
pub(crate) fn run(options: &Serve) -> Result<(), Failure> {
    let mut launch = options.launch();
    let app_config = app_config(options, &launch.clock)?;
    if options.serving.check {
        return check(&launch);
    }
    launch.reload = Some(Reload::on_hangup(std::env::args_os().collect())?);
    let stop = stop_flag(&[libc::SIGTERM, libc::SIGINT])?;
    run_app(&launch, &stop, say_ready, move |_| app::Service::new(app_config.clone()))
}

/// Nobody may be reading; byway serves all the same.
pub(crate) fn say_ready(ready: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{ready}").and_then(|()| out.flush());
}

/// `--check`: everything that can be known without touching the interface.
pub(crate) fn check(options: &Launch) -> Result<(), Failure> {
    options.check()?;
    match options.network.backend {
        Backend::Xdp => check_xdp(options),
        Backend::Kernel => sockets::check(options),
        Backend::Auto => check_xdp(options).or_else(|failure| {
            tell_fallback(options, &failure);
            sockets::check(options)
        }),
    }
}

fn check_xdp(options: &Launch) -> Result<(), Failure> {
    needs_nic(options)?;
    let link = running::look_at(&options.network.nic)?;
    let plan = plan(options, &link)?;
    Steering::load()?.check_vacant(link.index as i32)?;
    if options.network.nic.host_address {
        drop(host::reserve(&link, &plan)?);
    }
    let (queues, cores): (Vec<_>, Vec<_>) = plan.lanes.iter().copied().unzip();
    let said =
        format!("byway could serve on {} ({}): queues {queues:?} on cores {cores:?}", link.name, link.driver);
    say(&said);
    Ok(())
}

/// Runs until `stop` is set, and says `ready` once frames flow.
pub(crate) fn run_until(options: &Serve, stop: &AtomicBool, ready: impl FnOnce(&str)) -> Result<(), Failure> {
    let launch = options.launch();
    let app_config = app_config(options, &launch.clock)?;
    run_app(&launch, stop, ready, move |_| app::Service::new(app_config.clone()))
}

/// [`run_until`], with any application: `make_app` is called on each core.
pub(crate) fn run_app<A: App>(
    options: &Launch,
    stop: &AtomicBool,
    ready: impl FnOnce(&str),
    make_app: impl Fn(Seat) -> A + Send + Sync + 'static,
) -> Result<(), Failure> {
    options.check()?;
    tell_time(&options.clock);
    let make_app = Arc::new(make_app);
    let again = Arc::clone(&make_app);
    let mut ready = Some(ready);
    let mut tell_ready = |line: &str| {
        if let Some(ready) = ready.take() {
            ready(line);
        }
    };
    if options.network.backend != Backend::Kernel {
        let mut started = false;
        let note_ready = |line: &str| {
            started = true;
            tell_ready(line);
        };
        let result = run_xdp(options, stop, note_ready, move |seat| make_app(seat));
        match result {
            Err(failure) if options.network.backend == Backend::Auto && !started => {
                tell_fallback(options, &failure)
            }
            result => return result,
        }
    }
    sockets::run(options, stop, tell_ready, move |seat| again(seat))
}

fn run_xdp<A: App>(
    options: &Launch,
    stop: &AtomicBool,
    ready: impl FnOnce(&str),
    make_app: impl Fn(Seat) -> A + Send + Sync + 'static,
) -> Result<(), Failure> {
    needs_nic(options)?;
    let link = running::look_at(&options.network.nic)?;
    let plan = plan(options, &link)?;
    let count = plan.lanes.len();
    let make_app = move |place, waker: &Waker| make_app(Seat { place, count, waker: waker.clone() });
    let metrics = options.serving.metrics.map(metrics::bind).transpose()?;
    let running = Running::start(&options.network.nic, &link, &plan, Addresses::AsTheyCome, make_app, stop)?;
    if let (Some(listener), Some(answerer)) = (metrics, &running.answerer) {
        metrics::serve(listener, Arc::clone(answerer))?;
    }
    // Told to stop while it waited for the carrier, it was never ready.
    if !stop.load(Ordering::Relaxed) {
        ready(&ready_line(options, &running.facts()));
        tell_systemd("READY=1");
    }
    let mut link = running.link_watch();
    let look = || link.look().iter().for_each(|said| warn(said));
    let failed = watch(&running.runtime, stop, options, look);
    tell_systemd("STOPPING=1");
    if let Some(error) = failed {
        return Err(running.fail(error));
    }
    // A second signal cuts the drain short.
    end_drained(running.finish(options.serving.drain, stop)?);
    Ok(())
}

/// What XDP can't do without, where only `--backend auto` lets it be missing; and what it alone minds.
fn needs_nic(options: &Launch) -> Result<(), Failure> {
    let nic = &options.network.nic;
    if nic.interface.is_none() || nic.addresses.is_empty() && !nic.host_address {
        return Err(Failure::configuration("XDP needs --interface, and --address or --host-address"));
    }
    nic.check()
}

/// The kernel's TCP instead of byway's own, and why.
fn tell_fallback(options: &Launch, failure: &Failure) {
    warn(&format!("KERNEL SOCKETS instead of XDP, without byway's own TCP: {}", failure.message));
    let ignored = options.network.nic.of_no_use_to_sockets();
    if !ignored.is_empty() {
        warn(&format!("with kernel sockets of no effect: {}", ignored.join(", ")));
    }
}

/// Tells the cores what time it is.
fn tell_time(clock: &WallClock) {
    clock.set(Clock.now(), Clock.unix());
}

/// Looks after the cores until `stop` is set, or one fails; and with `look` about once a second after what else matters.
pub(super) fn watch(
    runtime: &Runtime,
    stop: &AtomicBool,
    options: &Launch,
    mut look: impl FnMut(),
) -> Option<byway_datapath::Error> {
    let mut looks = 0u32;
    // Twice as often as it has to be, as sd_watchdog_enabled(3) recommends.
    let per_pat = watchdog().map(|within| (within / 2).as_millis() / LOOK_EVERY.as_millis());
    let per_pat = per_pat.map(|looks| u32::try_from(looks).unwrap_or(u32::MAX).max(1));
    loop {
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS_PER_SHARE) {
            runtime.share_totals();
            tell_time(&options.clock);
            look();
        }
        if let Some(reload) = &options.reload {
            reload.look(runtime);
        }
        // A core that doesn't answer is one that serves nobody: then systemd is to start byway anew.
        if per_pat.is_some_and(|per_pat| looks.is_multiple_of(per_pat)) && runtime.answers() {
            tell_systemd("WATCHDOG=1");
        }
        if stop.swap(false, Ordering::Relaxed) {
            return None;
        }
        if let Some(Event::Failed { error, .. }) = runtime.next_event(LOOK_EVERY) {
            return Some(error);
        }
    }
}

/// Says what a drain had to reset, if anything.
pub(super) fn end_drained(reset: u32) {
    if reset > 0 {
        warn(&format!("{} reset for not finishing within --drain", counted(reset, "connection")));
    }
}

fn ready_line(options: &Launch, facts: &Facts) -> String {
    let on = |is: bool| if is { "on" } else { "off" };
    let ports = options.services.iter().map(|(name, port)| format!("{port}({name})"));
    format!(
        "byway ready backend=xdp interface={} driver={} attach={} mode={} need-wakeup=on busy-poll={} \
         idle={} huge-pages={} queues={} cores={} checksums={} mtu={} addresses={} ports={} control={}",
        facts.interface,
        facts.driver,
        facts.attach,
        facts.mode,
        on(facts.busy_poll),
        options.network.nic.idle.name(),
        on(facts.huge_pages),
        joined(&facts.queues),
        joined(&facts.cores),
        facts.checksums,
        facts.mtu,
        facts.addresses.join(","),
        joined(ports),
        options.network.nic.control_path().display(),
    )
}

fn plan(options: &Launch, link: &Link) -> Result<Plan, Failure> {
    let mut plan = running::plan(&options.network.nic, link)?;
    plan.stack.max_connections = options.serving.max_connections;
    // A browser that lost its power says nothing, and would stay for ever (S3.2).
    plan.stack.keepalive = Some(Keepalive::default().idle);
    let listener = |&(_, port): &(String, u16)| Listener { port, backlog: BACKLOG };
    plan.listeners = options.services.iter().map(listener).collect();
    Ok(plan)
}

/// What the application is told; certificate and key are read here.
fn app_config(options: &Serve, clock: &WallClock) -> Result<app::Config, Failure> {
    let ports = app::Ports {
        http: Some(options.port),
        https: options.tls_port,
        echo: options.echo_port,
        discard: options.discard_port,
        chargen: options.chargen_port,
    };
    let limits = app::Limits {
        connections_per_peer: options.max_connections_per_peer,
        deflaters: options.deflaters,
        ..app::Limits::default()
    };
    let app::Renewal { allowed_origins, tls } = renewal(options)?;
    Ok(app::Config { ports, limits, clock: clock.clone(), allowed_origins, tls })
}

/// What of it may change while byway runs.
pub(super) fn renewal(options: &Serve) -> Result<app::Renewal, Failure> {
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(app::TlsServer::load(certificate, key).map_err(Failure::configuration)?)
        }
        _ => None,
    };
    if tls.as_ref().is_some_and(app::TlsServer::has_slow_key) {
        warn(
            "the RSA key of --tls-key signs in milliseconds, and its core does nothing else meanwhile: take ECDSA P-256",
        );
    }
    Ok(app::Renewal { allowed_origins: options.origins.clone(), tls })
}

/// Set by any of `signals` from now on.
pub(crate) fn stop_flag(signals: &[i32]) -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::system(format!("handling signals: {error}")))?;
    }
    Ok(stop)
}

pub(super) fn tell_systemd(state: &str) {
    if let Err(why) = notify(state) {
        warn(&why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{SocketAddr, TcpStream};
    use std::path::Path;

    use byway_lab::{BYWAY_INTERFACE, BYWAY_IPV4, Lab, LabOptions, VethOptions, is_root};
    use byway_tcp::app::{Closed, Conn, Ready};
    use clap::Parser as _;

    /// An application that has a bug: the first connection shows it.
    struct Faulty;

    impl App for Faulty {
        fn opened<C: Conn>(&mut self, _: &mut C) {
            panic!("a bug, for the test");
        }

        fn ready<C: Conn>(&mut self, _: &mut C, _: Ready) {}

        fn closed<C: Conn>(&mut self, _: &mut C, _: Closed) {}
    }

    fn lab() -> Option<Lab> {
        if !is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let veth = VethOptions { queues: 2, offloads: false, ..VethOptions::default() };
        Some(Lab::new(LabOptions { veth, impair: None }).expect("a lab"))
    }

    fn control(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("byway-serve-{name}-{}.sock", std::process::id()))
    }

    fn options(control: &Path) -> Serve {
        let address = format!("{BYWAY_IPV4}/24");
        let arguments =
            ["byway", "serve", "--interface", BYWAY_INTERFACE, "--address", &address, "--control"];
        let all = arguments.into_iter().map(std::ffi::OsString::from).chain([control.into()]);
        match crate::cli::Cli::try_parse_from(all).expect("parses").verb {
            crate::cli::Verb::Serve(options) => options,
            _ => unreachable!("serve was asked for"),
        }
    }

    /// This process goes on: what is gone was given back, not taken back by the kernel.
    fn assert_nothing_left(lab: &Lab, control: &Path) {
        let link = lab.byway.run(&format!("ip -details link show {BYWAY_INTERFACE}")).expect("ip");
        assert!(!link.contains("prog/xdp"), "a program is attached: {link}");
        assert!(!control.exists());
        // The queues are free, too.
        let stop = AtomicBool::new(true);
        lab.byway.enter(|| run_until(&options(control), &stop, |_| {})).expect("serves");
    }

    /// A bug in one core ends all of byway, which says so.
    #[test]
    fn a_core_that_panics_ends_byway_and_leaves_nothing() {
        let Some(lab) = lab() else { return };
        let (control, stop) = (control("core"), AtomicBool::new(false));
        let (tell_ready, ready) = std::sync::mpsc::channel();
        let failure = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let tell = |_: &str| tell_ready.send(()).expect("somebody waits");
                lab.byway.enter(|| run_app(&options(&control).launch(), &stop, tell, |_| Faulty))
            });
            ready.recv().expect("ready");
            lab.kernel.enter(|| {
                // Answered or not.
                let _ = TcpStream::connect_timeout(
                    &SocketAddr::new(BYWAY_IPV4.into(), 80),
                    Duration::from_secs(5),
                );
            });
            server.join().expect("no panic outside the core").expect_err("a failure")
        });
        assert_eq!(failure.code, Failure::SYSTEM);
        assert!(failure.message.contains("internal error"), "{}", failure.message);
        assert_nothing_left(&lab, &control);
    }

    #[test]
    fn a_core_that_panics_at_the_start_leaves_nothing() {
        let Some(lab) = lab() else { return };
        let (control, stop) = (control("start"), AtomicBool::new(false));
        let make_app = |seat: Seat| if seat.place == 1 { panic!("a bug, for the test") } else { Faulty };
        let ready = |_: &str| panic!("one core isn't");
        let result = lab.byway.enter(|| run_app(&options(&control).launch(), &stop, ready, make_app));
        let failure = result.expect_err("a failure");
        assert!(failure.message.contains("internal error"), "{}", failure.message);
        assert_nothing_left(&lab, &control);
    }

    /// A bug in the main thread, which unwinds through everything: the control thread, which goes on,
    /// doesn't keep the program attached.
    #[test]
    fn a_panic_of_the_main_thread_leaves_nothing() {
        let Some(lab) = lab() else { return };
        let (control, stop) = (control("main"), AtomicBool::new(false));
        let ready = |_: &str| panic!("a bug, for the test");
        std::thread::scope(|scope| {
            let main = scope.spawn(|| lab.byway.enter(|| run_until(&options(&control), &stop, ready)));
            assert!(main.join().is_err());
        });
        assert_nothing_left(&lab, &control);
    }
}
