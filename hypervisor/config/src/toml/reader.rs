//! Typed access to the keys of TOML tables, where every surprise becomes an error with a line.

use super::{ConfigError, parse_size};
use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};
use mirror::Side;
use std::fmt::Display;

type Value<'v> = Spanned<DeValue<'v>>;

/// The errors found so far in one text.
pub(super) struct Notes<'t> {
    text: &'t str,
    side: Option<Side>,
    errors: Vec<(usize, String)>,
}

impl<'t> Notes<'t> {
    pub(super) const fn new(text: &'t str, side: Option<Side>) -> Self {
        Self {
            text,
            side,
            errors: Vec::new(),
        }
    }

    /// Notes an error at a byte of the text.
    pub(super) fn error(&mut self, at: usize, reason: impl Into<String>) {
        self.errors.push((at, reason.into()));
    }

    /// The line, from 1, that holds a byte of the text.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    /// All errors in the order of the file.
    pub(super) fn into_errors(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|(at, _)| *at);
        let errors = self.errors.iter().map(|(at, reason)| ConfigError {
            line: self.line(*at),
            reason: reason.clone(),
        });
        errors.collect()
    }
}

/// A table whose keys are all known.
pub(super) struct Table<'v> {
    entries: &'v DeTable<'v>,
    start: usize,
    what: &'static str,
}

impl<'v> Table<'v> {
    /// Wraps a table that starts at `start`, and reports every key that is not in `known`.
    pub(super) fn new(
        entries: &'v DeTable<'v>,
        start: usize,
        what: &'static str,
        known: &[&str],
        notes: &mut Notes<'_>,
    ) -> Self {
        for key in entries.keys() {
            let name = key.get_ref();
            if !known.contains(&name.as_ref()) {
                let advice = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("it may have: {}", known.join(", ")),
                };
                notes.error(
                    key.span().start,
                    format!("{what} has no key \"{name}\"; {advice}"),
                );
            }
        }
        Self {
            entries,
            start,
            what,
        }
    }

    /// The byte at which the table starts.
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    pub(super) fn get(&self, key: &str) -> Option<&'v Value<'v>> {
        self.entries.get(key)
    }

    /// The byte at which the value of a key starts, or the table where it is absent.
    pub(super) fn position(&self, key: &str) -> usize {
        self.get(key).map_or(self.start, |value| value.span().start)
    }

    /// The byte at which one element of an array starts.
    pub(super) fn element_position(&self, key: &str, at: usize) -> usize {
        let element = match self.get(key).map(Spanned::get_ref) {
            Some(DeValue::Array(elements)) => elements.get(at),
            _ => None,
        };
        element.map_or(self.position(key), |value| value.span().start)
    }

    pub(super) fn required(&self, key: &str, notes: &mut Notes<'_>) -> Option<&'v Value<'v>> {
        let value = self.get(key);
        if value.is_none() {
            notes.error(self.start, format!("{} needs the key \"{key}\"", self.what));
        }
        value
    }

    pub(super) fn string(&self, key: &str, notes: &mut Notes<'_>) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            DeValue::Table(sides) => by_side(key, sides, value, notes),
            other => {
                wrong_type(key, "a text in quotes", other, value, notes);
                None
            }
        }
    }

    pub(super) fn required_string(&self, key: &str, notes: &mut Notes<'_>) -> Option<String> {
        self.required(key, notes)?;
        self.string(key, notes)
    }

    pub(super) fn boolean(&self, key: &str, notes: &mut Notes<'_>) -> Option<bool> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                wrong_type(key, "true or false", other, value, notes);
                None
            }
        }
    }

    /// A whole number from 0 to `max`.
    pub(super) fn required_integer<T>(&self, key: &str, max: T, notes: &mut Notes<'_>) -> Option<T>
    where
        T: TryFrom<i128> + Into<i128> + Display,
    {
        integer(key, self.required(key, notes)?, max, notes)
    }

    /// A whole number from 0 to `max`; this one where the key is absent.
    pub(super) fn integer_or<T>(
        &self,
        key: &str,
        max: T,
        absent: T,
        notes: &mut Notes<'_>,
    ) -> Option<T>
    where
        T: TryFrom<i128> + Into<i128> + Display,
    {
        match self.get(key) {
            Some(value) => integer(key, value, max, notes),
            None => Some(absent),
        }
    }

    /// A whole number from 0 to `max`, or a list of such.
    pub(super) fn required_integers<T>(
        &self,
        key: &str,
        max: T,
        notes: &mut Notes<'_>,
    ) -> Option<Vec<T>>
    where
        T: TryFrom<i128> + Into<i128> + Display + Copy,
    {
        let value = self.required(key, notes)?;
        match value.get_ref() {
            DeValue::Array(elements) => {
                let numbers: Vec<_> = elements
                    .iter()
                    .map(|element| integer(key, element, max, notes))
                    .collect();
                numbers.into_iter().collect()
            }
            _ => integer(key, value, max, notes).map(|number| vec![number]),
        }
    }

    /// A size in bytes, written as a text with a unit.
    pub(super) fn required_size(&self, key: &str, notes: &mut Notes<'_>) -> Option<u64> {
        let value = self.required(key, notes)?;
        let size = match value.get_ref() {
            DeValue::String(text) => parse_size(text),
            DeValue::Integer(number) => Err(format!(
                "{key} = {} lacks a unit; write it like \"16M\"",
                number.as_str()
            )),
            other => {
                wrong_type(key, "a size like \"16M\"", other, value, notes);
                return None;
            }
        };
        size.map_err(|reason| notes.error(value.span().start, reason))
            .ok()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        notes: &mut Notes<'_>,
    ) -> Option<T> {
        let text = self.string(key, notes)?;
        choose(&text, choices)
            .map_err(|advice| {
                let reason = format!("{key} cannot be \"{text}\"; {advice}");
                notes.error(self.position(key), reason);
            })
            .ok()
    }

    /// Some of a few words.
    pub(super) fn choices<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        notes: &mut Notes<'_>,
    ) -> Option<Vec<T>> {
        self.get(key)?;
        let mut chosen = Vec::new();
        for value in self.array(key, notes) {
            let DeValue::String(text) = value.get_ref() else {
                wrong_type(key, "texts in quotes", value.get_ref(), value, notes);
                continue;
            };
            match choose(text, choices) {
                Ok(choice) => chosen.push(choice),
                Err(advice) => notes.error(
                    value.span().start,
                    format!("{key} cannot hold \"{text}\"; {advice}"),
                ),
            }
        }
        Some(chosen)
    }

    /// The elements of an array; none where the key is absent.
    pub(super) fn array(&self, key: &str, notes: &mut Notes<'_>) -> &'v [Value<'v>] {
        match self.get(key).map(|value| (value, value.get_ref())) {
            None => &[],
            Some((_, DeValue::Array(elements))) => elements.as_ref(),
            Some((value, other)) => {
                wrong_type(key, "a list in [ ]", other, value, notes);
                &[]
            }
        }
    }
}

