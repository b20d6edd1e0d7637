//! Settings that several programs have: the Redis server and the group.

use std::path::Path;

use log::LevelFilter;

use crate::base::hint::ChosenBy;
use crate::base::secret_file::exposed;
use crate::base::setting::ConfigError;
use crate::base::tls::TlsSettings;
use crate::ledger::{GROUP_FORM, Keys, LaneNumber, Mistake, Server, cluster_form, cluster_stream_form, may_name_group};
use crate::net::{ClientFiles, ClientTls, Identity, LinkSecret, PemFile, SECRET_TAKES};
use crate::process::config::Default::{Found, Text};
use crate::process::config::{Setting, Values, quoted};
use crate::process::log::hold_back;
use crate::process::log::settings::log_level;
use crate::process::metrics::settings::{METRICS_ADDR, MetricsPlace, metrics_place};
use crate::process::scheduling::Scheduling;

const URL_FORM: &str = "redis://[user:password@]host[:port][/db], rediss:// for TLS, redis+unix:///path, \
                        redis+sentinel://[user:password@]host[:port],…/NAME[/db], or \
                        redis+cluster://[user:password@]host[:port],…";

/// The Redis server.
pub const REDIS_URL: Setting = Setting::new(
    "redis-url",
    "URL",
    Text("redis://127.0.0.1:6379"),
    "The Redis server: redis://[user:password@]host[:port][/db], the same with rediss:// for TLS, \
     redis+unix:///path, redis+sentinel://[user:password@]host[:port],…/NAME[/db] for the primary that Sentinels \
     call NAME, or redis+cluster://[user:password@]host[:port],… for a Redis Cluster of which some nodes are named",
)
.secret();
/// Who may have signed the server's certificate.
pub const REDIS_CA: Setting = Setting::new(
    "redis-ca",
    "FILE",
    Found("the system's authorities"),
    "With rediss://: the certificates of the authorities that may have signed the server's, in PEM",
);
/// The program's own certificate.
pub const REDIS_CERT: Setting = Setting::new(
    "redis-cert",
    "FILE",
    Found("none"),
    "With rediss://: this program's certificate, in PEM, if the server requires one; with --redis-key",
);
/// Its key.
pub const REDIS_KEY: Setting =
    Setting::new("redis-key", "FILE", Found("none"), "The key of the certificate of --redis-cert, in PEM");
/// The consumer group.
pub const GROUP: Setting = Setting::new(
    "group",
    "NAME",
    Text("messages"),
    "The consumer group; every key in Redis starts with it, except a stream named by --stream. Put braces around it \
     for Redis Cluster",
);

/// Who may have signed the certificates of consumers.
pub const TLS_CA: Setting = Setting::new(
    "tls-ca",
    "FILE",
    Found("the system's authorities"),
    "For addresses that begin with wss://: the certificates of the authorities that may have signed the consumers', \
     in PEM",
);
/// A certificate of a link's end.
pub const TLS_CERT: Setting = Setting::new(
    "tls-cert",
    "FILE",
    Found("none"),
    "This program's certificate for the links between dispatchers and consumers, in PEM; with --tls-key",
);
/// Its key.
pub const TLS_KEY: Setting =
    Setting::new("tls-key", "FILE", Found("none"), "The key of the certificate of --tls-cert, in PEM");

/// Which lane a tool is for.
pub const LANE: Setting = Setting::new(
    "lane",
    "N",
    Found("all"),
    "Only this lane of a group that has several, as with sharded channels in a Redis Cluster",
);

/// The secret by which dispatchers and consumers know each other.
pub const LINK_SECRET_FILE: Setting = Setting::new(
    "link-secret-file",
    "FILE",
    Found("none"),
    "A file with the secret by which the group's dispatchers and consumers know each other: one line of 16 to 1024 \
     bytes, or two while it is being replaced, not readable by every user. Both sides need it. It is read again when \
     it changes",
);

/// The settings that every program has.
#[derive(Clone, Debug)]
pub struct CommonConfig {
    /// The Redis server.
    pub redis: Server,
    /// The keys of the group.
    pub keys: Keys,
    /// The lane that is asked for, of those that a group in a Redis Cluster may have.
    pub lane: Option<LaneNumber>,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Where metrics are served, if anywhere, and to whom.
    pub metrics: Option<MetricsPlace>,
    /// How its threads are scheduled.
    pub scheduling: Scheduling,
}

impl CommonConfig {
    /// The same for a program whose user `oncecast doctor` does not examine: errors don't advise to ask it.
    pub fn unexamined(self) -> CommonConfig {
        CommonConfig { redis: self.redis.unexamined(), ..self }
    }

    /// The same for a group that delivers to this stream, which is named by the setting `name`.
    pub fn with_stream(mut self, name: &'static str, stream: &str) -> Result<CommonConfig, ConfigError> {
        self.keys = self.keys.with_stream(stream);
        if self.redis.is_cluster() && self.keys.mistake_in_cluster().is_some() {
            return Err(ConfigError::new(name, quoted(stream), cluster_stream_form(&self.keys.group)));
        }
        Ok(self)
    }
}

/// What the URL is called in errors.
const URL_NAME: &str = "--redis-url / ONCECAST_REDIS_URL";

/// What the files are called in errors.
const TLS_NAMES: TlsSettings = TlsSettings { authorities: "--redis-ca", certificate: "--redis-cert" };

