//! Runs PromQL scripts: the conformance pack beside the repository, and our own in `testdata/promql/`.
//!
//! `script` reads the language, `nhcb` makes custom-bucket histograms out of classic ones, `compare` judges
//! values, `run` evaluates. An evaluation is also run as a range query and with every selector pinned by `@`, as
//! the pack's description demands.

mod compare;
mod nhcb;
mod run;
mod script;

use std::fs;
use std::path::{Path, PathBuf};

/// Runs all scripts of a folder; answers `file:line` of what failed, with the reasons, and the number of
/// evaluations.
fn run_folder(dir: &Path) -> (Vec<(String, String)>, usize) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "test"))
        .collect();
    paths.sort();
    let (mut failures, mut total) = (Vec::new(), 0);
    for path in paths {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("?").to_owned();
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let script = script::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let outcome = run::run(&script);
        println!(
            "{name}: {} of {} evaluations passed",
            outcome.total - outcome.failures.len(),
            outcome.total
        );
        total += outcome.total;
        failures
            .extend(outcome.failures.into_iter().map(|(line, reason)| (format!("{name}:{line}"), reason)));
    }
    (failures, total)
}

fn report(failures: &[(String, String)]) -> String {
    failures.iter().map(|(place, reason)| format!("{place}: {reason}\n")).collect()
}

#[test]
fn conformance_scripts_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("../shared/conformance/promqltest");
    if !dir.exists() {
        eprintln!("skipped: ../shared/conformance/promqltest is missing");
        return;
    }
    let (failures, total) = run_folder(&dir);
    assert!(total > 2_000, "only {total} evaluations found");
    println!("{} of {total} evaluations passed", total - failures.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), report(&failures));
}

#[test]
fn own_scripts_use_every_function_aggregation_and_operator() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/promql");
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let scripts: String = files
        .filter(|p| p.extension().is_some_and(|e| e == "test"))
        .map(|p| fs::read_to_string(p).unwrap())
        .collect();
    let evaluations: String =
        scripts.lines().filter(|l| l.starts_with("eval")).map(|l| format!("{l}\n")).collect();
    let is_used = |word: &str| {
        evaluations.match_indices(word).any(|(at, _)| {
            let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            edge(evaluations[..at].chars().next_back()) && edge(evaluations[at + word.len()..].chars().next())
        })
    };
    let functions = meerkat::query::parse::functions::FUNCTIONS.iter().map(|f| f.name);
    let others = [
        "sum",
        "avg",
        "min",
        "max",
        "count",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "quantile",
        "count_values",
        "limitk",
        "limit_ratio",
        "and",
        "or",
        "unless",
        "atan2",
        "bool",
        "on",
        "ignoring",
        "by",
        "without",
        "group_left",
        "group_right",
        "fill",
        "fill_left",
        "fill_right",
        "offset",
        "anchored",
        "smoothed",
    ];
    let missing: Vec<&str> = functions.chain(others).filter(|word| !is_used(word)).collect();
    assert!(missing.is_empty(), "no script uses {missing:?}");
    for operator in ["+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "</", ">/", "@"] {
        assert!(evaluations.contains(&format!(" {operator} ")), "no script uses {operator}");
    }
}

#[test]
fn own_scripts_pass() {
    let (failures, total) = run_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/promql"));
    assert!(total > 0, "no scripts found");
    assert!(failures.is_empty(), "{}", report(&failures));
}
