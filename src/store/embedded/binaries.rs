//! Which PostgreSQL is installed, and which of them to use.
//!
//! In: directories to look in, the major version a data directory needs. Out: one directory of programs,
//! or what to install.

use super::EmbeddedError;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The major versions trackd is built for.
pub const SUPPORTED: RangeInclusive<u32> = 13..=18;

/// One installed PostgreSQL: `initdb` and `postgres` are in `dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The directory of the programs.
    pub dir: PathBuf,
    /// Its major version.
    pub major: u32,
}

/// Where PostgreSQL may be: `$PATH`, then where Debian and Red Hat put versions side by side.
pub fn search_path() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let versions = |root: &str, prefix: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path().join("bin")).collect()
    };
    found.extend(versions("/usr/lib/postgresql", ""));
    found.extend(versions("/usr", "pgsql-"));
    found
}

impl Binaries {
    /// The newest supported PostgreSQL in `search`, or the one of major version `wanted`.
    ///
    /// # Errors
    /// Standing: none is there, or none that fits; the hint says what to install.
    pub fn find(search: &[PathBuf], wanted: Option<u32>) -> Result<Binaries, EmbeddedError> {
        let installed: Vec<Binaries> = search.iter().filter_map(|dir| Binaries::in_dir(dir)).collect();
        choose(&installed, wanted).cloned()
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn in_dir(dir: &Path) -> Option<Binaries> {
        // Canonical: a relative or linked entry of PATH must mean the same after a change of directory.
        let postgres = dir.join("postgres").canonicalize().ok()?;
        let dir = postgres.parent()?.to_owned();
        if !dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(&postgres).arg("--version").stdin(Stdio::null()).output().ok()?;
        let major = parse_major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Binaries { dir, major })
    }
}

/// `postgres (PostgreSQL) 15.14 (Debian …)` → 15; also `16beta1`, `19devel`.
pub(in crate::store) fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn choose(installed: &[Binaries], wanted: Option<u32>) -> Result<&Binaries, EmbeddedError> {
    let fits = |b: &&Binaries| SUPPORTED.contains(&b.major) && wanted.is_none_or(|major| b.major == major);
    // The first of equals is the one that PATH names first.
    if let Some(found) = installed.iter().rev().filter(fits).max_by_key(|b| b.major) {
        return Ok(found);
    }
    let (oldest, newest) = (SUPPORTED.start(), SUPPORTED.end());
    let range = format!("{oldest} to {newest}");
    let mut majors: Vec<u32> = installed.iter().map(|b| b.major).collect();
    majors.sort_unstable();
    majors.dedup();
    let have = majors.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    Err(match wanted {
        Some(major) if !SUPPORTED.contains(&major) => EmbeddedError::standing(
            format!("start embedded PostgreSQL: the data directory is of version {major}, expected {range}"),
            "upgrade it with pg_upgrade, or run the trackd that made it",
        ),
        Some(major) => EmbeddedError::standing(
            format!(
                "start embedded PostgreSQL: the data directory is of version {major}, installed: {}",
                if have.is_empty() { "none" } else { have.as_str() }
            ),
            format!(
                "apt-get install postgresql-{major}, or bring the data directory to a newer version with pg_upgrade"
            ),
        ),
        None if have.is_empty() => EmbeddedError::standing(
            "start embedded PostgreSQL: no initdb and postgres on PATH, in /usr/lib/postgresql or in /usr/pgsql-*",
            "apt-get install postgresql (dnf install postgresql-server), or set database.url to a server you have",
        ),
        None => EmbeddedError::standing(
            format!("start embedded PostgreSQL: installed is version {have}, expected {range}"),
            format!(
                "apt-get install postgresql-{newest} (or any of {range}), or set database.url to a server you have"
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(majors: &[u32]) -> Vec<Binaries> {
        majors.iter().map(|&major| Binaries { dir: format!("/pg/{major}").into(), major }).collect()
    }

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(parse_major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(parse_major("no version here"), None);
    }

    #[test]
    fn the_newest_supported_version_is_taken() {
        assert_eq!(choose(&installed(&[13, 16, 19, 9]), None).map(|b| b.major).ok(), Some(16));
    }

    #[test]
    fn of_equals_the_first_on_the_path_is_taken() {
        let mut two = installed(&[15, 15]);
        two[0].dir = "/first".into();
        assert_eq!(choose(&two, None).expect("two fit").dir, Path::new("/first"));
    }

    #[test]
    fn a_data_directory_gets_its_own_version() {
        assert_eq!(choose(&installed(&[14, 16]), Some(14)).map(|b| b.major).ok(), Some(14));
    }

    #[test]
    fn a_version_that_is_missing_is_named_with_what_to_install() {
        let error = choose(&installed(&[15]), Some(14)).expect_err("14 is not there");
        assert_eq!(error.to_string(), "start embedded PostgreSQL: the data directory is of version 14, installed: 15");
        assert!(error.hint().is_some_and(|h| h.contains("postgresql-14") && h.contains("pg_upgrade")), "{error:?}");
    }

    #[test]
    fn versions_too_old_or_too_new_are_named() {
        let error = choose(&installed(&[9, 19]), None).expect_err("none fits");
        assert_eq!(error.to_string(), "start embedded PostgreSQL: installed is version 9, 19, expected 13 to 18");
    }
}
