//! The settings of the consumer program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{ArgMatches, Command};

use super::exec::settings as exec;
use super::http::{self, Target};
use crate::base::retry_policy::RetryPolicy;
use crate::base::setting::ConfigError;
use crate::consumer::{Consumer, ConsumerBuilder};
use crate::net::Identity;
use crate::process::config::Default::{Found, Text};
use crate::process::config::{Environment, PLAIN_NAME, Setting, Values, check_host_port, is_plain_name, quoted};
use crate::process::log::settings::LOG_LEVEL;
use crate::process::metrics::settings::{METRICS_ADDR, METRICS_HOST, METRICS_TOKEN_FILE};
use crate::process::program::{self, CommandLine};
use crate::process::scheduling::SCHEDULING;
use crate::programs::common::{
    CommonConfig, GROUP, LINK_SECRET_FILE, REDIS_CA, REDIS_CERT, REDIS_KEY, REDIS_URL, TLS_CERT, TLS_KEY, host_name,
    identity,
};
use crate::wire;

/// A built-in handler, with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// Records the fields of a JSON object and a random one.
    Stamp,
    /// Records the message as it is.
    Forward,
    /// Sends the message to an HTTP server, and records the answer.
    Http(Target),
    /// Gives the message to a program.
    Exec(exec::ExecConfig),
}

/// The settings of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// The settings that every program has.
    pub common: CommonConfig,
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Its certificate, if dispatchers must connect with TLS.
    pub tls: Option<Identity>,
    /// The authorities of dispatchers' certificates, if they need one.
    pub tls_client_ca: Option<PathBuf>,
    /// The file with the secret of the group's links, if there is one.
    pub link_secret_file: Option<PathBuf>,
    /// Its name.
    pub consumer_id: String,
    /// The number of handlers that run at the same time.
    pub concurrency: usize,
    /// The most messages held at once.
    pub prefetch: u32,
    /// The built-in handler.
    pub handler: BuiltIn,
    /// After how long a handler is given up; `None`: never.
    pub handler_timeout: Option<Duration>,
    /// How long a message that failed waits; `None`: as the dispatcher says.
    pub retry: Option<RetryPolicy>,
    /// Whether handlers get the trace context of a payload.
    pub trace: bool,
    /// About how many results the result stream keeps; 0: all.
    pub result_maxlen: u64,
}

/// What is done with a message.
pub const HANDLER: Setting = Setting::new(
    "handler",
    "NAME",
    Text("stamp"),
    "What is recorded of a message: stamp (the fields of its JSON object, random_property and consumer_id), forward \
     (the message as it is: id, channel if the dispatcher sends it, payload), http (what the server of --url answers \
     to it) or exec (what the program after -- answers to it)",
);

/// Whether handlers get the trace context of a payload.
const TRACE: Setting = Setting::switch(
    "trace",
    "If a payload is a JSON object with a valid member traceparent (W3C Trace Context), give it to the handler: http \
     as a header, exec as a member or ONCECAST_TRACEPARENT, stamp and forward as a field; tracestate alike. Log lines \
     about failures have it",
);

/// All settings, in the order in which `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    Setting::new("listen", "HOST:PORT", Text("127.0.0.1:6969"), "Where dispatchers connect"),
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    GROUP,
    Setting::new(
        "consumer-id",
        "NAME",
        Found("the listen address"),
        "This consumer's name, recorded with each result. If it listens on all addresses, the default has the host's \
         name in their place",
    ),
    Setting::new("concurrency", "N", Found("number of cores"), "Handlers that run at the same time"),
    Setting::new(
        "prefetch",
        "N",
        Text("1024"),
        "Most messages held at once; use a small value for slow handlers, so that messages don't wait here while \
         other consumers are idle",
    ),
    TLS_CERT,
    TLS_KEY,
    Setting::new(
        "tls-client-ca",
        "FILE",
        Found("none"),
        "With --tls-cert: the certificates of authorities, in PEM; dispatchers then need a certificate that one of \
         these has signed",
    ),
    LINK_SECRET_FILE,
    HANDLER,
    http::settings::URL,
    exec::EXEC,
    exec::EXEC_PER_MESSAGE,
    Setting::new(
        "handler-timeout-ms",
        "MS",
        Text("0"),
        "A handler that runs longer is given up and its message goes to another consumer; 0: never. With --handler \
         http the time for a request and its answer, 30000 if it is 0; with exec, a program that takes longer is ended",
    ),
    Setting::new(
        "retry",
        "POLICY",
        Found("the dispatcher's"),
        "How long a message that failed here waits for its next delivery, unless its handler chose a delay: \
         exponential:FIRST..MOST*FACTOR, fixed:WAIT, or none",
    ),
    TRACE,
    Setting::new("result-maxlen", "N", Text("0"), "Trim the result stream to about this many entries; 0: keep all"),
    SCHEDULING,
    LOG_LEVEL,
    METRICS_ADDR,
    METRICS_HOST,
    METRICS_TOKEN_FILE,
];

