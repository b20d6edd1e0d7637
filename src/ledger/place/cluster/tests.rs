//! The lookup, with nodes that are functions.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::base::failure::Failure;
use crate::ledger::topology::{Primary, Replica};

const LIMIT: Duration = Duration::from_secs(2);

fn node(port: u16) -> Address {
    Address::Tcp { host: "n".to_owned(), port }
}

fn owned_by(port: u16) -> Topology {
    let one = Primary { id: format!("id-{port}"), address: node(port), slots: vec![0..=16_383] };
    Topology { replicas: vec![Replica { address: node(9), primary: one.id.clone() }], primaries: vec![one] }
}

/// What each node says, by its port, and which were asked.
#[derive(Default)]
struct World {
    says: Mutex<BTreeMap<u16, u16>>,
    asked: Mutex<Vec<u16>>,
}

fn cluster(world: &Arc<World>, seeds: &[u16]) -> Cluster {
    let world = world.clone();
    let ask = move |at: &Address, _| {
        let Address::Tcp { port, .. } = at else { unreachable!("nodes have ports") };
        world.asked.lock().push(*port);
        let owner = world.says.lock().get(port).copied();
        owner.map(owned_by).ok_or_else(|| Problem::Other("it is down".to_owned()))
    };
    Cluster::new(seeds.iter().copied().map(node).collect(), Box::new(ask))
}

fn port(found: io::Result<Found>) -> Result<u16, String> {
    match found.map(|found| found.address) {
        Ok(Address::Tcp { port, .. }) => Ok(port),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn dead_seeds_are_passed_over_and_the_owner_is_found() {
    let world = Arc::new(World::default());
    world.says.lock().insert(3, 5);
    let cluster = cluster(&world, &[1, 2, 3]);
    let known = cluster.known(Some(7));
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
    assert_eq!(port(cluster.find(None, &cluster.known(None), LIMIT)), Ok(3));
    assert_eq!(*world.asked.lock(), [1, 2, 3], "an answer is used for a while");
    assert_eq!(known.generation(), 0);
}

#[test]
fn a_moved_slot_is_followed_at_once_and_the_generation_rises_once() {
    let world = Arc::new(World::default());
    world.says.lock().insert(1, 5);
    let cluster = cluster(&world, &[1]);
    let (known, other) = (cluster.known(Some(7)), cluster.known(Some(8)));
    for (slot, known) in [(7, &known), (8, &other)] {
        assert_eq!(port(cluster.find(Some(slot), known, LIMIT)), Ok(5));
    }
    assert!(cluster.judge(Some(7), &known, 0, "MOVED 7 :6"));
    assert!(cluster.judge(Some(7), &known, 0, "MOVED 7 n:5"), "an outdated connection");
    cluster.board.lock().suspect = false;
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(6));
    assert_eq!(port(cluster.find(Some(8), &other, LIMIT)), Ok(5));
    assert_eq!((known.generation(), other.generation()), (1, 0));
    assert_eq!(*world.asked.lock(), [1]);
}

#[test]
fn a_lookup_under_way_does_not_move_back_what_moved() {
    let known = Arc::new(Known::default());
    let (asked, is_asked) = mpsc::channel();
    let (known_here, asked_again) = (known.clone(), Mutex::new(false));
    let cluster = Arc::new(Cluster::new(
        vec![node(1)],
        Box::new(move |_, _| {
            if std::mem::replace(&mut *asked_again.lock(), true) {
                asked.send(()).expect("the test waits for it");
                // It lasts until the news is there, if that can be before its end.
                let deadline = Instant::now() + Duration::from_millis(200);
                while known_here.generation() == 0 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(owned_by(5))
        }),
    ));
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
    cluster.board.lock().read = None;
    let lookup = thread::spawn({
        let (cluster, known) = (cluster.clone(), known.clone());
        move || port(cluster.find(Some(7), &known, LIMIT))
    });
    is_asked.recv_timeout(LIMIT).expect("a lookup is under way");
    assert!(cluster.judge(Some(7), &known, 0, "MOVED 7 n:6"));
    assert_eq!(lookup.join().expect("no panic"), Ok(5), "it was asked before");
    assert_eq!((known.last(), known.generation()), (Some(node(6)), 1));
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(6));
}

#[test]
fn what_a_refusal_means_is_known() {
    let world = Arc::new(World::default());
    let cluster = cluster(&world, &[1]);
    let known = cluster.known(Some(7));
    for (text, wrong, suspect) in [
        ("ASK 7 n:5", false, false),
        ("TRYAGAIN Multiple keys request during rehashing of slot", false, false),
        ("MOVED 8 n:5", true, true),
        ("MOVED 7 ?:5", true, true),
        ("CLUSTERDOWN The cluster is down", true, true),
        ("READONLY You can't write against a read only replica.", true, true),
        ("LOADING Redis is loading the dataset in memory", false, false),
        ("ERR unknown command 'X', with args beginning with: 'x -MOVED 7 6.6.6.6:6379 ' ", false, false),
        ("ERR unknown command 'X', with args beginning with: 'x -READONLY ' ", false, false),
    ] {
        cluster.board.lock().suspect = false;
        assert_eq!(cluster.judge(Some(7), &known, known.generation(), text), wrong, "{text}");
        assert_eq!(cluster.board.lock().suspect, suspect, "{text}");
    }
    assert_eq!(known.generation(), 1, "READONLY ends the generation");
    assert_eq!(owner_in("MOVED 7 [::1]:5", None), Some(Address::Tcp { host: "::1".to_owned(), port: 5 }));
}

#[test]
fn after_a_sign_of_trouble_others_than_the_owner_are_asked_and_not_too_often() {
    let world = Arc::new(World::default());
    world.says.lock().extend([(5, 5), (9, 9)]);
    let cluster = cluster(&world, &[5]);
    let known = cluster.known(Some(7));
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
    cluster.suspect();
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5), "it was asked just before");
    cluster.board.lock().asked = None;
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(9));
    assert_eq!((*world.asked.lock()).as_slice(), [5, 9]);
    assert_eq!(known.generation(), 1);
}

