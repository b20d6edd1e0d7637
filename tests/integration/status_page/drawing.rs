//! How the page shows a status, with a stand-in for the dispatcher, for states that a real one rarely reaches.

use serde_json::{Value, json};

use crate::status_page::stand_in::{PAGE, StandIn};
use crate::status_page::{PHONE, assert_fits, assert_no_complaint};
use crate::support::browser::{Browser, Page, Screen};
use crate::support::wait_until;

/// The size limit of the page, which a dispatcher serves.
const MAX_PAGE_BYTES: usize = 32 << 10;

/// The lowest contrast between a text and its background that WCAG allows.
const CONTRAST: &str = "(() => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const [r, g, b] = numbers(colour).map(n => (n /= 255) <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = node => {
        const colour = getComputedStyle(node).backgroundColor;
        return numbers(colour)[3] === 0 ? behind(node.parentElement) : colour;
    };
    const ownText = node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    const found = [];
    for (const node of document.body.querySelectorAll('*:not(svg *, script, style, noscript)')) {
        if (!ownText(node) || !node.checkVisibility()) continue;
        const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) found.push(`${node.textContent}: ${contrast}`);
    }
    return found;
})()";

fn status() -> Value {
    json!({
        "group": "messages", "time": "2026-11-25T16:00:00.000Z", "health": "ok", "problems": [], "notes": [],
        "leader": { "id": "d0-5f3a9c", "name": "d0", "epoch": 1_764_086_400_000_u64, "lease_left_ms": 1400 },
        "epoch": 1_764_086_400_000_u64,
        "dispatchers": [
            { "id": "d0-5f3a9c", "name": "d0", "version": "0.1.0", "role": "leader", "epoch": 1_764_086_400_000_u64,
              "in_sync": true, "uptime_s": 12.3, "ring_bytes": 4096, "reporting": true },
            { "id": "d1-77aa01", "name": "d1", "version": "0.1.0", "role": "standby", "epoch": 1_764_086_400_000_u64,
              "in_sync": false, "uptime_s": 7500.0, "ring_bytes": 10, "reporting": true },
        ],
        "consumers": [
            { "id": "c10", "address": "h:2", "state": "draining", "in_flight": 0, "prefetch": 1024,
              "acked_per_s": 0.0 },
            { "address": "h:3", "state": "unreachable" },
            { "id": "c9", "address": "h:1", "state": "linked", "in_flight": 512, "prefetch": 1024,
              "acked_per_s": 8666.0 },
        ],
        "sources": [
            { "source": "dns:consumers:6969", "addresses": 1, "answer_age_s": 3.0, "error": "" },
            { "source": "file:/c", "addresses": 2, "answer_age_s": null, "error": "line 2: no port" },
        ],
        "pending": 120, "oldest_age_s": 0.004, "spilled": 0, "results": 1_234_567, "dead_letters": 0, "gaps": 0,
        "recent_gaps": [], "recent_dead_letters": [],
        "rates": { "published": 26000.0, "taken_in": 26000.0, "dispatched": 26000.0, "acked": 8666.4,
                   "redelivered": 0.5 },
        "redis_warnings": [], "served_by": "d1-77aa01",
    })
}

/// The page with a status on it.
fn shown(browser: &mut Browser, status: &Value) -> (StandIn, Page) {
    let (stand_in, mut page) = (StandIn::start(status), browser.page());
    page.open(&stand_in.url);
    page.wait_for("(document.querySelector('#pending')?.textContent ?? '–') !== '–'");
    (stand_in, page)
}

#[test]
fn the_page_is_one_small_file_without_references() {
    assert!(PAGE.len() <= MAX_PAGE_BYTES, "{} bytes", PAGE.len());
    // The namespace of SVG is not loaded.
    let addresses = PAGE.replace("http://www.w3.org/2000/svg", "").replace("https", "http");
    assert!(!addresses.contains("http:") && !addresses.contains("@import"), "it names another site");
    assert!(!addresses.contains("innerHTML") && !addresses.contains("insertAdjacentHTML"), "texts must stay texts");
}

/// Without this, the absence of errors on a page would prove nothing.
#[test]
fn errors_on_a_page_reach_the_test() {
    let Some(mut browser) = Browser::start() else { return };
    let (_stand_in, mut page) = shown(&mut browser, &status());
    assert_no_complaint(&mut page);
    page.eval("setTimeout(() => { throw new Error('thrown on purpose') })");
    page.eval("console.error('said on purpose')");
    page.eval("document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.2:9/from-elsewhere.png' }))");
    for part in ["thrown on purpose", "said on purpose", "from-elsewhere.png' violates"] {
        let heard = |page: &mut Page| page.complaints().iter().any(|complaint| complaint.contains(part)).then_some(());
        wait_until(part, || heard(&mut page));
    }
}

