//! How are native histograms stored? Column by column: one column for each bucket of each layout, so that a
//! bucket that rarely moves costs next to nothing. Bytes: `docs/format/block-values.md`.

use std::sync::Arc;

use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::sample::HistogramValue;

use super::bytes::{DecodeError, Input, Result, put_varint, put_zigzag};
use super::{ints, values};

/// Most buckets of one histogram (both signs).
pub const MAX_BUCKETS: usize = 1 << 16;
const MAX_CELLS: usize = 1 << 24;

/// What histograms share that differ in counts only.
#[derive(Debug, Clone, PartialEq)]
struct Layout {
    schema: i32,
    zero_threshold: u64,
    positive: Vec<Span>,
    negative: Vec<Span>,
    custom: Arc<[f64]>,
    /// Numbers of bucket values; those of a well-formed histogram follow from the spans.
    buckets: (usize, usize),
}

impl Layout {
    fn write(&self, out: &mut Vec<u8>) {
        put_zigzag(out, i64::from(self.schema));
        out.extend_from_slice(&self.zero_threshold.to_le_bytes());
        for spans in [&self.positive, &self.negative] {
            put_varint(out, spans.len() as u64);
            for span in spans {
                put_zigzag(out, i64::from(span.offset));
                put_varint(out, u64::from(span.length));
            }
        }
        put_varint(out, self.custom.len() as u64);
        values::encode(&self.custom, out);
        put_varint(out, self.buckets.0 as u64);
        put_varint(out, self.buckets.1 as u64);
    }

    fn read(input: &mut Input<'_>) -> Result<Self> {
        let schema = i32::try_from(input.zigzag()?).map_err(|_| DecodeError("impossible schema"))?;
        let zero_threshold = input.u64()?;
        let mut spans = [Vec::new(), Vec::new()];
        for spans in &mut spans {
            for _ in 0..input.count(MAX_BUCKETS)? {
                let offset = i32::try_from(input.zigzag()?).map_err(|_| DecodeError("impossible span"))?;
                spans.push(Span { offset, length: input.varint32()? });
            }
        }
        let [positive, negative] = spans;
        let mut custom = Vec::new();
        let bounds = input.count(MAX_BUCKETS)?;
        values::decode(input, bounds, &mut custom)?;
        let buckets = (input.count(MAX_BUCKETS)?, input.count(MAX_BUCKETS)?);
        Ok(Self { schema, zero_threshold, positive, negative, custom: custom.into(), buckets })
    }
}

fn layout_of(h: &HistogramValue) -> Layout {
    match h {
        HistogramValue::Integer(h) => Layout {
            schema: h.schema,
            zero_threshold: h.zero_threshold.to_bits(),
            positive: h.positive_spans.clone(),
            negative: h.negative_spans.clone(),
            custom: Arc::clone(&h.custom_values),
            buckets: (h.positive_buckets.len(), h.negative_buckets.len()),
        },
        HistogramValue::Float(h) => Layout {
            schema: h.schema,
            zero_threshold: h.zero_threshold.to_bits(),
            positive: h.positive_spans.clone(),
            negative: h.negative_spans.clone(),
            custom: Arc::clone(&h.custom_values),
            buckets: (h.positive_buckets.len(), h.negative_buckets.len()),
        },
    }
}

fn hint_code(hint: CounterResetHint) -> i64 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

fn hint_of(code: i64) -> Result<CounterResetHint> {
    Ok(match code {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => return Err(DecodeError("unknown counter reset hint")),
    })
}

/// A column of numbers of either kind of histogram.
enum Column {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
}

impl Column {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Column::Integers(v) => ints::encode(v, out),
            Column::Floats(v) => {
                values::encode(v, out);
            }
        }
    }

    fn read(integers: bool, input: &mut Input<'_>, n: usize) -> Result<Self> {
        if integers {
            let mut out = Vec::new();
            ints::decode(input, n, &mut out)?;
            Ok(Column::Integers(out))
        } else {
            let mut out = Vec::new();
            values::decode(input, n, &mut out)?;
            Ok(Column::Floats(out))
        }
    }

    fn integer(&self, i: usize) -> i64 {
        match self {
            Column::Integers(v) => v.get(i).copied().unwrap_or(0),
            Column::Floats(_) => 0,
        }
    }

    fn float(&self, i: usize) -> f64 {
        match self {
            Column::Floats(v) => v.get(i).copied().unwrap_or(0.0),
            Column::Integers(_) => 0.0,
        }
    }
}

