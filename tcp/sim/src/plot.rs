//! One sender over time as a picture: cwnd, ssthresh, what is in flight, round-trip time, and the phase. S7.3
//!
//! The windows are the stack's own ([`ConnInfo`]); what is in flight and what is sent
//! again is seen from outside, in the frames.

use std::fmt::Write;

use byway_tcp::app::ConnId;
use byway_tcp::stack::ConnInfo;
use byway_tcp::tcb::congestion::Phase;
use byway_tcp::time::Instant;

use crate::headers::{SYN, Segment};
use crate::host::Host;
use crate::scenario::PORTS;
use crate::world::Observer;

/// What a sender is doing, as the picture colours it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Band {
    /// cwnd below ssthresh, or BBR's Startup.
    SlowStart,
    /// cwnd at ssthresh or above, or what BBR does later.
    Avoidance,
    /// Congestion was signalled without loss (ECN).
    Reduced,
    /// Lost segments are sent again.
    FastRecovery,
    /// The retransmission timer has expired.
    Loss,
}

impl Band {
    /// All, with the name and the colour of each.
    pub const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::SlowStart, "slow start", "#d9efd9"),
        (Self::Avoidance, "congestion avoidance", "#dde8f6"),
        (Self::Reduced, "window reduced (ECN)", "#e9def4"),
        (Self::FastRecovery, "fast recovery", "#fdeccb"),
        (Self::Loss, "loss (timeout)", "#f9d6d5"),
    ];

    fn of(info: &ConnInfo) -> Self {
        match info.phase {
            Phase::Loss => Self::Loss,
            Phase::FastRecovery => Self::FastRecovery,
            Phase::Cwr => Self::Reduced,
            // BBR has no ssthresh: only its Startup is what the others call slow start.
            Phase::Open if info.mode == "Startup" || info.mode.ends_with("slow start") => Self::SlowStart,
            Phase::Open => Self::Avoidance,
        }
    }

    fn colour(self) -> &'static str {
        Self::ALL.iter().find(|(band, ..)| *band == self).map_or("#ffffff", |(.., colour)| colour)
    }
}

/// The sender at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// Seconds since the connection began.
    pub at: f64,
    /// Congestion window, octets.
    pub cwnd: f64,
    /// Slow-start threshold, octets; nothing while there is none.
    pub ssthresh: Option<f64>,
    /// Octets sent and not acknowledged.
    pub flight: f64,
    /// Smoothed round-trip time, milliseconds.
    pub rtt: Option<f64>,
    /// What it is doing.
    pub band: Band,
}

/// Watches one end of one flow.
#[derive(Debug)]
pub struct Probe {
    flow: usize,
    client: bool,
    found: Option<(usize, ConnId, (u16, u16))>,
    began: Instant,
    /// SND.UNA and SND.NXT, as the frames tell.
    una: u32,
    nxt: Option<u32>,
    /// In order of time.
    pub samples: Vec<Sample>,
    /// When a segment was sent again: seconds since the beginning.
    pub retransmissions: Vec<f64>,
}

impl Probe {
    /// Watches the client's or the server's end of `flow`.
    pub fn new(flow: usize, client: bool) -> Self {
        Self {
            flow,
            client,
            found: None,
            began: Instant::ZERO,
            una: 0,
            nxt: None,
            samples: Vec::new(),
            retransmissions: Vec::new(),
        }
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.since(self.began).as_secs_f64()
    }

    fn find(&mut self, at: Instant, index: usize, host: &Host) {
        let mut ends = host.apps.ends.iter();
        let ours = ends.find(|(_, end)| end.plan.flow == self.flow && end.plan.client == self.client);
        let Some((&id, _)) = ours else { return };
        if let Some(info) = show(at, host, id) {
            self.found = Some((index, id, (info.local.port(), info.peer.port())));
            self.began = at;
        }
    }
}

/// What the stack says of a connection.
fn show(at: Instant, host: &Host, id: ConnId) -> Option<ConnInfo> {
    let mut found = None;
    // Listeners come first.
    host.stack.connections(u32::from(PORTS) + id.index, 1, at, &mut |info| {
        found = (info.id == id).then_some(info);
    });
    found
}

impl Observer for Probe {
    fn turned(&mut self, at: Instant, index: usize, host: &Host) {
        if self.found.is_none() {
            self.find(at, index, host);
        }
        let Some((ours, id, _)) = self.found else { return };
        if ours != index {
            return;
        }
        let Some(info) = show(at, host, id) else { return };
        let sample = Sample {
            at: self.seconds(at),
            cwnd: info.cwnd.into(),
            ssthresh: (info.ssthresh < 1 << 30).then_some(info.ssthresh.into()),
            flight: self.nxt.map_or(0, |nxt| nxt.wrapping_sub(self.una)).into(),
            rtt: info.srtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            band: Band::of(&info),
        };
        self.samples.push(sample);
    }

