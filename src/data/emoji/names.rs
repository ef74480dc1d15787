//! Unicode's names of emoji, and of the skin tones in them.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::store::quoted;

use super::{Group, Packages, SkinTone};
use crate::data::DataError;

/// Names by emoji, and the order of emoji.
pub(super) const NAMES: &str = "unicode-emoji-json/data-by-emoji.json";
pub(super) const ORDER: &str = "unicode-emoji-json/data-ordered-emoji.json";

/// The first of five modifiers for skin tones.
const FIRST_TONE: u32 = 0x1f3fb;
/// Asks for a coloured picture; packages leave it out or keep it.
const SELECTOR: u32 = 0xfe0f;
const JOINER: u32 = 0x200d;
const HEART: u32 = 0x2764;

/// Two people with tones of their own, and the emoji that shows them without tones. Unicode gives these pairs one code
/// point, or one person who stands for both.
const PAIRS: [(&[u32], &[u32]); 12] = [
    (&[0x1faf1, JOINER, 0x1faf2], &[0x1f91d]),
    (&[0x1f469, JOINER, 0x1f91d, JOINER, 0x1f469], &[0x1f46d]),
    (&[0x1f469, JOINER, 0x1f91d, JOINER, 0x1f468], &[0x1f46b]),
    (&[0x1f468, JOINER, 0x1f91d, JOINER, 0x1f468], &[0x1f46c]),
    (&[0x1f9d1, JOINER, HEART, JOINER, 0x1f48b, JOINER, 0x1f9d1], &[0x1f48f]),
    (&[0x1f9d1, JOINER, HEART, JOINER, 0x1f9d1], &[0x1f491]),
    (&[0x1f9d1, JOINER, 0x1f430, JOINER, 0x1f9d1], &[0x1f46f]),
    (&[0x1f468, JOINER, 0x1f430, JOINER, 0x1f468], &[0x1f46f, JOINER, 0x2642]),
    (&[0x1f469, JOINER, 0x1f430, JOINER, 0x1f469], &[0x1f46f, JOINER, 0x2640]),
    (&[0x1f9d1, JOINER, 0x1faef, JOINER, 0x1f9d1], &[0x1f93c]),
    (&[0x1f468, JOINER, 0x1faef, JOINER, 0x1f468], &[0x1f93c, JOINER, 0x2642]),
    (&[0x1f469, JOINER, 0x1faef, JOINER, 0x1f469], &[0x1f93c, JOINER, 0x2640]),
];

#[derive(Deserialize)]
struct Described {
    name: String,
    group: Group,
}

/// An emoji without skin tones.
#[derive(Debug)]
struct Emoji {
    name: String,
    group: Group,
    /// Position in the order of emoji.
    at: usize,
}

/// All emoji that have a name.
#[derive(Debug)]
pub(super) struct Names(HashMap<Vec<u32>, Emoji>);

/// A named emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) caption: String,
    pub(super) base: String,
    pub(super) group: Group,
    pub(super) tone: Option<SkinTone>,
    /// Position of the emoji in the order.
    pub(super) at: usize,
}

impl Names {
    /// Reads the files of `unicode-emoji-json`.
    pub(super) fn read(packages: &Packages) -> Result<Self, DataError> {
        let order: Vec<String> = packages.json(ORDER)?;
        let mut described: BTreeMap<String, Described> = packages.json(NAMES)?;
        let mut names = HashMap::new();
        for (at, emoji) in order.iter().enumerate() {
            let Described { name, group } = described.remove(emoji).ok_or_else(|| DataError::Icons {
                path: packages.path(ORDER),
                reason: format!("emoji {} has no name in {NAMES}", quoted(emoji)),
            })?;
            let code = emoji.chars().map(u32::from).filter(|&point| point != SELECTOR).collect();
            names.insert(code, Emoji { name, group, at });
        }
        Ok(Self(names))
    }

