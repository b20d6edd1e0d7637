use super::*;

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn warned_of_buffer(limits: &str) -> Option<u64> {
    match pubsub_buffer(&format!("normal 0 0 0 slave 268435456 67108864 60 pubsub {limits}")) {
        Some(Warning::PubSubBuffer { bytes, .. }) => Some(bytes),
        _ => None,
    }
}

#[test]
fn a_buffer_limit_that_is_too_small_is_found() {
    assert_eq!(warned_of_buffer("33554432 8388608 60"), Some(33_554_432), "Redis's default");
    assert_eq!(warned_of_buffer("0 8388608 1"), Some(8_388_608), "a soft limit that applies at once");
    assert_eq!(warned_of_buffer("268435456 8388608 5"), Some(8_388_608));
    assert_eq!(warned_of_buffer("67108863 0 0"), Some(67_108_863));
    for good in ["0 0 0", "67108864 8388608 60", "268435456 67108864 10", "0 8388608 30"] {
        assert_eq!(warned_of_buffer(good), None, "{good}");
    }
    for foreign in ["", "pubsub", "pubsub 1 2", "pubsub a b c", "normal 1 1 1"] {
        assert_eq!(pubsub_buffer(foreign), None, "{foreign}");
    }
}

/// What the setting of the URL is called here.
const URL: &str = "--redis-url / ONCECAST_REDIS_URL";

#[test]
fn each_danger_is_found_and_says_what_to_set() {
    let config = map(&[("maxmemory", "1048576"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")]);
    let info = map(&[
        ("redis_version", "6.0.16"),
        ("role", "slave"),
        ("master_host", "10.0.0.1"),
        ("master_port", "6379"),
        ("slave_read_only", "1"),
    ]);
    let found: Vec<String> = judge(&config, &info, URL).iter().map(Warning::to_string).collect();
    for (text, parts) in found.iter().zip([
        &["replica of 10.0.0.1:6379", "refused", "ONCECAST_REDIS_URL"][..],
        &["maxmemory-policy is allkeys-lru", "1048576", "set it to noeviction"],
        &["6.0.16", "6.2 or newer"],
        &["appendonly is no", "set it to yes"],
    ]) {
        for part in parts {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn too_few_replicas_are_a_problem() {
    let judged = |good: &[(&str, &str)], least: &[(&str, &str)]| judge(&map(least), &map(good), URL);
    let least = &[("min-replicas-to-write", "2")];
    let found = judged(&[("min_slaves_good_slaves", "1")], least);
    assert_eq!(found, [Warning::TooFewReplicas { good: 1, least: Some(2), refuses_all: true }]);
    assert!(found[0].is_problem() && found[0].to_string().contains("NOREPLICAS"), "{}", found[0]);
    assert_eq!(judged(&[("min_slaves_good_slaves", "2")], least), []);
    // Without the right to CONFIG GET.
    assert_eq!(judged(&[("min_slaves_good_slaves", "0")], &[]).len(), 1);
    let before_7 = judged(&[("min_slaves_good_slaves", "1"), ("redis_version", "6.2.14")], least);
    assert!(!before_7[0].is_problem() && before_7[0].to_string().contains("stored all the same"), "{}", before_7[0]);
    assert_eq!(judged(&[("min_slaves_good_slaves", "0"), ("role", "slave")], least).len(), 1, "it is no primary");
    assert_eq!(judged(&[("min_slaves_good_slaves", "1")], &[]), []);
    assert_eq!(judged(&[], least), [], "it is not counted");
}

#[test]
fn an_eviction_policy_is_reported_even_without_maxmemory() {
    let found = judge(&map(&[("maxmemory", "0"), ("maxmemory-policy", "volatile-ttl")]), &HashMap::new(), URL);
    assert_eq!(found, [Warning::Eviction { policy: "volatile-ttl".to_owned(), maxmemory: None }]);
    assert!(found[0].to_string().contains("once maxmemory is set"));
}

#[test]
fn policies_that_evict_messages_differ_from_those_that_evict_only_the_lease() {
    let text = |policy: &str, maxmemory| Warning::Eviction { policy: policy.to_owned(), maxmemory }.to_string();
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-of-a-later-version", "unknown"] {
        for maxmemory in [None, NonZeroU64::new(1 << 20)] {
            let text = text(policy, maxmemory);
            assert!(text.contains("removes pending messages and results") && text.contains("set it to"), "{text}");
        }
    }
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let text = text(policy, NonZeroU64::new(1 << 20));
        for part in [policy, "at 1048576 bytes", "the lease", "leadership moves", "no message is lost", "noeviction"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("pending"), "{text}");
    }
}

#[test]
fn good_and_unknown_settings_cause_no_warning() {
    assert_eq!(judge(&HashMap::new(), &HashMap::new(), URL), []);
    let config = map(&[
        ("maxmemory", "1048576"),
        ("maxmemory-policy", "noeviction"),
        ("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0 pubsub 268435456 67108864 60"),
        ("appendonly", "yes"),
    ]);
    for version in ["6.2.0", "7.0.15", "8.4.0", "10.0", "unstable"] {
        assert_eq!(judge(&config, &map(&[("role", "master"), ("redis_version", version)]), URL), [], "{version}");
    }
}

#[test]
fn answers_of_both_protocols_are_read() {
    let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let array = Value::Array(vec![bulk("appendonly"), bulk("no")]);
    let entries = Value::Map(vec![(bulk("maxmemory"), bulk("1"))]);
    assert_eq!(pairs(&[array, entries, Value::Nil]), map(&[("appendonly", "no"), ("maxmemory", "1")]));
    let info = "# Replication\r\nrole:slave\r\nmaster_host:::1\r\n";
    let verbatim = Value::VerbatimString { format: redis::VerbatimFormat::Text, text: info.to_owned() };
    let expected = map(&[("role", "slave"), ("master_host", "::1")]);
    assert_eq!(fields(&[bulk(info)]), expected);
    assert_eq!(fields(&[verbatim]), expected);
}
