//! How is a data directory looked at without touching it? The head is replayed into memory and the blocks are opened,
//! without the lock and without writing a byte, so that this works beside a server that runs on the directory.
//!
//! What a Prometheus left in its write-ahead log is read too.
//!
//! Consistency beside a running server: the files of the log are mapped first, until one listing holds from before to
//! after, then the files of head chunks, then the blocks. What leaves one of them meanwhile has arrived in a later one.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ulid::Ulid;

use super::compact::AnyBlock;
use super::db::{CHUNKS_DIR, FORMAT_FILE, WAL_DIR};
use super::door::{Querier, Queryable, StorageError};
use super::head::chunks::ChunkStore;
use super::head::flush::{FlushRange, FlushView};
use super::head::import::HeadLoader;
use super::head::metrics::HeadMetrics;
use super::head::query::{HeadQuerier, HeadView};
use super::head::replay::{Recovery, replay};
use super::head::{Head, JobLimits, Limits};
use super::merge::MergedQuerier;
use super::prometheus::legacy;
use super::vfs::{Entry, FileBytes, LockGuard, RealVfs, Vfs, VfsFile, io_error};
use super::wal::writer::WalMetrics;
use super::wal::{Wal, WalOptions};
use crate::telemetry::Registry;
use crate::telemetry::memory::MemoryBudget;

/// How often a directory is read again that changes while it is read.
const ATTEMPTS: u32 = 20;
/// Exemplars that are kept: all that a directory can hold.
const EXEMPLARS: usize = 1 << 30;

/// A file system that shows files as they were when they were mapped, and writes nothing.
#[derive(Debug, Default)]
struct Pinned {
    files: HashMap<PathBuf, FileBytes>,
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory was opened for reading only"))
}

impl Pinned {
    /// Maps all files of a directory; a missing one has none. The listing is the same before and after.
    fn pin(&mut self, dir: &Path) -> Result<(), StorageError> {
        let names = |entries: &[Entry]| -> Vec<String> { entries.iter().map(|e| e.name.clone()).collect() };
        for _ in 0..ATTEMPTS {
            let entries = match RealVfs.list(dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(io_error("list", dir, &e)),
            };
            let mut files = HashMap::new();
            let mut vanished = false;
            for entry in
                entries.iter().filter(|e| !e.is_dir && !e.name.ends_with(super::vfs::TEMPORARY_SUFFIX))
            {
                let path = dir.join(&entry.name);
                match RealVfs.sealed(&path, true) {
                    Ok(bytes) => drop(files.insert(path, bytes)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => vanished = true,
                    Err(e) => return Err(io_error("open", &path, &e)),
                }
            }
            let after = RealVfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
            if !vanished && names(&after) == names(&entries) {
                self.files.extend(files);
                return Ok(());
            }
        }
        Err(StorageError::NotReady(format!("{} changes faster than it can be read", dir.display())))
    }
}

impl Vfs for Pinned {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        refused()
    }

    fn open(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        refused()
    }

