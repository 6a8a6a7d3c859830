//! The `command` agent: any program that edits a tree, in the same box, with the same gates and
//! the same evidence as a model.
//!
//! One effect, run once. If the platform stops while the program runs, the box that lived on says what
//! came of it; if the box died too, the attempt is lost and the next one begins on a fresh tree,
//! because nobody can say how far the program came. Absent:
//! feedback; a program takes no messages, so failed gates end the task.

use domain::effect::{Effect, EffectResult};
use domain::evidence::CommandEnd;
use domain::id::EffectId;
use domain::task::{AgentEnd, OutcomeReason};

use sandbox::Sandbox;

use crate::port::{Glimpse, Hands, Journal, JournalError};
use crate::tools::run::{Finished, run_command};

/// Most bytes of a program's output.
pub const MAX_OUTPUT_BYTES: u64 = 64 * 1024 * 1024;

/// Everything that the run acts through.
pub struct Program<'a> {
    /// Stores and shows.
    pub journal: &'a dyn Journal,
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
pub async fn drive(program: &Program<'_>, hands: &dyn Hands) -> Result<(), JournalError> {
    let effect = Effect::RunCommand { attempt: program.attempt, argv: program.argv.to_vec() };
    let id = program.journal.start(effect).await?;
    match hands.ready().await {
        Ok(hands) => in_box(program, &id, &*hands).await,
        Err(error) => lost(program, &id, error.to_string()).await,
    }
}

/// Goes on with a run that was under way when the platform stopped: the box that lived on says what
/// came of it. Without the box the attempt is lost.
///
/// # Errors
/// [`JournalError`], after which nothing more may be done for this task.
pub async fn recover(program: &Program<'_>, id: &EffectId, hands: Option<&dyn Sandbox>) -> Result<(), JournalError> {
    match hands {
        Some(hands) => in_box(program, id, hands).await,
        None => lost(program, id, "the platform and the sandbox were restarted while the program ran".to_owned()).await,
    }
}

async fn in_box(program: &Program<'_>, id: &EffectId, hands: &dyn Sandbox) -> Result<(), JournalError> {
    let show = |text: &str| program.journal.show(Glimpse::Output { source: "command", text });
    let command = Finished::wanted(program.argv, program.time_limit_ms, MAX_OUTPUT_BYTES);
    let finished = match run_command(hands, id.as_str(), command, &show).await {
        Ok(finished) => finished,
        Err(error) => return lost(program, id, error.to_string()).await,
    };
    let output_digest = program.journal.keep(&finished.output).await?;
    let end = agent_end(program.argv, &finished.end);
    let result = EffectResult::CommandEnded {
        end: finished.end.clone(),
        output_tail: finished.tail(),
        output_digest,
        duration_ms: finished.duration_ms,
    };
    program.journal.end_and_finish(id, result, program.attempt, end).await?;
    let _ = hands.acknowledge(id.as_str()).await;
    Ok(())
}

async fn lost(program: &Program<'_>, id: &EffectId, message: String) -> Result<(), JournalError> {
    let result = crate::native::unknown(message.as_str());
    program.journal.end_and_finish(id, result, program.attempt, AgentEnd::Lost { message }).await
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
