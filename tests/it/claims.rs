//! Behaviour of claims: of many processes one runs an instant, and only while nobody else has taken it over.

use crate::support::daemon::{Home, PATIENCE, file_tracker};
use crate::support::faulty::{Answer, Faulty};
use crate::support::postgres::{Database, Server, count, eventually};
use jiff::Timestamp;
use rustix::process::Signal;
use std::time::Duration;
use tokio_postgres::Client;
use trackd::status::{Kind, Run, RunStatus};
use trackd::store::claim::{self, Claim, Over, claim};
use trackd::store::instance::Instance;
use trackd::store::{Error, Pool, PoolOptions, Statement, ledger, migrate};

const LONG: Duration = Duration::from_secs(3600);

/// A ledger.
async fn opened() -> (Database, Pool) {
    let database = Server::shared().database().await;
    migrate::migrate(&mut database.client().await).await.unwrap();
    database.client().await.batch_execute("CREATE TABLE t (n bigint)").await.unwrap();
    let pool = Pool::new(PoolOptions::new(&database.url()).unwrap());
    (database, pool)
}

async fn process(pool: &Pool, lease: Duration) -> Instance {
    let instance = Instance::new("test:1", lease);
    instance.renew(pool, None).await.unwrap();
    instance
}

fn run(second: i64) -> Run {
    let at = Timestamp::from_second(second).unwrap();
    Run::begun(ledger::run_id("a", at), "a", at, Kind::Scheduled, "test:1", at)
}

async fn claimed(pool: &Pool, by: &Instance, run: &Run) -> Option<Claim> {
    claim(pool, by, run, Over::Running, PATIENCE).await.unwrap()
}

