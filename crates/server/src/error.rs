//! From the errors of other rooms to problem documents, and from those to responses.
//!
//! This is the edge: an error that is the platform's own fault is logged here once, with its whole
//! chain, and the caller is told only that it happened. Everything that the caller can mend is
//! told in full. Absent: new wording for what other rooms already say well.

use std::error::Error;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::command::Refusal;
use domain::task::TaskState;
use orchestrator::{CommandError, EnvironmentError, ForkError, SubmitError};
use store::secrets::{BadSecret, KeyError, SecretsError, VaultError};
use store::{BlobError, ReadError, ResolveError};

use crate::api::{PROBLEM_JSON, Problem, ProblemType};

/// Why a request was not carried out, as the caller will see it.
#[derive(Debug)]
pub(crate) struct Failure(Box<Problem>);

/// What handlers return.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A problem with what happened and what to do.
    pub(crate) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Problem::new(kind, detail).into()
    }

    /// A failure of the platform: the log gets the cause, the caller what it means.
    pub(crate) fn internal(what: &str, cause: &dyn Error) -> Self {
        let mut chain = cause.to_string();
        let mut next = cause.source();
        while let Some(cause) = next {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            next = cause.source();
        }
        tracing::error!(what, error = %chain, "a request failed");
        Self::new(ProblemType::Internal, format!("{what}: {cause}; the server's log has the cause"))
    }

    /// The document.
    #[cfg(test)]
    pub(crate) fn problem(&self) -> &Problem {
        &self.0
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = *self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if problem.is(ProblemType::Unauthorized) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"chargehand\""));
        }
        if problem.is(ProblemType::Unavailable) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// One word for each refusal, which programs may rely on.
const fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Ended { .. } => "ended",
        Refusal::NotAPerson { .. } => "not_a_person",
        Refusal::NoQuestion => "no_question",
        Refusal::QuestionOpen => "question_open",
        Refusal::Empty => "empty",
        Refusal::NothingToReview => "nothing_to_review",
        Refusal::Stale { .. } => "stale",
        Refusal::NotApproved { .. } => "not_approved",
        Refusal::NoListener => "no_listener",
        Refusal::Landing => "landing",
        Refusal::GatesFailed { .. } => "gates_failed",
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::NotAPerson { .. } => ProblemType::Forbidden,
            Refusal::Empty => return Problem::new(ProblemType::InvalidBody, refusal.to_string()).at("text").into(),
            _ => ProblemType::Refused,
        };
        let mut problem = Problem::new(kind, refusal.to_string());
        problem.reason = Some(reason(&refusal).to_owned());
        problem.into()
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotFound(_) => Self::new(ProblemType::NotFound, error.to_string()),
            CommandError::NoChange { state } => {
                let ended = TaskState::ALL.into_iter().any(|known| known.is_terminal() && known.name() == state);
                let detail = if ended {
                    format!("the task has ended without a change ({state}); `logs` shows what happened")
                } else {
                    error.to_string()
                };
                let mut problem = Problem::new(ProblemType::NotFound, detail);
                problem.reason = Some("no_change".to_owned());
                problem.into()
            }
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::DiskFull => Self::new(ProblemType::DiskFull, error.to_string()),
            CommandError::Store(_) => Self::internal("the task could not be read or changed", &error),
        }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let detail = error.to_string();
        let at = |kind, field: &str| Problem::new(kind, detail.clone()).at(field).into();
        match error {
            SubmitError::EmptyGoal | SubmitError::LongGoal { .. } => at(ProblemType::InvalidBody, "goal"),
            SubmitError::UnknownAgent { .. } => at(ProblemType::InvalidBody, "agent"),
            SubmitError::NoCommand => at(ProblemType::InvalidBody, "argv"),
            SubmitError::Model(_) => at(ProblemType::NoModel, "model"),
            SubmitError::Contract(_) => at(ProblemType::InvalidContract, "contract"),
            SubmitError::Repo(_) | SubmitError::OriginSecret => at(ProblemType::Repository, "repo"),
            SubmitError::KeyReused { task } => {
                let mut problem = Problem::new(ProblemType::KeyReused, detail).at(crate::api::IDEMPOTENCY_KEY);
                problem.task = Some(task);
                problem.into()
            }
            SubmitError::NoSandbox(_) => Self::new(ProblemType::NoSandbox, detail),
            SubmitError::DiskFull => Self::new(ProblemType::DiskFull, detail),
            SubmitError::Store(_) => Self::internal("the task could not be accepted", &error),
        }
    }
}

impl From<EnvironmentError> for Failure {
    fn from(error: EnvironmentError) -> Self {
        let detail = error.to_string();
        match error {
            EnvironmentError::NotFound(_) => Self::new(ProblemType::NotFound, detail),
            EnvironmentError::Ambiguous(_) => Self::new(ProblemType::AmbiguousId, detail),
            EnvironmentError::Repository(_) => Problem::new(ProblemType::Repository, detail).at("repo").into(),
            EnvironmentError::Platform(_) => Self::internal("the environment could not be had", &error),
        }
    }
}

