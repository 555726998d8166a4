//! The interface, its driver and its set-up.

use std::collections::BTreeSet;

use byway_bpf::{Occupant, Removal};
use byway_datapath::config::Config;
use byway_datapath::netdev::Features;
use byway_datapath::nic::Nic;
use byway_datapath::sock_diag::{self, XdpSocket};

use super::host::{Host, read};
use super::{Finding, counted, drivers};

/// Octets of byway's frames for `queues` queues.
pub(in crate::cli) fn memory_of(nic: &Nic, queues: usize) -> u64 {
    let config = Config::default();
    queues as u64 * u64::from(config.frame_count) * u64::from(frames_of(nic))
}

/// Octets of one frame: larger for a larger MTU.
fn frames_of(nic: &Nic) -> u32 {
    let config = Config::default();
    if nic.link.mtu > config.mtu_max(&nic.link.driver) { 2 * config.frame_size } else { config.frame_size }
}

/// Judges what the driver told, for `queues` of it.
pub(super) fn judge(nic: &Nic, queues: &[u32], host: &Host) -> Vec<Finding> {
    let driver = drivers::judge(&nic.link.driver, &nic.driver_version, host);
    let mut findings = vec![link(nic), driver, native(nic), zero_copy(nic, host), mtu(nic)];
    findings.extend(multi_buffer(nic));
    findings.extend(offloads(nic));
    findings.push(queue_counts(nic, queues));
    findings.push(rss(nic, queues));
    findings.extend(rings(nic));
    findings.push(checksums(nic));
    findings
}

/// One interface among all.
pub(super) fn summary(nic: &Nic) -> Finding {
    const CHECK: &str = "interface";
    let name = &nic.link.name;
    let driver = if nic.link.driver.is_empty() { "unknown driver" } else { &nic.link.driver };
    let can = match nic.features {
        Some(features) if features.zero_copy() => "native XDP, zero-copy",
        Some(features) if features.native() => "native XDP, copy mode",
        Some(_) => "generic XDP only",
        None => "the kernel doesn't tell what it can",
    };
    let text = format!("{name} ({driver}, {}): {can}", counted(nic.link.rx_queues, "queue"));
    let look = format!("byway doctor --interface {name}");
    match nic.features {
        Some(features) if features.native() && nic.link.up => Finding::pass(CHECK, text),
        _ if !nic.link.up => {
            Finding::warn(CHECK, format!("{text}; it is down"), format!("ip link set {name} up"))
        }
        _ => Finding::warn(CHECK, text, look),
    }
}

fn link(nic: &Nic) -> Finding {
    const CHECK: &str = "link";
    let name = &nic.link.name;
    match (nic.link.up, nic.link.running) {
        (true, true) => Finding::pass(CHECK, format!("{name} is up, with carrier")),
        (true, false) => Finding::warn(
            CHECK,
            format!("{name} is up and has no carrier: byway serves once it has"),
            format!("check its cable or its peer; ethtool {name}"),
        ),
        (false, _) => Finding::fail(CHECK, format!("{name} is down"), format!("ip link set {name} up")),
    }
}

fn native(nic: &Nic) -> Finding {
    const CHECK: &str = "native-xdp";
    let (name, rx) = (&nic.link.name, nic.link.rx_queues);
    match nic.features {
        Some(features) if features.native() => {
            Finding::pass(CHECK, "the driver runs XDP programs and redirects")
        }
        // veth says so as soon as either end's queues change.
        Some(_) if nic.link.driver == "veth" => Finding::warn(
            CHECK,
            format!(
                "its peer sends on more queues than {name} receives on ({rx}): generic, or none of either"
            ),
            format!("on the peer: ethtool -L PEER tx {rx}; or more here: ethtool -L {name} rx N"),
        ),
        Some(_) => Finding::warn(
            CHECK,
            "the driver has no XDP (or not with these settings): generic, behind the kernel's own receive path",
            "byway serve --attach generic, or a NIC of deploy/nic.md",
        ),
        None => Finding::warn(
            CHECK,
            "this kernel doesn't tell before it is tried",
            "byway serve says what it got; --attach native refuses anything else",
        ),
    }
}