/// The consumer's settings and one more, for a consumer with a different handler.
pub const fn consumer_and(one_more: Setting) -> [Setting; SETTINGS.len() + 1] {
    let mut settings = [one_more; SETTINGS.len() + 1];
    let mut number = 0;
    while number < SETTINGS.len() {
        settings[number] = SETTINGS[number];
        number += 1;
    }
    settings
}

/// The program's command line.
pub const COMMAND_LINE: CommandLine<ConsumerConfig> = CommandLine { command, read };

/// Its definition.
pub fn command() -> Command {
    let about = "\
Processes the messages that dispatchers deliver, and stores each result once, in the stream <group>:processed.

This program has built-in handlers. http sends each message to an HTTP server and records the answer. exec runs a
program in any language, which reads each message as a line of JSON and writes a line as its answer, or is started for
each message. stamp is for trials and tests, and forward makes the stream
a copy of the channels with one entry per message. In Rust, write a consumer with the library: a handler is a closure.";
    let after = r#"Examples:
  oncecast-consumer --redis-url redis://10.0.0.1:6379 --listen 10.0.0.11:6969 --consumer-id worker-1
  oncecast-consumer --handler http --url http://127.0.0.1:8080/job --concurrency 16
  oncecast-consumer --handler exec --handler-timeout-ms 60000 -- python3 worker.py
  oncecast-consumer --handler exec --exec-per-message -- php job.php

A server for --handler http gets the payload as the body, and Oncecast-Id, Oncecast-Delivery, Oncecast-Group,
Oncecast-Channel, Idempotency-Key and, in other lanes than lane 0, Oncecast-Lane as headers. 2xx: done, the members of a
JSON object are recorded. 408, 425, 429, 5xx: delivered again, after Retry-After if 429 or 503 have it. Other 4xx:
rejected. While nothing listens, nothing is delivered.

A program for --handler exec reads lines such as {"id":"0006123456789abc","delivery":1,"channel":"c","payload":"text"}
(payload_base64 if it is not UTF-8) and answers each with {"ok":{"field":"value"}}, {"ok":null}, {"retry":"why"},
{"retry":"why","after_ms":500} or {"reject":"why"}. With --exec-per-message: payload on standard input, ONCECAST_ID,
ONCECAST_DELIVERY, ONCECAST_CHANNEL, ONCECAST_GROUP and ONCECAST_LANE in the environment, result on standard output;
exit status 0 done, 75 retry, 65 reject. The rest is in docs/GUIDE.md.

Ends on SIGTERM or SIGINT: accepts no more messages, finishes those it holds for up to 7 s. The leader
redelivers the rest. A second signal ends it at once.
Exit codes: 0 clean, 1 failure while running, 2 wrong settings."#;
    exec::with_words(program::service("oncecast-consumer", about, after, SETTINGS))
}

/// Reads and checks the settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<ConsumerConfig, ConfigError> {
    let values = &Values::new(matches, SETTINGS, environment);
    read_values(values)
}

