//! HTTP/1.1 (RFC 9110, RFC 9112), server side.

pub(super) mod body;
pub(super) mod connection;
pub(super) mod request;
pub(super) mod response;
pub(super) mod routes;
