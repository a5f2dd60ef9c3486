//! How does Meerkat measure itself? A registry of counters, gauges, histograms and summaries under Prometheus's
//! names, served at `/metrics` and scraped like any other target.
//!
//! Rooms create their instruments once, at start, from a [`Registry`] that is handed to them, and touch only
//! atomics afterwards. Numbers that live elsewhere (series in the head, bytes on disk) are read when somebody
//! asks, through [`Registry::on_collect`].

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::model::metadata::MetricType;
use crate::model::number::format_g;

/// The memory limit.
pub mod memory;
/// Where the time of a request goes.
pub mod spans;

type LabelPairs = Vec<(String, String)>;
type Callback = Box<dyn Fn() + Send + Sync>;

/// A number that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1.0);
    }

    /// Adds `by`, which must not be negative.
    pub fn add(&self, by: f64) {
        debug_assert!(by >= 0.0, "a counter cannot go down");
        add_float(&self.0, by);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Takes over a total that is counted elsewhere; it must never go down.
    pub fn set_total(&self, total: f64) {
        self.0.store(total.to_bits(), Ordering::Relaxed);
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, v: f64) {
        self.0.store(v.to_bits(), Ordering::Relaxed);
    }

    /// Adds `by`, negative too.
    pub fn add(&self, by: f64) {
        add_float(&self.0, by);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

fn add_float(cell: &AtomicU64, by: f64) {
    let mut old = cell.load(Ordering::Relaxed);
    loop {
        let new = (f64::from_bits(old) + by).to_bits();
        match cell.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(seen) => old = seen,
        }
    }
}

#[derive(Debug)]
struct HistogramState {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    sum: f64,
}

/// A classic histogram with fixed bounds.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Mutex<HistogramState>>);

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        let counts = vec![0; bounds.len() + 1];
        Self(Arc::new(Mutex::new(HistogramState { bounds: bounds.to_vec(), counts, sum: 0.0 })))
    }

    /// Counts one observation.
    pub fn observe(&self, v: f64) {
        let mut state = self.0.lock();
        let i = state.bounds.partition_point(|bound| *bound < v);
        state.counts[i] += 1;
        state.sum += v;
    }
}

const SUMMARY_WINDOW: usize = 512;

#[derive(Debug, Default)]
struct SummaryState {
    recent: std::collections::VecDeque<f64>,
    count: u64,
    sum: f64,
}

/// A summary: quantiles over the last 512 observations.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    state: Arc<Mutex<SummaryState>>,
    quantiles: Arc<[f64]>,
}

impl Summary {
    /// Counts one observation.
    pub fn observe(&self, v: f64) {
        let mut state = self.state.lock();
        if state.recent.len() == SUMMARY_WINDOW {
            state.recent.pop_front();
        }
        state.recent.push_back(v);
        state.count += 1;
        state.sum += v;
    }
}

#[derive(Debug, Clone)]
enum Instrument {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Summary(Summary),
}

#[derive(Debug)]
struct Family {
    name: String,
    help: String,
    metric_type: MetricType,
    children: Vec<(LabelPairs, Instrument)>,
}

/// All instruments of a process, in the order of their names.
#[derive(Default)]
pub struct Registry {
    /// Sorted by name. Taken for short moments only; never held while calling back.
    families: RwLock<Vec<Family>>,
    callbacks: Mutex<Vec<Callback>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("families", &self.families.read().len()).finish_non_exhaustive()
    }
}

/// One sample of a family as it is written out.
#[derive(Debug, Clone, PartialEq)]
pub struct OutSample {
    /// Metric name with suffix.
    pub name: String,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Value.
    pub value: f64,
}

/// One family as it is written out.
#[derive(Debug, Clone, PartialEq)]
pub struct OutFamily {
    /// Family name.
    pub name: String,
    /// Help text.
    pub help: String,
    /// Type.
    pub metric_type: MetricType,
    /// Samples in order.
    pub samples: Vec<OutSample>,
}

