//! Functions over distributions: `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`. A distribution
//! is a native histogram, or the classic buckets (`le`) of one histogram put together.

use std::sync::Arc;

use hashbrown::HashMap;

use super::build::Scalar;
use super::column::{Axis, Column, Meta, is_absent};
use super::context::{Context, Pace};
use super::merge::materialise;
use super::node::{Held, Node, Scratch};
use crate::model::histogram::FloatHistogram;
use crate::model::number::format_open_metrics;
use crate::model::{Labels, LabelsBuilder};
use crate::query::QueryError;
use crate::query::annotations::{ForcedMonotonicity, Note};
use crate::query::functions::histogram::{self, Bucket, NanEffect};
use crate::query::parse::Span;

/// What is asked of each distribution.
pub enum Ask {
    /// One quantile.
    Quantile(Scalar),
    /// Several quantiles, each under its own value of a label.
    Quantiles(String, Vec<Scalar>),
    /// The share of observations between two bounds.
    Fraction(Scalar, Scalar),
}

/// The series of one distribution.
#[derive(Default)]
struct Distribution {
    labels: Labels,
    /// Upper bound and series of each classic bucket.
    classic: Vec<(f64, usize)>,
    /// The series of native histograms.
    native: Option<usize>,
}

/// A function over distributions.
pub struct BucketNode {
    ctx: Arc<Context>,
    columns: Vec<Column>,
    axis: Axis,
    ask: Ask,
    distributions: Vec<Distribution>,
    metas: Vec<Meta>,
    /// Place of the vector argument.
    span: Span,
    _held: Held,
}

const LE: &str = "le";

impl BucketNode {
    /// Computes the series of `input` and puts them together to distributions. `param_spans` are the places of
    /// the quantiles, which are checked here.
    pub fn new(
        ctx: &Arc<Context>,
        input: &dyn Node,
        axis: Axis,
        ask: Ask,
        span: Span,
        param_spans: &[Span],
    ) -> Result<Self, QueryError> {
        let (series, columns, held) = materialise(ctx, input, axis)?;
        let quantiles: &[Scalar] = match &ask {
            Ask::Quantile(phi) => std::slice::from_ref(phi),
            Ask::Quantiles(_, phis) => phis,
            Ask::Fraction(..) => &[],
        };
        for (phi, span) in quantiles.iter().zip(param_spans) {
            for phi in (0..axis.n).map(|step| phi.at(step)).filter(|phi| !(0.0..=1.0).contains(phi)) {
                ctx.note(&Note::InvalidQuantile(phi), *span);
            }
        }
        let distributions = group(ctx, &series, &columns, span)?;
        let mut metas = Vec::new();
        for d in &distributions {
            match &ask {
                Ask::Quantiles(label, phis) => {
                    for phi in phis {
                        let mut labels = LabelsBuilder::new(&d.labels);
                        labels.set(label, &format_open_metrics(phi.at(0)));
                        metas.push(Meta { labels: labels.build(), drop_name: true });
                    }
                }
                _ => metas.push(Meta { labels: d.labels.clone(), drop_name: true }),
            }
        }
        Ok(Self { ctx: Arc::clone(ctx), columns, axis, ask, distributions, metas, span, _held: held })
    }

    /// Outputs of one distribution.
    fn width(&self) -> usize {
        if let Ask::Quantiles(_, phis) = &self.ask { phis.len().max(1) } else { 1 }
    }

    fn ask_native(&self, h: &FloatHistogram, phi: f64, metric: &str) -> f64 {
        let (v, nan) = histogram::histogram_quantile(phi, h);
        match nan {
            NanEffect::None => {}
            NanEffect::ResultIsNan => self.ctx.note(&Note::QuantileNanResult(metric), self.span),
            NanEffect::SkewedHigher => self.ctx.note(&Note::QuantileNanSkew(metric), self.span),
        }
        v
    }

    fn ask_classic(&self, buckets: &mut [Bucket], phi: f64, step: usize, metric: &str) -> f64 {
        let (v, forced) = histogram::bucket_quantile(phi, buckets);
        if let Some(forced) = forced {
            let t_ms = self.axis.time(step);
            let forced = ForcedMonotonicity {
                min_bucket: forced.min_bucket,
                max_bucket: forced.max_bucket,
                max_diff: forced.max_diff,
                min_t_ms: t_ms,
                max_t_ms: t_ms,
                count: 1,
            };
            self.ctx.note_forced(metric, forced, self.span);
        }
        v
    }
}

