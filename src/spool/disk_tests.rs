//! A model of a disk that keeps what was synced, and nothing that it need not.
//!
//! A crash leaves of each file's contents what was synced, all, or a torn part, and of each directory the names that
//! were synced and none, all or some of the changes since: each file and directory for itself, as a disk may.

use super::disk::{Disk, Item, ItemKind, Unsynced};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What is wrong with how the spool is written: its nth sync
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// is left out.
    Forgets(usize),
    /// comes last, just before `put` returns.
    Defers(usize),
}

/// How a crash treats what was not synced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Crash {
    /// kill -9: the machine goes on.
    Kill,
    /// All that need not last is lost.
    Lose,
    /// Names lasted, contents did not: files without contents.
    Names,
    /// Names lasted, half of the contents did.
    Torn,
    /// Contents lasted, names did not.
    Contents,
    /// Each for itself, by chance.
    Chance(u64),
}

pub(super) const CRASHES: [Crash; 9] = [
    Crash::Kill,
    Crash::Lose,
    Crash::Names,
    Crash::Torn,
    Crash::Contents,
    Crash::Chance(1),
    Crash::Chance(2),
    Crash::Chance(3),
    Crash::Chance(4),
];

#[derive(Debug, Clone, Default)]
struct Node {
    now: Vec<u8>,
    lasts: Vec<u8>,
}

/// A name in a directory: of a file by number, or of a directory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Named {
    File(usize),
    Dir(usize),
}

#[derive(Debug, Clone, Default)]
struct Folder {
    now: BTreeMap<OsString, Named>,
    lasts: BTreeMap<OsString, Named>,
    /// Since the last sync, in order; `None` removes.
    changes: Vec<Vec<(OsString, Option<Named>)>>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    files: Vec<Node>,
    folders: Vec<Folder>,
    /// What was done, in order.
    pub(super) done: Vec<String>,
    /// From here on nothing is done any more: the power is off.
    pub(super) off_after: Option<usize>,
    /// The nth operation finds no room, once.
    pub(super) full_at: Option<usize>,
    /// What the next read fails with.
    pub(super) read_fails: Option<io::ErrorKind>,
    syncs: usize,
    pub(super) flaw: Option<Flaw>,
    deferred: Option<Deferred>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Deferred {
    File(usize),
    Dir(usize),
}

/// The model. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Model(Arc<Mutex<State>>);

impl Model {
    pub(super) fn new() -> Model {
        Model(Arc::new(Mutex::new(State { folders: vec![Folder::default()], ..State::default() })))
    }

