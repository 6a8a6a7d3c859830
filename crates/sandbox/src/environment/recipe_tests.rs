//! What recipes are read from, and what is refused. Absent: boxes.

use std::path::{Path, PathBuf};

use super::choose::{Origin, Sources, choose};
use super::recipe::*;
use super::{devcontainer, file};
use crate::port::{Limits, ReadOnlyBind};

const FULL: &str = r#"
version = 1
base = { oci = "/srv/images/node", tag = "22" }
read_only = ["/opt/sdk", { from = "/opt/data set", at = "/data" }]
start = ["redis-server --daemonize yes", "echo \"x\" # y"]
caches = ["/home/agent/.cache/pip"]
setup_secrets = ["NPM_TOKEN"]

[[setup]]
run = "npm ci"
network = ["npm"]
time_limit_s = 900

[[setup]]
run = '''
printf '%s\n' "$A" \
  > out'''
network = true

[[setup]]
run = "make"

[env]
NODE_ENV = "development"
A = "quotes \" and \\ and tab\t"

[limits]
memory_mb = 512
pids = 100
cpu_millis = 1500
open_files = 1000
disk_mb = 10000

[network]
tasks = ["cargo", "*.example.org"]
setup = ["npm", { host = "files.example.org", ports = [8443], methods = ["get"], paths = ["/x/*"], secret = { name = "NPM_TOKEN", how = "header:X-Key" } }, { host = "localhost" }]

[rebuild]
every_h = 24
when_branch_moves = false
"#;

fn problem(text: &str) -> String {
    file::parse(text.as_bytes()).expect_err(text).to_string()
}

#[test]
fn every_key_is_read_and_the_recipe_written_out_is_the_same_recipe() {
    let recipe = file::parse(FULL.as_bytes()).unwrap();
    assert_eq!(recipe.base, Base::Oci { layout: "/srv/images/node".into(), tag: Some("22".into()) });
    assert_eq!(recipe.read_only[1], ReadOnlyBind { from: "/opt/data set".into(), at: "/data".into() });
    assert_eq!(recipe.setup[0].network, SetupNetwork::Only(vec!["npm".into()]));
    assert_eq!(recipe.setup[1].network, SetupNetwork::Listed);
    assert_eq!(recipe.setup[2], SetupCommand::offline("make"));
    assert_eq!(recipe.reach(&recipe.setup[0]), [Allow::Group("npm".into())]);
    let Allow::Host(host) = &recipe.setup_network[1] else { panic!("{:?}", recipe.setup_network) };
    assert_eq!((host.methods.as_slice(), host.ports.as_slice()), (["GET".to_owned()].as_slice(), [8443].as_slice()));
    assert_eq!(file::parse(recipe.to_toml().as_bytes()).unwrap(), recipe, "{}", recipe.to_toml());
    assert_eq!(file::parse(b"").unwrap(), Recipe::default());
    assert_eq!(file::parse(Recipe::default().to_toml().as_bytes()).unwrap(), Recipe::default());
}

