//! What a run is about, drawn from its seed: hosts, links, weather, connections.
//!
//! Sizes are drawn evenly over their orders of magnitude, so that most runs are small, and some are not.

use core::fmt;

use byway_tcp::stack::{Cidr, Config};
use byway_tcp::tcb::congestion::Algorithm;
use byway_tcp::time::{Duration, Instant};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::app::{Script, Step};
use crate::host::HostSpec;
use crate::link::{Bursts, Impairment, LinkSpec};
use crate::router::{Topology, gateway_ip, host_ip, host_mac};

/// The first port that a host listens on; each connection's server has one of a few.
pub const PORT: u16 = 1000;
/// Ports a host listens on.
pub const PORTS: u16 = 4;
/// Nobody listens here.
pub const CLOSED_PORT: u16 = 999;

/// A change of the network at some moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Change {
    /// What goes wrong on a link from now on.
    Impair(usize, Impairment),
    /// A link no longer carries anything.
    Down(usize),
    /// It does again.
    Up(usize),
    /// The largest packet that gets through the middle.
    Mtu(usize),
    /// A host's loop doesn't turn for so long.
    Stall(usize, Duration),
}

/// A connection to be.
#[derive(Clone, PartialEq, Debug)]
pub struct Flow {
    /// What kind, in words.
    pub kind: &'static str,
    /// Host that opens.
    pub client: usize,
    /// Host that is opened.
    pub server: usize,
    /// Over IPv6.
    pub v6: bool,
    /// Where to.
    pub port: u16,
    /// When, from the start.
    pub start: Duration,
    /// What the ends do.
    pub scripts: [Script; 2],
}

/// Everything that a seed decides, but for the dice of the links.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// The clock at the beginning.
    pub start: Instant,
    /// How the hosts are connected.
    pub topology: Topology,
    /// What connects them takes SACK blocks out, though the hosts agreed on them.
    pub strips_sack: bool,
    /// The hosts.
    pub hosts: Vec<HostSpec>,
    /// Links: host i's way up is 2 i, its way down 2 i + 1.
    pub links: Vec<LinkSpec>,
    /// In order of time, from the start.
    pub changes: Vec<(Duration, Change)>,
    /// What the weather is like, in words.
    pub weather: Vec<&'static str>,
    /// From here on nothing goes wrong by chance any more.
    pub heals: Duration,
    /// The longest time that a link is down.
    pub longest_outage: Duration,
    /// The connections.
    pub flows: Vec<Flow>,
}

/// What the caller decides, and not the seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Choices {
    /// Every host's congestion control; each draws its own if it isn't given.
    pub congestion: Option<Algorithm>,
    /// Without header prediction.
    pub unpredicted: bool,
}

impl Scenario {
    /// Draws the scenario of `seed`.
    pub fn draw(seed: u64, choices: Choices) -> Self {
        let mut dice = Dice(SmallRng::seed_from_u64(seed));
        let hosts = 2 + dice.skewed(0, 4);
        let topology = match dice.below(4) {
            0 | 1 => Topology::Switch,
            2 => Topology::Router { tells: true },
            _ => Topology::Router { tells: false },
        };
        // Clocks that are read in µs or ms as 32 bits have to survive their wrap.
        let start = Instant::from_nanos(1_000_000 + dice.log(1, 1 << 52));
        let most_flows = if dice.one_in(25) { 60 } else { 12 };
        let flow_count = 1 + dice.skewed(0, most_flows);
        let heals = Duration::from_micros(dice.log(20_000, 20_000_000));
        let mut scenario = Self {
            seed,
            start,
            topology,
            strips_sack: false,
            hosts: (0..hosts).map(|index| dice.host(topology, index, flow_count)).collect(),
            links: dice.links(hosts),
            changes: Vec::new(),
            weather: Vec::new(),
            heals,
            longest_outage: Duration::ZERO,
            flows: Vec::new(),
        };
        let slowest = scenario.links.iter().map(|link| link.rate).min().unwrap_or(1);
        // What the slowest link carries in a minute is the most that all connections together may send.
        let budget = (slowest / 8 * 60).min(dice.log(1 << 15, 24 << 20)) / flow_count as u64;
        let v6_fits = scenario.hosts.iter().all(|host| host.config.mtu >= 1280);
        for _ in 0..flow_count {
            let flow = dice.flow(hosts, v6_fits, heals, budget);
            scenario.flows.push(flow);
        }
        dice.weather(&mut scenario);
        for host in scenario.hosts.iter_mut().filter(|host| host.scatter.is_some_and(|size| size % 2 == 0)) {
            // What it sends lies in several frames, too.
            let config = &mut host.config;
            (config.receive_mtu, config.frames_sent) = (config.mtu, 4);
            config.mtu = (config.mtu / 2).max(552);
        }
        for host in &mut scenario.hosts {
            let drawn = Algorithm::ALL[dice.below(Algorithm::ALL.len())];
            host.config.congestion = choices.congestion.unwrap_or(drawn);
            host.config.prediction = !choices.unpredicted;
        }
        scenario.strips_sack = dice.one_in(12);
        scenario.changes.sort_by_key(|&(at, _)| at);
        if scenario.leaves_nobody_behind() && dice.one_in(2) {
            // Its probes would ask for windows and FINs that the stack itself has to ask for. S5.3
            scenario.hosts.iter_mut().for_each(|host| host.config.keepalive = None);
        }
        scenario
    }

