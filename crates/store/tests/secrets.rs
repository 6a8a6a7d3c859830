//! What every store promises of sealed secrets, what the vault adds, and what only a disk can show:
//! lost keys, changed rows, a copied database, a change of keys that is killed.
//!
//! Absent: the command line and the server; see their own tests.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::second;
use domain::principal::Principal;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use store::secrets::{
    AddedAs, AuditAction, Entropy, FileKeys, Key, KeyError, KeyProvider, SecretHost, SecretLine, SecretName,
    SecretScope, SecretWish, SecretsError, SystemEntropy, VariableKeys,
};
use store::{Secret, Store, Vault, VaultError, sqlite};

const VALUE: &str = "canary-7f3d0c55-value";
const REPO: &str = "/srv/project";

fn ada() -> Principal {
    Principal::person("ada")
}

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn scope(repo: Option<&str>, environment: Option<&str>) -> SecretScope {
    SecretScope::of(repo, environment).unwrap()
}

fn wish(what: &str, scope: SecretScope, hosts: &[&str], value: &str) -> SecretWish {
    SecretWish {
        name: name(what),
        scope,
        hosts: hosts.iter().map(|host| SecretHost::parse(host).unwrap()).collect(),
        added_as: AddedAs::Bearer,
        value: Secret::new(value),
    }
}

/// A vault with its keys in a folder.
fn vault(store: &Store, dir: &Path) -> Vault {
    Vault::new(store.secrets.clone(), Arc::new(FileKeys::at(dir.join("secrets.key"))))
}

fn names(lines: &[SecretLine]) -> Vec<(String, String)> {
    lines.iter().map(|line| (line.scope.to_string(), line.name.to_string())).collect()
}

async fn sql(dir: &Path, statement: &str) -> Result<u64, sqlx::Error> {
    let mut connection = SqliteConnectOptions::new().filename(dir.join("chargehand.db")).connect().await.unwrap();
    let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await;
    done.map(|done| done.rows_affected())
}

macro_rules! contract {
    ($($(#[$attribute:meta])* async fn $name:ident($store:ident: &Store, $vault:ident: &Vault) $body:block)*) => {
        mod promise {
            use super::*;
            $(pub async fn $name($store: &Store, $vault: &Vault) $body)*
        }
        mod on_memory {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                let (dir, store) = (tempfile::tempdir().unwrap(), store::memory::open());
                promise::$name(&store, &vault(&store, dir.path())).await;
            })*
        }
        mod on_sqlite {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let store = sqlite::open(dir.path()).await.unwrap();
                promise::$name(&store, &vault(&store, dir.path())).await;
                store.close().await;
            })*
        }
    };
}

