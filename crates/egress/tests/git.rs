//! The real git through the door: clone, fetch and push to the task's own branch, and nothing else;
//! the credentials are nowhere on its side.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use egress::*;
use http_body_util::Full;
use hyper::Response;
use support::*;
use testkit::Repo;
use tokio::io::AsyncWriteExt as _;

const BRANCH: &str = "chargehand/task-1";

/// `git http-backend` over repositories in a folder, for those who know the password.
fn backend(root: &Path) -> Arc<Answering> {
    let root = root.to_owned();
    Arc::new(move |seen: &Seen| {
        let expected =
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{CANARY}")));
        if seen.header("authorization") != Some(expected.as_str()) {
            return Response::builder()
                .status(401)
                .header("www-authenticate", "Basic realm=\"forge\"")
                .body(Full::default())
                .unwrap();
        }
        let (method, uri) = seen.line.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let mut command = std::process::Command::new("git");
        command
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_USER", "chargehand")
            .env("REQUEST_METHOD", method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", seen.header("content-type").unwrap_or_default())
            .env("CONTENT_LENGTH", seen.body.len().to_string())
            .env("GIT_PROTOCOL", seen.header("git-protocol").unwrap_or_default())
            .env("HTTP_CONTENT_ENCODING", seen.header("content-encoding").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let body = seen.body.clone();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &body));
        let out = child.wait_with_output().unwrap().stdout;
        let _ = writer.join().unwrap();
        let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let mut response = Response::builder();
        for line in String::from_utf8_lossy(&out[..end]).lines() {
            let (name, value) = line.split_once(": ").unwrap();
            response = match name {
                "Status" => response.status(value[..3].parse::<u16>().unwrap()),
                _ => response.header(name, value),
            };
        }
        response.body(Full::new(Bytes::copy_from_slice(&out[end + 4..]))).unwrap()
    })
}

struct Scene {
    world: World,
    far: Far,
    upstream: Repo,
    _root: tempfile::TempDir,
    _door: Door,
    settings: BoxSettings,
    home: tempfile::TempDir,
}

impl Scene {
    async fn new(push: bool) -> Self {
        let world = World::new();
        let root = tempfile::tempdir().unwrap();
        let upstream = Repo::with_commit();
        std::fs::create_dir_all(root.path().join("me")).unwrap();
        let bare = upstream.to_bare();
        let config = ["config", "http.receivepack", "true"];
        bare.git(&config);
        std::os::unix::fs::symlink(bare.path(), root.path().join("me/repo.git")).unwrap();
        std::os::unix::fs::symlink(bare.path(), root.path().join("me/other.git")).unwrap();
        let far = Far::start(Some(world.trust.server(&["forge.test"])), backend(root.path())).await;
        let push = if push { format!("push = \"{BRANCH}\", ") } else { String::new() };
        let entries = format!(
            "allow = [{{ group = \"git:forge.test/me/repo\", {push}ports = [{}], private = true, secret = \"TOKEN\" }}]",
            far.port
        );
        let door = world.door(&entries);
        let proxy = world.forwarder().await;
        let home = tempfile::tempdir().unwrap();
        let settings = settings(&world, &entries, proxy, home.path());
        Self { world, far, upstream: bare, _root: root, _door: door, settings, home }
    }

    /// Runs git as a program in the box would.
    async fn git(&self, folder: &Path, args: &[&str]) -> (bool, String) {
        let mut command = tokio::process::Command::new("git");
        command.args(args).current_dir(folder).env_clear().env("PATH", env!("PATH")).env("HOME", self.home.path());
        command.envs(self.settings.env.iter().map(|(name, value)| (name, value)));
        let author = [
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
        ];
        command.envs(author).env("GIT_TRACE_CURL", "1");
        let out = command.output().await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(!text.contains(CANARY), "{text}");
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.contains("http.c:") && !line.contains("trace")).collect();
        (out.status.success(), lines.join("\n"))
    }

    async fn cloned(&self) -> std::path::PathBuf {
        let address = format!("https://forge.test:{}/me/repo.git", self.far.port);
        let (fine, text) = self.git(self.home.path(), &["clone", "-q", &address, "work"]).await;
        assert!(fine, "{text}");
        self.home.path().join("work")
    }
}

