//! What was told, in a file of the state directory: a restart does not tell it again.
//!
//! Not synced: lost with the power, it costs one alert told twice. In: what was told. Out: the same, after a restart.
//! Must not know: what is done with it.

use super::book::Told;
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;

/// The file.
#[derive(Debug, Clone)]
pub(super) struct Kept(PathBuf);

impl Kept {
    pub(super) fn of(state_dir: &Path) -> Kept {
        Kept(state_dir.join("alerts.json"))
    }

    /// What the process before told; nothing where there is no file, or one that is not understood.
    pub(super) async fn read(&self) -> Vec<Told> {
        let file = self.0.clone();
        let read = spawn_blocking(move || std::fs::read(&file)).await;
        let Ok(Ok(bytes)) = read else { return Vec::new() };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(file = %self.0.display(), %error, "what was told before is not understood: it is told again");
            Vec::new()
        })
    }

    /// Takes the place of what was there, whole or not at all.
    pub(super) async fn write(&self, told: &[Told]) {
        let (file, bytes) = (self.0.clone(), serde_json::to_vec(told).unwrap_or_default());
        let written = spawn_blocking(move || {
            let fresh = file.with_extension("new");
            std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, &file))
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(file = %self.0.display(), %error, "what was told is not kept: a restart tells it again");
        }
    }
}
