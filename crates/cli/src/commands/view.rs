//! `show`, `diff`, `evidence`, `why`: what the server knows of one task.
//!
//! Absent: how it looks; that is `render`.

use std::process::ExitCode;

use domain::task::Task;
use server::api::{DiffBody, DiffQuery, EvidenceBody, WhyBody};

use super::{Context, checked};
use crate::args::{DiffArgs, EvidenceArgs};
use crate::clock;
use crate::failure::Failure;
use crate::render::{evidence as evidence_page, patch, task as task_page, why as why_page};

pub(super) async fn show(id: &str, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let task: Task = client.get(&format!("/v1/tasks/{}", checked(id)?), &()).await?;
    if cx.screen.json {
        cx.screen.document(&task)?;
    } else {
        cx.screen.page(&task_page::page(&task, clock::now(), cx.screen.columns))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn diff(args: &DiffArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let (id, turns) = turns_of(&args.id)?;
    let query = DiffQuery { from: turns.map(|(from, _)| from), to: turns.map(|(_, to)| to) };
    let diff: DiffBody = client.get(&format!("/v1/tasks/{id}/diff"), &query).await?;
    if !cx.screen.json {
        diff.notes.iter().for_each(|note| crate::terminal::remark(&format!("note: {note}")));
    }
    if cx.screen.json {
        cx.screen.document(&diff)?;
    } else if args.stat {
        cx.screen.page(&patch::stat(&diff))?;
    } else if cx.screen.is_tty {
        cx.screen.page(&patch::page(&diff))?;
    } else {
        // Another program reads it, `git apply` perhaps: not a byte may differ.
        cx.screen.bytes(diff.patch.as_bytes())?;
        if diff.truncated {
            crate::terminal::remark("warning: the patch was cut because of its size; fetch the branch instead");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// From one turn to another, if they are named.
type Turns = Option<(u32, u32)>;

/// A task, and the turns between which it is looked at, if they are named: `ID` or `ID@A..B`.
fn turns_of(text: &str) -> Result<(&str, Turns), Failure> {
    let Some((id, turns)) = text.split_once('@') else { return Ok((checked(text)?, None)) };
    let wrong =
        || Failure::usage(format!("`@{turns}` names no turns; write two numbers such as {id}@2..5, or {id}@0..5"));
    let (from, to) = turns.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse().map_err(|_| wrong());
    Ok((checked(id)?, Some((number(from)?, number(to)?))))
}

pub(super) async fn evidence(args: &EvidenceArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let id = checked(&args.id)?;
    let body: EvidenceBody = client.get(&format!("/v1/tasks/{id}/evidence"), &()).await?;
    let Some(gate) = &args.output else {
        if cx.screen.json {
            cx.screen.document(&body)?;
        } else {
            cx.screen.page(&evidence_page::page(&body, cx.screen.columns))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let current = body.gates.iter().filter_map(|standing| standing.record.as_ref());
    let newest_last = body.earlier.iter().rev();
    let Some(record) = current.chain(newest_last).find(|record| record.evidence.gate.name == *gate) else {
        let known: Vec<_> = body.gates.iter().map(|standing| standing.gate.name.as_str()).collect();
        let known =
            if known.is_empty() { "it has no gates".to_owned() } else { format!("its gates: {}", known.join(", ")) };
        return Err(Failure::new(
            "no-output",
            "There is no such output",
            format!("gate `{gate}` has not been run for this task; {known}"),
        ));
    };
    let evidence = &record.evidence;
    let output = client.bytes(&format!("/v1/tasks/{id}/blobs/{}", evidence.output_digest)).await?;
    if cx.screen.json {
        let text = String::from_utf8_lossy(&output);
        cx.screen.document(&serde_json::json!({ "gate": gate, "commit": evidence.commit, "digest": evidence.output_digest, "output": text }))?;
    } else {
        cx.screen.bytes(&output)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn why(id: &str, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let why: WhyBody = client.get(&format!("/v1/tasks/{}/why", checked(id)?), &()).await?;
    if cx.screen.json {
        cx.screen.document(&why)?;
    } else {
        cx.screen.page(&why_page::page(&why, cx.screen.columns))?;
    }
    Ok(ExitCode::SUCCESS)
}
