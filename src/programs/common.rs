//! Settings that several programs have: the Redis server and the group.

use log::LevelFilter;

use crate::base::hint::ChosenBy;
use crate::base::setting::ConfigError;
use crate::ledger::{GROUP_FORM, Keys, Server, is_group};
use crate::process::config::Default::Text;
use crate::process::config::{Setting, Values, quoted};
use crate::process::log::settings::log_level;
use crate::process::metrics::settings::{METRICS_ADDR, metrics_addr};

const URL_FORM: &str = "redis://[user:password@]host[:port][/db] or redis+unix:///path";

/// The Redis server.
pub const REDIS_URL: Setting = Setting::new(
    "redis-url",
    "URL",
    Text("redis://127.0.0.1:6379"),
    "The Redis server: redis://[user:password@]host[:port][/db] or redis+unix:///path",
)
.secret();
/// The consumer group.
pub const GROUP: Setting = Setting::new(
    "group",
    "NAME",
    Text("messages"),
    "The consumer group; every key in Redis starts with it, except a stream named by --stream. Put braces around it \
     for Redis Cluster",
);

/// The settings that every program has.
#[derive(Clone, Debug)]
pub struct CommonConfig {
    /// The Redis server.
    pub redis: Server,
    /// The group's keys.
    pub keys: Keys,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Where metrics are served, if anywhere.
    pub metrics_addr: Option<String>,
}

/// What the URL is called in errors.
const URL_NAME: &str = "--redis-url / ONCECAST_REDIS_URL";

impl CommonConfig {
    /// Reads the common settings that this program has: not every program serves metrics.
    pub fn read(values: &Values<'_>) -> Result<CommonConfig, ConfigError> {
        let url = values.required("redis-url", URL_FORM)?;
        // The value is not repeated: it may hold a password.
        let redis = Server::parse(&url).map_err(|problem| {
            ConfigError::new("redis-url", format_args!("a URL that can't be used ({problem})"), URL_FORM)
        })?;
        let chosen = if values.is_given("redis-url") { ChosenBy::Setting } else { ChosenBy::Default };
        let redis = redis.chosen(chosen(URL_NAME));
        let group = values.required("group", "a name")?;
        if !is_group(&group) {
            return Err(ConfigError::new("group", quoted(&group), GROUP_FORM));
        }
        let metrics_addr = if values.has(&METRICS_ADDR) { metrics_addr(values)? } else { None };
        let keys = Keys::in_database(&group, redis.database());
        Ok(CommonConfig { redis, keys, log_level: log_level(values)?, metrics_addr })
    }
}
