//! Which user calls which command, scripts included, as MONITOR reports it.
//!
//! For each MONITOR Redis writes every command as text, in its only thread: ten times the work of publishing a message
//! of 8 MiB. On a busy machine that takes longer than the 3 s after which dispatchers take a silent subscription for
//! broken, and subscribe anew: a gap. So such messages are published while nobody monitors ([`Calls::pause`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use oncecast::lab::RedisServer;

use super::users::OPERATOR;
use crate::support::{DEADLINE, client, run};

/// Ends the reading.
const LAST: &str = "the-last-call";
/// Tells how far it is.
const SO_FAR: &str = "calls-so-far";

/// The commands that each user has called.
type CallsByUser = BTreeMap<String, BTreeSet<String>>;

/// A running MONITOR; ended on drop.
pub struct Calls {
    url: String,
    port: u16,
    /// What was called before it was paused.
    earlier: CallsByUser,
    socket: TcpStream,
    caught_up: Receiver<()>,
    thread: Option<JoinHandle<CallsByUser>>,
}

impl Calls {
    pub fn watch(server: &RedisServer) -> Calls {
        Calls::watch_at(server.url(), server.port(), CallsByUser::new())
    }

    fn watch_at(url: String, port: u16, earlier: CallsByUser) -> Calls {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("Redis takes connections");
        socket.write_all(b"MONITOR\r\n").expect("Redis reads");
        let mut lines = BufReader::new(socket.try_clone().expect("a second handle")).lines();
        assert_eq!(lines.next().expect("an answer").expect("text"), "+OK");
        let (note_caught_up, caught_up) = channel();
        let admins_url = url.clone();
        let thread = thread::spawn(move || {
            let mut admin = client(&admins_url);
            let mut users: HashMap<String, String> = HashMap::new();
            let mut calls = CallsByUser::new();
            let mut caller = String::new();
            while let Some(Ok(line)) = lines.next()
                && !line.contains(LAST)
            {
                if line.contains(SO_FAR) {
                    note_caught_up.send(()).expect("it is waited for");
                    continue;
                }
                let (source, call) = source_and_call(&line);
                if call == "client|list" {
                    continue;
                }
                // The commands of a script directly follow the call of the script.
                if source != "lua" {
                    caller = source;
                    // A connection that greets is new. It may have the address of a closed one.
                    if call == "hello" {
                        users.remove(&caller);
                    }
                    // A connection belongs to the default user until it has logged in.
                    if users.get(&caller).is_none_or(|user| user == "default") {
                        users.extend(addresses_and_users(&mut admin));
                    }
                }
                // Only the operator's tools, and dispatchers that look at other nodes, disconnect before their user can
                // be looked up.
                let user_of =
                    |users: &HashMap<String, String>| users.get(&caller).map_or(OPERATOR, String::as_str).to_owned();
                let mut user = user_of(&users);
                // The address may be that of a closed connection of another user. If by now no connection has it, this
                // was the last call of the one that is known.
                if !calls.get(&user).is_some_and(|known| known.contains(&call)) {
                    let known = users.remove(&caller);
                    users.extend(addresses_and_users(&mut admin));
                    if let Some(known) = known {
                        users.entry(caller.clone()).or_insert(known);
                    }
                    user = user_of(&users);
                }
                calls.entry(user).or_default().insert(call);
            }
            calls
        });
        Calls { url, port, earlier, socket, caught_up, thread: Some(thread) }
    }

    /// Runs something while nobody monitors.
    pub fn pause(&mut self, admin: &mut redis::Connection, unseen: impl FnOnce(&mut redis::Connection)) {
        let earlier = self.end_now(admin);
        unseen(admin);
        *self = Calls::watch_at(self.url.clone(), self.port, earlier);
    }

    /// Waits until all calls until now are read. To be called before a program ends: once its connections are closed,
    /// their user can't be looked up any more, and MONITOR may be far behind.
    pub fn catch_up(&self, admin: &mut redis::Connection) {
        let _: String = run(admin, &["ECHO", SO_FAR]);
        self.caught_up.recv_timeout(DEADLINE).expect("MONITOR is read");
    }

    /// All calls until now, except while it was paused.
    pub fn end(mut self, admin: &mut redis::Connection) -> CallsByUser {
        self.end_now(admin)
    }

    fn end_now(&mut self, admin: &mut redis::Connection) -> CallsByUser {
        // MONITOR may be behind: it is read up to this call.
        let _: String = run(admin, &["ECHO", LAST]);
        let latest = self.thread.take().expect("it ends once").join().expect("each line is understood");
        // Otherwise Redis would go on writing commands for it.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let mut calls = std::mem::take(&mut self.earlier);
        latest.into_iter().for_each(|(user, latest)| calls.entry(user).or_default().extend(latest));
        calls
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // Redis may have stopped already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// The address and the command with its subcommand, from `+1790000000.123456 [0 127.0.0.1:5000] "zadd" "key" …`.
fn source_and_call(line: &str) -> (String, String) {
    let understood = || {
        let (_, rest) = line.split_once('[')?;
        let (source, words) = rest.split_once("] ")?;
        let source = source.split_once(' ')?.1.to_owned();
        let mut words = words.split(' ').map(|word| word.trim_matches('"').to_lowercase());
        let command = words.next()?;
        let call = match command.as_str() {
            "acl" | "client" | "cluster" | "config" | "pubsub" | "script" => format!("{command}|{}", words.next()?),
            _ => command,
        };
        Some((source, call))
    };
    understood().unwrap_or_else(|| panic!("MONITOR reports {line:?}"))
}

fn addresses_and_users(admin: &mut redis::Connection) -> Vec<(String, String)> {
    let list: String = run(admin, &["CLIENT", "LIST"]);
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned).expect("each line has it")
    };
    list.lines().map(|line| (field(line, "addr="), field(line, "user="))).collect()
}
