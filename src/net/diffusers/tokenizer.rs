//! The tokenizer of CLIP, from the files of a folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use instant_clip_tokenizer::{Token, Tokenizer as Merger};
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;

use super::config::file_of_folder;
use crate::net::NetError;
use crate::store::{cut_reason, from_json, quoted, read_file};

/// Tokens of texts: numbers of the vocabulary, at most those of a context.
///
/// A text is normalised (NFC), its letters become lower case, and words are merged from bytes by the rules of `merges.txt`,
/// as in transformers.
pub struct Tokenizer {
    merger: Merger,
    context: usize,
    padding: Padding,
}

/// The token that fills the context after the end of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// The end itself, as in Stable Diffusion 1.
    #[default]
    End,
    /// The token of `!`, number 0, as in Stable Diffusion 2. It is then a control token: a `!` in a text is this token, too, and
    /// divides words.
    Exclamation,
}

/// Tokens of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Start, text, end, and padding up to the length of the context.
    pub ids: Vec<u32>,
    /// Place of the end of the text, the only one that is no padding.
    pub end: usize,
    /// Number of tokens of the text that did not fit.
    pub dropped: usize,
}

/// Files with the padding, which need not exist.
pub(super) const SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
/// The padding of Stable Diffusion 2, token 0.
const EXCLAMATION: &str = "!";

/// Tokens before the merged ones: each byte within a word and at its end.
const BYTES: usize = 512;

impl Tokenizer {
    /// Reads `merges.txt` of the folder `tokenizer`, compares `vocab.json` with the vocabulary that follows from it, and takes the
    /// padding that `tokenizer_config.json` and `special_tokens_map.json` name, where they exist. `context` is the number of
    /// tokens of a text, 77 in Stable Diffusion.
    ///
    /// # Errors
    /// [`NetError::Config`] for a missing file, one of another form, a vocabulary that differs, and another padding than
    /// [`Padding`]; [`NetError::Store`].
    pub fn read(folder: &Path, context: usize) -> Result<Self, NetError> {
        let path = folder.join("merges.txt");
        let bad = |path: &PathBuf, reason: &str| NetError::Config {
            path: path.clone(),
            reason: cut_reason(reason),
        };
        let merges = String::from_utf8(file_of_folder(&path)?)
            .map_err(|_| bad(&path, "is not text in UTF-8; copy it again"))?;
        let tokenizer = Self::from_merges(&merges, context).map_err(|reason| bad(&path, &reason))?;

        let path = folder.join("vocab.json");
        let vocabulary: HashMap<String, u32> =
            from_json(&file_of_folder(&path)?).map_err(|reason| bad(&path, &reason))?;
        let expected = vocabulary_of(&merges);
        for (name, id) in (0..).zip(&expected).map(|(id, name)| (name, id)) {
            match vocabulary.get(name) {
                Some(found) if *found == id => {}
                Some(found) => {
                    let reason = format!(
                        "{} is {found}, expected {id} from merges.txt; copy both files again",
                        quoted(name)
                    );
                    return Err(bad(&path, &reason));
                }
                None => {
                    let reason = format!(
                        "{} is missing, expected {id} from merges.txt; copy both files again",
                        quoted(name)
                    );
                    return Err(bad(&path, &reason));
                }
            }
        }
        if vocabulary.len() != expected.len() {
            let reason = format!(
                "has {} tokens, expected {} from merges.txt; copy both files again",
                vocabulary.len(),
                expected.len()
            );
            return Err(bad(&path, &reason));
        }
        Ok(tokenizer.padded(Padding::read(folder)?))
    }

    /// The same tokenizer with this padding.
    pub fn padded(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// A tokenizer from the text of `merges.txt`: a line with the version, then two tokens on each line.
    ///
    /// # Errors
    /// A reason in one line.
    pub fn from_merges(merges: &str, context: usize) -> Result<Self, String> {
        if !merges.starts_with("#version") {
            return Err("does not begin with #version; copy the file of the model again".into());
        }
        let merges = merges.trim_end();
        let most = u16::try_from(BYTES + 2 + merges.lines().count() - 1)
            .map_err(|_| "has more than 65021 merges; expected CLIP's 48894".to_owned())?;
        let merger = Merger::with_vocabulary(merges.as_bytes(), most)
            .map_err(|e| format!("{e}; copy the file of the model again"))?;
        if context < 3 {
            return Err(format!("a context of {context} tokens, expected at least 3"));
        }
        Ok(Self { merger, context, padding: Padding::End })
    }

    /// Number of tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        usize::from(self.merger.end_of_text().to_u16()) + 1
    }

