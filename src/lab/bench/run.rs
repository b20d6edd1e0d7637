//! One run: puts a load on a rig, measures its cost, and checks that every message has exactly one result.

use std::process::Command;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::contender::Role;
use super::context::Abort;
use super::processes::Summary;
use super::rig::Rig;
use super::{cpu, verify};
use crate::base::error::Result;
use crate::base::shutdown::ShutdownRequests;
use crate::lab::child::ChildProcess;
use crate::lab::wait::wait_until;

/// How long a process of a run may take. One that makes no progress ends by itself much earlier.
const RUN_LIMIT: Duration = Duration::from_secs(3_600);

/// The figures of a run.
#[derive(Clone, Debug)]
pub(super) struct Measurement {
    /// Messages sent, all of which were recorded.
    pub(super) messages: u64,
    /// From the first message to the last result.
    pub(super) elapsed: Duration,
    /// Results per second while messages were sent.
    pub(super) per_s_while_sending: f64,
    /// CPU time per message in microseconds, for each process.
    pub(super) cpu_us: Vec<(Role, f64)>,
}

impl Measurement {
    /// Messages per second, from the first message to the last result.
    pub(super) fn per_s(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }

    /// CPU time per message in microseconds, of all processes of a role.
    pub(super) fn cpu_of(&self, role: Role) -> f64 {
        // Not `sum`, which is -0 for an empty sequence.
        self.cpu_us.iter().filter(|(of, _)| *of == role).fold(0.0, |sum, (_, micros)| sum + micros)
    }

    /// The share of a core that Redis used.
    pub(super) fn redis_share(&self) -> f64 {
        self.cpu_of(Role::Redis) * self.messages as f64 / self.elapsed.as_micros().max(1) as f64
    }
}

/// Runs a load to its end and measures it. `first` messages were sent before.
pub(super) fn measure(
    rig: &mut Rig,
    load: Command,
    first: u64,
    requests: &ShutdownRequests,
) -> Result<Measurement, Abort> {
    let before = cpu_times(rig)?;
    let summary = run_load(rig, load, requests)?;
    let after = cpu_times(rig)?;
    let messages = first + summary.sent;
    let each = |micros: u64| micros as f64 / messages.max(1) as f64;
    let mut cpu_us: Vec<(Role, f64)> =
        before.iter().zip(after).map(|((role, before), (_, after))| (*role, each(after - before))).collect();
    cpu_us.push((Role::Publisher, each(summary.cpu_us)));
    check(rig, &summary, messages)?;
    Ok(Measurement {
        messages,
        elapsed: Duration::from_micros(summary.elapsed_us),
        per_s_while_sending: summary.recorded_while_sending as f64 * 1e6 / summary.sending_us.max(1) as f64,
        cpu_us,
    })
}

/// The share of a core that the busiest process except Redis uses while there is no load.
pub(super) fn idle(rig: &mut Rig, time: Duration, requests: &ShutdownRequests) -> Result<f64, Abort> {
    let before = cpu_times(rig)?;
    let begin = Instant::now();
    // Only a request to stop ends this wait early.
    if requests.receiver().recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
        return Err(Abort::Interrupted);
    }
    rig.must_run()?;
    let after = cpu_times(rig)?;
    let elapsed = begin.elapsed().as_micros() as f64;
    let share = |(before, after): (&(Role, u64), (Role, u64))| (after.1 - before.1) as f64 / elapsed;
    Ok(before.iter().zip(after).filter(|(before, _)| before.0 != Role::Redis).map(share).fold(0.0, f64::max))
}

/// Runs a load and returns its summary.
pub(super) fn run_load(rig: &mut Rig, load: Command, requests: &ShutdownRequests) -> Result<Summary, Abort> {
    let mut load = ChildProcess::spawn("load", load)?;
    wait_for_end(rig, &mut load, requests)?;
    let last = load.stdout().all().pop().unwrap_or_default();
    let summary = Summary::read(&last).ok_or_else(|| load.failure("printed no summary"))?;
    if summary.unreceived > 0 {
        let (unreceived, sent) = (summary.unreceived, summary.sent);
        return Err(Abort::Violation(format!("{unreceived} of {sent} messages had no subscriber")));
    }
    Ok(summary)
}

/// Waits until a process has ended successfully. All others must keep running.
pub(super) fn wait_for_end(
    rig: &mut Rig,
    process: &mut ChildProcess,
    requests: &ShutdownRequests,
) -> Result<(), Abort> {
    let mut asked = false;
    let what = format!("the end of {}", process.name());
    let ended = wait_until(RUN_LIMIT, what, || {
        asked = requests.receiver().try_recv().is_ok();
        rig.must_run()?;
        Ok(if asked { Some(None) } else { process.ended()?.map(Some) })
    })?;
    let Some(status) = ended else { return Err(Abort::Interrupted) };
    // Waits until its output has been read.
    process.wait(RUN_LIMIT)?;
    if !status.success() {
        return Err(process.failure(format_args!("ended with {status}")).into());
    }
    Ok(())
}

fn check(rig: &mut Rig, summary: &Summary, messages: u64) -> Result<(), Abort> {
    let payload = rig.setup().payload;
    let errors = verify::results(rig.redis().port(), rig.results(), messages, payload)?;
    if errors == verify::Errors::default() {
        return Ok(());
    }
    let verify::Errors { missing, twice, foreign } = errors;
    let (name, recorded) = (rig.setup().contender.name(), summary.recorded);
    Err(Abort::Violation(format!(
        "{name}: of {messages} messages {missing} have no result; of {recorded} results {twice} are duplicates and \
         {foreign} belong to no message"
    )))
}

/// The CPU times of all processes in microseconds.
fn cpu_times(rig: &mut Rig) -> Result<Vec<(Role, u64)>> {
    rig.processes().into_iter().map(|(role, pid)| Ok((role, cpu::of(pid)?))).collect()
}
