//! The service over TLS, with rustls's own client as the peer, and with a peer that breaks the rules.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use byway_tcp::time::Duration;
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore,
    SupportedCipherSuite, SupportedProtocolVersion, Tls13CipherSuite,
};

use super::record::{ALERT, DATA, HANDSHAKE, HEADER, Keys, PAYLOAD_MAX, RECORD_MAX};
use super::{Server, USE_HTTPS};
use byway_lab::{ECDSA, Identity};

use crate::app::testing::{HTTPS, Peer, config};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
const HELLO_ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";

/// A self-signed certificate and its key, made once for all tests.
fn identity(name: &str, algorithm: &[&str]) -> Identity {
    let folder = std::env::temp_dir().join(format!("byway-tls-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    Identity::make(&folder, algorithm).expect("openssl")
}

fn server_of(identity: &Identity) -> Server {
    Server::load(&identity.certificate, &identity.key).expect("loads")
}

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_file(&identity.certificate).expect("PEM")]
}

fn ecdsa() -> &'static Identity {
    static MADE: OnceLock<Identity> = OnceLock::new();
    MADE.get_or_init(|| identity("ecdsa", ECDSA))
}

fn rsa() -> &'static Identity {
    static MADE: OnceLock<Identity> = OnceLock::new();
    MADE.get_or_init(|| identity("rsa", &["rsa:2048"]))
}

fn server() -> Server {
    static LOADED: OnceLock<Server> = OnceLock::new();
    LOADED.get_or_init(|| server_of(ecdsa())).clone()
}

fn client_config(identity: &Identity, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(identity));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn peer(server: &Server) -> Peer {
    Peer::connect_with(HTTPS, crate::app::Config { tls: Some(server.clone()), ..config() }, 256)
}

/// rustls's client and a service at the other end.
struct Client {
    tls: ClientConnection,
    peer: Peer,
    plain: Vec<u8>,
    /// Segments that the client's octets are cut to; the last size repeats.
    cuts: Vec<usize>,
}

impl Client {
    fn new(config: ClientConfig, peer: Peer) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("client");
        Self { tls, peer, plain: Vec::new(), cuts: vec![1460] }
    }

    fn connect(version: &'static SupportedProtocolVersion) -> Self {
        let mut client = Self::new(client_config(ecdsa(), &[version]), peer(&server()));
        client.talk().expect("a handshake");
        client
    }

    /// Carries octets both ways until nobody has any.
    fn talk(&mut self) -> Result<(), Error> {
        loop {
            let mut out = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut out).expect("into memory");
            }
            self.peer.send_cut(&out, &self.cuts);
            let back = self.peer.take();
            if out.is_empty() && back.is_empty() {
                return Ok(());
            }
            self.hear(&back)?;
        }
    }

    fn hear(&mut self, mut octets: &[u8]) -> Result<(), Error> {
        while !octets.is_empty() {
            self.tls.read_tls(&mut octets).expect("from memory");
            self.tls.process_new_packets()?;
            let mut buffer = [0; 4096];
            while let Ok(some @ 1..) = self.tls.reader().read(&mut buffer) {
                self.plain.extend_from_slice(&buffer[..some]);
            }
        }
        Ok(())
    }

    /// Sends octets, and gives back what comes.
    fn ask(&mut self, mut octets: &[u8]) -> Vec<u8> {
        while !octets.is_empty() {
            let taken = self.tls.writer().write(octets).expect("into memory");
            octets = &octets[taken..];
            self.talk().expect("goes on");
        }
        std::mem::take(&mut self.plain)
    }
}

fn post(body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

fn random(len: usize) -> Vec<u8> {
    use rand::{RngCore as _, SeedableRng as _};
    let mut octets = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(len as u64).fill_bytes(&mut octets);
    octets
}

/// The body of an answer whose head has been checked.
fn body(answer: &[u8]) -> &[u8] {
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(answer));
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    &answer[end + 4..]
}

