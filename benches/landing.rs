//! From HTTP to commit, beside PostgreSQL's own tools, on the same server in the same run.
//!
//! ```text
//!  cargo bench --bench landing                 5 repetitions of everything
//!  cargo bench --bench landing -- bulk 3       100,000 rows: trackd and psql \copy, 3 repetitions
//!  cargo bench --bench landing -- million      1,000,000 rows once, with the peak of memory
//!  cargo bench --bench landing -- small 3      6-row runs a second: trackd and pgbench
//! ```
//!
//! trackd's side is `Plan::run`, which is what a worker of the daemon calls, in a process of its own (so that its
//! CPU and memory are its own); this process serves the bodies over HTTP on loopback and owns the server, an
//! embedded cluster at its defaults. Each repetition measures the reference first and trackd right after it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trackd::config::{self, Environment};
use trackd::run::{End, Plan, Shared};
use trackd::source::Hosts;
use trackd::status::{Kind, RunStatus};
use trackd::store::embedded::Cluster;
use trackd::store::instance::Instance;
use trackd::store::{Pool, PoolOptions, notify};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Clients of pgbench, and workers of trackd.
const CLIENTS: usize = 8;
/// How long the small runs go on.
const SECONDS: u64 = 5;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["child-bulk", config, path] => bulk_child(config, path),
        ["child-small", config] => small_child(config),
        ["bulk", times] => Bench::open()?.bulk(times.parse()?),
        ["million"] => Bench::open()?.million(),
        ["small", times] => Bench::open()?.small(times.parse()?),
        _ => {
            let bench = Bench::open()?;
            bench.bulk(5)?;
            bench.million()?;
            bench.small(5)
        }
    }
}

/// The server, the bodies, and the files of a run.
struct Bench {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    cluster: Option<Cluster>,
    conninfo: String,
    http: String,
}

impl Bench {
    fn open() -> Outcome<Bench> {
        let dir = tempfile::Builder::new().prefix("trackd-bench").tempdir()?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let cluster = runtime.block_on(Cluster::open(dir.path()))?;
        let conninfo = cluster.conninfo();
        runtime.block_on(async {
            let (mut client, connection) = tokio_postgres::connect(&conninfo, tokio_postgres::NoTls).await?;
            let connection = tokio::spawn(connection);
            trackd::store::migrate::migrate(&mut client).await?;
            drop(client);
            connection.await??;
            Outcome::Ok(())
        })?;
        let http = serve()?;
        Ok(Bench { dir, runtime, cluster: Some(cluster), conninfo, http })
    }

    fn bulk(&self, times: usize) -> Outcome<()> {
        println!("\n100,000 rows of nine fields, one response of 14.8 MB, one transaction, primary key (id, taken_at)");
        println!("{:<44}{:>12}{:>14}", "", "ms", "rows/s");
        let config = self.bulk_config()?;
        self.trackd(&["child-bulk", &config, "/rows/100000"])?;
        let file = self.dir.path().join("board.bin");
        self.export(&file)?;
        let mut pairs = Vec::new();
        for _ in 0..times {
            self.psql("TRUNCATE board; CHECKPOINT")?;
            let copy = self.timed_copy(&file)?;
            self.psql("TRUNCATE board; CHECKPOINT")?;
            let child = self.trackd(&["child-bulk", &config, "/rows/100000"])?;
            pairs.push((copy, child.ms));
        }
        report("psql \\copy, binary, rows already parsed", pairs.iter().map(|pair| pair.0), 100_000.0);
        report("trackd, from HTTP request to commit", pairs.iter().map(|pair| pair.1), 100_000.0);
        ratio("trackd / psql \\copy, rows a second", pairs.iter().map(|(copy, ours)| copy / ours));
        Ok(())
    }

    fn million(&self) -> Outcome<()> {
        println!("\n1,000,000 rows, one response of 149 MB");
        let config = self.bulk_config()?;
        let child = self.trackd(&["child-bulk", &config, "/rows/1000000"])?;
        let file = self.dir.path().join("million.bin");
        self.export(&file)?;
        self.psql("TRUNCATE board; CHECKPOINT")?;
        let copy = self.timed_copy(&file)?;
        std::fs::remove_file(&file)?;
        println!("{:<44}{copy:>10.0} ms", "psql \\copy, binary, rows already parsed");
        println!("{:<44}{:>10.0} ms   ratio {:.2}", "trackd, from HTTP request to commit", child.ms, copy / child.ms);
        println!("{:<44}{:>10.0} MiB", "trackd, peak of resident memory", child.peak_mib);
        println!("{:<44}{:>10.2} s", "trackd, CPU", child.cpu_ms / 1000.0);
        Ok(())
    }

