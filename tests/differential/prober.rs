//! Plays many cases at once against both targets, step by step, and writes down what comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use byway_lab::{BYWAY_INTERFACE, Namespace, Station, VethEnd, VethOptions, veth_pair};

use crate::cases::Case;
use crate::segment::{ACK, Answer, PROBER, PROBER_MAC, RST, SYN, TARGET};
use crate::services::{serve_byway, serve_kernel};
use crate::support::now;

/// How long a step waits for answers: three times a delayed ACK (40 ms on both sides), and short enough that a case
/// is over before the first SYN-ACK is repeated (1 s).
const STEP: Duration = Duration::from_millis(130);
/// Frames sent at once; veth's ring takes 256.
const BURST: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// What both targets said to a case: byway, then the kernel; a text for each step.
pub(crate) type Heard = [Vec<String>; 2];

/// The prober, with both targets served.
pub(crate) struct Prober {
    targets: [Target; 2],
    next_port: u16,
    stop: Arc<AtomicBool>,
    services: Vec<JoinHandle<()>>,
}

/// One of both ends.
struct Target {
    station: Station,
    mac: [u8; 6],
}

/// A case under way with one target.
struct Play<'a> {
    case: &'a Case,
    port: u16,
    /// The target's initial number, once known.
    irs: Option<u32>,
    /// Beyond the highest number that the target has sent, relative.
    reached: i32,
    /// The target's last TSval.
    echo: u32,
    /// In this step.
    heard: Vec<Answer>,
    texts: Vec<Vec<String>>,
}

impl Prober {
    pub(crate) fn new() -> Self {
        let [byway, kernel, prober] = [(); 3].map(|()| Namespace::new().expect("a namespace"));
        let pair = |namespace, name, at| {
            let near = VethEnd { namespace: &prober, name: at };
            veth_pair(VethEnd { namespace, name }, near, VethOptions::default()).expect("a pair");
        };
        pair(&byway, BYWAY_INTERFACE, "probe0");
        pair(&kernel, "peer0", "probe1");
        kernel.run(&format!("ip addr add {TARGET}/24 dev peer0")).expect("address");
        // Both answer a SYN that asks for ECN as they would without: which of them does ECN is not the question.
        kernel.run("sysctl -q net.ipv4.tcp_ecn=0").expect("sysctl");
        // RFC 1337, as byway: a RST doesn't end TIME-WAIT (S2.4).
        kernel.run("sysctl -q net.ipv4.tcp_rfc1337=1").expect("sysctl");

        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let mut services = Vec::new();
        for (namespace, serve) in
            [(byway, serve_byway as fn(&Namespace, Box<dyn FnOnce()>, &AtomicBool)), (kernel, serve_kernel)]
        {
            let (ready, stop) = (ready.clone(), Arc::clone(&stop));
            services.push(thread::spawn(move || {
                serve(&namespace, Box::new(move || ready.send(()).expect("waited for")), &stop);
            }));
        }
        let targets = ["probe0", "probe1"].map(|interface| {
            is_ready.recv_timeout(PATIENCE).expect("both serve");
            Station::open(&prober, interface).expect("a station")
        });
        let targets = targets.map(|station| Target { station, mac: [0xff; 6] });
        let mut prober = Self { targets, next_port: 10_000, stop, services };
        prober.targets.iter_mut().for_each(Target::resolve);
        prober
    }

    /// What each case is answered, many at once the first time, few at later attempts.
    pub(crate) fn run(&mut self, cases: &[&Case], attempt: u32) -> Vec<Heard> {
        let at_once = if attempt == 0 { 250 } else { 25 };
        cases.chunks(at_once).flat_map(|cases| self.run_at_once(cases)).collect()
    }

    fn run_at_once(&mut self, cases: &[&Case]) -> Vec<Heard> {
        let first_port = self.next_port;
        self.next_port += cases.len() as u16;
        let mut plays = [(); 2].map(|()| -> Vec<Play<'_>> {
            cases.iter().zip(first_port..).map(|(case, port)| Play::new(case, port)).collect()
        });
        let steps = cases.iter().map(|case| case.steps.len()).max().unwrap_or(0);
        for step in 0..steps {
            let end = now() + STEP;
            for (target, plays) in self.targets.iter_mut().zip(&mut plays) {
                let mut frames: Vec<_> =
                    plays.iter().flat_map(|play| play.frames(step, target.mac)).collect();
                for burst in frames.chunks_mut(BURST) {
                    assert_eq!(target.station.send(burst), burst.len(), "the target's interface is up");
                    target.hear(plays, Duration::from_millis(1));
                }
            }
            while now() < end {
                for (target, plays) in self.targets.iter_mut().zip(&mut plays) {
                    target.hear(plays, Duration::from_millis(5));
                }
            }
            plays.iter_mut().flatten().for_each(|play| play.end_step(step));
        }
        let [byway, kernel] = plays;
        let texts = |play: Play<'_>| play.texts.into_iter().map(|texts| texts.join(", ")).collect();
        byway.into_iter().zip(kernel).map(|(byway, kernel)| [texts(byway), texts(kernel)]).collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for service in self.services.drain(..) {
            let ended = service.join();
            assert!(ended.is_ok() || thread::panicking(), "a service has panicked");
        }
    }
}

