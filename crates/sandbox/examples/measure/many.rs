//! Many boxes at once: a hundred forks of one snapshot, four hundred at rest.
//!
//! Absent: work in the boxes. Who works there competes for the same processors anyhow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::id::SandboxId;
use sandbox::{Provider as _, Sandbox, SnapshotRef};
use tokio::task::JoinSet;

use crate::Rounds;
use crate::floors;
use crate::report::{Figures, Outcome, ms};
use crate::world::{World, echo, start};

const FORKS: usize = 100;
const AT_REST: usize = 400;
/// How many of those that will rest are started at once.
const STARTED_AT_ONCE: usize = 8;
/// No further box is started when less memory than this is left.
const KEEP_AVAILABLE_MB: f64 = 2000.0;

type Boxes = Vec<Arc<dyn Sandbox>>;

/// Starts boxes of these numbers, all at once, and asks each.
async fn start_all(world: &World, snapshot: &SnapshotRef, numbers: impl IntoIterator<Item = usize>) -> Outcome<Boxes> {
    let mut all = JoinSet::new();
    for number in numbers {
        let (provider, snapshot) = (Arc::clone(&world.provider), snapshot.clone());
        all.spawn(async move {
            let sandbox = start(&provider, &format!("fork{number}"), &snapshot).await?;
            echo(&sandbox, "x").await?;
            Outcome::Ok(sandbox)
        });
    }
    let mut boxes = Vec::new();
    while let Some(one) = all.join_next().await {
        boxes.push(one??);
    }
    Ok(boxes)
}

async fn alive(world: &World) -> Outcome<usize> {
    Ok(world.provider.list().await?.iter().filter(|found| found.alive).count())
}

async fn destroy_all(world: &World) -> Outcome<Duration> {
    let ids: Vec<SandboxId> = world.provider.list().await?.into_iter().map(|found| found.id).collect();
    let begun = Instant::now();
    for id in &ids {
        world.provider.destroy(id).await?;
    }
    Ok(begun.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "some hundred boxes")]
pub async fn forks(world: &World, snapshot: &SnapshotRef, rounds: Rounds, figures: &mut Figures) -> Outcome {
    let (mut ours, mut floor, mut fewest_alive) = (Vec::new(), Vec::new(), FORKS);
    let (mut taken, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..rounds.rare {
        floor.push(floors::bare_echoes(FORKS)?);
        let available = floors::available_mb()?;
        let begun = Instant::now();
        let boxes = start_all(world, snapshot, 0..FORKS).await?;
        ours.push(begun.elapsed());
        fewest_alive = fewest_alive.min(alive(world).await?);
        taken.push((available - floors::available_mb()?) / FORKS as f64);
        let processes = floors::of_boxes(&world.data())?;
        match floors::pss_mb(&processes) {
            Ok(sum) => shares.push(sum / FORKS as f64),
            Err(error) => figures.missing("idle_rss_mb", error.to_string()),
        }
        let each = processes.len() as f64 / FORKS as f64;
        figures.beside("idle_rss_mb", format!("{each:.1} processes in each of {FORKS} boxes"));
        drop(boxes);
        destroy_all(world).await?;
    }
    figures.middle_of("idle_rss_mb", shares);
    figures.middle_of("idle_available_mb", taken);
    figures.middle("fork100_ms", &ours);
    figures.beside("fork100_ms", format!("{} rounds", ours.len()));
    figures.put("fork100_alive", fewest_alive as f64);
    figures.middle("fork100_floor_ms", &floor);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "some hundred boxes")]
pub async fn at_rest(world: &World, snapshot: &SnapshotRef, quick: bool, figures: &mut Figures) -> Outcome {
    if quick {
        return Err("not in the short form".into());
    }
    let available = floors::available_mb()?;
    let begun = Instant::now();
    let mut boxes = Vec::new();
    let mut stopped = None;
    while boxes.len() < AT_REST {
        if floors::available_mb()? < KEEP_AVAILABLE_MB {
            stopped = Some(format!("no more were started, because less than {KEEP_AVAILABLE_MB} MB were left"));
            break;
        }
        let next = boxes.len()..(boxes.len() + STARTED_AT_ONCE).min(AT_REST);
        match start_all(world, snapshot, next).await {
            Ok(more) => boxes.extend(more),
            Err(error) => {
                stopped = Some(error.to_string());
                break;
            }
        }
    }
    let started = begun.elapsed();
    let begun = Instant::now();
    let mut answered = 0;
    for sandbox in &boxes {
        answered += usize::from(echo(sandbox, "again").await.is_ok());
    }
    let asked = begun.elapsed();
    let count = boxes.len().max(1) as f64;
    figures.put("rest_400", alive(world).await?.min(answered) as f64);
    if let Some(why) = stopped {
        figures.beside("rest_400", why);
    }
    figures.put("rest_400_start_ms", ms(started));
    figures.put("rest_400_answer_ms", ms(asked));
    figures.put("rest_400_available_mb", (available - floors::available_mb()?) / count);
    match floors::pss_mb(&floors::of_boxes(&world.data())?) {
        Ok(sum) => figures.put("rest_400_pss_mb", sum / count),
        Err(error) => figures.missing("rest_400_pss_mb", error.to_string()),
    }
    drop(boxes);
    figures.put("rest_400_destroy_ms", ms(destroy_all(world).await?));
    Ok(())
}
