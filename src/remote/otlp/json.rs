//! OpenTelemetry's metrics in JSON: names in camel case, 64-bit numbers as texts or numbers, enums as numbers or names,
//! identifiers of traces in hexadecimal.

use base64::Engine as _;
use serde_json::Value;

use super::model::{
    AnyValue, Attributes, Buckets, Data, ExponentialPoint, HistogramPoint, Metric, NumberPoint, OtlpExemplar,
    Point, ResourceMetrics, ScopeMetrics, SummaryPoint, Temporality,
};

type Read<T> = Result<T, String>;

/// Reads an export request. serde_json itself stops at 128 levels.
pub fn request(body: &[u8]) -> Read<Vec<ResourceMetrics>> {
    let value: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    if !value.is_object() {
        return Err("the request is not a JSON object".into());
    }
    list(&value, "resourceMetrics", |value| {
        let attributes = attributes(&value["resource"], "attributes")?;
        Ok(ResourceMetrics { attributes, scopes: list(value, "scopeMetrics", scope)? })
    })
}

fn list<T>(parent: &Value, key: &str, read: impl Fn(&Value) -> Read<T>) -> Read<Vec<T>> {
    match &parent[key] {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(read).collect(),
        _ => Err(format!("{key} is not a list")),
    }
}

fn text(parent: &Value, key: &str) -> Read<String> {
    match &parent[key] {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("{key} is not a text")),
    }
}

fn unsigned(parent: &Value, key: &str) -> Read<u64> {
    as_unsigned(&parent[key]).ok_or_else(|| format!("{key} is not a whole number"))
}

