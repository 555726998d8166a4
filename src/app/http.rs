//! HTTP/1.1 (RFC 9110, RFC 9112), server side.

pub(crate) mod body;
pub(super) mod connection;
pub(crate) mod request;
pub(crate) mod response;
pub(super) mod routes;
mod target;
