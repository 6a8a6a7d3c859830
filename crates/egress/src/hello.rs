//! The server name in the first bytes of TLS, so that a tunnel leads where it says.
//!
//! Only what is needed is read, with every length checked. Absent: TLS itself; the bytes pass on
//! unchanged.

/// Most bytes of a hello that are waited for.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;

/// What the first bytes of a tunnel are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    NeedMore,
    /// Not TLS.
    NotTls,
    /// TLS, but not as it should be: lengths that don't fit, or two server names.
    Broken,
    /// A whole hello, with the one name in it, if it has any.
    Named(Option<String>),
}

/// Reads the beginning of a stream; `bytes` is all that has come so far, from its first byte.
#[must_use]
pub fn read_hello(bytes: &[u8]) -> Hello {
    let handshake = match handshake_bytes(bytes) {
        Ok(handshake) => handshake,
        Err(other) => return other,
    };
    let mut reader = Reader(&handshake);
    let (Some(kind), Some(length)) = (reader.u8(), reader.u24()) else { return Hello::NeedMore };
    if kind != 1 || length > MAX_HELLO_BYTES {
        return Hello::Broken;
    }
    let Some(body) = reader.take(length) else {
        return if bytes.len() > MAX_HELLO_BYTES { Hello::Broken } else { Hello::NeedMore };
    };
    match server_name(body) {
        Some(name) => Hello::Named(name),
        None => Hello::Broken,
    }
}

/// The handshake bytes of all records that have come.
fn handshake_bytes(bytes: &[u8]) -> Result<Vec<u8>, Hello> {
    let mut handshake = Vec::new();
    let mut reader = Reader(bytes);
    loop {
        match reader.0 {
            [] => return Ok(handshake),
            [kind, ..] if *kind != 0x16 => {
                return Err(if handshake.is_empty() { Hello::NotTls } else { Hello::Broken });
            }
            [_, major, ..] if *major != 3 => return Err(Hello::NotTls),
            _ => {}
        }
        let Some(length) = reader.take(3).and_then(|_| reader.u16()) else { return Ok(handshake) };
        if length == 0 || length > 1 << 14 {
            return Err(Hello::Broken);
        }
        let available = reader.0.len().min(length);
        handshake.extend_from_slice(reader.take(available).unwrap_or_default());
        // The rest of the stream may be anything once the hello is whole.
        if let [_, a, b, c, ..] = handshake.as_slice()
            && handshake.len() >= 4 + usize::from(*a) * 65536 + usize::from(*b) * 256 + usize::from(*c)
        {
            return Ok(handshake);
        }
    }
}

/// `None` for a body that does not fit together; the name, if there is one.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    let session = reader.u8()?;
    reader.take(session.into())?;
    let suites = reader.u16()?;
    reader.take(suites)?;
    let compressions = reader.u8()?;
    reader.take(compressions.into())?;
    if reader.0.is_empty() {
        return Some(None);
    }
    let length = reader.u16()?;
    let mut extensions = Reader(reader.take(length)?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let content = extensions.take(length)?;
        if kind == 0 {
            if name.is_some() {
                return None;
            }
            name = Some(one_host_name(content)?);
        }
    }
    Some(name)
}

fn one_host_name(content: &[u8]) -> Option<String> {
    let mut reader = Reader(content);
    let length = reader.u16()?;
    let mut list = Reader(reader.take(length)?);
    let kind = list.u8()?;
    let length = list.u16()?;
    let name = list.take(length)?;
    let is_one = kind == 0 && list.0.is_empty() && reader.0.is_empty();
    String::from_utf8(name.to_vec()).ok().filter(|_| is_one)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<usize> {
        let (high, low) = (self.u8()?, self.u8()?);
        Some(usize::from(high) * 256 + usize::from(low))
    }

    fn u24(&mut self) -> Option<usize> {
        let high = self.u8()?;
        Some(usize::from(high) * 65536 + self.u16()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// The hello that rustls would send to a host.
    pub(crate) fn hello_for(host: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        out
    }

    /// The same handshake in records of `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        hello[5..]
            .chunks(size)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[0x16, 3, 1], length.as_slice(), part].concat()
            })
            .collect()
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_cut() {
        let hello = hello_for("a.example.com");
        let named = Hello::Named(Some("a.example.com".to_owned()));
        assert_eq!(read_hello(&hello), named);
        for size in [1, 7, 100] {
            assert_eq!(read_hello(&in_records(&hello, size)), named, "{size}");
        }
        for end in 0..hello.len() {
            assert_eq!(read_hello(&hello[..end]), Hello::NeedMore, "{end}");
        }
        assert_eq!(read_hello(&[hello, b"whatever follows".to_vec()].concat()), named);
        assert_eq!(read_hello(&hello_for("192.0.2.1")), Hello::Named(None));
    }

    #[test]
    fn what_is_not_tls_is_told_at_once() {
        for bytes in [b"GET / HTTP/1.1\r\n".as_slice(), b"SSH-2.0", b"\x16\x02", b"\x80\x2e\x01"] {
            assert_eq!(read_hello(bytes), Hello::NotTls, "{bytes:?}");
        }
        assert_eq!(read_hello(b"\x16\x03\x01\x00\x00"), Hello::Broken);
        assert_eq!(read_hello(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"), Hello::Broken);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(at in 0usize..600, byte: u8, cut in 0usize..600) {
            let mut hello = hello_for("a.example.com");
            if let Some(place) = hello.get_mut(at) { *place = byte; }
            hello.truncate(hello.len().saturating_sub(cut / 3));
            let _ = read_hello(&hello);
        }
    }
}
