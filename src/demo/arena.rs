//! The arena: six models that trade six coins, from a seed.
//!
//! ```text
//!  seed, start --> Arena --advance(to)--> one second after another: market, stops, every 4 s one model's turn
//! ```
//!
//! Pure: no clock, no tokio; the same seed and start give the same arena at the same time, however it got there.
//! Must not know: the wire, HTTP.

use super::chance::Chance;
use super::market::Market;
use super::model::{Decision, Model, Trade};
use super::words;
use jiff::{Timestamp, ToSpan};
use std::collections::VecDeque;

/// What the API shows of closed trades.
pub(super) const TRADES_SHOWN: usize = 230;
/// What the API shows of chats.
pub(super) const CHATS_SHOWN: usize = 100;
/// Seconds from one model's turn to the next one's.
const TURN: i64 = 4;
/// Seconds the arena has been running when a visitor first sees it.
const BEFORE: i64 = 2 * 3600;
/// Name, and how much of the market it sees.
const MODELS: [(&str, f64); 6] = [
    ("qwen3-max", 0.30),
    ("deepseek-chat-v3.1", 0.26),
    ("claude-sonnet-4-5", 0.22),
    ("grok-4", 0.18),
    ("gemini-2.5-pro", 0.08),
    ("gpt-5", 0.10),
];

/// One answer of a model.
#[derive(Debug, Clone)]
pub(super) struct Chat {
    pub(super) id: String,
    pub(super) model: &'static str,
    /// Seconds since the epoch.
    pub(super) at: f64,
    pub(super) cycle: u64,
    pub(super) prompt: String,
    pub(super) summary: String,
    pub(super) thoughts: String,
    /// Some models give their thoughts as the answer once more.
    pub(super) structured: bool,
    /// Err is an answer that was not JSON, as it came.
    pub(super) answer: Result<Vec<Decision>, String>,
}

/// The whole arena at one second.
#[derive(Debug, Clone)]
pub struct Arena {
    chance: Chance,
    /// Seconds since the epoch.
    pub(super) inception: i64,
    pub(super) now: i64,
    pub(super) market: Market,
    pub(super) models: Vec<Model>,
    /// Newest first.
    pub(super) trades: VecDeque<Trade>,
    /// Newest first.
    pub(super) chats: VecDeque<Chat>,
    pub(super) hodl: uuid::Uuid,
}

impl Arena {
    /// The arena as it is at `start`, two hours after its inception.
    pub fn new(seed: u64, start: Timestamp) -> Arena {
        let inception = start.as_second() - BEFORE;
        // Another start is another season: its trades must not carry the ids of an earlier one.
        let mut chance = Chance::new(seed ^ (inception as u64).rotate_left(32));
        let models = MODELS.iter().map(|&(name, insight)| Model::new(name, insight, &mut chance)).collect();
        let hodl = chance.uuid();
        let mut arena = Arena {
            chance,
            inception,
            now: inception,
            market: Market::new(),
            models,
            trades: VecDeque::with_capacity(TRADES_SHOWN + 1),
            chats: VecDeque::with_capacity(CHATS_SHOWN + 1),
            hodl,
        };
        arena.advance(start);
        arena
    }

    /// Lets time pass up to `to`, to the second; a time already passed changes nothing.
    pub fn advance(&mut self, to: Timestamp) {
        while self.now < to.as_second() {
            self.now += 1;
            self.step();
        }
    }

    /// The second the arena is at.
    pub fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH.saturating_add(self.now.seconds()).unwrap_or(Timestamp::MAX)
    }

    fn step(&mut self) {
        self.market.step(&mut self.chance);
        let at = self.now as f64 + (self.chance.below(1000) as f64) / 1000.0 - 1.0;
        for model in &mut self.models {
            for trade in model.second(&self.market, at, &mut self.chance) {
                keep(&mut self.trades, trade, TRADES_SHOWN);
            }
        }
        let elapsed = self.now - self.inception;
        if elapsed % TURN == 0 {
            self.turn((elapsed / TURN) as usize % MODELS.len(), at);
        }
    }

    fn turn(&mut self, index: usize, at: f64) {
        let model = &mut self.models[index];
        let prompt = words::prompt(model, &self.market, self.now - self.inception);
        let (decisions, trades) = model.turn(&self.market, at, &mut self.chance);
        let thoughts = words::thoughts(&decisions, &self.market, &mut self.chance);
        let failed = self.chance.below(70) == 0;
        let chat = Chat {
            id: format!("{}_{at:.3}", model.name),
            model: model.name,
            at,
            cycle: model.cycle,
            prompt,
            summary: words::summary(&decisions, model.equity(&self.market), &mut self.chance),
            structured: matches!(model.name, "qwen3-max" | "grok-4"),
            answer: if failed { Err(thoughts.clone()) } else { Ok(decisions) },
            thoughts,
        };
        if let Some((_, before)) = model.record.last_chat.replace((chat.id.clone(), at)) {
            model.record.gaps.add((at - before) / 60.0);
        }
        keep(&mut self.chats, chat, CHATS_SHOWN);
        for trade in trades {
            keep(&mut self.trades, trade, TRADES_SHOWN);
        }
    }
}

/// Newest first, the oldest falls out.
fn keep<T>(window: &mut VecDeque<T>, newest: T, shown: usize) {
    window.push_front(newest);
    window.truncate(shown);
}
