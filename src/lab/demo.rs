//! `oncecast demo`: a whole cluster at work, for the eye. A [trial](super::trial) with one strike: the leader is killed.

use std::time::Duration;

use self::settings::DemoConfig;
use self::verdict::Verdict;
use super::trial::plan::{Fault, Strike, Target};
use super::trial::screen::{Screen, Tone};
use super::{ClusterOptions, Programs, RedisOptions, Trial};
use crate::base::error::Result;
use crate::base::shutdown::shutdown_channel;
use crate::process::log;

pub mod settings;
mod verdict;

/// The longest time that the killed leader stays away.
const OUTAGE: Duration = Duration::from_secs(3);

/// Runs the demonstration on the screen, with the programs beside this one. Gives the program's exit code.
pub fn run(config: &DemoConfig) -> Result<u8> {
    let _log = log::init(config.log_level, "oncecast", "demo")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let mut screen = Screen::stdout(handle);
    screen.line("");
    screen.line(&format!(
        "  {}  one command, one machine, nothing else running",
        screen.paint(Tone::Strong, "oncecast demo")
    ));
    let trial = Trial {
        cluster: ClusterOptions {
            redis: RedisOptions { program: config.redis_server.clone(), ..RedisOptions::default() },
            ..ClusterOptions::new(Programs::beside_this_one()?)
        },
        rate: config.rate,
        batch: None,
        duration: config.duration,
        strikes: vec![Strike {
            at: config.duration * 2 / 5,
            fault: Fault::Kill,
            target: Target::Leader,
            outage: (config.duration / 5).min(OUTAGE),
            pick: 0,
        }],
        id_prefix: "demo-",
        log_level: config.log_level,
    };
    let Some(findings) = trial.run(&mut screen, &requests)? else { return screen.ended(0) };
    Verdict(&findings).lines(&screen).iter().for_each(|line| screen.line(line));
    screen.ended(findings.audit.exit_code())
}
