//! What would be left after a power cut, a full disk, a failing controller? A file system in memory that answers.
//!
//! Per file it keeps what was synced apart from what was only written; per directory it keeps creations, renames
//! and deletions that were not synced. [`CrashVfs::power_cut`] builds a legal survivor from a seed: unsynced bytes
//! are kept up to a random point, torn at 512 bytes, zeroed or lost in pages; unsynced directory operations are
//! kept or lost one by one. Calls that change something are numbered, calls that read too, and the n-th can be made to
//! fail once or from then on. Everything is deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Entry, FileBytes, LockGuard, Vfs, VfsFile};

/// What is stored, and what of it would last.
mod disk;

pub use disk::Fault;
use disk::{DirOp, Node, State, hits, lose_pages, name_of};

/// The file system. Clones of the `Arc` share it.
#[derive(Debug, Default)]
pub struct CrashVfs {
    state: Arc<Mutex<State>>,
}

struct CrashFile {
    state: Arc<Mutex<State>>,
    node: usize,
}

impl VfsFile for CrashFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Err(error) = state.call() {
            // A failed write may leave any part behind.
            state.append(self.node, &bytes[..bytes.len() / 2]);
            return Err(error);
        }
        let room = state.room();
        if (bytes.len() as u64) > room {
            state.append(self.node, &bytes[..room as usize]);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        state.append(self.node, bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let fails = hits(state.failed_syncs, state.syncs);
        state.syncs += 1;
        if let Node::File { data, synced } = &mut state.nodes[self.node] {
            if fails {
                // As on Linux: the pages are marked clean although they never reached the disk, so that a second
                // sync would succeed and mean nothing.
                data.truncate(*synced);
                return Err(io::Error::other("injected failure of a sync"));
            }
            *synced = data.len();
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.read()?;
        let data = state.data(self.node);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let n = out.len().min(data.len() - start);
        out[..n].copy_from_slice(&data[start..start + n]);
        Ok(n)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().data(self.node).len() as u64)
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

    /// Flips a bit of what is written, that with this number from now on, and says nothing.
    pub fn set_flip(&self, after: u64) {
        self.state.lock().flip = Some(after);
    }

    /// Takes back what [`CrashVfs::set_flip`] did, if the bit was not written yet.
    pub fn take_flip(&self) -> Option<u64> {
        self.state.lock().flip.take()
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

    /// Number of reading calls so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// Makes reading calls fail, counted from now; `None` heals.
    pub fn set_read_fault(&self, fault: Option<Fault>) {
        let mut state = self.state.lock();
        state.reads = 0;
        state.read_fault = fault;
    }

    fn survivor(nodes: Vec<Node>, operations: u64) -> Arc<Self> {
        Arc::new(Self { state: Arc::new(Mutex::new(State { nodes, operations, ..State::default() })) })
    }

    /// The process was killed: everything written stays, locks are gone.
    #[must_use]
    pub fn kill(&self) -> Arc<Self> {
        let state = self.state.lock();
        Self::survivor(state.nodes.clone(), state.operations)
    }

    /// A file system as it may be found after the power failed now. The original is not changed.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Arc<Self> {
        let state = self.state.lock();
        let mut random = fastrand::Rng::with_seed(seed);
        // Either the journal kept a prefix, or (on file systems without order) any subset.
        let ordered = random.bool();
        let oldest = state.nodes.iter().filter_map(|node| match node {
            Node::Dir { pending, .. } => pending.first().map(|(number, _)| *number),
            Node::File { .. } => None,
        });
        let cut = random.u64(oldest.min().unwrap_or(state.operations)..=state.operations);
        let mut nodes = state.nodes.clone();
        let mut kept = BTreeMap::new();
        for node in &mut nodes {
            match node {
                Node::Dir { now, synced, pending } => {
                    for (number, op) in pending.drain(..) {
                        let lasts = if ordered {
                            number < cut
                        } else {
                            *kept.entry(number).or_insert_with(|| random.bool())
                        };
                        if lasts {
                            op.apply(synced);
                        }
                    }
                    now.clone_from(synced);
                }
                Node::File { data, synced } => lose_pages(&mut random, data, synced),
            }
        }
        Self::survivor(nodes, state.operations)
    }

    /// Content of a file, for tests that damage it.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.node(path).ok().map(|node| state.data(node).to_vec())
    }

    /// Replaces the content of a file behind everybody's back.
    pub fn damage(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.state.lock();
        if let Ok(node) = state.node(path) {
            let synced = content.len();
            state.nodes[node] = Node::File { data: content, synced };
        }
    }

    /// All files in order of path.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().files().into_iter().map(|(path, _)| path).collect()
    }
}

