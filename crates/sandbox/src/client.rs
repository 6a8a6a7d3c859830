//! The brain's side of the hand's protocol.
//!
//! What comes back was written inside the box and is not believed: lengths, amounts and order are
//! checked here, and what does not fit is [`SandboxError::Protocol`]. One connection per request;
//! connecting to a unix socket costs some microseconds. Absent: any retry (the exec id makes a
//! second request harmless, the caller decides).

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use domain::id::SandboxId;
use hand::frame::{self, CHUNK_BYTES, Decoder, Frame, Kind};
use hand::wire::{Ended, ExecOutcome, PROTOCOL, Reply, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::port::{OutputChunk, OutputSink, SandboxError, Stream};

/// Without a word for so long, a file request has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// A command's connection may be silent for its whole time limit, grace, and this.
const EXEC_MARGIN: Duration = Duration::from_secs(60);

/// Where a hand listens.
#[derive(Debug)]
pub struct Address {
    /// The box's id, for messages.
    pub id: SandboxId,
    /// The folder that holds the socket; by descriptor, because socket paths are short and a
    /// folder may be renamed.
    pub folder: OwnedFd,
    /// The socket's name in it.
    pub name: &'static str,
}

/// An open conversation.
pub struct Connection<'a> {
    address: &'a Address,
    stream: UnixStream,
    decoder: Decoder,
    space: Vec<u8>,
    patience: Duration,
    doing: &'static str,
}

/// A frame that carries a message, or bytes.
pub enum Heard {
    /// A message.
    Reply(Reply),
    /// Bytes of a stream or file.
    Bytes(Kind, Vec<u8>),
}

impl Address {
    /// Connects and sends the first request right behind the hello.
    pub async fn ask(&self, request: &Request, doing: &'static str) -> Result<Connection<'_>, SandboxError> {
        let path = Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(self.name);
        let stream = UnixStream::connect(path).await.map_err(|_| self.gone())?;
        let space = vec![0; CHUNK_BYTES];
        let mut connection =
            Connection { address: self, stream, decoder: Decoder::default(), space, patience: PATIENCE, doing };
        let mut bytes = Vec::new();
        frame::encode_message(&Request::Hello { protocol: PROTOCOL }, &mut bytes);
        frame::encode_message(request, &mut bytes);
        connection.send(&bytes).await?;
        match connection.reply().await? {
            Reply::Hello { protocol: PROTOCOL, .. } => Ok(connection),
            Reply::Hello { protocol, release } => Err(self
                .broken(format!("it speaks protocol {protocol} (release {release}), this program speaks {PROTOCOL}"))),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Runs or follows a command to its end.
    pub async fn run(
        &self,
        request: &Request,
        limits: FollowLimits,
        output: OutputSink<'_>,
    ) -> Result<ExecOutcome, SandboxError> {
        let mut connection = self.ask(request, "running a command").await?;
        connection.patience = limits.time_limit.saturating_add(EXEC_MARGIN);
        match connection.reply().await? {
            Reply::Started { .. } => {}
            other => return Err(self.unexpected(&other)),
        }
        let (mut stdout_bytes, mut stderr_bytes) = (0_u64, 0_u64);
        loop {
            let (stream, bytes) = match connection.hear().await? {
                Heard::Bytes(Kind::Stdout, bytes) => (Stream::Stdout, bytes),
                Heard::Bytes(Kind::Stderr, bytes) => (Stream::Stderr, bytes),
                Heard::Reply(Reply::Ended(outcome)) => {
                    let whole = outcome.stdout_bytes == stdout_bytes && outcome.stderr_bytes == stderr_bytes;
                    if whole || outcome.output_dropped {
                        return Ok(outcome);
                    }
                    return Err(self.broken("output is missing".to_owned()));
                }
                Heard::Reply(other) => return Err(self.unexpected(&other)),
                Heard::Bytes(..) => return Err(self.broken("file bytes instead of output".to_owned())),
            };
            match stream {
                Stream::Stdout => stdout_bytes += bytes.len() as u64,
                Stream::Stderr => stderr_bytes += bytes.len() as u64,
            }
            if stdout_bytes + stderr_bytes > limits.output_cap_bytes {
                return Err(self.broken("more output than the cap".to_owned()));
            }
            output(OutputChunk { stream, bytes });
        }
    }

    /// Asks for something that is answered by one message.
    pub async fn ask_once(&self, request: &Request, doing: &'static str) -> Result<Reply, SandboxError> {
        self.ask(request, doing).await?.reply().await
    }

    /// The box is not there.
    pub fn gone(&self) -> SandboxError {
        SandboxError::Gone { id: self.id.clone(), hint: None }
    }

    /// The hand said something that does not belong here.
    pub fn unexpected(&self, reply: &Reply) -> SandboxError {
        self.broken(format!("an unexpected answer: {}", format!("{reply:?}").chars().take(100).collect::<String>()))
    }

    fn broken(&self, what: String) -> SandboxError {
        SandboxError::Protocol { id: self.id.clone(), what }
    }
}

/// What a followed command may at most take.
#[derive(Debug, Clone, Copy)]
pub struct FollowLimits {
    /// Its time limit.
    pub time_limit: Duration,
    /// Its output cap in bytes.
    pub output_cap_bytes: u64,
}

impl Connection<'_> {
    /// Sends bytes that are framed already.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), SandboxError> {
        let sent = tokio::time::timeout(self.patience, self.stream.write_all(bytes)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.address.gone()),
            Err(_) => Err(self.silent()),
        }
    }

    /// The next frame.
    pub async fn hear(&mut self) -> Result<Heard, SandboxError> {
        loop {
            let next = self.decoder.next_frame().map_err(|error| self.address.broken(error.to_string()))?;
            if let Some(Frame { kind, body }) = next {
                if kind != Kind::Message {
                    return Ok(Heard::Bytes(kind, body));
                }
                return match frame::decode_message(&body).map_err(|error| self.address.broken(error.to_string()))? {
                    Reply::Failed(failure) => Err(SandboxError::Refused(failure)),
                    reply => Ok(Heard::Reply(reply)),
                };
            }
            match tokio::time::timeout(self.patience, self.stream.read(&mut self.space)).await {
                Ok(Ok(read)) if read > 0 => self.decoder.push(self.space.get(..read).unwrap_or_default()),
                Ok(_) => return Err(self.address.gone()),
                Err(_) => return Err(self.silent()),
            }
        }
    }

    /// The next frame, which has to be a message.
    pub async fn reply(&mut self) -> Result<Reply, SandboxError> {
        match self.hear().await? {
            Heard::Reply(reply) => Ok(reply),
            Heard::Bytes(..) => Err(self.address.broken("bytes instead of an answer".to_owned())),
        }
    }

    fn silent(&self) -> SandboxError {
        let waited_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        SandboxError::Unresponsive { id: self.address.id.clone(), doing: self.doing, waited_ms }
    }
}

/// Whether an ending may be the work of a limit that only the box's keeper sees: everything but a
/// plain success and what is told already.
pub const fn may_be_a_limits_work(ended: &Ended) -> bool {
    match ended {
        Ended::Exited { code } => *code != 0,
        Ended::Signaled { .. } => true,
        // A program that no process could be made for.
        Ended::NotStarted { .. } => true,
        Ended::TimedOut
        | Ended::OutputCapReached
        | Ended::Killed
        | Ended::OutOfMemory
        | Ended::TooManyProcesses
        | Ended::DiskFull
        | Ended::FileTooLarge => false,
    }
}