#[test]
fn the_digest_is_of_what_is_meant_and_not_of_how_it_is_written() {
    let digest = |text: &str| file::parse(text.as_bytes()).unwrap().digest();
    assert_eq!(digest("base = \"host\"\n# words\n[rebuild]\nwhen_branch_moves = true\n"), digest(""));
    assert_ne!(digest("[[setup]]\nrun = \"a\"\n"), digest("[[setup]]\nrun = \"b\"\n"));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_key_that_was_meant() {
    let said = problem("version = 1\n[[setup]]\nrunn = \"x\"\n");
    assert!(said.starts_with(".chargehand/environment.toml line 3, column 1: unknown field `runn`"), "{said}");
    assert!(said.ends_with("did you mean `run`?"), "{said}");
    assert!(problem("cache = []").ends_with("did you mean `caches`?"));
    assert!(problem("[limits]\nmemory = 1").ends_with("did you mean `memory_mb`?"));
    assert!(!problem("zzzzzzzzzz = 1").contains("did you mean"));
}

#[test]
fn values_that_cannot_be_are_refused_with_what_would_be_right() {
    for (text, wanted) in [
        ("version = 2", "version = 1"),
        ("base = \"debian\"", "rootfs"),
        ("base = { rootfs = \"/a\", oci = \"/b\" }", "exactly one"),
        ("base = { rootfs = \"a\" }", "absolute"),
        ("base = { tarball = \"/a/../etc\" }", "`..`"),
        ("read_only = [\"/\"]", "below the root"),
        ("read_only = [{ from = \"/opt/x\", at = \"/proc/x\" }]", "/proc"),
        ("caches = [\"/workspace\"]", "/workspace/.git"),
        ("start = [\"\"]", "command"),
        ("[[setup]]\nrun = \"x\"\nnetwork = true", "network.setup lists nothing"),
        ("[[setup]]\nrun = \"x\"\nnetwork = [\"npm\"]", "network.setup does not list"),
        ("[[setup]]\nrun = \"x\"\ntime_limit_s = 0", "1 to 21600"),
        ("[env]\nLD_PRELOAD = \"/x\"", "LD_PRELOAD"),
        ("[env]\n\"A B\" = \"\"", "variable"),
        ("[limits]\npids = 0", "limit of 0"),
        ("[rebuild]\nevery_h = 0", "without end"),
        ("[network]\ntasks = [{ host = \"a.b/c\" }]", "not a host"),
        ("[network]\ntasks = [{ host = \"a.b\", paths = [\"x\"] }]", "begin with `/`"),
        ("[network]\ntasks = [{ host = \"a.b\", secret = { name = \"T\", how = \"query\" } }]", "bearer"),
        ("[network]\ntasks = [\"a b\"]", "neither"),
        ("setup_secrets = [\"a b\"]", "name of a secret"),
        ("base = 1", "base is"),
    ] {
        let said = problem(text);
        assert!(said.contains(wanted), "{text}: {said}");
    }
    assert!(matches!(file::parse(b"a = 1\n\xff"), Err(RecipeError::NotText { line: 2, .. })));
}

#[test]
fn limits_only_narrow_what_the_server_allows() {
    let server = Limits { memory_bytes: 1 << 30, pids: 50, cpu_millis: None, ..Limits::default() };
    let recipe = file::parse(FULL.as_bytes()).unwrap();
    let limits = recipe.limits.within(server);
    assert_eq!((limits.memory_bytes, limits.pids, limits.cpu_millis), (512 << 20, 50, Some(1500)));
    assert_eq!(RecipeLimits::default().within(server), server);
    let wide = RecipeLimits { memory_mb: Some(u64::MAX), cpu_millis: Some(9000), ..RecipeLimits::default() };
    let capped = Limits { cpu_millis: Some(1000), ..server };
    assert_eq!(wide.within(capped), capped);
}

#[test]
fn host_paths_need_permission_and_homes_never_get_it_by_accident() {
    let permitted = Permitted {
        below: ["/opt", "/srv/images", "/home/build/sdk", "/"].map(PathBuf::from)[..3].to_vec(),
        never: vec!["/opt/chargehand".into()],
    };
    let check = |path: &str| permitted.check(Path::new(path));
    assert_eq!(check("/opt/sdk"), Ok(()));
    assert_eq!(check("/home/build/sdk/31"), Ok(()));
    for refused in
        ["/usr", "/srv", "/optical", "/opt", "/opt/chargehand/secrets", "/home/build", "/etc/ssh", "/opt/../etc", "opt"]
    {
        assert!(check(refused).is_err(), "{refused}");
    }
    let all = Permitted { below: vec!["/".into()], never: Vec::new() };
    for refused in ["/root", "/home/me", "/etc", "/proc/1", "/"] {
        assert!(all.check(Path::new(refused)).is_err(), "{refused}");
    }
    assert_eq!(all.check(Path::new("/var/lib/x")), Ok(()));
}

#[test]
fn a_host_path_that_is_a_link_is_judged_by_where_it_leads() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().canonicalize().unwrap();
    let (open, closed) = (folder.join("open"), folder.join("closed"));
    std::fs::create_dir(&open).unwrap();
    std::fs::create_dir(&closed).unwrap();
    std::fs::create_dir(open.join("real")).unwrap();
    std::os::unix::fs::symlink(&closed, open.join("link")).unwrap();
    let permitted = Permitted { below: vec![open.clone()], never: Vec::new() };
    let bind = |name: &str| Recipe {
        read_only: vec![ReadOnlyBind { from: open.join(name), at: "/x".into() }],
        base: Base::Rootfs { folder: open.join(name) },
        ..Recipe::default()
    };
    assert_eq!(bind("real").binds(&permitted).unwrap()[0].from, open.join("real"));
    assert_eq!(bind("real").base_path(&permitted).unwrap(), Some(open.join("real")));
    let said = bind("link").binds(&permitted).unwrap_err().to_string();
    assert!(said.contains("leads elsewhere"), "{said}");
    assert!(bind("link").base_path(&permitted).is_err());
    assert!(bind("gone").binds(&permitted).unwrap_err().to_string().contains("cannot be found"));
}

