//! Sockets: bind, accept, serve, stop.
//!
//! ```text
//! bind (typed errors) → accept loop per socket → one task per connection, with its Peer → service
//! shutdown → no new connections, streams end, requests under way are finished, then a hard stop
//! ```
//!
//! The unix socket is made under another name, given mode 0600 and then renamed into place, so
//! there is no moment at which it could be opened by others. That two servers do not share a data
//! folder is the store's lock, not the socket's business. Absent: TLS; a proxy does that.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::auth::Peer;

/// Longest path of a unix socket: `sockaddr_un` has 108 bytes, the last of them zero.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Connections at once on each socket; more wait to be accepted. Each socket has its own count, so
/// that strangers on TCP can't shut out the owner on the unix socket.
const MAX_CONNECTIONS: usize = 512;
/// Longest time for a request's head to arrive.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Longest time that requests under way may take when the server stops.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failure to accept, which mostly is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Neither a unix socket nor an address.
    #[error("the server has nothing to listen on; give it a unix socket or a TCP address")]
    Nowhere,
    /// The token could be guessed.
    #[error("the token for TCP has {chars} characters and needs {least}; make one with: openssl rand -hex 32")]
    WeakToken {
        /// How many it has.
        chars: usize,
        /// How many it needs.
        least: usize,
    },
    /// The kernel takes no socket path as long as this.
    #[error(
        "the socket path {} has {bytes} bytes and may have {MAX_SOCKET_PATH_BYTES}; choose a data folder with a shorter path",
        .path.display()
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Something that is no socket has the name.
    #[error("{} is in the way and is no socket; move it elsewhere", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another server answers there.
    #[error("another server already answers on {}; use that one or stop it first", .path.display())]
    SocketInUse {
        /// The path.
        path: PathBuf,
    },
    /// The socket can't be made.
    #[error("could not {operation} the socket {}; is its folder there, and yours?", .path.display())]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another program has the port.
    #[error("{addr} is in use by another program; choose another port, or 0 for any free one")]
    AddressInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The machine does not have this address.
    #[error("this machine does not have the address {}; `ip addr` lists those it has", .addr.ip())]
    NoSuchAddress {
        /// The address.
        addr: SocketAddr,
    },
    /// Ports below 1024 are for root.
    #[error("this user may not listen on {addr}; choose a port from 1024 on")]
    PortForbidden {
        /// The address.
        addr: SocketAddr,
    },
    /// The address can't be listened on.
    #[error("could not listen on {addr}")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A unix socket in place. Its file goes when this is dropped, unless another has its name by then.
pub(crate) struct UnixDoor {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl UnixDoor {
    /// Makes the socket, in the place of one that nobody answers on any more.
    pub(crate) async fn open(path: &Path) -> Result<Self, ServeError> {
        let staging = path.with_file_name(".s.new");
        let bytes = [path, &staging].map(|path| path.as_os_str().len()).into_iter().max().unwrap_or_default();
        if bytes > MAX_SOCKET_PATH_BYTES {
            return Err(ServeError::SocketPathTooLong { path: path.to_owned(), bytes });
        }
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(ServeError::NotASocket { path: path.to_owned() });
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(ServeError::SocketInUse { path: path.to_owned() });
            }
            _ => {}
        }
        let failed = |operation| move |source| ServeError::Socket { operation, path: path.to_owned(), source };
        match std::fs::remove_file(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clear the way for")(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&staging).map_err(failed("make"))?;
        std::fs::set_permissions(&staging, std::fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
        let inode = inode(&staging).map_err(failed("look at"))?;
        std::fs::rename(&staging, path).map_err(failed("put in place"))?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

impl Drop for UnixDoor {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|there| there == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()))
}

/// Listens on a TCP address.
pub(crate) async fn open_tcp(addr: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::AddressInUse { addr },
        io::ErrorKind::AddrNotAvailable => ServeError::NoSuchAddress { addr },
        io::ErrorKind::PermissionDenied => ServeError::PortForbidden { addr },
        _ => ServeError::Tcp { addr, source },
    })
}

/// A socket that listens.
pub(crate) enum Listener {
    Unix(UnixDoor),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Unix(door) => {
                let (stream, _) = door.listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Stream::Unix(stream), Peer::Unix { uid }))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it small messages wait for company; if it fails they only arrive later.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Tcp))
            }
        }
    }
}

/// Serves connections until told to stop.
#[derive(Clone)]
pub(crate) struct Host {
    service: Router,
    connections: TaskTracker,
    shutdown: CancellationToken,
}

impl Host {
    pub(crate) fn new(service: Router, connections: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { service, connections, shutdown }
    }

    /// Begins to accept, as a task of its own that ends at shutdown.
    pub(crate) fn listen(&self, listener: Listener) {
        let host = self.clone();
        self.connections.spawn(async move { host.accept_all(listener).await });
    }

    async fn accept_all(&self, listener: Listener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = async {
                    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
                    listener.accept().await.map(|(stream, peer)| (stream, peer, place))
                } => accepted,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let host = self.clone();
                    self.connections.spawn(async move {
                        match stream {
                            Stream::Unix(stream) => host.serve_connection(stream, peer).await,
                            Stream::Tcp(stream) => host.serve_connection(stream, peer).await,
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(peer);
            self.service.clone().oneshot(request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(GRACE, connection).await {
                    Ok(ended) => ended,
                    Err(_elapsed) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, ?peer, "a connection broke off");
        }
    }
}
