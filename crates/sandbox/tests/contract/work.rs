//! Real work in a box: git, compilers, packages that were downloaded before.

use std::path::Path;
use std::process::Command;

use domain::id::Digest;
use sandbox::local::Toolchains;
use sandbox::{Ended, Provider};

use crate::world::{in_world, in_world_with, not_run, spec};

pub fn git(folder: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn git_works_in_a_prepared_repository() {
    in_world(async |world| {
        let key = Digest::of(b"repository");
        let staged = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
        std::fs::create_dir(staged.content.join("src")).unwrap();
        std::fs::write(staged.content.join("src/a.txt"), "a\n").unwrap();
        for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "first"]] {
            git(&staged.content, arguments);
        }
        let snapshot = world.provider.prepare(&key, staged, sandbox::Owners::Root).await.unwrap();
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        let ran = world.sh(&sandbox, "git status --porcelain && echo clean").await;
        assert_eq!((ran.text(), ran.err_text()), ("clean\n".into(), String::new()));
        let line = "echo b >> src/a.txt && git commit -qam second && git log --format='%an %s' && \
            git bundle create -q /tmp/out.bundle HEAD && git checkout -q HEAD~1 && cat src/a.txt";
        let ran = world.sh(&sandbox, line).await;
        assert_eq!(ran.text(), "Chargehand agent second\nt first\na\n", "{}", ran.err_text());
        let to = world.folder.path().join("out.bundle");
        assert!(sandbox.copy_out("/tmp/out.bundle".as_ref(), &to, 1 << 20).await.unwrap() > 100);
    });
}

fn detected() -> Toolchains {
    Toolchains::detect(&|name| std::env::var_os(name))
}

/// The toolchains that this test process itself was built with, for a user without a home.
fn rust_toolchains() -> Toolchains {
    let mut toolchains = detected();
    toolchains.list.retain(|toolchain| std::fs::read_dir(&toolchain.from).is_ok());
    toolchains
}

#[test]
fn rustc_and_cargo_build_and_run_a_program() {
    let toolchains = rust_toolchains();
    let rust = toolchains.list.iter().any(|toolchain| toolchain.name == "rust");
    in_world_with(
        |config| config.toolchains = toolchains,
        async |world| {
            let manifest = "[package]\nname = \"hi\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
            let snapshot =
                world.snapshot(&[("Cargo.toml", manifest), ("src/main.rs", "fn main() { println!(\"hi\") }\n")]).await;
            let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
            if !rust && world.sh(&sandbox, "command -v rustc").await.out.is_empty() {
                return not_run("rustc builds and runs a program in the box", "this user has no Rust toolchain");
            }
            let ran = world.sh(&sandbox, "rustc -o /tmp/hi src/main.rs && /tmp/hi && cargo run -q && cargo test -q 2>&1 | grep -c 'test result: ok'").await;
            assert_eq!(ran.text(), "hi\nhi\n1\n", "{}", ran.err_text());
        },
    );
}

#[test]
fn cargo_builds_with_crates_that_the_host_has_downloaded_and_sees_no_credentials() {
    let toolchains = rust_toolchains();
    let have = ["rust", "crates (cache)", "crates (index)"];
    if !have.iter().all(|name| toolchains.list.iter().any(|toolchain| toolchain.name == *name)) {
        return not_run(
            "cargo builds offline with downloaded crates",
            "this user has no toolchain or no downloaded crates",
        );
    }
    in_world_with(
        |config| config.toolchains = toolchains,
        async |world| {
            // A crate without dependencies that this workspace itself has in its lock file.
            let manifest =
                "[package]\nname = \"hi\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"1\"\n";
            let main = "fn main() { println!(\"{}\", itoa::Buffer::new().format(42)) }\n";
            let snapshot = world.snapshot(&[("Cargo.toml", manifest), ("src/main.rs", main)]).await;
            let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
            let ran = world.sh(&sandbox, "cargo run -q").await;
            assert_eq!(ran.text(), "42\n", "{}", ran.err_text());
            assert_eq!(
                world.sh(&sandbox, "ls -A ~/.cargo/registry; cat ~/.cargo/credentials* 2>/dev/null").await.text(),
                "CACHEDIR.TAG\ncache\nindex\nsrc\n"
            );
        },
    );
}

#[test]
fn interpreters_and_compilers_of_the_system_run() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let checks = [
            ("perl", "perl -e 'print 6*7'"),
            ("python3", "/usr/bin/python3 -c 'import ssl, json, tempfile; print(6*7, end=\"\")'"),
            ("node", "node -e 'process.stdout.write(String(6*7))'"),
            ("cc", "echo '#include <stdio.h>\nint main(){printf(\"42\");}' > t.c && cc t.c -o t && ./t"),
            ("java", "java -XshowSettings:none -version >/dev/null 2>&1 && printf 42"),
            ("make", "printf 'all:\\n\\t@printf 42\\n' > Makefile && make -s"),
        ];
        for (program, line) in checks {
            if !Path::new("/usr/bin").join(program).exists() {
                not_run(&format!("{program} runs in the box"), "it is not installed");
                continue;
            }
            let ran = world.sh(&sandbox, line).await;
            assert_eq!(
                (ran.text().as_str(), &ran.outcome.ended),
                ("42", &Ended::Exited { code: 0 }),
                "{program}: {}",
                ran.err_text()
            );
        }
    });
}