#[test]
fn numbers_and_durations_are_readable() {
    let Some(mut browser) = Browser::start() else { return };
    let (stand_in, mut page) = shown(&mut browser, &status());
    let texts = [
        ("group", "messages"),
        ("server", "Oncecast group, seen by d1-77aa01, a standby,"),
        ("clock", "at 16:00:00 UTC"),
        ("health-text", "no problems"),
        ("leader-id", "d0-5f3a9c"),
        ("epoch", "1764086400000"),
        ("lease", "1.4\u{202f}s"),
        ("oldest", "4\u{202f}ms"),
        ("results", "1\u{202f}234\u{202f}567"),
        ("rate-published", "26\u{202f}000"),
        ("rate-acked", "8\u{202f}666"),
        ("rate-redelivered", "0.5"),
    ];
    for (id, text) in texts {
        assert_eq!(page.text(id), text, "{id}");
    }
    let rows = "[...document.querySelectorAll('#dispatchers tr, #consumers tr')].map(row => \
                [...row.cells].map(cell => cell.textContent.trim()).join('|'))";
    let expected = json!([
        "d0-5f3a9c leader|✓ yes|12\u{202f}s|4.0\u{202f}KiB|0.1.0",
        "d1-77aa01 standby · this page|✗ no|2\u{202f}h 5\u{202f}min|10\u{202f}B|0.1.0",
        // c9 before c10.
        "c9 h:1|512|1\u{202f}024|8\u{202f}666",
        "c10 h:2 · draining|0|1\u{202f}024|0",
        "h:3 unreachable|–|–|–",
    ]);
    assert_eq!(page.eval(rows), expected);
    let found_by = "[...document.querySelectorAll('#sources li')].map(line => line.textContent)";
    let expected = json!([
        "found by dns:consumers:6969: 1 address, answered 3.0\u{202f}s ago",
        "found by file:/c: 2 addresses, never answered, now: line 2: no port",
    ]);
    assert_eq!(page.eval(found_by), expected);
    assert_eq!(page.eval("document.querySelector('#consumers .bar i').style.width"), "50%");

    let mut next = status();
    next["oldest_age_s"] = json!(200);
    next["consumers"] = json!([]);
    next["delivery"] = json!({ "paused": { "by": "me" }, "max_in_flight": 5, "rate": "2.5/m" });
    stand_in.say(&next);
    page.wait_for_text("oldest", "3\u{202f}min");
    assert_eq!([page.text("health-text"), page.text("limits")], ["paused", "5 in flight, 2.5/m"]);
    page.wait_for("document.querySelectorAll('#consumers tr').length === 0");
    page.wait_for("document.body.innerText.includes('None is connected.')");
    assert_no_complaint(&mut page);
}

/// A status of three lanes: this page's dispatcher leads the first, another the second, none the third.
fn status_of_lanes() -> Value {
    let mut shown = status();
    let mut lane = |number: u64, leader: Option<&str>| {
        let mut lane = status();
        lane["leader"] = leader.map_or(Value::Null, |id| json!({ "id": id, "epoch": number + 1 }));
        for dispatcher in lane["dispatchers"].as_array_mut().expect("a list") {
            dispatcher["role"] = if dispatcher["id"] == json!(leader) { "leader" } else { "standby" }.into();
        }
        lane["health"] = if leader.is_some() { "ok" } else { "attention" }.into();
        (lane["pending"], lane["in_flight"], lane["node"]) =
            (number.into(), 2.into(), format!("10.0.0.{number}:6379").into());
        shown["lanes"][number.to_string()] = lane;
    };
    lane(0, Some("d1-77aa01"));
    lane(3, Some("d0-5f3a9c"));
    lane(31, None);
    shown["lanes"]["3"]["delivery"] = json!({ "paused": { "by": "me" } });
    shown["dispatchers"][0]["leads"] = json!([3]);
    shown["dispatchers"][1]["leads"] = json!([0]);
    shown["dispatchers"][1]["role"] = json!("leader");
    shown
}

