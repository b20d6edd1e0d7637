//! Owners, identities and summaries.

use proptest::prelude::*;

use super::*;

fn interests(channels: &[&str], patterns: &[&str]) -> Interests {
    let globs = patterns.iter().map(|text| Glob::parse(text.as_bytes()).expect(text)).collect();
    Interests::of(channels.iter().map(|name| name.as_bytes().to_vec()).collect(), globs).expect("good ones")
}

#[test]
fn a_name_owns_its_channel_and_else_the_first_pattern() {
    let these = interests(&["orders.eu"], &["orders.*", "*.us", "*"]);
    let owners = |channel: &str| {
        let copies = [None, Some("orders.*"), Some("*.us"), Some("*")];
        copies.map(|copy| these.is_owners(these.owner(channel.as_bytes()), copy.map(str::as_bytes)))
    };
    assert_eq!(owners("orders.eu"), [true, false, false, false]);
    assert_eq!(owners("orders.us"), [false, true, false, false]);
    assert_eq!(owners("invoices.us"), [false, false, true, false]);
    assert_eq!(owners("x"), [false, false, false, true]);
}

#[test]
fn only_a_channel_by_its_name_needs_no_channel_with_each_message() {
    assert!(!interests(&["a"], &[]).record_channels());
    for (channels, patterns) in [(&["a", "b"][..], &[][..]), (&[], &["a"]), (&["a"], &["b*"])] {
        assert!(interests(channels, patterns).record_channels());
    }
}

#[test]
fn equal_interests_are_named_alike() {
    assert_eq!(interests(&["orders"], &[]).identity(), "orders");
    let some = interests(&["a", "b"], &["c*"]);
    assert_eq!(some.identity(), interests(&["b", "a"], &["c*"]).identity());
    for other in [interests(&["a"], &["c*"]), interests(&["a", "b", "c*"], &[]), interests(&["ab"], &["c*"])] {
        assert_ne!(some.identity(), other.identity());
    }
    // Dispatchers of different versions must agree.
    assert_eq!(some.identity(), "interests:c9e3bc23c9eec6cdbe28dd2a8dc00237");
}

#[test]
fn a_sharded_channel_is_another_one_than_that_of_its_name() {
    let sharded = |names: &[&str]| Interests::of_sharded(names.iter().map(|name| name.as_bytes().to_vec()).collect());
    let one = sharded(&["orders"]).expect("a good one");
    let plain = interests(&["orders"], &[]);
    assert!(one.is_sharded() && !plain.is_sharded() && !one.record_channels());
    assert_ne!((one.identity(), one.summary()), (plain.identity(), plain.summary()));
    assert_eq!(one.summary(), "orders (sharded)");
    let (ab, ba) = (sharded(&["a", "b"]).expect("good"), sharded(&["b", "a"]).expect("good"));
    assert_eq!((ab.identity(), ab.summary()), (ba.identity(), ba.summary()));
    assert_eq!(ab.identity(), "interests:fcee36e427fc8fbd4477bd721e195870");
    assert_eq!(sharded(&["__keyevent@0__:set"]).map(|these| these.clone().beside_stream("s") == these), Ok(true));
    assert!(sharded(&["a", "a"]).is_err() && sharded(&[]).is_err());
}

