//! `byway load` at the client's end.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, CLIENT, CLIENT_INTERFACE};

const BYWAY: &str = env!("CARGO_BIN_EXE_byway");
/// A gigabyte takes seconds.
const TIMEOUT: &str = "60s";

/// How requests are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: u32,
    /// The client's, from [`CLIENT`] on.
    pub(crate) addresses: u8,
    /// Requests a second; if none is given, each connection's next as soon as it is free.
    pub(crate) rate: Option<u64>,
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What `byway load --json` wrote (deploy/load.schema.json).
    pub(crate) json: Value,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.json["requests_per_second"].as_f64().unwrap_or(f64::NAN)
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.json["bytes_per_second"].as_f64().unwrap_or(f64::NAN)
    }

    /// By the name that the JSON has: p50 and so on.
    pub(crate) fn latency_ns(&self, percentile: &str) -> f64 {
        self.json["latency_ns"][percentile].as_f64().unwrap_or(f64::NAN)
    }

    pub(crate) fn opened(&self) -> u64 {
        self.json["connections_opened"].as_u64().unwrap_or(0)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.json["errors"].as_u64().unwrap_or(0)
    }
}

impl Load {
    /// Drives `url`; leaves JSON, HDR log and plot beside each other as `stem` with their extensions.
    pub(crate) fn run(&self, bed: &Bed, url: &str, stem: &Path) -> Result<Outcome> {
        let mut command = bed.client.command(BYWAY);
        command.args(["load", "--interface", CLIENT_INTERFACE]);
        for address in (u32::from(CLIENT)..).take(self.addresses.into()).map(Ipv4Addr::from) {
            command.args(["--address", &format!("{address}/24")]);
        }
        command.args(["--cores", &bed.client.core.to_string(), "--accept-partial-checksums"]);
        command.args(["--connections", &self.connections.to_string(), "--timeout", TIMEOUT]);
        command.args(["--duration", &format!("{}ms", self.time.as_millis())]);
        if let Some(rate) = self.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        // Not `with_extension`: a stem may have a point in it.
        let file = |extension: &str| format!("{}.{extension}", stem.display());
        for (option, extension) in [("--json", "json"), ("--hdr", "hdr"), ("--plot", "svg")] {
            command.args([option, &file(extension)]);
        }
        let log = bed.scratch.join("load.log");
        command.arg("--control").arg(bed.scratch.join("load.sock")).arg(url);
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let status = bed.client.namespace.spawn(&mut command)?.wait()?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(status.success(), "byway load {url}: {status}: {}", said().trim());
        let text = std::fs::read_to_string(file("json")).with_context(|| file("json"))?;
        Ok(Outcome { json: serde_json::from_str(&text)? })
    }
}
