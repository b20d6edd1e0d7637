//! The documents agree with each other and with the code: links have targets, the site has every page, and
//! docs/SETTINGS.md agrees with `--help`.
//!
//! After a change of a command line, `make man` rewrites docs/SETTINGS.md.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use oncecast::cli;

/// docs/SETTINGS.md is written by hand above this line, and by this test below it.
const GENERATED: &str = "<!-- What follows is written from the command lines";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages in docs/, by name.
fn pages() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("docs")).expect("docs/ can be read");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".md")).collect()
}

/// All documents: the pages in docs/, and those at the top.
fn documents() -> Vec<PathBuf> {
    let pages = pages().into_iter().map(|name| root().join("docs").join(name));
    pages.chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name))).collect()
}

/// A document without its code blocks, with or without inline code.
fn prose(text: &str, inline_code: bool) -> String {
    let mut in_block = false;
    let mut lines = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        if !fence && !in_block {
            lines.push_str(line);
            lines.push('\n');
        }
        in_block ^= fence;
    }
    assert!(!in_block, "a code block without an end");
    match inline_code {
        true => lines,
        false => lines.split('`').step_by(2).collect(),
    }
}

/// The targets of all links and pictures.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text, false);
    let targets = prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default().to_owned());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors of a document's headings, as GitHub and mdBook form them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let prose = prose(text, true);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchors = headings.map(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let times = seen.entry(anchor.clone()).or_default();
        *times += 1;
        if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
    });
    anchors.collect()
}

#[test]
fn every_link_has_a_target() {
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            assert!(target.exists(), "{}: no file {link}", document.display());
            if !anchor.is_empty() {
                assert!(anchors(&read(&target)).contains(anchor), "{}: no heading {link}", document.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} links were found");
}

/// The site, built by `make book`, has only docs/.
#[test]
fn the_site_has_every_page_and_no_links_to_missing_ones() {
    assert!(read(&root().join("book.toml")).contains("src = \"docs\""));
    let listed = links(&read(&root().join("docs/SUMMARY.md")));
    let mut expected = pages();
    expected.remove("SUMMARY.md");
    assert_eq!(listed.len(), expected.len(), "{listed:?}");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected, "links in SUMMARY.md, and pages in docs/");
    for page in expected {
        let outside: Vec<_> =
            links(&read(&root().join("docs").join(&page))).into_iter().filter(|link| link.contains("..")).collect();
        assert!(outside.is_empty(), "docs/{page} links to files that the site does not have: {outside:?}");
    }
}

#[test]
fn source_files_named_in_documents_exist() {
    const FOLDERS: [&str; 6] = ["src/", "tests/", "examples/", "benches/", "scripts/", "docker/"];
    let mut checked = 0;
    for document in documents().into_iter().filter(|document| !document.ends_with("CHANGELOG.md")) {
        let prose = prose(&read(&document), true);
        // Every second part is between backticks.
        for path in prose.split('`').skip(1).step_by(2) {
            if FOLDERS.iter().any(|folder| path.starts_with(folder)) && !path.contains([' ', '<', '*']) {
                assert!(root().join(path).exists(), "{} names {path}, which does not exist", document.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "only {checked} names were found");
}

#[test]
fn the_readme_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 100, "README.md has {lines} lines; details belong into docs/");
}

/// Text escaped for Markdown, on one line.
fn escaped(text: &str) -> String {
    let escaped = |c: char| match c {
        '\n' => " ".to_owned(),
        '\\' | '|' | '*' | '<' => format!("\\{c}"),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// The row of a setting. --help and --version have none. A flag without a variable has no default.
fn row_of(arg: &clap::Arg) -> Option<String> {
    let help = arg.get_help()?.to_string();
    let flag = arg.get_long().filter(|flag| !["help", "version"].contains(flag))?;
    let value = arg.get_value_names().filter(|_| arg.get_num_args() != Some(0.into())).unwrap_or_default();
    let value: String = value.iter().map(|name| format!(" {}", name.replace('|', "\\|"))).collect();
    let Some((meaning, rest)) = help.rsplit_once("\n[") else {
        return Some(format!("| `--{flag}{value}` | – | – | {} |\n", escaped(&help)));
    };
    let (default, variables) = rest.split_once("] [env: ")?;
    let variable = variables.split([',', ']']).next()?;
    const DESCRIBED: [&str; 5] = ["off", "none", "no", "random", "unknown"];
    let default = match default.strip_prefix("default: ") {
        Some(text) if text.contains(' ') || DESCRIBED.contains(&text) => escaped(text),
        Some(text) => format!("`{}`", text.replace('|', "\\|")),
        None => default.to_owned(),
    };
    Some(format!("| `--{flag}{value}` | `{variable}` | {default} | {} |\n", escaped(meaning)))
}

/// The section of one command, if it has settings.
fn section_of(title: &str, command: &clap::Command) -> String {
    let rows: String = command.get_arguments().filter_map(row_of).collect();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = escaped(about.split("\n\n").next().unwrap_or_default());
    match rows.is_empty() {
        true => rows,
        false => {
            format!("\n## {title}\n\n{about}\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n{rows}")
        }
    }
}

/// The sections of a subcommand and of its own.
fn sections_of(above: &str, command: &clap::Command) -> String {
    let title = format!("{above} {}", command.get_name());
    let below = command.get_subcommands().map(|subcommand| sections_of(&title, subcommand));
    section_of(&title, command) + &below.collect::<String>()
}

/// The sections of all programs and their subcommands.
fn sections() -> String {
    let mut text = String::new();
    let mut healthcheck = String::new();
    for mut command in cli::command_lines() {
        command.build();
        text += &section_of(command.get_name(), &command);
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            match subcommand.get_name() {
                // Every program has this subcommand, with the same setting.
                "healthcheck" => healthcheck = section_of("healthcheck, a subcommand of every program", subcommand),
                _ => text += &sections_of(command.get_name(), subcommand),
            }
        }
    }
    text + &healthcheck
}

#[test]
fn the_settings_match_the_command_lines() {
    let path = root().join("docs/SETTINGS.md");
    let found = read(&path);
    let above = found.lines().take_while(|line| !line.starts_with(GENERATED)).map(|line| format!("{line}\n"));
    let mark = found.lines().find(|line| line.starts_with(GENERATED)).expect("the line above what is generated");
    let written = above.collect::<String>() + mark + "\n" + &sections();
    assert!(written.contains("`ONCECAST_CONSUMERS`") && written.contains("`ONCECAST_EXPECT`"), "the help is read");
    if std::env::var_os("ONCECAST_WRITE_MAN").is_some() {
        fs::write(&path, &written).expect("the page can be written");
    }
    let found = read(&path);
    let differing = found.lines().zip(written.lines()).find(|(found, written)| found != written);
    assert!(
        found == written,
        "docs/SETTINGS.md is not what --help says; `make man` writes it anew. The first difference: {differing:?}"
    );
}
