//! Children that crash, hang, or answer nonsense.

use super::*;

const ANSWER: &str = r#"echo '{"ok":{"done":1}}'"#;

#[test]
fn a_crash_on_a_message_fails_that_delivery() {
    for (work, reason) in [
        ("sys.exit(3)", "the child ended before it answered: exit status 3"),
        ("os.kill(os.getpid(), 9)", "the child ended before it answered: SIGKILL"),
        (
            "print('{\"ok\":', end='', flush=True); sys.exit(0)",
            "the child ended in the middle of an answer: exit status 0",
        ),
        ("os.close(1); time.sleep(60)", "the child closed its standard output"),
    ] {
        let python = Running::python(&format!("if m['payload'] == 'bad': {work}\nanswer({{'ok': {{'done': 1}}}})"));
        assert_eq!(python.failure("bad"), reason, "{work}");
        assert_eq!(python.field("good", "done"), "1", "another child is started");
        assert_eq!(python.failure("bad"), reason, "{work}");
    }
}

#[test]
fn a_crash_after_an_answer_harms_no_message() {
    let folder = Folder::new();
    let script = format!("echo x >> {}; read -r line; {ANSWER}", folder.file("starts").display());
    let once = Running::shell(&script);
    for number in 1..=5 {
        assert_eq!(once.field("x", "done"), "1");
        assert_eq!(lines(&folder.file("starts")), number, "a child for each, and none failed");
    }
}

#[test]
fn lines_that_are_no_answers_fail_the_delivery() {
    for (work, part) in [
        ("print('hello', flush=True)", "is no answer: \"hello\" is no JSON object"),
        ("print(flush=True)", "is no answer: \"\" is no JSON object"),
        ("answer({'ok': None, 'id': '0000000000000001'})", "not for 000000000000002f"),
        ("answer({'ok': 'text'})", "ok takes an object or null"),
        ("print('{\"ok\":null}\\n{\"ok\":null}', flush=True)", "answered twice, and wrote \"{\\\"ok\\\":null}\" after"),
        ("print('x' * 1000, flush=True)", "is no answer: \"xxx"),
    ] {
        let python = Running::python(&format!(
            "if m['payload'] == 'pid': answer({{'ok': {{'pid': os.getpid()}}}}); continue\n{work}"
        ));
        let pid = python.field("pid", "pid");
        let reason = python.failure("bad");
        assert!(reason.contains(part) && reason.len() < 400, "{work}: {reason}");
        assert!(!runs(&pid), "a child that answers nonsense is ended");
        assert_ne!(python.field("pid", "pid"), pid);
    }
}

#[test]
fn a_second_answer_that_comes_late_harms_no_message() {
    let twice = Running::python("answer({'ok': {'pid': os.getpid()}}); time.sleep(0.2); answer({'ok': None})");
    let first = twice.field("x", "pid");
    std::thread::sleep(Duration::from_millis(600));
    assert_ne!(twice.field("x", "pid"), first, "it went to another child");
    wait_until_gone(&first);
}

#[test]
fn what_is_written_before_a_message_is_read_answers_none() {
    let folder = Folder::new();
    let hasty = Running::shell(&format!("echo x >> {}; {ANSWER}; sleep 60", folder.file("starts").display()));
    wait_until("it to be unable", || {
        let error = hasty.handle("x").expect_err("no child has read it");
        error.is_not_ready().then_some(())
    });
    let reason = hasty.0.ready().expect_err("not ready");
    assert!(reason.contains("before it"), "{reason}");
}

#[test]
fn an_answer_of_100_mib_is_cut_off() {
    let python =
        Running::python("sys.stdout.write('{\"ok\":{\"a\":\"' + 'x' * (100 << 20) + '\"}}\\n'); sys.stdout.flush()");
    let begin = Instant::now();
    assert_eq!(python.failure("x"), "the child's answer is longer than 16777216 bytes");
    assert!(begin.elapsed() < DEADLINE);
}

