//! The unit as systemd judges it, and what must work inside its sandbox.

use crate::machine::{Outcome, expect};
use crate::service::{SECRET, Service, TCP, config, of_file, tracker};

/// What `systemd-analyze security` gives at most, times ten.
const EXPOSURE: &str = "11";

/// `systemd-analyze` has nothing to say.
pub fn sound(service: &Service<'_>) -> Outcome<()> {
    let (machine, unit) = (service.machine, "/usr/lib/systemd/system/trackd");
    // The boxes are without manual pages, and without man.
    let said = machine.run(&format!("systemd-analyze verify --man=no {unit}.service {unit}@.service 2>&1"))?;
    expect(said.is_empty(), || format!("systemd-analyze verify: {said}"))?;
    service.fresh(&config("embedded", &of_file("a")))?;
    let exposure =
        format!("set -o pipefail; systemd-analyze security --no-pager --threshold={EXPOSURE} trackd | tail -n 1");
    machine.run(&exposure).map(drop)
}

/// A server of https whose authority is the system's own, and PostgreSQL by its port.
pub fn reaches_out(service: &Service<'_>) -> Outcome<()> {
    let machine = service.machine;
    machine
        .write("/srv/https/feed", "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"v\":\"by https\"}")?;
    machine.run(
        "cd /srv/https && exec 2>&1 && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=box -keyout ca.key \
         -out /usr/local/share/ca-certificates/box.crt && update-ca-certificates && \
         openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key -out csr && \
         printf 'subjectAltName=DNS:localhost\\nextendedKeyUsage=serverAuth\\n' >ext && openssl x509 -req -in csr -days 2 \
         -CA /usr/local/share/ca-certificates/box.crt -CAkey ca.key -CAcreateserial -extfile ext -out crt && \
         systemd-run --quiet --unit=https --working-directory=/srv/https openssl s_server -accept 8443 -cert crt -key key -HTTP -quiet",
    )?;
    let source = tracker("tls", "1s", "http = { url = \"https://localhost:8443/feed\" }");
    service.cleared(&config(TCP, &source))?;
    machine.run(&format!("su postgres -c \"psql -qc \\\"ALTER ROLE trackd PASSWORD '{SECRET}'\\\"\""))?;
    machine
        .run(&format!("install -d /etc/credstore && printf %s {SECRET} >/etc/credstore/trackd.database.password"))?;
    machine.run("systemctl start trackd")?;
    service.holds("a row by https", "SELECT count(*) >= 2 FROM tls WHERE v = 'by https'")?;
    let host = service.ask("SELECT DISTINCT client_addr FROM pg_stat_activity WHERE usename = 'trackd'")?;
    expect(host == "127.0.0.1", || format!("connected by {host}, expected TCP"))
}
