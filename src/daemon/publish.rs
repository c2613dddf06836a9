//! The status, published for whoever shows it or acts on it.
//!
//! In: what changed, and the moments at which trackers become stale. Out: snapshots through a watch channel.
//! Must not know: who looks.

use super::pulse::Pulse;
use super::state::{Gauges, State};
use crate::clock;
use crate::status::Status;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The status is published at most so often, and never costs more than one part in `PUBLISH_SHARE` of a core.
const PUBLISH: Duration = Duration::from_millis(250);
const PUBLISH_SHARE: u32 = 50;
/// A clock that is stepped changes what is stale: seen so late at most.
const STEP: Duration = Duration::from_secs(30);

/// Publishes the status after changes, and when a tracker becomes stale; never often, and not while nothing changes.
///
/// Cancel safety: safe.
pub(super) async fn publish(
    state: Arc<State>,
    publish: Arc<watch::Sender<Arc<Status>>>,
    gauges: Arc<dyn Fn() -> Gauges + Send + Sync>,
    pulse: Arc<Pulse>,
) {
    let mut next = None;
    loop {
        tokio::select! {
            () = state.changed() => {}
            () = staleness(next) => {}
        }
        let at_work = pulse.work();
        let begun = Instant::now();
        let now = clock::now();
        let status = state.snapshot(gauges(), now);
        next = status.trackers.iter().filter(|tracker| !tracker.stale).filter_map(|tracker| tracker.stale_at).min();
        publish.send_replace(Arc::new(status));
        drop(at_work);
        tokio::time::sleep(PUBLISH.max(begun.elapsed() * PUBLISH_SHARE)).await;
    }
}

/// The moment at which a tracker becomes stale; never without one.
async fn staleness(at: Option<Timestamp>) {
    let Some(at) = at else { return std::future::pending().await };
    loop {
        let left = Duration::try_from(at.duration_since(clock::now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        // A step of the clock is no event.
        tokio::time::sleep(left.min(STEP)).await;
    }
}
