//! The handler: one request for each message, and a second one only if the first was not read.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::warn;
use parking_lot::Mutex;
use ureq::config::Config;
use ureq::http::Response;
use ureq::{Agent, Body, Error};

use super::answer::verdict;
use super::connection::{HttpConnector, MAX_HEADER_BYTES, NoLookup, NotConnected, Stale};
use super::request::{encoded, with_headers};
use super::server::Server;
use super::target::Target;
use crate::base::rate_limit::RateLimit;
use crate::base::text::{Escaped, Quoted};
use crate::consumer::{Delivery, Handler, HandlerError, Outcome};
use crate::programs::consumer::trace::{TraceContext, Tracing, log_field};
use crate::wire;

/// The time limit of a request, if no other is set.
pub(in crate::programs::consumer) const DEFAULT_LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of an answer that is recorded: what a result may have, less the name of a field and lengths.
pub(super) const MAX_ANSWER_BYTES: usize = wire::MAX_PAYLOAD_BYTES - 4_096;
/// How much of any other answer is read. If that is all, the connection is kept.
const MAX_REFUSAL_BYTES: usize = 64 << 10;
/// How long a connection is kept while it has nothing to do: less than servers usually keep it (gunicorn 2 s, Node and
/// Apache 5 s), so that it is seldom closed while a request is on its way.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// See the folder's text.
#[derive(Debug)]
pub(in crate::programs::consumer) struct HttpHandler {
    target: Target,
    /// The group's name, encoded.
    group: String,
    /// The time limit of a request.
    limit: Duration,
    tracing: Tracing,
    pub(super) server: Arc<Server>,
    /// Keeps connections.
    agent: Agent,
    /// Keeps none.
    fresh: Agent,
    /// For the log.
    resent: Mutex<RateLimit>,
}

/// Why there is no answer.
enum NoAnswer {
    /// Nothing was sent.
    NotConnected(String),
    /// A kept connection was closed.
    Stale,
    Other(String),
}

impl HttpHandler {
    /// Looks whether the server listens, for a moment. It need not.
    pub(in crate::programs::consumer) fn start(
        target: Target,
        group: &str,
        concurrency: usize,
        limit: Duration,
        tracing: Tracing,
    ) -> io::Result<HttpHandler> {
        let server = Arc::new(Server::watch(&target.host, target.port)?);
        let agent = |kept| Agent::with_parts(config(limit, kept), HttpConnector(server.clone()), NoLookup);
        let (agent, fresh) = (agent(concurrency), agent(0));
        let resent = Mutex::new(RateLimit::new(1, 1, Instant::now()));
        Ok(HttpHandler { target, group: encoded(group.as_bytes()), limit, tracing, server, agent, fresh, resent })
    }

    /// One request. The inner result is the answer's.
    fn send(
        &self,
        agent: &Agent,
        delivery: &Delivery<'_>,
        context: Option<&TraceContext>,
    ) -> Result<Result<Outcome, HandlerError>, NoAnswer> {
        let request = with_headers(agent.post(&self.target.url), &self.target, &self.group, delivery, context);
        let mut response = request.send(delivery.payload()).map_err(|error| self.no_answer(error))?;
        let status = response.status();
        let body = match status.is_success() {
            true => read_whole(&mut response).map_err(|error| self.no_answer(error))?,
            false => read_beginning(&mut response),
        };
        Ok(verdict(status, response.headers(), &body, SystemTime::now()))
    }

    fn no_answer(&self, error: Error) -> NoAnswer {
        match error {
            Error::Other(other) if other.is::<Stale>() => NoAnswer::Stale,
            Error::Other(other) if other.is::<NotConnected>() => NoAnswer::NotConnected(other.to_string()),
            Error::Timeout(_) => NoAnswer::Other(format!("no answer within {} ms", self.limit.as_millis())),
            error => NoAnswer::Other(format!("no answer that can be used: {}", Escaped(described(&error)))),
        }
    }

    fn log_resent(&self, delivery: &Delivery<'_>, context: Option<&TraceContext>) {
        if self.resent.lock().take(Instant::now()) {
            let reason = Quoted("a kept connection was closed before an answer began");
            let (id, number, trace) = (delivery.id(), delivery.number(), log_field(context));
            warn!("event=http-resent id={id} delivery={number} reason={reason}{trace}");
        }
    }

    /// One request, and a second one if the first was most likely not read.
    fn ask(&self, delivery: &Delivery<'_>, context: Option<&TraceContext>) -> Result<Outcome, HandlerError> {
        match self.send(&self.agent, delivery, context) {
            Ok(outcome) => outcome,
            Err(NoAnswer::NotConnected(reason)) => Err(HandlerError::not_ready(reason)),
            Err(NoAnswer::Other(reason)) => Err(HandlerError::retry(reason)),
            Err(NoAnswer::Stale) => {
                self.log_resent(delivery, context);
                // Whatever becomes of this request counts. If the first one was read and killed the server, a message
                // that does this each time must end as a dead letter.
                self.send(&self.fresh, delivery, context).unwrap_or_else(|no_answer| {
                    let then = match no_answer {
                        NoAnswer::NotConnected(reason) | NoAnswer::Other(reason) => reason,
                        NoAnswer::Stale => Stale.to_string(),
                    };
                    Err(HandlerError::retry(format!("{Stale}, and then: {then}")))
                })
            }
        }
    }
}

impl Handler for HttpHandler {
    fn handle(&self, delivery: &Delivery<'_>) -> Result<Outcome, HandlerError> {
        self.tracing.around(delivery, |context| self.ask(delivery, context))
    }

    fn ready(&self) -> Result<(), String> {
        self.server.ready()
    }
}

fn config(limit: Duration, kept: usize) -> Config {
    Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Otherwise the variables HTTP_PROXY and ALL_PROXY would count.
        .proxy(None)
        .max_response_header_size(MAX_HEADER_BYTES)
        .max_idle_connections(kept)
        .max_idle_connections_per_host(kept)
        .max_idle_age(MAX_IDLE)
        .user_agent(concat!("oncecast/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The whole body, which must be within the limit.
fn read_whole(response: &mut Response<Body>) -> Result<Vec<u8>, Error> {
    response.body_mut().with_config().limit(MAX_ANSWER_BYTES as u64).read_to_vec()
}

/// The beginning of a body. The status has decided already, so a body that is cut off or slow is no failure.
fn read_beginning(response: &mut Response<Body>) -> Vec<u8> {
    let mut body = Vec::new();
    let _ = response.body_mut().as_reader().take(MAX_REFUSAL_BYTES as u64).read_to_end(&mut body);
    body
}

/// The error in words that name the limits.
fn described(error: &Error) -> String {
    match error {
        Error::BodyExceedsLimit(_) => format!("the body is over {MAX_ANSWER_BYTES} bytes"),
        Error::LargeResponseHeader(..) => format!("the headers are over {MAX_HEADER_BYTES} bytes"),
        Error::Io(problem) if problem.kind() == io::ErrorKind::UnexpectedEof => "the connection ended early".to_owned(),
        error => error.to_string(),
    }
}
