//! Templates against the texts that Go and Prometheus give for them.

use super::*;

struct Fixed;

impl QuerySource for Fixed {
    fn query(&self, query: &str, _t_ms: i64) -> Result<Vec<(Labels, f64)>, String> {
        match query {
            "metric" => Ok(vec![
                (Labels::from_pairs([("__name__", "metric"), ("instance", "b:9090")]), 21.0),
                (Labels::from_pairs([("__name__", "metric"), ("instance", "a:9090")]), 11.0),
            ]),
            "empty" => Ok(Vec::new()),
            other => Err(format!("cannot query {other}")),
        }
    }

    fn external_url(&self) -> &str {
        "http://meerkat.example:9090/base"
    }
}

fn data(value: f64) -> AlertData {
    AlertData {
        labels: Labels::from_pairs([("instance", "db-1:9100"), ("job", "node")]),
        value: Value::Float(value),
        external_labels: Labels::from_pairs([("cluster", "eu")]),
        external_url: "http://meerkat.example:9090/base".into(),
    }
}

fn expand(text: &str) -> Result<String, String> {
    AlertText::new("Test", text)
        .expand(&data(1_234_567.0), 1_435_065_584_128, &Fixed)
        .map_err(|e| e.to_string())
}

#[test]
fn expands_as_go_does() {
    let cases = [
        ("plain {text}", "plain {text}"),
        ("{{ $labels.instance }} is {{ $value }}", "db-1:9100 is 1.234567e+06"),
        (
            "{{ .Labels.job }} {{ .ExternalLabels.cluster }} {{ $externalURL }}",
            "node eu http://meerkat.example:9090/base",
        ),
        ("[{{ $labels.missing }}]", "[]"),
        ("a {{- 1 -}} b", "a1b"),
        ("a {{/* comment */}} b", "a  b"),
        ("a {{- /* comment */ -}} b", "ab"),
        ("{{ if eq $labels.job \"node\" \"other\" }}yes{{ else }}no{{ end }}", "yes"),
        ("{{ if gt $value 5.0 }}big{{ end }}", "big"),
        ("{{ if false }}a{{ else if true }}b{{ else }}c{{ end }}", "b"),
        ("{{ with $labels.job }}{{ . }}!{{ end }}{{ with \"\" }}x{{ else }}empty{{ end }}", "node!empty"),
        (
            "{{ range $i, $s := query \"metric\" }}{{ $i }}={{ $s.Labels.instance }}:{{ $s.Value }} {{ end }}",
            "0=b:9090:21 1=a:9090:11 ",
        ),
        ("{{ range query \"metric\" | sortByLabel \"instance\" }}{{ .Value }} {{ end }}", "11 21 "),
        ("{{ range query \"empty\" }}x{{ else }}none{{ end }}", "none"),
        (
            "{{ range query \"metric\" }}{{ break }}{{ end }}{{ range $l, $v := $labels }}{{ $l }}:{{ $v }};{{ end }}",
            "instance:db-1:9100;job:node;",
        ),
        ("{{ query \"metric\" | first | value | humanize }}", "21"),
        ("{{ query \"metric\" | first | label \"instance\" }}", "b:9090"),
        ("{{ (query \"metric\" | first).Labels.instance }}", "b:9090"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" $labels.job }}", "<node>"),
        (
            "{{ printf \"%.2f|%5.1f|%-6s|%06d|%+d|%x|%q|%%\" 1.005 2.25 \"ab\" 42 7 255 \"q\\\"\" }}",
            "1.00|  2.2|ab    |000042|+7|ff|\"q\\\"\"|%",
        ),
        ("{{ printf \"%d %s\" 1.5 }}", "%!d(float64=1.5) %!s(MISSING)"),
        ("{{ printf \"%v\" 1 2 }}", "1%!(EXTRA int=2)"),
        ("{{ printf \"%v %v\" $labels true }}", "map[instance:db-1:9100 job:node] true"),
        ("{{ print 1 2 \"a\" \"b\" 3 }}", "1 2ab3"),
        (
            "{{ humanize 0.0 }} {{ humanize 1234567.0 }} {{ humanize 0.00012 }} {{ humanize \"1000\" }} {{ humanize 999999 }}",
            "0 1.235M 120u 1k 1000k",
        ),
        ("{{ humanize1024 0.0 }} {{ humanize1024 1048576.0 }} {{ humanize1024 .1 }}", "0 1Mi 0.1"),
        (
            "{{ humanizeDuration 0.0 }} {{ humanizeDuration 0.1 }} {{ humanizeDuration 59.5 }} {{ humanizeDuration 3661 }} {{ humanizeDuration 90061.9 }} {{ humanizeDuration -1 }}",
            "0s 100ms 59.5s 1h 1m 1s 1d 1h 1m 1s -1s",
        ),
        ("{{ humanizePercentage 0.1234567 }}", "12.35%"),
        ("{{ humanizeTimestamp 1435065584.128 }}", "2015-06-23 13:19:44.128 +0000 UTC"),
        (
            "{{ 1435065584.128 | toTime }} {{ (toDuration 3723.5) }}",
            "2015-06-23 13:19:44.128 +0000 UTC 1h2m3.5s",
        ),
        ("{{ now | humanizeTimestamp }}", "2015-06-23 13:19:44.128 +0000 UTC"),
        ("{{ reReplaceAll \"(a)b\" \"$1-\" \"abab\" }} {{ match \"a.*\" \"xabc\" }}", "a-a- true"),
        ("{{ toUpper \"aa bb\" }} {{ toLower \"AA\" }} {{ title \"aa bB cc\" }}", "AA BB aa Aa BB Cc"),
        (
            "{{ stripPort \"a:1\" }} {{ stripPort \"[::1]:1\" }} {{ stripDomain \"h.example.com:1\" }} {{ stripDomain \"1.2.3.4:1\" }}",
            "a ::1 h:1 1.2.3.4:1",
        ),
        ("{{ parseDuration \"1h2m10ms\" }}", "3720.01"),
        ("{{ graphLink \"up{a=\\\"b c\\\"}\" }}", "/graph?g0.expr=up%7Ba%3D%22b+c%22%7D&g0.tab=0"),
        (
            "{{ urlQueryEscape \"a b/c\" }} {{ pathPrefix }} {{ externalURL }}",
            "a+b%2Fc /base http://meerkat.example:9090/base",
        ),
        (
            "{{ len \"abc\" }} {{ len (query \"metric\") }} {{ index $labels \"job\" }} {{ slice \"abcdef\" 1 3 }}",
            "3 2 node bc",
        ),
        ("{{ and 1 0 }} {{ or 0 \"x\" }} {{ not 0 }}", "0 x true"),
        ("{{ html \"<a&b>\" }} {{ js \"it's\" }}", "&lt;a&amp;b&gt; it\\'s"),
        ("{{ (args 1 \"x\").arg1 }} {{ $value | printf \"%.0f\" }}", "x 1234567"),
        (
            "{{ `raw \\n` }} {{ \"esc\\t\\u00e9\" }} {{ 'a' }} {{ 0x10 }} {{ 1_000 }} {{ 1e3 }}",
            "raw \\n esc\té 97 16 1000 1000",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(expand(text).as_deref(), Ok(want), "{text}");
    }
}

/// `up` of two instances, asked with the real engine.
struct World(crate::alert::EngineEvaluator);

impl World {
    fn new() -> Self {
        use crate::tsdb::{Appendable as _, BatchOptions, SeriesRef};
        let registry = crate::telemetry::Registry::new();
        let storage = crate::tsdb::memory::MemoryStorage::new();
        let mut batch = storage.appender(BatchOptions::default());
        for (instance, value) in [("a", 1.0), ("b", 0.0)] {
            let labels = || Labels::from_pairs([("__name__", "up"), ("instance", instance), ("job", "j")]);
            batch.append(SeriesRef::NONE, &labels, 0, 1_000, value).expect("memory takes it");
        }
        batch.commit().expect("memory takes it");
        let engine = crate::query::Engine::new(crate::query::EngineOptions::default(), &registry);
        Self(crate::alert::EngineEvaluator::new(Arc::new(engine), storage))
    }
}

impl QuerySource for World {
    fn query(&self, query: &str, t_ms: i64) -> Result<Vec<(Labels, f64)>, String> {
        use crate::alert::Evaluator as _;
        let found = self.0.eval(query, t_ms)?.into_iter().filter_map(|sample| match sample.value {
            crate::query::value::PointValue::Float(v) => Some((sample.labels, v)),
            crate::query::value::PointValue::Histogram(_) => None,
        });
        Ok(found.collect())
    }

    fn external_url(&self) -> &str {
        "http://ext:9/pre"
    }
}

/// The texts were printed by Prometheus; a test of the whole program asks it again where it is at hand.
#[test]
fn expands_as_prometheus_did() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/alerting/templates.json");
    let text = std::fs::read_to_string(path).expect("the cases are there");
    let cases: Vec<(String, String)> = serde_json::from_str(&text).expect("the cases are pairs");
    assert!(cases.len() > 150);
    let world = World::new();
    let data = AlertData {
        labels: Labels::from_pairs([("__name__", "up"), ("instance", "a"), ("job", "j")]),
        value: Value::Float(1.0),
        external_labels: Labels::from_pairs([("cluster", "eu")]),
        external_url: "http://ext:9/pre".into(),
    };
    let mut different = Vec::new();
    for (template, want) in cases {
        let got = AlertText::new("T", &template)
            .expand(&data, 1_000, &world)
            .unwrap_or_else(|error| format!("<error expanding template: {error}>"));
        if got != want {
            different.push(format!("{template}\n  want {want}\n  got  {got}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn special_floats_print_as_go_does() {
    for (v, want) in
        [(f64::NAN, "NaN NaN NaN"), (f64::INFINITY, "+Inf +Inf +Inf"), (f64::NEG_INFINITY, "-Inf -Inf -Inf")]
    {
        let text = "{{ $value }} {{ humanize $value }} {{ printf \"%.2f\" $value }}";
        let got = AlertText::new("T", text).expand(&data(v), 0, &Fixed);
        assert_eq!(got.map_err(|e| e.to_string()).as_deref(), Ok(want));
    }
}

#[test]
fn bad_templates_are_refused_with_line_and_reason() {
    for (text, part) in [
        ("{{ nothing }}", "template: __alert_Test:1: function \"nothing\" not defined"),
        // Console templates have it, alerts do not.
        ("{{ tmpl \"x\" . }}", "template: __alert_Test:1: function \"tmpl\" not defined"),
        ("a\n{{ $nothing }}", "template: __alert_Test:2: undefined variable \"$nothing\""),
        ("{{ if true }}", "unexpected EOF"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ ", "unclosed action"),
        ("{{ (1 }}", "unclosed left paren"),
        ("{{ \"abc }}", "unterminated quoted string"),
        ("{{ 1 | 2 }}", "non executable command in pipeline"),
        ("{{ | }}", "missing value"),
        ("{{ break }}", "outside {{range}}"),
        ("{{ \"\\z\" }}", "invalid syntax"),
        ("{{ /* x }}", "unexpected"),
    ] {
        let error = check_alert_template("Test", text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let deep = format!("{}1{}", "{{ ".to_owned() + &"(".repeat(5000), ")".repeat(5000) + " }}");
    let error = check_alert_template("Test", &deep).expect_err("too deep").to_string();
    assert!(error.contains("nested more than"), "{error}");
}

#[test]
fn failures_while_running_say_where() {
    for (text, part) in [
        ("{{ .Nothing }}", "can't evaluate field Nothing in type struct"),
        ("{{ query \"bad\" }}", "error calling query: cannot query bad"),
        (
            "{{ query \"empty\" | first | value }}",
            "error calling first: first() called on vector with no elements",
        ),
        ("{{ if gt $value 5 }}x{{ end }}", "incompatible types for comparison"),
        ("{{ humanize \"abc\" }}", "error calling humanize"),
        (
            "{{ .Labels.foo.bar }}",
            "template: __alert_Test:1:122: executing \"__alert_Test\" at <.Labels.foo.bar>: can't",
        ),
        (
            "{{ $value.foo }}",
            "template: __alert_Test:1:121: executing \"__alert_Test\" at <$value.foo>: can't",
        ),
        ("{{ call nil }}", "error calling call: call of nil"),
        ("{{ humanize }}", "wrong number of args for humanize: want 1 got 0"),
        ("{{ template \"nope\" }}", "template \"nope\" not defined"),
        ("{{ reReplaceAll \"(\" \"\" \"\" }}", "error calling reReplaceAll"),
        ("{{ range 5.5 }}{{ end }}", "range can't iterate over 5.5"),
        ("{{ define \"r\" }}{{ template \"r\" }}{{ end }}{{ template \"r\" }}", "maximum template depth"),
        (
            "{{ range 2000000 }}{{ end }}{{ range 900000 }}{{ range 2 }}x{{ end }}{{ end }}",
            "more than 1000000 steps",
        ),
        ("{{ range 100000 }}{{ printf \"%1000d\" 1 }}{{ end }}", "output is longer than"),
    ] {
        let error = expand(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
        assert!(error.starts_with("error executing template __alert_Test: "), "{error}");
    }
    let error = expand("x {{ .Nope }}").expect_err("no such field");
    assert!(error.contains("template: __alert_Test:1:"), "{error}");
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "(\\{\\{|\\}\\}|[-a-z$.|():=\"' 0-9/*]|if |end|range |printf |with |else ){0,40}") {
        let _ = expand(&text);
    }
}
