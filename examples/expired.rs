//! Processes each expired key once: a consumer for `oncecast-dispatcher --keyevent expired`. The payload is the key.
use oncecast::{Consumer, Delivery, Outcome};
use simplelog::{Config, LevelFilter, WriteLogger};

fn main() -> Result<(), oncecast::Error> {
    WriteLogger::init(LevelFilter::Info, Config::default(), std::io::stderr()).expect("the first logger");
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let consumer = Consumer::builder()
        .redis_url(setting("ONCECAST_REDIS_URL", "redis://127.0.0.1:6379"))
        .listen(setting("ONCECAST_LISTEN", "127.0.0.1:6969"))
        .handler(|event: &Delivery<'_>| {
            // The value is gone with its key. What the work needs must be in the name, or stored elsewhere.
            let key = std::str::from_utf8(event.payload())?;
            let Some(session) = key.strip_prefix("session:") else { return Ok(Outcome::new()) };
            Ok(Outcome::new().field("ended", session))
        })
        .bind()?;
    consumer.stop_on_signals()?;
    consumer.run()
}
