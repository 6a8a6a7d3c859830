//! Whether a start grows with the environment: 100 MB in 2,000 files beside 5 GB in 100,000.
//!
//! The files are written in full, so the large one takes its 5 GB of disk while it is measured.

use std::time::Instant;

use sandbox::SnapshotRef;

use crate::Rounds;
use crate::floors;
use crate::report::{Figures, Outcome, ms};
use crate::single::time_of_start;
use crate::world::{Tree, World};

const SMALL: Tree = Tree { files: 2_000, bytes: 50_000 };
const LARGE: Tree = Tree { files: 100_000, bytes: 50_000 };
/// What has to be free besides the large tree.
const SPARE_BYTES: u64 = 2 << 30;

async fn layer(world: &World, name: &str, tree: Tree) -> Outcome<(SnapshotRef, f64)> {
    let mut written = None;
    let snapshot = world.layer_of(name, |content| {
        tree.write(content)?;
        written = Some(Instant::now());
        Ok(())
    });
    let snapshot = snapshot.await?;
    let prepared_ms = written.map_or(0.0, |written| ms(written.elapsed()));
    // What is still being written would slow down whatever is measured next.
    floors::settle(&world.folder)?;
    Ok((snapshot, prepared_ms))
}

async fn large(world: &World, quick: bool) -> Result<(SnapshotRef, f64), String> {
    if quick {
        return Err("not in the short form".into());
    }
    let needed = (LARGE.files * LARGE.bytes) as u64 + SPARE_BYTES;
    let free = floors::free_bytes(&world.folder).map_err(|error| error.to_string())?;
    if free < needed {
        return Err(format!("{} MB of disk are needed and {} MB are free", needed / 1_000_000, free / 1_000_000));
    }
    layer(world, "five gigabytes", LARGE).await.map_err(|error| error.to_string())
}

pub async fn starts(world: &World, rounds: Rounds, quick: bool, figures: &mut Figures) -> Outcome {
    let (small, prepared_ms) = layer(world, "hundred megabytes", SMALL).await?;
    figures.put("prepare_100mb_ms", prepared_ms);
    let large = large(world, quick).await;
    let (mut on_small, mut on_large) = (Vec::new(), Vec::new());
    for round in 0..rounds.dear {
        on_small.push(time_of_start(world, &format!("small{round}"), &small).await?);
        if let Ok((large, _)) = &large {
            on_large.push(time_of_start(world, &format!("large{round}"), large).await?);
        }
        world.clear().await?;
    }
    figures.middle("start_p50_ms_100mb", &on_small);
    match &large {
        Ok((_, prepared_ms)) => {
            figures.put("prepare_5gb_ms", *prepared_ms);
            figures.middle("start_p50_ms_5gb", &on_large);
        }
        Err(why) => {
            figures.missing("prepare_5gb_ms", why);
            figures.missing("start_p50_ms_5gb", why);
        }
    }
    Ok(())
}
