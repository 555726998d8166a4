//! The run: a clock that jumps from event to event, and everything that happens on the way.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use byway_tcp::app::Closed;
use byway_tcp::stack::Listener;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::app::{End, Plan};
use crate::fault::Fault;
use crate::headers::{self, Segment};
use crate::host::Host;
use crate::link::{Link, LinkSpec, LinkStats};
use crate::router::{Middle, Topology, host_ip};
use crate::scenario::{CLOSED_PORT, Change, Flow, PORT, PORTS, Scenario};
use crate::stream::Stream;
use crate::witness::Witness;

/// Turns of a host between two looks at its invariants.
const CHECK_EVERY: u64 = 32;
/// Frames that may be sent while no application gets ahead: several times what all connections of a run can have
/// in flight, so that a whole window may be lost more than once.
const FRAMES_WITHOUT_PROGRESS: u64 = 30_000;
/// Turns without a frame in or out and without progress, one after the other: a loop that is called back for nothing.
const IDLE_TURNS: u64 = 3_000;
/// What they may take on average: memory that is short is looked for every millisecond.
const IDLE_TURN: Duration = Duration::from_micros(500);
/// Frames sent for each segment that had to be, at most: three times the worst that ten thousand seeds showed.
const FRAMES_PER_NEED: f64 = 10.0;
/// Pure ACKs for each frame that says more, at most: its acknowledgement, and a window update when it has been
/// read. What is sent twice by the network counts twice.
const ACKS_PER_FRAME: u64 = 2;
/// And for each connection: its handshake, window probes and their answers, and keepalive every few seconds.
const ACKS_PER_CONNECTION: u64 = 100;
/// Copies of an ACK that [`Fault::AckStorm`] makes.
const STORM: usize = 30;

/// Sees everything that happens; does nothing by default.
pub trait Observer {
    /// A frame leaves a host's NIC, or arrives there.
    fn frame(&mut self, _at: Instant, _host: usize, _outbound: bool, _frame: &[u8]) {}
    /// A host's loop has turned.
    fn turned(&mut self, _at: Instant, _host: usize, _state: &Host) {}
}

/// All of them see it.
impl Observer for Vec<&mut dyn Observer> {
    fn frame(&mut self, at: Instant, host: usize, outbound: bool, frame: &[u8]) {
        self.iter_mut().for_each(|one| one.frame(at, host, outbound, frame));
    }

    fn turned(&mut self, at: Instant, index: usize, host: &Host) {
        self.iter_mut().for_each(|one| one.turned(at, index, host));
    }
}

/// Sees nothing.
impl Observer for () {}

#[derive(Debug)]
enum Event {
    /// A frame has come through a host's way up.
    Middle {
        from: usize,
        frame: Vec<u8>,
        corrupted: bool,
    },
    /// A frame has come through a host's way down.
    Host {
        to: usize,
        frame: Vec<u8>,
        corrupted: bool,
    },
    Turn(usize),
    Connect(usize),
    Change(Change),
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Virtual time that passed.
    pub time: Duration,
    /// Events.
    pub events: u64,
    /// Frames that hosts sent.
    pub frames: u64,
    /// Payload octets that reached an application.
    pub delivered: u64,
    /// All links together.
    pub links: LinkStats,
    /// Frames per octet-carrying write or full segment that had to be sent: how much was said to get them across.
    pub frames_per_need: f64,
    /// Ends that finished in order, and those that did not.
    pub ends: BTreeMap<String, u32>,
    /// The flow, and whether it was its client, that sent most.
    pub busiest: (usize, bool),
}

/// Hosts, links, and what is on its way.
#[allow(missing_debug_implementations)]
pub struct World<'a> {
    scenario: &'a Scenario,
    hosts: Vec<Host>,
    links: Vec<Link>,
    middle: Middle,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    rng: SmallRng,
    observer: &'a mut dyn Observer,
    fault: Option<Fault>,
    witness: Witness,
    frames: u64,
    /// Of them, those that only acknowledge.
    acks: u64,
    turns: Vec<u64>,
    progress: u64,
    /// `frames` when something got ahead last.
    frames_at_progress: u64,
    idle_turns: u64,
    idle_since: Instant,
    out: Vec<Vec<u8>>,
    forwarded: Vec<(usize, Vec<u8>)>,
}

