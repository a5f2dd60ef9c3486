//! The notation of series in test scripts and rule unit tests: `requests{path="/a"} 0+10x5 _ stale {{count:2}}`.

use std::sync::Arc;

use super::parser::{Parser, error_at};
use super::{ParseError, ParseOptions, Span};
use crate::model::duration::parse_duration_ms;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Span as BucketSpan};
use crate::model::sample::NORMAL_NAN_BITS;
use crate::model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, stale_nan};

/// Most values that one line may stand for.
pub const MAX_VALUES: usize = 1_000_000;

/// One position of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub enum SequenceValue {
    /// `_`: no sample.
    Omitted,
    /// A float, possibly the stale marker.
    Float(f64),
    /// A histogram, and whether its counter reset hint was written down.
    Histogram(Arc<FloatHistogram>, bool),
}

/// A line taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesDescription {
    /// Labels, name included.
    pub labels: Labels,
    /// Values in order of time.
    pub values: Vec<SequenceValue>,
}

/// Parses one line: a metric without matchers other than `=`, blanks, values.
pub fn parse_series(text: &str) -> Result<SeriesDescription, ParseError> {
    let (labels, end) = metric(text)?;
    let mut reader = Reader { text, pos: end };
    let mut values = Vec::new();
    loop {
        let before = reader.pos;
        reader.blanks();
        if reader.rest().is_empty() {
            return Ok(SeriesDescription { labels, values });
        }
        if reader.pos == before {
            return Err(reader.fail("expected a blank before the next value"));
        }
        reader.item(&mut values)?;
        if values.len() > MAX_VALUES {
            return Err(reader.fail(&format!("more than {MAX_VALUES} values in one series")));
        }
    }
}

/// Parses a metric alone: `name{label="value"}`.
pub fn parse_metric(text: &str) -> Result<Labels, ParseError> {
    let (labels, end) = metric(text)?;
    if text[end..].trim().is_empty() {
        return Ok(labels);
    }
    let span = Span { start: end as u32, end: text.len() as u32 };
    Err(error_at(text, span, "unexpected text behind the metric"))
}

fn metric(text: &str) -> Result<(Labels, usize), ParseError> {
    // Braces belong to the metric only if they follow at once; behind a blank they begin a histogram.
    let name_len = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')).count();
    if name_len > 0 && !text[name_len..].starts_with('{') {
        return Ok((Labels::from_pairs([(METRIC_NAME, &text[..name_len])]), name_len));
    }
    let options = ParseOptions::default();
    let mut parser = Parser::new(text, &options)?;
    let selector = parser.bare_selector()?;
    if let Some(error) = parser.semantic.take() {
        return Err(error);
    }
    let end = parser.last_end() as usize;
    let mut labels = LabelsBuilder::default();
    for m in &selector.matchers {
        if m.op != MatchOp::Equal {
            return Err(error_at(text, selector.span, "a series has labels with `=` only"));
        }
        labels.set(&m.name, &m.value);
    }
    Ok((labels.build(), end))
}

struct Reader<'a> {
    text: &'a str,
    pos: usize,
}

