//! What of a NIC's settings differs from what byway would have.

use std::collections::BTreeMap;

use byway_datapath::nic::{Channels, Nic};

use super::super::doctor::{
    HUGE_PAGE, Host, Sysfs, halved_queues, memory_of, offloads_in_the_way, read, ring_wanted,
};
use super::super::failure::Failure;
use super::{Action, Step, irqs};

/// What the user asked for.
pub(super) struct Wanted<'a> {
    pub(super) queues: Option<u32>,
    pub(super) cores: &'a [usize],
    pub(super) busy_poll: bool,
    pub(super) huge_pages: bool,
    /// Whether a byway serves there, with huge pages of its own.
    pub(super) served: bool,
}

/// Without busy polling: µs from the first frame to the interrupt. Long enough to gather ten frames at 1.2 million a
/// second, short beside the 20 µs that a sleeping core takes to be there; the same at every load, which adaptive
/// coalescing isn't.
const RX_USECS: u32 = 8;

/// With busy polling, as the kernel's documentation has it (Documentation/networking/napi.rst): how often the interrupt
/// stays off when a poll found nothing, and for how many ns. byway polls every 20 µs at the latest.
const DEFER_HARD_IRQS: i64 = 2;
const GRO_FLUSH_TIMEOUT: i64 = 200_000;

/// The changes, in the order in which they have to be made.
pub(super) fn plan(
    nic: &Nic,
    host: &Host,
    sysfs: Option<&Sysfs>,
    wanted: &Wanted<'_>,
) -> Result<Vec<Step>, Failure> {
    let queues = queues(nic, wanted)?;
    let mut steps = offloads(nic);
    // Linux refuses to take away a queue that an indirection table of the user's names, as an earlier `equal` is one;
    // and to name one that isn't there yet.
    if queues < nic.link.rx_queues {
        steps.extend(spread(nic, queues));
        steps.extend(channels(nic, queues));
    } else {
        steps.extend(channels(nic, queues));
        steps.extend(spread(nic, queues));
    }
    steps.extend(rings(nic));
    if wanted.busy_poll {
        steps.extend(sysfs.map(deferral).unwrap_or_default());
    } else {
        steps.extend(coalescing(nic));
    }
    if let Some(sysfs) = sysfs {
        steps.extend(affinity(&irqs::of(nic, sysfs), queues, wanted.cores, |irq| read(affinity_path(irq))));
    }
    if wanted.huge_pages {
        steps.extend(huge_pages(host, memory_of(nic, queues as usize), wanted.served));
    }
    Ok(steps)
}

fn queues(nic: &Nic, wanted: &Wanted<'_>) -> Result<u32, Failure> {
    let cores = wanted.cores.len() as u32;
    let most =
        nic.channels.map_or(nic.link.rx_queues, |channels| channels.combined_max.max(channels.rx_max).max(1));
    match wanted.queues {
        None => Ok(halved_queues(nic).unwrap_or(nic.link.rx_queues).min(cores).max(1)),
        Some(queues) if queues > most => {
            Err(Failure::configuration(format!("--queues {queues}: {} has {most} at most", nic.link.name)))
        }
        Some(queues) if queues > cores => Err(Failure::configuration(format!(
            "--queues {queues} need a core each, and there are {cores}: give fewer, or more --cores"
        ))),
        Some(queues) => Ok(queues),
    }
}

fn offloads(nic: &Nic) -> Vec<Step> {
    let name = &nic.link.name;
    let switch = |word: &str, to: &str| ethtool(&["-K", name, word, to]);
    offloads_in_the_way(nic)
        .into_iter()
        .map(|(word, what)| Step { change: switch(word, "off"), back: switch(word, "on"), why: what.into() })
        .collect()
}

/// As many queues as byway serves, so that RSS has no others to spread to.
fn channels(nic: &Nic, queues: u32) -> Option<Step> {
    let now = nic.channels?;
    let with = |combined: u32, rx: u32, tx: u32| {
        let mut arguments = vec!["-L".to_owned(), nic.link.name.clone()];
        for (word, count, most) in
            [("combined", combined, now.combined_max), ("rx", rx, now.rx_max), ("tx", tx, now.tx_max)]
        {
            if most > 0 {
                arguments.extend([word.to_owned(), count.to_string()]);
            }
        }
        Action::Ethtool(arguments)
    };
    let Channels { combined, rx, tx, combined_max, .. } = now;
    let (change, differs) = if combined_max > 0 {
        (with(queues, 0, 0), (combined, rx) != (queues, 0))
    } else {
        (with(0, queues, queues), (rx, tx) != (queues, queues))
    };
    let why = format!("a queue for each core of byway's: {queues}");
    differs.then(|| Step { change, back: with(combined, rx, tx), why })
}

