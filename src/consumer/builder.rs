//! The settings of a consumer. Binding turns them into a consumer that listens. Runs on the caller's thread; no other
//! thread exists yet.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::error::{Error, Result, SettingName};
use super::handler::Handler;
use super::service::{Consumer, Settings};
use crate::base::mask::masked;
use crate::base::retry_policy::RetryPolicy;
use crate::base::shutdown::shutdown_channel;
use crate::ledger::{GROUP_FORM, Keys, Mistake, Server, cluster_form, may_name_group};
use crate::net::{ClientFiles, Identity, LinkSecret, Listener, PemFile, SECRET_TAKES, ServerFiles, ServerTls};
use crate::wire;

const URL_FORM: &str = "redis://[user:password@]host[:port][/db], rediss:// for TLS, redis+unix:///path, \
                        redis+sentinel://[user:password@]host[:port],…/NAME[/db], or \
                        redis+cluster://[user:password@]host[:port],…";
/// The most handler threads.
const MAX_CONCURRENCY: usize = 4_096;
/// How long a stopping consumer works on the messages that it holds. Together with the other steps of stopping, this is
/// less than the 10 s that container runtimes allow.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);

/// The settings of a consumer, from [`Consumer::builder`]. Each has a default, except the handler, which must be given.
///
/// Values are checked by [`bind`](ConsumerBuilder::bind).
#[must_use = "a builder does nothing until bind is called"]
pub struct ConsumerBuilder {
    redis_url: String,
    redis_files: ClientFiles,
    redis: Option<Server>,
    tls: Option<Identity>,
    tls_client_ca: Option<PathBuf>,
    link_secret_file: Option<PathBuf>,
    group: String,
    listen: String,
    consumer_id: Option<String>,
    concurrency: Option<usize>,
    prefetch: Option<u32>,
    handler_timeout: Option<Duration>,
    retry: Option<String>,
    result_maxlen: Option<NonZeroU64>,
    drain_timeout: Duration,
    setting_name: SettingName,
    handler: Option<Arc<dyn Handler>>,
}

impl Consumer {
    /// A builder with default settings.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder {
            redis_url: "redis://127.0.0.1:6379".to_owned(),
            redis_files: ClientFiles::default(),
            redis: None,
            tls: None,
            tls_client_ca: None,
            link_secret_file: None,
            group: "messages".to_owned(),
            listen: "127.0.0.1:6969".to_owned(),
            consumer_id: None,
            concurrency: None,
            prefetch: None,
            handler_timeout: None,
            retry: None,
            result_maxlen: None,
            drain_timeout: DRAIN_TIMEOUT,
            setting_name: str::to_owned,
            handler: None,
        }
    }
}

impl ConsumerBuilder {
    /// Processes a message: a closure `|delivery: &Delivery<'_>| -> Result<Outcome, HandlerError>`, or any other
    /// [`Handler`]. Must be given.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// The Redis server, the same one that the dispatchers use: `redis://[user:password@]host[:port][/db]`, the same
    /// with `rediss://` for TLS (feature `tls`), or `redis+unix:///path`. Default: `redis://127.0.0.1:6379`.
    pub fn redis_url(mut self, url: impl Into<String>) -> Self {
        self.redis_url = url.into();
        self.redis = None;
        self
    }

