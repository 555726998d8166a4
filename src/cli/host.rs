//! `--host-address`: byway's ports at addresses that the kernel has, too, and following the kernel in all that is its.
//!
//! ```text
//!   kernel ── addresses, routes, neighbours (rtnetlink) ──→ thread byway-host ──→ every core, between two turns
//!     ▲                                                       │     │   ▲
//!     └── "you will need this neighbour" (NTF_USE) ───────────┘     │   └── a core looks for a neighbour
//!                                    steering and reserved ports ←──┘
//! ```
//!
//! byway asks nothing on the link itself: two who ask in one host's name would only confuse its neighbours.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use byway_bpf::{AddressKind, Steering};
use byway_datapath::control::Waker;
use byway_datapath::kernel::raise_file_limit;
use byway_datapath::link::Link;
use byway_datapath::pin;
use byway_datapath::reservation::{Reservation, linger};
use byway_datapath::rtnetlink::{Rtnetlink, Watch};
use byway_datapath::runtime::{Inquirer, Plan, Runtime};
use byway_tcp::stack::{Cidr, News, Route};
use crossbeam::channel::Receiver;

use super::failure::Failure;
use super::options::link_local;
use super::{counted, warn};

/// Questions of the cores that may wait: as many as they ask in some seconds.
const QUESTIONS_MAX: usize = 1024;

/// Files that byway has open beside the ports it holds: some dozens, and a few for each core.
const OTHER_FILES: usize = 256;

/// How often what the kernel refused is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long changes are collected before they are acted on: an interface that comes up has dozens.
const COLLECT: Duration = Duration::from_millis(10);

/// How long the ports stay quiet after byway's end. A SYN that found nobody comes again after a second (RFC 6298): it
/// meets a byway that was started again, however slowly a busy host does that, or else a refusal.
const LINGER: Duration = Duration::from_secs(2);

/// Which of the kernel's addresses byway's ports are taken at, in the course of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Addresses {
    /// All that the interface has, as they come and go.
    AsTheyCome,
    /// Those of the plan, as long as the kernel has them.
    Planned,
}

/// The kernel's addresses on the interface and its routes over it.
pub(super) fn look(link: &Link) -> Result<(Vec<Cidr>, Vec<Route>), Failure> {
    let mut kernel = Rtnetlink::new(link.index)?;
    let addresses = kernel.addresses()?;
    if addresses.is_empty() {
        return Err(Failure::configuration(format!(
            "{0} has no address that --host-address could share: `ip addr add ADDRESS/PREFIX dev {0}`, or give byway \
             its own with --address",
            link.name
        )));
    }
    Ok((addresses, kernel.routes()?))
}

/// Takes the plan's ports at the plan's addresses from everybody else; the kernel answers nothing there.
pub(super) fn reserve(link: &Link, plan: &Plan) -> Result<Reservation, Failure> {
    let (ports, addresses, limit) = (ports(plan), plan.stack.addresses.len(), raise_file_limit());
    if (ports.len() * addresses + OTHER_FILES) as u64 > limit {
        return Err(Failure::system(format!(
            "{} at {} take an open file each, and {limit} may be open: give fewer --client-ports, or raise the limit \
             (`ulimit -Hn`, systemd `LimitNOFILE=`)",
            counted(ports.len(), "port"),
            counted(addresses, "address")
        )));
    }
    let mut reservation = Reservation::new(ports, link.index);
    for own in &plan.stack.addresses {
        reservation.take(own.address)?;
    }
    Ok(reservation)
}

/// Steers the plan's ports at the plan's addresses to byway.
pub(super) fn steer(steering: &Steering, plan: &Plan) -> Result<(), Failure> {
    for port in ports(plan) {
        steering.add_port(port)?;
    }
    for own in &plan.stack.addresses {
        steering.add_address_as(own.address, AddressKind::Host)?;
    }
    Ok(())
}

fn ports(plan: &Plan) -> Vec<u16> {
    plan.listeners.iter().map(|listener| listener.port).chain(plan.stack.client_ports.clone()).collect()
}

/// The thread that follows the kernel.
#[derive(Debug)]
pub(super) struct Host {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<Reservation>>,
}

