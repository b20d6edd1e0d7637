//! Which user calls which command, scripts included, as MONITOR reports it.

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

/// A running MONITOR; ended on drop.
pub struct Calls {
    socket: TcpStream,
    caught_up: Receiver<()>,
    thread: Option<JoinHandle<BTreeMap<String, BTreeSet<String>>>>,
}

impl Calls {
    pub fn watch(server: &RedisServer) -> Calls {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("Redis takes connections");
        socket.write_all(b"MONITOR\r\n").expect("Redis reads");
        let mut lines = BufReader::new(socket.try_clone().expect("a second handle")).lines();
        assert_eq!(lines.next().expect("an answer").expect("text"), "+OK");
        let (note_caught_up, caught_up) = channel();
        let url = server.url();
        let thread = thread::spawn(move || {
            let mut admin = client(&url);
            let mut users: HashMap<String, String> = HashMap::new();
            let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
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
                // Only the operator's tools disconnect before their user can be looked up.
                let user = users.get(&caller).map_or(OPERATOR, String::as_str);
                calls.entry(user.to_owned()).or_default().insert(call);
            }
            calls
        });
        Calls { socket, caught_up, thread: Some(thread) }
    }

    /// Waits until all calls until now are read. To be called before a program ends: once its connections are closed,
    /// their user can't be looked up any more, and MONITOR may be far behind.
    pub fn catch_up(&self, admin: &mut redis::Connection) {
        let _: String = run(admin, &["ECHO", SO_FAR]);
        self.caught_up.recv_timeout(DEADLINE).expect("MONITOR is read");
    }

    /// All calls until now.
    pub fn end(mut self, admin: &mut redis::Connection) -> BTreeMap<String, BTreeSet<String>> {
        // MONITOR may be behind: it is read up to this call.
        let _: String = run(admin, &["ECHO", LAST]);
        self.thread.take().expect("it ends once").join().expect("each line is understood")
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
            "acl" | "client" | "config" | "pubsub" | "script" => format!("{command}|{}", words.next()?),
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
