//! The hosts this process asks, and each request's turn at its host.
//!
//! ```text
//!  Hosts --enter--> Member (a tracker's place at a host) --turn--> Turn --answered | missed--> dropped: it is over
//! ```
//!
//! A host is host and port. It keeps its state while a tracker asks it, also over a reload. The decisions are
//! `rules`'; here are the waiting, the words and the log. Must not know: requests, retries, trackers.

use super::Error;
use super::rules::{Change, Miss, Rest, Rules, Verdict};
use crate::clock;
use crate::config::Template;
use reqwest::Url;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Requests at the same time to one host, where nobody says otherwise.
const PER_HOST: usize = 4;
/// Times in messages.
const SECONDS: &str = "%Y-%m-%dT%H:%M:%SZ";

/// All hosts that are asked. Clones share them.
#[derive(Debug, Clone)]
pub struct Hosts {
    most: usize,
    known: Arc<Mutex<HashMap<String, Weak<Host>>>>,
}

#[derive(Debug)]
struct Host {
    name: String,
    rules: Mutex<Rules>,
    /// Told at every change of the rules' state; only the first in the line listens.
    changed: Notify,
    /// First come, first served.
    line: tokio::sync::Mutex<()>,
    /// How the last request failed that brought no answer.
    last_miss: Mutex<String>,
}

/// A tracker's place at a host; the distance it asks for is kept as long as it lives.
#[derive(Debug)]
pub(super) struct Member {
    host: Arc<Host>,
    asker: u64,
    distance: Option<Duration>,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    member: Arc<Member>,
    probe: bool,
}

impl Default for Hosts {
    fn default() -> Hosts {
        Hosts::new(PER_HOST)
    }
}

impl Hosts {
    /// Hosts that are asked by `most` requests at a time each.
    pub fn new(most: usize) -> Hosts {
        Hosts { most, known: Arc::default() }
    }

    /// Requests at the same time to each.
    pub(super) fn most(&self) -> u32 {
        u32::try_from(self.most).unwrap_or(u32::MAX)
    }

    /// A place at the host of this address, for requests at least `distance` after any other's.
    pub(super) fn enter(&self, url: &Url, asker: u64, distance: Option<Duration>) -> Arc<Member> {
        let host = self.host(authority(url));
        if let Some(distance) = distance {
            host.rules().keep(distance);
        }
        Arc::new(Member { host, asker, distance })
    }

    fn host(&self, name: String) -> Arc<Host> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.get(&name).and_then(Weak::upgrade) {
            return host;
        }
        // Addresses may differ from run to run: those that nobody asks any more make room first.
        if known.len() == known.capacity() {
            known.retain(|_, host| host.strong_count() > 0);
        }
        let host = Arc::new(Host::new(name.clone(), self.most));
        known.insert(name, Arc::downgrade(&host));
        host
    }
}

impl Host {
    fn new(name: String, most: usize) -> Host {
        Host {
            name,
            rules: Mutex::new(Rules::new(most)),
            changed: Notify::new(),
            line: tokio::sync::Mutex::default(),
            last_miss: Mutex::default(),
        }
    }

    /// No code panics while it holds the lock: a poisoned one is whole.
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: Option<Change>) {
        let host = &self.name;
        match change {
            Some(Change::Rests { length, .. }) => {
                let error = self.last_miss();
                tracing::warn!(host, rest = ?length, error, "host does not answer: it rests, then one request probes it");
            }
            Some(Change::Answers { since }) => {
                let away = humantime::format_duration(Duration::from_secs(since.elapsed().as_secs()));
                tracing::info!(host, %away, "host answers again");
            }
            None => {}
        }
    }

    fn last_miss(&self) -> String {
        self.last_miss.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error of a request that was not made.
    fn resting(&self, rest: Rest) -> Error {
        let until = rest.until.saturating_duration_since(Instant::now());
        // Rounded up: it is not asked before that second.
        let next = clock::now() + until + Duration::from_millis(999);
        let next = format!("asked next at {}", next.strftime(SECONDS));
        Error { rests: Some(until), ..self.away(rest.since, &next) }
    }

    fn paused(&self, until: Instant) -> Error {
        let wait = until.saturating_duration_since(Instant::now());
        let next = (clock::now() + wait).strftime(SECONDS).to_string();
        let hint =
            "it asked for so long a pause (Retry-After), or http.rate_limit of one of its trackers makes it wait";
        let message = format!("host {}: nobody asks it before {next}", self.name);
        Error { hint: Some(hint.into()), rests: Some(wait), ..Error::retry(message) }
    }

    fn away(&self, since: Instant, next: &str) -> Error {
        let since = clock::now() - since.elapsed();
        let message = format!("host {} does not answer since {}, {next}", self.name, since.strftime(SECONDS));
        let hint = format!("the last request that was made: {}", self.last_miss());
        Error { hint: Some(hint), ..Error::retry(message) }
    }
}

impl Member {
    /// Whether this is a place at the host of that address.
    pub(super) fn is_at(&self, url: &Url) -> bool {
        self.host.name == authority(url)
    }

