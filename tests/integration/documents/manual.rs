//! The manual pages in `man/` and the settings files in `systemd/` agree with `--help`.
//!
//! The pages are kept as files so that installing needs no more than the programs. After a change of a command line:
//! `make man` writes them anew.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap_mangen::Man;
use oncecast::cli::{self, Parsed};

/// The page of a command and those of its subcommands, by file name.
fn pages_of(command: &clap::Command, pages: &mut BTreeMap<String, String>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).expect("a list of bytes takes all");
    let page = String::from_utf8(page).expect("help is text");
    // The date stays empty, so that a page changes only with its content. The generator would omit it and so shift the
    // fields behind it.
    let title = format!(".TH {} 1 \"\" \"Oncecast {}\" \"Oncecast\"", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    let line = |line: &str| match line {
        line if line.starts_with(".TH ") => title.clone(),
        ".SH EXTRA" => ".SH NOTES".to_owned(),
        line => line.trim_end().to_owned(),
    };
    let page: String = page.lines().map(|text| line(text) + "\n").collect();
    let page = without_help(&page);
    pages.insert(format!("{name}.1"), page);
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        if subcommand.get_name() != "help" {
            pages_of(subcommand, pages);
        }
    }
}

/// The page without the entry of the subcommand `help`, for which the generator names a page that does not exist.
fn without_help(page: &str) -> String {
    let mut lines = page.lines().peekable();
    let mut kept = String::new();
    while let Some(line) = lines.next() {
        if line == ".TP" && lines.peek().is_some_and(|named| named.ends_with("\\-help(1)")) {
            // Its name and its text.
            lines.next();
            lines.next();
            continue;
        }
        kept += line;
        kept.push('\n');
    }
    kept
}

/// The pages that a page refers to, as `name(1)`.
fn referred(page: &str) -> Vec<String> {
    let plain = page.replace('\\', "");
    let words = plain.split(|c: char| c.is_whitespace() || c == ',');
    words.filter_map(|word| word.strip_suffix("(1)")).map(str::to_owned).collect()
}

#[test]
fn the_manual_pages_match_the_command_lines() {
    let mut pages = BTreeMap::new();
    for mut command in cli::command_lines() {
        command.build();
        pages_of(&command, &mut pages);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    if std::env::var_os("ONCECAST_WRITE_MAN").is_some() {
        fs::remove_dir_all(&folder).expect("the folder can be written anew");
        fs::create_dir(&folder).expect("the folder can be written anew");
        for (name, page) in &pages {
            fs::write(folder.join(name), page).expect("the page can be written");
        }
    }
    let files = fs::read_dir(&folder).expect("the folder is there").map(|file| file.expect("it can be listed").path());
    let found: BTreeMap<String, String> = files
        .map(|path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a page is text"))
        })
        .collect();
    let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&pages), "pages in man/, and commands; `make man` writes them anew");
    for (name, page) in &pages {
        assert_eq!(&found[name], page, "man/{name} is not what --help says; `make man` writes it anew");
    }
    for (name, page) in &pages {
        for other in referred(page) {
            assert!(pages.contains_key(&format!("{other}.1")), "man/{name} refers to {other}(1), which there is not");
        }
    }
    assert!(referred(&pages["oncecast.1"]).len() >= 6, "{:?}", referred(&pages["oncecast.1"]));
    // Catches a generator that leaves settings out.
    assert!(pages["oncecast-dispatcher.1"].contains("ONCECAST_CONSUMERS"));
    assert!(pages["oncecast-audit.1"].contains("ONCECAST_EXPECT"));
    assert!(!pages.contains_key("oncecast-chaos-consumer.1"), "what is hidden has no page");
}

/// The settings that a file explains, with the values it shows for them.
fn explained(file: &'static str) -> HashMap<String, &'static str> {
    let lines = file.lines().filter_map(|line| line.strip_prefix("#ONCECAST_")?.split_once('='));
    lines.map(|(name, value)| (format!("ONCECAST_{name}"), value)).collect()
}

/// The settings of a command with their defaults, as `--help` shows them.
fn settings(command: &clap::Command) -> HashMap<String, String> {
    let settings = command.get_arguments().filter_map(|arg| {
        let help = arg.get_help()?.to_string();
        let (_, rest) = help.rsplit_once("\n[")?;
        let (default, variable) = rest.split_once("] [env: ")?;
        let variable = variable.trim_end_matches(']').split(',').next()?;
        Some((variable.to_owned(), default.trim_start_matches("default: ").to_owned()))
    });
    settings.collect()
}

#[test]
fn the_settings_files_explain_each_setting_and_show_its_default() {
    const DISPATCHER: &str = include_str!("../../../systemd/dispatcher.env.example");
    const CONSUMER: &str = include_str!("../../../systemd/consumer.env.example");
    // These have no default that could be shown.
    const FOUND: [&str; 11] = [
        "the system's authorities",
        "required",
        "host name and pid",
        "off",
        "none",
        "the dispatcher's",
        "the database of --redis-url",
        "<group>:messages",
        "the listen address",
        "number of cores",
        "no limit",
    ];
    let [dispatcher, consumer, ..] = cli::command_lines();
    for (command, file) in [(dispatcher, DISPATCHER), (consumer, CONSUMER)] {
        let (settings, explained) = (settings(&command), explained(file));
        assert!(settings.len() > 8, "the help is read: {settings:?}");
        for (name, default) in &settings {
            let shown = explained.get(name).unwrap_or_else(|| panic!("{name} is not explained"));
            assert!(shown == default || FOUND.contains(&default.as_str()), "{name}: {shown} is shown, not {default}");
        }
        for name in explained.keys() {
            assert!(settings.contains_key(name), "{name} is no setting of {}", command.get_name());
        }
        let active = file.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
        assert_eq!(active, None, "a new file changes nothing");
    }
    // With all these values set, the programs would start, except that there are no such files.
    let value = |shown: &HashMap<String, &'static str>, name: &str| {
        // It stands in place of other settings.
        let shown = shown.get(name).filter(|_| name != "ONCECAST_SHARDED_CHANNEL");
        shown.filter(|value| !value.ends_with(".pem") && !value.ends_with(".key")).map(OsString::from)
    };
    let shown = explained(DISPATCHER);
    let read = cli::DISPATCHER.parse([OsString::from("-")], &|name| value(&shown, name));
    assert!(matches!(read, Ok(Parsed::Run(_))), "{read:?}");
    let shown = explained(CONSUMER);
    let read = cli::CONSUMER.parse([OsString::from("-")], &|name| value(&shown, name));
    assert!(matches!(read, Ok(Parsed::Run(_))), "{read:?}");
}