fn zero_copy(nic: &Nic, host: &Host) -> Finding {
    const CHECK: &str = "zero-copy";
    if nic.features.is_some_and(Features::zero_copy) {
        return Finding::pass(CHECK, "the NIC reads and writes byway's frames itself");
    }
    match drivers::zero_copy_later(&nic.link.driver, host) {
        Some((major, minor)) => Finding::warn(
            CHECK,
            format!("not with Linux {}: this driver has it since {major}.{minor}", host.release),
            "apt install -t bookworm-backports linux-image-amd64, and reboot",
        ),
        None => Finding::warn(
            CHECK,
            "not told by the driver: copy mode, in which the kernel copies every frame",
            "a driver with zero-copy: deploy/nic.md",
        ),
    }
}

fn mtu(nic: &Nic) -> Finding {
    const CHECK: &str = "mtu";
    let (name, mtu) = (&nic.link.name, nic.link.mtu);
    let scattered = nic.features.is_some_and(Features::fragments);
    // What is reported of drivers is of programs that take no packet in several buffers.
    let of_driver = drivers::find(&nic.link.driver).and_then(|driver| driver.mtu_max).filter(|_| !scattered);
    if let Some(max) = of_driver.filter(|&max| mtu > max) {
        let text =
            format!("{mtu} is more than {}'s XDP takes ({max}): it refuses the program", nic.link.driver);
        return Finding::fail(CHECK, text, format!("ip link set dev {name} mtu 1500"));
    }
    let frame_size = frames_of(nic);
    let config = Config { frame_size, zero_copy_segments: nic.zero_copy_segments(), ..Config::default() };
    let largest = config.mtu_max(&nic.link.driver);
    let zero_copy = nic.features.is_some_and(Features::zero_copy);
    if mtu <= largest {
        let most = of_driver.unwrap_or(Config { frame_size: 4096, ..config }.mtu_max(&nic.link.driver));
        return Finding::pass(
            CHECK,
            format!("{mtu}, in frames of {frame_size} octets ({most} in one at most)"),
        );
    }
    let mend = format!("ip link set dev {name} mtu {largest}");
    if zero_copy && mtu > config.scattered_mtu_max(true).into() {
        let text = format!(
            "{mtu}: with zero-copy byway's frames hold {largest}, the driver spreads no packet over several, and \
             larger ones sent to byway are lost"
        );
        return Finding::warn(CHECK, text, format!("{mend}, or byway serve --zero-copy off"));
    }
    if !scattered {
        let text = format!("{mtu}: no word from the driver that XDP may take more than {largest}");
        return Finding::warn(CHECK, text, mend);
    }
    Finding::pass(CHECK, format!("{mtu}: in several frames of {frame_size} octets a packet"))
}

/// Frames spread over several buffers (`xdp.frags`, XDP_USE_SG): only larger MTUs need it.
fn multi_buffer(nic: &Nic) -> Option<Finding> {
    const CHECK: &str = "multi-buffer";
    let features = nic.features?;
    let taken = |is: bool| if is { "taken" } else { "not taken" };
    let zero_copy = match (features.zero_copy(), nic.zero_copy_segments()) {
        (false, _) => "no zero-copy".to_owned(),
        (true, 1) => "not with zero-copy".to_owned(),
        (true, most) => format!("up to {most} with zero-copy"),
    };
    // The second is of other programs' redirects: AF_XDP doesn't send that way.
    let text = format!(
        "packets in several buffers: {} by XDP, {} by its redirects, {zero_copy}",
        taken(features.fragments()),
        taken(features.sends_fragments()),
    );
    Some(Finding::pass(CHECK, text))
}

/// Offloads that stand between the wire and XDP and are on, though they could be off: `ethtool -K`'s word for each, and
/// what it does.
pub(in crate::cli) fn offloads_in_the_way(nic: &Nic) -> Vec<(&'static str, &'static str)> {
    let rows = [
        ("rx-lro", "lro", "merges segments before XDP sees them, and keeps native XDP from attaching"),
        ("rx-gro-hw", "rx-gro-hw", "merges segments in the NIC, and keeps some drivers from attaching"),
        ("rx-vlan-hw-parse", "rxvlan", "takes VLAN tags out before XDP sees them: tagged frames lose theirs"),
    ];
    // Veth's takes nothing out in front of XDP.
    let on = rows.iter().filter(|(offload, ..)| nic.could_be_off(offload) && nic.link.driver != "veth");
    on.map(|&(_, word, what)| (word, what)).collect()
}

