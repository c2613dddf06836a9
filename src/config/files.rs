//! The files of one configuration: the main file, and its drop-ins in order of their names.
//!
//! ```text
//!  config.toml  <- conf.d/*.toml          second.toml  <- second.d/*.toml
//! ```
//!
//! Their texts stand one after the other in one text, so that a place is a number whichever file it is in, and one
//! tree, one list of faults and one mask are enough. In: paths. Out: texts, and places for people.
//! Must not know: which keys there are.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Every text that was read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    text: String,
    /// Names as they were given, and where their texts start; the main file first. At least one.
    starts: Vec<(PathBuf, usize)>,
}

/// One file's part of the whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'f> {
    pub(super) path: &'f Path,
    /// Where it starts in the whole.
    pub(super) start: usize,
    pub(super) text: &'f str,
}

/// Why a file cannot be read.
pub(super) struct Refused {
    pub(super) message: String,
    /// By its mode, or that of a directory above it.
    pub(super) not_allowed: bool,
}

impl Files {
    /// The main file alone.
    pub(super) fn one(path: &Path, text: &str) -> Files {
        Files { text: text.to_owned(), starts: vec![(path.to_owned(), 0)] }
    }

    /// The main file at `path`, and its drop-ins; those that can be read, and why the others cannot.
    pub(super) fn read(path: &Path) -> (Files, Vec<Refused>) {
        let mut refused = Vec::new();
        let mut refuse = |what: String, error: &std::io::Error| {
            let not_allowed = error.kind() == std::io::ErrorKind::PermissionDenied;
            refused.push(Refused { message: format!("read {what}: {error}"), not_allowed });
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse("configuration".into(), &error));
        let mut files = Files::one(path, &text.unwrap_or_default());
        let mut refuse = |path: &Path, error: &std::io::Error| refuse(format!("drop-in {}", path.display()), error);
        let dir = drop_in_dir(path);
        for path in drop_ins(&dir).map_err(|error| refuse(&dir, &error)).unwrap_or_default() {
            match std::fs::read_to_string(&path) {
                Ok(text) => files.add(&path, &text),
                Err(error) => refuse(&path, &error),
            }
        }
        (files, refused)
    }

    fn add(&mut self, path: &Path, text: &str) {
        // No line has parts of two files.
        self.text.push('\n');
        self.starts.push((path.to_owned(), self.text.len()));
        self.text.push_str(text);
    }

    /// All texts as one.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The main file's name.
    pub(super) fn main(&self) -> &Path {
        &self.starts[0].0
    }

    /// Each file, the main one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = File<'_>> {
        (0..self.starts.len()).map(|index| self.file(index))
    }

    /// The file a byte of the whole stands in.
    pub(super) fn of(&self, offset: usize) -> File<'_> {
        self.file(self.starts.partition_point(|(_, start)| *start <= offset).saturating_sub(1))
    }

    fn file(&self, index: usize) -> File<'_> {
        let (path, start) = &self.starts[index];
        // Without the line break before the next one.
        let end = self.starts.get(index + 1).map_or(self.text.len(), |(_, next)| next - 1);
        File { path, start: *start, text: &self.text[*start..end] }
    }

    /// `config.toml:12:3`: line and column from 1, the column in characters.
    pub(super) fn place(&self, offset: usize) -> String {
        let file = self.of(offset);
        let before = &file.text.as_bytes()[..(offset - file.start).min(file.text.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        format!("{}:{line}:{column}", file.path.display())
    }

    /// Each byte of a secret becomes `*`, so that all places stay.
    pub(super) fn masked(mut self, secrets: &[Range<usize>]) -> Files {
        let mut bytes = std::mem::take(&mut self.text).into_bytes();
        for secret in secrets {
            let end = secret.end.min(bytes.len());
            for byte in bytes[secret.start.min(end)..end].iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
                *byte = b'*';
            }
        }
        self.text = String::from_utf8_lossy(&bytes).into_owned();
        self
    }
}

/// Each its own: two configurations of one folder share no drop-in, and `/etc/conf.d` is somebody else's.
fn drop_in_dir(path: &Path) -> PathBuf {
    if path.file_name() == Some(OsStr::new("config.toml")) {
        path.with_file_name("conf.d")
    } else {
        path.with_extension("d")
    }
}

/// `*.toml` in order of their names, without hidden ones: editors leave those.
fn drop_ins(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| path.extension() == Some(OsStr::new("toml")) && !hidden(path));
    paths.sort();
    Ok(paths)
}
