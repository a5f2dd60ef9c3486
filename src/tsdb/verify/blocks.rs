//! Is a block sound? Checksums of the whole file, every sample decoded, and the index against the series.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Progress, Report};
use crate::model::Matcher;
use crate::tsdb::block::{SeriesColumns, SeriesSource};
use crate::tsdb::compact::AnyBlock;
use crate::tsdb::door::{LabelQueryHints, SelectHints};
use crate::tsdb::vfs::{RealVfs, Vfs};

/// Pairs of labels whose lists are compared, each taking four bytes for each of its series while that runs.
const MAX_PAIRS: usize = 4 << 20;

/// Series after which it is told how far a block is.
const TOLD_EVERY: u64 = 256;

fn count_files(dir: &Path, report: &mut Report) {
    for entry in RealVfs.list(dir).unwrap_or_default() {
        if entry.is_dir {
            count_files(&dir.join(&entry.name), report);
        } else {
            report.read(usize::try_from(entry.len).unwrap_or(0));
        }
    }
}

pub(super) fn check(block: &AnyBlock, report: &mut Report, progress: Progress<'_>) {
    let dir = block.dir().path().to_owned();
    let before = report.bytes;
    progress(&dir, before);
    count_files(&dir, report);
    match block {
        AnyBlock::Native(native) => {
            if let Err(error) = native.verify() {
                report.fault_of(&dir, &error);
            }
        }
        AnyBlock::Prometheus(prometheus) => {
            for (number, offset, fault) in prometheus.verify_segments() {
                report.fault(&dir.join(format!("chunks/{number:06}")), Some(offset), fault.to_string());
            }
        }
    }
    let meta = block.meta().clone();
    if dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| n != meta.ulid.to_string()) {
        report.fault(&dir, None, format!("meta.json names another block, {}", meta.ulid));
    }
    let (mut source, mut columns) = (block.source(), SeriesColumns::default());
    let (mut series, mut samples, mut last) = (0u64, 0u64, None);
    let mut outside = 0u64;
    let mut pairs: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
    loop {
        match source.next_series(&mut columns) {
            Ok(None) => break,
            Ok(Some(labels)) => {
                if last.as_ref().is_some_and(|l| *l >= labels) {
                    report.fault(&dir, None, format!("series {labels} is not in order"));
                }
                samples += columns.len() as u64;
                if columns.range().is_some_and(|(from, to)| from < meta.min_time || to >= meta.max_time) {
                    outside += 1;
                }
                if pairs.len() < MAX_PAIRS {
                    for label in labels.iter() {
                        let key = (label.name.to_owned(), label.value.to_owned());
                        pairs.entry(key).or_default().push(series as u32);
                    }
                }
                series += 1;
                if series.is_multiple_of(TOLD_EVERY) {
                    let share = series as f64 / meta.stats.num_series.max(series) as f64;
                    progress(&dir, before + ((report.bytes - before) as f64 * share) as u64);
                }
                last = Some(labels);
            }
            Err(error) => {
                report.fault_of(&dir, &error);
                return;
            }
        }
    }
    for warning in source.warnings() {
        report.fault(&dir, None, warning.clone());
    }
    report.samples += samples;
    if outside > 0 {
        report.fault(&dir, None, format!("{outside} series have samples outside the range of meta.json"));
    }
    if !source.warnings().is_empty() {
        return;
    }
    if meta.stats.num_series != series {
        let what = format!("meta.json says {} series, there are {series}", meta.stats.num_series);
        report.fault(&dir, None, what);
    }
    if !block.has_deletions() && meta.stats.num_samples != samples {
        let what = format!("meta.json says {} samples, there are {samples}", meta.stats.num_samples);
        report.fault(&dir, None, what);
    }
    check_index(block, &pairs, report);
}

/// Whether the index finds for each label what the series say.
fn check_index(block: &AnyBlock, pairs: &BTreeMap<(String, String), Vec<u32>>, report: &mut Report) {
    let querier = block.querier(i64::MIN, i64::MAX);
    for ((name, value), numbers) in pairs {
        match querier.select(&SelectHints::default(), &[Matcher::equal(name, value)]) {
            Ok(set) if set.len() == numbers.len() => {}
            Ok(set) => {
                let what = format!(
                    "the index finds {} series with {name}={value:?}, there are {}",
                    set.len(),
                    numbers.len()
                );
                report.fault(block.dir().path(), None, what);
            }
            Err(error) => report.fault_of(block.dir().path(), &error),
        }
    }
    let names: Vec<&String> = {
        let mut names: Vec<&String> = pairs.keys().map(|(name, _)| name).collect();
        names.dedup();
        names
    };
    match querier.label_names(&[], &LabelQueryHints::default()) {
        Ok(found) if pairs.len() >= MAX_PAIRS || found.iter().eq(names.iter().copied()) => {}
        Ok(found) => {
            let what = format!("the index has {} label names, the series {}", found.len(), names.len());
            report.fault(block.dir().path(), None, what);
        }
        Err(error) => report.fault_of(block.dir().path(), &error),
    }
}
