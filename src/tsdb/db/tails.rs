//! How does the storage hand out readers of its log, and let go of what they have read?

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Db;
use crate::tsdb::door::StorageError;
use crate::tsdb::tail::{LogTail, LogTails};
use crate::tsdb::wal::segment::{FileKind, list};
use crate::tsdb::wal::tail::WalTail;

impl Db {
    /// Deletes segments that a checkpoint replaced and that were only kept for readers.
    pub(super) fn release_log(&self) {
        // Not while a checkpoint is written, which deletes as well.
        let Some(_last) = self.checkpointed.try_lock() else { return };
        let files = list(&*self.vfs, &self.wal_dir).unwrap_or_default();
        let newest = files.iter().filter(|f| f.kind == FileKind::Checkpoint).map(|f| f.number).max();
        if let Some(replaced) = newest
            && files.iter().any(|f| f.kind == FileKind::Segment && f.number < replaced)
            && let Err(error) = self.wal.holds().sweep(&self.wal_dir, replaced)
        {
            tracing::warn!(%error, "the log cannot be cut");
        }
    }
}

impl Db {
    /// In an agent, now and then: forgets samples that are old enough, and log that is too old.
    pub(super) fn cut_agent_log(&self) {
        let Some(agent) = self.options.agent else { return };
        let current = self.wal.current();
        {
            let mut cuts = self.cuts.lock();
            if cuts.is_empty() {
                cuts.push_back((Instant::now(), current));
                return;
            }
            if cuts.back().is_some_and(|(at, _)| at.elapsed() < agent.truncate_every) {
                return;
            }
            let mut expired = None;
            while cuts.len() > 1 && cuts.front().is_some_and(|(at, _)| at.elapsed() > agent.max_age) {
                expired = cuts.pop_front();
            }
            if let Some((_, segment)) = expired {
                self.wal.holds().expire(segment);
            }
            cuts.push_back((Instant::now(), current));
        }
        let before_ms = self.clock.now_ms() - agent.min_age_ms;
        let cut = self.head.forget_before(before_ms, &|| false).and_then(|()| self.checkpoint());
        if let Err(error) = cut {
            tracing::error!(%error, "the agent's log cannot be cut; it is tried again later");
        }
    }
}

impl LogTails for Db {
    fn tail(&self, name: &str) -> Result<Box<dyn LogTail>, StorageError> {
        let dir = self.wal_dir.clone();
        let tail = WalTail::open(Arc::clone(&self.wal), Arc::clone(&self.vfs), dir, name)?;
        Ok(Box::new(tail))
    }

    fn keep_tails(&self, names: &BTreeSet<String>) {
        self.wal.holds().keep(names);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::model::Labels;
    use crate::model::clock::ManualClock;
    use crate::telemetry::Registry;
    use crate::tsdb::tail::TailMarks;
    use crate::tsdb::vfs::RealVfs;
    use crate::tsdb::{Appendable as _, BatchOptions, DbOptions, SeriesRef};

    fn open(dir: &Path, change: impl FnOnce(&mut DbOptions)) -> Arc<Db> {
        let mut options = DbOptions {
            path: dir.to_owned(),
            retention_ms: 0,
            wal_sync_interval: Duration::ZERO,
            wal_segment_bytes: 2000,
            ..DbOptions::default()
        };
        change(&mut options);
        Db::open(options, Arc::new(RealVfs), ManualClock::at(0), &Registry::new()).expect("it opens")
    }

    fn append(db: &Db, t_ms: i64) {
        let mut appender = db.appender(BatchOptions { source: 1, ..BatchOptions::default() });
        for series in 0..20 {
            let labels = || Labels::from_pairs([("__name__", format!("m{series}"))]);
            appender.append(SeriesRef::NONE, &labels, 0, t_ms, t_ms as f64 + 0.1).expect("taken");
        }
        appender.commit().expect("committed");
    }

    /// Times of all batches that are handed out, and the place behind the last.
    fn drain(tail: &mut dyn LogTail) -> (Vec<i64>, TailMarks) {
        let (mut times, mut marks) = (Vec::new(), tail.marks());
        while let Some(batch) = tail.next_batch().expect("it reads") {
            if !batch.passed {
                assert_eq!(batch.floats.len(), 20);
                times.push(batch.floats[0].t_ms);
                marks = TailMarks { done: batch.end, begun: batch.end };
            }
        }
        (times, marks)
    }

    #[test]
    fn readers_go_on_where_they_were_and_the_log_waits_for_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = open(dir.path(), |_| {});
        append(&db, 0);
        let mut tail = db.tail("a").expect("it opens");
        assert_eq!(drain(&mut *tail).0, Vec::<i64>::new(), "only what comes later");
        (1..50).for_each(|t| append(&db, t));
        let (times, marks) = drain(&mut *tail);
        assert_eq!(times, (1..50).collect::<Vec<_>>());
        tail.save(marks, false).expect("saved");
        (50..100).for_each(|t| append(&db, t));
        db.checkpoint().expect("written");
        (100..120).for_each(|t| append(&db, t));
        drop((tail, db));
        // As after a kill; a checkpoint is written when it closes.
        let db = open(dir.path(), |_| {});
        db.close().expect("closed");
        drop(db);
        let db = open(dir.path(), |_| {});
        append(&db, 120);
        let mut tail = db.tail("a").expect("it opens");
        let (times, marks) = drain(&mut *tail);
        assert_eq!(times, (50..=120).collect::<Vec<_>>());
        tail.save(marks, true).expect("saved");
        db.checkpoint().expect("written");
        let segments = || {
            let files = list(&RealVfs, &dir.path().join("meerkat-wal")).expect("listed");
            files.iter().filter(|f| f.kind == FileKind::Segment).count()
        };
        assert_eq!(segments(), 1, "only the one that the reader is in");
        append(&db, 121);
        assert_eq!(drain(&mut *tail).0, vec![121]);
        db.keep_tails(&BTreeSet::new());
        db.checkpoint().expect("written");
        assert_eq!(segments(), 0);
    }

    #[test]
    fn log_over_the_limit_goes_and_is_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = open(dir.path(), |options| options.max_held_log_bytes = 6000);
        append(&db, 0);
        let mut tail = db.tail("a").expect("it opens");
        (1..300).for_each(|t| append(&db, t));
        db.checkpoint().expect("written");
        append(&db, 300);
        let (times, _) = drain(&mut *tail);
        let lost = tail.take_lost();
        assert!(lost > 0 && !times.is_empty() && times[0] > 1, "{lost} lost, {times:?}");
        assert_eq!(lost + 20 * times.len() as u64, 20 * 300);
        assert_eq!(times, (times[0]..=300).collect::<Vec<_>>());
    }

    #[test]
    fn damage_costs_what_it_hits() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = open(dir.path(), |_| {});
        append(&db, 0);
        let mut tail = db.tail("a").expect("it opens");
        (1..40).for_each(|t| append(&db, t));
        let files = list(&RealVfs, &dir.path().join("meerkat-wal")).expect("listed");
        let path = &files[files.len() - 2].path;
        let mut bytes = std::fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(path, bytes).expect("written");
        let mut times = Vec::new();
        while let Some(batch) = tail.next_batch().expect("it reads") {
            times.extend(batch.floats.first().map(|s| s.t_ms));
        }
        assert!(times.len() < 39 && times.contains(&1) && times.contains(&39), "{times:?}");
        assert!(tail.take_damaged() >= 1);
    }
}
