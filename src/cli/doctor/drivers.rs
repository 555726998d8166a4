//! What is known of drivers: deploy/nic.md says from where.

use super::{Finding, Host};

/// What a driver is known to want or to do.
pub(super) struct Driver {
    name: &'static str,
    /// The first kernel whose driver has zero-copy.
    zero_copy_since: Option<(u32, u32)>,
    /// The largest MTU for XDP, of drivers whose limit is below what byway's frames hold.
    pub(super) mtu_max: Option<u32>,
    /// Whether XDP takes as many queues again as are in use, so that only half of them may be.
    pub(super) half_the_queues: bool,
    note: Option<(&'static str, &'static str)>,
}

impl Driver {
    const fn named(name: &'static str) -> Self {
        Self { name, zero_copy_since: None, mtu_max: None, half_the_queues: false, note: None }
    }

    const fn zero_copy(mut self, major: u32, minor: u32) -> Self {
        self.zero_copy_since = Some((major, minor));
        self
    }

    const fn mtu(mut self, max: u32) -> Self {
        self.mtu_max = Some(max);
        self
    }

    const fn halved(mut self) -> Self {
        self.half_the_queues = true;
        self
    }

    const fn note(mut self, what: &'static str, mend: &'static str) -> Self {
        self.note = Some((what, mend));
        self
    }
}

const DRIVERS: &[Driver] = &[
    Driver::named("veth").note(
        "a virtual pair, in copy mode only: right for tests and development, no measure of a NIC",
        "take a NIC with native XDP (deploy/nic.md)",
    ),
    Driver::named("virtio_net").zero_copy(6, 11).note(
        "XDP wants the host not to offload segmentation to the guest",
        "on the host, for QEMU: disable-legacy=on,iommu_platform=on (or zero-copy is EINVAL),guest_tso4=off,\
         guest_tso6=off,guest_ecn=off,guest_ufo=off,mq=on",
    ),
    Driver::named("igb").zero_copy(6, 14),
    Driver::named("igc").zero_copy(5, 14),
    Driver::named("i40e").zero_copy(4, 20),
    Driver::named("ixgbe").zero_copy(4, 20).note(
        "attaching makes it train its link again: up to 30 s without carrier, which byway waits for",
        "have the switch port in portfast, and clients that wait",
    ),
    Driver::named("ice").zero_copy(5, 5),
    Driver::named("mlx5_core").zero_copy(5, 3).mtu(3498),
    Driver::named("ena").mtu(3498).halved(),
    Driver::named("stmmac").zero_copy(5, 13),
    Driver::named("gve").zero_copy(6, 4),
];

pub(super) fn find(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

/// Out-of-tree versions of ice in which closing sockets under load lost the host.
const ICE_BAD: [(u32, u32, u32); 2] = [(2, 2, 8), (2, 5, 4)];

/// Warnings that depend on the driver and its version alone.
pub(super) fn judge(name: &str, version: &str, host: &Host) -> Finding {
    const CHECK: &str = "driver";
    if name.is_empty() {
        return Finding::warn(
            CHECK,
            "the driver doesn't say its name: byway knows nothing of it",
            "ethtool -i IF",
        );
    }
    // In-tree drivers say the kernel's release, or nothing.
    let own_version = !version.is_empty() && version != host.release;
    let shown = if own_version { format!("{name} {version}") } else { name.to_owned() };
    if name == "ice" && own_version {
        let numbers = triple(version);
        if ICE_BAD[0] <= numbers && numbers <= ICE_BAD[1] {
            return Finding::fail(
                CHECK,
                format!(
                    "{shown}: with versions 2.2.8 to 2.5.4 closing AF_XDP sockets under load lost the host"
                ),
                "take the kernel's own ice (6.12 or newer): dkms remove ice, and reboot",
            );
        }
    }
    let Some(driver) = find(name) else {
        return Finding::warn(
            CHECK,
            format!("{shown}: not known to byway, which asks it for everything and expects nothing"),
            "byway serve says what it gave; tell us",
        );
    };
    match driver.note {
        Some((what, mend)) => Finding::warn(CHECK, format!("{shown}: {what}"), mend),
        None => Finding::pass(CHECK, shown),
    }
}

/// The kernel that has zero-copy for this driver, if this one is too old.
pub(super) fn zero_copy_later(name: &str, host: &Host) -> Option<(u32, u32)> {
    find(name)?.zero_copy_since.filter(|since| host.version() < *since)
}

fn triple(version: &str) -> (u32, u32, u32) {
    let mut parts = version.split(['.', '-', '_']).map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn versions_that_lost_hosts_are_refused_and_the_kernels_own_is_not() {
        let host = Host::look();
        let verdict = |version: &str| judge("ice", version, &host).verdict;
        assert_eq!(verdict("2.3.6"), Verdict::Fail);
        assert_eq!(verdict("2.5.4"), Verdict::Fail);
        assert_eq!(verdict("2.6.0"), Verdict::Pass);
        assert_eq!(verdict(&host.release), Verdict::Pass);
    }

    #[test]
    fn a_driver_nobody_knows_is_said_so() {
        let host = Host::look();
        assert_eq!(judge("nosuch", "", &host).verdict, Verdict::Warn);
        assert_eq!(judge("", "", &host).verdict, Verdict::Warn);
        assert!(find("ena").is_some_and(|ena| ena.half_the_queues && ena.mtu_max == Some(3498)));
    }
}
