//! The real cargo, npm and pip through the door, against small registries that ask for a token: they
//! find their packages, and the token is nowhere on their side.

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use egress::*;
use http_body_util::Full;
use hyper::Response;
use support::*;

/// A registry: files by their path, for those who know the token.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<HashMap<String, Vec<u8>>>>);

impl Files {
    fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().insert(path.to_owned(), content.into());
    }

    fn answering(&self) -> Arc<Answering> {
        let files = self.clone();
        Arc::new(move |seen: &Seen| {
            if seen.header("authorization") != Some(&format!("Bearer {CANARY}")) {
                return Response::builder().status(401).body(Full::default()).unwrap();
            }
            let path = seen.line.split(' ').nth(1).unwrap().split('?').next().unwrap();
            match files.0.lock().unwrap().get(path) {
                Some(content) if path.starts_with("/simple") => Response::builder()
                    .header("content-type", "text/html")
                    .body(Full::new(Bytes::from(content.clone())))
                    .unwrap(),
                Some(content) => Response::new(Full::new(Bytes::from(content.clone()))),
                None => Response::builder().status(404).body(Full::default()).unwrap(),
            }
        })
    }
}

struct Scene {
    world: World,
    far: Far,
    files: Files,
    settings: BoxSettings,
    home: tempfile::TempDir,
    _door: Door,
}

impl Scene {
    async fn new(group: &str) -> Self {
        let world = World::new();
        let files = Files::default();
        let far = Far::start(Some(world.trust.server(&["registry.test"])), files.answering()).await;
        let list = AllowList::new(vec![AllowEntry {
            group: Some(group.to_owned()),
            hosts: vec!["registry.test".to_owned()],
            ports: vec![far.port],
            private: true,
            secret: Some("TOKEN".to_owned()),
            ..AllowEntry::default()
        }])
        .unwrap();
        let door = world.door_with(list.clone());
        let proxy = world.forwarder().await;
        let home = tempfile::tempdir().unwrap();
        let settings = box_settings(&BoxSettingsFor {
            list: &list,
            proxy,
            folder: home.path().to_str().unwrap(),
            authority_pem: Some(world.authority.certificate_pem()),
            system_bundle_pem: "",
        });
        for (path, bytes) in &settings.files {
            std::fs::write(path, bytes).unwrap();
        }
        Self { world, far, files, settings, home, _door: door }
    }

