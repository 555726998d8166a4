//! `byway serve`: checks, steering, cores, ready; and the way back.
//!
//! ```text
//!   check options → look at the host → load steering → is the interface free? → start cores → sockets into the map → attach
//!     → go → wait for carrier → "byway ready …" ─── serving ─── SIGTERM, SIGINT or a failure
//!     → drain → detach → stop cores → exit
//! ```
//!
//! Everything taken is given back by dropping: the program is held by a link of this process, the
//! sockets and memory by the cores' threads. A start that fails half-way leaves nothing behind.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use byway::app;
use byway_bpf::{Attached, Mode, Steering};
use byway_datapath::config::{BusyPoll, Config as Datapath, ZeroCopy as DatapathZeroCopy};
use byway_datapath::control::Event;
use byway_datapath::link::{self, Link};
use byway_datapath::pin;
use byway_datapath::runtime::{Plan, Runtime};
use byway_tcp::app::{App, Keepalive};
use byway_tcp::stack::{Cidr, Config as StackConfig, Listener};
use byway_tcp::wire::Checksums;

use super::control::{Answerer, Server};
use super::failure::Failure;
use super::notify::notify;
use super::options::{Attach, Cores, Queues, Serve, Switch, ZeroCopy};
use super::warn;

/// Half-open connections of a port: Linux's somaxconn.
const BACKLOG: u32 = 4096;

/// How often the main thread looks for signals when no core has news.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often the cores hear of each other's counters, for `/stats`: about once a second.
const LOOKS_PER_SHARE: u32 = 20;

/// How long a NIC may take to get its carrier back after the program was attached; ixgbe retrains
/// its link for up to 30 s.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(35);
const CARRIER_EVERY: Duration = Duration::from_millis(100);

/// Runs until told to stop by a signal.
pub(crate) fn run(options: &Serve) -> Result<(), Failure> {
    if options.check {
        return check(options);
    }
    let stop = stop_flag(&[libc::SIGTERM, libc::SIGINT])?;
    // Nobody may be reading; byway serves all the same.
    run_until(options, &stop, |ready| {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{ready}").and_then(|()| out.flush());
    })
}

/// `--check`: everything that can be known without touching the interface.
fn check(options: &Serve) -> Result<(), Failure> {
    options.check()?;
    let link = look_at(options)?;
    let plan = plan(options, &link)?;
    Steering::load()?.check_vacant(link.index as i32)?;
    let (queues, cores): (Vec<_>, Vec<_>) = plan.lanes.iter().copied().unzip();
    let said =
        format!("byway could serve on {} ({}): queues {queues:?} on cores {cores:?}", link.name, link.driver);
    let _ = writeln!(std::io::stdout().lock(), "{said}");
    Ok(())
}

/// Runs until `stop` is set, and says `ready` once frames flow.
pub(crate) fn run_until(options: &Serve, stop: &AtomicBool, ready: impl FnOnce(&str)) -> Result<(), Failure> {
    let app_config = app_config(options);
    run_app(options, stop, ready, move |_| app::Service::new(app_config.clone()))
}

/// [`run_until`], with any application: `make_app` is called on each core.
fn run_app<A: App>(
    options: &Serve,
    stop: &AtomicBool,
    ready: impl FnOnce(&str),
    make_app: impl Fn(usize) -> A + Send + Sync + 'static,
) -> Result<(), Failure> {
    options.check()?;
    let link = look_at(options)?;
    let plan = plan(options, &link)?;
    // First of what needs privileges, and the quickest to refuse.
    let steering = Steering::load()?;
    // Before the sockets, which would try for a while to get a queue that its owner is to keep.
    steering.check_vacant(link.index as i32)?;
    let (server, listener) = Server::bind(&options.control_path())?;
    let runtime = Runtime::start(plan.clone(), make_app)?;
    let serving = Serving::attach(options, &link, &plan, runtime, steering)?;
    let result = serving.run(listener, stop, ready);
    // The socket file goes last: as long as it is there, another byway is told that we are, too.
    drop(server);
    result
}

