//! Certificates made for one run: an authority, and what it signs.

use oncecast::lab::{PemPair, RedisTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these hosts and addresses; for clients none are needed.
    pub fn sign(&self, hosts: &[&str]) -> PemPair {
        self.sign_with(hosts, |_| {})
    }

    /// One that is no longer valid.
    pub fn sign_expired(&self, hosts: &[&str]) -> PemPair {
        self.sign_with(hosts, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// One that is valid until a year begins.
    pub fn sign_until(&self, hosts: &[&str], year: i32) -> PemPair {
        self.sign_with(hosts, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    fn sign_with(&self, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> PemPair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("it is signed").pem();
        PemPair { certificate, key: key.serialize_pem() }
    }
}

/// Where tests reach a private Redis: on this machine, and in a network of the fault matrix.
const HOSTS: [&str; 2] = ["127.0.0.1", "198.18.0.1"];

/// TLS of a private Redis, beside a port without it for the test, or alone. Clients need a certificate.
pub fn redis_tls(only: bool) -> RedisTls {
    let authority = Authority::new("authority");
    RedisTls { server: authority.sign(&HOSTS), client: Some(authority.sign(&[])), authority: authority.pem(), only }
}
