//! What Grafana and its kin ask, replayed: each call of `testdata/grafana/requests.txt` against Meerkat, and against a
//! real Prometheus where one is at hand.

use super::against_prometheus::dataset;
use super::remote_messages::{WriteRequest, packed, series};
use super::server::{Answer, Server};
use super::world::{Exporter, PATIENCE, remote_write, request, start_prometheus, until, with_parameters};

struct Case {
    method: String,
    path: String,
    form: Option<String>,
    status: u16,
    wishes: Vec<String>,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/grafana/requests.txt");
    let text = std::fs::read_to_string(path).expect("the requests are there");
    let mut out: Vec<Case> = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with("# ") && *l != "#") {
        if let Some(rest) = line.strip_prefix("> ") {
            let (request, form) = rest.split_once(" | ").map_or((rest, None), |(r, f)| (r, Some(f)));
            let (method, path) = request.split_once(' ').expect("a method");
            out.push(Case {
                method: method.into(),
                path: path.into(),
                form: form.map(str::to_owned),
                status: 0,
                wishes: Vec::new(),
            });
        } else {
            let case = out.last_mut().expect("a request comes first");
            match line.strip_prefix("< ") {
                Some(status) => case.status = status.parse().expect("a status"),
                None => case.wishes.push(line.to_owned()),
            }
        }
    }
    out
}

