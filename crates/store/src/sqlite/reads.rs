//! Reading: the log and the lists, by connections that can't write.
//!
//! Absent: caches. What a reader sees is what is committed.

use async_trait::async_trait;
use domain::id::{Digest, TaskId};
use domain::task::TaskSummary;
use jiff::Timestamp;
use serde_json::json;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::Sqlite;
use super::statements::{number, parsed};
use crate::error::{AppendError, Fault, ReadError, ResolveError, VerifyError};
use crate::ledger::{ChainCheck, MAX_CANDIDATES, from_micros, pick};
use crate::ports::{Append, Appended, EventLog, Filter, Head, StoredEvent, StoredKey, TaskIndex, Verified};

/// Events that `verify` holds in memory at a time.
const VERIFY_EVENTS: u32 = 512;

const READ: &str = "SELECT row, seq, bytes, hash FROM event WHERE task = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
const HEAD: &str = "SELECT seq, hash FROM task WHERE id = ?1";
const SUMMARY: &str = "SELECT summary FROM task WHERE id = ?1";
const LIST: &str = "
SELECT summary FROM task
WHERE first_row < ?1 AND (?2 = '[]' OR state IN (SELECT value FROM json_each(?2)))
ORDER BY first_row DESC LIMIT ?3";
const LIST_OPEN: &str = "
SELECT summary FROM task
WHERE open = 1 AND first_row < ?1 AND (?2 = '[]' OR state IN (SELECT value FROM json_each(?2)))
ORDER BY first_row DESC LIMIT ?3";
const FIRST_ROW: &str = "SELECT first_row FROM task WHERE id = ?1";
const PREFIX: &str = "SELECT id FROM task WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3";
const UNFINISHED: &str = "SELECT id FROM task WHERE open = 1 OR wake_at_us IS NOT NULL ORDER BY first_row";
const DUE: &str =
    "SELECT id FROM task WHERE wake_at_us IS NOT NULL AND wake_at_us <= ?1 ORDER BY wake_at_us, first_row";
const NEXT_WAKE: &str = "SELECT min(wake_at_us) FROM task WHERE wake_at_us IS NOT NULL";
const BY_KEY: &str = "SELECT body_digest, task FROM idempotency WHERE scope = ?1 AND key = ?2";

