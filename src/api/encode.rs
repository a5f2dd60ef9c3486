//! How do query results look in JSON? Vectors, matrices, scalars and strings, streamed series by series.

use super::json;
use super::reply::Out;
use crate::model::histogram::FloatHistogram;
use crate::model::number::{format_plain, write_api};
use crate::query::value::PointValue;
use crate::query::{Explanation, MatrixSeries, PlanNode, QueryStats, QueryValue, VectorSample};

/// Points between two looks at the buffer.
const POINTS_BETWEEN_FLUSHES: usize = 1024;
/// Bytes of a point with many digits.
const LONG_POINT: usize = 40;

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
            for (i, series) in series.iter().enumerate() {
                if i > 0 {
                    out.raw(",");
                }
                matrix_series(out, series);
                out.flush_if_full();
                if out.is_gone() {
                    return;
                }
            }
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

fn matrix_series(out: &mut Out, series: &MatrixSeries) {
    out.raw("{\"metric\":");
    json::labels(&mut out.buf, &series.labels);
    if !series.floats.is_empty() {
        out.raw(",\"values\":[");
        for (i, points) in series.floats.chunks(POINTS_BETWEEN_FLUSHES).enumerate() {
            out.buf.reserve(points.len() * LONG_POINT);
            for (k, (t_ms, value)) in points.iter().enumerate() {
                if i + k > 0 {
                    out.buf.push(b',');
                }
                float_point(&mut out.buf, *t_ms, *value);
            }
            out.flush_if_full();
        }
        out.raw("]");
    }
    if !series.histograms.is_empty() {
        out.raw(",\"histograms\":[");
        for (i, (t_ms, histogram)) in series.histograms.iter().enumerate() {
            if i > 0 {
                out.buf.push(b',');
            }
            histogram_point(&mut out.buf, *t_ms, histogram);
            out.flush_if_full();
        }
        out.raw("]");
    }
    out.raw("}");
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
    use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

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
