//! A server of its own for each test, and the words to speak to it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::id::{Digest, TaskId};
use egress::SystemResolver;
use orchestrator::{ChosenModel, Clock, Engine, Handle, Models, Outside, Ports, Random, Settings, Trust};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sandbox::Provider as _;
use sandbox::local::{LocalConfig, LocalProvider, Toolchains};
use serde_json::Value;
use server::api::{Problem, ProblemType};
use server::{Bound, Secret, SecretKeeper, ServerConfig, serve};
use tempfile::TempDir;
use testkit::Repo;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct WallClock;
impl Clock for WallClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// Ids that differ and are the same in each run.
#[derive(Default)]
struct Counted(AtomicU64);
impl Random for Counted {
    fn bits(&self) -> u64 {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        u64::from_str_radix(&Digest::of(&count.to_be_bytes()).as_str()[..15], 16).unwrap()
    }
}

/// A machine on which no model is configured.
struct NoModels;
impl Models for NoModels {
    fn choose(&self, _: Option<&str>) -> Result<ChosenModel, String> {
        Err("no model is configured; set a key, a local endpoint or use the command agent".to_owned())
    }
}

pub struct World {
    pub dir: TempDir,
    pub repo: Repo,
    pub handle: Handle,
    pub socket: PathBuf,
    /// On the unix socket.
    pub local: Client,
    /// Address of the TCP socket.
    pub tcp: String,
    pub shutdown: CancellationToken,
    pub config: ServerConfig,
}

/// Why boxes can't be had for this test, if they can't.
pub fn box_program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = own.ancestors().nth(2).map(|dir| dir.join("chargehand-box")).unwrap_or_default();
    if program.is_file() { Ok(program) } else { Err("build it first: cargo build -p sandbox".to_owned()) }
}

/// Runs a test against a server. `working` also runs the engine, so that tasks are worked on.
pub async fn in_world(working: bool, test: impl AsyncFnOnce(&World)) {
    let dir = TempDir::with_prefix("server-").unwrap();
    let boxes_dir = tempfile::Builder::new().prefix("boxes-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = box_program().unwrap_or_else(|_| "/nonexistent".into());
    let boxes = LocalConfig::of_program(&program, boxes_dir.path(), Toolchains::default());
    let boxes = Arc::new(LocalProvider::open(boxes).unwrap());
    let forge = forge::BuiltIn::new(forge::ForgeConfig::new(dir.path().join("forge"))).await.unwrap();
    let store = store::memory::open();
    let keys = store::secrets::FileKeys::at(dir.path().join("secrets.key"));
    let vault = Arc::new(store::Vault::new(store.secrets.clone(), Arc::new(keys)));
    // No test here opens the way out of a box.
    let trust = Trust { upstream: Box::new(|| Err("nobody is trusted".to_owned())), bundle: Box::new(String::new) };
    let outside = Outside::new(Arc::new(SystemResolver), trust, vault.clone(), dir.path().join("doors"));
    let ports = Ports {
        store,
        outside: Arc::new(outside),
        forge: Arc::new(forge),
        boxes: boxes.clone(),
        models: Arc::new(NoModels),
        clock: Arc::new(WallClock),
        random: Arc::new(Counted::default()),
    };
    let (engine, handle) = Engine::new(ports, Settings::new(dir.path().join("scratch"))).await;
    let shutdown = CancellationToken::new();
    let socket = dir.path().join(server::SOCKET_NAME);
    let config = ServerConfig {
        unix_socket: Some(socket.clone()),
        tcp: Some("127.0.0.1:0".parse().unwrap()),
        token: Secret::new(TOKEN),
        local_user: "ada".to_owned(),
        version: "0.1.0-test".to_owned(),
        secrets: SecretKeeper { vault, clock: Arc::new(WallClock) },
    };
    let bound: Bound = serve(config.clone(), handle.clone(), shutdown.clone()).await.unwrap();
    let world = World {
        repo: Repo::with_commit(),
        handle,
        local: Client::builder().unix_socket(socket.clone()).build().unwrap(),
        socket,
        tcp: format!("http://{}", bound.tcp.unwrap()),
        shutdown: shutdown.clone(),
        config,
        dir,
    };
    let body = async {
        let run = async {
            let result = futures_util::FutureExt::catch_unwind(AssertUnwindSafe(test(&world))).await;
            shutdown.cancel();
            result
        };
        let work = async {
            if working {
                engine.run(shutdown.clone()).await.unwrap();
            }
        };
        tokio::join!(run, work).0
    };
    let result = body.await;
    bound.stopped().await;
    for info in boxes.list().await.unwrap() {
        boxes.destroy(&info.id).await.unwrap();
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.local.get(format!("http://localhost{path}"))
    }

    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.local.post(format!("http://localhost{path}")).json(body)
    }

    /// A body for a task with a program that adds a line to the readme.
    pub fn wish(&self, goal: &str) -> Value {
        serde_json::json!({
            "goal": goal,
            "repo": self.repo.path(),
            "agent": "command",
            "argv": ["sh", "-c", "echo mended >> README.md"],
            "contract": {"gates": [{"name": "mended", "command": ["grep", "-n", "mended", "README.md"]}]},
        })
    }

    /// A task that was accepted.
    pub async fn submit(&self, goal: &str) -> TaskId {
        let answer = self.post("/v1/tasks", &self.wish(goal)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
        serde_json::from_value(json(answer).await["task"]["id"].clone()).unwrap()
    }
}

/// Whether tasks can be accepted here; says it when they can't.
pub async fn can_submit(world: &World, name: &str) -> bool {
    let answer = world.post("/v1/tasks", &world.wish("try")).send().await.unwrap();
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        let why = box_program().err().unwrap_or_else(|| "this machine can't run boxes".to_owned());
        testkit::not_run(name, &why);
        return false;
    }
    true
}

pub async fn json(answer: Response) -> Value {
    let status = answer.status();
    let text = answer.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}: {error}: {text}"))
}

/// A good answer's body.
pub async fn good(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = json(answer).await;
    assert!(status.is_success(), "{status}: {body}");
    body
}

/// A problem, which has to be of this kind, with its status and media type.
pub async fn problem(request: RequestBuilder, kind: ProblemType) -> Problem {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let media_type = answer.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let text = answer.text().await.unwrap();
    assert_eq!(media_type.as_deref(), Some("application/problem+json"), "{status}: {text}");
    let problem: Problem = serde_json::from_str(&text).unwrap();
    assert!(problem.is(kind), "{problem:?}");
    assert_eq!(status, kind.status());
    assert!(!problem.detail.is_empty());
    problem
}

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: Option<u64>,
    pub event: String,
    pub data: String,
}

/// A stream, read message by message as a client of any make would.
pub struct Messages {
    answer: Response,
    buffer: String,
}

impl Messages {
    pub async fn open(request: RequestBuilder) -> Self {
        let answer = request.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, buffer: String::new() }
    }

    /// The next message that is not a comment; nothing at the end.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let block = block.to_owned();
                self.buffer = rest.to_owned();
                let field = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)).map(ToOwned::to_owned);
                if let (Some(event), Some(data)) = (field("event: "), field("data: ")) {
                    return Some(Message { id: field("id: ").map(|id| id.parse().unwrap()), event, data });
                }
            }
            let chunk = self.answer.chunk().await.ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
