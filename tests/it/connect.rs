//! Behaviour of connecting: encryption, passwords, several hosts, and what is said when it fails.

use crate::support::postgres::{Server, free_port, put, set};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use trackd::class::Class;
use trackd::store::{Error, Pool, PoolOptions, Statement, Surroundings, Target};

/// An authority, a server's certificate that it signed, and the files of both.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        Authority::named("authority")
    }

    fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key, for these names, valid between these years.
    fn signs(&self, names: &[&str], years: (i32, i32), common: &str) -> (String, String) {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// A server with this certificate that listens on TCP as well, where only encrypted connections with a password pass.
fn encrypted(authority: &Authority, certificate: &(String, String)) -> (Server, u16) {
    let port = free_port();
    let server = Server::prepared(port, |data| {
        put(data, "server.crt", &certificate.0);
        put(data, "server.key", &certificate.1);
        put(data, "root.crt", &authority.pem());
        put(
            data,
            "pg_hba.conf",
            "local all all trust\nhostssl all certified all cert\nhostssl all open all trust\nhostssl all all all scram-sha-256\n",
        );
        set(data, "listen_addresses = '127.0.0.1'\nssl = on\nssl_ca_file = 'root.crt'\n");
    });
    (server, port)
}

fn nowhere() -> Surroundings {
    Surroundings::default()
}

/// Connects once; what the server says of the session's encryption, and as whom.
async fn version(url: &str, around: &Surroundings) -> Result<(Option<String>, String), Error> {
    let pool = Pool::new(PoolOptions { needs_write: false, ..PoolOptions::to(Target::parse(url, None, around)?) });
    let mut guard = pool.begin().await?;
    let sql = "SELECT (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()), current_user::text";
    let rows = guard.query(Statement::new(sql)).await?;
    Ok((rows[0].get(0), rows[0].get(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_asks_for_no_less_and_no_more_than_in_libpq() {
    let authority = Authority::new();
    let (server, port) = encrypted(&authority, &authority.signs(&["localhost"], (2020, 2120), "server"));
    let client = server.connect("postgres").await;
    client.batch_execute("CREATE ROLE r LOGIN PASSWORD 'm4rked p w'; CREATE ROLE open LOGIN").await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (root, other) = (file("root.crt", &authority.pem()), file("other.crt", &Authority::named("another").pem()));
    let at = |host: &str, words: &str| format!("postgres://r:m4rked%20p%20w@{host}:{port}/postgres?{words}");
    for (host, words) in [
        ("localhost", String::new()),
        ("localhost", "sslmode=allow".into()),
        ("localhost", "sslmode=require".into()),
        ("localhost", "sslmode=require&channel_binding=require".into()),
        ("127.0.0.1", "sslmode=require".into()),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}&ssl_min_protocol_version=TLSv1.3")),
    ] {
        let seen = version(&at(host, &words), &nowhere()).await;
        let seen = seen.unwrap_or_else(|error| panic!("{host} {words}: {error}"));
        assert_eq!(seen, (Some("TLSv1.3".into()), "r".into()), "{host} {words}");
    }
    let refused = async |host: &str, words: &str| {
        let error = version(&at(host, words), &nowhere()).await.expect_err(words);
        assert_eq!(error.class(), Class::Standing, "{words}: {error}");
        assert!(error.hint().is_some(), "{words}: {error}");
        error.to_string()
    };
    let said = refused("localhost", "sslmode=disable").await;
    assert!(said.contains("no encryption") && said.contains("28000"), "{said}");
    let said = refused("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={root}")).await;
    assert!(said.contains("not valid for name"), "{said}");
    let said = refused("localhost", &format!("sslmode=verify-full&sslrootcert={other}")).await;
    assert!(said.contains("UnknownIssuer"), "{said}");
    let said = refused("localhost", &format!("sslmode=require&sslrootcert={other}")).await;
    assert!(said.contains("UnknownIssuer"), "as in libpq, who names a root certificate is asked: {said}");
    let said = refused("localhost", "sslmode=verify-full").await;
    assert!(said.contains("no root certificate"), "{said}");
    let said = refused("localhost", "sslmode=verify-ca&sslrootcert=system").await;
    assert!(said.contains("needs sslmode=verify-full"), "{said}");
    let open = format!("postgres://open@localhost:{port}/postgres?sslmode=require&channel_binding=");
    assert!(version(&format!("{open}prefer"), &nowhere()).await.is_ok());
    let error = version(&format!("{open}require"), &nowhere()).await.unwrap_err();
    assert!(error.to_string().contains("channel binding") && error.class() == Class::Standing, "{error}");
    let said = refused("localhost", "sslrootcert=system").await;
    let unknown = said.contains("UnknownIssuer") || said.contains("no certificate is in it");
    assert!(unknown, "as in libpq, that alone asks for verify-full: {said}");
    for mode in ["disable", "prefer", "require"] {
        let said = refused("localhost", &format!("sslrootcert=system&sslmode={mode}")).await;
        assert!(said.contains("needs sslmode=verify-full"), "{said}");
    }
    let said = refused("localhost", "sslmode=verify_full").await;
    assert!(said.contains("expected disable, allow"), "{said}");
    let said = refused("localhost", &format!("sslrootcert={root}x&sslmode=verify-ca")).await;
    assert!(said.contains("root.crtx"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused_where_it_is_asked_for() {
    let authority = Authority::new();
    let (_server, port) = encrypted(&authority, &authority.signs(&["localhost"], (2020, 2021), "server"));
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), authority.pem()).unwrap();
    let url = format!("postgres://postgres@localhost:{port}/?sslrootcert={}&sslmode=verify-ca", root.path().display());
    let error = version(&url, &nowhere()).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert_eq!(error.class(), Class::Standing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_known_by_its_certificate() {
    let authority = Authority::new();
    let (server, port) = encrypted(&authority, &authority.signs(&["localhost"], (2020, 2120), "server"));
    server.connect("postgres").await.batch_execute("CREATE ROLE certified LOGIN").await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.signs(&[], (2020, 2120), "certified");
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    let file = |name: &str| home.path().join(".postgresql").join(name);
    std::fs::write(file("postgresql.crt"), certificate).unwrap();
    std::fs::write(file("postgresql.key"), key).unwrap();
    let mode = |mode| std::fs::set_permissions(file("postgresql.key"), std::fs::Permissions::from_mode(mode)).unwrap();
    let around = Surroundings::new([("HOME".to_owned(), home.path().display().to_string())]);
    let url = format!("postgres://certified@localhost:{port}/postgres");
    mode(0o644);
    let error = version(&url, &around).await.unwrap_err();
    assert!(error.to_string().contains("others may read") && error.hint().unwrap() == "chmod 0600", "{error}");
    mode(0o600);
    assert_eq!(version(&url, &around).await.unwrap(), (Some("TLSv1.3".into()), "certified".into()));
    let error = version(&url, &nowhere()).await.unwrap_err();
    assert!(error.to_string().contains("28000"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_come_from_where_libpq_looks_for_them() {
    let authority = Authority::new();
    let (server, port) = encrypted(&authority, &authority.signs(&["localhost"], (2020, 2120), "server"));
    server.connect("postgres").await.batch_execute("CREATE ROLE r LOGIN PASSWORD 'm4rked-right'").await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let around = |pairs: &[(&str, &str)]| {
        Surroundings::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    };
    let here = ("HOME", home.path().to_str().unwrap());
    let url = format!("postgres://r@localhost:{port}/postgres");
    let error = version(&url, &around(&[here])).await.unwrap_err();
    assert_eq!(error.class(), Class::Standing, "{error}");
    assert!(error.to_string().contains("password missing") && error.hint().is_some(), "{error}");
    let pgpass = home.path().join(".pgpass");
    std::fs::write(&pgpass, format!("localhost:1:*:r:m4rked-wrong\nlocalhost:{port}:postgres:r:m4rked-right\n"))
        .unwrap();
    std::fs::set_permissions(&pgpass, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(version(&url, &around(&[here])).await.unwrap().1, "r");
    assert_eq!(version(&url, &around(&[("PGPASSWORD", "m4rked-right")])).await.unwrap().1, "r");
    assert_eq!(version(&url, &around(&[("PGPASSFILE", pgpass.to_str().unwrap())])).await.unwrap().1, "r");
    let error = version(&url, &around(&[here, ("PGPASSWORD", "m4rked-wrong")])).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("28P01"), Class::Standing), "{error}");
    assert!(error.hint().unwrap().contains("password"), "{error}");
    let error =
        version(&url.replace("/postgres", "/nowhere"), &around(&[("PGPASSWORD", "m4rked-right")])).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.class()), (Some("3D000"), Class::Standing), "{error}");
}

#[test]
fn a_word_that_would_be_honoured_in_part_is_refused() {
    let parse = |text: &str| Target::parse(text, None, &nowhere());
    for (words, told) in [
        ("sslcertmode=require", "sslcertmode=require cannot be had"),
        ("sslcertmode=never", "expected disable or allow or require"),
        ("sslnegotiation=direct", "needs sslmode=require"),
        ("sslnegotiation=direct sslmode=disable", "needs sslmode=require"),
        ("ssl_min_protocol_version=TLSv9", "expected TLSv1 or TLSv1.1 or TLSv1.2 or TLSv1.3"),
        ("sslsni=no", "expected 0 or 1"),
        ("gssencmode=require", "gssencmode=require cannot be had"),
        ("gssencmode=maybe", "expected disable or prefer or require"),
        ("sslrootcert=system sslmode=verify-ca", "needs sslmode=verify-full"),
        ("sslcrl=/x", "sslcrl cannot be had"),
        ("port=0", "expected 1 to 65535"),
        ("port=65536", "expected 1 to 65535"),
        ("target_session_attrs=writable", "expected any or read-write"),
        ("load_balance_hosts=yes", "expected disable or random"),
        ("channel_binding=yes", "expected disable or prefer or require"),
        ("keepalives_idle=x", "expected a number"),
        ("connect_timeout=x", "expected a number"),
        ("hostaddr=localhost", "expected an IP address"),
        ("host=h,h hostaddr=::1", "hostaddr: expected 2"),
        ("host=h,h,h port=1,2", "port: expected one, or 3"),
    ] {
        let text = if words.contains("host=") { words.to_owned() } else { format!("host=h user=u {words}") };
        let error = parse(&text).expect_err(words);
        assert!(error.to_string().contains(told) && error.class() == Class::Standing, "{words}: {error}");
    }
    for words in
        ["keepalives=2", "tcp_user_timeout=-1", "connect_timeout=-1", "port=' 1 '", "sslsni=0 sslcertmode=allow"]
    {
        assert!(parse(&format!("host=h user=u {words}")).is_ok(), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_certificates_are_looked_at_where_something_is_encrypted() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    std::fs::write(home.path().join(".postgresql/postgresql.crt"), "none").unwrap();
    let around = Surroundings::new([("HOME".to_owned(), home.path().display().to_string())]);
    let here = format!("host={} user=postgres dbname=postgres", Server::shared().dir().display());
    assert_eq!(version(&here, &around).await.unwrap(), (None, "postgres".into()), "a socket is not");
    let parse = |words: &str| Target::parse(&format!("host=h user=u {words}"), None, &around);
    assert!(parse("sslmode=disable").is_ok());
    assert!(parse("sslcertmode=disable").is_ok());
    assert!(parse("").is_err_and(|error| error.to_string().contains("sslkey")));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_first_that_answers_serves() {
    let server = Server::shared();
    let dir = server.dir().display();
    let url = format!("host=/nonexistent,{dir} user=postgres dbname=postgres");
    assert_eq!(version(&url, &nowhere()).await.unwrap(), (None, "postgres".into()));
    let url = format!("host={dir},/nonexistent user=nobody_at_all dbname=postgres");
    let error = version(&url, &nowhere()).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("28000"), "an answer says more than silence: {error}");
    assert!(error.to_string().contains("/nonexistent"), "and the other host is named: {error}");
    let error = version(&url.replace(&format!("{dir},/nonexistent"), &format!("/nonexistent,{dir}")), &nowhere()).await;
    assert_eq!(error.unwrap_err().sqlstate(), Some("28000"), "wherever it stands");
    let url = format!("host={dir} user=postgres dbname=postgres target_session_attrs=standby");
    let error = version(&url, &nowhere()).await.unwrap_err();
    assert!(error.to_string().contains("target_session_attrs=standby"), "{error}");
    for attributes in ["any", "read-write", "primary", "prefer-standby"] {
        let url = format!("host={dir} user=postgres dbname=postgres target_session_attrs={attributes}");
        version(&url, &nowhere()).await.unwrap();
    }
    assert!(Path::new("/nonexistent").metadata().is_err());
}
