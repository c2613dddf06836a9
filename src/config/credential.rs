//! Secrets by name, each in a file of its own: systemd's credentials, and a folder beside the configuration.
//!
//! ```text
//!  $CREDENTIALS_DIRECTORY/NAME     systemd's: as they were when the service was started
//!  <folder>/credentials/NAME       read again at each reload
//! ```
//!
//! In: a name. Out: the file, or what it holds, which is read once for each reading of the configuration.
//! Must not know: what a secret is for.

use super::environment::Environment;
use minijinja::Value;
use minijinja::value::Object;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The folder beside the configuration.
const FOLDER: &str = "credentials";
/// systemd's own limit is 1 MiB; a header is far shorter.
const LONGEST: u64 = 64 << 10;

/// Where secrets are looked for; in templates it is `credential`. `Debug` shows none.
pub(super) struct Credentials {
    places: Vec<PathBuf>,
    read: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By name; one that is not there stays so until the configuration is read again.
    values: BTreeMap<String, Option<String>>,
    /// Names that were asked for since `take_used`.
    used: Vec<String>,
}

impl Credentials {
    /// Those of the service, before those of the folder that the configuration is in.
    pub(super) fn new(env: &Environment, folder: &Path) -> Credentials {
        let service = env.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let places = service.into_iter().chain([folder.join(FOLDER)]).collect();
        Credentials { places, read: Mutex::default() }
    }

    /// The file of a name, if there is one.
    pub(super) fn file(&self, name: &str) -> Option<PathBuf> {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        self.places.iter().filter(|_| plain).map(|place| place.join(name)).find(|file| file.is_file())
    }

    /// What it holds, without the newline that editors end it with.
    fn value(&self, name: &str) -> Option<String> {
        let mut read = self.read();
        if !read.used.iter().any(|used| used == name) {
            read.used.push(name.to_owned());
        }
        let value = read.values.entry(name.to_owned()).or_insert_with(|| {
            let mut text = String::new();
            let file = File::open(self.file(name)?).ok()?;
            file.take(LONGEST + 1).read_to_string(&mut text).ok().filter(|length| *length as u64 <= LONGEST)?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        });
        value.clone()
    }

    /// What was asked for since this was asked last, with its values, so that a change of one can be seen.
    pub(super) fn take_used(&self) -> Vec<String> {
        let mut read = self.read();
        let used = std::mem::take(&mut read.used);
        used.into_iter().filter_map(|name| Some(format!("{name}\0{}", read.values.get(&name)?.as_ref()?))).collect()
    }

    /// For a fault: where a name is looked for.
    pub(super) fn hint(&self) -> String {
        let places: Vec<String> = self.places.iter().map(|place| format!("{}/NAME", place.display())).collect();
        format!("a credential is a file that trackd may read: {}", places.join(" or "))
    }

    fn read(&self) -> MutexGuard<'_, Known> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Credentials {
    fn get_value(self: &Arc<Self>, name: &Value) -> Option<Value> {
        self.value(name.as_str()?).map(Value::from)
    }

    /// A template that prints all of them prints none.
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[credentials]")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[credentials]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_once_without_its_newline_and_no_name_leads_elsewhere() {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(folder.path().join(FOLDER)).expect("a directory");
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(FOLDER).join(name), text).expect("written");
        write("api.token", "one\n");
        write("long", &"x".repeat(LONGEST as usize + 1));
        std::fs::write(folder.path().join("other"), "elsewhere").expect("written");
        let credentials = Credentials::new(&Environment::default(), folder.path());
        assert_eq!(credentials.value("api.token").as_deref(), Some("one"));
        write("api.token", "two\n");
        assert_eq!(credentials.value("api.token").as_deref(), Some("one"), "of one reading all is of one time");
        for name in ["long", "none", "", "..", "../other", "."] {
            assert_eq!(credentials.value(name), None, "{name}");
        }
        assert_eq!(credentials.take_used(), ["api.token\0one"]);
        assert_eq!(credentials.take_used(), Vec::<String>::new());
        assert_eq!(format!("{credentials:?}"), "[credentials]");
    }

    #[test]
    fn what_systemd_gives_the_service_comes_first() {
        let (folder, service) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
        std::fs::create_dir(folder.path().join(FOLDER)).expect("a directory");
        for (dir, text) in [(folder.path().join(FOLDER), "folder"), (service.path().to_owned(), "service")] {
            std::fs::write(dir.join("token"), text).expect("written");
        }
        let path = service.path().to_str().expect("text");
        let env = Environment::new([("CREDENTIALS_DIRECTORY", path)], false);
        assert_eq!(Credentials::new(&env, folder.path()).value("token").as_deref(), Some("service"));
    }
}