    fn small(&self, times: usize) -> Outcome<()> {
        println!("\nruns of 6 rows and their ledger row, one transaction each, {CLIENTS} at a time, {SECONDS} s");
        let config = self.small_config()?;
        // Makes the tables.
        self.trackd(&["child-small", &config])?;
        let script = self.pgbench_script()?;
        let mut pairs = Vec::new();
        let mut cpu = Vec::new();
        for _ in 0..times {
            self.psql("TRUNCATE trackd.runs; CHECKPOINT")?;
            let reference = self.pgbench(&script)?;
            self.psql("TRUNCATE trackd.runs; CHECKPOINT")?;
            let child = self.trackd(&["child-small", &config])?;
            let runs: f64 = self.psql("SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'")?.trim().parse()?;
            assert_eq!(runs, child.runs + CLIENTS as f64, "the ledger and the process disagree");
            pairs.push((reference, child.runs * 1000.0 / child.ms));
            cpu.push(child.cpu_ms / child.runs);
        }
        println!("{:<44}{:>12}", "", "per second");
        line("pgbench -M prepared, 4 round trips", pairs.iter().map(|pair| pair.0));
        line("trackd, HTTP request to commit", pairs.iter().map(|pair| pair.1));
        ratio("trackd / pgbench", pairs.iter().map(|(reference, ours)| ours / reference));
        let (median, low, high) = spread(cpu.into_iter());
        println!("{:<44}{median:>12.3} ms ({low:.3} to {high:.3})", "trackd, CPU of its process a run");
        Ok(())
    }

    fn bulk_config(&self) -> Outcome<String> {
        let columns = "id = \"bigint\", rank = \"integer\", trades = \"integer\", wins = \"integer\", equity = \"numeric\", \
                       pnl = \"numeric\", roi = \"double precision\", sharpe = \"double precision\", drawdown = \"double precision\"";
        let text = format!(
            "[database]\nurl = \"{}\"\n[vars]\npath = \"/rows/6\"\n[[tracker]]\nname = \"board\"\nevery = \"1h\"\n\
             http = {{ url = \"{}{{{{ vars.path }}}}\", max_body = \"512MiB\" }}\n[[tracker.table]]\nname = \"board\"\n\
             history = \"snapshot\"\nkey = [\"id\"]\nrows = \".rows[]\"\ncolumns = {{ {columns} }}\n",
            self.conninfo, self.http
        );
        self.config_file("bulk.toml", &text)
    }

    fn small_config(&self) -> Outcome<String> {
        let mut text =
            format!("[database]\nurl = \"{}\"\npool_size = {CLIENTS}\n[daemon]\nper_host = {CLIENTS}\n", self.conninfo);
        for i in 0..CLIENTS {
            write!(
                text,
                "[[tracker]]\nname = \"small{i}\"\nevery = \"1s\"\nhttp = {{ url = \"{}/rows/6\" }}\n[[tracker.table]]\n\
                 name = \"small{i}\"\nhistory = \"snapshot\"\nkey = [\"id\"]\nrows = \".rows[]\"\n\
                 columns = {{ id = \"bigint\", rank = \"integer\", equity = \"numeric\", pnl = \"numeric\", roi = \"double precision\" }}\n",
                self.http
            )?;
        }
        self.config_file("small.toml", &text)
    }

    fn config_file(&self, name: &str, text: &str) -> Outcome<String> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// The same transaction as a small run's, in the four round trips of a careful hand-written client.
    fn pgbench_script(&self) -> Outcome<PathBuf> {
        let path = self.dir.path().join("small.sql");
        let text = "BEGIN;\n\
            INSERT INTO trackd.runs (run_id, tracker, scheduled_at, kind, status, attempt, instance, started_at, finished_at, \
            fetched_bytes, http_status, rows_read, rows_written, rows_rejected, payload_sha256) VALUES (gen_random_uuid(), \
            'pgbench' || :client_id, clock_timestamp(), 'scheduled', 'succeeded', 1, 'pgbench', now(), now(), 883, 200, 6, 6, 0, \
            decode('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', 'hex'));\n\
            INSERT INTO small:client_id (id, rank, equity, pnl, roi, taken_at, run_id) SELECT id, rank, equity, pnl, roi, \
            clock_timestamp(), '00000000-0000-8000-8000-000000000000' FROM unnest('{1,2,3,4,5,6}'::bigint[], \
            '{1,2,3,4,5,6}'::int[], '{10001.5,10002.5,10003.5,10004.5,10005.5,10006.5}'::numeric[], \
            '{1.25,2.25,3.25,4.25,5.25,6.25}'::numeric[], '{0.1,0.2,0.3,0.4,0.5,0.6}'::float8[]) AS s(id, rank, equity, pnl, roi);\n\
            COMMIT;\n";
        // The table's name cannot be a parameter of a prepared statement: one script a client.
        for client in 0..CLIENTS {
            std::fs::write(
                path.with_extension(format!("{client}.sql")),
                text.replace("small:client_id", &format!("small{client}")),
            )?;
        }
        Ok(path)
    }