    /// The name of a sequence of code points; `None` when Unicode has none.
    pub(super) fn find(&self, code: &[u32]) -> Option<Named> {
        // A modifier changes the code point before it.
        let tone = |(i, &point): (usize, &u32)| match point.checked_sub(FIRST_TONE) {
            Some(tone) if i > 0 => SkinTone::FIVE.get(tone as usize).copied(),
            _ => None,
        };
        let tones: Vec<SkinTone> = code.iter().enumerate().filter_map(tone).collect();
        let plain: Vec<u32> = code
            .iter()
            .enumerate()
            .filter(|&item| tone(item).is_none() && *item.1 != SELECTOR)
            .map(|(_, &point)| point)
            .collect();
        let pair = PAIRS.iter().find(|(pair, _)| !tones.is_empty() && *pair == plain);
        let Emoji { name, group, at } = self.0.get(pair.map_or(&plain[..], |(_, emoji)| emoji))?;
        let tone = match tones[..] {
            [] => None,
            [first, ref others @ ..] if others.iter().all(|&other| other == first) => Some(first),
            _ => Some(SkinTone::Mixed),
        };
        let words: Vec<&str> = match tone {
            Some(SkinTone::Mixed) => tones.iter().map(|tone| tone.name()).collect(),
            one => one.iter().map(|tone| tone.name()).collect(),
        };
        let caption = if words.is_empty() { name.clone() } else { format!("{name}: {}", words.join(", ")) };
        Some(Named { caption, base: name.clone(), group: *group, tone, at: *at })
    }
}

/// Code points from hexadecimal text such as `1f44b-1f3fb`; `None` for other text.
pub(super) fn code_points(text: &str) -> Option<Vec<u32>> {
    text.split('-').map(|point| u32::from_str_radix(point, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let entry = |code: &[u32], name: &str, at| {
            (code.to_vec(), Emoji { name: name.into(), group: Group::People, at })
        };
        Names(HashMap::from([
            entry(&[0x1f44b], "waving hand", 0),
            entry(&[0x1f9d4, JOINER, 0x2642], "man beard", 1),
            entry(&[0x1f491], "couple with heart", 2),
            entry(&[0x1f469, JOINER, HEART, JOINER, 0x1f468], "couple with heart woman, man", 3),
            entry(&[0xa9], "copyright", 4),
        ]))
    }

    #[track_caller]
    fn is(code: &str, caption: &str, base: &str, tone: Option<SkinTone>) {
        let found = names().find(&code_points(code).unwrap()).unwrap();
        assert_eq!((&found.caption[..], &found.base[..], found.tone), (caption, base, tone));
    }

    #[test]
    fn skin_tones_follow_the_name() {
        is("00a9", "copyright", "copyright", None);
        is("1f44b", "waving hand", "waving hand", None);
        is("1f44b-1f3fd", "waving hand: medium skin tone", "waving hand", Some(SkinTone::Medium));
        let beard = "man beard: dark skin tone";
        is("1f9d4-1f3ff-200d-2642-fe0f", beard, "man beard", Some(SkinTone::Dark));
        is("1f491-1f3fb", "couple with heart: light skin tone", "couple with heart", Some(SkinTone::Light));
        is(
            "1f469-1f3fb-200d-2764-fe0f-200d-1f468-1f3fb",
            "couple with heart woman, man: light skin tone",
            "couple with heart woman, man",
            Some(SkinTone::Light),
        );
        is(
            "1f9d1-1f3fb-200d-2764-200d-1f9d1-1f3fe",
            "couple with heart: light skin tone, medium-dark skin tone",
            "couple with heart",
            Some(SkinTone::Mixed),
        );
    }

    #[test]
    fn unknown_sequences_have_no_name() {
        // A tone alone, a letter of flags, and a pair without tones, which no vendor draws as a pair.
        for code in ["1f3fb", "1f1e6", "1f9d1-200d-2764-200d-1f9d1"] {
            assert_eq!(names().find(&code_points(code).unwrap()), None, "{code}");
        }
        assert_eq!(code_points("1f44b-hand"), None);
    }
}
