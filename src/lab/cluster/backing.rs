//! What holds a cluster's data: one private server, a private Redis Cluster, or a server that a test has started.

use crate::base::error::{Error, Result};
use crate::lab::child::ChildProcess;
use crate::lab::cluster::options::ClusterOptions;
use crate::lab::redis::RedisServer;
use crate::lab::redis_cluster::RedisCluster;
use crate::ledger::Server;

/// See the module's text.
pub(super) enum Backing {
    Single(Box<RedisServer>),
    Cluster(Box<RedisCluster>),
    /// A server of somebody else, by its URL.
    Elsewhere(String),
}

impl Backing {
    pub(super) fn start(options: &ClusterOptions) -> Result<Backing> {
        Ok(match (&options.redis_url, &options.redis_cluster) {
            (Some(url), _) => Backing::Elsewhere(url.clone()),
            (None, Some(options)) => Backing::Cluster(Box::new(RedisCluster::start(options.clone())?)),
            (None, None) => Backing::Single(Box::new(RedisServer::start(options.redis.clone())?)),
        })
    }

    pub(super) fn url(&self) -> String {
        match self {
            Backing::Single(server) => server.url(),
            Backing::Cluster(cluster) => cluster.url(),
            Backing::Elsewhere(url) => url.clone(),
        }
    }

    /// A program's arguments for it.
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Backing::Single(server) => server.arguments(),
            Backing::Cluster(cluster) => cluster.arguments(),
            Backing::Elsewhere(_) => vec!["--redis-url".to_owned(), self.url()],
        }
    }

    /// Its address, for connections of our own.
    pub(super) fn server(&self) -> Server {
        match self {
            Backing::Single(server) => server.server(),
            Backing::Cluster(cluster) => cluster.server(),
            Backing::Elsewhere(url) => Server::parse(url).expect("the programs take it as well"),
        }
    }

    /// Its version and where it is, in words.
    pub(super) fn description(&self) -> Result<String> {
        match self {
            Backing::Single(server) => Ok(format!("{} on 127.0.0.1:{}, private", server.version()?, server.port())),
            Backing::Cluster(cluster) => {
                let version = self.version()?;
                Ok(format!("{version}, a private Redis Cluster of {} nodes on 127.0.0.1", cluster.len()))
            }
            Backing::Elsewhere(_) => self.version(),
        }
    }

    /// Its version.
    pub(super) fn version(&self) -> Result<String> {
        match self {
            Backing::Single(server) => server.version(),
            Backing::Cluster(cluster) => cluster.version(),
            Backing::Elsewhere(_) => Ok(format!("a server at {}", self.server().shown())),
        }
    }

    /// Its processes that run.
    pub(super) fn processes(&mut self) -> Box<dyn Iterator<Item = &mut ChildProcess> + '_> {
        match self {
            Backing::Single(server) => Box::new(server.process().into_iter()),
            Backing::Cluster(cluster) => Box::new(cluster.processes()),
            Backing::Elsewhere(_) => Box::new(std::iter::empty()),
        }
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        match self {
            Backing::Single(server) => server.stop(),
            Backing::Cluster(cluster) => cluster.stop(),
            Backing::Elsewhere(_) => Ok(()),
        }
    }

    /// The Redis Cluster, if it is one.
    pub(super) fn cluster(&mut self) -> Result<&mut RedisCluster> {
        match self {
            Backing::Cluster(cluster) => Ok(cluster),
            _ => Err(Error::Failed("this needs a Redis Cluster, and there is one server".to_owned())),
        }
    }
}