contract! {
    async fn a_secret_comes_back_as_it_was_set_and_only_for_its_hosts(store: &Store, vault: &Vault) {
        let everywhere = scope(None, None);
        let wish = wish("TOKEN", everywhere.clone(), &["b.example:8443", "A.example", "a.example"], VALUE);
        let line = vault.set(wish, &ada(), second(1)).await.unwrap();
        let hosts: Vec<&str> = line.hosts.iter().map(SecretHost::as_str).collect();
        assert_eq!(hosts, ["a.example", "b.example:8443"]);
        assert_eq!((line.revision, line.created_at, line.updated_at), (1, second(1), second(1)));
        assert_eq!(vault.list().await.unwrap(), [line.clone()]);
        let got = vault.value_for(&everywhere, &line.name, "A.Example", 443).await.unwrap();
        assert_eq!((got.value.expose(), got.added_as), (VALUE, AddedAs::Bearer));
        assert_eq!(vault.value_for(&everywhere, &line.name, "b.example", 8443).await.unwrap().value.expose(), VALUE);
        for (host, port) in [("a.example", 80), ("b.example", 443), ("evil-a.example", 443), ("a.example.evil", 443)] {
            let refused = vault.value_for(&everywhere, &line.name, host, port).await.unwrap_err();
            assert!(matches!(refused, VaultError::NotForHost { .. }), "{host}:{port}: {refused:?}");
        }
        let row = store.secrets.get(&everywhere, &line.name).await.unwrap().unwrap();
        assert!(!row.sealed.windows(8).any(|part| VALUE.as_bytes().windows(8).any(|other| part == other)));
    }

    async fn setting_again_replaces_value_and_hosts_and_keeps_when_it_was_made(store: &Store, vault: &Vault) {
        let (everywhere, token) = (scope(None, None), name("TOKEN"));
        vault.set(wish("TOKEN", everywhere.clone(), &["a.example"], VALUE), &ada(), second(1)).await.unwrap();
        let first = store.secrets.get(&everywhere, &token).await.unwrap().unwrap();
        let again = wish("TOKEN", everywhere.clone(), &["b.example"], "another-value");
        let line = vault.set(again, &ada(), second(2)).await.unwrap();
        assert_eq!((line.revision, line.created_at, line.updated_at), (2, second(1), second(2)));
        assert_eq!(vault.reveal(&everywhere, &token).await.unwrap().expose(), "another-value");
        let refused = vault.value_for(&everywhere, &token, "a.example", 443).await.unwrap_err();
        assert!(matches!(refused, VaultError::NotForHost { .. }), "{refused:?}");
        let second_row = store.secrets.get(&everywhere, &token).await.unwrap().unwrap();
        assert_ne!(first.nonce, second_row.nonce);
        // An earlier row can't be put back beside the one that is stored.
        let stale = store.secrets.put(first, AuditAction::Set, &ada(), second(3)).await.unwrap_err();
        assert!(matches!(stale, SecretsError::Conflict { .. }), "{stale:?}");
    }

    async fn in_a_box_the_most_specific_secret_of_a_name_counts(_store: &Store, vault: &Vault) {
        let all = [
            wish("A", scope(None, None), &["h"], "server-a"),
            wish("B", scope(None, None), &["h"], "server-b"),
            wish("B", scope(Some(REPO), None), &["h"], "repo-b--"),
            wish("C", scope(Some(REPO), None), &["h"], "repo-c--"),
            wish("C", scope(Some(REPO), Some("ci")), &["h"], "ci-c----"),
            wish("D", scope(Some(REPO), Some("prod")), &["h"], "prod-d--"),
            wish("E", scope(Some("/srv/other"), None), &["h"], "other-e-"),
            wish("B", scope(Some("/srv/other"), Some("ci")), &["h"], "other-b-"),
        ];
        for wish in all {
            vault.set(wish, &ada(), second(1)).await.unwrap();
        }
        let in_box = async |repo: &str, environment| -> Vec<String> {
            let mut values = Vec::new();
            for line in vault.for_box(repo, environment).await.unwrap() {
                values.push(vault.reveal(&line.scope, &line.name).await.unwrap().expose().to_owned());
            }
            values
        };
        assert_eq!(in_box(REPO, Some("ci")).await, ["ci-c----", "repo-b--", "server-a"]);
        assert_eq!(in_box(REPO, None).await, ["repo-b--", "repo-c--", "server-a"]);
        assert_eq!(in_box(REPO, Some("staging")).await, ["repo-b--", "repo-c--", "server-a"]);
        assert_eq!(in_box("/srv/unknown", Some("ci")).await, ["server-a", "server-b"]);
        assert_eq!(in_box("", None).await, ["server-a", "server-b"]);
        let listed = names(&vault.list().await.unwrap());
        assert_eq!(listed.len(), 8);
        assert_eq!(listed[0].0, "the whole server");
        assert!(listed.last().unwrap().0.starts_with("environment prod"), "{listed:?}");
    }

    async fn a_removed_secret_is_gone_and_removing_needs_its_scope(_store: &Store, vault: &Vault) {
        let (everywhere, here, token) = (scope(None, None), scope(Some(REPO), None), name("TOKEN"));
        vault.set(wish("TOKEN", everywhere.clone(), &["h"], VALUE), &ada(), second(1)).await.unwrap();
        let other = vault.remove(&here, &token, &ada(), second(2)).await.unwrap_err();
        assert!(matches!(other, VaultError::Store(SecretsError::NotFound { .. })), "{other:?}");
        assert!(other.to_string().contains("TOKEN") && other.to_string().contains(REPO), "{other}");
        vault.remove(&everywhere, &token, &ada(), second(2)).await.unwrap();
        assert_eq!(vault.list().await.unwrap(), []);
        for error in [
            vault.remove(&everywhere, &token, &ada(), second(3)).await.unwrap_err(),
            vault.reveal(&everywhere, &token).await.unwrap_err(),
            vault.value_for(&everywhere, &token, "h", 443).await.unwrap_err(),
        ] {
            assert!(matches!(error, VaultError::Store(SecretsError::NotFound { .. })), "{error:?}");
        }
    }

    async fn each_change_tells_who_made_it_and_a_refused_one_tells_nothing(_store: &Store, vault: &Vault) {
        let (here, bob) = (scope(Some(REPO), None), Principal::person("bob"));
        vault.set(wish("TOKEN", here.clone(), &["a.example"], VALUE), &ada(), second(1)).await.unwrap();
        vault.set(wish("TOKEN", here.clone(), &["b.example"], VALUE), &bob, second(2)).await.unwrap();
        vault.remove(&here, &name("TOKEN"), &ada(), second(3)).await.unwrap();
        assert!(vault.remove(&here, &name("TOKEN"), &bob, second(4)).await.is_err());
        assert!(vault.set(wish("TOKEN", here.clone(), &["h"], "short"), &bob, second(4)).await.is_err());
        assert!(vault.set(wish("TOKEN", here.clone(), &[], VALUE), &bob, second(4)).await.is_err());
        let told: Vec<_> = vault
            .audit(10)
            .await
            .unwrap()
            .into_iter()
            .map(|audit| (audit.row, audit.at, audit.actor.name, audit.action, audit.hosts[0].to_string()))
            .collect();
        assert_eq!(
            told,
            [
                (3, second(3), "ada".to_owned(), AuditAction::Removed, "b.example".to_owned()),
                (2, second(2), "bob".to_owned(), AuditAction::Set, "b.example".to_owned()),
                (1, second(1), "ada".to_owned(), AuditAction::Set, "a.example".to_owned()),
            ]
        );
        assert_eq!(vault.audit(1).await.unwrap().len(), 1);
        assert!(!format!("{:?}", vault.audit(10).await.unwrap()).contains(VALUE));
    }

    async fn changing_keys_keeps_every_value_and_then_the_old_key_opens_nothing(store: &Store, vault: &Vault) {
        let mut keys = Vec::new();
        for n in 0..20 {
            let wish = wish(&format!("T{n}"), scope(None, None), &["h"], &format!("{VALUE}{n}"));
            keys.push(vault.set(wish, &ada(), second(1)).await.unwrap().key_id);
        }
        let rotated = vault.rotate(&ada(), second(2)).await.unwrap();
        assert_eq!(rotated.resealed, 20);
        assert!(!keys.contains(&rotated.active));
        for line in vault.list().await.unwrap() {
            assert_eq!((&line.key_id, line.updated_at, line.revision), (&rotated.active, second(1), 2));
            let value = vault.reveal(&line.scope, &line.name).await.unwrap();
            assert_eq!(value.expose(), format!("{VALUE}{}", line.name.as_str().trim_start_matches('T')));
        }
        assert_eq!(vault.audit(100).await.unwrap()[0].action, AuditAction::Resealed);
        let again = vault.rotate(&ada(), second(3)).await.unwrap();
        assert_eq!(again.resealed, 20);
        assert_eq!(store.secrets.list().await.unwrap().len(), 20);
    }

    async fn changes_at_the_same_moment_leave_one_whole_row(_store: &Store, vault: &Vault) {
        let set = |n: u32| {
            let wish = wish("TOKEN", scope(None, None), &[&format!("h{n}.example")], &format!("value-of-h{n}.example"));
            async move { vault.set(wish, &ada(), second(1)).await.unwrap() }
        };
        tokio::join!(set(1), set(2), set(3), async { vault.rotate(&ada(), second(1)).await.unwrap() }, set(4));
        let line = &vault.list().await.unwrap()[0];
        assert!(line.revision >= 4, "{line:?}");
        let value = vault.value_for(&line.scope, &line.name, line.hosts[0].host(), 443).await.unwrap().value;
        assert_eq!(value.expose(), format!("value-of-{}", line.hosts[0]));
    }

    async fn the_first_secret_makes_the_key_and_looking_makes_none(_store: &Store, vault: &Vault) {
        assert_eq!(vault.list().await.unwrap(), []);
        assert_eq!(vault.for_box(REPO, None).await.unwrap(), []);
        assert!(format!("{vault:?}").contains("secrets.key"));
        let place = format!("{vault:?}").split('"').nth(1).unwrap().to_owned();
        assert!(!Path::new(&place).exists());
        vault.set(wish("TOKEN", scope(None, None), &["h"], VALUE), &ada(), second(1)).await.unwrap();
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(std::fs::metadata(&place).unwrap().mode() & 0o777, 0o600);
    }
}

