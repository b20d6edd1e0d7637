//! The program `oncecast-consumer`: a consumer with one of the built-in handlers, together with settings, log,
//! signals, metrics and systemd.

pub mod exec;
mod exposition;
mod fields;
mod forward;
pub mod http;
pub mod settings;
mod stamp;
mod trace;

use std::time::Duration;

use self::exec::Exec;
use self::http::HttpHandler;
use self::settings::{BuiltIn, ConsumerConfig};
use self::trace::Tracing;
use crate::base::error::{Error, Result};
use crate::base::setting::{ConfigError, variable_of};
use crate::consumer::observer::Observer;
use crate::consumer::{self, Consumer, ConsumerBuilder, ConsumerStats, Handler};
use crate::ledger::Server;
use crate::net::ServerTls;
use crate::process::log;
use crate::process::supervision::{Condition, Supervisor};

pub use self::forward::forward;
pub use self::stamp::{outcome_of, stamp};
pub use self::trace::TraceContext;

/// Runs a consumer with the built-in handler until a signal asks it to stop. Returns the exit code.
pub fn run(mut config: ConsumerConfig) -> Result<u8> {
    config.common.scheduling.apply();
    let supervisor = Supervisor::from_environment();
    let tracing = Tracing(config.trace);
    match config.handler.clone() {
        BuiltIn::Stamp => serve(config, tracing.recorded(stamp), supervisor),
        BuiltIn::Forward => serve(config, tracing.recorded(forward), supervisor),
        BuiltIn::Exec(command) => {
            // The handler ends what takes longer, so its threads are always free again.
            let limit = config.handler_timeout.take();
            let handler = Exec::new(command, &config.common.keys.group, limit, tracing);
            serve_then(config, handler.clone(), supervisor, || handler.stop())
        }
        BuiltIn::Http(target) => {
            // The handler keeps this limit itself, so its threads are always free again.
            let limit = config.handler_timeout.take().unwrap_or(http::DEFAULT_LIMIT);
            let (group, concurrency) = (config.common.keys.group.as_str(), config.concurrency);
            let handler = HttpHandler::start(target, group, concurrency, limit, tracing)
                .map_err(Error::io("starting the thread that looks for the HTTP server"))?;
            serve(config, handler, supervisor)
        }
    }
    .map(|()| 0)
}

/// Runs a consumer with the log, the signals, the metrics and the supervision of a program.
pub fn serve(config: ConsumerConfig, handler: impl Handler, supervisor: Supervisor) -> Result<()> {
    serve_then(config, handler, supervisor, || {})
}

/// The same, with something to do once the consumer has stopped, while there still is a log.
fn serve_then(
    config: ConsumerConfig,
    handler: impl Handler,
    supervisor: Supervisor,
    at_end: impl FnOnce(),
) -> Result<()> {
    let (log_level, metrics) = (config.common.log_level, config.common.metrics.clone());
    let renewed = config.tls.is_some() || config.link_secret_file.is_some() || config.common.has_renewed_files();
    let redis = config.common.redis.clone();
    let consumer =
        ConsumerBuilder::from(config).setting_name(flag_and_variable).handler(handler).bind().map_err(as_flags)?;
    let _log = log::init(log_level, consumer.consumer_id(), "consumer")?;
    consumer.shutdown_handle().on_signals_with_certificates(renewed)?;
    let _metrics = metrics
        .map(|place| exposition::serve(&place, &consumer.stats(), certificates(&consumer, &redis)))
        .transpose()?;
    let outcome = consumer.run_with(&mut Supervised(supervisor));
    at_end();
    outcome.map_err(as_flags)
}

/// When the certificates in use end.
fn certificates(consumer: &Consumer, redis: &Server) -> impl Fn() -> Vec<(&'static str, Option<u64>)> + use<> {
    let (links, redis) = (consumer.tls(), redis.clone());
    move || {
        let links = links.as_ref().and_then(ServerTls::certificate_end);
        vec![("links", links), ("redis", redis.certificate_end())]
    }
}

