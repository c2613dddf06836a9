//! One tree over another: what a drop-in says over what was read before it.
//!
//! In: two trees. Out: one. Must not know: which keys there are, but that trackers add up.

use super::node::{Node, Value};

/// What every file may add to.
const ADDED: &str = "tracker";

/// Lays `over` on `base`: tables key by key, `[[tracker]]` one after the other, of anything else the later one.
pub(super) fn merge(base: &mut Node, over: Node) {
    tables(base, over, true);
}

fn tables(base: &mut Node, over: Node, top: bool) {
    let (Value::Table(entries), Value::Table(new)) = (&mut base.value, over.value) else { return };
    for mut entry in new {
        let Some(old) = entries.iter_mut().find(|old| old.key == entry.key) else {
            entries.push(entry);
            continue;
        };
        let added = top && entry.key == ADDED;
        match (&mut old.node.value, &mut entry.node.value) {
            (Value::Table(_), Value::Table(_)) => tables(&mut old.node, entry.node, false),
            (Value::List(trackers), Value::List(more)) if added => trackers.append(more),
            // What is no list of trackers is a fault, which nothing later hides.
            (_, Value::List(_)) if added => {}
            _ => *old = entry,
        }
    }
}