    /// With `rediss://`: a PEM file with the certificates of the authorities that may have signed the server's.
    /// Default: the authorities that the system trusts. Read again when it has changed, for new connections.
    pub fn redis_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.redis_files.roots = Some(file.into());
        self.redis = None;
        self
    }

    /// With `rediss://`, if the server requires it: PEM files with a certificate, followed by those between it and its
    /// authority, and with its key. Default: none. Read again when they have changed, for new connections.
    pub fn redis_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.redis_files.identity = Some(Identity { certificate: certificate.into(), key: key.into() });
        self.redis = None;
        self
    }

    /// The Redis server, for callers that have already parsed its URL.
    #[doc(hidden)]
    pub fn redis_server(mut self, server: Server) -> Self {
        self.redis = Some(server);
        self
    }

    /// The consumer group, the same as the dispatchers': 1 to 256 bytes without spaces. Default: `messages`.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// Where dispatchers connect, as `host:port`; port 0 selects any free port. Default: `127.0.0.1:6969`.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// Makes dispatchers connect with TLS (feature `tls`), at `wss://host:port`: PEM files with this consumer's
    /// certificate, followed by those between it and its authority, and with its key. Default: no TLS. Read again when
    /// they have changed, for new connections.
    pub fn tls_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls = Some(Identity { certificate: certificate.into(), key: key.into() });
        self
    }

    /// With [`tls_certificate`](ConsumerBuilder::tls_certificate): a PEM file with the certificates of authorities.
    /// Dispatchers then need a certificate that one of these has signed. Default: they need none.
    pub fn tls_client_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls_client_ca = Some(file.into());
        self
    }

    /// A file with the secret of this group's links: one line of 16 to 1024 bytes, or two while it is being replaced,
    /// and not readable by every user. Dispatchers must then prove that they know one of the lines, and get the same
    /// proof of this consumer. Default: none, so whoever reaches the address may claim to be the dispatcher. Read again
    /// when it has changed, for new connections.
    pub fn link_secret_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.link_secret_file = Some(file.into());
        self
    }

    /// The name by which dispatchers know this consumer: 1 to 256 bytes without spaces. Default: the listen address.
    pub fn consumer_id(mut self, id: impl Into<String>) -> Self {
        self.consumer_id = Some(id.into());
        self
    }

    /// How many handlers run at the same time, each on a thread of its own: 1 to 4096. Default: the number of cores.
    pub fn concurrency(mut self, threads: usize) -> Self {
        self.concurrency = Some(threads);
        self
    }

    /// The most messages held at a time, including those that wait for a handler or for Redis: 1 to 65536. Default:
    /// twice the concurrency, which suits slow handlers. Fast handlers need more.
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.prefetch = Some(messages);
        self
    }

    /// A handler that runs longer is given up, and its message goes to another consumer. Its thread stays occupied
    /// until it returns. Default: no limit.
    pub fn handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handler_timeout = timeout.into();
        self
    }

    /// How long a message that failed waits for its next delivery, unless the handler chose a delay itself
    /// ([`HandlerError::retry_after`](crate::HandlerError::retry_after)): `exponential:200ms..5m*4`, `fixed:5s` or
    /// `none`. Default: what the dispatchers' setting `--retry` says. It also decides for handlers that panic, but not
    /// for messages that this consumer loses or gives up.
    pub fn retry(mut self, policy: impl Into<String>) -> Self {
        self.retry = Some(policy.into());
        self
    }

    /// Trims the result stream to about this many entries. The default, 0, keeps all of them.
    pub fn result_maxlen(mut self, entries: u64) -> Self {
        self.result_maxlen = NonZeroU64::new(entries);
        self
    }

    /// How long a stopping consumer works on the messages that it holds. Default: 7 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// What a running consumer calls a setting in its log and its stats, for a program whose user sets flags. Default:
    /// the builder's method.
    #[doc(hidden)]
    pub fn setting_name(mut self, name: SettingName) -> Self {
        self.setting_name = name;
        self
    }

    /// Checks the settings and starts to listen. Redis need not be reachable.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a setting that is missing or can't be used, [`Error::Listen`] if the address can't be
    /// listened on: most often its port is in use.
    pub fn bind(self) -> Result<Consumer> {
        let redis = match self.redis {
            Some(server) => server,
            None => Server::with_files(&self.redis_url, self.redis_files).map_err(|mistake| match mistake {
                Mistake::Url(problem) => {
                    Error::setting("redis_url", format_args!("a URL that can't be used ({problem})"), URL_FORM)
                }
                Mistake::File(problem) if problem.file == PemFile::Roots => {
                    Error::setting("redis_ca", &problem, problem.file.takes())
                }
                Mistake::File(problem) => Error::setting("redis_certificate", &problem, problem.file.takes()),
            })?,
        };
        let tls = server_tls(self.tls, self.tls_client_ca)?;
        let secret = self.link_secret_file.as_deref().map(LinkSecret::load).transpose();
        let secret = secret.map_err(|problem| Error::setting("link_secret_file", problem, SECRET_TAKES))?;
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let concurrency = self.concurrency.unwrap_or_else(cores);
        check_number("concurrency", concurrency, MAX_CONCURRENCY)?;
        let prefetch = self.prefetch.unwrap_or(2 * concurrency as u32);
        check_number("prefetch", prefetch as usize, wire::MAX_IDS)?;
        let retry = self.retry.map(|text| policy(&text)).transpose()?;
        if !may_name_group(&self.group) {
            return Err(Error::setting("group", format_args!("{:?}", self.group), GROUP_FORM));
        }
        let keys = Keys::in_database(&self.group, redis.database());
        if redis.is_cluster() && keys.mistake_in_cluster().is_some() {
            return Err(Error::setting("group", format_args!("{:?}", self.group), cluster_form(&self.group)));
        }
        let Some(handler) = self.handler else {
            return Err(Error::Setting { setting: "handler", got: None, takes: "a handler".to_owned() });
        };

        let listening = |cause| Error::Listen { address: masked(&self.listen).into_owned(), cause };
        let listener = Listener::bind(&self.listen).map_err(listening)?;
        let local_addr = listener.address().map_err(listening)?;
        let any_port = self.listen.ends_with(":0");
        let consumer_id =
            self.consumer_id.unwrap_or_else(|| if any_port { local_addr.to_string() } else { self.listen });
        check_name("consumer_id", &consumer_id)?;
        let settings = Settings {
            keys,
            redis,
            consumer_id,
            concurrency,
            prefetch,
            handler_timeout: self.handler_timeout,
            retry,
            result_maxlen: self.result_maxlen,
            drain_timeout: self.drain_timeout,
            setting_name: self.setting_name,
            tls,
            secret,
        };
        Ok(Consumer { settings, handler, listener, local_addr, stats: Arc::default(), shutdown: shutdown_channel() })
    }
}

