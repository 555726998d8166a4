//! The host: kernel, privileges, memory, cores.

use std::fs;
use std::path::Path;

use byway_bpf::{Capabilities, Capability};
use byway_datapath::pin;

use super::Finding;

/// A UMEM's huge pages have to be of 2 MiB (`xsk-rs` maps no others).
pub(in crate::cli) const HUGE_PAGE: u64 = 2 << 20;

/// What `byway serve` needs: for AF_XDP's sockets, and for the program.
const NEEDED: [Capability; 4] =
    [Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::Perfmon];

/// What /proc, /sys and a few system calls tell.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Host {
    /// As `uname -r` says.
    pub(in crate::cli) release: String,
    effective: Capabilities,
    /// Whether this is the initial user namespace; CAP_IPC_LOCK of another lifts no limit.
    initial_namespace: bool,
    /// Octets; `None`: unlimited.
    memory_lock: Option<u64>,
    /// Free huge pages, and octets of one.
    pub(in crate::cli) huge_free: u64,
    pub(in crate::cli) huge_total: u64,
    pub(in crate::cli) huge_size: u64,
    /// The chosen word of transparent_hugepage/enabled; empty where there is none.
    transparent: String,
    /// Cores this process may use.
    pub(in crate::cli) cores: Vec<usize>,
    /// Cores that the kernel's scheduler leaves alone.
    isolated: Vec<usize>,
    /// The process id of irqbalance.
    pub(in crate::cli) irqbalance: Option<u32>,
    /// /proc/sys/net/core/bpf_jit_enable.
    jit: Option<u32>,
    /// The first core's frequency governor.
    governor: Option<String>,
    /// Whether the kernel knows AF_XDP sockets.
    af_xdp: bool,
    /// Whether the XDP program loads, and if not, why.
    program: Result<(), String>,
}

impl Host {
    pub(in crate::cli) fn look() -> Self {
        let meminfo = read("/proc/meminfo");
        let field = |name: &str| number_after(&meminfo, name);
        Self {
            release: read("/proc/sys/kernel/osrelease"),
            effective: Capabilities::effective(),
            initial_namespace: read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]),
            memory_lock: memory_lock(),
            huge_free: field("HugePages_Free:"),
            huge_total: field("HugePages_Total:"),
            huge_size: field("Hugepagesize:") << 10,
            transparent: chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
            cores: pin::allowed(),
            isolated: core_list(&read("/sys/devices/system/cpu/isolated")),
            irqbalance: process("irqbalance"),
            jit: read("/proc/sys/net/core/bpf_jit_enable").parse().ok(),
            governor: Some(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
                .filter(|governor| !governor.is_empty()),
            af_xdp: knows_af_xdp(),
            program: byway_bpf::Steering::load().map(drop).map_err(|error| error.to_string()),
        }
    }

    pub(super) fn version(&self) -> (u32, u32) {
        let mut parts = self.release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// How many more huge pages `octets` of frames take. A byway that serves already has those in use, if they are as
    /// many; none where there are none of [`HUGE_PAGE`].
    pub(in crate::cli) fn huge_missing(&self, octets: u64, served: bool) -> u64 {
        let needed = octets.div_ceil(HUGE_PAGE);
        let used = self.huge_total.saturating_sub(self.huge_free);
        if self.huge_size != HUGE_PAGE {
            needed
        } else if served && used >= needed {
            0
        } else {
            needed.saturating_sub(self.huge_free)
        }
    }

    fn missing(&self) -> Vec<&'static str> {
        self.effective.missing(&NEEDED)
    }
}

/// Judges the host for `octets` of frames on `queues` cores; `served`: a byway has its own already.
pub(super) fn judge(host: &Host, octets: u64, queues: usize, served: bool) -> Vec<Finding> {
    let mut findings = vec![kernel(host), capabilities(host), program(host), memory(host, octets)];
    findings.push(huge_pages(host, octets, served));
    findings.extend(transparent(host));
    findings.push(cores(host, queues));
    findings.extend(rest(host));
    findings
}

