use super::*;
use crate::config::Environment;
use crate::status::{Phase, Spool};
use futures_util::FutureExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;

fn config(dir: &std::path::Path, alert: &str) -> Arc<Config> {
    let text = format!("[daemon]\nstate_dir = \"{}\"\n{alert}", dir.display());
    let none = Environment::new(Vec::<(String, String)>::new(), false);
    Arc::new(config::parse(&text, std::path::Path::new("/c.toml"), &none).expect("configuration"))
}

fn away() -> Arc<Status> {
    Arc::new(Status { phase: Phase::Degraded, instance: "h:1".into(), ..Status::default() })
}

fn full(phase: Phase) -> Arc<Status> {
    Arc::new(Status { phase, spool: Spool { used: 9, limit: 10, ..Spool::default() }, ..Status::default() })
}

const ALERT: &str = "[alert]\ncommand = [\"page\"]\nafter = \"0s\"\n";

#[tokio::test(start_paused = true)]
async fn what_changes_at_the_same_moment_is_one_alert_and_what_is_tried_again_is_sent_once_each_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let (status, seen) = watch::channel(away());
    let both = format!("{ALERT}webhook = \"http://h/x\"\n");
    let (_config, in_force) = watch::channel(config(dir.path(), &both));
    let (sent, mut alerts) = mpsc::unbounded_channel();
    let tries = AtomicU32::new(0);
    let deliver: Arc<Deliver> = Arc::new(move |way, _, alert| {
        // The webhook takes it at the third attempt.
        let fails = way == Way::Webhook && tries.fetch_add(1, Ordering::Relaxed) < 2;
        let _ = sent.send((way, alert.alerts.len(), fails));
        async move { if fails { Err("away".to_owned()) } else { Ok(()) } }.boxed()
    });
    let service = tokio::spawn(tell(seen, in_force, deliver, Arc::default()));
    sleep(GATHER / 2).await;
    status.send_replace(full(Phase::Degraded));
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(alerts.recv().await.expect("an alert"));
    }
    assert_eq!(
        got,
        [(Way::Command, 2, false), (Way::Webhook, 2, true), (Way::Webhook, 2, true), (Way::Webhook, 2, false)]
    );
    sleep(Duration::from_secs(3_000)).await;
    assert!(alerts.try_recv().is_err(), "before the repeat nothing is new");
    service.abort();
}

#[tokio::test(start_paused = true)]
async fn a_way_that_hangs_is_given_up_and_what_came_meanwhile_is_told_as_it_is_then() {
    let dir = tempfile::tempdir().expect("a directory");
    let (status, seen) = watch::channel(away());
    let (_config, in_force) = watch::channel(config(dir.path(), ALERT));
    let texts = Arc::new(Mutex::new(Vec::new()));
    let (heard, tries) = (Arc::clone(&texts), AtomicU32::new(0));
    let deliver: Arc<Deliver> = Arc::new(move |_, _, alert| {
        heard.lock().expect("whole").push(alert.text.clone());
        // All attempts for the first alert hang.
        match tries.fetch_add(1, Ordering::Relaxed) {
            0..4 => std::future::pending().boxed(),
            _ => async { Ok(()) }.boxed(),
        }
    });
    let service = tokio::spawn(tell(seen, in_force, deliver, Arc::default()));
    sleep(Duration::from_secs(20)).await;
    // It flaps, and ends full and back.
    for phase in [Phase::Running, Phase::Degraded, Phase::Running] {
        status.send_replace(full(phase));
        sleep(Duration::from_millis(300)).await;
    }
    sleep(Duration::from_secs(600)).await;
    let texts = texts.lock().expect("whole").clone();
    assert_eq!(texts.len(), 5, "{texts:#?}");
    assert!(texts[..4].iter().all(|text| text == "trackd on h:1: database away: no error known"), "{texts:#?}");
    // The database was told of to nobody, and is back: only the spool is left.
    assert_eq!(texts[4], "trackd on : spool is 90 % full: 0 payloads wait for the database");
    service.abort();
}

#[tokio::test(start_paused = true)]
async fn a_restart_tells_nothing_twice_and_a_reload_that_names_nobody_nothing_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let (sent, mut alerts) = mpsc::unbounded_channel();
    let deliver: Arc<Deliver> = Arc::new(move |_, _, alert| {
        let _ = sent.send(alert.alerts[0].state);
        async { Ok(()) }.boxed()
    });
    let file = dir.path().join("alerts.json");
    let (_config, in_force) = watch::channel(config(dir.path(), ALERT));
    let (_status, seen) = watch::channel(away());
    let before = tokio::spawn(tell(seen, in_force.clone(), Arc::clone(&deliver), Arc::default()));
    alerts.recv().await.expect("an alert");
    while !file.exists() {
        tokio::task::yield_now().await;
    }
    before.abort();

    let (status, seen) = watch::channel(away());
    let after = tokio::spawn(tell(seen, in_force, Arc::clone(&deliver), Arc::default()));
    sleep(Duration::from_secs(600)).await;
    assert!(alerts.try_recv().is_err(), "it is known");
    status.send_replace(Arc::new(Status { phase: Phase::Running, ..Status::default() }));
    assert_eq!(alerts.recv().await, Some(crate::status::alert::Fires::Resolved));
    after.abort();

    let (_config, nobody) = watch::channel(config(dir.path(), ""));
    let (_status, seen) = watch::channel(away());
    let silent = tokio::spawn(tell(seen, nobody, deliver, Arc::default()));
    sleep(Duration::from_secs(600)).await;
    assert!(alerts.try_recv().is_err());
    silent.abort();
}