fn as_unsigned(value: &Value) -> Option<u64> {
    match value {
        Value::Null => Some(0),
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

fn as_signed(value: &Value) -> Option<i64> {
    match value {
        Value::Null => Some(0),
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

fn as_double(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok(),
        },
        other => other.as_f64(),
    }
}

fn double(parent: &Value, key: &str) -> Read<Option<f64>> {
    match &parent[key] {
        Value::Null => Ok(None),
        value => as_double(value).map(Some).ok_or_else(|| format!("{key} is not a number")),
    }
}

fn attributes(parent: &Value, key: &str) -> Read<Attributes> {
    list(parent, key, |value| Ok((text(value, "key")?, any(&value["value"])?)))
}

fn any(value: &Value) -> Read<AnyValue> {
    let Some((kind, content)) = value.as_object().and_then(|o| o.iter().next()) else {
        return Ok(AnyValue::Empty);
    };
    let bad = || format!("{kind} has another type");
    Ok(match kind.as_str() {
        "stringValue" => AnyValue::Text(content.as_str().ok_or_else(bad)?.to_owned()),
        "boolValue" => AnyValue::Bool(content.as_bool().ok_or_else(bad)?),
        "intValue" => AnyValue::Int(as_signed(content).ok_or_else(bad)?),
        "doubleValue" => AnyValue::Double(as_double(content).ok_or_else(bad)?),
        "arrayValue" => AnyValue::Array(list(content, "values", any)?),
        "kvlistValue" => AnyValue::Map(attributes(content, "values")?),
        "bytesValue" => {
            let text = content.as_str().ok_or_else(bad)?;
            AnyValue::Bytes(base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| bad())?)
        }
        _ => AnyValue::Empty,
    })
}

fn scope(value: &Value) -> Read<ScopeMetrics> {
    let scope = &value["scope"];
    Ok(ScopeMetrics {
        name: text(scope, "name")?,
        version: text(scope, "version")?,
        attributes: attributes(scope, "attributes")?,
        schema_url: text(value, "schemaUrl")?,
        metrics: list(value, "metrics", metric)?,
    })
}

fn temporality(value: &Value) -> Temporality {
    match &value["aggregationTemporality"] {
        Value::String(name) if name.ends_with("_DELTA") => Temporality::Delta,
        Value::String(name) if name.ends_with("_CUMULATIVE") => Temporality::Cumulative,
        other => Temporality::of(other.as_u64().unwrap_or(0)),
    }
}

fn metric(value: &Value) -> Read<Metric> {
    let has = |key: &str| value[key].is_object();
    let data = if has("gauge") {
        Data::Gauge(list(&value["gauge"], "dataPoints", number)?)
    } else if has("sum") {
        let sum = &value["sum"];
        Data::Sum {
            points: list(sum, "dataPoints", number)?,
            temporality: temporality(sum),
            monotonic: sum["isMonotonic"].as_bool().unwrap_or(false),
        }
    } else if has("histogram") {
        let histograms = &value["histogram"];
        Data::Histogram(list(histograms, "dataPoints", histogram)?, temporality(histograms))
    } else if has("exponentialHistogram") {
        let histograms = &value["exponentialHistogram"];
        Data::Exponential(list(histograms, "dataPoints", exponential)?, temporality(histograms))
    } else if has("summary") {
        Data::Summary(list(&value["summary"], "dataPoints", summary)?)
    } else {
        Data::Empty
    };
    Ok(Metric {
        name: text(value, "name")?,
        description: text(value, "description")?,
        unit: text(value, "unit")?,
        data,
    })
}

fn point(value: &Value) -> Read<Point> {
    Ok(Point {
        attributes: attributes(value, "attributes")?,
        start_ns: unsigned(value, "startTimeUnixNano")?,
        time_ns: unsigned(value, "timeUnixNano")?,
        no_value: unsigned(value, "flags")? & 1 != 0,
        exemplars: list(value, "exemplars", exemplar)?,
    })
}

fn either_number(value: &Value) -> Read<f64> {
    match (&value["asDouble"], &value["asInt"]) {
        (Value::Null, Value::Null) => Ok(0.0),
        (Value::Null, int) => as_signed(int).map(|v| v as f64).ok_or_else(|| "asInt is not a number".into()),
        (double, _) => as_double(double).ok_or_else(|| "asDouble is not a number".into()),
    }
}

fn number(value: &Value) -> Read<NumberPoint> {
    Ok(NumberPoint { point: point(value)?, value: either_number(value)? })
}

fn counts(value: &Value, key: &str) -> Read<Vec<u64>> {
    list(value, key, |v| as_unsigned(v).ok_or_else(|| format!("{key} has something else than numbers")))
}

fn histogram(value: &Value) -> Read<HistogramPoint> {
    Ok(HistogramPoint {
        point: point(value)?,
        count: unsigned(value, "count")?,
        sum: double(value, "sum")?,
        counts: counts(value, "bucketCounts")?,
        bounds: list(value, "explicitBounds", |v| {
            as_double(v).ok_or_else(|| "explicitBounds has something else than numbers".into())
        })?,
    })
}

fn buckets(value: &Value) -> Read<Buckets> {
    let offset = as_signed(&value["offset"]).and_then(|v| i32::try_from(v).ok());
    Ok(Buckets { offset: offset.ok_or("offset is not a number")?, counts: counts(value, "bucketCounts")? })
}

fn exponential(value: &Value) -> Read<ExponentialPoint> {
    let scale = as_signed(&value["scale"]).and_then(|v| i32::try_from(v).ok());
    Ok(ExponentialPoint {
        point: point(value)?,
        count: unsigned(value, "count")?,
        sum: double(value, "sum")?,
        scale: scale.ok_or("scale is not a number")?,
        zero_count: unsigned(value, "zeroCount")?,
        positive: buckets(&value["positive"])?,
        negative: buckets(&value["negative"])?,
    })
}

fn summary(value: &Value) -> Read<SummaryPoint> {
    Ok(SummaryPoint {
        point: point(value)?,
        count: unsigned(value, "count")?,
        sum: double(value, "sum")?.unwrap_or(0.0),
        quantiles: list(value, "quantileValues", |v| {
            Ok((double(v, "quantile")?.unwrap_or(0.0), double(v, "value")?.unwrap_or(0.0)))
        })?,
    })
}

fn hex(parent: &Value, key: &str) -> Read<Vec<u8>> {
    let text = text(parent, key)?;
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    digits.chunks(2).map(|pair| byte(pair).ok_or_else(|| format!("{key} is not hexadecimal"))).collect()
}

fn exemplar(value: &Value) -> Read<OtlpExemplar> {
    Ok(OtlpExemplar {
        attributes: attributes(value, "filteredAttributes")?,
        time_ns: unsigned(value, "timeUnixNano")?,
        value: either_number(value)?,
        trace_id: hex(value, "traceId")?,
        span_id: hex(value, "spanId")?,
    })
}