#[test]
fn lanes_are_shown_beside_their_sums() {
    let Some(mut browser) = Browser::start() else { return };
    let (stand_in, mut page) = shown(&mut browser, &status_of_lanes());
    let rows = "[...document.querySelectorAll('#lanes tr')].map(row => \
                [...row.cells].map(cell => cell.textContent.replace(/ +/g, ' ').trim()).join('|'))";
    let expected = json!([
        "0|d1-77aa01 this page leads|10.0.0.0:6379|0|2|8\u{202f}666|0|0",
        "3|d0-5f3a9c this page: standby paused|10.0.0.3:6379|3|2|8\u{202f}666|0|0",
        "31|no dispatcher leads this page: standby needs attention|10.0.0.31:6379|31|2|–|0|0",
    ]);
    assert_eq!(page.eval(rows), expected);
    assert_eq!(page.text("leader-id"), "2 of 3 lanes have a leader, of 2 dispatchers");
    assert_eq!(page.text("health-text"), "paused: 1 of 3 lanes");
    assert_eq!(page.text("server"), "Oncecast group, seen by d1-77aa01, leader of 1 lane,");
    assert_eq!(page.text("pending"), "120", "the sum");
    let dispatchers = "[...document.querySelectorAll('#dispatchers .role')].map(role => role.textContent)";
    assert_eq!(page.eval(dispatchers), json!(["leads 1", "leads 1 · this page"]));
    assert_fits(&mut page, PHONE);
    let mut next = status_of_lanes();
    next["lanes"]["3"]["leader"] = json!({ "id": "d1-77aa01", "epoch": 9 });
    stand_in.say(&next);
    page.wait_for("document.querySelector('#changes').textContent.includes('leads lane 3, after d0-5f3a9c')");
    // With one lane left the page is as without lanes.
    stand_in.say(&status());
    page.wait_for_text("leader-id", "d0-5f3a9c");
    page.wait_for("document.querySelector('#lanes-card').hidden && !document.querySelector('#epoch-row').hidden");
    assert_eq!(page.eval("document.querySelectorAll('#marks circle').length"), json!(1), "one change");
    assert_no_complaint(&mut page);
}

#[test]
fn shadows_are_shown_with_what_they_found() {
    let Some(mut browser) = Browser::start() else { return };
    let mut with_shadows = status();
    let shadow = |id: &str, state: &str, difference: i64| {
        json!({ "id": id, "state": state, "uptime_s": 12.3, "version": "0.1.0", "reporting": true,
                "compared": { "heard": 5000, "stored": 5000 - difference, "difference": difference } })
    };
    let waiting = "waiting for a leader's marker";
    with_shadows["shadows"] = json!([shadow("s0-5f3a9c", "comparing", 1_070), shadow("s1-77aa01", waiting, 0)]);
    let (_stand_in, mut page) = shown(&mut browser, &with_shadows);
    let rows = "[...document.querySelectorAll('#dispatchers tr')].slice(2).map(row => \
                [...row.cells].slice(0, 3).map(cell => cell.textContent.trim()).join('|'))";
    let expected = json!([
        "s0-5f3a9c shadow|difference 1\u{202f}070|12\u{202f}s",
        "s1-77aa01 shadow|waiting for a leader's marker|12\u{202f}s",
    ]);
    assert_eq!(page.eval(rows), expected);
    assert_no_complaint(&mut page);
}

#[test]
fn problems_are_shown_as_escaped_text() {
    let Some(mut browser) = Browser::start() else { return };
    let evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let mut bad = status();
    for name in ["problems", "notes", "redis_warnings"] {
        bad[name] = json!([format!("{name} {evil}")]);
    }
    // Shown once, although it is also a note.
    bad["notes"] = json!([bad["redis_warnings"][0], bad["notes"][0]]);
    bad["health"] = json!("attention");
    bad["group"] = json!(evil);
    bad["leader"]["id"] = json!(evil);
    bad["served_by"] = json!(evil);
    bad["consumers"][0]["id"] = json!(evil);
    bad["dispatchers"][0]["id"] = json!(evil);
    bad["dispatchers"][1] = json!({ "id": "d9-000000", "role": "standby", "reporting": false });
    bad["sources"] = json!([{ "source": evil, "addresses": 1, "answer_age_s": 1.0, "error": evil }]);
    bad["recent_gaps"] = json!([{ "time": evil, "reason": evil, "dispatcher": evil, "messages": "" }]);
    bad["recent_dead_letters"] =
        json!([{ "time": evil, "id": evil, "reason": evil, "channel": evil, "consumer": evil, "deliveries": 8 }]);
    let (stand_in, mut page) = shown(&mut browser, &bad);
    let shown = page.eval("[...document.querySelectorAll('#notes li')].map(line => line.textContent)");
    let expected = [("Problem", "problems"), ("Redis", "redis_warnings"), ("Note", "notes")];
    assert_eq!(shown, json!(expected.map(|(word, name)| format!("{word}{name} {evil}"))));
    assert_eq!(page.text("health-text"), "needs attention");
    assert_eq!(page.text("leader-id"), evil);
    assert_eq!(page.eval("document.querySelectorAll('img').length"), 0);
    assert_eq!(page.eval("document.querySelectorAll('script').length"), 1);
    assert_eq!(page.eval("document.title"), json!(format!("(!) {evil} · Oncecast")));
    page.wait_for("document.querySelector('#gaps tr').textContent.includes('unknown')");
    page.wait_for("document.querySelector('#dispatchers').textContent.includes('silent')");
    page.wait_for("document.querySelector('#letters tr').textContent.includes('onerror')");
    for dark in [false, true] {
        assert_fits(&mut page, Screen { dark, ..PHONE });
    }

    // No dispatcher leads, so the rates are unknown: that must not look like 0.
    let mut leaderless = status();
    leaderless["leader"] = Value::Null;
    leaderless["consumers"] = json!([]);
    leaderless["oldest_age_s"] = Value::Null;
    for rate in leaderless["rates"].as_object_mut().expect("an object").values_mut() {
        *rate = json!(0.0);
    }
    stand_in.say(&leaderless);
    page.wait_for_text("leader-id", "no dispatcher leads");
    assert_eq!((page.text("rate-acked"), page.text("oldest")), ("–".into(), "–".into()));
    page.wait_for("document.body.innerText.includes('Not known: no leader reports.')");
    assert!(page.eval("document.querySelector('#gaps-card').hidden").as_bool().expect("a truth"));
    assert_no_complaint(&mut page);
}

