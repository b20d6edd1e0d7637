//! The end of the consumer.

use super::*;

/// Says its process id, and writes to a file what ends it.
fn recorder(file: &Path, at_end: &str) -> String {
    format!(
        r#"trap 'echo term >> {0}; exit' TERM
        while read -r line; do echo "{{\"ok\":{{\"pid\":$$}}}}"; done
        echo eof >> {0}; {at_end}"#,
        file.display()
    )
}

#[test]
fn children_find_the_end_of_their_input_first() {
    let folder = Folder::new();
    let file = folder.file("ends");
    let polite = Running::shell(&recorder(&file, "exit 0"));
    let pid = polite.field("x", "pid");
    polite.0.stop();
    assert!(!runs(&pid));
    assert_eq!(fs::read_to_string(&file).expect("it ended in order"), "eof\n");
    assert!(polite.handle("x").expect_err("it has stopped").is_not_ready());
}

#[test]
fn children_that_stay_get_sigterm_and_then_sigkill() {
    let folder = Folder::new();
    let (polite, deaf) = (folder.file("polite"), folder.file("deaf"));
    // Short sleeps, since a shell acts on a signal after the command that it waits for.
    let slow = Running::shell(&recorder(&polite, "while :; do sleep 0.02; done"));
    slow.field("x", "pid");
    slow.0.stop();
    let begin = Instant::now();
    assert_eq!(fs::read_to_string(&polite).expect("both"), "eof\nterm\n");
    let deaf = Running::shell(&recorder(&deaf, "trap '' TERM; while :; do sleep 0.02; done"));
    let pid = deaf.field("x", "pid");
    deaf.0.stop();
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
    assert!(!runs(&pid));
}

#[test]
fn a_child_at_work_is_ended_too() {
    for per_message in [false, true] {
        let folder = Folder::new();
        let file = folder.file("pid");
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; read -r line; sleep 1000", file.display());
        let busy = Running::new(&["sh", "-c", &script], per_message, None);
        std::thread::scope(|scope| {
            let working = scope.spawn(|| busy.failure("x\n"));
            let pid = wait_until("the child", || fs::read_to_string(&file).ok());
            std::thread::sleep(Duration::from_millis(200));
            busy.0.stop();
            wait_until_gone(&pid);
            let reason = working.join().expect("it returns");
            assert!(reason.contains("SIGTERM"), "{reason}");
        });
    }
}