impl<'a> World<'a> {
    /// A world at its beginning.
    pub fn new(scenario: &'a Scenario, fault: Option<Fault>, observer: &'a mut dyn Observer) -> Self {
        let mut hosts: Vec<Host> = scenario.hosts.iter().map(|spec| Host::new(spec.clone(), fault)).collect();
        for host in &mut hosts {
            for port in PORT..PORT + PORTS {
                host.stack.listen(Listener { port, backlog: 8 });
            }
        }
        let mut world = Self {
            scenario,
            turns: vec![0; hosts.len()],
            middle: Middle::new(scenario.topology, hosts.len(), scenario.strips_sack),
            hosts,
            links: scenario.links.iter().map(|&spec| Link::new(spec)).collect(),
            now: scenario.start,
            events: BTreeMap::new(),
            serial: 0,
            rng: SmallRng::seed_from_u64(scenario.seed ^ 0x6c69_6e6b),
            observer,
            fault,
            witness: Witness::default(),
            frames: 0,
            acks: 0,
            progress: 0,
            frames_at_progress: 0,
            idle_turns: 0,
            idle_since: scenario.start,
            out: Vec::new(),
            forwarded: Vec::new(),
        };
        for &(at, change) in &scenario.changes {
            world.at(scenario.start + at, Event::Change(change));
        }
        for (index, flow) in scenario.flows.iter().enumerate() {
            world.at(scenario.start + flow.start, Event::Connect(index));
        }
        for host in 0..world.hosts.len() {
            world.wake(host, scenario.start);
        }
        world
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// What is wrong, in words.
    ///
    /// # Panics
    /// If an assertion in the stack fails.
    pub fn run(&mut self) -> Result<Summary, String> {
        let deadline = self.scenario.start + patience(self.scenario);
        while !self.all_closed() {
            if !self.step()? || self.now > deadline {
                return Err(format!("stuck: {}", self.describe_open()));
            }
        }
        self.judge()?;
        // What is left is TIME-WAIT, or half-open because an old SYN came late, or because a reset was lost.
        let longest = self.hosts.iter().map(|host| host.spec.config.time_wait).max().unwrap_or_default();
        let deadline = self.now + longest + Duration::from_secs(130);
        while self.hosts.iter().any(|host| host.connections() > 0 || host.has_more_to_send()) {
            if !self.step()? || self.now > deadline {
                return Err(format!("connections left behind: {}", self.describe_states()));
            }
        }
        self.check_all()?;
        self.check_calm()?;
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.end().map_err(|what| format!("host {index}: {what}"))?;
        }
        Ok(self.summary())
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events.insert((at.max(self.now), self.serial), event);
    }

    /// Makes a host's loop turn at `at`, if it doesn't earlier anyway.
    fn wake(&mut self, host: usize, at: Instant) {
        let at = at.max(self.hosts[host].stalled_until);
        if at < self.hosts[host].wake_at {
            self.hosts[host].wake_at = at;
            self.at(at, Event::Turn(host));
        }
    }

    /// One event. False when nothing will ever happen again.
    fn step(&mut self) -> Result<bool, String> {
        let Some(((at, _), event)) = self.events.pop_first() else { return Ok(false) };
        self.now = at;
        match event {
            Event::Middle { from, frame, corrupted } => {
                let mut forwarded = core::mem::take(&mut self.forwarded);
                self.middle.forward(from, frame, &mut forwarded);
                for (to, frame) in forwarded.drain(..) {
                    // What the router itself answers is as it should be.
                    self.send_down(to, frame, corrupted && to != from);
                }
                self.forwarded = forwarded;
            }
            Event::Host { to, frame, corrupted } => {
                self.observer.frame(self.now, to, false, &frame);
                self.witness.hears(self.now, to, &frame, corrupted);
                let coalesce = self.hosts[to].spec.coalesce;
                self.hosts[to].arrive(frame, corrupted);
                self.idle_turns = 0;
                self.wake(to, self.now + coalesce);
            }
            // An earlier turn may have made this one needless.
            Event::Turn(host) if self.hosts[host].wake_at == at => self.turn(host)?,
            Event::Turn(_) => {}
            Event::Connect(flow) => self.connect(flow)?,
            Event::Change(change) => self.change(change),
        }
        Ok(true)
    }

