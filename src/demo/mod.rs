//! The demo: a small Alpha Arena inside trackd, and the configuration that follows it.
//!
//! ```text
//!  seed --> Arena (models trade, chat) --> serve: /leaderboard /trades /conversations … <-- polled by the daemon
//! ```
//!
//! In: a seed and a listener. Out: an API like the real one. Must not know: the daemon, the store, the cli.

mod analytics;
mod arena;
mod chance;
mod market;
mod model;
mod server;
mod tally;
mod wire;
mod words;

pub use arena::Arena;
pub use server::serve;

use std::path::Path;

/// The configuration that follows the arena at `arena_url` every few seconds.
///
/// `listen` is the status page's address, "" for none; the embedded database lives in `state_dir`.
pub fn config_text(arena_url: &str, listen: &str, state_dir: &Path) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    include_str!("demo.toml")
        .replace("\"@arena@\"", &quoted(arena_url))
        .replace("\"@listen@\"", &quoted(listen))
        .replace("\"@state_dir@\"", &quoted(&state_dir.to_string_lossy()))
}

/// Queries worth trying while the demo runs: what it tells, and the SQL.
pub const QUERIES: [(&str, &str); 3] = [
    (
        "the leaderboard now, and what the last minute did to it",
        "SELECT l.rank, l.model_id AS model, l.equity, l.return_pct, b.rank - l.rank AS places_won, \
         l.equity - b.equity AS won\n\
         FROM leaderboard_snapshots l\n\
         LEFT JOIN LATERAL (SELECT rank, equity FROM leaderboard_snapshots p\n  \
           WHERE p.season = l.season AND p.model_id = l.model_id AND p.taken_at <= l.taken_at - interval '1 minute'\n  \
           ORDER BY p.taken_at DESC LIMIT 1) b ON true\n\
         WHERE l.taken_at = (SELECT max(taken_at) FROM leaderboard_snapshots)\n\
         ORDER BY l.rank;",
    ),
    (
        "who trades well: win rate, best and worst trade of each model",
        "SELECT model_id AS model, count(*) AS trades,\n  \
           round(100.0 * count(*) FILTER (WHERE realized_net_pnl > 0) / count(*), 1) AS win_pct,\n  \
           round(sum(realized_net_pnl), 2) AS net, round(sum(realized_gross_pnl - realized_net_pnl), 2) AS fees,\n  \
           round(max(realized_net_pnl), 2) AS best, round(min(realized_net_pnl), 2) AS worst,\n  \
           avg(exit_at - entry_at)::interval(0) AS held\n\
         FROM trades GROUP BY model_id ORDER BY net DESC;",
    ),
    (
        "does confidence pay: what models said when they entered, and what came of it",
        "SELECT round(d.confidence, 1) AS confidence, count(*) AS trades,\n  \
           round(100.0 * count(*) FILTER (WHERE t.realized_net_pnl > 0) / count(*), 1) AS win_pct,\n  \
           round(avg(t.realized_net_pnl), 2) AS average_net\n\
         FROM chat_decisions d JOIN model_chats c USING (chat_id)\n\
         JOIN trades t ON t.model_id = c.model_id AND t.symbol = d.symbol\n  \
           AND t.entry_at BETWEEN c.at - interval '1 second' AND c.at + interval '15 seconds'\n\
         WHERE d.signal IN ('buy_to_enter', 'sell_to_enter')\n\
         GROUP BY 1 ORDER BY 1;",
    ),
];
