//! The machine's file system: std for files, rustix for locks and free space, memmap2 for sealed files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::{Entry, FileBytes, Held, LockGuard, Vfs, VfsFile};

/// Files are private to the user: labels and help texts may name customers or hosts.
const FILE_MODE: u32 = 0o640;

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealVfs;

struct RealFile(File);

impl VfsFile for RealFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.0.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

struct RealLock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl LockGuard for RealLock {}

#[expect(unsafe_code, reason = "mapping a file is unsafe because others could change it")]
fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: only sealed files are mapped; nobody writes or truncates them, they are deleted by unlinking, which
    // keeps the pages alive. Another program that truncates files in our data directory would end the process
    // with SIGBUS; the directory lock is there to keep such programs out.
    unsafe { memmap2::Mmap::map(file) }
}

struct Mapped(memmap2::Mmap);

impl Held for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[expect(unsafe_code, reason = "memory that is given back could be lost for other kinds of maps")]
    fn release(&self, part: Range<usize>) {
        let part = part.start.min(self.0.len())..part.end.min(self.0.len());
        // SAFETY: the map is of a file and read-only: whatever is given back is read from the file again when asked for.
        let done = unsafe {
            self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, part.start, part.len())
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the memory of a file that was read stays in use");
        }
    }
}

impl Vfs for RealVfs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn sealed(&self, path: &Path, as_map: bool) -> io::Result<FileBytes> {
        let file = File::open(path)?;
        if as_map && file.metadata()?.len() > 0 {
            return Ok(FileBytes::held(Mapped(map(&file)?)));
        }
        Ok(FileBytes::new(fs::read(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Names that are not UTF-8 are none of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            let is_dir = metadata.is_dir();
            entries.push(Entry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        if fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        fs::copy(from, to)?;
        File::open(to)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock(file)))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_reads_maps_and_locks() {
        let dir = tempfile::tempdir().unwrap();
        let (vfs, path) = (RealVfs, dir.path().join("f"));
        let file = vfs.create(&path).unwrap();
        file.append(b"hello").unwrap();
        file.sync_data().unwrap();
        let mut out = [0; 8];
        assert_eq!(file.read_at(1, &mut out).unwrap(), 4);
        let bytes = vfs.sealed(&path, true).unwrap();
        assert_eq!(&*bytes, b"hello");
        bytes.release(1..9);
        assert_eq!(&*bytes, b"hello");
        assert!(vfs.create(&path).is_err());
        super::super::replace_file(&vfs, &path, b"new").unwrap();
        assert_eq!(&*vfs.sealed(&path, false).unwrap(), b"new");
        let lock = vfs.lock(&dir.path().join("lock")).unwrap();
        assert_eq!(vfs.lock(&dir.path().join("lock")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        assert!(vfs.lock(&dir.path().join("lock")).is_ok());
        assert!(vfs.free_space(dir.path()).unwrap() > 0);
    }
}