/// A store on a disk with one secret for the whole server.
async fn with_one_secret(dir: &Path) -> (Store, Vault) {
    let store = sqlite::open(dir).await.unwrap();
    let vault = vault(&store, dir);
    vault.set(wish("TOKEN", scope(None, None), &["a.example"], VALUE), &ada(), second(1)).await.unwrap();
    (store, vault)
}

async fn reveal(vault: &Vault) -> Result<Secret, VaultError> {
    vault.reveal(&scope(None, None), &name("TOKEN")).await
}

#[tokio::test]
async fn a_row_that_was_changed_in_the_database_does_not_open() {
    for change in [
        "hosts = '[\"evil.example\"]'",
        "hosts = '[\"a.example\",\"evil.example\"]'",
        "repo = '/srv/evil'",
        "name = 'OTHER'",
        "added_as = 'header:x-leak'",
        "revision = 7",
        "sealed = CAST(sealed || 'x' AS BLOB)",
        "sealed = x''",
        "nonce = x'00'",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (store, vault) = with_one_secret(dir.path()).await;
        assert_eq!(sql(dir.path(), &format!("UPDATE secret SET {change}")).await.unwrap(), 1);
        let line = vault.list().await.unwrap().remove(0);
        let error = vault.reveal(&line.scope, &line.name).await.unwrap_err();
        assert!(matches!(error, VaultError::Tampered { .. }), "{change}: {error:?}");
        let error = vault.value_for(&line.scope, &line.name, line.hosts[0].host(), 443).await.unwrap_err();
        assert!(matches!(error, VaultError::Tampered { .. }), "{change}: {error:?}");
        store.close().await;
    }
}