impl From<ForkError> for Failure {
    fn from(error: ForkError) -> Self {
        let refused = |reason: &str| {
            let mut problem = Problem::new(ProblemType::Refused, error.to_string());
            problem.reason = Some(reason.to_owned());
            problem.into()
        };
        match &error {
            ForkError::NotFound(_) => Self::new(ProblemType::NotFound, error.to_string()),
            ForkError::NoTurns => refused("no_turns"),
            ForkError::NotBegun => refused("not_begun"),
            ForkError::NoSuchTurn { .. } => refused("no_such_turn"),
            ForkError::LastWord { .. } => refused("last_word"),
            ForkError::LongMessage { .. } => {
                Problem::new(ProblemType::InvalidBody, error.to_string()).at("message").into()
            }
            ForkError::Gone(_) => refused("files_gone"),
            ForkError::Store(_) => Self::internal("the step could not be gone back to", &error),
            ForkError::Submit(_) => match error {
                ForkError::Submit(error) => error.into(),
                other => Self::internal("the step could not be gone back to", &other),
            },
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let detail = error.to_string();
        match error {
            ResolveError::NotFound { .. } => Self::new(ProblemType::NotFound, detail),
            ResolveError::Ambiguous { candidates, .. } => {
                let mut problem = Problem::new(ProblemType::AmbiguousId, detail);
                problem.candidates = candidates;
                problem.into()
            }
            ResolveError::Unread(error) => error.into(),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::internal("the store could not be read", &error)
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::DiskFull => Self::new(ProblemType::DiskFull, error.to_string()),
            BlobError::TooLarge { .. } => Self::new(ProblemType::TooLarge, error.to_string()),
            BlobError::Corrupt { .. } | BlobError::Failed(_) | BlobError::Closed => {
                Self::internal("the blob could not be read", &error)
            }
        }
    }
}

impl From<BadSecret> for Failure {
    fn from(error: BadSecret) -> Self {
        let field = match &error {
            BadSecret::Name { .. } => "name",
            BadSecret::Repo { .. } => "repo",
            BadSecret::Environment { .. } => "environment",
            BadSecret::NoHost | BadSecret::Host { .. } => "hosts",
            BadSecret::AddedAs { .. } => "as",
            BadSecret::EmptyValue
            | BadSecret::ShortValue { .. }
            | BadSecret::LongValue { .. }
            | BadSecret::Unsendable => "value",
        };
        Problem::new(ProblemType::InvalidBody, error.to_string()).at(field).into()
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Bad(error) => error.into(),
            VaultError::Key(KeyError::DiskFull { .. }) | VaultError::Store(SecretsError::DiskFull) => {
                Self::new(ProblemType::DiskFull, error.to_string())
            }
            VaultError::Key(_) | VaultError::KeyMissing { .. } | VaultError::Tampered { .. } => {
                tracing::warn!(%error, "secrets can't be opened");
                Self::new(ProblemType::SecretKey, error.to_string())
            }
            VaultError::Store(SecretsError::NotFound { .. }) => Self::new(ProblemType::NotFound, error.to_string()),
            VaultError::Store(SecretsError::Conflict { .. }) => Self::new(ProblemType::Unavailable, error.to_string()),
            VaultError::Store(SecretsError::Failed(_) | SecretsError::Closed) | VaultError::NotForHost { .. } => {
                Self::internal("the secret could not be stored or removed", &error)
            }
            VaultError::Unread(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::id::TaskId;

    use super::*;

    #[test]
    fn a_full_disk_is_507_and_says_that_nothing_was_lost() {
        let failure = Failure::from(CommandError::DiskFull);
        assert_eq!(failure.problem().status, 507);
        assert!(failure.problem().detail.contains("nothing was lost"));
    }

    #[test]
    fn a_refusal_keeps_its_sentence_and_has_a_word_for_programs() {
        let failure = Failure::from(CommandError::Refused(Refusal::NotApproved { head: "abc".into() }));
        assert_eq!(failure.problem().status, 409);
        assert_eq!(failure.problem().reason.as_deref(), Some("not_approved"));
        assert!(failure.problem().detail.contains("approve"));
    }

    #[test]
    fn a_change_that_will_never_come_is_not_promised() {
        let detail = |state| Failure::from(CommandError::NoChange { state }).problem().detail.clone();
        assert!(detail("working").contains("no change yet"));
        assert!(detail("failed").contains("ended without a change"), "{}", detail("failed"));
    }

    #[test]
    fn a_reused_key_names_the_task_that_has_it() {
        let task = TaskId::from_random(7);
        let failure = Failure::from(SubmitError::KeyReused { task: task.clone() });
        assert_eq!(failure.problem().status, 409);
        assert_eq!(failure.problem().task, Some(task));
    }

    #[test]
    fn a_problem_is_answered_as_problem_json_with_its_status() {
        let response = Failure::new(ProblemType::Unauthorized, "send a token").into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        assert!(response.headers().contains_key("www-authenticate"));
    }
}