/// Converts an error of the library: a setting is named by its flag and variable instead of the builder's method.
fn as_flags(error: consumer::Error) -> Error {
    match error {
        consumer::Error::Setting { setting, got, takes } => {
            let flag = flag_of(setting);
            got.map_or_else(|| ConfigError::missing(flag, &takes), |got| ConfigError::new(flag, got, &takes)).into()
        }
        consumer::Error::Listen { address, cause } => {
            Error::Io { what: format!("listening on {address} ({})", flag_and_variable("listen")), cause }
        }
        consumer::Error::Start { doing, cause } => {
            Error::Io { what: doing.replace("`concurrency`", &flag_and_variable("concurrency")), cause }
        }
        failed @ consumer::Error::Failed { .. } => Error::Failed(failed.to_string()),
    }
}

/// What a builder's method is called by the program's user.
fn flag_and_variable(setting: &str) -> String {
    let flag = flag_of(setting);
    format!("--{flag} / {}", variable_of(flag))
}

/// The flag of a builder's method.
fn flag_of(setting: &str) -> &'static str {
    match setting {
        "listen" => "listen",
        "handler_timeout" => "handler-timeout-ms",
        "redis_url" => "redis-url",
        "tls_certificate" => "tls-cert",
        "tls_client_ca" => "tls-client-ca",
        "link_secret_file" => "link-secret-file",
        "group" => "group",
        "consumer_id" => "consumer-id",
        "concurrency" => "concurrency",
        "prefetch" => "prefetch",
        "retry" => "retry",
        _ => "handler",
    }
}

/// Reports the consumer's condition to the supervisor.
struct Supervised(Supervisor);

impl Observer for Supervised {
    fn interval(&self) -> Duration {
        self.0.interval()
    }

    fn observe(&mut self, stats: &ConsumerStats) {
        self.0.report(&condition(stats));
    }

    fn stopping(&mut self) {
        self.0.stopping();
    }
}

/// The consumer's condition. Its handlers are not monitored, because they may run for any time.
fn condition(stats: &ConsumerStats) -> Condition {
    Condition {
        ready: stats.ready(),
        hung: stats.committer_hangs().then_some("committer"),
        waits: false,
        doing: match stats.ruling_epoch() {
            0 => "waits for a dispatcher".to_owned(),
            epoch => format!("serves the dispatcher of epoch {epoch}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::{Consumer, Delivery, Outcome};

    fn error(builder: ConsumerBuilder) -> Error {
        let handler = |_: &Delivery<'_>| Ok(Outcome::new());
        as_flags(builder.listen("127.0.0.1:0").handler(handler).bind().expect_err("a setting is bad"))
    }

    #[test]
    fn settings_are_named_as_flags_and_variables() {
        for (builder, begin) in [
            (Consumer::builder().concurrency(0), "--concurrency (ONCECAST_CONCURRENCY): got 0, takes a whole number"),
            (Consumer::builder().prefetch(0), "--prefetch (ONCECAST_PREFETCH): got 0, takes "),
            (Consumer::builder().group("a@3"), "--group (ONCECAST_GROUP): got \"a@3\", takes "),
            (Consumer::builder().group("{a/3}"), "--group (ONCECAST_GROUP): got \"{a/3}\", takes "),
            (Consumer::builder().consumer_id(""), "--consumer-id (ONCECAST_CONSUMER_ID): got \"\", takes "),
            (Consumer::builder().redis_url("x"), "--redis-url (ONCECAST_REDIS_URL): got a URL that can't be used"),
        ] {
            let error = error(builder);
            assert!(error.to_string().starts_with(begin), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        let no_handler = as_flags(Consumer::builder().bind().expect_err("it is missing"));
        assert_eq!(no_handler.to_string(), "--handler (ONCECAST_HANDLER): is required, takes a handler");
    }

    #[test]
    fn what_the_library_says_while_it_runs_names_flags_and_variables() {
        assert_eq!(flag_and_variable("handler_timeout"), "--handler-timeout-ms / ONCECAST_HANDLER_TIMEOUT_MS");
        for setting in ["handler_timeout", "concurrency", "redis_url", "link_secret_file"] {
            let flag = flag_of(setting);
            assert!(settings::SETTINGS.iter().any(|known| known.name == flag), "{setting}: there is no --{flag}");
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let handler = |_: &Delivery<'_>| Ok(Outcome::new());
        let first = Consumer::builder().listen("127.0.0.1:0").handler(handler).bind().expect("a free port");
        let address = first.local_addr().to_string();
        let second = Consumer::builder().listen(&address).handler(handler).bind();
        let error = as_flags(second.expect_err("it is in use"));
        let begin = format!("listening on {address} (--listen / ONCECAST_LISTEN): ");
        assert!(error.to_string().starts_with(&begin), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
