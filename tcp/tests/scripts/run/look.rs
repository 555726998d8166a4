//! Lines that look at the stack and at what its application was told.

use byway_tcp::app::ConnId;
use byway_tcp::stack::ConnInfo;
use byway_tcp::tcb::state::State;
use byway_tcp::time::Duration;

use super::Runner;
use crate::app::Event;
use crate::flow::PORT;
use crate::parse::{Action, Comparison, Step};

impl Runner<'_> {
    pub(super) fn look(&mut self, step: &Step) -> Result<(), String> {
        let flow = step.flow;
        match &step.action {
            Action::Nothing => Ok(()),
            &Action::State(wanted) => {
                let state = self.state(flow);
                if state == wanted { Ok(()) } else { Err(format!("state is {state:?}")) }
            }
            &Action::States(state, wanted) => {
                let count = self.stack().connections_by_state()[state as usize];
                if count == wanted { Ok(()) } else { Err(format!("{count} of them")) }
            }
            Action::Event(event) => self.event(flow, *event),
            Action::NoEvent => {
                let port = self.flow(flow).peer.port();
                let events = &self.app.of(port).events;
                if events.is_empty() {
                    Ok(())
                } else {
                    Err(format!("the application was told: {}", list(events)))
                }
            }
            Action::Counter(name, how, wanted) => self.counter(name, *how, *wanted),
            Action::Assert(what, how, wanted) => self.assert(flow, what, *how, wanted),
            _ => unreachable!("not a line that only looks: {step:?}"),
        }
    }

    fn event(&mut self, number: usize, wanted: Event) -> Result<(), String> {
        let port = self.flow(number).peer.port();
        let events = &mut self.app.of(port).events;
        match events.iter().position(|&event| event == wanted) {
            Some(at) => {
                events.drain(..=at);
                Ok(())
            }
            None => Err(format!("the application was told: {}", list(events))),
        }
    }

    fn state(&mut self, number: usize) -> State {
        let (peer, local) = (self.flow(number).peer, self.flow(number).local);
        let mut state = if self.listening && local.port() == PORT { State::Listen } else { State::Closed };
        let now = self.now;
        self.stack().connections(0, u32::MAX, now, &mut |info| {
            if info.peer == peer && info.local == local && info.state != State::Listen {
                state = info.state;
            }
        });
        state
    }

    pub(super) fn info(&mut self, id: ConnId) -> Option<ConnInfo> {
        let (now, mut found) = (self.now, None);
        self.stack().connections(0, u32::MAX, now, &mut |info| {
            if info.id == id {
                found = Some(info);
            }
        });
        found
    }

    fn counter(&mut self, name: &str, how: Comparison, wanted: u64) -> Result<(), String> {
        let counters = self.stack().counters();
        let (_, value) =
            counters.iter().find(|(other, _)| *other == name).ok_or_else(|| format!("no counter {name}"))?;
        if how.holds(value, wanted) { Ok(()) } else { Err(format!("{name} is {value}")) }
    }

    fn assert(&mut self, number: usize, what: &str, how: Comparison, wanted: &str) -> Result<(), String> {
        let port = self.flow(number).peer.port();
        let info = self.app.of(port).id.and_then(|id| self.info(id)).ok_or("no connection")?;
        let micros = |duration: Duration| duration.as_micros();
        let value = match what {
            "cwnd" => info.cwnd.into(),
            "ssthresh" => info.ssthresh.into(),
            "mss" => info.mss.into(),
            "recv_queue" => info.recv_queue.into(),
            "send_queue" => info.send_queue.into(),
            "retransmits" => info.retransmits.into(),
            "srtt" => info.srtt.map_or(0, micros),
            "rto" => micros(info.rto),
            "urgent" => self.with_conn(number, |_, conn| conn.urgent())?.unwrap_or(0).into(),
            _ => return Err(format!("nothing to know of `{what}`")),
        };
        let wanted = quantity(wanted)?;
        if how.holds(value, wanted) { Ok(()) } else { Err(format!("{what} is {value}")) }
    }
}

/// `14600`, `10*1460`, `300ms`: durations are compared in microseconds.
fn quantity(text: &str) -> Result<u64, String> {
    let factor = |text: &str| {
        let text = text.trim();
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = match unit {
            "" | "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            _ => return Err(format!("unit `{unit}`")),
        };
        Ok(digits.parse::<u64>().map_err(|_| format!("`{text}` isn't a number"))? * unit)
    };
    text.split('*').map(factor).product()
}

fn list(events: &[Event]) -> String {
    if events.is_empty() {
        return "nothing".to_owned();
    }
    events.iter().map(Event::to_string).collect::<Vec<_>>().join(", ")
}