/// Says of a driver's error whether the storage failed or holds something strange.
pub(super) fn unread(operation: &'static str) -> impl Fn(sqlx::Error) -> ReadError {
    move |error| match error {
        sqlx::Error::Decode(what) => ReadError::Corrupt { what: format!("can't {operation}: {what}") },
        sqlx::Error::ColumnDecode { source, .. } => ReadError::Corrupt { what: format!("can't {operation}: {source}") },
        other => ReadError::Failed(Fault::new(operation, other)),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn event(row: &SqliteRow) -> Result<StoredEvent, sqlx::Error> {
    Ok(StoredEvent {
        row: number(row, 0)?,
        seq: number(row, 1)?,
        bytes: row.try_get(2)?,
        hash: parsed(row.try_get::<&str, _>(3)?, Digest::parse)?,
    })
}

fn task_id(row: &SqliteRow) -> Result<TaskId, sqlx::Error> {
    parsed(row.try_get::<&str, _>(0)?, TaskId::parse)
}

fn line(row: &SqliteRow) -> Result<TaskSummary, sqlx::Error> {
    serde_json::from_str(row.try_get::<&str, _>(0)?).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

fn each<T>(rows: &[SqliteRow], read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>) -> Result<Vec<T>, sqlx::Error> {
    rows.iter().map(read).collect()
}

#[async_trait]
impl EventLog for Sqlite {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.store(append).await
    }

    async fn read(&self, task: &TaskId, after_seq: u64, limit: u32) -> Result<Vec<StoredEvent>, ReadError> {
        let query = sqlx::query(READ).bind(task.as_str()).bind(signed(after_seq)).bind(i64::from(limit));
        let rows = query.fetch_all(&self.readers).await.map_err(unread("read events"))?;
        each(&rows, event).map_err(unread("read an event"))
    }

    async fn head(&self, task: &TaskId) -> Result<Option<Head>, ReadError> {
        let row = sqlx::query(HEAD).bind(task.as_str()).fetch_optional(&self.readers).await;
        let head = |row: &SqliteRow| -> Result<Head, sqlx::Error> {
            Ok(Head { seq: number(row, 0)?, hash: parsed(row.try_get::<&str, _>(1)?, Digest::parse)? })
        };
        let row = row.map_err(unread("read a head"))?;
        row.as_ref().map(head).transpose().map_err(unread("read a head"))
    }

    async fn verify(&self, task: &TaskId) -> Result<Verified, VerifyError> {
        // The head is read first: events that are appended meanwhile lie behind it. It is committed
        // with the events, so where there are events a second look finds it.
        let mut head = self.head(task).await?;
        if head.is_none() {
            head = if self.read(task, 0, 1).await?.is_empty() { None } else { self.head(task).await? };
        }
        let end = head.as_ref().map_or(u64::MAX, |head| head.seq);
        let mut check = ChainCheck::new(task);
        loop {
            let events = self.read(task, check.seq(), VERIFY_EVENTS).await?;
            for event in events.iter().take_while(|event| event.seq <= end) {
                check.next(event)?;
            }
            let more = events.len() == VERIFY_EVENTS as usize && events.last().is_some_and(|event| event.seq < end);
            if !more {
                break;
            }
        }
        Ok(Verified { events: check.finish(head.as_ref())? })
    }
}

#[async_trait]
impl TaskIndex for Sqlite {
    async fn list(&self, filter: Filter) -> Result<Vec<TaskSummary>, ReadError> {
        let below = match &filter.before {
            None => Some(i64::MAX),
            Some(task) => sqlx::query_scalar(FIRST_ROW)
                .bind(task.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(unread("find the page before"))?,
        };
        let Some(below) = below else { return Ok(Vec::new()) };
        let states: Vec<&str> = filter.states.iter().map(|state| state.name()).collect();
        let rows = sqlx::query(if filter.open_only { LIST_OPEN } else { LIST })
            .bind(below)
            .bind(json!(states).to_string())
            .bind(i64::from(filter.limit))
            .fetch_all(&self.readers)
            .await
            .map_err(unread("list tasks"))?;
        each(&rows, line).map_err(unread("read a task's line"))
    }

    async fn summary(&self, task: &TaskId) -> Result<Option<TaskSummary>, ReadError> {
        let row = sqlx::query(SUMMARY).bind(task.as_str()).fetch_optional(&self.readers).await;
        let row = row.map_err(unread("read a task's line"))?;
        row.as_ref().map(line).transpose().map_err(unread("read a task's line"))
    }

    async fn resolve(&self, prefix: &str) -> Result<TaskId, ResolveError> {
        let wanted = prefix.to_ascii_lowercase();
        // DEL is above every character that an id may have.
        let rows = sqlx::query(PREFIX)
            .bind(wanted.as_str())
            .bind(format!("{wanted}\u{7f}"))
            .bind(i64::try_from(MAX_CANDIDATES + 1).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await
            .map_err(unread("look an id up"))?;
        pick(prefix, &wanted, each(&rows, task_id).map_err(unread("read an id"))?)
    }

    async fn unfinished(&self) -> Result<Vec<TaskId>, ReadError> {
        let rows = sqlx::query(UNFINISHED).fetch_all(&self.readers).await.map_err(unread("list open tasks"))?;
        each(&rows, task_id).map_err(unread("read an id"))
    }

    async fn due(&self, now: Timestamp) -> Result<Vec<TaskId>, ReadError> {
        let query = sqlx::query(DUE).bind(now.as_microsecond());
        let rows = query.fetch_all(&self.readers).await.map_err(unread("list due tasks"))?;
        each(&rows, task_id).map_err(unread("read an id"))
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, ReadError> {
        let micros: Option<i64> =
            sqlx::query_scalar(NEXT_WAKE).fetch_one(&self.readers).await.map_err(unread("find the next wake-up"))?;
        Ok(micros.map(from_micros))
    }

    async fn by_key(&self, scope: &str, key: &str) -> Result<Option<StoredKey>, ReadError> {
        let row = sqlx::query(BY_KEY).bind(scope).bind(key).fetch_optional(&self.readers).await;
        let stored = |row: &SqliteRow| -> Result<StoredKey, sqlx::Error> {
            Ok(StoredKey {
                body_digest: parsed(row.try_get::<&str, _>(0)?, Digest::parse)?,
                task: parsed(row.try_get::<&str, _>(1)?, TaskId::parse)?,
            })
        };
        let row = row.map_err(unread("look a key up"))?;
        row.as_ref().map(stored).transpose().map_err(unread("read a key"))
    }
}
