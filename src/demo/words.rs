//! What models are told and what they say.
//!
//! Must not know: the wire.

use super::chance::Chance;
use super::market::{COINS, Market};
use super::model::{Decision, Model, Signal};
use std::fmt::Write as _;

/// The prompt of a turn, in the manner of the arena's.
pub(super) fn prompt(model: &Model, market: &Market, seconds: i64) -> String {
    let mut text = format!(
        "It has been {} minutes since you started trading and you've been invoked {} times. Below, we are providing \
         you with a variety of state data, price data, and predictive signals so you can discover alpha.\n\n",
        seconds / 60,
        model.cycle
    );
    for (coin, symbol) in COINS.iter().enumerate() {
        let _ = writeln!(text, "current_{symbol} = {}", market.price(coin));
    }
    let _ = write!(text, "\nAvailable Cash: {:.2}\n\nCurrent Account Value: {:.2}", model.cash, model.equity(market));
    text
}

/// The chain of thought behind decisions.
pub(super) fn thoughts(decisions: &[Decision], market: &Market, chance: &mut Chance) -> String {
    let mut text = "First, I need to check my existing positions and their exit plans.\n".to_owned();
    for decision in decisions {
        let (symbol, held) = (COINS[decision.coin], &decision.position);
        let price = market.price(decision.coin);
        let side = if held.side > 0.0 { "long" } else { "short" };
        let _ = match decision.signal {
            Signal::Hold => write!(
                text,
                "\n- {symbol}: {side} from {}, now {price}. Target {}, stop {}. Nothing is invalidated, so hold.",
                held.entry_price, held.target, held.stop
            ),
            Signal::Close => {
                write!(text, "\n- {symbol}: {side} from {}, now {price}. The thesis is spent: close.", held.entry_price)
            }
            Signal::Buy | Signal::Sell => {
                write!(text, "\n- {symbol}: flat, {}. I go {side} at {price}.", reason(chance))
            }
        };
    }
    if decisions.is_empty() {
        text.push_str("\nI hold nothing, and no coin shows a setup worth the fees. I stay flat.");
    }
    text
}

/// Two sentences for the page.
pub(super) fn summary(decisions: &[Decision], equity: f64, chance: &mut Chance) -> String {
    let of = |signals: &[Signal]| {
        let coins = decisions.iter().filter(|decision| signals.contains(&decision.signal));
        coins.map(|decision| COINS[decision.coin]).collect::<Vec<_>>().join(", ")
    };
    let (entered, closed, held) = (of(&[Signal::Buy, Signal::Sell]), of(&[Signal::Close]), of(&[Signal::Hold]));
    let did = match (entered.is_empty(), closed.is_empty(), held.is_empty()) {
        (false, ..) => format!("I just entered {entered} because of {}.", reason(chance)),
        (_, false, _) => format!("I closed {closed}: the move I was waiting for is behind us."),
        (.., false) => format!("I'm holding {held} with my stops in place."),
        _ => "I'm in cash and waiting for a clean setup.".to_owned(),
    };
    format!("{did} My account stands at ${equity:.2}.")
}

/// Why a position is entered or closed; nothing for a hold, as in the arena.
pub(super) fn justification(decision: &Decision) -> String {
    let symbol = COINS[decision.coin];
    match decision.signal {
        Signal::Hold => String::new(),
        Signal::Close => format!("{symbol} has lost its momentum; I close to protect what is there."),
        Signal::Buy => format!("{symbol} shows momentum above its 20-period EMA with a turning MACD."),
        Signal::Sell => format!("{symbol} is rejected below its 20-period EMA and momentum turns down."),
    }
}

fn reason(chance: &mut Chance) -> &'static str {
    chance.pick(&[
        "a strong RSI and a MACD about to cross",
        "a pullback that held the 50-period EMA",
        "rising open interest with negative funding",
        "a break of the range on volume",
        "a failed breakout that trapped late buyers",
    ])
}
