//! Why Redis refuses a command, read from the text of its error reply. Pure.
//!
//! The code is not always the first word. Redis 6.2 wraps the reason for which a script's command was refused (`ERR
//! Error running script (call to f_…): @user_script:1: @user_script: 1: -READONLY You can't …`), `EXEC` says `EXECABORT
//! Transaction discarded because of: NOPERM …`, and a script's missing right has a sentence instead of a code.
//!
//! Some errors repeat arguments, and so users' messages (`ERR unknown command 'ZADD', with args beginning with: …`). So
//! a code is read only where the server puts it: at the beginning, or at the beginning of what is wrapped.
//! Limitation: a sentence that no tested version sends is [`Refusal::Other`].

/// Why a command was refused, as far as programs act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// User or password are wrong or missing (`NOAUTH`, `WRONGPASS`).
    Login,
    /// The user lacks a right to a command, a key or a channel (`NOPERM`).
    Right,
    /// The server does not have the database, or has no databases (`SELECT`).
    Database,
    /// The server does not speak the protocol that was asked for (`NOPROTO`).
    Protocol,
    /// The server does not have the command: it was renamed, or the server is too old.
    UnknownCommand,
    /// The memory is full (`OOM`).
    Memory,
    /// The server is a replica (`READONLY`, `MASTERDOWN`).
    Replica,
    /// The server can't write to its disk (`MISCONF`).
    Disk,
    /// Too few replicas are connected (`NOREPLICAS`).
    Replicas,
    /// A key holds another type (`WRONGTYPE`).
    WrongType,
    /// A stream has no higher id left.
    StreamExhausted,
    /// The server is loading its data, or busy with a script (`LOADING`, `BUSY`).
    NotNow,
    /// The server does not have the script (`NOSCRIPT`).
    NoScript,
    /// The cluster's node can't execute the command (`MOVED`, `ASK`, `CROSSSLOT`, `CLUSTERDOWN`, `TRYAGAIN`).
    Cluster,
    /// The server is no node of a Redis Cluster.
    NoCluster,
    /// The command is larger than the server, or a proxy in front of it, allows.
    TooLarge,
    /// The server has as many connections as it allows.
    Clients,
    /// The server accepts connections from its own machine only, since it has no password (`DENIED`).
    Protected,
    /// Anything else.
    Other,
}

/// Sentences of errors without a code of their own (`ERR …`), in lower case. Those that arguments may follow are tried
/// first, because an argument may look like another sentence.
const SENTENCES: &[(&str, Refusal)] = &[
    ("unknown command", Refusal::UnknownCommand),
    ("unknown redis command", Refusal::UnknownCommand),
    ("max number of clients", Refusal::Clients),
    (NEEDLESS_PASSWORD, Refusal::Login),
    ("db index is out of range", Refusal::Database),
    ("invalid db index", Refusal::Database),
    ("select is not allowed in cluster mode", Refusal::Database),
    ("cluster support disabled", Refusal::NoCluster),
    // About a script's keys in a cluster.
    ("do not hash to the same slot", Refusal::Cluster),
    ("non local key in a cluster node", Refusal::Cluster),
    // About a script's command, in 7.0 and later and in 6.2.
    ("acl failure in script", Refusal::Right),
    ("the user executing the script can't", Refusal::Right),
    ("has exhausted the last possible id", Refusal::StreamExhausted),
    ("invalid bulk length", Refusal::TooLarge),
    ("invalid multibulk length", Refusal::TooLarge),
    ("too big", Refusal::TooLarge),
    ("too large", Refusal::TooLarge),
    ("too long", Refusal::TooLarge),
    ("too many arguments", Refusal::TooLarge),
    ("too many results to unpack", Refusal::TooLarge),
    ("exceeds maximum allowed size", Refusal::TooLarge),
    ("exceeds the maximum", Refusal::TooLarge),
    // As Upstash documents them.
    ("max request size exceeded", Refusal::TooLarge),
    ("max single record size exceeded", Refusal::TooLarge),
];

/// The error for a password that the server does not need.
const NEEDLESS_PASSWORD: &str = "without any password configured";

const CODES: &[(&str, Refusal)] = &[
    ("NOAUTH", Refusal::Login),
    ("WRONGPASS", Refusal::Login),
    ("NOPERM", Refusal::Right),
    ("NOPROTO", Refusal::Protocol),
    ("OOM", Refusal::Memory),
    ("READONLY", Refusal::Replica),
    ("MASTERDOWN", Refusal::Replica),
    ("MISCONF", Refusal::Disk),
    ("NOREPLICAS", Refusal::Replicas),
    ("WRONGTYPE", Refusal::WrongType),
    ("DENIED", Refusal::Protected),
    ("LOADING", Refusal::NotNow),
    ("BUSY", Refusal::NotNow),
    ("NOSCRIPT", Refusal::NoScript),
    ("MOVED", Refusal::Cluster),
    ("ASK", Refusal::Cluster),
    ("CROSSSLOT", Refusal::Cluster),
    ("CLUSTERDOWN", Refusal::Cluster),
    ("TRYAGAIN", Refusal::Cluster),
];

