//! An OCI image layout on disk: which image, which layers, what its configuration says.
//!
//! A layout is a folder, or a plain tar of one. Everything is named by its digest, and nothing is
//! believed before its digest was right. Absent: registries; somebody else brought the layout here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::report::ImportError;
use super::unpack::hex;

/// The longest JSON document of a layout, in bytes.
const MAX_JSON_BYTES: u64 = 4 << 20;
/// The most layers of one image.
const MAX_LAYERS: usize = 500;
/// How often an index may lead to another one.
const MAX_NESTING: usize = 3;
/// The most entries of a layout that is a tar.
const MAX_MEMBERS: usize = 10_000;

/// A reference to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    media_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ImageConfig {
    architecture: Option<String>,
    os: Option<String>,
    config: Option<RunConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RunConfig {
    #[serde(default)]
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

/// An image of a layout, verified as far as its documents.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its manifest, without the algorithm.
    pub digest: String,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Where its commands begin.
    pub workdir: Option<PathBuf>,
    /// As whom its commands run.
    pub user: Option<String>,
}

/// A layout that can be read.
pub struct Layout {
    path: PathBuf,
    /// For a tar: where each member lies in it.
    members: Option<BTreeMap<PathBuf, (u64, u64)>>,
}

/// The name of this machine's architecture in image documents.
pub const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}

impl Layout {
    /// Opens a layout.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let read = |source| ImportError::Read { path: path.to_owned(), source };
        let about = std::fs::metadata(path).map_err(read)?;
        let members = if about.is_dir() { None } else { Some(members(path)?) };
        let layout = Self { path: path.to_owned(), members };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let marker: Marker = layout.json(Path::new("oci-layout"), &layout.small(Path::new("oci-layout"))?)?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(layout.unusable(format!("its version is {}, and 1.x is known", marker.image_layout_version)));
        }
        Ok(layout)
    }

    fn unusable(&self, why: impl Into<String>) -> ImportError {
        ImportError::Layout { path: self.path.clone(), why: why.into() }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &Path, bytes: &[u8]) -> Result<T, ImportError> {
        serde_json::from_slice(bytes).map_err(|error| self.unusable(format!("{}: {error}", name.display())))
    }

    /// Opens a member.
    fn member(&self, name: &Path) -> Result<io::Take<File>, ImportError> {
        let read = |source| ImportError::Read { path: self.path.join(name), source };
        match &self.members {
            None => {
                // Not to hang on a pipe that lies there instead.
                let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
                let file = File::options().read(true).custom_flags(flags).open(self.path.join(name)).map_err(read)?;
                if !file.metadata().map_err(read)?.is_file() {
                    return Err(self.unusable(format!("{} is no file", name.display())));
                }
                Ok(file.take(u64::MAX))
            }
            Some(members) => {
                let (at, size) =
                    members.get(name).ok_or_else(|| self.unusable(format!("{} is not in it", name.display())))?;
                let mut file = File::open(&self.path).map_err(read)?;
                file.seek(SeekFrom::Start(*at)).map_err(read)?;
                Ok(file.take(*size))
            }
        }
    }

    fn small(&self, name: &Path) -> Result<Vec<u8>, ImportError> {
        let mut bytes = Vec::new();
        let read = |source| ImportError::Read { path: self.path.join(name), source };
        self.member(name)?.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > MAX_JSON_BYTES {
            return Err(self.unusable(format!("{} is longer than a document may be", name.display())));
        }
        Ok(bytes)
    }

    fn blob_name(&self, blob: &Descriptor) -> Result<PathBuf, ImportError> {
        let digits = blob.digest.strip_prefix("sha256:").filter(|digits| {
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        let digits = digits.ok_or_else(|| {
            self.unusable(format!(
                "`{}` is not a sha256 digest; others are not known",
                super::land::printable(blob.digest.as_bytes())
            ))
        })?;
        Ok(Path::new("blobs/sha256").join(digits))
    }

    /// Opens a layer; whoever reads it has to compare its digest.
    pub fn blob(&self, blob: &Descriptor) -> Result<impl Read + use<>, ImportError> {
        self.member(&self.blob_name(blob)?)
    }

    /// A document, verified.
    fn document(&self, blob: &Descriptor) -> Result<Vec<u8>, ImportError> {
        let name = self.blob_name(blob)?;
        let bytes = self.small(&name)?;
        let found = {
            use sha2::Digest as _;
            format!("sha256:{}", hex(&sha2::Sha256::digest(&bytes)))
        };
        verify(blob, &found, bytes.len() as u64)?;
        Ok(bytes)
    }

    /// The image with this name, or the only one.
    pub fn image(&self, tag: Option<&str>) -> Result<Image, ImportError> {
        let name = Path::new("index.json");
        let mut index: Index = self.json(name, &self.small(name)?)?;
        let mut wanted_tag = tag;
        for _ in 0..MAX_NESTING {
            let chosen = self.choose(&index.manifests, wanted_tag.take())?;
            let bytes = self.document(&chosen)?;
            let name = self.blob_name(&chosen)?;
            if chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
                index = self.json(&name, &bytes)?;
                continue;
            }
            let manifest: Manifest = self.json(&name, &bytes)?;
            return self.described(&chosen, manifest);
        }
        Err(self.unusable("its indexes lead to indexes without end"))
    }

    fn choose(&self, listed: &[Descriptor], tag: Option<&str>) -> Result<Descriptor, ImportError> {
        let names = |descriptor: &Descriptor| {
            ["org.opencontainers.image.ref.name", "io.containerd.image.name"]
                .iter()
                .filter_map(|key| descriptor.annotations.get(*key).cloned())
                .collect::<Vec<_>>()
        };
        let tagged = listed.iter().filter(|d| tag.is_none_or(|tag| names(d).iter().any(|name| name == tag)));
        let fits = |d: &&Descriptor| {
            d.platform.as_ref().is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
        };
        let tagged: Vec<&Descriptor> = tagged.collect();
        let fitting: Vec<&Descriptor> = tagged.iter().copied().filter(fits).collect();
        match fitting.as_slice() {
            [only] => Ok((*only).clone()),
            [] => match tagged.iter().find_map(|d| d.platform.as_ref()) {
                Some(platform) => Err(ImportError::OtherArchitecture {
                    found: format!("{}/{}", platform.os, platform.architecture),
                    host: format!("linux/{}", architecture()),
                }),
                None => {
                    let known: Vec<String> = listed.iter().flat_map(names).collect();
                    Err(self.unusable(format!(
                        "it has no image `{}`; it has: {}",
                        tag.unwrap_or("at all"),
                        known.join(", ")
                    )))
                }
            },
            several => {
                let known: Vec<String> = several.iter().flat_map(|d| names(d)).collect();
                Err(self.unusable(format!("it has {} images; name one by `tag`: {}", several.len(), known.join(", "))))
            }
        }
    }

    fn described(&self, manifest_blob: &Descriptor, manifest: Manifest) -> Result<Image, ImportError> {
        if manifest.layers.len() > MAX_LAYERS {
            return Err(self.unusable(format!("it has {} layers, more than {MAX_LAYERS}", manifest.layers.len())));
        }
        let name = self.blob_name(&manifest.config)?;
        let config: ImageConfig = self.json(&name, &self.document(&manifest.config)?)?;
        if let (Some(os), Some(found)) = (&config.os, &config.architecture)
            && (os != "linux" || found != architecture())
        {
            return Err(ImportError::OtherArchitecture {
                found: format!("{os}/{found}"),
                host: format!("linux/{}", architecture()),
            });
        }
        let run = config.config.unwrap_or_default();
        let pair = |line: String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Image {
            digest: manifest_blob.digest.trim_start_matches("sha256:").to_owned(),
            layers: manifest.layers,
            env: run.env.unwrap_or_default().into_iter().filter_map(pair).collect(),
            workdir: run.working_dir.filter(|dir| dir.starts_with('/')).map(PathBuf::from),
            user: run.user.filter(|user| !user.is_empty()),
        })
    }
}

