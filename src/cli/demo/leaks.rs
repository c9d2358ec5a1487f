//! The leak search: every secret of the demo, in every form in which it could hide, in every place where none may be.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use serde_json::{Value, json};

/// Where no secret may ever be, in the order of API.md section 1.
pub(super) const PLACES: [&str; 7] =
    ["model_view", "transcript", "post_call", "logs", "metrics", "browser", "database"];
/// Shorter texts are found by chance.
const SHORTEST: usize = 8;

/// What was found where, as bytes.
pub(super) type Places = BTreeMap<&'static str, Vec<u8>>;

/// A secret that must not be found, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Hidden {
    pub(super) what: String,
    pub(super) value: String,
    /// Whether the person's browser has it by design: a link in its own address bar, a code that OAuth passes through
    /// it (RFC 6749 section 4.1.2), its session's cookie. It is looked for everywhere else.
    pub(super) browser_may: bool,
}

/// One form of one secret.
struct Needle {
    bytes: Vec<u8>,
    hidden: usize,
}

/// All forms of all secrets, found in one pass over a text.
pub(super) struct Search {
    hidden: Vec<Hidden>,
    needles: Vec<Needle>,
    /// Needles by their first two bytes.
    by_start: Vec<Vec<usize>>,
}

/// One finding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) place: &'static str,
    pub(super) what: String,
    pub(super) at: usize,
}

impl Search {
    pub(super) fn new(hidden: Vec<Hidden>) -> Self {
        let mut needles: Vec<Needle> = Vec::new();
        for (index, one) in hidden.iter().enumerate().filter(|(_, one)| one.value.len() >= SHORTEST) {
            for bytes in forms(&one.value) {
                if !needles.iter().any(|known| known.bytes == bytes) {
                    needles.push(Needle { bytes, hidden: index });
                }
            }
        }
        let mut by_start = vec![Vec::new(); 1 << 16];
        for (index, needle) in needles.iter().enumerate() {
            by_start[start(&needle.bytes)].push(index);
        }
        Self { hidden, needles, by_start }
    }

    /// How many secrets are looked for, and in how many forms.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.hidden.len(), self.needles.len())
    }

    /// Every hit in every place.
    pub(super) fn look(&self, places: &Places) -> Vec<Hit> {
        places.iter().flat_map(|(place, bytes)| self.look_in(place, bytes)).collect()
    }

    fn look_in(&self, place: &'static str, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for at in 0..bytes.len().saturating_sub(1) {
            let rest = &bytes[at..];
            for needle in self.by_start[start(rest)].iter().map(|index| &self.needles[*index]) {
                let hidden = &self.hidden[needle.hidden];
                if rest.starts_with(&needle.bytes) && !(place == "browser" && hidden.browser_may) {
                    hits.push(Hit { place, what: hidden.what.clone(), at });
                }
            }
        }
        hits
    }
}

fn start(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// The secret itself; in hex; in both base64 alphabets at each of the three offsets that it can have inside a longer
/// text; percent-encoded, wholly or where it must be.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let mut forms = vec![secret.to_owned(), HEXLOWER.encode(bytes), HEXUPPER.encode(bytes)];
    for offset in 0..3 {
        // What stands before and after changes the characters at the edges, so only those in between are looked for.
        let padded = [vec![0; offset], bytes.to_vec()].concat();
        let skip = (offset * 8).div_ceil(6);
        let whole = padded.len() * 8 / 6;
        for encoded in [BASE64_NOPAD.encode(&padded), BASE64URL_NOPAD.encode(&padded)] {
            forms.push(encoded.get(skip..whole).unwrap_or_default().to_owned());
        }
    }
    forms.push(url::form_urlencoded::byte_serialize(bytes).collect());
    forms.push(bytes.iter().map(|byte| format!("%{byte:02X}")).collect());
    forms.push(bytes.iter().map(|byte| format!("%{byte:02x}")).collect());
    forms.into_iter().filter(|form| form.len() >= SHORTEST).map(String::into_bytes).collect()
}

/// Counts as API.md section 1 wants them: every place, also those without a hit.
pub(super) fn counts(hits: &[Hit]) -> Value {
    PLACES
        .iter()
        .map(|place| ((*place).to_owned(), json!(hits.iter().filter(|hit| hit.place == *place).count())))
        .collect()
}

/// The database's own bytes: its file, its write-ahead log and its journal. The key stands beside it on purpose, and
/// is looked for in it.
pub(super) fn database_bytes(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = std::fs::read(file)?;
    for tail in ["-wal", "-journal"] {
        let mut name = file.as_os_str().to_owned();
        name.push(tail);
        match std::fs::read(name) {
            Ok(more) => bytes.extend(more),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, BASE64URL};

    use super::*;

    const SECRET: &str = "123456:vkcanary/abc+def";

    fn search() -> Search {
        Search::new(vec![
            Hidden { what: "bot token".to_owned(), value: SECRET.to_owned(), browser_may: false },
            Hidden { what: "link".to_owned(), value: "vkr_0123456789".to_owned(), browser_may: true },
        ])
    }

    fn found(place: &'static str, text: &str) -> usize {
        search().look(&Places::from([(place, text.as_bytes().to_vec())])).len()
    }

    #[test]
    fn a_secret_is_found_in_every_form_and_at_every_offset() {
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for form in [
            SECRET.to_owned(),
            HEXLOWER.encode(SECRET.as_bytes()),
            HEXUPPER.encode(SECRET.as_bytes()),
            url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect(),
            percent,
        ] {
            assert!(found("logs", &format!("before {form} after")) > 0, "{form}");
        }
        for before in ["", "a", "ab", "abc"] {
            let inside = format!("{before}{SECRET}{before}");
            assert!(found("logs", &BASE64.encode(inside.as_bytes())) > 0, "{before}");
            assert!(found("logs", &BASE64URL.encode(inside.as_bytes())) > 0, "{before}");
        }
        assert_eq!(found("logs", "123456:vkcanary/abc+de"), 0);
    }

    #[test]
    fn what_a_browser_must_have_is_a_leak_everywhere_else() {
        assert_eq!(found("browser", "t=vkr_0123456789"), 0);
        assert_eq!(found("logs", "t=vkr_0123456789"), 1);
    }

    #[test]
    fn every_place_is_counted() {
        let hits = [Hit { place: "logs", what: "x".to_owned(), at: 0 }];
        let expected = json!({"model_view": 0, "transcript": 0, "post_call": 0, "logs": 1, "metrics": 0, "browser": 0, "database": 0});
        assert_eq!(counts(&hits), expected);
    }
}
