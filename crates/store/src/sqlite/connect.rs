//! Connections: their settings, and the proof that the settings hold.
//!
//! `synchronous` is a property of a connection and not of the file, so it is asked back on each.
//! Absent: the macro that embeds migrations. It would bring three crates into every build; the
//! numbered files are listed here instead.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlSafeStr as _, SqliteConnection, SqlitePool};

use super::folder::Folder;
use super::statements::{Trouble, classify};
use crate::error::{Fault, OpenError};

/// Every change of the schema, oldest first. A file that was released is never edited.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "events", include_str!("../../migrations/sqlite/0001_events.sql")),
    (2, "secrets", include_str!("../../migrations/sqlite/0002_secrets.sql")),
];

/// For another program that looks at the file, such as a backup; no store waits for another.
const BUSY_TIMEOUT_MS: u64 = 5_000;
/// The WAL file is cut down to this when it starts over, so that its length tells how long the WAL is.
const WAL_KEEP_BYTES: u64 = 8 * 1024 * 1024;

fn options(folder: &Folder) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder.database())
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging()
}

/// The one writing connection, with the schema brought up to date.
pub(super) async fn writer(folder: &Folder) -> Result<SqliteConnection, OpenError> {
    let mut connection = options(folder)
        .journal_mode(SqliteJournalMode::Wal)
        // The writer checkpoints when it is idle or the WAL is long, not in the middle of a group.
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", WAL_KEEP_BYTES.to_string())
        .thread_name(|_| "store-writer".to_owned())
        .connect()
        .await
        .map_err(|e| failed(folder, "open the database", e))?;
    let version: String = ask(&mut connection, folder, "SELECT sqlite_version()").await?;
    if !keeps_commits(&version) {
        return Err(OpenError::UnsafeSqlite { version });
    }
    let mode: String = ask(&mut connection, folder, "PRAGMA journal_mode").await?;
    if mode != "wal" {
        return Err(OpenError::UnsafeSetting { setting: "journal_mode", actual: mode, needed: "wal" });
    }
    assert_full_sync(&mut connection).await?;
    migrate(&mut connection, folder).await?;
    sqlx::query("UPDATE lease SET owner = NULL WHERE owner IS NOT NULL")
        .execute(&mut connection)
        .await
        .map_err(|e| failed(folder, "void the leases of earlier processes", e))?;
    Ok(connection)
}

/// Connections that can't write.
pub(super) async fn readers(folder: &Folder, count: u32) -> Result<SqlitePool, OpenError> {
    SqlitePoolOptions::new()
        .max_connections(count)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(
                async move { assert_full_sync(connection).await.map_err(|e| sqlx::Error::Configuration(Box::new(e))) },
            )
        })
        .connect_with(options(folder).read_only(true).thread_name(|id| format!("store-reader-{id}")))
        .await
        .map_err(|e| failed(folder, "open the database for reading", e))
}

async fn assert_full_sync(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let level: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(connection)
        .await
        .map_err(|e| OpenError::Database(Fault::new("ask for `synchronous`", e)))?;
    if level == 2 {
        return Ok(());
    }
    Err(OpenError::UnsafeSetting { setting: "synchronous", actual: level.to_string(), needed: "2 (FULL)" })
}

async fn ask(connection: &mut SqliteConnection, folder: &Folder, sql: &'static str) -> Result<String, OpenError> {
    sqlx::query_scalar(sql).fetch_one(connection).await.map_err(|e| failed(folder, "ask the database", e))
}

async fn migrate(connection: &mut SqliteConnection, folder: &Folder) -> Result<(), OpenError> {
    let known = MIGRATIONS.iter().map(|(number, name, sql)| {
        Migration::new(*number, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    });
    let newest = MIGRATIONS.iter().map(|(number, ..)| *number).max().unwrap_or(0);
    match Migrator::with_migrations(known.collect()).run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => Err(OpenError::Newer { found, known: newest }),
        Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => {
            Err(failed(folder, "bring the database up to date", e))
        }
        Err(other) => Err(OpenError::Database(Fault::new("bring the database up to date", other))),
    }
}

fn failed(folder: &Folder, operation: &'static str, error: sqlx::Error) -> OpenError {
    match classify(operation, error) {
        Trouble::Full => OpenError::DiskFull { path: folder.path().to_owned() },
        Trouble::Refused(fault) | Trouble::Broken(fault) => OpenError::Database(fault),
    }
}

/// Whether a version of SQLite is free of the WAL-reset bug (3.7.0 to 3.51.2), which can lose
/// commits when a second connection is open. Fixed in 3.51.3, and in 3.44.6 and 3.50.7.
fn keeps_commits(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 44, patch) => patch >= 6,
        (3, 50, patch) => patch >= 7,
        (3, 51, patch) => patch >= 3,
        (major, minor, _) => (major, minor) > (3, 51),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_that_can_lose_commits_is_known_by_its_version() {
        for bad in ["3.46.0", "3.51.2", "3.50.6", "3.44.5", "3.7.0", "", "x"] {
            assert!(!keeps_commits(bad), "{bad} was taken");
        }
        for good in ["3.51.3", "3.50.7", "3.44.6", "3.52.0", "4.0.0"] {
            assert!(keeps_commits(good), "{good} was refused");
        }
    }
}
