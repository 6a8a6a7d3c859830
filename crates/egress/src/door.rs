//! The door of one box: a unix socket, and the task that serves it as long as the [`Door`] lives.
//!
//! The folder of the socket is what is mounted into the box, so that a door which is opened again
//! (the control plane was restarted) is found there by a box that never stopped. Dropped, a door ends
//! all its connections at once, and then nothing passes. Doors share nothing: a hostile box can
//! use up its own connections, never another's. Absent: the forwarder in the box.

mod answer;
mod body;
mod connect;
mod forward;
mod framing;
mod serve;
mod tunnel;
mod upstream;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::audit::{Audit, Book, Clock};
use crate::authority::BoxAuthority;
use crate::denial::Denial;
use crate::list::AllowList;
use crate::meter::Total;
use crate::pace::Pace;
use crate::redact::{KnownValues, RedactError};
use crate::resolve::{self, Resolver};
use crate::secret::{Secret, SecretSource};
use crate::target::Target;

pub use upstream::{TrustError, UpstreamTls};

/// The socket's name in the door's folder.
pub const SOCKET_NAME: &str = "door.sock";
/// Its name until it is ready.
const FRESH_NAME: &str = "door.new";

/// What a box may use up. The defaults fit builds with many parallel downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at once.
    pub connections: usize,
    /// How long a connection above that waits for its turn before it is refused.
    pub queue: Duration,
    /// Size of a request's head, in bytes.
    pub head_bytes: usize,
    /// Time for a request's head to arrive.
    pub head: Duration,
    /// Time to reach a far side, for each of its addresses, TLS included.
    pub connect: Duration,
    /// Time in which nothing moves before a connection ends.
    pub idle: Duration,
    /// Requests in the long run; ten times as many may come at once before any has to wait.
    pub requests_per_second: u32,
    /// Refusals in the long run, likewise: a box that is refused without end is answered slowly, so
    /// that it can't fill the records.
    pub denials_per_second: u32,
    /// All bytes together, both ways; `None` for no cap.
    pub total_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            queue: Duration::from_secs(10),
            head_bytes: 64 * 1024,
            head: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            requests_per_second: 500,
            denials_per_second: 20,
            total_bytes: None,
        }
    }
}

/// Everything a door needs, complete at construction.
pub struct DoorConfig {
    /// The box's name in records.
    pub box_id: String,
    /// The folder that is mounted into the box. It is made if it is not there. Its parent has to be
    /// private to the server: the socket itself can be used by anyone who reaches it, since the
    /// box's users are none that the server knows.
    pub folder: PathBuf,
    /// What may pass.
    pub list: AllowList,
    /// Finds addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Gives values of secrets.
    pub secrets: Arc<dyn SecretSource>,
    /// Takes records.
    pub audit: Arc<dyn Audit>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Whom the door trusts as far side.
    pub upstream: UpstreamTls,
    /// Signs for hosts whose requests must be seen; without it they are reached by the plain-HTTP
    /// gateway only.
    pub authority: Option<Arc<BoxAuthority>>,
    /// Addresses that no entry opens: those on which this server itself listens; port 0 stands for
    /// all ports of an address.
    pub never: Vec<SocketAddr>,
    /// Values that are kept out of records.
    pub known: KnownValues,
    /// What the box may use up.
    pub limits: Limits,
}

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Making the folder or setting who may use it.
    #[error("could not prepare the folder {folder} for the box's way out")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Making the socket.
    #[error("could not open the socket {path}")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What all connections of a door share.
struct Inner {
    list: AllowList,
    resolver: Arc<dyn Resolver>,
    secrets: Arc<dyn SecretSource>,
    book: Arc<Book>,
    upstream: UpstreamTls,
    authority: Option<Arc<BoxAuthority>>,
    never: Vec<SocketAddr>,
    limits: Limits,
    total: Arc<Total>,
    requests: Pace,
    denials: Pace,
    /// Secrets in the form that answers are searched for, by name.
    compiled: Mutex<HashMap<String, (Secret, KnownValues)>>,
}

