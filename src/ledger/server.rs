//! A Redis server as the settings name it: where it is, the login, and how its errors are reported: with the address,
//! never with the password.

pub(super) mod errors;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use super::command::command;
use super::login::log_in;
use super::notice::on_node;
pub use super::place::Planned;
use super::place::{Found, Place};
pub(super) use super::place::{Guides, Witness};
use super::secure::Secure;
use super::topology::{Topology, slot_of};
use super::url::{Kind, Several, mistake_in, read_several, without_tls};
use crate::base::error::Error;
use crate::base::failure::Failure;
use crate::base::hint::{ChosenBy, UrlSetting};
use crate::base::text::Quoted;
use crate::base::tls::TlsSettings;
use crate::net::{self, Address, ClientFiles, ClientTls, Closer, FileProblem, Keepalive, PemFile, Stream, Wait};

/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that vanished without closing is noticed after this time and a few probes.
const KEEPALIVE: Keepalive = Keepalive { after: Duration::from_secs(5), every: Duration::from_secs(1) };

/// Why the settings of a server can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// The URL has this mistake.
    #[error("{0}")]
    Url(String),
    /// One of the files for TLS can't be used.
    #[error("{0}")]
    File(#[from] FileProblem),
}

fn unused(file: PemFile) -> Mistake {
    Mistake::File(FileProblem { file, text: "a file, and the Redis URL is not rediss://".to_owned() })
}

fn security(is_secure: bool, files: ClientFiles) -> std::result::Result<Option<Secure>, Mistake> {
    match (&files.roots, &files.identity) {
        _ if is_secure => Ok(Some(Secure::new(ClientTls::load(files)?))),
        (Some(_), _) => Err(unused(PemFile::Roots)),
        (None, Some(_)) => Err(unused(PemFile::Certificate)),
        (None, None) => Ok(None),
    }
}

fn connection_info(url: &str) -> std::result::Result<ConnectionInfo, Mistake> {
    url.into_connection_info().map_err(|error| Mistake::Url(error.to_string()))
}

/// A Redis server, from the setting `redis-url`.
#[derive(Clone)]
pub struct Server {
    /// The login and the database.
    settings: RedisConnectionInfo,
    place: Place,
    secure: Option<Secure>,
    /// Counted by all connections to it, in all clones.
    reconnects: Arc<AtomicU64>,
    chosen: ChosenBy,
    /// Whether `oncecast doctor` examines the program's user, for errors that say what to do.
    is_examined: bool,
    /// Whether it was logged, by any clone, that it refuses transactions.
    logged_no_transactions: Arc<AtomicBool>,
    /// Whether it was logged, by any clone, that the user may not ask for the server's role.
    logged_no_role: Arc<AtomicBool>,
    /// What was logged last of nodes that were not waited for, by any clone.
    not_awaited: Arc<Mutex<String>>,
}

impl Server {
    /// Reads a URL: `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS, `redis+unix:///path`,
    /// `redis+sentinel://[user:password@]host[:port],…/NAME[/db]`, or
    /// `redis+cluster://[user:password@]host[:port],…`.
    ///
    /// The error says what is wrong without repeating the URL, which may hold a password.
    pub fn parse(url: &str) -> std::result::Result<Server, String> {
        Server::with_files(url, ClientFiles::default()).map_err(|mistake| mistake.to_string())
    }