fn offloads(nic: &Nic) -> Vec<Finding> {
    const CHECK: &str = "offloads";
    let name = &nic.link.name;
    let mut findings: Vec<_> = offloads_in_the_way(nic)
        .into_iter()
        .map(|(word, what)| {
            Finding::warn(CHECK, format!("{word} {what}"), format!("ethtool -K {name} {word} off"))
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::pass(CHECK, "nothing merges segments or takes VLAN tags out in front of XDP"));
    }
    findings
}

fn queue_counts(nic: &Nic, queues: &[u32]) -> Finding {
    const CHECK: &str = "queues";
    let (rx, tx) = (nic.link.rx_queues, nic.link.tx_queues);
    if rx as usize > queues.len() {
        return Finding::warn(
            CHECK,
            format!("{} of {rx} are to be served: frames for byway on the others are dropped", queues.len()),
            set_queues(nic, queues.len() as u32),
        );
    }
    if queues.iter().any(|&queue| queue >= tx) {
        return Finding::fail(
            CHECK,
            format!("{rx} receive and {tx} send: a queue that byway serves has to do both"),
            set_queues(nic, rx.min(tx)),
        );
    }
    if let Some(channels) = nic.channels
        && let Some(half) = halved_queues(nic)
    {
        let now = channels.combined;
        return Finding::warn(
            CHECK,
            format!("{now} of {} are in use, and XDP takes as many again", channels.combined_max),
            set_queues(nic, half),
        );
    }
    Finding::pass(CHECK, format!("{rx} receive, {tx} send, {} to be served", queues.len()))
}

/// The command for so many queues, in the words that the driver knows: veth and others have none that do both. Each of
/// a veth's is fed by the peer's of the same number, and native XDP wants no fewer of them than of the peer's: those go
/// first.
fn set_queues(nic: &Nic, count: u32) -> String {
    let name = &nic.link.name;
    match nic.channels {
        _ if nic.link.driver == "veth" => {
            format!(
                "on the peer: ethtool -L PEER tx {count}; then here: ethtool -L {name} rx {count} tx {count}"
            )
        }
        Some(channels) if channels.combined_max == 0 => format!("ethtool -L {name} rx {count} tx {count}"),
        _ => format!("ethtool -L {name} combined {count}"),
    }
}

/// How many queues may be in use, of drivers whose XDP takes as many again, if that are fewer than now.
pub(in crate::cli) fn halved_queues(nic: &Nic) -> Option<u32> {
    drivers::find(&nic.link.driver).filter(|driver| driver.half_the_queues)?;
    let channels = nic.channels?;
    let half = (channels.combined_max / 2).max(1);
    (channels.combined > half).then_some(half)
}

fn rss(nic: &Nic, queues: &[u32]) -> Finding {
    const CHECK: &str = "rss";
    let name = &nic.link.name;
    let used: BTreeSet<u32> = nic.indirection.iter().copied().collect();
    if queues.len() == 1 && nic.link.rx_queues == 1 {
        return Finding::pass(CHECK, "one queue gets everything");
    }
    if used.is_empty() {
        return Finding::warn(
            CHECK,
            "the driver doesn't tell how it spreads flows: connections byway opens may be answered on another queue",
            format!("for byway load: {}", set_queues(nic, 1)),
        );
    }
    if let Some(stray) = used.iter().find(|queue| !queues.contains(queue)) {
        return Finding::fail(
            CHECK,
            format!("flows are spread to queue {stray}, which nobody is to serve"),
            format!("ethtool -X {name} equal {}", queues.len()),
        );
    }
    if used.len() < queues.len() {
        return Finding::warn(
            CHECK,
            format!("flows are spread over {} of {} queues", used.len(), queues.len()),
            format!("ethtool -X {name} equal {}", queues.len()),
        );
    }
    match nic.link.rss {
        Some(_) => {
            Finding::pass(CHECK, format!("Toeplitz over addresses and ports, to {} queues", used.len()))
        }
        None => Finding::warn(
            CHECK,
            "not Toeplitz over addresses and ports: connections byway opens may be answered on another queue",
            format!("ethtool -N {name} rx-flow-hash tcp4 sdfn; ethtool -X {name} hfunc toeplitz"),
        ),
    }
}

