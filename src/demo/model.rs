//! A model: its account, its open positions, its record.
//!
//! Pure: market and chance come in. Must not know: the wire.

use super::chance::Chance;
use super::market::{COINS, Market, rounded};
use super::tally::Tally;

/// What each account begins with, in dollars.
pub(super) const START: f64 = 10_000.0;
/// The exchange's fee for a taker, of the notional.
const FEE: f64 = 0.000_45;
const POSITIONS: usize = 3;
/// The strength of a signal that is worth a position.
const ENTER: f64 = 1.0;

/// A position held.
#[derive(Debug, Clone)]
pub(super) struct Position {
    /// 1 long, -1 short.
    pub(super) side: f64,
    pub(super) quantity: f64,
    pub(super) entry_price: f64,
    /// Seconds since the epoch, with milliseconds.
    pub(super) entry_time: f64,
    pub(super) entry_fee: f64,
    pub(super) entry_tid: u64,
    pub(super) entry_oid: u64,
    pub(super) leverage: u64,
    pub(super) confidence: f64,
    pub(super) target: f64,
    pub(super) stop: f64,
    pub(super) risk_usd: f64,
    /// When the model loses its patience.
    until: f64,
}

/// A position closed.
#[derive(Debug, Clone)]
pub(super) struct Trade {
    pub(super) id: String,
    pub(super) model: &'static str,
    pub(super) coin: usize,
    pub(super) position: Position,
    pub(super) exit_price: f64,
    pub(super) exit_time: f64,
    pub(super) exit_fee: f64,
    pub(super) exit_tid: u64,
    pub(super) exit_oid: u64,
    pub(super) gross: f64,
}

impl Trade {
    pub(super) fn net(&self) -> f64 {
        self.gross - self.position.entry_fee - self.exit_fee
    }

    pub(super) fn notional(&self) -> f64 {
        self.position.quantity * self.position.entry_price
    }

    pub(super) fn minutes(&self) -> f64 {
        (self.exit_time - self.position.entry_time) / 60.0
    }
}

/// What a model says about one coin.
#[derive(Debug, Clone)]
pub(super) struct Decision {
    pub(super) coin: usize,
    pub(super) signal: Signal,
    pub(super) position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Hold,
    Buy,
    Sell,
    Close,
}

/// Results of a kind of trades.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    pub(super) net: Tally,
    pub(super) notional: Tally,
    pub(super) minutes: Tally,
}

/// A model's record since its inception.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) all: Group,
    pub(super) winners: Group,
    pub(super) losers: Group,
    pub(super) longs: Group,
    pub(super) shorts: Group,
    pub(super) gross: Tally,
    pub(super) fees: Tally,
    /// Confidence by signal: hold, buy, sell, close.
    pub(super) confidence: [Tally; 4],
    /// Leverage of longs and shorts.
    pub(super) leverage: [Tally; 2],
    /// Coin-minutes flat, long and short.
    pub(super) minutes: [f64; 3],
    pub(super) gaps: Tally,
    pub(super) last_chat: Option<(String, f64)>,
    pub(super) last_trade: Option<(String, f64)>,
}

/// One of the six.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) name: &'static str,
    /// How much of its signal is the trend and not imagination, 0 to 1.
    insight: f64,
    pub(super) account: uuid::Uuid,
    pub(super) cash: f64,
    pub(super) positions: [Option<Position>; 6],
    pub(super) record: Record,
    pub(super) cycle: u64,
}

impl Model {
    pub(super) fn new(name: &'static str, insight: f64, chance: &mut Chance) -> Model {
        Model {
            name,
            insight,
            account: chance.uuid(),
            cash: START,
            positions: Default::default(),
            record: Record::default(),
            cycle: 0,
        }
    }

    /// Cash and what open positions would bring now.
    pub(super) fn equity(&self, market: &Market) -> f64 {
        let open = self.positions.iter().enumerate();
        let open = open.filter_map(|(coin, position)| Some((coin, position.as_ref()?)));
        self.cash + open.map(|(coin, held)| held.gross(market.price(coin))).sum::<f64>()
    }

    /// A second passes: targets and stops are watched by the exchange.
    pub(super) fn second(&mut self, market: &Market, at: f64, chance: &mut Chance) -> Vec<Trade> {
        let mut closed = Vec::new();
        for coin in 0..COINS.len() {
            let Some(held) = &self.positions[coin] else {
                self.record.minutes[0] += 1.0 / 60.0;
                continue;
            };
            self.record.minutes[if held.side > 0.0 { 1 } else { 2 }] += 1.0 / 60.0;
            let price = market.price(coin);
            if (price - held.target) * held.side >= 0.0 || (price - held.stop) * held.side <= 0.0 {
                closed.extend(self.close(coin, market, at, chance));
            }
        }
        closed
    }

