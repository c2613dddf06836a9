//! What a connection string leaves open: a service, the environment, a password file.
//!
//! Source: PostgreSQL's documentation, "The Connection Service File", "Environment Variables", "The Password File".
//! In: variables and the home of whoever connects. Out: words. Must not know: what a word means.

use super::words::{Fault, KNOWN, Words};
use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where Debian's libpq looks for services of the whole system.
const SYSTEM_SERVICES: &str = "/etc/postgresql-common";

/// The environment of whoever connects. Shows no values.
#[derive(Clone, Default)]
pub struct Surroundings {
    variables: HashMap<String, String>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("variables", &self.variables.len()).finish()
    }
}

impl Surroundings {
    /// These variables: `PG*`, and `HOME` to find files by.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Surroundings {
        Surroundings { variables: variables.into_iter().collect() }
    }

    /// The environment of this process.
    pub fn of_process() -> Surroundings {
        let text = |os: std::ffi::OsString| os.into_string().ok();
        Surroundings::new(std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))))
    }

    fn get(&self, variable: &str) -> Option<&str> {
        self.variables.get(variable).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file of the user's home.
    pub(super) fn home(&self, file: &str) -> Option<PathBuf> {
        self.get("HOME").map(|home| Path::new(home).join(file))
    }

    /// Completes the words of a string: what it does not say comes from its service, then from the environment.
    pub(super) fn complete(&self, words: Words) -> Result<Words, Fault> {
        let mut environment = Words::default();
        for (name, variable, _) in KNOWN.iter().filter(|(_, variable, _)| !variable.is_empty()) {
            if let Some(value) = self.get(variable) {
                environment
                    .put(name, value)
                    .map_err(|fault| Fault { message: format!("${variable}: {}", fault.message), ..fault })?;
            }
        }
        let names = words.clone().or(environment.clone());
        let service = match names.get("service") {
            Some(service) => self.service(service, names.get("servicefile"))?,
            None => Words::default(),
        };
        Ok(words.or(service).or(environment))
    }

    /// The words of a service: of the file that is named, else of the user's, then of the system's.
    fn service(&self, service: &str, named: Option<&str>) -> Result<Words, Fault> {
        let system = Path::new(self.get("PGSYSCONFDIR").unwrap_or(SYSTEM_SERVICES)).join("pg_service.conf");
        let users = named.map(PathBuf::from).or_else(|| self.home(".pg_service.conf"));
        let files: Vec<PathBuf> = users.into_iter().chain([system]).collect();
        for (number, file) in files.iter().enumerate() {
            let at = |fault: Fault| Fault { message: format!("{}: {}", file.display(), fault.message), ..fault };
            match std::fs::read_to_string(file) {
                Ok(text) => {
                    if let Some(words) = section(&text, service).map_err(at)? {
                        return Ok(words);
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound && (named.is_none() || number > 0) => {}
                Err(error) => return Err(Fault::new(format!("read {}: {error}", file.display()))),
            }
        }
        let places: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        Err(Fault::new(format!("no service {service}")).hint(format!("it was looked for in {}", places.join(" and "))))
    }
}

/// The words below `[service]`.
fn section(text: &str, service: &str) -> Result<Option<Words>, Fault> {
    let mut found: Option<Words> = None;
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Words::default);
        } else if let Some(words) = &mut found {
            let at = |message: String| format!("line {}: {message}", number + 1);
            let (name, value) = line.split_once('=').ok_or_else(|| Fault::new(at("expected word=value".into())))?;
            if ["service", "servicefile"].contains(&name.trim()) {
                return Err(Fault::new(at("a service cannot name another".into())));
            }
            // As in libpq: here the first one counts.
            let mut word = Words::default();
            word.put(name.trim(), value.trim()).map_err(|fault| Fault { message: at(fault.message), ..fault })?;
            *words = std::mem::take(words).or(word);
        }
    }
    Ok(found)
}

/// A password file, as read once: host, port, database, user, `None` for any; and the password.
#[derive(Clone, Default)]
pub(super) struct Passwords(Vec<([Option<String>; 4], String)>);

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passwords", self.0.len())
    }
}

impl Passwords {
    /// Reads a file. One that others may read, or that is none, is not used, as libpq does not.
    pub(super) fn read(path: &Path) -> Passwords {
        let Ok(metadata) = std::fs::metadata(path) else { return Passwords::default() };
        let unused = |why: &str, hint: &str| {
            tracing::warn!(target: "trackd::store", path = %path.display(), hint, "password file is not used: {why}");
            Passwords::default()
        };
        if !metadata.is_file() {
            return unused("it is no plain file", "");
        }
        if metadata.mode() & 0o077 != 0 {
            return unused("others may read it", "chmod 0600");
        }
        match std::fs::read(path) {
            // A comment in another encoding is no reason to leave out the other lines.
            Ok(bytes) => Passwords::parse(&String::from_utf8_lossy(&bytes)),
            Err(error) => unused(&error.to_string(), ""),
        }
    }

    fn parse(text: &str) -> Passwords {
        Passwords(text.lines().filter(|line| !line.starts_with('#')).filter_map(fields).collect())
    }

    /// The password of the first line that fits.
    pub(super) fn find(&self, host: &str, port: u16, dbname: &str, user: &str) -> Option<&str> {
        let port = port.to_string();
        let asked = [host, &port, dbname, user];
        let fits = |(line, _): &&([Option<String>; 4], String)| {
            line.iter().zip(asked).all(|(field, asked)| field.as_ref().is_none_or(|field| field == asked))
        };
        self.0.iter().find(fits).map(|(_, password)| password.as_str()).filter(|password| !password.is_empty())
    }
}