/// A byway whose frames flow.
struct Serving<'a> {
    options: &'a Serve,
    link: &'a Link,
    plan: &'a Plan,
    // Before the runtime, so that also a failure or a panic detaches before the sockets are closed (D9).
    steering: Hold,
    runtime: Runtime,
    attached: Attached,
}

/// The steering, detached when dropped, whoever else shares it: the control thread does, and it never ends.
struct Hold(Arc<Mutex<Steering>>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).detach();
    }
}

impl<'a> Serving<'a> {
    /// Steers frames to the cores' sockets, which are already there.
    fn attach(
        options: &'a Serve,
        link: &'a Link,
        plan: &'a Plan,
        runtime: Runtime,
        mut steering: Steering,
    ) -> Result<Self, Failure> {
        for own in &options.addresses {
            steering.add_address(own.address)?;
        }
        for (queue, socket) in runtime.sockets() {
            steering.register_socket(queue, socket)?;
        }
        let attached = steering.attach(link.index as i32, attach_mode(options.attach))?;
        let zero_copy = runtime.ready().any(|(.., ready)| ready.bound.zero_copy);
        if attached.mode == Mode::Generic && zero_copy {
            let text = format!(
                "{} gave zero-copy sockets but no native XDP ({}): use --zero-copy off",
                link.name,
                attached.fallback.map_or_else(|| "--attach generic".to_owned(), |why| why.to_string())
            );
            return Err(Failure::system(text));
        }
        let steering = Hold(Arc::new(Mutex::new(steering)));
        Ok(Self { options, link, plan, steering, runtime, attached })
    }