fn settings(world: &World, entries: &str, proxy: SocketAddr, folder: &Path) -> BoxSettings {
    #[derive(serde::Deserialize)]
    struct File {
        allow: Vec<AllowEntry>,
    }
    let list = AllowList::new(toml::from_str::<File>(entries).unwrap().allow).unwrap();
    let settings = box_settings(&BoxSettingsFor {
        list: &list,
        proxy,
        folder: folder.to_str().unwrap(),
        authority_pem: Some(world.authority.certificate_pem()),
        system_bundle_pem: "",
    });
    for (path, bytes) in &settings.files {
        std::fs::write(path, bytes).unwrap();
    }
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes_its_own_branch_without_a_secret_on_its_side() {
    let scene = Scene::new(true).await;
    let work = scene.cloned().await;
    std::fs::write(work.join("new.txt"), vec![b'x'; 3_000_000]).unwrap();
    scene.git(&work, &["add", "."]).await;
    scene.git(&work, &["commit", "-qm", "work"]).await;
    let (fine, text) = scene.git(&work, &["push", "-q", "origin", &format!("HEAD:refs/heads/{BRANCH}")]).await;
    assert!(fine, "{text}");
    let (_, head) = scene.git(&work, &["rev-parse", "HEAD"]).await;
    assert_eq!(scene.upstream.head_of(BRANCH).as_deref(), Some(head.trim()));
    let (fine, text) = scene.git(&work, &["fetch", "-q", "origin"]).await;
    assert!(fine, "{text}");
    let on_disk = std::process::Command::new("grep").args(["-r", CANARY]).arg(scene.home.path()).output().unwrap();
    assert!(on_disk.stdout.is_empty());
    let records = scene.world.book_len();
    for record in scene.world.records(records).await {
        assert_eq!((record.denial, record.status), (None, Some(200)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_can_push_nothing_else() {
    let scene = Scene::new(true).await;
    let work = scene.cloned().await;
    let before = scene.upstream.git(&["for-each-ref"]);
    scene.git(&work, &["commit", "-q", "--allow-empty", "-m", "x"]).await;
    let ours = format!("HEAD:refs/heads/{BRANCH}");
    let other = format!("https://forge.test:{}/me/other.git", scene.far.port);
    scene.upstream.git(&["config", "receive.advertisePushOptions", "true"]);
    let tries: [&[&str]; 6] = [
        &["push", "origin", "HEAD:refs/heads/main"],
        &["push", "origin", "HEAD:refs/tags/v1"],
        &["push", "origin", &ours, "HEAD:refs/heads/main"],
        &["push", "origin", &format!(":refs/heads/{BRANCH}")],
        &["push", "-o", "ci.skip", "origin", &ours],
        &["push", &other, &ours],
    ];
    for args in tries {
        let (fine, text) = scene.git(&work, args).await;
        assert!(!fine, "{args:?} {text}");
    }
    assert_eq!(scene.upstream.git(&["for-each-ref"]), before);
    let count = scene.world.book_len();
    let denied: Vec<&str> =
        scene.world.records(count).await.iter().filter_map(|r| r.denial.as_ref().map(Denial::code)).collect::<Vec<_>>();
    for code in ["push_ref", "push_unreadable", "path_not_allowed"] {
        assert!(denied.contains(&code), "{denied:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_branch_a_repository_is_read_only() {
    let scene = Scene::new(false).await;
    let work = scene.cloned().await;
    scene.git(&work, &["commit", "-q", "--allow-empty", "-m", "x"]).await;
    let (fine, text) = scene.git(&work, &["push", "origin", &format!("HEAD:refs/heads/{BRANCH}")]).await;
    assert!(!fine, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_push_is_refused_in_the_middle_of_its_commands() {
    let scene = Scene::new(true).await;
    let zero = "0".repeat(40);
    let one = "1".repeat(40);
    let line = |name: &str| {
        let line = format!("{zero} {one} {name}");
        format!("{:04x}{line}", line.len() + 4)
    };
    let mut stream = tokio::net::UnixStream::connect(scene.world.socket()).await.unwrap();
    let port = scene.far.port;
    let head = format!(
        "POST http://forge.test:{port}/me/repo.git/git-receive-pack HTTP/1.1\r\nHost: forge.test:{port}\r\nContent-Length: 10000\r\n\r\n"
    );
    let body = format!("{}{}", line(&format!("refs/heads/{BRANCH}")), line("refs/heads/main"));
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = vec![0; 1000];
    let count = tokio::io::AsyncReadExt::read(&mut stream, &mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert_eq!(reason(&answer), "push_ref");
    assert_eq!(scene.far.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}
