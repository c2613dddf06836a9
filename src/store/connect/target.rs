//! A target: the hosts to try, in order, with everything a session there needs.
//!
//! Must not know: what sessions are used for.

use super::attributes::Attributes;
use super::surroundings::{Passwords, Surroundings};
use super::tls::{self, Tls};
use super::words::{Fault, KNOWN, Words};
use crate::store::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// From the first packet to a usable session, for each host, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Keepalives find a half-open link within a minute, unless the words say otherwise.
const KEEPALIVES: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// An unanswered send is given up after so long, unless `tcp_user_timeout` says otherwise.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The driver's half of a session: reads and writes its socket, for as long as it is polled.
pub(in crate::store) type Link = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A session just opened.
pub(in crate::store) struct Opened {
    pub client: Client,
    pub link: Link,
    /// `host:port`, for logs.
    pub place: String,
}

/// Where and how to connect. Cheap to clone; opens nothing by itself.
#[derive(Clone)]
pub struct Target(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    places: Vec<Place>,
    attributes: Attributes,
    shuffle: bool,
    timeout: Duration,
    tls: Tls,
    words: Words,
}

/// One host.
#[derive(Clone, PartialEq)]
struct Place {
    name: String,
    config: Config,
}

impl Place {
    /// The same at each of several addresses.
    fn at(&self, addresses: &[IpAddr]) -> Vec<Place> {
        let place = |address: &IpAddr| {
            let mut place = self.clone();
            place.config.hostaddr(*address);
            if addresses.len() > 1 {
                place.name = format!("{} ({address})", self.name);
            }
            place
        };
        addresses.iter().map(place).collect()
    }
}

/// The same words, wherever they came from, and the same passwords and certificates in the files that they name.
impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        let (one, other) = (&self.0, &other.0);
        one.words == other.words && one.places == other.places && one.tls == other.tls
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.places.iter().map(|place| &place.name)).finish()
    }
}

impl Target {
    /// Reads a connection string: `postgres://user@host:5432/database?sslmode=verify-full`, or `host=… user=…`.
    ///
    /// What it does not say comes from its service, from `PG*` of `around`, from the password file, then from libpq's
    /// defaults. `password` is used where the string has none. Certificates are read now.
    ///
    /// # Errors
    /// Class standing: not understood, or a file is missing. Values never reach the message.
    pub fn parse(text: &str, password: Option<&str>, around: &Surroundings) -> Result<Target, Error> {
        let inner = Inner::of(text, password, around);
        inner
            .map(|inner| Target(Arc::new(inner)))
            .map_err(|fault| Error::refused("database.url", fault.message, fault.hint))
    }

