//! Requests whose length can be read in two ways, found before hyper repairs them.
//!
//! hyper reads HTTP, and mends a head that has both `Transfer-Encoding` and `Content-Length` by
//! dropping the length. Nothing can be smuggled by that, since every request is framed anew for the
//! far side; still, whoever sends such a head tries something, and it should be refused and on record.
//! The first head of a connection (and of an opened tunnel) is looked at here; after it the connection is hyper's alone, and
//! a mended head closes it. Absent: reading of bodies.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Reads up to the end of the first head, or as much as there is of it.
pub(super) async fn first_head<S: AsyncRead + Unpin>(client: &mut S, limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    let mut searched = 0;
    // Only what is new is searched, so that a head in single bytes costs no more than any other.
    while !is_whole(head.get(searched..).unwrap_or_default()) && head.len() < limit_bytes {
        searched = head.len().saturating_sub(3);
        if client.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

/// Why a head is ambiguous, if it is.
pub(super) fn ambiguity(bytes: &[u8]) -> Option<&'static str> {
    let mut lengths = 0;
    let mut encodings = 0;
    for line in bytes.split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if line.first().is_some_and(u8::is_ascii_whitespace) {
            return Some("a header is folded over two lines");
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.iter().any(u8::is_ascii_whitespace) {
            return Some("a header's name has a blank");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            encodings += 1;
            let value = line.get(name.len() + 1..).unwrap_or_default().trim_ascii();
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Some("its Transfer-Encoding is not `chunked` alone");
            }
        }
    }
    match (lengths, encodings) {
        (0 | 1, 0) | (0, 1) => None,
        (_, 0) => Some("it has more than one Content-Length"),
        (0, _) => Some("it has more than one Transfer-Encoding"),
        _ => Some("it has both Content-Length and Transfer-Encoding"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_have_two_lengths_is_found() {
        let check = |headers: &str| ambiguity(format!("POST / HTTP/1.1\r\n{headers}\r\n\r\nbody: x").as_bytes());
        assert_eq!(check("Host: a\r\nContent-Length: 3"), None);
        assert_eq!(check("Transfer-Encoding: Chunked"), None);
        for bad in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 3",
            "Content-Length: 3\r\nContent-Length: 3",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "X: a\r\n Content-Length: 3",
        ] {
            assert!(check(bad).is_some(), "{bad}");
        }
    }
}
