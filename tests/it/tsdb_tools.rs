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

/// What the log of a Prometheus looks like that took `samples` of one series, each in a record of its own.
fn prometheus_log(samples: &[(i64, f64)]) -> Vec<u8> {
    let record = |body: &[u8]| {
        let len = u16::try_from(body.len()).expect("a short record").to_be_bytes();
        [&[1u8], &len[..], &crc32c::crc32c(body).to_be_bytes(), body].concat()
    };
    // Type, number of the series, number of labels, and each of the two as a text.
    let mut log = record(b"\x01\0\0\0\0\0\0\0\x01\x01\x08__name__\x05moved");
    for (t, v) in samples {
        let number = 1u64.to_be_bytes();
        let at = t.to_be_bytes();
        log.extend(record(&[&[2u8], &number[..], &at, &[0, 0], &v.to_bits().to_be_bytes()].concat()));
    }
    log
}

/// A directory of Prometheus with blocks and a log.
fn prometheus_directory(folder: &Path) {
    std::fs::write(folder.join("history.txt"), HISTORY).expect("written");
    good(folder, &["tsdb", "create-blocks-from", "openmetrics", "-q", "history.txt", "theirs"]);
    std::fs::create_dir(folder.join("theirs/wal")).expect("created");
    let log = prometheus_log(&[(1_700_020_000_000, 1.0), (1_700_020_001_000, 2.0), (1_700_020_002_000, 3.0)]);
    std::fs::write(folder.join("theirs/wal/00000000"), log).expect("written");
}

#[test]
fn an_import_from_a_damaged_directory_of_prometheus_names_what_it_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    prometheus_directory(folder);
    let all = good(folder, &["tsdb", "dump", "theirs"]);
    assert_eq!(all.lines().count(), 6, "{all}");
    good(folder, &["tsdb", "import", "-q", "--storage.tsdb.path=whole", "theirs"]);
    assert_eq!(good(folder, &["tsdb", "dump", "whole"]), all);
    let mut blocks: Vec<_> = std::fs::read_dir(folder.join("theirs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("index").exists())
        .collect();
    blocks.sort();
    let log = std::path::PathBuf::from("theirs/wal/00000000");
    let of = |name: &str| blocks[0].strip_prefix(folder).unwrap().join(name);
    // A file, which byte of it is flipped (none: all are gone), what is told, samples that are left.
    let damages = [
        (log, Some(-40), " at byte 66: ", 5),
        (of("index"), Some(13), "checksum of a section does not match", 4),
        (of("index"), Some(-1), "checksum of the table of contents", 4),
        (of("chunks/000001"), Some(-1), "checksum of a chunk does not match", 4),
        (of("tombstones"), Some(0), "does not begin as tombstones", 4),
        (of("meta.json"), None, "meta.json is damaged at byte 0", 4),
    ];
    for (number, (file, at, told, left)) in damages.into_iter().enumerate() {
        let path = folder.join(&file);
        let sound = std::fs::read(&path).unwrap();
        let mut damaged = if at.is_some() { sound.clone() } else { Vec::new() };
        if let Some(at) = at {
            let at = if at < 0 { damaged.len() - (-at) as usize } else { at as usize };
            damaged[at] ^= 4;
        }
        std::fs::write(&path, damaged).unwrap();
        let to = format!("--storage.tsdb.path=made-{number}");
        let ran = run(folder, &["tsdb", "import", "-q", &to, "theirs"]);
        assert_eq!(ran.code, Some(1), "{file:?}\n{}{}", ran.out, ran.err);
        let place =
            if file.ends_with("chunks/000001") { file.parent().unwrap().parent().unwrap() } else { &file };
        for part in
            [place.to_str().unwrap(), told, "if there is a sound copy, import that too", "tsdb verify"]
        {
            assert!(ran.err.contains(part), "{file:?} lacks {part:?}:\n{}", ran.err);
        }
        let kept = good(folder, &["tsdb", "dump", &format!("made-{number}")]);
        assert_eq!(kept.lines().count(), left, "{file:?}\n{kept}");
        assert!(kept.lines().all(|line| all.contains(line)), "{file:?}\n{kept}");
        bad(folder, &["tsdb", "verify", "theirs"], told);
        bad(folder, &["tsdb", "dump", "theirs"], told);
        std::fs::write(&path, sound).unwrap();
    }
    // A last write that was cut off is what every kill leaves behind.
    let path = folder.join("theirs/wal/00000000");
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend([1, 0, 40]);
    std::fs::write(&path, &torn).unwrap();
    assert!(
        good(folder, &["tsdb", "verify", "theirs"]).contains("note: theirs/wal/00000000: the last write")
    );
    good(folder, &["tsdb", "import", "-q", "--storage.tsdb.path=torn", "theirs"]);
    // And a directory of which nothing can be read is not an empty one.
    std::fs::create_dir_all(folder.join("lost/wal")).unwrap();
    torn.truncate(100);
    torn[5] ^= 1;
    std::fs::write(folder.join("lost/wal/00000000"), &torn).unwrap();
    bad(folder, &["tsdb", "import", "--storage.tsdb.path=none", "lost"], "have no samples that can be read");
}

#[test]
fn whoever_reads_may_go_away_and_a_full_disk_is_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::write(folder.join("history.txt"), HISTORY).expect("written");
    good(folder, &["tsdb", "import", "-q", "history.txt"]);
    let start = |arguments: &[&str], out: Stdio, err: Stdio| {
        let mut command = binary();
        command.current_dir(folder).args(arguments).stdin(Stdio::null()).stdout(out).stderr(err);
        command.output().expect("it runs")
    };
    // A pipe that nobody reads.
    let closed = || Stdio::from(std::io::pipe().expect("a pipe").1);
    std::fs::write(folder.join("prometheus.yml"), "global: {}\n").expect("written");
    let commands: [&[&str]; 10] = [
        &["tsdb", "list"],
        &["tsdb", "analyze"],
        &["tsdb", "verify"],
        &["tsdb", "dump"],
        &["tsdb", "dump-openmetrics"],
        &["check", "config", "prometheus.yml"],
        &["promtool", "promql", "format", "--experimental", "1+1"],
        &["tsdb", "export", "-o", "out"],
        &["tsdb", "import", "--storage.tsdb.path=again", "history.txt"],
        &["tsdb", "bench", "write", "--metrics=10", "--scrapes=10"],
    ];
    for arguments in commands {
        let output = start(arguments, closed(), Stdio::piped());
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*err), (Some(0), ""), "{arguments:?}");
    }
    for arguments in [&["tsdb", "list", "missing"][..], &["tsdb", "import", "missing"]] {
        assert_eq!(start(arguments, closed(), closed()).status.code(), Some(1), "{arguments:?}");
    }
    for arguments in &commands[..7] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("the device opens");
        let output = start(arguments, full.into(), Stdio::piped());
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {err}");
        assert!(err.contains("No space left on device") && !err.contains("panicked"), "{arguments:?}: {err}");
    }
}

