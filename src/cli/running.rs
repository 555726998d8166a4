//! A byway whose frames flow: how it comes to be, and how it ends, whatever its application.
//!
//! ```text
//!   look at the host → load steering → is the interface free? → start cores → sockets into the map → attach
//!     → go → wait for carrier ─── running ─── → drain → detach → stop cores
//! ```
//!
//! With --host-address the ports are reserved before the cores start, and hushed before the end (host.rs).
//!
//! Everything taken is given back by dropping: the program is held by a link of this process, the
//! sockets and memory by the cores' threads. A start that fails half-way leaves nothing behind.

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use byway_bpf::{Attached, Mode, Steering};
use byway_datapath::config::{BusyPoll, Config as Datapath, ZeroCopy as DatapathZeroCopy};
use byway_datapath::control::{Event, Waker};
use byway_datapath::link::{self, Link};
use byway_datapath::multicast::Groups;
use byway_datapath::netdev;
use byway_datapath::pin;
use byway_datapath::reservation::Reservation;
use byway_datapath::runtime::{Plan, Ready, Runtime};
use byway_tcp::app::App;
use byway_tcp::stack::{Cidr, Config as StackConfig};
use byway_tcp::wire::Checksums;

use super::control::{Answerer, Server};
use super::failure::Failure;
use super::host::{self, Addresses, Host};
use super::link_watch::LinkWatch;
use super::options::{Attach, Cores, Idle, Nic, Queues, Switch, ZeroCopy};
use super::warn;

/// How long a NIC may take to get its carrier back after the program was attached; ixgbe retrains
/// its link for up to 30 s.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(35);
const CARRIER_EVERY: Duration = Duration::from_millis(100);

/// A byway whose frames flow.
pub(super) struct Running<'a> {
    nic: &'a Nic,
    link: &'a Link,
    plan: &'a Plan,
    // Before the runtime, so that also a failure or a panic detaches before the sockets are closed (D9).
    steering: Hold,
    /// With --host-address.
    host: Option<Host>,
    pub(super) runtime: Runtime,
    attached: Attached,
    /// Who answers for it, once it serves.
    pub(super) answerer: Option<Arc<Answerer>>,
    _groups: Groups,
    // The socket file goes last: as long as it is there, another byway is told that we are, too.
    _server: Server,
}

/// The steering, detached when dropped, whoever else shares it: the control thread does, and it never ends.
struct Hold(Arc<Mutex<Steering>>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).detach();
    }
}

/// Says what the interface gave: for the ready line and reports.
pub(super) struct Facts {
    pub(super) interface: String,
    pub(super) driver: String,
    pub(super) attach: String,
    pub(super) mode: &'static str,
    pub(super) busy_poll: bool,
    pub(super) huge_pages: bool,
    pub(super) queues: Vec<u32>,
    pub(super) cores: Vec<usize>,
    pub(super) checksums: &'static str,
    pub(super) mtu: u16,
    pub(super) addresses: Vec<String>,
}

impl<'a> Running<'a> {
    /// Starts the cores with `make_app`'s applications, and lets frames flow to them.
    pub(super) fn start<A: App>(
        nic: &'a Nic,
        link: &'a Link,
        plan: &'a Plan,
        shared: Addresses,
        make_app: impl Fn(usize, &Waker) -> A + Send + Sync + 'static,
        stop: &AtomicBool,
    ) -> Result<Self, Failure> {
        // First of what needs privileges, and the quickest to refuse.
        let steering = Steering::load()?;
        // Before the sockets, which would try for a while to get a queue that its owner is to keep.
        steering.check_vacant(link.index as i32)?;
        let (server, listener) = Server::bind(&nic.control_path())?;
        let reserve = || Ok::<_, Failure>((host::reserve(link, plan)?, shared));
        let reservation = nic.host_address.then(reserve).transpose()?;
        let runtime = Runtime::start(plan.clone(), make_app)?;
        let running = Self::attach(server, nic, link, plan, runtime, steering)?;
        running.go(listener, reservation, stop)
    }

    /// Steers frames to the cores' sockets, which are already there.
    fn attach(
        // First, and so the last to go if this fails.
        server: Server,
        nic: &'a Nic,
        link: &'a Link,
        plan: &'a Plan,
        runtime: Runtime,
        mut steering: Steering,
    ) -> Result<Self, Failure> {
        for own in &nic.addresses {
            steering.add_address(own.address)?;
        }
        if nic.host_address {
            host::steer(&steering, plan)?;
        }
        for (queue, socket) in runtime.sockets() {
            steering.register_socket(queue, socket)?;
        }
        let groups = Groups::join(link.index, nic.addresses.iter().map(|own| own.address))?;
        let attached = steering.attach(link.index as i32, attach_mode(nic.attach))?;
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
        Ok(Self {
            nic,
            link,
            plan,
            steering,
            host: None,
            runtime,
            attached,
            answerer: None,
            _groups: groups,
            _server: server,
        })
    }