#[test]
fn stale_values_are_shown_as_stale() {
    let Some(mut browser) = Browser::start() else { return };
    let (stand_in, mut page) = shown(&mut browser, &status());
    stand_in.say(&json!({
        "group": "messages", "time": "2026-11-25T16:00:05.000Z", "health": "attention", "served_by": "d1-77aa01",
        "problems": ["redis://127.0.0.1:6379 does not answer: connection refused"],
    }));
    page.wait_for("document.querySelector('#notes').textContent.includes('redis://127.0.0.1:6379 does not answer')");
    page.wait_for("document.body.classList.contains('stale')");
    page.wait_for("document.querySelector('#clock').textContent.includes('ago')");
    assert_eq!(page.text("pending"), "120", "the last that was known");
    assert_eq!(page.text("health-text"), "needs attention");
    stand_in.say(&status());
    page.wait_for("!document.body.classList.contains('stale')");
    page.wait_for_text("clock", "at 16:00:00 UTC");

    let mut old = status();
    old["time"] = json!("2026-11-25T16:00:07.500Z");
    stand_in.say(&old);
    page.wait_for("document.body.classList.contains('stale')");
    page.wait_for_text("health-text", "not known");
    stand_in.say(&status());
    page.wait_for_text("health-text", "no problems");
    assert_no_complaint(&mut page);

    stand_in.say(&json!("an answer that is no status"));
    page.wait_for("document.querySelector('#silence-text').textContent.includes('is not its status: 200')");
    stand_in.say(&status());
    page.wait_for("document.querySelector('#silence').hidden");
    assert_no_complaint(&mut page);
    drop(stand_in);
    page.wait_for_text("silence-text", "This dispatcher does not answer.");
    page.wait_for("document.querySelector('#silence-age').textContent.includes('Last seen')");
    page.wait_for_text("health-text", "not known");
}

#[test]
fn text_is_legible_in_light_and_dark_mode() {
    let Some(mut browser) = Browser::start() else { return };
    let mut all = status();
    all["health"] = json!("attention");
    all["problems"] = json!(["no consumer is connected"]);
    all["notes"] = json!(["no standby is in sync"]);
    all["recent_gaps"] = json!([{ "time": "2026-11-25T16:00:00.000Z", "reason": "ring-overrun",
                                  "dispatcher": "d0-5f3a9c", "messages": "7" }]);
    all["recent_dead_letters"] = json!([
        { "time": "2026-11-25T16:00:00.000Z", "id": "0006423f1c8a5e10", "reason": "no such customer",
          "channel": "orders.eu", "consumer": "c0", "deliveries": 8 },
        { "time": "2026-11-25T15:00:00.000Z", "id": "0006423f1c8a5e0f", "reason": "too large", "channel": null,
          "consumer": null, "deliveries": 0 },
    ]);
    let (stand_in, mut page) = shown(&mut browser, &status());
    let mut next = all.clone();
    next["leader"] = json!({ "id": "d1-77aa01", "name": "d1", "epoch": 1_764_086_500_000_u64, "lease_left_ms": 2000 });
    for status in [&all, &next] {
        stand_in.say(status);
        page.wait_for_text("leader-id", status["leader"]["id"].as_str().expect("a text"));
        page.wait_for("document.querySelectorAll('#notes li').length === 2");
        for dark in [false, true] {
            assert_fits(&mut page, Screen { width: 1100, height: 900, dark });
            assert_eq!(page.eval(CONTRAST), json!([]), "dark: {dark}");
        }
    }
    assert_eq!(page.text("changes").trim(), "116:00:00 d1-77aa01 leads, after d0-5f3a9c");
}
