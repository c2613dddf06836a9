//! From the files as written to a `Config`, or to every fault of them.
//!
//! In: texts, where they came from, the environment. Out: `Config` or `Faults`.

use super::checked::{Config, Daemon, Database, DatabaseUrl, Log, LogFile, LogFormat, Rotation};
use super::credential::Credentials;
use super::environment::{CONFIG, Environment};
use super::fault::{self, Fault, Faults, quote};
use super::files::{Files, Refused};
use super::merge::merge;
use super::node::{self, Entry, Node, Place, Value};
use super::read::{Fields, Sink};
use super::secret::Secret;
use super::{alert, secrets, table, tracker};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SYSTEM: &str = "/etc/trackd/config.toml";
/// For a file that may not be read. The daemon reads it as its own user, whoever wrote it.
const GROUP: &str = "it is to be readable for trackd: chgrp trackd FILE, chmod 640 FILE; others read it as root, or as members of that group";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SPOOL_MAX: u64 = 1 << 30;
/// A few small payloads: each takes a block, and so does its plan.
const SPOOL_LEAST: u64 = 64 << 10;
const SPOOL_MOST: u64 = 1 << 50;
/// The shortest length that is not nothing.
const SHORTEST: Duration = Duration::from_millis(1);

/// Finds the file: `explicit`, `$TRACKD_CONFIG`, `./config.toml`, `/etc/trackd/config.toml`.
///
/// # Errors
/// None of the last two is there. A file that was named is not looked for: `load` says what is wrong with it.
pub fn locate(explicit: Option<&Path>, env: &Environment) -> Result<PathBuf, Faults> {
    if let Some(path) = explicit.map(PathBuf::from).or_else(|| env.get(CONFIG).map(PathBuf::from)) {
        return Ok(path);
    }
    // One that may be there, and may not be looked for, is one that cannot be read: that is told of it later.
    let may_be = |path: &PathBuf| !matches!(path.try_exists(), Ok(false));
    // A directory that may not be entered is where somebody else was: `runuser -u trackd` leaves its user in root's home.
    let here = Path::new(".").try_exists().is_ok().then_some("config.toml");
    here.into_iter().chain([SYSTEM]).map(PathBuf::from).find(may_be).ok_or_else(|| {
        let fault = Fault::new(Place::Whole, format!("no configuration: neither ./config.toml nor {SYSTEM} is there"))
            .hint(format!("name one with --config FILE or {CONFIG}"));
        Faults::new(Files::one(Path::new("config.toml"), ""), vec![fault], &[])
    })
}

/// Reads and checks the file at `path`, and its drop-ins: `conf.d/*.toml` beside it.
///
/// # Errors
/// Every fault of them, or why they cannot be read.
pub fn load(path: &Path, env: &Environment) -> Result<Config, Faults> {
    let (files, refused) = Files::read(path);
    if refused.is_empty() {
        return check(files, env);
    }
    let fault = |Refused { message, not_allowed }| match Fault::new(Place::Whole, message) {
        fault if not_allowed => fault.hint(GROUP),
        fault => fault,
    };
    Err(Faults::new(files, refused.into_iter().map(fault).collect(), &[]))
}

/// Whether all files of a configuration can be read, whatever they hold.
pub fn is_readable(path: &Path) -> bool {
    Files::read(path).1.is_empty()
}

/// `daemon.state_dir` of files that need not hold otherwise; where none says, or can be read, the default.
pub fn state_dir(path: &Path, env: &Environment) -> PathBuf {
    let (files, _) = Files::read(path);
    let mut root = tree(&files).root;
    env.overlay(&mut root, &mut Vec::new());
    let folder = std::path::absolute(path).ok().and_then(|path| Some(path.parent()?.to_owned())).unwrap_or_default();
    let sink = Sink::default();
    let section = sink.keep(Fields::new("", &root, &sink)).and_then(|mut top| top.entry("daemon"));
    let fields = section.and_then(|section| sink.keep(Fields::new("daemon", &section.node, &sink)));
    let written = fields.and_then(|mut fields| fields.get("state_dir", self::path));
    folder.join(written.unwrap_or_else(|| env.state_dir()))
}