impl Host {
    /// Frames are steered: the ports need be quiet no longer, and the kernel is followed from here on.
    pub(super) fn follow(
        link: &Link,
        plan: &Plan,
        shared: Addresses,
        mut reservation: Reservation,
        steering: &Arc<Mutex<Steering>>,
        runtime: &mut Runtime,
    ) -> Result<Self, Failure> {
        let (sender, questions) = crossbeam::channel::bounded(QUESTIONS_MAX);
        let waker = Waker::new()?;
        runtime.ask_host(sender, waker.clone());
        reservation.settle();
        let mut kernel = Rtnetlink::new(link.index)?;
        warn_without_link_local(link, &plan.stack.addresses, &kernel.addresses()?);
        let stop = Arc::new(AtomicBool::new(false));
        let follower = Follower {
            interface: link.name.clone(),
            // Before anything is asked for, so that no change is missed.
            watch: Watch::new(link.index)?,
            kernel,
            reservation,
            steering: Arc::clone(steering),
            cores: runtime.inquirer(),
            questions,
            waker: waker.clone(),
            only: (shared == Addresses::Planned).then(|| plan.stack.addresses.clone()),
            addresses: plan.stack.addresses.clone(),
            routes: plan.stack.host_routes.iter().flat_map(|routes| routes.iter().copied()).collect(),
            refused: Vec::new(),
        };
        let told = Arc::clone(&stop);
        let cores: Vec<usize> = plan.lanes.iter().map(|&(_, core)| core).collect();
        let body = move || {
            pin::leave(&cores);
            follower.run(&told)
        };
        let thread = std::thread::Builder::new().name("byway-host".into()).spawn(body);
        let thread =
            thread.map_err(|error| Failure::system(format!("starting the thread byway-host: {error}")))?;
        Ok(Self { stop, waker, thread: Some(thread) })
    }

    /// The steering is about to go: follows no longer, and has the kernel answer nothing at the ports.
    pub(super) fn hush(mut self) -> Option<Reservation> {
        let mut reservation = self.end()?;
        if let Err(error) = reservation.hush() {
            warn(&format!("the kernel may refuse clients while byway ends: {error}"));
        }
        Some(reservation)
    }

