//! TLS to Redis: every program works over it, and says what is wrong if it can't.

mod failures;
mod several;

use std::fs;
use std::process::{Command, Output};

use oncecast::lab::{Cluster, ClusterOptions, RedisOptions};

use crate::support::certificates::{Authority, redis_tls};
use crate::support::{DEADLINE, cluster_of, options, wait_for_another_leader, wait_until};

/// A cluster whose Redis has TLS and nothing else, and requires certificates of its clients.
fn cluster_over_tls() -> Cluster {
    let redis = RedisOptions { tls: Some(redis_tls(true)), ..RedisOptions::default() };
    cluster_of(ClusterOptions { redis, ..options(2, 2, "", "") })
}

/// Runs a subcommand of `oncecast` on the cluster's group.
fn tool(cluster: &mut Cluster, args: &[&str]) -> Output {
    let with_settings = cluster.command("oncecast").expect("it is built");
    let mut command = Command::new(with_settings.get_program());
    command.args(args).args(with_settings.get_args()).output().expect("it starts")
}

fn finished(mut command: Command, args: &[&str]) -> Output {
    command.args(args).output().expect("the program starts")
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_group_works_over_tls_alone_and_survives_the_death_of_its_leader() {
    const MESSAGES: &str = "6000";
    let mut cluster = cluster_over_tls();
    let ids = cluster.redis().folder().join("ids.txt");
    let ids = ids.to_str().expect("a path in UTF-8").to_owned();
    let publisher = cluster.command("oncecast-publisher").expect("it is built");
    let publishing = std::thread::spawn({
        let ids = ids.clone();
        move || finished(publisher, &["--rate", "2000", "--count", MESSAGES, "--ids-file", &ids])
    });
    cluster.wait_for(DEADLINE, "some results", |_, snapshot| (snapshot.processed > 500).then_some(())).unwrap();
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    cluster.kill_node(leader).unwrap();
    let killed = std::time::Instant::now();
    wait_for_another_leader(&mut cluster, &lease);
    // Redis sees the end of the connection, as without TLS. The lease would last longer.
    println!("another leads after {} ms", killed.elapsed().as_millis());
    let published = publishing.join().expect("no panic");
    assert_eq!(published.status.code(), Some(0), "{}", shown(&published));
    cluster.wait_for_results(MESSAGES.parse().expect("a number"), DEADLINE).unwrap();
    let audit = tool(&mut cluster, &["audit", "--ids", &ids]);
    assert_eq!(audit.status.code(), Some(0), "{}", shown(&audit));
    assert!(shown(&audit).contains("lost"), "{}", shown(&audit));
    let status = tool(&mut cluster, &["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", shown(&status));
}

#[test]
fn renewed_certificates_need_no_restart() {
    let mut cluster = cluster_over_tls();
    let folder = cluster.redis().folder().to_owned();
    // The server's certificate is renewed by another authority, and Redis restarted with it.
    let authority = Authority::new("renewed");
    let (server, client) = (authority.sign(&["127.0.0.1"]), authority.sign(&[]));
    let files = [
        ("ca.pem", authority.pem()),
        ("server.pem", server.certificate),
        ("server.key", server.key),
        ("client.pem", client.certificate),
        ("client.key", client.key),
    ];
    cluster.redis().stop().unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("a file");
    }
    cluster.redis().start_again().unwrap();
    let running = cluster.running();
    for node in running {
        let log = cluster.process(node).unwrap().stderr().clone();
        log.wait_for("event=certificates-read", DEADLINE).expect("it reads them again");
    }
    let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    wait_until("a leader that renews its lease", || {
        let snapshot = cluster.view().snapshot().ok()?;
        snapshot.lease.filter(|now| now.epoch >= lease.epoch)
    });
}
