//! `trackd spool`: what waits for the database, and what was set aside, beside the daemon or without one.

use super::failure::Failure;
use super::{print, replay};
use crate::config::Config;
use crate::spool::{Found, Listed, Look, SetAside};
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

pub(super) async fn spool(config: &Config, command: Command) -> Result<(), Failure> {
    let dir = config.daemon.state_dir.join("spool");
    let look = Look::new(&dir);
    match command {
        Command::Ls { name, json } => ls(config, &look, name.as_deref(), json),
        Command::Check { json } => check(&look, json),
        Command::Export { name, to } => export(config, &look, name.as_deref(), &to),
        Command::Replay(args) => replay::replay(config, &dir, args).await,
    }
}

fn ls(config: &Config, look: &Look, name: Option<&str>, json: bool) -> Result<(), Failure> {
    let listed = chosen(config, look, name)?;
    if json {
        return print::json_lines(&listed);
    }
    let row = |listed: &Listed| {
        vec![
            listed.tracker.clone(),
            print::time(listed.scheduled_at),
            listed.bytes.to_string(),
            listed.file.display().to_string(),
        ]
    };
    print::table(&["tracker", "scheduled at", "bytes", "file"], &listed.iter().map(row).collect::<Vec<_>>())
}

fn check(look: &Look, json: bool) -> Result<(), Failure> {
    let report = look.check()?;
    let all =
        || report.bad.iter().map(|bad| ("waits", bad)).chain(report.set_aside.iter().map(|bad| ("set aside", bad)));
    if json {
        print::json_lines(
            all().map(|(state, bad)| serde_json::json!({"state": state, "file": bad.file, "reason": bad.reason})),
        )?;
    } else if all().next().is_some() {
        let row = |(state, bad): (&str, &SetAside)| {
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

fn export(config: &Config, look: &Look, name: Option<&str>, to: &Path) -> Result<(), Failure> {
    let (mut whole, mut bad) = (0, 0);
    for listed in chosen(config, look, name)? {
        match look.read(&listed)? {
            Found::Whole(entry, meta) => {
                write(to, &listed.file, &entry.body, &meta).map_err(|(path, error)| failed(&path, &error))?;
                whole += 1;
            }
            Found::Bad(reason) => {
                print::diagnostic(format!("{}: {reason}", listed.file.display()));
                bad += 1;
            }
            Found::Gone => {}
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
        let opened = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let written = opened.and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part)));
        written.map_err(|error| (path, error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
    Failure::work(format!("write {}: {error}", path.display()))
        .with_hint(is_there.then(|| "nothing is replaced: name a directory that is empty, or not there".into()))
}

/// What waits, of one tracker or of all.
fn chosen(config: &Config, look: &Look, name: Option<&str>) -> Result<Vec<Listed>, Failure> {
    let (mut listed, _) = look.entries()?;
    let Some(name) = name else { return Ok(listed) };
    listed.retain(|listed| listed.tracker == name);
    // One that left the configuration may still wait; one that has neither is misspelt.
    if listed.is_empty() && !config.trackers.iter().any(|tracker| tracker.name == name) {
        return Err(super::once::unknown(config, name));
    }
    Ok(listed)
}
