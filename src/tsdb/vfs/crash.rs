//! What would be left after a power cut, a full disk, a failing controller? A file system in memory that answers.
//!
//! Per file it keeps what was synced apart from what was only written; per directory it keeps creations, renames
//! and deletions that were not synced. [`CrashVfs::power_cut`] builds a legal survivor from a seed: unsynced bytes
//! are kept up to a random point, torn at 512 bytes, zeroed or lost in pages; unsynced directory operations are
//! kept or lost one by one. Calls that change something are numbered, and the n-th can be made to fail once or
//! from then on. Everything is deterministic.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Entry, FileBytes, LockGuard, Vfs, VfsFile};

const SECTOR: usize = 512;

#[derive(Debug, Default, Clone)]
struct Inode {
    data: Vec<u8>,
    /// Bytes that a power cut cannot take.
    synced: usize,
}

#[derive(Debug, Clone)]
enum DirOp {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl DirOp {
    fn dir(&self) -> Option<&Path> {
        match self {
            DirOp::Link(path, _) | DirOp::Unlink(path) | DirOp::Rename(_, path, _) => path.parent(),
        }
    }

    fn apply(&self, table: &mut BTreeMap<PathBuf, usize>) {
        match self {
            DirOp::Link(path, inode) => {
                table.insert(path.clone(), *inode);
            }
            DirOp::Unlink(path) => {
                table.remove(path);
            }
            DirOp::Rename(from, to, inode) => {
                table.remove(from);
                table.insert(to.clone(), *inode);
            }
        }
    }
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call with this number (from 0) fails, later ones work.
    Once(u64),
    /// The call with this number and all later ones fail.
    From(u64),
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    table: BTreeMap<PathBuf, usize>,
    durable_table: BTreeMap<PathBuf, usize>,
    pending: Vec<DirOp>,
    dirs: std::collections::BTreeSet<PathBuf>,
    locks: std::collections::BTreeSet<PathBuf>,
    calls: u64,
    fault: Option<Fault>,
    failed_syncs: Option<Fault>,
    syncs: u64,
    quota: Option<u64>,
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        let n = self.calls;
        self.calls += 1;
        match self.fault {
            Some(Fault::Once(at)) if at == n => {
                Err(io::Error::other(format!("injected failure of call {n}")))
            }
            Some(Fault::From(at)) if at <= n => {
                Err(io::Error::other(format!("injected failure of call {n}")))
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.table.values().map(|inode| self.inodes[*inode].data.len() as u64).sum()
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.table.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn link(&mut self, op: DirOp) {
        op.apply(&mut self.table);
        self.pending.push(op);
    }
}

/// The file system. Clones of the `Arc` share it.
#[derive(Debug, Default)]
pub struct CrashVfs {
    state: Arc<Mutex<State>>,
}

struct CrashFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

impl VfsFile for CrashFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Err(error) = state.call() {
            // A failed write may leave any part behind.
            let half = bytes.len() / 2;
            state.inodes[self.inode].data.extend_from_slice(&bytes[..half]);
            return Err(error);
        }
        let room = state.quota.map_or(u64::MAX, |quota| quota.saturating_sub(state.used()));
        if (bytes.len() as u64) > room {
            state.inodes[self.inode].data.extend_from_slice(&bytes[..room as usize]);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        state.inodes[self.inode].data.extend_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let n = state.syncs;
        state.syncs += 1;
        let fails = match state.failed_syncs {
            Some(Fault::Once(at)) => at == n,
            Some(Fault::From(at)) => at <= n,
            None => false,
        };
        if fails {
            // As on Linux: the pages are marked clean although they never reached the disk, so that a second sync
            // would succeed and mean nothing.
            let inode = &mut state.inodes[self.inode];
            inode.data.truncate(inode.synced);
            return Err(io::Error::other("injected failure of a sync"));
        }
        let inode = &mut state.inodes[self.inode];
        inode.synced = inode.data.len();
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock();
        let data = &state.inodes[self.inode].data;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let n = out.len().min(data.len() - start);
        out[..n].copy_from_slice(&data[start..start + n]);
        Ok(n)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().inodes[self.inode].data.len() as u64)
    }
}

struct CrashLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl LockGuard for CrashLock {}

impl Drop for CrashLock {
    fn drop(&mut self) {
        self.state.lock().locks.remove(&self.path);
    }
}

impl CrashVfs {
    /// An empty file system.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Number of changing calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Number of syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Makes changing calls fail, counted from now; `None` heals.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        state.calls = 0;
        state.fault = fault;
    }

    /// Makes syncs of files fail, counted from now; `None` heals.
    pub fn set_sync_fault(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        state.syncs = 0;
        state.failed_syncs = fault;
    }

    /// Limits the bytes of all files together; `None` lifts the limit.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.state.lock().quota = quota;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// The process was killed: everything written stays, locks are gone.
    #[must_use]
    pub fn kill(&self) -> Arc<Self> {
        let state = self.state.lock();
        let copy = State {
            inodes: state.inodes.clone(),
            table: state.table.clone(),
            durable_table: state.durable_table.clone(),
            pending: state.pending.clone(),
            dirs: state.dirs.clone(),
            ..State::default()
        };
        Arc::new(Self { state: Arc::new(Mutex::new(copy)) })
    }

