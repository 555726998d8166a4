//! Runs a script against one stack, in virtual time.

mod look;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use byway_tcp::app::{Conn, Keepalive};
use byway_tcp::frame::{FramePool, FrameSlice, HeapMemory, Owner};
use byway_tcp::stack::{Cidr, Config, Ecn, Listener, Stack, SynCookies};
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::{MacAddr, arp, ethernet, icmpv6};

use crate::app::Recorder;
use crate::flow::{Flow, PORT, own, peer, router, stream};
use crate::packet::{self, Icmp, MAC, PEER_MAC, Packet, SYN, Sent};
use crate::parse::{Action, Injected, Step, When};

/// A frame may leave so much before the time that the script says: what decimals round off.
const EARLY: Duration = Duration::from_micros(100);
/// And so much after it: two ticks (131 µs each) of the timer wheel, which is never early.
const LATE: Duration = Duration::from_micros(300);
/// When scripts begin, and so a whole number of milliseconds, which is what the timestamps count.
const START: Instant = Instant::from_millis(1000);
/// Where the peer's numbers begin, unless `config peer_isn` says otherwise.
const PEER_ISN: u32 = 1_000_000;

struct Runner<'a> {
    steps: &'a [Step],
    config: Config,
    frames: u32,
    peer_isn: u32,
    ipv6: bool,
    stack: Option<Stack<HeapMemory>>,
    app: Recorder,
    now: Instant,
    /// When the last line happened.
    last: Instant,
    flows: BTreeMap<usize, Flow>,
    listening: bool,
    sent: VecDeque<(Instant, usize, Packet)>,
    trace: Vec<String>,
}

/// Runs a script. The error says where, what, and what had happened before.
pub fn run(steps: &[Step]) -> Result<(), String> {
    let mut runner = Runner::new(steps);
    for step in steps {
        if let Err(error) = runner.step(step) {
            return Err(format!("{}: {error}\n  script:   {}\n{}", step.place, step.text, runner.traced()));
        }
    }
    let end = steps.last().map_or("", |step| &step.place);
    runner.end().map_err(|error| format!("{end}: after the last line: {error}\n{}", runner.traced()))
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.traced());
        }
    }
}

impl<'a> Runner<'a> {
    fn new(steps: &'a [Step]) -> Self {
        let mut config = Config::new(MacAddr(MAC), [7; 32]);
        config.addresses = [4, 6]
            .map(|family| Cidr { address: own(family == 6), prefix: if family == 4 { 24 } else { 64 } })
            .into();
        config.max_connections = 64;
        config.max_time_wait = 64;
        // Scripts are written for ACKs that may be delayed, but for those about the others.
        config.quick_acks = 0;
        Self {
            steps,
            config,
            frames: 1024,
            peer_isn: PEER_ISN,
            ipv6: false,
            stack: None,
            app: Recorder::default(),
            now: START,
            last: START,
            flows: BTreeMap::new(),
            listening: false,
            sent: VecDeque::new(),
            trace: Vec::new(),
        }
    }

    fn traced(&self) -> String {
        let from = self.trace.len().saturating_sub(60);
        let mut text = "  so far:\n".to_owned();
        for line in &self.trace[from..] {
            let _ = writeln!(text, "    {line}");
        }
        text
    }

    fn note(&mut self, line: &str) {
        let at = self.now.since(START).as_secs_f64();
        self.trace.push(format!("{at:.6} {line}"));
    }

    // --- lines ----------------------------------------------------------------------------------

    fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Action::Config(name, value) = &step.action {
            return self.configure(name, value);
        }
        self.stack();
        let (from, to) = self.window(step.when);
        if let Action::Expect(wanted) = &step.action {
            return self.expect(step.flow, wanted, from, to);
        }
        if from < self.now {
            return Err(format!("it is {:?} already", self.now.since(START)));
        }
        if let Some((at, flow, sent)) = self.pass_until(from)? {
            let at = at.since(START).as_secs_f64();
            return Err(format!("unexpected segment\n  got:      > @{flow} {sent} at {at:.6}"));
        }
        self.last = self.now;
        self.note(&step.text);
        self.act(step)?;
        self.collect()
    }

    /// The earliest and the latest moment for a line.
    fn window(&self, when: When) -> (Instant, Instant) {
        let at = |nanos| START + Duration::from_nanos(nanos);
        let after = |nanos| self.last + Duration::from_nanos(nanos);
        match when {
            When::At(nanos) => (at(nanos), at(nanos)),
            When::After(nanos) => (after(nanos), after(nanos)),
            When::Between(low, high) => (at(low), at(high)),
            When::BetweenAfter(low, high) => (after(low), after(high)),
            // A year: longer than any timer.
            When::Any | When::WithLast => (self.last, self.last + Duration::from_secs(365 * 24 * 3600)),
        }
    }

    fn act(&mut self, step: &Step) -> Result<(), String> {
        let flow = step.flow;
        match &step.action {
            Action::Listen { backlog } => {
                self.stack().listen(Listener { port: PORT, backlog: *backlog });
                self.listening = true;
                Ok(())
            }
            Action::Connect => self.connect(flow),
            &Action::Write { octets, taken } => self.write(flow, octets, taken),
            Action::Read(limit) => self.read(flow, *limit),
            &Action::Reads(on) => {
                let port = self.flow(flow).peer.port();
                self.app.of(port).reads = on;
                Ok(())
            }
            &Action::Nodelay(on) => {
                self.app.nodelay = on;
                let port = self.flow(flow).peer.port();
                if self.app.of(port).id.is_some() {
                    self.with_conn(flow, |_, conn| conn.set_nodelay(on))?;
                }
                Ok(())
            }
            &Action::UserTimeout(limit) => {
                let limit = limit.map(Duration::from_secs_f64);
                self.with_conn(flow, |_, conn| conn.set_user_timeout(limit))
            }
            &Action::Keepalive(keepalive) => {
                let keepalive = keepalive.map(|(idle, interval, probes)| Keepalive {
                    idle: Duration::from_secs_f64(idle),
                    interval: Duration::from_secs_f64(interval),
                    probes,
                });
                self.with_conn(flow, |_, conn| conn.set_keepalive(keepalive))
            }
            &Action::Linger(linger) => {
                let linger = linger.map(Duration::from_secs_f64);
                self.with_conn(flow, |_, conn| conn.set_linger(linger))
            }
            Action::Shutdown => self.with_conn(flow, |_, conn| conn.shutdown()),
            Action::Abort => self.with_conn(flow, |_, conn| conn.abort()),
            Action::Urgent => self.with_conn(flow, |_, conn| conn.send_urgent()),
            Action::Drain => {
                let (now, app) = (self.now, &mut self.app);
                self.stack.as_mut().expect("set up").drain(app, now);
                Ok(())
            }
            Action::Inject(frames) => self.inject(frames),
            _ => self.look(step),
        }
    }

    fn configure(&mut self, name: &str, value: &str) -> Result<(), String> {
        if self.stack.is_some() {
            return Err("config comes first".to_owned());
        }
        let number = || value.parse::<u32>().map_err(|_| format!("`{value}` isn't a number"));
        let seconds =
            || value.parse().map(Duration::from_secs_f64).map_err(|_| format!("`{value}` isn't seconds"));
        match name {
            "mtu" => self.config.mtu = number()? as u16,
            "receive_buffer" => self.config.receive_buffer = number()?,
            "send_buffer" => self.config.send_buffer = number()?,
            "keepalive" if value == "off" => self.config.keepalive = None,
            "keepalive" if value == "on" => self.config.keepalive = Some(Keepalive::default().idle),
            "keepalive" => self.config.keepalive = Some(seconds()?),
            "keepalive_interval" => self.config.keepalive_interval = seconds()?,
            "keepalive_probes" => self.config.keepalive_probes = number()? as u8,
            "orphan_timeout" => self.config.orphan_timeout = seconds()?,
            "user_timeout" => self.config.user_timeout = seconds()?,
            "fin_timeout" => self.config.fin_timeout = seconds()?,
            "time_wait" => self.config.time_wait = seconds()?,
            "quick_acks" => self.config.quick_acks = number()? as u8,
            "syncookies" => {
                self.config.syncookies = match value {
                    "off" => SynCookies::Off,
                    "on" => SynCookies::OnOverflow,
                    "always" => SynCookies::Always,
                    _ => return Err(format!("no syncookies `{value}`")),
                }
            }
            "ecn" => {
                self.config.ecn = match value {
                    "off" => Ecn::Off,
                    "answer" => Ecn::Answer,
                    "ask" => Ecn::Ask,
                    _ => return Err(format!("no ecn `{value}`")),
                }
            }
            "max_connections" => self.config.max_connections = number()?,
            "max_time_wait" => self.config.max_time_wait = number()?,
            "frames" => self.frames = number()?,
            "peer_isn" => self.peer_isn = number()?,
            "ipv6" if value.is_empty() => self.ipv6 = true,
            "congestion" => self.config.congestion = value.parse().map_err(|_| format!("no `{value}`"))?,
            _ => return Err(format!("no setting `{name} {value}`")),
        }
        Ok(())
    }

    /// The stack, made when the first line needs it.
    fn stack(&mut self) -> &mut Stack<HeapMemory> {
        if self.stack.is_none() {
            // Headroom in front, the packet, and room for the largest read-ahead.
            let frame = (usize::from(self.config.mtu) + 512).next_power_of_two().max(2048);
            let pool = FramePool::new(HeapMemory::new(self.frames, frame));
            self.stack = Some(Stack::new(self.config.clone(), pool));
            self.introduce();
        }
        self.stack.as_mut().expect("just made")
    }

    /// The peer asks for us, so that the stack knows where it is and needn't ask.
    fn introduce(&mut self) {
        let (mut frame, no_tags) = (vec![0; 256], ethernet::VlanTags::NONE);
        let mac = MacAddr(PEER_MAC);
        let (IpAddr::V4(from), IpAddr::V4(to)) = (peer(false), own(false)) else { unreachable!() };
        let range = arp::emit_request(&mut frame, 0, no_tags, mac, from, to, None);
        self.give(&[frame[range].to_vec()]);
        let (IpAddr::V6(from), IpAddr::V6(to)) = (peer(true), own(true)) else { unreachable!() };
        let range = icmpv6::emit_neighbor_solicitation(&mut frame, 0, no_tags, mac, from, to, None);
        self.give(&[frame[range].to_vec()]);
        self.collect().expect("two answers");
    }

    fn flow(&mut self, number: usize) -> &mut Flow {
        let (ipv6, isn) = (self.ipv6, self.peer_isn);
        self.flows.entry(number).or_insert_with(|| Flow::new(number, ipv6, isn))
    }

    // --- the application ------------------------------------------------------------------------

    fn connect(&mut self, number: usize) -> Result<(), String> {
        let peer = self.flow(number).peer;
        let now = self.now;
        let id = self.stack().connect(peer, now).map_err(|error| error.to_string())?;
        let local = self.info(id).map(|info| info.local).ok_or("no connection")?;
        self.app.of(peer.port()).id = Some(id);
        let flow = self.flow(number);
        flow.local = local;
        flow.write_at = 1;
        Ok(())
    }

    fn with_conn<R>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Recorder, &mut dyn Conn) -> R,
    ) -> Result<R, String> {
        let port = self.flow(number).peer.port();
        let id = self.app.of(port).id.ok_or("the application has no connection")?;
        let (now, app) = (self.now, &mut self.app);
        let stack = self.stack.as_mut().expect("set up");
        stack.with_conn(app, id, now, act).ok_or_else(|| "the connection is gone".to_owned())
    }

    fn write(&mut self, number: usize, octets: usize, taken: usize) -> Result<(), String> {
        let at = self.flow(number).write_at;
        let text = stream(at, octets);
        let done = self.with_conn(number, |_, conn| {
            let mut done = 0;
            for part in text.chunks(conn.mss()) {
                let Some(mut chunk) = conn.alloc() else { break };
                conn.append(&mut chunk, part);
                if let Err(chunk) = conn.send(chunk) {
                    conn.release(chunk);
                    break;
                }
                done += part.len();
            }
            done
        })?;
        self.flow(number).write_at = at.wrapping_add(done as u32);
        if done == taken { Ok(()) } else { Err(format!("{done} octets were taken")) }
    }

    fn read(&mut self, number: usize, limit: Option<usize>) -> Result<(), String> {
        let port = self.flow(number).peer.port();
        let done =
            self.with_conn(number, |app, conn| app.of(port).take(conn, limit.unwrap_or(usize::MAX)))?;
        match limit {
            Some(wanted) if wanted != done => Err(format!("{done} octets were read")),
            _ => Ok(()),
        }
    }

    /// Everything read so far is the peer's stream.
    fn check_reads(&mut self) -> Result<(), String> {
        for (number, flow) in &mut self.flows {
            let read = core::mem::take(&mut self.app.of(flow.peer.port()).read);
            if read != stream(flow.read_at, read.len()) {
                return Err(format!("@{number} read other octets than the peer sent"));
            }
            flow.read_at = flow.read_at.wrapping_add(read.len() as u32);
        }
        Ok(())
    }

    // --- the network ----------------------------------------------------------------------------

    fn inject(&mut self, frames: &[(usize, Injected)]) -> Result<(), String> {
        let mut octets = Vec::new();
        for (number, injected) in frames {
            let isn = self.peer_isn;
            let ipv6 = self.ipv6;
            let flow = self.flow(*number);
            octets.push(match injected {
                Injected::Segment(packet) => {
                    if packet.flags & SYN != 0 {
                        flow.read_at = isn.wrapping_add(packet.seq).wrapping_add(1);
                    }
                    let mut text = stream(isn.wrapping_add(packet.text_at()), packet.len as usize);
                    if packet.other_text {
                        text.iter_mut().for_each(|octet| *octet = !*octet);
                    }
                    packet::build(flow.peer, flow.local, &flow.to_wire(packet, isn), &text)
                }
                Injected::Icmp(icmp) => {
                    let seq = icmp.seq.wrapping_add(flow.iss.unwrap_or(0));
                    packet::build_icmp(router(ipv6), flow.local, flow.peer, &Icmp { seq, ..icmp.clone() })
                }
            });
        }
        self.give(&octets);
        Ok(())
    }

    fn give(&mut self, frames: &[Vec<u8>]) {
        let (now, app) = (self.now, &mut self.app);
        let stack = self.stack.as_mut().expect("set up");
        let mut slices = Vec::new();
        for octets in frames {
            let index = stack.pool_mut().fill().expect("a frame for the fill ring");
            slices.push(stack.pool_mut().write_as_nic(index, 256, octets));
        }
        stack.receive(app, &slices, now);
    }

    /// Takes what the stack sends now.
    fn collect(&mut self) -> Result<(), String> {
        loop {
            let stack = self.stack.as_mut().expect("set up");
            let mut out: Vec<FrameSlice> = Vec::new();
            let more = stack.poll_transmit(8, self.now, &mut out);
            let frames: Vec<Vec<u8>> = out
                .iter()
                .map(|&slice| {
                    let octets = stack.pool().transmitted(slice).to_vec();
                    stack.pool_mut().completed(slice.index);
                    octets
                })
                .collect();
            for frame in &frames {
                if frame.len() > 14 + usize::from(self.config.mtu) {
                    return Err(format!("a frame of {} octets", frame.len()));
                }
                match packet::read(frame).map_err(|error| format!("the stack sent {error}"))? {
                    Sent::Tcp { src, dst, packet, text } => self.took(src, dst, &packet, &text)?,
                    Sent::Other => self.answer_arp(frame),
                }
            }
            if !more || frames.is_empty() {
                break;
            }
        }
        let stack = self.stack.as_ref().expect("set up");
        stack.assert_consistent();
        stack.pool().assert_conserved();
        self.check_reads()
    }

    fn took(&mut self, src: SocketAddr, dst: SocketAddr, wire: &Packet, text: &[u8]) -> Result<(), String> {
        let isn = self.peer_isn;
        let number = self.flows.iter().find_map(|(number, flow)| (flow.peer == dst).then_some(*number));
        let Some(number) = number else { return Err(format!("a segment for nobody, {dst}: {wire}")) };
        let flow = self.flow(number);
        if flow.local != src {
            return Err(format!("a segment from {src} instead of {}", flow.local));
        }
        if wire.has(SYN) && flow.iss.replace(wire.seq) != Some(wire.seq) {
            flow.write_at = 1;
        }
        let packet = flow.of_wire(wire, isn);
        let right = text == stream(packet.text_at(), text.len());
        self.note(&format!("> @{number} {packet}"));
        self.sent.push_back((self.now, number, packet));
        if right { Ok(()) } else { Err("other octets than the application wrote".to_owned()) }
    }

    fn answer_arp(&mut self, frame: &[u8]) {
        if frame[12..14] == [0x08, 0x06] && frame[20..22] == [0, 1] {
            let mut answer = frame.to_vec();
            let link = ethernet::Header::parse(&answer).expect("ethernet");
            let packet = arp::Packet::parse(&answer[14..]).expect("ARP");
            let range = arp::reply_in_place(&mut answer, &link, &packet, MacAddr(PEER_MAC));
            self.give(&[answer[range].to_vec()]);
        }
    }

    /// Lets time pass until `target`, or until something is sent, which it gives.
    fn pass_until(&mut self, target: Instant) -> Result<Option<(Instant, usize, Packet)>, String> {
        loop {
            if let Some(sent) = self.sent.pop_front() {
                return Ok(Some(sent));
            }
            let next = self.stack().next_deadline().max(self.now);
            if next > target {
                break;
            }
            let stood = next == self.now;
            self.now = next;
            self.advance()?;
            if stood && self.sent.is_empty() {
                // Something is due that waits for something else: time goes on meanwhile.
                if self.now >= target {
                    break;
                }
                self.now = (self.now + EARLY).min(target);
            }
        }
        self.now = self.now.max(target);
        self.advance()?;
        Ok(self.sent.pop_front())
    }

    fn advance(&mut self) -> Result<(), String> {
        let (now, app) = (self.now, &mut self.app);
        self.stack.as_mut().expect("set up").advance(app, now);
        self.collect()
    }

    fn expect(&mut self, number: usize, wanted: &Packet, from: Instant, to: Instant) -> Result<(), String> {
        let latest = (to + LATE).max(self.now);
        let Some((at, flow, sent)) = self.pass_until(latest)? else {
            return Err(format!("nothing was sent until {:.6}", latest.since(START).as_secs_f64()));
        };
        let mut differences = wanted.differences(&sent);
        if flow != number {
            differences.insert(0, "connection");
        }
        if at + EARLY < from || at > to + LATE {
            differences.insert(0, "time");
        }
        if differences.is_empty() {
            self.last = at;
            return Ok(());
        }
        let (from, to) = (from.since(START).as_secs_f64(), to.since(START).as_secs_f64());
        let at = at.since(START).as_secs_f64();
        let span = if from == to { format!("{from:.6}") } else { format!("{from:.6} to {to:.6}") };
        Err(format!(
            "other {} than expected\n  expected: > @{number} {wanted} at {span}\n  got:      > @{flow} {sent} at {at:.6}",
            differences.join(", ")
        ))
    }

    /// Nothing was left over, and everything comes back once the connections are cut off.
    fn end(&mut self) -> Result<(), String> {
        if let Some((at, flow, sent)) = self.sent.pop_front() {
            let at = at.since(START).as_secs_f64();
            return Err(format!("unexpected segment\n  got:      > @{flow} {sent} at {at:.6}"));
        }
        if self.steps.is_empty() {
            return Err("an empty script".to_owned());
        }
        let (now, app) = (self.now, &mut self.app);
        self.stack.as_mut().ok_or("only config lines")?.abort_all(app, now);
        self.collect()?;
        self.sent.clear();
        let pool = self.stack().pool();
        let (idle, total) = (pool.free_count() + pool.count(Owner::Fill), pool.total());
        if idle == total { Ok(()) } else { Err(format!("{} frames have leaked", total - idle)) }
    }
}
