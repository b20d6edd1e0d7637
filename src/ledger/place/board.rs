//! What the Sentinels have said, and which of it is believed. Pure.
//!
//! Sentinels may disagree for a while, and one that is cut off from the others goes on naming the old primary. Every
//! failover has a number, the *configuration epoch*, so the highest one is believed. One that is lower than was known
//! before is believed only if more than half of the Sentinels say so, as after they were set up anew.
//!
//! Limitation: if only Sentinels can be reached that have not heard of a failover, and this program has not either, the
//! old primary is used.

use std::time::Duration;

use super::answer::Told;
use crate::net::Address;

/// How long a Sentinel may take to answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// See the module's text.
pub(super) struct Board {
    /// The number of lookups so far. A thread asks at once if it has not answered the last one.
    pub(super) lookups: u64,
    /// Whether the threads must end.
    pub(super) stopped: bool,
    /// How many threads have ended.
    pub(super) ended: usize,
    seats: Vec<Seat>,
    /// The highest configuration epoch that was believed.
    highest: u64,
}

/// What a Sentinel has said.
struct Seat {
    sentinel: Address,
    /// The last lookup before its last answer.
    lookup: u64,
    answer: Result<Told, String>,
}

impl Board {
    /// Nobody has said anything yet.
    pub(super) fn new(sentinels: impl Iterator<Item = Address>) -> Board {
        let seat = |sentinel| Seat { sentinel, lookup: 0, answer: Err("not asked yet".to_owned()) };
        Board { lookups: 0, stopped: false, ended: 0, seats: sentinels.map(seat).collect(), highest: 0 }
    }

    /// The Sentinels' addresses.
    pub(super) fn sentinels(&self) -> String {
        let all: Vec<String> = self.seats.iter().map(|seat| seat.sentinel.to_string()).collect();
        all.join(",")
    }

    /// Whether a Sentinel has been asked for the last lookup.
    pub(super) fn has_answered(&self, seat: usize) -> bool {
        self.seats[seat].lookup >= self.lookups
    }

    /// A Sentinel was asked when there had been so many lookups.
    pub(super) fn note(&mut self, seat: usize, lookup: u64, answer: Result<Told, String>) {
        let seat = &mut self.seats[seat];
        (seat.lookup, seat.answer) = (lookup, answer);
    }

    /// Whether enough have answered a lookup: more than half of them, or everyone who can.
    pub(super) fn is_decided(&self, lookup: u64) -> bool {
        let asked = self.seats.iter().filter(|seat| seat.lookup >= lookup);
        let told = asked.clone().filter(|seat| seat.answer.is_ok()).count();
        self.is_majority(told) || asked.count() == self.seats.len()
    }

    /// Whether one has named the primary to this lookup.
    pub(super) fn is_told(&self, lookup: u64) -> bool {
        self.seats.iter().any(|seat| seat.lookup >= lookup && seat.answer.is_ok())
    }

    fn is_majority(&self, sentinels: usize) -> bool {
        2 * sentinels > self.seats.len()
    }

    /// Where the primary is by the last answers, of which some are to this lookup.
    pub(super) fn judge(&mut self, lookup: u64) -> Result<Address, String> {
        // Also those that are a moment older: the first to know of a failover may not have answered again yet.
        let answers: Vec<&Told> = self.seats.iter().filter_map(|seat| seat.answer.as_ref().ok()).collect();
        if !self.is_told(lookup) {
            return Err(self.problems(lookup));
        }
        match newest(&answers) {
            Some((newest, agree)) if newest.epoch >= self.highest || self.is_majority(agree) => {
                self.highest = newest.epoch;
                Ok(newest.address)
            }
            Some((older, agree)) => Err(format!(
                "only {agree} of {} Sentinels name {}, the primary before the last failover: more than half must",
                self.seats.len(),
                older.address
            )),
            None => Err(self.problems(lookup)),
        }
    }

    /// Where the primary is by the last answers, if they leave no doubt.
    pub(super) fn standing(&mut self) -> Option<Address> {
        let answers: Vec<&Told> = self.seats.iter().filter_map(|seat| seat.answer.as_ref().ok()).collect();
        let (newest, agree) = newest(&answers)?;
        if newest.epoch > self.highest || newest.epoch == self.highest && self.is_majority(agree) {
            self.highest = newest.epoch;
            return Some(newest.address);
        }
        None
    }

