//! What is asked of storage over HTTP beside samples: deletions, cleaning, snapshots; and how late samples may come.

use super::remote_messages::{WriteRequest, packed, series};
use super::server::{Server, binary};
use super::world::{remote_write, request, scalar, with_parameters};

const DAY_MS: i64 = 86_400_000;

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Writes one sample; the status of the answer and its text.
fn write(server: &Server, name: &str, i: &str, t_ms: i64, value: f64) -> (u16, String) {
    let timeseries = vec![series(&[("__name__", name), ("i", i)], &[(t_ms, value)])];
    let message = packed(&WriteRequest { timeseries, metadata: Vec::new() });
    let answer = remote_write(&server.address, &message).expect("an answer");
    (answer.status, answer.text())
}

/// What is in a directory, as `tsdb dump` says.
fn dumped(folder: &std::path::Path, path: &str, selector: &str) -> String {
    let arguments = ["tsdb", "dump", "--match", selector, path];
    let output = binary().current_dir(folder).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn deletions_count_at_once_and_snapshots_are_directories_of_their_own() {
    let flags = ["--web.enable-admin-api", "--web.enable-remote-write-receiver"];
    let server = Server::start("global: {}\n", &flags);
    let t = now_ms() - 10_000;
    for i in ["a", "b"] {
        for step in 0..5 {
            assert_eq!(write(&server, "m", i, t + step * 1000, step as f64).0, 204);
        }
    }
    let post = |path: &str, parameters: &[(&str, &str)]| {
        let path = with_parameters(&format!("/api/v1/admin/tsdb/{path}"), parameters);
        request(&server.address, "POST", &path, &[], b"").expect("an answer")
    };
    let snapshot = |head: &str| {
        let answer = post("snapshot", &[("skip_head", head)]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let name = answer.json()["data"]["name"].as_str().expect("a name").to_owned();
        format!("data/snapshots/{name}")
    };
    let all = count(&server);
    assert_eq!(all, 10.0);
    let before = snapshot("false");
    let seconds = |ms: i64| format!("{:.3}", ms as f64 / 1000.0);
    let (start, end) = (seconds(t + 1000), seconds(t + 3000));
    let delete = post("delete_series", &[("match[]", "m{i=\"a\"}"), ("start", &start), ("end", &end)]);
    assert_eq!(delete.status, 204, "{}", delete.text());
    assert_eq!(count(&server), 7.0);
    assert_eq!(post("clean_tombstones", &[]).status, 204);
    assert_eq!(count(&server), 7.0);
    assert_eq!(post("delete_series", &[]).status, 400, "everything is not deleted by accident");
    let after = snapshot("false");
    let folder = server.folder.path();
    assert_eq!(dumped(folder, &before, "m").lines().count(), 10, "a snapshot stays as it was");
    assert_eq!(dumped(folder, &after, "m").lines().count(), 7);
    // It serves as a data directory.
    let copy = tempfile::tempdir().expect("a folder");
    std::fs::rename(folder.join(&before), copy.path().join("data")).expect("the same file system");
    std::fs::write(copy.path().join("prometheus.yml"), "global: {}\n").expect("written");
    assert_eq!(count(&Server::start_in(copy, &flags)), 10.0);
}

fn count(server: &Server) -> f64 {
    scalar(&server.address, "sum(count_over_time(m[1h]))").expect("a number")
}

#[test]
fn samples_of_any_age_are_taken_where_that_is_configured() {
    let flags = ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
    let ages = [DAY_MS / 24, DAY_MS, 30 * DAY_MS, 3650 * DAY_MS, 40 * 365 * DAY_MS];
    let now = now_ms();
    let config = |window: &str| format!("storage: {{tsdb: {{out_of_order_time_window: {window}}}}}\n");
    let mut server = Server::start(&config("100y"), &flags);
    assert_eq!(write(&server, "m", "a", now, -1.0).0, 204);
    for (n, age) in ages.into_iter().enumerate() {
        assert_eq!(write(&server, "m", "a", now - age, n as f64), (204, String::new()), "{age}");
    }
    // As queries say it, while they are in the log only, and after a kill.
    for _ in 0..2 {
        let found = scalar(&server.address, "sum(count_over_time(m[60y]))").expect("a number");
        assert_eq!(found, 6.0);
        for (n, age) in ages.into_iter().enumerate() {
            let query = format!("m @ {:.3}", (now - age) as f64 / 1000.0);
            assert_eq!(scalar(&server.address, &query).expect("a number"), n as f64, "{age}");
        }
        server.signal("KILL");
        server.wait();
        let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
        server = Server::start_in(folder, &flags);
    }
    // A window refuses what is older, and tells so.
    let server = Server::start(&config("1h"), &flags);
    assert_eq!(write(&server, "m", "a", now, -1.0).0, 204);
    assert_eq!(write(&server, "m", "a", now - DAY_MS / 48, 1.0).0, 204);
    let (status, text) = write(&server, "m", "a", now - DAY_MS, 2.0);
    assert!(status == 400 && text.contains("too old sample"), "{status} {text}");
}
