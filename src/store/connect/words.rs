//! A connection string's text → libpq's words.
//!
//! Source: PostgreSQL's documentation, "Connection Strings" and "Parameter Key Words". Both forms, several hosts.
//! Must not know: what a word means, files, the environment. Values never reach a message: one may be a password.

use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The two forms of a connection string.
const FORMS: &str = "postgres://user@host:5432/database, or words like host=/run/postgresql user=trackd dbname=trackd";

const ESCAPES: &str = "write a % itself as %25, and @ : / ? of a password as %40 %3A %2F %3F";

/// What becomes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It says how to connect.
    Used,
    /// It asks for nothing that happens here, or for what happens anyway.
    Harmless,
    /// It asks for what cannot be had here; to go on without would be less than was asked for.
    Refused(&'static str),
}

/// libpq's words, their environment variables (empty: none), and what becomes of them here.
pub(super) const KNOWN: &[(&str, &str, Use)] = &[
    ("host", "PGHOST", Use::Used),
    ("hostaddr", "PGHOSTADDR", Use::Used),
    ("port", "PGPORT", Use::Used),
    ("dbname", "PGDATABASE", Use::Used),
    ("user", "PGUSER", Use::Used),
    ("password", "PGPASSWORD", Use::Used),
    ("passfile", "PGPASSFILE", Use::Used),
    ("service", "PGSERVICE", Use::Used),
    ("servicefile", "PGSERVICEFILE", Use::Used),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Use::Used),
    ("application_name", "PGAPPNAME", Use::Used),
    ("fallback_application_name", "", Use::Used),
    ("options", "PGOPTIONS", Use::Used),
    ("keepalives", "", Use::Used),
    ("keepalives_idle", "", Use::Used),
    ("keepalives_interval", "", Use::Used),
    ("keepalives_count", "", Use::Used),
    ("tcp_user_timeout", "", Use::Used),
    ("sslmode", "PGSSLMODE", Use::Used),
    ("sslnegotiation", "PGSSLNEGOTIATION", Use::Used),
    ("sslrootcert", "PGSSLROOTCERT", Use::Used),
    ("sslcert", "PGSSLCERT", Use::Used),
    ("sslkey", "PGSSLKEY", Use::Used),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Use::Used),
    ("channel_binding", "PGCHANNELBINDING", Use::Used),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Use::Used),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Use::Used),
    ("client_encoding", "PGCLIENTENCODING", Use::Harmless),
    ("gssencmode", "PGGSSENCMODE", Use::Used),
    ("gssdelegation", "PGGSSDELEGATION", Use::Harmless),
    ("gsslib", "PGGSSLIB", Use::Harmless),
    ("krbsrvname", "PGKRBSRVNAME", Use::Harmless),
    ("sslcompression", "PGSSLCOMPRESSION", Use::Harmless),
    ("sslsni", "PGSSLSNI", Use::Used),
    ("sslcertmode", "PGSSLCERTMODE", Use::Used),
    ("sslcrl", "PGSSLCRL", Use::Refused("certificate revocation lists are not read")),
    ("sslcrldir", "PGSSLCRLDIR", Use::Refused("certificate revocation lists are not read")),
    ("sslpassword", "", Use::Refused("an encrypted key is not read: decrypt it into a file of mode 0600")),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Use::Refused("the highest version both know is taken")),
    ("requirepeer", "PGREQUIREPEER", Use::Refused("the server's account is not asked for: verify it by sslmode")),
    ("require_auth", "PGREQUIREAUTH", Use::Refused("the server chooses: channel_binding=require asks for SCRAM")),
    ("replication", "", Use::Refused("this is no replication connection")),
];

/// Words by name. Shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Words(BTreeMap<&'static str, String>);

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a text gives no words: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Fault {
        Fault { hint: Some(hint.into()), ..self }
    }
}