    fn problems(&self, lookup: u64) -> String {
        let problem = |seat: &Seat| match &seat.answer {
            Err(problem) if seat.lookup >= lookup => format!("{}: {problem}", seat.sentinel),
            _ => format!("{}: no answer within {} ms", seat.sentinel, ANSWER_LIMIT.as_millis()),
        };
        let problems: Vec<String> = self.seats.iter().map(problem).collect();
        format!("no Sentinel names the primary: {}", problems.join("; "))
    }
}

/// The answer with the highest epoch, and how many agree. During a failover its leader names the promoted server
/// before the others do, with the new epoch.
fn newest(answers: &[&Told]) -> Option<(Told, usize)> {
    let agreeing = |told: &Told| answers.iter().filter(|other| **other == told).count();
    let newest = answers.iter().max_by_key(|told| (told.epoch, agreeing(told)))?;
    Some(((*newest).clone(), agreeing(newest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp { host: "h".to_owned(), port }
    }

    fn told(epoch: u64, port: u16) -> Result<Told, String> {
        Ok(Told { epoch, address: at(port) })
    }

    fn down() -> Result<Told, String> {
        Err("down".to_owned())
    }

    /// A lookup that gets these answers.
    fn ask(board: &mut Board, answers: [Result<Told, String>; 3]) -> Result<Address, String> {
        board.lookups += 1;
        for (seat, answer) in answers.into_iter().enumerate() {
            board.note(seat, board.lookups, answer);
        }
        assert!(board.is_decided(board.lookups));
        board.judge(board.lookups)
    }

    fn board() -> Board {
        Board::new((1..=3).map(at))
    }

    #[test]
    fn the_newest_failover_is_believed() {
        let mut board = board();
        assert_eq!(ask(&mut board, [told(0, 10), told(0, 11), told(0, 11)]), Ok(at(11)), "without epochs the most");
        assert_eq!(ask(&mut board, [told(1, 10), told(2, 11), told(1, 10)]), Ok(at(11)), "even if one says so");
        assert_eq!(ask(&mut board, [down(), told(2, 11), down()]), Ok(at(11)));
        let partitioned = ask(&mut board, [told(1, 10), down(), down()]).expect_err("an old one");
        assert!(partitioned.contains("only 1 of 3") && partitioned.contains("h:10"), "{partitioned}");
        let divided = ask(&mut board, [told(0, 12), told(1, 11), told(0, 12)]).expect_err("one of three says so");
        assert!(divided.contains("only 1 of 3") && divided.contains("h:11"), "{divided}");
        assert_eq!(ask(&mut board, [told(0, 12), told(0, 12), down()]), Ok(at(12)), "they were set up anew");
    }

    #[test]
    fn without_an_answer_each_problem_is_named() {
        let mut board = board();
        board.lookups = 1;
        board.note(0, 1, Err("it knows no primary of this name".to_owned()));
        board.note(1, 1, down());
        assert!(!board.is_decided(1), "the third may still answer");
        let problem = board.judge(1).expect_err("no answer");
        for part in ["h:1: it knows no primary of this name", "h:2: down", "h:3: no answer within 500 ms"] {
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn a_failover_is_noticed_without_a_lookup() {
        let mut board = board();
        ask(&mut board, [told(1, 10), told(1, 10), told(1, 10)]).expect("they agree");
        assert_eq!(board.standing(), Some(at(10)));
        board.note(0, 1, told(2, 11));
        assert_eq!(board.standing(), Some(at(11)), "the first to know suffices");
        assert_eq!(board.standing(), None, "no doubt is left only when most agree");
        board.note(1, 1, told(2, 11));
        assert_eq!(board.standing(), Some(at(11)));
        board.note(2, 1, told(1, 10));
        assert_eq!(board.standing(), Some(at(11)), "a late one changes nothing");

        board.lookups = 2;
        board.note(2, 1, told(3, 12));
        assert_eq!(board.standing(), Some(at(12)));
        board.note(0, 2, told(2, 11));
        board.note(1, 2, told(2, 11));
        assert!(board.is_decided(2));
        assert_eq!(board.judge(2), Ok(at(12)), "two that have not heard of it yet don't undo it");
    }
}