fn kernel(host: &Host) -> Finding {
    const CHECK: &str = "kernel";
    let release = &host.release;
    if !host.af_xdp {
        return Finding::fail(
            CHECK,
            format!("Linux {release} has no AF_XDP sockets"),
            "take a kernel with CONFIG_XDP_SOCKETS=y (Debian's and Ubuntu's have it), or `byway serve --backend kernel`",
        );
    }
    match host.version() {
        // bpf_link for XDP, by which nothing stays attached when byway dies.
        version if version < (5, 9) => Finding::fail(
            CHECK,
            format!("Linux {release}: byway holds its XDP program by a bpf_link, which 5.9 brought"),
            "apt install linux-image-amd64, and reboot",
        ),
        version if version < (6, 3) => Finding::warn(
            CHECK,
            format!("Linux {release} serves, but doesn't tell what drivers can (netdev netlink, 6.3)"),
            "apt install -t bookworm-backports linux-image-amd64, and reboot",
        ),
        _ => Finding::pass(CHECK, format!("Linux {release}: AF_XDP, bpf_link, netdev netlink")),
    }
}

fn capabilities(host: &Host) -> Finding {
    const CHECK: &str = "capabilities";
    match host.missing().as_slice() {
        [] => Finding::pass(CHECK, NEEDED.map(Capability::name).join(", ")),
        missing => Finding::fail(
            CHECK,
            format!("this process lacks {}", missing.join(", ")),
            "run as root (sudo), or `setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep BYWAY`",
        ),
    }
}

fn program(host: &Host) -> Finding {
    const CHECK: &str = "xdp-program";
    match &host.program {
        Ok(()) => Finding::pass(CHECK, "the kernel's verifier accepts byway's XDP program"),
        Err(why) if !host.missing().is_empty() => {
            Finding::warn(CHECK, format!("not tried: {why}"), "sudo byway doctor")
        }
        Err(why) => Finding::fail(CHECK, why.clone(), "dmesg | tail"),
    }
}

fn memory(host: &Host, octets: u64) -> Finding {
    const CHECK: &str = "memory-lock";
    let needed = mib(octets);
    if host.initial_namespace && host.effective.has(Capability::IpcLock) {
        return Finding::pass(CHECK, format!("CAP_IPC_LOCK: no limit for {needed} MiB of frames"));
    }
    match host.memory_lock {
        Some(limit) if limit < octets => Finding::fail(
            CHECK,
            format!("{} MiB may be locked, {needed} MiB of frames have to be", limit >> 20),
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity), or grant CAP_IPC_LOCK",
        ),
        Some(limit) => Finding::pass(CHECK, format!("{} MiB, and {needed} are needed", limit >> 20)),
        None => Finding::pass(CHECK, format!("unlimited, and {needed} MiB are needed")),
    }
}

fn huge_pages(host: &Host, octets: u64, served: bool) -> Finding {
    const CHECK: &str = "huge-pages";
    let (needed, free) = (octets.div_ceil(HUGE_PAGE), host.huge_free);
    match host.huge_missing(octets, served) {
        0 if free < needed => {
            Finding::pass(CHECK, format!("{needed} of 2 MiB needed, and as many are in use"))
        }
        0 => Finding::pass(CHECK, format!("{free} free of 2 MiB, {needed} needed")),
        missing => Finding::warn(
            CHECK,
            format!(
                "{} free, frames would take {needed}: on small pages the NIC and the core miss the TLB more",
                needed - missing
            ),
            match host.huge_size {
                HUGE_PAGE => format!("sysctl -w vm.nr_hugepages={}", host.huge_total + missing),
                _ => "boot with default_hugepagesz=2M".to_owned(),
            },
        ),
    }
}

/// The stack's tables ask for them with madvise.
fn transparent(host: &Host) -> Option<Finding> {
    const CHECK: &str = "transparent";
    match host.transparent.as_str() {
        "" => None,
        "never" => Some(Finding::warn(
            CHECK,
            "transparent huge pages are off: with a million connections a segment takes a seventh longer",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )),
        word => Some(Finding::pass(CHECK, format!("transparent huge pages: {word}"))),
    }
}