    /// The words as libpq's environment variables, for psql and pg_dump: `("PGHOST", …)`. May hold a password.
    ///
    /// Variables that are not among them should be unset: `variables_of_libpq` names all.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let variable = |name| KNOWN.iter().find(|(known, ..)| *known == name).map(|(_, variable, _)| *variable);
        let pairs = self.0.words.iter().filter_map(move |(name, value)| Some((variable(name)?, value)));
        // What a service says is among the words already; named, it would go before them.
        let fits = |(variable, value): &(&str, &str)| {
            !variable.is_empty() && !value.is_empty() && !variable.starts_with("PGSERVICE")
        };
        pairs.filter(fits)
    }

    /// All of libpq's environment variables that say where and how to connect.
    pub fn variables_of_libpq() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|(_, variable, _)| *variable).filter(|variable| !variable.is_empty())
    }

    /// Whether both say the same but for passwords and certificates.
    pub(crate) fn is_at_the_same_place(&self, other: &Target) -> bool {
        self.0.words.without_password().eq(other.0.words.without_password())
    }

    /// The same target, of whose hosts only one that can be written to will do, unless the words ask for something else.
    pub(in crate::store) fn for_writing(&self) -> Target {
        match self.0.attributes {
            Attributes::Any => Target(Arc::new(Inner { attributes: Attributes::ReadWrite, ..Inner::clone(&self.0) })),
            _ => self.clone(),
        }
    }

    /// Opens a session on the first host that answers and is what `target_session_attrs` asks for.
    ///
    /// Cancel safety: safe; a session half open is closed.
    pub(in crate::store) async fn open(&self) -> Result<Opened, Error> {
        let mut order: Vec<&Place> = self.0.places.iter().collect();
        if self.0.shuffle {
            fastrand::shuffle(&mut order);
        }
        let mut attempts = Attempts::default();
        for place in order {
            match self.addresses(place).await {
                Ok(places) => {
                    if let Some(opened) = self.open_any(&places, &mut attempts).await {
                        return Ok(opened);
                    }
                }
                Err(error) => attempts.failures.add(error),
            }
        }
        attempts.second_best.ok_or_else(|| attempts.failures.into_error())
    }

    /// Opens a session at the first of these that will do.
    async fn open_any(&self, places: &[Place], attempts: &mut Attempts) -> Option<Opened> {
        for place in places {
            match self.open_at(place).await {
                Ok((opened, true)) => return Some(opened),
                Ok((opened, false)) if self.0.attributes == Attributes::PreferStandby => {
                    attempts.second_best.get_or_insert(opened);
                }
                Ok((_, false)) => attempts.failures.unsuitable(place, self.0.attributes),
                Err(error) => attempts.failures.add(error),
            }
        }
        None
    }

    /// The place at each address that its name stands for: as in libpq each has the whole time for itself, and each may
    /// be what is asked for.
    async fn addresses(&self, place: &Place) -> Result<Vec<Place>, Error> {
        let [Host::Tcp(host)] = place.config.get_hosts() else { return Ok(vec![place.clone()]) };
        if !place.config.get_hostaddrs().is_empty() || host.parse::<IpAddr>().is_ok() {
            return Ok(vec![place.clone()]);
        }
        let operation = || format!("connect to {}", place.name);
        let found = tokio::time::timeout(self.0.timeout, tokio::net::lookup_host((host.as_str(), 0))).await;
        let found = found.map_err(|_| Error::timeout(operation(), self.0.timeout))?;
        let found = found.map_err(|error| Error::unavailable(operation(), format!("look up {host}: {error}")))?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        if addresses.is_empty() {
            return Err(Error::unavailable(operation(), format!("look up {host}: it has no address")));
        }
        if self.0.shuffle {
            fastrand::shuffle(&mut addresses);
        }
        Ok(place.at(&addresses))
    }

    /// Opens a session and tells whether it is of the kind that is asked for.
    async fn open_at(&self, place: &Place) -> Result<(Opened, bool), Error> {
        let operation = || format!("connect to {}", place.name);
        let opening = async {
            let (client, link) = place.config.connect(self.0.tls.connect.clone()).await?;
            let mut opened = Opened { client, link, place: place.name.clone() };
            let suits = self.0.attributes.suit(&mut opened).await?;
            Ok((opened, suits))
        };
        match tokio::time::timeout(self.0.timeout, opening).await {
            Ok(opened) => opened.map_err(|error| Error::driver(operation(), error)),
            Err(_) => Err(Error::timeout(operation(), self.0.timeout)),
        }
    }

    /// Asks the server to cancel what the session of `token` runs.
    ///
    /// Cancel safety: safe; the request may or may not have arrived.
    pub(in crate::store) async fn cancel(&self, token: &CancelToken) -> bool {
        let asked = tokio::time::timeout(self.0.timeout, token.cancel_query(self.0.tls.connect.clone()));
        matches!(asked.await, Ok(Ok(())))
    }
}

impl Inner {
    fn of(text: &str, password: Option<&str>, around: &Surroundings) -> Result<Inner, Fault> {
        let mut words = Words::parse(text)?;
        if let Some(password) = password.filter(|_| words.get("password").is_none()) {
            words.put("password", password)?;
        }
        let words = around.complete(words)?;
        if let Some(true) = words.one_of("gssencmode", &[("disable", false), ("prefer", false), ("require", true)])? {
            return Err(Fault::new("gssencmode=require cannot be had").hint("sslmode encrypts"));
        }
        let places = places(&words, around)?;
        let encrypts = places.iter().any(|place| place.config.get_ssl_mode() != SslMode::Disable);
        Ok(Inner {
            tls: if encrypts { Tls::of(&words, around)? } else { Tls::none()? },
            places,
            attributes: words.one_of("target_session_attrs", &Attributes::NAMES)?.unwrap_or(Attributes::Any),
            shuffle: words.one_of("load_balance_hosts", &[("disable", false), ("random", true)])?.unwrap_or(false),
            // Nought and less is for ever in libpq; here nothing is.
            timeout: words.number("connect_timeout")?.and_then(positive).map_or(CONNECT_TIMEOUT, Duration::from_secs),
            words,
        })
    }
}

