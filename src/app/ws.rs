//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), server side.

pub(super) mod deflate;
pub(super) mod extension;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod mask;
pub(super) mod push;
pub(crate) mod session;
pub(super) mod utf8;
