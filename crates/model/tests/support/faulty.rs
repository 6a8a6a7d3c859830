//! A server that misbehaves on purpose: it writes exactly the bytes of a case, in exactly its
//! pieces, over a plain socket. The case is named by the model's name, `case-N`, wherever the
//! wire puts that.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with one request.
#[derive(Clone)]
pub struct Case {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// Pieces of the body, each written and flushed by itself.
    pub body: Vec<Vec<u8>>,
    pub end: End,
}

/// What follows the last piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The body ends as it should.
    Clean,
    /// The connection is closed in the middle of the body.
    Close,
    /// The connection is reset in the middle of the body.
    Reset,
    /// Nothing more, for as long as the client waits.
    Silence,
    /// One byte of a comment after another, this far apart, for as long as the client waits.
    Drip(Duration),
    /// Not even a status line, for as long as the client waits.
    NoHead,
    /// The connection is reset before the status line.
    ResetAtOnce,
}

impl Case {
    pub fn stream(body: Vec<Vec<u8>>, end: End) -> Self {
        Self { status: 200, headers: vec![("content-type", "text/event-stream".into())], body, end }
    }
    pub fn status(status: u16, body: &str) -> Self {
        let headers = vec![("content-type", "application/json".into())];
        Self { status, headers, body: vec![body.as_bytes().to_vec()], end: End::Clean }
    }
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

type Cases = Arc<Mutex<Vec<Case>>>;

/// The server, in a thread of its own, so that a test may stop the clock of its own runtime.
pub struct Faulty {
    pub url: String,
    cases: Cases,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

impl Faulty {
    pub fn start() -> Self {
        let cases = Cases::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let served = Arc::clone(&cases);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(&listener, &served) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { url: format!("http://{}", address.recv().unwrap()), cases, stop: Some(stop) }
    }

    /// Adds a case; gives the name of the model that meets it.
    pub fn add(&self, case: Case) -> String {
        let mut cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
        cases.push(case);
        format!("case-{}-", cases.len() - 1)
    }
}

async fn accept(listener: &TcpListener, cases: &Cases) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let cases = Arc::clone(cases);
        tokio::spawn(async move {
            // The client may go away at any time.
            let _ = serve(socket, &cases).await;
        });
    }
}

/// One request after another on a connection, until a case ends it.
async fn serve(mut socket: TcpStream, cases: &Cases) -> io::Result<()> {
    let mut seen = Vec::new();
    loop {
        let Some(request) = read_request(&mut socket, &mut seen).await? else { return Ok(()) };
        let number: usize =
            request.split_once("case-").unwrap().1.split_once('-').unwrap().0.parse().expect("a case's number");
        let case = cases.lock().unwrap_or_else(PoisonError::into_inner)[number].clone();
        if case.end == End::ResetAtOnce {
            return socket.set_zero_linger();
        }
        if case.end == End::NoHead {
            return std::future::pending().await;
        }
        let mut head = format!("HTTP/1.1 {} Said\r\ntransfer-encoding: chunked\r\n", case.status);
        for (name, value) in &case.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        socket.write_all(head.as_bytes()).await?;
        for piece in case.body.iter().filter(|piece| !piece.is_empty()) {
            write_chunk(&mut socket, piece).await?;
        }
        match case.end {
            End::Clean => socket.write_all(b"0\r\n\r\n").await?,
            End::Close => return Ok(()),
            End::Silence => return std::future::pending().await,
            End::Drip(pause) => loop {
                write_chunk(&mut socket, b":").await?;
                tokio::time::sleep(pause).await;
            },
            End::Reset | End::ResetAtOnce | End::NoHead => return socket.set_zero_linger(),
        }
    }
}

async fn write_chunk(socket: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
    let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
    chunk.extend_from_slice(piece);
    chunk.extend_from_slice(b"\r\n");
    socket.write_all(&chunk).await
}

/// Head and body of the next request; `None` if the client has no more.
async fn read_request(socket: &mut TcpStream, seen: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        let text = String::from_utf8_lossy(seen);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned()))
                .map_or(0, |length| length.parse().unwrap());
            let whole = head.len() + 4 + length;
            if seen.len() >= whole {
                let request = String::from_utf8_lossy(&seen[..whole]).into_owned();
                seen.drain(..whole);
                return Ok(Some(request));
            }
        }
        let mut piece = [0; 4_096];
        match socket.read(&mut piece).await? {
            0 => return Ok(None),
            read => seen.extend_from_slice(&piece[..read]),
        }
    }
}
