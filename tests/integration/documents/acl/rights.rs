//! What the document adds to the users where a group reaches Redis in another way.

use std::collections::{BTreeMap, BTreeSet};

use super::users::{
    DEAD, DOCUMENT, LOOK, OPERATE, SHADOW, User, dead_user, look_user, operate_user, shadow_user, users,
};
use crate::support::{client, run};

/// A user's rights: words of `ACL SETUSER`. What is in brackets is one of them.
pub type Rights = Vec<String>;

/// What a block of the document adds to the users.
pub fn additions(kind: &str) -> BTreeMap<&'static str, Rights> {
    let (_, rest) = DOCUMENT.split_once(&format!("```{kind}\n")).expect("a block of this kind");
    let (block, _) = rest.split_once("```").expect("its end");
    let line = |line: &'static str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], ["ACL", "SETUSER"], "{line}");
        (words[2], joined(words[3..].iter().copied()))
    };
    block.lines().map(line).collect()
}

/// The users of the document for a group, with what these blocks add, in their order.
pub fn users_with(group: &str, kinds: &[&str]) -> BTreeMap<&'static str, Rights> {
    with(users(), group, kinds)
}

/// The same for the users of the tools and of shadows.
pub fn tools_with(group: &str, kinds: &[&str]) -> BTreeMap<&'static str, Rights> {
    let users = [(LOOK, look_user()), (OPERATE, operate_user()), (DEAD, dead_user()), (SHADOW, shadow_user())];
    with(users.into(), group, kinds)
}

/// These users for a group, with what the blocks add to them, in their order.
pub fn with(users: BTreeMap<&'static str, User>, group: &str, kinds: &[&str]) -> BTreeMap<&'static str, Rights> {
    let own = |user: &User| {
        joined(user.line[3..].iter().copied()).iter().map(|word| word.replace("messages", group)).collect()
    };
    let mut all: BTreeMap<&'static str, Rights> = users.iter().map(|(name, user)| (*name, own(user))).collect();
    for kind in kinds {
        for (name, more) in additions(kind) {
            if let Some(known) = all.get_mut(name) {
                known.extend(more);
            }
        }
    }
    all
}

/// Words, with what is in brackets as one word.
fn joined<'a>(words: impl Iterator<Item = &'a str>) -> Rights {
    let mut all: Rights = Vec::new();
    for word in words {
        match all.last_mut().filter(|last| last.starts_with('(') && !last.ends_with(')')) {
            Some(open) => *open = format!("{open} {word}"),
            None => all.push(word.to_owned()),
        }
    }
    all
}

/// Without one of them.
pub fn without(rights: &Rights, right: &str) -> Rights {
    rights.iter().filter(|word| *word != right).cloned().collect()
}

/// Gives a server a user, who had other rights before.
pub fn set_user(url: &str, name: &str, rights: &[String]) {
    let words = ["ACL", "SETUSER", name].into_iter().chain(rights.iter().map(String::as_str));
    let () = run(&mut client(url), &words.collect::<Vec<_>>());
}

/// The commands that a user may call.
pub fn may(rights: &[String]) -> BTreeSet<String> {
    rights.iter().fold(BTreeSet::new(), |mut may, word| {
        if let Some(command) = word.strip_prefix('+') {
            may.insert(command.to_owned());
        } else if let Some(command) = word.strip_prefix('-') {
            may.remove(command);
        }
        may
    })
}