impl Refusal {
    /// Reads the text of an error reply, with or without its leading `-`.
    pub fn of(text: &str) -> Refusal {
        let small = text.to_ascii_lowercase();
        let sentence = || SENTENCES.iter().find(|(sentence, _)| small.contains(sentence)).map(|(_, refusal)| *refusal);
        known_code(text).map(|(_, refusal)| refusal).or_else(sentence).unwrap_or(Refusal::Other)
    }

    /// Whether Redis denies this user the login, the database or the right, so that retrying helps only after its
    /// rights or the settings have changed.
    pub fn is_denial(self) -> bool {
        matches!(self, Refusal::Login | Refusal::Right | Refusal::Database)
    }
}

/// Whether a password was sent to a server that has none. Redis has no code for that.
pub fn is_needless_password(text: &str) -> bool {
    text.contains(NEEDLESS_PASSWORD)
}

/// The name of the command that the server does not have, if the reply names it: `unknown command 'ZADD', with args …`.
pub fn unknown_command(text: &str) -> Option<&str> {
    const BEFORE: &str = "unknown command ";
    let at = text.to_ascii_lowercase().find(BEFORE)? + BEFORE.len();
    // Redis 6.2 puts the name in backquotes.
    let (quote, rest) = text[at..].split_at_checked(1).filter(|(quote, _)| ["'", "`"].contains(quote))?;
    let name = &rest[..rest.find(quote)?];
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())).then_some(name)
}

/// The address of the node that has the keys, of `MOVED <slot> <address>`; without a host it is a port of the same one.
pub fn moved_to(text: &str) -> Option<&str> {
    moved(text)?.nth(1).filter(|address| !address.is_empty())
}

/// The slot of `MOVED <slot> <address>`.
pub fn moved_slot(text: &str) -> Option<u16> {
    moved(text)?.next()?.parse().ok()
}

/// The words that follow `MOVED`.
fn moved(text: &str) -> Option<impl Iterator<Item = &str>> {
    let mut words = unwrapped(text).split(' ');
    (words.next() == Some("MOVED")).then_some(words)
}

/// The code of an error; `None` if there is no known code.
pub fn code(text: &str) -> Option<&'static str> {
    known_code(text).map(|(code, _)| code)
}

fn known_code(text: &str) -> Option<(&'static str, Refusal)> {
    let first = unwrapped(text).split(' ').next()?.trim_end_matches(':');
    CODES.iter().find(|(code, _)| *code == first).copied()
}

