//! `list`: every task that matters now, or all of them.
//!
//! Absent: sorting and shortening; that is `render::list`.

use std::process::ExitCode;

use domain::task::{TaskState, TaskSummary};
use serde::Serialize;
use server::api::{ListQuery, TaskList};

use super::Context;
use crate::args::ListArgs;
use crate::client::Client;
use crate::clock;
use crate::failure::Failure;
use crate::render::list::{Wishes, page};

/// Ended tasks that are asked for when not all are wanted.
const ENDED: u32 = 20;

/// The document of `list --json`.
#[derive(Serialize)]
struct Listed {
    tasks: Vec<TaskSummary>,
    /// Whether there are more tasks that have ended; `--all` has them too.
    left_out: bool,
}

pub(super) async fn run(args: &ListArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    if let Some(states) = &args.state {
        for state in states.split(',') {
            if !TaskState::ALL.iter().any(|known| known.name() == state.trim()) {
                let known: Vec<_> = TaskState::ALL.iter().map(|state| state.name()).collect();
                return Err(Failure::usage(format!("there is no state `{state}`; there are {}", known.join(", "))));
            }
        }
    }
    let client = cx.client().await?;
    let mut left_out = false;
    let tasks = match &args.state {
        Some(state) => all(&client, &ListQuery { state: Some(state.replace(' ', "")), ..ListQuery::default() }).await?,
        None if args.all => all(&client, &ListQuery::default()).await?,
        None => {
            let mut tasks = all(&client, &ListQuery { open: Some(true), ..ListQuery::default() }).await?;
            let ended = ListQuery { open: Some(false), limit: Some(ENDED), ..ListQuery::default() };
            let ended: TaskList = client.get("/v1/tasks", &ended).await?;
            left_out = ended.next_cursor.is_some();
            tasks.extend(ended.tasks);
            tasks
        }
    };
    if cx.screen.json {
        cx.screen.document(&Listed { tasks, left_out })?;
    } else {
        let all = args.all || args.state.is_some();
        let wishes = Wishes { now: clock::now(), columns: cx.screen.columns, all, left_out };
        cx.screen.page(&page(&tasks, wishes))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every task that a query fits, page by page.
pub(super) async fn all(client: &Client, query: &ListQuery) -> Result<Vec<TaskSummary>, Failure> {
    let mut query = ListQuery { limit: Some(server::api::MAX_TASKS), ..query.clone() };
    let mut tasks = Vec::new();
    loop {
        let page: TaskList = client.get("/v1/tasks", &query).await?;
        tasks.extend(page.tasks);
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return Ok(tasks),
        }
    }
}
