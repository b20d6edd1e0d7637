//! Requests to the dialers for links, and what the dialers report.

use crossbeam_channel::{Receiver, Sender, unbounded};
use tungstenite::WebSocket;

use crate::base::id::Epoch;
use crate::lane::dialer::{Dial, LinkNews};
use crate::lane::dialers::DialRequests;
use crate::lane::kill_switch::KillSwitch;
use crate::lane::roster::MemberId;
use crate::lane::sockets::Waker;
use crate::net::Stream;

pub(super) struct Dialing {
    epoch: Epoch,
    kill: KillSwitch,
    requests: DialRequests,
    news: (Sender<LinkNews>, Receiver<LinkNews>),
    waker: Waker,
}

impl Dialing {
    pub(super) fn new(epoch: Epoch, kill: KillSwitch, requests: DialRequests, waker: Waker) -> Dialing {
        // Bounded by the dialers: each has at most one link and one failure to report.
        Dialing { epoch, kill, requests, news: unbounded(), waker }
    }

    /// Requests a link to a consumer. The previous connection, if there is one, is closed in order first.
    pub(super) fn request(&self, member: MemberId, farewell: Option<WebSocket<Stream>>) {
        let (epoch, kill) = (self.epoch, self.kill.clone());
        let dial = Dial { farewell, epoch, kill, news: self.news.0.clone(), waker: self.waker.clone() };
        self.requests.request(member, dial);
    }

    /// Ends the dialer of a consumer that was released. The connection, if there is one, is closed in order first.
    pub(super) fn end(&self, member: MemberId, farewell: Option<WebSocket<Stream>>) {
        self.requests.end(member, farewell);
    }

    /// The next report of a dialer, if there is one.
    pub(super) fn next_news(&self) -> Option<LinkNews> {
        self.news.1.try_recv().ok()
    }
}
