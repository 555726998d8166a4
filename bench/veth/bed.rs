//! Two namespaces joined by a veth pair, and a core for each.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use byway_datapath::pin;
use byway_lab::{BYWAY_IPV4, KERNEL_IPV4, Namespace, VethEnd, VethOptions, veth_pair};

pub(crate) const SERVER_INTERFACE: &str = "server0";
pub(crate) const CLIENT_INTERFACE: &str = "client0";
/// Of what bypasses the kernel: byway, or the bare reflector.
pub(crate) const BYPASS: Ipv4Addr = BYWAY_IPV4;
/// Of what goes through the server's kernel: nginx, or byway with the kernel's sockets.
pub(crate) const KERNEL: Ipv4Addr = KERNEL_IPV4;
/// Of byway's load generator, or the bare blaster.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// An end of the pair.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) namespace: Namespace,
    pub(crate) core: usize,
}

impl End {
    /// Makes the calling thread this end's for good.
    pub(crate) fn join(&self) -> Result<()> {
        self.namespace.join()?;
        Ok(pin::pin(self.core)?)
    }

    /// `program` as it runs at this end: on its core alone.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &self.core.to_string(), program]).stdin(Stdio::null());
        command
    }
}

/// This process, and what it starts, ahead of what else the host does. A window of frames stands still for as long as
/// one of its ends doesn't run: with a compiler beside it, a tenth of the rate, and a tail that is the scheduler's.
#[derive(Debug)]
struct Favour {
    /// The session's place among the host's sessions before; most kernels weigh these first (sched(7), autogroup).
    session: Option<String>,
}

const AUTOGROUP: &str = "/proc/self/autogroup";

impl Favour {
    /// To be called before there are other threads: they inherit it.
    fn take() -> Self {
        // SAFETY: takes three numbers. That it fails is no more than a noisier result.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
        // "/autogroup-104 nice 0"
        let session = std::fs::read_to_string(AUTOGROUP).ok();
        let session = session.and_then(|text| Some(text.trim().rsplit(' ').next()?.to_owned()));
        let session = session.filter(|_| std::fs::write(AUTOGROUP, "-20").is_ok());
        Self { session }
    }
}

impl Drop for Favour {
    fn drop(&mut self) {
        if let Some(before) = &self.session {
            let _ = std::fs::write(AUTOGROUP, before);
        }
    }
}

/// Where everything is measured. What is in the namespaces goes with them, however this process ends.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) server: End,
    pub(crate) client: End,
    /// For sockets and configuration files.
    pub(crate) scratch: PathBuf,
    stop: Arc<AtomicBool>,
    _favour: Favour,
}

impl Bed {
    pub(crate) fn new(cores: [usize; 2]) -> Result<Self> {
        let favour = Favour::take();
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let [server, client] = cores;
        let scratch = std::env::temp_dir().join(format!("byway-bench-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
        let bed = Self {
            server: End { namespace: Namespace::new()?, core: server },
            client: End { namespace: Namespace::new()?, core: client },
            scratch,
            stop,
            _favour: favour,
        };
        // Offloads as they are by default: the kernel's TCP leaves its checksums to the "NIC", as it does on real
        // ones. byway computes and checks all of its own.
        veth_pair(
            VethEnd { namespace: &bed.server.namespace, name: SERVER_INTERFACE },
            VethEnd { namespace: &bed.client.namespace, name: CLIENT_INTERFACE },
            VethOptions { offloads: true, ..VethOptions::default() },
        )?;
        bed.server.namespace.run(&format!("ip addr add {KERNEL}/24 dev {SERVER_INTERFACE}"))?;
        Ok(bed)
    }

    /// Lets the server's kernel receive on the server's core, or (veth's way) on that of whoever sends: the client's.
    pub(crate) fn receive_at_home(&self, home: bool) -> Result<()> {
        // The namespace's own /sys, which only this shell sees.
        let mask = if home { 1u64.checked_shl(self.server.core as u32).unwrap_or(0) } else { 0 };
        let rps = format!("/sys/class/net/{SERVER_INTERFACE}/queues/rx-0/rps_cpus");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("mount -t sysfs sysfs /sys && echo {mask:x} > {rps}")]);
        let status = self.server.namespace.spawn(command.stdin(Stdio::null()))?.wait()?;
        ensure!(status.success(), "receive packet steering can't be set");
        Ok(())
    }

    /// To be asked before whatever takes long: a signal ends the bench in order, that is with what it started.
    pub(crate) fn go_on(&self) -> Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}
