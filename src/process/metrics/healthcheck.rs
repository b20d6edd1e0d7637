//! The client of `/healthz` and `/readyz`: asks a program on this machine for its state, for images without a shell and
//! for scripts.
//!
//! It sends one GET on the caller's thread. A deadline ends the request however slowly the answer arrives, and memory
//! is bounded. Limitation: a host name is looked up by the system, which has time limits of its own; an address needs
//! no look-up.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::settings::metrics_addr;
use crate::base::error::Result;
use crate::base::setting::ConfigError;
use crate::base::text::Escaped;
use crate::net::{self, Stream, Wait};
use crate::process::config::Default::Required;
use crate::process::config::{self, Environment, Setting, Values};
use crate::process::output;

/// How long the program may take to answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The largest answer, its headers included.
const MAX_ANSWER_BYTES: usize = 8 << 10;
/// The most headers an answer may have.
const MAX_HEADERS: usize = 32;

/// Which program is asked, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where the program serves its metrics, `host:port`.
    pub address: String,
    /// What the program is asked.
    pub check: Check,
}

/// What a program can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether it runs: `/healthz`.
    Alive,
    /// Whether it is able to work: `/readyz`.
    Ready,
}

impl Check {
    fn path(self) -> &'static str {
        match self {
            Check::Alive => "/healthz",
            Check::Ready => "/readyz",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Alive => "alive",
            Check::Ready => "ready",
        })
    }
}

/// The name of the subcommand.
pub const NAME: &str = "healthcheck";
/// Its flag.
const ALIVE: &str = "alive";

/// Its settings.
pub const SETTINGS: &[Setting] = &[Setting::new(
    "metrics-addr",
    "HOST:PORT",
    Required,
    "Where the program serves /healthz and /readyz: its own --metrics-addr; 0.0.0.0 and [::] mean this machine",
)];

/// The subcommand's definition.
pub fn command() -> Command {
    let about = "\
Asks the program that runs on this machine whether it is ready.

Ready means able to work: a dispatcher leads or could take over at once, a consumer can record results, a publisher is
connected to Redis. Made for health checks of containers: it needs no shell and no other program.";
    let after = "\
Example, in a Compose file whose service sets ONCECAST_METRICS_ADDR:
  healthcheck: { test: [CMD, oncecast-dispatcher, healthcheck] }

Exit codes: 0 yes, 1 no or no answer within 2 s, 2 invalid settings.";
    config::command(NAME, about, after, SETTINGS).arg(
        Arg::new(ALIVE)
            .long(ALIVE)
            .action(ArgAction::SetTrue)
            .help("Ask whether the program runs (/healthz), not whether it is ready (/readyz)"),
    )
}

/// Reads the subcommand's settings.
pub fn read(matches: &ArgMatches, environment: Environment<'_>) -> std::result::Result<Question, ConfigError> {
    let values = Values::new(matches, SETTINGS, environment);
    let check = if matches.get_flag(ALIVE) { Check::Alive } else { Check::Ready };
    match metrics_addr(&values)? {
        Some(address) => Ok(Question { address, check }),
        None => Err(ConfigError::missing("metrics-addr", "the --metrics-addr of the program to ask, host:port")),
    }
}

/// Asks, prints the answer, and gives the exit code: 0 for yes, 1 for no.
pub fn run(question: &Question) -> Result<u8> {
    let check = question.check;
    match ask(&question.address, check, ANSWER_LIMIT) {
        Ok(()) => output::print(format_args!("{check}\n")).map(|_| 0),
        Err(reason) => {
            let _ = writeln!(io::stderr(), "not {check}: {}", Escaped(reason));
            Ok(1)
        }
    }
}

/// Asks the program that serves its metrics at `address`, `host:port`; the error is the reason why not.
///
/// If the address stands for all addresses of the machine (`0.0.0.0`, `[::]`), the loopback address is asked instead.
pub fn ask(address: &str, check: Check, within: Duration) -> std::result::Result<(), String> {
    let deadline = Instant::now() + within;
    let explained = |error: io::Error| match error.kind() {
        ErrorKind::TimedOut => format!("{address} does not answer within {within:?}"),
        ErrorKind::ConnectionRefused => format!("nothing listens on {address}"),
        _ => format!("{address}: {error}"),
    };
    let (mut stream, reached) = connect(address, deadline).map_err(explained)?;
    let path = check.path();
    // By its address, since the server may not know the name.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {reached}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(explained)?;
    let answer = read_answer(&mut stream).map_err(explained)?;
    verdict(&answer).map_err(|problem| match problem {
        No::Said(reason) => reason,
        No::Unclear(what) => format!("{address}{path} answers {what}"),
    })
}

