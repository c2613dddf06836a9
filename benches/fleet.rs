//! Ten thousand trackers on the same second, by the real program on its embedded database, for a minute.
//!
//! ```text
//!  cargo bench --bench fleet                10,000 trackers, every 10 s, for 60 s
//!  cargo bench --bench fleet -- 1000 30     1,000 trackers for 30 s
//! ```
//!
//! Each tracker reads a small file and keeps a snapshot in a table of its own. Printed: instants expected and
//! recorded, doubles, lateness (scheduled → started), CPU and memory of trackd. Fails when an instant is lost or
//! doubled.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let (trackers, seconds) = (args.first().copied().unwrap_or(10_000), args.get(1).copied().unwrap_or(60));
    let dir = tempfile::Builder::new().prefix("trackd-fleet").tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::write(dir.path().join("body.json"), r#"{"rows":[{"k":"a","v":1}]}"#)?;
    let mut config = String::from(
        "[database]\nurl = \"embedded\"\n[daemon]\nlisten = \"\"\nstate_dir = \"state\"\n[log]\nlevel = \"warn\"\n",
    );
    for i in 0..trackers {
        write!(
            config,
            "[[tracker]]\nname = \"t{i:05}\"\nschedule = \"*/10 * * * * *\"\nfile = {{ path = \"body.json\" }}\n[[tracker.table]]\n\
             name = \"t{i:05}\"\nhistory = \"snapshot\"\nkey = [\"k\"]\nrows = \".rows[]\"\ncolumns = {{ k = \"text\", v = \"integer\" }}\n"
        )?;
    }
    std::fs::write(dir.path().join("config.toml"), config)?;
    let trackd = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trackd"));
        command.args(args).current_dir(dir.path());
        command
    };
    let begun = Instant::now();
    let mut daemon = trackd(&["run"]).stdin(Stdio::null()).spawn()?;
    let count = |sql: &str| -> Outcome<String> {
        let output = trackd(&["psql", "--", "-X", "-Atq", "-c", sql]).output()?;
        if !output.status.success() {
            return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    // The first start makes all tables; what is measured begins with the first runs.
    while count("SELECT count(*) FROM trackd.runs").map_or(0, |runs| runs.parse().unwrap_or(0)) < trackers {
        if let Some(status) = daemon.try_wait()? {
            return Err(format!("trackd ended: {status}").into());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    println!(
        "{trackers} trackers, first instant recorded {:.1} s after the first start",
        begun.elapsed().as_secs_f64()
    );
    let (since, before) = (Instant::now(), usage(&daemon)?);
    std::thread::sleep(Duration::from_secs(seconds));
    // Between two instants, when all runs of the last one have long ended: a stop begins no further ones.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    std::thread::sleep(Duration::from_secs((8 + 10 - now.as_secs() % 10) % 10));
    let seconds = since.elapsed().as_secs_f64();
    let after = usage(&daemon)?;
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM)?;
    println!("stopped: {}", daemon.wait()?);
    let counts = count(&format!(
        "WITH i AS (SELECT scheduled_at, count(*) AS runs, count(DISTINCT tracker) AS trackers FROM trackd.runs GROUP BY 1) \
         SELECT count(*) * {trackers}, sum(runs), sum(runs - trackers), (SELECT count(*) FROM trackd.runs WHERE status <> 'succeeded') FROM i"
    ))?;
    let lateness = count(
        "SELECT string_agg(round(extract(epoch FROM p) * 1000)::text, ' / ') FROM unnest((SELECT percentile_disc(ARRAY[0.5, 0.99, 1]) \
         WITHIN GROUP (ORDER BY started_at - scheduled_at) FROM trackd.runs)) AS p",
    )?;
    let instants = count(
        "SELECT to_char(scheduled_at, 'HH24:MI:SS') || '  first ' || round(min(l) * 1000) || '  p50 ' || \
         round(percentile_disc(0.5) WITHIN GROUP (ORDER BY l) * 1000) || '  last ' || round(max(l) * 1000) FROM \
         (SELECT scheduled_at, extract(epoch FROM started_at - scheduled_at) AS l FROM trackd.runs) AS x GROUP BY scheduled_at ORDER BY 1",
    )?;
    let numbers: Vec<&str> = counts.split('|').collect();
    println!(
        "instants expected {} recorded {} doubled {} not succeeded {}",
        numbers[0], numbers[1], numbers[2], numbers[3]
    );
    let others = count(
        "SELECT count(*) || ' ' || status || ' at ' || min(scheduled_at) || ' to ' || max(scheduled_at) || ': ' || min(error) FROM trackd.runs \
         WHERE status <> 'succeeded' GROUP BY status",
    )?;
    println!("{others}");
    println!("lateness ms p50 / p99 / max: {lateness}\n{instants}");
    println!("CPU of one core {:.1} %, resident {:.0} MiB", (after.0 - before.0) / seconds * 100.0, after.1);
    if numbers[0] != numbers[1] || numbers[2] != "0" { Err("instants were lost or doubled".into()) } else { Ok(()) }
}

/// CPU seconds and resident MiB of a process.
fn usage(child: &Child) -> Outcome<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok((ticks / 100.0, rss.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0))
}
