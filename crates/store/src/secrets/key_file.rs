//! The key file: one key a line in base64, the one that seals first.
//!
//! It lies beside the database and is no part of it. It is written whole under another name and moved
//! into place, so that a crash leaves the old file or the new one. Absent: mending. A file that is not
//! as it was left is an error that names the fix, never a reason to make another key.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::KeyError;
use super::keys::{Key, KeyProvider, KeyRing};
use super::seal::Entropy;
use crate::error::Fault;

const HEADER: &str = "# Opens the secrets in chargehand.db. Keep a copy apart from copies of the database.\n";
/// Far more than any ring has.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Keys in a file that its owner alone may read.
#[derive(Debug, Clone)]
pub struct FileKeys {
    path: PathBuf,
}

impl FileKeys {
    /// Keys in this file, which need not be there yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> KeyError {
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => KeyError::DiskFull { path: self.path.clone() },
            _ => KeyError::File { operation, path: self.path.clone(), fault: Fault::new(operation, error) },
        }
    }

    fn text(&self) -> Result<Option<Zeroizing<String>>, KeyError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open")(error)),
        };
        let meta = file.metadata().map_err(self.failed("look at"))?;
        if meta.mode() & 0o077 != 0 {
            return Err(KeyError::Exposed { path: self.path.clone() });
        }
        if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
            return Err(self.unreadable("it is no small text file"));
        }
        let mut text = Zeroizing::new(String::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
        match io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE_BYTES), &mut text) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(self.unreadable("it is no text")),
            Err(error) => Err(self.failed("read")(error)),
        }
    }

    fn unreadable(&self, why: &'static str) -> KeyError {
        KeyError::Unreadable { place: self.place(), why }
    }

    /// Puts the ring into place, whole and for the owner alone.
    fn write(&self, ring: &KeyRing, replace: bool) -> Result<(), KeyError> {
        let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + 64 * (1 + ring.older().len())));
        text.push_str(HEADER);
        for key in ring.all() {
            text.push_str(&key.base64());
            text.push('\n');
        }
        let fresh = self.path.with_extension("key.new");
        let write = || -> io::Result<()> {
            // What a crash left under this name is nobody's key yet.
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            // The folder's lock and the vault's keep everybody else away between this look and the move.
            if !replace && self.path.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(&fresh, &self.path)?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|error| {
            let _ = std::fs::remove_file(&fresh);
            self.failed("write")(error)
        })
    }
}

impl KeyProvider for FileKeys {
    fn load(&self) -> Result<Option<KeyRing>, KeyError> {
        let Some(text) = self.text()? else { return Ok(None) };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys = Vec::new();
        for line in lines {
            keys.push(Key::from_base64(line).map_err(|why| self.unreadable(why))?);
        }
        let mut keys = keys.into_iter();
        let active = keys.next().ok_or_else(|| self.unreadable("there is no key in it"))?;
        Ok(Some(KeyRing::new(active, keys.collect())))
    }

    fn create(&self, entropy: &dyn Entropy) -> Result<KeyRing, KeyError> {
        let ring = KeyRing::new(Key::random(entropy)?, Vec::new());
        self.write(&ring, false)?;
        Ok(ring)
    }

    fn begin_change(&self, entropy: &dyn Entropy) -> Result<KeyRing, KeyError> {
        let older = match self.load()? {
            Some(ring) if !ring.older().is_empty() => return Ok(ring),
            Some(ring) => vec![ring.active().clone()],
            None => return self.create(entropy),
        };
        let ring = KeyRing::new(Key::random(entropy)?, older);
        self.write(&ring, true)?;
        Ok(ring)
    }

    fn end_change(&self) -> Result<(), KeyError> {
        match self.load()? {
            Some(ring) if !ring.older().is_empty() => {
                self.write(&KeyRing::new(ring.active().clone(), Vec::new()), true)
            }
            _ => Ok(()),
        }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}
