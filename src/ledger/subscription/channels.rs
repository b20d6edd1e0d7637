//! What a subscriber subscribes to, and how others notice it. Pure.

use std::sync::Arc;

use crate::base::id::DispatcherId;
use crate::ledger::command::Command;
use crate::ledger::cursor::Marker;
use crate::ledger::interests::Interests;
use crate::ledger::keys::Keys;
use crate::ledger::notice::Notice;
use crate::ledger::server::Server;

/// How many channels are subscribed to beside those of the interests: the control channel and the subscriber's own.
pub(super) const OWN_CHANNELS: usize = 2;

/// What is subscribed to, and where.
#[derive(Clone, Debug)]
pub struct Channels {
    /// The server.
    pub server: Server,
    /// The group's keys.
    pub keys: Arc<Keys>,
    /// What the group listens to.
    pub interests: Arc<Interests>,
    /// Whose subscription it is.
    pub subscriber: Subscriber,
}

/// Whose subscription it is. Each subscribes to a channel of its own, on which nothing is published.
#[derive(Clone, Debug)]
pub enum Subscriber {
    /// A dispatcher. While its alive channel has a subscriber, others count it, and it may hold the lease.
    Dispatcher(DispatcherId),
    /// A shadow, which dispatchers don't count. By its channel `oncecast status` finds it.
    Shadow(DispatcherId),
}

impl Subscriber {
    /// The id of the process.
    pub fn id(&self) -> &DispatcherId {
        let (Subscriber::Dispatcher(id) | Subscriber::Shadow(id)) = self;
        id
    }

    /// The marker that it publishes when it has subscribed for the `number`th time. Only dispatchers publish.
    pub fn join_marker(&self, number: u64) -> Option<Marker> {
        match self {
            Subscriber::Dispatcher(id) => Some(Marker::of_join(id, number)),
            Subscriber::Shadow(_) => None,
        }
    }

    fn channel(&self, keys: &Keys) -> String {
        format!("{}{}", self.prefix(keys), self.id())
    }

    /// What the names of such channels begin with.
    pub(super) fn prefix<'a>(&self, keys: &'a Keys) -> &'a str {
        match self {
            Subscriber::Dispatcher(_) => &keys.alive_prefix,
            Subscriber::Shadow(_) => &keys.shadow_prefix,
        }
    }
}

impl Channels {
    /// The commands that subscribe and publish the join marker, and how many answers they have. `identity` is what the
    /// marker stands among.
    ///
    /// The control channel comes after what is listened to: what follows a marker is counted, so all other
    /// subscriptions must be made when the control channel brings the first. Redis may carry out other clients'
    /// commands between two of these.
    pub(super) fn set_up(&self, join: Option<&Marker>, identity: &str) -> (Vec<u8>, usize) {
        let Channels { keys, interests, subscriber, .. } = self;
        let own_channel = subscriber.channel(keys);
        let own = [keys.control.as_bytes(), own_channel.as_bytes()];
        let mut commands = Vec::new();
        let mut answers = usize::from(join.is_some());
        let mut subscribe = |command: &str, names: &[&[u8]]| {
            let words = names.iter().fold(Command::new(1 + names.len()).arg(command), |words, name| words.arg(name));
            commands.extend(words.into_bytes());
            answers += names.len();
        };
        if interests.is_sharded() {
            // One command for each, because in a cluster they may have different slots.
            interests.channels().for_each(|name| subscribe("SSUBSCRIBE", &[name]));
            // Markers are published as messages are, other notices by PUBLISH: those who publish them don't know what
            // the group listens to.
            subscribe("SSUBSCRIBE", &own[..1]);
            subscribe("SUBSCRIBE", &own);
        } else {
            let patterns: Vec<&[u8]> = interests.patterns().collect();
            if !patterns.is_empty() {
                subscribe("PSUBSCRIBE", &patterns);
            }
            subscribe("SUBSCRIBE", &interests.channels().chain(own).collect::<Vec<_>>());
        }
        if let Some(join) = join {
            let notice = Notice::Marker(join.clone(), identity.to_owned()).to_string();
            commands.extend(Command::of(&[interests.publish_command(), &keys.control, &notice]).into_bytes());
        }
        (commands, answers)
    }
}
