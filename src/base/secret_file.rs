//! Files with secrets: read up to a bound, and who else can read them. Any thread.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::text::Quoted;

/// Where Docker and Podman mount secrets.
const MOUNTED_SECRETS: &str = "/run/secrets/";

/// What a file holds; the error says why it can't be used. A device may have no end, so at most so many bytes are read.
pub fn read_bounded(path: &Path, most_bytes: usize) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let mut file = File::open(path).map_err(|error| error.to_string())?.take(most_bytes as u64 + 1);
    file.read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() > most_bytes {
        return Err(format!("it has more than {most_bytes} bytes"));
    }
    Ok(content)
}

/// The same, for what must be a file: opening a pipe would wait for its writer.
pub fn read_bounded_file(path: &Path, most_bytes: usize) -> Result<Vec<u8>, String> {
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a file".to_owned());
    }
    read_bounded(path, most_bytes)
}

/// What is logged about a secret's file that every user of the machine can read; `None` if they can't. `source` names
/// the setting or variable: `setting=tls-key`.
///
/// Such a file is used all the same, because platforms mount secrets that way into containers without other users.
pub fn exposed(source: impl fmt::Display, path: &Path) -> Option<String> {
    let advice = || format!("every user of this machine can read this secret; chmod o-r {}", path.display());
    is_exposed(path).then(|| format!("event=secret-exposed {source} problem={}", Quoted(advice())))
}

/// Whether every user of the machine can read this file.
pub fn is_exposed(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    let allows = |path: &Path, right: u32| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & right != 0);
    let (read, enter) = (0o004, 0o001);
    !path.starts_with(MOUNTED_SECRETS)
        && allows(&path, read)
        && path.ancestors().skip(1).all(|folder| allows(folder, enter))
}
