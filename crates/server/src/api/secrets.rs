//! Secrets on the wire. A value goes in and never comes out.
//!
//! Absent: an answer with a value in it; there is no type for one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use store::Secret;
use store::secrets::{SecretAudit, SecretLine};
use utoipa::{IntoParams, ToSchema};

/// Changes in a page of the audit when the caller does not say.
pub const DEFAULT_AUDIT: u32 = 100;
/// Most changes in a page of the audit.
pub const MAX_AUDIT: u32 = 1000;

fn bearer() -> String {
    "bearer".to_owned()
}

/// The one place where a value is written: the client's request.
fn exposed<S: Serializer>(value: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.expose())
}

/// A secret to be stored. Without `repo` it is for every box of this server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// What it is called: a capital letter, then capital letters, digits and `_`, 64 in all.
    pub name: String,
    /// The repository that it is for, as tasks name it in `repo.origin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The environment of that repository that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The hosts that it may be sent to, at least one: `api.example.com`, `127.0.0.1:8080`. Without a
    /// port it is 443.
    pub hosts: Vec<String>,
    /// How it is added to a request: `bearer`, `basic:USER` or `header:NAME`.
    #[serde(rename = "as", default = "bearer")]
    pub added_as: String,
    /// The value, 8 to 65,536 bytes. No answer ever repeats it.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String, format = Password, write_only)]
    pub value: Secret,
}

/// For whom a secret is: without parameters for every box of this server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SecretPlace {
    /// The repository that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The environment of that repository that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// What may be known of a stored secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretInfo {
    /// What it is called.
    pub name: String,
    /// The repository that it is for; absent for every box of this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The environment of that repository that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The hosts that it may be sent to.
    pub hosts: Vec<String>,
    /// How it is added to a request.
    #[serde(rename = "as")]
    pub added_as: String,
    /// Names the key that it is sealed with.
    pub key: String,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last set.
    pub updated_at: Timestamp,
}

impl From<SecretLine> for SecretInfo {
    fn from(line: SecretLine) -> Self {
        Self {
            name: line.name.into(),
            repo: line.scope.repo().map(ToOwned::to_owned),
            environment: line.scope.environment().map(ToOwned::to_owned),
            hosts: line.hosts.into_iter().map(Into::into).collect(),
            added_as: line.added_as.to_string(),
            key: line.key_id.to_string(),
            created_at: line.created_at,
            updated_at: line.updated_at,
        }
    }
}

/// All secrets, without values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// Those for every box first, then by repository and environment.
    pub secrets: Vec<SecretInfo>,
}

/// How much of the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SecretAuditQuery {
    /// Most changes in the answer, 1 to 1000; 100 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Who changed which secret, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretAuditLine {
    /// Its place among all changes, from 1.
    pub row: u64,
    /// When.
    pub at: Timestamp,
    /// Who, as `person:ada`.
    pub actor: String,
    /// `set`, `removed` or `resealed`.
    pub action: String,
    /// Which secret.
    pub name: String,
    /// The repository that it is or was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The environment that it is or was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Where it may go after the change, or might have gone before it was removed.
    pub hosts: Vec<String>,
}

impl From<SecretAudit> for SecretAuditLine {
    fn from(audit: SecretAudit) -> Self {
        Self {
            row: audit.row,
            at: audit.at,
            actor: audit.actor.to_string(),
            action: audit.action.word().to_owned(),
            name: audit.name.into(),
            repo: audit.scope.repo().map(ToOwned::to_owned),
            environment: audit.scope.environment().map(ToOwned::to_owned),
            hosts: audit.hosts.into_iter().map(Into::into).collect(),
        }
    }
}

/// The last changes of secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretAuditList {
    /// Newest first.
    pub changes: Vec<SecretAuditLine>,
}

/// What a change of keys came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretsRotated {
    /// Names the key that all secrets are sealed with now.
    pub key: String,
    /// How many were sealed anew.
    pub resealed: u64,
}
