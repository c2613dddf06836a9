//! The spool that commands are about: the daemon's, which is asked, for the directory is its own; where none runs, its
//! files are looked at here.
//!
//! What is looked at blocks as long as the disk does. Must not know: what is printed.

use super::control::{self, Control};
use super::failure::Failure;
use crate::admin::control::SpoolWish;
use crate::config::Config;
use crate::spool::{Bad, Found, Listed, Look, Report, SetAside};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may take: to check is to read all that waits.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Bytes of a reason.
const REASON: usize = 64 << 10;

/// In the state directory.
const SPOOL: &str = "spool";

/// Who looks.
#[derive(Debug)]
pub(super) enum Spooled {
    Daemon(Control),
    Here(Here),
}

/// A spool whose files are read here.
#[derive(Debug)]
pub(super) struct Here {
    dir: PathBuf,
    /// Or its faults: who looks at what waits needs no more of it than the directory, the more so when nothing starts.
    config: Result<Box<Config>, Failure>,
}

/// What was set aside: files with the name of an entry, and all others.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Aside {
    pub(super) listed: Vec<Listed>,
    pub(super) others: Vec<SetAside>,
}

/// The payload of a file that waits.
#[derive(Debug)]
pub(super) enum Payload {
    /// What is known of it, one line of JSON, and its body.
    Whole {
        meta: Bytes,
        body: Bytes,
    },
    Not(Unread),
}

/// Why there is none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unread {
    /// It is not whole; in words why.
    Bad(String),
    /// It has landed meanwhile.
    Gone,
}

impl Spooled {
    /// The spool of this configuration. Where no daemon runs and it has faults, the directory is told: it may be the default.
    ///
    /// # Errors
    /// No daemon runs, and the configuration cannot be read.
    pub(super) async fn find(explicit: Option<&Path>) -> Result<Spooled, Failure> {
        if let Some(control) = control::running(explicit).await {
            return Ok(Spooled::Daemon(control));
        }
        let (state, config) = match super::load(explicit) {
            Ok(config) => (config.daemon.state_dir.clone(), Ok(Box::new(config))),
            Err(faults) => match super::readable_state_dir(explicit) {
                Some(state) => (state, Err(faults)),
                None => return Err(faults),
            },
        };
        let dir = state.join(SPOOL);
        if config.is_err() {
            super::print::diagnostic(format!("trackd: the configuration has faults; the spool in {}:", dir.display()));
        }
        Ok(Spooled::Here(Here { dir, config }))
    }

    /// What waits, of one tracker or of all, by tracker and instant.
    ///
    /// # Errors
    /// There is no such tracker, or the directory cannot be read; of a daemon as `Control::want`.
    pub(super) async fn waiting(&self, tracker: Option<String>) -> Result<Vec<Listed>, Failure> {
        match self {
            Spooled::Daemon(control) => ask(control, SpoolWish::Ls { tracker }).await,
            Spooled::Here(here) => waiting(&here.dir, here.known(), tracker.as_deref()),
        }
    }

    /// What is not whole. As `waiting`.
    pub(super) async fn check(&self) -> Result<Report, Failure> {
        match self {
            Spooled::Daemon(control) => ask(control, SpoolWish::Check).await,
            Spooled::Here(here) => check(&here.dir),
        }
    }

    /// What was set aside, of one tracker or all. As `waiting`.
    pub(super) async fn aside(&self, tracker: Option<String>) -> Result<Aside, Failure> {
        match self {
            Spooled::Daemon(control) => ask(control, SpoolWish::Aside { tracker }).await,
            Spooled::Here(here) => aside(&here.dir, here.known(), tracker.as_deref()),
        }
    }

    /// Reads one that waits.
    ///
    /// # Errors
    /// It cannot be said now what it is; of a daemon as `Control::want`.
    pub(super) async fn read(&self, listed: &Listed) -> Result<Payload, Failure> {
        match self {
            Spooled::Daemon(control) => {
                let wish = SpoolWish::Read { tracker: listed.tracker.clone(), file: listed.file.clone() };
                // The file has more; what is no payload says why, shortly.
                let most = usize::try_from(listed.bytes).unwrap_or(usize::MAX).max(REASON);
                let answer = control.want_large("spool", "/control/spool", &wish, PATIENCE, most).await?;
                match answer.is_json() {
                    true => Ok(Payload::Not(answer.json()?)),
                    false => parted(answer.into_body()),
                }
            }
            Spooled::Here(here) => read(&here.dir, &listed.tracker, &listed.file),
        }
    }
}

impl Here {
    /// The configuration, for what takes more than a look.
    ///
    /// # Errors
    /// It has faults.
    pub(super) fn into_config(self) -> Result<Box<Config>, Failure> {
        self.config
    }

    /// The configuration, if it has no faults.
    fn known(&self) -> Option<&Config> {
        self.config.as_deref().ok()
    }
}

/// Asks the daemon.
pub(super) async fn ask<T: DeserializeOwned>(control: &Control, wish: SpoolWish) -> Result<T, Failure> {
    Ok(control.want("spool", "/control/spool", &wish, PATIENCE).await?.json()?)
}

/// A payload as it travels: what is known of it is one line.
fn parted(mut whole: Bytes) -> Result<Payload, Failure> {
    let end = whole.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| Failure::work("spool: the daemon is of another version: a payload without a head"))?;
    let body = whole.split_off(end + 1);
    whole.truncate(end);
    Ok(Payload::Whole { meta: whole, body })
}

pub(super) fn waiting(dir: &Path, known: Option<&Config>, tracker: Option<&str>) -> Result<Vec<Listed>, Failure> {
    let (mut listed, _) = Look::new(dir).entries()?;
    of_tracker(known, tracker, &mut listed)?;
    Ok(listed)
}

pub(super) fn check(dir: &Path) -> Result<Report, Failure> {
    Ok(Look::new(dir).check()?)
}

pub(super) fn aside(dir: &Path, known: Option<&Config>, tracker: Option<&str>) -> Result<Aside, Failure> {
    let (mut listed, mut others) = Bad::new(dir).files()?;
    of_tracker(known, tracker, &mut listed)?;
    if tracker.is_some() {
        others.clear();
    }
    Ok(Aside { listed, others })
}

pub(super) fn read(dir: &Path, tracker: &str, file: &Path) -> Result<Payload, Failure> {
    Ok(match Look::new(dir).read(tracker, file)? {
        Found::Whole(entry, meta) => Payload::Whole { meta, body: entry.body },
        Found::Bad(reason) => Payload::Not(Unread::Bad(reason)),
        Found::Gone => Payload::Not(Unread::Gone),
    })
}

/// The spool's directory.
pub(super) fn dir(config: &Config) -> PathBuf {
    config.daemon.state_dir.join(SPOOL)
}

/// Those of one tracker. One that left the configuration may still have some; one that has neither is misspelt, as far
/// as the configuration is known.
fn of_tracker(known: Option<&Config>, tracker: Option<&str>, listed: &mut Vec<Listed>) -> Result<(), Failure> {
    let Some(name) = tracker else { return Ok(()) };
    listed.retain(|listed| listed.tracker == name);
    match known {
        Some(config) if listed.is_empty() && !config.trackers.iter().any(|tracker| tracker.name == name) => {
            Err(super::once::unknown(config, name))
        }
        _ => Ok(()),
    }
}
