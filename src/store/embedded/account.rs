//! The operating system's account that the private server runs as.
//!
//! PostgreSQL refuses to run as root; trackd may be root. Accounts are found, never made.

use super::EmbeddedError;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// An account of the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name, as PostgreSQL's peer authentication sees it.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// Who the server runs as: the caller, or for root the first of `trackd`, `postgres`, `nobody` that exists.
    ///
    /// # Errors
    /// Standing: the caller's uid has no account, or root finds none of the three.
    pub fn for_server() -> Result<Account, EmbeddedError> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return Account::current();
        }
        ["trackd", "postgres", "nobody"].into_iter().find_map(lookup).ok_or_else(|| {
            EmbeddedError::standing(
                "start embedded PostgreSQL: it does not run as root, and there is no account trackd, postgres or nobody",
                "useradd --system trackd, or run trackd as another user",
            )
        })
    }

    /// Who trackd runs as.
    ///
    /// # Errors
    /// Standing: the uid has no account.
    pub fn current() -> Result<Account, EmbeddedError> {
        let uid = rustix::process::geteuid().as_raw();
        lookup(&uid.to_string()).ok_or_else(|| {
            EmbeddedError::standing(
                format!("start embedded PostgreSQL: uid {uid} has no account"),
                "PostgreSQL needs its user's name: add the uid to /etc/passwd, or set database.url to a server you have",
            )
        })
    }

    /// Makes `command` run as this account, without supplementary groups if that means a change of user.
    pub fn apply(&self, command: &mut Command) {
        if rustix::process::geteuid().as_raw() != self.uid {
            // `uid` from root also clears the supplementary groups.
            command.uid(self.uid).gid(self.gid);
        }
    }
}

/// An account by name or uid: `/etc/passwd`, then whatever else the system knows (LDAP, systemd).
fn lookup(key: &str) -> Option<Account> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd.lines().find_map(|line| parse(line, key)).or_else(|| {
        let output = Command::new("getent").args(["passwd", key]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        parse(String::from_utf8_lossy(&output.ok()?.stdout).trim(), key)
    })
}

fn parse(line: &str, key: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let (name, _password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if name != key && uid != key {
        return None;
    }
    Some(Account { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_by_uid() {
        let line = "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        let account = Account { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(parse(line, "postgres"), Some(account.clone()));
        assert_eq!(parse(line, "101"), Some(account));
        assert_eq!(parse(line, "post"), None);
        assert_eq!(parse("broken", "broken"), None);
    }
}
