//! A folder for what the processes of a cluster write.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};

/// A folder in the system's folder for temporary files that only we may read; removed on drop.
#[derive(Debug)]
pub struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// A new one, with `what` in its name.
    pub fn create(what: &str) -> Result<PrivateFolder> {
        let name = format!("oncecast-{what}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io(format!("creating {}", path.display())))?;
        Ok(PrivateFolder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // Nothing depends on it being gone, and there is nobody to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}
