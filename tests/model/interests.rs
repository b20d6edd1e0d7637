//! Interests: dispatchers of one group count different messages, and restart with other interests.
//!
//! A small search of its own. It calls the ring's `Timeline`, `Interests::owner` and `precedence::wait`. What is
//! published arrives everywhere at once, and a takeover is one step with its marker; the large model has both apart.

use std::time::{Duration, Instant};

use oncecast::lane::precedence;
use oncecast::lane::ring::{Found, Mark, RingPlace, Standing, Timeline};
use oncecast::ledger::{Glob, Interests};
use stateright::{Checker, HasDiscoveries, Model, Property};

const ONCE: &str = "no message is stored twice";
const NONE_LOST: &str = "after clean stops alone, what a living dispatcher received is stored if all interests name it";
const NOT_SILENT: &str = "what a living dispatcher received and all interests name is stored or lies in a gap";
/// Both sets name the first, one set names each of the others.
const CHANNELS: [&[u8]; 3] = [b"ac", b"ad", b"bx"];

/// A rule that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Only the copy of a message's owner counts.
    OwnerOnly,
    /// A leader that stops stores what comes before its last marker, and moves the cursor to it.
    CleanEndAtMarker,
    /// A marker of other interests names its own place and nothing after it.
    ForeignMarkerNamesItsPlace,
    /// From a cursor of other interests with an offset a leader continues at the next marker of those interests.
    ForeignCursorContinuesAtNextMarker,
    /// A leader stores nothing beyond a join marker of other interests until a marker of its own follows.
    JoinIsMarked,
    /// Not a rule of the code: a batch is as large as what is there.
    WholeBatches,
}

/// Rising numbers; all count as leaders' markers, except those of joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name {
    number: u8,
    joins: bool,
}

impl Mark for Name {
    type LeaderPlace = u8;

