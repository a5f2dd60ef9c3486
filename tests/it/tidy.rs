//! Keeps the house in order: arrows between rooms, file lengths, leftover markers, paths in documents.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from top to bottom; a room may use those before it and itself.
const ROOMS: [&str; 11] =
    ["model", "telemetry", "config", "net", "tsdb", "scrape", "query", "alert", "remote", "api", "cli"];

/// Narrower than the order: what each room may use of the rooms above it.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("model", &[]),
    ("telemetry", &["model"]),
    ("config", &["model"]),
    ("net", &["model", "telemetry", "config"]),
    ("tsdb", &["model", "telemetry"]),
    ("scrape", &["model", "telemetry", "config", "net", "tsdb"]),
    ("query", &["model", "telemetry", "tsdb"]),
    ("alert", &["model", "telemetry", "config", "net", "tsdb", "query"]),
    ("remote", &["model", "telemetry", "config", "net", "tsdb"]),
    ("api", &["model", "telemetry", "config", "net", "tsdb", "scrape", "query", "alert", "remote"]),
    ("cli", &["model", "telemetry", "config", "net", "tsdb", "scrape", "query", "alert", "remote", "api"]),
];

/// Longest source file; one concept seldom needs more.
const MAX_LINES: usize = 900;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, ending: &str, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "node_modules" && name != "target" && name != ".git" {
                files_below(&path, ending, out);
            }
        } else if name.to_string_lossy().ends_with(ending) {
            out.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for dir in ["src", "tests", "benches"] {
        files_below(&root().join(dir), ".rs", &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 20, "the sources were not found");
    paths.into_iter().map(|p| (p.clone(), fs::read_to_string(p).expect("sources are UTF-8"))).collect()
}

#[test]
fn rooms_use_only_rooms_above_them() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let inside = path.strip_prefix(root().join("src")).ok();
        let Some(room) = inside.and_then(|p| p.iter().next()).and_then(|r| r.to_str()) else { continue };
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == room) else { continue };
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            for used in code.match_indices("crate::").map(|(at, found)| &code[at + found.len()..]) {
                let used: String =
                    used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if ROOMS.contains(&used.as_str()) && used != room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}:{}: {room} uses {used}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "wrong arrows:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_have_no_leftovers() {
    let markers = ["TO", "FIX", "XX"].map(|m| match m {
        "TO" => "TODO".to_owned(),
        "FIX" => "FIXME".to_owned(),
        _ => "XXX".to_owned(),
    });
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, at most {MAX_LINES}", path.display()));
        }
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let marked =
                markers.iter().any(|m| line.contains(&format!("{m}:")) || line.contains(&format!("{m} ")));
            let ignored = line.trim_start().starts_with("#[ignore");
            if marked || ignored || line.contains("dbg!(") {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_open_with_prose() {
    let without: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(without.is_empty(), "no module documentation:\n{}", without.join("\n"));
}

/// Paths in backquotes that look like files of this repository must exist.
#[test]
fn documents_name_existing_paths() {
    let mut documents = vec!["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .into_iter()
        .map(|d| root().join(d))
        .collect::<Vec<_>>();
    files_below(&root().join("docs"), ".md", &mut documents);
    let mut missing = Vec::new();
    for document in documents {
        let Ok(text) = fs::read_to_string(&document) else {
            missing.push(format!("{} itself", document.display()));
            continue;
        };
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path =
                ["src/", "tests/", "benches/", "docs/", "web/", "testdata/", "scripts/", "examples/"]
                    .iter()
                    .any(|start| quoted.starts_with(start));
            let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && plain && !root().join(quoted).exists() {
                missing.push(format!("{}: {quoted}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "documents name what is not there:\n{}", missing.join("\n"));
}