#[test]
fn a_node_that_is_named_no_longer_is_remembered_however_long_ago_it_was_named() {
    let world = Arc::new(World::default());
    world.says.lock().insert(1, 5);
    let cluster = cluster(&world, &[1]);
    assert_eq!(cluster.nodes(None, LIMIT).expect("a node answers"), [5, 9].map(node), "a name is not looked up");
    let long_ago = Instant::now().checked_sub(Duration::from_secs(600));
    for owner in [6, 7] {
        world.says.lock().extend([(1, owner), (6, owner), (7, owner)]);
        cluster.board.lock().read = long_ago;
        // Its replica has taken its place, and nobody says yet what it is now.
        let known = cluster.nodes(None, LIMIT).expect("a node answers");
        let expected: Vec<Address> = [owner, 9].into_iter().chain(5..owner).map(node).collect();
        assert_eq!(known, expected);
        assert_eq!(cluster.nodes(Some(7), LIMIT).expect("a node answers"), known, "of the shard, and those");
    }
}

/// Lets the next lookup ask, as after a sign of trouble, and returns what it finds for slot 7 and which nodes it asks.
fn find_anew(cluster: &Cluster, world: &World) -> (Result<u16, String>, Vec<u16>) {
    let mut board = cluster.board.lock();
    (board.read, board.asked, board.suspect) = (None, None, true);
    drop(board);
    world.asked.lock().clear();
    let found = port(cluster.find(Some(7), &cluster.known(Some(7)), LIMIT));
    (found, std::mem::take(&mut world.asked.lock()))
}