impl Words {
    /// The words of `postgres://…` or `key=value …`.
    ///
    /// # Errors
    /// Neither form, a word that is not known, or one that cannot be had here.
    pub(super) fn parse(text: &str) -> Result<Words, Fault> {
        match ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => url(rest),
            None => pairs(text),
        }
    }

    /// The value of a word; an empty one is none, as in libpq.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A number.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        let parsed = |text: &str| text.trim().parse().map_err(|_| Fault::new(format!("{name}: expected a number")));
        self.get(name).map(parsed).transpose()
    }

    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, Fault> {
        Ok(self.number(name)?.map(|seconds: u32| Duration::from_secs(seconds.into())))
    }

    /// One of a few.
    pub(super) fn one_of<T: Copy>(&self, name: &str, known: &[(&str, T)]) -> Result<Option<T>, Fault> {
        let find = |text: &str| {
            let found = known.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            let names: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            found.ok_or_else(|| Fault::new(format!("{name}: expected {}, got {text:?}", names.join(" or "))))
        };
        self.get(name).map(find).transpose()
    }

    /// Adds a word; the last one counts.
    pub(super) fn put(&mut self, name: &str, value: impl Into<String>) -> Result<(), Fault> {
        let name = if name == "keepalives_retries" { "keepalives_count" } else { name };
        let Some((name, _, used)) = KNOWN.iter().find(|(known, ..)| *known == name) else {
            let near = KNOWN.iter().map(|(known, ..)| *known).min_by_key(|known| strsim::levenshtein(known, name));
            return Err(match near.filter(|near| strsim::levenshtein(near, name) <= 2) {
                Some(near) => Fault::new(format!("no word {name}")).hint(format!("did you mean {near}?")),
                // It may be the half of a password that should have been quoted.
                None => Fault::new("a word that is not known").hint(FORMS),
            });
        };
        if let Use::Refused(why) = used {
            return Err(Fault::new(format!("{name} cannot be had")).hint(*why));
        }
        self.0.insert(name, value.into());
        Ok(())
    }

    /// Takes what is not there from `others`.
    pub(super) fn or(mut self, others: Words) -> Words {
        for (name, value) in others.0 {
            self.0.entry(name).or_insert(value);
        }
        self
    }

    /// Each word but the password.
    pub(super) fn without_password(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.iter().filter(|(name, _)| *name != "password")
    }

    /// Each word with its value, which may be a password.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// `user:password@host:port,host:port/dbname?word=value&…`
fn url(rest: &str) -> Result<Words, Fault> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut words = Words::default();
    let (hosts, ports) = split_hosts(hosts)?;
    for (name, value) in
        [("user", user), ("password", password), ("host", &hosts), ("port", &ports), ("dbname", dbname)]
    {
        if !value.is_empty() {
            words.put(name, decoded(name, value)?)?;
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Fault::new("expected word=value after ?, got no =").hint(ESCAPES))?;
        match (decoded("a word's name", name)?.as_str(), decoded(name, value)?) {
            // As JDBC writes it, and as libpq takes it.
            ("ssl", value) if value == "true" => words.put("sslmode", "require")?,
            (name, value) => words.put(name, value)?,
        }
    }
    Ok(words)
}

/// Hosts and ports, each separated by commas; no ports at all if none is named.
fn split_hosts(text: &str) -> Result<(String, String), Fault> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                None => return Err(Fault::new("expected ] after an IPv6 address")),
                Some(("", _)) => return Err(Fault::new("expected an IPv6 address in []")),
                Some((host, "")) => (host, ""),
                Some((host, after)) => {
                    let port = after.strip_prefix(':');
                    (
                        host,
                        port.ok_or_else(|| Fault::new("expected : and a port, or nothing, after [an IPv6 address]"))?,
                    )
                }
            },
            None => one.split_once(':').unwrap_or((one, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    Ok((hosts.join(","), ports))
}

fn decoded(name: &str, value: &str) -> Result<String, Fault> {
    let mut codes = value.split('%').skip(1).map(|code| code.as_bytes());
    if !codes.all(|code| code.len() >= 2 && code[..2].iter().all(u8::is_ascii_hexdigit)) {
        return Err(Fault::new(format!("{name}: expected two hexadecimal digits after %")).hint(ESCAPES));
    }
    let text = percent_decode_str(value).decode_utf8();
    let text = text.map_err(|_| Fault::new(format!("{name}: not UTF-8 after decoding %")))?;
    if text.contains('\0') { Err(Fault::new(format!("{name}: %00 is in no value"))) } else { Ok(text.into_owned()) }
}

/// `name = value name='it''s \'quoted\''`
fn pairs(text: &str) -> Result<Words, Fault> {
    let mut words = Words::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| {
            Fault::new("expected word=value, got no =")
                .hint("postgres://user@host:5432/database, or words like host=/run/postgresql user=trackd")
        })?;
        let (value, after) = value(after.trim_start())?;
        words.put(name.trim_end(), value)?;
        rest = after.trim_start();
    }
    Ok(words)
}

