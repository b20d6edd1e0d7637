//! The status page of a dispatcher, in a real browser: it is correct under load, while leaders die and while Redis is
//! down.

mod drawing;
mod lanes;
mod stand_in;

use std::path::Path;
use std::thread;
use std::time::Duration;

use oncecast::lab::{Cluster, ClusterOptions, Node, RedisOptions};
use serde_json::json;

use crate::support::browser::{Browser, Page, Screen};
use crate::support::load::Load;
use crate::support::{DEADLINE, client_of, cluster_of, programs, wait_for_another_leader, wait_until_in_sync};

/// A file for a picture of the page, as the README shows it.
const SCREENSHOT: &str = "ONCECAST_SCREENSHOT";
/// A quarter of the time that the chart of that picture shows.
const QUARTER: Duration = Duration::from_secs(31);

const PHONE: Screen = Screen { width: 360, height: 780, dark: false };
const DESK: Screen = Screen { width: 1100, height: 900, dark: false };

/// Fails if the page has logged an error or warning.
fn assert_no_complaint(page: &mut Page) {
    assert_eq!(page.complaints(), [] as [String; 0]);
}

/// Fails if the page is wider than a screen.
fn assert_fits(page: &mut Page, screen: Screen) {
    page.show_on(screen);
    let widths = page.eval("[document.scrollingElement.scrollWidth, innerWidth]");
    assert!(widths[0].as_u64() <= widths[1].as_u64() && widths[1] == screen.width, "{widths} on {screen:?}");
}

/// Dispatchers that serve the page, and a browser; `None` without a browser.
fn start(redis: RedisOptions) -> Option<(Browser, Cluster)> {
    let browser = Browser::start()?;
    let mut cluster = cluster_of(ClusterOptions { redis, readiness: true, ..ClusterOptions::new(programs()) });
    wait_until_in_sync(&mut client_of(&mut cluster), 2);
    Some((browser, cluster))
}

fn url(cluster: &Cluster, dispatcher: Node) -> String {
    let Node::Dispatcher(number) = dispatcher else { panic!("{dispatcher} serves no page") };
    format!("http://{}/", cluster.metrics_address(number).expect("it was given one"))
}

/// A number that the page shows.
fn number(page: &mut Page, id: &str) -> f64 {
    let text = page.text(id).replace('\u{202f}', "");
    text.parse().unwrap_or(0.0)
}

#[test]
fn the_page_follows_load_and_a_change_of_leader() {
    let Some((mut browser, mut cluster)) = start(RedisOptions::default()) else { return };
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    let standby = if leader == Node::Dispatcher(0) { Node::Dispatcher(1) } else { Node::Dispatcher(0) };
    let (mut led, mut followed) = (browser.page(), browser.page());
    led.open(&url(&cluster, leader));
    followed.open(&url(&cluster, standby));
    for page in [&mut led, &mut followed] {
        page.wait_for_text("leader-id", &lease.holder);
        page.wait_for_text("epoch", &lease.epoch.0.to_string());
        page.wait_for("document.querySelectorAll('#dispatchers tr').length === 2");
        page.wait_for("document.querySelectorAll('#consumers tr').length === 3");
    }
    led.wait_for("document.querySelector('#server').textContent.includes(', the leader,')");
    followed.wait_for("document.querySelector('#server').textContent.includes(', a standby,')");

    let load = Load::start(&cluster.redis_url(), "m", 2_000);
    for page in [&mut led, &mut followed] {
        let rates = ["published", "taken-in", "dispatched", "acked"];
        rates
            .iter()
            .for_each(|name| page.wait_for(&format!("+document.querySelector('#rate-{name}').textContent[0] > 0")));
        let (before, shown) = (number(page, "results"), page.text("results"));
        page.wait_for(&format!("document.querySelector('#results').textContent !== '{shown}'"));
        assert!(number(page, "results") > before, "results only grow");
        page.wait_for("(document.querySelector('#acked').getAttribute('d') ?? '').includes('L')");
        page.wait_for_text("health-text", "no problems");
    }

    cluster.kill_node(leader).expect("it runs");
    let (next, next_lease) = wait_for_another_leader(&mut cluster, &lease);
    assert_eq!(next, standby);
    led.wait_for_text("silence-text", "This dispatcher does not answer.");
    led.wait_for("document.querySelector('#silence-age').textContent.includes('Last seen')");
    // At once, since the page tries again after longer and longer pauses.
    cluster.start_node(leader).expect("it starts again");
    followed.wait_for_text("leader-id", &next_lease.holder);
    followed.wait_for("document.querySelector('#server').textContent.includes(', the leader,')");
    followed.wait_for("document.querySelectorAll('#marks circle').length === 1");
    let change = followed.text("changes");
    assert!(change.contains(&format!("{} leads, after {}", next_lease.holder, lease.holder)), "{change}");
    let shown = followed.text("results");
    followed.wait_for(&format!("document.querySelector('#results').textContent !== '{shown}'"));
    for screen in [DESK, PHONE, Screen { dark: true, ..DESK }, Screen { dark: true, ..PHONE }] {
        assert_fits(&mut followed, screen);
    }

    led.wait_for("document.querySelector('#silence').hidden");
    led.wait_for_text("leader-id", &next_lease.holder);
    led.wait_for("document.querySelector('#server').textContent.includes(', a standby,')");
    assert!(load.stop().unheard.is_empty());

    assert_no_complaint(&mut followed);
    for (page, dispatcher) in [(&mut led, leader), (&mut followed, standby)] {
        let page_url = url(&cluster, dispatcher);
        let asked: Vec<&String> = page.requests().iter().filter(|url| !url.starts_with("data:")).collect();
        assert_eq!(asked, [&page_url, &format!("{page_url}status.json")]);
    }
    cluster.stop(DEADLINE).expect("every process stops cleanly");
}

