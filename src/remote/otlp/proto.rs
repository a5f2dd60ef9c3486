//! OpenTelemetry's metrics in protobuf. Field numbers are those of `opentelemetry-proto` 1.x.

use super::model::{
    AnyValue, Attributes, Buckets, Data, ExponentialPoint, HistogramPoint, Metric, NumberPoint, OtlpExemplar,
    Point, ResourceMetrics, ScopeMetrics, SummaryPoint, Temporality,
};
use crate::remote::wire::{Field, Fields, Value, WireError};

/// How deep values may lie in one another.
const MAX_DEPTH: u32 = 32;

type Read<T> = Result<T, WireError>;

fn text(field: &Field<'_>) -> Read<String> {
    field.text().map(str::to_owned)
}

fn fixed64(field: &Field<'_>) -> Read<u64> {
    match field.value {
        Value::Fixed64(v) => Ok(v),
        _ => Err(WireError::WireType(field.number)),
    }
}

fn each<'a>(message: &'a [u8], mut take: impl FnMut(Field<'a>) -> Read<()>) -> Read<()> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        take(field)?;
    }
    Ok(())
}

/// Reads an `ExportMetricsServiceRequest`.
pub fn request(message: &[u8]) -> Read<Vec<ResourceMetrics>> {
    let mut out = Vec::new();
    each(message, |field| {
        if field.number == 1 {
            out.push(resource(field.bytes()?)?);
        }
        Ok(())
    })?;
    Ok(out)
}

