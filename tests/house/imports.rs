//! Finds in the text of the sources which file imports which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::lexer::{Token, tokens};

/// A module's path below the crate: `["lane", "ring"]`.
type Module = Vec<String>;

/// The files of the crate and their imports.
pub struct House {
    /// What each file imports, and by which path.
    imports: BTreeMap<Module, BTreeMap<Module, String>>,
    /// The paths into other crates, the standard library included, that each file names.
    outward: BTreeMap<Module, BTreeSet<Module>>,
}

impl House {
    /// Reads these files, named by their path below `src/`. Programs (`bin/`) are crates of their own and import the
    /// library as `oncecast::`.
    pub fn of<'a>(sources: impl Iterator<Item = (&'a Path, &'a str)>) -> House {
        let files: BTreeMap<Module, &str> =
            sources.map(|(path, text)| (module_of(path), text)).filter(|(module, _)| !is_of_tests(module)).collect();
        let known: BTreeSet<&[String]> = files.keys().map(Vec::as_slice).collect();
        let readers: Vec<Reader<'_>> = files.iter().map(|(module, text)| Reader::of(module, text, &known)).collect();
        let imports = readers.iter().map(|reader| (reader.file.clone(), reader.imports())).collect();
        let outward = readers.iter().map(|reader| (reader.file.clone(), reader.outward())).collect();
        House { imports, outward }
    }

    /// Uses of items below the path `outside`, in another crate, by files that are not at or below one of `places`.
    pub fn uses_outside(&self, outside: &str, places: &[&str]) -> Vec<String> {
        let outside: Module = outside.split("::").map(str::to_owned).collect();
        let is_free = |module: &Module| {
            let free =
                |place: &&str| module.iter().map(String::as_str).take(place.split("::").count()).eq(place.split("::"));
            places.iter().any(free)
        };
        let others = self.outward.iter().filter(|(module, _)| !is_free(module));
        let uses = others.flat_map(|(module, paths)| paths.iter().map(move |path| (module, path)));
        let found = uses.filter(|(_, path)| path.starts_with(&outside));
        found.map(|(module, path)| format!("{} uses {}", shown(module), path.join("::"))).collect()
    }

    /// The rooms: folders and files directly below `src/`, without the root of the crate.
    pub fn rooms(&self) -> BTreeSet<&str> {
        self.imports.keys().filter_map(|module| module.first()).map(String::as_str).collect()
    }

    /// Imports of a room by one below it; `rooms` lists them from top to bottom.
    pub fn upward(&self, rooms: &[String]) -> Vec<String> {
        let height = |module: &Module| rooms.iter().position(|room| Some(room) == module.first());
        let mut upward = Vec::new();
        for (from, imports) in self.imports.iter().filter(|(from, _)| !from.is_empty()) {
            for (to, path) in imports {
                if height(to) < height(from) {
                    upward.push(format!("{} imports {path}", shown(from)));
                }
            }
        }
        upward
    }

    /// Groups of files that reach each other by imports, one line per group.
    pub fn circles(&self) -> Vec<String> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.imports.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, others) in &reached {
            let circle: Vec<&Module> = others.iter().copied().filter(|other| reached[other].contains(module)).collect();
            if circle.len() > 1 {
                circles.insert(circle.into_iter().map(shown).collect::<Vec<_>>().join(", "));
            }
        }
        circles.into_iter().collect()
    }

    fn reached_from(&self, start: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Module> = self.imports[start].keys().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(self.imports[module].keys());
            }
        }
        reached
    }
}

