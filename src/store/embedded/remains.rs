//! What a killed server leaves behind that keeps the next one from starting.
//!
//! PostgreSQL takes its lock files for those of a live server as long as their process has an entry in the process
//! table. A killed server keeps its entry until its parent asks for it, and in a container the parent is often a program
//! that never asks. Sessions that outlive the server are no matter of these files: they hold its shared memory, and
//! PostgreSQL finds that by the data directory itself.
//! Must not know: how servers are started.

use std::path::Path;

/// Removes the lock files of `data` and `socket_dir` if their server is dead and only its entry is left.
pub(super) fn clear(data: &Path, socket_dir: &Path) {
    for file in [data.join("postmaster.pid"), socket_dir.join(".s.PGSQL.5432.lock")] {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let pid = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        if pid.is_some_and(|pid| is_dead(&std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())) {
            tracing::info!(target: "trackd::store", file = %file.display(), "removed the lock of a dead server");
            let _ = std::fs::remove_file(&file);
        }
    }
}

/// Whether `/proc/<pid>/stat` is that of a process that ended and was not waited for.
fn is_dead(stat: &str) -> bool {
    // The name comes before the state, in parentheses, and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_ended_is_dead() {
        assert!(is_dead("12 (postgres) Z 1 12 12 0"));
        assert!(is_dead("12 (a) S b) Z 1"));
        assert!(!is_dead("12 (Z) S 1 12 12 0"));
        assert!(!is_dead("12 (x) Z) S 1"));
        assert!(!is_dead(""));
    }
}
