//! The settings of a consumer, and the step from them to one that listens.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::handler::Handler;
use super::{Consumer, Settings};
use crate::base::error::{Error, Result};
use crate::base::setting::ConfigError;
use crate::base::shutdown::shutdown_channel;
use crate::ledger::{GROUP_FORM, Keys, Server, is_group};
use crate::wire;

/// The most handler threads.
const MAX_CONCURRENCY: usize = 4_096;
/// How long a consumer that stops works on what it has in hand: with the rest of the stop, less than the 10 s that
/// containers are given.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);

/// The settings of a consumer; made by [`Consumer::builder`].
pub struct ConsumerBuilder {
    redis_url: String,
    redis: Option<Server>,
    group: String,
    listen: String,
    consumer_id: Option<String>,
    concurrency: Option<usize>,
    prefetch: Option<u32>,
    handler_timeout: Option<Duration>,
    result_maxlen: u64,
    drain_timeout: Duration,
    metrics_addr: Option<String>,
    service: bool,
    handler: Option<Arc<dyn Handler>>,
}

impl Default for ConsumerBuilder {
    fn default() -> ConsumerBuilder {
        ConsumerBuilder {
            redis_url: "redis://127.0.0.1:6379".to_owned(),
            redis: None,
            group: "messages".to_owned(),
            listen: "127.0.0.1:6969".to_owned(),
            consumer_id: None,
            concurrency: None,
            prefetch: None,
            handler_timeout: None,
            result_maxlen: 0,
            drain_timeout: DRAIN_TIMEOUT,
            metrics_addr: None,
            service: false,
            handler: None,
        }
    }
}

impl ConsumerBuilder {
    /// The Redis server: `redis://[user:password@]host[:port][/db]` or `redis+unix:///path`. Default:
    /// `redis://127.0.0.1:6379`.
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.redis_url = url.into();
        self.redis = None;
        self
    }

    /// The Redis server, where its URL has been read before.
    pub fn redis_server(mut self, server: Server) -> Self {
        self.redis = Some(server);
        self
    }

    /// The consumer group. Default: `messages`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// Where dispatchers connect, `host:port`; port 0 takes any free one. Default: `127.0.0.1:6969`.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// The name dispatchers know it by. Default: the listen address.
    pub fn consumer_id(mut self, id: impl Into<String>) -> Self {
        self.consumer_id = Some(id.into());
        self
    }

    /// Handlers that run at the same time. Default: the number of cores.
    pub fn concurrency(mut self, threads: usize) -> Self {
        self.concurrency = Some(threads);
        self
    }

    /// The most messages in hand. Default: twice the concurrency, which suits slow handlers; quick ones want more.
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.prefetch = Some(messages);
        self
    }

    /// A handler that runs longer is given up and its message goes to another consumer. Default: never.
    pub fn handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handler_timeout = timeout.into();
        self
    }

    /// Trims the result stream to about this many entries; 0, the default, keeps all.
    pub fn result_maxlen(mut self, entries: u64) -> Self {
        self.result_maxlen = entries;
        self
    }

    /// How long a consumer that stops works on what it has in hand. Default: 7 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Where to serve `/metrics`, `/healthz` and `/readyz`, as `host:port`. Default: nowhere.
    pub fn metrics_addr(mut self, address: impl Into<String>) -> Self {
        self.metrics_addr = Some(address.into());
        self
    }

    /// Whether this consumer is what systemd started this process for: then systemd is told when it is ready, how it is, and
    /// that it stops, and its watchdog is fed. Default: no, since that is up to the program around it. `oncecast-consumer`
    /// does.
    pub fn systemd_service(mut self, is_one: bool) -> Self {
        self.service = is_one;
        self
    }

    /// What is done with a message: a closure `|delivery: &Delivery| -> Result<Outcome, HandlerError>`, the built-in
    /// [`stamp`](super::stamp), or any other [`Handler`]. Must be given.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// Checks the settings and starts to listen. Redis need not be there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a setting that can't be used, [`Error::Io`] if the address can't be listened on: most often
    /// its port is in use.
    pub fn bind(self) -> Result<Consumer> {
        let redis = match self.redis {
            Some(server) => server,
            None => Server::parse(&self.redis_url).map_err(|problem| {
                let got = format!("a URL that can't be used ({problem})");
                ConfigError::new("redis-url", got, "redis://[user:password@]host[:port][/db] or redis+unix:///path")
            })?,
        };
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let concurrency = self.concurrency.unwrap_or_else(cores);
        limited("concurrency", concurrency, MAX_CONCURRENCY)?;
        let prefetch = self.prefetch.unwrap_or(2 * concurrency as u32);
        limited("prefetch", prefetch as usize, wire::MAX_IDS)?;
        if !is_group(&self.group) {
            return Err(ConfigError::new("group", format_args!("{:?}", self.group), GROUP_FORM).into());
        }
        let handler = self.handler.ok_or_else(|| ConfigError::missing("handler", "a handler"))?;

        let listening = || format!("listening on {} (--listen / ONCECAST_LISTEN)", self.listen);
        let listener = TcpListener::bind(&self.listen).map_err(Error::io(listening()))?;
        let local_addr = listener.local_addr().map_err(Error::io(listening()))?;
        let any_port = self.listen.ends_with(":0");
        let consumer_id =
            self.consumer_id.unwrap_or_else(|| if any_port { local_addr.to_string() } else { self.listen });
        named("consumer-id", &consumer_id)?;
        let settings = Settings {
            keys: Keys::in_database(&self.group, redis.database()),
            redis,
            consumer_id,
            concurrency,
            prefetch,
            handler_timeout: self.handler_timeout,
            result_maxlen: self.result_maxlen,
            drain_timeout: self.drain_timeout,
            metrics_addr: self.metrics_addr,
            service: self.service,
        };
        Ok(Consumer { settings, handler, listener, local_addr, stats: Arc::default(), shutdown: shutdown_channel() })
    }
}

