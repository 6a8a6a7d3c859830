//! `stop`: ends the server in the background.
//!
//! Absent: tasks. They are stored; what was under way is looked up at the next start.

use std::process::ExitCode;

use super::Context;
use crate::client::{Client, end_server, server_pid};
use crate::failure::Failure;
use crate::render::words;
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
        let when = "when a server runs again";
        match open_tasks {
            None | Some(0) => {}
            Some(1) => cx.screen.line(Line::new().dim(format!("1 task has not ended: it goes on {when}")))?,
            Some(open) => {
                let tasks = words::open_tasks(open);
                cx.screen.line(Line::new().dim(format!("{tasks} have not ended: they go on {when}")))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
