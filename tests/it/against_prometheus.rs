//! The same data sent to Meerkat and to Prometheus, and the same questions asked: the answers must be the same text.

use super::remote_messages::{BucketSpan, Histogram, TimeSeries, WriteRequest, packed, series};
use super::server::{Answer, Server};
use super::world::{remote_write, request, start_prometheus, with_parameters};

/// Milliseconds of the first sample.
const BEGIN: i64 = 1_700_000_040_000;
const STEP_MS: i64 = 15_000;
const STEPS: i64 = 240;

/// A small deterministic source of numbers (a linear congruential generator).
fn noise(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

pub fn dataset() -> WriteRequest {
    let mut state = 7;
    let mut timeseries = Vec::new();
    let at = |step: i64| BEGIN + step * STEP_MS;
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    for (job, count) in [("api", 3), ("db", 2)] {
        for instance in 0..count {
            let name = format!("{job}-{instance}:80");
            for code in ["200", "404", "500"] {
                let mut total = 0.0;
                let mut samples = Vec::new();
                for step in 0..STEPS {
                    total += (noise(&mut state) % 50) as f64;
                    // One counter starts again in the middle; another misses scrapes.
                    if code == "404" && step == 100 {
                        total = 0.0;
                    }
                    if !(code == "500" && (40..48).contains(&step)) {
                        samples.push((at(step), total));
                    }
                }
                let labels =
                    [("__name__", "requests_total"), ("code", code), ("instance", &name), ("job", job)];
                timeseries.push(series(&labels, &samples));
            }
            let mut gauge: Vec<(i64, f64)> =
                (0..STEPS).map(|s| (at(s), (noise(&mut state) % 1000) as f64 / 8.0 - 40.0)).collect();
            if instance == 1 {
                gauge.truncate(150);
                gauge.push((at(150), stale));
            }
            let labels = [("__name__", "temperature"), ("instance", name.as_str()), ("job", job)];
            timeseries.push(series(&labels, &gauge));
            timeseries.extend(classic_histogram(&mut state, &name, job));
        }
    }
    let special = [0.1, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, 1e300, 5e-324, 123_456_789.123];
    let specials: Vec<(i64, f64)> =
        (0..STEPS).map(|s| (at(s), special[usize::try_from(s).unwrap_or(0) % special.len()])).collect();
    timeseries.push(series(&[("__name__", "special"), ("q", "a\"b\\c\nd é <&>")], &specials));
    timeseries.push(native_histogram(&mut state));
    WriteRequest { timeseries, metadata: Vec::new() }
}

fn classic_histogram(state: &mut u64, instance: &str, job: &str) -> Vec<TimeSeries> {
    let bounds = ["0.1", "0.5", "1", "2.5", "+Inf"];
    let mut rows = vec![Vec::new(); bounds.len()];
    let mut totals = [0.0; 5];
    for step in 0..STEPS {
        let mut running = 0.0;
        for (bucket, row) in rows.iter_mut().enumerate() {
            running += (noise(state) % 7) as f64;
            totals[bucket] += running;
            row.push((BEGIN + step * STEP_MS, totals[bucket]));
        }
    }
    let labelled = bounds.iter().zip(&rows).map(|(le, row)| {
        series(&[("__name__", "latency_bucket"), ("instance", instance), ("job", job), ("le", le)], row)
    });
    let mut out: Vec<TimeSeries> = labelled.collect();
    let labels = [("__name__", "latency_count"), ("instance", instance), ("job", job)];
    out.push(series(&labels, &rows[bounds.len() - 1]));
    out
}

fn native_histogram(state: &mut u64) -> TimeSeries {
    let mut counts = [0i64; 4];
    let histograms = (0..STEPS).map(|step| {
        for count in &mut counts {
            *count += i64::try_from(noise(state) % 5).unwrap_or(0);
        }
        let deltas = vec![counts[0], counts[1] - counts[0], counts[2] - counts[1], counts[3] - counts[2]];
        Histogram {
            count_int: u64::try_from(counts.iter().sum::<i64>()).unwrap_or(0),
            sum: counts.iter().zip([1.0, 2.0, 4.0, 16.0]).map(|(c, v)| *c as f64 * v).sum(),
            schema: 0,
            zero_threshold: 0.001,
            positive_spans: vec![BucketSpan { offset: 0, length: 3 }, BucketSpan { offset: 1, length: 1 }],
            positive_deltas: deltas,
            timestamp: BEGIN + step * STEP_MS,
            ..Histogram::default()
        }
    });
    let histograms = histograms.collect();
    TimeSeries { histograms, ..series(&[("__name__", "size_bytes"), ("job", "api")], &[]) }
}

pub fn both() -> Option<(Server, super::world::Guarded, String)> {
    let server = Server::start("global: {}\n", &["--web.enable-remote-write-receiver"]);
    let (guard, peer) = start_prometheus(server.path(), "global: {}\n")?;
    // Short messages, in the order of time within each series.
    for part in dataset().timeseries.chunks(8) {
        let message = packed(&WriteRequest { timeseries: part.to_vec(), metadata: Vec::new() });
        for at in [&server.address, &peer] {
            let answer = remote_write(at, &message).expect("an answer");
            assert_eq!(answer.status, 204, "{at}: {}", answer.text());
        }
    }
    Some((server, guard, peer))
}

fn lines(name: &str) -> Vec<String> {
    let path = format!("{}/testdata/peers/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the questions are there");
    let wanted = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    wanted.map(str::to_owned).collect()
}

/// The answer as text, with the series of a result in one order.
fn canonical(answer: &Answer, keep_order: bool) -> String {
    let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(&answer.body) else {
        return format!("{} {}", answer.status, answer.text());
    };
    for place in ["/data/result", "/data"] {
        if let Some(rows) = json.pointer_mut(place).and_then(|v| v.as_array_mut()).filter(|_| !keep_order) {
            // A scalar's time and value have an order.
            if rows.first().is_some_and(|row| row.is_object()) {
                rows.sort_by_cached_key(ToString::to_string);
            }
        }
    }
    format!("{} {json}", answer.status)
}

/// The same with numbers of few digits.
fn rounded(text: &str) -> String {
    let short = |part: &str| match part.parse::<f64>() {
        Ok(number) if part.len() > 12 => format!("{number:.11e}"),
        _ => part.to_owned(),
    };
    text.split('"').map(short).collect::<Vec<_>>().join("\"")
}

/// What differs, shortly.
fn difference(ours: &str, theirs: &str) -> String {
    let same = ours.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| {
        let from = same.saturating_sub(120);
        String::from_utf8_lossy(text.as_bytes().get(from..).unwrap_or_default())
            .chars()
            .take(300)
            .collect::<String>()
    };
    format!("  ours   …{}\n  theirs …{}", part(ours), part(theirs))
}

struct Question {
    path: String,
    keep_order: bool,
    nearly: bool,
}

fn compare(server: &Server, peer: &str, questions: &[Question]) {
    let mut failures = Vec::new();
    for Question { path, keep_order, nearly } in questions {
        let ours = canonical(&server.get(path), *keep_order);
        let theirs = canonical(&request(peer, "GET", path, &[], b"").expect("an answer"), *keep_order);
        let same = if *nearly { rounded(&ours) == rounded(&theirs) } else { ours == theirs };
        if !same {
            failures.push(format!("{path}\n{}", difference(&ours, &theirs)));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        questions.len(),
        failures.join("\n")
    );
}

#[test]
fn queries_give_the_same_text() {
    let Some((server, _guard, peer)) = both() else { return };
    let mut questions = Vec::new();
    for line in lines("queries.txt") {
        let (query, nearly) = line.strip_prefix('~').map_or((line.as_str(), false), |q| (q, true));
        let keep_order =
            query.starts_with("sort") || query.starts_with("topk") || query.starts_with("bottomk");
        for time in ["1700000640", "1700001800.5", "1700003640", "1700003900"] {
            let path = with_parameters("/api/v1/query", &[("query", query), ("time", time)]);
            questions.push(Question { path, keep_order, nearly });
        }
        if query.starts_with("sort") {
            // A newer Prometheus than the one at hand warns that this has no effect.
            continue;
        }
        for (start, end, step) in [
            ("1700000000", "1700004200", "60"),
            ("1700000100", "1700001000", "7"),
            ("1700002000", "1700002000", "1"),
        ] {
            let parameters = [("query", query), ("start", start), ("end", end), ("step", step)];
            let path = with_parameters("/api/v1/query_range", &parameters);
            questions.push(Question { path, keep_order: false, nearly });
        }
    }
    compare(&server, &peer, &questions);
}

#[test]
fn metadata_and_mistakes_give_the_same_text() {
    let Some((server, _guard, peer)) = both() else { return };
    // Quotation marks stand in the file as they are, and are sent raw.
    let questions = lines("requests.txt").into_iter().map(|line| Question {
        path: line,
        keep_order: false,
        nearly: false,
    });
    compare(&server, &peer, &questions.collect::<Vec<_>>());
}