/// Shows no password, and nothing of the handler, which need not implement `Debug`.
impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parsed = || Server::with_files(&self.redis_url, self.redis_files.clone());
        let redis = self.redis.clone().or_else(|| parsed().ok());
        f.debug_struct("ConsumerBuilder")
            .field("redis", &redis.as_ref().map_or_else(|| "a URL that can't be used".to_owned(), Server::shown))
            .field("group", &self.group)
            .field("listen", &masked(&self.listen))
            .field("consumer_id", &self.consumer_id)
            .field("concurrency", &self.concurrency)
            .field("prefetch", &self.prefetch)
            .field("handler_timeout", &self.handler_timeout)
            .field("retry", &self.retry)
            .field("result_maxlen", &self.result_maxlen)
            .field("drain_timeout", &self.drain_timeout)
            .finish_non_exhaustive()
    }
}

fn server_tls(identity: Option<Identity>, client_roots: Option<PathBuf>) -> Result<Option<ServerTls>> {
    let Some(identity) = identity else {
        return match client_roots {
            Some(_) => Err(Error::setting("tls_client_ca", "a file", "a file only with a certificate of our own")),
            None => Ok(None),
        };
    };
    let loaded = ServerTls::load(ServerFiles { identity, client_roots });
    loaded.map(Some).map_err(|problem| {
        let setting = if problem.file == PemFile::Roots { "tls_client_ca" } else { "tls_certificate" };
        Error::setting(setting, &problem, problem.file.takes())
    })
}

fn policy(text: &str) -> Result<RetryPolicy> {
    text.parse().map_err(|takes| Error::setting("retry", format_args!("{text:?}"), takes))
}

