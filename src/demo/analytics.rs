//! The analytics of a model, as the API shows them.
//!
//! Source: recorded responses of nof1.ai, October 2025. Must not know: HTTP.

use super::arena::Arena;
use super::model::{Model, Record, Signal};
use super::tally::Tally;
use super::wire::number;
use serde_json::{Value, json};

/// One element of `.analytics`.
pub(super) fn of(model: &Model, arena: &Arena) -> Value {
    let record = &model.record;
    let last = |of: &Option<(String, f64)>| of.clone().unwrap_or_default();
    let ((chat, chat_at), (trade, trade_at)) = (last(&record.last_chat), last(&record.last_trade));
    json!({
        "id": model.name,
        "model_id": model.name,
        "updated_at": number(chat_at),
        "last_convo_doc_id": chat,
        "last_convo_timestamp": number(chat_at),
        "last_trade_doc_id": trade,
        "last_trade_exit_time": number(trade_at),
        "fee_pnl_moves_breakdown_table": fees(record),
        "winners_losers_breakdown_table": winners(record),
        "signals_breakdown_table": signals(record),
        "invocation_breakdown_table": invocations(model),
        "longs_shorts_breakdown_table": sides(record),
        "overall_trades_overview_table": overview(model, arena),
    })
}

fn fees(record: &Record) -> Value {
    let net = &record.all.net;
    json!({
        "avg_gross_pnl": number(record.gross.mean()),
        "avg_net_pnl": number(net.mean()),
        "avg_taker_fee": number(record.fees.mean()),
        "biggest_net_gain": number(net.most),
        "biggest_net_loss": number(net.least),
        "overall_pnl_with_fees": number(net.sum),
        "overall_pnl_without_fees": number(record.gross.sum),
        "std_gross_pnl": number(record.gross.deviation()),
        "std_net_pnl": number(net.deviation()),
        "std_taker_fee": number(record.fees.deviation()),
        "total_fees_as_pct_of_pnl": number(if net.sum > 0.0 { 100.0 * record.fees.sum / net.sum } else { 0.0 }),
        "total_fees_paid": number(record.fees.sum),
    })
}

fn winners(record: &Record) -> Value {
    let (winners, losers) = (&record.winners, &record.losers);
    json!({
        "avg_losers_holding_period": number(losers.minutes.mean()),
        "avg_losers_net_pnl": number(losers.net.mean()),
        "avg_losers_notional": number(losers.notional.mean()),
        "avg_winners_holding_period": number(winners.minutes.mean()),
        "avg_winners_net_pnl": number(winners.net.mean()),
        "avg_winners_notional": number(winners.notional.mean()),
        "std_losers_holding_period": number(losers.minutes.deviation()),
        "std_losers_net_pnl": number(losers.net.deviation()),
        "std_losers_notional": number(losers.notional.deviation()),
        "std_winners_holding_period": number(winners.minutes.deviation()),
        "std_winners_net_pnl": number(winners.net.deviation()),
        "std_winners_notional": number(winners.notional.deviation()),
        "win_rate": number(percent(winners.net.count as f64, record.all.net.count as f64)),
    })
}

fn signals(record: &Record) -> Value {
    let of = |signal: Signal| &record.confidence[signal as usize];
    let (hold, buy, sell, close) = (of(Signal::Hold), of(Signal::Buy), of(Signal::Sell), of(Signal::Close));
    let [long, short] = &record.leverage;
    let count: u64 = record.confidence.iter().map(|tally| tally.count).sum();
    let share = |tally: &Tally| number(percent(tally.count as f64, count as f64));
    let [flat, longs, shorts] = record.minutes;
    let minutes = |part: f64| number(percent(part, flat + longs + shorts));
    let confidence = weighted(&record.confidence);
    let leverage = weighted(&record.leverage);
    json!({
        "avg_confidence": number(confidence.0),
        "avg_confidence_close": number(close.mean()),
        "avg_confidence_hold": number(hold.mean()),
        "avg_confidence_long": number(buy.mean()),
        "avg_confidence_short": number(sell.mean()),
        "avg_leverage": number(leverage.0),
        "avg_leverage_long": number(long.mean()),
        "avg_leverage_short": number(short.mean()),
        "close_signal_pct": share(close),
        "hold_signal_pct": share(hold),
        "long_short_ratio": number(ratio(buy.count, sell.count)),
        "long_signal_pct": share(buy),
        "median_confidence": number(confidence.0),
        "median_leverage": number(leverage.0),
        "mins_flat_combined": number(flat),
        "mins_long_combined": number(longs),
        "mins_short_combined": number(shorts),
        "num_close_signals": close.count,
        "num_hold_signals": hold.count,
        "num_long_signals": buy.count,
        "num_short_signals": sell.count,
        "pct_mins_flat_combined": minutes(flat),
        "pct_mins_long_combined": minutes(longs),
        "pct_mins_short_combined": minutes(shorts),
        "short_signal_pct": share(sell),
        "std_confidence": number(confidence.1),
        "std_confidence_close": number(close.deviation()),
        "std_confidence_hold": number(hold.deviation()),
        "std_confidence_long": number(buy.deviation()),
        "std_confidence_short": number(sell.deviation()),
        "std_leverage": number(leverage.1),
        "std_leverage_long": number(long.deviation()),
        "std_leverage_short": number(short.deviation()),
        "total_signals": count,
    })
}

