//! The `command` agent: any program that edits a tree, in the same box, with the same gates and
//! the same evidence as a model.
//!
//! One effect, run once. If the platform stops while the program runs, the attempt is lost and the
//! next one begins on a fresh tree, because nobody can say how far the program came. Absent:
//! feedback; a program takes no messages, so failed gates end the task.

use domain::effect::{Effect, EffectResult};
use domain::evidence::CommandEnd;
use domain::task::{AgentEnd, OutcomeReason};

use crate::port::{Glimpse, Hands, Journal, JournalError};
use crate::tools::run::{Finished, run_command};

/// Most bytes of a program's output.
pub const MAX_OUTPUT_BYTES: u64 = 64 * 1024 * 1024;

/// Everything that the run acts through.
pub struct Program<'a> {
    /// Stores and shows.
    pub journal: &'a dyn Journal,
    /// The box.
    pub hands: &'a dyn Hands,
    /// In which attempt.
    pub attempt: u32,
    /// Program and arguments.
    pub argv: &'a [String],
    /// How long it may take.
    pub time_limit_ms: u64,
}

/// Runs the program and stores how it ended.
///
/// # Errors
/// [`JournalError`], after which nothing more may be done for this task.
pub async fn drive(program: &Program<'_>) -> Result<(), JournalError> {
    let effect = Effect::RunCommand { attempt: program.attempt, argv: program.argv.to_vec() };
    let id = program.journal.start(effect).await?;
    let ran = match program.hands.ready().await {
        Ok(hands) => {
            let show = |text: &str| program.journal.show(Glimpse::Output { source: "command", text });
            let command = Finished::wanted(program.argv, program.time_limit_ms, MAX_OUTPUT_BYTES);
            run_command(&*hands, id.as_str(), command, &show).await.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match ran {
        Ok(finished) => {
            let output_digest = program.journal.keep(&finished.output).await?;
            let end = agent_end(program.argv, &finished.end);
            let result = EffectResult::CommandEnded {
                end: finished.end.clone(),
                output_tail: finished.tail(),
                output_digest,
                duration_ms: finished.duration_ms,
            };
            program.journal.end(&id, result).await?;
            program.journal.finish(program.attempt, end).await
        }
        Err(message) => {
            program.journal.end(&id, crate::native::interrupted_call()).await?;
            program.journal.finish(program.attempt, AgentEnd::Lost { message }).await
        }
    }
}

fn agent_end(argv: &[String], end: &CommandEnd) -> AgentEnd {
    let name = argv.first().map_or("", String::as_str);
    match end {
        CommandEnd::Exited { code: 0 } => {
            AgentEnd::Finished { summary: format!("`{}` ended with exit 0", argv.join(" ")) }
        }
        CommandEnd::TimedOut { .. } => {
            AgentEnd::Stopped { reason: OutcomeReason::Timeout, message: format!("`{name}`: {end}") }
        }
        other => AgentEnd::Stopped {
            reason: OutcomeReason::User,
            message: format!("`{name}`: {other}; `logs` has its output"),
        },
    }
}
