//! The stage: a PostgreSQL of its own behind the fault proxy, a source, a configuration, disks, daemons.
//!
//! Must not know: which faults there are.

use super::daemons::{Daemon, Preloaded, faketime};
use super::disk::Disk;
use super::fleet::{Millis, Tracker};
use super::options::Options;
use super::power;
use super::source::{Source, now};
use super::support::marked::MARK;
use super::support::postgres::{Database, Server, set};
use super::support::proxy::Proxy;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::Mutex as AsyncMutex;
use trackd::spool::Look;
use trackd::store::embedded::Account;

/// MiB of the small disks: the server's tables, which grow by the minute, and the state directories.
const SERVER_DISK: u32 = 192;
const GROWS: u32 = 40;
const SPOOL_DISK: u32 = 16;

/// Everything a programme needs.
pub struct Stage {
    pub dir: PathBuf,
    pub server: Arc<Server>,
    pub database: Database,
    pub proxy: Proxy,
    pub source: Source,
    pub server_disk: Disk,
    pub spool_disk: Disk,
    /// Whether daemons can lose what they did not sync.
    pub power: bool,
    /// Held while one is being stopped.
    pub daemons: Vec<AsyncMutex<Daemon>>,
    pub fleet: Mutex<Fleet>,
    /// What went wrong besides the data.
    pub complaints: Mutex<Vec<String>>,
}

/// The trackers of the configuration.
#[derive(Debug, Default)]
pub struct Fleet {
    /// In force, or about to be.
    pub now: Vec<Tracker>,
    /// All that ever were.
    pub ever: Vec<Tracker>,
    /// What a reload changes in every second one that stays.
    pub patient: bool,
    /// When a good file came into place; none is good while it is in the future.
    pub good_since: Millis,
}

impl Fleet {
    /// Takes the n-th of those in force out of the configuration.
    pub fn remove(&mut self, n: usize, at: Millis) {
        let name = self.now.remove(n).name;
        self.ever.iter_mut().filter(|tracker| tracker.name == name).for_each(|tracker| tracker.gone = Some(at));
    }

    pub fn add(&mut self, tracker: Tracker) {
        self.ever.push(tracker.clone());
        self.now.push(tracker);
    }
}

impl Stage {
    /// Sets it up in `dir`; no daemon runs yet. `stepped`: clocks will be. `power`: it will be lost.
    pub async fn build(
        dir: &Path,
        options: &Options,
        seed: u64,
        stepped: bool,
        power: bool,
    ) -> Result<Stage, Box<dyn std::error::Error>> {
        // The server's account passes through.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
        let server = Server::prepared(5432, |data| set(data, "track_commit_timestamp = on\n"));
        let minutes = u32::try_from(options.length().as_secs() / 60)?;
        let server_disk = Disk::make(dir.join("server-disk"), SERVER_DISK + GROWS * minutes)?;
        let database = database(&server, &server_disk).await?;
        let spool_disk = Disk::make(dir.join("state"), SPOOL_DISK)?;
        let clock = if stepped { faketime() } else { None };
        let power = if power { power::library(dir)? } else { None };
        let preloaded = Preloaded { clock, power: power.clone() };
        let daemon = |n| Daemon::new(n, &options.trackd, dir, &spool_disk.path, preloaded.clone());
        Ok(Stage {
            proxy: Proxy::start(database.socket()).await,
            source: Source::start(seed).await?,
            daemons: (0..usize::from(options.daemons))
                .map(|n| daemon(n).map(AsyncMutex::new))
                .collect::<Result<_, _>>()?,
            dir: dir.to_owned(),
            server: Arc::new(server),
            database,
            server_disk,
            spool_disk,
            power: power.is_some(),
            fleet: Mutex::default(),
            complaints: Mutex::default(),
        })
    }

    /// The configuration as text.
    pub fn config(&self) -> String {
        let source = self.source.url();
        let fleet = self.fleet.lock().expect("no panic holds it");
        let timeout = |n: usize| if fleet.patient && n.is_multiple_of(2) { "4s" } else { "3s" };
        let trackers: String =
            fleet.now.iter().enumerate().map(|(n, tracker)| tracker.toml(&source, timeout(n))).collect();
        format!(
            "[database]\nurl = \"{}\"\npool_size = 4\nmax_overflow = 4\npool_timeout = \"5s\"\nstatement_timeout = \"5s\"\n\
             [daemon]\nlisten = \"\"\nstate_dir = \"state\"\ndrain = \"10s\"\nper_host = 16\n[log]\nformat = \"json\"\n\
             [vars]\ndaemon = 0\n[defaults]\nretry = {{ attempts = 3, base = \"200ms\", max = \"2s\" }}\n\
             http = {{ max_body = \"1MiB\", max_redirects = 3, headers = {{ x-daemon = \"{{{{ vars.daemon }}}}\", authorization = \"Bearer {MARK}\" }} }}\n{trackers}",
            self.proxy.url(&self.database)
        )
    }

    /// Puts a file in place that trackd must refuse.
    pub fn break_config(&self, text: &str) -> std::io::Result<()> {
        self.fleet.lock().expect("no panic holds it").good_since = Millis::MAX;
        self.configure(text)
    }

    /// Puts a configuration file in place, whole or not at all.
    fn configure(&self, text: &str) -> std::io::Result<()> {
        let fresh = self.dir.join("config.new");
        std::fs::write(&fresh, text)?;
        std::fs::rename(fresh, self.dir.join("config.toml"))
    }

    /// The good configuration is in place, and the source knows all trackers.
    pub fn settle(&self) -> std::io::Result<()> {
        self.fleet.lock().expect("no panic holds it").ever.iter().for_each(|tracker| self.source.serve(tracker));
        self.configure(&self.config())?;
        self.fleet.lock().expect("no panic holds it").good_since = now();
        Ok(())
    }

    /// Payloads that wait on disk.
    pub async fn spooled(&self) -> usize {
        let mut payloads = 0;
        for daemon in &self.daemons {
            let spool = Look::new(&daemon.lock().await.state_dir().join("spool"));
            payloads += spool.entries().map_or(0, |(waiting, _)| waiting.len());
        }
        payloads
    }

    /// Keeps what is wrong for the report.
    pub fn complain(&self, what: String) {
        self.complaints.lock().expect("no panic holds it").push(what);
    }

    /// Starts daemons again that ended without being told. One that refuses a bad file is right.
    pub fn keep_daemons(&self) -> std::io::Result<()> {
        for (n, daemon) in self.daemons.iter().enumerate() {
            // One that is being stopped is nobody else's business.
            let Ok(mut daemon) = daemon.try_lock() else { continue };
            let good_since = self.fleet.lock().expect("no panic holds it").good_since;
            let began = daemon.lives.last().map_or(0, |life| life.began);
            if let Some(status) = daemon.keep()?
                && !(began <= good_since && status.code() == Some(78))
            {
                self.complain(format!("daemon {n} ended by itself: {status}"));
            }
        }
        Ok(())
    }
}

/// A database whose tables are on the small disk, if there is one.
async fn database(server: &Server, disk: &Disk) -> Result<Database, Box<dyn std::error::Error>> {
    let database = server.database().await;
    if disk.is_small() {
        let account = Account::for_server()?;
        let place = disk.directory("tables", (account.uid, account.gid))?;
        let admin = server.connect("postgres").await;
        admin.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", place.display())).await?;
        admin.batch_execute(&format!("ALTER DATABASE {} SET TABLESPACE small", database.name)).await?;
    }
    Ok(database)
}
