//! A disk whose syncs hang: samples are taken all the same, over many segments of the log and while a checkpoint waits.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use meerkat::model::Labels;
use meerkat::model::clock::ManualClock;
use meerkat::telemetry::Registry;
use meerkat::tsdb::vfs::{CrashVfs, Entry, FileBytes, LockGuard, Vfs, VfsFile};
use meerkat::tsdb::{Appendable, BatchOptions, Db, DbOptions, SeriesRef};

/// While it is closed, syncs wait.
#[derive(Default)]
struct Gate {
    /// Whether it is closed, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().expect("no panic");
        state.1 += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |(closed, _)| *closed).expect("no panic");
        state.1 -= 1;
    }

    fn set(&self, closed: bool) {
        self.state.lock().expect("no panic").0 = closed;
        self.changed.notify_all();
    }

    fn wait_for_waiting(&self) {
        let state = self.state.lock().expect("no panic");
        let limit = Duration::from_secs(60);
        let (state, _) =
            self.changed.wait_timeout_while(state, limit, |(_, waiting)| *waiting == 0).expect("no panic");
        assert!(state.1 > 0, "nobody syncs");
    }
}

struct Hanging {
    inner: Arc<CrashVfs>,
    gate: Arc<Gate>,
}

struct HangingFile {
    inner: Arc<dyn VfsFile>,
    gate: Arc<Gate>,
}

impl fmt::Debug for Hanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hanging")
    }
}

impl VfsFile for HangingFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.inner.append(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_data()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, out)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

impl Vfs for Hanging {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(HangingFile { inner: self.inner.create(path)?, gate: Arc::clone(&self.gate) }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.inner.open(path)
    }

    fn sealed(&self, path: &Path, as_map: bool) -> io::Result<FileBytes> {
        self.inner.sealed(path, as_map)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_dir(dir)
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link_or_copy(from, to)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_space(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }
}

/// Commits one batch of so many series at each of these times; a hang fails the test by its time limit.
fn scrape(db: &Db, times: std::ops::Range<i64>) {
    for t in times {
        let mut appender = db.appender(BatchOptions { source: 1, ..BatchOptions::default() });
        for i in 0..20 {
            let labels = || Labels::from_pairs([("__name__", format!("m{i}"))]);
            let value = (t * 7919 % 1000) as f64 / 7.0;
            appender.append(SeriesRef::NONE, &labels, 0, t * 1000, value).expect("taken");
        }
        appender.commit().expect("committed");
    }
}

#[test]
fn samples_are_taken_while_syncs_hang() {
    let (inner, gate) = (CrashVfs::new(), Arc::new(Gate::default()));
    let vfs = Arc::new(Hanging { inner: Arc::clone(&inner), gate: Arc::clone(&gate) });
    let options = DbOptions {
        path: PathBuf::from("/srv/data"),
        retention_ms: 0,
        wal_sync_interval: Duration::from_millis(10),
        wal_segment_bytes: 5000,
        ..DbOptions::default()
    };
    let db = Db::open(options, vfs, ManualClock::at(0), &Registry::new()).expect("it opens");
    scrape(&db, 1..300);
    gate.set(true);
    let segments = || inner.files().iter().filter(|path| path.starts_with("/srv/data/meerkat-wal")).count();
    let before = segments();
    std::thread::scope(|scope| {
        // Full chunks go to their files while both the log and a checkpoint wait for the disk.
        let checkpoint = scope.spawn(|| db.checkpoint());
        gate.wait_for_waiting();
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let scraping = scope.spawn(|| {
            scrape(&db, 300..900);
            drop(done);
        });
        let outcome = finished.recv_timeout(Duration::from_secs(60));
        let is_stuck = matches!(outcome, Err(std::sync::mpsc::RecvTimeoutError::Timeout));
        let after = segments();
        gate.set(false);
        scraping.join().expect("no panic");
        checkpoint.join().expect("no panic").expect("the checkpoint is written once the disk answers");
        assert!(!is_stuck, "a hanging sync holds up samples");
        assert!(after > before + 2, "{before} files of the log became {after}");
    });
    scrape(&db, 900..901);
}
