//! The tool under the names of the other programs, as in the image, where they are links to it.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts the tool under this name.
fn started_as(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncecast"));
    command.arg0(name);
    command
}

#[test]
fn the_tool_is_the_program_by_whose_name_it_is_started() {
    for (name, program) in [
        ("oncecast", "oncecast"),
        ("/usr/local/bin/oncecast-consumer", "oncecast-consumer"),
        ("./oncecast-dispatcher", "oncecast-dispatcher"),
        ("oncecast-publisher", "oncecast-publisher"),
        ("another-name", "oncecast"),
    ] {
        let output = started_as(name).arg("--version").output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim_end(), format!("{program} {}", env!("CARGO_PKG_VERSION")), "{name}");
    }
}