    fn address(&self) -> String {
        format!("https://registry.test:{}", self.far.port)
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs a program as in the box; it has to succeed.
    async fn run(&self, mut command: Command) -> String {
        command.current_dir(self.home()).env("HOME", self.home()).env("CARGO_HOME", self.home().join("cargo"));
        command.envs(self.settings.env.iter().map(|(name, value)| (name, value)));
        let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{text}");
        assert!(!text.contains(CANARY), "{text}");
        text
    }

    /// A tar archive of one folder, compressed.
    fn archive(&self, folder: &str, files: &[(&str, &str)]) -> Vec<u8> {
        for (name, content) in files {
            let path = self.home().join("made").join(folder).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let out = Command::new("tar").args(["cz", "-C"]).arg(self.home().join("made")).arg(folder).output().unwrap();
        out.stdout
    }

    async fn is_clean(&self) {
        let found = Command::new("grep").args(["-r", CANARY]).arg(self.home()).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
        let count = self.world.book_len();
        for record in self.world.records(count).await {
            assert_eq!((record.denial.as_ref(), record.failure.as_ref()), (None, None), "{record:?}");
            assert_eq!(record.secret.as_deref(), Some("TOKEN"));
        }
        assert!(count > 0);
    }
}

fn has(test: &str, program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        testkit::not_run(test, &format!("there is no {program} here"));
    }
    found
}

fn sha256(bytes: &[u8], scratch: PathBuf) -> String {
    std::fs::write(&scratch, bytes).unwrap();
    let out = Command::new("sha256sum").arg(scratch).output().unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn cargo_fetches_from_a_registry() {
    let scene = Scene::new("cargo").await;
    let package = "[package]\nname = \"tinypkg\"\nversion = \"1.0.0\"\nedition = \"2021\"\n";
    let archive = scene.archive("tinypkg-1.0.0", &[("Cargo.toml", package), ("src/lib.rs", "pub fn tiny() {}\n")]);
    let sum = sha256(&archive, scene.home().join("sum"));
    scene.files.put("/index/config.json", format!("{{\"dl\":\"{}/dl/{{crate}}/{{version}}\"}}", scene.address()));
    scene.files.put(
        "/index/ti/ny/tinypkg",
        format!("{{\"name\":\"tinypkg\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{sum}\",\"features\":{{}},\"yanked\":false}}\n"),
    );
    scene.files.put("/dl/tinypkg/1.0.0", archive);
    let project = scene.home().join("project");
    std::fs::create_dir_all(project.join("src")).unwrap();
    std::fs::create_dir_all(project.join(".cargo")).unwrap();
    std::fs::write(project.join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ntinypkg = { version = \"1\", registry = \"own\" }\n[workspace]\n";
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    let config = format!("[registries.own]\nindex = \"sparse+{}/index/\"\n", scene.address());
    std::fs::write(project.join(".cargo/config.toml"), config).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("cd project && '{}' fetch", env!("CARGO"))]);
    let text = scene.run(command).await;
    assert!(text.contains("Downloaded tinypkg v1.0.0"), "{text}");
    scene.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_installs_from_a_registry() {
    if !has("npm_installs_from_a_registry", "npm") {
        return;
    }
    let scene = Scene::new("npm").await;
    let manifest = "{\"name\":\"@own/tinypkg\",\"version\":\"1.0.0\"}";
    let archive = scene.archive("package", &[("package.json", manifest), ("index.js", "module.exports = 1\n")]);
    let about = format!(
        "{{\"name\":\"@own/tinypkg\",\"dist-tags\":{{\"latest\":\"1.0.0\"}},\"versions\":{{\"1.0.0\":{{\"name\":\"@own/tinypkg\",\"version\":\"1.0.0\",\"dist\":{{\"tarball\":\"{}/tinypkg.tgz\"}}}}}}}}",
        scene.address()
    );
    scene.files.put("/@own%2Ftinypkg", about);
    scene.files.put("/tinypkg.tgz", archive);
    let mut command = Command::new("npm");
    command.args(["install", "--no-save", "--prefix", "npm-project", "--cache", "npm-cache", "--registry"]);
    command.arg(scene.address()).arg("@own/tinypkg");
    scene.run(command).await;
    assert!(scene.home().join("npm-project/node_modules/@own/tinypkg/index.js").exists());
    scene.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_downloads_from_a_registry() {
    if !has("pip_downloads_from_a_registry", "pip") {
        return;
    }
    let scene = Scene::new("pip").await;
    let wheel = "tinypkg-1.0-py3-none-any.whl";
    let build = format!(
        "import zipfile\nz = zipfile.ZipFile('{wheel}', 'w')\nd = 'tinypkg-1.0.dist-info/'\nz.writestr('tinypkg.py', 'x = 1')\nz.writestr(d + 'METADATA', 'Metadata-Version: 2.1\\nName: tinypkg\\nVersion: 1.0\\n')\nz.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\nz.writestr(d + 'RECORD', '')\nz.close()\n"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &build]);
    scene.run(command).await;
    scene.files.put("/files/tinypkg-1.0-py3-none-any.whl", std::fs::read(scene.home().join(wheel)).unwrap());
    scene.files.put("/simple/tinypkg/", format!("<a href=\"{}/files/{wheel}\">{wheel}</a>", scene.address()));
    let mut command = Command::new("pip");
    command.args(["download", "--isolated", "--no-deps", "--no-cache-dir", "-d", "got", "--index-url"]);
    // --isolated leaves pip's own variables out, so its settings are told again.
    let find = |name: &str| scene.settings.env.iter().find(|(key, _)| key == name).unwrap().1.clone();
    command.arg(format!("{}/simple", scene.address())).args([
        "--proxy",
        &find("PIP_PROXY"),
        "--cert",
        &find("PIP_CERT"),
    ]);
    command.arg("tinypkg");
    scene.run(command).await;
    assert!(scene.home().join("got").join(wheel).exists());
    scene.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_passes_by_its_variables_and_a_publish_does_not() {
    if !has("curl_passes_by_its_variables_and_a_publish_does_not", "curl") {
        return;
    }
    let scene = Scene::new("npm").await;
    scene.files.put("/hello", "hello from afar");
    let mut command = Command::new("curl");
    command.args(["-sS", "--http2"]).arg(format!("{}/hello", scene.address()));
    assert_eq!(scene.run(command).await, "hello from afar");
    let mut command = Command::new("curl");
    command.args(["-sS", "-X", "PUT", "-d", "x"]).arg(format!("{}/hello", scene.address()));
    let text = scene.run(command).await;
    assert!(text.contains("method_not_allowed"), "{text}");
}
