//! A folder for the files of a cluster's processes.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};

/// A folder that only this user may read, in the system's folder for temporary files; removed on drop.
#[derive(Debug)]
pub struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Creates one with `what` in its name.
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
        // Nothing depends on its removal, and a drop cannot return an error.
        let _ = fs::remove_dir_all(&self.0);
    }
}