/// Places that a hardware ring should have: 1 ms at 1.5 million frames a second, as long as byway's core may be away.
/// More cost cache misses.
const RING: u32 = 2048;

/// What the ring should have, if it has less and could have more.
pub(in crate::cli) fn ring_wanted(now: u32, max: u32) -> Option<u32> {
    let wanted = RING.min(max);
    (now < wanted / 2).then_some(wanted)
}

fn rings(nic: &Nic) -> Option<Finding> {
    const CHECK: &str = "rings";
    let rings = nic.rings?;
    let fill = Config::default().rings.fill;
    if rings.rx + Config::default().rings.rx > fill {
        let text = format!("{} receive places are more than byway's fill ring feeds", rings.rx);
        return Some(Finding::warn(CHECK, text, format!("ethtool -G {} rx {}", nic.link.name, fill / 2)));
    }
    match ring_wanted(rings.rx, rings.rx_max) {
        Some(wanted) => Some(Finding::warn(
            CHECK,
            format!(
                "{} receive places of {}: a burst overflows them while the core is away",
                rings.rx, rings.rx_max
            ),
            format!("ethtool -G {} rx {wanted}", nic.link.name),
        )),
        None => Some(Finding::pass(CHECK, format!("{} receive, {} send", rings.rx, rings.tx))),
    }
}

/// Who computes what.
fn checksums(nic: &Nic) -> Finding {
    const CHECK: &str = "checksums";
    let sent = match nic.features {
        Some(features) if features.tx_checksum() => "the NIC could for AF_XDP, byway does it itself",
        _ => "by byway",
    };
    if nic.link.driver == "veth" || nic.link.driver == "virtio_net" {
        return Finding::warn(
            CHECK,
            format!(
                "sent: {sent}; received: a peer on the same host leaves them half done, and byway drops those"
            ),
            "on the peer: ethtool -K PEER tx off; or byway serve --accept-partial-checksums",
        );
    }
    Finding::pass(CHECK, format!("sent: {sent}; received: verified by byway"))
}

/// What isn't the driver's to tell.
pub(super) fn ask_kernel(nic: &Nic, queues: &[u32]) -> Vec<Finding> {
    let occupant = byway_bpf::occupant(nic.link.index as i32);
    let mut findings = vec![hook(occupant.as_ref())];
    findings.extend(sockets(nic, queues, occupant.as_ref()));
    findings.push(addresses(nic));
    if let Some(sysfs) = Sysfs::of(nic) {
        findings.push(busy_polling(nic, &sysfs));
        findings.extend(numa(&sysfs));
    }
    findings
}

fn hook(occupant: Option<&Occupant>) -> Finding {
    const CHECK: &str = "xdp-hook";
    match occupant {
        None => Finding::pass(CHECK, "no XDP program is attached"),
        Some(occupant) if occupant.is_ours() => {
            let holder = occupant.holder().unwrap_or("a process that can't be seen");
            Finding::pass(CHECK, format!("byway's own program, held by {holder}"))
        }
        Some(occupant) => {
            let (Removal::Command(mend) | Removal::Advice(mend)) = occupant.removal();
            let what = occupant.what();
            Finding::fail(
                CHECK,
                format!("another program is attached: {what}; byway doesn't replace it"),
                mend,
            )
        }
    }
}

/// A queue has one AF_XDP socket at a time, whosever program is attached.
fn sockets(nic: &Nic, queues: &[u32], occupant: Option<&Occupant>) -> Vec<Finding> {
    const CHECK: &str = "queue-sockets";
    let byway = occupant.filter(|occupant| occupant.is_ours()).and_then(Occupant::holder);
    let Some(mut sockets) = sock_diag::xdp_sockets(nic.link.index) else { return vec![untold(byway)] };
    sockets.retain(|socket| queues.contains(&socket.queue));
    let count = sockets.len();
    sockets.retain(|socket| byway.is_none() || socket.holder.as_deref() != byway);
    let foreign = |socket: &XdpSocket| {
        let holder = socket.holder.as_deref().unwrap_or("a process that can't be seen from here");
        let text =
            format!("queue {} has an AF_XDP socket of {holder}: byway can't have it as well", socket.queue);
        Finding::fail(CHECK, text, format!("stop {holder}, or byway serve --queues with others"))
    };
    match (count, sockets.as_slice()) {
        (0, _) => vec![Finding::pass(CHECK, "no queue has an AF_XDP socket")],
        (_, []) => vec![Finding::pass(CHECK, format!("only byway's own, {}", byway.unwrap_or_default()))],
        (_, others) => others.iter().map(foreign).collect(),
    }
}

