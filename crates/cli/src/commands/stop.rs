//! `stop`: ends the server in the background.
//!
//! Absent: tasks. They are stored; what was under way is looked up at the next start.

use std::process::ExitCode;

use super::Context;
use crate::client::{Client, end_server, server_pid};
use crate::failure::Failure;
use crate::render::words::plural;
use crate::terminal::Line;

pub(super) async fn run(cx: &mut Context) -> Result<ExitCode, Failure> {
    let Some(pid) = server_pid(&cx.settings)? else {
        if cx.screen.json {
            cx.screen.document(&serde_json::json!({ "stopped": false, "pid": null, "open_tasks": null }))?;
        } else {
            cx.screen.line(Line::new().text(format!("no server runs for {}", cx.settings.data_dir.display())))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let health = Client::new(&cx.settings)?.health().await.ok();
    end_server(pid).await?;
    let open_tasks = health.and_then(|health| health.tasks_open);
    if cx.screen.json {
        cx.screen.document(&serde_json::json!({ "stopped": true, "pid": pid, "open_tasks": open_tasks }))?;
    } else {
        cx.screen.line(Line::new().text(format!("stopped the server (process {pid})")))?;
        if let Some(open @ 1..) = open_tasks {
            let tasks = plural(usize::try_from(open).unwrap_or(usize::MAX), "task");
            cx.screen.line(Line::new().dim(format!("{tasks} not ended yet: they go on when a server runs again")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