fn connect(address: &str, deadline: Instant) -> io::Result<(Stream, SocketAddr)> {
    let addresses: Vec<SocketAddr> = net::resolve(address)?.into_iter().flat_map(net::reachable).collect();
    let left = deadline.saturating_duration_since(Instant::now());
    let (mut stream, reached) = net::connect_any(&addresses, left / addresses.len().max(1) as u32)?;
    stream.set_wait(Wait::Until(deadline))?;
    Ok((stream, reached))
}

/// Reads until the answer is whole, the peer closes, or it is too long.
fn read_answer(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; MAX_ANSWER_BYTES];
    let mut length = 0;
    while length < answer.len() && !is_whole(&answer[..length]) {
        match stream.read(&mut answer[length..]) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(error) => return Err(error),
        }
    }
    answer.truncate(length);
    Ok(answer)
}

fn is_whole(answer: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(begin)) = response.parse(answer) else { return false };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() - begin >= length)
}

/// Why an answer counts as no.
#[derive(Debug, PartialEq)]
pub enum No {
    /// The program's own reason.
    Said(String),
    /// The answer is not one that our programs give, or the program failed to answer.
    Unclear(String),
}

/// Whether a whole answer means yes.
pub fn verdict(answer: &[u8]) -> std::result::Result<(), No> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let begin = match response.parse(answer) {
        Ok(httparse::Status::Complete(begin)) => begin,
        _ => return Err(No::Unclear("something that is not HTTP".to_owned())),
    };
    let body = String::from_utf8_lossy(&answer[begin..]).trim().to_owned();
    match response.code {
        Some(200) => Ok(()),
        Some(503) if !body.is_empty() => Err(No::Said(body)),
        code => Err(No::Unclear(format!("{} {body}", code.unwrap_or_default()).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::net::closed::wait_until_closed;
    use crate::process::metrics::{Metrics, MetricsPlace, MetricsServer, Site};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The outcome of asking a server that sends `answer` and closes.
    fn asked(answer: &'static [u8]) -> std::result::Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("it is asked");
            // Read first: closing with bytes unread would reset the connection.
            let mut request = [0; 1024];
            let _ = socket.read(&mut request);
            let _ = socket.write_all(answer);
        });
        let outcome = ask(&address, Check::Ready, PATIENCE);
        server.join().expect("it does not panic");
        outcome.map_err(|reason| reason.replace(&address, "HERE"))
    }

    #[test]
    fn the_answer_of_our_own_server_is_understood() {
        let ready = |verdict: std::result::Result<(), String>| move || verdict.clone();
        let server =
            MetricsServer::start(&MetricsPlace::at("127.0.0.1:0"), Site::new(Metrics::new(), ready(Ok(())))).unwrap();
        assert_eq!(ask(&server.address().to_string(), Check::Ready, PATIENCE), Ok(()));
        let server = MetricsServer::start(
            &MetricsPlace::at("0.0.0.0:0"),
            Site::new(Metrics::new(), ready(Err("not subscribed".into()))),
        )
        .unwrap();
        let address = server.address().to_string();
        assert!(address.starts_with("0.0.0.0:"));
        assert_eq!(ask(&address, Check::Ready, PATIENCE), Err("not subscribed".to_owned()));
        assert_eq!(ask(&address, Check::Alive, PATIENCE), Ok(()));
    }

    #[test]
    fn other_answers_are_reported() {
        assert_eq!(asked(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        for (answer, reason) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nnobody"[..], "HERE/readyz answers 404 nobody"),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HERE/readyz answers 503"),
            (b"SSH-2.0-OpenSSH\r\n", "HERE/readyz answers something that is not HTTP"),
            (b"", "HERE/readyz answers something that is not HTTP"),
        ] {
            assert_eq!(asked(answer), Err(reason.to_owned()));
        }
    }

    #[test]
    fn a_silent_server_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let reason = ask(&address, Check::Ready, Duration::from_millis(50)).unwrap_err();
        assert_eq!(reason, format!("{address} does not answer within 50ms"));
        drop(listener);
        wait_until_closed(address.parse::<SocketAddr>().expect("an address").port());
        let reason = ask(&address, Check::Ready, PATIENCE).unwrap_err();
        assert_eq!(reason, format!("nothing listens on {address}"));
    }

    #[test]
    fn an_answer_without_end_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("it is asked");
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            // Until the other side closes the connection.
            while socket.write_all(&[b'x'; 1024]).is_ok() {}
        });
        assert_eq!(ask(&address, Check::Ready, PATIENCE), Ok(()));
        server.join().expect("it does not panic");
    }
}
