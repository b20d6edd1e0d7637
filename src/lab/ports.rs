//! Free ports on 127.0.0.1, for child processes that need to know their port before they start.
//!
//! A port belongs to the process that asked for it until that process ends: no other caller is given it, in this
//! process or in another, also while the child that listens there is down. The system offers no such reservation, so
//! each caller locks the byte of its port in a file that all processes of one user share; the locks end with the
//! process.
//!
//! Limitations: a program that does not ask here may take the port before the child binds it. Callers must then try
//! another.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::{env, io};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use parking_lot::Mutex;

use crate::base::error::{Error, Result};
use crate::net::Listener;

/// Below the ports of outgoing connections (from 32768 on Linux, 49152 elsewhere). An outgoing connection may take one
/// of those ports while the child is down. Even a connection to the child itself may take it, and then connects to
/// itself.
const RANGE: Range<u16> = 15_000..32_000;
/// The distance of the port of a Redis Cluster's bus.
pub const BUS_OFFSET: u16 = 10_000;
const TRIES: usize = 256;

/// The ports of this process. A process's locks do not exclude each other, hence the set.
static OURS: Mutex<Option<Claims>> = Mutex::new(None);

/// A port of 127.0.0.1 on which no process listens at the moment, and which this function gives to nobody else while
/// this process runs.
pub fn free_port() -> Result<u16> {
    claim_of(RANGE, &[0])
}

/// Such a port for a node of a Redis Cluster, whose bus listens on the port [`BUS_OFFSET`] higher: both are given to
/// nobody else.
pub fn free_cluster_port() -> Result<u16> {
    claim_of(RANGE.start..RANGE.end - BUS_OFFSET, &[0, BUS_OFFSET])
}

/// A port of the range, to which all these offsets are free.
fn claim_of(range: Range<u16>, offsets: &[u16]) -> Result<u16> {
    let mut ours = OURS.lock();
    let claims = match &mut *ours {
        Some(claims) => claims,
        none => none.insert(Claims::open()?),
    };
    for _ in 0..TRIES {
        let port = fastrand::u16(range.clone());
        let free = |offset: &u16| Listener::bind(&format!("127.0.0.1:{}", port + offset)).is_ok();
        let claimed = |claims: &mut Claims| {
            offsets.iter().try_fold(true, |all, offset| Ok::<_, Error>(all && claims.claim(port + offset)?))
        };
        if offsets.iter().all(free) && claimed(claims)? {
            return Ok(port);
        }
    }
    Err(Error::Failed(format!("no free port on 127.0.0.1: {TRIES} tries from {} to {}", range.start, range.end - 1)))
}

/// Ports that no other process has.
#[derive(Debug)]
struct Claims {
    /// Never closed: closing it would end all of this process's locks.
    file: File,
    ports: HashSet<u16>,
}

impl Claims {
    fn open() -> Result<Claims> {
        let path = env::temp_dir().join(format!("oncecast-ports-{}", nix::unistd::getuid()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(&path).map_err(Error::io(format!("opening {}", path.display())))?;
        Ok(Claims { file, ports: HashSet::new() })
    }

    /// Whether the port is this caller's from now on.
    fn claim(&mut self, port: u16) -> Result<bool> {
        if self.ports.contains(&port) {
            return Ok(false);
        }
        let byte = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: libc::off_t::from(port),
            l_len: 1,
            l_pid: 0,
        };
        match fcntl(&self.file, FcntlArg::F_SETLK(&byte)) {
            Ok(_) => Ok(self.ports.insert(port)),
            Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
            Err(error) => Err(Error::io("locking a port's byte")(io::Error::from(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let given: Vec<u16> = (0..300).map(|_| free_port().expect("a free port")).collect();
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
    }

    /// The locks of the process that runs this test are not in its way, those of another process are.
    #[test]
    fn another_process_is_not_given_it() {
        let port = free_port().expect("a free port");
        let path = env::temp_dir().join(format!("oncecast-ports-{}", nix::unistd::getuid()));
        let script = "import fcntl, sys\n\
            file = open(sys.argv[1], 'r+')\n\
            try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))\n\
            except OSError: sys.exit(7)";
        let mut python = std::process::Command::new("python3");
        let status = python.args(["-c", script]).arg(path).arg(port.to_string()).status().expect("python3 runs");
        assert_eq!(status.code(), Some(7));
    }
}