#[tokio::test]
async fn the_audit_can_not_be_rewritten_by_this_database() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _vault) = with_one_secret(dir.path()).await;
    for statement in ["UPDATE secret_audit SET actor = 'eve'", "DELETE FROM secret_audit"] {
        let error = sql(dir.path(), statement).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    store.close().await;
}

#[tokio::test]
async fn without_the_key_file_nothing_opens_nothing_is_lost_and_putting_it_back_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, vault) = with_one_secret(dir.path()).await;
    let (file, kept) = (dir.path().join("secrets.key"), dir.path().join("kept"));
    std::fs::rename(&file, &kept).unwrap();
    let other = || wish("OTHER", scope(None, None), &["h"], VALUE);
    for error in [
        reveal(&vault).await.unwrap_err(),
        vault.set(other(), &ada(), second(2)).await.unwrap_err(),
        vault.rotate(&ada(), second(2)).await.unwrap_err(),
    ] {
        assert!(matches!(error, VaultError::KeyMissing { count: 1, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("secrets.key") && text.contains("secret rm"), "{text}");
    }
    assert!(!file.exists(), "no other key is made beside the lost one");
    assert_eq!(vault.list().await.unwrap().len(), 1);
    std::fs::rename(&kept, &file).unwrap();
    assert_eq!(reveal(&vault).await.unwrap().expose(), VALUE);
    // For a key that is gone for good, removing needs none, and then all begins anew.
    std::fs::remove_file(&file).unwrap();
    vault.remove(&scope(None, None), &name("TOKEN"), &ada(), second(3)).await.unwrap();
    vault.set(other(), &ada(), second(4)).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_key_file_that_was_altered_or_opened_to_others_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (store, vault) = with_one_secret(dir.path()).await;
    let file = dir.path().join("secrets.key");
    let good = std::fs::read_to_string(&file).unwrap();
    let key = good.lines().last().unwrap().to_owned();
    for bad in ["", "# nothing\n", "not base64!\n", "c2hvcnQ=\n", "\u{0}\u{1}", &format!("{key}\n{key}x\n")] {
        std::fs::write(&file, bad).unwrap();
        let error = reveal(&vault).await.unwrap_err();
        assert!(matches!(error, VaultError::Key(KeyError::Unreadable { .. })), "{bad:?}: {error:?}");
        assert!(error.to_string().contains("secrets.key") && !error.to_string().contains(&key), "{error}");
    }
    let mut turned = Key::random(&SystemEntropy::default()).unwrap();
    std::fs::write(&file, good.replace(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")).unwrap();
    let error = reveal(&vault).await.unwrap_err();
    assert!(matches!(&error, VaultError::KeyMissing { needed, .. } if needed != turned.id()), "{error:?}");
    std::fs::write(&file, &good).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = reveal(&vault).await.unwrap_err();
    assert!(matches!(error, VaultError::Key(KeyError::Exposed { .. })) && error.to_string().contains("chmod 600"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(reveal(&vault).await.unwrap().expose(), VALUE);
    turned = Key::new([7; 32]);
    assert_eq!(format!("{turned:?}"), format!("Key({})", turned.id()));
    store.close().await;
}

#[tokio::test]
async fn a_database_that_was_copied_without_its_key_gives_nothing_away() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _vault) = with_one_secret(here.path()).await;
    store.close().await;
    std::fs::copy(here.path().join("chargehand.db"), there.path().join("chargehand.db")).unwrap();
    let store = sqlite::open(there.path()).await.unwrap();
    let copied = vault(&store, there.path());
    let error = reveal(&copied).await.unwrap_err();
    assert!(matches!(error, VaultError::KeyMissing { .. }), "{error:?}");
    assert_eq!(copied.list().await.unwrap().len(), 1);
    // Another machine's own key does not open it either.
    FileKeys::at(there.path().join("secrets.key")).create(&SystemEntropy::default()).unwrap();
    let error = reveal(&copied).await.unwrap_err();
    assert!(matches!(error, VaultError::KeyMissing { .. }), "{error:?}");
    store.close().await;
}

/// Randomness that ends after so many draws, as if the program had been killed there.
struct Ending(AtomicU32);

impl Entropy for Ending {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), store::Fault> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            let source: Box<dyn std::error::Error + Send + Sync> = "killed here".into();
            return Err(store::Fault { operation: "draw random bytes", source: Arc::from(source) });
        }
        SystemEntropy::default().fill(bytes)
    }
}

