//! Blocks from flush to retention, against plain maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::model::{Labels, Matcher, SampleBuffer};
use crate::tsdb::block::{BlockMeta, SeriesColumns, new_ulid, write_block};
use crate::tsdb::door::{Querier as _, SelectHints};
use crate::tsdb::merge::MergedQuerier;
use crate::tsdb::prometheus::write_prometheus_block;

const H: i64 = 3_600_000;

type Naive = BTreeMap<Labels, SeriesColumns>;

fn data(from: i64, to: i64, salt: i64) -> Naive {
    (0..5)
        .map(|s| {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("s", s.to_string())]);
            let mut columns = SeriesColumns::default();
            (from..to)
                .step_by(60_000)
                .for_each(|t| columns.push_float(t, 0, (t / 1000 * (s + 1) + salt) as f64));
            (labels, columns)
        })
        .collect()
}

fn add(set: &BlockSet, from: i64, to: i64, salt: i64, prometheus: bool) -> ulid::Ulid {
    let meta = BlockMeta::new(new_ulid(to + salt), from, to);
    let mut source = data(from, to, salt).into_iter();
    let dir = if prometheus {
        write_prometheus_block(set.dir(), meta, &mut source, &|| false).unwrap().unwrap().0
    } else {
        write_block(set.dir(), meta, &mut source, &|| false).unwrap().unwrap().0
    };
    let block = AnyBlock::open(&dir).unwrap();
    let ulid = block.meta().ulid;
    set.publish(Some(block), &[]).unwrap();
    ulid
}

fn read(set: &BlockSet, min: i64, max: i64) -> BTreeMap<Labels, Vec<(i64, f64)>> {
    let querier = MergedQuerier::new(set.queriers(min, max));
    let series = querier.select(&SelectHints::default(), &[Matcher::equal("__name__", "m")]).unwrap();
    assert_eq!(series.warnings(), Vec::<String>::new());
    let mut buffer = SampleBuffer::default();
    (0..series.len())
        .map(|i| {
            series.samples(i, min, max, &mut buffer).unwrap();
            (series.labels(i), buffer.timestamps.iter().copied().zip(buffer.values.iter().copied()).collect())
        })
        .collect()
}

fn merge_next(set: &BlockSet, compactor: &Compactor) -> Option<Step> {
    let metas: Vec<BlockMeta> = set.blocks().iter().map(|b| b.meta().clone()).collect();
    let group = plan::next_merge(&metas, &[2 * H, 6 * H, 18 * H], |_| false);
    (!group.is_empty()).then(|| compactor.merge(&group, 1, &|| false).unwrap())
}

#[test]
fn merging_keeps_every_sample() {
    let dir = tempfile::tempdir().unwrap();
    let (set, report) = BlockSet::open(dir.path()).unwrap();
    assert_eq!(report, BlockSetReport::default());
    for i in 0..5 {
        add(&set, i * 2 * H, (i + 1) * 2 * H, 0, i == 1);
    }
    // Overlaps the third and fourth block, other values: what came later in the list wins, before and after.
    add(&set, 5 * H, 7 * H, 1, false);
    let before = read(&set, i64::MIN, i64::MAX);
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), 5 * 600);
    let set = Arc::new(set);
    let compactor = Compactor::new(Arc::clone(&set), CompactorOptions::default());
    let mut steps = 0;
    while let Some(step) = merge_next(&set, &compactor) {
        assert!(matches!(step, Step::Merged(_, Some(_))), "{step:?}");
        steps += 1;
        assert!(steps < 10);
    }
    assert!(steps >= 1);
    assert!(set.blocks().len() < 6);
    let after = read(&set, i64::MIN, i64::MAX);
    let times = |all: &BTreeMap<Labels, Vec<(i64, f64)>>| {
        all.iter()
            .map(|(l, v)| (l.clone(), v.iter().map(|(t, _)| *t).collect::<Vec<_>>()))
            .collect::<Vec<_>>()
    };
    assert_eq!(times(&before), times(&after));
    let reopened = BlockSet::open(dir.path()).unwrap().0;
    assert_eq!(read(&reopened, i64::MIN, i64::MAX), after);
    assert_eq!(reopened.blocks().len(), set.blocks().len());
}

#[test]
fn deletions_are_worked_in() {
    let dir = tempfile::tempdir().unwrap();
    let set = Arc::new(BlockSet::open(dir.path()).unwrap().0);
    add(&set, 0, 2 * H, 0, false);
    add(&set, 2 * H, 4 * H, 0, true);
    for block in set.blocks().iter() {
        block.delete(H, 3 * H, &[Matcher::equal("s", "2")]).unwrap();
    }
    let before = read(&set, i64::MIN, i64::MAX);
    let sizes: Vec<usize> = before.values().map(Vec::len).collect();
    assert_eq!(sizes, [240, 240, 119, 240, 240]);
    let compactor = Compactor::new(Arc::clone(&set), CompactorOptions::default());
    assert_eq!(compactor.clean_tombstones(1, &|| false).unwrap(), 2);
    assert!(set.blocks().iter().all(|b| !b.has_deletions() && b.meta().is_native()));
    assert_eq!(read(&set, i64::MIN, i64::MAX), before);
}