fn rings(nic: &Nic) -> Option<Step> {
    let rings = nic.rings?;
    let wanted = ring_wanted(rings.rx, rings.rx_max)?;
    let name = &nic.link.name;
    let set = |places: u32| ethtool(&["-G", name, "rx", &places.to_string()]);
    let why = "a burst finds room while the core is away";
    Some(Step { change: set(wanted), back: set(rings.rx), why: why.into() })
}

/// Every queue has its share of the indirection table.
fn spread(nic: &Nic, queues: u32) -> Option<Step> {
    let mut shares: BTreeMap<u32, u32> = (0..queues).map(|queue| (queue, 0)).collect();
    for &queue in &nic.indirection {
        *shares.entry(queue).or_default() += 1;
    }
    let (least, most) = (shares.values().min()?, shares.values().max()?);
    // A table whose length isn't a multiple differs by one.
    if nic.indirection.is_empty() || (shares.len() == queues as usize && most - least <= 1) {
        return None;
    }
    let name = &nic.link.name;
    let weights: Vec<String> = shares.values().map(u32::to_string).collect();
    let mut back = vec!["-X", name, "weight"];
    back.extend(weights.iter().map(String::as_str));
    Some(Step {
        change: ethtool(&["-X", name, "equal", &queues.to_string()]),
        back: ethtool(&back),
        why: "flows go to the queues that are served, to each as many".into(),
    })
}

fn coalescing(nic: &Nic) -> Option<Step> {
    let now = nic.coalescing?;
    if !now.adaptive && now.rx_usecs <= RX_USECS {
        return None;
    }
    let name = &nic.link.name;
    let set = |adaptive: bool, usecs: u32| {
        let mut arguments = vec!["-C".to_owned(), name.clone()];
        // Drivers without it refuse the word, even with `off`.
        if now.adaptive {
            arguments.extend(["adaptive-rx".to_owned(), if adaptive { "on" } else { "off" }.to_owned()]);
        }
        arguments.extend(["rx-usecs".to_owned(), usecs.to_string()]);
        Action::Ethtool(arguments)
    };
    let why = "a frame waits for the interrupt as briefly as pays, at every load";
    Some(Step { change: set(false, RX_USECS), back: set(true, now.rx_usecs), why: why.into() })
}

fn deferral(sysfs: &Sysfs) -> Vec<Step> {
    let rows = [
        ("napi_defer_hard_irqs", DEFER_HARD_IRQS, "the interrupt stays off while byway polls"),
        ("gro_flush_timeout", GRO_FLUSH_TIMEOUT, "and comes back after 200 µs without"),
    ];
    let step = |(file, value, why): &(&str, i64, &str)| {
        let now = sysfs.number(file)?;
        (now != *value).then(|| Step {
            change: write(sysfs.path(file), value),
            back: write(sysfs.path(file), &now),
            why: (*why).into(),
        })
    };
    rows.iter().filter_map(step).collect()
}

fn affinity_path(irq: u32) -> String {
    format!("/proc/irq/{irq}/smp_affinity_list")
}

/// Each queue's interrupt on the core that serves it, where its frames are wanted in the cache.
fn affinity(irqs: &[(u32, u32)], queues: u32, cores: &[usize], now: impl Fn(u32) -> String) -> Vec<Step> {
    let step = |&(queue, irq): &(u32, u32)| {
        let core = cores.get(queue as usize).filter(|_| queue < queues)?;
        let (path, now) = (affinity_path(irq), now(irq));
        (!now.is_empty() && now != core.to_string()).then(|| Step {
            change: write(path.clone(), core),
            back: write(path, &now),
            why: format!("queue {queue}'s interrupt on the core that serves it"),
        })
    };
    irqs.iter().filter_map(step).collect()
}

fn huge_pages(host: &Host, octets: u64, served: bool) -> Option<Step> {
    const PATH: &str = "/proc/sys/vm/nr_hugepages";
    let missing = host.huge_missing(octets, served);
    (host.huge_size == HUGE_PAGE && missing > 0).then(|| Step {
        change: write(PATH.into(), &(host.huge_total + missing)),
        back: write(PATH.into(), &host.huge_total),
        why: format!("{} MiB of frames on pages of 2 MiB", octets >> 20),
    })
}

fn ethtool(arguments: &[&str]) -> Action {
    Action::Ethtool(arguments.iter().map(|&argument| argument.to_owned()).collect())
}

fn write(path: String, value: &impl ToString) -> Action {
    Action::Write { path, value: value.to_string() }
}

