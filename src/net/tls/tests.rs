//! TLS between two streams of this process.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::{ClientTls, ServerTls};
use crate::base::tls::TlsProblem;
use crate::net::{ClientFiles, Identity, ServerFiles, Stream, Wait};

mod failures;
mod files;
mod traffic;

const LONG: Duration = Duration::from_secs(60);

/// A folder with certificates, removed on drop.
struct Folder(PathBuf);

/// An authority, which writes its own certificate as `<name>.pem`.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("oncecast-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("a file");
        self.path(name)
    }

    fn authority(&self, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        self.write(&format!("{name}.pem"), &issuer.pem());
        Authority { issuer }
    }

    /// A certificate `<name>.pem` for these hosts, and its key `<name>.key`.
    fn identity(
        &self,
        authority: &Authority,
        name: &str,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &authority.issuer).expect("it is signed");
        Identity {
            certificate: self.write(&format!("{name}.pem"), &certificate.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn client_tls(roots: &Path, identity: Option<Identity>) -> ClientTls {
    ClientTls::load(ClientFiles { roots: Some(roots.to_owned()), identity }).expect("good files")
}

fn server_tls(identity: Identity, client_roots: Option<PathBuf>) -> ServerTls {
    ServerTls::load(ServerFiles { identity, client_roots }).expect("good files")
}

/// Two connected streams without TLS.
fn sockets() -> (Stream, Stream) {
    let (near, far) = raw_sockets();
    (Stream::over_tcp(near).expect("options"), Stream::over_tcp(far).expect("options"))
}

fn raw_sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    (near, listener.accept().expect("it connected").0)
}

/// The outcomes of a handshake at both ends of these.
fn shake(
    near: &mut Stream,
    client: &ClientTls,
    far: &mut Stream,
    server: &ServerTls,
) -> (io::Result<()>, io::Result<()>) {
    let deadline = Instant::now() + LONG;
    thread::scope(|scope| {
        let serving = scope.spawn(move || far.secure_as_server(server, deadline));
        let outcome = near.secure(client, "127.0.0.1", deadline);
        (outcome, serving.join().expect("no panic"))
    })
}

/// A client and a server that trust each other.
fn secured() -> (Stream, Stream) {
    let folder = Folder::new();
    let ca = folder.authority("ca");
    let server = server_tls(folder.identity(&ca, "server", &["127.0.0.1"], |_| {}), None);
    let client = client_tls(&folder.path("ca.pem"), None);
    let (mut near, mut far) = sockets();
    let (ours, theirs) = shake(&mut near, &client, &mut far, &server);
    ours.expect("the server is trusted");
    theirs.expect("no certificate is required");
    (near, far)
}

fn problem(error: &io::Error) -> &TlsProblem {
    TlsProblem::of(error).unwrap_or_else(|| panic!("not of TLS: {error}"))
}
