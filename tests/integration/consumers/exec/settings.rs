//! What the command line and the environment may say.

use std::process::Stdio;

use super::has;
use crate::support::programs;

/// The exit code and what it says.
fn ended(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    let command = command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_program_that_can_t_be_started_is_a_wrong_setting() {
    let name = "--exec (ONCECAST_EXEC): ";
    for (arguments, variable, parts) in [
        (&["--handler", "exec"][..], "", &["is required", "at the end, after --"][..]),
        (
            &["--handler", "exec", "--", "no-such-program-anywhere", "x"],
            "",
            &["\"no-such-program-anywhere\"", "on PATH"],
        ),
        (&["--handler", "exec", "--", "/etc/passwd"], "", &["\"/etc/passwd\"", "not executable"]),
        (&["--handler", "exec", "--", "/nowhere/x"], "", &["No such file"]),
        (&["--handler", "exec", "--", ""], "", &["no program"]),
        (&["--handler", "exec"], "  ", &["no program"]),
        (&["--handler", "exec"], "no-such-program-anywhere a b", &["\"no-such-program-anywhere\"", "on PATH"]),
        (&["--", "sh"], "", &["without --handler exec"]),
        (&["--handler", "forward", "--", "sh"], "", &["without --handler exec"]),
        (&["--exec", "sh"], "", &["without --handler exec"]),
    ] {
        let (code, said) = ended(arguments, &[("ONCECAST_EXEC", variable)]);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(name) && parts.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
    }
    let (code, said) = ended(&["--exec-per-message"], &[]);
    assert!(
        code == Some(2) && said.contains("--exec-per-message") && said.contains("without --handler exec"),
        "{said}"
    );
}

/// As some daemons start others. Then nobody could tell how a child ended.
#[test]
fn a_process_that_ignores_the_end_of_its_children_is_not_started() {
    if !has("python3") {
        return;
    }
    let consumer = programs().command("oncecast-consumer").expect("the program is built");
    let script =
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(consumer.get_program()).args(["--handler", "exec", "--", "sh"]);
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--exec (ONCECAST_EXEC): ") && said.contains("SIGCHLD"), "{said}");
}
