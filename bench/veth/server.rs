//! Who is measured, as processes at the server's end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bed::{BYPASS, Bed, KERNEL, SERVER_INTERFACE};

const BYWAY: &str = env!("CARGO_BIN_EXE_byway");
/// The port that echoes raw TCP.
pub(crate) const ECHO_PORT: u16 = 7;
/// nginx is there within 5 s, or never.
const TRIES: u32 = 100;
const TRY_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Server {
    /// `byway serve`.
    Byway,
    /// `byway serve --backend kernel`: byway's application on the kernel's sockets.
    BywayOnKernel,
    /// One worker, which logs nothing.
    Nginx,
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Byway => "byway",
            Self::BywayOnKernel => "byway on kernel sockets",
            Self::Nginx => "nginx",
        }
    }

    pub(crate) fn is_on_kernel(self) -> bool {
        self != Self::Byway
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        if self.is_on_kernel() { KERNEL } else { BYPASS }
    }

    /// Whether it can be measured here; if not, why. What it says of itself.
    pub(crate) fn try_out(self, bed: &Bed) -> Result<String> {
        match self {
            Self::Byway | Self::BywayOnKernel => Ok(self.start(bed)?.ready.clone()),
            Self::Nginx => {
                let output = Command::new("nginx").arg("-v").output();
                let output = output.context("nginx is missing: deploy/install-deps.sh bench")?;
                Ok(String::from_utf8_lossy(&output.stderr).trim().replace("nginx version: ", ""))
            }
        }
    }

    pub(crate) fn start(self, bed: &Bed) -> Result<Running> {
        if self == Self::Nginx { start_nginx(bed) } else { self.start_with(bed, &[]) }
    }

    /// A byway, with further options.
    pub(crate) fn start_with(self, bed: &Bed, options: &[&str]) -> Result<Running> {
        let mut command = bed.server.command(BYWAY);
        command.args(["serve", "--interface", SERVER_INTERFACE]);
        if self == Self::BywayOnKernel {
            command.args(["--backend", "kernel"]);
        }
        command.args(["--address", &format!("{}/24", self.address())]);
        command.args(["--cores", &bed.server.core.to_string(), "--echo-port", &ECHO_PORT.to_string()]);
        command.args(options);
        let control = bed.scratch.join("serve.sock");
        // Nothing of a byway that was killed stays, but its socket.
        let _ = std::fs::remove_file(&control);
        command.arg("--control").arg(control);
        let log = bed.scratch.join("serve.log");
        command.stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = bed.server.namespace.spawn(&mut command)?;
        let stdout = child.stdout.take();
        let mut running = Running { child, ready: String::new() };
        BufReader::new(stdout.context("piped")?).read_line(&mut running.ready)?;
        running.ready.truncate(running.ready.trim_end().len());
        let said = std::fs::read_to_string(&log)?;
        ensure!(running.ready.starts_with("byway ready"), "{}", said.lines().next().unwrap_or("no word"));
        Ok(running)
    }
}

fn start_nginx(bed: &Bed) -> Result<Running> {
    let path = |name: &str| bed.scratch.join(name);
    let (pid, log, configuration) = (path("nginx.pid"), path("nginx.log"), path("nginx.conf"));
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {}; error_log {};
         events {{ worker_connections 1024; }}
         http {{
             access_log off;
             keepalive_requests 1000000000;
             server {{
                 listen {KERNEL}:80 reuseport;
                 location = /hello {{ default_type text/plain; return 200 \"hello\\n\"; }}
             }}
         }}\n",
        pid.display(),
        log.display(),
    );
    std::fs::write(&configuration, text)?;
    let mut command = bed.server.command("nginx");
    command.arg("-c").arg(&configuration).arg("-e").arg(&log).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running { child: bed.server.namespace.spawn(&mut command)?, ready: String::new() };
    for _ in 0..TRIES {
        if bed.server.namespace.enter(|| TcpStream::connect((KERNEL, 80))).is_ok() {
            return Ok(running);
        }
        thread::sleep(TRY_EVERY);
    }
    bail!("nginx doesn't answer: {}", std::fs::read_to_string(&log).unwrap_or_default())
}

/// A server, killed with its handle.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    ready: String,
}

impl Running {
    /// Octets that it has of memory, by one of the names in /proc/PID/status that have "kB" behind their number.
    pub(crate) fn memory(&self, name: &str) -> Result<u64> {
        // taskset becomes what it starts.
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {name} in {path}"))? * 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