    /// Like [`parse`](Server::parse), with files for TLS, which are read here for the first time.
    pub fn with_files(url: &str, files: ClientFiles) -> std::result::Result<Server, Mistake> {
        if let Some(mistake) = mistake_in(url) {
            return Err(Mistake::Url(mistake));
        }
        if let Some(Ok(several)) = read_several(url) {
            return Server::of_several(several, files);
        }
        let plain = without_tls(url);
        let secure = security(plain.is_some(), files)?;
        let info = connection_info(plain.as_deref().unwrap_or(url))?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Address::Tcp { host: host.clone(), port: *port },
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return Err(Mistake::Url("only TCP and Unix sockets are supported".to_owned())),
        };
        Ok(Server::new(info, Place::fixed(address), secure))
    }

    /// Other servers say where it is.
    fn of_several(several: Several, files: ClientFiles) -> std::result::Result<Server, Mistake> {
        let secure = security(several.is_secure, files)?;
        let info = connection_info(&several.server_url)?;
        let others = connection_info(&several.sentinel_url)?;
        let login = (others.redis_settings().username(), others.redis_settings().password());
        let place = match several.kind {
            Kind::Sentinel => Place::of_sentinels(&several.name, several.addresses, secure.as_ref(), login),
            Kind::Cluster => {
                let login = (info.redis_settings().username(), info.redis_settings().password());
                Place::of_cluster(several.addresses, secure.as_ref(), login)
            }
        };
        Ok(Server::new(info, place, secure))
    }

    fn new(info: ConnectionInfo, place: Place, secure: Option<Secure>) -> Server {
        Server {
            settings: info.redis_settings().clone(),
            place,
            secure,
            reconnects: Arc::default(),
            chosen: ChosenBy::Setting("the Redis URL"),
            is_examined: true,
            logged_no_transactions: Arc::default(),
            logged_no_role: Arc::default(),
            not_awaited: Arc::default(),
        }
    }

    /// How often a connection was reopened after a failure.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Where it is, without user and password.
    pub fn shown(&self) -> String {
        self.place.shown()
    }

    /// Finds the server and opens a socket to it. Each of the two may take `limit`, which is also the limit of the TLS
    /// handshake and of each write. The owner sets the limit for reads. Also returns the [generation](Place).
    pub(super) fn connect(&self, limit: Duration) -> io::Result<(Stream, u64)> {
        let Found { address, generation } = self.place.find(limit)?;
        let stream = self.connect_to(&address, limit).inspect_err(|_| self.place.note_unreachable())?;
        Ok((stream, generation))
    }

    fn connect_to(&self, address: &Address, limit: Duration) -> io::Result<Stream> {
        let mut stream = net::connect(address, limit)?;
        stream.set_keepalive(KEEPALIVE)?;
        if let Some(secure) = &self.secure {
            secure.secure(&mut stream, address, limit)?;
        }
        stream.set_write_wait(Wait::Each(limit))?;
        Ok(stream)
    }

    /// The server that has a slot: in a Redis Cluster the slot's owner, which may change, else the same one. All that
    /// are made for one slot move together.
    pub fn for_slot(&self, slot: u16) -> Server {
        Server { place: self.place.for_slot(slot), ..self.clone() }
    }

    /// The same for the slot of a key.
    pub fn for_key(&self, key: &str) -> Server {
        self.for_slot(slot_of(key.as_bytes()))
    }

    /// Whether it is a Redis Cluster, found through its nodes.
    pub fn is_cluster(&self) -> bool {
        self.place.is_cluster()
    }

    /// The address of the node that was last found to have the slot, in a Redis Cluster.
    pub fn last_node(&self) -> Option<String> {
        self.place.known().last().filter(|_| self.is_cluster()).map(|address| address.to_string())
    }

    /// The nodes and slots of the Redis Cluster, asked within `limit`; `None` if it is none.
    pub fn topology(&self, limit: Duration) -> Option<Result<Topology, Error>> {
        let told = self.place.topology(limit)?;
        Some(told.map_err(|error| self.error("asking for the cluster's slots", error)))
    }

    /// All nodes of the Redis Cluster that are known, or those of the shard with this server's slot, in both cases also
    /// some that may have left it; none if it is no cluster.
    pub(super) fn nodes(&self, of_the_shard: bool, limit: Duration) -> Result<Vec<Address>, Error> {
        let known = self.place.nodes(of_the_shard, limit);
        known.map_err(|error| self.error("asking for the cluster's nodes", error))
    }

    /// A subscription begins although these nodes, each with its problem, were not waited for. Logged once, until it is
    /// something else.
    pub(super) fn note_not_awaited(&self, problems: &[String]) {
        /// The most that are named.
        const MOST: usize = 3;
        let more = problems.len().saturating_sub(MOST);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let text = problems[..problems.len().min(MOST)].join("; ") + &more;
        let mut logged = self.not_awaited.lock();
        if *logged != text && !text.is_empty() {
            log::warn!(
                "event=bus-not-awaited problems={} note=\"a message that was published there a moment ago may be \
                 recorded twice\"",
                Quoted(&text)
            );
        }
        *logged = text;
    }

    /// The node of the Redis Cluster that owns this server's slot, asked within `limit`; `None` if it is none.
    pub fn node(&self, limit: Duration) -> Option<Result<Address, Error>> {
        let found = self.is_cluster().then(|| self.place.find(limit))?;
        Some(found.map(|found| found.address).map_err(|error| self.error("looking for a slot's node", error)))
    }

    /// What each Sentinel or node of the URL says of where it is; `None` if the URL names the server itself.
    pub(super) fn guides(&self, limit: Duration) -> Option<Guides> {
        self.place.guides(limit)
    }

    /// The server at this address, with the same user and files.
    pub(super) fn at(&self, address: Address) -> Server {
        Server { place: Place::fixed(address), ..self.clone() }
    }

    /// A subscription begins, in a Redis Cluster at this node.
    pub(super) fn note_subscribed_on(&self, node: Option<String>) {
        self.place.known().note_subscribed_on(node);
    }

    /// From now on the lane whose keys are in this server's slot listens there.
    pub fn note_planned(&self, planned: Planned) {
        self.place.known().note_planned(planned);
    }

    /// Whether the lane with this server's slot may listen on a node.
    pub(super) fn may_listen_on(&self, node: &str) -> bool {
        match self.place.known().planned() {
            Planned::Anywhere => true,
            Planned::On(planned) => planned == node,
            Planned::Nowhere => false,
        }
    }

    /// What markers name that are published by the leader with these interests.
    pub fn marked(&self, interests: &str) -> String {
        on_node(interests, self.place.known().subscribed_on().as_deref())
    }

    /// Ends this session when its generation is over, for as long as the caller keeps what it gets.
    pub(super) fn watch(&self, generation: u64, session: Closer) -> Option<Arc<Closer>> {
        self.place.watch(generation, session)
    }

    /// Whether the server is elsewhere now than where a session of this generation leads.
    pub(super) fn is_outdated(&self, generation: u64) -> bool {
        self.place.is_outdated(generation)
    }

    /// Every error reply of a session passes here. Returns whether the session must end, because this is the wrong
    /// server.
    pub(super) fn note_refusal(&self, generation: u64, failure: &Failure) -> bool {
        failure.reply_text().is_some_and(|text| self.place.note_refusal(generation, &text))
    }

    /// Notes how this server was chosen, for errors that say what to change.
    pub fn chosen(self, by: ChosenBy) -> Server {
        Server { chosen: by, ..self }
    }

    /// The same for a program whose user `oncecast doctor` does not examine, for the same errors.
    pub fn unexamined(self) -> Server {
        Server { is_examined: false, ..self }
    }

    /// Whether it is reached with TLS.
    pub fn is_secure(&self) -> bool {
        self.secure.is_some()
    }

    /// When our own certificate for it ends, in seconds since 1970, if there is one.
    pub fn certificate_end(&self) -> Option<u64> {
        self.secure.as_ref()?.certificate_end()
    }

    /// What its settings for TLS are called, for the same errors.
    pub fn tls_settings(self, tls_settings: TlsSettings) -> Server {
        Server { secure: self.secure.map(|secure| secure.with_settings(tls_settings)), ..self }
    }

    /// Appends the commands that begin every connection: the login and the database. Returns the number of replies.
    pub(super) fn greet(&self, out: &mut Vec<u8>) -> usize {
        let settings = &self.settings;
        let mut commands = log_in(out, settings.username(), settings.password());
        if settings.db() != 0 {
            command(out, &["SELECT", &settings.db().to_string()]);
            commands += 1;
        }
        commands
    }

    /// The name of the user.
    pub(super) fn user(&self) -> &str {
        self.settings.username().unwrap_or("default")
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.settings.db()
    }

    /// Whether to log that transactions are refused: `true` only for the first call in all clones.
    pub(super) fn should_log_no_transactions(&self) -> bool {
        !self.logged_no_transactions.swap(true, Ordering::Relaxed)
    }

    /// Whether a new session must find out that this is a primary.
    pub(super) fn must_be_primary(&self) -> bool {
        self.place.must_be_primary()
    }

    /// The server does not say whether it is a primary.
    pub(super) fn note_unknown_role(&self, refused: Option<&Failure>) {
        if !self.logged_no_role.swap(true, Ordering::Relaxed) {
            let reason = refused.map(Failure::to_string).unwrap_or_default();
            log::warn!(
                "event=unknown-role server={} reason={} note=\"the user needs +role, so that no connection stays at \
                 a server that is a replica by now\"",
                Quoted(&self.shown()),
                Quoted(&reason)
            );
        }
    }

    /// A connection was reopened.
    pub(super) fn note_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// What its URL is called where it was set.
    pub(super) fn setting(&self) -> UrlSetting {
        self.chosen.setting()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.shown()).finish()
    }
}