    /// The tokens of a text: start, as much of the text as fits, the end, and padding to the length of the context.
    ///
    /// # Errors
    /// [`NetError::Prompt`] for a text with the name of a control token.
    pub fn encode(&self, text: &str) -> Result<Tokens, NetError> {
        // Letter by letter, as in transformers: a final sigma is a sigma.
        let text: String = text.nfc().flat_map(char::to_lowercase).collect();
        // The names of CLIP, and those that the crate takes for it.
        for name in ["<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<end_of_text>"] {
            if text.contains(name) {
                return Err(NetError::Prompt { name });
            }
        }
        let id = |token: Token| u32::from(token.to_u16());
        let end = id(self.merger.end_of_text());
        let (pieces, padding): (Vec<&str>, u32) = match self.padding {
            Padding::End => (vec![&text], end),
            Padding::Exclamation => (text.split(EXCLAMATION).collect(), 0),
        };
        let mut ids = vec![id(self.merger.start_of_text())];
        for (place, piece) in pieces.into_iter().enumerate() {
            if place > 0 {
                ids.push(padding);
            }
            let mut tokens = Vec::new();
            self.merger.encode(piece, &mut tokens);
            ids.extend(tokens.into_iter().map(id));
        }
        let dropped = (ids.len() + 1).saturating_sub(self.context);
        ids.truncate(self.context - 1);
        let place = ids.len();
        ids.push(end);
        ids.resize(self.context, padding);
        Ok(Tokens { ids, end: place, dropped })
    }
}

impl Padding {
    /// The padding of a folder `tokenizer`, as transformers finds it: `special_tokens_map.json` counts before
    /// `tokenizer_config.json`, unless that lists all added tokens (`added_tokens_decoder`). Without both it is the end.
    fn read(folder: &Path) -> Result<Self, NetError> {
        let paths = SETTINGS.map(|name| folder.join(name));
        let mut found = None;
        for path in paths {
            if !path.is_file() {
                continue;
            }
            let bad = |reason: String| NetError::Config { path: path.clone(), reason: cut_reason(&reason) };
            let settings: Map<String, Value> = from_json(&read_file(&path)?).map_err(bad)?;
            if let Some(token) = settings.get("pad_token").filter(|token| !token.is_null()) {
                let name = token.get("content").unwrap_or(token);
                found = Some(match name.as_str() {
                    Some("<|endoftext|>") => Self::End,
                    Some(EXCLAMATION) => Self::Exclamation,
                    _ => {
                        let reason = format!(
                            "pad_token is {token}, expected \"<|endoftext|>\" (Stable Diffusion 1) or \"!\" (Stable Diffusion \
                             2); no other padding is computed"
                        );
                        return Err(bad(reason));
                    }
                });
            }
            if settings.contains_key("added_tokens_decoder") {
                break;
            }
        }
        Ok(found.unwrap_or_default())
    }
}

/// The names of all tokens in their order: bytes as printable characters, bytes at the end of a word, merges, start and
/// end.
fn vocabulary_of(merges: &str) -> Vec<String> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut bytes: Vec<char> = (0..=255).filter(printable).map(char::from).collect();
    let others = (0..=255u8).filter(|byte| !printable(byte)).count();
    bytes.extend((256..).filter_map(char::from_u32).take(others));
    let whole = bytes.iter().map(|c| c.to_string());
    let ends = bytes.iter().map(|c| format!("{c}</w>"));
    let merged = merges.trim_end().lines().skip(1).map(|line| line.split_whitespace().collect());
    let control = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    whole.chain(ends).chain(merged).chain(control).collect()
}
