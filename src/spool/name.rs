//! Names on the disk: a tracker's directory, and an entry's file, whose name alone says all that the index needs.
//!
//! ```text
//!  entries/leaderboard/20251118T103000.000000000Z.48213.9f86d081884c7d65
//!          tracker     scheduled_at               bytes plan's first 8
//! ```
//!
//! In: names. Out: values, or `None` for what trackd did not write. Must not know: files.

use super::Key;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt;

/// The longest file name of common file systems.
const LONGEST: usize = 255;
/// No entry is larger: four times what a body can be, and what a reader is ready to hold.
pub(super) const LARGEST: u64 = 16 << 30;
const INSTANT: &str = "%Y%m%dT%H%M%S.%fZ";

/// All but `a-z 0-9 - _ .`: upper case too, because there are file systems to which `A` and `a` are one name.
const ESCAPED: &AsciiSet = &{
    let mut set = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
    let mut letter = b'A';
    while letter <= b'Z' {
        set = set.add(letter);
        letter += 1;
    }
    set
};

/// The directory of a tracker; `None` for a name that is empty or too long for one.
pub(super) fn folder(tracker: &str) -> Option<String> {
    let escaped = utf8_percent_encode(tracker, ESCAPED).to_string();
    let folder = match escaped.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => escaped,
    };
    (1..=LONGEST).contains(&folder.len()).then_some(folder)
}

/// The tracker of a directory.
pub(super) fn tracker(name: &str) -> Option<String> {
    let tracker = percent_decode_str(name).decode_utf8().ok()?.into_owned();
    (folder(&tracker).as_deref() == Some(name)).then_some(tracker)
}

/// What the name of an entry's file says. Ordered by instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    /// The scheduled instant.
    pub(super) at: Timestamp,
    /// The whole file's length.
    pub(super) bytes: u64,
    /// Of the plan.
    pub(super) plan: Tag,
}

impl Slot {
    /// The other way round of `Display`; `None` for any other spelling.
    pub(super) fn parse(name: &str) -> Option<Slot> {
        let (instant, rest) = name.split_at_checked(name.find('Z')? + 1)?;
        let (bytes, plan) = rest.strip_prefix('.')?.split_once('.')?;
        let at = DateTime::strptime(INSTANT, instant).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let plan = Tag(u64::from_str_radix(plan, 16).ok()?);
        let slot = Slot { at, bytes: bytes.parse().ok().filter(|bytes| *bytes <= LARGEST)?, plan };
        (slot.to_string() == name).then_some(slot)
    }

    pub(super) fn key(self, tracker: &str) -> Key {
        Key { tracker: tracker.to_owned(), slot: self }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.at.strftime("%Y%m%dT%H%M%S.%9fZ"), self.bytes, self.plan)
    }
}

/// The first 8 bytes of a plan's SHA-256: who needs which plan is known from names alone. Where two plans share one,
/// both are kept until neither is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tag(pub(super) u64);

impl Tag {
    /// Of a SHA-256 in lower-case hexadecimal; `None` if it is none.
    pub(super) fn of(sha256: &str) -> Option<Tag> {
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let good = sha256.len() == 64 && sha256.chars().all(hex);
        u64::from_str_radix(sha256.get(..16).filter(|_| good)?, 16).ok().map(Tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(at: &str) -> Slot {
        Slot { at: at.parse().unwrap(), bytes: 48_213, plan: Tag(0x0f86_d081_884c_7d65) }
    }

    #[test]
    fn a_name_says_instant_length_and_plan() {
        let name = slot("2025-11-18T10:30:00.25Z").to_string();
        assert_eq!(name, "20251118T103000.250000000Z.48213.0f86d081884c7d65");
        assert_eq!(Slot::parse(&name), Some(slot("2025-11-18T10:30:00.25Z")));
        for at in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let slot = Slot { at, ..slot("2025-11-18T10:30:00Z") };
            assert_eq!(Slot::parse(&slot.to_string()), Some(slot), "{slot}");
        }
    }

    #[test]
    fn only_the_one_spelling_is_ours() {
        let good = slot("2025-11-18T10:30:00Z").to_string();
        assert!(Slot::parse(&good).is_some());
        for foreign in [
            "",
            "Z",
            "README",
            "20251118T103000.000000000Z",
            "20251118T103000.000000000Z.48213",
            "20251118T103000.000000000Z.48213.",
            "20251118T103000.000000000Z.48213.0f86d081884c7d65.tmp",
            "20251118T103000.000000000Z.48213.0F86D081884C7D65",
            "20251118T103000.000000000Z.+48213.0f86d081884c7d65",
            "20251118T103000.000000000Z.048213.0f86d081884c7d65",
            "20251118T103000.000000000Z.99999999999999.0f86d081884c7d65",
            "20251118T103000Z.48213.0f86d081884c7d65",
            "20251318T103000.000000000Z.48213.0f86d081884c7d65",
            "20251118T103060.000000000Z.48213.0f86d081884c7d65",
            "20251118T103000.000000000Zé48213.0f86d081884c7d65",
        ] {
            assert_eq!(Slot::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn trackers_that_differ_have_directories_that_differ_without_case() {
        let names = ["arena", "Arena", "ARENA", "a.b", ".", "..", ".git", "a/b", "../../etc/passwd", "a b", "é", "%41"];
        let folders: Vec<String> = names.iter().map(|name| folder(name).unwrap().to_lowercase()).collect();
        for (index, folder) in folders.iter().enumerate() {
            assert!(
                !folders[..index].contains(folder) && !folder.contains('/') && !folder.starts_with('.'),
                "{folder}"
            );
        }
        assert_eq!(folder("arena_2.5-x").as_deref(), Some("arena_2.5-x"));
        assert_eq!(
            folder(&"A".repeat(63)).map(|name| name.len()),
            Some(189),
            "the longest that a configuration allows"
        );
        assert_eq!((folder(""), folder(&"A".repeat(86))), (None, None));
        for foreign in ["", ".", "..", ".tmp", "%61", "A", "%4", "%2e", "lost+found", "%FF"] {
            assert_eq!(tracker(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in "\\PC{1,20}", nanos in any::<i64>(), bytes in 0..=LARGEST, tag in any::<u64>()) {
            prop_assert_eq!(folder(&name).map(|folder| tracker(&folder)), Some(Some(name)));
            let at = Timestamp::from_nanosecond(nanos.into()).unwrap();
            let slot = Slot { at, bytes, plan: Tag(tag) };
            prop_assert_eq!(Slot::parse(&slot.to_string()), Some(slot));
        }

        #[test]
        fn names_sort_as_instants_do(one in 0..i64::MAX, other in 0..i64::MAX) {
            let name = |nanos: i64| Slot { at: Timestamp::from_nanosecond(nanos.into()).unwrap(), ..slot("2025-11-18T10:30:00Z") }.to_string();
            prop_assert_eq!(one.cmp(&other), name(one).cmp(&name(other)));
        }
    }
}
