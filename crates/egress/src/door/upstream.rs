//! Connections to far sides: exactly the addresses that were judged, TLS with the name that was
//! matched, one request at a time.
//!
//! Absent: resolution, and trust in anything but the given roots.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Context;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Inner;
use super::body::Body;
use crate::list::Scheme;
use crate::meter::{Activity, Meter, Metered};
use crate::target::{Host, Target};

/// Why trust in far sides could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The machine's own authorities can't be used.
    #[error("the machine's certificate authorities can't be used; install the system's ca-certificates")]
    System(#[source] rustls::Error),
    /// The given authorities can't be read.
    #[error("the given certificate authorities can't be read")]
    Read(#[source] rustls::pki_types::pem::Error),
    /// An authority is not fit to be trusted.
    #[error("a given certificate can't be an authority")]
    Unfit(#[source] rustls::Error),
}

/// Whom a door trusts as far side. Cheap to clone; make it once for all doors.
#[derive(Debug, Clone)]
pub struct UpstreamTls(Arc<rustls::ClientConfig>);

impl UpstreamTls {
    /// Whom the machine trusts.
    ///
    /// # Errors
    /// [`TrustError::System`]
    pub fn system() -> Result<Self, TrustError> {
        let builder = builder().map_err(TrustError::System)?;
        let builder = builder.with_platform_verifier().map_err(TrustError::System)?;
        Ok(Self(Arc::new(http1_only(builder.with_no_client_auth()))))
    }

    /// Only these authorities, as PEM.
    ///
    /// # Errors
    /// [`TrustError`]
    pub fn trusting(pem: &str) -> Result<Self, TrustError> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(TrustError::Read)?).map_err(TrustError::Unfit)?;
        }
        let builder = builder().map_err(TrustError::Unfit)?.with_root_certificates(roots);
        Ok(Self(Arc::new(http1_only(builder.with_no_client_auth()))))
    }
}

type Builder = rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>;

fn builder() -> Result<Builder, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn http1_only(mut config: rustls::ClientConfig) -> rustls::ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Where a connection leads and under which permission it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub scheme: Scheme,
    pub target: Target,
    pub private: bool,
}

/// What goes wrong on the way to a far side, in words for the box.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection to {host}: {source}")]
    Connect {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no connection to {host} in time")]
    Timeout { host: String },
    #[error("TLS with {host}: {source}")]
    Tls {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("HTTP with {host}: {source}")]
    Http {
        host: String,
        #[source]
        source: hyper::Error,
    },
}

/// A TCP connection to the first of these addresses that answers.
pub(super) async fn dial(
    inner: &Inner,
    activity: &Arc<Activity>,
    target: &Target,
    addresses: &[SocketAddr],
) -> Result<(Metered<TcpStream>, SocketAddr, Arc<Meter>), Failure> {
    let host = || target.host.to_string();
    let mut failure = Failure::Timeout { host: host() };
    for address in addresses {
        match timeout(inner.limits.connect, TcpStream::connect(*address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                let meter = Arc::new(Meter::outward(&inner.total, activity));
                return Ok((Metered::new(stream, Arc::clone(&meter)), *address, meter));
            }
            Ok(Err(source)) => failure = Failure::Connect { host: host(), source },
            Err(_) => failure = Failure::Timeout { host: host() },
        }
    }
    Err(failure)
}

/// A connection that speaks HTTP.
pub(super) struct Upstream {
    sender: http1::SendRequest<Body>,
    /// Gone when the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    pub meter: Arc<Meter>,
    pub address: SocketAddr,
    pub route: Route,
}

impl Upstream {
    /// Connects to the addresses of a route.
    pub(super) async fn open(
        inner: &Inner,
        activity: &Arc<Activity>,
        route: Route,
        addresses: &[SocketAddr],
    ) -> Result<Self, Failure> {
        let host = || route.target.host.to_string();
        let (stream, address, meter) = dial(inner, activity, &route.target, addresses).await?;
        let http = |source| Failure::Http { host: host(), source };
        let (sender, driver) = match route.scheme {
            // Nothing is asked by HTTP where an entry says `tcp`.
            Scheme::Http | Scheme::Tcp => {
                let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
                (sender, Box::pin(driver.with_upgrades()) as Pin<Box<dyn Future<Output = _> + Send>>)
            }
            Scheme::Https => {
                let tls = TlsConnector::from(Arc::clone(&inner.upstream.0));
                let name = server_name(&route.target.host).map_err(|source| Failure::Tls { host: host(), source })?;
                let stream = timeout(inner.limits.connect, tls.connect(name, stream))
                    .await
                    .map_err(|_| Failure::Timeout { host: host() })?
                    .map_err(|source| Failure::Tls { host: host(), source })?;
                let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
                (sender, Box::pin(driver.with_upgrades()) as Pin<Box<dyn Future<Output = _> + Send>>)
            }
        };
        Ok(Self { sender, driver: Some(driver), meter, address, route })
    }

    /// Lets the connection do what it can; to be called whenever something waits for it.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let host = self.route.target.host.to_string();
        let mut answer = pin!(self.sender.send_request(request));
        let driver = &mut self.driver;
        let answer = poll_fn(|cx| {
            if let Some(running) = driver.as_mut()
                && running.as_mut().poll(cx).is_ready()
            {
                *driver = None;
            }
            answer.as_mut().poll(cx)
        });
        answer.await.map_err(|source| Failure::Http { host, source })
    }

    /// Whether it can take another request: waits until the last one is through.
    pub(super) async fn is_ready(&mut self) -> bool {
        let mut ready = pin!(self.sender.ready());
        let driver = &mut self.driver;
        let ready = poll_fn(|cx| {
            if let Some(running) = driver.as_mut()
                && running.as_mut().poll(cx).is_ready()
            {
                *driver = None;
            }
            ready.as_mut().poll(cx)
        });
        ready.await.is_ok()
    }
}

fn server_name(host: &Host) -> std::io::Result<ServerName<'static>> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(std::io::Error::other),
    }
}
