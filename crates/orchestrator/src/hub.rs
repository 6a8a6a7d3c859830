//! A task's project, and what the forge's errors mean for an effect.
//!
//! Absent: git.

use domain::effect::{FailureClass, FailureSource};
use domain::task::Task;
use forge::{CheckoutError, Project, ReadError};
use forge::{Fault, Forge, ImportError, LandError, Origin, PublishError};

use crate::failure::Failure;

/// The project that the task's origin was opened as when the task was accepted.
pub(crate) async fn project_of(forge: &dyn Forge, task: &Task) -> Result<Project, Failure> {
    let gone = |why: String| {
        Failure::new(
            FailureClass::Final,
            FailureSource::User,
            format!("the repository {} can't be worked on: {why}", task.spec.repo.origin),
        )
    };
    let origin = Origin::parse(&task.spec.repo.origin).map_err(|error| gone(error.to_string()))?;
    match forge.reopen(&origin).await? {
        Some(project) => Ok(project),
        // The hub is gone from the data folder; the origin can make it again.
        None => forge.open(&origin).await.map_err(|error| gone(error.to_string())),
    }
}

fn by_person(message: String) -> Failure {
    Failure::new(FailureClass::NeedsPerson, FailureSource::User, message)
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let (class, source) = match &fault {
            Fault::Unreachable { .. } => (FailureClass::Retry, FailureSource::User),
            Fault::NoSuchCommit { .. } => (FailureClass::Final, FailureSource::Infra),
            Fault::Git { .. } | Fault::Io { .. } | Fault::DiskFull { .. } => {
                (FailureClass::Retry, FailureSource::Infra)
            }
        };
        Self::new(class, source, fault.to_string())
    }
}

impl From<CheckoutError> for Failure {
    fn from(error: CheckoutError) -> Self {
        match error {
            CheckoutError::Fault(fault) => fault.into(),
            other => Self::new(FailureClass::Final, FailureSource::Infra, other.to_string()),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fault(fault) => fault.into(),
            other => Self::new(FailureClass::Final, FailureSource::User, other.to_string()),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Fault(fault) => fault.into(),
            other => Self::new(FailureClass::Final, FailureSource::Model, other.to_string()),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Fault(fault) => fault.into(),
            other => by_person(other.to_string()),
        }
    }
}

impl From<LandError> for Failure {
    fn from(error: LandError) -> Self {
        match error {
            LandError::Fault(fault) => fault.into(),
            // The next plan sees where the branch is now and merges first.
            moved @ LandError::BaseMoved { .. } => Self::infra(moved.to_string()),
            other => by_person(other.to_string()),
        }
    }
}