/// Checks `text`, which was read from `path`. Touches nothing outside its arguments but the working directory's name.
///
/// # Errors
/// Every fault of it.
pub fn parse(text: &str, path: &Path, env: &Environment) -> Result<Config, Faults> {
    check(Files::one(path, text), env)
}

fn check(files: Files, env: &Environment) -> Result<Config, Faults> {
    let Tree { mut root, syntax, mut secrets } = tree(&files);
    let mut faults = Vec::new();
    env.overlay(&mut root, &mut faults);
    let sink = Sink::default();
    let config = sink.keep(Fields::new("", &root, &sink)).and_then(|top| read(top, &files, env));
    let (found, unknown) = sink.into_parts();
    faults.extend(found);
    secrets::unknown(&unknown, &mut secrets);
    if !syntax.is_empty() {
        faults = with_syntax(faults, syntax, files.text());
    }
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults::new(files, faults, &secrets)),
    }
}

/// All files as one tree.
struct Tree {
    root: Node,
    syntax: Vec<Fault>,
    /// Of each file before the next lies on it: a value that counts no more may be a secret all the same.
    secrets: Vec<Range<usize>>,
}

fn tree(files: &Files) -> Tree {
    let root = Node { place: Place::Whole, value: Value::Table(Vec::new()) };
    let mut all = Tree { root, syntax: Vec::new(), secrets: Vec::new() };
    for file in files.iter() {
        let (root, syntax) = node::tree(file);
        all.secrets.extend(secrets::spans(&root, files.text(), &syntax));
        all.syntax.extend(syntax);
        merge(&mut all.root, root);
    }
    all
}

/// The syntax faults, the first of each line, and of the others those that will still be there when these are mended.
fn with_syntax(mut faults: Vec<Fault>, mut syntax: Vec<Fault>, text: &str) -> Vec<Fault> {
    syntax.sort_by(|a, b| a.place.cmp(&b.place));
    syntax.dedup_by_key(|fault| line(text, fault));
    let broken: Vec<_> = syntax.iter().map(|fault| line(text, fault)).collect();
    faults.retain(|fault| {
        // The parser puts an empty value at nowhere in place of one it cannot read.
        let nowhere = matches!(fault.place, Place::File { span: (0, 0), .. });
        let variable = matches!(fault.place, Place::Variable(_));
        variable || !(nowhere || fault.derived || broken.contains(&line(text, fault)))
    });
    faults.extend(syntax);
    faults
}

fn line(text: &str, fault: &Fault) -> Option<usize> {
    match &fault.place {
        Place::File { span, .. } => {
            Some(text.as_bytes()[..span.0.min(text.len())].iter().filter(|&&b| b == b'\n').count())
        }
        _ => None,
    }
}

/// `Some` whenever the top is a table; it holds only if no fault was found.
fn read(mut top: Fields<'_>, files: &Files, env: &Environment) -> Option<Config> {
    let (sink, path) = (top.sink, files.main());
    let folder = std::path::absolute(path).ok()?.parent().map(Path::to_path_buf).unwrap_or_default();
    let empty = Node { place: Place::Whole, value: Value::Table(Vec::new()) };
    let mut section = |name: &'static str| {
        let node = top.entry(name).map_or_else(|| empty.clone(), |entry| entry.node);
        sink.keep(Fields::new(name, &node, sink).map_err(|fault| fault.about(name)))
    };
    let credentials = Arc::new(Credentials::new(env, &folder));
    let database = section("database").map(|fields| database(fields, env, &folder, &credentials));
    let daemon = section("daemon").map(|fields| daemon(fields, env, &folder));
    let log = section("log").map(|fields| log(fields, &folder));
    let vars = Arc::new(vars(top.entry("vars"), sink));
    let alert = top.entry("alert").map(|entry| entry.node);
    let defaults = top.entry("defaults").map(|entry| entry.node);
    let nodes =
        top.get("tracker", |node| node.list().map_err(|fault| fault.hint("a tracker is written as [[tracker]]")));
    top.finish();
    let context = tracker::Context::new(sink, &vars, defaults, folder, credentials);
    context.check_defaults();
    let alert = alert.and_then(|node| alert::read(&node, &context)).map(Arc::new);
    let mut trackers = Vec::new();
    for node in nodes.unwrap_or_default() {
        trackers.extend(tracker::read(&node, &context));
    }
    unique(&trackers, sink);
    table::check_references(&trackers, sink);
    let trackers = trackers.into_iter().filter_map(|draft| draft.tracker.map(Arc::new)).collect();
    let (path, drop_ins) = (path.to_path_buf(), files.iter().skip(1).map(|file| file.path.to_owned()).collect());
    Some(Config { path, drop_ins, database: database??, daemon: daemon??, log: log??, alert, vars, trackers })
}

