//! The way of the parsers past what is known already, judged by the way without: scrape after scrape of bodies that
//! change a little, both must see the same samples, the same metadata and the same faults.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::scrape::cache::{Found, HashKey, Pass, SeriesCache};
use crate::scrape::metadata::{Interner, MetadataCache};
use crate::tsdb::door::SeriesRef;

/// Labels, bits of the value, timestamp, start timestamp.
type Event = (String, u64, Option<i64>, i64);

/// What outlasts a scrape.
#[derive(Default)]
struct Memory {
    series: SeriesCache,
    metadata: MetadataCache,
    interner: Interner,
    labels: Vec<String>,
    /// How often something was recognised.
    hits: usize,
}

struct Seer<'m> {
    /// Missing for the twin that knows nothing.
    pass: Option<Pass<'m>>,
    metadata: &'m mut MetadataCache,
    interner: &'m Interner,
    labels: &'m mut Vec<String>,
    hits: &'m mut usize,
    events: Vec<Event>,
}

fn labels_of(series: &SeriesView<'_>) -> String {
    let mut pairs = PairBuffer::default();
    match series.labels(&mut pairs) {
        Ok(()) => pairs.to_labels().to_string(),
        Err(error) => error.to_string(),
    }
}

impl Sink for Seer<'_> {
    fn expected(&mut self, rest: &[u8], context: u64) -> Option<usize> {
        self.pass.as_ref()?.expected(rest, context)
    }

    fn expected_metadata(&mut self, rest: &[u8]) -> Option<(usize, MetricType)> {
        self.pass.as_ref()?;
        let found = self.metadata.expected(rest);
        *self.hits += usize::from(found.is_some());
        found
    }

    fn metadata_block(&mut self, lines: &[u8], family: &Family) {
        if self.pass.is_some() {
            self.metadata.remember(lines, family.metric_type);
        }
    }

    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        self.metadata.help(self.interner, family, text);
        Ok(())
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        self.metadata.metric_type(self.interner, family, metric_type);
        Ok(())
    }

    fn unit(&mut self, family: &str, unit: &str) -> Result<(), Stop> {
        self.metadata.unit(self.interner, family, unit);
        Ok(())
    }

    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, known: bool) -> Result<(), Stop> {
        *self.hits += usize::from(known);
        let labels = match &mut self.pass {
            None => labels_of(series),
            Some(pass) => {
                let found = if known {
                    (Found::Known(pass.accept()), None)
                } else {
                    let (found, hash) = pass.find(series.text(), series.context());
                    (found, Some(hash))
                };
                match found {
                    (Found::Known(at), _) => {
                        let reference = pass.reference(at);
                        pass.update(at, reference, true);
                        // Storage may ask for the labels of a known series again.
                        assert_eq!(labels_of(series), self.labels[reference.0 as usize]);
                        self.labels[reference.0 as usize].clone()
                    }
                    (Found::Again(at), _) => self.labels[pass.reference(at).0 as usize].clone(),
                    (Found::New, hash) => {
                        let labels = labels_of(series);
                        let reference = SeriesRef(self.labels.len() as u64);
                        self.labels.push(labels.clone());
                        if let Some(hash) = hash {
                            pass.add(series.text(), hash, reference, true, false);
                        }
                        labels
                    }
                }
            }
        };
        self.events.push((labels, sample.value.to_bits(), sample.timestamp_ms, sample.start_ms));
        Ok(())
    }

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

impl Memory {
    fn scrape(
        &mut self,
        format: Format,
        body: &[u8],
        options: &ParseOptions,
        key: Option<&HashKey>,
    ) -> (Result<(), ParseError>, Vec<Event>) {
        self.metadata.begin();
        let mut seer = Seer {
            pass: key.map(|key| self.series.begin(key)),
            metadata: &mut self.metadata,
            interner: &self.interner,
            labels: &mut self.labels,
            hits: &mut self.hits,
            events: Vec::new(),
        };
        let result = parse(format, body, options, &mut seer);
        let Seer { pass, events, .. } = seer;
        // As in a scrape, a body with a fault leaves what was known before.
        if result.is_ok() {
            if let Some(pass) = pass {
                pass.finish();
            }
            self.metadata.finish();
        }
        (result, events)
    }

    fn families(&self) -> Vec<String> {
        self.metadata.families().map(|f| format!("{f:?}")).collect()
    }
}

const FAMILIES: [&str; 4] = ["a", "ab", "b_seconds", "c"];
const TYPES: [&str; 4] = ["counter", "gauge", "histogram", "summary"];
const SUFFIXES: [&str; 6] = ["", "_bucket", "_sum", "_count", "_total", "_created"];
const LABELS: [&str; 7] = [
    "",
    "{le=\"1\"}",
    "{le=\"1.0\"}",
    "{quantile=\"0.50\",x=\"y\"}",
    "{x=\"\\n\\\"\"}",
    "{z=\"1\",a=\"2\"}",
    "{x=\"1\",x=\"2\"}",
];
const VALUES: [&str; 12] =
    ["0", "7", "12", "-1", "1.5e-05", "9.223372036854776e+18", "NaN", "+Inf", "0.1", "1 1234", "3 ", "x"];

