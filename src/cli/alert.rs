//! How somebody is told: a command that is run, or a webhook.
//!
//! In: an alert and `[alert]`. Out: that it was delivered, or why not. The command gets the alert as JSON on its
//! standard input and the words of `TOLD` in its environment, which holds nothing else of trackd's: no secret of the
//! service goes to a script. Must not know: when somebody is told.

use crate::config::environment::TOLD;
use crate::config::{self, WebhookUrl};
use crate::daemon::alert::{Deliver, Way};
use crate::source::webhook;
use crate::status::Alert;
use futures_util::FutureExt;
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a command may keep of trackd's environment.
const KEPT: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"];
/// Bytes of what a command says on standard error.
const SAID: u64 = 500;
/// A command that ended may have left a child with its standard error: no longer than this is listened.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Delivers by command and webhook.
pub(super) fn deliver() -> Arc<Deliver> {
    Arc::new(|way, config, alert| {
        async move {
            let json = serde_json::to_string(&*alert).map_err(|error| error.to_string())?;
            match (way, &config.command, &config.webhook) {
                (Way::Command, Some(argv), _) => run(argv, &alert, json).await,
                (Way::Webhook, _, Some(webhook)) => webhook::post(webhook, json).await,
                _ => Ok(()),
            }
        }
        .boxed()
    })
}

/// What would keep an alert from being delivered, as far as it can be seen without one.
pub(super) fn faults(alert: &config::Alert) -> Vec<String> {
    let program = alert.command.as_ref().and_then(|argv| argv.first()).filter(|program| program.contains('/'));
    let program = program.and_then(|program| not_executable(Path::new(program)));
    let webhook = alert.webhook.as_ref();
    let url = webhook.and_then(|webhook| match &webhook.url {
        WebhookUrl::Given(_) => None,
        WebhookUrl::File(file) => Some(file),
    });
    let files = [("url_file", url), ("token_file", webhook.and_then(|webhook| webhook.token_file.as_ref()))];
    let unread = files.into_iter().filter_map(|(key, file)| {
        let error = std::fs::read_to_string(file?).err()?;
        Some(format!("`alert.webhook.{key}`: read {}: {error}", file?.display()))
    });
    program.into_iter().chain(unread).collect()
}

fn not_executable(program: &Path) -> Option<String> {
    let why = match std::fs::metadata(program) {
        Err(error) => error.to_string(),
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => "it is no program".to_owned(),
        Ok(_) => return None,
    };
    Some(format!("`alert.command`: {}: {why}", program.display()))
}

/// Runs the command to its end; dropped before, it and its children are killed.
async fn run(argv: &[String], alert: &Alert, json: String) -> Result<(), String> {
    let (program, arguments) = argv.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(TOLD.into_iter().zip(told(alert)));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("start {program}: {error}"))?;
    let group = Group(child.id());
    let said = exchange(&mut child, group, json).await.map_err(|error| format!("{program}: {error}"))?;
    match said {
        (status, _) if status.success() => Ok(()),
        (status, said) if said.is_empty() => Err(format!("{program}: {status}")),
        (status, said) => Err(format!("{program}: {status}: {said}")),
    }
}

/// The values of `TOLD`: of the gravest state where there are several.
fn told(alert: &Alert) -> [String; TOLD.len()] {
    let first = alert.alerts.first();
    let kind = first.map_or("", |notice| notice.subject.kind.as_str());
    let tracker = first.and_then(|notice| notice.subject.tracker.clone()).unwrap_or_default();
    [plain(&alert.text), alert.state.as_str().into(), kind.into(), tracker, alert.instance.clone()]
}

/// The environment takes no NUL.
fn plain(text: &str) -> String {
    text.replace('\0', " ")
}

/// Gives it the alert, and waits for its end. Returns how it ended and what it said, in one line.
async fn exchange(child: &mut Child, mut group: Group, json: String) -> std::io::Result<(ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let give = async {
        // Whether it reads it is its own affair.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(json.as_bytes()).await;
        }
        std::future::pending::<()>().await
    };
    let mut said = Vec::new();
    let status = {
        let listen = async {
            if let Some(stderr) = stderr {
                let mut stderr = stderr.take(SAID);
                while stderr.read_buf(&mut said).await.is_ok_and(|bytes| bytes > 0) {}
                // More is thrown away, so that it need not wait for us.
                let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
            }
        };
        tokio::pin!(give, listen);
        let mut heard = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => {
                    // What it left behind on purpose, as a mailer, goes on.
                    group.0 = None;
                    break status?;
                }
                () = &mut give => {}
                () = &mut listen, if !heard => heard = true,
            }
        };
        if !heard {
            let _ = timeout(LAST_WORDS, listen).await;
        }
        status
    };
    let said = String::from_utf8_lossy(&said);
    Ok((status, said.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Kills a command and its children, unless it ended.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // Gone already, most of the time.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