/// No two trackers share a name.
fn unique(trackers: &[tracker::Draft], sink: &Sink) {
    let mut seen: HashMap<&str, &Place> = HashMap::new();
    for draft in trackers {
        let Some((name, place)) = &draft.name else { continue };
        let first = *seen.entry(name).or_insert(place);
        if first != place {
            let fault = Fault::new(place.clone(), format!("the name `{name}` is used by two trackers"));
            sink.push(fault.other(first.clone(), "the first one"));
        }
    }
}

fn database(mut fields: Fields<'_>, env: &Environment, folder: &Path, credentials: &Credentials) -> Option<Database> {
    let url = match fields.entry("url") {
        Some(_) => fields.get("url", |node| database_url(node.text()?).ok_or_else(|| bad_url(node.place.clone()))),
        None => {
            let place = Place::Variable("DATABASE_URL".into());
            let url = database_url(env.database_url()).ok_or_else(|| bad_url(place));
            fields.sink.keep(url)
        }
    };
    let password_file = fields
        .get("password_file", path)
        .map(|file| folder.join(file))
        .or_else(|| credentials.file("database.password"));
    let pool_size = fields.get("pool_size", |node| node.integer(1..=1000)).unwrap_or(5);
    let max_overflow = fields.get("max_overflow", |node| node.integer(0..=1000)).unwrap_or(10);
    let checked = Database {
        url: url.unwrap_or(DatabaseUrl::Embedded),
        password_file,
        pool_size: u32::try_from(pool_size).expect("checked against 1..=1000"),
        max_overflow: u32::try_from(max_overflow).expect("checked against 0..=1000"),
        pool_timeout: fields.get("pool_timeout", |n| n.duration(SHORTEST..=HOUR)).unwrap_or(SECOND * 30),
        pool_recycle: fields.get("pool_recycle", |n| n.duration(SECOND..=DAY * 365)).unwrap_or(HOUR),
        pool_pre_ping: fields.get("pool_pre_ping", Node::boolean).unwrap_or(true),
        statement_timeout: fields.get("statement_timeout", |n| n.duration(SHORTEST..=DAY)).unwrap_or(SECOND * 60),
    };
    fields.finish();
    Some(checked)
}

fn database_url(text: &str) -> Option<DatabaseUrl> {
    let url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    let words = !text.contains("://") && text.contains('=');
    match text {
        "embedded" => Some(DatabaseUrl::Embedded),
        _ if url || words => Some(DatabaseUrl::Server(Secret::new(text))),
        _ => None,
    }
}

/// Says nothing of what was there: it may hold a password.
fn bad_url(place: Place) -> Fault {
    Fault::new(place, "expected \"embedded\", a postgres:// URL, or libpq's key=value words")
        .hint("for example postgres://user@host/database")
}

fn daemon(mut fields: Fields<'_>, env: &Environment, folder: &Path) -> Option<Daemon> {
    let listen = fields.get("listen", |node| match node.text()? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            node.fault(format!("expected an IP address and a port, got {}", quote(text)))
                .hint("for example \"127.0.0.1:8787\" or \"[::1]:8787\"; \"\" turns it off")
        }),
    });
    let workers = fields.get("workers", |node| node.integer(1..=1024)).unwrap_or(16);
    let per_host = fields.get("per_host", |node| node.integer(1..=1024)).unwrap_or(4);
    let daemon = Daemon {
        listen: listen.unwrap_or_else(|| Some(([127, 0, 0, 1], 8787).into())),
        workers: usize::try_from(workers).expect("checked against 1..=1024"),
        per_host: usize::try_from(per_host).expect("checked against 1..=1024"),
        drain: fields.get("drain", |node| node.duration(Duration::ZERO..=HOUR)).unwrap_or(SECOND * 30),
        state_dir: folder.join(fields.get("state_dir", path).unwrap_or_else(|| env.state_dir())),
        spool_max: fields.get("spool_max", |node| node.size(SPOOL_LEAST..=SPOOL_MOST)).unwrap_or(SPOOL_MAX),
        keep_runs: fields.get("keep_runs", keep_runs).unwrap_or(Some(DAY * 90)),
        lease: fields.get("lease", |node| node.duration(SECOND * 3..=SECOND * 600)).unwrap_or(SECOND * 10),
    };
    fields.finish();
    Some(daemon)
}

