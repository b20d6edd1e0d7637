//! The smallest consumer: records each message in capital letters. Needs a Redis and a dispatcher.
use oncecast::{Consumer, Delivery, Outcome};
use simplelog::{Config, LevelFilter, WriteLogger};

fn main() -> Result<(), oncecast::Error> {
    WriteLogger::init(LevelFilter::Info, Config::default(), std::io::stderr()).expect("the first logger");
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let consumer = Consumer::builder()
        .redis_url(setting("ONCECAST_REDIS_URL", "redis://127.0.0.1:6379"))
        .listen(setting("ONCECAST_LISTEN", "127.0.0.1:6969"))
        .handler(|message: &Delivery<'_>| {
            let text = std::str::from_utf8(message.payload())?;
            Ok(Outcome::new().field("shouted", text.to_uppercase()))
        })
        .bind()?;
    consumer.stop_on_signals()?;
    consumer.run()
}
