//! The token that `/metrics` and the pages require, in a file: one line, or two while it is being replaced.
//!
//! The file is read for each request that needs it, so that a new token is valid at once. A file that can't be used any
//! longer is logged, and its last tokens stay valid: a mistake while replacing them must not end monitoring.
//! Limitation: how long a comparison takes reveals the length of the tokens, but none of their bytes.

use std::hint;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::base::error::Result;
use crate::base::secret_file::{exposed, read_bounded_file};
use crate::base::setting::ConfigError;
use crate::base::text::Quoted;

/// The shortest token. `openssl rand -hex 32` gives 64 bytes.
const MIN_TOKEN_BYTES: usize = 16;
/// The longest token. It fits into a request.
const MAX_TOKEN_BYTES: usize = 1 << 10;
/// The old token and the new one.
const MAX_TOKENS: usize = 2;
const MAX_FILE_BYTES: usize = MAX_TOKENS * (MAX_TOKEN_BYTES + 2);
const TAKES: &str = "the path of a file with a token of 16 to 1024 visible ASCII characters, or two, one a line";

/// See the module's text.
pub(super) struct TokenFile {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    tokens: Vec<String>,
    /// Why the file could not be used last time.
    problem: Option<String>,
}

impl TokenFile {
    /// Reads the file for the first time; every problem is an error of the setting.
    pub(super) fn open(path: &Path) -> Result<TokenFile> {
        let shown = path.display();
        let tokens = read(path)
            .map_err(|problem| ConfigError::new("metrics-token-file", format_args!("{shown}: {problem}"), TAKES))?;
        if let Some(warning) = exposed("setting=metrics-token-file", path) {
            log::warn!("{warning}");
        }
        Ok(TokenFile { path: path.to_owned(), state: Mutex::new(State { tokens, problem: None }) })
    }

    /// Whether this is a token now.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        // Outside of the lock: a file system that hangs must hold up no other request.
        let found = read(&self.path);
        let mut state = self.state.lock();
        match found {
            Ok(tokens) => *state = State { tokens, problem: None },
            Err(problem) if state.problem.as_ref() != Some(&problem) => {
                let (path, text) = (self.path.display(), Quoted(&problem));
                log::warn!(
                    "event=metrics-token-unusable file={} problem={text} note=\"the last one stays valid\"",
                    Quoted(path)
                );
                state.problem = Some(problem);
            }
            Err(_) => {}
        }
        // All are compared, whichever is equal.
        state.tokens.iter().fold(false, |found, token| found | is_equal(token.as_bytes(), given))
    }
}

/// Never shows a token.
impl std::fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Compares all bytes, so that the time doesn't depend on where the first difference is.
fn is_equal(token: &[u8], given: &[u8]) -> bool {
    let differences = token.iter().zip(given).fold(0, |sum, (a, b)| hint::black_box(sum | (a ^ b)));
    token.len() == given.len() && differences == 0
}

fn read(path: &Path) -> std::result::Result<Vec<String>, String> {
    let content = read_bounded_file(path, MAX_FILE_BYTES)?;
    let content = String::from_utf8(content).map_err(|_| "it is not ASCII")?;
    let tokens: Vec<String> = content.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect();
    if tokens.is_empty() || tokens.len() > MAX_TOKENS {
        return Err(format!("it has {} lines", tokens.len()));
    }
    for (number, token) in (1..).zip(&tokens) {
        if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) {
            return Err(format!("line {number} has {} bytes", token.len()));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("line {number} has a space or a character that is not visible ASCII"));
        }
    }
    Ok(tokens)
}
