//! Rust source as words and signs, without comments and literals: as much of the language as is needed to find paths.

/// A part of the source that may belong to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An identifier or keyword.
    Word(String),
    /// `::`
    Step,
    /// Any other character that is not white space.
    Sign(char),
}

impl Token {
    /// Whether it is this word.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(found) if found == word)
    }
}

/// All tokens of a file.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token() {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    rest: &'a str,
}

impl Lexer<'_> {
    fn next_token(&mut self) -> Option<Token> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("//") {
                self.skip_past("\n");
            } else if self.rest.starts_with("/*") {
                self.skip_past("*/");
            } else if let Some(hashes) = raw_string(self.rest) {
                self.skip_past("\"");
                self.skip_past(&format!("\"{}", "#".repeat(hashes)));
            } else if self.rest.starts_with('"') || self.rest.starts_with("b\"") || self.rest.starts_with("c\"") {
                self.skip_past("\"");
                self.skip_string();
            } else if self.rest.starts_with('\'') || self.rest.starts_with("b'") {
                self.skip_past("'");
                self.skip_character();
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        if first.is_alphanumeric() || first == '_' {
            let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(Token::Word(word.to_owned()));
        }
        if let Some(rest) = self.rest.strip_prefix("::") {
            self.rest = rest;
            return Some(Token::Step);
        }
        self.rest = &self.rest[first.len_utf8()..];
        Some(Token::Sign(first))
    }

    fn skip_past(&mut self, end: &str) {
        self.rest = self.rest.find(end).map_or("", |at| &self.rest[at + end.len()..]);
    }

    /// The rest of a string whose opening quote has been read.
    fn skip_string(&mut self) {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        self.rest = end.map_or("", |at| &self.rest[at + 1..]);
    }

    /// The rest of a character, or of a lifetime, whose opening quote has been read.
    fn skip_character(&mut self) {
        let mut characters = self.rest.char_indices();
        match (characters.next(), characters.next()) {
            (Some((_, '\\')), Some((at, escaped))) => {
                self.rest = &self.rest[at + escaped.len_utf8()..];
                self.skip_past("'");
            }
            (Some(_), Some((at, '\''))) => self.rest = &self.rest[at + 1..],
            // A lifetime: its name is read as a word, which begins no path.
            _ => {}
        }
    }
}

/// The number of `#` before the quote, if a raw string begins here.
fn raw_string(text: &str) -> Option<usize> {
    let text = text.strip_prefix('b').or(text.strip_prefix('c')).unwrap_or(text).strip_prefix('r')?;
    let rest = text.trim_start_matches('#');
    rest.starts_with('"').then_some(text.len() - rest.len())
}

#[test]
fn tokens_leave_out_comments_and_literals() {
    let source = r###"a /* b */ "c\"d" 'e' '\'' // f
        br#"g"h"# &'i j::k"###;
    let words = tokens(source).into_iter().map(|token| match token {
        Token::Word(word) => word,
        Token::Step => "::".to_owned(),
        Token::Sign(sign) => sign.to_string(),
    });
    assert_eq!(words.collect::<Vec<_>>(), ["a", "&", "i", "j", "::", "k"]);
}
