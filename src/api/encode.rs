//! How do query results look in JSON? Vectors, matrices, scalars and strings, streamed series by series.

use super::json;
use super::reply::Out;
use crate::model::histogram::FloatHistogram;
use crate::model::number::{VALUE_BYTES, format_plain, put_api, write_api};
use crate::query::crew::{Helpers, in_order};
use crate::query::value::PointValue;
use crate::query::{Explanation, MatrixSeries, PlanNode, QueryStats, QueryValue, VectorSample};

/// Points between two looks at the buffer.
const POINTS_BETWEEN_FLUSHES: usize = 256;
/// Bytes of a point with many digits.
const LONG_POINT: usize = 48;
/// Bytes that hold the beginning of every point.
const OPENING_BYTES: usize = 32;
/// Bytes that hold every point.
const POINT_BYTES: usize = 1 + OPENING_BYTES + VALUE_BYTES + 2;
/// Points that are written on several cores.
const WORTH_HELP: usize = 16 << 10;
/// Points of one part then, about.
const PART: usize = 4 << 10;

/// Writes `{"resultType":…,"result":…}` with statistics where asked for.
pub fn query_data(out: &mut Out, value: &QueryValue, stats: Option<(&QueryStats, bool)>) {
    match value {
        QueryValue::Scalar { t_ms, value } => {
            out.raw("{\"resultType\":\"scalar\",\"result\":[");
            json::timestamp(&mut out.buf, *t_ms);
            out.raw(",");
            // Scalars never have an exponent, unlike values of series.
            out.raw(&format!("\"{}\"]", format_plain(*value)));
        }
        QueryValue::String { t_ms, value } => {
            out.raw("{\"resultType\":\"string\",\"result\":[");
            json::timestamp(&mut out.buf, *t_ms);
            out.raw(",");
            json::string(&mut out.buf, value);
            out.raw("]");
        }
        QueryValue::Vector(samples) => {
            out.raw("{\"resultType\":\"vector\",\"result\":[");
            for (i, sample) in samples.iter().enumerate() {
                if i > 0 {
                    out.raw(",");
                }
                vector_sample(&mut out.buf, sample);
                out.flush_if_full();
                if out.is_gone() {
                    return;
                }
            }
            out.raw("]");
        }
        QueryValue::Matrix(series) => {
            out.raw("{\"resultType\":\"matrix\",\"result\":[");
            matrix(out, series);
            out.raw("]");
        }
    }
    if let Some((stats, per_step)) = stats {
        out.raw(",\"stats\":");
        query_stats(&mut out.buf, stats, per_step);
    }
    out.raw("}");
}

fn vector_sample(out: &mut Vec<u8>, sample: &VectorSample) {
    out.extend_from_slice(b"{\"metric\":");
    json::labels(out, &sample.labels);
    match &sample.value {
        PointValue::Float(value) => {
            out.extend_from_slice(b",\"value\":");
            float_point(out, sample.t_ms, *value);
        }
        PointValue::Histogram(histogram) => {
            out.extend_from_slice(b",\"histogram\":");
            histogram_point(out, sample.t_ms, histogram);
        }
    }
    out.push(b'}');
}

fn matrix(out: &mut Out, series: &[MatrixSeries]) {
    let points: usize = series.iter().map(|s| s.floats.len()).sum();
    let longest = series.iter().map(|s| s.floats.len()).max().unwrap_or(0);
    let worth = points >= WORTH_HELP && longest < WORTH_HELP;
    let helpers = Helpers::ask(if worth { series.len() - 1 } else { 0 });
    if helpers.count() == 0 {
        let mut times = Times::default();
        for (i, series) in series.iter().enumerate() {
            if i > 0 {
                out.raw(",");
            }
            matrix_series(out, series, &mut times);
            out.flush_if_full();
            if out.is_gone() {
                return;
            }
        }
        return;
    }
    let size = (PART * series.len() / points).max(1);
    let compute = |number: usize, times: &mut Times| {
        let mut text = Vec::with_capacity(PART * LONG_POINT);
        for (k, series) in series.iter().enumerate().skip(number * size).take(size) {
            if k > 0 {
                text.push(b',');
            }
            matrix_series(&mut text, series, times);
        }
        Ok(text)
    };
    // It ends early when nobody reads any more.
    let _ = in_order(helpers, series.len().div_ceil(size), compute, |_, text| {
        out.part(text);
        if out.is_gone() { Err(()) } else { Ok(()) }
    });
}

/// Where a series is written to.
trait Page {
    fn text(&mut self) -> &mut Vec<u8>;
    /// Called now and then; what is written may leave.
    fn turn(&mut self) {}
}

impl Page for Vec<u8> {
    fn text(&mut self) -> &mut Vec<u8> {
        self
    }
}