impl CommonConfig {
    /// Whether it names files that are renewed while a program runs: then SIGHUP, which may tell of that, does not end
    /// the program.
    pub fn has_renewed_files(&self) -> bool {
        self.redis.is_secure() || self.metrics.as_ref().is_some_and(|place| place.token_file.is_some())
    }

    /// Reads the common settings that this program has: not every program serves metrics.
    pub fn read(values: &Values<'_>) -> Result<CommonConfig, ConfigError> {
        let url = values.required("redis-url", URL_FORM)?;
        let redis = Server::with_files(&url, tls_files(values)?).map_err(|mistake| match mistake {
            // The value is not repeated: it may hold a password.
            Mistake::Url(problem) => {
                ConfigError::new("redis-url", format_args!("a URL that can't be used ({problem})"), URL_FORM)
            }
            Mistake::File(problem) => {
                let setting = match problem.file {
                    PemFile::Roots => REDIS_CA.name,
                    PemFile::Certificate => REDIS_CERT.name,
                    PemFile::Key => REDIS_KEY.name,
                };
                ConfigError::new(setting, &problem, problem.file.takes())
            }
        })?;
        let chosen = if values.is_given("redis-url") { ChosenBy::Setting } else { ChosenBy::Default };
        let redis = redis.chosen(chosen(URL_NAME)).tls_settings(TLS_NAMES);
        let group = values.required("group", "a name")?;
        if !may_name_group(&group) {
            return Err(ConfigError::new("group", quoted(&group), GROUP_FORM));
        }
        let metrics = if values.has(&METRICS_ADDR) { metrics_place(values)? } else { None };
        let keys = Keys::in_database(&group, redis.database());
        if redis.is_cluster() && keys.mistake_in_cluster().is_some() {
            return Err(ConfigError::new("group", quoted(&group), cluster_form(&group)));
        }
        let lane =
            if values.has(&LANE) { values.optional_number("lane", 0, u64::from(LaneNumber::MAX))? } else { None };
        let lane = lane.and_then(|lane| LaneNumber::try_from(lane).ok());
        if let Some(number) = lane.filter(|number| keys.lane(*number).is_none()) {
            let takes = format_args!("0 for the group {}, which has no braces and so no other lane", quoted(&group));
            return Err(ConfigError::new("lane", number, takes));
        }
        let scheduling = Scheduling::read(values)?;
        Ok(CommonConfig { redis, keys, lane, log_level: log_level(values)?, metrics, scheduling })
    }
}

/// This machine's or container's name, as far as it may be part of a program's id; empty if it is unknown.
pub fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let mut host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '-').collect();
    host.truncate(40);
    host
}

/// What is needed for consumers with TLS. Without such a consumer, flags with files are a mistake: nothing would be
/// encrypted. Variables are not, since one file of variables may serve consumers, too.
pub fn link_tls(values: &Values<'_>, is_secure: bool) -> Result<Option<ClientTls>, ConfigError> {
    let identity = identity(values, [TLS_CERT.name, TLS_KEY.name])?;
    let files = ClientFiles { roots: values.path(TLS_CA.name)?, identity };
    if !is_secure {
        return match [TLS_CA.name, TLS_CERT.name].into_iter().find(|name| values.is_flag_given(name)) {
            Some(flag) => Err(ConfigError::new(
                flag,
                "a file, and no address has TLS",
                "a file if an address in --consumers begins with wss:// or is file:PATH",
            )),
            None => Ok(None),
        };
    }
    let loaded = ClientTls::load(files);
    loaded.map(Some).map_err(|problem| {
        let setting = match problem.file {
            PemFile::Roots => TLS_CA.name,
            PemFile::Certificate => TLS_CERT.name,
            PemFile::Key => TLS_KEY.name,
        };
        ConfigError::new(setting, &problem, problem.file.takes())
    })
}

/// The secret of the group's links, if there is one.
pub fn link_secret(file: Option<&Path>) -> Result<Option<LinkSecret>, ConfigError> {
    let secret = file.map(LinkSecret::load).transpose();
    secret.map_err(|problem| ConfigError::new(LINK_SECRET_FILE.name, problem, SECRET_TAKES))
}

/// A certificate and its key, of which both or none must be given. A key that every user can read is logged once
/// logging starts.
pub fn identity(values: &Values<'_>, [certificate, key]: [&'static str; 2]) -> Result<Option<Identity>, ConfigError> {
    let with = |other: &str| format!("a file, with --{other}");
    match (values.path(certificate)?, values.path(key)?) {
        (Some(certificate), Some(file)) => {
            exposed(format_args!("setting={key}"), &file).into_iter().for_each(hold_back);
            Ok(Some(Identity { certificate, key: file }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::missing(key, with(certificate))),
        (None, Some(_)) => Err(ConfigError::missing(certificate, with(key))),
    }
}

/// The files for TLS to Redis.
fn tls_files(values: &Values<'_>) -> Result<ClientFiles, ConfigError> {
    if !values.has(&REDIS_CA) {
        return Ok(ClientFiles::default());
    }
    let identity = identity(values, [REDIS_CERT.name, REDIS_KEY.name])?;
    Ok(ClientFiles { roots: values.path(REDIS_CA.name)?, identity })
}
