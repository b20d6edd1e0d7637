//! The file of a link secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file that only its owner can read; removed on drop.
pub struct SecretFile(PathBuf);

impl SecretFile {
    pub fn new(name: &str, lines: &[&str]) -> SecretFile {
        let file = SecretFile(std::env::temp_dir().join(format!("oncecast-link-{name}-{}", std::process::id())));
        file.write(lines);
        file
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces the file in one step.
    pub fn write(&self, lines: &[&str]) {
        let new = self.0.with_extension("new");
        fs::write(&new, lines.join("\n") + "\n").expect("a file");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("our own");
        fs::rename(&new, &self.0).expect("our own");
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
