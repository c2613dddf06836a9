//! Behaviour of `store::embedded`, `store::migrate`: real clusters, real kills.

use crate::support::postgres::Server;
use trackd::store::migrate::migrate;

#[tokio::test(flavor = "multi_thread")]
async fn eight_that_migrate_at_once_all_succeed_and_one_applies() {
    let database = Server::shared().database().await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut client = database.client().await;
        tasks.push(tokio::spawn(async move { migrate(&mut client).await }));
    }
    let mut applied = Vec::new();
    for task in tasks {
        applied.extend(task.await.expect("no panic").expect("migrated"));
    }
    assert_eq!(applied, ["V1__ledger"]);
    assert_eq!(migrate(&mut database.client().await).await.expect("again"), Vec::<String>::new());
}

#[tokio::test]
async fn a_schema_of_a_newer_trackd_is_refused() {
    let database = Server::shared().database().await;
    let mut client = database.client().await;
    migrate(&mut client).await.expect("migrated");
    let newer = "INSERT INTO trackd.schema_history SELECT 99, 'later', applied_on, '1' FROM trackd.schema_history";
    client.batch_execute(newer).await.expect("pretend");
    let error = migrate(&mut client).await.expect_err("refused");
    assert_eq!(error.to_string(), "migrate schema trackd: the database is at version V99__later, this program knows 1");
    assert_eq!(error.class(), trackd::class::Class::Standing);
    assert!(error.hint().is_some_and(|hint| hint.contains("newer trackd")));
}

#[tokio::test]
async fn a_schema_of_another_build_is_refused() {
    let database = Server::shared().database().await;
    let mut client = database.client().await;
    migrate(&mut client).await.expect("migrated");
    client.batch_execute("UPDATE trackd.schema_history SET checksum = '1'").await.expect("pretend");
    let error = migrate(&mut client).await.expect_err("refused");
    assert!(error.to_string().contains("differs from this program's V1__ledger"), "{error}");
}