/// Compares what was read with what it is named by.
pub fn verify(blob: &Descriptor, found: &str, size: u64) -> Result<(), ImportError> {
    if found == blob.digest && size == blob.size {
        return Ok(());
    }
    let found = if found == blob.digest { format!("{size} bytes instead of {}", blob.size) } else { found.to_owned() };
    Err(ImportError::WrongBlob { wanted: blob.digest.clone(), found })
}

/// Where the members of a plain tar lie.
fn members(path: &Path) -> Result<BTreeMap<PathBuf, (u64, u64)>, ImportError> {
    let unusable = |why: String| ImportError::Layout { path: path.to_owned(), why };
    let file = File::open(path).map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
    let mut archive = tar::Archive::new(file);
    let broken = |error: io::Error| unusable(format!("it is no plain tar of a layout ({error}); unpack it first"));
    let mut found = BTreeMap::new();
    for entry in archive.entries_with_seek().map_err(broken)?.raw(true) {
        let entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.header().path_bytes()).trim_start_matches("./").to_owned();
        let size = entry.header().entry_size().map_err(broken)?;
        if found.insert(PathBuf::from(&name), (entry.raw_file_position(), size)).is_some() {
            return Err(unusable(format!("{name} is in it twice")));
        }
        if found.len() > MAX_MEMBERS {
            return Err(unusable(format!("it has more than {MAX_MEMBERS} files")));
        }
    }
    Ok(found)
}