fn limited(name: &'static str, got: usize, most: usize) -> Result<(), ConfigError> {
    if (1..=most).contains(&got) {
        return Ok(());
    }
    Err(ConfigError::new(name, got, format_args!("a whole number from 1 to {most}")))
}

fn named(name: &'static str, got: &str) -> Result<(), ConfigError> {
    let plain = !got.chars().any(|c| c.is_whitespace() || c.is_control());
    if plain && (1..=256).contains(&got.len()) {
        return Ok(());
    }
    Err(ConfigError::new(name, format_args!("{got:?}"), "1 to 256 bytes without spaces"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::{Delivery, Outcome};

    fn builder() -> ConsumerBuilder {
        Consumer::builder().listen("127.0.0.1:0").handler(|_: &Delivery<'_>| Ok(Outcome::new()))
    }

    fn error(builder: ConsumerBuilder) -> String {
        builder.bind().err().expect("a setting is bad").to_string()
    }

    #[test]
    fn bad_settings_are_named() {
        assert!(error(Consumer::builder()).contains("--handler"));
        assert!(error(builder().concurrency(0)).contains("--concurrency"));
        assert!(error(builder().prefetch(0)).contains("--prefetch"));
        assert!(error(builder().group("a b")).contains("--group"));
        assert!(error(builder().group("a@3")).contains("--group"));
        assert!(error(builder().redis_url("http://x")).contains("--redis-url"));
    }

    #[test]
    fn defaults_suit_slow_handlers_and_the_id_is_the_address() {
        let consumer = builder().concurrency(3).bind().expect("a free port");
        assert_eq!(consumer.settings.prefetch, 6);
        assert_eq!(consumer.consumer_id(), consumer.local_addr().to_string());
        assert_ne!(consumer.local_addr().port(), 0);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = builder().bind().expect("a free port");
        let address = first.local_addr().to_string();
        let error = builder().listen(&address).bind().err().expect("in use");
        let text = error.to_string();
        assert!(text.contains(&address) && text.contains("--listen") && text.contains("ONCECAST_LISTEN"), "{text}");
        assert_eq!(error.exit_code(), 1);
    }
}
