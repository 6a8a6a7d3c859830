//! A world around one door: far sides with real TLS on loopback, a resolver that knows their names,
//! a book of records, and a client that speaks through the socket.
#![allow(dead_code, reason = "each test file uses its part of the world")]

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use egress::*;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

/// What no box, record or answer may ever show.
pub const CANARY: &str = "canary-7f3a9c51e2d84b60";

#[derive(Default)]
pub struct Book(Mutex<Vec<EgressRecord>>);

impl Audit for Book {
    fn record(&self, record: EgressRecord) {
        self.0.lock().unwrap().push(record);
    }
}

pub struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }
}

/// Names and, one after another, what they lead to; the last answer stays.
#[derive(Default)]
pub struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>, pub AtomicUsize, Mutex<BTreeSet<String>>);

impl Names {
    /// Every name that was ever asked for.
    pub fn asked(&self) -> Vec<String> {
        self.2.lock().unwrap().iter().cloned().collect()
    }

    pub fn set(&self, name: &str, answers: &[&[&str]]) {
        let answers = answers.iter().map(|answer| answer.iter().map(|a| a.parse().unwrap()).collect()).collect();
        self.0.lock().unwrap().insert(name.to_owned(), answers);
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.2.lock().unwrap().insert(name.to_owned());
        let mut names = self.0.lock().unwrap();
        match names.get_mut(name) {
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            None if name.ends_with(".test") => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

#[derive(Default)]
pub struct Vault(pub Mutex<HashMap<String, String>>);

#[async_trait]
impl SecretSource for Vault {
    async fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        self.0.lock().unwrap().get(name).map(Secret::new).ok_or(SecretError::Missing)
    }
}

/// A certificate authority for far sides.
pub struct Trust {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Trust {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "far sides");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    pub fn server(&self, names: &[&str]) -> Arc<rustls::ServerConfig> {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

/// A request as a far side saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub type Answering = dyn Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync;

/// A far side.
#[derive(Clone)]
pub struct Far {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
}

impl Far {
    pub async fn start(tls: Option<Arc<rustls::ServerConfig>>, answering: Arc<Answering>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far =
            Self { port: listener.local_addr().unwrap().port(), seen: Arc::default(), connections: Arc::default() };
        let this = far.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                this.connections.fetch_add(1, Ordering::SeqCst);
                let (this, answering, tls) = (this.clone(), Arc::clone(&answering), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => this.serve(stream, answering).await,
                        Some(tls) => {
                            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                                this.serve(stream, answering).await;
                            }
                        }
                    }
                });
            }
        });
        far
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, answering: Arc<Answering>) {
        let service = hyper::service::service_fn(|request: Request<Incoming>| async {
            let (parts, body) = request.into_parts();
            let headers = parts
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
            let seen = Seen { line: format!("{} {}", parts.method, parts.uri), headers, body };
            let answer = answering(&seen);
            self.seen.lock().unwrap().push(seen);
            Ok::<_, Infallible>(answer)
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Answers with what it was asked.
pub fn echo() -> Arc<Answering> {
    Arc::new(|seen: &Seen| {
        let headers: Vec<String> = seen.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        Response::builder()
            .header("x-reflected", seen.header("authorization").unwrap_or("none"))
            .body(Full::new(Bytes::from(format!("{}\n{}\n", seen.line, headers.join("\n")))))
            .unwrap()
    })
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub book: Arc<Book>,
    pub names: Arc<Names>,
    pub vault: Arc<Vault>,
    pub trust: Trust,
    pub authority: Arc<BoxAuthority>,
    pub limits: Limits,
    pub never: Vec<SocketAddr>,
    pub known: KnownValues,
}

impl World {
    pub fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            book: Arc::default(),
            names: Arc::default(),
            vault: Arc::default(),
            trust: Trust::new(),
            authority: Arc::new(BoxAuthority::generate("b1", Noon.now()).unwrap()),
            limits: Limits::default(),
            never: Vec::new(),
            known: KnownValues::default(),
        };
        world.vault.0.lock().unwrap().insert("TOKEN".to_owned(), CANARY.to_owned());
        world
    }

    pub fn door(&self, entries: &str) -> Door {
        #[derive(serde::Deserialize)]
        struct File {
            #[serde(default)]
            allow: Vec<AllowEntry>,
        }
        let file: File = toml::from_str(entries).unwrap();
        self.door_with(AllowList::new(file.allow).unwrap())
    }

    pub fn door_with(&self, list: AllowList) -> Door {
        Door::open(DoorConfig {
            box_id: "b1".to_owned(),
            folder: self.folder.path().join("door"),
            list,
            resolver: Arc::clone(&self.names) as Arc<dyn Resolver>,
            secrets: Arc::clone(&self.vault) as Arc<dyn SecretSource>,
            audit: Arc::clone(&self.book) as Arc<dyn Audit>,
            clock: Arc::new(Noon),
            upstream: UpstreamTls::trusting(&self.trust.pem).unwrap(),
            authority: Some(Arc::clone(&self.authority)),
            never: self.never.clone(),
            known: self.known.clone(),
            limits: self.limits.clone(),
        })
        .unwrap()
    }

    /// A far side with TLS, called `far.test`, that echoes.
    pub async fn far(&self) -> Far {
        Far::start(Some(self.trust.server(&["far.test", "other.test"])), echo()).await
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("door").join(SOCKET_NAME)
    }

    /// Sends bytes through the door and reads until it closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out).await;
        String::from_utf8_lossy(&out).into_owned()
    }

    /// One request by its absolute address, with further header lines.
    pub async fn get(&self, address: &str, headers: &str) -> String {
        let host = address.split('/').nth(2).unwrap();
        self.raw(format!("GET {address} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").as_bytes())
            .await
    }

    /// A tunnel, if it is granted; otherwise the answer.
    pub async fn connect(&self, target: &str) -> Result<UnixStream, String> {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut out = Vec::new();
        while !out.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            out.extend(byte);
        }
        if out.starts_with(b"HTTP/1.1 200") {
            return Ok(stream);
        }
        let _ = stream.read_to_end(&mut out).await;
        Err(String::from_utf8_lossy(&out).into_owned())
    }

    /// One GET inside of TLS inside of a tunnel, trusting `roots`, naming `sni`.
    pub async fn inside(&self, tunnel: &str, sni: &str, roots: &str, request: &str) -> io::Result<String> {
        let stream = self.connect(tunnel).await.map_err(io::Error::other)?;
        let mut store = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject as _;
        store.add(rustls::pki_types::CertificateDer::from_pem_slice(roots.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(sni.to_owned()).unwrap();
        let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        tls.write_all(request.as_bytes()).await?;
        let mut out = Vec::new();
        let _ = tls.read_to_end(&mut out).await;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// All records so far, once there are as many. The last one of a request is written after its
    /// answer was read.
    pub async fn records(&self, count: usize) -> Vec<EgressRecord> {
        for _ in 0..2000 {
            if self.book.0.lock().unwrap().len() >= count {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let records = self.book.0.lock().unwrap().clone();
        assert_eq!(records.len(), count, "{records:#?}");
        let written = serde_json::to_string(&records).unwrap();
        assert!(!written.contains(CANARY), "{written}");
        records
    }

    /// Lets programs that know only TCP use the door, as the forwarder in a box does.
    pub async fn forwarder(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = self.socket();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let socket = socket.clone();
                tokio::spawn(async move {
                    if let Ok(mut door) = UnixStream::connect(socket).await {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut door).await;
                    }
                });
            }
        });
        address
    }
}

/// The reason in a refusal.
pub fn reason(answer: &str) -> &str {
    answer
        .lines()
        .find_map(|line| line.strip_prefix("x-chargehand-denied: "))
        .unwrap_or_else(|| panic!("no refusal: {answer}"))
}

impl World {
    /// How many records there are once no more come: every request of a program that ended is
    /// recorded a moment after its answer.
    pub fn book_len(&self) -> usize {
        std::thread::sleep(std::time::Duration::from_millis(200));
        self.book.0.lock().unwrap().len()
    }

    /// The records as they are now.
    pub fn book_now(&self) -> Vec<EgressRecord> {
        self.book.0.lock().unwrap().clone()
    }

    /// Sends bytes, says that no more come, and reads until the door closes.
    pub async fn half_closed(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // The door may have refused before all was sent.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out).await;
        String::from_utf8_lossy(&out).into_owned()
    }
}