impl Page for Out {
    fn text(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    fn turn(&mut self) {
        self.flush_if_full();
    }
}

fn matrix_series(page: &mut impl Page, series: &MatrixSeries, times: &mut Times) {
    page.text().extend_from_slice(b"{\"metric\":");
    json::labels(page.text(), &series.labels);
    if !series.floats.is_empty() {
        page.text().extend_from_slice(b",\"values\":[");
        times.rewind();
        for (i, points) in series.floats.chunks(POINTS_BETWEEN_FLUSHES).enumerate() {
            if i > 0 {
                page.text().push(b',');
            }
            float_points(page.text(), points, times);
            page.turn();
        }
        page.text().push(b']');
    }
    if !series.histograms.is_empty() {
        page.text().extend_from_slice(b",\"histograms\":[");
        for (i, (t_ms, histogram)) in series.histograms.iter().enumerate() {
            if i > 0 {
                page.text().push(b',');
            }
            histogram_point(page.text(), *t_ms, histogram);
            page.turn();
        }
        page.text().push(b']');
    }
    page.text().push(b'}');
}

/// Points with commas between them, written into room that is there already: each costs a few moves.
fn float_points(out: &mut Vec<u8>, points: &[(i64, f64)], times: &mut Times) {
    let begin = out.len();
    out.resize(begin + points.len() * POINT_BYTES, 0);
    let room = &mut out[begin..];
    let mut at = 0;
    for (t_ms, value) in points {
        let (opening, len) = times.opening(*t_ms);
        room[at..at + OPENING_BYTES].copy_from_slice(&opening);
        at += len;
        if let Some(place) = room[at..].first_chunk_mut() {
            at += put_api(place, *value);
        }
        room[at..at + 3].copy_from_slice(b"\"],");
        at += 3;
    }
    out.truncate(begin + at - usize::from(at > 0));
}

/// How points begin: `[`, the time, `,"`. Series of one query share their times, so each is written once.
#[derive(Default)]
struct Times {
    /// In order of time.
    known: Vec<(i64, [u8; OPENING_BYTES], u8)>,
    at: usize,
    missed: usize,
}

impl Times {
    /// Most times to keep.
    const MOST: usize = 16 << 10;

    /// Before the points of a series.
    fn rewind(&mut self) {
        // What the series so far have in common is not what this kind of series has.
        if self.missed > self.known.len() {
            self.known.clear();
        }
        (self.at, self.missed) = (0, 0);
    }

    /// The beginning of the point at `t_ms`; within a series times ascend.
    #[inline]
    fn opening(&mut self, t_ms: i64) -> ([u8; OPENING_BYTES], usize) {
        while let Some((known, text, len)) = self.known.get(self.at)
            && *known <= t_ms
        {
            self.at += 1;
            if *known == t_ms {
                return (*text, *len as usize);
            }
        }
        self.write(t_ms)
    }

