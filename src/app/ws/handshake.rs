//! The opening handshake (RFC 6455 §4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::super::http::request::{Framing, Method, Request};
use super::super::http::response::{Made, Refusal, Status};
use super::extension::Agreed;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Base64 of a SHA-1: 20 octets in 28 characters.
pub(crate) const ACCEPT: usize = 28;

/// A handshake that is all right.
#[derive(Debug)]
pub(in crate::app) struct Accepted {
    accept: [u8; ACCEPT],
    protocol: Option<&'static str>,
    /// What is agreed of permessage-deflate.
    pub(in crate::app) deflate: Option<Agreed>,
}

/// Checks a request whose `Upgrade` names `websocket` (RFC 6455 §4.2.1).
///
/// With a list of origins, a request from a page of any other origin is refused; a request
/// without Origin comes from no browser and is not what the list guards against (§10.2).
///
/// # Errors
/// 400, 403 or 426 (W8).
pub(in crate::app) fn accept(request: &Request<'_>, allowed_origins: &[String]) -> Result<Accepted, Refusal> {
    let upgrade = &request.fields.upgrade;
    if request.method != Method::Get || request.framing != Framing::None {
        return Err(Refusal::bad("an upgrade to WebSocket is a GET without a body"));
    }
    if !upgrade.connection {
        return Err(Refusal::bad("Connection doesn't name Upgrade"));
    }
    if upgrade.version != Some(b"13") {
        return Err(Refusal::new(Status::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here"));
    }
    let key = upgrade.key.ok_or(Refusal::bad("Sec-WebSocket-Key is missing"))?;
    let mut nonce = [0; 18];
    if !matches!((key.len(), STANDARD.decode_slice(key, &mut nonce)), (24, Ok(16))) {
        return Err(Refusal::bad("Sec-WebSocket-Key isn't 16 octets in base64"));
    }
    let allowed =
        |origin: &[u8]| allowed_origins.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(origin));
    if !allowed_origins.is_empty() && upgrade.origin.is_some_and(|origin| !allowed(origin)) {
        return Err(Refusal::new(Status::FORBIDDEN, "this origin may not connect"));
    }
    Ok(Accepted { accept: accept_key(key), protocol: upgrade.protocol, deflate: upgrade.deflate })
}

/// `Sec-WebSocket-Accept` for a key (§4.2.2, 5.4).
pub(crate) fn accept_key(key: &[u8]) -> [u8; ACCEPT] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT];
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(ACCEPT));
    accept
}

impl Accepted {
    /// The 101 response.
    pub(in crate::app) fn write(&self, made: &mut Made) {
        made.status(Status::SWITCHING_PROTOCOLS)
            .field("Upgrade", b"websocket")
            .field("Connection", b"Upgrade");
        made.field("Sec-WebSocket-Accept", &self.accept);
        if let Some(protocol) = self.protocol {
            made.field("Sec-WebSocket-Protocol", protocol.as_bytes());
        }
        if let Some(agreed) = &self.deflate {
            agreed.write(made);
        }
        made.end();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::Limits;
    use super::*;

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const REST: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n";
    const V13: &str = "Sec-WebSocket-Version: 13\r\n";

    fn answer_to(method: &str, fields: &str, origins: &[&str]) -> Result<String, u16> {
        let block = format!("{method} /chat HTTP/1.1\r\n{fields}\r\n");
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let request =
            Request::parse(block.as_bytes(), &Limits::default()).map_err(|refusal| refusal.status.code)?;
        let accepted = accept(&request, &origins).map_err(|refusal| refusal.status.code)?;
        let mut made = Made::new();
        accepted.write(&mut made);
        Ok(String::from_utf8(made.as_slice().to_vec()).expect("ASCII"))
    }

    #[test]
    fn s9_2_the_rfcs_key_and_accept() {
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let answer = answer_to("GET", &format!("{REST}{KEY}{V13}"), &[]).expect("valid");
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!answer.contains("Protocol:"));
    }

    #[test]
    fn s9_2_the_clients_first_known_protocol() {
        let protocol = |list: &str| {
            let answer = answer_to("GET", &format!("{REST}{KEY}{V13}{list}"), &[]).expect("valid");
            answer.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: ").map(str::to_owned))
        };
        assert_eq!(protocol("Sec-WebSocket-Protocol: chat, superchat\r\n").as_deref(), Some("chat"));
        assert_eq!(protocol("Sec-WebSocket-Protocol: x,superchat , chat\r\n").as_deref(), Some("superchat"));
        let lines = "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: superchat\r\n";
        assert_eq!(protocol(lines).as_deref(), Some("superchat"));
        assert_eq!(protocol("Sec-WebSocket-Protocol: Chat\r\n"), None);
    }

    #[test]
    fn w8_handshakes_that_are_refused() {
        let refused = |method: &str, fields: String| answer_to(method, &fields, &[]).expect_err("refused");
        assert_eq!(refused("GET", format!("{REST}{KEY}Sec-WebSocket-Version: 8\r\n")), 426);
        assert_eq!(refused("GET", format!("{REST}{KEY}")), 426);
        assert_eq!(refused("GET", format!("{REST}{KEY}{V13}{V13}")), 400);
        assert_eq!(refused("GET", format!("{REST}{V13}")), 400);
        assert_eq!(refused("GET", format!("{REST}{V13}{KEY}{KEY}")), 400);
        for key in
            ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQA=", "c2hvcnQ=", "!GhlIHNhbXBsZSBub25jZQ=="]
        {
            assert_eq!(refused("GET", format!("{REST}{V13}Sec-WebSocket-Key: {key}\r\n")), 400, "{key:?}");
        }
        let no_token = "Host: a\r\nUpgrade: websocket\r\nConnection: keep-alive\r\n";
        assert_eq!(refused("GET", format!("{no_token}{KEY}{V13}")), 400);
        assert_eq!(refused("POST", format!("{REST}{KEY}{V13}")), 400);
        assert_eq!(refused("GET", format!("{REST}{KEY}{V13}Content-Length: 3\r\n")), 400);
        assert_eq!(refused("GET", format!("{REST}{KEY}{V13}Sec-WebSocket-Protocol: ch\u{e4}t\r\n")), 400);
    }

    #[test]
    fn w8_only_listed_origins() {
        let from =
            |origin: &str| answer_to("GET", &format!("{REST}{KEY}{V13}{origin}"), &["https://a.example"]);
        assert!(from("Origin: https://a.example\r\n").is_ok());
        assert!(from("").is_ok());
        assert_eq!(from("Origin: https://b.example\r\n"), Err(403));
        assert_eq!(from("Origin: null\r\n"), Err(403));
    }
}
