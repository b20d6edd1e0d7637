//! Ends the child processes of a process that is killed: a shell that reads from a pipe until this process is gone.
//!
//! The first child starts it. It reads which process groups there are, and when the pipe ends, which it does however
//! this process ends, it sends SIGKILL to those that are left. It leads a group of its own, so that Ctrl-C in a
//! terminal does not reach it. Any thread may call the functions here; they wait for nothing but a lock, and for the
//! pipe if the shell was stopped.
//!
//! Not the kernel's signal at a parent's death: that one is sent at the end of the *thread* that started the child.
//!
//! Limitations: a child is not ended if this process is killed in the instant between starting it and reporting it.
//! Folders of killed servers stay. Without `/bin/sh` children outlive a killed process.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use parking_lot::Mutex;

/// Reads `+ GROUP` and `- GROUP`. `kill` is built in, so it needs nothing on PATH.
const SCRIPT: &str = r#"
groups=' '
while read -r change group; do
    case $change in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;; esac ;;
    esac
done
for group in $groups; do kill -KILL "-$group"; done"#;

/// None: it could not be started.
static WATCHER: OnceLock<Option<Mutex<Child>>> = OnceLock::new();

/// From now on this group ends with this process.
pub(super) fn add(group: u32) {
    tell('+', group);
}

/// The group's leader has ended. Another group may have its id at any time now.
pub(super) fn remove(group: u32) {
    tell('-', group);
}

fn tell(change: char, group: u32) {
    if let Some(watcher) = WATCHER.get_or_init(|| start().map(Mutex::new)) {
        report(&mut watcher.lock(), change, group);
    }
}

fn report(watcher: &mut Child, change: char, group: u32) {
    if let Some(pipe) = &mut watcher.stdin {
        // Fails only if somebody has ended the watcher.
        let _ = pipe.write_all(format!("{change} {group}\n").as_bytes());
    }
}

fn start() -> Option<Child> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "oncecast-watcher"]).env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn group() -> Child {
        Command::new("sleep").arg("60").process_group(0).spawn().expect("it starts")
    }

    #[test]
    fn the_groups_that_are_left_are_killed_when_the_pipe_ends() {
        let mut groups = [(); 4].map(|()| group());
        let mut watcher = start().expect("there is a shell");
        for (change, of) in [('+', 0), ('+', 1), ('+', 2), ('-', 1), ('+', 3), ('-', 3)] {
            report(&mut watcher, change, groups[of].id());
        }
        drop(watcher.stdin.take());
        assert!(watcher.wait().expect("it ends").success());
        let signals = [0, 2].map(|of| groups[of].wait().expect("it ends").signal());
        assert_eq!(signals, [Some(9), Some(9)]);
        for of in [1, 3] {
            assert!(groups[of].try_wait().expect("it is our child").is_none(), "{of} was not left");
            groups[of].kill().expect("it runs");
            groups[of].wait().expect("it ends");
        }
    }
}
