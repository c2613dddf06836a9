//! `trackd reload`: asks the running daemon to reload, and waits for how it went. For `systemctl reload`, too.
//!
//! Must not know: how a reload is done. The file is the daemon's to read: this reads of it only where the socket is.

use super::control::{Answer, Control};
use super::failure::Failure;
use super::print;
use crate::class::Class;
use crate::status::Reload;
use axum::http::{Method, StatusCode};
use std::path::Path;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Longest wait for the end of it.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn reload(explicit: Option<&Path>, args: Args) -> Result<(), Failure> {
    let asked = async {
        let control = Control::find(explicit).await?;
        let answer = control.ask(Method::POST, "/control/reload").await;
        let answer = answer.map_err(|error| Failure::work(format!("reload: the daemon went away: {error}")))?;
        outcome("reload refused, the old configuration stays in force", &answer)
    };
    let Ok(message) = tokio::time::timeout(args.timeout, asked).await else {
        let waited = humantime::format_duration(args.timeout);
        let hint = "it may still come; the journal tells, and --timeout waits longer".to_owned();
        return Err(Failure::work(format!("reload: no answer within {waited}")).with_hint(Some(hint)));
    };
    print::line(message?)
}

/// What changed, or would.
///
/// # Errors
/// The daemon refuses, told as `refusal` (78 where the configuration is to be changed), or stops.
pub(super) fn outcome(refusal: &str, answer: &Answer) -> Result<String, Failure> {
    match answer.status {
        StatusCode::OK => Ok(answer.json::<Reload>()?.message),
        StatusCode::UNPROCESSABLE_ENTITY => {
            let refused: Reload = answer.json()?;
            let told = format!("{refusal}\n{}", refused.message);
            match refused.class {
                Some(Class::Standing) => Err(Failure::config(told).with_hint(refused.hint)),
                _ => Err(Failure::work(told).with_hint(refused.hint)),
            }
        }
        status => Err(Failure::work(format!("reload: the daemon answered {status}: {}", answer.text()))),
    }
}
