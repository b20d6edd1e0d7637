//! The smallest consumer: records each message in capital letters. Needs a Redis and a dispatcher.
use oncecast::{Consumer, Delivery, Outcome};
use simplelog::{Config, LevelFilter, WriteLogger};

fn main() -> Result<(), oncecast::Error> {
    WriteLogger::init(LevelFilter::Info, Config::default(), std::io::stderr()).expect("the first logger");
    let redis_url = std::env::var("ONCECAST_REDIS_URL").unwrap_or("redis://127.0.0.1:6379".to_owned());
    let address = std::env::var("ONCECAST_LISTEN").unwrap_or("127.0.0.1:6969".to_owned());
    let shout = |message: &Delivery<'_>| Ok(Outcome::new().field("shouted", message.payload().to_ascii_uppercase()));
    let consumer = Consumer::builder().redis_url(redis_url).listen(address).handler(shout).bind()?;
    consumer.stop_on_signals()?;
    consumer.run()
}