/// Nothing is no length to keep runs for: it could mean to keep none, and to keep all.
fn keep_runs(node: &Node) -> Result<Option<Duration>, Fault> {
    match node.text() {
        Ok("forever") => Ok(None),
        _ => {
            let length = node.duration(HOUR..=DAY * 36_500).map(Some);
            length.map_err(|fault| fault.hint("for example \"90d\"; \"forever\" keeps all rows"))
        }
    }
}

pub(super) fn path(node: &Node) -> Result<PathBuf, Fault> {
    match node.text()? {
        "" => Err(node.fault("expected a path, got \"\"")),
        text if text.contains('\0') => Err(node.fault(format!("expected a path, got {}", quote(text)))),
        text => Ok(text.into()),
    }
}

fn log(mut fields: Fields<'_>, folder: &Path) -> Option<Log> {
    let formats = [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    let level = fields.get("level", |node| level(node, node.text()?)).unwrap_or_else(|| "info".into());
    let format = fields.get("format", |node| node.word(&formats)).unwrap_or(LogFormat::Auto);
    let sink = fields.sink;
    let file = fields.get("file", |node| Ok(log_file(Fields::new("log.file", node, sink)?, folder))).flatten();
    fields.finish();
    Some(Log { level, format, file })
}

fn log_file(mut fields: Fields<'_>, folder: &Path) -> Option<LogFile> {
    let rotations = [
        ("minutely", Rotation::Minutely),
        ("hourly", Rotation::Hourly),
        ("daily", Rotation::Daily),
        ("weekly", Rotation::Weekly),
        ("never", Rotation::Never),
    ];
    let dir = fields.require("dir", path);
    let rotation = fields.get("rotation", |node| node.word(&rotations)).unwrap_or(Rotation::Daily);
    let keep = fields.get("keep", |node| node.integer(1..=10_000)).unwrap_or(14);
    fields.finish();
    Some(LogFile { dir: folder.join(dir?), rotation, keep: usize::try_from(keep).expect("checked against 1..=10000") })
}

/// The directives of `EnvFilter` that people use: `info`, `info,trackd::store=debug`.
fn level(node: &Node, text: &str) -> Result<String, Fault> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let mut start = 0;
    for directive in text.split(',') {
        let (target, word) = directive.split_once('=').map_or((None, directive), |(t, word)| (Some(t), word));
        let place = || node.place.part(start..start + directive.len());
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word.trim())) {
            return Err(Fault::new(place(), format!("expected a log level, got {}", quote(word))).hint(fault::known(
                word.trim(),
                LEVELS.into_iter(),
                "levels",
            )));
        }
        let bad = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'));
        if target.is_some_and(|target| target.trim().is_empty() || target.trim().contains(bad)) {
            return Err(Fault::new(place(), format!("expected target=level, got {}", quote(directive)))
                .hint("for example \"info,trackd::store=debug\""));
        }
        start += directive.len() + 1;
    }
    Ok(text.to_owned())
}

/// `[vars]` as JSON; an entry at fault is left out.
fn vars(entry: Option<Entry>, sink: &Sink) -> serde_json::Value {
    let Some(entry) = entry else { return serde_json::Value::Object(Default::default()) };
    let entries = sink.keep(entry.node.table().map_err(|fault| fault.about("vars"))).unwrap_or_default();
    let pairs = entries.into_iter().filter_map(|entry| {
        let value = entry.node.json().map_err(|fault| fault.about(&format!("vars.{}", entry.key.escape_debug())));
        Some((entry.key, sink.keep(value)?))
    });
    serde_json::Value::Object(pairs.collect())
}