    fn go(
        mut self,
        listener: UnixListener,
        reservation: Option<(Reservation, Addresses)>,
        stop: &AtomicBool,
    ) -> Result<Self, Failure> {
        self.runtime.go();
        if let Some((reservation, shared)) = reservation {
            let (steering, runtime) = (&self.steering.0, &mut self.runtime);
            self.host = Some(Host::follow(self.link, self.plan, shared, reservation, steering, runtime)?);
        }
        self.tell_fallbacks();
        if let Some(error) = self.wait_for_carrier(stop) {
            return Err(self.fail(error));
        }
        let interface = self.link.name.clone();
        let steering = Arc::clone(&self.steering.0);
        let answerer = Answerer { interface, inquirer: self.runtime.inquirer(), steering: Some(steering) };
        let answerer = self.answerer.insert(Arc::new(answerer));
        Server::serve(listener, Arc::clone(answerer))?;
        Ok(self)
    }

    /// The end after a core's failure.
    pub(super) fn fail(self, error: byway_datapath::Error) -> Failure {
        // What the other cores still serve is reset; the failed one's peers time out.
        let _ = self.runtime.drain(Duration::ZERO, || false);
        self.shut_down().err().unwrap_or_else(|| error.into())
    }

    /// The orderly end: connections may finish for up to `limit`; when `stop` is set (again), no longer. Returns how
    /// many had to be reset.
    pub(super) fn finish(self, limit: Duration, stop: &AtomicBool) -> Result<u32, Failure> {
        let drained = self.runtime.drain(limit, || stop.load(Ordering::Relaxed));
        self.shut_down()?;
        drained.map_err(Failure::from)
    }

