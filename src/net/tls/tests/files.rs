//! Files that can't be used, and files that change.

use super::*;
use crate::net::{FileProblem, PemFile};

#[test]
fn a_file_that_can_not_be_used_is_named_with_the_reason() {
    let folder = Folder::new();
    let ca = folder.authority("ca");
    let own = folder.identity(&ca, "own", &[], |_| {});
    let other = folder.identity(&ca, "other", &[], |_| {});
    let text = folder.write("text", "no certificate\n");
    let damaged = folder.write("damaged", "-----BEGIN CERTIFICATE-----\nAAA\n");
    let locked =
        folder.write("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let nowhere = folder.path("nowhere");
    let of_roots = |roots: &Path| ClientTls::load(ClientFiles { roots: Some(roots.to_owned()), identity: None });
    let of_own = |certificate: &Path, key: &Path| {
        let identity = Identity { certificate: certificate.to_owned(), key: key.to_owned() };
        ClientTls::load(ClientFiles { roots: Some(folder.path("ca.pem")), identity: Some(identity) })
    };
    for (outcome, file, path, said) in [
        (of_roots(&nowhere), PemFile::Roots, &nowhere, "No such file"),
        (of_roots(&folder.0), PemFile::Roots, &folder.0, "not a file"),
        (of_roots(&text), PemFile::Roots, &text, "no certificate in PEM"),
        (of_roots(&damaged), PemFile::Roots, &damaged, "damaged"),
        (of_roots(&own.key), PemFile::Roots, &own.key, "no certificate in PEM"),
        (of_own(&text, &own.key), PemFile::Certificate, &text, "no certificate in PEM"),
        (of_own(&own.certificate, &nowhere), PemFile::Key, &nowhere, "No such file"),
        (of_own(&own.certificate, &own.certificate), PemFile::Key, &own.certificate, "a certificate and no key"),
        (of_own(&own.certificate, &locked), PemFile::Key, &locked, "encrypted"),
        (of_own(&own.certificate, &text), PemFile::Key, &text, "no key"),
        (of_own(&own.certificate, &other.key), PemFile::Key, &other.key, "not the key of the certificate in"),
    ] {
        let FileProblem { file: named, text } = outcome.expect_err("it can't be used");
        assert_eq!(named, file, "{text}");
        assert!(text.contains(&path.display().to_string()) && text.contains(said), "{said}: {text}");
    }
    of_own(&own.certificate, &own.key).expect("good files");
}

#[test]
fn changed_files_are_used_for_the_next_connection_if_they_are_good() {
    let folder = Folder::new();
    let (ca, new) = (folder.authority("ca"), folder.authority("new"));
    let identity = folder.identity(&ca, "server", &["127.0.0.1"], |_| {});
    let server = server_tls(identity.clone(), None);
    let client = client_tls(&folder.path("ca.pem"), None);
    let shakes = || {
        let (mut near, mut far) = sockets();
        shake(&mut near, &client, &mut far, &server).0.is_ok()
    };
    assert!(shakes());
    // Renewed by another authority: first the certificate, then its key. In between the old ones are used.
    let renewed = folder.identity(&new, "renewed", &["127.0.0.1"], |_| {});
    fs::rename(&renewed.certificate, &identity.certificate).expect("a file");
    assert!(shakes());
    fs::rename(&renewed.key, &identity.key).expect("a file");
    assert!(!shakes(), "the client does not know the new authority");
    fs::rename(folder.path("new.pem"), folder.path("ca.pem")).expect("a file");
    assert!(shakes());
    fs::remove_file(folder.path("ca.pem")).expect("a file");
    assert!(shakes(), "a file that is gone changes nothing");
}