fn invocations(model: &Model) -> Value {
    let gaps = &model.record.gaps;
    json!({
        "avg_invocation_break_mins": number(gaps.mean()),
        "max_invocation_break_mins": number(gaps.most),
        "min_invocation_break_mins": number(gaps.least),
        "num_invocations": model.cycle,
        "std_invocation_break_mins": number(gaps.deviation()),
    })
}

fn sides(record: &Record) -> Value {
    let (longs, shorts) = (&record.longs, &record.shorts);
    json!({
        "avg_longs_holding_period": number(longs.minutes.mean()),
        "avg_longs_net_pnl": number(longs.net.mean()),
        "avg_longs_notional": number(longs.notional.mean()),
        "avg_shorts_holding_period": number(shorts.minutes.mean()),
        "avg_shorts_net_pnl": number(shorts.net.mean()),
        "avg_shorts_notional": number(shorts.notional.mean()),
        "long_short_trades_ratio": number(percent(longs.net.count as f64, record.all.net.count as f64) / 100.0),
        "num_long_trades": longs.net.count,
        "num_short_trades": shorts.net.count,
        "std_longs_holding_period": number(longs.minutes.deviation()),
        "std_longs_net_pnl": number(longs.net.deviation()),
        "std_longs_notional": number(longs.notional.deviation()),
        "std_shorts_holding_period": number(shorts.minutes.deviation()),
        "std_shorts_net_pnl": number(shorts.net.deviation()),
        "std_shorts_notional": number(shorts.notional.deviation()),
    })
}

fn overview(model: &Model, arena: &Arena) -> Value {
    let (all, leverage) = (&model.record.all, weighted(&model.record.leverage));
    let shown = || arena.trades.iter().filter(|trade| trade.model == model.name);
    json!({
        "avg_convo_leverage": number(leverage.0),
        "avg_holding_period_mins": number(all.minutes.mean()),
        "avg_size_of_trade_notional": number(all.notional.mean()),
        "avg_size_of_trade_portfolio_pct": 0,
        "avg_stop_loss_distance_pct": 0,
        "avg_take_profit_distance_pct": 0,
        "median_convo_leverage": number(leverage.0),
        "median_holding_period_mins": number(median(shown().map(|trade| trade.minutes()).collect())),
        "median_size_of_trade_notional": number(median(shown().map(|trade| trade.notional()).collect())),
        "std_holding_period_mins": number(all.minutes.deviation()),
        "std_size_of_trade_notional": number(all.notional.deviation()),
        "std_size_of_trade_portfolio_pct": 0,
        "total_trades": all.net.count,
    })
}

/// Mean and deviation over several tallies, each weighing as much as it counted.
fn weighted(tallies: &[Tally]) -> (f64, f64) {
    let count: f64 = tallies.iter().map(|tally| tally.count as f64).sum();
    let over = |of: fn(&Tally) -> f64| tallies.iter().map(|tally| of(tally) * tally.count as f64).sum::<f64>();
    if count == 0.0 { (0.0, 0.0) } else { (over(Tally::mean) / count, over(Tally::deviation) / count) }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { 100.0 * part / whole }
}

fn ratio(one: u64, other: u64) -> f64 {
    if other == 0 { 0.0 } else { one as f64 / other as f64 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
