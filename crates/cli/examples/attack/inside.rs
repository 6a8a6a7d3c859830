//! What this program does when it runs inside a box: single tries whose answer is one line.
//!
//! Absent: any judgement; who asked compares the line with what must not happen.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

/// The word by which this program is the one inside.
pub const WORD: &str = "__inside";
/// Where the way out begins, if a box has one.
pub const PROXY: &str = "127.0.0.1:3128";

/// How long an answer may take to begin.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// How long more of it is waited for.
const LAST_WAIT: Duration = Duration::from_millis(400);

pub fn main(words: &[OsString]) -> ExitCode {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let answer = match words.as_slice() {
        ["descriptors"] => descriptors(),
        ["loopback"] => loopback(),
        ["connect", address] => tcp(address),
        ["udp", address] => udp(address),
        ["resolve", name] => (*name, 80).to_socket_addrs().map(|_| "resolved".to_owned()),
        ["abstract", name] => abstract_socket(name),
        ["proxy", request] => proxy(request),
        _ => return ExitCode::from(2),
    };
    match answer {
        Ok(text) => println!("{text}"),
        Err(error) => println!("{error}"),
    }
    ExitCode::SUCCESS
}

/// How many files are open besides the three of every command and the listing itself.
fn descriptors() -> std::io::Result<String> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(4).to_string())
}

fn loopback() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    TcpStream::connect(listener.local_addr()?)?;
    Ok("connected".into())
}

fn tcp(address: &str) -> std::io::Result<String> {
    let address = address.parse().map_err(std::io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    Ok("connected".into())
}

/// A question for `example.com`, as a resolver would be asked.
fn udp(address: &str) -> std::io::Result<String> {
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
    UdpSocket::bind("0.0.0.0:0")?.send_to(question, address)?;
    Ok("sent".into())
}

fn abstract_socket(name: &str) -> std::io::Result<String> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
    std::os::unix::net::UnixStream::connect_addr(&address)?;
    Ok("connected".into())
}

/// Sends bytes (in hex) to the way out, each piece after `.` once something was answered to the one
/// before, and gives everything that came back, invisible characters escaped.
fn proxy(request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(PROXY)?;
    stream.set_read_timeout(Some(LONGEST_WAIT))?;
    let mut answer = Vec::new();
    let pieces: Vec<&str> = request.split('.').collect();
    for (number, piece) in pieces.iter().enumerate() {
        let sent = stream.write_all(&unhex(piece)).and_then(|()| stream.flush());
        let last = number + 1 == pieces.len();
        let mut buffer = [0; 16 << 10];
        // Who refuses may close before all was sent; what was answered counts.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if !last {
                break;
            }
            stream.set_read_timeout(Some(LAST_WAIT))?;
        }
        if sent.is_err() {
            break;
        }
    }
    Ok(answer.escape_ascii().to_string())
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| pair.iter().fold(0_u8, |value, byte| value.wrapping_mul(16).wrapping_add(digit(byte)))).collect()
}

/// Bytes as this program takes them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