#[test]
fn text_comes_from_pipes_too_and_from_no_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut child = binary()
        .current_dir(folder)
        .args(["tsdb", "import", "-q", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), HISTORY.as_bytes()).expect("it reads");
    assert!(child.wait().unwrap().success());
    assert_eq!(good(folder, &["tsdb", "dump"]).lines().count(), 3);
    let names = std::fs::read_dir(folder.join("data")).unwrap().map(|e| e.unwrap().file_name().len());
    assert_eq!(names.collect::<Vec<_>>(), [26, 26], "two blocks and nothing else");
    bad(folder, &["tsdb", "import", "/dev/zero"], "/dev/zero: is neither a file nor a pipe nor a directory");
}

#[test]
fn what_must_not_be_read_is_not_taken_for_empty() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    prometheus_directory(folder);
    let forbid = |path: &str, mode: u32| {
        std::fs::set_permissions(folder.join(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    forbid("theirs/wal", 0);
    if std::fs::read_dir(folder.join("theirs/wal")).is_ok() {
        eprintln!("skipped: this user may read everything");
        forbid("theirs/wal", 0o755);
        return;
    }
    for command in ["analyze", "verify", "dump", "dump-openmetrics"] {
        bad(folder, &["tsdb", command, "theirs"], "list theirs/wal: Permission denied");
    }
    bad(folder, &["tsdb", "import", "theirs"], "list theirs/wal: Permission denied");
    forbid("theirs/wal", 0o755);
    forbid("theirs", 0);
    let told = "theirs: Permission denied (os error 13): run this as the user that the server runs as";
    for command in ["list", "analyze", "verify", "dump"] {
        bad(folder, &["tsdb", command, "theirs"], told);
    }
    forbid("theirs", 0o755);
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
