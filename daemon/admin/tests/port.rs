//! The admin port against curl and a rustls client, over loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use moat_admin::{
    Answer, Authority, Call, Certificates, Daemon, Health, Identity, Limits, Refusal, SignedIn, Standing,
    Stay, serve, site,
};
use moat_protocol::control::{Fault, Key, Proof, Reply, Request, Seal, Slot, Update};
use moat_rights::{Act, Role, Roles};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A daemon that knows one account. What the real one answers is tried in `moatd/tests/admin.rs`.
struct Fixed {
    sealed: bool,
}

fn no(message: &str) -> Refusal {
    Refusal { fault: Fault::Request, message: message.to_owned() }
}

impl Daemon for Fixed {
    fn health(&self) -> Health {
        let slots = vec![Slot { id: 1, kind: "2 of 3 shares".to_owned() }];
        let seal = Seal { sealed: self.sealed, made: true, slots, ..Seal::default() };
        Health { version: "<1>".to_owned(), sealed: self.sealed, set_up: true, seal, ..Health::default() }
    }

    fn seals(&self) -> u64 {
        0
    }

    fn is_ending(&self) -> bool {
        false
    }

    fn description(&self) -> Answer {
        Answer { status: 200, body: b"{\"openapi\":\"3.1.0\"}".to_vec() }
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            match call.key {
                Some(_) => Answer { status: 200, body: call.body },
                None => Answer::problem(401, "no key"),
            }
        })
    }

    fn unseal(&self, _from: IpAddr, _with: Key) -> BoxFuture<'static, Result<Seal, Refusal>> {
        Box::pin(async { Err(no("it is <wrong>")) })
    }

    fn invited(&self, _from: IpAddr, _request: Request) -> BoxFuture<'static, Result<Reply, Refusal>> {
        Box::pin(async { Err(no("nobody is invited")) })
    }

    fn sign_in(&self, _from: IpAddr, proof: Proof) -> BoxFuture<'static, Result<SignedIn, Refusal>> {
        let right = proof.password.0 == "right";
        let ada = SignedIn { account: "1".to_owned(), name: "ada <b>".to_owned(), credentials: [0; 32] };
        Box::pin(async move { if right { Ok(ada) } else { Err(no("ada is closed")) } })
    }

    fn sign_out(&self, _from: IpAddr, _person: &SignedIn) {}

    fn refused(&self, _from: IpAddr, _person: &SignedIn, _act: Act) {}

    fn standing(&self, _person: &SignedIn) -> Result<Standing, Refusal> {
        Ok(Standing { roles: Roles::of(&[Role::Viewer]) })
    }

    fn ask(
        &self,
        _from: IpAddr,
        _person: &SignedIn,
        _request: Request,
        _updates: Option<tokio::sync::mpsc::Sender<Update>>,
    ) -> BoxFuture<'static, Result<Reply, Refusal>> {
        Box::pin(async { Ok(Reply::Status(Default::default())) })
    }
}

const STAY: Stay = Stay { idle: Duration::from_secs(2), whole: Duration::from_secs(600) };