impl Target {
    /// Asks for the target's Ethernet address (RFC 826).
    fn resolve(&mut self) {
        let deadline = now() + PATIENCE;
        while self.mac == [0xff; 6] {
            assert!(now() < deadline, "{TARGET} doesn't answer ARP");
            self.station.send(&mut [arp(1, [0xff; 6])]);
            self.hear(&mut [], Duration::from_millis(50));
        }
    }

    /// Takes what has come in to the cases, and answers ARP.
    fn hear(&mut self, plays: &mut [Play<'_>], timeout: Duration) {
        let first_port = plays.first().map_or(0, |play| play.port);
        let (mut replies, mut mac) = (Vec::new(), self.mac);
        self.station
            .receive(timeout, |frame| {
                if frame.get(12..14) == Some(&[8, 6]) {
                    let sender: [u8; 6] = frame[22..28].try_into().expect("six");
                    match frame[21] {
                        1 if frame[38..42] == PROBER.octets() => replies.push(arp(2, sender)),
                        2 => mac = sender,
                        _ => {}
                    }
                } else if let Some(answer) = Answer::read(&frame) {
                    let place = answer.ports.0.wrapping_sub(first_port);
                    if let Some(play) = plays.get_mut(usize::from(place)) {
                        play.hear(answer);
                    }
                }
            })
            .expect("receives");
        self.mac = mac;
        self.station.send(&mut replies);
    }
}

impl<'a> Play<'a> {
    fn new(case: &'a Case, port: u16) -> Self {
        Self { case, port, irs: None, reached: i32::MIN, echo: 0, heard: Vec::new(), texts: Vec::new() }
    }

    fn frames(&self, step: usize, mac: [u8; 6]) -> Vec<Vec<u8>> {
        let Self { case, port, irs, echo, .. } = self;
        let segments = case.steps.get(step).into_iter().flatten();
        // A case may acknowledge what it doesn't know yet: then by the number itself.
        let irs = irs.unwrap_or(0);
        segments.map(|seg| seg.frame(mac, (*port, case.port), case.iss, irs, *echo)).collect()
    }

    fn hear(&mut self, answer: Answer) {
        self.echo = answer.timestamp.unwrap_or(self.echo);
        self.heard.push(answer);
    }

    /// Puts what has been heard into words.
    fn end_step(&mut self, step: usize) {
        let answers = std::mem::take(&mut self.heard);
        let sent = self.case.steps.get(step).map_or(0, Vec::len);
        let mut told: Vec<(Answer, String)> = Vec::new();
        for answer in answers {
            let flags = answer.flags;
            if flags & (SYN | RST) == SYN && self.irs != Some(answer.seq) {
                (self.irs, self.reached) = (Some(answer.seq), 0);
            } else if self.is_repetition(&answer, sent) {
                continue;
            }
            if let Some(irs) = self.irs
                && flags & RST == 0
            {
                let end = answer.seq.wrapping_add(answer.seq_len()).wrapping_sub(irs) as i32;
                self.reached = self.reached.max(end);
            }
            let text = answer.text(self.case.iss, self.irs);
            told.push((answer, text));
        }
        // RFC 9293 §3.8.6.3, RFC 5681 §4.2: an ACK by itself, before one that says the same, or one ACK for several
        // segments: when and how often is the receiver's choice.
        let redundant = |at: usize| {
            let (answer, _) = &told[at];
            let bare = answer.flags == ACK && answer.len == 0 && answer.sack.is_empty();
            let later = |(other, _): &(Answer, String)| {
                let says_it = other.flags & (ACK | RST | SYN) == ACK && other.ack == answer.ack;
                says_it && other.seq_len() > 0 || sent > 1 && other.flags & (ACK | RST | SYN) == ACK
            };
            bare && told[at + 1..].iter().any(later)
        };
        let texts = (0..told.len()).filter(|&at| !redundant(at)).map(|at| told[at].1.clone());
        // When a timer goes off while nothing is sent is its own affair.
        let paused = |step: usize| self.case.steps.get(step).is_none_or(Vec::is_empty);
        let begins = (0..=step).rev().take_while(|&step| paused(step)).last().unwrap_or(step);
        self.texts.resize(step + 1, Vec::new());
        self.texts[begins].extend(texts);
    }

    /// What a timer has sent again. When it does depends on the round-trip time measured, so it isn't compared,
    /// but where a case asks for it. A SYN-ACK again is an answer, unless nothing was asked.
    fn is_repetition(&self, answer: &Answer, sent: usize) -> bool {
        let Some(irs) = self.irs else { return false };
        let end = answer.seq.wrapping_add(answer.seq_len()).wrapping_sub(irs) as i32;
        let again = answer.seq_len() > 0 && answer.flags & RST == 0 && end <= self.reached;
        again && !self.case.repetitions && (answer.flags & SYN == 0 || sent == 0)
    }
}

/// An ARP packet of the prober's about the target's address (RFC 826): 1 asks, 2 answers.
fn arp(operation: u8, to: [u8; 6]) -> Vec<u8> {
    let head = [&to[..], &PROBER_MAC[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation][..]].concat();
    let mut frame =
        [&head[..], &PROBER_MAC[..], &PROBER.octets()[..], &to[..], &TARGET.octets()[..]].concat();
    frame.resize(60, 0);
    frame
}