    /// Whether no end can vanish unheard: by a reset that is lost, an outage, or a full backlog.
    fn leaves_nobody_behind(&self) -> bool {
        let aborts = self.flows.iter().flat_map(|flow| &flow.scripts).any(Script::aborts);
        !aborts && self.longest_outage.is_zero() && self.flows.len() <= 8
    }

    /// Whether somebody may rightly give up: a link is down for longer than the shortest patience.
    pub fn excuses_timeouts(&self) -> bool {
        // SYN-ACKs are given up after 63 s of silence, of which half may pass between two attempts.
        self.longest_outage > Duration::from_secs(25)
    }
}

/// Dice with the shapes that scenarios need.
struct Dice(SmallRng);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    /// Small numbers more often.
    fn skewed(&mut self, from: usize, to: usize) -> usize {
        let share: f64 = self.0.random();
        from + ((to - from + 1) as f64 * share * share) as usize
    }

    /// Each order of magnitude as often as any other.
    fn log(&mut self, from: u64, to: u64) -> u64 {
        let (low, high) = ((from as f64).ln(), (to as f64).ln());
        (low + (high - low) * self.0.random::<f64>()).exp() as u64
    }

    fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.log(from, to))
    }

    fn share(&mut self, from: f64, to: f64) -> f64 {
        (from.ln() + (to.ln() - from.ln()) * self.0.random::<f64>()).exp()
    }

    fn host(&mut self, topology: Topology, index: usize, flows: usize) -> HostSpec {
        let mut config = Config::new(host_mac(index), self.0.random());
        for (v6, prefix) in [(false, 24), (true, 64)] {
            config.addresses.push(Cidr { address: host_ip(topology, index, v6), prefix });
            if topology != Topology::Switch {
                config.gateways.push(gateway_ip(index, v6));
            }
        }
        config.mtu = match self.below(8) {
            0 => self.log(576, 1500) as u16,
            1 => 1280,
            _ => 1500,
        };
        config.max_connections = 2 * flows as u32 + 8;
        config.max_time_wait = 4 * flows as u32 + 8;
        config.receive_buffer = self.log(4 << 10, 1 << 20) as u32;
        config.send_buffer = self.log(8 << 10, 1 << 20) as u32;
        // A half-open connection, left behind by a reset that was lost, is found by a probe.
        config.keepalive = Some(Duration::from_secs([5, 20, 60][self.below(3)]));
        // Enough for all connections to move, and now and then little more.
        let least = 96 + 24 * flows as u64;
        // Not drawn: it came later than the rest, and seeds stay what they were.
        let [is_scattered, size, ..] = config.secret;
        HostSpec {
            scatter: (is_scattered < 32).then(|| 600 + 3 * usize::from(size)),
            config,
            frames: self.log(least, (2 * least).max(1024)) as u32,
            fill_ring: [16, 32, 64][self.below(3)],
            tx_ring: [8, 32, 64, 256][self.below(4)],
            completion: if self.one_in(8) { self.micros(100, 5_000) } else { self.micros(1, 50) },
            coalesce: if self.one_in(2) { Duration::ZERO } else { self.micros(5, 500) },
        }
    }

    /// One kind of network for all hosts, and for some of them a slower link.
    fn links(&mut self, hosts: usize) -> Vec<LinkSpec> {
        let (rate, delay) = (self.log(2_000_000, 10_000_000_000), self.micros(2, 60_000));
        let mut links = Vec::new();
        for _ in 0..hosts {
            let slower = if self.one_in(3) { self.log(1, 20) } else { 1 };
            let far = if self.one_in(3) { self.log(1, 20) as u32 } else { 1 };
            for _ in 0..2 {
                let (rate, delay) =
                    ((rate / slower).max(1_000_000), (delay * far).min(Duration::from_millis(150)));
                let product = (delay.as_secs_f64() * 2.0 * rate as f64 / 8.0) as u64;
                let queue = (product as f64 * self.share(0.5, 4.0)) as u64;
                let queue = queue.max(self.log(8, 100) * 1514);
                let mark = self.one_in(6).then_some(queue / 4);
                let jitter =
                    if self.one_in(3) { delay.mul_f64(self.share(0.05, 1.0)) } else { Duration::ZERO };
                links.push(LinkSpec { rate, queue, delay, jitter, mark });
            }
        }
        links
    }

    fn flow(&mut self, hosts: usize, v6_fits: bool, heals: Duration, budget: u64) -> Flow {
        let client = self.below(hosts);
        let server = (client + 1 + self.below(hosts - 1)) % hosts;
        let (kind, scripts) = self.scripts(budget);
        let refused = kind == "refused";
        let latest = heals.min(Duration::from_secs(3)).as_micros();
        Flow {
            kind,
            client,
            server,
            v6: v6_fits && self.one_in(2),
            port: if refused { CLOSED_PORT } else { PORT + self.below(usize::from(PORTS)) as u16 },
            start: if self.one_in(2) { Duration::ZERO } else { self.micros(1, latest.max(2)) },
            scripts,
        }
    }

    fn scripts(&mut self, budget: u64) -> (&'static str, [Script; 2]) {
        let total =
            if self.one_in(4) { self.log(1, budget.max(2)) } else { self.log(1 + budget / 50, 2 + budget) };
        let pause = self.micros(1_000, 4_000_000);
        let half = total / 2;
        use Step::*;
        let (kind, client, server): (_, Vec<Step>, Vec<Step>) = match self.below(16) {
            0 | 1 => ("bulk send", vec![Send(total), Close, Eof], vec![Eof, Close]),
            2 | 3 => ("bulk receive", vec![Eof, Close], vec![Send(total), Close, Eof]),
            4 => ("both ways", vec![Send(half), Close, Eof], vec![Send(total), Close, Eof]),
            5 | 6 => return self.echo(total, pause),
            7 | 8 => self.requests(total, pause),
            9 => (
                "stop reading",
                vec![Send(total), Close, Eof],
                vec![Deaf, Pause(pause), Hear, Await(half), Deaf, Pause(pause / 2), Hear, Eof, Close],
            ),
            10 => (
                "half close",
                vec![Send(half), Close, Pause(pause / 2), Eof],
                vec![Eof, Pause(pause), Send(half), Pause(pause), Send(half), Close],
            ),
            11 => {
                let victim = vec![Send(total), Close, Eof];
                let killer = vec![Send(half), Await(half), Abort];
                if self.one_in(2) { ("abort", victim, killer) } else { ("abort", killer, victim) }
            }
            12 => (
                "idle, then resume",
                vec![Send(half), Drained, Pause(pause), Send(half), Drained, Close, Eof],
                vec![Eof, Close],
            ),
            13 => return self.tiny(total),
            14 => ("refused", vec![Send(total), Close, Eof], vec![]),
            _ => (
                "simultaneous close",
                vec![Send(half), Await(half), Close, Eof],
                vec![Send(half), Await(half), Close, Eof],
            ),
        };
        (kind, [self.script(client, total), self.script(server, total)])
    }

    fn script(&mut self, steps: Vec<Step>, total: u64) -> Script {
        // A run has no more than a few thousand writes a connection.
        let least = (total / 2_000).clamp(1, 1_000);
        Script { steps, echo: false, nodelay: self.one_in(2), write: self.log(least, 1_920) as usize }
    }

    fn echo(&mut self, total: u64, pause: Duration) -> (&'static str, [Script; 2]) {
        use Step::*;
        let steps = match self.below(3) {
            0 => vec![Send(total), Await(total), Close, Eof],
            1 => vec![Send(total), Close, Eof],
            _ => vec![Deaf, Send(total.min(4_096)), Pause(pause), Hear, Close, Eof],
        };
        let deaf = steps[0] == Deaf;
        let mut server = self.script(vec![Eof, Close], total);
        server.echo = true;
        let mut client = self.script(steps, total);
        if deaf {
            // It must get rid of everything although it reads nothing: a frame for each octet might be too many.
            client.write = client.write.max(512);
        }
        ("echo", [client, server])
    }

    fn requests(&mut self, total: u64, pause: Duration) -> (&'static str, Vec<Step>, Vec<Step>) {
        let count = 1 + self.skewed(0, 20) as u64;
        let request = self.log(1, 2_000);
        let response = 1 + total / count;
        let (mut client, mut server) = (Vec::new(), Vec::new());
        for turn in 1..=count {
            server.extend([Step::Await(turn * request), Step::Send(response)]);
            client.extend([Step::Send(request), Step::Await(turn * response)]);
            if self.one_in(6) {
                client.push(Step::Pause(pause));
            }
        }
        let (first, second) =
            if self.one_in(2) { (&mut client, &mut server) } else { (&mut server, &mut client) };
        first.extend([Step::Close, Step::Eof]);
        second.extend([Step::Eof, Step::Close]);
        ("request, response", client, server)
    }

    /// Writes of a few octets, with and without Nagle.
    fn tiny(&mut self, total: u64) -> (&'static str, [Script; 2]) {
        let total = total.min(3_000);
        let write = 1 + self.skewed(0, 40);
        let between = self.micros(10, 20_000);
        let mut client = Vec::new();
        let mut left = total;
        while left > 0 {
            let burst = left.min((write * (1 + self.skewed(0, 60))) as u64);
            client.extend([Step::Send(burst), Step::Pause(between)]);
            left -= burst;
        }
        client.extend([Step::Close, Step::Eof]);
        let nodelay = self.one_in(2);
        let kind = if nodelay { "tiny writes, no delay" } else { "tiny writes, Nagle" };
        let client = Script { steps: client, echo: false, nodelay, write };
        (kind, [client, self.script(vec![Step::Eof, Step::Close], total)])
    }

    fn weather(&mut self, scenario: &mut Scenario) {
        let clear = Impairment::default();
        let span = scenario.links.iter().map(|link| link.delay).max().unwrap_or_default();
        let mut what = Impairment { reorder_by: (span * 2).max(Duration::from_micros(100)), ..clear };
        // Mostly one thing, now and then two or three together.
        for _ in 0..1 + self.skewed(0, 2) {
            let kind = self.one_weather(scenario, &mut what);
            scenario.weather.push(kind);
        }
        if (Impairment { reorder_by: Duration::ZERO, ..what }) == clear {
            return;
        }
        // On all links, or only on some, which makes the two ways differ.
        let everywhere = self.one_in(2);
        for link in 0..scenario.links.len() {
            if everywhere || self.one_in(3) {
                scenario.changes.push((Duration::ZERO, Change::Impair(link, what)));
                scenario.changes.push((scenario.heals, Change::Impair(link, clear)));
            }
        }
    }

    fn one_weather(&mut self, scenario: &mut Scenario, what: &mut Impairment) -> &'static str {
        match self.below(12) {
            0 | 1 => "clear",
            2 | 3 => {
                what.loss = self.share(0.001, 0.15);
                "loss"
            }
            4 => {
                let (enter, leave) = (self.share(0.001, 0.02), self.share(0.05, 0.5));
                what.bursts = Some(Bursts { enter, leave, loss: 0.9 });
                "burst loss"
            }
            5 => {
                what.reorder = self.share(0.005, 0.3);
                "reordering"
            }
            6 => {
                what.duplicate = self.share(0.005, 0.3);
                "duplication"
            }
            7 => {
                what.corrupt = self.share(0.005, 0.1);
                "corruption"
            }
            8 => {
                let share = self.share(0.001, 0.05);
                (what.loss, what.reorder, what.duplicate, what.corrupt) = (share, share, share, share);
                "a bit of everything"
            }
            9 => self.outages(scenario),
            10 => {
                let host = self.below(scenario.hosts.len());
                let at = self.micros(1, scenario.heals.as_micros());
                scenario.changes.push((at, Change::Stall(host, self.micros(1_000, 2_000_000))));
                "a host that stalls"
            }
            _ => self.mtu_changes(scenario),
        }
    }

    /// Links that carry nothing for a while: both ways or one; now and then for longer than anybody waits.
    fn outages(&mut self, scenario: &mut Scenario) -> &'static str {
        let links = scenario.links.len();
        let for_ever = self.one_in(8);
        for _ in 0..1 + self.skewed(0, 3) {
            let at = self.micros(1_000, 5_000_000);
            let time =
                if for_ever { self.micros(30_000_000, 400_000_000) } else { self.micros(1_000, 15_000_000) };
            let (link, both) = (self.below(links), self.one_in(2));
            for link in if both { vec![link, link ^ 1] } else { vec![link] } {
                scenario.changes.push((at, Change::Down(link)));
                scenario.changes.push((at + time, Change::Up(link)));
            }
            scenario.heals = scenario.heals.max(at + time);
            scenario.longest_outage += time;
        }
        if for_ever { "a long outage" } else { "outages" }
    }

    /// The path's MTU changes, down to what the families guarantee: path-MTU discovery is to find out.
    fn mtu_changes(&mut self, scenario: &mut Scenario) -> &'static str {
        let smallest = if scenario.flows.iter().any(|flow| flow.v6) { 1280 } else { 576 };
        for _ in 0..1 + self.skewed(0, 3) {
            let at = self.micros(1, scenario.heals.as_micros());
            let mtu = if self.one_in(2) { 1500 } else { self.log(smallest, 1501) as usize };
            scenario.changes.push((at, Change::Mtu(mtu)));
        }
        "MTU changes"
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} hosts, {:?}{}, {} until {:?}, {} connections, clock from {:?}",
            self.seed,
            self.hosts.len(),
            self.topology,
            if self.strips_sack { " that strips SACK blocks" } else { "" },
            self.weather.join(", "),
            self.heals,
            self.flows.len(),
            self.start
        )?;
        for (index, host) in self.hosts.iter().enumerate() {
            let config = &host.config;
            writeln!(
                f,
                "  host {index}: {}, MTU {}, {} frames, buffers {} in {} out, rings fill {} TX {}, completion {:?}, coalescing {:?}, keepalive {:?}",
                config.congestion,
                config.mtu,
                host.frames,
                config.receive_buffer,
                config.send_buffer,
                host.fill_ring,
                host.tx_ring,
                host.completion,
                host.coalesce,
                config.keepalive.unwrap_or_default()
            )?;
            for (way, link) in ["up", "down"].iter().zip(&self.links[2 * index..]) {
                writeln!(
                    f,
                    "    {way}: {:.1} Mbit/s, {:?} + {:?}, queue {} octets, CE from {:?}",
                    link.rate as f64 / 1e6,
                    link.delay,
                    link.jitter,
                    link.queue,
                    link.mark
                )?;
            }
        }
        for (at, change) in &self.changes {
            writeln!(f, "  at {at:?}: {change:?}")?;
        }
        for (index, flow) in self.flows.iter().enumerate() {
            writeln!(
                f,
                "  flow {index}: {} from host {} to host {}, {}, at {:?}, port {}; client sends {} in writes of {}{}, server {} in {}{}",
                flow.kind,
                flow.client,
                flow.server,
                if flow.v6 { "IPv6" } else { "IPv4" },
                flow.start,
                flow.port,
                flow.scripts[0].total(),
                flow.scripts[0].write,
                if flow.scripts[0].nodelay { " (no delay)" } else { "" },
                flow.scripts[1].total(),
                flow.scripts[1].write,
                if flow.scripts[1].nodelay { " (no delay)" } else { "" }
            )?;
        }
        Ok(())
    }
}
