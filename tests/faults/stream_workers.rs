//! Workers that read the stream of `--deliver stream` meanwhile, as a group of any Streams client does. Each records a
//! result, acknowledges the entry and deletes it in one transaction, so every message is at any time an entry or a
//! result.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::mode::Mode;
use crate::support::{client, id_in_payload, run, wait_for_intake};

const STREAM: &str = "messages:messages";
const GROUP: &str = "workers";
const COUNT: usize = 3;

/// See the module's text. Where there are consumers there are none.
pub struct StreamWorkers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// An entry: its id and its fields.
type Entry = (String, HashMap<String, String>);

impl StreamWorkers {
    pub fn start(mode: Mode, url: &str) -> StreamWorkers {
        let stop = Arc::new(AtomicBool::new(false));
        if mode != Mode::Stream {
            return StreamWorkers { stop, threads: Vec::new() };
        }
        let () = run(&mut client(url), &["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
        let start = |number| {
            let (connection, stop) = (client(url), stop.clone());
            thread::spawn(move || work(connection, &format!("w{number}"), &stop))
        };
        let threads = (0..COUNT).map(start).collect();
        StreamWorkers { stop, threads }
    }

    /// Waits until what was published is stored, and the workers have done all of it.
    pub fn finish(self, connection: &mut redis::Connection) {
        wait_for_intake(connection);
        self.stop.store(true, Ordering::Relaxed);
        let count = self.threads.len();
        self.threads.into_iter().for_each(|thread| thread.join().expect("a worker does not panic"));
        if count > 0 {
            assert_eq!(run::<u64>(connection, &["XLEN", STREAM]), 0, "the workers have read and deleted all");
        }
    }
}

/// The main loop of a worker.
fn work(mut connection: redis::Connection, name: &str, stop: &AtomicBool) {
    let connection = &mut connection;
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        let words = ["XREADGROUP", "GROUP", GROUP, name, "COUNT", "200", "STREAMS", STREAM, ">"];
        let found: Option<Vec<(String, Vec<Entry>)>> = run(connection, &words);
        let Some((_, entries)) = found.and_then(|mut streams| streams.pop()) else {
            if is_last {
                return;
            }
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let mut done = redis::pipe();
        done.atomic();
        for (entry, fields) in &entries {
            let id = id_in_payload(&fields["payload"]).expect("each has an id");
            done.cmd("XADD").arg("messages:processed").arg("*").arg("message_id").arg(id).ignore();
            done.cmd("XACK").arg(STREAM).arg(GROUP).arg(entry).ignore();
            done.cmd("XDEL").arg(STREAM).arg(entry).ignore();
        }
        let () = done.query(connection).expect("Redis answers");
    }
}