#[test]
fn the_page_shows_an_outage_of_redis_and_recovers() {
    let Some((mut browser, mut cluster)) = start(RedisOptions { append_only: true, ..RedisOptions::default() }) else {
        return;
    };
    let mut page = browser.page();
    page.open(&url(&cluster, Node::Dispatcher(0)));
    page.wait_for_text("health-text", "no problems");
    let address = format!("127.0.0.1:{}", cluster.redis().port());
    cluster.redis().stop().expect("Redis stops cleanly");
    page.wait_for_text("health-text", "needs attention");
    page.wait_for(&format!("document.querySelector('#notes').textContent.includes('{address}')"));
    page.wait_for("document.body.classList.contains('stale')");
    cluster.redis().start_again().expect("Redis starts again");
    page.wait_for("!document.body.classList.contains('stale')");
    let (_, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    page.wait_for_text("leader-id", &lease.holder);
    assert_no_complaint(&mut page);
}

/// Writes the README's picture of the page:
/// `ONCECAST_SCREENSHOT=docs/status.png cargo test --test integration picture -- --ignored`.
#[test]
#[ignore = "takes two minutes and a load for a picture; see its text"]
fn a_picture_of_the_page_at_work() {
    let file = std::env::var_os(SCREENSHOT).expect("ONCECAST_SCREENSHOT names a file");
    let Some((mut browser, mut cluster)) = start(RedisOptions::default()) else { return };
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    let standby = if leader == Node::Dispatcher(0) { Node::Dispatcher(1) } else { Node::Dispatcher(0) };
    let mut page = browser.page();
    page.show_on(Screen { dark: true, ..DESK });
    page.open(&url(&cluster, standby));
    let load = Load::start(&cluster.redis_url(), "m", 8_000);
    // The chart shows time.
    thread::sleep(QUARTER);
    let more = Load::start(&cluster.redis_url(), "n", 6_000);
    thread::sleep(QUARTER);
    cluster.kill_node(leader).expect("it runs");
    wait_for_another_leader(&mut cluster, &lease);
    cluster.start_node(leader).expect("it starts again");
    thread::sleep(QUARTER);
    assert!(more.stop().unheard.is_empty());
    thread::sleep(QUARTER);
    page.wait_for_text("health-text", "no problems");
    std::fs::write(Path::new(&file), page.picture()).expect("the picture's folder is there");
    assert_eq!(page.eval("document.querySelectorAll('#marks circle').length"), json!(1));
    assert!(load.stop().unheard.is_empty());
}