fn check_number(setting: &'static str, got: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&got) {
        return Ok(());
    }
    Err(Error::setting(setting, got, format_args!("a whole number from 1 to {most}")))
}

fn check_name(setting: &'static str, got: &str) -> Result<()> {
    let plain = !got.chars().any(|c| c.is_whitespace() || c.is_control());
    if plain && (1..=256).contains(&got.len()) {
        return Ok(());
    }
    Err(Error::setting(setting, format_args!("{got:?}"), "1 to 256 bytes without spaces"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::handler::{Delivery, Outcome};

    fn builder() -> ConsumerBuilder {
        Consumer::builder().listen("127.0.0.1:0").handler(|_: &Delivery<'_>| Ok(Outcome::new()))
    }

    fn error(builder: ConsumerBuilder) -> String {
        builder.bind().expect_err("a setting is bad").to_string()
    }

    #[test]
    fn bad_settings_are_named_as_the_builder_names_them() {
        let without_handler = Consumer::builder().listen("127.0.0.1:0");
        assert_eq!(error(without_handler), "handler: is required, takes a handler");
        assert_eq!(error(builder().concurrency(0)), "concurrency: got 0, takes a whole number from 1 to 4096");
        for (builder, begin) in [
            (builder().prefetch(0), "prefetch: got 0, takes "),
            (builder().retry("5s"), "retry: got \"5s\", takes exponential:FIRST..MOST*FACTOR"),
            (builder().group("a b"), "group: got \"a b\", takes "),
            (builder().group("a@3"), "group: got \"a@3\", takes "),
            (builder().group("{a/3}"), "group: got \"{a/3}\", takes "),
            (builder().consumer_id("a b"), "consumer_id: got \"a b\", takes "),
            (builder().redis_url("http://x:y@z"), "redis_url: got a URL that can't be used ("),
        ] {
            let text = error(builder);
            assert!(text.starts_with(begin) && !text.contains("--") && !text.contains("ONCECAST_"), "{text}");
        }
    }

    #[test]
    fn defaults_suit_slow_handlers_and_the_id_is_the_address() {
        let consumer = builder().concurrency(3).bind().expect("a free port");
        assert_eq!(consumer.settings.prefetch, 6);
        assert_eq!(consumer.consumer_id(), consumer.local_addr().to_string());
        assert_ne!(consumer.local_addr().port(), 0);
    }

    /// Compiles if all types that the documentation shows implement `Debug`.
    #[test]
    fn every_public_type_implements_debug() {
        fn is_debug<T: fmt::Debug>() {}
        is_debug::<(Consumer, ConsumerBuilder, crate::ConsumerStats, Error, crate::ShutdownHandle)>();
        is_debug::<(Delivery<'_>, Outcome, crate::HandlerError, crate::MessageId)>();
    }

    #[test]
    fn debug_shows_the_settings_and_no_password() {
        let builder = builder().redis_url("redis://user:secret@127.0.0.1:1/2").group("orders").concurrency(3);
        let shown = format!("{builder:?}");
        assert!(shown.contains("\"127.0.0.1:1\"") && shown.contains("orders"), "{shown}");
        let consumer = builder.bind().expect("a free port");
        let running = format!("{consumer:?}");
        assert!(running.contains("\"127.0.0.1:1\"") && running.contains("concurrency: 3"), "{running}");
        assert!(running.contains(&consumer.local_addr().to_string()), "{running}");
        let unusable = format!("{:?}", Consumer::builder().redis_url("user:secret@127.0.0.1"));
        assert!(!format!("{shown}{running}{unusable}").contains("secret"), "{shown} {running} {unusable}");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = builder().bind().expect("a free port");
        let address = first.local_addr().to_string();
        let error = builder().listen(&address).bind().expect_err("in use");
        assert!(error.to_string().starts_with(&format!("listening on {address}: ")), "{error}");
    }
}