    /// Transactions a second of one pgbench process a client, all at once.
    fn pgbench(&self, script: &Path) -> Outcome<f64> {
        let start = |client: usize| {
            Command::new(tool("pgbench"))
                .args(["-n", "-M", "prepared", "-c", "1", "-T", &SECONDS.to_string(), "-f"])
                .arg(script.with_extension(format!("{client}.sql")))
                .args(["-D", &format!("client_id={client}")])
                .arg(&self.conninfo)
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()
        };
        let children: Vec<_> = (0..CLIENTS).map(start).collect::<Result<_, _>>()?;
        let mut sum = 0.0;
        for child in children {
            let text = String::from_utf8(child.wait_with_output()?.stdout)?;
            let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")).ok_or("pgbench printed no tps")?;
            sum += tps.split(' ').next().ok_or("pgbench printed no tps")?.parse::<f64>()?;
        }
        Ok(sum)
    }

    fn psql(&self, sql: &str) -> Outcome<String> {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo]);
        for part in sql.split("; ") {
            command.args(["-c", part]);
        }
        let output = command.output()?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?),
            false => Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    fn export(&self, file: &Path) -> Outcome<()> {
        // Without the six rows of the warm-up, which have an earlier instant.
        let rows = "SELECT * FROM board WHERE taken_at = (SELECT max(taken_at) FROM board)";
        self.psql(&format!("\\copy ({rows}) TO '{}' BINARY", file.display())).map(drop)
    }

    /// Milliseconds of a `\copy`, by psql's own timing: its start is not part of it.
    fn timed_copy(&self, file: &Path) -> Outcome<f64> {
        let text = self.psql(&format!("\\timing on; \\copy board FROM '{}' BINARY", file.display()))?;
        let time = text.lines().find_map(|line| line.strip_prefix("Time: ")).ok_or("psql printed no time")?;
        Ok(time.split(' ').next().ok_or("psql printed no time")?.parse()?)
    }

    fn trackd(&self, args: &[&str]) -> Outcome<Measured> {
        let child = Command::new(std::env::current_exe()?).args(args).stdout(Stdio::piped()).spawn()?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        let numbers: Vec<f64> =
            text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| text.clone())?;
        match numbers.as_slice() {
            [ms, runs, cpu_ms, peak_mib] => Ok(Measured { ms: *ms, runs: *runs, cpu_ms: *cpu_ms, peak_mib: *peak_mib }),
            _ => Err(format!("the measured process said: {text}").into()),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take() {
            self.runtime.block_on(cluster.close());
        }
    }
}

/// What a measured process prints.
struct Measured {
    ms: f64,
    runs: f64,
    cpu_ms: f64,
    peak_mib: f64,
}

