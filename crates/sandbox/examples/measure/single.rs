//! One box: start, commands, file requests, snapshots.
//!
//! Ours, floor and peer take turns, so that a busy moment of the machine meets all of them.

use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::{ExecRequest, SnapshotRef};

use crate::Rounds;
use crate::floors;
use crate::peer::{Mounted, Peer};
use crate::report::{Figures, Outcome};
use crate::world::{World, echo, run};

/// From before the start call to the first byte of a command's output.
pub async fn time_of_start(world: &World, name: &str, snapshot: &SnapshotRef) -> Outcome<Duration> {
    let begun = Instant::now();
    let sandbox = world.start(name, snapshot).await?;
    let mut first = None;
    let request = ExecRequest::new("first", ["/bin/echo", "x"]);
    sandbox.exec(request, &mut |_| first = first.or(Some(begun.elapsed()))).await?;
    first.ok_or_else(|| "the first command wrote nothing".into())
}

pub async fn starts(
    world: &World,
    snapshot: &SnapshotRef,
    rounds: Rounds,
    bwrap: Option<&Path>,
    figures: &mut Figures,
) -> Outcome {
    let mut peer = match bwrap {
        Some(program) => Peer::start(program, &world.folder.join("peer")).map_err(|error| error.to_string()),
        None => Err("no bubblewrap on this machine; as root it is installed".to_owned()),
    };
    let (mut ours, mut destroys, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    let mut theirs = [Vec::new(), Vec::new()];
    for round in 0..rounds.cheap {
        floor.push(floors::bare_echo()?);
        let name = format!("s{round}");
        ours.push(time_of_start(world, &name, snapshot).await?);
        let begun = Instant::now();
        world.destroy(&name).await?;
        destroys.push(begun.elapsed());
        if let Ok(running) = &mut peer {
            let both = [running.once(Mounted::ByProgram), running.once(Mounted::ByCall)];
            match both.into_iter().collect::<Outcome<Vec<_>>>() {
                Ok(took) => theirs.iter_mut().zip(took).for_each(|(all, one)| all.push(one)),
                Err(error) => peer = Err(error.to_string()),
            }
        }
    }
    figures.spread(("start_p50_ms", "start_p95_ms"), &ours);
    let keys = [
        ("bwrap_overlay_p50_ms", "bwrap_overlay_p95_ms"),
        ("bwrap_overlay_syscall_p50_ms", "bwrap_overlay_syscall_p95_ms"),
    ];
    for (keys, times) in keys.into_iter().zip(&theirs) {
        match &peer {
            Ok(_) => figures.spread(keys, times),
            Err(why) => {
                figures.missing(keys.0, why);
                figures.missing(keys.1, why);
            }
        }
    }
    figures.spread(("spawn_floor_p50_ms", "spawn_floor_p95_ms"), &floor);
    figures.middle("destroy_p50_ms", &destroys);
    Ok(())
}

pub async fn requests(world: &World, snapshot: &SnapshotRef, rounds: Rounds, figures: &mut Figures) -> Outcome {
    let sandbox = world.start("a", snapshot).await?;
    let (mut exec, mut floor, mut file) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds.cheap * 2 {
        floor.push(floors::bare_echo()?);
        let name = format!("e{round}");
        let begun = Instant::now();
        echo(&sandbox, &name).await?;
        exec.push(begun.elapsed());
        sandbox.acknowledge(&name).await?;
        let begun = Instant::now();
        sandbox.stat("/workspace".as_ref()).await?;
        file.push(begun.elapsed());
    }
    figures.spread(("exec_p50_ms", "exec_p95_ms"), &exec);
    figures.middle("exec_floor_p50_ms", &floor);
    figures.middle("file_request_p50_ms", &file);
    world.destroy("a").await
}

/// The parts of one snapshot at the end of a turn.
struct Shot {
    stop: Duration,
    layer: Duration,
    start: Duration,
}

impl Shot {
    async fn take(world: &World, base: &SnapshotRef, key: &str, write: &str) -> Outcome<Self> {
        let sandbox = world.start("a", base).await?;
        run(&sandbox, ExecRequest::shell("w", write)).await?;
        let stopping = Instant::now();
        world.stop("a").await?;
        let shooting = Instant::now();
        let stack = world.snapshot("a", key).await?;
        let starting = Instant::now();
        echo(&world.start("a", &stack).await?, "x").await?;
        let end = Instant::now();
        world.destroy("a").await?;
        Ok(Self { stop: shooting - stopping, layer: starting - shooting, start: end - starting })
    }

    fn whole(&self) -> Duration {
        self.stop + self.layer + self.start
    }
}

pub async fn snapshots(world: &World, base: &SnapshotRef, rounds: Rounds, figures: &mut Figures) -> Outcome {
    let small = "i=0; while [ $i -lt 10 ]; do head -c 1000 /dev/zero > s$i; i=$((i+1)); done";
    let large = "head -c 10000000 /dev/zero | split -a 4 -b 10000 - big";
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for round in 0..rounds.dear {
        few.push(Shot::take(world, base, &format!("few {round}"), small).await?);
        many.push(Shot::take(world, base, &format!("many {round}"), large).await?);
    }
    let times = |shots: &[Shot], part: fn(&Shot) -> Duration| shots.iter().map(part).collect::<Vec<_>>();
    figures.spread(("snapshot_p50_ms", "snapshot_p95_ms"), &times(&few, Shot::whole));
    figures.middle("snapshot_stop_p50_ms", &times(&few, |shot| shot.stop));
    figures.middle("snapshot_layer_p50_ms", &times(&few, |shot| shot.layer));
    figures.middle("snapshot_start_p50_ms", &times(&few, |shot| shot.start));
    figures.middle("snapshot_1000x10kb_p50_ms", &times(&many, Shot::whole));
    figures.middle("snapshot_1000x10kb_layer_p50_ms", &times(&many, |shot| shot.layer));
    Ok(())
}