    fn frame(&mut self, at: Instant, host: usize, outbound: bool, frame: &[u8]) {
        let Some((ours, _, (local, remote))) = self.found else { return };
        let Some(segment) = Segment::of(frame) else { return };
        let ports = if outbound { (local, remote) } else { (remote, local) };
        if host != ours || segment.ports != ports {
            return;
        }
        if outbound {
            let end = segment.seq.wrapping_add(segment.len + u32::from(segment.flags & SYN != 0));
            let nxt = *self.nxt.get_or_insert_with(|| {
                self.una = segment.seq;
                segment.seq
            });
            if (end.wrapping_sub(nxt) as i32) > 0 {
                self.nxt = Some(end);
            } else if segment.len > 0 {
                self.retransmissions.push(self.seconds(at));
            }
        } else if let Some(nxt) = self.nxt {
            let (news, limit) = (segment.ack.wrapping_sub(self.una), nxt.wrapping_sub(self.una));
            if news <= limit {
                self.una = segment.ack;
            }
        }
    }
}

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 1170.0;
/// The panels, top and bottom: windows, and round-trip time.
const WINDOWS: (f64, f64) = (110.0, 500.0);
const TIMES: (f64, f64) = (545.0, 690.0);
const HEIGHT: f64 = 745.0;

/// Draws what `probe` saw.
pub fn draw(probe: &Probe, title: &str) -> String {
    let end = probe.samples.last().map_or(1.0, |sample| sample.at).max(1e-6);
    let most = |value: fn(&Sample) -> f64| probe.samples.iter().map(value).fold(0.0, f64::max);
    let window = most(|sample| sample.cwnd.max(sample.flight)).max(1.0) * 1.08;
    let rtt = most(|sample| sample.rtt.unwrap_or(0.0)).max(0.001) * 1.15;
    let mut svg = String::new();
    let mut picture = Picture { svg: &mut svg, end };
    picture.begin(title);
    picture.bands(&probe.samples);
    picture.axes(WINDOWS, window, "octets");
    picture.axes(TIMES, rtt, "RTT, ms");
    picture.times();
    picture.line("flight", &probe.samples, WINDOWS, window, |sample| Some(sample.flight));
    picture.line("ssthresh", &probe.samples, WINDOWS, window, |sample| {
        sample.ssthresh.filter(|&ssthresh| ssthresh <= window)
    });
    picture.line("cwnd", &probe.samples, WINDOWS, window, |sample| Some(sample.cwnd));
    picture.line("rtt", &probe.samples, TIMES, rtt, |sample| sample.rtt);
    picture.marks(&probe.retransmissions);
    svg.push_str("</svg>\n");
    svg
}

struct Picture<'a> {
    svg: &'a mut String,
    end: f64,
}

