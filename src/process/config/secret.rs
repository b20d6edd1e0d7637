//! Secrets in files: one line each, of bounded size.

use std::path::Path;

use crate::base::secret_file::read_bounded;

/// The largest secret.
const MAX_SECRET_BYTES: usize = 16 << 10;

/// The line that a secret's file holds; the error says why it can't be used.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let content = read_bounded(path, MAX_SECRET_BYTES)?;
    let content = String::from_utf8(content).map_err(|_| "it is not UTF-8")?;
    let line = content.trim_end_matches(['\r', '\n']);
    if line.is_empty() { Err("it is empty".to_owned()) } else { Ok(line.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