#[tokio::test]
async fn a_change_of_keys_that_breaks_off_anywhere_loses_nothing_and_is_gone_on_with() {
    for draws in 0..=6 {
        let dir = tempfile::tempdir().unwrap();
        let store = sqlite::open(dir.path()).await.unwrap();
        let file = FileKeys::at(dir.path().join("secrets.key"));
        let whole = vault(&store, dir.path());
        for n in 0..5 {
            let wish = wish(&format!("T{n}"), scope(None, None), &["h"], &format!("{VALUE}{n}"));
            whole.set(wish, &ada(), second(1)).await.unwrap();
        }
        let before = file.load().unwrap().unwrap();
        let breaking =
            Vault::with_entropy(store.secrets.clone(), Arc::new(file.clone()), Arc::new(Ending(draws.into())));
        let broke_off = breaking.rotate(&ada(), second(2)).await.is_err();
        assert_eq!(broke_off, draws < 6, "{draws}");
        store.close().await;

        let store = sqlite::open(dir.path()).await.unwrap();
        let vault = vault(&store, dir.path());
        for n in 0..5 {
            let value = vault.reveal(&scope(None, None), &name(&format!("T{n}"))).await.unwrap();
            assert_eq!(value.expose(), format!("{VALUE}{n}"), "{draws}");
        }
        let halfway = file.load().unwrap().unwrap();
        let rotated = vault.rotate(&ada(), second(3)).await.unwrap();
        let after = file.load().unwrap().unwrap();
        assert!(after.older().is_empty() && after.find(before.active().id()).is_none(), "{draws}: {after:?}");
        if !halfway.older().is_empty() {
            assert_eq!(rotated.active, *halfway.active().id(), "the change that was begun is gone on with");
        }
        assert!(vault.list().await.unwrap().iter().all(|line| line.key_id == rotated.active));
        store.close().await;
    }
}

