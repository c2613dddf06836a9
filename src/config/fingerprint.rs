//! One number for all that matters to a tracker, equal exactly when nothing of it changed.
//!
//! In: the tracker's entries with the defaults under them. Out: a hash that is the same on every machine.

use super::node::{Entry, Value};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Of one text.
pub(super) fn of_text(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// Of entries; keys may stand in any order, except where the order has a meaning.
pub(super) fn of_entries(list: &[Entry], salt: u64) -> u64 {
    let mut hash = Xxh3::with_seed(salt);
    entries(list, false, &mut hash);
    hash.digest()
}

fn entries(list: &[Entry], ordered: bool, hash: &mut Xxh3) {
    let mut list: Vec<&Entry> = list.iter().collect();
    if !ordered {
        list.sort_by(|a, b| a.key.cmp(&b.key));
    }
    hash.update(&list.len().to_le_bytes());
    for entry in list {
        word(b'k', &entry.key, hash);
        value(&entry.node.value, matches!(entry.key.as_str(), "columns" | "query" | "headers"), hash);
    }
}

fn value(value_: &Value, ordered: bool, hash: &mut Xxh3) {
    match value_ {
        Value::Text(text) | Value::Given(text, _) => word(b't', text, hash),
        Value::Integer(text, radix) => word(*radix as u8, text, hash),
        Value::Float(text) => word(b'f', text, hash),
        Value::Datetime(text) => word(b'd', text, hash),
        Value::Boolean(yes) => word(b'b', if *yes { "1" } else { "0" }, hash),
        Value::List(items) => {
            word(b'l', &items.len().to_string(), hash);
            items.iter().for_each(|item| value(&item.value, false, hash));
        }
        Value::Table(list) => {
            hash.update(b"m");
            entries(list, ordered, hash);
        }
    }
}

/// A tag and a length first, so that no two trees give the same bytes.
fn word(tag: u8, text: &str, hash: &mut Xxh3) {
    hash.update(&[tag]);
    hash.update(&text.len().to_le_bytes());
    hash.update(text.as_bytes());
}