/// Reads and checks a consumer's settings among others.
pub fn read_values(values: &Values<'_>) -> Result<ConsumerConfig, ConfigError> {
    let listen = values.required("listen", "an address, host:port")?;
    // Port 0 selects any free port.
    let any_port = listen.strip_suffix(":0").map(|host| format!("{host}:1"));
    check_host_port("listen", any_port.as_deref().unwrap_or(&listen), "an address, host:port")?;
    let cores = || thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Ok(ConsumerConfig {
        common: CommonConfig::read(values)?,
        consumer_id: match values.text("consumer-id")? {
            Some(id) if is_plain_name(&id) => id,
            Some(id) => return Err(ConfigError::new("consumer-id", quoted(&id), PLAIN_NAME)),
            None => default_id(&listen),
        },
        listen,
        tls: identity(values, [TLS_CERT.name, TLS_KEY.name])?,
        tls_client_ca: values.path("tls-client-ca")?,
        link_secret_file: values.path(LINK_SECRET_FILE.name)?,
        concurrency: values.optional_number("concurrency", 1, 4_096)?.unwrap_or_else(cores) as usize,
        prefetch: values.number("prefetch", 1, wire::MAX_IDS as u64)? as u32,
        handler: handler(values)?,
        handler_timeout: Some(values.millis("handler-timeout-ms", 0, 86_400_000)?).filter(|limit| !limit.is_zero()),
        retry: retry_policy(values)?,
        trace: values.is_on(TRACE.name)?,
        result_maxlen: values.number("result-maxlen", 0, u64::MAX >> 11)?,
    })
}

impl From<ConsumerConfig> for ConsumerBuilder {
    fn from(config: ConsumerConfig) -> ConsumerBuilder {
        let builder = Consumer::builder()
            .redis_server(config.common.redis)
            .group(config.common.keys.group)
            .concurrency(config.concurrency)
            .prefetch(config.prefetch)
            .handler_timeout(config.handler_timeout)
            .result_maxlen(config.result_maxlen)
            .listen(&config.listen);
        let builder = match config.tls {
            Some(own) => builder.tls_certificate(own.certificate, own.key),
            None => builder,
        };
        let builder = match config.tls_client_ca {
            Some(file) => builder.tls_client_ca(file),
            None => builder,
        };
        let builder = match config.link_secret_file {
            Some(file) => builder.link_secret_file(file),
            None => builder,
        };
        let builder = match config.retry {
            Some(policy) => builder.retry(policy.to_string()),
            None => builder,
        };
        // The default id is the listen address; with port 0 that is known only once it listens.
        if config.consumer_id == config.listen { builder } else { builder.consumer_id(config.consumer_id) }
    }
}

fn retry_policy(values: &Values<'_>) -> Result<Option<RetryPolicy>, ConfigError> {
    let policy = |text: String| text.parse().map_err(|takes| ConfigError::new("retry", quoted(&text), takes));
    values.text("retry")?.map(policy).transpose()
}

/// The listen address; with the host's name in place of 0.0.0.0 or [::], which containers have in common.
fn default_id(listen: &str) -> String {
    let all = listen.parse::<SocketAddr>().is_ok_and(|listen| listen.ip().is_unspecified() && listen.port() != 0);
    let host = if all { host_name() } else { String::new() };
    match listen.rsplit_once(':') {
        Some((_, port)) if !host.is_empty() => format!("{host}:{port}"),
        _ => listen.to_owned(),
    }
}

/// The handler that was chosen, with its settings.
fn handler(values: &Values<'_>) -> Result<BuiltIn, ConfigError> {
    const NAMES: &str = "stamp, forward, http or exec";
    let name = values.required("handler", NAMES)?;
    if name != "exec" {
        exec::check_unused(values)?;
    }
    if name != "http" {
        http::settings::check_unused(values)?;
    }
    match name.as_str() {
        "stamp" => Ok(BuiltIn::Stamp),
        "forward" => Ok(BuiltIn::Forward),
        "http" => http::settings::read(values).map(BuiltIn::Http),
        "exec" => exec::read(values).map(BuiltIn::Exec),
        _ => Err(ConfigError::new("handler", quoted(&name), NAMES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_that_listen_on_all_addresses_have_different_names() {
        let host = host_name();
        assert_eq!(default_id("0.0.0.0:6969"), format!("{host}:6969"));
        assert_eq!(default_id("[::]:6969"), format!("{host}:6969"));
        for listen in ["10.0.0.1:6969", "0.0.0.0:0", "consumer:6969"] {
            assert_eq!(default_id(listen), listen);
        }
    }
}