#[test]
fn s9_4_both_versions_and_every_suite_serve_http() {
    for suite in provider::ALL_CIPHER_SUITES {
        for identity in [ecdsa(), rsa()] {
            let mut suites = provider::default_provider();
            suites.cipher_suites = vec![*suite];
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(chain(identity));
            let config = ClientConfig::builder_with_provider(Arc::new(suites))
                .with_protocol_versions(&[suite.version()])
                .expect("a version")
                .with_root_certificates(roots)
                .with_no_client_auth();
            let mut client = Client::new(config, peer(&server_of(identity)));
            let met = format!("{:?}", suite.suite());
            if client.talk().is_err() || client.tls.is_handshaking() {
                while client.peer.turn_and_pump() {
                    let back = client.peer.take();
                    if client.hear(&back).and_then(|()| client.talk()).is_err() {
                        break;
                    }
                }
            }
            // In TLS 1.2 a suite names the kind of certificate.
            let fits = suite.version() == &TLS13 || met.contains("ECDSA") == std::ptr::eq(identity, ecdsa());
            assert_eq!(!client.tls.is_handshaking(), fits, "{met}");
            if fits {
                assert_eq!(client.ask(HELLO), HELLO_ANSWER, "{met}");
                let octets = random(50_000);
                assert_eq!(body(&client.ask(&post(&octets))), octets, "{met}");
            }
        }
    }
}