/// Whether all of `items` are of the kind that `integers` says.
#[must_use]
pub fn is_uniform(items: &[(i64, HistogramValue)], integers: bool) -> bool {
    items.iter().all(|(_, h)| matches!(h, HistogramValue::Integer(_)) == integers)
}

/// Appends a column of histograms, all integer or all float; neither the kind nor the length is stored.
pub fn encode(items: &[(i64, HistogramValue)], integers: bool, out: &mut Vec<u8>) {
    if items.is_empty() {
        return;
    }
    let mut layouts: Vec<Layout> = Vec::new();
    let mut layout_ids = Vec::with_capacity(items.len());
    let mut hints = Vec::with_capacity(items.len());
    let mut sums = Vec::with_capacity(items.len());
    for (_, h) in items {
        let layout = layout_of(h);
        // The newest is the likeliest.
        let id = layouts.iter().rposition(|l| *l == layout).unwrap_or_else(|| {
            layouts.push(layout);
            layouts.len() - 1
        });
        layout_ids.push(id as i64);
        let (hint, sum) = match h {
            HistogramValue::Integer(h) => (h.counter_reset_hint, h.sum),
            HistogramValue::Float(h) => (h.counter_reset_hint, h.sum),
        };
        hints.push(hint_code(hint));
        sums.push(sum);
    }
    put_varint(out, layouts.len() as u64);
    for layout in &layouts {
        layout.write(out);
    }
    ints::encode(&layout_ids, out);
    ints::encode(&hints, out);
    values::encode(&sums, out);
    for pick in [Cell::Count, Cell::ZeroCount] {
        column(items.iter().map(|(_, h)| h), integers, pick).write(out);
    }
    for (id, layout) in layouts.iter().enumerate() {
        let members: Vec<&HistogramValue> =
            items.iter().zip(&layout_ids).filter(|(_, l)| **l == id as i64).map(|((_, h), _)| h).collect();
        for i in 0..layout.buckets.0 {
            column(members.iter().copied(), integers, Cell::Positive(i)).write(out);
        }
        for i in 0..layout.buckets.1 {
            column(members.iter().copied(), integers, Cell::Negative(i)).write(out);
        }
    }
}

#[derive(Clone, Copy)]
enum Cell {
    Count,
    ZeroCount,
    Positive(usize),
    Negative(usize),
}

fn column<'a>(items: impl Iterator<Item = &'a HistogramValue>, integers: bool, cell: Cell) -> Column {
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    // Deltas between neighbouring buckets move together over time, so that they are stored as they are.
    for h in items {
        match h {
            HistogramValue::Integer(h) => whole.push(match cell {
                Cell::Count => h.count.cast_signed(),
                Cell::ZeroCount => h.zero_count.cast_signed(),
                Cell::Positive(i) => h.positive_buckets.get(i).copied().unwrap_or(0),
                Cell::Negative(i) => h.negative_buckets.get(i).copied().unwrap_or(0),
            }),
            HistogramValue::Float(h) => parts.push(match cell {
                Cell::Count => h.count,
                Cell::ZeroCount => h.zero_count,
                Cell::Positive(i) => h.positive_buckets.get(i).copied().unwrap_or(0.0),
                Cell::Negative(i) => h.negative_buckets.get(i).copied().unwrap_or(0.0),
            }),
        }
    }
    if integers { Column::Integers(whole) } else { Column::Floats(parts) }
}

