//! What an application sets for its connection, as socket options.
//!
//! A socket that refuses one goes on as it is: there is nothing an application could do about it.

use std::os::fd::AsFd;

use byway_tcp::app::Keepalive;
use byway_tcp::time::Duration;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::connection::Connection;

impl Connection {
    pub(super) fn set_nodelay(&mut self, on: bool) {
        if self.nodelay != on && sockopt::set_tcp_nodelay(&self.socket, on).is_ok() {
            self.nodelay = on;
        }
    }

    pub(super) fn set_linger(&mut self, linger: Option<Duration>) {
        self.linger = linger;
    }

    pub(super) fn set_user_timeout(&self, limit: Option<Duration>) {
        // 0 is the system's.
        let millis = limit.map_or(0, |limit| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1));
        let _ = sockopt::set_tcp_user_timeout(&self.socket, millis);
    }

    pub(super) fn set_dscp(&self, dscp: u8) {
        let class = dscp << 2;
        let _ = if self.local.is_ipv4() {
            sockopt::set_ip_tos(&self.socket, class)
        } else {
            sockopt::set_ipv6_tclass(&self.socket, class.into())
        };
    }

    pub(super) fn set_keepalive(&self, keepalive: Option<Keepalive>) {
        let _ = set_keepalive(&self.socket, keepalive);
    }
}

/// Keepalive in the kernel's units: whole seconds and their bounds (net/ipv4/tcp.c: MAX_TCP_KEEPIDLE and its like).
pub(super) fn set_keepalive(socket: impl AsFd, keepalive: Option<Keepalive>) -> Result<(), Errno> {
    let seconds = |duration: Duration| {
        let up = duration.as_nanos().div_ceil(1_000_000_000);
        core::time::Duration::from_secs(up.clamp(1, 32_767))
    };
    if let Some(Keepalive { idle, interval, probes }) = keepalive {
        sockopt::set_tcp_keepidle(&socket, seconds(idle))?;
        sockopt::set_tcp_keepintvl(&socket, seconds(interval))?;
        sockopt::set_tcp_keepcnt(&socket, u32::from(probes).clamp(1, 127))?;
    }
    sockopt::set_socket_keepalive(&socket, keepalive.is_some())
}