impl Picture<'_> {
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        self.svg.write_fmt(element).expect("a String takes everything");
        self.svg.push('\n');
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * at / self.end
    }

    fn begin(&mut self, title: &str) {
        self.put(format_args!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="14" fill="#222">
<style>polyline {{ fill: none; stroke-width: 1.8 }} .cwnd {{ stroke: #1756a9 }} .ssthresh {{ stroke: #b3261e; stroke-dasharray: 7 4 }} .flight {{ stroke: #7a7a7a; stroke-width: 1.1 }} .rtt {{ stroke: #0b7a4b }} .retransmission {{ stroke: #c4141b; stroke-width: 1.4 }} .grid {{ stroke: #00000022 }} .axis {{ stroke: #444 }}</style>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="28" font-size="18">{}</text>"##,
            title.replace('&', "&amp;").replace('<', "&lt;")
        ));
        let lines = [
            ("cwnd", "cwnd", 100.0),
            ("ssthresh", "ssthresh", 120.0),
            ("flight", "in flight", 115.0),
            ("rtt", "smoothed RTT", 150.0),
        ];
        let mut x = LEFT;
        for (class, name, width) in lines {
            self.put(format_args!(
                r#"<polyline class="{class}" points="{x},52 {},52"/><text x="{}" y="57">{name}</text>"#,
                x + 30.0,
                x + 36.0
            ));
            x += width + 20.0;
        }
        self.put(format_args!(
            r#"<line class="retransmission" x1="{x}" x2="{x}" y1="46" y2="58"/><text x="{}" y="57">retransmission</text>"#,
            x + 8.0
        ));
        let mut x = LEFT;
        for (_, name, colour) in Band::ALL {
            self.put(format_args!(
                r##"<rect x="{x}" y="73" width="22" height="14" fill="{colour}" stroke="#00000033"/><text x="{}" y="85">{name}</text>"##,
                x + 28.0
            ));
            x += 60.0 + 8.0 * name.len() as f64;
        }
    }

    /// The background of both panels, as long as each phase lasts.
    fn bands(&mut self, samples: &[Sample]) {
        let mut begin = 0;
        for at in 1..=samples.len() {
            let over = samples.get(at).is_none_or(|sample| sample.band != samples[begin].band);
            if !over {
                continue;
            }
            let until = samples.get(at).map_or(self.end, |sample| sample.at);
            let (from, to) = (self.x(samples[begin].at), self.x(until));
            for (top, bottom) in [WINDOWS, TIMES] {
                self.put(format_args!(
                    r#"<rect class="band" x="{from:.2}" y="{top}" width="{:.2}" height="{}" fill="{}"/>"#,
                    (to - from).max(0.3),
                    bottom - top,
                    samples[begin].band.colour()
                ));
            }
            begin = at;
        }
    }

    fn axes(&mut self, (top, bottom): (f64, f64), most: f64, unit: &str) {
        let step = round_step(most / 6.0);
        let mut value = 0.0;
        while value <= most {
            let y = bottom - (bottom - top) * value / most;
            self.put(format_args!(
                r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.2}" y2="{y:.2}"/><text x="{}" y="{:.2}" text-anchor="end">{}</text>"#,
                LEFT - 8.0,
                y + 5.0,
                number(value, step)
            ));
            value += step;
        }
        let middle = (top + bottom) / 2.0;
        self.put(format_args!(
            r#"<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">{unit}</text>
<polyline class="axis" points="{LEFT},{top} {LEFT},{bottom} {RIGHT},{bottom}"/>"#
        ));
    }

    fn times(&mut self) {
        let step = round_step(self.end / 10.0);
        let mut at = 0.0;
        while at <= self.end * 1.0001 {
            let x = self.x(at);
            for (top, bottom) in [WINDOWS, TIMES] {
                self.put(format_args!(
                    r#"<line class="grid" x1="{x:.2}" x2="{x:.2}" y1="{top}" y2="{bottom}"/>"#
                ));
            }
            self.put(format_args!(
                r#"<text x="{x:.2}" y="{}" text-anchor="middle">{}</text>"#,
                TIMES.1 + 20.0,
                number(at, step)
            ));
            at += step;
        }
        self.put(format_args!(
            r#"<text x="{}" y="{}" text-anchor="middle">seconds since the connection began</text>"#,
            (LEFT + RIGHT) / 2.0,
            TIMES.1 + 44.0
        ));
    }

    /// A line of steps, with no more points than the picture can show: the least and the most in each half pixel.
    fn line(
        &mut self,
        class: &str,
        samples: &[Sample],
        (top, bottom): (f64, f64),
        most: f64,
        value: impl Fn(&Sample) -> Option<f64>,
    ) {
        let mut points: Vec<(f64, f64)> = Vec::new();
        let mut column: Option<(f64, f64, f64, f64)> = None;
        let mut last: Option<f64> = None;
        for sample in samples {
            let Some(value) = value(sample) else { continue };
            let x = (self.x(sample.at) * 2.0).round() / 2.0;
            let y = bottom - (bottom - top) * value / most;
            match &mut column {
                Some((at, low, high, end)) if *at == x => {
                    (*low, *high, *end) = (low.min(y), high.max(y), y);
                }
                _ => {
                    if let Some((at, low, high, end)) = column {
                        push_column(&mut points, at, low, high, end);
                    }
                    // As it was until now.
                    points.extend(last.map(|last| (x, last)));
                    column = Some((x, y, y, y));
                }
            }
            last = Some(y);
        }
        if let Some((at, low, high, end)) = column {
            push_column(&mut points, at, low, high, end);
        }
        points.extend(last.map(|last| (RIGHT, last)));
        points.dedup();
        let mut text = String::new();
        for (x, y) in points {
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        self.put(format_args!(r#"<polyline class="{class}" points="{}"/>"#, text.trim_end()));
    }

    fn marks(&mut self, times: &[f64]) {
        let mut before = f64::MIN;
        for &at in times {
            let x = (self.x(at) * 2.0).round() / 2.0;
            if x != before {
                let (top, bottom) = (WINDOWS.1 - 12.0, WINDOWS.1);
                self.put(format_args!(
                    r#"<line class="retransmission" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}"/>"#
                ));
            }
            before = x;
        }
    }
}

fn push_column(points: &mut Vec<(f64, f64)>, x: f64, low: f64, high: f64, end: f64) {
    if low == high {
        points.push((x, end));
    } else {
        points.extend([(x, high), (x, low), (x, end)]);
    }
}

/// 1, 2 or 5 times a power of ten, and not less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| step >= least)
        .unwrap_or(power)
}

/// As many digits as the step between two labels needs.
fn number(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).max(0.0) as usize;
    if step >= 1000.0 && value > 0.0 { format!("{}k", value / 1000.0) } else { format!("{value:.digits$}") }
}
