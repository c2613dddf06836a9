//! Behaviour of what is stale, stands, or is away: shown, slowed down, and told.

use crate::support::daemon::{Home, PATIENCE, file_tracker, stderr, stdout};
use crate::support::faulty::{Answer, Faulty};
use crate::support::postgres::{Server, at_least, count, eventually};
use rustix::process::Signal;

const BODY: &str = r#"{"rows":[{"k":"a","v":1},{"k":"b","v":2}]}"#;
/// Not the documented shape: a fault that stands.
const RUBBISH: &str = r#"{"rows":7}"#;

const GAPS: &str = "SELECT count(*) FROM (SELECT scheduled_at - lag(scheduled_at) OVER (ORDER BY scheduled_at) AS d \
    FROM trackd.runs WHERE kind <> 'manual') AS x WHERE d <> interval '100 ms'";
const PASSED_OVER: &str = "SELECT count(*) FROM trackd.runs WHERE status = 'skipped' AND \
    error LIKE 'standing fault since %: tried at one in % instants'";

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_fault_slows_its_tracker_down_every_instant_has_its_row_and_a_success_heals_it() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "100ms"));
    home.put("a.json", RUBBISH);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, PASSED_OVER, 1 + 3 + 7 + 9 + 9).await;
    let failed = "SELECT count(*) FROM trackd.runs WHERE status = 'failed'";
    let tried = count(&client, failed).await;
    assert!((7..=9).contains(&tried), "tried at 1, 2, 3, 5, 9, 17, 27, 37: {tried} times");

    home.put("a.json", BODY);
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded'", 5).await;
    let since =
        "FROM trackd.runs WHERE scheduled_at > (SELECT min(scheduled_at) FROM trackd.runs WHERE status = 'succeeded')";
    assert_eq!(
        count(&client, &format!("SELECT count(*) {since} AND error LIKE 'standing fault%'")).await,
        0,
        "full pace"
    );
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(count(&client, GAPS).await, 0, "lost instants");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_a_run_by_hand_bring_the_full_pace_back() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &file_tracker("a", "100ms"));
    home.put("a.json", RUBBISH);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, PASSED_OVER, 1 + 3 + 7).await;
    daemon.signal(Signal::HUP);
    daemon.says("configuration reloaded", 1).await;
    // Tried at once and again: two more failures do not slow it down.
    let in_a_row = "SELECT count(*) FROM (SELECT status, lag(status) OVER w AS one, lag(status, 2) OVER w AS two FROM trackd.runs \
        WHERE kind <> 'manual' AND scheduled_at > (SELECT min(scheduled_at) FROM trackd.runs WHERE status = 'skipped') \
        WINDOW w AS (ORDER BY scheduled_at)) AS x WHERE status = 'failed' AND one = 'failed' AND two = 'failed'";
    at_least(&client, in_a_row, 1).await;

    // The file is mended, and found so by hand; the daemon hears of it from the ledger.
    at_least(&client, PASSED_OVER, 1 + 3 + 7 + 20).await;
    home.put("a.json", BODY);
    assert!(home.trackd(&["once", "a"]).status.success());
    at_least(&client, "SELECT count(*) FROM trackd.runs WHERE status = 'succeeded' AND kind <> 'manual'", 3).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert_eq!(count(&client, GAPS).await, 0, "lost instants");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_without_success_is_stale_in_the_status_until_it_succeeds() {
    let database = Server::shared().database().await;
    let tracker = file_tracker("a", "100ms").replace("every", "fresh_within = \"1s\"\nevery");
    let home = Home::new(&database, &tracker);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM trackd.runs", 1).await;
    let status = || stdout(&home.trackd(&["status", "--json"]));
    eventually("a stale tracker", PATIENCE, async || status().contains("\"stale\":true")).await;
    assert!(stdout(&home.trackd(&["status"])).contains(", stale\t"));
    daemon.signal(Signal::USR1);
    daemon.says("stale=1", 1).await;
    home.put("a.json", BODY);
    eventually("a fresh tracker", PATIENCE, async || status().contains("\"stale\":false")).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}