    fn run(self, listener: UnixListener, stop: &AtomicBool, ready: impl FnOnce(&str)) -> Result<(), Failure> {
        self.runtime.go();
        self.tell_fallbacks();
        if let Some(error) = self.wait_for_carrier(stop) {
            return self.fail(error);
        }
        let interface = self.link.name.clone();
        let steering = Arc::clone(&self.steering.0);
        Server::serve(listener, Answerer { interface, inquirer: self.runtime.inquirer(), steering })?;
        ready(&self.ready_line());
        tell_systemd("READY=1");

        let mut looks = 0u32;
        let failed = loop {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_SHARE) {
                self.runtime.share_totals();
            }
            if stop.swap(false, Ordering::Relaxed) {
                break None;
            }
            if let Some(Event::Failed { error, .. }) = self.runtime.next_event(LOOK_EVERY) {
                break Some(error);
            }
        };
        tell_systemd("STOPPING=1");
        match failed {
            None => self.finish(stop),
            Some(error) => self.fail(error),
        }
    }

    /// The end after a core's failure.
    fn fail(self, error: byway_datapath::Error) -> Result<(), Failure> {
        // What the other cores still serve is reset; the failed one's peers time out.
        let _ = self.runtime.drain(Duration::ZERO, || false);
        self.shut_down()?;
        Err(error.into())
    }

    /// The orderly end. A second signal cuts the drain short.
    fn finish(self, stop: &AtomicBool) -> Result<(), Failure> {
        let drained = self.runtime.drain(self.options.drain, || stop.load(Ordering::Relaxed));
        if let Ok(reset @ 1..) = drained {
            let plural = if reset == 1 { "" } else { "s" };
            warn(&format!("{reset} connection{plural} reset for not finishing within --drain"));
        }
        self.shut_down()?;
        drained.map(drop).map_err(Failure::from)
    }

    /// Detaches, then closes the sockets (D9).
    fn shut_down(self) -> Result<(), Failure> {
        drop(self.steering);
        Ok(self.runtime.stop()?)
    }

    /// Attaching makes some drivers take their link down for a moment. Returns a core's failure meanwhile.
    fn wait_for_carrier(&self, stop: &AtomicBool) -> Option<byway_datapath::Error> {
        let name = &self.link.name;
        let tries = CARRIER_TIMEOUT.as_millis() / CARRIER_EVERY.as_millis();
        for attempt in 0..tries {
            match Link::query(name) {
                Ok(Link { running: false, .. }) if !stop.load(Ordering::Relaxed) => {
                    if attempt == 0 {
                        warn(&format!("waiting for {name}'s carrier"));
                    }
                    if let Some(Event::Failed { error, .. }) = self.runtime.next_event(CARRIER_EVERY) {
                        return Some(error);
                    }
                }
                // There, gone altogether (a core will say so), or not to be waited for any longer.
                _ => return None,
            }
        }
        warn(&format!("{name} has no carrier: check its cable or peer; serving once it is there"));
        None
    }

    /// Everything that was wished for and not granted.
    fn tell_fallbacks(&self) {
        let name = &self.link.name;
        if let Some(why) = &self.attached.fallback {
            warn(&format!("generic XDP on {name} instead of native, which is slower: {why}"));
        }
        if self.attached.mode == Mode::Generic && self.options.accept_partial_checksums {
            warn(&format!(
                "generic XDP leaves segmentation offload on, and what a local peer sends larger than the MTU is \
                 lost before byway sees it: on {name}'s peer, `ethtool -K PEER tso off gso off`"
            ));
        }
        for (queue, _, ready) in self.runtime.ready() {
            if let Some(why) = &ready.bound.copy_reason {
                warn(&format!("copy mode on queue {queue} of {name} instead of zero-copy: {why}"));
            }
            if let Some(why) = &ready.bound.busy_poll_reason {
                warn(&format!("no busy polling on queue {queue} of {name}: {why}"));
            }
        }
        if u32::from(self.plan.stack.mtu) < self.link.mtu {
            let (ours, theirs) = (self.plan.stack.mtu, self.link.mtu);
            warn(&format!(
                "MTU {ours} instead of {name}'s {theirs}: larger packets don't fit byway's frames"
            ));
        }
        let served = self.plan.lanes.len() as u32;
        if served < self.link.rx_queues {
            let total = self.link.rx_queues;
            warn(&format!(
                "{served} of {total} queues of {name} are served: frames for byway on the others are \
                 dropped; `ethtool -L {name} combined {served}` leaves none"
            ));
        }
    }

    fn ready_line(&self) -> String {
        let all = |granted: fn(&byway_datapath::runtime::Ready) -> bool| {
            self.runtime.ready().all(|(.., ready)| granted(ready))
        };
        let on = |is: bool| if is { "on" } else { "off" };
        let checksums = match self.plan.stack.checksums {
            Checksums::Verify => "verified",
            _ => "verified-or-partial",
        };
        let addresses = self.options.addresses.iter().map(|own| format!("{}/{}", own.address, own.prefix));
        let ports = self.options.services().into_iter().map(|(name, port)| format!("{port}({name})"));
        format!(
            "byway ready interface={} driver={} attach={} mode={} need-wakeup=on busy-poll={} \
             huge-pages={} queues={} cores={} checksums={checksums} mtu={} addresses={} ports={} control={}",
            self.link.name,
            if self.link.driver.is_empty() { "unknown" } else { &self.link.driver },
            self.attached.mode,
            if all(|ready| ready.bound.zero_copy) { "zero-copy" } else { "copy" },
            on(all(|ready| ready.bound.busy_poll)),
            on(all(|ready| ready.huge_pages)),
            joined(self.plan.lanes.iter().map(|(queue, _)| queue.to_string())),
            joined(self.plan.lanes.iter().map(|(_, core)| core.to_string())),
            self.plan.stack.mtu,
            joined(addresses),
            joined(ports),
            self.options.control_path().display(),
        )
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// What of the options depends on this host.
fn look_at(options: &Serve) -> Result<Link, Failure> {
    let link = Link::query(&options.interface)?;
    if !link.up {
        return Err(byway_datapath::Error::LinkDown(link.name).into());
    }
    for (interface, kernels) in link::kernel_addresses()? {
        if options.addresses.iter().any(|own| own.address == kernels.address) {
            let Cidr { address, prefix } = kernels;
            return Err(Failure::configuration(format!(
                "{address} is the kernel's on {interface}: give an address no host has, or \
                 `ip addr del {address}/{prefix} dev {interface}`"
            )));
        }
    }
    Ok(link)
}

fn plan(options: &Serve, link: &Link) -> Result<Plan, Failure> {
    let queues = match &options.queues {
        Queues::All => (0..link.rx_queues).collect(),
        Queues::These(queues) => queues.clone(),
    };
    link.check_queues(&queues)?;
    let allowed = pin::allowed();
    let cores = match &options.cores {
        Cores::Auto => allowed,
        Cores::These(cores) => {
            if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
                let text = format!("core {core} isn't there or not allowed: choose among {allowed:?}");
                return Err(Failure::configuration(text));
            }
            cores.clone()
        }
    };
    let lanes = pin::assign(&link.name, &queues, &cores)?;
    let datapath = datapath(options, link);
    datapath.check()?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Failure::system(format!("no randomness: {error}")))?;
    let mut stack = StackConfig::new(link.mac, secret);
    stack.mtu = link.mtu.min(datapath.mtu_max()) as u16;
    stack.addresses = options.addresses.clone();
    stack.gateways = options.gateways.clone();
    stack.rss = link.rss.clone();
    stack.max_connections = options.max_connections;
    stack.congestion = options.congestion;
    // A browser that lost its power says nothing, and would stay for ever (S3.2).
    stack.keepalive = Some(Keepalive::default().idle);
    if options.accept_partial_checksums {
        stack.checksums = Checksums::AcceptPartial;
    }
    let listener = |(_, port)| Listener { port, backlog: BACKLOG };
    let listeners = options.services().into_iter().map(listener).collect();
    Ok(Plan { interface: link.name.clone(), lanes, datapath, stack, listeners })
}

