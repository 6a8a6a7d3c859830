//! The kept output of one command: encoded frames in the order in which they were written.
//!
//! Small output stays in memory; more goes to a file that has no name. Because what is kept is the
//! very bytes that go over the wire, following a command is copying from an offset. Absent: a
//! bound of its own (the output cap bounds one command, the ledger all of them).

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use crate::frame::{self, Kind};

/// Output above this goes to a file.
const IN_MEMORY_BYTES: usize = 64 * 1024;

/// Kept output.
#[derive(Debug, Default)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    in_file: u64,
}

impl Spool {
    /// Appends one chunk of a stream.
    pub fn append(&mut self, kind: Kind, bytes: &[u8]) {
        frame::encode(kind, bytes, &mut self.memory);
        if self.memory.len() > IN_MEMORY_BYTES {
            self.spill();
        }
    }

    /// Moves what is in memory to the file. Where no file can be had it stays in memory, which the
    /// output cap bounds.
    fn spill(&mut self) {
        if self.file.is_none() {
            self.file = nameless_file();
        }
        let Some(file) = self.file.as_mut() else { return };
        if file.write_all(&self.memory).is_ok() {
            self.in_file += self.memory.len() as u64;
            self.memory = Vec::new();
        } else {
            // A part may have been written; the next write begins where the good part ends.
            use std::io::{Seek as _, SeekFrom};
            let _ = file.seek(SeekFrom::Start(self.in_file));
        }
    }

    /// Bytes kept so far.
    pub fn len(&self) -> u64 {
        self.in_file + self.memory.len() as u64
    }

    /// Appends to `out` at most `max` bytes from `offset`; gives back how many.
    pub fn copy_to(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> u64 {
        let before = out.len();
        if offset < self.in_file {
            let want = usize::try_from(self.in_file - offset).unwrap_or(max).min(max);
            out.resize(before + want, 0);
            let read = match (self.file.as_ref(), out.get_mut(before..)) {
                (Some(file), Some(space)) => file.read_at(space, offset).unwrap_or(0),
                _ => 0,
            };
            out.truncate(before + read);
            return read as u64;
        }
        let from = usize::try_from(offset - self.in_file).unwrap_or(usize::MAX);
        let rest = self.memory.get(from..).unwrap_or_default();
        let piece = rest.get(..max).unwrap_or(rest);
        out.extend_from_slice(piece);
        piece.len() as u64
    }
}

/// A file without a name: in the temporary folder, else in memory.
fn nameless_file() -> Option<File> {
    use rustix::fs::{MemfdFlags, Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::open("/tmp", flags, mode)
        .or_else(|_| rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC))
        .ok()
        .map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Decoder;

    #[test]
    fn output_is_the_same_from_memory_and_from_the_file() {
        let mut spool = Spool::default();
        let mut wanted = Vec::new();
        for round in 0..200_u32 {
            let chunk = vec![(round % 251) as u8; 1000];
            spool.append(if round % 2 == 0 { Kind::Stdout } else { Kind::Stderr }, &chunk);
            wanted.extend(chunk);
        }
        assert!(spool.file.is_some(), "200 kB should have left memory");
        let (mut decoder, mut offset, mut seen) = (Decoder::default(), 0, Vec::new());
        while offset < spool.len() {
            let mut piece = Vec::new();
            offset += spool.copy_to(offset, 777, &mut piece);
            decoder.push(&piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.extend(frame.body);
            }
        }
        assert_eq!(seen, wanted);
    }
}
