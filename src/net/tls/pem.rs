//! Reads certificates and keys from PEM files. An error names the file and what is wrong with it.

use std::fs;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::net::tls_files::{FileProblem, Identity, PemFile};

/// A larger file is not one of certificates: the bundles of systems have about 200 KiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The authorities in a file.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, FileProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, PemFile::Roots)? {
        let added = roots.add(certificate);
        added
            .map_err(|error| problem(PemFile::Roots, path, format_args!("a certificate in it is damaged: {error}")))?;
    }
    Ok(roots)
}

/// The authorities that the system trusts, for instance those of the package ca-certificates.
pub(super) fn system_roots() -> Result<RootCertStore, FileProblem> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
    let text = format!("no file, and this system has no certificates of authorities{why}: install ca-certificates");
    Err(FileProblem { file: PemFile::Roots, text })
}

/// The certificate and its key. Whether they belong together is checked by who uses them.
pub(super) fn identity(
    files: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), FileProblem> {
    let chain = certificates(&files.certificate, PemFile::Certificate)?;
    let path = &files.key;
    let text = read(path, PemFile::Key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let has = |begin: &[u8]| text.windows(begin.len()).any(|part| part == begin);
        match () {
            () if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") => {
                problem(PemFile::Key, path, "the key in it is encrypted; decrypt it with openssl pkey")
            }
            () if has(b"BEGIN CERTIFICATE") => problem(PemFile::Key, path, "it holds a certificate and no key"),
            () => problem(PemFile::Key, path, format_args!("no key in PEM is in it ({error})")),
        }
    })?;
    Ok((chain, key))
}

/// A certificate and a key that don't fit.
pub(super) fn unfit(files: &Identity, error: &rustls::Error) -> FileProblem {
    let certificate = files.certificate.display();
    match error {
        rustls::Error::InconsistentKeys(_) => {
            problem(PemFile::Key, &files.key, format_args!("it is not the key of the certificate in {certificate}"))
        }
        other => problem(PemFile::Certificate, &files.certificate, format_args!("it can't be used: {other}")),
    }
}

fn certificates(path: &Path, file: PemFile) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    let text = read(path, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| problem(file, path, format_args!("it is damaged ({error})")))?;
    match found.is_empty() {
        true => Err(problem(file, path, "no certificate in PEM is in it (-----BEGIN CERTIFICATE-----)")),
        false => Ok(found),
    }
}

fn read(path: &Path, file: PemFile) -> Result<Vec<u8>, FileProblem> {
    let size = fs::metadata(path).map_err(|error| problem(file, path, error))?;
    if !size.is_file() {
        return Err(problem(file, path, "it is not a file"));
    }
    if size.len() > MAX_FILE_BYTES {
        return Err(problem(file, path, "it is too large"));
    }
    fs::read(path).map_err(|error| problem(file, path, error))
}

fn problem(file: PemFile, path: &Path, why: impl std::fmt::Display) -> FileProblem {
    FileProblem { file, text: format!("{}: {why}", path.display()) }
}