fn group(
    ctx: &Context,
    series: &[Meta],
    columns: &[Column],
    span: Span,
) -> Result<Vec<Distribution>, QueryError> {
    let mut pace = Pace::default();
    let delayed = ctx.rules.delayed_name_removal;
    let mut index: HashMap<Labels, usize, foldhash::fast::RandomState> = HashMap::default();
    let mut out: Vec<Distribution> = Vec::new();
    let mut find = |labels: Labels, out: &mut Vec<Distribution>| {
        let next = out.len();
        let at = *index.entry(labels.clone()).or_insert(next);
        if at == next {
            out.push(Distribution { labels, ..Distribution::default() });
        }
        at
    };
    for (i, (meta, column)) in series.iter().zip(columns).enumerate() {
        let seen = meta.seen(delayed);
        if column.values.iter().any(|v| !is_absent(*v)) {
            let le = seen.value(LE);
            match parse_bound(le) {
                Some(bound) => {
                    let at = find(seen.filter(|l| l.name != LE), &mut out);
                    out[at].classic.push((bound, i));
                }
                None => ctx.note(&Note::BadBucketLabel(seen.metric_name(), le), span),
            }
        }
        if !column.histograms.is_empty() {
            let at = find(seen, &mut out);
            out[at].native = Some(i);
        }
        pace.step(ctx, 256)?;
    }
    // Each step sorts its buckets: what is in order already takes one look.
    for d in &mut out {
        d.classic.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(out)
}

impl Node for BucketNode {
    fn metas(&self) -> &[Meta] {
        &self.metas
    }

    fn fill(&self, i: usize, _: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        out.reset(self.axis.n);
        let (d, which) = (&self.distributions[i / self.width()], i % self.width());
        let metric = d.labels.metric_name();
        let mut buckets: Vec<Bucket> = Vec::with_capacity(d.classic.len());
        let mut pace = Pace::default();
        for step in 0..self.axis.n {
            pace.step(&self.ctx, d.classic.len() * 8 + 1)?;
            buckets.clear();
            for (upper_bound, series) in &d.classic {
                let count = self.columns[*series].values[step];
                if !is_absent(count) {
                    buckets.push(Bucket { upper_bound: *upper_bound, count });
                }
            }
            let native = d.native.and_then(|series| self.columns[series].histogram(step));
            let value = match (native, buckets.is_empty()) {
                (None, true) => continue,
                (Some(_), false) => {
                    self.ctx.note(&Note::MixedClassicNative(metric), self.span);
                    continue;
                }
                (Some(h), true) => match &self.ask {
                    Ask::Quantile(phi) => self.ask_native(h, phi.at(step), metric),
                    Ask::Quantiles(_, phis) => self.ask_native(h, phis[which].at(step), metric),
                    Ask::Fraction(low, high) => {
                        let (v, nans) = histogram::histogram_fraction(low.at(step), high.at(step), h);
                        if nans {
                            self.ctx.note(&Note::FractionNans(metric), self.span);
                        }
                        v
                    }
                },
                (None, false) => match &self.ask {
                    Ask::Quantile(phi) => self.ask_classic(&mut buckets, phi.at(step), step, metric),
                    Ask::Quantiles(_, phis) => {
                        self.ask_classic(&mut buckets, phis[which].at(step), step, metric)
                    }
                    Ask::Fraction(low, high) => {
                        histogram::bucket_fraction(low.at(step), high.at(step), &mut buckets)
                    }
                },
            };
            out.values[step] = value;
        }
        Ok(())
    }

    fn cost(&self) -> usize {
        self.axis.n * 8
    }
}

/// A bucket bound as Go's `strconv.ParseFloat` reads it.
fn parse_bound(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    let negative = text.starts_with('-');
    match lower.as_str() {
        "inf" | "infinity" => Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY }),
        "nan" => (unsigned == text).then_some(f64::NAN),
        _ => text.parse().ok().filter(|v: &f64| v.is_finite()),
    }
}
