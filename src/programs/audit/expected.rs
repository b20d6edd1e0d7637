//! The file of expected ids: one on each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use super::fingerprints::{Fingerprint, fingerprint};
use crate::base::error::{Error, Result};

/// The fingerprints of the ids in a file, sorted, each once.
pub(super) fn read_expected(path: &Path) -> Result<Vec<Fingerprint>> {
    let mut prints = Vec::new();
    each_expected(path, |id| {
        prints.push(fingerprint(id));
        true
    })?;
    prints.sort_unstable();
    prints.dedup();
    Ok(prints)
}

/// Passes each id in a file to `take`, until that returns `false`.
pub(super) fn each_expected(path: &Path, take: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let failed = || Error::io(format!("--ids {}: reading", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(failed())?);
    each_id(&mut file, take).map_err(failed())
}

/// The longest line of a file of ids. Any other file is refused before its lines fill the memory.
const MAX_ID_BYTES: u64 = 1 << 20;

/// Passes each line that is not empty to `take`, without the end of the line, until that returns `false`.
pub fn each_id(file: &mut impl BufRead, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut line = Vec::new();
    while file.take(MAX_ID_BYTES + 1).read_until(b'\n', &mut line)? > 0 {
        if line.len() as u64 > MAX_ID_BYTES {
            let problem = format!("a line has more than {MAX_ID_BYTES} bytes; the file must have one id on each line");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        let id = line.strip_suffix(b"\n").unwrap_or(&line);
        let id = id.strip_suffix(b"\r").unwrap_or(id);
        if !id.is_empty() && !take(id) {
            break;
        }
        line.clear();
    }
    Ok(())
}
