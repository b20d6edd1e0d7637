//! What a program serves over HTTP: its metrics, its readiness, and pages of its own.

use std::sync::Arc;

use super::registry::Metrics;

/// The policy of a text: it loads nothing, and no page shows it in a frame.
pub(super) const NO_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether the program is ready now; the reason if not.
type Ready = dyn Fn() -> std::result::Result<(), String> + Send + Sync;

/// What is served under a path.
type PageContent = dyn Fn() -> String + Send + Sync;

/// What a server serves.
pub struct Site {
    pub(super) metrics: Metrics,
    pub(super) ready: Arc<Ready>,
    pub(super) pages: Vec<(&'static str, &'static str, Box<PageContent>)>,
    /// The Content-Security-Policy of the pages.
    pub(super) policy: &'static str,
}

impl Site {
    /// `/metrics`, `/healthz` and `/readyz`. `ready` says whether the program is ready, or why not; like the closures
    /// in `metrics` it must not block.
    pub fn new(metrics: Metrics, ready: impl Fn() -> std::result::Result<(), String> + Send + Sync + 'static) -> Site {
        let ready: Arc<Ready> = Arc::new(ready);
        let mut metrics = metrics;
        let read = ready.clone();
        metrics.gauge("readiness", "1 while /readyz reports ready", move || read().is_ok().into());
        Site { metrics, ready, pages: Vec::new(), policy: NO_POLICY }
    }

    /// Sets the Content-Security-Policy of the pages, which forbids everything by default.
    pub fn policy(mut self, policy: &'static str) -> Site {
        self.policy = policy;
        self
    }

    /// Adds a page of a content type at a path. The closure must be quick, too.
    pub fn page(
        mut self,
        path: &'static str,
        kind: &'static str,
        page: impl Fn() -> String + Send + Sync + 'static,
    ) -> Site {
        self.pages.push((path, kind, Box::new(page)));
        self
    }
}
