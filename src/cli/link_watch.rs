//! What happens to the interface while byway runs: said, since it explains what clients then see (D5).

use byway_datapath::link::Link;

/// The interface as it was when last looked at.
#[derive(Debug)]
pub(super) struct LinkWatch {
    seen: Link,
    /// Queues that have a core.
    served: u32,
    /// Largest packet that byway sends.
    mtu: u16,
}

impl LinkWatch {
    pub(super) fn new(link: &Link, served: u32, mtu: u16) -> Self {
        // The start has waited for the carrier.
        let seen = link.again().unwrap_or_else(|_| link.clone());
        Self { seen, served, mtu }
    }

    /// Asks the kernel, and tells what has changed. An interface that is gone is the cores' to notice.
    pub(super) fn look(&mut self) -> Vec<String> {
        self.seen.again().map(|now| self.changed_to(now)).unwrap_or_default()
    }

    fn changed_to(&mut self, now: Link) -> Vec<String> {
        let (name, served, mtu) = (&now.name, self.served, self.mtu);
        let before = std::mem::replace(&mut self.seen, now.clone());
        let mut said = Vec::new();
        if now.up != before.up || now.running != before.running {
            said.push(match (now.up, now.running) {
                (false, _) => {
                    format!("{name} was taken down: connections wait until `ip link set {name} up`")
                }
                (true, false) => format!("{name} has lost its carrier: connections wait for it"),
                (true, true) => format!("{name} is up again"),
            });
        }
        if now.rx_queues != before.rx_queues && now.rx_queues > served {
            let count = now.rx_queues;
            said.push(format!(
                "{name} has {count} queues now, and {served} are served: frames for byway on the others are dropped; \
                 start byway again, or `ethtool -L {name} combined {served}`"
            ));
        }
        if now.mtu != before.mtu && now.mtu < u32::from(mtu) {
            let less = now.mtu;
            said.push(format!(
                "{name}'s MTU is {less} now, and byway goes on with {mtu}: start byway again, or `ip link set {name} mtu {mtu}`"
            ));
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use byway_tcp::wire::MacAddr;

    use super::*;

    fn link() -> Link {
        Link {
            name: "eth7".into(),
            index: 7,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            rx_queues: 2,
            tx_queues: 2,
            up: true,
            running: true,
            driver: "igb".into(),
            rss: None,
        }
    }

    /// D5: once for each change, and nothing of what is as before.
    #[test]
    fn d5_each_change_of_the_link_is_said_once_with_what_mends_it() {
        let mut watch = LinkWatch { seen: link(), served: 2, mtu: 1500 };
        let mut says = |now: Link, words: &[&str]| {
            let said = watch.changed_to(now.clone());
            assert_eq!(said.len(), usize::from(!words.is_empty()), "{said:?}");
            assert!(words.iter().all(|word| said[0].contains(word)), "{said:?}");
            assert!(watch.changed_to(now).is_empty());
        };
        says(link(), &[]);
        says(Link { running: false, ..link() }, &["eth7 has lost its carrier"]);
        says(Link { running: false, up: false, ..link() }, &["ip link set eth7 up"]);
        says(link(), &["eth7 is up again"]);
        says(
            Link { rx_queues: 4, ..link() },
            &["4 queues now", "2 are served", "ethtool -L eth7 combined 2"],
        );
        says(Link { rx_queues: 1, ..link() }, &[]);
        says(link(), &[]);
        says(Link { mtu: 1400, ..link() }, &["MTU is 1400", "goes on with 1500"]);
        says(Link { mtu: 9000, ..link() }, &[]);
    }
}