fn module_of(path: &Path) -> Module {
    let mut module: Module =
        path.with_extension("").iter().map(|part| part.to_str().expect("names are ASCII").to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

fn is_of_tests(module: &Module) -> bool {
    module.iter().any(|part| part == "tests")
}

fn shown(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// Gathers the paths of one file.
struct Reader<'a> {
    file: &'a Module,
    /// The inline modules that enclose this point, each with the depth of braces at which it ends.
    inline: Vec<(String, usize)>,
    /// Absolute paths (`crate::…`), and paths that begin with any other word.
    paths: Vec<Module>,
    /// Modules that were imported, by the name they have here.
    aliases: BTreeMap<String, Module>,
    known: &'a BTreeSet<&'a [String]>,
}

impl<'a> Reader<'a> {
    fn of(file: &'a Module, text: &str, known: &'a BTreeSet<&'a [String]>) -> Reader<'a> {
        let mut reader = Reader { file, inline: Vec::new(), paths: Vec::new(), aliases: BTreeMap::new(), known };
        reader.read(&tokens(text));
        reader
    }

    /// What the file imports, by the file that holds it.
    fn imports(&self) -> BTreeMap<Module, String> {
        let mut imports = BTreeMap::new();
        for path in self.paths.iter().filter_map(|path| self.resolved(path)) {
            let file = self.file_of(&path);
            if file != *self.file && !file.is_empty() {
                imports.entry(file).or_insert_with(|| path.join("::"));
            }
        }
        imports
    }

    /// The paths that lead out of the crate, or begin with a name that the file defines or imported from there.
    fn outward(&self) -> BTreeSet<Module> {
        self.paths.iter().filter(|path| self.resolved(path).is_none()).cloned().collect()
    }

    fn read(&mut self, tokens: &[Token]) {
        let (mut at, mut depth) = (0, 0);
        while at < tokens.len() {
            match &tokens[at] {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => {
                    depth -= 1;
                    self.inline.pop_if(|(_, ends)| *ends == depth);
                }
                token if token.is("mod") && tokens.get(at + 2) == Some(&Token::Sign('{')) => {
                    let Token::Word(name) = &tokens[at + 1] else { panic!("a module has a name") };
                    if name == "tests" {
                        at = end_of_block(tokens, at + 2);
                        continue;
                    }
                    self.inline.push((name.clone(), depth));
                }
                // `pub(in crate::room)` is a visibility, not an import.
                token if token.is("in") && tokens[at - 1] == Token::Sign('(') => {
                    (_, at) = path_at(tokens, at + 1);
                    continue;
                }
                token if token.is("use") => {
                    at = self.read_use(tokens, at + 1, &[]);
                    continue;
                }
                Token::Word(_) if tokens.get(at + 1) == Some(&Token::Step) => {
                    let (path, end) = path_at(tokens, at);
                    self.paths.push(self.absolute(&path));
                    at = end;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads the tree after `use`, or one branch of it. Returns the place after it.
    fn read_use(&mut self, tokens: &[Token], start: usize, before: &[String]) -> usize {
        let (path, mut at) = path_at(tokens, start);
        let path = [before, &path].concat();
        if tokens.get(at) == Some(&Token::Sign('{')) {
            at += 1;
            while tokens.get(at).is_some_and(|token| *token != Token::Sign('}')) {
                at = self.read_use(tokens, at, &path);
                at += usize::from(tokens.get(at) == Some(&Token::Sign(',')));
            }
            return at + 1;
        }
        let mut path = self.absolute(&path);
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut name = path.last().cloned();
        if tokens.get(at).is_some_and(|token| token.is("as")) {
            if let Some(Token::Word(alias)) = tokens.get(at + 1) {
                name = Some(alias.clone());
            }
            at += 2;
        }
        at += usize::from(tokens.get(at) == Some(&Token::Sign('*')));
        if let (Some(name), true) = (name, path.first().is_some_and(|first| first == "crate")) {
            self.aliases.insert(name, path.clone());
        }
        self.paths.push(path);
        at
    }

    /// `self::…` and `super::…` seen from the crate; anything else as it is.
    fn absolute(&self, path: &[String]) -> Module {
        let mut here = self.file.clone();
        here.extend(self.inline.iter().map(|(name, _)| name.clone()));
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("oncecast") => return [&["crate".to_owned()][..], &rest[1..]].concat(),
            Some("self") if rest.len() > 1 => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|first| first == "super") {
                    here.pop();
                    rest = &rest[1..];
                }
            }
            _ => return path.to_vec(),
        }
        [&["crate".to_owned()][..], &here, rest].concat()
    }

    /// The path below the crate; `None` for one that leads to another crate.
    fn resolved(&self, path: &[String]) -> Option<Module> {
        let first = path.first()?;
        if first == "crate" {
            return Some(path[1..].to_vec());
        }
        if let Some(alias) = self.aliases.get(first) {
            return Some([&alias[1..], &path[1..]].concat());
        }
        // A module that is declared here.
        let child = [&self.file[..], std::slice::from_ref(first)].concat();
        self.known.contains(child.as_slice()).then(|| [&child[..], &path[1..]].concat())
    }

    /// The file that a path leads to, by its longest prefix.
    fn file_of(&self, path: &[String]) -> Module {
        let mut beginnings = (0..=path.len()).rev().map(|length| &path[..length]);
        beginnings.find(|beginning| self.known.contains(beginning)).unwrap_or_default().to_vec()
    }
}

/// The words of a path that begins here, and the place after it; a `::` before it or after it is left out.
fn path_at(tokens: &[Token], start: usize) -> (Module, usize) {
    let (mut path, mut at) = (Vec::new(), start);
    at += usize::from(tokens.get(at) == Some(&Token::Step));
    while let Some(Token::Word(word)) = tokens.get(at) {
        if word == "as" {
            break;
        }
        path.push(word.clone());
        at += 1;
        if tokens.get(at) != Some(&Token::Step) {
            break;
        }
        at += 1;
    }
    (path, at)
}

/// The place after the block that opens here.
fn end_of_block(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') if depth == 1 => return at + 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_of_other_crates_are_found() {
        let [allowed, also, wrong] = ["net/a.rs", "lab/b/c.rs", "lab/d.rs"].map(|path| (Path::new(path), SOURCE));
        const SOURCE: &str = "use std::net::{SocketAddr, TcpStream}; // std::net::TcpStream
            mod tests { use std::net::TcpStream; }";
        let house = House::of([allowed, also, wrong].into_iter());
        let found = house.uses_outside("std::net::TcpStream", &["net", "lab::b"]);
        assert_eq!(found, ["lab::d uses std::net::TcpStream"]);
        assert!(house.uses_outside("std::net::TcpListener", &[]).is_empty());
    }

    fn house(sources: &[(&str, &str)]) -> House {
        House::of(sources.iter().map(|(path, text)| (Path::new(*path), *text)))
    }

    fn rooms(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_import_of_a_higher_room_is_found_however_it_is_written() {
        for text in [
            "use crate::upper::Thing;",
            "use crate::{upper::Thing, other};",
            "use super::upper as renamed;",
            "pub use crate::upper;",
            "fn f() { let thing = crate::upper::make(); }",
            "fn f() -> super::upper::Thing { todo!() }",
            "mod inner { use super::super::upper::Thing; }",
            "use crate as all; fn f() { all::upper::make() }",
        ] {
            let house = house(&[("lib.rs", ""), ("upper.rs", ""), ("lower.rs", text)]);
            let upward = house.upward(&rooms(&["upper", "lower"]));
            assert_eq!(upward.len(), 1, "{text}: {upward:?}");
            assert!(upward[0].starts_with("lower imports upper"), "{upward:?}");
            assert!(house.upward(&rooms(&["lower", "upper"])).is_empty(), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_an_import_is_ignored() {
        for text in [
            "// use crate::upper::Thing;",
            "const TEXT: &str = \"use crate::upper::Thing;\";",
            "use std::upper::Thing;",
            "#[cfg(test)] mod tests { use crate::upper::Thing; }",
            "fn upper() { upper::<u8>() }",
            "pub(in crate::upper) fn f() {}",
        ] {
            let house = house(&[("lib.rs", ""), ("upper.rs", ""), ("lower.rs", text)]);
            assert!(house.upward(&rooms(&["upper", "lower"])).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_program_imports_the_library_by_its_name() {
        let house = house(&[("lib.rs", ""), ("room/mod.rs", ""), ("bin/one.rs", "use oncecast::room::run;")]);
        assert_eq!(house.upward(&rooms(&["room", "bin"])), ["bin::one imports room::run"]);
    }

    #[test]
    fn a_circle_is_found_over_several_files() {
        let circle =
            [("a/mod.rs", "pub use self::b::B;"), ("a/b.rs", "use crate::c::C;"), ("c.rs", "use super::a::B;")];
        assert_eq!(house(&circle).circles(), ["a, a::b, c"]);
        assert!(house(&circle[..2]).circles().is_empty());
    }

    #[test]
    fn a_child_and_parent_that_use_each_other_are_a_circle() {
        let child = ("a/b.rs", "use super::Shared;");
        assert!(house(&[("a/mod.rs", "mod b; pub struct Shared;"), child]).circles().is_empty());
        assert_eq!(house(&[("a/mod.rs", "mod b; fn f() { b::run() }"), child]).circles(), ["a, a::b"]);
        assert_eq!(house(&[("a/mod.rs", "use self::b as c; fn f() { c::run() }"), child]).circles(), ["a, a::b"]);
    }
}
