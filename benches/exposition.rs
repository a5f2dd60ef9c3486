//! How fast are scraped bodies read? Once cold, every series checked and turned into labels, and once warm, as on
//! every scrape after the first: the cache knows the series and only numbers are parsed.
//!
//! Reads `../shared/corpus/node.rec.zst` when it is there, otherwise the short recording of `testdata/recorded`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meerkat::model::metadata::MetricType;
use meerkat::model::sample::HistogramValue;
use meerkat::scrape::cache::{Found, HashKey, Pass, SeriesCache};
use meerkat::scrape::exposition::{
    Family, Format, PairBuffer, ParseOptions, SampleView, SeriesView, Sink, Stop, parse,
};
use meerkat::scrape::metadata::{Interner, MetadataCache};
use meerkat::tsdb::door::SeriesRef;

fn bodies() -> Vec<Vec<u8>> {
    let recorded = ["/../shared/corpus/node.rec.zst", "/testdata/recorded/node.rec.zst"];
    let open = |path: &&str| std::fs::File::open(format!("{}{path}", env!("CARGO_MANIFEST_DIR"))).ok();
    let file = recorded.iter().find_map(open).expect("testdata has a recording");
    let bytes = zstd::decode_all(file).expect("a recording");
    let mut rest = bytes.as_slice();
    let mut bodies = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (body, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        bodies.push(body.to_vec());
        rest = after;
    }
    bodies
}

/// Turns every series into labels.
struct Cold {
    pairs: PairBuffer,
    labels: usize,
}

/// Knows all series.
struct Warm<'a> {
    pass: Pass<'a>,
    metadata: &'a mut MetadataCache,
    interner: &'a Interner,
    sum: f64,
}

impl Sink for Cold {
    fn series(&mut self, series: &SeriesView<'_>, _: &SampleView<'_>, _: bool) -> Result<(), Stop> {
        series.labels(&mut self.pairs).map_err(|_| Stop)?;
        self.labels += self.pairs.len();
        Ok(())
    }

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

impl Sink for Warm<'_> {
    fn expected(&mut self, rest: &[u8], context: u64) -> Option<usize> {
        self.pass.expected(rest, context)
    }

    fn expected_metadata(&mut self, rest: &[u8]) -> Option<(usize, MetricType)> {
        self.metadata.expected(rest)
    }

    fn metadata_block(&mut self, lines: &[u8], family: &Family) {
        self.metadata.remember(lines, family.metric_type);
    }

    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        self.metadata.help(self.interner, family, text);
        Ok(())
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        self.metadata.metric_type(self.interner, family, metric_type);
        Ok(())
    }

    fn unit(&mut self, family: &str, unit: &str) -> Result<(), Stop> {
        self.metadata.unit(self.interner, family, unit);
        Ok(())
    }

    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, known: bool) -> Result<(), Stop> {
        self.sum += sample.value;
        if known {
            self.pass.accept();
            return Ok(());
        }
        if let (Found::New, hash) = self.pass.find(series.text(), series.context()) {
            self.pass.add(series.text(), hash, SeriesRef(1), true, false);
        }
        Ok(())
    }

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

fn benchmark(c: &mut Criterion) {
    let bodies = bodies();
    let options = ParseOptions::default();
    let bytes: usize = bodies.iter().take(50).map(Vec::len).sum();
    let mut group = c.benchmark_group("text exposition");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("cold", |b| {
        let mut sink = Cold { pairs: PairBuffer::default(), labels: 0 };
        b.iter(|| {
            for body in bodies.iter().take(50) {
                parse(Format::Text, body, &options, &mut sink).expect("valid");
            }
            sink.labels
        });
    });
    group.bench_function("warm", |b| {
        let key = HashKey::random();
        let (mut cache, mut metadata) = (SeriesCache::default(), MetadataCache::default());
        let interner = Interner::default();
        b.iter(|| {
            let mut sum = 0.0;
            for body in bodies.iter().take(50) {
                metadata.begin();
                let pass = cache.begin(&key);
                let mut sink = Warm { pass, metadata: &mut metadata, interner: &interner, sum: 0.0 };
                parse(Format::Text, body, &options, &mut sink).expect("valid");
                sum += sink.sum;
                sink.pass.finish();
                metadata.finish();
            }
            sum
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
