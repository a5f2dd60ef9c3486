//! `meerkat tsdb …` as the real binary, on the directory of a server that runs.

use std::path::Path;
use std::process::{Output, Stdio};

use super::remote_messages::{WriteRequest, packed, series};
use super::server::{Server, binary};
use super::world::{PATIENCE, remote_write, scalar, until, with_parameters};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(folder: &Path, arguments: &[&str]) -> Ran {
    let output: Output =
        binary().current_dir(folder).args(arguments).stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[track_caller]
fn good(folder: &Path, arguments: &[&str]) -> String {
    let ran = run(folder, arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}\n{}\n{}", ran.out, ran.err);
    ran.out
}

#[track_caller]
fn bad(folder: &Path, arguments: &[&str], part: &str) {
    let ran = run(folder, arguments);
    assert_eq!(ran.code, Some(1), "{arguments:?}\n{}\n{}", ran.out, ran.err);
    let all = format!("{}{}", ran.out, ran.err);
    assert!(all.contains(part), "{arguments:?} lacks {part:?}:\n{all}");
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

const HISTORY: &str = "# TYPE old counter\n\
    old_total{a=\"1\"} 1 1700000000.000\nold_total{a=\"1\"} 2.5 1700000060.500\n\
    old_total{a=\"2\"} 7 1700010000.000\n# EOF\n";

/// A server with two series of a few samples in its log.
fn server(flags: &[&str]) -> (Server, i64) {
    let flags = [&["--web.enable-remote-write-receiver"], flags].concat();
    let server = Server::start("global: {}\n", &flags);
    let t = now_ms() / 1000 * 1000 - 60_000;
    let samples: Vec<(i64, f64)> = (0..4).map(|i| (t + i * 1000, i as f64 / 2.0)).collect();
    let timeseries = ["x", "y"].map(|i| series(&[("__name__", "live"), ("i", i)], &samples)).to_vec();
    let message = packed(&WriteRequest { timeseries, metadata: Vec::new() });
    let answer = remote_write(&server.address, &message).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
    (server, t)
}

#[test]
fn a_running_directory_is_listed_dumped_analyzed_and_verified() {
    let (server, t) = server(&[]);
    let folder = server.folder.path();
    let dumped = good(folder, &["tsdb", "dump", "--match", "{__name__=\"live\",i=\"x\"}"]);
    let lines: Vec<String> = [(0, "0"), (1, "0.5"), (2, "1"), (3, "1.5")]
        .iter()
        .map(|(n, v)| format!("{{__name__=\"live\", i=\"x\"}} {v} {}", t + n * 1000))
        .collect();
    assert_eq!(dumped.lines().collect::<Vec<_>>(), lines);
    let (from, to) = (format!("--min-time={}", t + 1000), format!("--max-time={}", t + 2000));
    assert_eq!(good(folder, &["promtool", "tsdb", "dump", &from, &to, "--match=live"]).lines().count(), 4);
    let text = good(folder, &["tsdb", "dump-openmetrics", &from, "--match={i=\"y\"}"]);
    let first = format!("live{{i=\"y\"}} 0.5 {:.3}\n", (t + 1000) as f64 / 1000.0);
    assert!(text.starts_with(&first) && text.ends_with("# EOF\n"), "{text}");
    let json = good(folder, &["tsdb", "dump", "--format=seriesjson", "--match=live"]);
    assert_eq!(json, "{\"__name__\":\"live\",\"i\":\"x\"}\n{\"__name__\":\"live\",\"i\":\"y\"}\n");
    let analysis = good(folder, &["tsdb", "analyze"]);
    for part in ["Block ID: head", "Highest cardinality metric names:", "\n2 live\n", "Label names: "] {
        assert!(analysis.contains(part), "{part:?} is missing:\n{analysis}");
    }
    assert!(good(folder, &["tsdb", "verify"]).contains("SUCCESS: data/: "));
    bad(folder, &["tsdb", "dump", "--min-time=soon"], "--min-time: \"soon\" is neither");
    bad(folder, &["tsdb", "dump", "--match={"], "--match \"{\"");
    bad(folder, &["tsdb", "dump", "nowhere"], "nowhere");
    bad(folder, &["tsdb", "analyze", "data", "01J00000000000000000000000"], "not found");
}

#[test]
fn history_comes_into_a_running_server_and_goes_out_again() {
    let (server, _) = server(&["--storage.tsdb.min-block-duration=2m", "--storage.tsdb.retention.time=100y"]);
    let folder = server.folder.path();
    std::fs::write(folder.join("history.txt"), HISTORY).expect("the file is written");
    let listed =
        good(folder, &["tsdb", "import", "--storage.tsdb.path=data", "--label=site=a", "history.txt"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert_eq!(good(folder, &["tsdb", "list", "data"]), listed);
    let block = listed.lines().nth(1).and_then(|l| l.split(' ').next()).expect("a block").to_owned();
    let analysis = good(folder, &["tsdb", "analyze", "data", &block]);
    for part in ["Total Series: 1", "Label names: 3", "1 site=a", "Encodings", "bytes per sample"] {
        assert!(analysis.contains(part), "{part:?} is missing:\n{analysis}");
    }
    // The server looks for new blocks at each 120th part of the shortest block.
    let query = "sum(max_over_time(old_total{site=\"a\"}[1m] @ 1700000060.5)) + sum(old_total @ 1700010000)";
    until("the imported blocks are shown", PATIENCE, || match scalar(&server.address, query) {
        Ok(v) if (v - 9.5).abs() < 1e-9 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for (format, to) in [("prometheus", "out"), ("native", "native")] {
        let format = format!("--format={format}");
        let listed = good(folder, &["tsdb", "export", &format, "--output", to, "data"]);
        assert!(listed.lines().count() >= 4, "{listed}");
        assert!(good(folder, &["tsdb", "verify", to]).contains("SUCCESS"));
        let both = [good(folder, &["tsdb", "dump", "data"]), good(folder, &["tsdb", "dump", to])];
        assert!(both[0].contains("old_total") && both[0].contains("live"), "{}", both[0]);
        // The server goes on writing about itself: what was there is still there.
        assert!(both[1].lines().all(|line| both[0].contains(line)), "{format}");
    }
    bad(folder, &["tsdb", "export", "--output", "out", "data"], "out is not empty");
    let text =
        ["tsdb", "export", "--format=openmetrics", "--output", "again.txt", "--match=old_total", "data"];
    good(folder, &text);
    good(folder, &["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", "again.txt", "made"]);
    assert_eq!(
        good(folder, &["tsdb", "dump", "made"]),
        good(folder, &["tsdb", "dump", "--match=old_total", "data"])
    );
    good(folder, &["tsdb", "import", "--storage.tsdb.path=other", "out", "made"]);
    assert_eq!(good(folder, &["tsdb", "dump", "other"]), good(folder, &["tsdb", "dump", "out"]));
}

#[test]
fn faults_are_named_and_nothing_is_half_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::write(folder.join("history.txt"), HISTORY).expect("written");
    std::fs::write(folder.join("cut.txt"), &HISTORY[..HISTORY.len() - 6]).expect("written");
    std::fs::write(folder.join("untimed.txt"), "m 1\n# EOF\n").expect("written");
    bad(folder, &["tsdb", "import", "history.txt", "cut.txt"], "cut.txt: ");
    bad(
        folder,
        &["tsdb", "import", "history.txt", "untimed.txt"],
        "expected timestamp for series m, got none",
    );
    bad(folder, &["tsdb", "import", "history.txt", "missing.txt"], "missing.txt: cannot be read");
    assert_eq!(std::fs::read_dir(folder.join("data")).expect("it was created").count(), 0, "all or nothing");
    good(folder, &["tsdb", "import", "-q", "history.txt"]);
    let block = std::fs::read_dir(folder.join("data")).unwrap().next().unwrap().unwrap().path();
    let file = block.join("block.mkt");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    bad(folder, &["tsdb", "verify", "data"], "DAMAGED ");
    bad(folder, &["tsdb", "verify", block.to_str().unwrap()], "checksum");
    // Another program's lock.
    std::fs::create_dir(folder.join("foreign")).unwrap();
    let lock = std::fs::File::create(folder.join("foreign/lock")).unwrap();
    lock.lock().unwrap();
    bad(folder, &["tsdb", "import", "--storage.tsdb.path=foreign", "history.txt"], "is locked");
}

#[test]
fn what_can_be_read_of_a_damaged_directory_is_not_called_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::write(folder.join("history.txt"), HISTORY).expect("written");
    good(folder, &["tsdb", "import", "-q", "history.txt"]);
    let mut blocks: Vec<_> =
        std::fs::read_dir(folder.join("data")).unwrap().map(|entry| entry.unwrap().path()).collect();
    blocks.sort();
    let (file, meta) = (blocks[0].join("block.mkt"), blocks[0].join("meta.json"));
    let (sound, described) = (std::fs::read(&file).unwrap(), std::fs::read(&meta).unwrap());
    let kept = "{__name__=\"old_total\", a=\"2\"} 7 1700010000000";
    let mut flipped = sound.clone();
    flipped[20] ^= 1;
    // Bytes of the block, or none; what each command says of it.
    let damages = [
        (Some(sound[..100].to_vec()), "is damaged at byte 100"),
        (Some(Vec::new()), "is damaged at byte 0"),
        (Some(flipped), "byte 16"),
        (None, "block.mkt: No such file"),
    ];
    for (content, told) in damages {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        for command in ["verify", "dump"] {
            bad(folder, &["tsdb", command, "data"], told);
        }
        bad(folder, &["tsdb", "dump", "data"], kept);
        let _ = std::fs::remove_dir_all(folder.join("out"));
        bad(folder, &["tsdb", "export", "--format=native", "-o", "out", "data"], told);
        assert!(good(folder, &["tsdb", "dump", "out"]).contains(kept));
        good(folder, &["tsdb", "verify", "out"]);
    }
    std::fs::write(&file, sound).unwrap();
    // Without its description a block is nothing, but it is named, and the others are listed.
    let other = blocks[1].file_name().unwrap().to_str().unwrap();
    for content in [Some("{"), None] {
        match content {
            Some(content) => std::fs::write(&meta, content).unwrap(),
            None => std::fs::remove_file(&meta).unwrap(),
        }
        for command in ["list", "verify", "dump"] {
            bad(folder, &["tsdb", command, "data"], "meta.json is damaged at byte 0");
        }
        bad(folder, &["tsdb", "list", "data"], other);
    }
    std::fs::write(&meta, described).unwrap();
    good(folder, &["tsdb", "verify", "data"]);
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("empty")).unwrap();
    std::fs::write(folder.join("file"), "x").unwrap();
    let wrong = [
        ("empty", "empty has neither blocks nor a log: name the directory that --storage.tsdb.path names"),
        ("file", "Not a directory"),
        ("missing", "missing: No such file"),
    ];
    for (path, told) in wrong {
        for command in ["list", "analyze", "verify", "dump", "dump-openmetrics"] {
            bad(folder, &["tsdb", command, path], told);
        }
        let output = format!("out-{path}");
        bad(folder, &["tsdb", "export", "-o", &output, path], told);
    }
}

#[test]
fn the_benchmark_prints_figures() {
    let folder = tempfile::tempdir().expect("a folder");
    let printed = good(folder.path(), &["tsdb", "bench", "write", "--metrics=40", "--scrapes=900"]);
    for part in [
        " > total samples: 36000",
        " > samples/sec: ",
        "bytes on disk per sample",
        " > query rate of everything",
    ] {
        assert!(printed.contains(part), "{part:?} is missing:\n{printed}");
    }
    bad(folder.path(), &["tsdb", "bench", "write"], "exists already");
    let help = good(folder.path(), &["tsdb", "bench", "write", "--help"]);
    assert!(help.contains("--scrapes"), "{help}");
}

/// A path for an instant query.
pub fn query_path(query: &str, t_ms: i64) -> String {
    let time = format!("{:.3}", t_ms as f64 / 1000.0);
    with_parameters("/api/v1/query", &[("query", query), ("time", &time)])
}
