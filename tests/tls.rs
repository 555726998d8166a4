//! https and wss as curl, openssl and a WebSocket client meet them: over kernel sockets, and over XDP on a veth pair.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use byway_lab::{Lab, LabOptions, VethOptions, is_root};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::*;
use tungstenite::{Message, WebSocket};

/// A certificate for `localhost` and its key, for the length of a test.
struct Identity(Scratch);

impl Identity {
    fn new(algorithm: &[&str]) -> Self {
        let made = Self(Scratch::new());
        byway_lab::Identity::make(&made.0.0, algorithm).expect("openssl");
        made
    }

    fn ecdsa() -> Self {
        Self::new(byway_lab::ECDSA)
    }

    fn certificate(&self) -> String {
        self.0.0.join("cert.pem").display().to_string()
    }

    fn key(&self) -> String {
        self.0.0.join("key.pem").display().to_string()
    }
}

/// What the clients are told; they run in the thread's own namespace.
struct Site<'a> {
    https: SocketAddr,
    identity: &'a Identity,
}

impl Site<'_> {
    fn curl(&self, more: &[&str], path: &str) -> Vec<u8> {
        let SocketAddr::V4(https) = self.https else { panic!("IPv4 here") };
        let port = https.port();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time", "120", "--http1.1"])
            .args(["--cacert", &self.identity.certificate()])
            .args(["--resolve", &format!("localhost:{port}:{}", https.ip())])
            .args(more)
            .arg(format!("https://localhost:{port}{path}"))
            .output()
            .expect("curl");
        assert!(output.status.success(), "curl {more:?} {path}: {output:?}");
        output.stdout
    }

    /// openssl asks for `/hello`; everything it says.
    fn s_client(&self, more: &[&str]) -> String {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &self.https.to_string(), "-servername", "localhost", "-ign_eof"])
            .args(["-CAfile", &self.identity.certificate(), "-verify_return_error", "-alpn", "h2,http/1.1"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        let request = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        child.stdin.take().expect("piped").write_all(request).expect("writes");
        if wait(&mut child, PATIENCE).is_none() {
            child.kill().expect("kills");
            panic!("openssl {more:?} goes on: {:?}", child.wait_with_output());
        }
        let output = child.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "openssl {more:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    fn websocket(&self) -> WebSocket<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.identity.certificate()).expect("PEM"))
            .expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("client");
        let stream = StreamOwned::new(tls, connect(self.https));
        tungstenite::client::client("wss://localhost/any/path", stream).expect("upgrades").0
    }

    /// Everything the clients ask for.
    fn visit(&self) {
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let version: Vec<&str> = version.split('=').collect();
            assert_eq!(self.curl(&version, "/hello"), b"hello\n", "{version:?}");
            self.curl_echoes(&version, 100_000_000);
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let ticket = self.identity.0.0.join(format!("ticket{version}")).display().to_string();
            let said = self.s_client(&[version, "-sess_out", &ticket]);
            for words in ["ALPN protocol: http/1.1", "Verify return code: 0 (ok)", "New, TLSv1", "\nhello\n"]
            {
                assert!(said.contains(words), "{version}: no {words:?} in {said}");
            }
            for _ in 0..2 {
                let said = self.s_client(&[version, "-sess_in", &ticket]);
                assert!(said.contains("Reused, TLSv1") && said.contains("\nhello\n"), "{version}: {said}");
            }
        }
        let mut socket = self.websocket();
        for len in [0, 1, 125, 126, 1400, 1448, 16_384, 65_536, 1 << 20] {
            for message in [Message::binary(random_octets(len)), Message::text("ü".repeat(len / 2))] {
                socket.send(message.clone()).expect("sends");
                assert!(socket.read().expect("an echo") == message, "{len} octets differ");
            }
        }
        socket.close(None).expect("closes");
        assert!(matches!(socket.read(), Ok(Message::Close(_))));
    }

    /// Whether a client that trusts the certificate as it lies in the file is content.
    fn is_trusted(&self) -> bool {
        let SocketAddr::V4(https) = self.https else { panic!("IPv4 here") };
        let port = https.port();
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--max-time", "20", "--cacert", &self.identity.certificate()])
            .args(["--resolve", &format!("localhost:{port}:{}", https.ip())])
            .arg(format!("https://localhost:{port}/hello"))
            .output()
            .expect("curl");
        output.status.success() && output.stdout == b"hello\n"
    }

    /// D11, P8: certificates come and go by `told`, a signal; connections stay, and a broken file changes nothing.
    fn renew(&self, told: impl Fn()) {
        let mut first = self.websocket();
        let mut talk = |len: usize| {
            let message = Message::binary(random_octets(len));
            first.send(message.clone()).expect("sends");
            assert!(first.read().expect("an echo") == message, "{len} octets differ");
        };
        talk(100);
        let ticket = self.identity.0.0.join("ticket").display().to_string();
        self.s_client(&["-sess_out", &ticket]);
        for round in 0..3 {
            byway_lab::Identity::make(&self.identity.0.0, byway_lab::ECDSA).expect("openssl");
            assert!(!self.is_trusted(), "the new certificate isn't byway's before it is told");
            (0..=round * 50).for_each(|_| told());
            assert!(eventually(PATIENCE, || self.is_trusted().then_some(())).is_some(), "round {round}");
            talk(100_000);
        }
        let said = self.s_client(&["-sess_in", &ticket]);
        assert!(said.contains("New, TLSv1"), "a ticket of the old certificate is none any more: {said}");
        // Not the certificate's key: as when one of both was written already.
        let certificate = std::fs::read(self.identity.certificate()).expect("reads");
        byway_lab::Identity::make(&self.identity.0.0, byway_lab::ECDSA).expect("openssl");
        std::fs::write(self.identity.certificate(), certificate).expect("writes");
        for broken in [None, Some("rubbish")] {
            if let Some(broken) = broken {
                std::fs::write(self.identity.key(), broken).expect("writes");
            }
            told();
            std::thread::sleep(Duration::from_millis(300));
            assert!(self.is_trusted(), "what was in force is in force");
            talk(1000);
        }
    }

    /// Eight clients at once.
    fn crowd(&self) {
        // Threads begin in the namespace of the one that starts them.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for version in ["1.2", "1.3"] {
                        assert_eq!(self.curl(&["--tls-max", version], "/hello"), b"hello\n");
                    }
                });
            }
        });
    }

    fn curl_echoes(&self, version: &[&str], len: usize) {
        let (sent, sum) = self.identity.0.random_file(len);
        let back = self.identity.0.0.join("back").display().to_string();
        let body = format!("@{}", sent.display());
        self.curl(&[version, &["--data-binary", &body, "-o", &back]].concat(), "/echo");
        let octets = std::fs::read(&back).expect("answer");
        assert_eq!((octets.len(), sha256(&octets)), (len, sum), "{version:?}");
    }
}

