//! Settings that operators change while the group runs.

use super::*;

fn change(f: &mut Fixture, change: SettingsChange) -> SettingsReading {
    f.ledger.change_settings(&change).expect("it is allowed")
}

fn pause(time: Option<Duration>, by: &str) -> SettingsChange {
    SettingsChange { pause: Some(PauseChange::Pause(time, by.to_owned())), ..SettingsChange::default() }
}

fn resume() -> SettingsChange {
    SettingsChange { pause: Some(PauseChange::Resume), ..SettingsChange::default() }
}

#[test]
fn changes_are_kept_until_they_are_taken_back() {
    let mut f = fixture();
    assert_eq!(f.ledger.settings().expect("it is read").settings, GroupSettings::default());
    let rate = "2.5/m".parse().expect("a rate");
    let limits = SettingsChange { pause: None, max_in_flight: Some(Some(7)), rate: Some(Some(rate)) };
    let limited = GroupSettings { pause: None, max_in_flight: Some(7), rate: Some(rate) };
    assert_eq!(change(&mut f, limits).settings, limited);
    let paused = change(&mut f, pause(None, "default"));
    let begun = paused.settings.pause.clone().expect("it is paused");
    assert_eq!((begun.until, begun.since_ms, begun.by.as_str()), (PauseEnd::Never, Some(paused.redis_ms), "default"));
    assert_eq!(f.ledger.settings().expect("it is read").settings, paused.settings);
    assert_eq!(change(&mut f, resume()).settings, limited);
    let default = SettingsChange { pause: None, max_in_flight: Some(None), rate: Some(None) };
    assert_eq!(change(&mut f, default).settings, GroupSettings::default());
    assert_eq!(f.number(&["EXISTS", "messages:settings"]), 0);
}

/// A tool pauses and resumes lane 0 and then the new lane, again and again, as long as the new lane gets its settings.
#[test]
fn a_new_lane_has_the_groups_settings_whatever_changes_meanwhile() {
    let f = fixture();
    let ledger = |lane| {
        let keys = Keys::new("{orders}").lane(lane).expect("it has a tag");
        Ledger::new(f.redis.server(), Arc::new(keys), Duration::from_secs(10))
    };
    let read = |ledger: &mut Ledger| ledger.settings().expect("it is read").settings;
    let (mut home, mut new) = (ledger(0), ledger(1));
    for round in 0..200 {
        let (mut home_of_tool, mut new_of_tool) = (ledger(0), ledger(1));
        let tool = std::thread::spawn(move || {
            for change in [pause(None, "tool"), resume(), pause(None, "tool")].iter().cycle().take(3 + round % 2) {
                home_of_tool.change_settings(change).expect("it is allowed");
                new_of_tool.change_settings(change).expect("it is allowed");
            }
        });
        new.inherit_settings(&mut home).expect("it is allowed");
        tool.join().expect("no panic");
        let (wanted, found) = (read(&mut home).pause, read(&mut new).pause);
        assert_eq!(found.is_some(), wanted.is_some(), "round {round}");
        change_of(&mut home, &resume());
        change_of(&mut new, &resume());
    }
}

fn change_of(ledger: &mut Ledger, change: &SettingsChange) {
    ledger.change_settings(change).expect("it is allowed");
}

#[test]
fn a_pause_that_is_prolonged_has_begun_when_it_began() {
    let mut f = fixture();
    let first = change(&mut f, pause(Some(Duration::from_secs(60)), "me"));
    let begun = first.settings.pause.clone().expect("it is paused").since_ms;
    assert_eq!((begun, first.pause_left()), (Some(first.redis_ms), Some(Some(Duration::from_secs(60)))));
    let longer = change(&mut f, pause(Some(Duration::from_secs(3_600)), ""));
    let pause_now = longer.settings.pause.clone().expect("it is paused");
    assert_eq!((pause_now.since_ms, pause_now.by.as_str()), (begun, ""), "who does not say his name leaves none");
    assert_eq!(longer.pause_left(), Some(Some(Duration::from_secs(3_600))));
    // One that is over is none.
    f.run(&["HSET", "messages:settings", "paused_until", "1000", "paused_since", "900"]);
    assert_eq!(f.ledger.settings().expect("it is read").settings.pause, None);
    let anew = change(&mut f, pause(None, "me"));
    assert_eq!(anew.settings.pause.expect("it is paused").since_ms, Some(anew.redis_ms));
}

#[test]
fn the_leader_is_told_of_a_change_and_the_next_one_reads_it() {
    let mut f = fixture();
    let mut subscription = f.listen(&DispatcherId::generate("a"));
    change(&mut f, pause(None, "me"));
    let heard = wait_until(Duration::from_secs(10), "the notice", || {
        Ok(subscription.read().expect("it is connected").filter(|batch| batch.settings).map(drop))
    });
    heard.expect("it comes");
    f.run(&["HSET", "messages:settings", "rate", "fast", "of a later version", "1"]);
    let id = DispatcherId::generate("a");
    let answer = f.ledger.acquire(&id, TTL, Epoch(0), true).expect("it is free").answer;
    let Acquire::Acquired { lease, settings, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(settings.settings.pause.expect("it is paused").until, PauseEnd::Never);
    assert_eq!(settings.foreign, [("rate", "fast".to_owned())]);
    // They don't concern one that delivers into a stream.
    f.ledger.release(&lease).expect("it is ours");
    f.ledger.destination = Destination::Stream { key: "messages:messages".to_owned(), maxlen: 0 };
    let answer = f.ledger.acquire(&id, TTL, Epoch(0), true).expect("it is free").answer;
    let Acquire::Acquired { settings, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(settings, SettingsReading::default());
}

#[test]
fn a_group_can_be_paused_when_the_memory_is_full() {
    let mut f = fixture();
    f.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(change(&mut f, pause(None, "me")).settings.pause.is_some());
    assert!(change(&mut f, resume()).settings.pause.is_none());
}
