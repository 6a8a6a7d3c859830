//! The hand's program as a folder of its own, so that it runs whatever root a box has.
//!
//! A box's root may hold another C library or none. So the program is packed with exactly the
//! loader and libraries that it is linked with here, and started as `ld.so --library-path PACK
//! PACK/hand`; a static program is packed alone. The pack is a layer, made of hard links where that
//! is allowed: it takes no space, and a program that is replaced by an upgrade stays what the pack
//! says it is. Boxes get it as a descriptor of a read-only mount that is attached nowhere, which the
//! hand closes as soon as it runs; nothing in a box's tree or its mount table tells of it.
//!
//! What the kernel is asked to run (the loader, or the static program) is a copy that may be run but not
//! read by a box's users. The kernel therefore gives the hand's `/proc` folder to the host's root, and
//! no command can write to what is in it, `oom_score_adj` for one. Absent: anything but ELF.
#![expect(clippy::disallowed_methods, reason = "asks the loader which libraries the hand's program needs")]

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use domain::id::Digest;

use crate::error::StorageContext as _;
use crate::local::layout::Layout;
use crate::port::SandboxError;

/// The program's name in a pack.
pub const PROGRAM: &str = "hand";
/// The loader's name in a pack.
pub const LOADER: &str = "ld.so";

/// A pack that is in place.
#[derive(Debug, Clone)]
pub struct Pack {
    /// The layer that holds it.
    pub key: Digest,
    /// Whether it needs its loader.
    pub dynamic: bool,
}

/// Makes the pack of `program` if it is not there.
pub fn ensure(layout: &Layout, program: &Path) -> Result<Pack, SandboxError> {
    let program = program.canonicalize().doing("find the program", program)?;
    let loader = interpreter(&program).doing("read the program", &program)?;
    let mut files = vec![(OsString::from(PROGRAM), program.clone())];
    if let Some(loader) = &loader {
        files.push((LOADER.into(), loader.clone()));
        files.extend(libraries(loader, &program).doing("list the libraries of", &program)?);
    }
    let mut identity = String::from("pack 2\n");
    for (name, path) in &mut files {
        *path = path.canonicalize().doing("find", path)?;
        let about = fs::metadata(&*path).doing("read", path)?;
        let (dev, ino, size) = (about.dev(), about.ino(), about.size());
        let (seconds, nanoseconds) = (about.mtime(), about.mtime_nsec());
        identity += &format!("{name:?} {path:?} {dev} {ino} {size} {seconds}.{nanoseconds}\n");
    }
    let pack = Pack { key: Digest::of(identity.as_bytes()), dynamic: loader.is_some() };
    if layout.layer(&pack.key).exists() {
        return Ok(pack);
    }
    let holder = layout.new_holder()?;
    let started = if pack.dynamic { LOADER } else { PROGRAM };
    for (name, from) in &files {
        place(from, &holder.join("root").join(name), name == started).doing("pack", from)?;
    }
    layout.publish(&holder, &pack.key)?;
    Ok(pack)
}

/// A hard link where the box's users may read and run the file and the system allows it, else a copy;
/// always a copy of what is `started`, which is then not to be read.
fn place(from: &Path, to: &Path, started: bool) -> io::Result<()> {
    let open_to_all = fs::metadata(from)?.mode() & 0o005 == 0o005;
    if !started && open_to_all && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(if started { 0o111 } else { 0o555 }))
}

/// The loader that a program asks for; none if it is static.
fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    let mut start = Vec::new();
    fs::File::open(program)?.take(1 << 20).read_to_end(&mut start)?;
    let bad = || io::Error::other("it is not a 64-bit ELF program of this machine");
    if start.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(bad());
    }
    let number = |at: usize, width: usize| -> io::Result<usize> {
        let bytes = start.get(at..at + width).ok_or_else(bad)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let (table, entry_bytes, entries) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for entry in (0..entries).map(|index| table + index * entry_bytes) {
        // PT_INTERP
        if number(entry, 4)? == 3 {
            let (at, bytes) = (number(entry + 8, 8)?, number(entry + 32, 8)?);
            let path = start.get(at..at + bytes.saturating_sub(1)).ok_or_else(bad)?;
            return Ok(Some(PathBuf::from(OsString::from_vec(path.to_vec()))));
        }
    }
    Ok(None)
}

/// What the loader would load, by the names under which it looks for it.
fn libraries(loader: &Path, program: &Path) -> io::Result<Vec<(OsString, PathBuf)>> {
    let listed = Command::new(loader).arg("--list").arg(program).env_clear().stdin(Stdio::null()).output()?;
    if !listed.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&listed.stderr).trim().to_owned()));
    }
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let Some((name, path)) = line.split_once(" => ") else { continue };
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        if !path.starts_with('/') {
            return Err(io::Error::other(format!("{} is {path}", name.trim())));
        }
        found.push((name.trim().into(), PathBuf::from(path)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_and_its_libraries_make_a_pack_and_a_text_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::open(folder.path()).unwrap();
        let program = std::env::current_exe().unwrap();
        let pack = ensure(&layout, &program).unwrap();
        let root = layout.layer(&pack.key).join("root");
        assert!(root.join(PROGRAM).is_file());
        assert_eq!(pack.dynamic, root.join(LOADER).is_file());
        if pack.dynamic {
            let listed = Command::new(root.join(LOADER))
                .arg("--library-path")
                .arg(&root)
                .arg(root.join(PROGRAM))
                .arg("--list")
                .output()
                .unwrap();
            assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        }
        assert_eq!(ensure(&layout, &program).unwrap().key, pack.key);
        let text = folder.path().join("text");
        fs::write(&text, "#!/bin/sh\n").unwrap();
        assert!(ensure(&layout, &text).unwrap_err().to_string().contains("ELF"));
    }
}
