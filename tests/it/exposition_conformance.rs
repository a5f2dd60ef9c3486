//! The exposition parsers against the recorded and written bodies of `../shared/conformance/exposition`.

use std::fs;
use std::path::{Path, PathBuf};

use meerkat::config::ScrapeProtocol;
use meerkat::model::histogram::Span;
use meerkat::model::labels::{is_legacy_label_name, is_legacy_metric_name};
use meerkat::model::metadata::{Exemplar, MetricType};
use meerkat::model::sample::HistogramValue;
use meerkat::scrape::exposition::{
    Format, PairBuffer, ParseError, ParseOptions, SampleView, SeriesView, Sink, Stop, choose_format, parse,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn folder() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/exposition");
    if !path.is_dir() {
        eprintln!("skipped: ../shared/conformance/exposition is missing");
        return None;
    }
    Some(path)
}

/// Writes down everything as the expectation files do.
#[derive(Default)]
struct Recorder {
    entries: Vec<Value>,
    pairs: PairBuffer,
    label_error: Option<String>,
    digest: Sha256,
    exemplars: usize,
    legacy: bool,
}

fn float_text(v: f64) -> String {
    if v.is_infinite() {
        return if v > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    if v.is_nan() { "NaN".into() } else { v.to_string() }
}

fn exemplar_json(exemplar: &Exemplar) -> Value {
    let labels: Vec<Value> = exemplar.labels.iter().map(|l| json!([l.name, l.value])).collect();
    json!({"labels": labels, "value": exemplar.value.to_bits(), "timestamp_ms": exemplar.timestamp_ms})
}

impl Recorder {
    fn labels(&mut self, series: &SeriesView<'_>) -> Vec<Value> {
        if let Err(error) = series.labels(&mut self.pairs) {
            self.label_error.get_or_insert(error.to_string());
            return Vec::new();
        }
        let metric_name = self.pairs.get("__name__");
        let name_ok = if self.legacy { is_legacy_metric_name(metric_name) } else { !metric_name.is_empty() };
        let labels_ok = self
            .pairs
            .iter()
            .all(|l| if self.legacy { is_legacy_label_name(l.name) } else { !l.name.is_empty() });
        if !name_ok || !labels_ok {
            self.label_error.get_or_insert("invalid metric name or label names".into());
        }
        self.pairs.iter().filter(|l| !l.value.is_empty()).map(|l| json!([l.name, l.value])).collect()
    }

    fn finish_entry(&mut self, mut entry: Value, sample: &SampleView<'_>) {
        entry["timestamp_ms"] = json!(sample.timestamp_ms);
        if sample.start_ms != 0 {
            entry["start_timestamp_ms"] = json!(sample.start_ms);
        }
        if !sample.exemplars.is_empty() {
            entry["exemplars"] = sample.exemplars.iter().map(exemplar_json).collect();
        }
        self.exemplars += sample.exemplars.len();
        self.entries.push(entry);
    }
}

impl Sink for Recorder {
    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        self.entries.push(json!({"kind": "help", "name": family, "text": text}));
        Ok(())
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        self.entries.push(json!({"kind": "type", "name": family, "type": metric_type.as_str()}));
        Ok(())
    }

    fn unit(&mut self, family: &str, unit: &str) -> Result<(), Stop> {
        self.entries.push(json!({"kind": "unit", "name": family, "unit": unit}));
        Ok(())
    }

    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, _: bool) -> Result<(), Stop> {
        let labels = self.labels(series);
        for (i, label) in self.pairs.iter().filter(|l| !l.value.is_empty()).enumerate() {
            self.digest.update(if i > 0 { "\x1e" } else { "" });
            self.digest.update(format!("{}\x1f{}", label.name, label.value));
        }
        let or_dash = |v: Option<i64>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
        self.digest.update(format!(
            "\t{:016x}\t{}\t{}\n",
            sample.value.to_bits(),
            or_dash(sample.timestamp_ms),
            or_dash((sample.start_ms != 0).then_some(sample.start_ms))
        ));
        let bits = format!("{:016x}", sample.value.to_bits());
        self.finish_entry(json!({"kind": "series", "labels": labels, "value_bits": bits}), sample);
        Ok(())
    }

    fn histogram(
        &mut self,
        series: &SeriesView<'_>,
        histogram: HistogramValue,
        sample: &SampleView<'_>,
    ) -> Result<(), Stop> {
        let labels = self.labels(series);
        let integer = matches!(histogram, HistogramValue::Integer(_));
        let h = histogram.to_float();
        let hint = format!("{:?}", h.counter_reset_hint).to_lowercase();
        let custom: Vec<String> = h.custom_values.iter().map(|v| float_text(*v)).collect();
        let value = json!({
            "schema": h.schema, "count": h.count, "sum": float_text(h.sum),
            "zero_threshold": float_text(h.zero_threshold), "zero_count": h.zero_count,
            "positive": populated(&h.positive_spans, &h.positive_buckets),
            "negative": populated(&h.negative_spans, &h.negative_buckets),
            "custom_values": custom, "integer": integer, "counter_reset_hint": hint,
        });
        self.finish_entry(json!({"kind": "histogram", "labels": labels, "histogram": value}), sample);
        Ok(())
    }
}

