//! docs/COMPATIBILITY.md has the servers of scripts/servers.txt and no others.

use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../docs/COMPATIBILITY.md");
const SERVERS: &str = include_str!("../../../scripts/servers.txt");

/// The part of the document that `make check-servers` writes.
fn table() -> &'static str {
    let (_, rest) = DOCUMENT.split_once("<!-- servers: ").expect("the table's begin is marked");
    rest.split_once("<!-- end of servers -->").expect("its end is marked").0
}

/// `redis 7.0.15`, in small letters, and where the server comes from.
type Row = (String, String);

#[test]
fn the_table_has_the_servers_that_are_fetched() {
    let listed = SERVERS.lines().filter(|line| !line.starts_with(['#']) && !line.starts_with("library"));
    let listed: BTreeSet<Row> = listed
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [kind, version, "PATH", _, _, file, ..] => (format!("{kind} {version}"), format!("`{file}` on `PATH`")),
            [kind, version, package, of_package, ..] => {
                (format!("{kind} {version}"), format!("`{package}` {of_package}"))
            }
            _ => panic!("a line of another kind: {line}"),
        })
        .collect();
    assert!(listed.len() >= 7, "{listed:?}");
    let rows = table().lines().filter(|line| line.starts_with("| ")).skip(1);
    let shown: BTreeSet<Row> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].to_lowercase(), cells[2].to_owned())
        })
        .collect();
    assert_eq!(shown, listed, "make check-servers writes the table");
}
