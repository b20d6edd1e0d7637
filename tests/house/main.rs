//! Rules that no compiler checks: imports run one way between rooms and files; only one room each makes sockets, talks
//! to Redis, and encodes bytes; no line is wider than the formatter's limit.
//!
//! A room is a folder of `src/`, or a file there. Their order is read from `docs/ARCHITECTURE.md`, section "Rooms": a
//! room may import only rooms below it. Files of a room may import each other, but never in a circle. Modules of unit
//! tests are ignored, since they may use everything.
//!
//! Limitations: `imports` finds imports in the text, without expanding macros.

mod imports;
mod lexer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use self::imports::House;

/// The same as `max_width` in `rustfmt.toml`, which does not apply to comments and strings.
const MAX_WIDTH: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `folder` whose names end with `ending`, by their path from `root`.
fn files(folder: &str, ending: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.insert(path.strip_prefix(root()).expect("it is below the root").to_owned(), text);
            }
        }
    }
    found
}

/// The rooms from top to bottom, as `docs/ARCHITECTURE.md` lists them: the first column of the table in section
/// "Rooms".
fn rooms() -> Vec<String> {
    let document = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md can be read");
    let section =
        document.split("\n## ").find(|section| section.starts_with("Rooms\n")).expect("there is a section Rooms");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(room, _)| room.to_owned()).collect()
}

fn house() -> House {
    let sources = files("src", ".rs");
    House::of(sources.iter().map(|(path, text)| (path.strip_prefix("src").expect("it is below src"), text.as_str())))
}

#[test]
fn imports_run_from_upper_rooms_to_lower_ones() {
    let (house, rooms) = (house(), rooms());
    assert!(rooms.len() > 5, "the list of rooms has been read: {rooms:?}");
    let unlisted: Vec<&str> = house.rooms().into_iter().filter(|room| !rooms.iter().any(|one| one == room)).collect();
    assert!(unlisted.is_empty(), "docs/ARCHITECTURE.md, section Rooms, does not list {unlisted:?}");
    let upward = house.upward(&rooms);
    assert!(upward.is_empty(), "a lower room imports a higher one:\n{}", upward.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = house().circles();
    assert!(circles.is_empty(), "files that import each other in a circle:\n{}", circles.join("\n"));
}

/// Fails if a file outside `places` names something below one of the paths `outside`.
fn only_used_in(places: &[&str], outside: &[&str]) {
    let house = house();
    assert!(!house.uses_outside(outside[0], &[]).is_empty(), "{} is used at all", outside[0]);
    let found: Vec<String> = outside.iter().flat_map(|outside| house.uses_outside(outside, places)).collect();
    assert!(found.is_empty(), "only {places:?} may use {outside:?}:\n{}", found.join("\n"));
}

#[test]
fn only_net_makes_sockets() {
    let sockets = [
        "socket2",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        "std::net::ToSocketAddrs",
        "std::os::unix::net",
    ];
    only_used_in(&["net"], &sockets);
}

#[test]
fn only_the_ledger_talks_to_redis() {
    // Errors wrap those of the client library. The lab is a client of its servers, and the publisher pipelines its
    // load: both read the values of replies.
    only_used_in(&["ledger", "base::failure", "lab", "programs::publisher::link"], &["redis"]);
}

#[test]
fn only_wire_encodes_bytes() {
    only_used_in(&["wire"], &["byteorder"]);
}

#[test]
fn no_line_exceeds_the_width() {
    let places = [
        ("src", ".rs"),
        ("src", ".lua"),
        ("tests", ".rs"),
        ("benches", ".rs"),
        ("examples", ".rs"),
        ("scripts", ".sh"),
    ];
    let mut wide = Vec::new();
    for (path, text) in places.iter().flat_map(|(folder, ending)| files(folder, ending)) {
        let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > MAX_WIDTH);
        wide.extend(lines.map(|(number, _)| format!("{}:{}", path.display(), number + 1)));
    }
    assert!(wide.is_empty(), "lines of more than {MAX_WIDTH} characters:\n{}", wide.join("\n"));
}
