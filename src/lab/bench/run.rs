//! One run: the load on a rig, what it cost, and whether every message came out once.

use std::process::Command;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::kind::Role;
use super::parts::Summary;
use super::rig::Rig;
use super::{Stop, cpu, verify};
use crate::base::error::{Error, Result};
use crate::base::shutdown::ShutdownRequests;
use crate::lab::{ChildProcess, wait_until};

/// How long a process of a run may take; what makes no progress ends by itself, and earlier.
const RUN_LIMIT: Duration = Duration::from_secs(3_600);

/// What a run has shown.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Messages that were sent and recorded.
    pub(super) messages: u64,
    /// From the first message to the last result.
    pub(super) elapsed: Duration,
    /// Results per second from the first message to the last.
    pub(super) meanwhile_per_s: f64,
    /// Microseconds of CPU for each message.
    pub(super) cpu_us: Vec<(Role, f64)>,
}

impl Measured {
    /// Messages per second, from the first message to the last result.
    pub(super) fn per_s(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }

    /// Microseconds of CPU that processes of a role took for a message.
    pub(super) fn cpu_of(&self, role: Role) -> f64 {
        // Not `sum`: of nothing it is -0.
        self.cpu_us.iter().filter(|(of, _)| *of == role).fold(0.0, |sum, (_, micros)| sum + micros)
    }

    /// The share of a core that Redis took.
    pub(super) fn redis_share(&self) -> f64 {
        self.cpu_of(Role::Redis) * self.messages as f64 / self.elapsed.as_micros().max(1) as f64
    }
}

/// Puts a load on the rig and waits for its end, with `first` messages sent before.
pub(super) fn measure(rig: &mut Rig, load: Command, first: u64, requests: &ShutdownRequests) -> Result<Measured, Stop> {
    let before = spent(rig)?;
    let summary = carry_out(rig, load, requests)?;
    let after = spent(rig)?;
    let messages = first + summary.sent;
    let each = |micros: u64| micros as f64 / messages.max(1) as f64;
    let mut cpu_us: Vec<(Role, f64)> =
        before.iter().zip(after).map(|((role, before), (_, after))| (*role, each(after - before))).collect();
    cpu_us.push((Role::Publisher, each(summary.cpu_us)));
    check(rig, &summary, messages)?;
    Ok(Measured {
        messages,
        elapsed: Duration::from_micros(summary.elapsed_us),
        meanwhile_per_s: summary.recorded_meanwhile as f64 * 1e6 / summary.sending_us.max(1) as f64,
        cpu_us,
    })
}

/// What the busiest process but Redis takes of a core while there is nothing to do.
pub(super) fn idle(rig: &mut Rig, time: Duration, requests: &ShutdownRequests) -> Result<f64, Stop> {
    let before = spent(rig)?;
    let begin = Instant::now();
    // The time is what is measured; a signal cuts it short.
    if requests.receiver().recv_timeout(time) != Err(RecvTimeoutError::Timeout) {
        return Err(Stop::Asked);
    }
    rig.must_run()?;
    let after = spent(rig)?;
    let elapsed = begin.elapsed().as_micros() as f64;
    let share = |(before, after): (&(Role, u64), (Role, u64))| (after.1 - before.1) as f64 / elapsed;
    Ok(before.iter().zip(after).filter(|(before, _)| before.0 != Role::Redis).map(share).fold(0.0, f64::max))
}

/// Runs a load and gives its summary.
pub(super) fn carry_out(rig: &mut Rig, load: Command, requests: &ShutdownRequests) -> Result<Summary, Stop> {
    let mut load = ChildProcess::spawn("load", load)?;
    wait_for_end(rig, &mut load, requests)?;
    let last = load.stdout().all().pop().unwrap_or_default();
    let summary = Summary::read(&last).ok_or_else(|| load.failure("gave no summary"))?;
    if summary.unreceived > 0 {
        let (unreceived, sent) = (summary.unreceived, summary.sent);
        return Err(Stop::Breach(format!("{unreceived} of {sent} messages were received by nobody")));
    }
    Ok(summary)
}

/// Waits until a process has ended well, while all others run.
pub(super) fn wait_for_end(rig: &mut Rig, process: &mut ChildProcess, requests: &ShutdownRequests) -> Result<(), Stop> {
    let mut asked = false;
    let what = format!("the end of {}", process.name());
    let ended = wait_until(RUN_LIMIT, what, || {
        asked = requests.receiver().try_recv().is_ok();
        rig.must_run()?;
        Ok(if asked { Some(None) } else { process.ended()?.map(Some) })
    })?;
    let Some(status) = ended else { return Err(Stop::Asked) };
    // Until what it wrote has been read.
    process.wait(RUN_LIMIT)?;
    if !status.success() {
        return Err(process.failure(format_args!("ended with {status}")).into());
    }
    Ok(())
}

fn check(rig: &mut Rig, summary: &Summary, owed: u64) -> Result<(), Stop> {
    let payload = rig.setup().payload;
    let faults = verify::results(rig.redis().port(), owed, payload)?;
    if faults == verify::Faults::default() {
        return Ok(());
    }
    let verify::Faults { missing, twice, foreign } = faults;
    let (kind, recorded) = (rig.setup().kind.name(), summary.recorded);
    Err(Stop::Breach(format!(
        "{kind}: of {owed} messages {missing} have no result, {twice} results are there twice, {foreign} are of no message \
         ({recorded} results)"
    )))
}

fn spent(rig: &mut Rig) -> Result<Vec<(Role, u64)>, Error> {
    rig.processes().into_iter().map(|(role, pid)| Ok((role, cpu::of(pid)?))).collect()
}
