//! `oncecast chaos`: two minutes, or as long as it is told, of load and faults drawn from a seed. A
//! [trial](super::trial) whose consumers keep a journal, so that handler runs are counted across every kill.

use self::report::Report;
use self::settings::ChaosConfig;
use super::folder::PrivateFolder;
use super::trial::screen::{Screen, Tone};
use super::{ClusterOptions, ConsumerProgram, Programs, RedisOptions, Trial, journal};
use crate::base::error::Result;
use crate::base::shutdown::shutdown_channel;
use crate::process::log;

mod chart;
mod page;
mod report;
pub mod settings;

/// Runs it on the screen, with the programs beside this one. Gives the program's exit code.
pub fn run(config: &ChaosConfig) -> Result<u8> {
    let _log = log::init(config.log_level, "oncecast", "chaos")?;
    let (handle, requests) = shutdown_channel();
    handle.on_signals()?;
    let mut screen = Screen::stdout(handle);
    screen.line("");
    let seed = config.plan.seed;
    screen.line(&format!("  {}  seed {seed}", screen.paint(Tone::Strong, "oncecast chaos")));
    if let Some(folder) = &config.report {
        // Now, and not when two minutes have gone by.
        page::make_folder(folder)?;
    }
    let journals = PrivateFolder::create("journals")?;
    let folder = journals.path().display().to_string();
    let trial = Trial {
        cluster: ClusterOptions {
            redis: RedisOptions { program: config.redis_server.clone(), ..RedisOptions::default() },
            dispatchers: config.dispatchers,
            consumers: config.consumers,
            consumer_program: ConsumerProgram {
                name: "oncecast".to_owned(),
                arguments: ["witness", "--journals", &folder].map(str::to_owned).to_vec(),
            },
            ..ClusterOptions::new(Programs::beside_this_one()?)
        },
        rate: config.rate,
        batch: config.batch,
        duration: config.plan.duration,
        strikes: config.plan.strikes(),
        id_prefix: "chaos-",
        log_level: config.log_level,
    };
    let planned = trial.strikes.len();
    let Some(findings) = trial.run(&mut screen, &requests)? else { return screen.ended(0) };
    let report = Report { config, planned, runs: journal::count(journals.path())?, findings: &findings };
    report.lines(&screen).iter().for_each(|line| screen.line(line));
    if let Some(folder) = &config.report {
        let written = page::write(folder, &report)?;
        screen.line(&format!("  {}", written.display()));
        screen.line("");
    }
    screen.ended(findings.audit.exit_code())
}