    fn write(&mut self, t_ms: i64) -> ([u8; OPENING_BYTES], usize) {
        let mut text = [0; OPENING_BYTES];
        let mut written = [0; json::TIMESTAMP_BYTES];
        let len = json::put_timestamp(&mut written, t_ms);
        text[0] = b'[';
        text[1..=json::TIMESTAMP_BYTES].copy_from_slice(&written);
        text[len + 1..len + 3].copy_from_slice(b",\"");
        let len = len + 3;
        if self.at < self.known.len() || self.at >= Self::MOST {
            self.missed += 1;
        } else {
            self.known.push((t_ms, text, len as u8));
            self.at += 1;
        }
        (text, len)
    }
}

fn float_point(out: &mut Vec<u8>, t_ms: i64, value: f64) {
    out.push(b'[');
    json::timestamp(out, t_ms);
    out.extend_from_slice(b",\"");
    write_api(out, value);
    out.extend_from_slice(b"\"]");
}

fn histogram_point(out: &mut Vec<u8>, t_ms: i64, histogram: &FloatHistogram) {
    out.push(b'[');
    json::timestamp(out, t_ms);
    out.push(b',');
    write_histogram(out, histogram);
    out.push(b']');
}

/// Writes `{"count":…,"sum":…,"buckets":[…]}`; empty buckets are left out, and the key when none is left.
pub fn write_histogram(out: &mut Vec<u8>, histogram: &FloatHistogram) {
    out.extend_from_slice(b"{\"count\":");
    json::sample_value(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    json::sample_value(out, histogram.sum);
    let mut any = false;
    for bucket in histogram.api_buckets() {
        out.extend_from_slice(if any { b",[" } else { b",\"buckets\":[[" });
        any = true;
        out.push(b'0' + bucket.boundary_rule);
        for number in [bucket.lower, bucket.upper, bucket.count] {
            out.extend_from_slice(b",\"");
            write_api(out, number);
            out.push(b'"');
        }
        out.push(b']');
    }
    if any {
        out.push(b']');
    }
    out.push(b'}');
}

/// Writes `{"plan":…,"stats":…}`.
pub fn explanation(out: &mut Vec<u8>, explained: &Explanation) {
    let mut object = json::Object::open(out);
    plan_node(object.key("plan"), &explained.plan);
    query_stats(object.key("stats"), &explained.stats, false);
    object.close();
}

/// Plans are shown down to a fixed level, which bounds the recursion.
fn plan_node(out: &mut Vec<u8>, node: &PlanNode) {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut object = json::Object::open(out);
    object.text("kind", node.kind).text("name", node.name).text("text", &node.text);
    object
        .boolean("constant", node.constant)
        .integer("series", whole(node.series))
        .integer("samples", whole(node.samples))
        .float("seconds", node.seconds)
        .float("ownSeconds", node.own_seconds);
    json::list(object.key("children"), &node.children, plan_node);
    object.close();
}

/// Writes the statistics of a query.
pub fn query_stats(out: &mut Vec<u8>, stats: &QueryStats, per_step: bool) {
    let mut object = json::Object::open(out);
    let mut timings = json::Object::open(object.key("timings"));
    timings
        .float("evalTotalTime", stats.eval_total_time)
        .float("resultSortTime", stats.result_sort_time)
        .float("queryPreparationTime", stats.query_preparation_time)
        .float("innerEvalTime", stats.inner_eval_time)
        .float("execQueueTime", stats.exec_queue_time)
        .float("execTotalTime", stats.exec_total_time);
    timings.close();
    let mut samples = json::Object::open(object.key("samples"));
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    if per_step {
        json::list(samples.key("totalQueryableSamplesPerStep"), &stats.samples_per_step, |out, (t_ms, n)| {
            out.push(b'[');
            json::timestamp(out, *t_ms);
            out.push(b',');
            json::integer(out, whole(*n));
            out.push(b']');
        });
    }
    samples
        .integer("totalQueryableSamples", whole(stats.total_queryable_samples))
        .integer("samplesRead", whole(stats.samples_read))
        .integer("peakSamples", whole(stats.peak_samples))
        .integer("peakBytes", whole(stats.peak_bytes));
    samples.close();
    object.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;
    use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

    #[test]
    fn times_are_those_of_the_points_however_series_differ() {
        let grids: [&[i64]; 6] = [
            &[5_000],
            &[1_000, 2_500, 4_000, 5_000, 7_001],
            &[-1_500, 0, 2_500, 4_000],
            &[1_000, 2_500, 4_000, 5_000, 7_001],
            &[],
            &[3_000, 9_223_372_036_854_775_807],
        ];
        let mut times = Times::default();
        for grid in grids {
            let floats: Vec<(i64, f64)> = grid.iter().map(|t| (*t, *t as f64 / 8.0)).collect();
            let mut want = Vec::new();
            for (i, (t, v)) in floats.iter().enumerate() {
                want.extend_from_slice(if i > 0 { b"," } else { b"" });
                float_point(&mut want, *t, *v);
            }
            let mut found = Vec::new();
            matrix_series(
                &mut found,
                &MatrixSeries { labels: Labels::empty(), floats, histograms: vec![] },
                &mut times,
            );
            let values = if grid.is_empty() {
                String::new()
            } else {
                format!(",\"values\":[{}]", String::from_utf8_lossy(&want))
            };
            assert_eq!(String::from_utf8(found).unwrap(), format!("{{\"metric\":{{}}{values}}}"));
        }
    }

    fn written(histogram: &FloatHistogram) -> String {
        let mut out = Vec::new();
        write_histogram(&mut out, histogram);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn buckets_say_which_bounds_belong_to_them() {
        let custom = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 2.0,
            sum: 3.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 1.0],
            custom_values: vec![1.0].into(),
            ..FloatHistogram::default()
        };
        let want = r#"{"count":"2","sum":"3","buckets":[[3,"-Inf","1","1"],[0,"1","+Inf","1"]]}"#;
        assert_eq!(written(&custom), want);
        let exponential = FloatHistogram {
            zero_threshold: 0.6,
            zero_count: 2.0,
            count: 6.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 0.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![3.0],
            ..FloatHistogram::default()
        };
        let want =
            r#"{"count":"6","sum":"0","buckets":[[1,"-2","-1","3"],[3,"-0.6","0.6","2"],[0,"0.6","1","1"]]}"#;
        assert_eq!(written(&exponential), want);
        assert_eq!(written(&FloatHistogram::default()), r#"{"count":"0","sum":"0"}"#);
    }
}
