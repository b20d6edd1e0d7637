//! What was made of files, made anew when they have changed.
//!
//! Each new connection asks whether the files are the ones that were read (by their times, size and number), so renewed
//! certificates and secrets need no restart; open connections keep what they began with. Files that can't be used any
//! more are reported, and what was made of the last ones that could be is kept: a renewal replaces a certificate and
//! its key one after the other. They are then read again once a second, because what keeps them from being used may be
//! something else, such as the right to a folder. Any thread; the lock is held while files are read.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::Mutex;

use crate::base::text::Quoted;

/// What is logged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// The event when changed files were read.
    pub(super) read: &'static str,
    /// The event when they can't be used.
    pub(super) unusable: &'static str,
}

/// What was read from files, until these change.
pub(super) struct Kept<F, T, E> {
    pub(super) files: F,
    paths: Vec<PathBuf>,
    /// After this time it is read again although no file has changed.
    refresh: Option<Duration>,
    make: fn(&F) -> Result<T, E>,
    words: Words,
    state: Mutex<Made<T>>,
}

struct Made<T> {
    value: Arc<T>,
    /// Of the files when they were last read, whether or not they could be used.
    stamps: Vec<Option<Stamp>>,
    read_at: Instant,
    /// Why they could not be used, if so.
    problem: Option<String>,
}

/// How soon files that could not be used are read again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    /// When owner, group or rights were changed, too.
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

impl<F, T, E: Display> Kept<F, T, E> {
    /// Makes the value for the first time; an error if the files can't be used.
    pub(super) fn load(
        files: F,
        paths: Vec<PathBuf>,
        refresh: Option<Duration>,
        make: fn(&F) -> Result<T, E>,
        words: Words,
    ) -> Result<Kept<F, T, E>, E> {
        // Before they are read: a change in between is then seen as one.
        let stamps = stamps(&paths);
        let made = Made { value: Arc::new(make(&files)?), stamps, read_at: Instant::now(), problem: None };
        Ok(Kept { files, paths, refresh, make, words, state: Mutex::new(made) })
    }

    /// The value of the files as they are now, or of the last ones that could be used.
    pub(super) fn current(&self) -> Arc<T> {
        let stamps = stamps(&self.paths);
        let made = &mut *self.state.lock();
        let limit = if made.problem.is_some() { Some(RETRY_AFTER) } else { self.refresh };
        let is_old = limit.is_some_and(|limit| made.read_at.elapsed() >= limit);
        if made.stamps != stamps || is_old {
            let changed = made.stamps != stamps;
            (made.stamps, made.read_at) = (stamps, Instant::now());
            match (self.make)(&self.files) {
                Ok(value) => {
                    made.value = Arc::new(value);
                    if made.problem.take().is_some() || changed {
                        info!("{} files={}", self.words.read, Quoted(self.shown()));
                    }
                }
                Err(problem) => self.note_problem(&mut made.problem, problem.to_string()),
            }
        }
        made.value.clone()
    }

    /// Logs why the files can't be used, unless that was logged.
    fn note_problem(&self, known: &mut Option<String>, problem: String) {
        if known.as_ref() != Some(&problem) {
            let consequence = Quoted("new connections use what was read before");
            warn!("{} error={} consequence={consequence}", self.words.unusable, Quoted(&problem));
        }
        *known = Some(problem);
    }

    fn shown(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        paths.join(",")
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some(Stamp {
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            size: found.size(),
            inode: found.ino(),
        })
    };
    paths.iter().map(stamp).collect()
}
