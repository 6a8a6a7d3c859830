//! `cargo xtask bench sandbox`: what a box costs, beside floors and a peer of the same run.
//!
//! The measuring is done by the sandbox's example `measure`, which is built here; ours, floors and
//! peer take turns there. The peer is Debian's bubblewrap, installed here if that needs no asking.
//! A row that can't be measured on this machine is null, with the reason. Absent: a verdict.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::engine::last_json;
use super::stats::{Percentiles, rounded};
use crate::proc::{self, Workspace};

/// How often the disk is asked to make something last.
const SYNCS: usize = 50;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    json: bool,
    quick: bool,
    release: bool,
    folder: Option<PathBuf>,
    only: Vec<String>,
}

impl Options {
    /// From the words after `bench sandbox`.
    pub fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self { json: false, quick: false, release: true, folder: None, only: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--folder" => options.folder = Some(words.next().context("--folder needs a folder")?.into()),
                "--only" => options.only.push((*words.next().context("--only needs the name of a part")?).to_owned()),
                "--profile" => {
                    options.release = match words.next() {
                        Some(&"release") => true,
                        Some(&"dev") => false,
                        _ => bail!("--profile needs `release` or `dev`"),
                    };
                }
                other => bail!("bench sandbox does not take `{other}`; see `cargo xtask help`"),
            }
        }
        Ok(options)
    }

    fn profile(&self) -> &'static str {
        if self.release { "release" } else { "dev" }
    }
}

/// Builds, measures and prints. Fails if nothing could be measured at all for a reason that is not the machine's.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let measure = build(&workspace, options)?;
    let folder = options.folder.clone().unwrap_or_else(|| workspace.target_directory.join("bench-sandbox"));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let around = Around { load: load()?, fdatasync_p50_ms: fdatasync(&folder)? };
    let mut command = proc::built(&measure);
    command.arg("--folder").arg(&folder);
    if options.quick {
        command.arg("--quick");
    }
    for part in &options.only {
        command.args(["--only", part]);
    }
    match bubblewrap() {
        Ok(program) => drop(command.arg("--bwrap").arg(program)),
        Err(error) => eprintln!("bench: without the peer: {error:#}"),
    }
    let measured: Measured = last_json(&proc::answered(&mut command)?)?;
    let head = Head {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        load_after: load()?,
        before: around,
        root: rustix::process::geteuid().is_root(),
        profile: options.profile(),
    };
    print!("{}", rows(&head, &measured));
    if options.json {
        println!("{}", document(&head, &measured));
    }
    Ok(())
}

fn build(workspace: &Workspace, options: &Options) -> anyhow::Result<PathBuf> {
    let mut command = proc::cargo();
    command.args(["build", "--profile", options.profile(), "--package", "sandbox", "--example", "measure"]);
    if !proc::passed_through(&mut command)? {
        bail!("`{}` failed", proc::shown(&command));
    }
    let folder = workspace.target_directory.join(if options.release { "release" } else { "debug" });
    Ok(folder.join(Path::new("examples/measure")))
}

/// Debian's bubblewrap, installed if this is root on a Debian.
fn bubblewrap() -> anyhow::Result<PathBuf> {
    let installed = PathBuf::from("/usr/bin/bwrap");
    if installed.is_file() {
        return Ok(installed);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("bubblewrap is not installed, and only root can install it");
    }
    let install = || proc::captured(proc::apt_get().args(["install", "-y", "--no-install-recommends", "bubblewrap"]));
    if install().is_err() {
        proc::captured(proc::apt_get().arg("update")).context("cannot learn which packages there are")?;
        install().context("cannot install bubblewrap")?;
    }
    Ok(installed)
}

/// Work that is waiting for a processor, over the last minute.
fn load() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("/proc/loadavg has no figures")
}

/// What it takes to make 4 KiB last on this folder's disk, in milliseconds.
fn fdatasync(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join(format!("sync-{}", std::process::id()));
    let times = sync_times(&path).with_context(|| format!("cannot write {}", path.display()));
    let _ = std::fs::remove_file(&path);
    Ok(rounded(Percentiles::of(&times?).context("no syncs")?.p50))
}

fn sync_times(path: &Path) -> std::io::Result<Vec<f64>> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::create(path)?;
    let once = |_| {
        let begun = Instant::now();
        file.write_all_at(&[1; 4096], 0)?;
        file.sync_data()?;
        Ok(begun.elapsed().as_secs_f64() * 1000.0)
    };
    (0..SYNCS).map(once).collect()
}

/// The machine just before the measuring.
struct Around {
    load: f64,
    fdatasync_p50_ms: f64,
}

/// What stands above the rows.
struct Head {
    profile: &'static str,
    root: bool,
    cores: usize,
    kernel: String,
    before: Around,
    load_after: f64,
}

