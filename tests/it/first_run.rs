//! The first minute of somebody who starts the binary in an empty folder and opens a browser.

use std::time::Duration;

use super::server::{Answer, binary};
use super::world::{Guarded, instant, request, start_listening, until};

fn get(address: &str, path: &str, encoding: &str) -> Answer {
    request(address, "GET", path, &[("Accept-Encoding", encoding)], b"").expect("an answer")
}

fn start(folder: &std::path::Path) -> (Guarded, String) {
    let mut command = binary();
    command.current_dir(folder).arg("--web.listen-address=127.0.0.1:0");
    start_listening(&mut command).expect("the binary starts")
}

#[test]
fn without_a_configuration_it_scrapes_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, address) = start(folder.path());
    until("up is there", Duration::from_secs(20), || {
        let up = instant(&address, "up")?;
        match up.first() {
            Some(up) if up["value"][1] == "1" => Ok(()),
            _ => Err(format!("{up:?}")),
        }
    });
    let own = instant(&address, "prometheus_build_info").expect("an answer");
    assert_eq!(own.len(), 1, "it finds its own metrics");
    let targets = get(&address, "/api/v1/targets", "");
    assert_eq!(targets.json()["data"]["activeTargets"].as_array().map(Vec::len), Some(1));
    assert!(folder.path().join("data").is_dir(), "data is below the working directory");
}

#[test]
fn the_banner_names_the_address() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = binary();
    command.current_dir(folder.path()).arg("--web.listen-address=127.0.0.1:0");
    let child = command.stderr(std::process::Stdio::piped()).spawn().expect("the binary starts");
    let mut child = Guarded(child);
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let listening = lines.find(|l| l.contains("Listening on")).expect("it says where it listens");
    let address = listening.rsplit_once("address=").expect("an address").1;
    let opened = lines.find(|l| l.trim_start().starts_with("Open")).expect("a banner");
    assert!(opened.ends_with(&format!("http://{address}/")), "{opened}");
}

#[test]
fn the_user_interface_is_served_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, address) = start(folder.path());
    let page = get(&address, "/", "");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a content security policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let html = page.text();
    if html.contains("built without its user interface") {
        eprintln!("skipped: this binary has no user interface");
        return;
    }
    assert!(!html.contains("http://") && !html.contains("https://"), "nothing comes from elsewhere: {html}");
    let assets: Vec<&str> = html
        .split('"')
        .filter_map(|part| part.strip_prefix("./").or_else(|| part.strip_prefix('/')))
        .filter(|part| part.starts_with("assets/"))
        .collect();
    assert!(assets.iter().any(|a| a.ends_with(".js")), "a script: {html}");
    for asset in assets {
        let path = format!("/{asset}");
        let plain = get(&address, &path, "identity");
        assert_eq!(plain.status, 200, "{path}");
        assert!(plain.header("content-encoding").is_none(), "{path}");
        let wanted = match asset.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("{path}: no expectation about .{other}"),
        };
        assert_eq!(plain.header("content-type"), Some(wanted), "{path}");
        assert!(plain.header("cache-control").is_some_and(|c| c.contains("immutable")), "{path}");
        if plain.body.len() < 2048 {
            continue;
        }
        let gzip = get(&address, &path, "gzip");
        assert_eq!(gzip.header("content-encoding"), Some("gzip"), "{path}");
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(gzip.body.as_slice()), &mut unpacked)
            .expect("gzip is readable");
        assert_eq!(unpacked, plain.body, "{path}");
        let br = get(&address, &path, "gzip, deflate, br");
        assert_eq!(br.header("content-encoding"), Some("br"), "{path}");
        assert!(br.body.len() < plain.body.len(), "{path}");
    }
    for page in ["/query", "/targets", "/alerts", "/rules", "/status", "/config", "/tsdb-status"] {
        let answer = get(&address, page, "");
        assert_eq!((answer.status, answer.text()), (200, html.clone()), "{page}");
    }
    assert_eq!(get(&address, "/assets/nothing.js", "").status, 404);
    for (careless, clean) in [("/../Cargo.toml", "/Cargo.toml"), ("/assets/../../etc/passwd", "/etc/passwd")]
    {
        let answer = get(&address, careless, "");
        assert_eq!((answer.status, answer.header("location")), (301, Some(clean)), "{careless}");
        assert_eq!(get(&address, clean, "").status, 404, "{clean}");
    }
}