type Read<T> = Result<T, ParseError>;

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn blanks(&mut self) {
        self.pos = self.text.len() - self.rest().trim_start().len();
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.pos += if found { text.len() } else { 0 };
        found
    }

    fn fail(&self, message: &str) -> ParseError {
        let span = Span { start: self.pos as u32, end: self.text.len() as u32 };
        error_at(self.text, span, format!("{message} in series values"))
    }

    /// The repetition count behind an item.
    fn times(&mut self) -> Read<Option<usize>> {
        if !self.accept("x") {
            return Ok(None);
        }
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let Ok(times) = self.rest()[..digits].parse::<usize>() else {
            return Err(self.fail("expected a repetition count"));
        };
        if times > MAX_VALUES {
            return Err(self.fail(&format!("repetition count {times} above {MAX_VALUES}")));
        }
        self.pos += digits;
        Ok(Some(times))
    }

    fn item(&mut self, values: &mut Vec<SequenceValue>) -> Read<()> {
        if self.accept("_") {
            let times = self.times()?.unwrap_or(1);
            values.extend(std::iter::repeat_n(SequenceValue::Omitted, times));
            return Ok(());
        }
        if self.rest().starts_with("{{") {
            return self.histogram_item(values);
        }
        let first = if self.accept("stale") { stale_nan() } else { self.number()? };
        let step = match self.rest().bytes().next() {
            Some(b'+') => {
                self.pos += 1;
                Some(self.number()?)
            }
            Some(b'-') => {
                self.pos += 1;
                Some(-self.number()?)
            }
            _ => None,
        };
        let times = self.times()?;
        if step.is_some() && times.is_none() {
            return Err(self.fail("expected a repetition count"));
        }
        let mut value = first;
        values.push(SequenceValue::Float(value));
        for _ in 0..times.unwrap_or(0) {
            // Repeated addition: the rounding errors are part of the notation.
            value = step.map_or(value, |step| value + step);
            values.push(SequenceValue::Float(value));
        }
        Ok(())
    }

    /// A signed number or duration; hexadecimal is not possible, as `x` means repetition.
    fn number(&mut self) -> Read<f64> {
        let negative = if self.accept("-") {
            true
        } else {
            self.accept("+");
            false
        };
        let sign = |v: f64| if negative { -v } else { v };
        let word: String = self.rest().chars().take(3).collect::<String>().to_ascii_lowercase();
        if word == "inf" || word == "nan" {
            self.pos += 3;
            return Ok(if word == "inf" { sign(f64::INFINITY) } else { f64::from_bits(NORMAL_NAN_BITS) });
        }
        let bytes = self.rest().as_bytes();
        let run = |from: usize, set: &[u8]| bytes[from..].iter().take_while(|b| set.contains(b)).count();
        let mut end = run(0, b"0123456789.");
        if bytes.get(end).is_some_and(|b| b"smhdwy".contains(b)) {
            let end = run(0, b"0123456789smhdwy");
            let duration = parse_duration_ms(&self.rest()[..end]).map_err(|e| self.fail(&e))?;
            self.pos += end;
            return Ok(sign(duration as f64 / 1000.0));
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            end += 1;
            end += usize::from(matches!(bytes.get(end), Some(b'+' | b'-')));
            end += run(end, b"0123456789");
        }
        match self.rest()[..end].parse::<f64>() {
            Ok(v) if v.is_finite() => {
                self.pos += end;
                Ok(sign(v))
            }
            _ => Err(self.fail("expected a number")),
        }
    }

    fn histogram_item(&mut self, values: &mut Vec<SequenceValue>) -> Read<()> {
        let (first, first_hint) = self.histogram()?;
        let step = if self.accept("+{{") {
            self.pos -= 2;
            Some((true, self.histogram()?))
        } else if self.accept("-{{") {
            self.pos -= 2;
            Some((false, self.histogram()?))
        } else {
            None
        };
        let times = self.times()?.unwrap_or(0);
        values.push(SequenceValue::Histogram(Arc::new(first.clone()), first_hint));
        let mut value = first;
        for _ in 0..times {
            let mut given = first_hint;
            if let Some((add, (step, hint))) = &step {
                if value.schema > step.schema {
                    return Err(self.fail("the first histogram has a higher resolution than the step"));
                }
                let result = if *add { value.add(step) } else { value.sub(step) };
                if let Err(e) = result {
                    return Err(self.fail(&e.to_string()));
                }
                given = *hint;
                if *hint {
                    value.counter_reset_hint = step.counter_reset_hint;
                }
            }
            values.push(SequenceValue::Histogram(Arc::new(value.clone()), given));
        }
        Ok(())
    }

    fn list(&mut self) -> Read<Vec<f64>> {
        if !self.accept("[") {
            return Err(self.fail("expected `[`"));
        }
        let mut out = Vec::new();
        loop {
            self.blanks();
            if self.accept("]") {
                return Ok(out);
            }
            out.push(self.number()?);
        }
    }

    fn whole(&mut self) -> Read<i32> {
        let v = self.number()?;
        if v.fract() == 0.0 && v.abs() <= f64::from(i32::MAX) {
            Ok(v as i32)
        } else {
            Err(self.fail("expected a whole number"))
        }
    }

    /// `{{key:value …}}`; answers whether the counter reset hint was given.
    fn histogram(&mut self) -> Read<(FloatHistogram, bool)> {
        self.pos += 2;
        let mut h = FloatHistogram::default();
        let (mut offset, mut n_offset, mut hint_given) = (0, 0, false);
        let mut seen: Vec<&str> = Vec::new();
        loop {
            self.blanks();
            if self.accept("}}") {
                break;
            }
            let Some((key, _)) = self.rest().split_once(':') else {
                return Err(self.fail("expected a histogram field"));
            };
            if seen.contains(&key) {
                return Err(self.fail(&format!("histogram field {key} given twice")));
            }
            seen.push(key);
            let at = self.pos;
            self.pos += key.len() + 1;
            self.blanks();
            match key {
                "schema" => h.schema = self.whole()?,
                "sum" => h.sum = self.number()?,
                "count" => h.count = self.number()?,
                "z_bucket" => h.zero_count = self.number()?,
                "z_bucket_w" => h.zero_threshold = self.number()?,
                "offset" => offset = self.whole()?,
                "n_offset" => n_offset = self.whole()?,
                "buckets" => h.positive_buckets = self.list()?,
                "n_buckets" => h.negative_buckets = self.list()?,
                "custom_values" => h.custom_values = self.list()?.into(),
                "counter_reset_hint" => {
                    let words = [
                        ("unknown", CounterResetHint::Unknown),
                        ("reset", CounterResetHint::Reset),
                        ("not_reset", CounterResetHint::NotReset),
                        ("gauge", CounterResetHint::Gauge),
                    ];
                    let Some((_, hint)) = words.into_iter().find(|(word, _)| self.accept(word)) else {
                        return Err(self.fail("unknown counter reset hint"));
                    };
                    (h.counter_reset_hint, hint_given) = (hint, true);
                }
                _ => {
                    self.pos = at;
                    return Err(self.fail(&format!("unknown histogram field {key:?}")));
                }
            }
        }
        let spans = |offset: i32, buckets: &[f64]| -> Vec<BucketSpan> {
            let span = BucketSpan { offset, length: buckets.len() as u32 };
            if buckets.is_empty() { Vec::new() } else { vec![span] }
        };
        h.positive_spans = spans(offset, &h.positive_buckets);
        h.negative_spans = spans(n_offset, &h.negative_buckets);
        Ok((h, hint_given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SequenceValue::{Float, Histogram, Omitted};

    fn values(text: &str) -> Vec<SequenceValue> {
        parse_series(&format!("m {text}")).unwrap_or_else(|e| panic!("{text}: {e}")).values
    }

    fn floats(list: &[f64]) -> Vec<SequenceValue> {
        list.iter().map(|v| Float(*v)).collect()
    }

    #[test]
    fn sequences_expand() {
        assert_eq!(values("1 -2.5 2e3 .5 5m"), floats(&[1.0, -2.5, 2000.0, 0.5, 300.0]));
        assert_eq!(values("5x3"), floats(&[5.0, 5.0, 5.0, 5.0]));
        assert_eq!(values("1+2x3 10-2x2"), floats(&[1.0, 3.0, 5.0, 7.0, 10.0, 8.0, 6.0]));
        assert_eq!(values("-1-1x1 1e-1+1x0"), floats(&[-1.0, -2.0, 0.1]));
        assert_eq!(values("_ 1 _x2"), [Omitted, Float(1.0), Omitted, Omitted]);
        assert_eq!(values("Inf -inf +INF"), floats(&[f64::INFINITY, f64::NEG_INFINITY, f64::INFINITY]));
        let Float(stale) = values("stale")[0] else { panic!() };
        assert!(crate::model::is_stale_nan(stale));
        let Float(last) = values("1+0.1x50")[50] else { panic!() };
        assert_ne!(last, 1.0 + 0.1 * 50.0);
    }

    #[test]
    fn histogram_fields_and_steps() {
        let list = values(
            "{{sum:5 count:6 z_bucket:1 offset:-1 buckets:[2 3] counter_reset_hint:gauge}}+{{count:1 buckets:[1]}}x1",
        );
        let (Histogram(first, true), Histogram(second, false)) = (&list[0], &list[1]) else {
            panic!("{list:?}")
        };
        assert_eq!(first.to_string(), "{count:6, sum:5, [-0,0]:1, (0.25,0.5]:2, (0.5,1]:3}");
        assert_eq!((second.count, second.positive_buckets.clone()), (7.0, vec![2.0, 4.0]));
        assert_eq!(values("{{}}x2").len(), 3);
    }

    #[test]
    fn labels_are_those_of_a_metric() {
        let labels = |text: &str| parse_series(text).unwrap().labels.to_string();
        assert_eq!(labels(r#"sum{a="b"} 1"#), r#"{__name__="sum", a="b"}"#);
        assert_eq!(labels(r#"{"my.name","l.x"='y'} 1"#), r#"{__name__="my.name", "l.x"="y"}"#);
        assert_eq!(labels("m"), r#"{__name__="m"}"#);
        assert_eq!(parse_metric("m{a='1'} ").unwrap().to_string(), r#"{__name__="m", a="1"}"#);
        for bad in [
            r#"m{a=~"b"} 1"#,
            "m 1_0",
            "m 1+1",
            "m 5x",
            "m {{foo:1}}",
            "m {{sum:1 sum:2}}",
            "m 1x9999999999",
            "m abc",
            "m {{",
        ] {
            assert!(parse_series(bad).is_err(), "{bad}");
        }
        assert!(parse_metric("m 1").is_err());
    }
}