/// A tracker that must be fresh, and who is told at once that it is not.
fn watched(alert: &str) -> String {
    file_tracker("a", "100ms").replace("every", "fresh_within = \"1s\"\nevery")
        + &format!("[alert]\nafter = \"0s\"\n{alert}\n")
}

/// The bodies of a webhook's requests.
fn bodies(server: &Faulty) -> Vec<serde_json::Value> {
    let body = |request: &String| serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    server.requests().iter().map(body).collect()
}

/// Kind and state of each notice, in the order of the requests.
fn told(server: &Faulty) -> Vec<(String, String)> {
    let word = |notice: &serde_json::Value, key: &str| notice[key].as_str().unwrap().to_owned();
    let notices = bodies(server).into_iter().flat_map(|body| body["alerts"].as_array().unwrap().clone());
    notices.map(|notice| (word(&notice, "kind"), word(&notice, "state"))).collect()
}

fn pair(kind: &str, state: &str) -> (String, String) {
    (kind.to_owned(), state.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_of_a_stale_tracker_and_of_its_recovery_once_and_no_secret_is_logged() {
    let server = Faulty::start([Answer::new(503, &[], "later"), Answer::ok("")]).await;
    let database = Server::shared().database().await;
    let alert = format!(
        "webhook = {{ url = \"{}\", token_file = \"token\", headers = {{ x-team = \"{{{{ vars.team }}}}\" }} }}\n[vars]\nteam = \"m4rked-team\"",
        server.url("/hook/m4rked-path?key=m4rked-key")
    );
    let mut home = Home::new(&database, &watched(&alert));
    home.set("TRACKD_LOG__LEVEL", "debug");
    home.put("token", "m4rked-token\n");
    let mut daemon = home.run();
    eventually("an alert", PATIENCE, async || told(&server).contains(&pair("stale", "firing"))).await;
    daemon.says("status 503, expected 2xx", 1).await;
    eventually("its delivery", PATIENCE, async || home.path("state/alerts.json").exists()).await;
    home.put("a.json", BODY);
    eventually("its end", PATIENCE, async || told(&server).contains(&pair("stale", "resolved"))).await;
    // The first one was not taken, and came again.
    let stale: Vec<_> = told(&server).into_iter().filter(|(kind, _)| kind == "stale").collect();
    assert_eq!(stale, [pair("stale", "firing"), pair("stale", "firing"), pair("stale", "resolved")]);

    let request = server.requests()[0].clone();
    for expected in
        ["POST /hook/m4rked-path?key=m4rked-key", "authorization: Bearer m4rked-token", "x-team: m4rked-team"]
    {
        assert!(request.contains(expected), "{request}");
    }
    let body = &bodies(&server)[0];
    assert_eq!((body["alerts"][0]["tracker"].as_str(), body["state"].as_str()), (Some("a"), Some("firing")));
    assert!(body["text"].as_str().unwrap().contains("a is stale: no success so far"), "{body}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("m4rked"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_alert_and_nothing_of_the_services_own_environment() {
    let database = Server::shared().database().await;
    // Written whole: a half of it must not be read.
    let script = "{ printf '%s|%s|%s|%s|' \"$TRACKD_ALERT_KIND\" \"$TRACKD_ALERT_STATE\" \"$TRACKD_ALERT_TRACKER\" \
                  \"$TRACKD_VARS__TOKEN\"; cat; } > told.$$ && mv told.$$ \"told.$TRACKD_ALERT_KIND.$TRACKD_ALERT_STATE\"";
    let tracker = file_tracker("a", "100ms");
    let alert = format!("{tracker}[alert]\nafter = \"0s\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n");
    let mut home = Home::new(&database, &alert);
    home.set("TRACKD_VARS__TOKEN", "m4rked");
    home.put("a.json", RUBBISH);
    let mut daemon = home.run();
    let read = |name: &str| std::fs::read_to_string(home.path(name)).unwrap_or_default();
    eventually("an alert", PATIENCE, async || !read("told.standing.firing").is_empty()).await;
    let told = read("told.standing.firing");
    let (words, json) = told.split_once('{').unwrap();
    assert_eq!(words, "standing|firing|a||", "no variable of the service");
    let json: serde_json::Value = serde_json::from_str(&format!("{{{json}")).unwrap();
    let text = json["alerts"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("a fails until somebody changes something: ") && text.contains("rows"), "{text}");
    eventually("its delivery", PATIENCE, async || home.path("state/alerts.json").exists()).await;
    home.put("a.json", BODY);
    eventually("its end", PATIENCE, async || !read("told.standing.resolved").is_empty()).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_a_command_that_hang_hold_up_nothing_and_leave_nothing_behind() {
    let server = Faulty::start([Answer::Silence]).await;
    let database = Server::shared().database().await;
    let script = "echo $$ > pid.new && mv pid.new pid; sleep 1000 & sleep 1000";
    let alert =
        format!("timeout = \"1s\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nwebhook = \"{}\"", server.url("/"));
    let trackers = file_tracker("b", "100ms") + &watched(&alert);
    let home = Home::new(&database, &trackers);
    home.put("b.json", BODY);
    let mut daemon = home.run();
    let client = database.client().await;
    daemon.says("not delivered within 1s", 2).await;
    let before = count(&client, "SELECT count(*) FROM b").await;
    at_least(&client, "SELECT count(*) FROM b", before + 20).await;
    daemon.says("not delivered within 1s", 4).await;
    let group = std::fs::read_to_string(home.path("pid")).unwrap();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
    let gaps = GAPS.replace("kind <> 'manual'", "tracker = 'b'");
    assert_eq!(count(&client, &gaps).await, 0, "lost instants");
    let group = rustix::process::Pid::from_raw(group.trim().parse().unwrap()).unwrap();
    eventually("the end of the command and its child", PATIENCE, async || {
        rustix::process::test_kill_process_group(group).is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_told_with_what_it_said_and_a_reload_names_another() {
    let database = Server::shared().database().await;
    let home = Home::new(&database, &watched("command = [\"sh\", \"-c\", \"echo no modem >&2; exit 3\"]"));
    let mut daemon = home.run();
    daemon.says("sh: exit status: 3: no modem", 1).await;
    home.configure(&watched("command = [\"/nowhere/page\"]"));
    let check = home.trackd(&["check"]);
    assert_eq!(check.status.code(), Some(78), "{}", stderr(&check));
    assert!(stderr(&check).contains("`alert.command`: /nowhere/page: No such file"), "{}", stderr(&check));

    let server = Faulty::start([Answer::ok("")]).await;
    home.configure(&watched(&format!("webhook = \"{}\"", server.url("/m4rked"))));
    assert_eq!(home.trackd(&["check"]).status.code(), Some(0));
    daemon.signal(Signal::HUP);
    daemon.says("[alert] is another", 1).await;
    eventually("an alert", PATIENCE, async || told(&server).contains(&pair("stale", "firing"))).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_and_back_is_told() {
    let server = Faulty::start([Answer::ok("")]).await;
    let own = Server::own();
    let database = own.database().await;
    let tracker = file_tracker("a", "100ms");
    let home = Home::new(&database, &format!("{tracker}[alert]\nafter = \"1s\"\nwebhook = \"{}\"\n", server.url("/")));
    home.put("a.json", BODY);
    let mut daemon = home.run();
    let client = database.client().await;
    at_least(&client, "SELECT count(*) FROM a", 3).await;
    own.stop();
    eventually("an alert", PATIENCE, async || told(&server) == [pair("database", "firing")]).await;
    own.start();
    let both = [pair("database", "firing"), pair("database", "resolved")];
    eventually("its end", PATIENCE, async || told(&server) == both).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().await, Some(0), "{}", daemon.log());
}