impl Vfs for CrashVfs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        state.call()?;
        if state.room() == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let node = state.add(path, Node::empty_file())?;
        Ok(Arc::new(CrashFile { state: Arc::clone(&self.state), node }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        state.read()?;
        let node = state.node(path)?;
        Ok(Arc::new(CrashFile { state: Arc::clone(&self.state), node }))
    }

    fn sealed(&self, path: &Path, _as_map: bool) -> io::Result<FileBytes> {
        let mut state = self.state.lock();
        state.read()?;
        Ok(FileBytes::new(state.data(state.node(path)?).to_vec()))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let mut parents: Vec<&Path> = path.ancestors().collect();
        parents.reverse();
        for dir in parents {
            match state.node(dir) {
                Ok(node) => state.names(node).map(|_| ())?,
                Err(_) if state.room() == 0 => return Err(io::Error::from(io::ErrorKind::StorageFull)),
                Err(_) => state.add(dir, Node::empty_dir()).map(|_| ())?,
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.state.lock();
        state.read()?;
        let names = state.names(state.node(dir)?)?;
        let entry = |(name, node): (&String, &usize)| Entry {
            name: name.clone(),
            is_dir: matches!(state.nodes[*node], Node::Dir { .. }),
            len: state.data(*node).len() as u64,
        };
        Ok(names.iter().map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        if to != from && to.starts_with(from) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let (node, dir) = (state.node(from)?, state.parent(from)?);
        let target = state.parent(to)?;
        let occupied = |state: &State| state.names(state.node(to)?).map(|names| !names.is_empty());
        if occupied(&state).unwrap_or(false) {
            return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
        }
        let (old, new) = (name_of(from)?, name_of(to)?);
        if target == dir {
            return state.change(dir, DirOp::Rename(old, new, node));
        }
        state.change_all([(target, DirOp::Link(new, node)), (dir, DirOp::Unlink(old))])
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        state.node(path)?;
        let dir = state.parent(path)?;
        state.change(dir, DirOp::Unlink(name_of(path)?))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state.lock().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let node = state.node(dir)?;
        let mut lasting = BTreeSet::new();
        if let Node::Dir { now, synced, pending } = &mut state.nodes[node] {
            synced.clone_from(now);
            lasting.extend(pending.drain(..).map(|(number, _)| number));
        }
        for other in &mut state.nodes {
            if let Node::Dir { synced, pending, .. } = other {
                // The other half of a rename between directories comes along.
                for (_, op) in pending.extract_if(.., |(number, _)| lasting.contains(number)) {
                    op.apply(synced);
                }
            }
        }
        Ok(())
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let (node, dir) = (state.node(from)?, state.parent(to)?);
        state.change(dir, DirOp::Link(name_of(to)?, node))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        if !self.state.lock().locks.insert(path.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(CrashLock { state: Arc::clone(&self.state), path: path.to_owned() }))
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(if state.quota.is_some() { state.room() } else { 1 << 40 })
    }

    fn exists(&self, path: &Path) -> bool {
        self.state.lock().node(path).is_ok()
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
        vfs.sync_dir(Path::new("/")).unwrap();
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
        vfs.sync_dir(Path::new("/")).unwrap();
        let file = vfs.create(Path::new("/d/f")).unwrap();
        file.append(b"x").unwrap();
        file.sync_data().unwrap();
        let survivors = (0..50).filter(|seed| vfs.power_cut(*seed).exists(Path::new("/d/f"))).count();
        assert!((1..50).contains(&survivors), "{survivors}");
    }

    #[test]
    fn a_rename_between_directories_leaves_one_name() {
        let vfs = CrashVfs::new();
        let (from, to) = (Path::new("/from/f"), Path::new("/to/f"));
        for dir in ["/from", "/to"] {
            vfs.create_dir_all(Path::new(dir)).unwrap();
        }
        vfs.create(from).unwrap().sync_data().unwrap();
        for dir in ["/", "/from"] {
            vfs.sync_dir(Path::new(dir)).unwrap();
        }
        vfs.rename(from, to).unwrap();
        let moved = (0..60).filter(|seed| {
            let cut = vfs.power_cut(*seed);
            assert_ne!(cut.exists(from), cut.exists(to));
            cut.exists(to)
        });
        assert!((1..60).contains(&moved.count()));
        vfs.sync_dir(Path::new("/to")).unwrap();
        assert!((0..60).all(|seed| vfs.power_cut(seed).exists(to) && !vfs.power_cut(seed).exists(from)));
    }

    #[test]
    fn a_directory_that_was_renamed_is_whole_under_one_name_or_gone() {
        let vfs = CrashVfs::new();
        let (root, old, new) = (Path::new("/"), Path::new("/old"), Path::new("/new"));
        vfs.create_dir_all(old).unwrap();
        vfs.create(&old.join("a")).unwrap();
        vfs.create(&old.join("b")).unwrap();
        vfs.sync_dir(old).unwrap();
        vfs.rename(old, new).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..60 {
            let cut = vfs.power_cut(seed);
            let names: Vec<String> = cut.list(root).unwrap().into_iter().map(|e| e.name).collect();
            assert!(names.iter().all(|name| cut.list(&root.join(name)).unwrap().len() == 2));
            assert!(names.len() < 2);
            seen.insert(names);
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        vfs.sync_dir(root).unwrap();
        assert!((0..60).all(|seed| vfs.power_cut(seed).exists(&new.join("b"))));
        assert!(vfs.rename(new, &new.join("below")).is_err());
    }
}
