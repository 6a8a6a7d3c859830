//! Bytes of an archive as they come out of their packing, never more of them than allowed.
//!
//! What the packing is, its first bytes say; names are not believed. Both sides of the packing are
//! counted, so a small file that wants to become a large one is stopped while it grows. The packed
//! side is digested on the way, so nothing is read twice. Absent: what is inside.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::Digest as _;

/// What an import may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes after unpacking, of all layers together.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Folders inside one another.
    pub depth: usize,
    /// How many bytes may come out for one that goes in. Judged once 64 MiB are out; ordinary
    /// archives stay below 30.
    pub ratio: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { bytes: 40 << 30, entries: 2_000_000, depth: 100, ratio: 300 }
    }
}

/// Bytes that may come out before the ratio is looked at.
const RATIO_FROM_BYTES: u64 = 64 << 20;

/// Why no more bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bomb {
    /// More than may come out of one import.
    #[error("it unpacks to more than the {limit} bytes that are allowed")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// Hardly anything becomes a lot.
    #[error("{packed} bytes of it unpack to {unpacked}, more than {ratio} times as many; this is no ordinary archive")]
    Ratio {
        /// Bytes read.
        packed: u64,
        /// Bytes that came of them.
        unpacked: u64,
        /// The limit.
        ratio: u64,
    },
}

impl Bomb {
    /// The bomb in an error that a reader gave, however deep.
    pub fn within(error: &io::Error) -> Option<Self> {
        let mut inner: &(dyn std::error::Error + 'static) = error.get_ref()?;
        loop {
            if let Some(bomb) = inner.downcast_ref::<Self>() {
                return Some(*bomb);
            }
            inner = match inner.downcast_ref::<io::Error>() {
                Some(wrapped) => wrapped.get_ref()?,
                None => inner.source()?,
            };
        }
    }
}

/// Reads packed bytes, counts and digests them.
pub struct Packed<R> {
    inner: R,
    count: Arc<AtomicU64>,
    hasher: sha2::Sha256,
}

impl<R: Read> Packed<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, count: Arc::default(), hasher: sha2::Sha256::new() }
    }

    /// Reads what is left; gives the digest of all and how many bytes there were.
    pub fn finish(mut self) -> io::Result<(String, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((hex(&self.hasher.finalize()), self.count.load(Ordering::Relaxed)))
    }
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the bytes are packed with.
enum Unpacking<R: Read> {
    Plain(BufReader<Packed<R>>),
    Gzip(Box<MultiGzDecoder<BufReader<Packed<R>>>>),
    Zstd(Box<Frames<BufReader<Packed<R>>>>),
}

/// The unpacked bytes, limited.
pub struct Unpacked<'a, R: Read> {
    from: Unpacking<R>,
    packed: Arc<AtomicU64>,
    /// Bytes that came out, of this and earlier archives of the same import.
    total: &'a mut u64,
    own: u64,
    limits: ImportLimits,
}

impl<'a, R: Read> Unpacked<'a, R> {
    /// Finds out the packing. `total` counts the bytes of the whole import.
    pub fn open(inner: R, limits: ImportLimits, total: &'a mut u64) -> io::Result<Self> {
        let packed = Packed::new(inner);
        let count = Arc::clone(&packed.count);
        let mut buffered = BufReader::with_capacity(128 * 1024, packed);
        let start = buffered.fill_buf()?;
        let from = if start.starts_with(&[0x1f, 0x8b]) {
            Unpacking::Gzip(Box::new(MultiGzDecoder::new(buffered)))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(start) {
            Unpacking::Zstd(Box::new(Frames { source: buffered, decoder: FrameDecoder::new(), open: false }))
        } else {
            Unpacking::Plain(buffered)
        };
        Ok(Self { from, packed: count, total, own: 0, limits })
    }

    /// Reads the packed bytes to their end; gives their digest and length.
    pub fn finish(self) -> io::Result<(String, u64)> {
        let packed = match self.from {
            Unpacking::Plain(reader) => reader,
            Unpacking::Gzip(decoder) => decoder.into_inner(),
            Unpacking::Zstd(frames) => frames.source,
        };
        packed.into_inner().finish()
    }
}

fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl<R: Read> Read for Unpacked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.from {
            Unpacking::Plain(reader) => reader.read(buffer),
            Unpacking::Gzip(decoder) => decoder.read(buffer),
            Unpacking::Zstd(frames) => frames.read(buffer),
        }?;
        self.own += count as u64;
        *self.total += count as u64;
        if *self.total > self.limits.bytes {
            return Err(io::Error::other(Bomb::TooLarge { limit: self.limits.bytes }));
        }
        let packed = self.packed.load(Ordering::Relaxed);
        if self.own > RATIO_FROM_BYTES && self.own / self.limits.ratio.max(1) > packed {
            let (unpacked, ratio) = (self.own, self.limits.ratio);
            return Err(io::Error::other(Bomb::Ratio { packed, unpacked, ratio }));
        }
        Ok(count)
    }
}

/// Zstd frames one after the other; those that are to be skipped are.
struct Frames<R: BufRead> {
    source: R,
    decoder: FrameDecoder,
    open: bool,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(u64::from(length)), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.open {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    self.decoder
                        .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                        .map_err(io::Error::other)?;
                }
                let count = self.decoder.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
            }
            self.open = self.begin()?;
            if !self.open {
                return Ok(0);
            }
        }
    }
}