impl Inner {
    /// The addresses of a target, each judged.
    async fn addresses(&self, target: &Target, private: bool) -> Result<Vec<SocketAddr>, Denial> {
        let found = resolve::addresses(self.resolver.as_ref(), target, private, &self.never);
        let unresolved = |_| Denial::Unresolved { host: target.host.to_string() };
        timeout(self.limits.connect, found).await.map_err(unresolved)?
    }

    /// A secret as answers are searched for it.
    fn compiled(&self, name: &str, secret: &Secret) -> Result<KnownValues, RedactError> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, known)) = compiled.get(name)
            && value == secret
        {
            return Ok(known.clone());
        }
        let known = KnownValues::new([(name.to_owned(), secret.clone())])?;
        compiled.insert(name.to_owned(), (secret.clone(), known.clone()));
        Ok(known)
    }
}

/// An open door. It closes when it is dropped.
#[must_use = "a door closes when it is dropped"]
pub struct Door {
    socket: PathBuf,
    inode: u64,
    total: Arc<Total>,
    /// Kept for its drop, which ends the task and with it every connection.
    _serving: JoinSet<()>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({})", self.socket.display())
    }
}

impl Door {
    /// Opens a door in its folder; one that was left there is replaced. Has to be called inside a
    /// tokio runtime, which then serves it.
    ///
    /// # Errors
    /// [`DoorError`]
    pub fn open(config: DoorConfig) -> Result<Self, DoorError> {
        let folder = config.folder.clone();
        prepare(&folder).map_err(|source| DoorError::Folder { folder: folder.clone(), source })?;
        let socket = folder.join(SOCKET_NAME);
        let (listener, inode) =
            bind(&folder, &socket).map_err(|source| DoorError::Socket { path: socket.clone(), source })?;
        let total = Arc::new(Total::new(config.limits.total_bytes));
        let inner = Arc::new(Inner {
            list: config.list,
            resolver: config.resolver,
            secrets: config.secrets,
            book: Arc::new(Book {
                box_id: config.box_id,
                audit: config.audit,
                clock: config.clock,
                known: config.known,
            }),
            upstream: config.upstream,
            authority: config.authority,
            never: config.never,
            requests: Pace::new(
                config.limits.requests_per_second,
                config.limits.requests_per_second.saturating_mul(10),
            ),
            denials: Pace::new(config.limits.denials_per_second, config.limits.denials_per_second.saturating_mul(10)),
            limits: config.limits,
            total: Arc::clone(&total),
            compiled: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, inner));
        Ok(Self { socket, inode, total, _serving: serving })
    }

    /// The socket, on the host.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Bytes moved so far, both ways.
    #[must_use]
    pub fn moved_bytes(&self) -> u64 {
        self.total.moved_bytes()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // A door that was opened in this one's place keeps its socket.
        if fs::symlink_metadata(&self.socket).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
}

/// Binds under another name and renames, so that the box never finds half a door.
fn bind(folder: &Path, socket: &Path) -> io::Result<(UnixListener, u64)> {
    let fresh = folder.join(FRESH_NAME);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The address of a socket holds 107 bytes; by its folder's descriptor any path fits.
    let handle = fs::File::open(folder)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{FRESH_NAME}", handle.as_raw_fd()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o666))?;
    let inode = fs::symlink_metadata(&fresh)?.ino();
    fs::rename(&fresh, socket)?;
    Ok((listener, inode))
}

/// Serves every connection in a task of this loop's own, so that all end with it.
async fn accept(listener: UnixListener, inner: Arc<Inner>) {
    let turns = Arc::new(Semaphore::new(inner.limits.connections));
    let most = inner.limits.connections.saturating_mul(4);
    let mut connections: JoinSet<()> = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        while connections.len() >= most {
            let _ = connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve::connection(stream, Arc::clone(&inner), Arc::clone(&turns)));
            }
            // Out of file descriptors, most likely: others are given the time to end.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