    fn turn(&mut self, index: usize) -> Result<(), String> {
        let mut out = core::mem::take(&mut self.out);
        let host = &mut self.hosts[index];
        host.wake_at = Instant::NEVER;
        host.turn(self.now, &mut out);
        let again = core::mem::replace(&mut host.wake_at, Instant::NEVER);
        if let Some(what) = host.apps.wrong.first() {
            return Err(what.clone());
        }
        self.turns[index] += 1;
        if self.turns[index].is_multiple_of(CHECK_EVERY) {
            self.check(index)?;
        }
        self.observer.turned(self.now, index, &self.hosts[index]);
        self.idle_turns = if out.is_empty() { self.idle_turns + 1 } else { 0 };
        self.frames += out.len() as u64;
        let manners = self.hosts[index].manners();
        for mut frame in out.drain(..) {
            self.fault.iter().for_each(|&fault| headers::spoil(&mut frame, fault));
            self.witness.says(self.now, index, &frame, manners)?;
            if Segment::of(&frame).is_some_and(|segment| segment.is_pure_ack()) {
                self.acks += 1;
                if self.fault == Some(Fault::AckStorm) {
                    self.storm(index, &frame);
                }
            }
            self.observer.frame(self.now, index, true, &frame);
            self.send_up(index, frame);
        }
        self.out = out;
        if again != Instant::NEVER {
            self.wake(index, again);
        }
        self.check_progress()
    }

    fn check_progress(&mut self) -> Result<(), String> {
        let progress = self.hosts.iter().map(|host| host.apps.progress).sum();
        if progress != self.progress {
            self.progress = progress;
            self.frames_at_progress = self.frames;
            self.idle_turns = 0;
        }
        if self.frames - self.frames_at_progress > FRAMES_WITHOUT_PROGRESS {
            return Err(format!(
                "livelock: {FRAMES_WITHOUT_PROGRESS} frames, and nobody got ahead: {}",
                self.describe_open()
            ));
        }
        if self.idle_turns == 0 {
            self.idle_since = self.now;
        }
        let often = self.now.since(self.idle_since) < IDLE_TURN * self.idle_turns as u32;
        if self.idle_turns > IDLE_TURNS && often {
            return Err(format!("livelock: {IDLE_TURNS} turns for nothing: {}", self.describe_states()));
        }
        Ok(())
    }

    fn storm(&mut self, from: usize, ack: &[u8]) {
        for _ in 0..STORM {
            self.frames += 1;
            self.acks += 1;
            self.send_up(from, ack.to_vec());
        }
    }

    fn send_up(&mut self, from: usize, frame: Vec<u8>) {
        for delivery in self.links[2 * from].offer(frame, self.now, &mut self.rng).into_iter().flatten() {
            let event = Event::Middle { from, frame: delivery.frame, corrupted: delivery.corrupted };
            self.at(delivery.at, event);
        }
    }

    fn send_down(&mut self, to: usize, frame: Vec<u8>, corrupted: bool) {
        let is_ack = Segment::of(&frame).is_some_and(|segment| segment.is_pure_ack());
        let healed = self.now >= self.scenario.start + self.scenario.heals;
        if self.fault == Some(Fault::DropAcks) && is_ack && healed {
            return;
        }
        let link = &mut self.links[2 * to + 1];
        let impairment = link.impairment;
        if corrupted {
            // A second burst may make up for the first, as far as a sum of 16 bits can tell.
            link.impairment.corrupt = 0.0;
        }
        let deliveries = link.offer(frame, self.now, &mut self.rng);
        link.impairment = impairment;
        for delivery in deliveries.into_iter().flatten() {
            let corrupted = corrupted || delivery.corrupted;
            self.at(delivery.at, Event::Host { to, frame: delivery.frame, corrupted });
        }
    }

