//! Queries that try to take a server down, sent to the real binary: each ends in an answer or in an error that says
//! why, memory stays within the limits, and health checks and scraping go on meanwhile.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::remote_messages::{WriteRequest, packed, series};
use super::server::Server;
use super::world::{
    Exporter, PATIENCE, remote_write, request, resident_bytes, scalar, until, with_parameters,
};

const BUCKETS: usize = 20_000;

/// Unix seconds.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs() as i64)
}

/// A server with a target that it scrapes, and one histogram of very many buckets at `t`.
fn server(exporter: &Exporter, t: i64) -> Server {
    let config = format!(
        "scrape_configs:\n- job_name: lives\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{}']}}]\n",
        exporter.address
    );
    let flags =
        ["--web.enable-remote-write-receiver", "--query.max-bytes=64MB", "--query.max-total-bytes=128MB"];
    let server = Server::start(&config, &flags);
    let buckets = (0..BUCKETS).map(|i| {
        let le = if i + 1 == BUCKETS { "+Inf".to_owned() } else { format!("{i}") };
        series(&[("__name__", "wide_bucket"), ("le", &le)], &[(t * 1000, i as f64 + 1.0)])
    });
    let message = packed(&WriteRequest { timeseries: buckets.collect(), metadata: Vec::new() });
    let answer = remote_write(&server.address, &message).expect("the server takes it");
    assert_eq!(answer.status, 204, "{}", answer.text());
    server
}

fn ask(server: &Server, query: &str, t: i64, range: Option<(i64, i64, &str)>) -> (u16, String) {
    let time = t.to_string();
    let mut form = vec![("query", query), ("timeout", "20s")];
    let (start, end);
    let path = match range {
        None => {
            form.push(("time", &time));
            "/api/v1/query"
        }
        Some((from, to, step)) => {
            (start, end) = (from.to_string(), to.to_string());
            form.extend([("start", start.as_str()), ("end", end.as_str()), ("step", step)]);
            "/api/v1/query_range"
        }
    };
    let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let answer = server.post_form(path, &body);
    (answer.status, answer.text())
}

#[test]
fn queries_of_death_do_not_disturb_the_server() {
    let exporter = Exporter::text(|| "alive 1\n".into());
    let t = now();
    let server = server(&exporter, t);
    let address = server.address.clone();
    let before = resident_bytes(&address);
    let done = AtomicBool::new(false);
    let day = Some((t - 43_200, t, "60"));
    let long = "x".repeat(2 << 20);
    let deep = format!("{}1{}", "(".repeat(50_000), ")".repeat(50_000));
    let alternatives = format!("wide_bucket{{le=~\"{}\"}}", vec!["[a-z]+x"; 20_000].join("|"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let answer = request(&address, "GET", "/-/healthy", &[], b"").expect("it answers");
                assert_eq!(answer.status, 200, "{}", answer.text());
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for (query, range, status, says) in [
            (long.as_str(), None, 400, "bytes"),
            (deep.as_str(), None, 400, "levels deep"),
            (alternatives.as_str(), None, 0, ""),
            ("wide_bucket{le=~\"(((a{1000}){1000}){1000})\"}", None, 400, "invalid"),
            ("wide_bucket{le=~\"(x+x+)+y\"}", None, 200, "success"),
            ("histogram_quantile(0.9, wide_bucket)", None, 200, "\"value\""),
            ("histogram_quantile(0.9, wide_bucket)", day, 0, ""),
            ("sum_over_time(wide_bucket[10y:1ms])", None, 422, "too many samples"),
            ("wide_bucket", Some((0, t, "0.001")), 400, "11,000 points"),
            ("count_values(\"v\", wide_bucket)", day, 422, "--query.max-bytes"),
            ("wide_bucket * on () group_left sum(wide_bucket)", None, 200, "success"),
            ("wide_bucket * on () wide_bucket", None, 422, "many-to-many"),
            ("wide_bucket + ignoring (le) group_left wide_bucket", None, 422, "duplicate series"),
            ("topk(1e9, wide_bucket) or wide_bucket", day, 0, ""),
            (
                "label_replace(wide_bucket, \"x\", \"$1$1$1$1$1$1$1$1\", \"le\", \"(.*)(.*)(.*)(.*)\")",
                None,
                200,
                "",
            ),
            (
                "label_join(wide_bucket, \"x\", \"\", \"le\", \"le\", \"le\", \"le\", \"le\", \"le\")",
                None,
                200,
                "",
            ),
            ("wide_bucket @ 1e300", None, 422, "out of bounds"),
            ("sort_desc(wide_bucket)", None, 200, "success"),
        ] {
            let shown: String = query.chars().take(80).collect();
            let (got, text) = ask(&server, query, t, range);
            let start: String = text.chars().take(300).collect();
            let known = [200, 400, 422, 503].contains(&got) && text.starts_with("{\"status\":");
            assert!(known && (status == 0 || got == status), "{shown}: {got} {start}");
            assert!(text.contains(says), "{shown}: {start}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let grown = resident_bytes(&address) - before;
    assert!(grown < f64::from(400 << 20), "{grown} bytes more than before");
    // It is still scraped.
    let count = || scalar(&address, "count_over_time(alive[1h])");
    let seen = until("a scrape", PATIENCE, count);
    until("more scrapes", PATIENCE, || {
        count().and_then(|n| if n > seen { Ok(()) } else { Err(format!("{n}")) })
    });
}

#[test]
fn a_query_stops_when_its_client_leaves() {
    let server = Server::start("global: {}\n", &[]);
    let running = || -> Result<f64, String> {
        let text = request(&server.address, "GET", "/metrics", &[], b"").map_err(|e| e.to_string())?.text();
        let line = text.lines().find_map(|l| l.strip_prefix("prometheus_engine_queries "));
        line.and_then(|v| v.trim().parse().ok()).ok_or_else(|| "no gauge".into())
    };
    // One series, ten thousand windows of 400,000 samples each: minutes of work in one loop.
    let (start, end) = ((now() - 600_000).to_string(), now().to_string());
    let query = ("query", "stddev_over_time(vector(1)[110h:1s])");
    let form = [query, ("start", &start), ("end", &end), ("step", "60"), ("timeout", "10m")];
    let path = with_parameters("/api/v1/query_range", &form);
    let mut client = TcpStream::connect(&server.address).expect("it accepts");
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("it reads");
    until("the query runs", PATIENCE, || match running()? {
        1.0.. => Ok(()),
        n => Err(format!("{n} queries")),
    });
    drop(client);
    until("the query stops", PATIENCE, || match running()? {
        0.0 => Ok(()),
        n => Err(format!("{n} queries")),
    });
}
