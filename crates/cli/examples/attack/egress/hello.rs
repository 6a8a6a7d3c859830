//! The first bytes of a TLS connection, with whatever server name an attacker likes.
//!
//! Absent: the rest of TLS; a door judges these bytes alone.

/// A ClientHello that names this server, or none.
pub fn client_hello(server: Option<&str>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = server {
        let mut list = vec![0];
        list.extend(sized(2, name.as_bytes()));
        extensions.extend([0, 0]);
        extensions.extend(sized(2, &sized(2, &list)));
    }
    // supported_versions: 1.3 and 1.2, as every client of today says.
    extensions.extend([0, 43]);
    extensions.extend(sized(2, &sized(1, &[3, 4, 3, 3])));
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend(sized(1, &[]));
    hello.extend(sized(2, &[0x13, 0x01, 0xc0, 0x2f]));
    hello.extend(sized(1, &[0]));
    hello.extend(sized(2, &extensions));
    let mut handshake = vec![1];
    handshake.extend(sized(3, &hello));
    let mut record = vec![22, 3, 1];
    record.extend(sized(2, &handshake));
    record
}

/// The bytes behind their length, which takes so many bytes.
fn sized(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len().to_be_bytes();
    let mut all = length.get(length.len() - width..).unwrap_or_default().to_vec();
    all.extend_from_slice(bytes);
    all
}