    /// Detaches, then closes the sockets (D9).
    fn shut_down(self) -> Result<(), Failure> {
        let reservation = self.host.and_then(Host::hush);
        drop(self.steering);
        let stopped = self.runtime.stop();
        if let Some(reservation) = reservation {
            host::leave(reservation);
        }
        Ok(stopped?)
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
        let scattered = self.runtime.ready().all(|(.., ready)| ready.bound.scattered);
        if self.attached.mode == Mode::Generic && self.nic.accept_partial_checksums && !scattered {
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
        let (ours, theirs) = (self.mtu(), self.link.mtu);
        if u32::from(ours) < theirs {
            warn(&format!(
                "MTU {ours} instead of {name}'s {theirs}: larger packets don't fit byway's frames, and neither kernel \
                 nor driver spreads them over several"
            ));
        }
        if self.link.strips_vlan_tags() {
            warn(&format!(
                "{name} takes VLAN tags off before byway sees them, so that tagged frames look untagged: where there \
                 are any, `ethtool -K {name} rxvlan off`"
            ));
        }
        let served = self.plan.lanes.len() as u32;
        if served < self.link.rx_queues {
            let total = self.link.rx_queues;
            // Each is fed by the peer's of the same number, and native XDP wants no fewer of them than of the peer's.
            let fewer = match self.link.driver.as_str() {
                "veth" => format!("on its peer, `ethtool -L PEER tx {served}`"),
                _ => format!("`ethtool -L {name} combined {served}`"),
            };
            warn(&format!(
                "{served} of {total} queues of {name} are served: frames for byway on the others are dropped; {fewer} \
                 leaves none"
            ));
        }
    }

    /// Largest IP packet that every core takes and sends.
    fn mtu(&self) -> u16 {
        self.runtime.ready().map(|(.., ready)| ready.mtu).min().unwrap_or(self.plan.stack.mtu)
    }

    /// For looking after the interface meanwhile.
    pub(super) fn link_watch(&self) -> LinkWatch {
        LinkWatch::new(self.link, self.plan.lanes.len() as u32, self.mtu())
    }

    /// What the interface gave.
    pub(super) fn facts(&self) -> Facts {
        let all = |granted: fn(&Ready) -> bool| self.runtime.ready().all(|(.., ready)| granted(ready));
        Facts {
            interface: self.link.name.clone(),
            driver: if self.link.driver.is_empty() { "unknown".into() } else { self.link.driver.clone() },
            attach: self.attached.mode.to_string(),
            mode: if all(|ready| ready.bound.zero_copy) { "zero-copy" } else { "copy" },
            busy_poll: all(|ready| ready.bound.busy_poll),
            huge_pages: all(|ready| ready.huge_pages),
            queues: self.runtime.ready().map(|(queue, ..)| queue).collect(),
            cores: self.runtime.ready().map(|(_, core, _)| core).collect(),
            checksums: match self.plan.stack.checksums {
                Checksums::Verify => "verified",
                _ => "verified-or-partial",
            },
            mtu: self.mtu(),
            addresses: {
                let shared = if self.nic.host_address { "(host)" } else { "" };
                let all = self.plan.stack.addresses.iter();
                all.map(|own| format!("{}/{}{shared}", own.address, own.prefix)).collect()
            },
        }
    }
}

/// `items`, with commas between them.
pub(super) fn joined(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// What of the options depends on this host.
pub(super) fn look_at(nic: &Nic) -> Result<Link, Failure> {
    let link = Link::query(nic.interface())?;
    if !link.up {
        return Err(byway_datapath::Error::LinkDown(link.name).into());
    }
    for (interface, kernels) in link::kernel_addresses()? {
        if nic.addresses.iter().any(|own| own.address == kernels.address) {
            let Cidr { address, prefix } = kernels;
            return Err(Failure::configuration(format!(
                "{address} is the kernel's on {interface}: give an address no host has, or \
                 `ip addr del {address}/{prefix} dev {interface}`"
            )));
        }
    }
    Ok(link)
}

/// The cores asked for, if this process may use them.
pub(super) fn allowed_cores(asked: &Cores) -> Result<Vec<usize>, Failure> {
    let allowed = pin::allowed();
    let Cores::These(cores) = asked else { return Ok(allowed) };
    match cores.iter().find(|core| !allowed.contains(core)) {
        Some(core) => {
            let text = format!("core {core} isn't there or not allowed: choose among {allowed:?}");
            Err(Failure::configuration(text))
        }
        None => Ok(cores.clone()),
    }
}

/// What the cores are told, but for what depends on the application.
pub(super) fn plan(nic: &Nic, link: &Link) -> Result<Plan, Failure> {
    let queues = match &nic.queues {
        Queues::All => (0..link.rx_queues).collect(),
        Queues::These(queues) => queues.clone(),
    };
    link.check_queues(&queues)?;
    link.check_sends(&queues)?;
    let cores = allowed_cores(&nic.cores)?;
    let lanes = pin::assign(&link.name, &queues, &cores)?;
    let mut datapath = datapath(nic, link);
    datapath.check()?;
    let (mtu, mtu_max) = (link.mtu, datapath.mtu_max(&link.driver));
    if mtu > mtu_max {
        datapath.zero_copy_segments = netdev::zero_copy_segments(netdev::features(link.index));
    }
    // The driver would say EINVAL. Otherwise byway takes a smaller MTU, or copy mode, and says so.
    if nic.zero_copy == ZeroCopy::On && mtu > mtu_max.max(datapath.scattered_mtu_max(true).into()) {
        return Err(Failure::configuration(format!(
            "{name}'s MTU {mtu} is too large for zero-copy, whose frames hold packets of {mtu_max}, and the driver \
             spreads none over several: `ip link set {name} mtu 1500`, or --zero-copy auto",
            name = link.name
        )));
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Failure::system(format!("no randomness: {error}")))?;
    let mut stack = StackConfig::new(link.mac, secret);
    stack.mtu = mtu.min(mtu_max) as u16;
    stack.receive_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    stack.addresses = nic.addresses.clone();
    stack.gateways = nic.gateways.clone();
    if nic.host_address {
        let (addresses, routes) = host::look(link)?;
        (stack.addresses, stack.host_routes) = (addresses, Some(routes.into()));
        stack.client_ports = nic.client_ports.clone().map_or(0..0, |ports| ports.0);
    }
    stack.rss = link.rss.clone();
    stack.congestion = nic.congestion;
    if nic.accept_partial_checksums {
        stack.checksums = Checksums::AcceptPartial;
    }
    Ok(Plan { interface: link.name.clone(), lanes, datapath, stack, listeners: Vec::new() })
}

fn datapath(nic: &Nic, link: &Link) -> Datapath {
    let mut datapath = Datapath { frame_count: nic.frames, ..Datapath::default() };
    datapath.zero_copy = match (nic.zero_copy, nic.attach) {
        // Generic XDP runs behind the driver, which has copied by then.
        (ZeroCopy::Auto, Attach::Generic) => DatapathZeroCopy::Off,
        (ZeroCopy::Auto, _) => DatapathZeroCopy::Auto,
        (ZeroCopy::On, _) => DatapathZeroCopy::On,
        (ZeroCopy::Off, _) => DatapathZeroCopy::Off,
    };
    // A larger MTU needs larger frames, and as many of them.
    if link.mtu > datapath.mtu_max(&link.driver) {
        datapath.frame_size *= 2;
    }
    datapath.busy_poll = (nic.busy_poll == Switch::On).then(BusyPoll::default);
    if nic.idle == Idle::Spin {
        datapath.spin_max = None;
    }
    datapath
}

fn attach_mode(attach: Attach) -> byway_bpf::AttachMode {
    match attach {
        Attach::Auto => byway_bpf::AttachMode::Auto,
        Attach::Native => byway_bpf::AttachMode::Native,
        Attach::Generic => byway_bpf::AttachMode::Generic,
    }
}