/// A text of which each board of a pair has its own.
fn by_side(
    key: &str,
    sides: &DeTable<'_>,
    value: &Value<'_>,
    notes: &mut Notes<'_>,
) -> Option<String> {
    let at = value.span().start;
    let text = |side| sides.get(side).map(Spanned::get_ref);
    let (Some(DeValue::String(a)), Some(DeValue::String(b)), 2) =
        (text("a"), text("b"), sides.len())
    else {
        let reason = format!(
            "{key} must be a text in quotes, or {{ a = \"…\", b = \"…\" }} where the boards of a pair differ"
        );
        notes.error(at, reason);
        return None;
    };
    match notes.side {
        Some(Side::A) => Some(a.clone().into_owned()),
        Some(Side::B) => Some(b.clone().into_owned()),
        None => {
            let reason =
                format!("{key} is a pair's, but nothing says which board this is (--side)");
            notes.error(at, reason);
            None
        }
    }
}

fn integer<T>(key: &str, value: &Value<'_>, max: T, notes: &mut Notes<'_>) -> Option<T>
where
    T: TryFrom<i128> + Into<i128> + Display,
{
    let DeValue::Integer(integer) = value.get_ref() else {
        wrong_type(key, "a whole number", value.get_ref(), value, notes);
        return None;
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    let number = number.and_then(|number| T::try_from(number).ok());
    if number.is_none() {
        let reason = format!("{key} = {} is outside 0 to {max}", integer.as_str());
        notes.error(value.span().start, reason);
    }
    number
}

fn wrong_type(
    key: &str,
    wanted: &str,
    found: &DeValue<'_>,
    value: &Value<'_>,
    notes: &mut Notes<'_>,
) {
    let reason = format!("{key} must be {wanted}, not a TOML {}", found.type_str());
    notes.error(value.span().start, reason);
}

/// Finds the value that `text` names.
///
/// # Errors
///
/// Advice: the nearest name, or all of them.
pub(super) fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names = || choices.iter().map(|(name, _)| *name);
    Err(match nearest(text, names()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            let quoted: Vec<_> = names().map(|name| format!("\"{name}\"")).collect();
            format!("known: {}", quoted.join(", "))
        }
    })
}

/// The name that `text` was probably meant to be.
fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let text = text.to_lowercase().replace('-', "_");
    names
        .map(|name| (distance(&text, &name.replace('-', "_")), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters must be put in, left out or changed to turn one word into another.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distances_of_words() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("memory", "memory"), 0);
        assert_eq!(distance("memroy", "memory"), 2);
        assert_eq!(distance("cpu", "cpus"), 1);
    }

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        let names = ["name", "memory", "command_line"];
        assert_eq!(nearest("memroy", names.into_iter()), Some("memory"));
        assert_eq!(
            nearest("command-line", names.into_iter()),
            Some("command_line")
        );
        assert_eq!(nearest("Name", names.into_iter()), Some("name"));
        assert_eq!(nearest("colour", names.into_iter()), None);
    }
}
