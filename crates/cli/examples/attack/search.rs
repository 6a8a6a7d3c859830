//! Values that must not be found, and where they are looked for: in bytes, also as base64 and hex.
//!
//! Absent: compressed bytes. What git stores is looked at through git.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use base64_forms::forms;

/// Every value begins so. An agent looks for it by a pattern that does not contain it.
pub const MARK: &str = "zq7x";
/// The pattern of the values, in which no value is found itself.
pub const PATTERN: &str = "zq[7]x[0-9a-f]{32}";

/// Bytes by which a needle is first looked for.
const HEAD: usize = 4;

/// A value that nobody has seen before.
pub fn fresh() -> anyhow::Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("no randomness")?;
    Ok(format!("{MARK}{}", uuid.trim().replace('-', "")))
}

/// Some named values in all their forms.
pub struct Needles {
    by_head: BTreeMap<[u8; HEAD], Vec<(usize, Vec<u8>)>>,
    first: [bool; 256],
}

impl Needles {
    /// The values by number.
    pub fn of<'v>(values: impl IntoIterator<Item = &'v str>) -> Self {
        let mut needles = Self { by_head: BTreeMap::new(), first: [false; 256] };
        for (number, value) in values.into_iter().enumerate() {
            for form in forms(value.as_bytes()) {
                let Some(head) = form.first_chunk::<HEAD>() else { continue };
                if let Some(first) = needles.first.get_mut(usize::from(head[0])) {
                    *first = true;
                }
                needles.by_head.entry(*head).or_default().push((number, form));
            }
        }
        needles
    }

    /// The numbers of the values that are in these bytes.
    pub fn within(&self, bytes: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            if !self.first.get(usize::from(*byte)).copied().unwrap_or_default() {
                continue;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let candidates = rest.first_chunk::<HEAD>().and_then(|head| self.by_head.get(head));
            for (number, form) in candidates.into_iter().flatten() {
                if rest.starts_with(form) {
                    found.push(*number);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The forms in which a value may be written.
mod base64_forms {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    /// As it is, in hex of both cases, and the part of its base64 that no neighbour changes, in all
    /// three alignments.
    pub fn forms(value: &[u8]) -> Vec<Vec<u8>> {
        let mut forms = vec![value.to_vec()];
        for upper in [false, true] {
            let digits = value.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") });
            forms.push(digits.collect::<String>().into_bytes());
        }
        forms.extend((0..3).map(|skip| inner_base64(value, skip)));
        forms
    }

    /// Base64 of the value without its first bytes, whole groups only.
    fn inner_base64(value: &[u8], skip: usize) -> Vec<u8> {
        let groups = value.get(skip..).unwrap_or_default().chunks_exact(3);
        let digits = groups.flat_map(|group| {
            let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
            [18, 12, 6, 0].map(|shift| ALPHABET.get((bits >> shift) & 63).copied().unwrap_or_default())
        });
        digits.collect()
    }
}

/// All regular files under a folder; links are not followed.
pub fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// Everything that a repository holds, unpacked.
pub fn objects(repository: &Path) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "-C"]).arg(repository);
    let output = command.args(["cat-file", "--batch-all-objects", "--batch", "--unordered"]).output()?;
    if !output.status.success() {
        bail!("git can't list {}: {}", repository.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
