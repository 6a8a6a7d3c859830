//! Sealed secrets in the database: a change as a job of the writer, reads by the readers.
//!
//! A change is judged against the row that it meets inside the transaction, after those before it in
//! the group. Absent: values. What is bound to a statement here is sealed already.

use async_trait::async_trait;
use domain::principal::Principal;
use jiff::Timestamp;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::Sqlite;
use super::reads::unread;
use super::statements::{Trouble, classify, number, parsed};
use super::writer::{Answer, Job};
use crate::error::{Fault, ReadError};
use crate::secrets::{
    AddedAs, AuditAction, Change, KeyId, SealedSecret, SecretAudit, SecretHost, SecretLine, SecretName, SecretScope,
    Secrets, SecretsError, effective, judge,
};

/// The columns of a line, in the order in which [`line`] reads them.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT repo, environment, name, hosts, added_as, revision, key_id, created_us, updated_us, nonce, sealed ",
            "FROM secret ",
            $rest
        )
    };
}

const ONE: &str = select!("WHERE repo = ?1 AND environment = ?2 AND name = ?3");
const ALL: &str = select!("");
const FOR_BOX: &str = select!("WHERE repo = '' OR (repo = ?1 AND environment IN ('', ?2))");
const WRITE: &str = "
INSERT INTO secret (repo, environment, name, hosts, added_as, revision, key_id, created_us, updated_us, nonce, sealed)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT DO UPDATE SET hosts = excluded.hosts, added_as = excluded.added_as, revision = excluded.revision,
    key_id = excluded.key_id, updated_us = excluded.updated_us, nonce = excluded.nonce, sealed = excluded.sealed";
const REMOVE: &str = "DELETE FROM secret WHERE repo = ?1 AND environment = ?2 AND name = ?3";
const WRITE_AUDIT: &str = "
INSERT INTO secret_audit (at_us, actor, action, repo, environment, name, hosts, added_as)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const AUDIT: &str = "
SELECT row, at_us, actor, action, repo, environment, name, hosts, added_as
FROM secret_audit ORDER BY row DESC LIMIT ?1";

/// One change of a secret.
pub(super) struct SecretJob {
    pub change: Change,
    pub actor: Principal,
    pub at: Timestamp,
    pub answer: Answer<Result<SecretLine, SecretsError>>,
}

impl SecretJob {
    pub fn size_bytes(&self) -> usize {
        match &self.change {
            Change::Put { secret, .. } => secret.sealed.len(),
            Change::Remove { .. } => 0,
        }
    }

    /// Whether it removes a secret.
    pub fn takes_away(&self) -> bool {
        matches!(self.change, Change::Remove { .. })
    }

    /// What the caller is told of a trouble.
    pub fn told(trouble: &Trouble) -> SecretsError {
        match trouble {
            Trouble::Full => SecretsError::DiskFull,
            Trouble::Refused(fault) | Trouble::Broken(fault) => SecretsError::Failed(fault.clone()),
        }
    }

