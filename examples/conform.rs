//! A consumer with the handler that `oncecast conform --conformance-handler` asks for; see docs/CONFORMANCE.md.
use std::thread;
use std::time::Duration;

use oncecast::{Consumer, Delivery, HandlerError, Outcome};
use serde_json::Value;
use simplelog::{Config, LevelFilter, WriteLogger};

fn main() -> Result<(), oncecast::Error> {
    WriteLogger::init(LevelFilter::Info, Config::default(), std::io::stderr()).expect("the first logger");
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let consumer = Consumer::builder()
        .redis_url(setting("ONCECAST_REDIS_URL", "redis://127.0.0.1:6379"))
        .group(setting("ONCECAST_GROUP", "conform"))
        .listen(setting("ONCECAST_LISTEN", "127.0.0.1:6969"))
        .handler(conform);
    let consumer = match std::env::var("ONCECAST_LINK_SECRET_FILE") {
        Ok(file) => consumer.link_secret_file(file),
        Err(_) => consumer,
    }
    .bind()?;
    consumer.stop_on_signals()?;
    consumer.run()
}

/// Does what the body asks for. Any other body is recorded by its length.
fn conform(message: &Delivery<'_>) -> Result<Outcome, HandlerError> {
    let body: Value = serde_json::from_slice(message.payload()).unwrap_or_default();
    thread::sleep(Duration::from_millis(body["ms"].as_u64().unwrap_or(0)));
    let reason = body["reason"].as_str().unwrap_or("as the body asks");
    match body["conform"].as_str() {
        Some("ok" | "slow") => {
            let fields = body["fields"].as_object().into_iter().flatten();
            let outcome = Outcome::new().field("conform", "ok");
            Ok(fields.fold(outcome, |outcome, (name, value)| outcome.field(name, value.as_str().unwrap_or_default())))
        }
        Some("nothing") => Ok(Outcome::new()),
        Some("retry") => Err(match body["delay_ms"].as_u64() {
            Some(delay_ms) => HandlerError::retry_after(Duration::from_millis(delay_ms), reason),
            None => HandlerError::retry(reason),
        }),
        Some("reject") => Err(HandlerError::reject(reason)),
        Some("throw") => panic!("{reason}"),
        _ => Ok(Outcome::new().field("bytes", message.payload().len().to_string())),
    }
}
