//! `trackd spool`: what waits for the database, and what was set aside.
//!
//! Must not know: where the files are, and who reads them.

use super::failure::Failure;
use super::spooled::{Payload, Spooled, Unread};
use super::{print, replay};
use crate::spool::{Listed, Report, SetAside};
use serde::Serialize;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The payloads that wait, by tracker and instant.
    Ls {
        /// Of this tracker only.
        name: Option<String>,
        /// A JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Read and check every file; those that are not whole are listed with what is wrong, and the exit code is 1.
    Check {
        /// A JSON object a line, of each that is not whole.
        #[arg(long)]
        json: bool,
    },
    /// Copy payloads and what is known of them into files: NAME/….body and NAME/….json.
    Export {
        /// Of this tracker only.
        name: Option<String>,
        /// The directory; made if it is missing. Nothing in it is replaced.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Land now what was set aside; what does not land stays, and the exit code is 1.
    Replay(replay::Args),
}

pub(super) async fn spool(explicit: Option<&Path>, command: Command) -> Result<(), Failure> {
    let spooled = Spooled::find(explicit).await?;
    match command {
        Command::Ls { name, json } => ls(&spooled.waiting(name).await?, json),
        Command::Check { json } => check(&spooled.check().await?, json),
        Command::Export { name, to } => export(&spooled, name, &to).await,
        Command::Replay(args) => replay::replay(spooled, args).await,
    }
}

fn ls(listed: &[Listed], json: bool) -> Result<(), Failure> {
    if json {
        return print::json_lines(listed);
    }
    let row = |listed: &Listed| {
        let file = listed.file.display().to_string();
        vec![listed.tracker.clone(), print::time(listed.scheduled_at), listed.bytes.to_string(), file]
    };
    print::table(&["tracker", "scheduled at", "bytes", "file"], &listed.iter().map(row).collect::<Vec<_>>())
}

/// A file that is not whole.
#[derive(Serialize)]
struct NotWhole<'r> {
    state: &'static str,
    #[serde(flatten)]
    bad: &'r SetAside,
}

fn check(report: &Report, json: bool) -> Result<(), Failure> {
    let of = |state| move |bad| NotWhole { state, bad };
    let all = || report.bad.iter().map(of("waits")).chain(report.set_aside.iter().map(of("set aside")));
    if json {
        print::json_lines(all())?;
    } else if all().next().is_some() {
        let row = |NotWhole { state, bad }: NotWhole<'_>| {
            vec![state.to_owned(), bad.file.display().to_string(), bad.reason.clone()]
        };
        print::table(&["state", "file", "reason"], &all().map(row).collect::<Vec<_>>())?;
    }
    match (report.bad.len(), report.set_aside.len()) {
        (0, 0) if json => Ok(()),
        (0, 0) => print::line(format!("{} entries, all whole", report.whole)),
        (bad, aside) => Err(Failure::work(format!(
            "{} entries are whole, {bad} files are not, {aside} were set aside before",
            report.whole
        ))
        .with_hint((bad > 0).then(|| "the daemon sets them aside when it meets them, and lands the others".into()))),
    }
}

async fn export(spooled: &Spooled, name: Option<String>, to: &Path) -> Result<(), Failure> {
    let (mut whole, mut bad) = (0, 0);
    for listed in spooled.waiting(name).await? {
        match spooled.read(&listed).await? {
            Payload::Whole { meta, body } => {
                write(to, &listed.file, &body, &meta).map_err(|(path, error)| failed(&path, &error))?;
                whole += 1;
            }
            Payload::Not(Unread::Bad(reason)) => {
                print::diagnostic(format!("{}: {reason}", listed.file.display()));
                bad += 1;
            }
            Payload::Not(Unread::Gone) => {}
        }
    }
    print::line(format!("{whole} payloads copied to {}", to.display()))?;
    if bad == 0 { Ok(()) } else { Err(Failure::work(format!("{bad} files are not whole, and were left out"))) }
}

/// The body and the meta of `file`, under the names that the spool has for its tracker and itself.
fn write(to: &Path, file: &Path, body: &[u8], meta: &[u8]) -> Result<(), (PathBuf, std::io::Error)> {
    let tracker = file.parent().and_then(Path::file_name).unwrap_or_default();
    let dir = to.join(tracker);
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| (dir.clone(), error))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    for (end, parts) in [("body", [body, b""]), ("json", [meta, b"\n"])] {
        let path = dir.join(format!("{name}.{end}"));
        let mut file = match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) => return Err((path, error)),
        };
        if let Err(error) = parts.iter().try_for_each(|part| file.write_all(part)) {
            // Half a payload is not to be taken for a whole one.
            let _ = std::fs::remove_file(&path);
            return Err((path, error));
        }
    }
    Ok(())
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
    Failure::work(format!("write {}: {error}", path.display()))
        .with_hint(is_there.then(|| "nothing is replaced: name a directory that is empty, or not there".into()))
}
