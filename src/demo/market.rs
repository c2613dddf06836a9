//! Prices that walk: six coins, each with a trend that comes and goes.
//!
//! Pure: chance comes in. Must not know: models, trades, the wire.

use super::chance::Chance;

/// Coins, in the order of every array here.
pub(super) const COINS: [&str; 6] = ["BTC", "ETH", "SOL", "BNB", "DOGE", "XRP"];
/// Prices of October 2025, to which the walk is drawn back over hours.
const HOME: [f64; 6] = [114_088.5, 4105.05, 200.385, 1129.35, 0.200_715, 2.644_65];
/// Digits after the point, as the exchange quotes them.
const DIGITS: [i32; 6] = [1, 2, 3, 2, 6, 5];

/// How large a trend is, in relative change a second.
const TREND: f64 = 0.000_06;
/// How long a trend lasts, in seconds.
const TREND_SECONDS: f64 = 90.0;
/// Noise in relative change a second.
const NOISE: f64 = 0.000_25;
/// The pull back home a second.
const PULL: f64 = 0.000_1;

/// The state of all coins.
#[derive(Debug, Clone)]
pub(super) struct Market {
    prices: [f64; 6],
    trends: [f64; 6],
}

impl Market {
    pub(super) fn new() -> Market {
        Market { prices: HOME, trends: [0.0; 6] }
    }

    /// One second.
    pub(super) fn step(&mut self, chance: &mut Chance) {
        for ((price, trend), home) in self.prices.iter_mut().zip(&mut self.trends).zip(HOME) {
            let kick = TREND * (2.0 / TREND_SECONDS).sqrt() * chance.normal();
            *trend += kick - *trend / TREND_SECONDS;
            let pull = PULL * (home / *price).ln();
            *price *= 1.0 + *trend + pull + NOISE * chance.normal();
        }
    }

    /// The quoted price.
    pub(super) fn price(&self, coin: usize) -> f64 {
        rounded(self.prices[coin], DIGITS[coin])
    }

    /// The trend in standard deviations: what a model would love to know.
    pub(super) fn trend(&self, coin: usize) -> f64 {
        self.trends[coin] / TREND
    }

    /// A price in the exchange's digits.
    pub(super) fn quoted(coin: usize, price: f64) -> f64 {
        rounded(price, DIGITS[coin])
    }

    /// What a coin was worth at home.
    pub(super) fn home(coin: usize) -> f64 {
        HOME[coin]
    }
}

pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
