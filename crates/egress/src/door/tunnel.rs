//! What a connection turns into: a blind tunnel whose TLS hello has to name the tunnel's target, an
//! opened one whose TLS ends here, or a protocol that an entry allows to be switched to.
//!
//! Absent: reading of what is inside a blind tunnel after the hello.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::serve::Session;
use super::upstream::Upstream;
use crate::audit::OpenRecord;
use crate::denial::Denial;
use crate::hello::{Hello, MAX_HELLO_BYTES, read_hello};
use crate::meter::Metered;
use crate::target::{Host, Target};

/// The port on which nothing but TLS passes a blind tunnel.
const TLS_PORT: u16 = 443;
/// How long a hello may take.
const HELLO: Duration = Duration::from_secs(30);

/// What follows after an answer.
pub(super) enum Next {
    Blind(Blind),
    Open(Opened),
    Switched(Switched),
}

/// A blind tunnel.
pub(super) struct Blind {
    pub upgrade: OnUpgrade,
    pub upstream: Metered<TcpStream>,
    pub target: Target,
    pub record: OpenRecord,
}

/// A tunnel whose TLS ends here.
pub(super) struct Opened {
    pub upgrade: OnUpgrade,
    pub target: Target,
    pub record: OpenRecord,
}

/// A switched protocol, on both sides.
pub(super) struct Switched {
    pub client: OnUpgrade,
    pub far: OnUpgrade,
    pub upstream: Upstream,
    pub record: OpenRecord,
}

/// Carries a blind tunnel to its end.
pub(super) async fn blind(blind: Blind) {
    let Blind { upgrade, mut upstream, target, mut record } = blind;
    let Ok(client) = upgrade.await else { return };
    let mut client = TokioIo::new(client);
    match first_bytes(&mut client, &upstream, &target).await {
        Ok(first) => {
            if upstream.write_all(&first).await.is_ok() {
                // How it ends is no matter: either side may just go.
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
            }
        }
        Err(denial) => record.denied(&denial),
    }
}

/// The first bytes of the box, once they are known to be allowed.
async fn first_bytes(
    client: &mut TokioIo<Upgraded>,
    upstream: &Metered<TcpStream>,
    target: &Target,
) -> Result<Vec<u8>, Denial> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let read = async { timeout(HELLO, client.read_buf(&mut bytes)).await };
        let count = if target.port == TLS_PORT {
            read.await
        } else {
            // On other ports the far side may be the one that speaks first.
            tokio::select! {
                count = read => count,
                _ = upstream.stream().readable() => return Ok(bytes),
            }
        };
        let Ok(Ok(1..)) = count else { return Ok(Vec::new()) };
        match read_hello(&bytes) {
            Hello::NeedMore if bytes.len() < MAX_HELLO_BYTES => {}
            Hello::Named(name) => return agree(name.as_deref(), target).map(|()| bytes),
            Hello::NotTls if target.port != TLS_PORT => return Ok(bytes),
            Hello::NotTls => return Err(Denial::NotTls),
            Hello::NeedMore | Hello::Broken => {
                return Err(Denial::Ambiguous { detail: "its TLS hello can't be read".to_owned() });
            }
        }
    }
}

/// Whether TLS names the server that the tunnel leads to.
fn agree(name: Option<&str>, target: &Target) -> Result<(), Denial> {
    match (name, &target.host) {
        (None, Host::Address(_)) => Ok(()),
        (None, Host::Name(_)) => Err(Denial::SniMissing),
        (Some(name), host) if Host::parse(name).is_ok_and(|named| named == *host) => Ok(()),
        (Some(_), _) => Err(Denial::SniMismatch),
    }
}

/// TLS that ended here: what the box sends is read from it.
pub(super) type Inside = TlsStream<TokioIo<Upgraded>>;

/// Ends the TLS of an opened tunnel; `None` if there is nothing to serve.
pub(super) async fn open(opened: Opened, session: &Arc<Session>) -> Option<(Inside, Target)> {
    let Opened { upgrade, target, mut record } = opened;
    let client = TokioIo::new(upgrade.await.ok()?);
    let inner = &session.inner;
    let authority = inner.authority.as_ref()?;
    let accepted = timeout(HELLO, LazyConfigAcceptor::new(rustls::server::Acceptor::default(), client)).await;
    let Ok(Ok(start)) = accepted else {
        record.denied(&Denial::NotTls);
        return None;
    };
    if let Err(denial) = agree(start.client_hello().server_name(), &target) {
        record.denied(&denial);
        return None;
    }
    let config = match authority.server_config(&target.host, inner.book.clock.now()) {
        Ok(config) => config,
        Err(error) => {
            record.failed(&error.to_string());
            return None;
        }
    };
    match timeout(HELLO, start.into_stream(config)).await {
        Ok(Ok(stream)) => Some((stream, target)),
        Ok(Err(_)) | Err(_) => {
            record.failed("the program in the box did not accept the box's certificate authority");
            None
        }
    }
}

/// Carries a switched protocol to its end.
pub(super) async fn switched(switched: Switched) {
    let Switched { client, far, mut upstream, record } = switched;
    let both = async { Some((client.await.ok()?, far.await.ok()?)) };
    let mut both = std::pin::pin!(both);
    let both = std::future::poll_fn(|cx| {
        upstream.drive(cx);
        both.as_mut().poll(cx)
    });
    if let Some((client, far)) = both.await {
        let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(far)).await;
    }
    drop(record);
}