fn resource(message: &[u8]) -> Read<ResourceMetrics> {
    let mut out = ResourceMetrics::default();
    each(message, |field| {
        match field.number {
            1 => each(field.bytes()?, |field| attribute(&field, 1, &mut out.attributes))?,
            2 => out.scopes.push(scope(field.bytes()?)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

fn scope(message: &[u8]) -> Read<ScopeMetrics> {
    let mut out = ScopeMetrics::default();
    each(message, |field| {
        match field.number {
            1 => each(field.bytes()?, |field| {
                match field.number {
                    1 => out.name = text(&field)?,
                    2 => out.version = text(&field)?,
                    _ => attribute(&field, 3, &mut out.attributes)?,
                }
                Ok(())
            })?,
            2 => out.metrics.push(metric(field.bytes()?)?),
            3 => out.schema_url = text(&field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

/// Takes an attribute if the field is one.
fn attribute(field: &Field<'_>, number: u32, out: &mut Attributes) -> Read<()> {
    if field.number == number {
        out.push(key_value(field.bytes()?, 0)?);
    }
    Ok(())
}

fn key_value(message: &[u8], depth: u32) -> Read<(String, AnyValue)> {
    let (mut key, mut value) = (String::new(), AnyValue::Empty);
    each(message, |field| {
        match field.number {
            1 => key = text(&field)?,
            2 => value = any(field.bytes()?, depth)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

fn any(message: &[u8], depth: u32) -> Read<AnyValue> {
    if depth > MAX_DEPTH {
        return Err(WireError::Limit("a value has more than 32 levels"));
    }
    let mut out = AnyValue::Empty;
    each(message, |field| {
        out = match field.number {
            1 => AnyValue::Text(text(&field)?),
            2 => AnyValue::Bool(field.unsigned()? != 0),
            3 => AnyValue::Int(field.signed()?),
            4 => AnyValue::Double(field.double()?),
            5 => {
                let mut list = Vec::new();
                each(field.bytes()?, |field| {
                    if field.number == 1 {
                        list.push(any(field.bytes()?, depth + 1)?);
                    }
                    Ok(())
                })?;
                AnyValue::Array(list)
            }
            6 => {
                let mut map = Vec::new();
                each(field.bytes()?, |field| {
                    if field.number == 1 {
                        map.push(key_value(field.bytes()?, depth + 1)?);
                    }
                    Ok(())
                })?;
                AnyValue::Map(map)
            }
            7 => AnyValue::Bytes(field.bytes()?.to_vec()),
            _ => return Ok(()),
        };
        Ok(())
    })?;
    Ok(out)
}

fn metric(message: &[u8]) -> Read<Metric> {
    let mut out = Metric::default();
    each(message, |field| {
        match field.number {
            1 => out.name = text(&field)?,
            2 => out.description = text(&field)?,
            3 => out.unit = text(&field)?,
            5 => out.data = Data::Gauge(points(field.bytes()?, number)?.0),
            7 => {
                let (points, temporality, monotonic) = points(field.bytes()?, number)?;
                out.data = Data::Sum { points, temporality, monotonic };
            }
            9 => {
                let (points, temporality, _) = points(field.bytes()?, histogram)?;
                out.data = Data::Histogram(points, temporality);
            }
            10 => {
                let (points, temporality, _) = points(field.bytes()?, exponential)?;
                out.data = Data::Exponential(points, temporality);
            }
            11 => out.data = Data::Summary(points(field.bytes()?, summary)?.0),
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

fn points<T>(message: &[u8], read: fn(&[u8]) -> Read<T>) -> Read<(Vec<T>, Temporality, bool)> {
    let (mut out, mut temporality, mut monotonic) = (Vec::new(), Temporality::default(), false);
    each(message, |field| {
        match field.number {
            1 => out.push(read(field.bytes()?)?),
            2 => temporality = Temporality::of(field.unsigned()?),
            3 => monotonic = field.unsigned()? != 0,
            _ => {}
        }
        Ok(())
    })?;
    Ok((out, temporality, monotonic))
}

/// What all points have; field numbers of attributes, exemplars and flags differ.
fn common(field: &Field<'_>, out: &mut Point, [attributes, exemplars, flags]: [u32; 3]) -> Read<()> {
    match field.number {
        2 => out.start_ns = fixed64(field)?,
        3 => out.time_ns = fixed64(field)?,
        n if n == attributes => attribute(field, attributes, &mut out.attributes)?,
        n if n == exemplars => out.exemplars.push(exemplar(field.bytes()?)?),
        n if n == flags => out.no_value = field.unsigned()? & 1 != 0,
        _ => {}
    }
    Ok(())
}

fn number(message: &[u8]) -> Read<NumberPoint> {
    let mut out = NumberPoint::default();
    each(message, |field| {
        match field.number {
            4 => out.value = field.double()?,
            6 => out.value = fixed64(&field)? as i64 as f64,
            _ => common(&field, &mut out.point, [7, 5, 8])?,
        }
        Ok(())
    })?;
    Ok(out)
}

fn histogram(message: &[u8]) -> Read<HistogramPoint> {
    let mut out = HistogramPoint::default();
    each(message, |field| {
        match field.number {
            4 => out.count = fixed64(&field)?,
            5 => out.sum = Some(field.double()?),
            6 => field.each_double(|v| out.counts.push(v.to_bits()))?,
            7 => field.each_double(|v| out.bounds.push(v))?,
            _ => common(&field, &mut out.point, [9, 8, 10])?,
        }
        Ok(())
    })?;
    Ok(out)
}

fn buckets(message: &[u8]) -> Read<Buckets> {
    let mut out = Buckets::default();
    each(message, |field| {
        match field.number {
            1 => out.offset = field.zigzag32()?,
            2 => field.each_varint(|v| {
                out.counts.push(v);
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

fn exponential(message: &[u8]) -> Read<ExponentialPoint> {
    let mut out = ExponentialPoint::default();
    each(message, |field| {
        match field.number {
            4 => out.count = fixed64(&field)?,
            5 => out.sum = Some(field.double()?),
            6 => out.scale = field.zigzag32()?,
            7 => out.zero_count = fixed64(&field)?,
            8 => out.positive = buckets(field.bytes()?)?,
            9 => out.negative = buckets(field.bytes()?)?,
            _ => common(&field, &mut out.point, [1, 11, 10])?,
        }
        Ok(())
    })?;
    Ok(out)
}

fn summary(message: &[u8]) -> Read<SummaryPoint> {
    let mut out = SummaryPoint::default();
    each(message, |field| {
        match field.number {
            4 => out.count = fixed64(&field)?,
            5 => out.sum = field.double()?,
            6 => {
                let mut pair = (0.0, 0.0);
                each(field.bytes()?, |field| {
                    match field.number {
                        1 => pair.0 = field.double()?,
                        2 => pair.1 = field.double()?,
                        _ => {}
                    }
                    Ok(())
                })?;
                out.quantiles.push(pair);
            }
            _ => common(&field, &mut out.point, [7, 0, 8])?,
        }
        Ok(())
    })?;
    Ok(out)
}

fn exemplar(message: &[u8]) -> Read<OtlpExemplar> {
    let mut out = OtlpExemplar::default();
    each(message, |field| {
        match field.number {
            2 => out.time_ns = fixed64(&field)?,
            3 => out.value = field.double()?,
            4 => out.span_id = field.bytes()?.to_vec(),
            5 => out.trace_id = field.bytes()?.to_vec(),
            6 => out.value = fixed64(&field)? as i64 as f64,
            _ => attribute(&field, 7, &mut out.attributes)?,
        }
        Ok(())
    })?;
    Ok(out)
}
