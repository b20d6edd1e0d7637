//! A group whose processes have the names of prometheus.yml, and the events that the test causes.

use std::collections::BTreeMap;
use std::fs;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, Cluster, PemPair, Signal, ports};

use crate::monitoring::prometheus::get;
use crate::support::certificates::Authority;
use crate::support::{DEADLINE, bare_cluster, client, publish_payloads, run, wait_until};

/// The processes that prometheus.yml names, each with metrics on a port of its own.
pub struct Group {
    // Processes before the server, so that they end before it.
    processes: BTreeMap<&'static str, ChildProcess>,
    pub ports: BTreeMap<&'static str, u16>,
    listens: Vec<u16>,
    /// What dispatchers do with messages: the arguments for consumers or a stream.
    delivery: String,
    cluster: Cluster,
    /// The certificate of the first consumer, and its authority.
    certificates: PrivateFolder,
}

const DISPATCHERS: [&str; 2] = ["dispatcher-0", "dispatcher-1"];
const CONSUMERS: [&str; 3] = ["consumer-0", "consumer-1", "consumer-2"];

impl Group {
    pub fn start() -> Group {
        let port = |_: &&str| ports::free_port().expect("a free port");
        let names = DISPATCHERS.into_iter().chain(CONSUMERS).chain(["publisher"]);
        let ports = names.map(|name| (name, port(&name))).collect();
        let listens: Vec<u16> = CONSUMERS.iter().map(port).collect();
        let addresses: Vec<String> = listens.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let certificates = certificates();
        let authority = certificates.path().join("ca.pem");
        let list = certificates.path().join("consumers");
        fs::write(&list, &addresses[2]).expect("the folder is there");
        // One has TLS, one is found in a file.
        let [first, second, _] = addresses.as_slice() else { panic!("{addresses:?}") };
        let consumers = format!("wss://{first},{second},file:{}", list.display());
        let delivery = format!("--consumers {consumers} --tls-ca {}", authority.display());
        let cluster = bare_cluster();
        let mut group = Group { processes: BTreeMap::new(), ports, listens, delivery, cluster, certificates };
        CONSUMERS.into_iter().chain(DISPATCHERS).for_each(|name| group.launch(name));
        wait_until("a dispatcher to lead and all to be linked", || {
            let links = DISPATCHERS.iter().filter_map(|name| group.figure(name, "oncecast_consumers"));
            (links.sum::<f64>() == 3.0).then_some(())
        });
        group.launch("publisher");
        group
    }

    fn launch(&mut self, name: &'static str) {
        let metrics = format!("127.0.0.1:{}", self.ports[name]);
        let (program, arguments) = match name.split_once('-') {
            Some(("dispatcher", _)) => ("oncecast-dispatcher", format!("--dispatcher-id {name} {}", self.delivery)),
            Some((_, number)) => {
                let number: usize = number.parse().expect("a consumer has a number");
                let tls = if number == 0 { self.tls() } else { String::new() };
                let listen = format!("--consumer-id {name} --listen 127.0.0.1:{}{tls}", self.listens[number]);
                ("oncecast-consumer", listen)
            }
            None => ("oncecast-publisher", "--rate 2000".to_owned()),
        };
        let mut command = self.cluster.command(program).expect("the programs are built");
        command.args(arguments.split(' ')).args(["--metrics-addr", &metrics]);
        self.processes.insert(name, ChildProcess::spawn(name, command).expect("it starts"));
    }

    /// The arguments for the certificate.
    fn tls(&self) -> String {
        let file = |name: &str| self.certificates.path().join(name).display().to_string();
        format!(" --tls-cert {} --tls-key {}", file("consumer.pem"), file("consumer.key"))
    }

    /// A metric from the process itself; `name` includes the labels.
    fn figure(&self, instance: &str, name: &str) -> Option<f64> {
        let text = get(self.ports[instance], "/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The dispatcher that leads.
    fn leader(&self) -> &'static str {
        wait_until("a dispatcher to lead", || {
            DISPATCHERS.into_iter().find(|name| self.figure(name, "oncecast_leader") == Some(1.0))
        })
    }

    /// A consumer hangs while it holds messages. They go to others once its link is closed.
    pub fn redeliver(&mut self) {
        let hung = self.processes.get_mut("consumer-2").expect("it runs");
        hung.signal(Signal::SIGSTOP).expect("it stops");
        wait_until("its messages to go out again", || {
            let again = DISPATCHERS.iter().filter_map(|name| self.figure(name, "oncecast_messages_redelivered_total"));
            (again.sum::<f64>() > 0.0).then_some(())
        });
        self.processes.get_mut("consumer-2").expect("it runs").kill().expect("it dies");
        self.launch("consumer-2");
    }

    /// A message that is too large becomes a dead letter.
    pub fn make_dead_letter(&mut self) {
        let connection = &mut client(&self.cluster.redis_url());
        let heard = publish_payloads(connection, ["x".repeat((8 << 20) + 1)]);
        assert_eq!(heard, 2, "both dispatchers hear it");
        wait_until("a dead letter", || {
            let dead: u64 = run(connection, &["XLEN", "messages:dead"]);
            (dead == 1).then_some(())
        });
    }

    /// The leader dies, the other leads, and the former one comes back.
    pub fn change_leader(&mut self) {
        let former = self.leader();
        self.processes.get_mut(former).expect("it runs").kill().expect("it dies");
        self.processes.remove(former);
        let next = self.leader();
        assert_ne!(former, next);
        self.launch(former);
        wait_until("the former leader to be in sync", || {
            (self.figure(former, "oncecast_in_sync") == Some(1.0)).then_some(())
        });
    }

    /// The dispatchers are restarted one after the other, and then add messages to a stream.
    pub fn switch_to_a_stream(&mut self) {
        "--deliver stream".clone_into(&mut self.delivery);
        let leader = self.leader();
        for name in DISPATCHERS.into_iter().filter(|name| *name != leader).chain([leader]) {
            let mut former = self.processes.remove(name).expect("it runs");
            assert!(former.stop(DEADLINE).expect("it ends").success());
            self.launch(name);
            wait_until("it to be in sync or to lead", || {
                let figure = |figure| self.figure(name, figure);
                (figure("oncecast_in_sync")? + figure("oncecast_leader")? > 0.0).then_some(())
            });
        }
    }
}

/// A certificate for loopback, its key, and its authority.
fn certificates() -> PrivateFolder {
    let folder = PrivateFolder::create("certificates").expect("a folder");
    let authority = Authority::new("authority");
    let PemPair { certificate, key } = authority.sign(&["127.0.0.1"]);
    for (name, text) in [("ca.pem", authority.pem()), ("consumer.pem", certificate), ("consumer.key", key)] {
        fs::write(folder.path().join(name), text).expect("the folder can be written to");
    }
    folder
}