impl Registry {
    /// An empty registry, ready to be shared.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn child(
        &self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Instrument,
    ) -> Instrument {
        let mut families = self.families.write();
        let at = match families.binary_search_by(|f| f.name.as_str().cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                let family =
                    Family { name: name.into(), help: help.into(), metric_type, children: Vec::new() };
                families.insert(at, family);
                at
            }
        };
        let family = &mut families[at];
        assert!(family.metric_type == metric_type, "{name} is registered as another type");
        let labels: LabelPairs = labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        if let Some((_, instrument)) = family.children.iter().find(|(l, _)| *l == labels) {
            return instrument.clone();
        }
        let instrument = make();
        family.children.push((labels, instrument.clone()));
        instrument
    }

    /// The counter of this name and labels; created when asked for the first time.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        let make = || Instrument::Counter(Counter::default());
        match self.child(name, help, MetricType::Counter, labels, make) {
            Instrument::Counter(c) => c,
            _ => unreachable!("the family type was checked"),
        }
    }

    /// The gauge of this name and labels; created when asked for the first time.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        let make = || Instrument::Gauge(Gauge::default());
        match self.child(name, help, MetricType::Gauge, labels, make) {
            Instrument::Gauge(g) => g,
            _ => unreachable!("the family type was checked"),
        }
    }

    /// The histogram of this name and labels; `bounds` ascending, without +Inf.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64], labels: &[(&str, &str)]) -> Histogram {
        let make = || Instrument::Histogram(Histogram::new(bounds));
        match self.child(name, help, MetricType::Histogram, labels, make) {
            Instrument::Histogram(h) => h,
            _ => unreachable!("the family type was checked"),
        }
    }

    /// The summary of this name and labels, with these quantiles (each 0…1).
    pub fn summary(&self, name: &str, help: &str, quantiles: &[f64], labels: &[(&str, &str)]) -> Summary {
        let make = || Instrument::Summary(Summary { state: Arc::default(), quantiles: Arc::from(quantiles) });
        match self.child(name, help, MetricType::Summary, labels, make) {
            Instrument::Summary(s) => s,
            _ => unreachable!("the family type was checked"),
        }
    }

    /// Forgets one labelled instrument, as when a target pool is removed.
    pub fn remove(&self, name: &str, labels: &[(&str, &str)]) {
        let mut families = self.families.write();
        if let Ok(at) = families.binary_search_by(|f| f.name.as_str().cmp(name)) {
            families[at].children.retain(|(own, _)| {
                own.len() != labels.len() || own.iter().zip(labels).any(|(a, b)| a.0 != b.0 || a.1 != b.1)
            });
        }
    }

    /// Runs `callback` before each collection; it refreshes gauges whose truth lives elsewhere.
    pub fn on_collect(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.callbacks.lock().push(Box::new(callback));
    }

    /// Everything as it stands now, families in order of name.
    #[must_use]
    pub fn collect(&self) -> Vec<OutFamily> {
        for callback in self.callbacks.lock().iter() {
            callback();
        }
        let families = self.families.read();
        families.iter().filter(|f| !f.children.is_empty()).map(collect_family).collect()
    }

    /// The text exposition, format version 0.0.4.
    #[must_use]
    pub fn render_text(&self) -> String {
        let mut out = String::new();
        for family in self.collect() {
            write_text_family(&family, &mut out);
        }
        out
    }
}

fn collect_family(family: &Family) -> OutFamily {
    let mut samples = Vec::new();
    let mut push = |suffix: &str, labels: &LabelPairs, extra: Option<(&str, String)>, value: f64| {
        let mut labels = labels.clone();
        labels.extend(extra.map(|(name, value)| (name.to_owned(), value)));
        samples.push(OutSample { name: format!("{}{suffix}", family.name), labels, value });
    };
    for (labels, instrument) in &family.children {
        match instrument {
            Instrument::Counter(c) => push("", labels, None, c.get()),
            Instrument::Gauge(g) => push("", labels, None, g.get()),
            Instrument::Histogram(h) => {
                let state = h.0.lock();
                let mut total = 0;
                for (i, count) in state.counts.iter().enumerate() {
                    total += count;
                    let le = state.bounds.get(i).map_or_else(|| "+Inf".into(), |b| format_g(*b));
                    push("_bucket", labels, Some(("le", le)), total as f64);
                }
                push("_sum", labels, None, state.sum);
                push("_count", labels, None, total as f64);
            }
            Instrument::Summary(s) => {
                let state = s.state.lock();
                let mut sorted: Vec<f64> = state.recent.iter().copied().collect();
                sorted.sort_by(f64::total_cmp);
                for q in s.quantiles.iter() {
                    let rank = (q * sorted.len() as f64).ceil() as usize;
                    let v = sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN);
                    push("", labels, Some(("quantile", format_g(*q))), v);
                }
                push("_sum", labels, None, state.sum);
                push("_count", labels, None, state.count as f64);
            }
        }
    }
    OutFamily {
        name: family.name.clone(),
        help: family.help.clone(),
        metric_type: family.metric_type,
        samples,
    }
}

fn escape(text: &str, quotes: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// Writes one family in the text format 0.0.4.
pub fn write_text_family(family: &OutFamily, out: &mut String) {
    let _ = write!(out, "# HELP {} ", family.name);
    escape(&family.help, false, out);
    let type_name = match family.metric_type {
        MetricType::Unknown => "untyped",
        other => other.as_str(),
    };
    let _ = writeln!(out, "\n# TYPE {} {type_name}", family.name);
    for sample in &family.samples {
        out.push_str(&sample.name);
        for (i, (name, value)) in sample.labels.iter().enumerate() {
            out.push(if i == 0 { '{' } else { ',' });
            let _ = write!(out, "{name}=\"");
            escape(value, true, out);
            out.push('"');
        }
        if !sample.labels.is_empty() {
            out.push('}');
        }
        let _ = writeln!(out, " {}", format_g(sample.value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_each_kind() {
        let registry = Registry::new();
        registry.counter("b_total", "Counts.", &[("code", "2\"00")]).add(2.0);
        let gauge = registry.gauge("a_bytes", "Line\nbreak.", &[]);
        registry.on_collect(move || gauge.set(1.5));
        registry.histogram("h_seconds", "H.", &[0.1, 1.0], &[]).observe(0.5);
        let summary = registry.summary("s_seconds", "S.", &[0.5], &[]);
        (1..=4).for_each(|i| summary.observe(f64::from(i)));
        let want = "# HELP a_bytes Line\\nbreak.\n# TYPE a_bytes gauge\na_bytes 1.5\n\
                    # HELP b_total Counts.\n# TYPE b_total counter\nb_total{code=\"2\\\"00\"} 2\n\
                    # HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"0.1\"} 0\n\
                    h_seconds_bucket{le=\"1\"} 1\nh_seconds_bucket{le=\"+Inf\"} 1\nh_seconds_sum 0.5\nh_seconds_count 1\n\
                    # HELP s_seconds S.\n# TYPE s_seconds summary\ns_seconds{quantile=\"0.5\"} 2\ns_seconds_sum 10\ns_seconds_count 4\n";
        assert_eq!(registry.render_text(), want);
    }
}
