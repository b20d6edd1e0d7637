//! A file with one address a line. Pure, but for reading it.
//!
//! A list that was just written may be half of one. So a changed file is read when two looks in a row have found it the
//! same. Empty lines and what follows `#` are skipped. A file that is missing, too large, without an address or with a
//! line that is none gives an error, which names the line.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::found::Answer;
use super::source::{DNS_SCHEME, FILE_SCHEME, SECURE_SCHEME, Target};
use crate::base::address::mistake_in_host_port;
use crate::base::text::beginning;

/// The largest file that is read.
const MOST_BYTES: u64 = 1 << 20;
/// The most bytes of a line that an error shows.
const SHOWN_BYTES: usize = 80;

/// What is looked at again and again.
pub(crate) struct ListFile {
    path: PathBuf,
    /// How it was at the last look.
    seen: Option<Stamp>,
    /// How it was when it was last read.
    read: Option<Stamp>,
    /// Whether it was looked at before.
    is_known: bool,
    /// What was wrong at the last look, if something was.
    problem: Option<String>,
}

/// Tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp { modified: (found.mtime(), found.mtime_nsec()), size: found.size(), inode: found.ino() }
    }
}

impl ListFile {
    pub(crate) fn new(path: &Path) -> ListFile {
        ListFile { path: path.to_owned(), seen: None, read: None, is_known: false, problem: None }
    }

    /// Looks at the file. Returns what it says, if that is news.
    pub(crate) fn look(&mut self) -> Option<Answer> {
        let stamp = match std::fs::metadata(&self.path) {
            Ok(found) => Stamp::of(&found),
            Err(error) => {
                self.seen = None;
                return self.note_problem(format!("{}: {error}", self.path.display()));
            }
        };
        let is_first = !std::mem::replace(&mut self.is_known, true);
        let is_settled = self.seen.replace(stamp) == Some(stamp) || is_first;
        if !is_settled || self.read == Some(stamp) && self.problem.is_none() {
            return None;
        }
        // A first look may have found half a list, so the second one reads the file again.
        self.read = (!is_first).then_some(stamp);
        match read_list(&self.path) {
            Ok(list) => {
                self.problem = None;
                Some(Answer::Lines(list))
            }
            Err(problem) => self.note_problem(problem),
        }
    }

    /// Each problem is told once.
    fn note_problem(&mut self, problem: String) -> Option<Answer> {
        let is_new = self.problem.as_ref() != Some(&problem);
        self.problem = Some(problem.clone());
        is_new.then_some(Answer::Failed(problem))
    }
}

/// Reads the list in a file. The error names the file and the line.
pub fn read_list(path: &Path) -> Result<Vec<Target>, String> {
    let problem = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let text = read_text(path).map_err(|error| problem(&error))?;
    let list = parse(&text).map_err(|mistake| problem(&mistake))?;
    if list.is_empty() {
        return Err(problem(&"it has no address"));
    }
    Ok(list)
}

fn read_text(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    // Opening a pipe or a device may give bytes for ever.
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {MOST_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is no text in UTF-8"))
}

/// The addresses in the text of a file.
fn parse(text: &str) -> Result<Vec<Target>, String> {
    let mut list = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let mistake = if entry.starts_with(DNS_SCHEME) || entry.starts_with(FILE_SCHEME) {
            Some("a file lists addresses only")
        } else {
            mistake_in_host_port(entry.strip_prefix(SECURE_SCHEME).unwrap_or(entry))
        };
        if let Some(mistake) = mistake {
            return Err(format!("line {}: {:?} ({mistake})", index + 1, beginning(entry, SHOWN_BYTES)));
        }
        list.push(Target::of(entry));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shown(answer: Option<Answer>) -> String {
        match answer {
            None => "nothing new".to_owned(),
            Some(Answer::Lines(list)) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Some(Answer::Failed(problem)) => problem.rsplit('/').next().unwrap_or_default().to_owned(),
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_addresses_or_mistakes() {
        let list = parse("# all\n a:1 # first\n\nwss://[::1]:2\r\n").expect("two addresses");
        assert_eq!(shown(Some(Answer::Lines(list))), "a:1 wss://[::1]:2");
        for (text, begins) in [
            ("a:1\nb", "line 2: \"b\" (the port is missing"),
            ("dns:a:1", "line 1: \"dns:a:1\" (a file lists"),
            ("a:1,b:2", "line 1: \"a:1,b:2\" (an IPv6"),
            ("http://a:1", "line 1: \"http://a:1\" (an address is not a URL"),
        ] {
            let mistake = parse(text).expect_err("a mistake");
            assert!(mistake.starts_with(begins), "{mistake}");
        }
    }

    #[test]
    fn a_file_is_read_when_it_has_changed_and_rests() {
        let path = std::env::temp_dir().join(format!("oncecast-list-{}", std::process::id()));
        let write = |text: &str| {
            let new = path.with_extension("new");
            fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).expect("a folder for temporary files");
        };
        let mut file = ListFile::new(&path);
        let mut look = || shown(file.look());
        assert!(look().contains("No such file"), "it is missing");
        assert_eq!(look(), "nothing new");
        write("a:1\n");
        assert_eq!([look(), look(), look()], ["a:1", "a:1", "nothing new"], "the first look may see half of it");
        write("b:1");
        assert_eq!([look(), look(), look()], ["nothing new", "b:1", "nothing new"]);
        write("b:1\nc");
        let problem = look() + &look();
        assert!(problem.starts_with("nothing new") && problem.contains("line 2"), "{problem}");
        assert_eq!(look(), "nothing new");
        fs::remove_file(&path).expect("it is there");
        assert!(look().contains("No such file"));
        write("b:1");
        assert_eq!([look(), look()], ["nothing new", "b:1"]);
        write("# none\n");
        assert!((look() + &look()).contains("it has no address"));
        write(&"#".repeat(1 << 20 | 1));
        assert!((look() + &look()).contains("it has more than 1048576 bytes"));
        fs::remove_file(&path).expect("it is there");
    }
}