/// A port that nobody listens on at this moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// byway over kernel sockets. Killed when dropped.
struct Sockets {
    child: Child,
    https: SocketAddr,
    control: String,
}

impl Sockets {
    fn start(identity: &Identity) -> Self {
        Self::start_as(identity, |command| command.stderr(Stdio::inherit()))
    }

    fn start_as(identity: &Identity, prepare: impl Fn(&mut Command) -> &mut Command) -> Self {
        // Somebody may take a port before byway does: then with others.
        (0..20).find_map(|_| Self::try_start(identity, &prepare)).expect("ports")
    }

    fn try_start(identity: &Identity, prepare: &impl Fn(&mut Command) -> &mut Command) -> Option<Self> {
        let (http, https) = (free_port(), free_port());
        let control = identity.0.0.join("control.sock").display().to_string();
        let (port, tls_port) = (http.to_string(), https.to_string());
        let (certificate, key) = (identity.certificate(), identity.key());
        let mut command =
            byway(&["serve", "--backend", "kernel", "--address", "127.0.0.1/8", "--port", &port]);
        command.args(["--tls-port", &tls_port, "--tls-cert", &certificate, "--tls-key", &key]);
        command.args(["--max-connections", "100", "--control", &control]);
        let mut child = prepare(&mut command).spawn().expect("byway starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
        if ready.is_empty() {
            child.wait().expect("ends");
            return None;
        }
        assert!(ready.contains(&format!(",{https}(https)")), "{ready}");
        Some(Self { child, https: (Ipv4Addr::LOCALHOST, https).into(), control })
    }

    fn counter(&self, name: &str) -> u64 {
        let output = byway(&["stats", "--json", "--control", &self.control]).output().expect("byway starts");
        let stats = serde_json::from_slice(&output.stdout).expect("JSON");
        find_number(&stats, name).unwrap_or_else(|| panic!("no {name} in {stats}"))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// S9.4
#[test]
fn s9_4_https_and_wss_over_kernel_sockets() {
    let identity = Identity::ecdsa();
    let mut server = Sockets::start(&identity);
    Site { https: server.https, identity: &identity }.visit();
    assert_eq!(server.counter("BywayTlsHandshakesResumed"), 4);
    assert_eq!(server.counter("BywayTlsHandshakes"), 4 + 6 + 1);
    assert_eq!(server.counter("BywayTlsHandshakesFailed") + server.counter("BywayTlsBroken"), 0);
    signal(server.child.id(), libc::SIGTERM);
    assert!(wait(&mut server.child, PATIENCE).expect("ends").success());
}

/// D11, P8: and what byway says of it, on standard error and to systemd.
#[test]
fn d11_a_new_certificate_without_a_restart_over_kernel_sockets() {
    let identity = Identity::ecdsa();
    let (stderr, notify) = (identity.0.0.join("stderr"), identity.0.0.join("notify"));
    let systemd = std::os::unix::net::UnixDatagram::bind(&notify).expect("binds");
    // A queue that nobody reads is full at ten, and then who writes waits.
    let reader = std::thread::spawn(move || {
        let mut told: Vec<String> = Vec::new();
        while told.last().is_none_or(|last| last != "STOPPING=1") {
            let mut datagram = [0; 256];
            let length = systemd.recv(&mut datagram).expect("receives");
            told.push(String::from_utf8_lossy(&datagram[..length]).into_owned());
        }
        told
    });
    let mut server = Sockets::start_as(&identity, |command| {
        command.env("NOTIFY_SOCKET", &notify).stderr(std::fs::File::create(&stderr).expect("creates"))
    });
    Site { https: server.https, identity: &identity }.renew(|| signal(server.child.id(), libc::SIGHUP));
    signal(server.child.id(), libc::SIGTERM);
    assert!(wait(&mut server.child, PATIENCE).expect("ends").success());
    let said = std::fs::read_to_string(stderr).expect("reads");
    let (done, refused): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| *line == "byway: reloaded");
    assert!(done.len() >= 3, "{said}");
    let all_as_it_was = "byway: not reloaded, all is as it was: --tls-key ";
    assert!(refused.len() == 2 && refused.iter().all(|line| line.starts_with(all_as_it_was)), "{said}");
    assert!(
        refused[0].contains("isn't the key of the certificate") && refused[1].contains("no private key"),
        "{said}"
    );
    let told = reader.join().expect("no panic");
    assert_eq!(told[0], "READY=1");
    let reloads = &told[1..told.len() - 1];
    assert_eq!(reloads.len(), 2 * (done.len() + refused.len()), "{told:?}");
    for pair in reloads.chunks(2) {
        assert!(pair[0].starts_with("RELOADING=1\nMONOTONIC_USEC=") && pair[1] == "READY=1", "{pair:?}");
    }
}

#[test]
fn d11_a_new_certificate_without_a_restart_over_xdp() {
    if !is_root() {
        return;
    }
    let identity = Identity::ecdsa();
    let (lab, server) = over_xdp(&identity);
    let site = Site { https: v4(443), identity: &identity };
    lab.kernel.enter(|| site.renew(|| signal(server.pid(), libc::SIGHUP)));
    server.stop();
}

/// What may not change is named, and nothing changes.
#[test]
fn d11_what_takes_a_restart_is_refused_by_name() {
    let scratch = Scratch::new();
    let (config, stderr) = (scratch.0.join("byway.toml"), scratch.0.join("stderr"));
    let port = free_port();
    let write = |more: &str| {
        let text = format!("backend = \"kernel\"\naddress = \"127.0.0.1/8\"\nport = {port}\n{more}");
        std::fs::write(&config, text).expect("writes");
    };
    write("");
    let mut command =
        byway(&["serve", "--max-connections", "100", "--config", config.to_str().expect("UTF-8")]);
    let mut child = command.stderr(std::fs::File::create(&stderr).expect("creates")).spawn().expect("starts");
    let mut ready = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
    let upgrade = |origin: &str| {
        let mut stream = connect((Ipv4Addr::LOCALHOST, port).into());
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: {origin}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("writes");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("reads");
        line.split(' ').nth(1).map(str::to_owned)
    };
    let mut lines = 0;
    let mut reload = || {
        signal(child.id(), libc::SIGHUP);
        lines += 1;
        let said =
            || std::fs::read_to_string(&stderr).expect("reads").lines().nth(lines - 1).map(str::to_owned);
        eventually(PATIENCE, said).expect("says something")
    };
    assert_eq!(upgrade("https://a.example").as_deref(), Some("101"));
    write("origin = [\"https://b.example\"]\ndrain = \"1s\"\n");
    let said = reload();
    assert!(
        said.contains("not reloaded") && said.contains("--drain can't change while byway runs"),
        "{said}"
    );
    assert_eq!(upgrade("https://a.example").as_deref(), Some("101"), "nothing of it");
    write("origin = [\"https://b.example\"]\nport 7\n");
    let said = reload();
    assert!(said.contains("not reloaded") && said.contains("line 5"), "{said}");
    write("origin = [\"https://b.example\"]\n");
    assert_eq!(reload(), "byway: reloaded");
    let changed = || (upgrade("https://a.example").as_deref() == Some("403")).then_some(());
    assert!(eventually(PATIENCE, changed).is_some());
    assert_eq!(upgrade("https://b.example").as_deref(), Some("101"));
    signal(child.id(), libc::SIGTERM);
    assert!(wait(&mut child, PATIENCE).expect("ends").success());
}

/// An RSA key signs slowly, and a core one at a time: all of many at once are served in turn.
#[test]
fn s9_4_handshakes_with_rsa_wait_for_each_other() {
    let identity = Identity::new(&["rsa:2048"]);
    let server = Sockets::start(&identity);
    Site { https: server.https, identity: &identity }.crowd();
    assert_eq!(server.counter("BywayTlsHandshakes"), 16);
}

/// The same, where turns are the core loop's, which may sleep between them.
#[test]
fn s9_4_handshakes_with_rsa_wait_for_each_other_over_xdp() {
    if !is_root() {
        return;
    }
    let identity = Identity::new(&["rsa:2048"]);
    let (lab, server) = over_xdp(&identity);
    lab.kernel.enter(|| Site { https: v4(443), identity: &identity }.crowd());
    assert_eq!(find_number(&server.ask(&lab, "stats"), "BywayTlsHandshakes"), Some(16));
    server.stop();
}

fn over_xdp(identity: &Identity) -> (Lab, Server) {
    let veth = VethOptions { queues: 1, offloads: false, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, impair: None }).expect("a lab");
    let (certificate, key) = (identity.certificate(), identity.key());
    let tls = ["--tls-port", "443", "--tls-cert", &certificate, "--tls-key", &key];
    let server = Server::start(&lab, &[&["--attach", "native"], &tls[..]].concat());
    (lab, server)
}

/// S9.4
#[test]
fn s9_4_https_and_wss_over_xdp() {
    if !is_root() {
        return;
    }
    let identity = Identity::ecdsa();
    let (lab, server) = over_xdp(&identity);
    let site = Site { https: v4(443), identity: &identity };
    lab.kernel.enter(|| {
        // A request in one segment is opened, and its echo sealed, where it lies.
        site.curl(&["--data-binary", "a small body"], "/echo");
    });
    assert_eq!(find_number(&server.ask(&lab, "stats"), "BywayTlsBytesCopied"), Some(0));
    lab.kernel.enter(|| site.visit());
    assert_eq!(server.payload_bytes_copied(&lab), 0, "what TLS moves has its own counter");
    server.stop();
}

/// A refusal: the exit code, and one line on standard error that says `words`.
fn refuses(arguments: &[&str], code: i32, words: &[&str]) {
    let all = [&["serve", "--backend", "kernel", "--address", "127.0.0.1/8", "--check"], arguments].concat();
    let output = byway(&all).output().expect("byway starts");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{arguments:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: no {word:?} in {stderr}");
    }
}

#[test]
fn mistakes_with_certificates_are_named_with_exit_code_78() {
    let (one, other) = (Identity::ecdsa(), Identity::ecdsa());
    let (certificate, key, others) = (&one.certificate()[..], &one.key()[..], &other.key()[..]);
    let files = |certificate, key| ["--tls-port", "8443", "--tls-cert", certificate, "--tls-key", key];
    refuses(&files("/nonexistent/c.pem", key), 78, &["--tls-cert /nonexistent/c.pem", "No such file"]);
    refuses(&files(certificate, "/nonexistent/k.pem"), 78, &["--tls-key /nonexistent/k.pem", "No such file"]);
    refuses(&files(key, key), 78, &["--tls-cert", key, "no certificate"]);
    refuses(&files(certificate, certificate), 78, &["--tls-key", certificate, "no private key"]);
    refuses(&files(certificate, others), 78, &["isn't the key of the certificate", certificate]);
    refuses(&["--tls-port", "8443"], 2, &["--tls-cert", "--tls-key"]);
    refuses(&["--tls-cert", certificate], 2, &["--tls-port"]);
    refuses(&[&files(certificate, key)[..], &["--port", "8443"]].concat(), 78, &["8443", "http and https"]);
}

#[test]
fn the_config_file_takes_the_same_options() {
    let identity = Identity::ecdsa();
    let config = identity.0.0.join("byway.toml");
    let (port, tls_port) = (free_port(), free_port());
    let write = |certificate: &str, path: &Path| {
        let text = format!(
            "backend = \"kernel\"\naddress = \"127.0.0.1/8\"\nport = {port}\ntls-port = {tls_port}\ntls-cert = \
             \"{certificate}\"\ntls-key = \"{}\"\nmax-connections = 100\n",
            identity.key()
        );
        std::fs::write(path, text).expect("writes");
    };
    let check =
        || byway(&["serve", "--check", "--config", config.to_str().expect("UTF-8")]).output().expect("runs");
    write(&identity.certificate(), &config);
    let output = check();
    assert!(output.status.success(), "{output:?}");
    write("/nonexistent", &config);
    assert_eq!(check().status.code(), Some(78));
}
