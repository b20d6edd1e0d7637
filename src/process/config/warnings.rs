//! Likely mistakes in the environment that are no reason to stop: variables that no program knows, a secret that is
//! given twice, and secret files that every user can read.
//!
//! A secret that is given as a value and as a file is a warning: the value is taken, as an environment file overrides
//! what a unit file of systemd sets.
//!
//! A variable that another program knows is fine: one file of variables may serve all programs. The same is true of the
//! names that Kubernetes generates for a service called `oncecast…`.
//!
//! A secret file that every user can read causes a warning but is used, because platforms mount secrets that way into
//! containers without other users. Files under `/run/secrets` cause no warning, and neither do files in a folder that
//! others can't enter, such as those of systemd's credentials. Settings whose value is the path of such a file warn
//! where they are read: `--metrics-token-file`, `--redis-key`, `--tls-key`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::setting::Setting;
use super::suggestion::nearest;
use crate::base::secret_file::exposed;
use crate::base::setting::{PREFIX, variable_of};
use crate::base::text::{Quoted, beginning};

/// The most unknown variables that are reported, and the most bytes of a name that are shown.
const MAX_UNKNOWN: usize = 10;
const MAX_NAME_BYTES: usize = 64;

/// What the variable for the file of a secret ends with.
const FILE: &str = "_FILE";

/// Likely mistakes in these variables, one line of the log each. `settings` are those of all programs.
pub fn warnings<'a>(
    variables: &[(OsString, OsString)],
    settings: impl IntoIterator<Item = &'a Setting>,
) -> Vec<String> {
    let known = KnownVariables::new(settings);
    let texts = || variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value)));
    let unknown = texts().filter(|(name, value)| known.is_unknown(name, value)).map(|(name, _)| {
        let shown = beginning(name, MAX_NAME_BYTES);
        let meant = nearest(PREFIX, shown, known.names()).map_or("no program has such a setting".to_owned(), |meant| {
            format!("no program has such a setting; did you mean {meant}?")
        });
        format!("event=variable-unknown variable={} problem={}", Quoted(shown), Quoted(meant))
    });
    let files = texts().filter(|(name, value)| known.files.iter().any(|file| file == name) && !value.is_empty());
    let exposed = files.filter_map(|(name, path)| exposed(format_args!("variable={name}"), Path::new(path)));
    let given = |name: &str| texts().any(|(given, value)| given == name && !value.is_empty());
    let unused = texts().filter_map(|(file, _)| {
        let value = known.files.iter().find(|known| *known == file)?.strip_suffix(FILE)?;
        (given(value) && given(file)).then(|| {
            let problem = format!("{value} is set, too: the file is not used; unset one of the two");
            format!("event=variable-unused variable={file} problem={}", Quoted(problem))
        })
    });
    unknown.take(MAX_UNKNOWN).chain(unused).chain(exposed).collect()
}

/// The names of all variables of all programs.
struct KnownVariables {
    variables: Vec<String>,
    /// The variables that name the file of a secret.
    files: Vec<String>,
}

impl KnownVariables {
    fn new<'a>(settings: impl IntoIterator<Item = &'a Setting>) -> KnownVariables {
        let mut known = KnownVariables { variables: Vec::new(), files: Vec::new() };
        for setting in settings {
            let variable = variable_of(setting.name);
            if setting.secret {
                known.files.push(format!("{variable}{FILE}"));
            }
            known.variables.push(variable);
        }
        known
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().chain(&self.files).map(String::as_str)
    }

    fn is_unknown(&self, name: &str, value: &OsStr) -> bool {
        name.starts_with(PREFIX) && !self.names().any(|known| known == name) && !is_of_kubernetes(name, value)
    }
}

/// Whether Kubernetes sets this variable: it gives containers the address of a service `oncecast-x` as
/// `ONCECAST_X_SERVICE_HOST` and in other forms.
fn is_of_kubernetes(name: &str, value: &OsStr) -> bool {
    let is_address =
        ["tcp://", "udp://", "sctp://"].iter().any(|begin| value.as_encoded_bytes().starts_with(begin.as_bytes()));
    let is_part = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol)) && name.contains("_PORT_");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && is_address
        || is_part
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::setting::Default::Text;
    use super::*;

    const SETTINGS: &[Setting] = &[
        Setting::new("consumers", "LIST", Text(""), ""),
        Setting::new("group", "NAME", Text(""), ""),
        Setting::new("rate", "N", Text(""), ""),
        Setting::new("metrics-addr", "HOST:PORT", Text(""), ""),
        Setting::new("redis-url", "URL", Text(""), "").secret(),
    ];

    fn of(variables: &[(&str, &str)]) -> Vec<String> {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        // Several programs have the same settings.
        warnings(&variables, SETTINGS.iter().chain(SETTINGS))
    }

    #[test]
    fn a_variable_that_no_program_knows_is_reported_with_the_nearest_name() {
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
    fn a_secret_that_is_given_twice_is_reported() {
        let both = [("ONCECAST_REDIS_URL", "redis://:s3cret@a"), ("ONCECAST_REDIS_URL_FILE", "/no/such/file")];
        let found = of(&both);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("variable=ONCECAST_REDIS_URL_FILE ") && found[0].contains("ONCECAST_REDIS_URL is"));
        assert!(!found.concat().contains("s3cret"));
        for one in [&both[..1], &both[1..], &[("ONCECAST_REDIS_URL", ""), both[1]]] {
            assert_eq!(of(one), [""; 0], "an empty one counts as not given");
        }
    }

    #[test]
    fn only_some_of_many_unknown_variables_are_reported() {
        let names: Vec<String> = (0..100).map(|number| format!("ONCECAST_{}{number}", "X".repeat(100))).collect();
        let found = of(&names.iter().map(|name| (name.as_str(), "")).collect::<Vec<_>>());
        assert!(found.len() == MAX_UNKNOWN && found.iter().all(|line| line.len() < 200), "{found:?}");
    }

    #[test]
    fn a_secret_that_every_user_can_read_is_found() {
        let folder = std::env::temp_dir().join(format!("oncecast-secret-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let file = folder.join("url");
        fs::write(&file, "redis://:s3cret@h\n").expect("a file");
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own");
        let found = || of(&[("ONCECAST_REDIS_URL_FILE", &file.display().to_string())]);
        chmod(&folder, 0o755);
        chmod(&file, 0o644);
        let found_now = found();
        assert!(
            found_now.len() == 1 && found_now[0].contains("secret-exposed") && found_now[0].contains("chmod o-r"),
            "{found_now:?}"
        );
        assert!(!found_now[0].contains("s3cret"));
        chmod(&file, 0o640);
        assert!(found().is_empty(), "others can't");
        chmod(&file, 0o644);
        chmod(&folder, 0o700);
        assert!(found().is_empty(), "others can't come near it");
        fs::remove_dir_all(&folder).expect("our own");
    }
}