    /// The model's turn: a decision for each coin it holds or enters, and the trades that closed by them.
    pub(super) fn turn(&mut self, market: &Market, at: f64, chance: &mut Chance) -> (Vec<Decision>, Vec<Trade>) {
        self.cycle += 1;
        let (mut decisions, mut trades) = (Vec::new(), Vec::new());
        for coin in 0..COINS.len() {
            let strength = self.insight * market.trend(coin) + (1.0 - self.insight) * chance.normal();
            let (signal, position) = match &self.positions[coin] {
                Some(held) if at >= held.until || strength * held.side < -ENTER => (Signal::Close, held.clone()),
                Some(held) => (Signal::Hold, held.clone()),
                None if strength.abs() > ENTER && self.positions.iter().flatten().count() < POSITIONS => {
                    let position = self.open(coin, strength, market, at, chance);
                    (if strength > 0.0 { Signal::Buy } else { Signal::Sell }, position)
                }
                None => continue,
            };
            if signal == Signal::Close {
                trades.extend(self.close(coin, market, at, chance));
            }
            self.record.confidence[signal as usize].add(position.confidence);
            decisions.push(Decision { coin, signal, position });
        }
        (decisions, trades)
    }

    fn open(&mut self, coin: usize, strength: f64, market: &Market, at: f64, chance: &mut Chance) -> Position {
        let (price, side) = (market.price(coin), strength.signum());
        let leverage = 5 * (1 + chance.below(4));
        let spent = self.equity(market).max(0.0) * leverage as f64 * chance.between(0.02, 0.06);
        let quantity = rounded(spent / price, if price > 1000.0 { 3 } else { 1 }).max(0.001);
        let reach = chance.between(0.004, 0.008);
        let position = Position {
            side,
            quantity,
            entry_price: price,
            entry_time: at,
            entry_fee: rounded(quantity * price * FEE, 6),
            entry_tid: chance.below(1_000_000_000_000_000),
            entry_oid: 213_000_000_000 + chance.below(9_000_000_000),
            leverage,
            confidence: rounded((0.5 + 0.13 * strength.abs()).min(0.95), 2),
            target: Market::quoted(coin, price * (1.0 + side * reach)),
            stop: Market::quoted(coin, price * (1.0 - side * reach * 0.7)),
            risk_usd: rounded(quantity * price * reach * 0.7, 2),
            until: at + chance.between(45.0, 180.0),
        };
        self.cash -= position.entry_fee;
        self.record.leverage[usize::from(side < 0.0)].add(leverage as f64);
        self.positions[coin] = Some(position.clone());
        position
    }

    fn close(&mut self, coin: usize, market: &Market, at: f64, chance: &mut Chance) -> Option<Trade> {
        let position = self.positions[coin].take()?;
        let exit_price = market.price(coin);
        let trade = Trade {
            id: format!("{}_{}", self.name, chance.uuid()),
            model: self.name,
            coin,
            exit_price,
            exit_time: at,
            exit_fee: rounded(position.quantity * exit_price * FEE, 6),
            exit_tid: chance.below(1_000_000_000_000_000),
            exit_oid: position.entry_oid + chance.below(1_000_000_000),
            gross: rounded(position.gross(exit_price), 6),
            position,
        };
        self.cash += trade.gross - trade.exit_fee;
        self.record.add(&trade);
        Some(trade)
    }
}

impl Position {
    fn gross(&self, price: f64) -> f64 {
        self.side * self.quantity * (price - self.entry_price)
    }
}

impl Group {
    fn add(&mut self, trade: &Trade) {
        self.net.add(trade.net());
        self.notional.add(trade.notional());
        self.minutes.add(trade.minutes());
    }
}

impl Record {
    fn add(&mut self, trade: &Trade) {
        self.all.add(trade);
        if trade.net() > 0.0 { &mut self.winners } else { &mut self.losers }.add(trade);
        if trade.position.side > 0.0 { &mut self.longs } else { &mut self.shorts }.add(trade);
        self.gross.add(trade.gross);
        self.fees.add(trade.position.entry_fee + trade.exit_fee);
        self.last_trade = Some((trade.id.clone(), trade.exit_time));
    }
}
