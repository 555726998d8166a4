//! WebSocket (RFC 6455), server side.

pub(super) mod frame;
pub(super) mod handshake;
pub(super) mod mask;
pub(super) mod session;
pub(super) mod utf8;