const DEVCONTAINER: &str = r#"// a comment
{
  "name": "x", /* and "another", */
  "image": "node:22",
  "features": {},
  "onCreateCommand": "echo // not a comment",
  "postCreateCommand": { "a": ["npm", "ci", "--prefix=a b"], "b": "make ${containerWorkspaceFolder} ${SHELL}" },
  "postStartCommand": ["redis-server"],
  "containerEnv": { "A": "1", "HOST": "[${localEnv:HOME}${localEnv:NO:x}]", },
  "remoteEnv": { "B": "${containerEnv:A}2", "PATH": "${containerEnv:PATH}:/x", "C": null },
  "workspaceFolder": "/workspaces/app",
  "remoteUser": "node",
  "somethingNew": 1,
}
"#;

fn devcontainer(text: &str, images: &[&str]) -> Result<(Recipe, Vec<Note>), RecipeError> {
    let images = images.iter().map(|name| ((*name).to_owned(), PathBuf::from("/srv/images/x"))).collect();
    let offer = devcontainer::Offer { setup_network: &[], images: &images };
    devcontainer::parse(".devcontainer.json", text.as_bytes(), offer)
}

#[test]
fn a_devcontainer_file_gives_its_image_commands_and_variables() {
    let (recipe, notes) = devcontainer(DEVCONTAINER, &["node:22"]).unwrap();
    assert_eq!(recipe.base, Base::Oci { layout: "/srv/images/x".into(), tag: None });
    let lines: Vec<_> = recipe.setup.iter().map(|setup| setup.run.as_str()).collect();
    assert_eq!(
        lines,
        [
            "mkdir -p \"$(dirname '/workspaces/app')\" && ln -sfn /workspace '/workspaces/app'",
            "echo // not a comment",
            "npm ci '--prefix=a b'",
            "make /workspaces/app ${SHELL}"
        ]
    );
    assert_eq!(recipe.start, ["redis-server"]);
    let env: Vec<_> = recipe.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=1", "B=12", "HOST=[x]"]);
    let said: Vec<_> = notes.iter().map(|note| note.text.as_str()).collect();
    for wanted in ["PATH is left out", "remoteUser is left out", "somethingNew is left out", "no network"] {
        assert!(said.iter().any(|text| text.contains(wanted)), "{wanted}: {said:?}");
    }
    let sources = Sources { devcontainer_json: Some((".devcontainer.json", b"{}")), ..Sources::default() };
    assert_eq!(choose(sources).unwrap().origin, Origin::File(".devcontainer.json".into()));
}

