//! The metrics of this process as JSON: `/api/v1/status/self_metrics` answers the families in the JSON form of
//! `io.prometheus.client.MetricFamily`, for pages that show them without parsing the text format.

use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::json::{self, Object};
use super::reply::stream_json;
use super::routes::Call;
use crate::model::metadata::MetricType;
use crate::model::regex::AnchoredRegex;
use crate::query::CancelToken;
use crate::telemetry::{OutFamily, OutSample};

/// A double as JSON of protobuf has it: a number, or one of three words.
fn double(out: &mut Vec<u8>, value: f64) {
    let word = match value {
        v if v.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        v => return json::float(out, v),
    };
    json::string(out, word);
}

fn type_name(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Counter => "COUNTER",
        MetricType::Histogram => "HISTOGRAM",
        MetricType::Summary => "SUMMARY",
        MetricType::Gauge => "GAUGE",
        _ => "UNTYPED",
    }
}

/// Labels without the one that tells buckets or quantiles apart.
fn own_labels(sample: &OutSample) -> Vec<&(String, String)> {
    sample.labels.iter().filter(|(name, _)| name != "le" && name != "quantile").collect()
}

fn edge(sample: &OutSample, name: &str) -> f64 {
    let text = sample.labels.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v);
    if text == "+Inf" { f64::INFINITY } else { text.parse().unwrap_or(f64::NAN) }
}

/// Whole counts are texts, as 64 bits do not fit into a JSON number.
fn count(object: &mut Object<'_>, name: &str, value: f64) {
    object.text(name, &format!("{value:.0}"));
}

fn write_parts(out: &mut Vec<u8>, family: &OutFamily, samples: &[OutSample]) {
    let mut object = Object::open(out);
    let (list, label, at, amount) = match family.metric_type {
        MetricType::Histogram => ("bucket", "le", "upperBound", "cumulativeCount"),
        _ => ("quantile", "quantile", "quantile", "value"),
    };
    let find = |suffix: &str| {
        samples.iter().find(|s| s.name.strip_prefix(family.name.as_str()) == Some(suffix)).map(|s| s.value)
    };
    count(&mut object, "sampleCount", find("_count").unwrap_or(0.0));
    double(object.key("sampleSum"), find("_sum").unwrap_or(0.0));
    let edges = samples.iter().filter(|s| s.labels.iter().any(|(n, _)| n == label));
    json::list(object.key(list), edges, |out, sample| {
        let mut object = Object::open(out);
        if family.metric_type == MetricType::Histogram {
            count(&mut object, amount, sample.value);
            double(object.key(at), edge(sample, label));
        } else {
            double(object.key(at), edge(sample, label));
            double(object.key(amount), sample.value);
        }
        object.close();
    });
    object.close();
}

fn write_metric(out: &mut Vec<u8>, family: &OutFamily, samples: &[OutSample]) {
    let mut object = Object::open(out);
    let Some(first) = samples.first() else { return object.close() };
    let labels = own_labels(first);
    if !labels.is_empty() {
        json::list(object.key("label"), labels, |out, (name, value)| {
            json::pairs(out, [("name", name.as_str()), ("value", value.as_str())]);
        });
    }
    match family.metric_type {
        MetricType::Histogram => write_parts(object.key("histogram"), family, samples),
        MetricType::Summary => write_parts(object.key("summary"), family, samples),
        other => {
            let field = type_name(other).to_ascii_lowercase();
            let mut inner = Object::open(object.key(&field));
            double(inner.key("value"), first.value);
            inner.close();
        }
    }
    object.close();
}

/// Appends one family.
pub fn write_family(out: &mut Vec<u8>, family: &OutFamily) {
    let mut object = Object::open(out);
    object.text("name", &family.name).text("help", &family.help).text("type", type_name(family.metric_type));
    let metrics = family.samples.chunk_by(|a, b| own_labels(a) == own_labels(b));
    // Scalars of equal labels do not exist; parts of one histogram or summary stand together.
    json::list(object.key("metric"), metrics, |out, samples| write_metric(out, family, samples));
    object.close();
}

/// `/api/v1/status/self_metrics`
pub async fn self_metrics(call: Call) -> Response {
    let pattern = match call.params.first("metric_name_pattern") {
        "" => None,
        text => match AnchoredRegex::new(text) {
            Ok(regex) => Some(regex),
            Err(e) => return ApiError::parameter("metric_name_pattern", e).into_response(),
        },
    };
    stream_json(CancelToken::default(), move |out| {
        let mut families = call.api.registry.collect();
        families.retain(|family| pattern.as_ref().is_none_or(|p| p.is_match(&family.name)));
        out.success(&[], &[], |out| {
            out.raw("[");
            for (i, family) in families.iter().enumerate() {
                out.raw(if i > 0 { "," } else { "" });
                write_family(&mut out.buf, family);
                out.flush_if_full();
            }
            out.raw("]");
        });
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Registry;

    #[test]
    fn every_kind_has_its_message() {
        let registry = Registry::new();
        registry.counter("c_total", "C.", &[("code", "200")]).add(2.0);
        registry.counter("c_total", "C.", &[("code", "500")]).add(1.0);
        registry.gauge("g", "G.", &[]).set(f64::INFINITY);
        registry.histogram("h", "H.", &[0.5], &[("a", "b")]).observe(1.0);
        registry.summary("s", "S.", &[0.9], &[]);
        let mut out = Vec::new();
        super::json::list(&mut out, &registry.collect(), super::write_family);
        let got: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let want = serde_json::json!([
            {"name": "c_total", "help": "C.", "type": "COUNTER", "metric": [
                {"label": [{"name": "code", "value": "200"}], "counter": {"value": 2}},
                {"label": [{"name": "code", "value": "500"}], "counter": {"value": 1}}]},
            {"name": "g", "help": "G.", "type": "GAUGE", "metric": [{"gauge": {"value": "Infinity"}}]},
            {"name": "h", "help": "H.", "type": "HISTOGRAM", "metric": [
                {"label": [{"name": "a", "value": "b"}], "histogram": {"sampleCount": "1", "sampleSum": 1, "bucket": [
                    {"cumulativeCount": "0", "upperBound": 0.5},
                    {"cumulativeCount": "1", "upperBound": "Infinity"}]}}]},
            {"name": "s", "help": "S.", "type": "SUMMARY", "metric": [
                {"summary": {"sampleCount": "0", "sampleSum": 0, "quantile": [{"quantile": 0.9, "value": "NaN"}]}}]},
        ]);
        assert_eq!(got, want);
    }
}
