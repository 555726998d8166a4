//! WebSocket (RFC 6455), server side.

pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod mask;
pub(crate) mod session;
pub(super) mod utf8;
