//! The users of the tools: what each needs and what it may not do, compared in one way.

use std::collections::BTreeSet;
use std::process::Command;

use oncecast::lab::RedisServer;

use super::calls::Calls;
use super::needed::assert_called_what_it_may;
use super::users::{OPERATOR, User, url_of};
use crate::support::{client, programs};

/// A user of tools, or another one that may only do a little, and its server.
pub struct ToolsUser<'a> {
    pub name: &'static str,
    pub user: &'a User,
    pub server: &'a RedisServer,
}

impl ToolsUser<'_> {
    /// A command of `oncecast` as this user.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = programs().command("oncecast").expect("the program is built");
        command.args(arguments).args(["--redis-url", &url_of(self.server, self.name, self.user)]);
        command
    }

    /// Runs the tool, which may lack no right. Returns its exit code and what it printed.
    pub fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!log.contains("NOPERM") && !log.contains("where-unknown"), "{arguments:?}: {log}");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Fails unless the tools have called exactly what this user may call.
    pub fn assert_needed(&self, calls: Calls, admin: &mut redis::Connection) {
        calls.catch_up(admin);
        let mut by_user = calls.end(admin);
        // A tool that has ended before its user is looked up counts as the operator's, and no other runs here.
        let called = [self.name, OPERATOR].into_iter().filter_map(|user| by_user.remove(user)).flatten();
        self.assert_called(called.collect());
    }

    /// Fails unless these are the commands that this user may call.
    pub fn assert_called(&self, called: BTreeSet<String>) {
        let mut called: BTreeSet<String> = called.iter().map(|call| call.replace("xinfo", "xinfo|stream")).collect();
        // These are sent only if Redis has forgotten the script.
        called.extend(["eval", "eval_ro"].map(str::to_owned).into_iter().filter(|call| self.user.may.contains(call)));
        assert_called_what_it_may(self.name, self.user, Some(&called));
    }

    /// Fails if it may do any of this.
    pub fn assert_refused(&self, commands: &[&[&str]]) {
        let connection = &mut client(&url_of(self.server, self.name, self.user));
        for words in commands {
            let reply: redis::RedisResult<redis::Value> = redis::cmd(words[0]).arg(&words[1..]).query(connection);
            assert!(reply.is_err(), "{} may {words:?}: {reply:?}", self.name);
        }
    }
}