#[test]
fn what_a_devcontainer_may_not_ask_for_is_refused_with_a_reason() {
    for (text, wanted) in [
        (r#"{"image": "node:22"}"#, "no OCI layout"),
        (r#"{"features": {"ghcr.io/x": {}}}"#, "install scripts"),
        (r#"{"mounts": ["source=/,target=/host,type=bind"]}"#, "host folder"),
        (r#"{"initializeCommand": "rm -rf ~"}"#, "run on the host"),
        (r#"{"runArgs": ["--privileged"]}"#, "runArgs"),
        (r#"{"privileged": true}"#, "no rights"),
        (r#"{"build": {"dockerfile": "x"}}"#, "not built here"),
        (r#"{"postCreateCommand": 3}"#, "postCreateCommand"),
        (r#"{"containerEnv": {"A": 3}}"#, "containerEnv.A"),
        (r#"{"containerEnv": {"LD_PRELOAD": "x"}}"#, "LD_PRELOAD"),
        (r#"{"workspaceFolder": "/a/'; rm"}"#, "absolute path"),
        ("[]", "one JSON object"),
        ("{\n /* x */ \"a\": oops\n}", "line 2, column 15: expected value"),
    ] {
        let said = devcontainer(text, &[]).expect_err(text).to_string();
        assert!(said.contains(wanted), "{text}: {said}");
    }
}

#[test]
fn the_repositorys_own_file_comes_first_and_a_broken_one_is_not_passed_over() {
    let tree = ["Cargo.toml".to_owned()];
    let sources = Sources {
        environment_toml: Some(b"start = [\"x\"]"),
        devcontainer_json: Some((".devcontainer.json", b"broken")),
        tree: &tree,
        ..Sources::default()
    };
    let chosen = choose(sources).unwrap();
    assert_eq!((chosen.recipe.start.as_slice(), chosen.notes.len()), (["x".to_owned()].as_slice(), 0));
    assert!(choose(Sources { environment_toml: Some(b"oops"), ..sources }).is_err());
    let derived = choose(Sources { tree: &tree, ..Sources::default() }).unwrap();
    assert_eq!(derived.origin, Origin::Derived);
    let text = derived.to_toml();
    assert!(text.contains("# Cargo.toml: `CARGO_NET_OFFLINE=false cargo fetch` is left out"), "{text}");
    assert_eq!(file::parse(text.as_bytes()).unwrap(), derived.recipe);
    let listed = [Allow::Group("cargo".into())];
    let derived = choose(Sources { tree: &tree, default_setup_network: &listed, ..Sources::default() }).unwrap();
    let text = derived.to_toml();
    assert!(text.contains("# because there is Cargo.toml\n[[setup]]\nrun = "), "{text}");
    assert_eq!(file::parse(text.as_bytes()).unwrap(), derived.recipe);
}

proptest::proptest! {
    #[test]
    fn whatever_text_is_in_a_recipe_it_is_read_as_it_was_written(
        run in "\\PC{1,40}", value in "(\\PC|[\n\t\"'\\\\]){0,40}", name in "[A-Z_][A-Z0-9_]{0,8}X", path in "/[a-z \"'#]{1,12}x",
    ) {
        let recipe = Recipe {
            base: Base::Rootfs { folder: path.clone().into() },
            setup: vec![SetupCommand::offline(format!("x{run}"))],
            start: vec![format!("y{value}")],
            env: [(name, value)].into(),
            caches: vec![format!("/opt{path}").into()],
            ..Recipe::default()
        };
        let notes = [Note::new("setup.0", run.as_str()), Note::new("nowhere", run.as_str())];
        let text = super::render::to_toml(&recipe, &notes);
        proptest::prop_assert_eq!(file::parse(text.as_bytes()), Ok(recipe), "{}", text);
    }
}