    fn connect(&mut self, index: usize) -> Result<(), String> {
        let scenario = self.scenario;
        let flow = &scenario.flows[index];
        let [client, server] = plans(scenario.seed, index, flow);
        let remote = SocketAddr::new(host_ip(scenario.topology, flow.server, flow.v6), flow.port);
        let host = &mut self.hosts[flow.client];
        let local = host
            .connect(remote, client, self.now)
            .map_err(|error| format!("flow {index}: connect: {error}"))?;
        if flow.port != CLOSED_PORT {
            self.hosts[flow.server].apps.expected.insert((local, flow.port), server);
        }
        self.wake(flow.client, self.now);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Impair(link, what) => self.links[link].impairment = what,
            Change::Down(link) => self.links[link].down = true,
            Change::Up(link) => self.links[link].down = false,
            Change::Mtu(mtu) => match self.scenario.topology {
                Topology::Router { .. } => self.middle.mtu = mtu,
                // A switch can't tell anybody; its ways out are what is narrow.
                Topology::Switch => self.links.iter_mut().for_each(|link| link.mtu = mtu),
            },
            Change::Stall(host, time) => {
                let until = self.now + time;
                self.hosts[host].stalled_until = until;
                let wake_at = core::mem::replace(&mut self.hosts[host].wake_at, Instant::NEVER);
                if wake_at != Instant::NEVER {
                    self.wake(host, wake_at);
                }
            }
        }
    }

    fn ends(&self, flow: usize) -> [Option<&End>; 2] {
        let Flow { client, server, .. } = self.scenario.flows[flow];
        [(client, true), (server, false)].map(|(host, is_client)| {
            let ends = self.hosts[host].apps.ends.values();
            let mut of_flow = ends.filter(|end| end.plan.flow == flow && end.plan.client == is_client);
            of_flow.next()
        })
    }

    /// Every connection that was begun has ended, as far as the applications know.
    fn all_closed(&self) -> bool {
        let open = self.hosts.iter().any(|host| host.apps.closed < host.apps.ends.len());
        let begun: usize = self.hosts.iter().map(|host| host.apps.ends.len()).sum();
        !open && begun >= self.scenario.flows.len() && self.now >= self.scenario.start + self.last_start()
    }

    fn last_start(&self) -> Duration {
        self.scenario.flows.iter().map(|flow| flow.start).max().unwrap_or_default()
    }

    /// Whether each end ended as it had to.
    fn judge(&self) -> Result<(), String> {
        for (index, flow) in self.scenario.flows.iter().enumerate() {
            let ends = self.ends(index);
            for (end, script, peer) in
                [(ends[0], &flow.scripts[0], &flow.scripts[1]), (ends[1], &flow.scripts[1], &flow.scripts[0])]
            {
                let outcome = end.and_then(|end| end.closed);
                let short_of_memory =
                    [flow.client, flow.server].iter().any(|&host| self.memory_aborts(host) > 0);
                // Nobody repeats the ACK of a cookie that was lost, unless text follows it (RFC 4987 §3.6).
                let forgotten = self.hosts[flow.server].manners().forgetful
                    && ends.iter().flatten().all(|end| end.received == 0);
                let fine = match (flow.kind, outcome) {
                    ("refused", Some(Closed::Reset)) => true,
                    ("refused", None) => end.is_none(),
                    (_, Some(Closed::Aborted)) if script.aborts() => true,
                    // The reset may be lost; who has said everything then hears nothing more (S2.6).
                    (_, Some(Closed::Reset | Closed::TimedOut) | None) if peer.aborts() => true,
                    (_, Some(Closed::Finished)) => {
                        end.is_some_and(|end| end.received == end.plan.input.1 && end.eof && !peer.aborts())
                    }
                    _ => self.scenario.excuses_timeouts() || short_of_memory || forgotten,
                };
                if !fine {
                    let what = end.map_or("never opened".to_string(), End::describe);
                    return Err(format!("flow {index} ({}) ended wrongly: {what}", flow.kind));
                }
            }
        }
        Ok(())
    }

    /// Whether nothing was lost, and nobody was late.
    fn was_calm(&self) -> bool {
        let kept = |stats: &LinkStats| {
            let gone = stats.lost + stats.tail_dropped + stats.too_long + stats.corrupted;
            gone + stats.reordered + stats.doubled == 0
        };
        // A queue that fills within a round trip makes it longer than the least timeout (200 ms).
        let swift = |spec: &LinkSpec| spec.queue * 8 * 10 < spec.rate;
        let changes = self.scenario.changes.iter().any(|(_, change)| matches!(change, Change::Mtu(_)));
        let punctual = self.hosts.iter().all(|host| host.manners().punctual);
        !changes && punctual && self.links.iter().all(|link| kept(&link.stats) && swift(&link.spec))
    }

    /// What all has arrived of needs no recovery (a tail loss probe now and then may be sent too early).
    fn check_calm(&self) -> Result<(), String> {
        if !self.was_calm() {
            return Ok(());
        }
        let counters = || self.hosts.iter().map(|host| host.stack.counters());
        let recoveries: u64 = counters().map(|counters| counters.tcp_fast_retrans).sum();
        let timeouts: u64 = counters().map(|counters| counters.tcp_timeouts).sum();
        let again: u64 = counters().map(|counters| counters.tcp_retrans_segs).sum();
        let probes: u64 = counters().map(|counters| counters.tcp_loss_probes).sum();
        // A timer also stands in for a next hop that has to be found, and what a probe repeats no timeout did.
        if recoveries > 0 || (timeouts > 0 && again > probes) {
            return Err(format!(
                "nothing was lost, and there were {recoveries} fast recoveries, {timeouts} timeouts and {again} retransmissions"
            ));
        }
        Ok(())
    }

    fn memory_aborts(&self, host: usize) -> u64 {
        self.hosts[host].stack.counters().tcp_abort_on_memory
    }

    fn check(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        self.hosts[index].check(now).map_err(|what| format!("host {index}: {what}"))
    }

    fn check_all(&mut self) -> Result<(), String> {
        (0..self.hosts.len()).try_for_each(|index| self.check(index))?;
        let summary = self.summary();
        if summary.frames_per_need > FRAMES_PER_NEED {
            return Err(format!(
                "{} frames to carry {} octets: {:.1} times what was needed",
                summary.frames, summary.delivered, summary.frames_per_need
            ));
        }
        let others = summary.frames - self.acks + summary.links.doubled;
        let seconds = summary.time.as_secs();
        let allowed =
            ACKS_PER_FRAME * others + (ACKS_PER_CONNECTION + seconds) * self.scenario.flows.len() as u64;
        if self.acks > allowed {
            return Err(format!("{} pure ACKs, and {others} frames that say more", self.acks));
        }
        Ok(())
    }

    fn describe_open(&self) -> String {
        let mut what = self.describe_states();
        for flow in 0..self.scenario.flows.len() {
            let kind = self.scenario.flows[flow].kind;
            for end in self.ends(flow).into_iter().flatten().filter(|end| end.closed.is_none()) {
                what += &format!("; flow {flow} ({kind}) {}", end.describe());
            }
        }
        what
    }

    fn describe_states(&self) -> String {
        let mut what = format!("at {:?}", self.now.since(self.scenario.start));
        for (index, host) in self.hosts.iter().enumerate() {
            let states = host.stack.connections_by_state();
            for state in State::ALL {
                if states[state as usize] > 0 && state != State::Listen {
                    what += &format!(", host {index} {} {}", states[state as usize], state.name());
                }
            }
        }
        what
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary {
            time: self.now.since(self.scenario.start),
            events: self.serial,
            frames: self.frames,
            delivered: self.hosts.iter().map(|host| host.apps.delivered).sum(),
            ..Summary::default()
        };
        for link in &self.links {
            let (sum, stats) = (&mut summary.links, &link.stats);
            sum.offered += stats.offered;
            sum.lost += stats.lost;
            sum.tail_dropped += stats.tail_dropped;
            sum.too_long += stats.too_long;
            sum.doubled += stats.doubled;
            sum.reordered += stats.reordered;
            sum.corrupted += stats.corrupted;
            sum.marked += stats.marked;
        }
        let (mut needed, mut most) = (0, 0);
        for (index, flow) in self.scenario.flows.iter().enumerate() {
            // Opening, closing, and finding each other.
            needed += 16;
            for end in self.ends(index).into_iter().flatten() {
                // Its writes, each a segment at most, or full segments of the smaller MTU.
                let mtu =
                    self.hosts[flow.client].spec.config.mtu.min(self.hosts[flow.server].spec.config.mtu);
                let script = &end.plan.script;
                let write = script.write.min(usize::from(mtu) - 72) as u64;
                needed += end.sent / write + script.steps.len() as u64;
                let outcome = end.closed.map_or("open".to_string(), |closed| format!("{closed:?}"));
                *summary.ends.entry(outcome).or_default() += 1;
                if end.sent > most {
                    (most, summary.busiest) = (end.sent, (index, end.plan.client));
                }
            }
        }
        summary.frames_per_need = self.frames as f64 / needed as f64;
        summary
    }
}

