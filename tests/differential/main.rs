//! The same raw segments to byway and to the kernel's TCP, and their answers compared.
//!
//! ```text
//!   ┌ byway ─────────────┐          ┌ prober ───────────────┐          ┌ kernel ────────────┐
//!   │ Stack, same ports  │── veth ──│ segments from a table │── veth ──│ sockets, same ports│
//!   │ 192.0.2.1          │          │ 192.0.2.9, no stack   │          │ 192.0.2.1          │
//!   └────────────────────┘          └───────────────────────┘          └────────────────────┘
//! ```
//!
//! Both ends have the same address and run the same services, so that they are told the same octets. What they
//! answer is compared by flags, numbers relative to the initial ones, length, whether the window is open, and
//! options. Differences have to be on the list in `allowed.rs`, with the reason, and what is on the list has to
//! occur.

#[path = "../support/mod.rs"]
mod support;

mod allowed;
mod cases;
mod prober;
mod segment;
mod services;

use byway_lab::is_root;

use allowed::Allowed;
use cases::Case;
use prober::Prober;

/// How often a case may be tried before it counts as different: a machine that is held up at the wrong moment lets
/// a delayed ACK cover what it didn't the last time.
const ATTEMPTS: u32 = 3;

/// Runs the cases against both, and fails on differences that aren't on the list.
fn compare(cases: &[Case], allowed: &[Allowed]) {
    if !is_root() {
        return;
    }
    let mut prober = Prober::new();
    let mut open: Vec<&Case> = cases.iter().collect();
    let mut found = Vec::new();
    let mut used = vec![false; allowed.len()];
    for attempt in 0..ATTEMPTS {
        found.clear();
        let heard = prober.run(&open, attempt);
        let mut different = Vec::new();
        for (case, [byway, kernel]) in open.iter().zip(&heard) {
            if differ(case, byway, kernel, allowed, &mut used) {
                different.push(*case);
                found.push(describe(case, byway, kernel));
            }
        }
        if different.is_empty() {
            break;
        }
        open = different;
    }
    assert!(found.is_empty(), "{} of {} cases differ:\n{}", found.len(), cases.len(), found.join("\n"));
    let idle = allowed.iter().zip(used).filter(|(_, used)| !used);
    let idle: Vec<_> = idle.map(|(Allowed { cases, why, .. }, _)| format!("{cases}: {why}")).collect();
    assert!(idle.is_empty(), "these differences don't occur any more; take them off the list: {idle:#?}");
}

/// Whether the answers differ in a way that isn't allowed.
fn differ(case: &Case, byway: &[String], kernel: &[String], allowed: &[Allowed], used: &mut [bool]) -> bool {
    for (byway, kernel) in byway.iter().zip(kernel).filter(|(byway, kernel)| byway != kernel) {
        let Some(at) = allowed.iter().position(|allowed| allowed.covers(case, byway, kernel)) else {
            return true;
        };
        used[at] = true;
        if allowed[at].parted {
            break;
        }
    }
    false
}

fn describe(case: &Case, byway: &[String], kernel: &[String]) -> String {
    let mut text = format!("{}:", case.name);
    let steps = byway.iter().zip(kernel).take(case.steps.len());
    for (step, (byway, kernel)) in steps.enumerate() {
        let mark = if byway == kernel { ' ' } else { '!' };
        text += &format!("\n {mark} {step} {}\n      byway  {byway}\n      kernel {kernel}", case.said(step));
    }
    text
}

/// S1.1 S2.1 S2.2 S2.4 T16: each of the 64 combinations of FIN, SYN, RST, PSH, ACK and URG in each state, with the
/// right numbers, without and with data.
#[test]
fn t16_every_combination_of_flags_in_every_state() {
    compare(&cases::every_flag_in_every_state(), allowed::FLAGS);
}

/// S1.3 S2.4 S5.4 T7 T14: each kind of segment at each edge of what is acceptable, in each state.
#[test]
fn t7_t14_segments_at_the_edges_of_the_window() {
    compare(&cases::edges(), allowed::EDGES);
}

/// S1.2 S1.4 S1.5 S2.2 S4.3 S4.5 S5.2 S5.3 S5.5 S8.1 T13 T15 T17: stories told one by one.
#[test]
fn s1_4_s5_3_s5_5_t15_t17_stories() {
    compare(&cases::stories(), allowed::STORIES);
}
