//! What this process may do (capabilities(7)).

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities(u64);

/// One that byway needs, or may make use of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// To attach an XDP program.
    NetAdmin,
    /// To open an AF_XDP socket.
    NetRaw,
    /// To lock as much memory as there is.
    IpcLock,
    /// To load a program.
    Bpf,
    /// To load one that moves a packet pointer by what a header says, as the verifier has it.
    Perfmon,
}

impl Capability {
    /// What it takes to load and attach the program.
    pub const STEERING: [Self; 3] = [Self::NetAdmin, Self::Bpf, Self::Perfmon];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
        }
    }

    /// Its bits in linux/capability.h. CAP_SYS_ADMIN stands for the last two, as it did before Linux 5.8.
    fn bits(self) -> u64 {
        const SYS_ADMIN: u64 = 1 << 21;
        match self {
            Self::NetAdmin => 1 << 12,
            Self::NetRaw => 1 << 13,
            Self::IpcLock => 1 << 14,
            Self::Bpf => 1 << 39 | SYS_ADMIN,
            Self::Perfmon => 1 << 38 | SYS_ADMIN,
        }
    }
}

impl Capabilities {
    /// All there are.
    pub const ALL: Self = Self(u64::MAX);

    /// What this process may do now; nothing, if /proc doesn't tell.
    pub fn effective() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    /// Whether `capability` is among them, or what stands for it.
    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability.bits() != 0
    }

    /// The names of those of `wanted` that aren't.
    pub fn missing(self, wanted: &[Capability]) -> Vec<&'static str> {
        wanted
            .iter()
            .filter(|&&capability| !self.has(capability))
            .map(|capability| capability.name())
            .collect()
    }

    /// These but `capability`, and what stands for it.
    pub fn without(self, capability: Capability) -> Self {
        Self(self.0 & !capability.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert!(Capabilities::ALL.missing(&Capability::STEERING).is_empty());
        let few = Capabilities::ALL.without(Capability::Perfmon);
        // CAP_SYS_ADMIN has gone, too, and CAP_BPF is there by itself.
        assert_eq!(few.missing(&Capability::STEERING), ["CAP_PERFMON"]);
        assert!(few.has(Capability::NetRaw));
    }
}
