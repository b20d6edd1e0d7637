//! A process for each message.

use super::*;

#[test]
fn the_exit_status_says_what_becomes_of_a_message() {
    let body = |text: &str| Ok(Outcome::new().field("body", text));
    let cases: [(&str, Result<Outcome, HandlerError>); 11] = [
        ("true", Ok(Outcome::new())),
        ("cat", body("input")),
        ("echo '{\"a\": 1, \"b\": \"x\"}'", Ok(Outcome::new().field("a", "1").field("b", "x"))),
        ("exit 75", Err(HandlerError::retry("exit status 75"))),
        ("echo first >&2; echo 'no stock' >&2; echo >&2; exit 75", Err(HandlerError::retry("no stock"))),
        ("exit 65", Err(HandlerError::reject("exit status 65"))),
        ("echo ignored; printf 'bad date' >&2; exit 65", Err(HandlerError::reject("bad date"))),
        ("exit 1", Err(HandlerError::retry("exit status 1"))),
        ("echo oops >&2; exit 2", Err(HandlerError::retry("exit status 2: oops"))),
        ("kill -9 $$", Err(HandlerError::retry("SIGKILL"))),
        ("no-such-command-here 2>/dev/null", Err(HandlerError::retry("exit status 127"))),
    ];
    for (script, expected) in cases {
        assert_eq!(Running::per_message(script).handle("input"), expected, "{script}");
    }
}

#[test]
fn a_process_gets_the_message_in_variables_and_on_its_input() {
    let script = r#"printf '%s %s %s %s %s ' "${ONCECAST_LANE-}$ONCECAST_ID" "$ONCECAST_DELIVERY" "$ONCECAST_GROUP" \
        "${ONCECAST_CHANNEL-unset}" "${ONCECAST_CHANNEL_BASE64-unset}"; od -An -tx1 | tr -d ' \n'"#;
    let shell = Running::per_message(script);
    let seen = |delivery: Delivery<'_>| {
        let outcome = shell.0.handle(&delivery.with_id(MessageId(10)).with_number(2)).expect("a result");
        let body = outcome.fields().next().expect("a body").1.to_vec();
        String::from_utf8(body).expect("text")
    };
    let begin = "000000000000000a 2 orders";
    assert_eq!(seen(Delivery::new(b"\xff\0\n")), format!("{begin} unset unset ff000a"));
    assert_eq!(seen(Delivery::new("a").with_channel("ü x")), format!("{begin} ü x unset 61"));
    assert_eq!(seen(Delivery::new("a").with_lane(12)), format!("12{begin} unset unset 61"));
    assert_eq!(seen(Delivery::new("").with_channel(b"\xfe")), format!("{begin} unset /g== "));
    assert_eq!(seen(Delivery::new("").with_channel(b"\0")), format!("{begin} unset AA== "));
}

#[test]
fn input_that_is_not_read_and_8_mib_that_are_do_no_harm() {
    let payload = "x".repeat(8 << 20);
    assert_eq!(Running::per_message("exec <&-; sleep 0.1").handle(&payload), Ok(Outcome::new()));
    assert_eq!(Running::per_message("true").handle(&payload), Ok(Outcome::new()));
    assert_eq!(Running::per_message("cat").handle(&payload), Ok(Outcome::new().field("body", &payload)));
    let reason = Running::per_message("yes").failure("x");
    assert_eq!(reason, "the program's output is longer than 12582912 bytes");
    assert_eq!(Running::per_message("yes noise | head -c 20000000 >&2").handle("x"), Ok(Outcome::new()));
}

#[test]
fn a_process_that_hangs_is_ended_with_all_that_it_started() {
    let folder = Folder::new();
    let file = folder.file("pids");
    let script = format!("sleep 1000 & echo $! > {0}; echo $$ >> {0}; exec >&- 2>&-; sleep 1000", file.display());
    let hanging = Running::new(&["sh", "-c", &script], true, Some(Duration::from_secs(2)));
    assert_eq!(hanging.failure("x"), "the program did not end within 2000 ms");
    let pids = fs::read_to_string(&file).expect("it ran");
    assert_eq!(pids.lines().count(), 2);
    pids.lines().for_each(wait_until_gone);
}

#[test]
fn what_a_process_leaves_behind_is_ended_and_delays_nothing() {
    let script = "sleep 1000 & echo $!";
    let begin = Instant::now();
    let pid = Running::per_message(script).field("x", "body");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    wait_until_gone(&pid);
}

#[test]
fn without_the_program_no_message_fails() {
    let folder = Folder::new();
    let (program, away) = (folder.file("program"), folder.file("away"));
    fs::write(&away, "#!/bin/sh\necho here\n").expect("written");
    fs::set_permissions(&away, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let handler = Running::new(&[program.to_str().expect("text")], true, None);
    assert_eq!(handler.0.ready(), Ok(()), "nothing is known yet");
    let error = handler.handle("x").expect_err("there is no such program");
    assert!(error.is_not_ready() && error.reason().contains("can't be started: No such file"), "{error}");
    assert!(handler.0.ready().is_err() && handler.handle("x").expect_err("not yet").is_not_ready());
    fs::rename(&away, &program).expect("renamed");
    wait_until("the program to be found", || handler.0.ready().ok());
    assert_eq!(handler.field("x", "body"), "here\n");
}

#[test]
fn a_process_gets_the_trace_context_in_variables() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let payload = format!(r#"{{"traceparent":"{parent}","tracestate":"a=1"}}"#);
    let script = "printf %s \"${ONCECAST_TRACEPARENT-unset} ${ONCECAST_TRACESTATE-unset}\"";
    assert_eq!(Running::per_message(script).field(&payload, "body"), format!("{parent} a=1"));
    assert_eq!(Running::per_message(script).field("x", "body"), "unset unset");
}
