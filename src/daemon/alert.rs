//! Tells somebody what needs a person, when it begins, while it lasts and when it is over.
//!
//! ```text
//!  Status --look--> Book --due, and what else comes within `GATHER`--> one Alert --> command, webhook
//!                    ^                                                    |
//!                    +-- told: repeated, kept in a file  <-- delivered ---+--> failed: tried `WAITS`, told in the log,
//!                                                                              and again with the repeat
//! ```
//!
//! One alert at a time: what changes while one is on its way is looked at afterwards, as it is then. Nothing waits
//! for this task. Must not know: HTTP, processes, what the states mean.

mod book;
mod kept;

use super::pulse::Pulse;
use crate::clock;
use crate::config::{self, Config};
use crate::log::Event;
use crate::status::alert::Notice;
use crate::status::{Alert, Status};
use book::{Book, Rules};
use futures_util::future::{BoxFuture, join_all};
use kept::Kept;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Tells somebody of an alert, one way, once; or says in one line why not. Dropped, it is given up.
pub type Deliver = dyn Fn(Way, Arc<config::Alert>, Arc<Alert>) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// How somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `alert.command`.
    Command,
    /// `alert.webhook`.
    Webhook,
}

/// What comes within it is told as one.
const GATHER: Duration = Duration::from_secs(1);
/// Between the attempts to tell it, shortened by chance to a half at least.
const WAITS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(30)];

/// Tells of states as `[alert]` of the configuration in force says, for ever.
///
/// Cancel safety: safe; an alert on its way may have arrived, and is then told again.
pub(super) async fn tell(
    mut status: watch::Receiver<Arc<Status>>,
    mut config: watch::Receiver<Arc<Config>>,
    deliver: Arc<Deliver>,
    pulse: Arc<Pulse>,
) {
    let kept = Kept::of(&config.borrow().daemon.state_dir);
    let mut told = Some(kept.read().await);
    let mut book = Book::default();
    loop {
        let in_force = config.borrow_and_update().alert.clone();
        let Some(alert) = in_force.clone() else {
            // Nobody is to be told: what begins meanwhile is new to whoever is told later.
            let told = told.take().unwrap_or_else(|| book.told());
            book = Book::default();
            if !told.is_empty() {
                kept.write(&[]).await;
            }
            changed(&mut config).await;
            continue;
        };
        let rules = Rules { after: alert.after, repeat: alert.repeat };
        match told.take() {
            Some(told) => book = Book::recalled(told, rules, Instant::now(), clock::now()),
            None => book.reconfigured(rules, Instant::now()),
        }
        let teller = Teller { alert, rules, deliver: &deliver, kept: &kept, pulse: &pulse };
        tokio::select! {
            () = teller.work(&mut book, &mut status) => {}
            // Also in the middle of an alert: the address that does not answer may be what was mended.
            () = replaced(&mut config, &in_force) => {}
        }
    }
}

/// One configuration's rules and ways.
struct Teller<'a> {
    alert: Arc<config::Alert>,
    rules: Rules,
    deliver: &'a Arc<Deliver>,
    kept: &'a Kept,
    pulse: &'a Pulse,
}

impl Teller<'_> {
    /// Tells of what comes, for ever.
    async fn work(&self, book: &mut Book, status: &mut watch::Receiver<Arc<Status>>) {
        loop {
            self.step(book, status).await;
            let next = book.next();
            tokio::select! {
                () = changed(status) => {}
                () = until(next) => {}
            }
        }
    }

    /// Looks, and tells what is due.
    async fn step(&self, book: &mut Book, status: &mut watch::Receiver<Arc<Status>>) {
        let _at_work = self.pulse.work();
        self.look(book, status);
        if book.due(Instant::now()).is_empty() {
            return;
        }
        sleep(GATHER).await;
        let instance = self.look(book, status);
        let notices = book.due(Instant::now());
        if notices.is_empty() {
            return;
        }
        let alert = Arc::new(Alert::new(&instance, clock::now(), notices.clone()));
        match self.send(alert).await {
            true => book.delivered(&notices, self.rules, Instant::now(), clock::now()),
            false => book.failed(&notices, self.rules, Instant::now()),
        }
        self.note(&notices);
        self.kept.write(&book.told()).await;
    }

    /// Returns this process's name.
    fn look(&self, book: &mut Book, status: &mut watch::Receiver<Arc<Status>>) -> String {
        let status = status.borrow_and_update().clone();
        book.look(&status, self.rules, Instant::now(), clock::now());
        status.instance.clone()
    }

    /// Each way until it has arrived that way, or `WAITS` are over. Returns whether it arrived any way.
    async fn send(&self, alert: Arc<Alert>) -> bool {
        let ways = [(Way::Command, self.alert.command.is_some()), (Way::Webhook, self.alert.webhook.is_some())];
        let ways = ways.into_iter().filter(|(_, is_configured)| *is_configured).map(|(way, _)| way);
        join_all(ways.map(|way| self.send_by(way, &alert))).await.contains(&true)
    }

    async fn send_by(&self, way: Way, alert: &Arc<Alert>) -> bool {
        let mut attempt = 0;
        loop {
            let once = (self.deliver)(way, Arc::clone(&self.alert), Arc::clone(alert));
            let late = || Err(format!("not delivered within {}", humantime::format_duration(self.alert.timeout)));
            let Err(error) = timeout(self.alert.timeout, once).await.unwrap_or_else(|_| late()) else { return true };
            let Some(wait) = WAITS.get(attempt) else {
                tracing::error!(?way, error, attempts = attempt + 1, alert = alert.text, event = %Event::AlertLost, "alert not delivered");
                return false;
            };
            tracing::warn!(?way, error, "alert not delivered, trying again");
            attempt += 1;
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// The log has every alert, delivered or not.
    fn note(&self, notices: &[Notice]) {
        for notice in notices {
            let (kind, state, tracker) = (notice.subject.kind.as_str(), notice.state.as_str(), &notice.subject.tracker);
            tracing::info!(alert = kind, state, tracker, repeated = notice.repeated, text = notice.text, "alert");
        }
    }
}

/// Until somebody else is to be told, or in another way.
async fn replaced(config: &mut watch::Receiver<Arc<Config>>, in_force: &Option<Arc<config::Alert>>) {
    while config.borrow_and_update().alert == *in_force {
        changed(config).await;
    }
}

/// Never, once nobody can change it any more.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "alert/tell_tests.rs"]
mod tests;