/// The same of a kernel that doesn't tell who has which queue.
fn untold(byway: Option<&str>) -> Finding {
    const CHECK: &str = "queue-sockets";
    let mut others = sock_diag::xdp_processes();
    others.retain(|process| Some(process.as_str()) != byway);
    if others.is_empty() {
        let but = byway.map(|byway| format!(" but byway's own, {byway}")).unwrap_or_default();
        return Finding::pass(CHECK, format!("there are no AF_XDP sockets to be seen{but}"));
    }
    Finding::warn(
        CHECK,
        format!(
            "there are AF_XDP sockets of {}, and this kernel doesn't tell on which queues",
            others.join(", ")
        ),
        "stop who is on this interface, or byway serve --queues with others",
    )
}

fn addresses(nic: &Nic) -> Finding {
    const CHECK: &str = "addresses";
    let kernels = nic.link.kernel_addresses().unwrap_or_default();
    let listed: Vec<String> =
        kernels.iter().map(|cidr| format!("{}/{}", cidr.address, cidr.prefix)).collect();
    let text = match listed.as_slice() {
        [] => "the kernel has none here: give byway its own by --address".to_owned(),
        listed => format!(
            "the kernel has {}: give byway another by --address, or share them by --host-address",
            listed.join(", ")
        ),
    };
    Finding::pass(CHECK, text)
}

/// The interface in /sys, if that shows this network namespace.
pub(in crate::cli) struct Sysfs(String);

impl Sysfs {
    pub(in crate::cli) fn of(nic: &Nic) -> Option<Self> {
        let path = format!("/sys/class/net/{}", nic.link.name);
        (read(format!("{path}/ifindex")) == nic.link.index.to_string()).then_some(Self(path))
    }

    pub(in crate::cli) fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.0)
    }

    pub(in crate::cli) fn number(&self, file: &str) -> Option<i64> {
        read(self.path(file)).parse().ok()
    }
}

fn busy_polling(nic: &Nic, sysfs: &Sysfs) -> Finding {
    const CHECK: &str = "busy-poll";
    let irqs = sysfs.number("napi_defer_hard_irqs").unwrap_or(0);
    let flush = sysfs.number("gro_flush_timeout").unwrap_or(0);
    let name = &nic.link.name;
    if irqs > 0 && flush > 0 {
        return Finding::pass(CHECK, format!("interrupts deferred {irqs} times, {} µs each", flush / 1000));
    }
    let text = "interrupts aren't deferred: byway serve runs by them; --busy-poll on needs this as well";
    let mend = format!("byway tune --interface {name} --busy-poll --apply");
    // Nothing is wrong with interrupts.
    Finding { mend: Some(mend), ..Finding::pass(CHECK, text) }
}

fn numa(sysfs: &Sysfs) -> Option<Finding> {
    const CHECK: &str = "numa";
    let node = sysfs.number("device/numa_node").filter(|&node| node >= 0)?;
    let near = read(format!("/sys/devices/system/node/node{node}/cpulist"));
    (!near.is_empty())
        .then(|| Finding::pass(CHECK, format!("the NIC is at node {node}: give --cores of {near}")))
}

#[cfg(test)]
mod tests {
    use byway_datapath::link::Link;
    use byway_datapath::nic::{Channels, Offload, Rings};
    use byway_tcp::wire::MacAddr;

    use super::super::Verdict;
    use super::*;

