//! The secret by which the two ends of a link know each other: a file with one line, or two while it is being replaced.
//!
//! It is read again when it has changed, for the next handshake. A file that can't be used any more is logged, and what
//! was read before stays in use. The proofs made with it are in [`wire`](crate::wire). Any thread.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::kept::{Kept, Words};
use crate::base::secret_file::{is_exposed, read_bounded_file};

/// The shortest secret, in bytes. `openssl rand -hex 32` gives 64.
const LEAST_BYTES: usize = 16;
/// The longest.
const MOST_BYTES: usize = 1 << 10;
/// The old secret and the new one.
const MOST_LINES: usize = 2;
/// More than the longest two lines: there may be white space around them.
const MAX_FILE_BYTES: usize = 16 << 10;
/// What the setting takes.
pub const SECRET_TAKES: &str =
    "the path of a file with a secret of 16 to 1024 bytes, or two, one a line, which not every user can read";

const WORDS: Words = Words { read: "event=link-secret-read", unusable: "event=link-secret-unusable" };

/// One line of the file. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(line: &[u8]) -> Secret {
        Secret(line.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[derive(Debug)]
struct SecretFile(Box<Path>);

/// See the module's text. Clones share what was read.
#[derive(Clone)]
pub struct LinkSecret(Arc<Kept<SecretFile, Vec<Secret>, String>>);

impl LinkSecret {
    /// Reads the file for the first time. The error names it and says what is wrong.
    pub fn load(path: &Path) -> Result<LinkSecret, String> {
        Ok(LinkSecret(Arc::new(Kept::load(SecretFile(path.into()), vec![path.to_owned()], None, read, WORDS)?)))
    }

    /// The lines that are valid now: for a whole handshake these, so that a change meanwhile does not break it.
    pub fn current(&self) -> Arc<Vec<Secret>> {
        self.0.current()
    }
}

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkSecret").field(&self.0.files).finish()
    }
}

/// Bytes that nobody can guess.
pub fn random_bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}

fn read(SecretFile(path): &SecretFile) -> Result<Vec<Secret>, String> {
    let shown = path.display();
    if is_exposed(path) {
        return Err(format!("{shown}: every user of this machine can read this secret; chmod o-r {shown}"));
    }
    let content = read_bounded_file(path, MAX_FILE_BYTES).map_err(|problem| format!("{shown}: {problem}"))?;
    secrets_in(&content).map_err(|problem| format!("{shown}: {problem}"))
}

/// The lines that are not blank, without the white space around them.
fn secrets_in(content: &[u8]) -> Result<Vec<Secret>, String> {
    let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let secrets: Vec<Secret> = lines.map(Secret::from).collect();
    if secrets.is_empty() {
        return Err("it is empty; write a secret into it, for instance by: openssl rand -hex 32".to_owned());
    }
    if secrets.len() > MOST_LINES {
        return Err(format!("it has {} secrets, at most {MOST_LINES} may be valid at a time", secrets.len()));
    }
    // A secret's own length is not shown.
    match (1..).zip(&secrets).find(|(_, secret)| !(LEAST_BYTES..=MOST_BYTES).contains(&secret.0.len())) {
        Some((number, _)) => Err(format!("secret {number} does not have {LEAST_BYTES} to {MOST_BYTES} bytes")),
        None => Ok(secrets),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const OLD: &str = "an old secret, no longer good";
    const NEW: &str = "a new secret, of 27 bytes..";

    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str, content: &str) -> TestFile {
            let path = std::env::temp_dir().join(format!("oncecast-secret-{name}-{}", std::process::id()));
            let file = TestFile(path);
            file.write(content, 0o600);
            file
        }

        /// Replaces the file, as tools do that rotate secrets.
        fn write(&self, content: &str, mode: u32) {
            let new = self.0.with_extension("new");
            fs::write(&new, content).expect("a file");
            fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("our own");
            fs::rename(&new, &self.0).expect("our own");
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn lines(secret: &LinkSecret) -> Vec<String> {
        secret.current().iter().map(|line| String::from_utf8_lossy(line.as_ref()).into_owned()).collect()
    }

    #[test]
    fn a_file_has_one_secret_or_two() {
        let count = |content: &str| secrets_in(content.as_bytes()).map(|secrets| secrets.len());
        for (content, found) in [
            (OLD.to_owned(), 1),
            (format!("\n \t{OLD} \r\n\n{NEW}\r\n\n"), 2),
            ("x".repeat(LEAST_BYTES), 1),
            ("x".repeat(MOST_BYTES), 1),
        ] {
            assert_eq!(count(&content), Ok(found), "{content:?}");
        }
        assert_eq!(secrets_in(format!("  {OLD}\t\r\n").as_bytes()), Ok(vec![Secret(OLD.as_bytes().into())]));
        for (content, problem) in [
            ("".to_owned(), "it is empty"),
            (" \n\t\r\n".to_owned(), "it is empty"),
            (format!("{OLD}\n{NEW}\n{OLD}"), "3 secrets"),
            ("x".repeat(LEAST_BYTES - 1), "secret 1 does not have 16 to 1024 bytes"),
            (format!("{OLD}\n{}", "x".repeat(MOST_BYTES + 1)), "secret 2 does not have 16 to 1024 bytes"),
        ] {
            let text = count(&content).expect_err(problem);
            assert!(text.contains(problem), "{text}");
        }
    }

    #[test]
    fn files_that_can_not_be_used_are_named() {
        let file = TestFile::new("bad", OLD);
        LinkSecret::load(&file.0).expect("a good file");
        file.write(OLD, 0o604);
        for (path, problem) in [
            (file.0.clone(), "every user"),
            (file.0.with_extension("nowhere"), "No such file"),
            (std::env::temp_dir(), "chmod o-r"),
            (PathBuf::from("/dev/zero"), "every user"),
        ] {
            let text = LinkSecret::load(&path).expect_err(problem);
            assert!(text.contains(&path.display().to_string()) && text.contains(problem), "{text}");
        }
        assert!(!format!("{:?} {:?}", Secret(OLD.as_bytes().into()), LinkSecret::load(&file.0)).contains(OLD));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
        let file = TestFile::new("changed", OLD);
        let secret = LinkSecret::load(&file.0).expect("a good file");
        assert_eq!(lines(&secret), [OLD]);
        file.write(&format!("{OLD}\n{NEW}\n"), 0o600);
        assert_eq!(lines(&secret), [OLD, NEW]);
        for (content, mode) in [("", 0o600), ("short", 0o600), (OLD, 0o644)] {
            file.write(content, mode);
            assert_eq!(lines(&secret), [OLD, NEW], "{content:?} {mode:o}");
        }
        fs::remove_file(&file.0).expect("our own");
        assert_eq!(lines(&secret), [OLD, NEW]);
        file.write(NEW, 0o604);
        assert_eq!(lines(&secret), [OLD, NEW]);
        fs::set_permissions(&file.0, fs::Permissions::from_mode(0o600)).expect("our own");
        assert_eq!(lines(&secret), [NEW], "the right is corrected as the message says");
    }

    #[test]
    fn random_bytes_are_never_the_same() {
        let bytes = || random_bytes::<16>().expect("Linux has them");
        assert_ne!(bytes(), bytes());
    }
}