#[test]
fn h6_the_handshake_may_be_cut_anywhere() {
    for version in BOTH {
        let mut first = 1;
        loop {
            let mut client = Client::new(client_config(ecdsa(), &[version]), peer(&server()));
            client.cuts = vec![first, 1460];
            client.talk().expect("a handshake");
            assert_eq!(client.ask(HELLO), HELLO_ANSWER, "first segment of {first}");
            first += 1;
            // Longer than any flight of this client.
            if first > 400 {
                break;
            }
        }
        for size in [1, 2, 3, 7] {
            let mut client = Client::new(client_config(ecdsa(), &[version]), peer(&server()));
            client.cuts = vec![size];
            client.talk().expect("a handshake");
            assert_eq!(client.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(client.ask(HELLO), HELLO_ANSWER, "segments of {size}");
        }
    }
}

#[test]
fn records_of_every_size_in_segments_of_every_size() {
    let octets = random(40_000);
    for version in BOTH {
        for fragment in [32, 33, 100, 512, 1460, 4096, 16_389] {
            for cut in [1460, 1000, 99] {
                let mut config = client_config(ecdsa(), &[version]);
                config.max_fragment_size = Some(fragment);
                let mut client = Client::new(config, peer(&server()));
                client.cuts = vec![cut];
                client.talk().expect("a handshake");
                for len in (1..40).chain([1399, 1400, 1431, 1432, 1438, 16_383, 16_384, 16_385, 40_000]) {
                    let answer = client.ask(&post(&octets[..len]));
                    assert!(
                        body(&answer) == &octets[..len],
                        "{len} octets in records of {fragment}, cut by {cut}"
                    );
                }
            }
        }
    }
}

/// What fits a segment is opened, echoed and sealed in the frame it came in.
#[test]
fn a_small_record_is_copied_nowhere() {
    for version in BOTH {
        let mut client = Client::connect(version);
        let octets = random(1000);
        for _ in 0..10 {
            assert_eq!(body(&client.ask(&post(&octets))), octets);
        }
        assert_eq!((client.peer.counters_mut().tls_bytes_copied, client.peer.copied()), (0, 0));
        assert!(client.peer.longest_chunk() <= 1460);
    }
}

#[test]
fn what_byway_sends_fits_segments_of_any_size() {
    for version in BOTH {
        for mss in [48, 100, 536, 1460] {
            let mut peer = peer(&server());
            peer.set_mss(mss);
            let mut client = Client::new(client_config(ecdsa(), &[version]), peer);
            client.talk().expect("a handshake");
            let answer = client.ask(b"GET /bytes/20000 HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(body(&answer).iter().enumerate().all(|(at, &octet)| usize::from(octet) == at % 251));
            assert_eq!(body(&answer).len(), 20_000);
            assert!(client.peer.longest_chunk() <= mss, "{} for {mss}", client.peer.longest_chunk());
        }
    }
}

/// D2: nothing is lost, reordered or leaked when frames are short.
#[test]
fn memory_pressure_delays_and_no_more() {
    for version in BOTH {
        for seed in 0..20 {
            let mut peer = peer(&server());
            peer.fail_allocs(0.5, seed);
            peer.set_room(3);
            let mut client = Client::new(client_config(ecdsa(), &[version]), peer);
            client.talk().expect("a handshake");
            let octets = random(30_000);
            assert_eq!(body(&client.ask(&post(&octets))), octets);
            client.tls.send_close_notify();
            client.talk().expect("the end");
            assert!(client.peer.server_finished());
            assert_eq!(client.peer.counters_mut().tls_truncated, 0);
        }
    }
}

#[test]
fn tickets_make_the_next_handshake_short_on_any_core() {
    for version in BOTH {
        let config = client_config(ecdsa(), &[version]);
        let server = server();
        for round in 0..4 {
            // Each peer has a service of its own, as each core has.
            let mut client = Client::new(config.clone(), peer(&server));
            client.talk().expect("a handshake");
            assert_eq!(client.ask(HELLO), HELLO_ANSWER);
            let resumed = client.tls.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, round > 0, "{version:?}, round {round}");
            assert_eq!(client.peer.counters_mut().tls_handshakes_resumed, u64::from(resumed));
            assert_eq!(client.peer.counters_mut().tls_handshakes, 1);
        }
    }
}

#[test]
fn close_notify_is_answered_and_its_lack_counted() {
    for version in BOTH {
        let mut client = Client::connect(version);
        client.ask(HELLO);
        client.tls.send_close_notify();
        client.talk().expect("the end");
        assert!(client.peer.server_finished());
        let state = client.tls.process_new_packets().expect("fine");
        assert!(state.peer_has_closed(), "the server's close_notify");
        client.peer.finish();
        assert_eq!(client.peer.counters_mut().tls_truncated, 0);

        let mut client = Client::connect(version);
        client.peer.finish();
        assert!(client.peer.server_finished());
        let last = client.peer.take();
        client.hear(&last).expect("close_notify");
        assert!(client.tls.process_new_packets().expect("fine").peer_has_closed());
        assert_eq!(client.peer.counters_mut().tls_truncated, 1);

        // A request that was cut off isn't answered.
        let mut client = Client::connect(version);
        assert_eq!(client.ask(&HELLO[..HELLO.len() - 1]), b"");
        client.peer.finish();
        let last = client.peer.take();
        client.hear(&last).expect("close_notify");
        assert_eq!(client.plain, b"");
        assert_eq!(client.peer.counters_mut().tls_truncated, 1);
    }
}

#[test]
fn a_draining_byway_says_close_notify() {
    let mut client = Client::connect(&TLS13);
    client.peer.drain();
    let last = client.peer.take();
    client.hear(&last).expect("close_notify");
    assert!(client.tls.process_new_packets().expect("fine").peer_has_closed());
    assert!(client.peer.server_finished());
    // Without a handshake there is nothing to say.
    let mut peer = peer(&server());
    peer.drain();
    assert!(peer.server_finished() && peer.received().is_empty());
}

#[test]
fn rfc8446_4_6_3_the_peers_key_updates_are_followed_and_answered() {
    let mut client = Client::connect(&TLS13);
    for round in 0..100 {
        client.tls.refresh_traffic_keys().expect("TLS 1.3");
        assert_eq!(client.ask(HELLO), HELLO_ANSWER, "round {round}");
    }
}

#[test]
fn more_key_updates_than_data_end_the_connection() {
    let mut client = Client::connect(&TLS13);
    let failed = (0..40).find(|_| {
        client.tls.refresh_traffic_keys().expect("TLS 1.3");
        client.talk().is_err()
    });
    assert_eq!(failed, Some(32));
    assert_eq!(client.peer.counters_mut().tls_broken, 1);
}

/// A server whose keys seal 100 records.
fn short_lived() -> Server {
    let mut suites: CryptoProvider = provider::default_provider();
    suites.cipher_suites = suites
        .cipher_suites
        .iter()
        .map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) => {
                let common = CipherSuiteCommon { confidentiality_limit: 100, ..short(&suite.common) };
                SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                    common,
                    hkdf_provider: suite.hkdf_provider,
                    aead_alg: suite.aead_alg,
                    quic: None,
                })))
            }
            SupportedCipherSuite::Tls12(suite) => {
                let common = CipherSuiteCommon { confidentiality_limit: 100, ..short(&suite.common) };
                SupportedCipherSuite::Tls12(Box::leak(Box::new(rustls::Tls12CipherSuite {
                    common,
                    prf_provider: suite.prf_provider,
                    kx: suite.kx,
                    sign: suite.sign,
                    aead_alg: suite.aead_alg,
                })))
            }
        })
        .collect();
    let key = PrivateKeyDer::from_pem_file(&ecdsa().key).expect("PEM");
    Server::with_provider(suites, chain(ecdsa()), key).expect("loads")
}

