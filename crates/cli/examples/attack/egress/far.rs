//! What a door needs around it: a far side that writes down every byte, names that lead where the
//! attacker wants, a book of records, a secret.
//!
//! Absent: TLS on the far side; what is attacked is the door's judgement, which comes before it.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::egress::{Audit, Clock, EgressRecord, Resolver, Secret, SecretError, SecretSource};
use async_trait::async_trait;

/// How the far side answers whoever reaches it.
pub const REACHED: &str = "the far side was reached";
/// The name of the secret.
pub const SECRET: &str = "TOKEN";

/// A listener on the host that answers every request and remembers all bytes.
pub struct Far {
    pub port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Far {
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let far = Self { port: listener.local_addr()?.port(), heard: Arc::default() };
        far.serve(listener);
        Ok(far)
    }

    fn serve(&self, listener: TcpListener) {
        let heard = Arc::clone(&self.heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || drop(serve(stream, &heard)));
            }
        });
    }

    /// All bytes since [`Far::heard`] was called last.
    pub fn heard_so_far(&self) -> Vec<u8> {
        locked(&self.heard).clone()
    }

    /// All bytes since the last call.
    pub fn heard(&self) -> Vec<u8> {
        std::mem::take(&mut *locked(&self.heard))
    }
}

/// Answers whatever looks like the end of a head; reflects the credential, as a careless host would.
fn serve(mut stream: TcpStream, heard: &Mutex<Vec<u8>>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // Whoever connects is remembered, also if nothing is said.
    locked(heard).extend_from_slice(b"[connected]");
    let mut head = Vec::new();
    let mut buffer = [0; 8192];
    while let count @ 1.. = stream.read(&mut buffer)? {
        let bytes = buffer.get(..count).unwrap_or_default();
        locked(heard).extend_from_slice(bytes);
        head.extend_from_slice(bytes);
        if head.windows(4).any(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head).into_owned();
            let sent =
                text.lines().find_map(|line| line.to_ascii_lowercase().starts_with("authorization:").then_some(line));
            let body = format!("{REACHED}; you sent {}\n", sent.unwrap_or("no credential"));
            let (status, more) = if text.contains("/ok/redirect") {
                ("302 Found", "Location: http://127.0.0.1/private\r\n")
            } else {
                ("200 OK", "")
            };
            let reflected = sent.and_then(|line| line.split_once(' ')).map_or("none", |(_, value)| value);
            write!(
                stream,
                "HTTP/1.1 {status}\r\n{more}X-Reflected: {reflected}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            head.clear();
        }
    }
    Ok(())
}

/// Leads every name to the far side, but for those that lead elsewhere.
#[derive(Default)]
pub struct Names {
    /// Answers one after another; the last stays.
    elsewhere: Mutex<HashMap<&'static str, Vec<Vec<IpAddr>>>>,
}

impl Names {
    pub fn lead(&self, name: &'static str, answers: Vec<Vec<IpAddr>>) {
        locked(&self.elsewhere).insert(name, answers);
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut elsewhere = locked(&self.elsewhere);
        Ok(match elsewhere.get_mut(name) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers.first().cloned().unwrap_or_default(),
            None => vec![Ipv4Addr::LOCALHOST.into()],
        })
    }
}

/// One secret.
pub struct Vault(pub String);

#[async_trait]
impl SecretSource for Vault {
    async fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        if name == SECRET { Ok(Secret::new(self.0.clone())) } else { Err(SecretError::Missing) }
    }
}

/// All records.
#[derive(Default)]
pub struct Book(Mutex<Vec<EgressRecord>>);

impl Book {
    /// Those since the last call.
    pub fn taken(&self) -> Vec<EgressRecord> {
        std::mem::take(&mut *locked(&self.0))
    }
}

impl Audit for Book {
    fn record(&self, record: EgressRecord) {
        locked(&self.0).push(record);
    }
}

/// The machine's clock.
pub struct Wall;

impl Clock for Wall {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}
