//! The names of groups and of their lanes. Pure.

use std::borrow::Cow;

/// The number of a lane of a group. Lane 0 is the group itself.
pub type LaneNumber = u16;

/// What [`may_name_group`] requires, for error messages.
pub const GROUP_FORM: &str = "1 to 256 bytes without spaces, not ending in @ and a number (that names a database), and \
    without braces that / and a number end (that names a lane of another group: give that group, or another name)";

/// Whether the setting `group` may have this value. The rules ensure that no two groups, in whatever databases, share a
/// key or a channel, those of their lanes included.
pub fn may_name_group(name: &str) -> bool {
    is_group(name) && !is_lane(name)
}

/// Whether it may be the name of a group or of one of its lanes.
fn is_group(name: &str) -> bool {
    let plain = !name.chars().any(|c| c.is_whitespace() || c.is_control());
    let database = name.rsplit_once('@').is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
    plain && !database && (1..=256).contains(&name.len())
}

/// The name of lane `lane` of a group: for lane 0 the group's own, otherwise the group's with `/` and the number at the
/// end of its tag, which are the bytes in braces by which Redis Cluster places a key. Lane 3 of `{orders}` is
/// `{orders/3}`. So each lane is a group, and different lanes can lie on different nodes.
///
/// `None` if the group has no tag, and so no lane but 0, or if the name would be too long for a group.
pub fn lane_name(group: &str, lane: LaneNumber) -> Option<Cow<'_, str>> {
    if lane == 0 {
        return Some(group.into());
    }
    let (_, end) = tag(group)?;
    let (before, after) = group.split_at(end);
    Some(format!("{before}/{lane}{after}")).filter(|name| is_group(name)).map(Cow::Owned)
}

/// Which lane of `group` has this name: the inverse of [`lane_name`].
pub fn lane_number(group: &str, name: &str) -> Option<LaneNumber> {
    if name == group {
        return Some(0);
    }
    let (_, end) = tag(group)?;
    let (before, after) = group.split_at(end);
    let number = name.strip_prefix(before)?.strip_suffix(after)?.strip_prefix('/')?;
    number.parse().ok().filter(|_| is_lane_number(number.as_bytes()) && is_group(name))
}

/// Whether a name is that of a lane, other than lane 0, of some group.
fn is_lane(name: &str) -> bool {
    let Some((begin, end)) = tag(name) else { return false };
    name[begin..end]
        .rsplit_once('/')
        .is_some_and(|(group, number)| !group.is_empty() && is_lane_number(number.as_bytes()))
}

/// Whether this is the number of a lane other than lane 0.
pub(super) fn is_lane_number(text: &[u8]) -> bool {
    // The number parser would accept a sign and leading zeros.
    let plain = text.iter().all(u8::is_ascii_digit) && !text.starts_with(b"0");
    plain && std::str::from_utf8(text).is_ok_and(|text| text.parse::<LaneNumber>().is_ok())
}

/// Where the tag of a key begins and ends, as Redis Cluster finds it: between the first brace that opens and the first
/// one that closes after it. An empty tag is none.
pub(super) fn tag(key: &str) -> Option<(usize, usize)> {
    let begin = key.find('{')? + 1;
    let end = begin + key[begin..].find('}')?;
    (begin < end).then_some((begin, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_named_by_the_tag_of_its_group() {
        for (group, third) in [
            ("{orders}", "{orders/3}"),
            ("shop:{orders}:eu", "shop:{orders/3}:eu"),
            ("a}{b}", "a}{b/3}"),
            ("{{a}}", "{{a/3}}"),
            ("{a}{b}", "{a/3}{b}"),
            ("{a/3}", "{a/3/3}"),
            ("{größe}", "{größe/3}"),
        ] {
            assert_eq!(lane_name(group, 0).as_deref(), Some(group));
            assert_eq!(lane_name(group, 3).as_deref(), Some(third));
            assert_eq!((lane_number(group, group), lane_number(group, third)), (Some(0), Some(3)), "{group}");
        }
        for group in ["orders", "{}", "{}{a}", "{a", "a}", "}{"] {
            assert_eq!((lane_name(group, 1), lane_name(group, 0).as_deref()), (None, Some(group)));
            assert_eq!(lane_number(group, group), Some(0));
        }
    }

    #[test]
    fn every_number_is_read_back_and_nothing_else_is_a_lane() {
        for lane in (0..300).chain([999, u16::MAX - 1, u16::MAX]) {
            let name = lane_name("x{orders}y", lane).expect("it has a tag");
            assert_eq!(lane_number("x{orders}y", &name), Some(lane));
        }
        for name in [
            "",
            "{orders",
            "orders/1",
            "{orders/}",
            "{orders/0}",
            "{orders/01}",
            "{orders/+1}",
            "{orders/-1}",
            "{orders/ 1}",
            "{orders/1 }",
            "{orders/65536}",
            "{orders/1/2}",
            "{orders/1}x",
            "x{orders/1}",
            "{orders//1}",
            "{orders/١}",
            "{orders/1}}",
            "{{orders/1}",
            "{other/1}",
            "{orders}/1",
        ] {
            assert_eq!(lane_number("{orders}", name), None, "{name:?}");
        }
        assert_eq!(lane_number("orders", "orders/1"), None);
        assert_eq!(lane_number("{}", "{/1}"), None);
    }

    #[test]
    fn a_lane_whose_name_would_be_too_long_does_not_exist() {
        let group = format!("{{{}}}", "g".repeat(251));
        assert_eq!(group.len(), 253);
        assert_eq!(lane_name(&group, 9).map(|name| name.len()), Some(255));
        assert_eq!(lane_name(&group, 99).map(|name| name.len()), Some(256));
        assert_eq!(lane_name(&group, 100), None);
        let long = group.replace('}', "/100}");
        assert_eq!((long.len(), lane_number(&group, &long)), (257, None));
    }

    #[test]
    fn no_group_is_named_like_a_lane_of_another() {
        for name in
            ["messages", "{orders}", "orders/1", "{orders}/1", "{orders/x}", "{orders/0}", "{orders/01}", "{/1}"]
        {
            assert!(may_name_group(name), "{name}");
        }
        for name in ["", "a b", "orders@1", "{orders/1}", "shop:{orders/65535}:eu", "{a/1/2}", "a}{b/3}", "{a/1}{b}"] {
            assert!(!may_name_group(name), "{name}");
        }
        // Whatever group a name is a lane of.
        for group in ["{orders}", "x{orders}y", "a}{b}", "{{a}}", "{a/x}", "{a}{b/2}"] {
            for lane in [1, 9, 10, u16::MAX] {
                let name = lane_name(group, lane).expect("it has a tag");
                assert!(may_name_group(group) && !may_name_group(&name), "{name}");
            }
        }
    }
}
