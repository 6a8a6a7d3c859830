//! The demo, as somebody who has just arrived runs it.

mod product;

use std::path::{Path, PathBuf};

use product::Product;
use serde_json::Value;

/// The sample repository that the demo left in this folder.
fn sample(folder: &Path) -> PathBuf {
    let mut left: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("chargehand-demo-"))
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let root = left.remove(0);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "only the sample stays");
    root.join("duration")
}

#[test]
fn the_demo_reports_one_document_and_what_it_landed_is_there() {
    let product = Product::new();
    let output = product.command(&["demo", "--json"]).env("TMPDIR", product.home.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), 1, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["outcome"], "done");
    let landed = report["landed_sha"].as_str().unwrap();
    assert_eq!(testkit::git_in(&sample(product.home.path()), &["rev-parse", "main"]), landed);
    let runs = report["evidence"].as_array().unwrap();
    assert_eq!(runs.first().unwrap()["passed"], false, "the gate does not believe the agent: {text}");
    let proved = runs.iter().filter(|run| run["commit"] == landed && run["passed"] == true).count();
    assert!(proved > 0 && report["gates_passed"] == proved, "{text}");
    for run in runs {
        assert!(run["gate"].is_string() && run["duration_ms"].is_u64(), "{run}");
        assert_eq!(run["output_digest"].as_str().unwrap().len(), 64, "{run}");
    }
    assert!(report["turns"].as_u64().unwrap() > 1, "{text}");
    let (first, total) = (&report["accepted_to_first_request_ms"], &report["total_ms"]);
    assert!(first.as_f64().unwrap() < total.as_f64().unwrap(), "{text}");
}

#[test]
fn the_demos_page_says_what_is_replayed_and_what_is_real() {
    let product = Product::new();
    let output = product.command(&["demo"]).env("TMPDIR", product.home.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the replay of a built-in conversation"), "{text}");
    assert!(words.contains("the rest is real"), "{text}");
    assert!(text.contains("Landed ") && text.contains("What next"), "{text}");
    assert!(text.contains(&sample(product.home.path()).display().to_string()), "it says where to look: {text}");
}