    fn leader_place(&self) -> Option<u8> {
        (!self.joins).then_some(self.number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Dispatcher {
    /// The index of its interests.
    set: usize,
    joined: u8,
    timeline: Timeline<Name, u8>,
    leads_at: Option<RingPlace>,
    ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    dispatchers: [Option<Dispatcher>; 2],
    cursor: Option<(Name, u64)>,
    stored: [u8; 3],
    /// The dispatchers that received a message and live.
    hearers: [u8; 3],
    /// Messages before the end of a recorded gap.
    gaps: u8,
    /// The channels of what was published.
    published: Vec<usize>,
    markers: u8,
    starts: u8,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Publish { channel: usize, reversed: bool },
    Start { dispatcher: usize, set: usize },
    Crash(usize),
    Acquire(usize),
    Store(usize),
    Mark(usize),
    End(usize),
    Release(usize),
}

struct Search {
    sets: [Interests; 2],
    missing: Option<Rule>,
    starts: u8,
    crashes: u8,
    messages: usize,
}

impl Search {
    fn new(missing: Option<Rule>, starts: u8, crashes: u8, messages: usize) -> Search {
        let globs = |texts: &[&[u8]]| texts.iter().map(|text| Glob::parse(text).expect("a pattern")).collect();
        let a = Interests::of(Vec::new(), globs(&[b"a*", b"*c"]));
        let b = Interests::of(vec![b"ac".to_vec()], globs(&[b"b*", b"*c"]));
        Search { sets: [a.expect("good ones"), b.expect("good ones")], missing, starts, crashes, messages }
    }

    fn has(&self, rule: Rule) -> bool {
        self.missing != Some(rule)
    }

    /// How often a dispatcher counts a message: once for each copy that counts.
    fn counted(&self, set: usize, channel: usize, reversed: bool) -> usize {
        let (set, name) = (&self.sets[set], CHANNELS[channel]);
        let matching = |text: &&[u8]| Glob::parse(text).expect("a pattern").matches(name);
        let named = set.channels().filter(|named| *named == name).map(|_| None);
        let mut copies: Vec<Option<&[u8]>> = named.chain(set.patterns().filter(matching).map(Some)).collect();
        if reversed {
            copies.reverse();
        }
        // Without the rule every copy counts.
        copies.into_iter().filter(|copy| !self.has(Rule::OwnerOnly) || set.is_owners(set.owner(name), *copy)).count()
    }

    fn is_named_by_all(&self, channel: usize) -> bool {
        (0..self.sets.len()).all(|set| self.counted(set, channel, false) > 0)
    }

    fn publish_marker(&self, world: &mut World, by: usize, joins: bool) -> Name {
        world.markers += 1;
        let name = Name { number: world.markers, joins };
        let set = world.dispatchers[by].as_ref().expect("it lives").set;
        for dispatcher in world.dispatchers.iter_mut().flatten() {
            if dispatcher.set == set || !self.has(Rule::ForeignMarkerNamesItsPlace) {
                dispatcher.timeline.mark(name);
            } else {
                dispatcher.timeline.mark_other(name, set as u64);
            }
        }
        name
    }

    fn resolve(&self, world: &World, d: usize) -> Option<(RingPlace, Standing, bool)> {
        let timeline = &world.dispatchers[d].as_ref()?.timeline;
        let live = timeline.live()?;
        let name = world.cursor.map(|(marker, offset)| {
            let is_others = live.find_other(&marker).is_some();
            let from_marker = is_others && !self.has(Rule::ForeignCursorContinuesAtNextMarker);
            (marker, if from_marker { 0 } else { offset })
        });
        let found = timeline.resolve(name.as_ref().map(|(marker, offset)| (marker, *offset)), None)?;
        Some((found.place, found.standing, found.gap.is_some()))
    }

    fn wait(&self, world: &World, d: usize) -> Option<Duration> {
        let (_, standing, _) = self.resolve(world, d)?;
        let joined = world.dispatchers[d].as_ref()?.joined;
        let eldest = world.dispatchers.iter().flatten().all(|other| other.joined >= joined);
        Some(precedence::wait(standing, eldest, Duration::from_secs(2)))
    }

    fn store(&self, world: &mut World, d: usize) -> bool {
        let dispatcher = world.dispatchers[d].as_mut().expect("it lives");
        let Some(place) = dispatcher.leads_at else { return false };
        let Found::Messages(mut messages) = dispatcher.timeline.at(place) else { return false };
        let most = if self.has(Rule::WholeBatches) { usize::MAX } else { 1 };
        let batch: Vec<u8> = messages.by_ref().take(most).copied().collect();
        let place = place.after(batch.len());
        let name = dispatcher.timeline.name(place).map(|(name, offset)| (*name, offset));
        dispatcher.leads_at = Some(place);
        for message in batch {
            world.stored[message as usize] += 1;
        }
        let moved = world.cursor != name;
        world.cursor = name;
        moved
    }

    fn carry_out(&self, world: &mut World, action: Action) -> bool {
        match action {
            Action::Publish { channel, reversed } => {
                let message = world.published.len();
                world.published.push(channel);
                for (d, dispatcher) in world.dispatchers.iter_mut().enumerate() {
                    let Some(dispatcher) = dispatcher else { continue };
                    // The copies come in one order to this dispatcher and in the other to that one.
                    let count = self.counted(dispatcher.set, channel, reversed ^ (d == 1));
                    (0..count).for_each(|_| dispatcher.timeline.push(message as u8));
                    world.hearers[message] |= u8::from(count > 0) << d;
                }
            }
            Action::Start { dispatcher: d, set } => {
                world.starts -= 1;
                let mut timeline = Timeline::default();
                timeline.begin_segment();
                let joined = world.markers + 1;
                world.dispatchers[d] = Some(Dispatcher { set, joined, timeline, leads_at: None, ended: false });
                self.publish_marker(world, d, true);
                if !self.has(Rule::JoinIsMarked) {
                    let segments = world.dispatchers.iter_mut().flatten().flat_map(|of| &mut of.timeline.segments);
                    segments.for_each(|segment| segment.unmarked_join = None);
                }
            }
            Action::Crash(d) => {
                world.crashes -= 1;
                self.vanish(world, d);
            }
            Action::Acquire(d) => {
                self.publish_marker(world, d, false);
                let (place, standing, gap) = self.resolve(world, d).expect("it is subscribed");
                if gap || standing == Standing::Beyond {
                    world.gaps |= (1 << world.published.len()) - 1;
                }
                world.dispatchers[d].as_mut().expect("it lives").leads_at = Some(place);
            }
            Action::Store(d) => return self.store(world, d),
            Action::Mark(d) => drop(self.publish_marker(world, d, false)),
            Action::End(d) => {
                if self.has(Rule::CleanEndAtMarker) {
                    self.publish_marker(world, d, false);
                    while self.store(world, d) {}
                }
                world.dispatchers[d].as_mut().expect("it lives").ended = true;
            }
            Action::Release(d) => self.vanish(world, d),
        }
        true
    }

    fn vanish(&self, world: &mut World, d: usize) {
        world.dispatchers[d] = None;
        world.hearers.iter_mut().for_each(|hearers| *hearers &= !(1 << d));
    }

    /// Whether a leader has nothing to store. Of what no one has received nothing is asked.
    fn is_settled(&self, world: &World) -> bool {
        let leader = world.dispatchers.iter().position(|of| of.as_ref().is_some_and(|of| of.leads_at.is_some()));
        let waits = |of: &Dispatcher| of.timeline.growing().is_some_and(|live| live.unmarked_join.is_some());
        leader.is_some_and(|d| !world.dispatchers[d].as_ref().is_some_and(waits) && !self.store(&mut world.clone(), d))
    }

    fn all_stored(&self, world: &World, but: u8) -> bool {
        world.published.iter().enumerate().all(|(message, channel)| {
            !self.is_named_by_all(*channel)
                || world.hearers[message] == 0
                || world.stored[message] > 0
                || but & 1 << message != 0
        })
    }
}

impl Model for Search {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            dispatchers: [None, None],
            cursor: None,
            stored: [0; 3],
            hearers: [0; 3],
            gaps: 0,
            published: Vec::new(),
            markers: 0,
            starts: self.starts + 1,
            crashes: self.crashes,
        };
        self.carry_out(&mut world, Action::Start { dispatcher: 0, set: 0 });
        self.carry_out(&mut world, Action::Acquire(0));
        self.carry_out(&mut world, Action::Store(0));
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.published.len() < self.messages {
            let both = |channel| [false, true].map(|reversed| Action::Publish { channel, reversed });
            actions.extend((0..CHANNELS.len()).flat_map(both));
        }
        let vacant = world.dispatchers.iter().flatten().all(|dispatcher| dispatcher.leads_at.is_none());
        for (d, dispatcher) in world.dispatchers.iter().enumerate() {
            let Some(dispatcher) = dispatcher else {
                let starts = [0, 1].map(|set| Action::Start { dispatcher: d, set });
                actions.extend(starts.into_iter().filter(|_| world.starts > 0));
                continue;
            };
            actions.extend((world.crashes > 0).then_some(Action::Crash(d)));
            match dispatcher.leads_at {
                Some(_) if dispatcher.ended => actions.push(Action::Release(d)),
                Some(_) => {
                    let joined = dispatcher.timeline.growing().is_some_and(|live| live.unmarked_join.is_some());
                    let unmarked = joined || world.cursor.is_some_and(|(_, offset)| offset > 0);
                    actions.extend([Action::Store(d), Action::End(d)]);
                    actions.extend(unmarked.then_some(Action::Mark(d)));
                }
                None => {
                    let mine = self.wait(world, d);
                    let first = (0..2).filter_map(|other| self.wait(world, other)).all(|wait| mine <= Some(wait));
                    actions.extend((vacant && first).then_some(Action::Acquire(d)));
                }
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.carry_out(&mut next, action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Search>> {
        vec![
            Property::always(ONCE, |_, world: &World| world.stored.iter().all(|times| *times <= 1)),
            Property::always(NONE_LOST, |search: &Search, world: &World| {
                search.crashes > 0 || !search.is_settled(world) || search.all_stored(world, 0)
            }),
            Property::always(NOT_SILENT, |search: &Search, world: &World| {
                !search.is_settled(world) || search.all_stored(world, world.gaps)
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.markers < 12
    }
}

fn kept(name: &str, search: Search) {
    let began = Instant::now();
    let checker = search.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, {:.1} s", checker.unique_state_count(), began.elapsed().as_secs_f64());
    for promise in [ONCE, NONE_LOST, NOT_SILENT] {
        if let Some(path) = checker.discovery(promise) {
            panic!("{name}: \"{promise}\" is broken by {:#?}", path.into_actions());
        }
    }
}

fn broken(rule: Rule, promise: &'static str, starts: u8, crashes: u8) {
    let finish = HasDiscoveries::AnyOf([promise].into());
    let checker = Search::new(Some(rule), starts, crashes, 2).checker().finish_when(finish).spawn_bfs().join();
    let path = checker.discovery(promise).unwrap_or_else(|| panic!("without {rule:?} nothing broke"));
    println!("without {rule:?}: {promise}: {:?}", path.into_actions());
}

#[test]
fn interests_change_at_clean_stops_without_a_loss() {
    kept("interests, clean stops", Search::new(None, 2, 0, 2));
}

#[test]
fn interests_change_at_a_crash_and_nothing_is_stored_twice() {
    kept("interests, a crash", Search::new(None, 1, 1, 2));
}

#[test]
fn counting_every_copy_stores_a_message_twice() {
    broken(Rule::OwnerOnly, ONCE, 1, 0);
}

#[test]
fn an_end_that_is_not_at_a_marker_loses_what_both_name() {
    broken(Rule::CleanEndAtMarker, NONE_LOST, 1, 0);
}

#[test]
fn counting_from_a_marker_of_other_interests_goes_wrong() {
    broken(Rule::ForeignMarkerNamesItsPlace, ONCE, 1, 1);
}

#[test]
fn continuing_at_the_marker_of_a_cursor_of_other_interests_stores_twice() {
    broken(Rule::ForeignCursorContinuesAtNextMarker, ONCE, 1, 1);
}

/// The cursor of a leader names a place by its marker from before that join. If it stores a message after the join and
/// dies before its next marker, the dispatcher that joined cannot tell.
#[test]
fn storing_beyond_a_join_of_other_interests_stores_twice() {
    broken(Rule::JoinIsMarked, ONCE, 1, 1);
}

/// A batch ends between the join and the leader's marker after it, and the leader dies. The ring keeps that stretch
/// together.
#[test]
fn a_batch_that_ends_between_a_join_and_the_next_marker_stores_twice() {
    broken(Rule::WholeBatches, ONCE, 1, 1);
}
