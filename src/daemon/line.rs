//! Who is next: names in groups, of which only so many run at once.
//!
//! ```text
//!  push --> waits in its group --next: of the groups with the fewest runs, the one that waited longest--> runs --done-->
//! ```
//!
//! So a group with many names, or with slow ones, never stands before another one: a group of which nothing runs is
//! next. What is alone is a group of its own. Each step costs the logarithm of the groups that wait.
//! Must not know: tasks, what runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Which group a name stands in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// Shared with others.
    Shared(Arc<str>),
    /// Of this name alone.
    Alone(Arc<str>),
}

/// The names that wait, and how many run.
#[derive(Debug)]
pub(super) struct Line {
    /// Of one group at the same time.
    most: usize,
    groups: HashMap<Group, Members>,
    /// The groups of which one more may run, by how many do and since when they wait.
    open: BTreeMap<(usize, u64), Group>,
    steps: u64,
}

#[derive(Debug, Default)]
struct Members {
    waiting: VecDeque<Arc<str>>,
    running: usize,
    /// Where it stands in `open`.
    place: Option<(usize, u64)>,
}

impl Line {
    /// An empty one.
    pub(super) fn new(most: usize) -> Line {
        Line { most: most.max(1), groups: HashMap::new(), open: BTreeMap::new(), steps: 0 }
    }

    /// Puts a name behind those of its group.
    pub(super) fn push(&mut self, group: &Group, name: Arc<str>) {
        self.groups.entry(group.clone()).or_default().waiting.push_back(name);
        self.settle(group);
    }

    /// Takes the name whose turn it is: it runs until `done`.
    pub(super) fn next(&mut self) -> Option<(Group, Arc<str>)> {
        let (_, group) = self.open.pop_first()?;
        let members = self.groups.get_mut(&group)?;
        members.place = None;
        let name = members.waiting.pop_front()?;
        members.running += 1;
        self.settle(&group);
        Some((group, name))
    }

    /// One of this group does not run any more.
    pub(super) fn done(&mut self, group: &Group) {
        if let Some(members) = self.groups.get_mut(group) {
            members.running = members.running.saturating_sub(1);
            self.settle(group);
        }
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.groups.retain(|_, members| {
            members.waiting.clear();
            members.place = None;
            members.running > 0
        });
    }

    /// Whether `next` gives anything.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Puts a group where it belongs. It keeps its place while the number of its runs is the same.
    fn settle(&mut self, group: &Group) {
        let Some(members) = self.groups.get_mut(group) else { return };
        let open = !members.waiting.is_empty() && members.running < self.most;
        let stays = members.place.is_some_and(|(running, _)| open && running == members.running);
        if !stays {
            if let Some(place) = members.place.take() {
                self.open.remove(&place);
            }
            if open {
                self.steps += 1;
                members.place = Some((members.running, self.steps));
                self.open.insert((members.running, self.steps), group.clone());
            }
        }
        if members.running == 0 && members.waiting.is_empty() {
            self.groups.remove(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(name: &str) -> Group {
        Group::Shared(Arc::from(name))
    }

    /// Pushes each letter-number into the group of its letter.
    fn line(most: usize, names: &str) -> Line {
        let mut line = Line::new(most);
        for name in names.split(' ') {
            line.push(&shared(&name[..1]), Arc::from(name));
        }
        line
    }

    fn drain(line: &mut Line) -> String {
        let names: Vec<_> = std::iter::from_fn(|| line.next()).map(|(_, name)| name).collect();
        names.join(" ")
    }

    #[test]
    fn of_a_group_only_so_many_run_and_others_overtake() {
        let mut line = line(2, "a1 a2 a3 a4 b1");
        assert_eq!(drain(&mut line), "a1 b1 a2");
        assert!(!line.is_open());
        line.done(&shared("b"));
        assert_eq!(drain(&mut line), "", "what b leaves is not a's");
        line.done(&shared("a"));
        assert_eq!(drain(&mut line), "a3");
    }

    #[test]
    fn a_group_of_which_nothing_runs_is_next() {
        let mut line = line(9, "a1 a2 a3 a4");
        assert_eq!((line.next().unwrap().1, line.next().unwrap().1), ("a1".into(), "a2".into()));
        line.push(&shared("b"), "b1".into());
        line.push(&Group::Alone("c".into()), "c".into());
        assert_eq!(drain(&mut line), "b1 c a3 a4");
    }

    #[test]
    fn nobody_starves_with_one_worker() {
        let mut line = line(4, "a1 a2 a3 b1 b2 c1");
        let mut order = Vec::new();
        while let Some((group, name)) = line.next() {
            line.done(&group);
            order.push(name);
        }
        assert_eq!(order.join(" "), "a1 b1 c1 a2 b2 a3");
    }

    #[test]
    fn what_is_alone_is_held_up_by_nobody() {
        let mut line = Line::new(1);
        for name in ["x", "y", "z"] {
            line.push(&Group::Alone(Arc::from(name)), Arc::from(name));
        }
        assert_eq!(drain(&mut line), "x y z");
    }

    #[test]
    fn a_cleared_line_still_knows_what_runs_and_an_idle_one_keeps_nothing() {
        let mut line = line(1, "a1 a2 b1");
        assert_eq!(drain(&mut line), "a1 b1");
        line.clear();
        line.push(&shared("a"), "a3".into());
        assert_eq!(drain(&mut line), "", "a1 runs");
        for group in ["a", "b"] {
            line.done(&shared(group));
        }
        assert_eq!(drain(&mut line), "a3");
        line.done(&shared("a"));
        assert!(line.groups.is_empty() && line.open.is_empty(), "{line:?}");
    }
}