fn populated(spans: &[Span], counts: &[f64]) -> Vec<(i64, f64)> {
    let (mut out, mut index, mut counts) = (Vec::new(), 0i64, counts.iter());
    for span in spans {
        index += i64::from(span.offset);
        for _ in 0..span.length {
            out.extend(counts.next().filter(|c| **c != 0.0).map(|c| (index, *c)));
            index += 1;
        }
    }
    out
}

/// Brings an expected entry into the recorder's shape.
fn normalise(entry: &Value) -> Value {
    let mut entry = entry.clone();
    let Some(map) = entry.as_object_mut() else { return entry };
    map.remove("value");
    if let Some(exemplars) = map.get_mut("exemplars").and_then(Value::as_array_mut) {
        for exemplar in exemplars {
            let v: f64 = exemplar["value"].as_str().unwrap().parse().unwrap();
            let bits = if v.is_nan() { 0x7ff8_0000_0000_0001 } else { v.to_bits() };
            exemplar["value"] = json!(bits);
        }
    }
    if let Some(h) = map.get_mut("histogram").and_then(Value::as_object_mut) {
        for side in ["positive", "negative"] {
            let numbers = |v: &Value| v.as_f64().unwrap();
            let spans: Vec<Span> = h
                .remove(&format!("{side}_spans"))
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .map(|s| Span { offset: numbers(&s[0]) as i32, length: numbers(&s[1]) as u32 })
                .collect();
            let counts: Vec<f64> = h
                .remove(&format!("{side}_counts"))
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .map(numbers)
                .collect();
            h.insert(side.into(), json!(populated(&spans, &counts)));
        }
        for key in ["count", "zero_count"] {
            h[key] = json!(h[key].as_f64().unwrap());
        }
        let custom: Vec<String> = h["custom_values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| float_text(v.as_str().unwrap().parse().unwrap()))
            .collect();
        h["custom_values"] = json!(custom);
        for key in ["sum", "zero_threshold"] {
            h[key] = json!(float_text(h[key].as_str().unwrap().parse().unwrap()));
        }
    }
    entry
}

fn options(value: &Value) -> ParseOptions {
    let on = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
    ParseOptions {
        type_and_unit_labels: on("type_and_unit_labels"),
        skip_created: on("skip_created"),
        convert_classic_histograms_to_nhcb: on("convert_classic_histograms_to_nhcb"),
        always_scrape_classic_histograms: on("always_scrape_classic_histograms"),
        scrape_native_histograms: on("scrape_native_histograms"),
    }
}

fn run(
    format: Format,
    body: &[u8],
    options: &ParseOptions,
    legacy: bool,
) -> (Recorder, Result<(), ParseError>) {
    let mut recorder = Recorder { legacy, ..Recorder::default() };
    let result = parse(format, body, options, &mut recorder);
    (recorder, result)
}

fn cases(folder: &Path) -> Vec<(PathBuf, Value, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
    paths.sort();
    assert!(!paths.is_empty());
    paths
        .into_iter()
        .map(|path| {
            let expected = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let text = path.with_extension("txt");
            let body = fs::read(if text.exists() { text } else { path.with_extension("pb") }).unwrap();
            (path, expected, body)
        })
        .collect()
}

#[test]
fn good_bodies_parse_as_recorded() {
    let Some(root) = folder() else { return };
    let mut wrong = Vec::new();
    let mut runs = 0;
    for (dir, format) in
        [("text", Format::Text), ("openmetrics", Format::OpenMetrics), ("protobuf", Format::Protobuf)]
    {
        for (path, expected, body) in cases(&root.join(dir)) {
            let choice = choose_format(expected["content_type"].as_str().unwrap(), None);
            assert_eq!(choice.format, Some(format), "{}", path.display());
            for run_expected in expected["runs"].as_array().unwrap() {
                runs += 1;
                let (recorder, result) = run(format, &body, &options(&run_expected["options"]), false);
                let want: Vec<Value> =
                    run_expected["entries"].as_array().unwrap().iter().map(normalise).collect();
                let same = result.is_ok() && recorder.label_error.is_none() && recorder.entries == want;
                if same {
                    continue;
                }
                if let Some(lenient) = expected.get("lenient") {
                    eprintln!("{}: differs, which is allowed: {lenient}", path.display());
                    continue;
                }
                let at = recorder.entries.iter().zip(&want).position(|(a, b)| a != b);
                let at = at.unwrap_or(recorder.entries.len().min(want.len()));
                wrong.push(format!(
                    "{} {}: {result:?} {:?}, {} of {} entries, first difference at {at}:\n  got  {:?}\n  want {:?}",
                    path.display(), run_expected["options"], recorder.label_error,
                    recorder.entries.len(), want.len(), recorder.entries.get(at), want.get(at),
                ));
            }
        }
    }
    assert!(runs > 100, "only {runs} runs were found");
    assert!(wrong.is_empty(), "{} runs differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn bad_bodies_are_refused() {
    let Some(root) = folder() else { return };
    let mut wrong = Vec::new();
    for (path, expected, body) in cases(&root.join("bad")) {
        let format = match expected["format"].as_str().unwrap() {
            "text" => Format::Text,
            "openmetrics" => Format::OpenMetrics,
            _ => Format::Protobuf,
        };
        let legacy = expected.get("validation_scheme").is_some_and(|s| s == "legacy");
        let options = ParseOptions { scrape_native_histograms: true, ..ParseOptions::default() };
        let (recorder, result) = run(format, &body, &options, legacy);
        if result.is_err() || recorder.label_error.is_some() {
            continue;
        }
        match expected.get("lenient") {
            Some(lenient) => eprintln!("{}: accepted, which is allowed: {lenient}", path.display()),
            None => wrong.push(format!("{}: accepted, but {}", path.display(), expected["reason"])),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_fault_names_its_line() {
    for (format, body, wanted) in [
        (
            Format::Text,
            "# TYPE a gauge\n\na 1\nthis is {not\na 2\n",
            r#"parsing "is": invalid syntax while parsing line 4: "this is {not""#,
        ),
        (
            Format::Text,
            "a{b=\"c\"",
            r#"expected comma or brace close, got end of the body while parsing line 1: "a{b=\"c\"""#,
        ),
        (
            Format::Text,
            "a 1\n# TYPE b guage\n",
            r##"invalid metric type "guage" while parsing line 2: "# TYPE b guage""##,
        ),
        (
            Format::OpenMetrics,
            "# TYPE a gauge\na 1\na  2\n# EOF\n",
            r#"expected value after metric, got "  2" while parsing line 3: "a  2""#,
        ),
        (Format::OpenMetrics, "a 1\nb 2\n", r#"data does not end with # EOF while parsing line 2: "b 2""#),
        (
            Format::OpenMetrics,
            "a 1\n# EOF\nb 2\n",
            r#"unexpected data after # EOF while parsing line 3: "b 2""#,
        ),
    ] {
        let (_, result) = run(format, body.as_bytes(), &ParseOptions::default(), false);
        assert_eq!(result, Err(ParseError::Syntax(wanted.to_owned())), "{body:?}");
    }
    // Of a long line only the beginning is told.
    let body = format!("a{{b=\"{}\"}} x\n", "y".repeat(10_000));
    let (_, result) = run(Format::Text, body.as_bytes(), &ParseOptions::default(), false);
    assert!(
        matches!(&result, Err(ParseError::Syntax(e)) if e.ends_with("y…\"") && e.len() < 400),
        "{result:?}"
    );
}

/// A family of one type with one field, which is reached through the messages on the path; where the field begins.
fn with_field(path: &[u8], wire: u8, family_type: u8) -> (Vec<u8>, usize) {
    let (own, outer) = path.split_last().unwrap();
    // Numbers from 16 on take two bytes.
    let key = |number: u8, wire: u8| match number {
        0..16 => vec![number << 3 | wire],
        _ => vec![(number << 3 | wire) | 0x80, number >> 4],
    };
    let content = match wire {
        0 | 2 => vec![0],
        1 => vec![0; 8],
        // A group within, and a field in that.
        3 => [key(1, 3), key(2, 2), vec![0], key(1, 4), key(*own, 4)].concat(),
        _ => vec![0; 4],
    };
    let mut field = [key(*own, wire), content].concat();
    for number in outer.iter().rev() {
        field = [key(*number, 2), vec![field.len() as u8], field].concat();
    }
    field.extend([1 << 3 | 2, 1, b'a', 3 << 3, family_type, 4 << 3 | 2, 0]);
    field.insert(0, field.len() as u8);
    (field, 1 + 2 * outer.len())
}

#[test]
fn fields_of_protobuf_have_the_wire_type_of_their_name() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/peers/protobuf_fields.txt");
    let rows = fs::read_to_string(path).unwrap();
    let names = [(0, "varint"), (1, "64-bit"), (2, "length-delimited"), (3, "group"), (5, "32-bit")];
    let options = ParseOptions { scrape_native_histograms: true, ..ParseOptions::default() };
    let refused = |body: &[u8]| match run(Format::Protobuf, body, &options, false).1 {
        Err(ParseError::Syntax(error)) => error,
        _ => String::new(),
    };
    for row in rows.lines().filter(|row| !row.starts_with('#')) {
        let mut words = row.split(' ');
        let mut path: Vec<u8> = words.next().unwrap().split('.').map(|n| n.parse().unwrap()).collect();
        let family_type = words.next().unwrap().parse().unwrap();
        let name = words.next().unwrap();
        let allowed: Vec<u8> = words.map(|wire| wire.parse().unwrap()).collect();
        for (wire, found) in names {
            let (body, at) = with_field(&path, wire, family_type);
            let error = refused(&body);
            if allowed.contains(&wire) {
                assert!(!error.contains("wire type"), "{row}, {found}: {error:?}");
                continue;
            }
            let begin = format!("protobuf: field {name} has wire type {found} instead of ");
            let end = format!(" at byte {at}");
            assert!(error.starts_with(&begin) && error.ends_with(&end), "{row}, {found}: {error:?}");
            // Values of other types than that of the family are looked at too.
            for other in 0..6 {
                assert_eq!(refused(&with_field(&path, wire, other).0), error, "{row}, {found}, type {other}");
            }
        }
        // What newer versions add is skipped.
        *path.last_mut().unwrap() = 31;
        for (wire, found) in names {
            assert_eq!(refused(&with_field(&path, wire, family_type).0), "", "{row}, unknown {found}");
        }
    }
    for (body, error) in [
        (&[2, 3 << 3, 0x80][..], "invalid varint at byte 2"),
        (&[1, 31 << 3 & 0x7f | 4], "unknown wire type 4 at byte 1"),
        (&[1, 15 << 3 | 3], "invalid varint at byte 2"),
        (&[3, 15 << 3 | 2, 9, 0], "a length that reaches beyond the end of the message at byte 2"),
    ] {
        assert_eq!(refused(body), format!("protobuf: {error}"), "{body:?}");
    }
}

#[test]
fn content_types_select_the_recorded_format() {
    let Some(root) = folder() else { return };
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(root.join("content-type.json")).unwrap()).unwrap();
    for case in &cases {
        let fallback = case["fallback_scrape_protocol"].as_str();
        let fallback = fallback.map(|name| ScrapeProtocol::parse(name).unwrap());
        let choice = choose_format(case["content_type"].as_str().unwrap(), fallback);
        let format = case["format"].as_str().map(|name| match name {
            "text" => Format::Text,
            "openmetrics" => Format::OpenMetrics,
            _ => Format::Protobuf,
        });
        assert_eq!(choice.format, format, "{case}");
        assert_eq!(choice.warning.is_some(), case["warn"].as_bool().unwrap(), "{case}");
    }
}

#[test]
fn real_bodies_have_the_recorded_digests() {
    let Some(root) = folder() else { return };
    let root = root.join("real");
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(root.join("expected.json")).unwrap()).unwrap();
    for case in &cases {
        let file = case["file"].as_str().unwrap();
        let body = fs::read(root.join(file)).unwrap();
        let format = choose_format(case["content_type"].as_str().unwrap(), None).format.unwrap();
        for expected in case["runs"].as_array().unwrap() {
            let (recorder, result) = run(format, &body, &options(&expected["options"]), false);
            assert_eq!(result, Ok(()), "{file}");
            assert_eq!(recorder.label_error, None, "{file}");
            for (kind, count) in expected["entries"].as_object().unwrap() {
                let found = recorder.entries.iter().filter(|e| e["kind"] == kind.as_str()).count();
                assert_eq!(found as u64, count.as_u64().unwrap(), "{file} {}: {kind}", expected["options"]);
            }
            assert_eq!(recorder.exemplars as u64, expected["exemplars"].as_u64().unwrap(), "{file}");
            let digest: String =
                recorder.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, expected["series_sha256"].as_str().unwrap(), "{file} {}", expected["options"]);
        }
    }
}
