//! Reloads that are asked for: by SIGHUP, which waits for no answer, and by askers that do.
//!
//! ```text
//!  SIGHUP ----------+
//!  Asker::reload ---+--> next --> waiting: all that asked so far --> one reload --> each is told
//! ```
//!
//! Whoever asks while one is under way gets the next: an outcome is always that of a reload begun after it was asked for.
//! Must not know: who asks, how a reload is done.

use crate::status::Reload;
use tokio::sync::{mpsc, oneshot};

/// Askers that wait; further ones wait to be heard.
const WAITING: usize = 64;

/// Asks for reloads.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Ask>);

/// What was asked for, one after another.
#[derive(Debug)]
pub(super) struct Asks {
    inbox: mpsc::Receiver<Ask>,
    /// SIGHUP came.
    hangup: bool,
}

/// One asker that waits.
#[derive(Debug)]
pub(super) struct Ask {
    /// Who asks, for the log.
    pub(super) by: String,
    /// Only what would change is asked for.
    pub(super) rehearsal: bool,
    answer: oneshot::Sender<Reload>,
}

/// An end to ask at, and one to be asked at.
pub(super) fn channel() -> (Asker, Asks) {
    let (ask, inbox) = mpsc::channel(WAITING);
    (Asker(ask), Asks { inbox, hangup: false })
}

impl Asker {
    /// Reloads, or with `rehearsal` says what a reload would change. `None`: the daemon stops.
    ///
    /// Cancel safety: what was asked for is done all the same.
    pub async fn reload(&self, by: String, rehearsal: bool) -> Option<Reload> {
        let (answer, outcome) = oneshot::channel();
        self.0.send(Ask { by, rehearsal, answer }).await.ok()?;
        outcome.await.ok()
    }
}

impl Asks {
    /// SIGHUP came.
    pub(super) fn hangup(&mut self) {
        self.hangup = true;
    }

    /// Waits until something is asked for: the first ask, or `None` for a SIGHUP.
    ///
    /// Cancel safety: safe.
    pub(super) async fn next(&mut self) -> Option<Ask> {
        if self.hangup {
            return None;
        }
        match self.inbox.recv().await {
            Some(ask) => Some(ask),
            // Nobody can ask any more.
            None => std::future::pending().await,
        }
    }

    /// All that waits besides `first`: whether it takes a reload, and who waits for that, and for rehearsals.
    pub(super) fn waiting(&mut self, first: Option<Ask>) -> Waiting {
        let hangup = std::mem::take(&mut self.hangup) || first.is_none();
        let mut asks: Vec<Ask> = first.into_iter().collect();
        while let Ok(ask) = self.inbox.try_recv() {
            asks.push(ask);
        }
        let (rehearsals, reloads) = asks.into_iter().partition(|ask| ask.rehearsal);
        Waiting { hangup, reloads, rehearsals }
    }

    /// From now on whoever asks is told that the daemon stops; whoever waits, too.
    pub(super) fn close(&mut self) {
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
    }
}

/// Who waits at the beginning of a reload.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) hangup: bool,
    pub(super) reloads: Vec<Ask>,
    pub(super) rehearsals: Vec<Ask>,
}

impl Waiting {
    /// Who asked for a reload, for the log; `None`: nobody did.
    pub(super) fn by(&self) -> Option<String> {
        let hangup = self.hangup.then_some("SIGHUP");
        let names: Vec<&str> = hangup.into_iter().chain(self.reloads.iter().map(|ask| ask.by.as_str())).collect();
        (!names.is_empty()).then(|| names.join("; "))
    }
}

/// Tells them. One that went away is no fault.
pub(super) fn tell(asks: Vec<Ask>, outcome: &Reload) {
    for ask in asks {
        let _ = ask.answer.send(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(message: &str) -> Reload {
        Reload { at: jiff::Timestamp::UNIX_EPOCH, ok: true, message: message.into(), class: None, hint: None }
    }

    #[tokio::test]
    async fn who_asks_during_a_reload_gets_the_outcome_of_the_next() {
        let (asker, mut asks) = channel();
        let ask = |by: &str| {
            let (asker, by) = (asker.clone(), by.to_owned());
            tokio::spawn(async move { asker.reload(by, false).await.map(|reload| reload.message) })
        };
        let early = ask("early");
        let first = asks.next().await;
        let begun = asks.waiting(first);
        // The reload of `begun` is under way.
        let late = ask("late");
        let next = asks.next().await;
        tell(begun.reloads, &outcome("first"));
        assert_eq!(early.await.expect("a task"), Some("first".into()));
        let begun = asks.waiting(next);
        assert_eq!(begun.by(), Some("late".into()));
        tell(begun.reloads, &outcome("second"));
        assert_eq!(late.await.expect("a task"), Some("second".into()));
    }

    #[tokio::test]
    async fn a_hangup_and_askers_that_wait_share_a_reload() {
        let (asker, mut asks) = channel();
        let asked = tokio::spawn(async move { asker.reload("a".into(), false).await });
        let first = asks.next().await;
        asks.hangup();
        let waiting = asks.waiting(first);
        assert_eq!(waiting.by(), Some("SIGHUP; a".into()));
        drop(waiting);
        assert!(asked.await.expect("a task").is_none(), "told that nobody answers any more");
    }

    #[tokio::test]
    async fn a_daemon_that_stops_lets_nobody_wait() {
        let (asker, mut asks) = channel();
        let waits = {
            let asker = asker.clone();
            tokio::spawn(async move { asker.reload("waits".into(), false).await })
        };
        let first = asks.next().await;
        asks.close();
        drop(first);
        assert!(waits.await.expect("a task").is_none());
        assert!(asker.reload("late".into(), false).await.is_none());
    }
}