struct Port {
    address: std::net::SocketAddr,
    authority: Authority,
    certificates: Arc<Certificates>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Port {
    fn open(limits: Limits, clients: Option<&Path>) -> Self {
        Self::of(Fixed { sealed: true }, limits, clients)
    }

    fn of(daemon: Fixed, limits: Limits, clients: Option<&Path>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let authority = Authority::new("rack-1").unwrap();
        let identity = authority.issue(&["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificates = Certificates::new(identity);
        let tls = certificates.tls(clients).unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let ended = async { drop(ended.await) };
            runtime.block_on(serve(socket, tls, limits, site(Arc::new(daemon), STAY, true), ended)).unwrap();
        });
        Self { address, authority, certificates, end: Some(end), server: Some(server) }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    fn curl(&self, arguments: &[&str], path: &str) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let authority = folder.path().join("ca.pem");
        std::fs::write(&authority, self.authority.certificate()).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"])
            .arg(&authority);
        let output = curl.args(arguments).arg(self.url(path)).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        drop(self.end.take());
        self.server.take().unwrap().join().unwrap();
    }
}

/// One request over a connection that stays open; the answer's first line.
fn ask(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> String {
    stream.write_all(b"GET /icon.svg HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let text = String::from_utf8(answer).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    text.lines().next().unwrap().to_owned()
}

#[test]
fn a_browser_s_client_reads_the_page_under_the_box_s_own_authority() {
    let port = Port::open(Limits::default(), None);
    let (ok, page) = port.curl(&["--include"], "/");
    assert!(ok, "{page}");
    assert!(page.starts_with("HTTP/2 200"), "{page}");
    assert!(page.contains("Sealed") && page.contains("&lt;1&gt;") && !page.contains("<1>"), "{page}");
    assert!(
        page.contains("content-security-policy: default-src 'none'") && page.contains("no-store"),
        "{page}"
    );
    assert!(!page.contains("http://"), "{page}");
    // Everything that a page is made with is here, and nothing else may run or be loaded.
    let policy = page.lines().find(|line| line.starts_with("content-security-policy")).unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    let named = page.split("src=\"").skip(1).chain(page.split("href=\"").skip(1));
    for wanted in named.map(|rest| rest.split('"').next().unwrap()).filter(|wanted| !wanted.starts_with('#'))
    {
        let (_, found) = port.curl(&["--output", "/dev/null", "--write-out", "%{http_code}"], wanted);
        assert_eq!(found, "200", "{wanted}");
    }
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "{page}");
    let (_, health) = port.curl(&["--http1.1", "--write-out", " %{http_code}"], "/api/v1/health");
    assert!(health.contains("\"sealed\":true") && health.ends_with(" 503"), "{health}");
    let (_, missing) = port.curl(&["--write-out", " %{http_code}"], "/etc/passwd");
    assert!(missing.ends_with(" 404"), "{missing}");
    // A tool is told by problems (RFC 9457), whatever it does wrong.
    let large = "x".repeat(64);
    for (arguments, path, status, besides) in [
        (&["--data", "{}"][..], "/api/v1/status", 401, "www-authenticate: Bearer"),
        (&[], "/api/v1/status", 405, "allow: POST"),
        (&[], "/api/v2/status", 404, ""),
        (&["--data", "{}"], "/api/v1/a/b", 404, ""),
        (&["--data", &large, "--header", "Content-Length: 9999999"], "/api/v1/status", 413, ""),
    ] {
        let (_, answer) = port.curl(&[&["--include", "--http1.1"][..], arguments].concat(), path);
        let said = answer.contains(&format!("HTTP/1.1 {status} "))
            && answer.contains("content-type: application/problem+json")
            && answer.contains(&format!("\"status\":{status}"))
            && answer.contains(besides);
        assert!(said, "{path} {answer}");
    }
    let (_, whole) = port.curl(&[], "/api/v1/openapi.json");
    assert!(whole.contains("\"openapi\":\"3.1"), "{whole}");
    // Every answer says so, one that says no too.
    for (arguments, path) in [
        (&[][..], "/sign-in"),
        (&[], "/nowhere"),
        (&["--data", "x=1"], "/unseal"),
        (&[], "/icon.svg"),
        (&[], "/live/unseal"),
        (&["--data", "{}"], "/api/v1/status"),
    ] {
        let head = ["--dump-header", "-", "--output", "/dev/null", "--max-time", "2"];
        let (_, answer) = port.curl(&[&head[..], arguments].concat(), path);
        for said in [
            "content-security-policy: default-src 'none'",
            "strict-transport-security: max-age=31536000",
            "x-content-type-options: nosniff",
            "referrer-policy: same-origin",
            "cross-origin-opener-policy: same-origin",
        ] {
            assert!(answer.contains(said), "{path} {answer}");
        }
        assert!(answer.contains("cache-control: no-store") || path == "/icon.svg", "{path} {answer}");
    }
    let (_, written) = port.curl(&["--write-out", " %{http_code}", "--data", "x=1"], "/");
    assert!(written.ends_with(" 405"), "{written}");
}

#[test]
fn older_protocols_and_strangers_authorities_are_refused() {
    let port = Port::open(Limits::default(), None);
    let (ok, message) = port.curl(&["--tls-max", "1.2"], "/");
    assert!(!ok, "{message}");
    let other = Port::open(Limits::default(), None);
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("ca.pem");
    std::fs::write(&stranger, other.authority.certificate()).unwrap();
    let (ok, message) = port.curl(&["--cacert", &stranger.display().to_string()], "/");
    assert!(!ok, "{message}");
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_leaves_open_ones_alone() {
    let port = Port::open(Limits::default(), None);
    let mut before = port.connect();
    assert!(ask(&mut before).contains("200"));
    let shown = before.conn.peer_certificates().unwrap()[0].clone();
    port.certificates.replace(port.authority.issue(&["localhost".to_owned()]).unwrap());
    let mut after = port.connect();
    assert!(ask(&mut after).contains("200"));
    assert_ne!(after.conn.peer_certificates().unwrap()[0], shown);
    assert!(ask(&mut before).contains("200"));
}

#[test]
fn a_restored_authority_issues_what_its_certificate_vouches_for() {
    let mut port = Port::open(Limits::default(), None);
    let kept = &port.authority;
    let restored = Authority::restore(kept.machine(), kept.certificate(), &kept.key()).unwrap();
    port.certificates.replace(restored.issue(&["localhost".to_owned()]).unwrap());
    port.authority = restored;
    assert!(port.curl(&[], "/").0);
    assert!(Authority::restore("rack-1", port.authority.certificate(), b"no key").is_err());
}

#[test]
fn with_a_clients_authority_only_its_clients_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let clients = folder.path().join("clients.pem");
    std::fs::write(&clients, Authority::new("clients").unwrap().certificate()).unwrap();
    let port = Port::open(Limits::default(), Some(&clients));
    let (ok, message) = port.curl(&[], "/");
    assert!(!ok, "{message}");
}

#[test]
fn who_dawdles_or_sends_too_much_or_comes_too_often_is_cut_off() {
    let limits = Limits { patience: Duration::from_secs(1), connections_of_one: 3, ..Limits::default() };
    let port = Port::open(limits, None);

    // No handshake, and headers that never end.
    let mut silent = TcpStream::connect(port.address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
    let mut slow = port.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ").unwrap();
    slow.flush().unwrap();
    let mut rest = String::new();
    drop(slow.read_to_string(&mut rest));
    assert!(!rest.contains("200"), "{rest}");

    let long = format!("x-long: {}", "a".repeat(64 << 10));
    for version in ["--http1.1", "--http2"] {
        let (ok, answer) = port.curl(&[version, "--header", &long, "--write-out", " %{http_code}"], "/");
        assert!(!ok || answer.ends_with(" 431"), "{version} {answer}");
    }

    // A body that never ends.
    let mut half = port.connect();
    let form = "content-type: application/x-www-form-urlencoded";
    write!(half, "POST /unseal HTTP/1.1\r\nhost: localhost\r\n{form}\r\ncontent-length: 9\r\n\r\nshare")
        .unwrap();
    half.flush().unwrap();
    let mut answer = [0; 12];
    half.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    drop(half);

    let mut inside: Vec<_> = (0..3).map(|_| port.connect()).collect();
    for stream in &mut inside {
        assert!(ask(stream).contains("200"));
    }
    let mut fourth = TcpStream::connect(port.address).unwrap();
    fourth.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let closed = matches!(fourth.read(&mut [0; 8]), Ok(0) | Err(_));
    assert!(closed);
    drop(inside);
}

#[test]
fn the_site_s_own_certificate_is_read_and_a_wrong_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let make = |name: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"]);
        openssl.arg(path(&format!("{name}.key"))).arg("-out").arg(path(&format!("{name}.pem")));
        assert!(openssl.output().unwrap().status.success());
    };
    make("one");
    make("two");
    let port = Port::open(Limits::default(), None);
    port.certificates.replace(Identity::read(&path("one.pem"), &path("one.key")).unwrap());
    let (ok, message) = port.curl(&["--cacert", &path("one.pem").display().to_string()], "/");
    assert!(ok, "{message}");
    let mixed = Identity::read(&path("one.pem"), &path("two.key")).unwrap_err();
    assert!(mixed.to_string().contains("do not fit"), "{mixed}");
    let swapped = Identity::read(&path("one.key"), &path("one.key")).unwrap_err();
    assert!(swapped.to_string().contains("one.key holds no certificate"), "{swapped}");
    let missing = Identity::read(&path("three.pem"), &path("one.key")).unwrap_err();
    assert!(missing.to_string().contains("three.pem"), "{missing}");
}

/// What a browser keeps between two requests.
#[derive(Default)]
struct Browser {
    cookies: std::collections::BTreeMap<String, String>,
    token: String,
}

impl Browser {
    /// One request; its status and its answer. Keeps the cookies, and the token of the page's forms.
    fn ask(&mut self, port: &Port, arguments: &[&str], path: &str) -> (u16, String) {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let header = format!("Cookie: {}", cookies.join("; "));
        let all = [&["--include", "--header", &header], arguments].concat();
        let (ok, answer) = port.curl(&all, path);
        assert!(ok, "{answer}");
        for line in answer.lines().filter_map(|line| line.strip_prefix("set-cookie: ")) {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            assert!(
                line.contains("; Path=/; Secure; HttpOnly; SameSite=Strict") && name.starts_with("__Host-"),
                "{line}"
            );
            // What is to be forgotten is sent empty.
            match value {
                "" => self.cookies.remove(name),
                value => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        if let Some(token) = answer.split("name=\"token\" value=\"").nth(1) {
            self.token = token.split('"').next().unwrap().to_owned();
        }
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    fn post(&mut self, port: &Port, fields: &str, path: &str) -> (u16, String) {
        let body = format!("token={}&{fields}", self.token);
        self.ask(port, &["--data", &body], path)
    }
}

#[test]
fn a_browser_is_signed_in_with_a_new_cookie_and_out_by_silence() {
    let port = Port::of(Fixed { sealed: false }, Limits::default(), None);
    let mut browser = Browser::default();
    assert_eq!(browser.ask(&port, &[], "/sign-in").0, 200);
    let before = browser.cookies.clone();
    let (status, wrong) = browser.post(&port, "name=ada&password=wrong&code=1", "/sign-in");
    assert!(status == 422 && wrong.contains("wrong") && !wrong.contains("closed"), "{wrong}");
    let (status, right) = browser.post(&port, "name=ada&password=right&code=1", "/sign-in");
    assert!(status == 303 && right.contains("location: /"), "{right}");
    assert!(!before.values().any(|value| value == &browser.cookies["__Host-moat"]));
    let (status, page) = browser.ask(&port, &[], "/");
    assert!(status == 200 && page.contains("Overview") && page.contains("ada &lt;b&gt;"), "{page}");
    assert!(!page.contains("ada <b>"));
    // A page that keeps itself up to date does not keep its reader signed in, and ends with the session.
    let (status, events) = browser.ask(&port, &["--no-buffer"], "/live/overview");
    assert!(
        status == 200 && events.contains("event: part") && events.ends_with("event: over\ndata: \n\n"),
        "{events}"
    );
    assert_eq!(browser.ask(&port, &[], "/").1.matches("Overview").count(), 0);
    assert_eq!(browser.ask(&port, &[], "/boundary").0, 303);
    assert_eq!(browser.ask(&port, &[], "/live/overview").0, 401);
}

#[test]
fn strangers_who_watch_take_nothing_from_each_other() {
    let port = Port::open(Limits { connections_of_one: 64, ..Limits::default() }, None);
    let watch = || {
        let mut stream = port.connect();
        stream.write_all(b"GET /live/unseal HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let (mut told, mut part) = (String::new(), [0; 4096]);
        while !told.contains("event: part") && !told.contains("retry: ") {
            let length = stream.read(&mut part).unwrap();
            assert_ne!(length, 0, "{told}");
            told.push_str(&String::from_utf8_lossy(&part[..length]));
        }
        (stream, told)
    };
    let mut all: Vec<_> = (0..33).map(|_| watch()).collect();
    // Whoever finds no seat is told to come back, by an answer that lets the page be.
    let (_stream, told) = all.pop().unwrap();
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("retry: 20000"), "{told}");
    assert!(all.iter().all(|(_, told)| told.contains("event: part")));
}

#[test]
fn a_form_from_elsewhere_is_refused_and_tries_are_counted() {
    let port = Port::open(Limits::default(), None);
    let mut browser = Browser::default();
    browser.ask(&port, &[], "/unseal");
    let own = format!("token={}&share=x", browser.token);
    let mut other = Browser::default();
    other.ask(&port, &[], "/unseal");
    let others = format!("token={}&share=x", other.token);
    for arguments in [
        &["--data", "share=x"][..],
        &["--data", "token=&share=x"],
        &["--data", &others],
        &["--data", &own, "--header", "Origin: https://elsewhere.example"],
        &["--data", &own, "--header", "Sec-Fetch-Site: cross-site"],
        &["--data", &own, "--header", "Content-Type: text/plain"],
    ] {
        assert_eq!(browser.ask(&port, arguments, "/unseal").0, 403, "{arguments:?}");
    }
    // Without any cookie the token alone is worth nothing.
    assert_eq!(Browser::default().ask(&port, &["--data", &own], "/unseal").0, 403);
    for _ in 0..5 {
        let (status, page) = browser.post(&port, "share=x", "/unseal");
        assert!(status == 422 && page.contains("it is &lt;wrong&gt;"), "{page}");
    }
    let (status, page) = browser.post(&port, "share=x", "/unseal");
    assert!(status == 429 && page.contains("retry-after: "), "{page}");
}
