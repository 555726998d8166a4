//! `Sec-WebSocket-Extensions`: what is agreed of permessage-deflate (RFC 7692 §7.1).

use super::super::http::request::{is_tchar, list};
use super::super::http::response::{Made, Refusal};

const MALFORMED: Refusal = Refusal::bad("Sec-WebSocket-Extensions is malformed");

/// An offer of permessage-deflate that byway takes as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::app) struct Agreed {
    /// Each message of ours is compressed by itself.
    pub(super) server_no_context_takeover: bool,
    /// Each of the client's is. Nothing follows from it here: byway's history does no harm to who doesn't refer to it.
    client_no_context_takeover: bool,
    /// log2 of our window, 9 to 15, if the client limits it.
    pub(super) server_max_window_bits: Option<u8>,
    /// log2 of the client's, 8 to 15, if it says so. byway always keeps the largest, which holds any smaller.
    client_max_window_bits: Option<u8>,
}

impl Agreed {
    /// The first offer in a field's value that byway can take; offers of anything else are passed over.
    ///
    /// # Errors
    /// 400 for what isn't in the grammar (RFC 6455 §9.1), also behind the offer that is taken.
    pub(in crate::app) fn from_field(value: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut taken = None;
        for extension in list(value) {
            let offer = Self::from_offer(extension)?;
            taken = taken.or(offer);
        }
        Ok(taken)
    }

    /// One offer. `None`: not permessage-deflate, or one to be declined (RFC 7692 §7.1).
    fn from_offer(extension: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut parts = extension.split(|&octet| octet == b';').map(<[u8]>::trim_ascii);
        let name = token(parts.next().unwrap_or_default())?;
        let (mut agreed, mut good) = (Self::default(), name.eq_ignore_ascii_case(b"permessage-deflate"));
        let mut seen = 0u8;
        for parameter in parts {
            let (name, value) = parse_parameter(parameter)?;
            let bit = match (name, value) {
                (b"server_no_context_takeover", None) => {
                    agreed.server_no_context_takeover = true;
                    1
                }
                (b"client_no_context_takeover", None) => {
                    agreed.client_no_context_takeover = true;
                    2
                }
                (b"server_max_window_bits", Some(value)) => {
                    // zlib's compressor has no raw window of 256 octets; an offer that can't be met is declined
                    // (§7.1.2.1).
                    agreed.server_max_window_bits = window_bits(value).filter(|&bits| bits > 8);
                    good &= agreed.server_max_window_bits.is_some();
                    4
                }
                (b"client_max_window_bits", value) => {
                    agreed.client_max_window_bits = value.and_then(window_bits);
                    good &= value.is_none() || agreed.client_max_window_bits.is_some();
                    8
                }
                // Unknown, or with a value where there is none: declined.
                _ => 16,
            };
            good &= bit < 16 && seen & bit == 0;
            seen |= bit;
        }
        Ok(good.then_some(agreed))
    }

    /// The answer's field.
    pub(super) fn write(&self, made: &mut Made) {
        made.push(b"Sec-WebSocket-Extensions: permessage-deflate");
        if self.server_no_context_takeover {
            made.push(b"; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            made.push(b"; client_no_context_takeover");
        }
        if let Some(bits) = self.server_max_window_bits {
            made.push(b"; server_max_window_bits=").push_decimal(bits.into());
        }
        // Only what was offered may be said (§7.1.2.2).
        if let Some(bits) = self.client_max_window_bits {
            made.push(b"; client_max_window_bits=").push_decimal(bits.into());
        }
        made.push(b"\r\n");
    }
}

/// "A decimal integer value without leading zeroes between 8 to 15 inclusive" (RFC 7692 §7.1.2). W5
fn window_bits(value: &[u8]) -> Option<u8> {
    match *value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// `name`, `name=token` or `name="token"`.
fn parse_parameter(parameter: &[u8]) -> Result<(&[u8], Option<&[u8]>), Refusal> {
    let Some(at) = parameter.iter().position(|&octet| octet == b'=') else {
        return Ok((token(parameter)?, None));
    };
    let (name, value) = (parameter[..at].trim_ascii_end(), parameter[at + 1..].trim_ascii_start());
    // A quoted value must be a token, too, after it is unquoted.
    let unquoted = match value {
        [b'"', inner @ .., b'"'] => inner,
        plain => plain,
    };
    Ok((token(name)?, Some(token(unquoted)?)))
}

fn token(octets: &[u8]) -> Result<&[u8], Refusal> {
    let good = !octets.is_empty() && octets.iter().copied().all(is_tchar);
    if good { Ok(octets) } else { Err(MALFORMED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(value: &str) -> Result<Option<String>, u16> {
        let agreed = Agreed::from_field(value.as_bytes()).map_err(|refusal| refusal.status.code)?;
        Ok(agreed.map(|agreed| {
            let mut made = Made::new();
            agreed.write(&mut made);
            let line = String::from_utf8(made.as_slice().to_vec()).expect("ASCII");
            let value = line.strip_prefix("Sec-WebSocket-Extensions: permessage-deflate").expect("the field");
            value.strip_suffix("\r\n").expect("a line").to_owned()
        }))
    }

    #[test]
    fn w5_offers_that_are_taken_and_how_they_are_answered() {
        for (offer, answered) in [
            ("permessage-deflate", ""),
            ("Permessage-Deflate", ""),
            ("permessage-deflate; client_max_window_bits", ""),
            ("permessage-deflate;client_max_window_bits=8", "; client_max_window_bits=8"),
            ("permessage-deflate ; server_max_window_bits = \"9\"", "; server_max_window_bits=9"),
            ("permessage-deflate; server_max_window_bits=15", "; server_max_window_bits=15"),
            ("permessage-deflate; server_no_context_takeover", "; server_no_context_takeover"),
            ("permessage-deflate; client_no_context_takeover", "; client_no_context_takeover"),
            (
                "permessage-deflate; client_max_window_bits=10; server_max_window_bits=11; \
                 client_no_context_takeover; server_no_context_takeover",
                "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11; \
                 client_max_window_bits=10",
            ),
            // The first that can be taken.
            ("x-webkit-deflate-frame, permessage-deflate", ""),
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", ""),
            (
                "permessage-deflate; server_max_window_bits=10, permessage-deflate",
                "; server_max_window_bits=10",
            ),
        ] {
            assert_eq!(answer(offer), Ok(Some(answered.to_owned())), "{offer}");
        }
    }

    #[test]
    fn w5_offers_that_are_declined() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=8",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=1000",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=08",
            "client_max_window_bits=256",
            "client_max_window_bits=+9",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits; client_max_window_bits=10",
            "unknown",
            "Server_No_Context_Takeover",
        ] {
            assert_eq!(answer(&format!("permessage-deflate; {parameters}")), Ok(None), "{parameters}");
        }
        assert_eq!(answer("permessage-bzip2; x=1, foo"), Ok(None));
        assert_eq!(answer(""), Ok(None));
    }

    #[test]
    fn w8_what_is_no_list_of_extensions_is_refused() {
        for value in [
            "permessage-deflate;",
            "permessage-deflate; ;x",
            "permessage-deflate; =9",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; x=\"a,b\"",
            "permessage-deflate, fo o",
            "permessage-deflate, \u{e9}",
            "; x",
        ] {
            assert_eq!(answer(value), Err(400), "{value}");
        }
    }
}
