//! What is odd about the environment, though no reason to stop: variables that no program knows, and secret files that
//! everybody can read.
//!
//! A variable that another program knows is fine: one file of variables may serve all. Names that Kubernetes makes up for a
//! service called `oncecast…` are fine, too.
//!
//! A secret file that everybody can read is warned of and used, not refused: platforms mount secrets that way into containers
//! in which there is nobody else. So `/run/secrets` is left out, and so is a file in a folder that others can't enter, as
//! those of systemd's credentials are.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::suggestion::nearest;
use super::{PREFIX, Setting, tables, variable_of};
use crate::process::log::Quoted;

/// The largest secret.
const MAX_SECRET_BYTES: usize = 16 << 10;
/// The most variables that are warned of, and the most bytes of a name that are shown.
const MOST_WARNINGS: usize = 10;
const MOST_NAME_BYTES: usize = 64;
/// Where Docker and Podman mount secrets.
const MOUNTED_SECRETS: &str = "/run/secrets/";

/// What is odd about these variables, a line of the log each.
pub fn warnings(variables: &[(OsString, OsString)]) -> Vec<String> {
    let known = Known::new();
    let texts = || variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value)));
    let unknown = texts().filter(|(name, value)| known.is_odd(name, value)).map(|(name, _)| {
        let shown = &name[..name.floor_char_boundary(MOST_NAME_BYTES)];
        let meant = nearest(PREFIX, shown, known.names()).map_or("no program has such a setting".to_owned(), |meant| {
            format!("no program has such a setting; did you mean {meant}?")
        });
        format!("event=variable-unknown variable={} problem={}", Quoted(shown), Quoted(meant))
    });
    let exposed = texts().filter(|(name, value)| known.files.iter().any(|file| file == name) && !value.is_empty());
    let exposed = exposed.filter(|(_, path)| is_exposed(Path::new(path))).map(|(name, path)| {
        let advice =
            format!("every user of this machine can read this secret; chmod o-r {}", Path::new(path).display());
        format!("event=secret-exposed variable={name} problem={}", Quoted(advice))
    });
    unknown.take(MOST_WARNINGS).chain(exposed).collect()
}

/// The names of all variables of all programs.
struct Known {
    variables: Vec<String>,
    /// Those that name the file of a secret.
    files: Vec<String>,
}

impl Known {
    fn new() -> Known {
        let settings = || tables::all().flatten();
        let file = |setting: &Setting| setting.secret.then(|| variable_of(setting.name) + "_FILE");
        Known {
            variables: settings().map(|setting| variable_of(setting.name)).collect(),
            files: settings().filter_map(file).collect(),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().chain(&self.files).map(String::as_str)
    }

    fn is_odd(&self, name: &str, value: &OsStr) -> bool {
        name.starts_with(PREFIX) && !self.names().any(|known| known == name) && !is_of_kubernetes(name, value)
    }
}

/// Of a service `oncecast-x` it tells every container the address, as `ONCECAST_X_SERVICE_HOST` and in more forms.
fn is_of_kubernetes(name: &str, value: &OsStr) -> bool {
    let is_address =
        ["tcp://", "udp://", "sctp://"].iter().any(|begin| value.as_encoded_bytes().starts_with(begin.as_bytes()));
    let is_part = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol)) && name.contains("_PORT_");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && is_address
        || is_part
}

/// Whether every user of the machine can read this file.
fn is_exposed(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    let allows = |path: &Path, right: u32| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & right != 0);
    let (read, enter) = (0o004, 0o001);
    !path.starts_with(MOUNTED_SECRETS)
        && allows(&path, read)
        && path.ancestors().skip(1).all(|folder| allows(folder, enter))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Vec<String> {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        warnings(&variables)
    }

    #[test]
    fn a_variable_that_no_program_knows_is_told_with_the_nearest_name() {
        let found = of(&[
            ("ONCECAST_CONSUMER", "a:1"),
            ("ONCECAST_GROUP_FILE", "x"),
            ("ONCECAST_NONSENSE", "s3cret"),
            ("ONCECAST_RATE", "another program's"),
            ("ONCECAST_SERVICE_HOST", "10.0.0.1"),
            ("ONCECAST_CONSUMER_PORT", "tcp://10.0.0.1:6969"),
            ("ONCECAST_PORT_6969_TCP_ADDR", "10.0.0.1"),
            ("ONCECAST_METRICS_PORT", "9464"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[3].contains("variable=ONCECAST_METRICS_PORT "), "no address: {found:?}");
        assert!(found[0].contains("variable=ONCECAST_CONSUMER ") && found[0].contains("mean ONCECAST_CONSUMERS?"));
        assert!(found[1].contains("variable=ONCECAST_GROUP_FILE "), "a file only for secrets: {found:?}");
        assert!(found[2].contains("no program has such a setting") && !found[2].contains("mean"), "{found:?}");
        assert!(!found.concat().contains("s3cret"));
    }

    #[test]
    fn of_many_unknown_variables_some_are_told() {
        let names: Vec<String> = (0..100).map(|number| format!("ONCECAST_{}{number}", "X".repeat(100))).collect();
        let found = of(&names.iter().map(|name| (name.as_str(), "")).collect::<Vec<_>>());
        assert!(found.len() == MOST_WARNINGS && found.iter().all(|line| line.len() < 200), "{found:?}");
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_told() {
        let folder = std::env::temp_dir().join(format!("oncecast-secret-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let file = folder.join("url");
        fs::write(&file, "redis://:s3cret@h\n").expect("a file");
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own");
        let told = || of(&[("ONCECAST_REDIS_URL_FILE", &file.display().to_string())]);
        chmod(&folder, 0o755);
        chmod(&file, 0o644);
        let found = told();
        assert!(found.len() == 1 && found[0].contains("secret-exposed") && found[0].contains("chmod o-r"), "{found:?}");
        assert!(!found[0].contains("s3cret"));
        chmod(&file, 0o640);
        assert!(told().is_empty(), "others can't");
        chmod(&file, 0o644);
        chmod(&folder, 0o700);
        assert!(told().is_empty(), "others can't come near it");
        fs::remove_dir_all(&folder).expect("our own");
    }

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
