//! The examples do what they say, on a real server.

use crate::support::postgres::Server;

#[expect(dead_code, reason = "its main function")]
#[path = "../../examples/bulk.rs"]
mod bulk;
#[expect(dead_code, reason = "its main function")]
#[path = "../../examples/events.rs"]
mod events;
#[expect(dead_code, reason = "its main function")]
#[path = "../../examples/transaction.rs"]
mod transaction;

#[tokio::test]
async fn transfers_stop_when_nothing_is_left_to_move() {
    let database = Server::shared().database().await;
    assert_eq!(transaction::run(&database.url()).await.unwrap(), 10);
}

#[tokio::test]
async fn rows_go_in_and_come_out() {
    let database = Server::shared().database().await;
    assert_eq!(bulk::run(&database.url()).await.unwrap(), (100_000, 4_999_950_000, 588_890));
}

#[tokio::test]
async fn a_listener_sees_what_the_pool_counts() {
    let database = Server::shared().database().await;
    let (statistics, borrowed) = events::run(&database.url()).await.unwrap();
    assert_eq!((statistics.lent, statistics.returned, borrowed), (11, 11, 11));
    assert_eq!(statistics.connected, statistics.overflow + statistics.reset + statistics.recycled);
}