    fn end(&mut self) -> Option<Reservation> {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        // A panic there has been printed.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

/// Leaves the ports quiet for who comes next. byway has ended but for this.
pub(super) fn leave(reservation: Reservation) {
    if let Err(error) = linger::leave(reservation, LINGER) {
        warn(&format!(
            "the kernel refuses clients from now on: nothing is left behind to keep quiet ({error})"
        ));
    }
}

/// Linux asks for a neighbour in the name of whoever has a packet for it, and of the link-local address if nobody has:
/// byway's packets aren't the kernel's.
fn warn_without_link_local(link: &Link, ours: &[Cidr], kernels: &[Cidr]) {
    let is_v6 = |own: &Cidr| own.address.is_ipv6();
    if ours.iter().any(is_v6) && !kernels.iter().any(|own| is_v6(own) && link_local(own.address)) {
        warn(&format!(
            "{0} has no IPv6 link-local address, and until it has one the kernel asks for no IPv6 neighbour of byway's: \
             `ip addr add fe80::1/64 dev {0}`",
            link.name
        ));
    }
}

struct Follower {
    interface: String,
    watch: Watch,
    kernel: Rtnetlink,
    reservation: Reservation,
    steering: Arc<Mutex<Steering>>,
    cores: Inquirer,
    questions: Receiver<IpAddr>,
    waker: Waker,
    /// Others aren't taken, if so.
    only: Option<Vec<Cidr>>,
    /// What the cores know.
    addresses: Vec<Cidr>,
    routes: Vec<Route>,
    /// Addresses whose ports somebody else has: said once, tried again.
    refused: Vec<IpAddr>,
}

impl Follower {
    fn run(mut self, stop: &AtomicBool) -> Reservation {
        self.follow_layout();
        self.tell_all_neighbors();
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.watch.wait(&self.waker, AGAIN) {
                warn(&format!("{}'s addresses and routes are followed no longer: {error}", self.interface));
                break;
            }
            self.answer_questions();
            let mut changes = self.watch.changes();
            if changes.layout {
                std::thread::sleep(COLLECT);
                let more = self.watch.changes();
                changes.lost |= more.lost;
                changes.neighbors.extend(more.neighbors);
            }
            if changes.layout || changes.lost || !self.refused.is_empty() {
                self.follow_layout();
            }
            if changes.lost {
                self.tell_all_neighbors();
            } else if !changes.neighbors.is_empty() {
                let news = changes.neighbors.iter();
                self.tell(news.map(|neighbor| News::KernelNeighbor(neighbor.ip, neighbor.mac)).collect());
            }
        }
        self.reservation
    }

    /// Each is answered by what the kernel knows, and by what it will find out, which is a change.
    fn answer_questions(&mut self) {
        let mut answers = Vec::new();
        for ip in self.questions.try_iter() {
            if let Some(mac) = self.kernel.neighbor(ip) {
                answers.push(News::KernelNeighbor(ip, Some(mac)));
            }
            // Refused when its table is full, or without a route: the core asks again.
            let _ = self.kernel.use_neighbor(ip);
        }
        if !answers.is_empty() {
            self.tell(answers);
        }
    }

    fn tell_all_neighbors(&mut self) {
        if let Ok(neighbors) = self.kernel.neighbors() {
            self.tell(
                neighbors.iter().map(|neighbor| News::KernelNeighbor(neighbor.ip, neighbor.mac)).collect(),
            );
        }
    }

    fn tell(&self, news: Vec<News>) {
        if !self.cores.tell(&news) {
            warn("a core doesn't hear of the kernel's neighbours and routes: it has ended, or stands still");
        }
    }

    /// Brings cores, steering and reservations to what the kernel has now.
    fn follow_layout(&mut self) {
        let (mut addresses, routes) = match (self.kernel.addresses(), self.kernel.routes()) {
            (Ok(addresses), Ok(routes)) => (addresses, routes),
            (Err(error), _) | (_, Err(error)) => {
                return warn(&format!(
                    "{}'s addresses and routes stay as they were: {error}",
                    self.interface
                ));
            }
        };
        let known = |all: &[Cidr], one: &Cidr| all.iter().any(|other| other.address == one.address);
        self.refused.retain(|address| addresses.iter().any(|own| own.address == *address));
        let ours = |own: &Cidr| self.only.as_ref().is_none_or(|only| known(only, own));
        addresses.retain(ours);
        addresses.retain(|own| known(&self.addresses, own) || self.reserved(own.address));
        let gone: Vec<_> = self.addresses.iter().copied().filter(|own| !known(&addresses, own)).collect();
        let come: Vec<_> = addresses.iter().copied().filter(|own| !known(&self.addresses, own)).collect();
        if addresses != self.addresses || routes != self.routes {
            let host =
                News::Host { addresses: addresses.as_slice().into(), routes: routes.as_slice().into() };
            self.tell(vec![host]);
            (self.addresses, self.routes) = (addresses, routes);
        }
        let steering = self.steering.lock().unwrap_or_else(PoisonError::into_inner);
        for own in come {
            match steering.add_address_as(own.address, AddressKind::Host) {
                Ok(()) => warn(&format!("at {}/{} now, too", own.address, own.prefix)),
                Err(error) => warn(&format!("not at {}: {error}", own.address)),
            }
        }
        for own in gone {
            if let Err(error) = steering.remove_address(own.address) {
                warn(&format!("{} is gone, and still steered to byway: {error}", own.address));
            }
            self.reservation.give_up(own.address);
            warn(&format!("no longer at {}: the kernel has it no more", own.address));
        }
    }

    /// Whether byway's ports are its own at a new address.
    fn reserved(&mut self, address: IpAddr) -> bool {
        match self.reservation.take(address) {
            Ok(()) => {
                self.refused.retain(|other| *other != address);
                true
            }
            Err(error) => {
                if !self.refused.contains(&address) {
                    self.refused.push(address);
                    warn(&format!("not at {address} as long as {error}"));
                }
                false
            }
        }
    }
}
