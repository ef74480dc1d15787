//! Lists of prompts.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::{cut_reason, quoted, read_file};
use crate::study::error::StudyError;

/// A prompt of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The prompt.
    pub caption: String,
    /// What the list calls it: its `index` or `id`.
    pub index: Option<String>,
    /// What is known about it: its `kind`, such as memorized.
    pub kind: Option<String>,
    /// Address of the picture with this caption: its `url`.
    pub url: Option<String>,
}

impl Prompt {
    /// A prompt of which nothing is known.
    pub fn new(caption: &str) -> Self {
        Self { caption: caption.to_owned(), index: None, kind: None, url: None }
    }

    /// Reads a list of prompts: a JSON object a line, with the text as `caption`, `prompt` or `text`. Other fields than those
    /// of [`Prompt`] are not read, and empty lines are passed over.
    ///
    /// ```
    /// use mem2gen::study::prompts::Prompt;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("prompts.jsonl");
    /// std::fs::write(&path, "{\"caption\": \"green heart\", \"index\": 7}\n{\"prompt\": \"a pear\", \"width\": 512}\n")?;
    /// let prompts = Prompt::read(&path)?;
    /// assert_eq!((prompts[0].caption.as_str(), prompts[0].index.as_deref()), ("green heart", Some("7")));
    /// assert_eq!(prompts[1], Prompt::new("a pear"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StudyError::Store`] for a file that can't be read; [`StudyError::Prompts`] for a line that is no object or has no text,
    /// and for a list without prompts.
    pub fn read(path: &Path) -> Result<Vec<Self>, StudyError> {
        let bytes = read_file(path)?;
        let bad =
            |line: Option<usize>, reason: String| StudyError::Prompts { path: path.into(), line, reason };
        let text = String::from_utf8(bytes).map_err(|e| {
            let place = e.utf8_error().valid_up_to();
            bad(None, format!("is not text in UTF-8 from byte {place} on; write it in UTF-8"))
        })?;
        // Some editors put it before a text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut prompts = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |reason: String| bad(Some(number + 1), reason);
            let value: Value = serde_json::from_str(line).map_err(|e| bad(not_json(line, e.column())))?;
            prompts.push(Self::of_line(&value).map_err(bad)?);
        }
        match prompts.is_empty() {
            true => Err(bad(None, format!("has no prompts, expected a line for each: {EXAMPLE}"))),
            false => Ok(prompts),
        }
    }

    fn of_line(value: &Value) -> Result<Self, String> {
        const TEXTS: [&str; 3] = ["caption", "prompt", "text"];
        let Value::Object(fields) = value else {
            return Err(format!("is {}, expected {EXAMPLE}", quoted(&value.to_string())));
        };
        let found: Vec<&str> = TEXTS.into_iter().filter_map(|name| fields.get(name)?.as_str()).collect();
        let caption = match found[..] {
            [] => {
                let other = TEXTS.into_iter().find_map(|name| Some((name, fields.get(name)?)));
                return Err(match other {
                    Some((name, value)) => {
                        format!(
                            "{name} is {}, expected a text in quotation marks",
                            quoted(&value.to_string())
                        )
                    }
                    None => format!("has no caption, expected {EXAMPLE}"),
                });
            }
            [caption] => caption.trim(),
            _ => {
                return Err("has several of caption, prompt and text, expected one; remove the others".into());
            }
        };
        if caption.is_empty() {
            return Err("has an empty caption; write one or remove the line".into());
        }
        let field = |names: &[&str]| {
            let found = names.iter().find_map(|name| fields.get(*name))?;
            match found {
                Value::String(text) => Some(cut_reason(text)),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            }
        };
        Ok(Self {
            caption: caption.to_owned(),
            index: field(&["index", "id"]),
            kind: field(&["kind", "label"]),
            url: field(&["url"]),
        })
    }
}

/// What a line has to be, in messages.
const EXAMPLE: &str = "a JSON object such as {\"caption\": \"a pear\"}";

/// What is wrong with a line that is not JSON.
fn not_json(line: &str, column: usize) -> String {
    let shown = quoted(line.trim());
    match line.trim_start().starts_with('{') {
        true => format!("is not JSON from column {column} on ({shown}), expected {EXAMPLE}"),
        false => format!("is plain text ({shown}), expected {EXAMPLE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_prompts_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Prompt::read(&path)
        };
        for (text, words) in [
            ("", "has no prompts"),
            ("\n \n", "has no prompts"),
            ("{\"caption\": \"a\"}\n[1]\n", "line 2"),
            ("{\"caption\": \"a\"}\n\n{\"captions\": \"b\"}", "line 3"),
            ("{\"caption\": 5}", "line 1: caption is '5', expected a text in quotation marks"),
            ("{\"caption\": \"a\", \"b\"}", "line 1: is not JSON from column"),
            ("{\"caption\": \" \"}", "empty caption"),
            ("{\"caption\": \"a\", \"text\": \"b\"}", "several"),
            ("green heart\n", "line 1: is plain text ('green heart'), expected a JSON object such as {"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("p.jsonl") && !error.contains('\n'), "{error}");
        }
        assert_eq!(read("\u{feff}{\"caption\": \"a\"}\n").unwrap(), [Prompt::new("a")]);
        let one = &read("{\"id\": \"x1\", \"label\": \"memorized\", \"text\": \" a b \", \"url\": \"u\"}")
            .unwrap()[0];
        let due = Prompt {
            caption: "a b".into(),
            index: Some("x1".into()),
            kind: Some("memorized".into()),
            url: Some("u".into()),
        };
        assert_eq!(*one, due);
    }
}
