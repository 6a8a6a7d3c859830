//! Secrets through the real binary: kept, shown without values, and nowhere on the disk as they are.

mod product;

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use product::{Product, project, question, repo_arg};

const VALUE: &str = "canary-91c4e2b7/value+with=marks";

/// Runs a command with this on its standard input.
fn fed(product: &Product, args: &[&str], input: &str) -> Output {
    fed_with(product, args, input, &[])
}

fn fed_with(product: &Product, args: &[&str], input: &str, env: &[(&str, &str)]) -> Output {
    let mut command = product.command(args);
    command.envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses before it reads closes its end.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn set(product: &Product, args: &[&str], value: &str) -> serde_json::Value {
    let output = fed(product, &[&["--json", "secret", "set"], args].concat(), value);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

/// What a person reads of a command that must fail with this code.
fn refused(product: &Product, args: &[&str], input: &str, code: i32) -> String {
    let output = fed(product, args, input);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(text.contains("error: "), "{text}");
    text
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    // Whole groups only: the last letters depend on what follows.
    for group in bytes.chunks_exact(3) {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        text.extend((0..4).map(|n| char::from(LETTERS[(bits >> (18 - 6 * n) & 63) as usize])));
    }
    text
}

/// Every way in which the value could lie in a file, one a line.
fn disguises() -> String {
    let hex: String = VALUE.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url = VALUE.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let mut all = vec![VALUE.to_owned(), hex.to_uppercase(), hex, url, VALUE.chars().rev().collect()];
    // In base64, also behind one or two bytes of something else.
    all.extend((0..3).map(|skip| base64(&VALUE.as_bytes()[skip..])));
    all.extend((0..3).map(|skip| base64(&VALUE.as_bytes()[skip..]).replace('+', "-").replace('/', "_")));
    all.join("\n") + "\n"
}

/// The files below a folder that hold the value in any disguise.
fn searched(product: &Product, folder: &Path) -> Vec<String> {
    let list = product.home.path().join("disguises");
    std::fs::write(&list, disguises()).unwrap();
    let mut grep = std::process::Command::new("grep");
    grep.args(["--recursive", "--files-with-matches", "--text", "--fixed-strings", "--devices=skip", "--file"]);
    let output = grep.arg(&list).arg(folder).env("LC_ALL", "C").output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_secret_is_kept_listed_and_removed_and_its_value_is_shown_nowhere() {
    let product = Product::new();
    let repo = project(&question());
    let at = repo_arg(&repo);
    let kept = set(&product, &["NPM_TOKEN", &at, "--host", "Registry.Example", "--host=127.0.0.1:4873"], VALUE);
    assert_eq!(kept["hosts"], serde_json::json!(["127.0.0.1:4873", "registry.example"]));
    let root = repo.path().canonicalize().unwrap();
    assert_eq!(kept["repo"].as_str().unwrap(), root.to_str().unwrap());
    set(&product, &["GIT_TOKEN", "--server", "--host=git.example", "--as=basic:x-access-token"], VALUE);
    set(&product, &["NPM_TOKEN", &at, "--environment=ci", "--host=registry.example"], VALUE);

    let page = product.page(&["secret", "list"]);
    for wanted in ["NPM_TOKEN", "GIT_TOKEN", "registry.example", "basic:x-access-token", "ci of", "every task"] {
        assert!(page.contains(wanted), "{wanted} is missing: {page}");
    }
    let several = refused(&product, &["secret", "rm", "NPM_TOKEN"], "", 2);
    assert!(several.contains("--environment ci") && several.contains("there are 2"), "{several}");
    let elsewhere = refused(&product, &["secret", "rm", "GIT_TOKEN", &at], "", 1);
    assert!(elsewhere.contains("There is one of this name for:") && elsewhere.contains("--server"), "{elsewhere}");
    let unknown = refused(&product, &["secret", "rm", "NO_SUCH"], "", 1);
    assert!(unknown.contains("NO_SUCH") && unknown.contains("secret list"), "{unknown}");
    // The one that there is needs no scope; a repository that is gone still names its own.
    assert_eq!(product.ok(&["secret", "rm", "GIT_TOKEN"])["removed"]["name"], "GIT_TOKEN");
    drop(repo);
    product.ok(&["secret", "rm", "NPM_TOKEN", &at, "--environment=ci"]);
    product.ok(&["secret", "rm", "NPM_TOKEN"]);
    assert_eq!(product.ok(&["secret", "list"])["secrets"], serde_json::json!([]));

    let log = product.page(&["secret", "log"]);
    assert_eq!(log.lines().count(), 6, "{log}");
    let everything = format!("{page}{several}{elsewhere}{log}{}", product.ok(&["secret", "log"]));
    assert!(!everything.contains(VALUE), "{everything}");
}

#[test]
fn after_a_secret_was_set_changed_and_sealed_anew_no_file_holds_its_value() {
    let product = Product::new();
    let repo = project(&question());
    let verbose = [("CHARGEHAND_LOG", "trace")];
    let at = repo_arg(&repo);
    for how in ["bearer", "basic:robot", "header:x-api-key"] {
        let how = format!("--as={how}");
        let args = ["secret", "set", "TOKEN", &at, "--host=api.example", &how];
        let output = fed_with(&product, &args, &format!("{VALUE}\n"), &verbose);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // Refused ones leave nothing either.
    let bad = format!("{VALUE}\u{1}\n");
    refused(&product, &["secret", "set", "TOKEN", &at, "--host=api.example"], &bad, 2);
    product.ok(&["secret", "rotate-key"]);
    assert!(product.log().contains("TRACE"), "the log is as talkative as it can be");
    assert_eq!(searched(&product, &product.data()), [""; 0]);
    product.kill_server();
    assert_eq!(searched(&product, &product.data()), [""; 0]);
    product.ok(&["secret", "list"]);
    product.ok(&["stop"]);
    assert_eq!(searched(&product, &product.data()), [""; 0]);
    // The search finds what is there, in each disguise.
    for (n, disguise) in disguises().lines().enumerate() {
        std::fs::write(product.data().join("leak"), format!("\0x{disguise}y\u{1}")).unwrap();
        assert_eq!(searched(&product, &product.data()).len(), 1, "{n}");
    }
}

#[test]
fn a_value_on_the_command_line_is_refused_with_the_reason_and_not_repeated() {
    let product = Product::new();
    for args in [
        &["secret", "set", "TOKEN", "--host=h", "--server", "--value", VALUE][..],
        &["secret", "set", "TOKEN", "--host=h", "--server", &format!("--value={VALUE}")],
        &["secret", "set", "TOKEN", VALUE, "--host=h", "--server"],
        &["secret", "set", "TOKEN", "--host=h", "--server", "--value"],
    ] {
        let text = refused(&product, args, VALUE, 2);
        assert!(text.contains("history") && text.contains('<') && !text.contains(VALUE), "{text}");
    }
    assert!(!product.data().exists(), "nothing was started for it");
}

#[test]
fn what_is_missing_or_wrong_is_said_before_anything_is_stored() {
    let product = Product::new();
    let outside = tempfile::tempdir().unwrap();
    let check = |args: &[&str], input: &str, wanted: &str| {
        let text = refused(&product, &[&["secret", "set"], args].concat(), input, 2);
        assert!(text.contains(wanted) && !text.contains(VALUE), "{args:?}: {text}");
    };
    check(&["TOKEN", "--server"], VALUE, "--host");
    check(&["token", "--server", "--host=h"], VALUE, "`token` is no name");
    check(&["TOKEN", "--server", "--host=https://h/x"], VALUE, "the host alone");
    check(&["TOKEN", "--server", "--host=*.h"], VALUE, "name each one");
    check(&["TOKEN", "--server", "--host=h", "--as=query"], VALUE, "basic:USER");
    check(&["TOKEN", "--server", "--host=h"], "", "empty");
    check(&["TOKEN", "--server", "--host=h"], " \n", "empty");
    check(&["TOKEN", "--server", "--host=h"], "seven77\n", "7 bytes");
    check(&["TOKEN", "--server", "--host=h"], &format!("{VALUE}\n{VALUE}\n"), "line break");
    check(&["TOKEN", "--server", "--host=h"], &VALUE.repeat(3_000), "65536 bytes");
    check(&["TOKEN", "--repo=/nowhere/at/all", "--host=h"], VALUE, "/nowhere/at/all");
    check(&["TOKEN", "--repo=https://me:hunter2@h/x", "--host=h"], VALUE, "without a password");
    check(&["TOKEN", "--server", "--environment=ci", "--host=h"], VALUE, "cannot be used with");
    let around = product
        .command(&["secret", "set", "TOKEN", "--host=h"])
        .current_dir(outside.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&around.stderr).into_owned();
    assert!(text.contains("--repo") && text.contains("--server"), "{text}");
    assert!(!product.data().exists(), "no server was started for it");
}

#[test]
fn a_key_file_that_is_gone_altered_or_open_to_others_is_named_and_nothing_is_lost() {
    use std::os::unix::fs::PermissionsExt as _;
    let product = Product::new();
    set(&product, &["TOKEN", "--server", "--host=h"], VALUE);
    let key = product.data().join("secrets.key");
    let good = std::fs::read(&key).unwrap();
    let again = ["secret", "set", "OTHER", "--server", "--host=h"];
    let checks: [(&dyn Fn(), &str); 4] = [
        (&|| std::fs::remove_file(&key).unwrap(), "Put that key back"),
        (&|| std::fs::write(&key, "not a key\n").unwrap(), "does not hold keys"),
        (&|| std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap(), "Put that key back"),
        (&|| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap(), "chmod 600"),
    ];
    for (harm, wanted) in checks {
        harm();
        if wanted != "chmod 600" {
            let _ = std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600));
        }
        let text = refused(&product, &again, VALUE, 1);
        assert!(text.contains(wanted) && text.contains("secrets.key"), "{wanted}: {text}");
        assert_eq!(product.ok(&["secret", "list"])["secrets"].as_array().unwrap().len(), 1);
        let _ = std::fs::remove_file(&key);
        std::fs::write(&key, &good).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(product.ok(&["secret", "rotate-key"])["resealed"], 1, "with its key back, everything opens");
}

#[test]
fn a_database_on_another_machine_says_that_its_key_is_missing() {
    let (here, there) = (Product::new(), Product::new());
    set(&here, &["TOKEN", "--server", "--host=h"], VALUE);
    here.ok(&["stop"]);
    std::fs::create_dir_all(there.data()).unwrap();
    std::fs::copy(here.data().join("chargehand.db"), there.data().join("chargehand.db")).unwrap();
    assert_eq!(there.ok(&["secret", "list"])["secrets"][0]["name"], "TOKEN");
    let text = refused(&there, &["secret", "rotate-key"], "", 1);
    assert!(text.contains("secrets.key") && text.contains("secret rm"), "{text}");
    assert!(!there.data().join("secrets.key").exists(), "no other key is made for it");
    // Whoever has no key begins anew.
    there.ok(&["secret", "rm", "TOKEN"]);
    set(&there, &["TOKEN", "--server", "--host=h"], VALUE);
}

#[test]
fn a_key_from_the_environment_needs_no_file_and_a_wrong_one_keeps_the_server_from_starting() {
    let product = Product::new();
    let (first, second) = (format!("{}=", "A".repeat(43)), format!("{}A=", "B".repeat(42)));
    let with = |key: &str, args: &[&str]| {
        let output = fed_with(&product, args, VALUE, &[("CHARGEHAND_SECRET_KEY", key)]);
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = with(&first, &["secret", "set", "TOKEN", "--server", "--host=h"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!product.data().join("secrets.key").exists());
    let (code, text) = with(&first, &["secret", "rotate-key"]);
    assert!(code == Some(1) && text.contains("CHARGEHAND_SECRET_KEY") && text.contains("NEW,OLD"), "{text}");
    product.ok(&["stop"]);
    let (code, text) = with(&format!("{second},{first}"), &["secret", "rotate-key"]);
    assert!(code == Some(0) && text.contains("1 secret"), "{text}");
    product.ok(&["stop"]);
    let (code, text) = with(&first, &["secret", "rotate-key"]);
    assert!(code == Some(1) && text.contains("CHARGEHAND_SECRET_KEY does not hold"), "{text}");
    product.ok(&["stop"]);
    let (code, text) = with("my-passphrase", &["secret", "list"]);
    assert!(code == Some(1) && text.contains("CHARGEHAND_SECRET_KEY") && !text.contains("my-passphrase"), "{text}");
}

#[test]
fn at_a_terminal_the_value_is_asked_for_and_not_shown() {
    let product = Product::new();
    product.ok(&["list"]);
    let binary = env!("CARGO_BIN_EXE_chargehand");
    let line = format!("{binary} secret set TOKEN --server --host=h");
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("CHARGEHAND_DATA_DIR", product.data());
    command.env("CHARGEHAND_CONFIG", product.home.path().join("none.toml"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        testkit::not_run("at_a_terminal_the_value_is_asked_for_and_not_shown", "the program `script` is missing");
        return;
    };
    let asked = product::read_until(&mut child, "it is not shown");
    child.stdin.as_mut().unwrap().write_all(format!("{VALUE}\r").as_bytes()).unwrap();
    let shown = asked + &product::read_until(&mut child, "nowhere else");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(!shown.contains(&VALUE[..10]), "{shown}");
    assert_eq!(product.ok(&["secret", "list"])["secrets"][0]["name"], "TOKEN");
}

#[test]
fn a_repository_is_named_as_its_tasks_name_it() {
    let product = Product::new();
    let repo = project(&question());
    let inside = repo.path().join("below");
    std::fs::create_dir(&inside).unwrap();
    let output = product
        .command(&["--json", "secret", "set", "TOKEN", "--host=h"])
        .current_dir(&inside)
        .stdin(Stdio::from(value_file(&product)))
        .output()
        .unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let here = repo.path().canonicalize().unwrap();
    assert_eq!(kept["repo"].as_str().unwrap(), here.to_str().unwrap(), "{kept}");
}

fn value_file(product: &Product) -> std::fs::File {
    let path = product.home.path().join("value");
    std::fs::write(&path, VALUE).unwrap();
    std::fs::File::open(path).unwrap()
}
