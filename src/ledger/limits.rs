//! How much one step carries.

/// The most messages that one script stores, commits or settles. Redis does nothing else while a script runs.
pub const MAX_BATCH_MESSAGES: usize = 1_000;
/// The most payload bytes one script carries, if it has more than one message.
pub const MAX_BATCH_BYTES: usize = 1 << 20;
/// The most words of a command that is about more than one message: some services and proxies refuse more than 4,000.
pub const MAX_BATCH_WORDS: usize = 3_900;
/// The most values one result has; Lua's `unpack` takes 7999.
pub const MAX_RESULT_FIELDS: usize = 3_900;
/// How many entries the record of gaps keeps.
pub const MAX_GAPS: usize = 10_000;

/// Cuts `all` into parts that one script can take, by messages, bytes and words. `size` gives each item's bytes and
/// words.
pub fn parts<T>(all: &[T], size: impl Fn(&T) -> (usize, usize)) -> impl Iterator<Item = &[T]> {
    let (mut messages, (mut bytes, mut words)) = (1, all.first().map_or((0, 0), &size));
    let together = move |_: &T, next: &T| {
        let (next_bytes, next_words) = size(next);
        (messages, bytes, words) = (messages + 1, bytes + next_bytes, words + next_words);
        let together = messages <= MAX_BATCH_MESSAGES && bytes <= MAX_BATCH_BYTES && words <= MAX_BATCH_WORDS;
        if !together {
            (messages, bytes, words) = (1, next_bytes, next_words);
        }
        together
    };
    all.chunk_by(together)
}
