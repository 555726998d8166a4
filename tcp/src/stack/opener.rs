//! What an application begins by itself.

use core::net::{IpAddr, SocketAddr};

use crate::app::{ConnId, Opener};
use crate::frame::Memory;
use crate::time::Instant;

use super::{ConnectError, Stack};

/// An [`Opener`] on the stack.
pub(super) struct StackOpener<'a, M> {
    pub(super) stack: &'a mut Stack<M>,
    pub(super) now: Instant,
}

impl<M: Memory> Opener for StackOpener<'_, M> {
    fn now(&self) -> Instant {
        self.now
    }

    fn connect(&mut self, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.stack.connect(remote, self.now)
    }

    fn connect_from(&mut self, local: IpAddr, remote: SocketAddr) -> Result<ConnId, ConnectError> {
        self.stack.connect_from(local, remote, self.now)
    }

    fn wake(&mut self, id: ConnId) {
        if self.stack.is_current(id)
            && let Some((tcb, _)) = self.stack.tcb(id.index, self.now)
            && tcb.opened
            && tcb.over.is_none()
        {
            tcb.ready.woken = true;
            self.stack.mark_dirty(id.index);
        }
    }

    fn abort(&mut self, id: ConnId) {
        if self.stack.is_current(id)
            && let Some((tcb, mut ctx)) = self.stack.tcb(id.index, self.now)
        {
            tcb.abort(&mut ctx);
            self.stack.mark_dirty(id.index);
        }
    }
}
