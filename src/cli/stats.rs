//! `byway stats`: counters of all cores, by Linux's MIB names where one exists.

use std::collections::BTreeMap;
use std::io::{self, Write};

use byway_datapath::control::{Ledger, Snapshot};
use byway_datapath::core_loop::LoopCounters;
use byway_datapath::kernel::SocketCounters;
use byway_datapath::port::PortCounters;
use byway_tcp::counters::Counters;
use byway_tcp::tcb::state::State;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::control::{self, Target};
use super::failure::Failure;

/// Options of `byway stats`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

pub(super) type Named = BTreeMap<String, u64>;

/// Everything that is counted, as it crosses the control socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(super) interface: String,
    /// `xdp` or `kernel`.
    pub(super) backend: String,
    /// The stacks' counters, summed over the cores.
    pub(super) counters: Named,
    /// Connections by state, summed.
    pub(super) connections: Named,
    /// The XDP program's verdicts.
    pub(super) steering: Named,
    /// The AF_XDP sockets' counters, summed.
    pub(super) xsk: Named,
    /// What went through kernel sockets, and by how many system calls, summed.
    pub(super) sockets: Named,
    /// The loops' counters: sums, and the longest gap of any core.
    #[serde(rename = "loop")]
    pub(super) turns: Named,
    /// Frames by owner, summed.
    pub(super) frames: Named,
    /// The same frames, core by core.
    pub(super) cores: Vec<Core>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Core {
    pub(super) core: usize,
    pub(super) queue: u32,
    pub(super) connections: Named,
    pub(super) frames: Named,
    #[serde(rename = "loop")]
    pub(super) turns: Named,
}

impl Stats {
    /// What is counted under that name; 0 if nothing is.
    pub(crate) fn value(&self, name: &str) -> u64 {
        let all = [&self.counters, &self.connections, &self.steering, &self.xsk, &self.turns];
        all.iter().find_map(|named| named.get(name)).copied().unwrap_or(0)
    }

    /// Without `verdicts` they are over kernel sockets, and what AF_XDP would have counted is left out.
    pub(crate) fn new(
        interface: &str,
        snapshots: &[Snapshot],
        verdicts: Option<&[(&'static str, u64)]>,
    ) -> Self {
        let mut counters = Counters::default();
        let (mut connections, mut turns, mut frames) = <(Named, Named, Named)>::default();
        let (mut xsk, mut sockets) = <(Named, Named)>::default();
        let mut cores = Vec::new();
        // A core that was never asked still has its names, at 0.
        add(&mut turns, &named_turns(&LoopCounters::default()));
        for snapshot in snapshots {
            counters.merge(&snapshot.totals.counters);
            let core = Core {
                core: snapshot.core,
                queue: snapshot.queue,
                connections: named_states(snapshot.totals.states.now()),
                frames: named_frames(&snapshot.ledger),
                turns: named_turns(&snapshot.turns),
            };
            add(&mut connections, &core.connections);
            match verdicts {
                Some(_) => add(&mut xsk, &named_port(&snapshot.port)),
                None => add(&mut sockets, &named_sockets(&snapshot.sockets)),
            }
            add(&mut frames, &core.frames);
            add(&mut turns, &core.turns);
            cores.push(core);
        }
        let gap = snapshots.iter().map(|snapshot| snapshot.turns.gap_max_ns).max().unwrap_or(0);
        turns.insert("gap_max_ns".to_owned(), gap);
        let named = |(name, value): (&str, u64)| (name.to_owned(), value);
        Self {
            interface: interface.to_owned(),
            backend: if verdicts.is_some() { "xdp" } else { "kernel" }.to_owned(),
            counters: counters.iter().map(named).collect(),
            connections,
            steering: verdicts.into_iter().flatten().copied().map(named).collect(),
            xsk,
            sockets,
            turns,
            frames,
            cores,
        }
    }

    /// As `nstat` prints: a name and a value per line.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (name, value) in &self.counters {
            writeln!(out, "{name:<34} {value}")?;
        }
        let groups = [
            ("Connections", &self.connections),
            ("Steer", &self.steering),
            ("Xsk", &self.xsk),
            ("Sockets", &self.sockets),
            ("Loop", &self.turns),
            ("Frames", &self.frames),
        ];
        for (group, values) in groups {
            for (name, value) in values {
                writeln!(out, "{:<34} {value}", format!("Byway{group}{}", camel(name)))?;
            }
        }
        Ok(())
    }
}