    fn sealed(&self, path: &Path, _: bool) -> io::Result<FileBytes> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let inside = self.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        let mut entries: Vec<Entry> = inside
            .filter_map(|(path, bytes)| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(Entry { name, is_dir: false, len: bytes.len() as u64 })
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn link_or_copy(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn LockGuard>> {
        refused()
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        refused()
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
}

/// The files of some directories as they are now, in this order.
pub(super) fn pinned(dirs: &[&Path]) -> Result<Arc<dyn Vfs>, StorageError> {
    let mut pinned = Pinned::default();
    dirs.iter().try_for_each(|dir| pinned.pin(dir))?;
    Ok(Arc::new(pinned))
}

/// A data directory that is only read.
pub struct ReadOnlyDb {
    head: Arc<Head>,
    blocks: Vec<AnyBlock>,
    /// What could not be opened, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// What the replay of the log found.
    pub recovery: Recovery,
    /// Samples and chunks in Prometheus's log whose series no record names.
    pub unnamed: u64,
}

impl ReadOnlyDb {
    /// Opens a directory; one that does not exist is an error, an empty one is empty.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        RealVfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
        let (wal_dir, chunks_dir) = (dir.join(WAL_DIR), dir.join(CHUNKS_DIR));
        let vfs = pinned(&[&wal_dir, &chunks_dir])?;
        let head = empty_head(&vfs, &wal_dir, &chunks_dir)?;
        let mut recovery = replay(&head, &*vfs, &wal_dir, &super::ReplayWatch::default())?;
        let mut unnamed = 0;
        if let Some(files) = legacy::find(&RealVfs, dir)? {
            let report = legacy::load(&RealVfs, dir, &files, HeadLoader::new(&head, false))?;
            recovery.damaged += report.damaged;
            unnamed = report.unnamed;
        }
        let (blocks, unreadable) = list_blocks(dir)?;
        Ok(Self { head, blocks, unreadable, recovery, unnamed })
    }

    /// One block as if it were all there is.
    pub fn of_block(dir: &Path) -> Result<Self, StorageError> {
        let vfs: Arc<dyn Vfs> = Arc::new(Pinned::default());
        let head = empty_head(&vfs, dir, dir)?;
        let blocks = vec![AnyBlock::open(dir)?];
        Ok(Self { head, blocks, unreadable: Vec::new(), recovery: Recovery::default(), unnamed: 0 })
    }

    /// The blocks, by range.
    #[must_use]
    pub fn blocks(&self) -> &[AnyBlock] {
        &self.blocks
    }

    /// First and last timestamp of the samples in the head, if it has any.
    #[must_use]
    pub fn head_range(&self) -> Option<FlushRange> {
        let stats = self.head.stats();
        (stats.min_time <= stats.max_time)
            .then_some(FlushRange { min_t_ms: stats.min_time, max_t_ms: stats.max_time })
    }

    /// The samples of the head in a range as they were ingested.
    #[must_use]
    pub fn head_view(&self, range: FlushRange) -> Box<dyn FlushView> {
        self.head.copy_view(range)
    }
}

/// A head that writes nothing as long as nobody flushes or commits.
fn empty_head(vfs: &Arc<dyn Vfs>, wal_dir: &Path, chunks_dir: &Path) -> Result<Arc<Head>, StorageError> {
    let registry = Registry::new();
    let options = WalOptions {
        dir: wal_dir.to_owned(),
        segment_bytes: 1,
        sync_interval: std::time::Duration::ZERO,
        retry_interval: std::time::Duration::from_secs(1),
        compress: false,
        tails_dir: wal_dir.join("tails"),
        max_held_bytes: 0,
    };
    let wal = Wal::new(Arc::clone(vfs), options, WalMetrics::new(&registry), 1);
    let chunks = ChunkStore::open(Arc::clone(vfs), chunks_dir)?;
    let memory = MemoryBudget::unlimited();
    let limits = Limits::new(0, 2, 0, JobLimits::default(), memory, &registry);
    Ok(Head::new(chunks, wal, limits, EXEMPLARS, HeadMetrics::new(&registry)))
}

pub(super) type Unreadable = Vec<(PathBuf, String)>;

/// Whether there is anything of a storage in a directory, Prometheus's included.
pub fn holds_data(dir: &Path) -> Result<bool, StorageError> {
    let entries = RealVfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
    let ours = |e: &Entry| {
        e.name == FORMAT_FILE
            || e.is_dir && ([WAL_DIR, "wal"].contains(&e.name.as_str()) || Ulid::from_string(&e.name).is_ok())
    };
    Ok(entries.iter().any(ours))
}

/// Opens all blocks; those that another one replaces are left out, as at a start.
pub(super) fn list_blocks(dir: &Path) -> Result<(Vec<AnyBlock>, Unreadable), StorageError> {
    for attempt in 1.. {
        let (mut blocks, mut unreadable, mut vanished) = (Vec::new(), Vec::new(), false);
        for entry in RealVfs.list(dir).map_err(|e| io_error("list", dir, &e))? {
            if !entry.is_dir || Ulid::from_string(&entry.name).is_err() {
                continue;
            }
            let path = dir.join(&entry.name);
            match AnyBlock::open(path.as_path()) {
                Ok(block) => blocks.push(block),
                // A server may have merged it away since it was listed.
                Err(_) if !path.exists() => vanished = true,
                Err(e) => unreadable.push((path, e.to_string())),
            }
        }
        if vanished && attempt < ATTEMPTS {
            continue;
        }
        let replaced: Vec<Ulid> = blocks
            .iter()
            .flat_map(|b| b.meta().compaction.parents.iter().map(|p| p.ulid).filter(|p| *p != b.meta().ulid))
            .collect();
        blocks.retain(|b| !replaced.contains(&b.meta().ulid));
        blocks.sort_by_key(|b| (b.meta().min_time, b.meta().max_time, b.meta().ulid));
        return Ok((blocks, unreadable));
    }
    Ok((Vec::new(), Vec::new()))
}

impl Queryable for ReadOnlyDb {
    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError> {
        let mut sources: Vec<Box<dyn Querier>> = self
            .blocks
            .iter()
            .filter(|b| b.meta().min_time <= max_t_ms && b.meta().max_time > min_t_ms)
            .map(|b| b.querier(min_t_ms, max_t_ms))
            .collect();
        sources.push(Box::new(HeadQuerier(HeadView::open(&self.head, min_t_ms, max_t_ms))));
        Ok(Box::new(MergedQuerier::new(sources)))
    }
}