/// Lands a row and the run's outcome in one transaction.
async fn land(pool: &Pool, run: &Run, claim: &Claim, n: i64) -> Result<(), Error> {
    let mut guard = pool.begin().await?;
    guard.defer(Statement::new(format!("INSERT INTO t VALUES ({n})")));
    guard.defer(claim::close(&Run { status: RunStatus::Succeeded, ..run.clone() }, claim));
    guard.commit().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_processes_one_has_the_run() {
    let (_database, pool) = opened().await;
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (pool, instance) = (pool.clone(), process(&pool, LONG).await);
        tasks
            .push(tokio::spawn(async move { claimed(&pool, &instance, &run(1)).await.map(|claim| (claim, instance)) }));
    }
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(task.await.unwrap());
    }
    let [(claim, winner)] = &winners[..] else { panic!("{winners:?}") };
    land(&pool, &run(1), claim, 1).await.unwrap();
    assert!(claimed(&pool, winner, &run(1)).await.is_none(), "it has its outcome");
    assert!(claim::is_lost(&land(&pool, &run(1), claim, 2).await.unwrap_err()), "and no second one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_cannot_land_over_its_successor() {
    let (database, pool) = opened().await;
    let (late, other) = (process(&pool, Duration::from_millis(300)).await, process(&pool, LONG).await);
    let stale = claimed(&pool, &late, &run(1)).await.unwrap();
    assert!(claimed(&pool, &other, &run(1)).await.is_none(), "its lease holds");
    let mut taken = None;
    eventually("the end of a lease", PATIENCE, async || {
        taken = claimed(&pool, &other, &run(1)).await;
        taken.is_some()
    })
    .await;
    // It wakes up, and its lease holds again.
    late.renew(&pool, None).await.unwrap();
    let error = land(&pool, &run(1), &stale, 1).await.unwrap_err();
    assert!(claim::is_lost(&error), "{error}");
    ledger::record(&pool, late.id(), &[run(1)]).await.unwrap();
    land(&pool, &run(1), &taken.unwrap(), 2).await.unwrap();
    let client = database.client().await;
    assert_eq!(
        (count(&client, "SELECT count(*) FROM t").await, count(&client, "SELECT sum(n)::int8 FROM t").await),
        (1, 2)
    );
    assert_eq!(count(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_claim_of_the_same_process_lands_nothing() {
    let (database, pool) = opened().await;
    let instance = process(&pool, LONG).await;
    let older = claimed(&pool, &instance, &run(1)).await.unwrap();
    let newer = claimed(&pool, &instance, &run(1)).await.unwrap();
    assert!(claim::is_lost(&land(&pool, &run(1), &older, 1).await.unwrap_err()));
    land(&pool, &run(1), &newer, 2).await.unwrap();
    // A server's crash may forget a claim: it is as good as lost.
    let forgotten = claimed(&pool, &instance, &run(2)).await.unwrap();
    let client = database.client().await;
    client.batch_execute("DELETE FROM trackd.runs WHERE status = 'running'").await.unwrap();
    assert!(claim::is_lost(&land(&pool, &run(2), &forgotten, 3).await.unwrap_err()));
    assert_eq!(count(&client, "SELECT sum(n)::int8 FROM t").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_takes_the_place_of_a_dead_process_s_claim_says_who_put_it_on_record() {
    let (database, pool) = opened().await;
    let (gone, alive) = (process(&pool, LONG).await, process(&pool, LONG).await);
    let _ = claimed(&pool, &gone, &Run { instance: "dead:1".into(), ..run(1) }).await.unwrap();
    gone.leave(&pool).await.unwrap();
    ledger::record(&pool, alive.id(), &[Run { instance: "alive:2".into(), ..run(1) }]).await.unwrap();
    let client = database.client().await;
    assert_eq!(count(&client, "SELECT count(*) FROM trackd.runs WHERE instance = 'alive:2'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_process_that_is_gone_are_found_and_those_of_one_that_lives_are_not() {
    let (_database, pool) = opened().await;
    let (gone, alive) = (process(&pool, LONG).await, process(&pool, LONG).await);
    for second in [3, 1, 2] {
        let _ = claimed(&pool, &gone, &run(second)).await.unwrap();
    }
    let _ = claimed(&pool, &alive, &run(4)).await.unwrap();
    ledger::record(&pool, gone.id(), &[run(2)]).await.unwrap();
    assert_eq!(alive.others(&pool).await.unwrap().orphans, []);
    let left = alive.others(&pool).await.unwrap().next_to_expire.expect("the other's lease");
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
    gone.leave(&pool).await.unwrap();
    assert_eq!(alive.others(&pool).await.unwrap().next_to_expire, None);
    let orphans = alive.others(&pool).await.unwrap().orphans;
    assert_eq!(orphans.iter().map(|orphan| orphan.scheduled_at.as_second()).collect::<Vec<_>>(), [1, 3]);
    // Claimed by one that lives, or ended by it without a claim.
    let _ = claimed(&pool, &alive, &run(1)).await.unwrap();
    ledger::record(&pool, alive.id(), &[run(3)]).await.unwrap();
    assert_eq!(alive.others(&pool).await.unwrap().orphans, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_before_anybody_looked_at_the_past_hides_no_hole_before_it() {
    let (_database, pool) = opened().await;
    let instance = process(&pool, LONG).await;
    // Ended at 1; at 3 the daemon began without its database; at 4 a run of its own failed.
    ledger::record(&pool, instance.id(), &[run(1), run(4)]).await.unwrap();
    let trackers = [("a".to_owned(), None)];
    let three = Some(Timestamp::from_second(3).unwrap());
    for (until, latest) in [(three, 1), (None, 4)] {
        let instants = ledger::instants(&pool, instance.id(), &trackers, until, 100).await.unwrap();
        assert_eq!(instants[0].whole_until.as_second(), latest, "{until:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_had_in_its_memory_when_it_died_is_a_hole_though_later_runs_landed() {
    let (_database, pool) = opened().await;
    let at = |second| Timestamp::from_second(second).unwrap();
    let (gone, alive) = (process(&pool, LONG).await, process(&pool, LONG).await);
    let trackers = [("a".to_owned(), None)];
    ledger::meet(&pool, &["a".to_owned()], at(2)).await.unwrap();
    // 5 was skipped, and its row not written when 6 had landed.
    ledger::record(&pool, gone.id(), &[run(3), run(4), run(6)]).await.unwrap();
    let whole_until = async |until: Option<i64>, lives: bool| {
        gone.renew(&pool, until.map(at)).await.unwrap();
        if !lives {
            gone.leave(&pool).await.unwrap();
        }
        let instants = ledger::instants(&pool, alive.id(), &trackers, None, 100).await.unwrap().remove(0);
        (instants.whole_until.as_second(), instants.later.iter().map(|at| at.as_second()).collect::<Vec<_>>())
    };
    assert_eq!(whole_until(None, false).await, (6, vec![]), "it never said how far");
    assert_eq!(whole_until(Some(4), true).await, (6, vec![]), "it lives, and will write what is missing");
    assert_eq!(whole_until(None, false).await, (4, vec![6]), "what it said stands");
    assert_eq!(whole_until(Some(9), false).await, (6, vec![]));
    assert_eq!(whole_until(Some(1), false).await, (2, vec![3, 4, 6]), "the tracker is followed since then");
    let waits = [("a".to_owned(), Some(at(1)))];
    let instants = ledger::instants(&pool, alive.id(), &waits, None, 100).await.unwrap().remove(0);
    assert_eq!((instants.whole_until, instants.later.len()), (at(1), 3), "it was followed when that was fetched");
    alive.forget(&pool, gone.id()).await.unwrap();
    alive.forget(&pool, alive.id()).await.unwrap();
    let instants = ledger::instants(&pool, alive.id(), &trackers, None, 100).await.unwrap();
    assert_eq!(instants[0].whole_until, at(6));
    assert!(claimed(&pool, &alive, &run(7)).await.is_some());
    assert_eq!(gone.others(&pool).await.unwrap().orphans, [], "none forgets itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_the_ledger_is_whole_is_not_said_of_one_that_went_back_in_time() {
    let (database, pool) = opened().await;
    let process = process(&pool, LONG).await;
    let at = |second| Some(Timestamp::from_second(second).unwrap());
    let client = database.client().await;
    let stored = async || count(&client, "SELECT extract(epoch FROM whole_until)::int8 FROM trackd.instances").await;
    for (until, is_back, stands) in [(10, false, 10), (20, false, 20), (18, false, 18)] {
        assert_eq!((process.renew(&pool, at(until)).await.unwrap(), stored().await), (is_back, stands), "{until}");
    }
    client.batch_execute("UPDATE trackd.instances SET whole_until = to_timestamp(15)").await.unwrap();
    for until in [21, 30] {
        assert_eq!((process.renew(&pool, at(until)).await.unwrap(), stored().await), (true, 15), "{until}");
    }
    // Connected anew, with another database perhaps.
    assert!(!process.renew(&pool, None).await.unwrap());
    assert_eq!((process.renew(&pool, at(31)).await.unwrap(), stored().await), (false, 31));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_back_in_time_is_told_of_and_made_whole_by_a_restart() {
    let database = Server::shared().database().await;
    let mut home = Home::new(&database, &file_tracker("a", "200ms"));
    home.set("TRACKD_DAEMON__LEASE", "3s");
    home.put("a.json", BODY);
    let mut daemon = home.run();
    let client = database.client().await;
    let landed = "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'";
    let said = "SELECT count(*) FROM trackd.instances WHERE whole_until > now() - interval '1 s' AND \
                (SELECT count(*) FROM trackd.runs) > 20";
    eventually("a sign of life", PATIENCE, async || count(&client, said).await == 1).await;
    // A second of it is gone, as where a standby had not got it yet.
    let back = "DELETE FROM a WHERE taken_at > now() - interval '1 s'; \
                DELETE FROM trackd.runs WHERE scheduled_at > now() - interval '1 s'; \
                UPDATE trackd.instances SET whole_until = now() - interval '2 s'";
    client.batch_execute(back).await.unwrap();
    daemon.says("the database lacks what it had", 1).await;
    let before = count(&client, landed).await;
    eventually("it goes on", PATIENCE, async || count(&client, landed).await > before + 10).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(daemon.said("the database lacks what it had"), 1);
    let mut daemon = home.run();
    daemon.says("ready", 1).await;
    eventually("all caught up", PATIENCE, async || {
        count(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'running'").await == 0
    })
    .await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    whole(&client, "a", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_is_no_hole_for_others_and_an_orphan_when_its_process_is_gone() {
    let (_database, pool) = opened().await;
    let (first, other) = (process(&pool, LONG).await, process(&pool, LONG).await);
    let at = |second| Timestamp::from_second(second).unwrap();
    ledger::record(&pool, first.id(), &[run(1), run(3)]).await.unwrap();
    let reserved = [("a", at(2), Kind::CatchUp), ("a", at(3), Kind::CatchUp), ("a", at(5), Kind::CatchUp)];
    for _ in 0..2 {
        claim::reserve(&pool, &first, &reserved).await.unwrap();
    }
    let trackers = [("a".to_owned(), None)];
    for (by, later) in [(&other, vec![at(5)]), (&first, Vec::new())] {
        let instants = ledger::instants(&pool, by.id(), &trackers, None, 100).await.unwrap();
        assert_eq!((instants[0].whole_until, &instants[0].later), (at(3), &later));
    }
    // What has its outcome keeps it; the others are its own to begin, and nobody else's while it lives.
    for (by, second, has) in [(&other, 2, false), (&first, 3, false), (&first, 2, true)] {
        assert_eq!(claimed(&pool, by, &run(second)).await.is_some(), has, "{second}");
    }
    first.leave(&pool).await.unwrap();
    let orphans = other.others(&pool).await.unwrap().orphans;
    let orphans: Vec<_> = orphans.into_iter().map(|orphan| (orphan.scheduled_at, orphan.kind)).collect();
    assert_eq!(orphans, [(at(2), Kind::CatchUp), (at(5), Kind::CatchUp)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_a_commit_under_way_is_waited_for() {
    let (database, pool) = opened().await;
    let instance = process(&pool, LONG).await;
    let claim = claimed(&pool, &instance, &run(1)).await.unwrap();
    // The commit takes its time; whoever asks meanwhile must not be told "no".
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END'; \
                CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()";
    let client = database.client().await;
    client.batch_execute(slow).await.unwrap();
    client.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let landing = tokio::spawn({
        let pool = pool.clone();
        async move { land(&pool, &run(1), &claim, 1).await }
    });
    let waits = |what: &str| {
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = '{what}'")
    };
    eventually("a commit under way", PATIENCE, async || count(&client, &waits("advisory")).await == 1).await;
    let asking = tokio::spawn({
        let pool = pool.clone();
        async move { ledger::settled(&pool, run(1).run_id).await }
    });
    eventually("who asks", PATIENCE, async || count(&client, &waits("transactionid")).await == 1).await;
    client.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    landing.await.unwrap().unwrap();
    assert_eq!(asking.await.unwrap().unwrap().unwrap().status, RunStatus::Succeeded);
}

/// Every instant from the first to the last has one row, nobody's run is open, and each success has its rows.
async fn whole(client: &Client, table: &str, rows: i64) {
    let wrong = format!(
        "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d FROM trackd.runs \
         WHERE tracker = '{table}') AS x WHERE d <> interval '200 ms'"
    );
    assert_eq!(count(client, &wrong).await, 0, "lost instants");
    assert_eq!(count(client, "SELECT count(*) FROM trackd.runs WHERE status = 'running'").await, 0, "open runs");
    let halves = format!(
        "SELECT count(*) FROM trackd.runs r WHERE (SELECT count(*) FROM {table} t WHERE t.run_id = r.run_id) <> \
         CASE r.status WHEN 'succeeded' THEN {rows} ELSE 0 END"
    );
    assert_eq!(count(client, &halves).await, 0, "rows and ledger disagree");
}

const BODY: &str = r#"{"rows":[{"k":"a","v":1},{"k":"b","v":2}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_share_the_runs_and_when_two_are_killed_the_third_has_them_all() {
    let database = Server::shared().database().await;
    let mut homes: Vec<Home> = (0..3).map(|_| Home::new(&database, &file_tracker("a", "200ms"))).collect();
    homes.iter_mut().for_each(|home| home.set("TRACKD_DAEMON__LEASE", "3s"));
    homes.iter().for_each(|home| home.put("a.json", BODY));
    let mut daemons: Vec<_> = homes.iter().map(Home::run).collect();
    for daemon in &mut daemons {
        daemon.says("ready", 1).await;
    }
    let client = database.client().await;
    let landed = "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'";
    eventually("runs of all", PATIENCE, async || count(&client, landed).await > 30).await;
    let mut last = daemons.pop().unwrap();
    daemons.into_iter().for_each(|daemon| daemon.kill());
    let before = count(&client, landed).await;
    eventually("runs of the one", PATIENCE, async || count(&client, landed).await > before + 10).await;
    let open = "SELECT count(*) FROM trackd.runs r JOIN trackd.instances i ON i.instance_id = r.claimed_by \
                WHERE r.status = 'running' AND i.lease_until < clock_timestamp()";
    let dead = "SELECT count(*) FROM trackd.instances WHERE lease_until < clock_timestamp()";
    eventually("the end of two leases", PATIENCE, async || count(&client, dead).await == 2).await;
    eventually("no open run", PATIENCE, async || count(&client, open).await == 0).await;
    last.signal(Signal::TERM);
    assert_eq!(last.ends().await, Some(0), "{}", last.log());
    whole(&client, "a", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_in_a_run_and_goes_on_after_its_lease_lands_nothing() {
    let database = Server::shared().database().await;
    // The first answer comes after its asker was replaced.
    let slow = Faulty::start(vec![Answer::Silence, Answer::ok(BODY)]).await;
    // Once an hour, half an hour from now.
    let minute = (jiff::Timestamp::now().as_second() / 60 + 30) % 60;
    let tracker =
        file_tracker("a", "1h").replace("every = \"1h\"", &format!("schedule = \"{minute} * * * *\"")).replace(
            "file = { path = \"a.json\" }",
            &format!("timeout = \"5m\"\nhttp = {{ url = \"{}\" }}", slow.url("/")),
        );
    let [mut home, mut other] = [(); 2].map(|()| Home::new(&database, &tracker));
    [&mut home, &mut other].into_iter().for_each(|home| home.set("TRACKD_DAEMON__LEASE", "3s"));
    let client = database.client().await;
    // An instant that is long past, which the first one catches up.
    let mut first = home.run();
    first.says("ready", 1).await;
    client.batch_execute("UPDATE trackd.trackers SET since = now() - interval '90 min'").await.unwrap();
    drop(first);
    let mut first = home.run();
    first.says("ready", 1).await;
    eventually("its request", PATIENCE, async || slow.requests().len() == 1).await;
    first.signal(Signal::STOP);
    let mut second = other.run();
    second.says("ready", 1).await;
    let landed = "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'";
    eventually("the run of the other", PATIENCE, async || count(&client, landed).await == 1).await;
    first.signal(Signal::CONT);
    first.signal(Signal::TERM);
    assert_eq!(first.ends().await, Some(0), "{}", first.log());
    second.signal(Signal::TERM);
    assert_eq!(second.ends().await, Some(0), "{}", second.log());
    assert_eq!(count(&client, "SELECT count(*) FROM a").await, 2);
    assert_eq!(count(&client, landed).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_land_when_it_is_their_tracker_s_turn_and_not_beside_another_instant_of_it() {
    let database = Server::shared().database().await;
    let tracker = file_tracker("a", "200ms").replace("history = \"snapshot\"", "history = \"change\"");
    let home = Home::new(&database, &tracker);
    home.put("a.json", BODY);
    let (client, pool) = (database.client().await, Pool::new(PoolOptions::new(&database.url()).unwrap()));
    let mut other = pool.begin().await.unwrap();
    other.query(claim::turn("a")).await.unwrap();
    let daemon = home.run();
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                 WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted";
    eventually("one that waits its turn", PATIENCE, async || count(&client, waits).await == 1).await;
    assert_eq!(count(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'").await, 0);
    other.rollback().await;
    let landed = "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'";
    eventually("its run", PATIENCE, async || count(&client, landed).await >= 1).await;
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_after_others_gave_its_run_up_lands_all_the_same() {
    let database = Server::shared().database().await;
    let slow = Faulty::start(vec![Answer::Silence, Answer::ok(BODY)]).await;
    let tracker = file_tracker("a", "500ms").replace(
        "file = { path = \"a.json\" }",
        &format!("timeout = \"1s\"\nretry = {{ attempts = 3 }}\nhttp = {{ url = \"{}\" }}", slow.url("/")),
    );
    let home = Home::new(&database, &tracker);
    let client = database.client().await;
    let mut daemon = home.run();
    eventually("its request", PATIENCE, async || slow.requests().len() == 1).await;
    daemon.signal(Signal::STOP);
    // As a daemon does that stood still, too, after the lease of this one.
    let missed = "UPDATE trackd.runs SET status = 'missed', claimed_by = 1 WHERE status = 'running' RETURNING 1";
    assert_eq!(client.query(missed, &[]).await.unwrap().len(), 1);
    daemon.signal(Signal::CONT);
    let landed = "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded' AND attempt = 2";
    eventually("its run", PATIENCE, async || count(&client, landed).await == 1).await;
    // Those that it missed itself, while it stood still, are its own.
    assert_eq!(count(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'missed' AND claimed_by = 1").await, 0);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}
