//! HTTP/1.1 (RFC 9110, RFC 9112), server side.

pub(crate) mod body;
pub(super) mod connection;
pub(super) mod date;
pub(crate) mod lines;
#[cfg(test)]
mod probes;
pub(crate) mod request;
pub(crate) mod response;
pub(super) mod routes;
pub(crate) mod scanner;
mod target;