#[test]
fn start_survives_every_kind_of_left_over() {
    let dir = tempfile::tempdir().unwrap();
    let set = BlockSet::open(dir.path()).unwrap().0;
    let good = add(&set, 0, 2 * H, 0, false);
    let bad = add(&set, 2 * H, 4 * H, 0, false);
    let child = add(&set, 4 * H, 6 * H, 0, false);
    let parent = add(&set, 4 * H, 6 * H, 7, false);
    drop(set);
    let child_dir = dir.path().join(child.to_string());
    let mut meta = BlockMeta::read(&child_dir).unwrap();
    meta.compaction.parents.push(crate::tsdb::block::meta::BlockDesc {
        ulid: parent,
        min_time: 0,
        max_time: 1,
    });
    meta.write(&child_dir).unwrap();
    let file = dir.path().join(bad.to_string()).join("block.mkt");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let left_over = dir.path().join(format!("{}.tmp-for-creation", new_ulid(5)));
    std::fs::create_dir(&left_over).unwrap();
    std::fs::create_dir(dir.path().join("wal")).unwrap();
    let (set, report) = BlockSet::open(dir.path()).unwrap();
    let ulids: Vec<_> = set.blocks().iter().map(|b| b.meta().ulid).collect();
    assert_eq!(ulids, [good, child]);
    assert_eq!(report.cleaned, [left_over]);
    assert_eq!(report.quarantined.len(), 1);
    assert!(dir.path().join(format!("{bad}.quarantine")).join("block.mkt").exists(), "nothing is deleted");
    assert!(!dir.path().join(parent.to_string()).exists());
    assert!(dir.path().join("wal").exists());
}

#[test]
fn a_damaged_block_is_not_merged_away() {
    let dir = tempfile::tempdir().unwrap();
    let set = BlockSet::open(dir.path()).unwrap().0;
    let ulids: Vec<_> = (0..4).map(|i| add(&set, i * 2 * H, (i + 1) * 2 * H, 0, false)).collect();
    drop(set);
    let file = dir.path().join(ulids[1].to_string()).join("block.mkt");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let set = Arc::new(BlockSet::open(dir.path()).unwrap().0);
    let compactor = Compactor::new(Arc::clone(&set), CompactorOptions::default());
    let step = merge_next(&set, &compactor);
    assert!(matches!(&step, Some(Step::Refused(bad, _)) if *bad == [ulids[1]]), "{step:?}");
    assert_eq!(set.blocks().len(), 4);
    assert_eq!(BlockSet::open(dir.path()).unwrap().0.blocks().len(), 4);
}

/// Wherever a block of either format is damaged, merging goes on without it, or keeps every sample.
#[test]
fn no_damage_stops_merging_or_loses_a_sample() {
    for prometheus in [false, true] {
        let template = tempfile::tempdir().unwrap();
        let set = BlockSet::open(template.path()).unwrap().0;
        let ulids: Vec<_> =
            (0..4).map(|i| add(&set, i * 2 * H, (i + 1) * 2 * H, 0, prometheus && i == 1)).collect();
        let want = read(&set, i64::MIN, i64::MAX);
        drop(set);
        let block = template.path().join(ulids[1].to_string());
        let files: &[&str] = if prometheus { &["index", "chunks/000001"] } else { &["block.mkt"] };
        let mut refused = 0;
        for file in files.iter().map(|name| block.join(name)) {
            let sound = std::fs::read(&file).unwrap();
            for at in (0..sound.len()).step_by(sound.len() / 30) {
                let mut bytes = sound.clone();
                bytes[at] ^= 16;
                std::fs::write(&file, &bytes).unwrap();
                let context = format!("{} at {at}", file.display());
                let dir = tempfile::tempdir().unwrap();
                copy(template.path(), dir.path());
                let (set, report) = BlockSet::open(dir.path()).unwrap();
                let set = Arc::new(set);
                let compactor = Compactor::new(Arc::clone(&set), CompactorOptions::default());
                if !report.quarantined.is_empty() {
                    // What cannot be opened was set aside already.
                    continue;
                }
                match merge_next(&set, &compactor) {
                    Some(Step::Refused(bad, _)) => {
                        assert_eq!(bad, [ulids[1]], "{context}");
                        assert_eq!(set.blocks().len(), 4, "{context}");
                        refused += 1;
                    }
                    Some(Step::Merged(..)) => assert!(read(&set, i64::MIN, i64::MAX) == want, "{context}"),
                    None => panic!("{context}: four blocks are due for merging"),
                }
            }
            std::fs::write(&file, &sound).unwrap();
        }
        assert!(refused > 5, "{refused}");
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn retention_removes_whole_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let set = Arc::new(BlockSet::open(dir.path()).unwrap().0);
    let ulids: Vec<_> = (0..4).map(|i| add(&set, i * 2 * H, (i + 1) * 2 * H, 0, i == 0)).collect();
    let compactor = Compactor::new(Arc::clone(&set), CompactorOptions::default());
    assert!(compactor.apply_retention(u64::MAX).unwrap().is_empty());
    compactor.set_options(CompactorOptions { retention: Retention { time_ms: 4 * H, bytes: 0 } });
    let mut gone = compactor.apply_retention(0).unwrap();
    gone.sort_unstable();
    assert_eq!(gone, ulids[..2]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    let querier = set.queriers(i64::MIN, i64::MAX);
    compactor.set_options(CompactorOptions { retention: Retention { time_ms: 0, bytes: 1 } });
    assert_eq!(compactor.apply_retention(0).unwrap().len(), 2);
    assert!(!querier[0].label_values("s", &[], &Default::default()).unwrap().is_empty(), "open views go on");
}
