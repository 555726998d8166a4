//! TLS records, opened and sealed where they lie (RFC 8446 §5, RFC 5246 §6.2.3.3 with RFC 5288 and RFC 7905).
//!
//! ```text
//!   TLS 1.3, and 1.2 with ChaCha20:  │ header 5 │ payload …           │ (1.3: type 1) tag 16 │
//!   TLS 1.2 with AES-GCM:            │ header 5 │ nonce 8 │ payload … │ tag 16               │
//! ```
//!
//! rustls gives the keys once its handshake is over (`rustls::kernel`). Its own record layer allocates and copies
//! for every record; a frame has room around the payload, so that nothing has to move here.

use core::ops::Range;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets};

/// Octets of a record's header: type, version, length of the rest.
pub(super) const HEADER: usize = 5;
/// The nonce that TLS 1.2 sends along with AES-GCM (RFC 5288 §3).
const EXPLICIT_NONCE: usize = 8;
/// Octets of payload in one record (RFC 8446 §5.1).
pub(super) const PAYLOAD_MAX: usize = 1 << 14;
/// What a peer may put around the payload (RFC 8446 §5.2; TLS 1.2 with AEADs needs 24).
const EXPANSION_MAX: usize = 256;
/// The longest record.
pub(super) const RECORD_MAX: usize = HEADER + PAYLOAD_MAX + EXPANSION_MAX;

/// Content types (RFC 8446 §5.1).
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// How the keys are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Tls13,
    Tls12Gcm,
    Tls12ChaCha,
}

/// The keys of one direction, and how many records have used them.
#[derive(Debug)]
pub(super) struct Keys {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    form: Form,
}

/// Octets behind a record's header.
///
/// # Errors
/// The alert for a header that can't begin a record of an encrypted connection.
pub(super) fn body_len(header: [u8; HEADER]) -> Result<usize, AlertDescription> {
    let [kind, major, _, high, low] = header;
    if !(ALERT..=DATA).contains(&kind) || major != 3 {
        return Err(AlertDescription::UnexpectedMessage);
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        len if len > PAYLOAD_MAX + EXPANSION_MAX => Err(AlertDescription::RecordOverflow),
        len => Ok(len),
    }
}

impl Keys {
    /// `sequence`: of the next record.
    pub(super) fn new(tls13: bool, sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        let form = match algorithm {
            _ if tls13 => Form::Tls13,
            algorithm if *algorithm == CHACHA20_POLY1305 => Form::Tls12ChaCha,
            _ => Form::Tls12Gcm,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?);
        Some(Self { key, iv: iv.as_ref().try_into().ok()?, sequence, form })
    }

    /// Records that have used these keys.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Octets in front of a sealed record's payload.
    pub(super) fn front(&self) -> usize {
        if self.form == Form::Tls12Gcm { HEADER + EXPLICIT_NONCE } else { HEADER }
    }

    /// Octets behind it.
    pub(super) fn behind(&self) -> usize {
        MAX_TAG_LEN + usize::from(self.form == Form::Tls13)
    }

    /// RFC 8446 §5.3, RFC 7905 §2; for RFC 5288 one of the ways to never use a nonce twice.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (octet, sequence) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *octet ^= sequence;
        }
        nonce
    }

    /// What TLS 1.2 authenticates beside the payload (RFC 5246 §6.2.3.3).
    fn aad12(&self, kind: u8, len: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8..11].copy_from_slice(&[kind, 3, 3]);
        aad[11..].copy_from_slice(&(len as u16).to_be_bytes());
        aad
    }

    /// Decrypts a whole record, header included, in place: its content type and where in it the payload lies.
    ///
    /// # Errors
    /// The alert to answer with; the record's octets are lost then.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), AlertDescription> {
        let Some((header, body)) = record.split_first_chunk_mut::<HEADER>() else {
            return Err(AlertDescription::DecodeError);
        };
        let (skipped, nonce) = match self.form {
            Form::Tls12Gcm => {
                let Some(explicit) = body.first_chunk::<EXPLICIT_NONCE>() else {
                    return Err(AlertDescription::BadRecordMac);
                };
                let mut nonce = self.iv;
                nonce[NONCE_LEN - EXPLICIT_NONCE..].copy_from_slice(explicit);
                (EXPLICIT_NONCE, nonce)
            }
            Form::Tls13 | Form::Tls12ChaCha => (0, self.nonce()),
        };
        let sealed = &mut body[skipped..];
        let Some(len) = sealed.len().checked_sub(MAX_TAG_LEN) else {
            return Err(AlertDescription::BadRecordMac);
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = if self.form == Form::Tls13 {
            if header[0] != DATA {
                return Err(AlertDescription::UnexpectedMessage);
            }
            self.key.open_in_place(nonce, Aad::from(*header), sealed)
        } else {
            self.key.open_in_place(nonce, Aad::from(self.aad12(header[0], len)), sealed)
        };
        let plain = opened.map_err(|_| AlertDescription::BadRecordMac)?;
        self.sequence += 1;
        let (kind, len) = if self.form == Form::Tls13 {
            // The type is the last octet that isn't padding (RFC 8446 §5.4).
            let last =
                plain.iter().rposition(|&octet| octet != 0).ok_or(AlertDescription::UnexpectedMessage)?;
            (plain[last], last)
        } else {
            (header[0], len)
        };
        if len > PAYLOAD_MAX {
            return Err(AlertDescription::RecordOverflow);
        }
        let start = HEADER + skipped;
        Ok((kind, start..start + len))
    }

    /// Encrypts in place: `record` is the payload with [`front`](Self::front) octets before and
    /// [`behind`](Self::behind) after it, whatever they hold. The payload is [`PAYLOAD_MAX`] at most.
    pub(super) fn seal(&mut self, kind: u8, record: &mut [u8]) {
        let (front, behind) = (self.front(), self.behind());
        let len = record.len() - front - behind;
        debug_assert!(len <= PAYLOAD_MAX, "a record of {len} octets");
        let nonce = self.nonce();
        let body = (record.len() - HEADER) as u16;
        let outer = if self.form == Form::Tls13 { DATA } else { kind };
        record[..3].copy_from_slice(&[outer, 3, 3]);
        record[3..HEADER].copy_from_slice(&body.to_be_bytes());
        if self.form == Form::Tls12Gcm {
            record[HEADER..front].copy_from_slice(&nonce[NONCE_LEN - EXPLICIT_NONCE..]);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let (head, rest) = record.split_at_mut(front);
        let (text, tag) = rest.split_at_mut(len + behind - MAX_TAG_LEN);
        let sealed = if self.form == Form::Tls13 {
            text[len] = kind;
            let mut aad = [0; HEADER];
            aad.copy_from_slice(head);
            self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), text)
        } else {
            self.key.seal_in_place_separate_tag(nonce, Aad::from(self.aad12(kind, len)), text)
        };
        // Fails for texts of gigabytes only.
        tag.copy_from_slice(sealed.expect("a record is short").as_ref());
        self.sequence += 1;
    }
}
