//! How do credentials stay current? A [`SecretSource`] reads its file again whenever the file changes, which a
//! cheap look at its metadata tells; nothing is printed.

use std::os::unix::fs::MetadataExt as _;
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
        if now.is_some_and(|f| f.size > MAX_SECRET_BYTES) {
            return Err(fail(format!("the file is larger than {MAX_SECRET_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let secret = Secret::new(text.trim());
        *self.cached.lock() = now.map(|f| (f, secret.clone()));
        Ok(secret)
    }
}