/// `rx_ring_full` and `FIN-WAIT-1` as part of a MIB name.
fn camel(name: &str) -> String {
    let capitalize = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + &rest.to_lowercase()
    };
    name.split(['_', '-']).map(capitalize).collect()
}

fn add(sum: &mut Named, values: &Named) {
    for (name, value) in values {
        *sum.entry(name.clone()).or_default() += value;
    }
}

fn named<const N: usize>(values: [(&str, u64); N]) -> Named {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn named_states(by_state: &[u32; State::COUNT]) -> Named {
    State::ALL
        .iter()
        .filter(|state| **state != State::Closed)
        .map(|&state| (State::name(state).to_owned(), u64::from(by_state[state as usize])))
        .collect()
}

fn named_port(port: &PortCounters) -> Named {
    named([
        ("rx_ring_full", port.rx_ring_full),
        ("fill_ring_empty", port.fill_ring_empty),
        ("rx_dropped", port.rx_dropped),
        ("invalid_descriptors", port.invalid_descriptors),
        ("tx_wakeups", port.tx_wakeups),
        ("tx_wakeups_again", port.tx_wakeups_again),
        ("rx_wakeups", port.rx_wakeups),
        ("tx_ring_full", port.tx_ring_full),
        ("link_down", port.link_down),
        ("sleeps", port.sleeps),
    ])
}

fn named_sockets(sockets: &SocketCounters) -> Named {
    named([
        ("accepted", sockets.accepted),
        ("accept_failed", sockets.accept_failed),
        ("accept_full", sockets.accept_full),
        ("reads", sockets.reads),
        ("reads_empty", sockets.reads_empty),
        ("writes", sockets.writes),
        ("writes_full", sockets.writes_full),
        ("octets_in", sockets.octets_in),
        ("octets_out", sockets.octets_out),
        ("waits", sockets.waits),
        ("events", sockets.events),
    ])
}

fn named_turns(turns: &LoopCounters) -> Named {
    named([
        ("turns", turns.turns),
        ("busy_turns", turns.busy_turns),
        ("gap_max_ns", turns.gap_max_ns),
        ("preempted", turns.preempted),
        ("stalls", turns.stalls),
        ("tx_backlogs", turns.tx_backlogs),
    ])
}

fn named_frames(ledger: &Ledger) -> Named {
    named([
        ("total", ledger.total.into()),
        ("free", ledger.free.into()),
        ("fill", ledger.fill.into()),
        ("rx", ledger.rx.into()),
        ("app", ledger.app.into()),
        ("send_queue", ledger.send_queue.into()),
        ("control", ledger.control.into()),
        ("tx", ledger.tx.into()),
    ])
}

/// Asks: the answer as it came, and what it says.
pub(super) fn ask(target: &Target) -> Result<(String, Stats), Failure> {
    let mut lines = control::ask(target, "stats")?;
    let broken = |what: String| Failure::system(format!("the answer broke off ({what}): ask again"));
    let line = match lines.next() {
        Some(Ok(line)) => line,
        Some(Err(error)) => return Err(broken(error.to_string())),
        None => return Err(broken("byway ended".to_owned())),
    };
    let stats = serde_json::from_str(&line).map_err(|error| broken(error.to_string()))?;
    Ok((line, stats))
}

/// Asks and shows.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let (line, stats) = ask(&options.target)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = if options.json { writeln!(out, "{line}") } else { stats.write(&mut out) };
    // That nobody reads on (`| head`) is no error.
    let _ = written.and_then(|()| out.flush());
    Ok(())
}