/// A line by numbers, so that bodies can be changed here and there.
fn line(format: Format, [what, which, how, turn]: [usize; 4]) -> String {
    let family = FAMILIES[which % FAMILIES.len()];
    match what {
        0..3 => format!("# HELP {family} Text {}.\n", how % 2),
        3..6 => format!("# TYPE {family} {}\n", TYPES[how % TYPES.len()]),
        6 if format == Format::OpenMetrics => {
            let unit = if family.ends_with("_seconds") && how % 2 == 0 { "seconds" } else { "" };
            format!("# UNIT {family} {unit}\n")
        }
        6 => ["# a comment\n", "\n", "#\n", " # HELP a b\n"][how % 4].to_owned(),
        _ => {
            // The last ones are faults, which would end most bodies.
            let values = if turn % 50 == 0 { VALUES.len() } else { 10 };
            let suffix = SUFFIXES[how % SUFFIXES.len()];
            let labels = LABELS[how / SUFFIXES.len() % LABELS.len()];
            format!("{family}{suffix}{labels} {}\n", VALUES[turn % values])
        }
    }
}

fn body(format: Format, lines: &[[usize; 4]], turn: usize) -> String {
    let mut out: String =
        lines.iter().map(|[a, b, c, d]| line(format, [*a, *b, *c, d.wrapping_add(turn)])).collect();
    match format {
        Format::OpenMetrics => out.push_str("# EOF\n"),
        _ if turn.is_multiple_of(5) => {
            out.pop();
        }
        _ => {}
    }
    out
}

fn any_line() -> impl Strategy<Value = [usize; 4]> {
    [0usize..14, 0usize..16, 0usize..84, 0usize..1000]
}

/// Where a body changes: place, how many lines go, which come.
fn edit() -> impl Strategy<Value = (usize, usize, Vec<[usize; 4]>)> {
    (0usize..40, 0usize..4, prop::collection::vec(any_line(), 0..3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_known_is_read_as_if_it_were_not(
        open_metrics: bool,
        type_and_unit_labels: bool,
        skip_created: bool,
        first in prop::collection::vec(any_line(), 0..30),
        edits in prop::collection::vec(prop::collection::vec(edit(), 0..2), 1..8),
        swap in (0usize..40, 0usize..40),
    ) {
        let format = if open_metrics { Format::OpenMetrics } else { Format::Text };
        let options = ParseOptions { type_and_unit_labels, skip_created, ..ParseOptions::default() };
        let key = HashKey::random();
        let (mut knowing, mut naive) = (Memory::default(), Memory::default());
        let mut lines = first;
        for (turn, edits) in edits.iter().enumerate() {
            for round in 0..2 {
                let body = body(format, &lines, turn * 2 + round);
                let seen = knowing.scrape(format, body.as_bytes(), &options, Some(&key));
                let wanted = naive.scrape(format, body.as_bytes(), &options, None);
                prop_assert_eq!(seen, wanted, "{}", body);
                prop_assert_eq!(knowing.families(), naive.families(), "{}", body);
            }
            for (at, gone, new) in edits {
                let at = at % (lines.len() + 1);
                let end = (at + gone).min(lines.len());
                lines.splice(at..end, new.iter().copied());
            }
            if turn == 3 && lines.len() > swap.0.max(swap.1) {
                lines.swap(swap.0, swap.1);
            }
        }
    }
}

#[test]
fn a_body_that_repeats_is_recognised() {
    let body =
        "# HELP a Text.\n# TYPE a counter\na 1\na{x=\"y\"} 2\n# HELP b Text.\n# TYPE b histogram\nb_sum 3\n";
    let (key, options) = (HashKey::random(), ParseOptions::default());
    let mut memory = Memory::default();
    for _ in 0..3 {
        memory.scrape(Format::Text, body.as_bytes(), &options, Some(&key)).0.expect("valid");
    }
    assert_eq!(memory.hits, 2 * 5, "two families and three series, from the second time on");
}

#[test]
fn labels_of_several_spellings_are_told_apart() {
    let bodies = ["# TYPE a histogram\na_bucket{le=\"1\"} 1\n", "# TYPE a gauge\na_bucket{le=\"1\"} 1\n"];
    let (key, options) = (HashKey::random(), ParseOptions::default());
    let mut memory = Memory::default();
    let seen: HashMap<usize, String> = (0..4)
        .map(|turn| {
            let (_, events) = memory.scrape(Format::Text, bodies[turn % 2].as_bytes(), &options, Some(&key));
            (turn, events[0].0.clone())
        })
        .collect();
    assert!(seen[&0].contains("1.0") && seen[&2].contains("1.0"), "{seen:?}");
    assert!(!seen[&1].contains("1.0") && !seen[&3].contains("1.0"), "{seen:?}");
}
