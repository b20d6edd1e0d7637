//! Writing Redis's protocol: words appended to one buffer, commands made of them. Pure.
//!
//! Where speed matters, whole batches are written with [`begin`] and [`word`] into a reused buffer. Everything else
//! uses [`Command`], which counts its words. [`Words`] holds the last words of a command that is written later.

/// Appends the beginning of a command of `words` words, its name included.
pub fn begin(out: &mut Vec<u8>, words: usize) {
    out.push(b'*');
    digits(out, words as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends a word of a command.
pub fn word(out: &mut Vec<u8>, word: impl AsRef<[u8]>) {
    let word = word.as_ref();
    out.push(b'$');
    digits(out, word.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// Appends a word that consists of these parts, without putting them together elsewhere first.
pub fn word_of<'a>(out: &mut Vec<u8>, parts: impl Iterator<Item = &'a [u8]> + Clone) {
    out.push(b'$');
    digits(out, parts.clone().map(<[u8]>::len).sum::<usize>() as u64);
    out.extend_from_slice(b"\r\n");
    parts.for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

/// Appends a word that is a whole number.
pub fn number(out: &mut Vec<u8>, number: u64) {
    let mut text = [0; MAX_DIGITS];
    word(out, decimal(number, &mut text));
}

/// Appends a whole command.
pub fn command(out: &mut Vec<u8>, words: &[&str]) {
    begin(out, words.len());
    words.iter().for_each(|each| word(out, each));
}

/// As many as the largest number has.
const MAX_DIGITS: usize = 20;

fn digits(out: &mut Vec<u8>, number: u64) {
    let mut text = [0; MAX_DIGITS];
    out.extend_from_slice(decimal(number, &mut text));
}

/// A number's digits. The standard library's formatter would cost more than the rest of the word.
fn decimal(mut number: u64, text: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let mut at = MAX_DIGITS;
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &text[at..];
        }
    }
}

/// A command being written.
#[derive(Clone, Debug)]
pub struct Command {
    bytes: Vec<u8>,
    missing: usize,
}

impl Command {
    /// A command of `words` words, its name included.
    pub fn new(words: usize) -> Command {
        let mut bytes = Vec::with_capacity(16 + 32 * words);
        begin(&mut bytes, words);
        Command { bytes, missing: words }
    }

    /// A whole command.
    pub fn of(words: &[&str]) -> Command {
        words.iter().fold(Command::new(words.len()), |command, word| command.arg(word))
    }

    /// Appends a word.
    pub fn arg(mut self, text: impl AsRef<[u8]>) -> Command {
        word(&mut self.bytes, text);
        self.missing = self.missing.checked_sub(1).expect("a command has as many words as it announced");
        self
    }

    /// The bytes to send.
    pub fn into_bytes(self) -> Vec<u8> {
        assert_eq!(self.missing, 0, "a command has as many words as it announced");
        self.bytes
    }
}

/// Words of commands yet to be written, in the protocol's form: one allocation, however many they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Words {
    count: usize,
    bytes: Vec<u8>,
}

impl Words {
    /// No words, with room for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Words {
        Words { count: 0, bytes: Vec::with_capacity(bytes) }
    }

    /// Appends a word.
    pub fn push(&mut self, text: impl AsRef<[u8]>) {
        word(&mut self.bytes, text);
        self.count += 1;
    }

    /// Appends a word that is a whole number.
    pub fn push_number(&mut self, value: u64) {
        number(&mut self.bytes, value);
        self.count += 1;
    }

    /// Appends all of `others`.
    pub fn append(&mut self, others: &Words) {
        self.bytes.extend_from_slice(&others.bytes);
        self.count += others.count;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes that they take in a command.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The words.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let head = rest.iter().position(|byte| *byte == b'\n')?;
            let length = rest[1..head - 1].iter().fold(0, |length, digit| 10 * length + usize::from(digit - b'0'));
            let (word, behind) = rest[head + 1..].split_at(length);
            rest = &behind[2..];
            Some(word)
        })
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Words {
    fn from_iter<I: IntoIterator<Item = T>>(words: I) -> Words {
        let mut all = Words::default();
        words.into_iter().for_each(|word| all.push(word));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_word_by_word() {
        let get = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n";
        assert_eq!(Command::of(&["GET", "a\r\nb"]).into_bytes(), get);
        let mut out = Vec::new();
        command(&mut out, &["GET", "a\r\nb"]);
        assert_eq!(out, get);
        out.clear();
        [0, 7, 10, u64::MAX].into_iter().for_each(|each| digits(&mut out, each));
        assert_eq!(out, b"071018446744073709551615");
        out.clear();
        number(&mut out, 1_795_641_234_567_890);
        assert_eq!(out, b"$16\r\n1795641234567890\r\n");
    }

    #[test]
    fn words_read_back() {
        let texts = [&b"a"[..], b"", b"\r\n$1\r\n\r\n", &[0xff; 1_000]];
        let words: Words = texts.into_iter().collect();
        assert_eq!(words.len(), texts.len());
        assert_eq!(words.iter().collect::<Vec<_>>(), texts);
        assert!(Words::default().is_empty() && Words::default().iter().next().is_none());
    }
}
