//! Finds our own programs and the Redis server.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::error::{Error, Result};

/// The folder with our programs.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The programs in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Programs {
        Programs { folder: folder.into() }
    }

    /// The programs in the running program's folder.
    pub fn beside_this_one() -> Result<Programs> {
        let this = env::current_exe().map_err(Error::io("looking for this program's own file"))?;
        Ok(Programs::in_folder(this.parent().unwrap_or(Path::new("."))))
    }

    /// A command that runs one of them. It does not inherit the settings in our own environment.
    pub fn command(&self, name: &str) -> Result<Command> {
        let path = self.folder.join(name);
        if !path.is_file() {
            return Err(Error::Failed(format!(
                "{} is missing: build all programs (cargo build --release --bins) or install them side by side",
                path.display()
            )));
        }
        let mut command = Command::new(path);
        remove_settings(&mut command);
        Ok(command)
    }

    /// A command that runs any program with its arguments. Ours are found by name before those on PATH. It does not
    /// inherit the settings in our own environment either.
    pub fn any_command(&self, words: &[OsString]) -> Result<Command> {
        let (program, arguments) = words.split_first().ok_or_else(|| Error::Failed("no program".to_owned()))?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(self.folder.clone()).chain(env::split_paths(&path)))
            .map_err(|error| Error::Failed(format!("{} can't be in PATH: {error}", self.folder.display())))?;
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", path);
        remove_settings(&mut command);
        Ok(command)
    }
}

fn remove_settings(command: &mut Command) {
    let ours = |variable: &OsStr| variable.to_string_lossy().starts_with("ONCECAST_");
    for (variable, _) in env::vars_os().filter(|(variable, _)| ours(variable)) {
        command.env_remove(variable);
    }
}

/// The Redis server's program: the one named, or `redis-server` or `valkey-server` on PATH.
pub fn redis_server(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        // A bare name is searched on PATH, as in a shell.
        let bare = named.components().count() == 1 && !named.is_file();
        let found = if bare { on_path(named) } else { named.is_file().then(|| named.to_owned()) };
        return found.ok_or_else(|| {
            Error::Failed(format!("--redis-server (ONCECAST_REDIS_SERVER): there is no program {}", named.display()))
        });
    }
    ["redis-server", "valkey-server"].into_iter().find_map(|name| on_path(Path::new(name))).ok_or_else(|| {
        Error::Failed(format!(
            "neither redis-server nor valkey-server is on PATH; install one with: {}\n\
             or name one with --redis-server PATH",
            install_command(cfg!(target_os = "macos"), &fs::read_to_string("/etc/os-release").unwrap_or_default())
        ))
    })
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The command that installs Redis on this platform, given the text of its `/etc/os-release`.
fn install_command(macos: bool, os_release: &str) -> &'static str {
    let families = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace());
    let known = families.into_iter().find_map(|family| match family {
        "debian" | "ubuntu" => Some("sudo apt-get install redis-server"),
        "fedora" | "rhel" | "centos" => Some("sudo dnf install redis"),
        "alpine" => Some("sudo apk add redis"),
        "arch" => Some("sudo pacman -S valkey"),
        "suse" | "opensuse" => Some("sudo zypper install redis"),
        _ => None,
    });
    match (macos, known) {
        (true, _) => "brew install redis",
        (false, Some(command)) => command,
        (false, None) => "your package manager (the package is called redis, redis-server or valkey)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_install_command_is_the_platforms() {
        assert_eq!(install_command(true, ""), "brew install redis");
        let debian = "PRETTY_NAME=\"Debian\"\nID=debian\n";
        assert_eq!(install_command(false, debian), "sudo apt-get install redis-server");
        let mint = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
        assert_eq!(install_command(false, mint), "sudo apt-get install redis-server");
        assert_eq!(install_command(false, "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\""), "sudo dnf install redis");
        assert_eq!(install_command(false, "ID=arch"), "sudo pacman -S valkey");
        assert!(install_command(false, "").contains("package manager"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = redis_server(Some(Path::new("/nowhere/redis-server"))).unwrap_err().to_string();
        assert!(error.contains("--redis-server") && error.contains("/nowhere/redis-server"), "{error}");
        let error = Programs::in_folder("/nowhere").command("oncecast-consumer").unwrap_err().to_string();
        assert!(error.contains("/nowhere/oncecast-consumer") && error.contains("cargo build"), "{error}");
    }
}