/// `host:port:database:user:password`, with `\:`, `\\`, `\*`; what follows a colon behind the password is not looked at.
fn fields(line: &str) -> Option<([Option<String>; 4], String)> {
    let mut rest = line;
    let mut next = || {
        let (field, after) = field(rest);
        rest = after?;
        Some(field)
    };
    let known = [next()?, next()?, next()?, next()?];
    Some((known, field(rest).0.unwrap_or_else(|| "*".to_owned())))
}

/// A field, `None` where it is `*`, and what follows its colon.
fn field(text: &str) -> (Option<String>, Option<&str>) {
    let mut field = String::new();
    let mut chars = text.char_indices();
    let mut after = None;
    while let Some((at, c)) = chars.next() {
        match c {
            // One at the end of the line stands for itself.
            '\\' => field.push(chars.next().map_or('\\', |(_, c)| c)),
            ':' => {
                after = Some(&text[at + 1..]);
                break;
            }
            c => field.push(c),
        }
    }
    (Some(field).filter(|_| !(text == "*" || text.starts_with("*:"))), after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn around(pairs: &[(&str, &str)]) -> Surroundings {
        Surroundings::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_string_goes_before_its_service_and_that_before_the_environment() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".pg_service.conf");
        std::fs::write(&file, "# ours\n[other]\nhost=x\n\n[main]\nhost=service\nport = 1\n[main2]\nport=9\n").unwrap();
        let around = around(&[
            ("HOME", home.path().to_str().unwrap()),
            ("PGHOST", "environment"),
            ("PGPORT", "2"),
            ("PGUSER", "environment"),
            ("PGDATABASE", ""),
        ]);
        let words = around.complete(Words::parse("service=main").unwrap()).unwrap();
        assert_eq!(
            (words.get("host"), words.get("port"), words.get("user")),
            (Some("service"), Some("1"), Some("environment"))
        );
        assert_eq!(words.get("dbname"), None);
        let words = around.complete(Words::parse("host=string service=main").unwrap()).unwrap();
        assert_eq!((words.get("host"), words.get("port")), (Some("string"), Some("1")));
        let fault = around.complete(Words::parse("service=none").unwrap()).unwrap_err();
        assert_eq!(fault.message, "no service none");
        assert!(fault.hint.unwrap().contains(file.to_str().unwrap()));
        std::fs::write(home.path().join("pg_service.conf"), "[system]\nhost=s\nhost=t\n[main]\nhost=x").unwrap();
        let directory = ("PGSYSCONFDIR", home.path().to_str().unwrap());
        let named =
            |name: &str| self::around(&[("PGSERVICEFILE", home.path().join(name).to_str().unwrap()), directory]);
        let words = named(".pg_service.conf").complete(Words::parse("service=system").unwrap()).unwrap();
        assert_eq!(words.get("host"), Some("s"), "the system's is asked after the named one, and the first counts");
        let words = named(".pg_service.conf").complete(Words::parse("service=main").unwrap()).unwrap();
        assert_eq!(words.get("host"), Some("service"));
        let fault = named("gone").complete(Words::parse("service=system").unwrap()).unwrap_err();
        assert!(fault.message.contains("gone: "), "{fault:?}");
        std::fs::write(&file, "[main]\nservice=other\n").unwrap();
        let fault = around.complete(Words::parse("service=main").unwrap()).unwrap_err();
        assert!(fault.message.ends_with("line 2: a service cannot name another"), "{fault:?}");
        std::fs::write(&file, "[main]\nhost=a\nsslmod=b\n").unwrap();
        let fault = around.complete(Words::parse("service=main").unwrap()).unwrap_err();
        assert_eq!(fault.message, format!("{}: line 3: no word sslmod", file.display()));
    }

    #[test]
    fn the_first_line_of_a_password_file_that_fits_counts() {
        let passwords = Passwords::parse(concat!(
            "# c\nh:5432:d:u:one\nshort:line\n*:*:d\\:x:*:it\\\\s\\:two:not this\n\\*:*:*:star:literal\n",
            "*:*:*:w:*\n*:*:*:e:\n*:*:*:e:never\n*:*:*:u:three\\"
        ));
        assert_eq!(passwords.find("h", 5432, "d", "u"), Some("one"));
        assert_eq!(passwords.find("h", 5433, "d", "u"), Some("three\\"));
        assert_eq!(passwords.find("h", 1, "d:x", "v"), Some("it\\s:two"));
        assert_eq!(passwords.find("h", 1, "d", "v"), None);
        assert_eq!(passwords.find("h", 1, "d", "star"), None);
        assert_eq!(passwords.find("*", 1, "d", "star"), Some("literal"));
        assert_eq!(passwords.find("h", 1, "d", "w"), Some("*"));
        assert_eq!(passwords.find("h", 1, "d", "e"), None, "the first that fits has none");
    }

    #[test]
    fn a_password_file_that_others_may_read_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:p\n").unwrap();
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(Passwords::read(file.path()).find("h", 1, "d", "u"), Some("p"));
        mode(0o640);
        assert_eq!(Passwords::read(file.path()).find("h", 1, "d", "u"), None);
        assert_eq!(Passwords::read(Path::new("/dev/zero")).find("h", 1, "d", "u"), None, "nor read without end");
    }
}