    /// Another disk in the same state.
    pub(super) fn fork(&self) -> Model {
        Model(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn open(&self) -> Spool {
        let (spool, aside) = Spool::open_on(Box::new(self.clone()), Path::new("/"), 1 << 30, None).unwrap();
        assert_eq!(aside, [], "nothing foreign is made by crashes");
        spool
    }

    /// Puts, with a deferred sync made up for at the end.
    pub(super) fn put(&self, spool: &Spool, entry: &Entry) -> Result<Put, Error> {
        let put = spool.put(entry);
        let mut state = self.state();
        if let Some(deferred) = state.deferred.take() {
            state.act(format!("deferred {deferred:?}")).ok();
            if !state.is_off() {
                state.sync(deferred);
            }
        }
        put
    }

    /// The power comes back.
    pub(super) fn crash(&self, crash: Crash) {
        let mut state = self.state();
        let mut chance = fastrand::Rng::with_seed(if let Crash::Chance(seed) = crash { seed } else { 0 });
        (state.off_after, state.flaw, state.deferred) = (None, None, None);
        if let Crash::Kill = crash {
            return;
        }
        for file in &mut state.files {
            file.now = match crash {
                Crash::Kill | Crash::Contents => file.now.clone(),
                Crash::Lose | Crash::Names => file.lasts.clone(),
                Crash::Torn if file.lasts == file.now => file.now.clone(),
                Crash::Torn => file.now[..file.now.len() / 2].to_vec(),
                Crash::Chance(_) if chance.bool() => file.lasts.clone(),
                Crash::Chance(_) => file.now.clone(),
            };
            file.lasts = file.now.clone();
        }
        for folder in &mut state.folders {
            let kept = match crash {
                Crash::Names | Crash::Torn | Crash::Kill => folder.changes.len(),
                Crash::Lose | Crash::Contents => 0,
                Crash::Chance(_) => chance.usize(0..=folder.changes.len()),
            };
            let changes = std::mem::take(&mut folder.changes);
            changes.into_iter().take(kept).flatten().for_each(|change| apply(&mut folder.lasts, change));
            folder.now = folder.lasts.clone();
        }
    }
}

fn apply(names: &mut BTreeMap<OsString, Named>, (name, to): (OsString, Option<Named>)) {
    match to {
        Some(named) => drop(names.insert(name, named)),
        None => drop(names.remove(&name)),
    }
}

fn none() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl State {
    fn is_off(&self) -> bool {
        self.off_after.is_some_and(|last| self.done.len() > last)
    }

    /// Notes an operation that changes something.
    fn act(&mut self, what: String) -> io::Result<()> {
        self.done.push(what);
        match self.full_at {
            _ if self.is_off() => Err(io::Error::other("power is off")),
            Some(full) if full + 1 == self.done.len() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for part in path.components().skip(1) {
            at = match self.folders[at].now.get(part.as_os_str()) {
                Some(Named::Dir(number)) => *number,
                _ => return Err(none()),
            };
        }
        Ok(at)
    }

    fn named(&self, path: &Path) -> io::Result<Named> {
        let folder = self.folder(path.parent().unwrap())?;
        self.folders[folder].now.get(path.file_name().unwrap()).copied().ok_or_else(none)
    }

    /// Changes of one directory that last together or not at all.
    fn change(&mut self, dir: &Path, changes: Vec<(OsString, Option<Named>)>) -> io::Result<()> {
        let folder = self.folder(dir)?;
        let folder = &mut self.folders[folder];
        changes.iter().cloned().for_each(|change| apply(&mut folder.now, change));
        folder.changes.push(changes);
        Ok(())
    }

    fn sync(&mut self, what: Deferred) {
        match what {
            Deferred::File(number) => self.files[number].lasts = self.files[number].now.clone(),
            Deferred::Dir(number) => {
                let folder = &mut self.folders[number];
                folder.changes.clear();
                folder.lasts = folder.now.clone();
            }
        }
    }

    /// A sync that may be left out or come late.
    fn told_to_sync(&mut self, what: Deferred) {
        let number = self.syncs;
        self.syncs += 1;
        match self.flaw {
            Some(Flaw::Forgets(flawed)) if flawed == number => {}
            Some(Flaw::Defers(flawed)) if flawed == number => self.deferred = Some(what),
            _ => self.sync(what),
        }
    }
}

impl Disk for Model {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.folder(dir).is_ok() {
            return Ok(());
        }
        state.act(format!("make {}", dir.display()))?;
        let number = state.folders.len();
        state.folders.push(Folder::default());
        state.change(dir.parent().unwrap(), vec![(dir.file_name().unwrap().into(), Some(Named::Dir(number)))])
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Item>> {
        let state = self.state();
        let item = |(name, named): (&OsString, &Named)| Item {
            name: name.clone(),
            kind: if let Named::File(_) = named { ItemKind::File } else { ItemKind::Dir },
        };
        Ok(state.folders[state.folder(dir)?].now.iter().map(item).collect())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.read(path, u64::MAX).map(|bytes| bytes.len() as u64)
    }

    fn read(&self, path: &Path, _limit: u64) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        if let Some(kind) = state.read_fails.take() {
            return Err(kind.into());
        }
        match state.named(path)? {
            Named::File(number) => Ok(state.files[number].now.clone()),
            Named::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn write(&self, path: &Path, parts: &[&[u8]]) -> io::Result<Box<dyn Unsynced + '_>> {
        let mut state = self.state();
        // A new name, then its contents: power may go between them.
        state.act(format!("create {}", path.display()))?;
        assert!(state.named(path).is_err(), "{} is there", path.display());
        let number = state.files.len();
        state.files.push(Node::default());
        state.change(path.parent().unwrap(), vec![(path.file_name().unwrap().into(), Some(Named::File(number)))])?;
        for part in parts {
            state.act(format!("write {}", path.display()))?;
            state.files[number].now.extend_from_slice(part);
        }
        Ok(Box::new(Handle { model: self, number, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.act(format!("rename {} {}", from.display(), to.display()))?;
        let named = state.named(from)?;
        let old = (from.file_name().unwrap().into(), None);
        let new = (to.file_name().unwrap().into(), Some(named));
        if from.parent() == to.parent() {
            return state.change(from.parent().unwrap(), vec![old, new]);
        }
        // The worst that a file system may do: each directory lasts for itself.
        state.change(from.parent().unwrap(), vec![old])?;
        state.change(to.parent().unwrap(), vec![new])
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.named(path)?;
        state.act(format!("remove {}", path.display()))?;
        state.change(path.parent().unwrap(), vec![(path.file_name().unwrap().into(), None)])
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        assert!(self.list(dir)?.is_empty());
        self.remove(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let number = state.folder(dir)?;
        state.act(format!("sync {}", dir.display()))?;
        state.told_to_sync(Deferred::Dir(number));
        Ok(())
    }

    fn room(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

struct Handle<'a> {
    model: &'a Model,
    number: usize,
    path: PathBuf,
}

impl Unsynced for Handle<'_> {
    fn sync(self: Box<Self>) -> io::Result<()> {
        let mut state = self.model.state();
        state.act(format!("sync {}", self.path.display()))?;
        state.told_to_sync(Deferred::File(self.number));
        Ok(())
    }
}

#[test]
fn the_model_loses_what_a_disk_loses() {
    let model = Model::new();
    let path = Path::new("/x");
    let file = model.write(path, &[b"whole"]).unwrap();
    let after = |crash| {
        let model = model.fork();
        model.crash(crash);
        model.read(path, 9).ok()
    };
    assert_eq!(after(Crash::Kill), Some(b"whole".to_vec()));
    assert_eq!([Crash::Lose, Crash::Contents].map(after), [None, None]);
    assert_eq!([Crash::Names, Crash::Torn].map(after), [Some(vec![]), Some(b"wh".to_vec())]);
    file.sync().unwrap();
    let after = |crash| {
        let model = model.fork();
        model.crash(crash);
        model.read(path, 9).ok()
    };
    assert_eq!([Crash::Lose, Crash::Names].map(after), [None, Some(b"whole".to_vec())]);
    model.sync_dir(Path::new("/")).unwrap();
    let all: BTreeSet<Option<Vec<u8>>> = CRASHES
        .iter()
        .map(|crash| {
            let model = model.fork();
            model.crash(*crash);
            model.read(path, 9).ok()
        })
        .collect();
    assert_eq!(all, BTreeSet::from([Some(b"whole".to_vec())]));
}