/// A process that runs plans: prints milliseconds, runs, CPU milliseconds, peak MiB.
fn print(took: Duration, runs: u64, cpu_before: f64) -> Outcome<()> {
    println!("{} {runs} {} {}", took.as_secs_f64() * 1000.0, cpu_ms() - cpu_before, peak_mib()?);
    Ok(())
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// The plans of a configuration whose `vars.path` is `path`.
async fn plans(config: &str, path: &str) -> Outcome<Vec<Arc<Plan>>> {
    let environment = Environment::new([("TRACKD_VARS__PATH", path)], false);
    let config = config::load(Path::new(config), &environment).map_err(|faults| faults.to_string())?;
    let config::DatabaseUrl::Server(url) = &config.database.url else { return Err("no database".into()) };
    let options = PoolOptions { pool_size: config.database.pool_size, ..PoolOptions::new(url.expose())? };
    let pool = Pool::new(options);
    // Longer than the bench: nobody renews it.
    let instance = Arc::new(Instance::new("bench:1", Duration::from_secs(3600)));
    instance.renew(&pool, None).await?;
    let hosts = Hosts::new(config.daemon.per_host);
    let shared = Shared { hosts, ..Shared::without_spool(pool, instance, notify::channel().0) };
    let plan = |tracker| Plan::new(&config, tracker, &shared).map(Arc::new);
    Ok(config.trackers.iter().map(plan).collect::<Result<Vec<_>, _>>()?)
}

fn bulk_child(config: &str, path: &str) -> Outcome<()> {
    runtime()?.block_on(async {
        // The first run of a process opens connections and makes the table; a daemon does that once.
        let warm = plans(config, "/rows/6").await?;
        succeeded(&warm[0].run(trackd::clock::now(), Kind::Manual).await)?;
        let plan = &plans(config, path).await?[0];
        let (cpu, start) = (cpu_ms(), Instant::now());
        let outcome = plan.run(trackd::clock::now(), Kind::Manual).await;
        let took = start.elapsed();
        succeeded(&outcome)?;
        print(took, 1, cpu)
    })
}

fn small_child(config: &str) -> Outcome<()> {
    runtime()?.block_on(async {
        let plans = plans(config, "/rows/6").await?;
        for plan in &plans {
            succeeded(&plan.run(trackd::clock::now(), Kind::Manual).await)?;
        }
        let (cpu, start) = (cpu_ms(), Instant::now());
        let worker = |plan: Arc<Plan>| async move {
            let mut runs = 0;
            while start.elapsed() < Duration::from_secs(SECONDS) {
                succeeded(&plan.run(trackd::clock::now(), Kind::Scheduled).await)?;
                runs += 1;
            }
            Ok::<u64, String>(runs)
        };
        let workers: Vec<_> = plans.into_iter().map(|plan| tokio::spawn(worker(plan))).collect();
        let mut runs = 0;
        for worker in workers {
            runs += worker.await??;
        }
        print(start.elapsed(), runs, cpu)
    })
}

fn succeeded(ended: &End) -> Result<(), String> {
    match ended {
        End::Ended(outcome) if outcome.run.status == RunStatus::Succeeded && outcome.run.rows_rejected == 0 => Ok(()),
        _ => Err(format!("{ended:?}")),
    }
}

/// User and system time of this process.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    // utime and stime, in ticks of 10 ms.
    (ticks(11) + ticks(12)) * 10.0
}

fn peak_mib() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
}

/// A tool of PostgreSQL, which Debian keeps outside PATH.
fn tool(name: &str) -> PathBuf {
    let version = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0);
    let dirs =
        std::fs::read_dir("/usr/lib/postgresql").map(|dirs| dirs.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let newest = dirs.iter().max_by_key(|entry| version(entry)).map(|entry| entry.path().join("bin").join(name));
    newest.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name))
}

fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn report(name: &str, ms: impl Iterator<Item = f64>, rows: f64) {
    let (median, low, high) = spread(ms);
    println!("{name:<44}{median:>12.0}{:>14.0}   ({low:.0} to {high:.0} ms)", rows * 1000.0 / median);
}

fn line(name: &str, rates: impl Iterator<Item = f64>) {
    let (median, low, high) = spread(rates);
    println!("{name:<44}{median:>12.0}   ({low:.0} to {high:.0})");
}

fn ratio(name: &str, ratios: impl Iterator<Item = f64>) {
    let (median, low, high) = spread(ratios);
    println!("{name:<44}{median:>12.2}   ({low:.2} to {high:.2})");
}

/// Serves `/rows/N` on loopback, with keep-alive; bodies are made before anything is measured.
fn serve() -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", listener.local_addr()?);
    let bodies: Arc<[(String, Vec<u8>)]> =
        [6, 100_000, 1_000_000].map(|rows| (format!("/rows/{rows}"), response(rows))).into();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bodies = bodies.clone();
            std::thread::spawn(move || answer(stream, &bodies));
        }
    });
    Ok(address)
}

fn answer(stream: TcpStream, bodies: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let body = bodies.iter().find(|(name, _)| *name == path);
        match body {
            Some((_, response)) => writer.write_all(response)?,
            None => writer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
        writer.flush()?;
    }
}

/// A whole response: 148 bytes a row, as measured for the peers.
fn response(rows: usize) -> Vec<u8> {
    let mut body = String::with_capacity(rows * 150);
    body.push_str("{\"rows\":[");
    for i in 0..rows {
        let comma = if i == 0 { "" } else { "," };
        let (a, b) = (i % 9973, i % 7919);
        let _ = write!(
            body,
            "{comma}{{\"id\":{i},\"rank\":{},\"trades\":{},\"wins\":{},\"equity\":{}.{:02},\"pnl\":-{}.{:04},\"roi\":{}.{:05},\
             \"sharpe\":0.{:08},\"drawdown\":-0.{:08}}}",
            i + 1,
            a % 100,
            b % 50,
            10_000 + a,
            b % 100,
            b,
            a % 10_000,
            a % 100,
            b,
            a * 10_007 % 100_000_000,
            b * 12_007 % 100_000_000
        );
    }
    body.push_str("]}");
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    response.extend(body.into_bytes());
    response
}
