//! Errors on the wire: RFC 9457 problem documents with types that never change their meaning.
//!
//! A client decides by `type`, never by `title` or `detail`, which are for people. `detail` says
//! what to do. Absent: how the errors of other rooms become problems; that is `crate::error`.

use domain::id::TaskId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";
const PREFIX: &str = "urn:chargehand:problem:";

/// An error, as a document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem, for programs: `urn:chargehand:problem:` and a word of [`ProblemType`].
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// The field, parameter or header that is wrong, as a path such as `contract.budget.turns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// For `refused`: why, in one word that programs can rely on, such as `not_approved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The task that this is about, when it is another than the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// For `ambiguous-id`: the tasks that the prefix fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<TaskId>,
}

impl Problem {
    /// A problem of a kind, with what happened and what to do.
    #[must_use]
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{PREFIX}{}", kind.slug()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            field: None,
            reason: None,
            task: None,
            candidates: Vec::new(),
        }
    }

    /// The same, naming the field, parameter or header that is wrong.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: ProblemType) -> bool {
        self.kind.strip_prefix(PREFIX) == Some(kind.slug())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:literal, $title:literal;)*) => {
        /// Every kind of problem that this server reports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemType { $($(#[$doc])* $name,)* }

        impl ProblemType {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// The last part of the `type`.
            #[must_use]
            pub const fn slug(self) -> &'static str { match self { $(Self::$name => $slug,)* } }
            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }
            /// A short name for people.
            #[must_use]
            pub const fn title(self) -> &'static str { match self { $(Self::$name => $title,)* } }
        }
    };
}

problems! {
    /// A header, parameter or JSON text that can't be read.
    MalformedRequest = "malformed-request", 400, "The request can't be read";
    /// No token, or a wrong one.
    Unauthorized = "unauthorized", 401, "Sign in first";
    /// The caller is known and may not do this.
    Forbidden = "forbidden", 403, "Not allowed";
    /// No such task, blob or change.
    NotFound = "not-found", 404, "Not found";
    /// No such path in the API.
    NoSuchRoute = "no-such-route", 404, "No such path";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method-not-allowed", 405, "Method not allowed";
    /// The prefix fits several tasks.
    AmbiguousId = "ambiguous-id", 409, "The id fits several tasks";
    /// The idempotency key was used with another body.
    KeyReused = "key-reused", 409, "The idempotency key is taken";
    /// It can't be done as the task stands; `reason` says why in one word.
    Refused = "refused", 409, "The task does not allow this now";
    /// The key of the stored secrets is missing or is not theirs, or a row was changed.
    SecretKey = "secret-key", 409, "The stored secrets can't be opened";
    /// The body is larger than this server takes.
    TooLarge = "too-large", 413, "The body is too large";
    /// The body is not JSON.
    UnsupportedMediaType = "unsupported-media-type", 415, "The body is not JSON";
    /// The request was meant for another host.
    WrongHost = "wrong-host", 421, "Another host was meant";
    /// A field of the body is missing, unknown or of the wrong kind.
    InvalidBody = "invalid-body", 422, "The body has a wrong field";
    /// The contract asks for what can't be promised.
    InvalidContract = "invalid-contract", 422, "The contract can't be taken";
    /// The repository, its branch or its settings.
    Repository = "repository", 422, "The repository can't be used";
    /// No model, or one that can't be used.
    NoModel = "no-model", 422, "No usable model";
    /// The platform failed; the log has the cause.
    Internal = "internal", 500, "The server failed";
    /// This machine can't run sandboxes.
    NoSandbox = "no-sandbox", 503, "No sandbox can be run here";
    /// The server took too long, or is about to stop.
    Unavailable = "unavailable", 503, "Not now";
    /// The disk that holds the data folder is full.
    DiskFull = "disk-full", 507, "The disk is full";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_has_its_own_slug_and_an_error_status() {
        let mut slugs: Vec<_> = ProblemType::ALL.iter().map(|kind| kind.slug()).collect();
        slugs.sort_unstable();
        let all = slugs.len();
        slugs.dedup();
        assert_eq!(slugs.len(), all);
        assert!(ProblemType::ALL.iter().all(|kind| (400..600).contains(&kind.status())));
    }

    #[test]
    fn a_problem_survives_the_wire_and_leaves_out_what_it_does_not_say() {
        let problem = Problem::new(ProblemType::InvalidBody, "unknown field `gaol`").at("gaol");
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains(r#""type":"urn:chargehand:problem:invalid-body""#), "{text}");
        assert!(!text.contains("candidates"), "{text}");
        let back: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(back, problem);
        assert!(back.is(ProblemType::InvalidBody) && !back.is(ProblemType::NotFound));
    }
}