/// What the example prints.
#[derive(Debug, Deserialize)]
struct Measured {
    rows: Vec<Row>,
}

/// One figure, or why there is none.
#[derive(Debug, Deserialize)]
struct Row {
    key: String,
    what: String,
    value: Option<f64>,
    why: Option<String>,
    beside: Option<String>,
}

/// The report for people.
fn rows(head: &Head, measured: &Measured) -> String {
    let user = if head.root { "root" } else { "an ordinary user" };
    let mut text = format!(
        "sandbox, {} build, as {user}, {} cores, kernel {}, load {} before and {} after, fdatasync {} ms\n",
        head.profile, head.cores, head.kernel, head.before.load, head.load_after, head.before.fdatasync_p50_ms
    );
    for row in &measured.rows {
        let value = match row.value {
            Some(value) => format!("{value:.2} {}", unit(&row.key)),
            None => format!("- ({})", row.why.as_deref().unwrap_or("not measured")),
        };
        let line = format!("  {:<52}{value:<16}{}", row.what, row.beside.as_deref().unwrap_or_default());
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The word of a key that is a unit.
fn unit(key: &str) -> &'static str {
    let units = [("ms", "ms"), ("mb", "MB")];
    let found = key.split('_').find_map(|word| units.into_iter().find(|(name, _)| *name == word));
    found.map_or("", |(_, shown)| shown)
}

/// The report for machines: flat figures, and why some are null.
fn document(head: &Head, measured: &Measured) -> Value {
    let mut all = Map::new();
    all.insert("bench".into(), "sandbox".into());
    all.insert("profile".into(), head.profile.into());
    all.insert("root".into(), head.root.into());
    all.insert("cores".into(), head.cores.into());
    all.insert("kernel".into(), head.kernel.clone().into());
    all.insert("load_before".into(), head.before.load.into());
    all.insert("load_after".into(), head.load_after.into());
    all.insert("fdatasync_p50_ms".into(), head.before.fdatasync_p50_ms.into());
    let mut missing = Map::new();
    for row in &measured.rows {
        all.insert(row.key.clone(), row.value.into());
        if let (None, Some(why)) = (row.value, &row.why) {
            missing.insert(row.key.clone(), why.clone().into());
        }
    }
    all.insert("missing".into(), missing.into());
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            profile: "release",
            root: true,
            cores: 2,
            kernel: "6.18.0".into(),
            before: Around { load: 0.5, fdatasync_p50_ms: 0.9 },
            load_after: 1.5,
        }
    }

    fn measured() -> Measured {
        serde_json::from_str(
            r#"{"optimized":true,"rows":[
                {"key":"start_p50_ms","what":"start a box","value":4.2,"why":null,"beside":"100 rounds"},
                {"key":"idle_rss_mb","what":"a box at rest","value":0.4,"why":null,"beside":null},
                {"key":"rest_400","what":"boxes at rest","value":400,"why":null,"beside":null},
                {"key":"start_p50_ms_5gb","what":"start on 5 GB","value":null,"why":"7000 MB of disk are needed","beside":null}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn options_have_sensible_defaults_and_bad_ones_are_refused() {
        let plain = Options::parse(&[]).unwrap();
        assert!(plain.release && !plain.quick && !plain.json && plain.folder.is_none() && plain.only.is_empty());
        let all = Options::parse(&["--json", "--quick", "--folder", "/tmp", "--profile", "dev", "--only", "start"]);
        let all = all.unwrap();
        assert!(all.json && all.quick && !all.release && all.folder.is_some() && all.only == ["start"]);
        for bad in [&["--folder"][..], &["--profile", "fast"], &["--runs"], &["--only"]] {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn machines_get_flat_figures_and_why_some_are_null() {
        let json = document(&head(), &measured());
        assert_eq!(json["start_p50_ms"], 4.2);
        assert_eq!((&json["cores"], &json["load_before"]), (&2.into(), &0.5.into()));
        assert_eq!(json["start_p50_ms_5gb"], Value::Null);
        assert_eq!(json["missing"]["start_p50_ms_5gb"], "7000 MB of disk are needed");
        assert_eq!(json["missing"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn people_get_rows_with_units_and_the_reason_of_a_gap() {
        let text = rows(&head(), &measured());
        for expected in
            ["as root, 2 cores, kernel 6.18.0", "4.20 ms", "100 rounds", "0.40 MB", "- (7000 MB of disk are needed)"]
        {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(text.lines().any(|line| line.ends_with("400.00")), "a count has no unit:\n{text}");
    }

    #[test]
    fn the_disk_and_the_load_can_be_measured() {
        let folder = tempfile::tempdir().unwrap();
        assert!(fdatasync(folder.path()).unwrap() > 0.0 && load().unwrap() >= 0.0);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
