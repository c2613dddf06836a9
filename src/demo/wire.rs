//! The arena as the API shows it: the real one's fields, under the real one's names.
//!
//! Source: recorded responses of nof1.ai, October 2025. Must not know: HTTP.

use super::analytics;
use super::arena::{Arena, Chat};
use super::market::{COINS, Market, rounded};
use super::model::{Decision, Model, START, Signal, Trade};
use super::words;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

impl Arena {
    /// The body of an endpoint: "leaderboard", "trades", …; `None` where the API has none of that name.
    pub fn body(&self, endpoint: &str) -> Option<Value> {
        Some(match endpoint {
            "leaderboard" => {
                json!({ "leaderboard": self.models.iter().map(|model| self.standing(model)).collect::<Vec<_>>() })
            }
            "trades" => {
                json!({ "trades": self.trades.iter().map(trade).collect::<Vec<_>>(), "serverTime": self.millis() })
            }
            "conversations" => json!({ "conversations": self.chats.iter().map(chat).collect::<Vec<_>>() }),
            "crypto-prices" => json!({ "prices": self.prices(), "serverTime": self.millis() }),
            "since-inception-values" => json!({ "sinceInceptionValues": self.values(), "serverTime": self.millis() }),
            "analytics" => {
                let of = |model| analytics::of(model, self);
                json!({ "analytics": self.models.iter().map(of).collect::<Vec<_>>(), "serverTime": self.millis() })
            }
            _ => return None,
        })
    }

    fn millis(&self) -> i64 {
        self.now * 1000
    }

    fn standing(&self, model: &Model) -> Value {
        let (equity, record) = (model.equity(&self.market), &model.record);
        let spread = record.all.net.deviation();
        json!({
            "id": model.name,
            "num_trades": record.all.net.count,
            "sharpe": number(rounded(if spread > 0.0 { record.all.net.mean() / spread } else { 0.0 }, 3)),
            "win_dollars": number(rounded(record.winners.net.sum, 2)),
            "num_losses": record.losers.net.count,
            "lose_dollars": number(rounded(record.losers.net.sum, 2)),
            "return_pct": number(rounded(100.0 * (equity / START - 1.0), 2)),
            "equity": number(rounded(equity, 2)),
            "num_wins": record.winners.net.count,
        })
    }

    fn prices(&self) -> Value {
        let price = |(coin, symbol): (usize, &&str)| {
            let quote =
                json!({ "symbol": symbol, "price": number(self.market.price(coin)), "timestamp": self.millis() });
            ((*symbol).to_owned(), quote)
        };
        Value::Object(COINS.iter().enumerate().map(price).collect())
    }

    fn values(&self) -> Vec<Value> {
        let value = |name: &str, id: uuid::Uuid, value: f64, invocations: u64| {
            json!({
                "id": id.to_string(),
                "nav_since_inception": number(rounded(value, 2)),
                "inception_date": number(self.inception as f64 + 0.834_185),
                "num_invocations": invocations,
                "model_id": name,
            })
        };
        // Who bought bitcoin at the start and held it.
        let hodl = START * self.market.price(0) / Market::home(0);
        let models = self.models.iter();
        let models = models.map(|model| value(model.name, model.account, model.equity(&self.market), model.cycle));
        models.chain([value("buynhold_btc", self.hodl, hodl, 0)]).collect()
    }
}

fn trade(trade: &Trade) -> Value {
    let held = &trade.position;
    let side = if held.side > 0.0 { "long" } else { "short" };
    json!({
        "id": trade.id,
        "trade_id": format!("{:.3}_{}_{:.3}_{}", held.entry_time, COINS[trade.coin], trade.exit_time, trade.model),
        "model_id": trade.model,
        "symbol": COINS[trade.coin],
        "side": side,
        "trade_type": side,
        // Shorts are negative in quantity and positive in size.
        "quantity": number(held.side * held.quantity),
        "entry_sz": number(held.quantity),
        "exit_sz": number(held.quantity),
        "leverage": held.leverage,
        "confidence": number(held.confidence),
        "entry_price": number(held.entry_price),
        "exit_price": number(trade.exit_price),
        "entry_time": number(held.entry_time),
        "exit_time": number(trade.exit_time),
        "entry_human_time": human(held.entry_time),
        "exit_human_time": human(trade.exit_time),
        "entry_commission_dollars": number(held.entry_fee),
        "exit_commission_dollars": number(trade.exit_fee),
        "total_commission_dollars": number(rounded(held.entry_fee + trade.exit_fee, 6)),
        "entry_closed_pnl": number(-held.entry_fee),
        "exit_closed_pnl": number(rounded(trade.gross - trade.exit_fee, 6)),
        "realized_gross_pnl": number(trade.gross),
        "realized_net_pnl": number(rounded(trade.net(), 6)),
        "entry_tid": held.entry_tid,
        "exit_tid": trade.exit_tid,
        "entry_oid": held.entry_oid,
        "exit_oid": trade.exit_oid,
        "entry_crossed": true,
        "exit_crossed": !trade.exit_tid.is_multiple_of(4),
        "entry_liquidation": null,
        "exit_liquidation": null,
        "exit_plan": {},
    })
}

fn chat(chat: &Chat) -> Value {
    let answer = match &chat.answer {
        Ok(decisions) => Value::Object(decisions.iter().map(decision).collect::<Map<_, _>>()),
        Err(raw) => json!({ "failed_json_response_raw_text": raw }),
    };
    json!({
        "id": chat.id,
        "model_id": chat.model,
        "run_id": "20251022131211",
        "skill": "swing_trading",
        "cycle_id": chat.cycle,
        "timestamp": number(chat.at),
        "inserted_at": number(rounded(chat.at + 0.25, 3)),
        "user_prompt": chat.prompt,
        "cot_trace": if chat.structured { answer.clone() } else { Value::String(chat.thoughts.clone()) },
        "cot_trace_summary": chat.summary,
        "llm_response": answer,
    })
}

fn decision(decision: &Decision) -> (String, Value) {
    let (symbol, plan) = (COINS[decision.coin], &decision.position);
    let signal = match decision.signal {
        Signal::Hold => "hold",
        Signal::Buy => "buy_to_enter",
        Signal::Sell => "sell_to_enter",
        Signal::Close => "close_position",
    };
    let side = if plan.side > 0.0 { "below" } else { "above" };
    let value = json!({
        "coin": symbol,
        "signal": signal,
        "quantity": number(plan.quantity),
        "leverage": plan.leverage,
        "confidence": number(plan.confidence),
        "profit_target": number(plan.target),
        "stop_loss": number(plan.stop),
        "risk_usd": number(plan.risk_usd),
        "invalidation_condition": format!("If the price closes {side} {} on a 3-minute candle", plan.stop),
        "justification": words::justification(decision),
    });
    (symbol.to_owned(), value)
}

/// As JavaScript writes numbers: no ".0".
pub(super) fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { json!(value as i64) } else { json!(value) }
}

fn human(seconds: f64) -> String {
    let at = Timestamp::from_millisecond((seconds * 1000.0).round() as i64).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}
