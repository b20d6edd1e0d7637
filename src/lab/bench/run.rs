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
    let before = cpu_times(&rig.processes())?;
    let summary = run_load(rig, load, requests)?;
    let after = cpu_times(&rig.processes())?;
    let messages = first + summary.sent;
    check(rig, &summary, messages)?;
    Ok(Measurement {
        messages,
        elapsed: Duration::from_micros(summary.elapsed_us),
        per_s_while_sending: summary.recorded_while_sending as f64 * 1e6 / summary.sending_us.max(1) as f64,
        cpu_us: each(&before, &after, summary.cpu_us, messages),
    })
}

/// The CPU time for each of `messages`, of each process and of the publisher, which has ended.
pub(super) fn each(
    before: &[(Role, u64)],
    after: &[(Role, u64)],
    publisher_us: u64,
    messages: u64,
) -> Vec<(Role, f64)> {
    let each = |micros: u64| micros as f64 / messages.max(1) as f64;
    let took = before.iter().zip(after).map(|((role, before), (_, after))| (*role, each(after - before)));
    took.chain([(Role::Publisher, each(publisher_us))]).collect()
}

/// The share of a core that the busiest process except Redis uses while there is no load.
pub(super) fn idle(rig: &mut Rig, time: Duration, requests: &ShutdownRequests) -> Result<f64, Abort> {
    let before = cpu_times(&rig.processes())?;
    let begin = Instant::now();
    pause(time, requests)?;
    rig.must_run()?;
    let after = cpu_times(&rig.processes())?;
    let elapsed = begin.elapsed().as_micros() as f64;
    let share = |(before, after): (&(Role, u64), (Role, u64))| (after.1 - before.1) as f64 / elapsed;
    Ok(before.iter().zip(after).filter(|(before, _)| before.0 != Role::Redis).map(share).fold(0.0, f64::max))
}

/// Runs a load and returns its summary.
pub(super) fn run_load(rig: &mut Rig, load: Command, requests: &ShutdownRequests) -> Result<Summary, Abort> {
    let mut load = ChildProcess::spawn("load", load)?;
    wait_for_end(rig, &mut load, requests)?;
    summary_of(&load)
}

/// What a load that has ended says.
pub(super) fn summary_of(load: &ChildProcess) -> Result<Summary, Abort> {
    let last = load.stdout().all().pop().unwrap_or_default();
    let summary = Summary::read(&last).ok_or_else(|| load.failure("printed no summary"))?;
    if summary.unreceived > 0 {
        let (unreceived, sent) = (summary.unreceived, summary.sent);
        return Err(Abort::Violation(format!("{unreceived} of {sent} messages had no subscriber")));
    }
    Ok(summary)
}

/// Waits for so long; only a request to stop ends this early.
pub(super) fn pause(time: Duration, requests: &ShutdownRequests) -> Result<(), Abort> {
    match requests.receiver().recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => Ok(()),
        _ => Err(Abort::Interrupted),
    }
}

/// Waits until a process has ended successfully. All others must keep running.
pub(super) fn wait_for_end(
    rig: &mut Rig,
    process: &mut ChildProcess,
    requests: &ShutdownRequests,
) -> Result<(), Abort> {
    wait_while(|| rig.must_run(), process, requests)
}

/// Waits until a process has ended successfully. `must_run` returns an error if one has ended that should run.
pub(super) fn wait_while(
    mut must_run: impl FnMut() -> Result<()>,
    process: &mut ChildProcess,
    requests: &ShutdownRequests,
) -> Result<(), Abort> {
    let mut asked = false;
    let what = format!("the end of {}", process.name());
    let ended = wait_until(RUN_LIMIT, what, || {
        asked = requests.receiver().try_recv().is_ok();
        must_run()?;
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
    errors.must_be_none(rig.setup().contender.name(), messages, summary.recorded).map_err(Abort::Violation)
}

/// The CPU times of all processes in microseconds.
pub(super) fn cpu_times(processes: &[(Role, u32)]) -> Result<Vec<(Role, u64)>> {
    processes.iter().map(|(role, pid)| Ok((*role, cpu::of(*pid)?))).collect()
}