#[test]
fn a_summary_shows_the_settings_and_is_bounded() {
    assert_eq!(interests(&["b", "a,*"], &["c*"]).summary(), r"a\,\*,b,c*");
    assert_eq!(interests(&["b", "a"], &[]).summary(), interests(&["a", "b"], &[]).summary());
    let many: Vec<String> = (0..1_000).map(|number| format!("channel-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (all, but_one) = (interests(&many, &[]).summary(), interests(&many[..999], &[]).summary());
    assert!(all.len() < 260 && all.contains("1000 in all") && all != but_one, "{all}");
}

#[test]
fn where_events_of_the_stream_may_be_heard_it_counts() {
    for (channels, patterns) in [(&["orders"][..], &[][..]), (&["a"], &["orders.*", "_x*", "__kez?"])] {
        let these = interests(channels, patterns);
        assert_eq!(these.clone().beside_stream("jobs"), these);
    }
    for (channels, patterns) in [
        (&["__keyevent@0__:xadd"][..], &[][..]),
        (&["a"], &["*"]),
        (&[], &["__k*"]),
        (&[], &["[_]*"]),
        (&[], &["\\_*"]),
    ] {
        let these = interests(channels, patterns);
        let (jobs, mails) = (these.clone().beside_stream("jobs"), these.clone().beside_stream("mails"));
        assert_ne!(jobs.identity(), these.identity(), "{channels:?} {patterns:?}");
        assert_ne!(jobs.identity(), mails.identity());
        assert!(jobs.identity().starts_with("interests:"));
    }
}

#[test]
fn what_can_be_no_interest_is_refused() {
    let refused = |channels: Vec<Vec<u8>>, patterns: Vec<Glob>| Interests::of(channels, patterns).expect_err("bad");
    let name = |length: usize| vec![b'a'; length];
    assert!(refused(vec![], vec![]).contains("at least one"));
    assert!(refused(vec![name(0)], vec![]).contains("not empty"));
    assert!(refused(vec![name(4_097)], vec![]).contains("4096 bytes"));
    assert!(refused((1..=1_025).map(name).collect(), vec![]).contains("1024"));
    assert!(refused(vec![name(1), name(1)], vec![]).contains("\"a\" twice"));
    let glob = Glob::parse(b"a*").expect("a pattern");
    assert!(refused(vec![], vec![glob.clone(), glob]).contains("\"a*\" twice"));
}

proptest! {
    /// Whatever the interests, exactly one copy counts of those that Redis sends.
    #[test]
    fn each_message_counts_once(
        channels in prop::collection::hash_set("[ab]{1,3}", 0..4),
        patterns in prop::collection::hash_set("[ab?*]{1,3}", 0..4),
        channel in "[ab]{1,3}",
    ) {
        prop_assume!(!channels.is_empty() || !patterns.is_empty());
        let texts = |set: &HashSet<String>| set.iter().cloned().collect::<Vec<_>>();
        let (channels, patterns) = (texts(&channels), texts(&patterns));
        let as_strs = |texts: &[String]| texts.iter().map(String::as_str).collect::<Vec<&str>>().join(" ");
        let these = interests(
            &as_strs(&channels).split_whitespace().collect::<Vec<_>>(),
            &as_strs(&patterns).split_whitespace().collect::<Vec<_>>(),
        );
        let name = channel.as_bytes();
        let copies = channels.iter().filter(|named| **named == channel).map(|_| None).chain(
            these.patterns.iter().filter(|glob| glob.matches(name)).map(|glob| Some(glob.text())),
        );
        let copies: Vec<Option<&[u8]>> = copies.collect();
        let counted = copies.iter().filter(|copy| these.is_owners(these.owner(name), **copy)).count();
        prop_assert_eq!(counted, usize::from(!copies.is_empty()));
    }
}

#[test]
fn what_stays_on_its_node_is_told_from_what_goes_over_the_bus() {
    let of = |channels: &[&str], patterns: &[&str]| {
        let globs = patterns.iter().map(|text| Glob::parse(text.as_bytes()).expect("a pattern")).collect();
        Interests::of(channels.iter().map(|name| name.as_bytes().to_vec()).collect(), globs).expect("good ones")
    };
    let stays = |channels: &[&str], patterns: &[&str]| of(channels, patterns).are_only_key_events();
    assert!(stays(&["__keyevent@0__:set"], &["__keyspace@0__:a*"]));
    for (channels, patterns) in
        [(&["orders", "__keyevent@0__:set"][..], &[][..]), (&["__keyevent@0__:set"], &["*"]), (&["orders"], &[])]
    {
        assert!(!stays(channels, patterns), "{channels:?} {patterns:?}");
    }
    assert!(!Interests::of_sharded(vec![b"orders".to_vec()]).expect("a good one").are_only_key_events());
}
