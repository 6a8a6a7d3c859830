//! The brain's own requests for files, led astray by the box: links, races, pipes, devices.
//!
//! The prize is a file of the host beside the boxes' folder, and a folder of the host to write to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use sandbox::{ExecRequest, Sandbox};

use crate::row::{Fate, Rows};
use crate::world::{World, path_text, run, shell};

/// How often the race is run.
const RACES: usize = 300;
const PRIZE: &str = "the content of a host file";

struct Host {
    file: PathBuf,
    folder: PathBuf,
}

pub async fn attack(world: &World, rows: &mut Rows) -> anyhow::Result<()> {
    let folder = world.folder.join("prize");
    std::fs::create_dir(&folder)?;
    let host = Host { file: folder.join("secret.txt"), folder };
    std::fs::write(&host.file, PRIZE)?;
    let sandbox = world.start("files").await?;
    let plant = format!(
        "ln -s '{file}' link; ln -s '{folder}' folder; ln -s /proc/1/root proc; ln -s ../../../../../../..{file} dots; mkfifo pipe; echo fine > plain",
        file = path_text(&host.file),
        folder = path_text(&host.folder)
    );
    shell(&sandbox, "plant", &plant).await?;
    let control = sandbox.read("plain".as_ref(), 0, 100).await?;
    if control.bytes != b"fine\n" {
        bail!("a plain file can't be read");
    }
    for (what, path) in [
        ("read a host file through a link", "link".to_owned()),
        ("read it through a linked folder", "folder/secret.txt".to_owned()),
        ("read it through the dots of a link", "dots".to_owned()),
        ("read it through dots", format!("../../../../../..{}", path_text(&host.file))),
        ("read it by its own name", path_text(&host.file)),
        ("read it through the hand's root", format!("proc{}", path_text(&host.file))),
    ] {
        let read = sandbox.read(path.as_ref(), 0, 1000).await;
        let got = read.as_ref().is_ok_and(|read| read.bytes == PRIZE.as_bytes());
        rows.add("S11", what, Fate::blocked_if(!got), &said(&read.map(|_| ())));
        let to = world.folder.join("copied");
        let copied = sandbox.copy_out(path.as_ref(), &to, 1000).await;
        let got = std::fs::read(&to).is_ok_and(|bytes| bytes == PRIZE.as_bytes());
        let what = what.replacen("read", "copy out:", 1);
        rows.add("S11", &what, Fate::blocked_if(!got), &said(&copied.map(|_| ())));
        let _ = std::fs::remove_file(&to);
    }
    for (what, path) in [
        ("write into a host folder through a link", "folder/planted".to_owned()),
        ("write over a host file through a link", "link".to_owned()),
        ("write into a host folder by its name", path_text(&host.folder.join("planted"))),
    ] {
        let written = sandbox.write(path.as_ref(), b"planted", None).await;
        let held = is_untouched(&host);
        rows.add("S11", what, Fate::blocked_if(held), &said(&written.map(|_| ())));
    }
    let listed = sandbox.list("folder".as_ref(), 10).await;
    let seen = listed.as_ref().is_ok_and(|listing| listing.entries.iter().any(|entry| entry.name == "secret.txt"));
    rows.add("S11", "list a host folder through a link", Fate::blocked_if(!seen), &said(&listed.map(|_| ())));
    let piped = tokio::time::timeout(std::time::Duration::from_secs(10), sandbox.read("pipe".as_ref(), 0, 10)).await;
    let held = matches!(piped, Ok(Err(_)));
    rows.add("S11", "hang the brain on a pipe", Fate::blocked_if(held), "");
    rows.tried("S11", "swap a file for a link while it is read", race(&sandbox, &host).await);
    world.destroy(&sandbox).await
}

fn is_untouched(host: &Host) -> bool {
    let names = std::fs::read_dir(&host.folder).map(Iterator::count);
    std::fs::read(&host.file).is_ok_and(|bytes| bytes == PRIZE.as_bytes()) && names.is_ok_and(|count| count == 1)
}

fn said<E: std::fmt::Display>(result: &Result<(), E>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |()| "answered, with something of the box".into())
}

async fn race(sandbox: &Arc<dyn Sandbox>, host: &Host) -> anyhow::Result<(Fate, String)> {
    let line = format!(
        "mkdir -p real && echo fine > real/secret.txt; while :; do ln -sfn real swap; ln -sfn '{}' swap; done",
        path_text(&host.folder)
    );
    let swapper = ExecRequest::shell("swap", line);
    let racing = async {
        let (mut won, mut fine) = (0, 0);
        for _ in 0..RACES {
            if let Ok(read) = sandbox.read(Path::new("swap/secret.txt"), 0, 100).await {
                won += usize::from(read.bytes == PRIZE.as_bytes());
                fine += usize::from(read.bytes == b"fine\n");
            }
        }
        let _ = sandbox.kill("swap").await;
        (won, fine)
    };
    let (ran, (won, fine)) = tokio::join!(run(sandbox, swapper), racing);
    ran?;
    Ok((Fate::blocked_if(won == 0), format!("{RACES} tries, {fine} read the box's own file")))
}