/// What both ends of a flow are to do and to see.
fn plans(seed: u64, index: usize, flow: &Flow) -> [Plan; 2] {
    let streams = [0, 1].map(|end| Stream::new(seed, 2 * index as u64 + end));
    let [client, server] = &flow.scripts;
    let to_client = if server.echo { (streams[0], client.total()) } else { (streams[1], server.total()) };
    let plan = |client: bool, script: &crate::app::Script, output, input| Plan {
        flow: index,
        client,
        script: script.clone(),
        output,
        input,
    };
    [plan(true, client, streams[0], to_client), plan(false, server, streams[1], (streams[0], client.total()))]
}

/// How long everything may take: when the impairments are over, and then what the slowest of all that can be in
/// the way needs, several times over.
fn patience(scenario: &Scenario) -> Duration {
    let slowest = scenario.links.iter().map(|link| link.rate).min().unwrap_or(1) as f64;
    let hop = |link: &crate::link::LinkSpec| {
        link.delay + link.jitter + Duration::from_secs_f64(link.queue as f64 * 8.0 / link.rate as f64)
    };
    let longest = scenario.links.iter().map(hop).max().unwrap_or_default();
    let round_trip = (4 * longest + Duration::from_millis(40)).as_secs_f64();
    let window = scenario.hosts.iter().map(|host| host.config.receive_buffer).min().unwrap_or(1) as f64;
    let (mut octets, mut slow, mut latest) = (0, 0f64, Duration::ZERO);
    for flow in &scenario.flows {
        let mut waits = 0f64;
        for script in &flow.scripts {
            let total = script.total() as f64 * if flow.scripts[1].echo { 2.0 } else { 1.0 };
            octets += total as u64;
            // Eight writes in a round trip at least, however small memory is; a window in one.
            let turns = script.steps.len() as f64 + total / script.write as f64 / 8.0 + total / window;
            waits += script.pauses().as_secs_f64() + turns * round_trip;
        }
        slow = slow.max(waits);
        latest = latest.max(flow.start);
    }
    // Back-off to a minute, twice (a window update may be lost, too), keepalive's ten probes, and some.
    let fixed = Duration::from_secs(120 + 10 * 60 + 60);
    let moving = Duration::from_secs_f64(4.0 * (slow + octets as f64 * 8.0 / slowest));
    scenario.heals.max(latest) + fixed + moving
}
