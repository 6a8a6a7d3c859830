//! Builds and starts `cli`'s example `attack`, and reads its rows.
//!
//! The programs are copied to where an ordinary user can start them. Absent: the attacks.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::report::{Fate, Report, Row};
use super::{Options, PARTS};
use crate::proc::{self, Workspace};

/// As whom the suite runs a second time.
const ORDINARY_USER: u32 = 54_321;

pub fn attack(workspace: &Workspace, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let programs = build(workspace, options)?;
    // A short name: the path of a unix socket under it has at most 107 bytes.
    let base = options.folder.clone().unwrap_or_else(|| workspace.target_directory.join("attack"));
    let scratch = base.join(std::process::id().to_string());
    let done = attack_in(&scratch, &programs, options, report);
    std::fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    done
}

fn attack_in(scratch: &Path, programs: &[PathBuf; 3], options: &Options, report: &mut Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    std::fs::set_permissions(scratch, PermissionsExt::from_mode(0o755)).context("cannot open the scratch folder")?;
    let mut copies = Vec::new();
    for program in programs {
        let copy = scratch.join(program.file_name().context("a program without a name")?);
        std::fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
        copies.push(copy);
    }
    let [driver, chargehand, box_attack] = &copies[..] else { bail!("three programs are needed") };
    let root = rustix::process::geteuid().is_root();
    let users: &[Option<u32>] = if root { &[None, Some(ORDINARY_USER)] } else { &[None] };
    for user in users {
        let name = if root && user.is_none() { "root" } else { "user" };
        eprintln!("attack: as {name}");
        let folder = scratch.join(name);
        std::fs::create_dir(&folder).context("cannot make a folder to work in")?;
        let mut command = proc::built(driver);
        command.arg("--chargehand").arg(chargehand).arg("--box-attack").arg(box_attack).arg("--folder").arg(&folder);
        for part in PARTS.iter().filter(|part| **part != "tests" && options.wants(part)) {
            command.args(["--only", part]);
        }
        if let Some(user) = user {
            proc::as_user(&mut command, *user, &folder)?;
        }
        let printed = proc::answered(&mut command);
        if let (Err(error), Some(_)) = (&printed, user)
            && !can_be_reached(scratch)
        {
            skip(name, &format!("{error:#}"), report);
            continue;
        }
        for line in printed?.lines() {
            report.add(serde_json::from_str(line).with_context(|| format!("not an attack's row: {line}"))?);
        }
    }
    Ok(())
}

/// Whether every folder on the way may be entered by anybody.
fn can_be_reached(folder: &Path) -> bool {
    folder.ancestors().all(|step| step.metadata().is_ok_and(|about| about.permissions().mode() & 0o001 != 0))
}

/// What ran as root and can't run as an ordinary user, by name.
fn skip(name: &str, why: &str, report: &mut Report) {
    let skipped: Vec<Row> = report
        .rows()
        .iter()
        .map(|row| Row { user: name.to_owned(), result: Fate::Skipped, detail: why.to_owned(), ..row.clone() })
        .collect();
    skipped.into_iter().for_each(|row| report.add(row));
}

/// The driver, the product, the program that does its worst.
fn build(workspace: &Workspace, options: &Options) -> anyhow::Result<[PathBuf; 3]> {
    for what in [&["--package", "cli", "--bins", "--example", "attack"][..], &["--package", "sandbox", "--bins"]] {
        let mut command = proc::cargo();
        command.args(["build", "--profile", options.profile()]).args(what);
        if !proc::passed_through(&mut command)? {
            bail!("`{}` failed", proc::shown(&command));
        }
    }
    let folder = workspace.target_directory.join(if options.release { "release" } else { "debug" });
    Ok(["examples/attack", "chargehand", "box-attack"].map(|name| folder.join(name)))
}
