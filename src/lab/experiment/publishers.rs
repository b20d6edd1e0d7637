//! The publishers of an experiment: one, or for sharded channels one for each, since a publisher has one node of a
//! Redis Cluster. Owned by the thread that runs the experiment.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::base::error::{Error, Result};
use crate::lab::child::ChildProcess;
use crate::lab::cluster::Cluster;
use crate::lab::folder::PrivateFolder;

/// How long the last line of a publisher that has ended may take to be read.
const LAST_LINE_LIMIT: Duration = Duration::from_millis(100);

/// What they publish, as in the experiment.
pub(super) struct Load<'a> {
    /// All of them together.
    pub(super) rate: u64,
    pub(super) batch: Option<u64>,
    pub(super) channels: Option<u64>,
    pub(super) sharded: Option<&'a [String]>,
    pub(super) duration: Duration,
    pub(super) id_prefix: &'static str,
    pub(super) log_level: LevelFilter,
}

/// See the module's text. Dropping it kills them.
pub(super) struct Publishers {
    processes: Vec<ChildProcess>,
    /// The files with the ids that each has published.
    ids: Vec<PathBuf>,
}

impl Publishers {
    /// Starts them. Their files are in `folder`.
    pub(super) fn start(load: &Load<'_>, cluster: &Cluster, folder: &PrivateFolder) -> Result<Publishers> {
        let mut publishers = Publishers { processes: Vec::new(), ids: Vec::new() };
        let Some(channels) = load.sharded else {
            publishers.add(load, cluster, folder, load.rate, None)?;
            return Ok(publishers);
        };
        let rate = load.rate.div_ceil(channels.len() as u64);
        for channel in channels {
            publishers.add(load, cluster, folder, rate, Some(channel))?;
        }
        Ok(publishers)
    }

    fn add(
        &mut self,
        load: &Load<'_>,
        cluster: &Cluster,
        folder: &PrivateFolder,
        rate: u64,
        sharded: Option<&str>,
    ) -> Result<()> {
        let mut command = cluster.command("oncecast-publisher")?;
        let duration = format!("{}ms", load.duration.as_millis().max(1));
        let number = sharded.map_or_else(String::new, |_| format!("{}-", self.processes.len()));
        let prefix = format!("{}{number}", load.id_prefix);
        command.args(["--rate", &rate.to_string(), "--duration", &duration, "--id-prefix", &prefix]);
        if let Some(channel) = sharded {
            command.args(["--sharded-channel", channel]);
        }
        if let Some(batch) = load.batch {
            command.args(["--batch", &batch.to_string()]);
        }
        if let Some(channels) = load.channels {
            command.args(["--channels", &channels.to_string()]);
        }
        let ids = folder.path().join(format!("ids{number}"));
        command.arg("--ids-file").arg(&ids);
        command.args(["--log-level", &load.log_level.as_str().to_ascii_lowercase()]);
        self.processes.push(ChildProcess::spawn("publisher", command)?);
        self.ids.push(ids);
        Ok(())
    }

    /// How many messages they have published, once all have ended.
    pub(super) fn published(&mut self) -> Result<Option<u64>> {
        let mut published = 0;
        for publisher in &mut self.processes {
            let Some(status) = publisher.ended()? else { return Ok(None) };
            // The last line may be read a moment after the process has exited.
            let summary = publisher.stdout().wait_for("published=", LAST_LINE_LIMIT).unwrap_or_default();
            match summary_number(&summary, "published") {
                Some(number) if status.success() => published += number,
                _ => return Err(publisher.failure(format_args!("ended with {status} and printed {summary:?}"))),
            }
        }
        Ok(Some(published))
    }

    /// The error of one that still runs, or of any.
    pub(super) fn failure(&mut self, problem: impl std::fmt::Display) -> Error {
        let running = self.processes.iter_mut().position(|publisher| matches!(publisher.ended(), Ok(None)));
        self.processes[running.unwrap_or(0)].failure(problem)
    }

    /// A file in `folder` with the ids that all have published.
    pub(super) fn ids(&self, folder: &PrivateFolder) -> Result<PathBuf> {
        let path = folder.path().join("all-ids");
        let gather = || -> io::Result<()> {
            let mut all = File::create(&path)?;
            self.ids.iter().try_for_each(|ids| io::copy(&mut File::open(ids)?, &mut all).map(drop))
        };
        gather().map_err(Error::io(format!("writing {}", path.display())))?;
        Ok(path)
    }

    /// Stops them in order.
    pub(super) fn stop(&mut self, within: Duration) -> Result<()> {
        self.processes.iter_mut().try_for_each(|publisher| publisher.stop(within).map(drop))
    }
}

/// The number after `name=` in the publisher's last line.
fn summary_number(summary: &str, name: &str) -> Option<u64> {
    summary.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