#[cfg(test)]
mod tests {
    use byway_datapath::link::Link;
    use byway_datapath::nic::{Coalescing, Offload, Rings};
    use byway_tcp::wire::MacAddr;

    use super::*;

    fn nic() -> Nic {
        let mut nic = Nic::of(Link {
            name: "eth1".into(),
            index: 3,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            rx_queues: 4,
            tx_queues: 4,
            up: true,
            running: true,
            driver: "i40e".into(),
            rss: None,
        });
        nic.channels = Some(Channels { combined: 4, combined_max: 8, ..Channels::default() });
        nic.rings = Some(Rings { rx: 256, rx_max: 4096, tx: 256, tx_max: 4096 });
        nic.indirection = vec![0, 1, 2, 3, 0, 0];
        nic.coalescing = Some(Coalescing { rx_usecs: 50, adaptive: true });
        nic.offloads.insert("rx-lro".into(), Offload { on: true, fixed: false });
        nic
    }

    fn shell(steps: &[Step]) -> Vec<(String, String)> {
        steps.iter().map(|step| (step.change.shell(), step.back.shell())).collect()
    }

    #[test]
    fn every_change_has_its_way_back() {
        let wanted =
            Wanted { queues: Some(2), cores: &[2, 3, 4], busy_poll: false, huge_pages: true, served: false };
        let mut host = Host::look();
        (host.huge_free, host.huge_total, host.huge_size) = (4, 10, 2 << 20);
        let steps = plan(&nic(), &host, None, &wanted).expect("a plan");
        let both = |change: &str, back: &str| (change.to_owned(), back.to_owned());
        assert_eq!(
            shell(&steps),
            [
                both("ethtool -K eth1 lro off", "ethtool -K eth1 lro on"),
                both("ethtool -X eth1 equal 2", "ethtool -X eth1 weight 3 1 1 1"),
                both("ethtool -L eth1 combined 2", "ethtool -L eth1 combined 4"),
                both("ethtool -G eth1 rx 2048", "ethtool -G eth1 rx 256"),
                both(
                    "ethtool -C eth1 adaptive-rx off rx-usecs 8",
                    "ethtool -C eth1 adaptive-rx on rx-usecs 50"
                ),
                both("echo 134 > /proc/sys/vm/nr_hugepages", "echo 10 > /proc/sys/vm/nr_hugepages"),
            ]
        );
    }

    /// Or each `tune --apply` beside a running byway would reserve as many again.
    #[test]
    fn huge_pages_of_a_running_byway_are_enough() {
        let mut host = Host::look();
        (host.huge_free, host.huge_total, host.huge_size) = (0, 128, 2 << 20);
        assert!(huge_pages(&host, 256 << 20, false).is_some());
        assert_eq!(huge_pages(&host, 256 << 20, true), None);
    }

    #[test]
    fn a_nic_that_is_right_is_left_alone() {
        let mut nic = nic();
        nic.rings = Some(Rings { rx: 2048, rx_max: 4096, tx: 256, tx_max: 4096 });
        nic.indirection = vec![0, 1, 2, 3, 0];
        nic.coalescing = Some(Coalescing { rx_usecs: 3, adaptive: false });
        nic.offloads.clear();
        let mut host = Host::look();
        (host.huge_free, host.huge_size) = (4096, 2 << 20);
        let wanted =
            Wanted { queues: None, cores: &[0, 1, 2, 3], busy_poll: false, huge_pages: true, served: false };
        assert_eq!(plan(&nic, &host, None, &wanted).expect("a plan"), []);
    }

    #[test]
    fn interrupts_go_where_their_queues_are_served() {
        let now = |irq: u32| if irq == 41 { "2".to_owned() } else { "0-7".to_owned() };
        let steps = affinity(&[(0, 41), (1, 42), (2, 43)], 2, &[2, 3], now);
        assert_eq!(
            shell(&steps),
            [(
                "echo 3 > /proc/irq/42/smp_affinity_list".to_owned(),
                "echo 0-7 > /proc/irq/42/smp_affinity_list".to_owned()
            )]
        );
    }

    #[test]
    fn what_the_nic_or_the_host_does_not_have_is_refused() {
        let refuse = |queues, cores: &[usize]| {
            let wanted =
                Wanted { queues: Some(queues), cores, busy_poll: false, huge_pages: true, served: false };
            let failure = plan(&nic(), &Host::look(), None, &wanted).expect_err("refused");
            assert_eq!(failure.code, Failure::CONFIGURATION);
            failure.message
        };
        assert!(refuse(9, &[0; 9]).contains("8 at most"));
        assert!(refuse(2, &[0]).contains("a core each"));
    }
}
