//! The environment, taken once as a value, and the layer of `TRACKD_…` variables over the file.
//!
//! `TRACKD_TRACKER__LEADERBOARD__SCHEDULE` is `schedule` of the tracker named `leaderboard`: `__` goes one level
//! down, letters match without case, and what is not a letter or a digit compares as `_`.
//! Must not know: which keys there are (an unknown one is found where the tree is read).

use super::fault::Fault;
use super::node::{self, Entry, Node, Place, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

const PREFIX: &str = "TRACKD_";
/// Names the file; not a key of it.
pub(super) const CONFIG: &str = "TRACKD_CONFIG";

/// What a command of `[alert]` is told: no keys, where it calls trackd itself.
pub const TOLD: [&str; 5] =
    ["TRACKD_ALERT_TEXT", "TRACKD_ALERT_STATE", "TRACKD_ALERT_KIND", "TRACKD_ALERT_TRACKER", "TRACKD_ALERT_INSTANCE"];

/// What the configuration may depend on besides the file. `Debug` shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    root: bool,
}

impl Environment {
    /// An environment of these variables; `root`: whether the user id is 0.
    pub fn new<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>, root: bool) -> Environment {
        Environment { variables: pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect(), root }
    }

    /// The environment of this process.
    pub fn of_process() -> Environment {
        let pairs =
            std::env::vars_os().map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()));
        Environment::new(pairs, rustix::process::geteuid().is_root())
    }

    /// A variable that is set to something.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `$DATABASE_URL`, else embedded.
    pub(super) fn database_url(&self) -> &str {
        self.get("DATABASE_URL").unwrap_or("embedded")
    }

    /// `$STATE_DIRECTORY` (its first word, as systemd may give several), else the place the user's kind has.
    pub fn state_dir(&self) -> PathBuf {
        if let Some(directories) = self.get("STATE_DIRECTORY") {
            return directories.split(':').next().unwrap_or(directories).into();
        }
        let home = || self.get("HOME").filter(|_| !self.root).map(|home| PathBuf::from(home).join(".local/state"));
        match self.get("XDG_STATE_HOME").map(PathBuf::from).or_else(home) {
            Some(state) => state.join("trackd"),
            None => "/var/lib/trackd".into(),
        }
    }

    /// Where systemd made a directory for this service's sockets: `$RUNTIME_DIRECTORY` (its first word).
    pub fn runtime_directory(&self) -> Option<PathBuf> {
        self.get("RUNTIME_DIRECTORY").map(|directories| directories.split(':').next().unwrap_or(directories).into())
    }

    /// A directory for this user's sockets: `$XDG_RUNTIME_DIR/trackd`. `None`: there is none; after `su` it is another's.
    pub fn user_runtime_dir(&self) -> Option<PathBuf> {
        let own = rustix::process::geteuid().as_raw();
        let is_own = |dir: &PathBuf| std::fs::metadata(dir).is_ok_and(|found| found.is_dir() && found.uid() == own);
        self.get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(is_own).map(|dir| dir.join("trackd"))
    }

    /// Lays the variables over the tree.
    pub(super) fn overlay(&self, root: &mut Node, faults: &mut Vec<Fault>) {
        let mut layer: Vec<(Vec<&str>, &String, &String)> = self
            .variables
            .iter()
            .filter(|(name, _)| name.as_str() != CONFIG && !TOLD.contains(&name.as_str()))
            .filter_map(|(name, text)| Some((name.strip_prefix(PREFIX)?.split("__").collect(), name, text)))
            .collect();
        // An inline table given as a whole comes before its single keys.
        layer.sort_by_key(|(path, name, _)| (path.len(), *name));
        for (path, name, text) in layer {
            let place = Place::Variable(Arc::from(name.as_str()));
            if let Err(fault) = put(root, &path, text, &place) {
                faults.push(fault);
            }
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("names", &self.variables.keys()).field("root", &self.root).finish()
    }
}

fn put(node: &mut Node, path: &[&str], text: &str, place: &Place) -> Result<(), Fault> {
    let Some((level, rest)) = path.split_first() else {
        node.value = Value::Given(text.to_owned(), Some(node.value.kind()));
        node.place = place.clone();
        return Ok(());
    };
    if let Value::Given(given, _) = &node.value
        && let Some(parsed) = node::value(given, &node.place)
    {
        *node = parsed;
    }
    match &mut node.value {
        Value::Table(entries) => put(child(entries, level, rest.is_empty(), place), rest, text, place),
        Value::List(items) => put(named(items, level, place)?, rest, text, place),
        other => Err(Fault::new(
            place.clone(),
            format!("`{}` is below a {}, expected a table", level.to_lowercase(), other.kind()),
        )),
    }
}

/// The entry this level names; a new one if there is none.
fn child<'a>(entries: &'a mut Vec<Entry>, level: &str, last: bool, place: &Place) -> &'a mut Node {
    let index = entries.iter().position(|entry| same(&entry.key, level)).unwrap_or_else(|| {
        let value = if last { Value::Given(String::new(), None) } else { Value::Table(Vec::new()) };
        let node = Node { place: place.clone(), value };
        entries.push(Entry { key: level.to_lowercase(), place: place.clone(), node });
        entries.len() - 1
    });
    let entry = &mut entries[index];
    if last {
        entry.place = place.clone();
    }
    &mut entry.node
}

/// The table of an array of tables whose `name` this is.
fn named<'a>(items: &'a mut [Node], level: &str, place: &Place) -> Result<&'a mut Node, Fault> {
    let names: Vec<String> = items.iter().filter_map(name_of).collect();
    match items.iter().position(|item| name_of(item).is_some_and(|name| same(&name, level))) {
        Some(index) => Ok(&mut items[index]),
        None => {
            let level = level.to_lowercase();
            let hint = super::fault::known(&level, names.iter().map(String::as_str), "names");
            Err(Fault::new(place.clone(), format!("nothing is named `{level}`")).hint(hint))
        }
    }
}

fn name_of(item: &Node) -> Option<String> {
    let Value::Table(entries) = &item.value else { return None };
    entries.iter().find(|entry| entry.key == "name").and_then(|entry| match &entry.node.value {
        Value::Text(name) | Value::Given(name, _) => Some(name.clone()),
        _ => None,
    })
}

fn same(key: &str, level: &str) -> bool {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    };
    plain(key) == plain(level)
}