fn datapath(options: &Serve, link: &Link) -> Datapath {
    let mut datapath = Datapath { frame_count: options.frames, ..Datapath::default() };
    // A larger MTU needs larger frames, and as many of them.
    if link.mtu > datapath.mtu_max() {
        datapath.frame_size *= 2;
    }
    datapath.zero_copy = match (options.zero_copy, options.attach) {
        // Generic XDP runs behind the driver, which has copied by then.
        (ZeroCopy::Auto, Attach::Generic) => DatapathZeroCopy::Off,
        (ZeroCopy::Auto, _) => DatapathZeroCopy::Auto,
        (ZeroCopy::On, _) => DatapathZeroCopy::On,
        (ZeroCopy::Off, _) => DatapathZeroCopy::Off,
    };
    datapath.busy_poll = (options.busy_poll == Switch::On).then(BusyPoll::default);
    datapath
}

fn app_config(options: &Serve) -> app::Config {
    let ports = app::Ports {
        http: Some(options.port),
        echo: options.echo_port,
        discard: options.discard_port,
        chargen: options.chargen_port,
    };
    app::Config { ports, ..app::Config::default() }
}

fn attach_mode(attach: Attach) -> byway_bpf::AttachMode {
    match attach {
        Attach::Auto => byway_bpf::AttachMode::Auto,
        Attach::Native => byway_bpf::AttachMode::Native,
        Attach::Generic => byway_bpf::AttachMode::Generic,
    }
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

fn tell_systemd(state: &str) {
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
                lab.byway.enter(|| run_app(&options(&control), &stop, tell, |_| Faulty))
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
        let make_app = |place| if place == 1 { panic!("a bug, for the test") } else { Faulty };
        let ready = |_: &str| panic!("one core isn't");
        let result = lab.byway.enter(|| run_app(&options(&control), &stop, ready, make_app));
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
