//! The writer's SQL: load what a group touches, write what it changed. One statement a table, for
//! the driver's cost is per statement.
//!
//! Rows travel as one JSON array, their bytes beside it as one byte string from which the statement
//! cuts them, so that any bytes are stored as they are. Absent: any decision.

use domain::id::{Digest, TaskId};
use domain::task::TaskSummary;
use serde::Serialize;
use serde_json::json;
use sqlx::{Row as _, SqliteConnection};

use crate::error::Fault;
use crate::ledger::{HeadRow, LeaseRow, Ledger};
use crate::ports::{Head, Idempotency, StoredEvent, StoredKey};

/// What a failed statement or commit means for what comes after it.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// No room. Nothing was written; later work may succeed.
    Full,
    /// This work was refused; other work may succeed.
    Refused(Fault),
    /// The disk or the file can't be trusted any more: nothing may be written after this.
    Broken(Fault),
}

/// Sorts an error of the driver.
pub(super) fn classify(operation: &'static str, error: sqlx::Error) -> Trouble {
    /// `SQLITE_IOERR_SHMSIZE`: the WAL's index could not grow, which is a full disk too.
    const IOERR_SHMSIZE: i32 = 4_874;
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i32>().ok());
    let unreadable = matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. });
    let fault = Fault::new(operation, error);
    match code {
        Some(IOERR_SHMSIZE) => Trouble::Full,
        Some(code) => match code & 0xff {
            13 => Trouble::Full,
            // READONLY, IOERR, CORRUPT, CANTOPEN, NOTADB
            8 | 10 | 11 | 14 | 26 => Trouble::Broken(fault),
            _ => Trouble::Refused(fault),
        },
        // A row that this program does not write concerns one task, not the file.
        None if unreadable => Trouble::Refused(fault),
        None => Trouble::Broken(fault),
    }
}

/// What a group touches.
#[derive(Debug, Default)]
pub(super) struct Touched<'a> {
    pub tasks: Vec<&'a TaskId>,
    pub keys: Vec<&'a Idempotency>,
}

/// What a group changed.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    pub events: Vec<(&'a TaskId, &'a StoredEvent)>,
    /// One a task: its line after the group.
    pub lines: Vec<Line<'a>>,
    pub keys: Vec<(&'a Idempotency, &'a TaskId)>,
    pub leases: Vec<(&'a TaskId, &'a LeaseRow)>,
    pub blobs: Vec<(&'a Digest, &'a [u8])>,
}

impl Changes<'_> {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.lines.is_empty()
            && self.keys.is_empty()
            && self.leases.is_empty()
            && self.blobs.is_empty()
    }
}

/// A task's row.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub head: &'a HeadRow,
    pub summary: &'a TaskSummary,
    pub wake_at_us: Option<i64>,
}

const LOAD_TASKS: &str = "
SELECT j.value, t.first_row, t.seq, t.hash, l.epoch, l.owner, l.expires_at_us,
       (SELECT coalesce(max(row), 0) FROM event)
FROM json_each(?1) AS j
LEFT JOIN task AS t ON t.id = j.value
LEFT JOIN lease AS l ON l.task = j.value";

const LOAD_KEYS: &str = "
SELECT i.scope, i.key, i.body_digest, i.task
FROM json_each(?1) AS j
CROSS JOIN idempotency AS i ON i.scope = j.value ->> 0 AND i.key = j.value ->> 1";

const INSERT_EVENTS: &str = "
INSERT INTO event (row, task, seq, bytes, hash)
SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, substr(?2, j.value ->> 3, j.value ->> 4), j.value ->> 5
FROM json_each(?1) AS j";

const WRITE_LINES: &str = "
INSERT INTO task (first_row, id, seq, hash, state, open, wake_at_us, summary)
SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3, j.value ->> 4, j.value ->> 5, j.value ->> 6,
       j.value -> 7
FROM json_each(?1) AS j WHERE true
ON CONFLICT DO UPDATE SET seq = excluded.seq, hash = excluded.hash, state = excluded.state,
    open = excluded.open, wake_at_us = excluded.wake_at_us, summary = excluded.summary";

const INSERT_KEYS: &str = "
INSERT INTO idempotency (scope, key, body_digest, task)
SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3 FROM json_each(?1) AS j";

const WRITE_LEASES: &str = "
INSERT INTO lease (task, epoch, owner, expires_at_us)
SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3 FROM json_each(?1) AS j WHERE true
ON CONFLICT DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, expires_at_us = excluded.expires_at_us";

/// A blob that is there already is written again only if its bytes were damaged. Cut out of no bytes
/// at all, an empty blob would be NULL.
const WRITE_BLOBS: &str = "
INSERT INTO blob (digest, bytes)
SELECT j.value ->> 0, coalesce(substr(?2, j.value ->> 1, j.value ->> 2), x'') FROM json_each(?1) AS j WHERE true
ON CONFLICT DO UPDATE SET bytes = excluded.bytes WHERE bytes <> excluded.bytes";

/// Runs a statement that takes nothing and gives nothing.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    operation: &'static str,
    sql: &'static str,
) -> Result<(), Trouble> {
    sqlx::query(sql).execute(connection).await.map(|_| ()).map_err(|e| classify(operation, e))
}

