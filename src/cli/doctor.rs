//! `byway doctor`: what this host, kernel, driver and set-up really give, each finding with the command that mends it.
//!
//! ```text
//!   host.rs: Host::look ────┐
//!   datapath: Nic::query ───┼─→ judgements, without I/O ─→ Finding … ─→ text or JSON
//!   a running byway's stats ┘
//! ```

mod drivers;
mod host;
mod interface;
mod running;

use std::io::{self, Write};
use std::path::PathBuf;

use byway_datapath::nic::{self, Nic};
use clap::Args;
use serde::Serialize;

use super::control::Target;
use super::failure::Failure;
use super::{counted, options};

pub(super) use host::{HUGE_PAGE, Host, read};
pub(super) use interface::{Sysfs, halved_queues, memory_of, offloads_in_the_way, ring_wanted};

/// Options of `byway doctor`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Interface that byway is to serve on [default: the host, and which interfaces there are]
    #[arg(long, value_name = "IF", value_parser = options::interface)]
    interface: Option<String>,

    /// Queues that byway is to serve, one core each
    #[arg(long, value_name = "all|0,1,…", default_value = "all")]
    queues: options::Queues,

    /// One JSON object
    #[arg(long)]
    json: bool,

    /// Control socket of a byway that runs there [default: /run/byway/IF.sock]
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
}

/// What one look came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verdict {
    Pass,
    /// byway serves, but slower or with less than it could.
    Warn,
    /// byway can't serve, or not as it should.
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One look at the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    /// What was looked at: a word that scripts may know it by.
    check: &'static str,
    verdict: Verdict,
    /// What is, and why that matters.
    reason: String,
    /// The command that mends it, if a command does.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn pass(check: &'static str, reason: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Pass, reason: reason.into(), mend: None }
    }

    fn warn(check: &'static str, reason: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, reason: reason.into(), mend: Some(mend.into()) }
    }

    fn fail(check: &'static str, reason: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, reason: reason.into(), mend: Some(mend.into()) }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}  {:<15} {}", self.verdict.name(), self.check, self.reason)?;
        match &self.mend {
            Some(mend) => writeln!(out, "      {:<15} → {mend}", ""),
            None => Ok(()),
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    /// The kernel's release.
    kernel: String,
    findings: Vec<Finding>,
}

impl Report {
    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    fn write(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            return writeln!(out);
        }
        for finding in &self.findings {
            finding.write(out)?;
        }
        let count = |verdict| self.count(verdict);
        let (pass, warn, fail) = (count(Verdict::Pass), count(Verdict::Warn), count(Verdict::Fail));
        writeln!(out, "{pass} PASS, {warn} WARN, {fail} FAIL")
    }
}

/// Looks at everything, says it, and fails if byway couldn't serve.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let host = Host::look();
    let report = match &options.interface {
        Some(name) => on_interface(options, name, &host)?,
        None => host_alone(&host),
    };
    // That nobody reads it is no reason to fail.
    let _ = report.write(&mut io::stdout().lock(), options.json);
    match report.count(Verdict::Fail) {
        0 => Ok(()),
        fails => Err(Failure::system(format!(
            "{fails} of {} failed: mend what says FAIL above, and look again",
            counted(report.findings.len(), "check")
        ))),
    }
}

/// Whether a byway has its program there.
pub(super) fn is_served(nic: &Nic) -> bool {
    byway_bpf::occupant(nic.link.index as i32).is_some_and(|occupant| occupant.is_ours())
}

fn on_interface(options: &Options, name: &str, host: &Host) -> Result<Report, Failure> {
    let nic = Nic::query(name)?;
    let queues = match &options.queues {
        options::Queues::All => (0..nic.link.rx_queues).collect(),
        options::Queues::These(queues) => queues.clone(),
    };
    nic.link.check_queues(&queues)?;
    let target = match &options.control {
        Some(path) => Target { control: Some(path.clone()), interface: None },
        None => Target { control: None, interface: Some(name.to_owned()) },
    };
    let running = running::ask(&target);
    let mut findings =
        host::judge(host, interface::memory_of(&nic, queues.len()), queues.len(), is_served(&nic));
    findings.extend(interface::judge(&nic, &queues, host));
    findings.extend(interface::ask_kernel(&nic, &queues));
    findings.extend(running::judge(name, running.as_ref()));
    Ok(Report { interface: Some(name.to_owned()), kernel: host.release.clone(), findings })
}

/// Without an interface: the host, and in a line each what could be served on.
fn host_alone(host: &Host) -> Report {
    let one_queue = u64::from(byway_datapath::config::Config::default().frame_count) * 2048;
    // Loopback, tunnels and the like have no frames for byway.
    let nics: Vec<Nic> = nic::interfaces().iter().filter_map(|name| Nic::query(name).ok()).collect();
    let mut findings = host::judge(host, one_queue, 1, nics.iter().any(is_served));
    findings.extend(nics.iter().map(interface::summary));
    if nics.is_empty() {
        findings.push(Finding::fail(
            "interface",
            "there is no Ethernet interface in this network namespace",
            "ip link",
        ));
    }
    Report { interface: None, kernel: host.release.clone(), findings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_to_do_and_counts() {
        let findings = vec![
            Finding::pass("kernel", "Linux 6.18"),
            Finding::warn("huge-pages", "none", "sysctl -w vm.nr_hugepages=64"),
            Finding::fail("memory-lock", "8 MiB", "ulimit -l unlimited"),
        ];
        let report = Report { interface: Some("eth1".into()), kernel: "6.18".into(), findings };
        let mut text = Vec::new();
        report.write(&mut text, false).expect("memory");
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(
            text,
            "PASS  kernel          Linux 6.18\n\
             WARN  huge-pages      none\n                      → sysctl -w vm.nr_hugepages=64\n\
             FAIL  memory-lock     8 MiB\n                      → ulimit -l unlimited\n\
             1 PASS, 1 WARN, 1 FAIL\n"
        );
        let mut json = Vec::new();
        report.write(&mut json, true).expect("memory");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["findings"][2]["verdict"], "FAIL");
        assert_eq!(json["findings"][1]["mend"], "sysctl -w vm.nr_hugepages=64");
        assert!(json["findings"][0].get("mend").is_none());
    }
}
