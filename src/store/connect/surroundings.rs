//! What a connection string leaves open: a service, the environment, a password file.
//!
//! Source: PostgreSQL's documentation, "The Connection Service File", "Environment Variables", "The Password File".
//! In: variables and the home of whoever connects. Out: words. Must not know: what a word means.

use super::words::{Fault, KNOWN, Words};
use std::collections::HashMap;
use std::fmt;
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

    fn service(&self, service: &str, file: Option<&str>) -> Result<Words, Fault> {
        let system = self.get("PGSYSCONFDIR").unwrap_or(SYSTEM_SERVICES);
        let files = match file {
            Some(file) => vec![PathBuf::from(file)],
            None => {
                self.home(".pg_service.conf").into_iter().chain([Path::new(system).join("pg_service.conf")]).collect()
            }
        };
        for file in &files {
            match std::fs::read_to_string(file) {
                Ok(text) => {
                    if let Some(words) = section(&text, service)
                        .map_err(|fault| Fault { message: format!("{}: {}", file.display(), fault.message), ..fault })?
                    {
                        return Ok(words);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
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
            words.put(name.trim(), value.trim()).map_err(|fault| Fault { message: at(fault.message), ..fault })?;
        }
    }
    Ok(found)
}

/// A password file, as read once.
#[derive(Clone, Default)]
pub(super) struct Passwords(Vec<[String; 5]>);

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passwords", self.0.len())
    }
}

impl Passwords {
    /// Reads a file. One that others may read is not used, as libpq does not.
    pub(super) fn read(path: &Path) -> Passwords {
        let Ok(metadata) = std::fs::metadata(path) else { return Passwords::default() };
        if metadata.is_file() && metadata.mode() & 0o077 != 0 {
            tracing::warn!(target: "trackd::store", path = %path.display(), hint = "chmod 0600", "password file is not used: others may read it");
            return Passwords::default();
        }
        match std::fs::read_to_string(path) {
            Ok(text) => Passwords::parse(&text),
            Err(error) => {
                tracing::warn!(target: "trackd::store", path = %path.display(), error = %error, "password file is not used");
                Passwords::default()
            }
        }
    }

    fn parse(text: &str) -> Passwords {
        Passwords(text.lines().filter(|line| !line.starts_with('#')).filter_map(fields).collect())
    }

    /// The password of the first line that fits; `*` fits all.
    pub(super) fn find(&self, host: &str, port: u16, dbname: &str, user: &str) -> Option<&str> {
        let port = port.to_string();
        let asked = [host, &port, dbname, user];
        let fits = |line: &&[String; 5]| line.iter().zip(asked).all(|(field, asked)| field == "*" || field == asked);
        self.0.iter().find(fits).map(|line| line[4].as_str()).filter(|password| !password.is_empty())
    }
}

/// `host:port:database:user:password`, with `\:` and `\\`.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields: [String; 5] = Default::default();
    let mut at = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => fields[at].extend(chars.next()),
            // The password is the last field: a colon in it need not be escaped.
            ':' if at < 4 => at += 1,
            c => fields[at].push(c),
        }
    }
    (at == 4).then_some(fields)
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
        std::fs::write(&file, "[main]\nhost=a\nsslmod=b\n").unwrap();
        let fault = around.complete(Words::parse("service=main").unwrap()).unwrap_err();
        assert_eq!(fault.message, format!("{}: line 3: no word sslmod", file.display()));
    }

    #[test]
    fn the_first_line_of_a_password_file_that_fits_counts() {
        let passwords = Passwords::parse("# c\nh:5432:d:u:one\nshort:line\n*:*:d\\:x:*:it\\\\s:two\n*:*:*:u:three\n");
        assert_eq!(passwords.find("h", 5432, "d", "u"), Some("one"));
        assert_eq!(passwords.find("h", 5433, "d", "u"), Some("three"));
        assert_eq!(passwords.find("h", 1, "d:x", "v"), Some("it\\s:two"));
        assert_eq!(passwords.find("h", 1, "d", "v"), None);
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
    }
}
