//! Where requests come from: own addresses that reach the server, and the ports there.

use std::net::IpAddr;
use std::ops::Range;

use byway_datapath::link::Link;
use byway_datapath::rtnetlink::Rtnetlink;
use byway_tcp::stack::Config as StackConfig;

use super::super::failure::Failure;

/// Ports of connections from an address that the kernel has, too: those behind the ones that it gives its own
/// connections by default (`net.ipv4.ip_local_port_range`, 32768 to 60999), so that as a rule nobody has one. Each is a
/// descriptor and some 11 KiB of the kernel's memory: all of them 50 MiB, and half a second of the start.
pub(super) const SHARED_PORTS: Range<u16> = 61_000..65_535;

/// The stack's addresses from which `remote` is reached, with ports for `connections`.
pub(super) fn locals(stack: &StackConfig, remote: IpAddr, connections: u32) -> Result<Vec<IpAddr>, Failure> {
    let own = stack.addresses.iter().map(|own| own.address);
    let locals: Vec<IpAddr> = own.filter(|own| own.is_ipv4() == remote.is_ipv4()).collect();
    let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
    let (wished, ports) = (connections as usize, stack.client_ports.len());
    let text = if remote.is_unspecified() || remote.is_multicast() || remote.is_loopback() {
        format!("{remote} isn't another host's address: name the server's in the URL")
    } else if locals.contains(&remote) {
        format!("{remote} is byway's own address: name the server's in the URL")
    } else if locals.is_empty() {
        format!("the server {remote} is {family}: give an {family} --address, too")
    } else if stack.next_hop(remote).is_none() {
        format!("the server {remote} isn't within any --address's prefix: give a --gateway")
    } else if wished > ports * locals.len() {
        let (most, more) = (ports * locals.len(), wished.div_ceil(ports) - locals.len());
        format!("{wished} connections to one server: {most} have ports; give {more} more --address")
    } else {
        return Ok(locals);
    };
    Err(Failure::configuration(text))
}

/// The same where the addresses are shared with the kernel: it chooses, as for its own connections, and one of them is
/// enough to hold ports at.
pub(super) fn shared_local(
    link: &Link,
    stack: &StackConfig,
    remote: IpAddr,
    connections: u32,
) -> Result<IpAddr, Failure> {
    let name = &link.name;
    let source = Rtnetlink::new(link.index)?.source(remote);
    let text = match source {
        Some(_) if stack.next_hop(remote).is_none() => {
            format!(
                "no route of the main table leads to the server {remote} over {name}, and byway takes no other"
            )
        }
        Some(source) if !stack.is_own(source) => format!(
            "the kernel reaches the server {remote} from {source}, which isn't {name}'s: give byway an --address"
        ),
        Some(_) if connections as usize > stack.client_ports.len() => {
            let most = stack.client_ports.len();
            format!("{connections} connections to one server: {most} have ports; give more --client-ports")
        }
        Some(source) => return Ok(source),
        None => format!(
            "the kernel reaches no other host at {remote} over {name}: `ip route get {remote}` says what it does"
        ),
    };
    Err(Failure::configuration(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    use byway_tcp::stack::Cidr;
    use byway_tcp::wire::MacAddr;

    #[test]
    fn servers_that_cannot_be_reached_are_named() {
        let mut stack = StackConfig::new(MacAddr([2, 0, 0, 0, 0, 1]), [0; 32]);
        let own = |octet| Cidr { address: [192, 0, 2, octet].into(), prefix: 24 };
        stack.addresses = vec![own(7)];
        let refused = |stack: &StackConfig, ip: &str, connections| {
            locals(stack, ip.parse().expect("address"), connections).map_err(|failure| failure.message)
        };
        assert!(refused(&stack, "2001:db8::1", 1).expect_err("family").contains("IPv6 --address"));
        assert!(refused(&stack, "192.0.2.7", 1).expect_err("own").contains("own address"));
        assert!(refused(&stack, "127.0.0.1", 1).expect_err("loopback").contains("another host"));
        assert!(refused(&stack, "198.51.100.1", 1).expect_err("far").contains("--gateway"));
        let many = refused(&stack, "192.0.2.1", 40_000).expect_err("ports");
        assert!(many.contains("28232 have ports; give 1 more --address"), "{many}");
        stack.gateways = vec![[192, 0, 2, 1].into()];
        assert_eq!(refused(&stack, "198.51.100.1", 1).expect("reachable").len(), 1);
        stack.addresses.push(own(8));
        assert_eq!(refused(&stack, "192.0.2.1", 40_000).expect("ports").len(), 2);
    }
}