fn cores(host: &Host, queues: usize) -> Finding {
    const CHECK: &str = "cores";
    let cores = host.cores.len();
    if cores < queues {
        return Finding::fail(
            CHECK,
            format!("{queues} queues need a core each, and this process may use {cores}"),
            format!("byway serve --queues {}", listed(0..cores)),
        );
    }
    let quiet: Vec<_> = host.cores.iter().filter(|core| host.isolated.contains(core)).collect();
    if quiet.len() >= queues {
        return Finding::pass(
            CHECK,
            format!("{queues} of the isolated {quiet:?} needed: give them to --cores"),
        );
    }
    if cores == queues {
        return Finding::warn(
            CHECK,
            format!("all {cores} cores would be byway's: what else runs here makes its connections wait"),
            format!("byway serve --queues with fewer than {queues}, or a host with more cores"),
        );
    }
    // The last ones: interrupts and whoever doesn't choose are on the first.
    let chosen = listed(host.cores[cores - queues..].iter().copied());
    Finding::warn(
        CHECK,
        format!("none of the {cores} cores is kept free for byway: others' time slices show in the tail"),
        format!(
            "boot with isolcpus={chosen} nohz_full={chosen} rcu_nocbs={chosen}, and byway serve --cores {chosen}"
        ),
    )
}

/// What only matters where it is there.
fn rest(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(pid) = host.irqbalance {
        findings.push(Finding::warn(
            "irqbalance",
            format!("irqbalance (pid {pid}) moves the NIC's interrupts between cores"),
            "systemctl disable --now irqbalance, and byway tune --interface IF --apply",
        ));
    }
    if host.jit == Some(0) {
        findings.push(Finding::warn(
            "bpf-jit",
            "the XDP program is interpreted, several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ));
    }
    if let Some(governor @ ("powersave" | "ondemand" | "conservative")) = host.governor.as_deref() {
        findings.push(Finding::warn(
            "cpu-frequency",
            format!("governor {governor}: a core that has slept is slow at first"),
            "cpupower frequency-set -g performance",
        ));
    }
    findings
}

/// As `--queues` and `--cores` take them.
fn listed(numbers: impl Iterator<Item = usize>) -> String {
    numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

fn mib(octets: u64) -> u64 {
    octets.div_ceil(1 << 20)
}

/// A file's text, trimmed; empty if it can't be read.
pub(in crate::cli) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// `always [madvise] never` → `madvise`.
fn chosen(text: &str) -> String {
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(word, _)| word.to_owned())
        .unwrap_or_default()
}

/// `0,2-4` → 0, 2, 3, 4.
fn core_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// The lowest process id of a process of that name.
fn process(name: &str) -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| read(format!("/proc/{pid}/comm")) == name).min()
}

