//! The courier follows the roster: new members get a link, and members that leave are drained.
//!
//! A member that leaves is given nothing more. It is released once it has answered for everything that it still
//! reports, or when its link is lost, which settles its messages as always. A member that leaves and is not linked when
//! a term begins may hold messages of an earlier term, so it is dialed like the others until the consumers have
//! reported.

use tungstenite::WebSocket;

use super::Courier;
use super::links::log_strays;
use crate::base::text::Quoted;
use crate::lane::roster::Change;
use crate::net::Stream;

impl Courier {
    /// Sees what has changed since the last iteration.
    pub(super) fn follow_roster(&mut self) {
        for change in self.roster.changes() {
            match change {
                Change::Added(member) => {
                    self.links.open(member.id.slot);
                    self.consumer_reports.expect(member.id.slot);
                    self.dialing.request(member.id, None);
                }
                Change::Leaves(member) => self.set_leaving(member.id.slot, true),
                Change::Stays(member) => self.set_leaving(member.id.slot, false),
            }
        }
    }

    fn set_leaving(&mut self, slot: usize, leaving: bool) {
        if let Some(link) = self.links.get_mut(slot) {
            link.set_leaving(leaving);
            self.shared.note_change();
        }
    }

    /// Releases the members that leave and hold nothing more.
    pub(super) fn release_leaving(&mut self) {
        if !self.consumer_reports.is_complete() {
            return;
        }
        for slot in self.roster.leaving() {
            match self.links.get(slot) {
                Some(link) if link.is_finished() => self.close_drained(slot),
                Some(_) => {}
                None => drop(self.release(slot, None)),
            }
        }
    }

    /// Closes the link of a consumer that leaves and holds nothing.
    fn close_drained(&mut self, slot: usize) {
        let Some(mut link) = self.links.take(slot) else { return };
        log_strays(link.strays.rest(), &link.consumer);
        self.sockets.remove(link.socket.stream());
        log::info!("event=consumer-drained consumer={}", Quoted(&link.consumer));
        self.list_members();
        self.dial_again(slot, Some(link.into_socket()));
    }

    /// The link in a slot has ended. The consumer gets another one, unless it leaves.
    pub(super) fn dial_again(&mut self, slot: usize, farewell: Option<WebSocket<Stream>>) {
        let Some(id) = self.roster.get(slot).map(|member| member.id) else { return };
        if let Some(farewell) = self.release(slot, farewell) {
            self.dialing.request(id, farewell);
        }
    }

    /// Frees the slot of a member that leaves, and ends its dialer. Gives the connection back if it stays after all.
    fn release(&mut self, slot: usize, farewell: Option<WebSocket<Stream>>) -> Option<Option<WebSocket<Stream>>> {
        let Some(member) = self.roster.release(slot) else { return Some(farewell) };
        self.dialing.end(member.id, farewell);
        self.shared.stats.unproven.lock().remove(&member.to_string());
        self.shared.note_change();
        log::info!("event=consumer-removed address={member}");
        None
    }
}