    fn nic(driver: &str) -> Nic {
        let link = Link {
            name: "eth1".into(),
            index: 3,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            rx_queues: 2,
            tx_queues: 2,
            up: true,
            running: true,
            driver: driver.into(),
            rss: None,
        };
        let mut nic = Nic::of(link);
        nic.channels = Some(Channels { combined: 2, combined_max: 8, ..Channels::default() });
        nic.rings = Some(Rings { rx: 2048, rx_max: 4096, tx: 2048, tx_max: 4096 });
        nic.indirection = vec![0, 1, 0, 1];
        nic
    }

    fn switch_on(nic: &mut Nic, offload: &str) {
        nic.offloads.insert(offload.to_owned(), Offload { on: true, fixed: false });
    }

    fn found(nic: &Nic, queues: &[u32], check: &str) -> Finding {
        let all = judge(nic, queues, &Host::look());
        // The worst of that name.
        let of_name = all.into_iter().filter(|finding| finding.check == check);
        of_name.max_by_key(|finding| finding.verdict as u8).unwrap_or_else(|| panic!("no {check}"))
    }

    /// Each row: what is spoilt, which queues are to be served, the check that sees it, how badly, how it is mended.
    #[test]
    fn what_is_wrong_is_found_and_mended() {
        type Spoil = fn(&mut Nic);
        let rows: [(Spoil, &[u32], &str, Verdict, &str); 10] = [
            (|nic| nic.link.up = false, &[0, 1], "link", Verdict::Fail, "ip link set eth1 up"),
            (|nic| nic.link.running = false, &[0, 1], "link", Verdict::Warn, "ethtool eth1"),
            (|nic| nic.link.mtu = 9000, &[0, 1], "mtu", Verdict::Warn, "mtu 3818"),
            (
                |nic| {
                    nic.link.mtu = 3700;
                    nic.link.driver = "ena".into();
                },
                &[0, 1],
                "mtu",
                Verdict::Fail,
                "mtu 1500",
            ),
            (|nic| switch_on(nic, "rx-lro"), &[0, 1], "offloads", Verdict::Warn, "ethtool -K eth1 lro off"),
            (|nic| switch_on(nic, "rx-vlan-hw-parse"), &[0, 1], "offloads", Verdict::Warn, "rxvlan off"),
            (|_| (), &[0], "rss", Verdict::Fail, "ethtool -X eth1 equal 1"),
            (|nic| nic.indirection = vec![0; 4], &[0, 1], "rss", Verdict::Warn, "equal 2"),
            (
                |nic| {
                    nic.link.tx_queues = 1;
                    nic.channels =
                        Some(Channels { rx: 2, tx: 1, rx_max: 2, tx_max: 2, ..Channels::default() });
                },
                &[0, 1],
                "queues",
                Verdict::Fail,
                "ethtool -L eth1 rx 1 tx 1",
            ),
            (
                |nic| nic.rings = Some(Rings { rx: 256, rx_max: 4096, tx: 256, tx_max: 4096 }),
                &[0, 1],
                "rings",
                Verdict::Warn,
                "-G eth1 rx 2048",
            ),
        ];
        for (spoil, queues, check, verdict, word) in rows {
            let mut nic = nic("i40e");
            spoil(&mut nic);
            let finding = found(&nic, queues, check);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.mend.as_ref().is_some_and(|mend| mend.contains(word)), "{finding:?}");
        }
    }

    #[test]
    fn queues_nobody_serves_are_told() {
        let finding = found(&nic("i40e"), &[0], "queues");
        assert_eq!(
            (finding.verdict, finding.mend.as_deref()),
            (Verdict::Warn, Some("ethtool -L eth1 combined 1"))
        );
        // ENA gives XDP the other half.
        let mut ena = nic("ena");
        ena.channels = Some(Channels { combined: 8, combined_max: 8, ..Channels::default() });
        ena.link.rx_queues = 2;
        assert!(found(&ena, &[0, 1], "queues").mend.expect("advice").contains("combined 4"));
    }

    #[test]
    fn frames_grow_with_the_mtu() {
        let mut nic = nic("i40e");
        assert_eq!(memory_of(&nic, 2), 256 << 20);
        nic.link.mtu = 3000;
        assert_eq!(memory_of(&nic, 2), 512 << 20);
        // igb counts in whole KiB.
        nic.link.mtu = 1500;
        nic.link.driver = "igb".into();
        assert_eq!(memory_of(&nic, 2), 512 << 20);
    }
}
