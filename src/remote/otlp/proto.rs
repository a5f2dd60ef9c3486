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

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;
    use crate::remote::wire_out::{bytes, double, packed, packed_doubles, text, unsigned, varint, zigzag};

    fn message(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        build(&mut out);
        out
    }

    fn fixed(out: &mut Vec<u8>, number: u32, v: u64) {
        varint(out, u64::from(number) << 3 | 1);
        out.extend_from_slice(&v.to_le_bytes());
    }

    fn attribute_message(key: &str, value: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        message(|out| {
            text(out, 1, key);
            bytes(out, 2, &message(value));
        })
    }

    /// A request with one metric.
    fn wrapped(metric: &[u8]) -> Vec<u8> {
        let resource = message(|o| bytes(o, 1, &attribute_message("r", |v| text(v, 1, "x"))));
        let scope = message(|o| {
            text(o, 1, "lib");
            text(o, 2, "1.0");
        });
        let scopes = message(|o| {
            bytes(o, 1, &scope);
            bytes(o, 2, metric);
            text(o, 3, "http://s");
        });
        let all = message(|o| {
            bytes(o, 1, &resource);
            bytes(o, 2, &scopes);
        });
        message(|o| bytes(o, 1, &all))
    }

    fn wrapped_json(metric: &str) -> String {
        format!(
            r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"r","value":{{"stringValue":"x"}}}}]}},
            "scopeMetrics":[{{"scope":{{"name":"lib","version":"1.0"}},"schemaUrl":"http://s","metrics":[{metric}]}}]}}]}}"#
        )
    }

    fn timed(o: &mut Vec<u8>) {
        fixed(o, 2, 1_000);
        fixed(o, 3, 2_000);
    }

    const TIMES: &str = r#""startTimeUnixNano":"1000","timeUnixNano":"2000""#;

    #[test]
    fn both_forms_say_the_same() {
        let sum_point = message(|o| {
            timed(o);
            fixed(o, 6, (-5i64) as u64);
            bytes(o, 7, &attribute_message("a", |v| unsigned(v, 3, (-7i64) as u64)));
            bytes(
                o,
                7,
                &attribute_message("l", |v| {
                    let item = message(|i| double(i, 4, 1.5, true));
                    bytes(v, 5, &message(|l| bytes(l, 1, &item)));
                }),
            );
            unsigned(o, 8, 1);
            bytes(
                o,
                5,
                &message(|e| {
                    fixed(e, 2, 9);
                    double(e, 3, 0.5, true);
                    bytes(e, 4, &[1, 2]);
                    bytes(e, 5, &[3, 255]);
                }),
            );
        });
        let histogram_point = message(|o| {
            timed(o);
            fixed(o, 4, 3);
            double(o, 5, 6.5, true);
            bytes(o, 6, &[1u64, 2].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
            packed_doubles(o, 7, &[2.5]);
            bytes(o, 9, &attribute_message("b", |v| unsigned(v, 2, 1)));
        });
        let exponential_point = message(|o| {
            bytes(o, 1, &attribute_message("c", |v| bytes(v, 7, b"hi")));
            timed(o);
            fixed(o, 4, 6);
            unsigned(o, 6, zigzag(-2));
            fixed(o, 7, 1);
            let side = message(|b| {
                unsigned(b, 1, zigzag(-3));
                packed(b, 2, [2, 300]);
            });
            bytes(o, 8, &side);
        });
        let summary_point = message(|o| {
            timed(o);
            fixed(o, 4, 2);
            double(o, 5, 1.5, true);
            bytes(
                o,
                6,
                &message(|q| {
                    double(q, 1, 0.5, true);
                    double(q, 2, 7.0, true);
                }),
            );
        });
        let metric = |number: u32, point: &[u8], more: &dyn Fn(&mut Vec<u8>)| {
            message(|o| {
                text(o, 1, "m");
                text(o, 2, "d");
                text(o, 3, "s");
                bytes(
                    o,
                    number,
                    &message(|d| {
                        bytes(d, 1, point);
                        more(d);
                    }),
                );
            })
        };
        let rows = [
            (
                metric(7, &sum_point, &|d| {
                    unsigned(d, 2, 2);
                    unsigned(d, 3, 1);
                }),
                format!(
                    r#""sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{{{TIMES},"asInt":"-5","flags":1,"attributes":[
                    {{"key":"a","value":{{"intValue":"-7"}}}},{{"key":"l","value":{{"arrayValue":{{"values":[{{"doubleValue":1.5}}]}}}}}}],
                    "exemplars":[{{"timeUnixNano":"9","asDouble":0.5,"spanId":"0102","traceId":"03ff"}}]}}]}}"#
                ),
            ),
            (
                metric(9, &histogram_point, &|d| unsigned(d, 2, 1)),
                format!(
                    r#""histogram":{{"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA","dataPoints":[{{{TIMES},"count":"3","sum":6.5,
                    "bucketCounts":["1",2],"explicitBounds":[2.5],"attributes":[{{"key":"b","value":{{"boolValue":true}}}}]}}]}}"#
                ),
            ),
            (
                metric(10, &exponential_point, &|d| unsigned(d, 2, 2)),
                format!(
                    r#""exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{{{TIMES},"count":6,"scale":-2,"zeroCount":"1",
                    "positive":{{"offset":-3,"bucketCounts":["2","300"]}},"attributes":[{{"key":"c","value":{{"bytesValue":"aGk="}}}}]}}]}}"#
                ),
            ),
            (
                metric(11, &summary_point, &|_| {}),
                format!(
                    r#""summary":{{"dataPoints":[{{{TIMES},"count":"2","sum":1.5,"quantileValues":[{{"quantile":0.5,"value":7}}]}}]}}"#
                ),
            ),
        ];
        for (binary, data) in rows {
            let text = wrapped_json(&format!(r#"{{"name":"m","description":"d","unit":"s",{data}}}"#));
            let from_json = json::request(text.as_bytes()).expect("readable");
            let whole = wrapped(&binary);
            assert_eq!(request(&whole).expect("readable"), from_json);
            for end in 0..whole.len() {
                // Whatever it is, it must not panic.
                let _ = request(&whole[..end]);
            }
        }
    }
}