/// A configuration for each host.
fn places(words: &Words, around: &Surroundings) -> Result<Vec<Place>, Fault> {
    let list = |word: &str| words.get(word).map(|text| text.split(',').collect::<Vec<_>>()).unwrap_or_default();
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    for (word, list) in [("hostaddr", &addresses), ("host", &hosts)] {
        if !list.is_empty() && list.len() != count {
            return Err(Fault::new(format!(
                "{word}: expected {count}, as many as of the other kind, got {}",
                list.len()
            )));
        }
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Fault::new(format!("port: expected one, or {count} as there are hosts, got {}", ports.len())));
    }
    let base = base(words)?;
    let file = words.get("passfile").map(|path| Path::new(path).to_owned()).or_else(|| around.home(".pgpass"));
    let passwords =
        file.filter(|_| words.get("password").is_none()).map(|path| Passwords::read(&path)).unwrap_or_default();
    let place = |i: usize| {
        let text =
            |list: &[&str]| list.get(i).or(list.first().filter(|_| list.len() == 1)).copied().unwrap_or("").to_owned();
        place(base.clone(), &text(&hosts), &text(&addresses), &text(&ports), &passwords)
    };
    (0..count).map(place).collect()
}

fn place(mut config: Config, host: &str, address: &str, port: &str, passwords: &Passwords) -> Result<Place, Fault> {
    // Not shown: in a URL without its @ it is the password.
    let port: u16 =
        match port.trim() {
            "" => 5432,
            port => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                Fault::new("port: expected 1 to 65535").hint("@ : / ? of a password are %40 %3A %2F %3F")
            })?,
        };
    let host = match (host, address) {
        ("", "") => socket_directory(),
        ("", address) => address,
        (host, _) => host,
    };
    let socket = host.starts_with('/') && address.is_empty();
    config.port(port).host(host);
    if !address.is_empty() {
        let address = address.parse::<IpAddr>();
        config.hostaddr(address.map_err(|_| Fault::new("hostaddr: expected an IP address"))?);
    }
    if socket {
        // As libpq: nobody is between the two ends of a socket.
        config.ssl_mode(SslMode::Disable);
    }
    if config.get_password().is_none() {
        // Files of passwords know the default socket as localhost.
        let known_as = if host == socket_directory() { "localhost" } else { host };
        let (user, dbname) = (config.get_user().unwrap_or_default(), config.get_dbname().unwrap_or_default());
        if let Some(password) = passwords.find(known_as, port, dbname, user).map(str::to_owned) {
            config.password(password);
        }
    }
    Ok(Place { name: if socket { format!("{host}/.s.PGSQL.{port}") } else { format!("{host}:{port}") }, config })
}

/// Debian's place of sockets; PostgreSQL's own elsewhere.
fn socket_directory() -> &'static str {
    let debian = "/var/run/postgresql";
    if Path::new(debian).exists() { debian } else { "/tmp" }
}

/// What all hosts share.
fn base(words: &Words) -> Result<Config, Fault> {
    let mut config = Config::new();
    let user = match words.get("user") {
        Some(user) => user.to_owned(),
        None => whoami::username().map_err(|error| Fault::new(format!("user: none is named, and {error}")))?,
    };
    config.dbname(words.get("dbname").unwrap_or(&user)).user(&user);
    if let Some(password) = words.get("password") {
        config.password(password);
    }
    if let Some(options) = words.get("options") {
        config.options(options);
    }
    config
        .application_name(words.get("application_name").or(words.get("fallback_application_name")).unwrap_or("trackd"));
    config.ssl_mode(tls::mode(words)?);
    let negotiation = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
    config.ssl_negotiation(words.one_of("sslnegotiation", &negotiation)?.unwrap_or(SslNegotiation::Postgres));
    let binding = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    config.channel_binding(words.one_of("channel_binding", &binding)?.unwrap_or(ChannelBinding::Prefer));
    config.keepalives(words.number::<i64>("keepalives")?.is_none_or(|on| on != 0));
    config.keepalives_idle(words.seconds("keepalives_idle")?.unwrap_or(KEEPALIVES.0));
    config.keepalives_interval(words.seconds("keepalives_interval")?.unwrap_or(KEEPALIVES.1));
    config.keepalives_retries(words.number("keepalives_count")?.unwrap_or(KEEPALIVES.2));
    // Nought and less is the system's own limit, as in libpq.
    let unanswered = words.number("tcp_user_timeout")?.map(|ms| Duration::from_millis(positive(ms).unwrap_or(0)));
    config.tcp_user_timeout(unanswered.unwrap_or(TCP_USER_TIMEOUT));
    Ok(config)
}

fn positive(number: i32) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

/// What came of the hosts so far.
#[derive(Default)]
struct Attempts {
    failures: Failures,
    /// Of prefer-standby: the first that answered and is none.
    second_best: Option<Opened>,
}

/// What each host said.
#[derive(Default)]
struct Failures(Vec<Error>);

impl Failures {
    fn add(&mut self, error: Error) {
        self.0.push(error);
    }