/// The error as the command that was refused would have got it: without the leading `-`, and without what `EXEC` or a
/// script puts before it.
fn unwrapped(text: &str) -> &str {
    const SCRIPT: &str = "ERR Error running script";
    const EXEC: &str = "EXECABORT Transaction discarded because of: ";
    let text = text.trim_start_matches('-');
    let mut rest = match text.strip_prefix(SCRIPT).and_then(|rest| rest.split_once(": ")) {
        Some((_call, rest)) => rest,
        None => text.strip_prefix(EXEC).unwrap_or(text),
    };
    // The place in the script, once or twice: `@user_script:1: ` or `@user_script: 1: `.
    while let Some((line, after)) = rest.strip_prefix("@user_script:").and_then(|rest| rest.split_once(": ")) {
        if !line.trim_start().bytes().all(|byte| byte.is_ascii_digit()) {
            break;
        }
        rest = after;
    }
    rest.trim_start_matches('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The replies of Redis 6.2, 7.0 and 8.2 and of Valkey 8.1 and 9.1.
    #[test]
    fn a_refusal_is_recognised_by_its_code_or_sentence() {
        const WRAPPED: &str = "ERR Error running script (call to f_4344): @user_script:1: @user_script: 1: ";
        let wrapped = |text: &str| format!("{WRAPPED}{text}");
        for (text, refusal) in [
            ("NOPERM this user has no permissions to run the 'multi' command or its subcommand", Refusal::Right),
            ("EXECABORT Transaction discarded because of: NOPERM User u has no permissions", Refusal::Right),
            ("ERR ACL failure in script: User OOM has no permissions to run the 'zadd' command", Refusal::Right),
            (&wrapped("The user executing the script can't run this command or subcommand"), Refusal::Right),
            (
                "The user executing the script can't publish to the channel mentioned in the command script: 9, on \
                 @user_script:7.",
                Refusal::Right,
            ),
            (&wrapped("-READONLY You can't write against a read only replica."), Refusal::Replica),
            ("READONLY You can't write against a read only replica. script: on @user_script:1.", Refusal::Replica),
            ("-READONLY You can't write against a read only replica.", Refusal::Replica),
            (&wrapped("-OOM command not allowed when used memory > 'maxmemory'."), Refusal::Memory),
            ("OOM command not allowed when used memory > 'maxmemory'. script: 43, on @user_script:1.", Refusal::Memory),
            (&wrapped("Unknown Redis command called from Lua script"), Refusal::UnknownCommand),
            ("ERR Unknown command called from script script: on @user_script:1.", Refusal::UnknownCommand),
            ("NOPERM User too long has no permissions to run the 'get' command", Refusal::Right),
            ("ERR unknown command 'ZADD', with args beginning with: '-READONLY' 'OOM' ", Refusal::UnknownCommand),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Refusal::WrongType),
            (&wrapped("WRONGTYPE Operation against a key holding the wrong kind of value"), Refusal::WrongType),
            ("MISCONF Redis is configured to save RDB snapshots, but", Refusal::Disk),
            ("ERR The stream has exhausted the last possible ID, unable to add more items", Refusal::StreamExhausted),
            ("ERR Protocol error: invalid bulk length", Refusal::TooLarge),
            ("ERR too many arguments", Refusal::TooLarge),
            ("ERR max request size exceeded", Refusal::TooLarge),
            ("ERR max single record size exceeded. Limit: 5 bytes, Actual: 6 bytes", Refusal::TooLarge),
            ("NOSCRIPT No matching script. Please use EVAL.", Refusal::NoScript),
            ("MOVED 3999 127.0.0.1:6381", Refusal::Cluster),
            ("CROSSSLOT Keys in request don't hash to the same slot", Refusal::Cluster),
            ("ERR Script attempted to access keys that do not hash to the same slot script: 9", Refusal::Cluster),
            ("NOPROTO unsupported protocol version", Refusal::Protocol),
            ("ERR DB index is out of range", Refusal::Database),
            ("ERR SELECT is not allowed in cluster mode", Refusal::Database),
            (
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
                Refusal::Login,
            ),
            ("ERR max number of clients reached", Refusal::Clients),
            ("DENIED Redis is running in protected mode because protected mode is enabled", Refusal::Protected),
            ("ERR the group OOM is unhappy", Refusal::Other),
            ("", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(text), refusal, "{text}");
        }
    }

    /// Errors that repeat arguments, of Redis and of servers and proxies like it, with `{}` for the arguments.
    const REPEATING: &[&str] = &[
        "ERR unknown command 'EVALSHA', with args beginning with: '{}' ",
        "ERR unknown command `EVALSHA`, with args beginning with: `{}`, ",
        "ERR Command is not available: '{}'. See the list of commands",
        "ERR command 'evalsha' is not supported: {}",
        "ERR value: {}",
        "{}",
        "'{}' is no command",
    ];

    #[test]
    fn what_a_user_has_published_is_never_read_as_the_servers_word() {
        for (code_word, _) in CODES {
            let messages = ["-{} 12182 6.6.6.6:6379", "x -{} 12182 6.6.6.6:6379 x", "x: {} 1 h:1", "{}", " {}: 1 h:1"];
            for message in messages.map(|form| form.replacen("{}", code_word, 1)) {
                for text in REPEATING.iter().map(|form| form.replacen("{}", &message, 1)) {
                    if text == message && !message.starts_with(['x', ' ']) {
                        continue;
                    }
                    assert_eq!((code(&text), moved_to(&text)), (None, None), "{text}");
                    assert!(matches!(Refusal::of(&text), Refusal::Other | Refusal::UnknownCommand), "{text}");
                }
            }
        }
        for (sentence, _) in SENTENCES {
            let text = REPEATING[0].replacen("{}", sentence, 1);
            assert_eq!(Refusal::of(&text), Refusal::UnknownCommand, "{text}");
        }
    }

    #[test]
    fn what_a_refusal_names_is_found() {
        assert_eq!(unknown_command("ERR unknown command 'ZADD', with args beginning with: 'k' "), Some("ZADD"));
        assert_eq!(unknown_command("ERR unknown command `hello`, with args beginning with: `3`, "), Some("hello"));
        assert_eq!(unknown_command("ERR Unknown command called from script script: on @user_script:1."), None);
        assert_eq!(unknown_command("ERR unknown command '"), None);
        assert_eq!(moved_to("MOVED 3999 127.0.0.1:6381"), Some("127.0.0.1:6381"));
        assert_eq!(moved_to("ERR Error running script: -MOVED 3999 :6381"), Some(":6381"));
        assert_eq!((moved_to("MOVED 3999"), moved_to("CROSSSLOT Keys")), (None, None));
        assert_eq!((code("CROSSSLOT Keys"), code("ERR what")), (Some("CROSSSLOT"), None));
    }
}