/// RLIMIT_MEMLOCK, the soft limit.
fn memory_lock() -> Option<u64> {
    let limits = read("/proc/self/limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    // "unlimited" is no number.
    line.split_whitespace().next()?.parse().ok()
}

/// Any refusal but "no such family" comes from a kernel that has it.
fn knows_af_xdp() -> bool {
    let line = read("/proc/net/protocols");
    line.is_empty() || line.lines().any(|line| line.starts_with("XDP "))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    /// A host on which everything is as byway would like it.
    fn good() -> Host {
        Host {
            release: "6.18.44-amd64".into(),
            effective: Capabilities::ALL,
            initial_namespace: true,
            memory_lock: None,
            huge_free: 128,
            huge_total: 128,
            huge_size: 2 << 20,
            transparent: "madvise".into(),
            cores: (0..8).collect(),
            isolated: vec![6, 7],
            irqbalance: None,
            jit: Some(1),
            governor: Some("performance".into()),
            af_xdp: true,
            program: Ok(()),
        }
    }

    fn found(host: &Host, check: &str) -> Finding {
        let all = judge(host, 256 << 20, 2, false);
        all.into_iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("no {check}"))
    }

    #[test]
    fn a_good_host_passes_everything() {
        let findings = judge(&good(), 256 << 20, 2, false);
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Pass), "{findings:#?}");
    }

    /// Each row: one thing spoilt, the check that sees it, how badly, and a word of its mending.
    #[test]
    fn what_is_wrong_is_found_and_mended() {
        type Spoil = fn(&mut Host);
        let rows: [(Spoil, &str, Verdict, &str); 13] = [
            (|host| host.af_xdp = false, "kernel", Verdict::Fail, "--backend kernel"),
            (|host| host.release = "5.4.0".into(), "kernel", Verdict::Fail, "linux-image"),
            (|host| host.release = "6.1.0-37".into(), "kernel", Verdict::Warn, "backports"),
            (
                |host| host.effective = host.effective.without(Capability::Bpf),
                "capabilities",
                Verdict::Fail,
                "setcap",
            ),
            (|host| host.program = Err("refused".into()), "xdp-program", Verdict::Fail, "dmesg"),
            (
                |host| {
                    host.effective = host.effective.without(Capability::IpcLock);
                    host.memory_lock = Some(8 << 20);
                },
                "memory-lock",
                Verdict::Fail,
                "ulimit -l unlimited",
            ),
            (
                |host| (host.huge_free, host.huge_total) = (28, 30),
                "huge-pages",
                Verdict::Warn,
                "nr_hugepages=130",
            ),
            (|host| host.transparent = "never".into(), "transparent", Verdict::Warn, "echo madvise"),
            (|host| host.isolated.clear(), "cores", Verdict::Warn, "isolcpus=6,7"),
            (|host| host.cores = vec![0], "cores", Verdict::Fail, "--queues 0"),
            (|host| host.irqbalance = Some(7), "irqbalance", Verdict::Warn, "systemctl disable"),
            (|host| host.jit = Some(0), "bpf-jit", Verdict::Warn, "bpf_jit_enable=1"),
            (|host| host.governor = Some("powersave".into()), "cpu-frequency", Verdict::Warn, "performance"),
        ];
        for (spoil, check, verdict, word) in rows {
            let mut host = good();
            spoil(&mut host);
            let finding = found(&host, check);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.mend.as_ref().is_some_and(|mend| mend.contains(word)), "{finding:?}");
        }
    }

    /// CAP_IPC_LOCK of another user namespace lifts no limit.
    #[test]
    fn a_containers_ipc_lock_does_not_count() {
        let mut host = good();
        host.initial_namespace = false;
        host.memory_lock = Some(8 << 20);
        assert_eq!(found(&host, "memory-lock").verdict, Verdict::Fail);
    }

    /// Those of a byway that runs are in use, and no reason to reserve as many again.
    #[test]
    fn huge_pages_of_a_running_byway_count() {
        let mut host = good();
        host.huge_free = 0;
        let verdict = |host: &Host, served| huge_pages(host, 256 << 20, served).verdict;
        assert_eq!((verdict(&host, false), verdict(&host, true)), (Verdict::Warn, Verdict::Pass));
        // It began before there were any: they are free, and it has none.
        (host.huge_free, host.huge_total) = (100, 100);
        assert_eq!((host.huge_missing(256 << 20, true), verdict(&host, true)), (28, Verdict::Warn));
        // 100 GiB more would help nobody.
        host.huge_size = 1 << 30;
        assert_eq!(
            huge_pages(&host, 256 << 20, true).mend.as_deref(),
            Some("boot with default_hugepagesz=2M")
        );
    }

    #[test]
    fn fewer_queues_are_named_one_by_one() {
        let mut host = good();
        host.cores = vec![4, 5, 6];
        assert_eq!(cores(&host, 4).mend.as_deref(), Some("byway serve --queues 0,1,2"));
    }

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(core_list("0,2-4"), [0, 2, 3, 4]);
        assert!(core_list("").is_empty());
        assert_eq!(chosen("always [madvise] never"), "madvise");
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let host = Host::look();
        assert!(host.version() > (3, 0), "{}", host.release);
        assert!(!host.cores.is_empty());
    }
}