/// A value, quoted or up to the next blank, and what follows it.
fn value(text: &str) -> Result<(String, &str), Fault> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(Fault::new("expected ' at the end of a value")) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(&'static str, String)> {
        let words = Words::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        words.iter().map(|(name, value)| (name, value.to_owned())).collect()
    }

    fn is(text: &str, expected: &[(&'static str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(words(text), expected, "{text}");
    }

    #[test]
    fn both_forms_give_the_same_words() {
        is("postgres://u@h/d", &[("dbname", "d"), ("host", "h"), ("user", "u")]);
        is("host=h user=u dbname=d", &[("dbname", "d"), ("host", "h"), ("user", "u")]);
        is(
            "postgresql://u:p%40s:@a:1,[::1]:2,c/d?sslmode=verify-full&target_session_attrs=read-write",
            &[
                ("dbname", "d"),
                ("host", "a,::1,c"),
                ("password", "p@s:"),
                ("port", "1,2,"),
                ("sslmode", "verify-full"),
                ("target_session_attrs", "read-write"),
                ("user", "u"),
            ],
        );
        is("postgres://%2Frun%2Fpostgresql/d", &[("dbname", "d"), ("host", "/run/postgresql")]);
        is("postgres:///d?host=/tmp&port=5433", &[("dbname", "d"), ("host", "/tmp"), ("port", "5433")]);
        is("postgres://h?ssl=true", &[("host", "h"), ("sslmode", "require")]);
        is("postgres://", &[]);
        is("", &[]);
        is(
            " host = 'a b'  password='it\\'s \\\\' user=a\\ b ",
            &[("host", "a b"), ("password", "it's \\"), ("user", "a b")],
        );
        is("keepalives_retries=3", &[("keepalives_count", "3")]);
    }

    #[test]
    fn faults_name_the_word_and_no_value() {
        for (text, message) in [
            ("host", "expected word=value, got no ="),
            ("host='secret", "expected ' at the end of a value"),
            ("sslmod=secret", "no word sslmod"),
            ("postgres://h?sslmod=secret", "no word sslmod"),
            ("postgres://h?secret", "expected word=value after ?, got no ="),
            ("postgres://u:100%secret@h", "password: expected two hexadecimal digits after %"),
            ("postgres://u:secret%4@h", "password: expected two hexadecimal digits after %"),
            ("postgres://u:secret%4x@h", "password: expected two hexadecimal digits after %"),
            ("postgres://u:secret%00@h", "password: %00 is in no value"),
            ("postgres://u:a?secret@h", "expected word=value after ?, got no ="),
            ("postgres://[::1", "expected ] after an IPv6 address"),
            ("postgres://[]:1/d", "expected an IPv6 address in []"),
            ("postgres://[::1]5432/d", "expected : and a port, or nothing, after [an IPv6 address]"),
            ("requirepeer=secret", "requirepeer cannot be had"),
            ("host=h password=half secret=x", "a word that is not known"),
        ] {
            let fault = Words::parse(text).expect_err(text);
            assert_eq!(fault.message, message);
            assert!(!format!("{fault:?}").contains("secret"), "{fault:?}");
        }
        assert!(!format!("{:?}", Words::parse("password=secret")).contains("secret"));
    }
}
