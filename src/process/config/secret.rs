//! Secrets in files: one line each, of bounded size.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The largest secret.
const MAX_SECRET_BYTES: usize = 16 << 10;
/// Where Docker and Podman mount secrets.
const MOUNTED_SECRETS: &str = "/run/secrets/";

/// The line that a secret's file holds; the error says why it can't be used.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let mut content = Vec::new();
    // Bounded: a device may have no end.
    let mut file = File::open(path).map_err(|error| error.to_string())?.take(MAX_SECRET_BYTES as u64 + 1);
    file.read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() > MAX_SECRET_BYTES {
        return Err(format!("it has more than {MAX_SECRET_BYTES} bytes"));
    }
    let content = String::from_utf8(content).map_err(|_| "it is not UTF-8")?;
    let line = content.trim_end_matches(['\r', '\n']);
    if line.is_empty() { Err("it is empty".to_owned()) } else { Ok(line.to_owned()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let file = std::env::temp_dir().join(format!("oncecast-line-{}", std::process::id()));
        for (content, read) in [("a\r\n", Ok("a")), ("\n", Err("it is empty")), ("", Err("it is empty"))] {
            fs::write(&file, content).expect("a file");
            assert_eq!(read_secret(&file).as_deref().map_err(String::as_str), read);
        }
        fs::remove_file(&file).expect("our own");
        assert!(read_secret(Path::new("/dev/zero")).expect_err("it has no end").contains("more than"));
    }
}
