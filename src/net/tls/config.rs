//! Who is trusted, and who we are: the configurations of clients and servers, made from PEM files, and anew when these
//! have changed (see [`Kept`]). Any thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};

use super::der;
use super::pem;
use crate::net::kept::{Kept, Words};
use crate::net::tls_files::{ClientFiles, FileProblem, ServerFiles};

/// How long the system's authorities are used before they are read again.
const SYSTEM_ROOTS_FOR: Duration = Duration::from_secs(3_600);

const WORDS: Words = Words { read: "event=certificates-read", unusable: "event=certificates-unusable" };

/// What was made of the files.
struct Configured<C> {
    config: Arc<C>,
    /// When our own certificate ends, in seconds since 1970.
    certificate_end: Option<u64>,
}

/// What a client trusts, and its own certificate. Clones share what was read.
#[derive(Clone)]
pub struct ClientTls(Arc<Kept<ClientFiles, Configured<ClientConfig>, FileProblem>>);

impl ClientTls {
    /// Reads the files.
    pub fn load(files: ClientFiles) -> Result<ClientTls, FileProblem> {
        let named = [files.roots.clone()].into_iter().flatten();
        let own = files.identity.iter().flat_map(|own| [own.certificate.clone(), own.key.clone()]);
        let paths = named.chain(own).collect();
        let refresh = files.roots.is_none().then_some(SYSTEM_ROOTS_FOR);
        Ok(ClientTls(Arc::new(Kept::load(files, paths, refresh, client_config, WORDS)?)))
    }

    /// Whether there is a certificate of our own.
    pub fn is_named(&self) -> bool {
        self.0.files.identity.is_some()
    }

    /// For a new connection.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.0.current().config.clone()
    }

    /// When our own certificate ends, in seconds since 1970, if there is one.
    pub fn certificate_end(&self) -> Option<u64> {
        self.0.current().certificate_end
    }

    /// Where the authorities are from.
    pub(super) fn trusted(&self) -> String {
        match &self.0.files.roots {
            Some(path) => path.display().to_string(),
            None => "this system's list".to_owned(),
        }
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(&self.0.files).finish()
    }
}

fn client_config(files: &ClientFiles) -> Result<Configured<ClientConfig>, FileProblem> {
    let mut certificate_end = None;
    let roots = files.roots.as_deref().map_or_else(pem::system_roots, pem::roots)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for both versions")
        .with_root_certificates(roots);
    let mut config = match &files.identity {
        Some(own) => {
            let (chain, key) = pem::identity(own)?;
            certificate_end = der::not_after(&chain[0]);
            builder.with_client_auth_cert(chain, key).map_err(|error| pem::unfit(own, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    // Connections are few and long. Without it both sides check certificates anew each time, and servers that ask for
    // certificates but have no name for their sessions don't refuse us.
    config.resumption = Resumption::disabled();
    Ok(Configured { config: Arc::new(config), certificate_end })
}

/// A server's certificate, and whether it requires one of its clients. Clones share what was read.
#[derive(Clone)]
pub struct ServerTls(Arc<Kept<ServerFiles, Configured<ServerConfig>, FileProblem>>);

impl ServerTls {
    /// Reads the files.
    pub fn load(files: ServerFiles) -> Result<ServerTls, FileProblem> {
        let own = [files.identity.certificate.clone(), files.identity.key.clone()];
        let paths = own.into_iter().chain(files.client_roots.clone()).collect();
        Ok(ServerTls(Arc::new(Kept::load(files, paths, None, server_config, WORDS)?)))
    }

    /// For a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.0.current().config.clone()
    }

    /// When our own certificate ends, in seconds since 1970.
    pub fn certificate_end(&self) -> Option<u64> {
        self.0.current().certificate_end
    }

    /// Whether clients need a certificate.
    pub fn requires_certificates(&self) -> bool {
        self.0.files.client_roots.is_some()
    }

    /// Where the clients' authorities are from.
    pub(super) fn trusted(&self) -> String {
        self.0.files.client_roots.as_ref().map_or(String::new(), |path| path.display().to_string())
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.0.files).finish()
    }
}

fn server_config(files: &ServerFiles) -> Result<Configured<ServerConfig>, FileProblem> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for both versions");
    let builder = match &files.client_roots {
        Some(path) => {
            let roots = Arc::new(pem::roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.expect("there is an authority, and no list of revocations"))
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = pem::identity(&files.identity)?;
    let certificate_end = der::not_after(&chain[0]);
    let mut config = builder.with_single_cert(chain, key).map_err(|error| pem::unfit(&files.identity, &error))?;
    // As for clients: nothing is resumed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Configured { config: Arc::new(config), certificate_end })
}