#[test]
fn a_child_that_hangs_is_ended_with_all_that_it_started() {
    let limit = Duration::from_secs(3);
    let folder = Folder::new();
    let file = folder.file("pids");
    let work = format!(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
         grandchild = subprocess.Popen(['sleep', '1000'])\n\
         open('{}', 'w').write(str(os.getpid()) + '\\n' + str(grandchild.pid) + '\\n')\n\
         time.sleep(1000)",
        file.display()
    );
    let python = Running::python_within(&work, Some(limit));
    let begin = Instant::now();
    assert_eq!(python.failure("x"), "the child did not answer within 3000 ms");
    assert!((limit..limit + Duration::from_secs(8)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    let pids = fs::read_to_string(&file).expect("it ran");
    assert_eq!(pids.lines().count(), 2);
    pids.lines().for_each(wait_until_gone);
}

#[test]
fn what_a_crashed_child_leaves_behind_is_ended() {
    let folder = Folder::new();
    let file = folder.file("pid");
    // The one left behind keeps the pipes open.
    let shell = Running::shell(&format!("sleep 1000 & echo $! > {}; read -r line; exit 4", file.display()));
    let begin = Instant::now();
    assert_eq!(shell.failure("x"), "the child ended before it answered: exit status 4");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    wait_until_gone(&fs::read_to_string(&file).expect("it ran"));
}

#[test]
fn a_child_that_does_not_read_is_ended_and_the_message_does_not_fail() {
    for payload in ["x".repeat(8 << 20), "x".to_owned()] {
        let deaf = Running::new(&["sleep", "1000"], false, None).read_within(Duration::from_millis(200));
        let error = deaf.handle(&payload).expect_err("no child reads");
        assert!(error.is_not_ready(), "{error}");
        assert!(error.reason().contains("did not read its message within 200 ms"), "{error}");
    }
}

#[test]
fn a_child_that_no_longer_reads_is_replaced_within_the_handler_timeout() {
    let script = format!("read -r line; {ANSWER}; sleep 1000");
    let forgetful = Running::new(&["sh", "-c", &script], false, Some(Duration::from_millis(400)));
    for payload in ["x", "y", "z"] {
        assert_eq!(forgetful.field(payload, "done"), "1");
    }
}

/// The time that a child takes to start is not that of its first message.
#[test]
fn a_slow_start_fails_no_message() {
    let script = format!("sleep 1; while read -r line; do {ANSWER}; done");
    let slow = Running::new(&["sh", "-c", &script], false, Some(Duration::from_millis(300)));
    std::thread::scope(|scope| {
        for payload in ["x", "y", "z"] {
            scope.spawn(|| assert_eq!(slow.field(payload, "done"), "1"));
        }
    });
}

#[test]
fn a_program_that_ends_at_once_fails_no_message_and_is_started_at_a_limited_rate() {
    let folder = Folder::new();
    let file = folder.file("starts");
    let shell = Running::shell(&format!("echo x >> {}; exit 5", file.display()));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        let error = shell.handle("x").expect_err("it never works");
        assert!(error.is_not_ready(), "{error}");
        assert!(error.reason().contains("before it answered: exit status 5"), "{error}");
        let _ = shell.0.ready();
    }
    assert!(shell.0.ready().is_err());
    // At 0.1, 0.3, 0.7, 1.5, 3.1 s, give or take a quarter.
    assert!((3..=8).contains(&lines(&file)), "{} starts", lines(&file));
}

#[test]
fn a_program_that_comes_back_is_used_again() {
    let folder = Folder::new();
    let (program, away) = (folder.file("program"), folder.file("away"));
    fs::write(&away, format!("#!/bin/sh\nwhile read -r line; do {ANSWER}; done\n")).expect("written");
    fs::set_permissions(&away, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let handler = Running::new(&[program.to_str().expect("text")], false, None);
    let error = handler.handle("x").expect_err("there is no such program");
    assert!(error.is_not_ready() && error.reason().contains("can't be started: No such file"), "{error}");
    assert!(handler.0.ready().is_err());
    fs::rename(&away, &program).expect("renamed");
    wait_until("the program to be found", || handler.0.ready().ok());
    assert_eq!(handler.field("x", "done"), "1");
}
