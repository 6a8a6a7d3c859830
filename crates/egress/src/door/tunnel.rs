//! What a connection turns into: a blind tunnel whose TLS hello has to name the tunnel's target, an
//! opened one whose TLS ends here, or a protocol that an entry allows to be switched to.
//!
//! Absent: reading of what is inside a blind tunnel after the hello.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
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
use crate::redact::Redactor;
use crate::target::{Host, Target};

/// How long a hello may take.
const HELLO: Duration = Duration::from_secs(30);
/// How much of a switched protocol is read at once.
const CHUNK_BYTES: usize = 16 * 1024;

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
    /// Whether it has to be TLS.
    pub tls: bool,
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
    /// Takes the secret out of what the far side says.
    pub redactor: Redactor,
    pub record: OpenRecord,
}

/// Carries a blind tunnel to its end.
pub(super) async fn blind(blind: Blind, session: &Session) {
    let Blind { upgrade, mut upstream, target, tls, mut record } = blind;
    let Ok(client) = upgrade.await else { return };
    let mut client = TokioIo::new(client);
    if tls {
        let hello = match allowed_hello(&mut client, &target).await {
            Ok(Some(hello)) => hello,
            Ok(None) => return,
            Err(denial) => {
                record.denied(&denial);
                drop(record);
                return session.inner.denials.turn().await;
            }
        };
        if upstream.write_all(&hello).await.is_err() {
            return;
        }
    }
    // How it ends is no matter: either side may just go.
    let _ = copy_bidirectional(&mut client, &mut upstream).await;
}

/// The first bytes of the box, once they are known to be a hello to the tunnel's host. Nothing is
/// passed on before. `None` if the box goes away or stays silent.
async fn allowed_hello(client: &mut TokioIo<Upgraded>, target: &Target) -> Result<Option<Vec<u8>>, Denial> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        match timeout(HELLO, client.read_buf(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(_) | Err(_) => return Ok(None),
        }
        match read_hello(&bytes) {
            Hello::NeedMore if bytes.len() < MAX_HELLO_BYTES => {}
            Hello::Named(name) => return agree(name.as_deref(), target).map(|()| Some(bytes)),
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
        drop(record);
        inner.denials.turn().await;
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
    let Switched { client, far, mut upstream, mut redactor, record } = switched;
    let both = async { Some((client.await.ok()?, far.await.ok()?)) };
    let mut both = std::pin::pin!(both);
    let both = std::future::poll_fn(|cx| {
        upstream.drive(cx);
        both.as_mut().poll(cx)
    });
    if let Some((client, far)) = both.await {
        let (mut from_box, mut to_box) = tokio::io::split(TokioIo::new(client));
        let (mut from_far, mut to_far) = tokio::io::split(TokioIo::new(far));
        let up = tokio::io::copy(&mut from_box, &mut to_far);
        // Either side's end is the end: there is no half of a websocket.
        tokio::select! {
            _ = up => {}
            () = copy_redacted(&mut from_far, &mut to_box, &mut redactor) => {}
        }
    }
    drop(record);
}

async fn copy_redacted<R, W>(from: &mut R, to: &mut W, redactor: &mut Redactor)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let out = redactor.push(chunk.get(..count).unwrap_or_default());
        if to.write_all(&out).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.write_all(&redactor.finish()).await;
}