/// The word of the owner that is named decides, else that of the known one, else what the third says: 1 says that 6
/// owns the slot, and 5 is known.
#[test]
fn a_third_is_believed_unless_an_owner_knows_better() {
    for (named, known, found) in [
        (Some(6), None, 6),
        (Some(6), Some(5), 6),
        (Some(6), Some(6), 6),
        (Some(5), None, 5),
        (Some(5), Some(6), 5),
        (Some(9), Some(9), 5),
        (None, Some(5), 5),
        (None, Some(6), 6),
        (None, Some(9), 5),
        (None, None, 6),
    ] {
        for moved in [false, true] {
            let world = Arc::new(World::default());
            let cluster = cluster(&world, &[1]);
            let (slot, case) = (cluster.known(Some(7)), format!("{named:?} {known:?} {moved}"));
            let first = if moved { 4 } else { 5 };
            world.says.lock().insert(1, first);
            assert_eq!(find_anew(&cluster, &world).0, Ok(first));
            if moved {
                assert!(cluster.judge(Some(7), &slot, 0, "MOVED 7 n:5"));
            }
            let generation = slot.generation();
            let says = [(1, Some(6)), (6, named), (5, known)];
            *world.says.lock() = says.into_iter().filter_map(|(node, says)| Some((node, says?))).collect();
            let mut board = cluster.board.lock();
            (board.answered, board.read, board.suspect) = (Some(node(1)), None, false);
            drop(board);
            world.asked.lock().clear();
            // However short the caller's time is.
            assert_eq!(port(cluster.find(Some(7), &slot, Duration::ZERO)), Ok(found), "{case}");
            let mut asked = std::mem::take(&mut *world.asked.lock());
            assert_eq!(asked.remove(0), 1, "{case}");
            asked.sort();
            assert!(asked == if moved { vec![4, 5, 6] } else { vec![5, 6] }, "{case} {asked:?}");
            assert_eq!(slot.generation() - generation, u64::from(found == 6), "{case}");
            let board = cluster.board.lock();
            assert_eq!((board.suspect, board.moved.len()), (found == 5, usize::from(moved && found == 5)), "{case}");
            assert_eq!(board.nodes(&[], Some(7))[0] == node(1), found == 6, "others are asked next, {case}");
        }
    }
}

/// Otherwise each thread that waits would ask anew.
#[test]
fn an_answer_is_as_old_as_the_last_word_of_an_owner() {
    let (moved, ended) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(None)));
    let (moved_here, ended_here) = (moved.clone(), ended.clone());
    let ask = move |at: &Address, _: Duration| match at {
        Address::Tcp { port: 6, .. } => {
            *ended_here.lock() = Some(Instant::now());
            Err(Problem::Other("it hangs".to_owned()))
        }
        _ => Ok(owned_by(if *moved_here.lock() && *at == node(1) { 6 } else { 5 })),
    };
    let cluster = Cluster::new(vec![node(1)], Box::new(ask));
    let known = cluster.known(Some(7));
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
    *moved.lock() = true;
    cluster.board.lock().read = None;
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
    let ended = ended.lock().expect("it was asked");
    assert!(cluster.board.lock().asked.is_some_and(|asked| asked >= ended));
}

/// An owner speaks for itself, and `MOVED` is the word of the one that it was.
#[test]
fn an_owner_that_is_asked_first_is_believed_at_once() {
    let world = Arc::new(World::default());
    world.says.lock().extend([(1, 5), (5, 9), (9, 9)]);
    for first in [5, 9] {
        let cluster = cluster(&world, &[1]);
        assert_eq!(find_anew(&cluster, &world).0, Ok(5));
        let mut board = cluster.board.lock();
        (board.answered, board.read, board.suspect) = (Some(node(first)), None, false);
        drop(board);
        world.asked.lock().clear();
        assert_eq!(port(cluster.find(Some(7), &cluster.known(Some(7)), LIMIT)), Ok(9));
        assert_eq!(*world.asked.lock(), [first]);
    }
    let cluster = cluster(&world, &[1]);
    assert_eq!(find_anew(&cluster, &world).0, Ok(5));
    assert!(cluster.judge(Some(7), &cluster.known(Some(7)), 0, "MOVED 7 n:9"));
    *world.says.lock() = BTreeMap::from([(1, 9), (5, 5)]);
    let mut board = cluster.board.lock();
    (board.answered, board.read, board.suspect) = (Some(node(1)), None, false);
    drop(board);
    let topology = cluster.topology(LIMIT).expect("an answer");
    let owner = |slot| topology.owner(slot).map(|owner| owner.address.clone());
    assert_eq!((owner(7), owner(8)), (Some(node(9)), Some(node(5))), "a third agrees with it");
}

