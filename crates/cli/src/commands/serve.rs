//! `serve`: the server in the foreground.
//!
//! Absent: what it is put together from; that is `compose`.

use std::process::ExitCode;

use serde_json::json;
use store::OpenError;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::compose::{self, Running};
use crate::failure::{Failure, IN_USE, INTERRUPTED};
use crate::settings::{Settings, make_private_dir};
use crate::terminal::{Line, Page, remark};

pub(super) async fn run(cx: &mut Context) -> Result<ExitCode, Failure> {
    log_to_stderr(&cx.settings.log_filter)?;
    make_private_dir(&cx.settings.data_dir).map_err(|error| {
        let why = format!("{} can't be made: {error}. Choose another with --data-dir.", cx.settings.data_dir.display());
        Failure::new("data-dir", "The data folder can't be used", why)
    })?;
    let mut signals = Signals::listen()?;
    let mut running = tokio::select! {
        running = compose::start_engine(&cx.settings) => running.map_err(|error| not_started(&error, cx))?,
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    greet(&running, cx)?;
    let broke_off = tokio::select! {
        () = signals.next() => None,
        error = running.work.broke_off() => Some(error),
    };
    if broke_off.is_none() {
        remark("ending: what is under way is stored and goes on at the next start (Ctrl-C again ends at once)");
    }
    tokio::select! {
        stopped = running.stop() => stopped?,
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    }
    match broke_off {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(Failure::new(
            "serve",
            "The server can't go on",
            format!("{error:#}\nWhat was accepted is stored; tasks go on when a server runs again."),
        )),
    }
}

/// The signals that ask a server to end.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new("signals", "The server can't be started", error.to_string()))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::builder().parse(filter).map_err(|error| {
        Failure::usage(format!("CHARGEHAND_LOG is wrong: {error}; write for example info,sandbox=debug"))
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

/// Why it did not start; a folder in use has its own exit code, so that a second starter can wait.
fn not_started(error: &anyhow::Error, cx: &Context) -> Failure {
    let in_use = error.chain().any(|cause| matches!(cause.downcast_ref::<OpenError>(), Some(OpenError::InUse { .. })));
    let failure = Failure::new("serve", "The server can't be started", format!("{error:#}"));
    if in_use {
        let advice = format!(
            "Use that server, or end it with `chargehand stop --data-dir {}`, or give this one its own --data-dir.",
            cx.settings.data_dir.display()
        );
        return Failure { exit: IN_USE, ..failure.advise(&advice) };
    }
    failure
}

fn default_model(settings: &Settings) -> String {
    match (&settings.model, settings.providers.iter().find(|provider| provider.is_usable())) {
        (Some(model), _) => model.clone(),
        (None, Some(provider)) => {
            format!(
                "no default: `{name}` is configured, name its models with --model {name}/NAME",
                name = provider.name
            )
        }
        (None, None) => "none configured; `chargehand doctor` says how".to_owned(),
    }
}

/// A few lines of where it can be reached.
fn greet(running: &Running, cx: &mut Context) -> Result<(), Failure> {
    let bound = &running.bound;
    if cx.screen.json {
        cx.screen.document(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "unix_socket": bound.unix_socket,
            "tcp": bound.tcp,
            "token_file": running.token_file,
            "data_dir": cx.settings.data_dir,
        }))?;
        return Ok(());
    }
    let row = |name: &str, value: String| Line::new().text("  ").dim(name).until(11).text(value);
    let mut page = Page::new();
    page.push(Line::new().bold("chargehand").text(format!(" {} serves", env!("CARGO_PKG_VERSION"))));
    if let Some(socket) = &bound.unix_socket {
        page.push(row("socket", socket.display().to_string()));
    }
    if let Some(tcp) = bound.tcp {
        let token = running
            .token_file
            .as_ref()
            .map_or("the token that you set".to_owned(), |file| format!("the token in {}", file.display()));
        page.push(row("tcp", format!("http://{tcp} with {token}")));
        if !tcp.ip().is_loopback() {
            page.push(row(
                "",
                "anyone who reaches this address and has the token can use it; there is no TLS here".to_owned(),
            ));
        }
    }
    page.push(row("data", cx.settings.data_dir.display().to_string()));
    page.push(row("model", default_model(&cx.settings)));
    page.push(Line::new().dim("  Ctrl-C ends it; tasks go on at the next start."));
    cx.screen.page(&page)?;
    Ok(())
}