    /// A file system as it may be found after the power failed now. The original is not changed.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Arc<Self> {
        let state = self.state.lock();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut table = state.durable_table.clone();
        // Either the journal kept a prefix, or (on file systems without order) any subset.
        let ordered = random.bool();
        let keep = random.usize(0..=state.pending.len());
        for (i, op) in state.pending.iter().enumerate() {
            if if ordered { i < keep } else { random.bool() } {
                op.apply(&mut table);
            }
        }
        let mut inodes = state.inodes.clone();
        for inode in &mut inodes {
            let len = random.usize(inode.synced..=inode.data.len());
            let sectors = random.bool();
            let len = if sectors { (len / SECTOR * SECTOR).max(inode.synced) } else { len };
            inode.data.truncate(len);
            // Some pages of the unsynced tail may not have been written although later ones were.
            if random.u8(..4) == 0 {
                let mut at = inode.synced.next_multiple_of(SECTOR);
                while at < len {
                    let end = (at + SECTOR).min(len);
                    if random.bool() {
                        inode.data[at..end].fill(0);
                    }
                    at = end;
                }
            }
            inode.synced = inode.data.len();
        }
        let copy = State {
            inodes,
            durable_table: table.clone(),
            table,
            dirs: state.dirs.clone(),
            ..State::default()
        };
        Arc::new(Self { state: Arc::new(Mutex::new(copy)) })
    }

    /// Content of a file, for tests that damage it.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.inode(path).ok().map(|inode| state.inodes[inode].data.clone())
    }

    /// Replaces the content of a file behind everybody's back.
    pub fn damage(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.state.lock();
        if let Ok(inode) = state.inode(path) {
            let synced = content.len();
            state.inodes[inode] = Inode { data: content, synced };
        }
    }

    /// All files in order of path.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().table.keys().cloned().collect()
    }
}

impl Vfs for CrashVfs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        state.call()?;
        if state.table.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        if state.quota.is_some_and(|quota| quota <= state.used()) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.link(DirOp::Link(path.to_owned(), inode));
        Ok(Arc::new(CrashFile { state: Arc::clone(&self.state), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let state = self.state.lock();
        let inode = state.inode(path)?;
        Ok(Arc::new(CrashFile { state: Arc::clone(&self.state), inode }))
    }

    fn sealed(&self, path: &Path, _as_map: bool) -> io::Result<FileBytes> {
        let state = self.state.lock();
        Ok(FileBytes::new(state.inodes[state.inode(path)?].data.clone()))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        // Directories survive at once: what matters is whether their entries do.
        state.dirs.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state.lock();
        if !state.dirs.contains(dir) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = state.table.iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(path, inode)| {
            Entry { name: name(path), is_dir: false, len: state.inodes[*inode].data.len() as u64 }
        });
        let dirs = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        let mut entries: Vec<Entry> =
            files.chain(dirs.map(|path| Entry { name: name(path), is_dir: true, len: 0 })).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        if state.dirs.contains(from) {
            let move_path = |path: &Path| path.strip_prefix(from).ok().map(|rest| to.join(rest));
            let files: Vec<(PathBuf, PathBuf, usize)> = state
                .table
                .iter()
                .filter_map(|(path, inode)| move_path(path).map(|new| (path.clone(), new, *inode)))
                .collect();
            let dirs: Vec<PathBuf> = state.dirs.iter().filter(|d| d.starts_with(from)).cloned().collect();
            for dir in dirs {
                state.dirs.remove(&dir);
                state.dirs.extend(move_path(&dir));
            }
            for (old, new, inode) in files {
                state.link(DirOp::Rename(old, new, inode));
            }
            return Ok(());
        }
        let inode = state.inode(from)?;
        state.link(DirOp::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        state.inode(path)?;
        state.link(DirOp::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let files: Vec<PathBuf> = state.table.keys().filter(|p| p.starts_with(path)).cloned().collect();
        for file in files {
            state.link(DirOp::Unlink(file));
        }
        state.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let pending = std::mem::take(&mut state.pending);
        for op in pending {
            if op.dir() == Some(dir) {
                op.apply(&mut state.durable_table);
            } else {
                state.pending.push(op);
            }
        }
        Ok(())
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let inode = state.inode(from)?;
        state.link(DirOp::Link(to.to_owned(), inode));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        if !self.state.lock().locks.insert(path.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(CrashLock { state: Arc::clone(&self.state), path: path.to_owned() }))
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.quota.map_or(1 << 40, |quota| quota.saturating_sub(state.used())))
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state.lock();
        state.table.contains_key(path) || state.dirs.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_cut_keeps_what_was_synced_and_no_more_than_was_written() {
        let vfs = CrashVfs::new();
        let dir = Path::new("/d");
        vfs.create_dir_all(dir).unwrap();
        let file = vfs.create(&dir.join("f")).unwrap();
        file.append(&[1; 700]).unwrap();
        file.sync_data().unwrap();
        vfs.sync_dir(dir).unwrap();
        file.append(&[2; 2000]).unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let content = vfs.power_cut(seed).content(&dir.join("f")).unwrap();
            assert_eq!(content[..700], [1; 700]);
            assert!(content.len() <= 2700 && content[700..].iter().all(|b| *b == 2 || *b == 0));
            lengths.insert(content.len());
        }
        assert!(lengths.len() > 20, "{lengths:?}");
    }

    #[test]
    fn entries_that_were_not_synced_may_vanish() {
        let vfs = CrashVfs::new();
        vfs.create_dir_all(Path::new("/d")).unwrap();
        let file = vfs.create(Path::new("/d/f")).unwrap();
        file.append(b"x").unwrap();
        file.sync_data().unwrap();
        let survivors = (0..50).filter(|seed| vfs.power_cut(*seed).exists(Path::new("/d/f"))).count();
        assert!((1..50).contains(&survivors), "{survivors}");
    }
}
