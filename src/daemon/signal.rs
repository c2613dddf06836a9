//! Signals as events.
//!
//! ```text
//!  SIGHUP reload   SIGUSR1 the whole status into the log   SIGTERM, SIGINT drain; a second one stops at once
//! ```
//!
//! SIGPIPE is ignored by Rust's runtime before `main`. Must not know: what the events lead to.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// The handlers: from their making on, no signal of these ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    usr1: Signal,
    terminate: Signal,
    interrupt: Signal,
    until: Option<Instant>,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Reload,
    Report,
    Stop,
}

impl Signals {
    /// Installs the handlers. In a runtime only.
    ///
    /// # Errors
    /// The system refuses.
    pub fn install() -> io::Result<Signals> {
        // SIGHUP first: its default is death, and `systemctl reload` sends it at any time.
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            until: None,
        })
    }

    /// As if somebody asked to stop in `length` from now.
    pub fn stop_in(&mut self, length: Duration) {
        self.until = Some(Instant::now() + length);
    }

    /// The next one. Signals of one kind that come close together are one: a storm of SIGHUPs is a reload or two.
    ///
    /// Cancel safety: safe; nothing that came is forgotten.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.usr1.recv() => Asked::Report,
            () = at(self.until) => {
                self.until = None;
                Asked::Stop
            }
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