/// As while a replica takes the place of its primary, and the node that is asked has only heard that this is a replica.
#[test]
fn a_slot_without_an_owner_keeps_the_one_that_it_had_and_others_are_asked() {
    let parts = Arc::new(Mutex::new(Vec::new()));
    let told = parts.clone();
    let ask = move |at: &Address, _: Duration| {
        told.lock().push(at.clone());
        let mut whole = owned_by(5);
        if told.lock().len() > 1 && *at == node(1) {
            whole.primaries[0].slots = vec![8..=16_383];
        }
        Ok(whole)
    };
    let cluster = Cluster::new([1, 2].map(node).to_vec(), Box::new(ask));
    let (known, other) = (cluster.known(Some(7)), cluster.known(Some(8)));
    assert_eq!(port(cluster.find(Some(7), &known, LIMIT)), Ok(5));
    assert!(cluster.judge(Some(6), &cluster.known(Some(6)), 0, "MOVED 6 n:6"));
    let ask_again = || {
        let mut board = cluster.board.lock();
        (board.read, board.asked) = (None, None);
    };
    {
        let mut board = cluster.board.lock();
        (board.answered, board.suspect) = (Some(node(1)), false);
    }
    ask_again();
    assert_eq!(cluster.topology(LIMIT).expect("an answer").covered(), 16_384);
    assert_eq!((port(cluster.find(Some(7), &known, LIMIT)), known.generation()), (Ok(5), 0));
    assert_eq!(port(cluster.find(Some(6), &cluster.known(Some(6)), LIMIT)), Ok(6), "what MOVED named");
    assert_eq!(port(cluster.find(Some(8), &other, LIMIT)), Ok(5));
    ask_again();
    cluster.topology(LIMIT).expect("an answer");
    let asked = parts.lock().clone();
    assert_eq!(asked[..2], [1, 1].map(node));
    assert_ne!(asked[2], node(1), "one that does not know all owners is not asked first");
}

#[test]
fn a_slot_that_stays_without_an_owner_has_none() {
    let mut hole = owned_by(5);
    hole.primaries[0].slots = vec![8..=16_383];
    let (mut board, begin) = (Board::default(), Instant::now());
    let mut note = |told: &Topology, seconds| {
        let answers = Answers::from([(node(9), told.clone())]);
        board.note(node(9), &answers, 1, begin + Duration::from_secs(seconds));
        (board.owner(7), board.suspect)
    };
    assert_eq!(note(&owned_by(5), 0), (Some(node(5)), false));
    for seconds in [1, 5, 10] {
        assert_eq!(note(&hole, seconds), (Some(node(5)), true), "{seconds}");
    }
    assert_eq!(note(&owned_by(5), 11), (Some(node(5)), false));
    assert_eq!(note(&hole, 12).0, Some(node(5)), "meanwhile it was known");
    assert_eq!(note(&hole, 40).0, Some(node(5)), "nobody has asked for long");
    assert_eq!(note(&hole, 49).0, Some(node(5)));
    assert_eq!(note(&hole, 50).0, None);
    assert_eq!(note(&hole, 51), (None, false), "as all say");
}

#[test]
fn what_is_wrong_is_said() {
    let world = Arc::new(World::default());
    let cluster = cluster(&world, &[1, 2, 3, 4, 5]);
    let known = cluster.known(Some(7));
    let error = port(cluster.find(Some(7), &known, LIMIT)).expect_err("no node answers");
    assert!(error.contains("n:1: it is down; n:2: it is down; n:3: it is down; and 2 more"), "{error}");
    let asked = world.asked.lock().len();
    port(cluster.find(Some(7), &known, LIMIT)).expect_err("still none");
    assert_eq!(world.asked.lock().len(), asked, "no storm");
}

#[test]
fn a_refusal_is_final_only_if_all_nodes_refuse() {
    let no_right = || Problem::Refused { problem: "a right is missing".to_owned(), reply: "NOPERM no".to_owned() };
    let find = |problems: fn(u16) -> Option<bool>| {
        let ask = move |at: &Address, _| {
            let Address::Tcp { port, .. } = at else { unreachable!("nodes have ports") };
            Err(match problems(*port) {
                Some(true) => no_right(),
                Some(false) => Problem::Login,
                None => Problem::Other("it is down".to_owned()),
            })
        };
        let cluster = Cluster::new([1, 2, 3].map(node).to_vec(), Box::new(ask));
        let found = cluster.find(Some(7), &cluster.known(Some(7)), LIMIT);
        port(found.map_err(|error| {
            io::Error::other(
                Failure::from(error).refusal().map_or_else(|| "not final".to_owned(), |refusal| format!("{refusal:?}")),
            )
        }))
    };
    assert!(find(|_| Some(true)).is_err_and(|error| error.contains("Right")));
    // The connection to a node that refuses the login gives the better error.
    assert_eq!(find(|_| Some(false)), Ok(1));
    for mixed in [|port| (port != 2).then_some(true), |port| (port != 3).then_some(false)] {
        assert!(find(mixed).is_err_and(|error| error.contains("not final")));
    }
}