/// Reads `n` histograms.
pub fn decode(input: &mut Input<'_>, n: usize, integers: bool) -> Result<Vec<HistogramValue>> {
    if n == 0 {
        return Ok(Vec::new());
    }
    let count = input.count(n)?;
    let mut layouts = Vec::new();
    for _ in 0..count {
        layouts.push(Layout::read(input)?);
    }
    let (mut ids, mut hints, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    ints::decode(input, n, &mut ids)?;
    ints::decode(input, n, &mut hints)?;
    values::decode(input, n, &mut sums)?;
    let counts = Column::read(integers, input, n)?;
    let zeros = Column::read(integers, input, n)?;
    let mut places: Vec<Option<HistogramValue>> = vec![None; n];
    for (id, layout) in layouts.iter().enumerate() {
        let members: Vec<usize> = (0..n).filter(|i| ids.get(*i) == Some(&(id as i64))).collect();
        let cells = members.len().saturating_mul(layout.buckets.0 + layout.buckets.1);
        if cells > MAX_CELLS {
            return Err(DecodeError("more than 16777216 bucket values in one chunk"));
        }
        let mut columns = |k: usize| -> Result<Vec<Column>> {
            (0..k).map(|_| Column::read(integers, input, members.len())).collect()
        };
        let (positive, negative) = (columns(layout.buckets.0)?, columns(layout.buckets.1)?);
        for (row, &i) in members.iter().enumerate() {
            let counter_reset_hint = hint_of(hints.get(i).copied().unwrap_or(0))?;
            let sum = sums.get(i).copied().unwrap_or(0.0);
            let zero_threshold = f64::from_bits(layout.zero_threshold);
            let value = if integers {
                HistogramValue::Integer(Arc::new(Histogram {
                    counter_reset_hint,
                    schema: layout.schema,
                    zero_threshold,
                    zero_count: zeros.integer(i).cast_unsigned(),
                    count: counts.integer(i).cast_unsigned(),
                    sum,
                    positive_spans: layout.positive.clone(),
                    negative_spans: layout.negative.clone(),
                    positive_buckets: positive.iter().map(|c| c.integer(row)).collect(),
                    negative_buckets: negative.iter().map(|c| c.integer(row)).collect(),
                    custom_values: Arc::clone(&layout.custom),
                }))
            } else {
                HistogramValue::Float(Arc::new(FloatHistogram {
                    counter_reset_hint,
                    schema: layout.schema,
                    zero_threshold,
                    zero_count: zeros.float(i),
                    count: counts.float(i),
                    sum,
                    positive_spans: layout.positive.clone(),
                    negative_spans: layout.negative.clone(),
                    positive_buckets: positive.iter().map(|c| c.float(row)).collect(),
                    negative_buckets: negative.iter().map(|c| c.float(row)).collect(),
                    custom_values: Arc::clone(&layout.custom),
                }))
            };
            if let Some(place) = places.get_mut(i) {
                *place = Some(value);
            }
        }
    }
    places.into_iter().collect::<Option<Vec<_>>>().ok_or(DecodeError("histogram without a layout"))
}

/// Whether two histograms are the same to the last bit, NaN included.
#[must_use]
pub fn same_bits(a: &HistogramValue, b: &HistogramValue) -> bool {
    fn floats(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
    }
    if layout_of(a) != layout_of(b) {
        // Bounds may be NaN, which equals nothing: compare their bits.
        let (mut x, mut y) = (layout_of(a), layout_of(b));
        let bounds = floats(&x.custom, &y.custom);
        (x.custom, y.custom) = (Arc::default(), Arc::default());
        if !bounds || x != y {
            return false;
        }
    }
    match (a, b) {
        (HistogramValue::Integer(a), HistogramValue::Integer(b)) => {
            a.counter_reset_hint == b.counter_reset_hint
                && (a.count, a.zero_count, a.sum.to_bits()) == (b.count, b.zero_count, b.sum.to_bits())
                && a.positive_buckets == b.positive_buckets
                && a.negative_buckets == b.negative_buckets
        }
        (HistogramValue::Float(a), HistogramValue::Float(b)) => {
            a.counter_reset_hint == b.counter_reset_hint
                && floats(&[a.count, a.zero_count, a.sum], &[b.count, b.zero_count, b.sum])
                && floats(&a.positive_buckets, &b.positive_buckets)
                && floats(&a.negative_buckets, &b.negative_buckets)
        }
        _ => false,
    }
}