#[tokio::test]
async fn a_key_from_a_variable_takes_over_from_the_file_and_is_changed_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _file_vault) = with_one_secret(dir.path()).await;
    let file = || FileKeys::at(dir.path().join("secrets.key"));
    let text = |byte: &str| format!("{}=", byte.repeat(43));
    let with = |text: &str| {
        let keys = VariableKeys::parse(&Secret::new(text), "KEY_VARIABLE", file()).unwrap();
        Vault::new(store.secrets.clone(), Arc::new(keys))
    };
    let first = with(&text("A"));
    assert_eq!(reveal(&first).await.unwrap().expose(), VALUE);
    assert_eq!(first.rotate(&ada(), second(2)).await.unwrap().resealed, 1);
    std::fs::remove_file(file().path()).unwrap();
    assert_eq!(reveal(&first).await.unwrap().expose(), VALUE);
    let error = first.rotate(&ada(), second(2)).await.unwrap_err();
    assert!(error.to_string().contains("KEY_VARIABLE") && error.to_string().contains("NEW,OLD"), "{error}");

    let both = with(&format!("{}, {}", "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=", text("A")));
    assert_eq!(reveal(&both).await.unwrap().expose(), VALUE);
    assert_eq!(both.rotate(&ada(), second(3)).await.unwrap().resealed, 1);
    let second_key = with("BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=");
    assert_eq!(reveal(&second_key).await.unwrap().expose(), VALUE);
    assert!(matches!(reveal(&first).await.unwrap_err(), VaultError::KeyMissing { .. }));
    for bad in ["", ",", "secret-but-not-a-key", "AAAA"] {
        let error = VariableKeys::parse(&Secret::new(bad), "KEY_VARIABLE", file()).unwrap_err();
        assert!(error.to_string().contains("KEY_VARIABLE") && !error.to_string().contains("not-a-key"), "{error}");
    }
    store.close().await;
}

/// What an earlier version sealed has to open for ever.
#[tokio::test]
async fn a_row_of_the_first_version_still_opens() {
    let dir = tempfile::tempdir().unwrap();
    let store = sqlite::open(dir.path()).await.unwrap();
    let row = include_str!("testdata/secret_row_1.sql");
    assert_eq!(sql(dir.path(), row).await.unwrap(), 1);
    let key = Secret::new("KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=");
    let keys = VariableKeys::parse(&key, "KEY_VARIABLE", FileKeys::at(dir.path().join("none"))).unwrap();
    let vault = Vault::new(store.secrets.clone(), Arc::new(keys));
    let line = vault.list().await.unwrap().remove(0);
    assert_eq!(line.scope, scope(Some("https://git.example/team/project.git"), Some("ci")));
    let value = vault.value_for(&line.scope, &line.name, "registry.example", 8443).await.unwrap();
    assert_eq!((value.value.expose(), value.added_as.to_string().as_str()), ("kept-for-ever", "basic:robot"));
    store.close().await;
}
