//! Archives made by hand, byte by byte where a library would refuse to write them.

use std::io::Write as _;
use std::path::Path;

use tar::{EntryType, Header};

/// A tar archive in the making.
#[derive(Default, Clone)]
pub struct Tar {
    pub bytes: Vec<u8>,
}

impl Tar {
    /// An entry with any name, kind and link; the header is right in all else.
    pub fn entry(mut self, kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Self {
        self.push(kind, name, link, content, |_| {});
        self
    }

    pub fn push(
        &mut self,
        kind: EntryType,
        name: &[u8],
        link: &[u8],
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) {
        for (kind, text) in [(EntryType::GNULongName, name), (EntryType::GNULongLink, link)] {
            if text.len() > 100 {
                let ended = [text, b"\0"].concat();
                self.raw(kind, b"././@LongLink", b"", &ended, |_| {});
            }
        }
        self.raw(kind, &name[..name.len().min(100)], &link[..link.len().min(100)], content, change);
    }

    fn raw(&mut self, kind: EntryType, name: &[u8], link: &[u8], content: &[u8], change: impl FnOnce(&mut Header)) {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().div_ceil(512) * 512, 0);
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name.as_bytes(), b"", content.as_bytes())
    }
    pub fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name.as_bytes(), b"", b"")
    }
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }
    pub fn hard(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name.as_bytes(), target.as_bytes(), b"")
    }
    pub fn with_mode(mut self, name: &str, mode: u32, uid: u64) -> Self {
        self.push(EntryType::Regular, name.as_bytes(), b"", b"x", |header| {
            header.set_mode(mode);
            header.set_uid(uid);
            header.set_gid(uid);
        });
        self
    }
    /// An extension for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.pax_of(EntryType::XHeader, records)
    }
    pub fn pax_of(self, kind: EntryType, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(kind, b"PaxHeaders/x", b"", &content)
    }
    pub fn done(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub fn save(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