    /// The least time between two requests to this host, by anybody.
    pub(super) fn distance(&self) -> Duration {
        self.host.rules().distance()
    }

    /// Waits until a request may be made, at most for `patience`.
    ///
    /// Cancel safety: safe; a turn that was given is over when it is dropped.
    ///
    /// # Errors
    /// Retry: the host rests, or will not be asked within `patience` (`rests` says how long), or `patience` is over.
    pub(super) async fn turn(self: &Arc<Member>, patience: Duration) -> Result<Turn, Error> {
        let give_up = Instant::now() + patience;
        let turn = async {
            let _first = self.host.line.lock().await;
            loop {
                let changed = self.host.changed.notified();
                let verdict = self.host.rules().ask(Instant::now());
                match verdict {
                    Verdict::Go { probe } => return Ok(Turn { member: Arc::clone(self), probe }),
                    Verdict::Rests(rest) => return Err(self.host.resting(rest)),
                    Verdict::Wait(None) => changed.await,
                    // Not waited for in vain.
                    Verdict::Wait(Some(until)) if until > give_up => return Err(self.host.paused(until)),
                    Verdict::Wait(Some(until)) => {
                        let _ = tokio::time::timeout_at(until.into(), changed).await;
                    }
                }
            }
        };
        tokio::time::timeout(patience, turn).await.unwrap_or_else(|_| Err(self.no_turn(patience)))
    }

    fn no_turn(&self, patience: Duration) -> Error {
        let away = self.host.rules().away_since();
        if let Some(since) = away {
            return self.host.away(since, "a request that probes it is under way");
        }
        let patience = humantime::format_duration(patience);
        let hint = "its trackers ask more than it takes: poll less often, or raise daemon.per_host and http.rate_limit";
        let message = format!("host {}: no turn within {patience}, other requests to it go first", self.host.name);
        Error { hint: Some(hint.into()), ..Error::retry(message) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(distance) = self.distance {
            self.host.rules().forget(distance);
            self.host.changed.notify_one();
        }
    }
}

impl Turn {
    /// The host answers, whatever it says.
    pub(super) fn answered(&self) {
        let host = &self.member.host;
        let change = host.rules().answered();
        host.changed.notify_one();
        host.tell(change);
    }

    /// There is no answer.
    pub(super) fn missed(&self, miss: Miss, error: &Error) {
        let host = &self.member.host;
        error.message.clone_into(&mut host.last_miss.lock().unwrap_or_else(PoisonError::into_inner));
        let change = host.rules().missed(Instant::now(), self.member.asker, miss, self.probe);
        host.changed.notify_one();
        host.tell(change);
    }

    /// The host asks for no requests for so long.
    pub(super) fn pause(&self, length: Duration) {
        self.member.host.rules().pause(Instant::now() + length);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.member.host.rules().ended(Instant::now(), self.probe);
        self.member.host.changed.notify_one();
    }
}

/// A number for one that asks.
pub(super) fn asker() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Host and port, by which hosts are told apart.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What trackers of one host have in common before they are run: the host, where it is the same for every run; else
/// the address as it is written.
pub(super) fn group(address: &Template) -> String {
    if let Some(url) = address.constant().and_then(|text| text.parse().ok()) {
        return authority(&url);
    }
    let text = address.source();
    let fixed = text.find("{%").or_else(|| text.find("{{")).unwrap_or(text.len());
    let end = text.find("://").and_then(|scheme| Some(scheme + 3 + text[scheme + 3..].find(['/', '?', '#'])?));
    let host = end.filter(|end| *end <= fixed).and_then(|end| text[..end].parse().ok());
    host.map_or_else(|| text.to_owned(), |url| authority(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_of_one_host_are_of_one_group_where_it_can_be_known() {
        let group = |text: &str| group(&Template::compile(text).unwrap());
        for (address, expected) in [
            ("https://u:p@H.example/a?b", "h.example:443"),
            ("http://h.example:8080/{{ run.id }}", "h.example:8080"),
            ("https://h.example?at={{ run.scheduled_at }}", "h.example:443"),
            ("https://{{ run.id }}.example/a", "https://{{ run.id }}.example/a"),
            ("{% if run %}https://h.example/{% endif %}", "{% if run %}https://h.example/{% endif %}"),
        ] {
            assert_eq!(group(address), expected);
        }
    }

    #[test]
    fn a_host_keeps_its_state_as_long_as_somebody_asks_it_and_no_longer() {
        let hosts = Hosts::new(1);
        let url = |port: u16| format!("http://h.example:{port}/").parse::<Url>().unwrap();
        let first = hosts.enter(&url(1), 1, Some(Duration::from_secs(1)));
        let second = hosts.enter(&url(1), 2, None);
        assert_eq!(second.distance(), Duration::from_secs(1));
        drop(first);
        assert_eq!(second.distance(), Duration::ZERO);
        for port in 2..1000 {
            hosts.enter(&url(port), 1, None);
        }
        assert!(hosts.known.lock().unwrap().len() < 10, "hosts that nobody asks are forgotten");
        assert!(Arc::ptr_eq(&hosts.enter(&url(1), 3, None).host, &second.host));
    }
}
