//! How do credentials stay current? A [`SecretSource`] reads its file again whenever the file changes, which a
//! cheap look at its metadata tells; nothing is printed.

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use parking_lot::Mutex;

use super::error::NetError;
use crate::config::{FilePath, Secret};

/// Largest file that is read as a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// What tells one state of a file from another: inode, size, times of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Looks at a file; `None` when it cannot be looked at.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Reads a file of at most `limit` bytes. Pipes are refused: who waits for their writer keeps everybody else of the
/// thread waiting. Devices have no size that could be looked at before.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let meta = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if meta.file_type().is_fifo() {
        return Err("it is a pipe, not a file".into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("the file is larger than {limit} bytes"));
    }
    Ok(bytes)
}

/// A secret from the configuration or from a file.
#[derive(Debug)]
pub struct SecretSource {
    what: &'static str,
    inline: Secret,
    file: FilePath,
    cached: Mutex<Option<(Fingerprint, Secret)>>,
}

impl SecretSource {
    /// A source; the file is used when `inline` is empty. `what` names the secret in errors.
    #[must_use]
    pub fn new(what: &'static str, inline: &Secret, file: &FilePath) -> Self {
        Self { what, inline: inline.clone(), file: file.clone(), cached: Mutex::new(None) }
    }

    /// Whether neither text nor file is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.file.is_empty()
    }

    /// The current secret, blanks at the ends of a file's content removed; empty when nothing is given.
    pub fn read(&self) -> Result<Secret, NetError> {
        if self.file.is_empty() || !self.inline.is_empty() {
            return Ok(self.inline.clone());
        }
        let fail =
            |reason: String| NetError::SecretFile { what: self.what, path: self.file.0.clone(), reason };
        let path = self.file.as_path();
        let now = Fingerprint::of(path);
        if let (Some(now), Some((then, secret))) = (now, &*self.cached.lock())
            && now == *then
        {
            return Ok(secret.clone());
        }
        let bytes = read_bounded(path, MAX_SECRET_BYTES).map_err(fail)?;
        let text = String::from_utf8(bytes).map_err(|_| fail("it is not valid UTF-8".into()))?;
        let secret = Secret::new(text.trim());
        *self.cached.lock() = now.map(|f| (f, secret.clone()));
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_an_end_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a pipe");
        for (path, reason) in [
            (Path::new("/dev/zero"), "larger than 1048576 bytes"),
            (&pipe, "a pipe"),
            (folder.path(), "directory"),
            (&folder.path().join("none"), "No such file"),
        ] {
            let file = FilePath(path.to_string_lossy().into_owned());
            let source = SecretSource::new("password file", &Secret::default(), &file);
            let error = source.read().map(|_| ()).expect_err(reason).to_string();
            assert!(error.contains(reason) && error.contains("password file"), "{error}");
        }
        assert_eq!(read_bounded(Path::new("/dev/null"), 1), Ok(Vec::new()));
    }
}