/// Loads what a group touches.
pub(super) async fn load(connection: &mut SqliteConnection, touched: &Touched<'_>) -> Result<Ledger, Trouble> {
    let mut ledger = Ledger::default();
    if !touched.tasks.is_empty() {
        let ids: Vec<&str> = touched.tasks.iter().map(|task| task.as_str()).collect();
        let rows = sqlx::query(LOAD_TASKS)
            .bind(json!(ids).to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| classify("load the heads of a group", e))?;
        for row in rows {
            load_task(&mut ledger, &row).map_err(|e| classify("load the head of a task", e))?;
        }
    }
    if !touched.keys.is_empty() {
        let keys: Vec<[&str; 2]> = touched.keys.iter().map(|key| [key.scope.as_str(), key.key.as_str()]).collect();
        let rows = sqlx::query(LOAD_KEYS)
            .bind(json!(keys).to_string())
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| classify("load the keys of a group", e))?;
        for row in rows {
            load_key(&mut ledger, &row).map_err(|e| classify("load an idempotency key", e))?;
        }
    }
    Ok(ledger)
}

fn load_task(ledger: &mut Ledger, row: &sqlx::sqlite::SqliteRow) -> Result<(), sqlx::Error> {
    let id: TaskId = parsed(row.try_get::<&str, _>(0)?, TaskId::parse)?;
    if let Some(hash) = row.try_get::<Option<&str>, _>(3)? {
        let head = Head { seq: number(row, 2)?, hash: parsed(hash, Digest::parse)? };
        ledger.heads.insert(id.clone(), HeadRow { first_row: number(row, 1)?, head });
    }
    if row.try_get::<Option<i64>, _>(4)?.is_some() {
        let lease = LeaseRow { epoch: number(row, 4)?, owner: row.try_get(5)?, expires_at_us: row.try_get(6)? };
        ledger.leases.insert(id, lease);
    }
    ledger.last_row = number(row, 7)?;
    Ok(())
}

fn load_key(ledger: &mut Ledger, row: &sqlx::sqlite::SqliteRow) -> Result<(), sqlx::Error> {
    let stored = StoredKey {
        body_digest: parsed(row.try_get::<&str, _>(2)?, Digest::parse)?,
        task: parsed(row.try_get::<&str, _>(3)?, TaskId::parse)?,
    };
    ledger.keys.insert((row.try_get(0)?, row.try_get(1)?), stored);
    Ok(())
}

/// A number that is never negative.
pub(super) fn number(row: &sqlx::sqlite::SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Text that has to be an id or a digest.
pub(super) fn parsed<T, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    parse(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Byte strings laid end to end, to be cut out again by `substr`.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    /// Adds bytes; gives their place, counted from 1, and their length.
    fn add(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.0.len() + 1;
        self.0.extend_from_slice(bytes);
        (start, bytes.len())
    }
}

/// Writes what a group changed.
pub(super) async fn write(connection: &mut SqliteConnection, changes: &Changes<'_>) -> Result<(), Trouble> {
    let mut packed = Packed::default();
    let mut events = Vec::with_capacity(changes.events.len());
    for (task, event) in &changes.events {
        let (start, length) = packed.add(&event.bytes);
        events.push((event.row, *task, event.seq, start, length, &event.hash));
    }
    insert(connection, "store events", INSERT_EVENTS, &events, Some(packed)).await?;
    let mut lines = Vec::with_capacity(changes.lines.len());
    for Line { head: HeadRow { first_row, head }, summary, wake_at_us } in &changes.lines {
        let (state, open) = (summary.state.name(), i32::from(!summary.state.is_terminal()));
        lines.push((first_row, &summary.id, head.seq, &head.hash, state, open, wake_at_us, *summary));
    }
    insert(connection, "store task lines", WRITE_LINES, &lines, None).await?;
    let keys: Vec<_> = changes.keys.iter().map(|(key, task)| (&key.scope, &key.key, &key.body_digest, *task)).collect();
    insert(connection, "store idempotency keys", INSERT_KEYS, &keys, None).await?;
    let leases: Vec<_> =
        changes.leases.iter().map(|(task, row)| (*task, row.epoch, &row.owner, row.expires_at_us)).collect();
    insert(connection, "store leases", WRITE_LEASES, &leases, None).await?;
    let mut packed = Packed::default();
    let mut blobs = Vec::with_capacity(changes.blobs.len());
    for (digest, bytes) in &changes.blobs {
        let (start, length) = packed.add(bytes);
        blobs.push((*digest, start, length));
    }
    insert(connection, "store blobs", WRITE_BLOBS, &blobs, Some(packed)).await
}

async fn insert<R: Serialize>(
    connection: &mut SqliteConnection,
    operation: &'static str,
    sql: &'static str,
    rows: &[R],
    packed: Option<Packed>,
) -> Result<(), Trouble> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows = serde_json::to_string(rows).map_err(|e| Trouble::Refused(Fault::new(operation, e)))?;
    let mut query = sqlx::query(sql).bind(rows);
    if let Some(Packed(bytes)) = packed {
        query = query.bind(bytes);
    }
    query.execute(connection).await.map(|_| ()).map_err(|e| classify(operation, e))
}