fn is_kind(value: &serde_json::Value, kind: &str) -> bool {
    match kind {
        "text" => value.is_string(),
        "number" => value.is_number(),
        "whole" => value.is_u64(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no kind {other}"),
    }
}

/// What is wrong with an answer.
fn complaint(answer: &Answer, wish: &str) -> Option<String> {
    let json = || serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default();
    if let Some(header) = wish.strip_prefix("@ ") {
        let (name, value) = header.split_once(": ").expect("a header");
        return (answer.header(name) != Some(value)).then(|| format!("{name} is {:?}", answer.header(name)));
    }
    if wish.starts_with('"') {
        let texts: Vec<String> = serde_json::Deserializer::from_str(wish)
            .into_iter::<String>()
            .map(|text| text.expect("texts in quotation marks"))
            .collect();
        let body = answer.text();
        let mut rest = body.as_str();
        for text in texts {
            match rest.split_once(&text) {
                Some((_, after)) => rest = after,
                None => return Some(format!("{text:?} is missing in its place")),
            }
        }
        return None;
    }
    if let Some(place) = wish.strip_prefix("- ") {
        return json().pointer(place).map(|value| format!("{place} is there: {value}"));
    }
    let (place, rest) = wish.split_once(' ').expect("a wish");
    let json = json();
    let Some(value) = json.pointer(place) else { return Some(format!("nothing at {place}")) };
    let (what, want) = rest.split_once(' ').expect("a wish");
    let good = match what {
        "=" => *value == serde_json::from_str::<serde_json::Value>(want).expect("JSON"),
        ":" => is_kind(value, want),
        "#" => value.as_array().is_some_and(|list| list.len().to_string() == want),
        other => panic!("no wish {other}"),
    };
    (!good).then(|| format!("{wish}: got {value}"))
}

fn replay(address: &str) -> Vec<String> {
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let mut failures = Vec::new();
    for case in cases() {
        let body = case.form.as_deref().unwrap_or("");
        let headers: &[(&str, &str)] = if case.form.is_some() { &[form] } else { &[] };
        let answer = request(address, &case.method, &case.path, headers, body.as_bytes()).expect("an answer");
        let mut wrong: Vec<String> = case.wishes.iter().filter_map(|wish| complaint(&answer, wish)).collect();
        if answer.status != case.status {
            wrong.push(format!("status {}", answer.status));
        }
        if !wrong.is_empty() {
            let text: String = answer.text().chars().take(300).collect();
            failures.push(format!(
                "{} {} | {body}\n  {}\n  {text}",
                case.method,
                case.path,
                wrong.join("\n  ")
            ));
        }
    }
    failures
}

fn fill(address: &str) {
    let mut all = dataset().timeseries;
    all.push(series(&[("__name__", "utf8"), ("dotted.label", "x y")], &[(1_700_000_640_000, 1.0)]));
    for part in all.chunks(8) {
        let message = packed(&WriteRequest { timeseries: part.to_vec(), metadata: Vec::new() });
        assert_eq!(remote_write(address, &message).expect("an answer").status, 204);
    }
}

#[test]
fn every_call_is_answered_as_expected() {
    let server = Server::start("global: {}\n", &["--web.enable-remote-write-receiver"]);
    assert!(cases().len() > 40);
    fill(&server.address);
    let failures = replay(&server.address);
    assert!(failures.is_empty(), "{} calls:\n{}", failures.len(), failures.join("\n"));
    if let Some((_guard, peer)) = start_prometheus(server.path(), "global: {}\n") {
        fill(&peer);
        let failures = replay(&peer);
        assert!(
            failures.is_empty(),
            "{} calls of Prometheus itself:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
}

/// The values of a range query by series and time.
fn points(server: &Server, query: &str, start: i64, end: i64, step: i64) -> Vec<(String, i64, String)> {
    let parameters = [
        ("query", query),
        ("start", &start.to_string()),
        ("end", &end.to_string()),
        ("step", &step.to_string()),
    ];
    let json = server.get(&with_parameters("/api/v1/query_range", &parameters)).json();
    let mut out = Vec::new();
    for row in json["data"]["result"].as_array().expect("a matrix") {
        for point in row["values"].as_array().into_iter().flatten() {
            let t = point[0].as_i64().expect("whole seconds");
            out.push((row["metric"].to_string(), t, point[1].to_string()));
        }
    }
    out
}

#[test]
fn overlaps_of_incremental_queries_fit() {
    let server = Server::start("global: {}\n", &["--web.enable-remote-write-receiver"]);
    fill(&server.address);
    for query in
        ["temperature", "rate(requests_total[1m])", "sum by (job) (temperature)", "topk(2, temperature)"]
    {
        let first = points(&server, query, 1_700_000_040, 1_700_001_840, 30);
        let second = points(&server, query, 1_700_001_240, 1_700_002_440, 30);
        let overlap = |all: &[(String, i64, String)]| {
            let inside = all.iter().filter(|(_, t, _)| (1_700_001_240..=1_700_001_840).contains(t));
            let mut inside: Vec<_> = inside.cloned().collect();
            inside.sort();
            inside
        };
        assert!(!overlap(&first).is_empty(), "{query}");
        assert_eq!(overlap(&first), overlap(&second), "{query}");
    }
}

#[test]
fn exemplars_and_compression() {
    let exporter = Exporter::start(|stream, _| {
        let body = "# TYPE h histogram\nh_bucket{le=\"1.0\"} 3 # {trace_id=\"abc\"} 0.5\nh_bucket{le=\"+Inf\"} 4\nh_count 4\nh_sum 3.0\n# EOF\n";
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // A client that leaves is no fault.
        let _ = std::io::Write::write_all(stream, head.as_bytes());
    });
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: e, static_configs: [{{targets: ['{}']}}]}}]\n",
        exporter.address
    );
    let server = Server::start(&config, &["--enable-feature=exemplar-storage"]);
    until("an exemplar is stored", PATIENCE, || {
        let answer =
            server.get("/api/v1/query_exemplars?query=rate(h_bucket%5B1m%5D)&start=0&end=9999999999").json();
        let found = &answer["data"][0]["exemplars"][0];
        let good =
            found["labels"]["trace_id"] == "abc" && found["value"] == "0.5" && found["timestamp"].is_number();
        if good { Ok(()) } else { Err(answer.to_string()) }
    });
    // gzip where it is offered, whatever else is; the length is that of what is sent.
    for offer in ["gzip", "gzip, deflate, br, zstd", "deflate;q=0.2, gzip;q=0.5, zstd"] {
        let answer = server.send("GET", "/metrics", &[("Accept-Encoding", offer)], b"");
        assert_eq!(answer.header("Content-Encoding"), Some("gzip"), "{offer}");
        let plain = std::io::read_to_string(flate2::read::GzDecoder::new(&answer.body[..])).expect("gzip");
        assert!(plain.contains("prometheus_build_info"));
    }
    for offer in ["zstd", "br", "identity", "gzip;q=0"] {
        let answer = server.send("GET", "/metrics", &[("Accept-Encoding", offer)], b"");
        assert_eq!(answer.header("Content-Encoding"), None, "{offer}");
    }
}