#[cfg(test)]
mod tests {
    use byway_tcp::tcb::state::States;

    use super::*;

    fn snapshot(core: usize, gap_max_ns: u64) -> Snapshot {
        let mut counters = Counters::default();
        counters.tcp_in_segs = 3;
        let mut states = States::default();
        states.enter_all(State::Closed, State::Established, 2);
        Snapshot {
            core,
            queue: core as u32,
            totals: byway_tcp::counters::Totals { counters, states },
            ledger: Ledger { total: 8, free: 5, fill: 2, tx: 1, ..Ledger::default() },
            port: PortCounters { sleeps: 1, ..PortCounters::default() },
            turns: LoopCounters { turns: 10, gap_max_ns, ..LoopCounters::default() },
            sockets: SocketCounters { reads: 4, ..SocketCounters::default() },
        }
    }

    #[test]
    fn cores_are_summed_and_the_longest_gap_wins() {
        let stats = Stats::new("eth0", &[snapshot(0, 7), snapshot(1, 5)], Some(&[("redirect_tcp", 9)]));
        assert_eq!(stats.counters["TcpInSegs"], 6);
        assert_eq!(stats.connections["ESTAB"], 4);
        assert_eq!(stats.frames["total"], 16);
        assert_eq!((stats.turns["turns"], stats.turns["gap_max_ns"]), (20, 7));
        assert_eq!(stats.cores.len(), 2);
        let mut text = Vec::new();
        stats.write(&mut text).expect("written");
        let text = String::from_utf8(text).expect("text");
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
            line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("missing").to_owned()
        };
        assert_eq!(value("TcpInSegs"), "6");
        assert_eq!(value("TcpRetransSegs"), "0");
        assert_eq!(value("BywaySteerRedirectTcp"), "9");
        assert_eq!(value("BywayXskSleeps"), "2");
        assert_eq!(value("BywayFramesFree"), "10");
        assert_eq!(value("BywayConnectionsFinWait1"), "0");
    }

    /// Every name without byway's own prefix is one that `nstat` knows.
    #[test]
    fn names_of_linux_are_linuxs() {
        let mut known = std::collections::BTreeSet::new();
        for file in ["netstat", "snmp"] {
            let text = std::fs::read_to_string(format!("/proc/net/{file}")).expect("a file of Linux");
            for line in text.lines() {
                let (group, names) = line.split_once(':').expect("a group");
                known.extend(names.split_whitespace().map(|name| format!("{group}{name}")));
            }
        }
        if let Ok(text) = std::fs::read_to_string("/proc/net/snmp6") {
            known.extend(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned));
        } else {
            // A kernel without IPv6.
            known.extend(
                Counters::default().iter().map(|(name, _)| name.to_owned()).filter(|n| n.contains('6')),
            );
        }
        for (name, _) in Counters::default().iter() {
            assert!(name.starts_with("Byway") || known.contains(name), "{name} is not among Linux's");
        }
    }

    #[test]
    fn over_kernel_sockets_there_is_no_xsk() {
        let stats = Stats::new("*", &[snapshot(0, 7), snapshot(1, 7)], None);
        assert_eq!((stats.backend.as_str(), stats.sockets["reads"]), ("kernel", 8));
        assert!(stats.xsk.is_empty() && stats.steering.is_empty());
        assert_eq!(serde_json::to_value(&stats).expect("JSON")["backend"], "kernel");
    }

    #[test]
    fn stats_survive_the_socket() {
        let stats = Stats::new("eth0", &[snapshot(0, 7)], Some(&[("redirect_tcp", 9)]));
        let line = serde_json::to_string(&stats).expect("JSON");
        assert_eq!(serde_json::from_str::<Stats>(&line).expect("back"), stats);
    }
}
