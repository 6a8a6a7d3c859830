//! OCI image layouts: layers over one another, whiteouts, digests that have to be right.

use std::path::{Path, PathBuf};

use sandbox::environment::import::{ImportError, ImportLimits, Imported, import};
use sandbox::environment::recipe::Base;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::archive::{Tar, gzip, save, zstd};
use crate::imports::{harmless, tree};
use crate::world::{World, in_world};

/// A layout in the making.
struct Image {
    folder: PathBuf,
    layers: Vec<Value>,
    config: Value,
}

impl Image {
    fn new(world: &World) -> Self {
        let folder = world.folder.path().join(world.exec_id());
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        save(&folder, "oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": ["PATH=/opt/bin:/bin", "A=b=c"], "WorkingDir": "/srv/app", "User": "1000"},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        Self { folder, layers: Vec::new(), config }
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        save(&self.folder, &format!("blobs/sha256/{digest}"), bytes);
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn layer(mut self, bytes: &[u8]) -> Self {
        let blob = self.blob(bytes, "application/vnd.oci.image.layer.v1.tar+gzip");
        self.layers.push(blob);
        self
    }

    fn done(self) -> PathBuf {
        let config = self.blob(self.config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": self.layers});
        let mut entry = self.blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        save(&self.folder, "index.json", json!({"schemaVersion": 2, "manifests": [entry]}).to_string().as_bytes());
        self.folder
    }
}

async fn take(world: &World, layout: &Path, tag: Option<&str>) -> Result<Imported, ImportError> {
    let base = Base::Oci { layout: layout.to_owned(), tag: tag.map(str::to_owned) };
    Ok(import(&world.provider, &base, ImportLimits::default()).await?.unwrap())
}

fn two_layers(world: &World) -> Image {
    let lower = Tar::default()
        .folder("etc")
        .file("etc/removed", "x")
        .file("etc/kept", "kept")
        .folder("hidden")
        .file("hidden/old", "x")
        .folder("hidden/deep")
        .file("hidden/deep/old", "x")
        .folder("was-folder")
        .file("was-folder/in", "x")
        .link("lib", "usr/lib")
        .folder("usr/lib")
        .folder("tmp")
        .link("escape", "/../../../../../../tmp");
    let upper = Tar::default()
        .file("etc/.wh.removed", "")
        .file("hidden/new", "new")
        .file("hidden/deep/new", "new")
        .file("hidden/.wh..wh..opq", "")
        .file("was-folder", "a file now")
        .file("lib/through", "through")
        .file("escape/inside", "inside")
        .file("etc/replaced", "1")
        .file("etc/.wh.replaced", "");
    Image::new(world).layer(&gzip(&lower.done())).layer(&zstd(&upper.done()))
}

#[test]
fn layers_lie_over_one_another_and_whiteouts_remove_only_what_is_below() {
    in_world(async |world| {
        let imported = take(world, &two_layers(world).done(), Some("1")).await.unwrap();
        let root = tree(world, &imported);
        let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        assert_eq!((read("etc/removed"), read("etc/kept").as_deref()), (None, Some("kept")));
        assert_eq!((read("hidden/old"), read("hidden/new").as_deref()), (None, Some("new")));
        assert_eq!((read("hidden/deep/old"), read("hidden/deep/new").as_deref()), (None, Some("new")));
        assert_eq!(read("was-folder").as_deref(), Some("a file now"));
        assert_eq!(
            read("usr/lib/through").as_deref(),
            Some("through"),
            "a link of a lower layer leads inside the image"
        );
        assert_eq!(read("tmp/inside").as_deref(), Some("inside"), "also one that wants out");
        assert!(!Path::new("/tmp/inside").exists());
        assert_eq!(read("etc/replaced").as_deref(), Some("1"), "a whiteout speaks of lower layers only");
        harmless(&root);
        assert_eq!(imported.env, [("PATH".into(), "/opt/bin:/bin".into()), ("A".into(), "b=c".into())]);
        assert_eq!((imported.workdir, imported.user.as_deref()), (Some("/srv/app".into()), Some("1000")));
        let report = imported.report.unwrap();
        assert_eq!(report.whiteouts, 3);
        assert!(report.notes.iter().any(|note| note.contains("1000")), "{:?}", report.notes);
    });
}

#[test]
fn a_layout_in_a_tar_is_the_same_image() {
    in_world(async |world| {
        let folder = two_layers(world).done();
        let first = take(world, &folder, None).await.unwrap();
        let file = std::fs::File::create(world.folder.path().join("image.tar")).unwrap();
        let mut builder = tar::Builder::new(file);
        builder.append_dir_all(".", &folder).unwrap();
        builder.into_inner().unwrap();
        let again = take(world, &world.folder.path().join("image.tar"), None).await.unwrap();
        assert_eq!((again.key, again.report), (first.key, None));
    });
}

#[test]
fn a_blob_with_other_content_is_refused_and_so_is_a_layout_that_is_none() {
    in_world(async |world| {
        let folder = two_layers(world).done();
        for blob in std::fs::read_dir(folder.join("blobs/sha256")).unwrap().flatten() {
            let bytes = std::fs::read(blob.path()).unwrap();
            let mut changed = bytes.clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            for wrong in [changed, [bytes.as_slice(), b" "].concat()] {
                std::fs::write(blob.path(), wrong).unwrap();
                let error = take(world, &folder, None).await.unwrap_err();
                assert!(matches!(error, ImportError::WrongBlob { .. }), "{error:?}");
            }
            std::fs::write(blob.path(), bytes).unwrap();
        }
        assert!(take(world, &folder, None).await.is_ok());
        let error = take(world, &folder, Some("2")).await.unwrap_err().to_string();
        assert!(error.contains("no image `2`; it has: 1"), "{error}");
        std::fs::remove_file(folder.join("oci-layout")).unwrap();
        assert!(matches!(take(world, &folder, None).await, Err(ImportError::Read { .. })));
        let file = save(world.folder.path(), "none.tar", &Tar::default().file("index.json", "{}").done());
        let error = take(world, &file, None).await.unwrap_err();
        assert!(matches!(error, ImportError::Layout { .. }), "{error:?}");
    });
}

#[test]
fn names_in_documents_lead_nowhere_but_to_blobs() {
    in_world(async |world| {
        let image = two_layers(world);
        for digest in ["sha256:../../../../etc/passwd", "sha512:00", "md5:x", ""] {
            let mut wrong =
                Image { folder: image.folder.clone(), layers: image.layers.clone(), config: image.config.clone() };
            wrong.layers[0]["digest"] = digest.into();
            let error = take(world, &wrong.done(), None).await.unwrap_err();
            assert!(matches!(error, ImportError::Layout { .. }), "{digest}: {error:?}");
        }
        let mut other =
            Image { folder: image.folder.clone(), layers: image.layers.clone(), config: image.config.clone() };
        other.config["architecture"] = "s390x".into();
        let error = take(world, &other.done(), None).await.unwrap_err();
        assert!(matches!(error, ImportError::OtherArchitecture { .. }), "{error:?}");
        let climbing = Tar::default().file("a/.wh...", "").done();
        let layered = Image::new(world).layer(&climbing).done();
        assert!(matches!(take(world, &layered, None).await, Err(ImportError::BadName { .. })));
    });
}