    fn unsuitable(&mut self, place: &Place, attributes: Attributes) {
        self.add(attributes.missed(format!("connect to {}", place.name)));
    }

    /// A server's own answer says more than a host that is away; the others are named with it.
    fn into_error(mut self) -> Error {
        let telling = self.0.iter().position(|error| error.sqlstate().is_some());
        let telling = telling.or_else(|| self.0.iter().position(Error::is_standby)).unwrap_or(0);
        if self.0.is_empty() {
            return Error::unavailable("connect to the database", "there is no host");
        }
        let error = self.0.swap_remove(telling);
        let others: Vec<String> = self.0.iter().map(Error::to_string).collect();
        if others.is_empty() { error } else { error.and(&others.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn parse(text: &str) -> Target {
        Target::parse(text, None, &Surroundings::default()).expect("understood")
    }

    #[test]
    fn what_words_say_of_a_session_is_in_its_configuration() {
        let config = |text: &str| parse(text).0.places[0].config.clone();
        let plain = config("host=h user=u");
        assert_eq!((plain.get_application_name(), plain.get_keepalives_idle()), (Some("trackd"), KEEPALIVES.0));
        assert_eq!(plain.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert_eq!(
            (plain.get_keepalives_interval(), plain.get_keepalives_retries()),
            (Some(KEEPALIVES.1), Some(KEEPALIVES.2))
        );
        let told = config(
            "host=h user=u dbname=d options='-c a=b' application_name=me keepalives=0 keepalives_idle=1 keepalives_interval=2 \
             keepalives_count=3 tcp_user_timeout=4 channel_binding=require fallback_application_name=other",
        );
        assert_eq!((told.get_application_name(), told.get_options()), (Some("me"), Some("-c a=b")));
        assert_eq!((told.get_keepalives(), told.get_keepalives_idle()), (false, Duration::from_secs(1)));
        assert_eq!(
            (told.get_keepalives_interval(), told.get_keepalives_retries()),
            (Some(Duration::from_secs(2)), Some(3))
        );
        assert_eq!(told.get_tcp_user_timeout(), Some(&Duration::from_millis(4)));
        assert_eq!((told.get_channel_binding(), told.get_dbname()), (ChannelBinding::Require, Some("d")));
        assert_eq!(config("host=h user=u fallback_application_name=x").get_application_name(), Some("x"));
        assert_eq!(config("host=h user=u").get_dbname(), Some("u"));
        assert_eq!(parse("host=h user=u connect_timeout=3").0.timeout, Duration::from_secs(3));
        assert_eq!(parse("host=h user=u connect_timeout=0").0.timeout, CONNECT_TIMEOUT);
    }

    #[test]
    fn a_password_file_knows_the_default_socket_as_localhost() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "localhost:*:*:*:local\n*:*:*:*:other\n").expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).expect("its mode");
        let password = |host: &str| {
            let target = parse(&format!("user=u passfile={} {host}", file.path().display()));
            target.0.places[0].config.get_password().map(<[u8]>::to_vec)
        };
        assert_eq!(password("").as_deref(), Some(&b"local"[..]));
        assert_eq!(password(&format!("host={}", socket_directory())).as_deref(), Some(&b"local"[..]));
        assert_eq!(password("host=/elsewhere").as_deref(), Some(&b"other"[..]));
    }

    #[tokio::test]
    async fn of_a_name_with_several_addresses_each_has_its_own_time() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = silent.local_addr().expect("bound").port();
        let serves = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await.expect("the port is free there");
        tokio::spawn(async move {
            let (mut stream, _) = serves.accept().await.expect("a client");
            // No TLS; then whatever is said is well, and it is ready.
            stream.read_exact(&mut [0; 8]).await.expect("a question");
            stream.write_all(b"N").await.expect("told");
            let _ = stream.read(&mut [0; 1000]).await.expect("a greeting");
            stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.expect("told");
            let _ = stream.read(&mut [0; 1000]).await;
        });
        let text = format!("host=a.name port={port} user=u connect_timeout=1");
        let target = parse(&text);
        let places = target.0.places[0].at(&[silent.local_addr().expect("bound").ip(), [127, 0, 0, 2].into()]);
        let mut attempts = Attempts::default();
        let opened = target.open_any(&places, &mut attempts).await.expect("the second answers");
        assert_eq!(opened.place, format!("a.name:{port} (127.0.0.2)"));
        let failed = attempts.failures.into_error().to_string();
        assert!(failed.contains(&format!("a.name:{port} (127.0.0.1): no answer within 1s")), "{failed}");
    }
}