fn short(common: &CipherSuiteCommon) -> CipherSuiteCommon {
    CipherSuiteCommon { suite: common.suite, hash_provider: common.hash_provider, confidentiality_limit: 0 }
}

/// RFC 8446 §5.5: TLS 1.3 changes the key in time, TLS 1.2 can only end.
#[test]
fn a_key_seals_no_more_than_it_may() {
    let mut client = Client::new(client_config(ecdsa(), &[&TLS13]), peer(&short_lived()));
    client.talk().expect("a handshake");
    for _ in 0..3 {
        let answer = client.ask(b"GET /bytes/1000000 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(body(&answer).len(), 1_000_000);
    }
    let mut client = Client::new(client_config(ecdsa(), &[&TLS12]), peer(&short_lived()));
    client.talk().expect("a handshake");
    let answer = client.ask(b"GET /bytes/1000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(body(&answer).len() > 30 * 1400 && body(&answer).len() < 100 * 1460);
    assert!(client.peer.server_finished());
    assert!(client.tls.process_new_packets().expect("fine").peer_has_closed(), "a close_notify");
}

/// A client that speaks TLS until it has its keys, and then says what it likes.
struct Forger {
    sending: Keys,
    receiving: Keys,
    peer: Peer,
}

impl Forger {
    fn connect(version: &'static SupportedProtocolVersion) -> Self {
        let mut config = client_config(ecdsa(), &[version]);
        config.enable_secret_extraction = true;
        let mut client = Client::new(config, peer(&server()));
        client.talk().expect("a handshake");
        let tls13 = version == &TLS13;
        let secrets = client.tls.dangerous_extract_secrets().expect("extracts");
        let keys = |(sequence, secrets)| Keys::new(tls13, sequence, &secrets).expect("keys");
        Self { sending: keys(secrets.tx), receiving: keys(secrets.rx), peer: client.peer }
    }

    fn sealed(&mut self, kind: u8, octets: &[u8]) -> Vec<u8> {
        let mut record = vec![0; self.sending.front()];
        record.extend_from_slice(octets);
        record.resize(record.len() + self.sending.behind(), 0);
        self.sending.seal(kind, &mut record);
        record
    }

    fn say(&mut self, kind: u8, octets: &[u8]) {
        let record = self.sealed(kind, octets);
        self.peer.send(&record);
    }

    /// What the server says: content types and octets.
    fn heard(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut octets = self.peer.take();
        let (mut at, mut all) = (0, Vec::new());
        while at < octets.len() {
            let len = HEADER + usize::from(u16::from_be_bytes([octets[at + 3], octets[at + 4]]));
            let record = &mut octets[at..at + len];
            let (kind, inside) = self.receiving.open(record).expect("opens");
            all.push((kind, record[inside].to_vec()));
            at += len;
        }
        all
    }

    /// The server answers with this alert, closes, and resets unless the peer closes, too.
    fn assert_refused(mut self, alert: AlertDescription) {
        assert_eq!(self.heard(), [(ALERT, vec![2, alert.into()])]);
        assert!(self.peer.server_finished() && !self.peer.server_aborted());
        assert_eq!(self.peer.counters_mut().tls_broken, 1);
        // What follows is taken, and not looked at.
        let more = self.sealed(DATA, HELLO);
        self.peer.send(&more);
        assert_eq!((self.peer.unread(), self.peer.received().len(), self.peer.held()), (0, 0, 0));
        self.peer.pass(Duration::from_secs(6));
        assert!(self.peer.server_aborted());
    }
}

#[test]
fn empty_records_mean_nothing_and_many_of_them_the_end() {
    for version in BOTH {
        let mut forger = Forger::connect(version);
        for _ in 0..30 {
            forger.say(DATA, b"");
        }
        forger.say(DATA, HELLO);
        assert_eq!(forger.heard(), [(DATA, HELLO_ANSWER.to_vec())]);
        for _ in 0..33 {
            forger.say(DATA, b"");
        }
        forger.assert_refused(AlertDescription::UnexpectedMessage);
    }
}

/// Several records in a frame, whole and not, are one stream.
#[test]
fn records_may_share_frames_in_any_way() {
    for version in BOTH {
        for cut in (1..150).chain([1460]) {
            let mut forger = Forger::connect(version);
            let mut octets = Vec::new();
            for piece in HELLO.repeat(3).chunks(7) {
                let record = forger.sealed(DATA, piece);
                octets.extend(record);
            }
            forger.peer.send_cut(&octets, &[cut, 1460]);
            let all: Vec<u8> = forger.heard().into_iter().flat_map(|(_, octets)| octets).collect();
            assert_eq!(all, HELLO_ANSWER.repeat(3), "cut after {cut}");
        }
    }
}

#[test]
fn the_longest_record_is_taken_and_a_longer_one_refused() {
    for version in BOTH {
        let mut forger = Forger::connect(version);
        let octets = random(PAYLOAD_MAX - 50);
        let mut request = post(&octets);
        request.truncate(PAYLOAD_MAX);
        forger.say(DATA, &request);
        let back: Vec<u8> = forger.heard().into_iter().flat_map(|(_, octets)| octets).collect();
        let sent = request.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        assert!(body(&back) == &request[sent..]);
        // Refused when the header is there: nothing of it is waited for.
        let mut forger = Forger::connect(version);
        let len = (RECORD_MAX - HEADER + 1) as u16;
        let [high, low] = len.to_be_bytes();
        forger.peer.send(&[DATA, 3, 3, high, low]);
        forger.peer.send(b"x");
        forger.assert_refused(AlertDescription::RecordOverflow);
    }
}

#[test]
fn what_isnt_authentic_or_allowed_is_refused_with_an_alert() {
    for version in BOTH {
        let record = Forger::connect(version).sealed(DATA, HELLO);
        for octet in [HEADER, HEADER + 9, record.len() - 1] {
            let mut forger = Forger::connect(version);
            let mut record = forger.sealed(DATA, HELLO);
            record[octet] ^= 1;
            forger.peer.send(&record);
            forger.assert_refused(AlertDescription::BadRecordMac);
        }
        // The same record again.
        let mut forger = Forger::connect(version);
        let record = forger.sealed(DATA, b"G");
        forger.peer.send(&record.repeat(2));
        forger.assert_refused(AlertDescription::BadRecordMac);
        for len in [0, 7, 15] {
            let mut forger = Forger::connect(version);
            forger.peer.send(&[&[DATA, 3, 3, 0, len as u8], &vec![7; len][..]].concat());
            forger.assert_refused(AlertDescription::BadRecordMac);
        }
        for garbage in [&b"GET / HTTP/1.1\r\n"[..], &[20, 3, 3, 0, 1, 1], &[DATA, 2, 3, 0, 1, 1]] {
            let mut forger = Forger::connect(version);
            forger.peer.send(garbage);
            forger.assert_refused(AlertDescription::UnexpectedMessage);
        }
        // Renegotiation (a ClientHello), other handshake messages, half a message, an unknown type.
        for (kind, message) in [
            (HANDSHAKE, &[1, 0, 0, 2, 3, 3][..]),
            (HANDSHAKE, &[0, 0, 0, 0]),
            (HANDSHAKE, &[24, 0, 0]),
            (HANDSHAKE, &[24, 0, 0, 1, 2]),
            (HANDSHAKE, &[]),
        ] {
            let mut forger = Forger::connect(version);
            forger.say(kind, message);
            forger.assert_refused(AlertDescription::UnexpectedMessage);
        }
        let mut forger = Forger::connect(version);
        forger.say(ALERT, &[1]);
        forger.assert_refused(AlertDescription::DecodeError);
    }
    let mut forger = Forger::connect(&TLS13);
    forger.say(0, &[0; 100]);
    forger.assert_refused(AlertDescription::UnexpectedMessage);
}

#[test]
fn padding_is_stripped() {
    let mut forger = Forger::connect(&TLS13);
    let mut padded = HELLO.to_vec();
    padded.push(DATA);
    padded.resize(1000, 0);
    forger.say(0, &padded);
    assert_eq!(forger.heard(), [(DATA, HELLO_ANSWER.to_vec())]);
}

#[test]
fn the_peers_alert_ends_the_connection_without_an_answer() {
    for version in BOTH {
        let mut forger = Forger::connect(version);
        // Says nothing.
        forger.say(ALERT, &[1, AlertDescription::UserCanceled.into()]);
        forger.say(DATA, HELLO);
        assert_eq!(forger.heard(), [(DATA, HELLO_ANSWER.to_vec())]);
        forger.say(ALERT, &[2, AlertDescription::InternalError.into()]);
        assert_eq!(forger.heard(), []);
        assert!(forger.peer.server_finished());
        assert_eq!(forger.peer.counters_mut().tls_alerts_in, 1);
    }
}

/// In the middle of a large answer, which the peer doesn't read: nothing waits for ever.
#[test]
fn a_bad_record_during_an_answer_ends_it() {
    let mut forger = Forger::connect(&TLS13);
    forger.peer.hold_acks(true);
    forger.say(DATA, b"GET /bytes/1000000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    forger.peer.send(b"garbage, and enough of it");
    forger.peer.hold_acks(false);
    forger.peer.pump();
    assert!(forger.peer.server_finished());
    forger.peer.pass(Duration::from_secs(6));
    assert!(forger.peer.server_aborted());
}

#[test]
fn garbage_instead_of_a_client_hello_is_refused() {
    for garbage in [
        &b"\0\0\0\0\0\0\0\0"[..],
        b"ssh-2.0-OpenSSH\r\n",
        &[22, 3, 1, 0, 4, 1, 0, 0, 0],
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],
        &[22, 2, 0, 0, 4, 1, 0, 0, 0],
        &[22, 3, 1, 0, 0],
        &[DATA, 3, 3, 0, 1, 7],
        &[ALERT, 3, 3, 0, 2, 2, 40],
        &[22, 3, 1, 255, 255, 1],
        &[255; 20_000],
    ] {
        for cut in [1, 3, 1460] {
            let mut peer = peer(&server());
            peer.send_cut(garbage, &[cut]);
            assert_eq!(peer.held(), 0);
            if !peer.server_finished() {
                peer.finish();
            }
            assert!(peer.server_finished(), "{garbage:?}");
            let answer = peer.received();
            assert!(answer.is_empty() || answer[0] == ALERT && answer.len() == 7, "{garbage:?}: {answer:?}");
            assert_eq!(peer.counters_mut().tls_handshakes_failed, 1, "{garbage:?}");
            peer.pass(Duration::from_secs(6));
            assert!(peer.server_aborted());
        }
    }
}

/// P2: a handshake whose messages never end.
#[test]
fn an_endless_client_hello_is_cut_off() {
    let mut peer = peer(&server());
    // A message of 60,000 octets, in records of 100.
    peer.send(&[&[22, 3, 1, 0, 100, 1, 0, 0xea, 0x60][..], &[0; 96]].concat());
    for _ in 0..170 {
        peer.send(&[&[22, 3, 1, 0, 100][..], &[0; 100]].concat());
    }
    assert!(peer.server_finished());
    assert_eq!(peer.counters_mut().tls_handshakes_failed, 1);
    assert_eq!(peer.held(), 0);
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    for cut in [1, 1460] {
        let mut peer = peer(&server());
        peer.send_cut(HELLO, &[cut]);
        assert_eq!(peer.received(), USE_HTTPS);
        assert!(peer.server_finished());
    }
    let text = std::str::from_utf8(USE_HTTPS).expect("ASCII");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
}

/// RFC 7301 §3.2.
#[test]
fn a_client_that_speaks_only_another_protocol_is_refused() {
    for version in BOTH {
        let mut config = client_config(ecdsa(), &[version]);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = Client::new(config, peer(&server()));
        let refused = client.talk().expect_err("an alert");
        assert_eq!(refused, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
        assert!(client.peer.server_finished());
        let mut config = client_config(ecdsa(), &[version]);
        config.alpn_protocols = Vec::new();
        let mut client = Client::new(config, peer(&server()));
        client.talk().expect("who says nothing takes what there is");
        assert_eq!(client.ask(HELLO), HELLO_ANSWER);
    }
}

/// H1: octets that trickle don't prolong it.
#[test]
fn h1_a_handshake_that_takes_too_long_is_reset() {
    let mut peer = peer(&server());
    for octet in [22, 3, 1, 2, 0, 1, 0] {
        peer.send(&[octet]);
        peer.pass(Duration::from_millis(1400));
        assert!(!peer.server_aborted());
    }
    peer.pass(Duration::from_millis(300));
    assert!(peer.server_aborted());
    assert_eq!(peer.counters_mut().tls_handshake_timeouts, 1);
    // Who is through has the application's deadlines.
    let mut client = Client::connect(&TLS13);
    client.ask(HELLO);
    client.peer.pass(Duration::from_secs(60));
    assert!(!client.peer.server_aborted() && !client.peer.server_finished());
}

/// A turn of the loop signs once with RSA; the rest of the handshake waits for the next ones.
#[test]
fn handshakes_wait_for_their_turn() {
    let mut client = Client::new(client_config(rsa(), &[&TLS12]), peer(&server_of(rsa())));
    client.peer.hold_acks(true);
    client.talk().expect("the first flight");
    assert!(client.tls.is_handshaking());
    // The key exchange and the Finished each wait for a turn of their own.
    let mut turns = 0;
    while client.tls.is_handshaking() {
        assert!(client.peer.turn(), "nobody waits, and the handshake isn't done");
        let back = client.peer.take();
        client.hear(&back).expect("goes on");
        client.talk().expect("goes on");
        turns += 1;
    }
    assert_eq!(turns, 2);
    client.peer.hold_acks(false);
    assert_eq!(client.ask(HELLO), HELLO_ANSWER);
    assert!(!client.peer.turn_and_pump(), "nobody waits any more");
}

fn refused(certificate: &Path, key: &Path) -> String {
    let line = Server::load(certificate, key).expect_err("must be refused");
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn mistakes_in_the_files_are_named() {
    let (own, other) = (ecdsa(), rsa());
    let missing = Path::new("/nonexistent/cert.pem");
    let line = refused(missing, &own.key);
    assert!(line.starts_with("--tls-cert /nonexistent/cert.pem: No such file"), "{line}");
    assert!(refused(&own.certificate, missing).starts_with("--tls-key /nonexistent/cert.pem: No such file"));
    assert!(refused(&own.key, &own.key).contains("no certificate in it"));
    assert!(refused(&own.certificate, &own.certificate).contains("no private key in it"));
    assert!(refused(&own.certificate, &other.key).contains("isn't the key of the certificate"));
    let scratch = own.key.with_file_name("scratch.pem");
    let with = |text: &str| {
        std::fs::write(&scratch, text).expect("scratch");
        scratch.clone()
    };
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(refused(&own.certificate, &with(encrypted)).contains("openssl pkey"));
    let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    assert!(refused(&with(broken), &own.key).contains("not valid PEM"));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(refused(&with(nonsense), &own.key).contains("can't be used"));
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(refused(&own.certificate, &with(key)).contains("give an ECDSA"));
    assert!(!server_of(own).has_slow_key() && !server_of(other).has_slow_key());
    let slow = identity("slow", &["rsa:3072"]);
    assert!(server_of(&slow).has_slow_key());
}
