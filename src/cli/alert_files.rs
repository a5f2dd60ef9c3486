//! Where is alert state kept? In small files below the data directory, replaced as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::alert::AlertStore;
use crate::alert::state::MAX_STATE_BYTES;
use crate::tsdb::vfs::{Vfs, io_error, replace_file};

/// Files of alert state in a directory.
#[derive(Debug)]
pub struct AlertFiles {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
}

impl AlertFiles {
    /// Keeps files in the directory `alerts` below `data`; it is created with the first file.
    #[must_use]
    pub fn new(vfs: Arc<dyn Vfs>, data: &Path) -> Self {
        Self { vfs, dir: data.join("alerts") }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.json"))
    }
}

impl AlertStore for AlertFiles {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        if !self.vfs.exists(&path) {
            return None;
        }
        let file = self.vfs.open(&path).ok()?;
        let len = usize::try_from(file.len().ok()?).ok().filter(|len| (1..=MAX_STATE_BYTES).contains(len))?;
        let mut content = vec![0; len];
        let mut read = 0;
        while read < len {
            match file.read_at(read as u64, &mut content[read..]) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "Saved alert state cannot be read");
                    return None;
                }
            }
        }
        content.truncate(read);
        Some(content)
    }

    fn save(&self, key: &str, content: &[u8]) -> Result<(), String> {
        self.vfs
            .create_dir_all(&self.dir)
            .map_err(|e| io_error("create directory", &self.dir, &e))
            .and_then(|()| replace_file(self.vfs.as_ref(), &self.path(key), content))
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::vfs::RealVfs;

    #[test]
    fn state_comes_back_and_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = AlertFiles::new(Arc::new(RealVfs), dir.path());
        assert_eq!(files.load("k"), None);
        for content in [b"first".as_slice(), b"second, longer"] {
            files.save("k", content).expect("saved");
            assert_eq!(files.load("k").as_deref(), Some(content));
        }
        files.save("k", b"").expect("saved");
        assert_eq!(files.load("k"), None);
    }
}
