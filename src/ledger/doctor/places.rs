//! The servers beside the one that is used now: those that say where it is, and those that may take its place. Each is
//! asked for itself: programs work while some of them fail, and stop at the next failover.

use redis::Value;

use super::finding::{Finding, Remedy};
use super::nodes;
use super::patient::Patient;
use super::place::{ANSWER_LIMIT, Place, Places};
use super::reply::told;
use super::server::greet;
use crate::base::refusal::Refusal;
use crate::ledger::command::Command;
use crate::ledger::connection::Connection;
use crate::ledger::server::{Guides, Witness};
use crate::ledger::value::text;
use crate::net::Address;

/// Asks all of them. Also returns those that may take the server's place and accept the login.
pub(super) fn look(patient: &Patient<'_>, connection: &mut Connection) -> (Places, Vec<Address>) {
    let mut places = Places::default();
    let others = match patient.server.guides(ANSWER_LIMIT) {
        None => Vec::new(),
        Some(Guides::Sentinels(said)) => {
            places.add_sentinels(&said);
            let replicas = replicas(connection);
            replicas.into_iter().filter(|replica| places.add_replica(patient, replica)).collect()
        }
        Some(Guides::Nodes(said)) => nodes::add(&mut places, patient, said),
    };
    (places, others)
}

impl Places {
    fn add_sentinels(&mut self, said: &[(Address, Result<Witness, String>)]) {
        for (address, witness) in said {
            let says = witness.as_ref().map_err(String::clone).map(|witness| {
                let Witness { primary, epoch, hides_epoch } = witness;
                let known = match hides_epoch {
                    true => "its user lacks +sentinel|master, without which an old answer passes for a new one".into(),
                    false => format!("failover {epoch}"),
                };
                format!("names {primary} ({known})")
            });
            self.each.push(Place { kind: "sentinel", address: address.to_string(), says });
        }
        let named: Vec<&Witness> = said.iter().filter_map(|(_, witness)| witness.as_ref().ok()).collect();
        let agree = |one: &Witness| named.iter().filter(|other| other.primary == one.primary).count();
        let most = named.iter().map(|one| agree(one)).max().unwrap_or(0);
        if 2 * most <= said.len() {
            self.problems.push(format!(
                "only {most} of {} Sentinels name the same primary: with half of them or fewer there is no failover, \
                 and an old primary may pass for the present one",
                said.len()
            ));
        }
    }

    /// Whether a replica accepts the login.
    fn add_replica(&mut self, patient: &Patient<'_>, replica: &Address) -> bool {
        let mut connection = Connection::new(patient.server.at(replica.clone()), ANSWER_LIMIT);
        let says = match greet(&mut connection) {
            Ok(()) => Ok(format!("accepts the user {}", patient.user())),
            Err(error) => Err(match error.refusal() {
                Some(Refusal::Login) => {
                    format!("{}; users are not replicated: set them on every server", told(&error))
                }
                _ => told(&error),
            }),
        };
        let works = says.is_ok();
        if let Err(problem) = &says {
            self.problems.push(format!("after a failover to {replica} no program would work: {problem}"));
        }
        self.each.push(Place { kind: "replica", address: replica.to_string(), says });
        works
    }
}

/// The finding for a user who may not ask the nodes of a Redis Cluster for the slots' owners.
pub(super) fn no_right_to_slots(user: &str) -> Finding {
    let problem = format!("the user {user} may not call CLUSTER SLOTS, which every program needs on every node");
    Finding::stops(problem, Remedy::Grant("+cluster|slots".to_owned()))
}

/// The replicas that are connected to the server, as it tells itself.
fn replicas(connection: &mut Connection) -> Vec<Address> {
    let Ok(Value::Array(role)) = connection.query("asking for the role", Command::of(&["ROLE"])) else {
        return Vec::new();
    };
    let Some(Value::Array(replicas)) = role.get(2) else { return Vec::new() };
    let address = |replica: &Value| {
        let Value::Array(words) = replica else { return None };
        let [host, port, ..] = words.as_slice() else { return None };
        Some(Address::Tcp { host: text(host)?.to_owned(), port: text(port)?.parse().ok()? })
    };
    replicas.iter().filter_map(address).collect()
}