    /// Inside a transaction: judges the change and writes it with its audit.
    pub async fn carry_out(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Result<SecretLine, SecretsError>, Trouble> {
        let (scope, name) = (self.change.scope(), self.change.name());
        let place = (scope.repo().unwrap_or_default(), scope.environment().unwrap_or_default());
        let found = sqlx::query(ONE).bind(place.0).bind(place.1).bind(name.as_str()).fetch_optional(&mut *connection);
        let found = found.await.map_err(|e| classify("look a secret up", e))?;
        let stored = found.as_ref().map(line).transpose().map_err(|e| classify("read a secret", e))?;
        let told = match judge(&self.change, stored.as_ref()) {
            Ok(line) => line,
            Err(refused) => return Ok(Err(refused)),
        };
        match &self.change {
            Change::Put { secret, .. } => write(connection, secret, place).await?,
            Change::Remove { .. } => {
                let query = sqlx::query(REMOVE).bind(place.0).bind(place.1).bind(name.as_str());
                query.execute(&mut *connection).await.map_err(|e| classify("remove a secret", e))?;
            }
        }
        let actor = serde_json::to_string(&self.actor)
            .map_err(|error| Trouble::Refused(Fault::new("write down who changed a secret", error)))?;
        let query = sqlx::query(WRITE_AUDIT)
            .bind(self.at.as_microsecond())
            .bind(actor)
            .bind(self.change.action().word())
            .bind(place.0)
            .bind(place.1)
            .bind(name.as_str())
            .bind(json!(told.hosts).to_string())
            .bind(told.added_as.to_string());
        query.execute(connection).await.map_err(|e| classify("write down who changed a secret", e))?;
        Ok(Ok(told))
    }
}

async fn write(connection: &mut SqliteConnection, secret: &SealedSecret, place: (&str, &str)) -> Result<(), Trouble> {
    let line = &secret.line;
    let query = sqlx::query(WRITE)
        .bind(place.0)
        .bind(place.1)
        .bind(line.name.as_str())
        .bind(json!(line.hosts).to_string())
        .bind(line.added_as.to_string())
        .bind(i64::try_from(line.revision).unwrap_or(i64::MAX))
        .bind(line.key_id.as_str())
        .bind(line.created_at.as_microsecond())
        .bind(line.updated_at.as_microsecond())
        .bind(&secret.nonce)
        .bind(&secret.sealed);
    query.execute(connection).await.map(|_| ()).map_err(|e| classify("store a secret", e))
}

fn decode(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// The scope in two neighbouring columns.
fn scope(row: &SqliteRow, column: usize) -> Result<SecretScope, sqlx::Error> {
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (repo, environment) = (some(row.try_get(column)?), some(row.try_get(column + 1)?));
    SecretScope::of(repo.as_deref(), environment.as_deref()).map_err(decode)
}

fn moment(row: &SqliteRow, column: usize) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(row.try_get(column)?).map_err(decode)
}

fn hosts(row: &SqliteRow, column: usize) -> Result<Vec<SecretHost>, sqlx::Error> {
    serde_json::from_str(row.try_get::<&str, _>(column)?).map_err(decode)
}

fn line(row: &SqliteRow) -> Result<SecretLine, sqlx::Error> {
    Ok(SecretLine {
        scope: scope(row, 0)?,
        name: parsed(row.try_get(2)?, SecretName::parse)?,
        hosts: hosts(row, 3)?,
        added_as: parsed(row.try_get(4)?, AddedAs::parse)?,
        revision: number(row, 5)?,
        key_id: KeyId::stored(row.try_get(6)?),
        created_at: moment(row, 7)?,
        updated_at: moment(row, 8)?,
    })
}

fn sealed(row: &SqliteRow) -> Result<SealedSecret, sqlx::Error> {
    Ok(SealedSecret { line: line(row)?, nonce: row.try_get(9)?, sealed: row.try_get(10)? })
}

fn audited(row: &SqliteRow) -> Result<SecretAudit, sqlx::Error> {
    let action = AuditAction::parse(row.try_get(3)?).ok_or_else(|| decode("an unknown action"))?;
    Ok(SecretAudit {
        row: number(row, 0)?,
        at: moment(row, 1)?,
        actor: serde_json::from_str(row.try_get::<&str, _>(2)?).map_err(decode)?,
        action,
        scope: scope(row, 4)?,
        name: parsed(row.try_get(6)?, SecretName::parse)?,
        hosts: hosts(row, 7)?,
        added_as: parsed(row.try_get(8)?, AddedAs::parse)?,
    })
}

impl Sqlite {
    async fn change(&self, change: Change, actor: &Principal, at: Timestamp) -> Result<SecretLine, SecretsError> {
        let actor = actor.clone();
        let job = |reply| Job::Secret(Box::new(SecretJob { change, actor, at, answer: Answer::new(reply) }));
        self.ask(job).await.unwrap_or(Err(SecretsError::Closed))
    }
}

#[async_trait]
impl Secrets for Sqlite {
    async fn put(
        &self,
        secret: SealedSecret,
        action: AuditAction,
        actor: &Principal,
        at: Timestamp,
    ) -> Result<(), SecretsError> {
        self.change(Change::Put { secret: Box::new(secret), action }, actor, at).await.map(|_| ())
    }

    async fn remove(
        &self,
        scope: &SecretScope,
        name: &SecretName,
        actor: &Principal,
        at: Timestamp,
    ) -> Result<SecretLine, SecretsError> {
        self.change(Change::Remove { scope: scope.clone(), name: name.clone() }, actor, at).await
    }

    async fn list(&self) -> Result<Vec<SecretLine>, ReadError> {
        let rows = sqlx::query(ALL).fetch_all(&self.readers).await.map_err(unread("list secrets"))?;
        let lines: Result<Vec<SecretLine>, sqlx::Error> = rows.iter().map(line).collect();
        let mut lines = lines.map_err(unread("read a secret"))?;
        lines.sort_by(|a, b| (&a.scope, &a.name).cmp(&(&b.scope, &b.name)));
        Ok(lines)
    }

    async fn for_box(&self, repo: &str, environment: Option<&str>) -> Result<Vec<SecretLine>, ReadError> {
        let query = sqlx::query(FOR_BOX).bind(repo).bind(environment.unwrap_or_default());
        let rows = query.fetch_all(&self.readers).await.map_err(unread("find the secrets of a box"))?;
        let lines: Result<Vec<SecretLine>, sqlx::Error> = rows.iter().map(line).collect();
        Ok(effective(lines.map_err(unread("read a secret"))?, repo, environment))
    }

    async fn get(&self, scope: &SecretScope, name: &SecretName) -> Result<Option<SealedSecret>, ReadError> {
        let query = sqlx::query(ONE)
            .bind(scope.repo().unwrap_or_default())
            .bind(scope.environment().unwrap_or_default())
            .bind(name.as_str());
        let row = query.fetch_optional(&self.readers).await.map_err(unread("look a secret up"))?;
        row.as_ref().map(sealed).transpose().map_err(unread("read a secret"))
    }

    async fn audit(&self, limit: u32) -> Result<Vec<SecretAudit>, ReadError> {
        let query = sqlx::query(AUDIT).bind(i64::from(limit));
        let rows = query.fetch_all(&self.readers).await.map_err(unread("read the audit of secrets"))?;
        let lines: Result<Vec<SecretAudit>, sqlx::Error> = rows.iter().map(audited).collect();
        lines.map_err(unread("read the audit of secrets"))
    }
}
