//! The search for secrets: in clear, cut into pieces, and in every encoding in which a program writes text (SH-01).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// The word inside every secret of the sandbox.
const MARKER: &str = "vkcanary";
/// Pieces of a secret of this many bytes are as bad as the whole.
const PIECE: usize = 16;
/// What the index looks at; shorter texts are not searched for.
const HEAD: usize = 8;

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    AccessToken,
    RefreshToken,
    ClientSecret,
    Code,
    BotToken,
    PlatformKey,
    ToolHeader,
    Ticket,
    RelayLink,
    SignedUrl,
    Session,
    Link,
    CompletionCode,
    Password,
    RootKey,
    ElevenLabsKey,
    /// Put somewhere on purpose, to see whether it is found.
    Planted,
}

/// A secret where none may be.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where: a file, the log, an answer.
    pub sink: String,
    /// What, or none for the marker alone.
    pub kind: Option<Kind>,
    /// How it was written.
    pub form: &'static str,
}

struct Record {
    sink: String,
    allowed: Vec<Kind>,
    bytes: Vec<u8>,
}

/// Everything that is known to be secret, and everything in which it could show.
#[derive(Default)]
pub struct Known {
    secrets: BTreeMap<String, Kind>,
    records: Vec<Record>,
}

impl Known {
    /// `text` is a secret from now on, whenever it may have shown.
    pub fn learn(&mut self, kind: Kind, text: &str) {
        if text.len() >= HEAD && text != "not_connected" {
            self.secrets.insert(text.to_owned(), kind);
        }
    }

    /// Something that left the house. `allowed` are the kinds that it may carry.
    pub fn record(&mut self, sink: &str, allowed: &[Kind], bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.records.push(Record { sink: sink.to_owned(), allowed: allowed.to_vec(), bytes });
        }
    }

    /// Every secret in every record that may not carry it.
    pub fn search(&self) -> Vec<Finding> {
        let mut index = Index::default();
        for (form, bytes) in forms(MARKER) {
            index.add(None, form, bytes);
        }
        for (secret, kind) in &self.secrets {
            for (form, bytes) in forms(secret) {
                index.add(Some(*kind), form, bytes);
            }
            for piece in secret.as_bytes().windows(PIECE) {
                index.add(Some(*kind), "a piece", piece.to_vec());
            }
        }
        let mut findings = BTreeSet::new();
        for record in &self.records {
            for needle in index.hits(&record.bytes) {
                // The marker is in what an exit may carry, so there only whole secrets count.
                let excused = match needle.kind {
                    Some(kind) => record.allowed.contains(&kind),
                    None => !record.allowed.is_empty(),
                };
                if !excused {
                    let sink = record.sink.clone();
                    findings.insert(Finding { sink, kind: needle.kind, form: needle.form });
                }
            }
        }
        findings.into_iter().collect()
    }
}

/// A text in every encoding that is searched for.
pub fn forms(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = text.as_bytes();
    let utf16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let each = |write: &dyn Fn(u8) -> String| bytes.iter().map(|byte| write(*byte)).collect::<String>().into_bytes();
    let mut forms = vec![
        ("clear", bytes.to_vec()),
        ("reversed", bytes.iter().rev().copied().collect()),
        ("hex", HEXLOWER.encode(bytes).into_bytes()),
        ("hex", HEXUPPER.encode(bytes).into_bytes()),
        ("UTF-16", utf16(u16::to_le_bytes)),
        ("UTF-16", utf16(u16::to_be_bytes)),
        ("JSON", each(&|byte| format!("\\u{byte:04x}"))),
        ("JSON", text.replace('/', "\\/").into_bytes()),
        ("percent", each(&|byte| format!("%{byte:02x}"))),
        ("percent", each(&|byte| format!("%{byte:02X}"))),
        ("percent", url::form_urlencoded::byte_serialize(bytes).collect::<String>().into_bytes()),
        ("byte list", bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes()),
    ];
    // Base64 depends on where in the encoded text the secret begins; what its neighbours colour is cut off.
    for skipped in 0..3 {
        let shifted = [&b"\0\0"[..skipped], bytes].concat();
        let whole = shifted.len() / 3 * 3;
        let cut = |encoded: String| encoded.into_bytes()[[0, 2, 3][skipped]..].to_vec();
        forms.push(("base64", cut(BASE64.encode(&shifted[..whole]))));
        forms.push(("base64url", cut(BASE64URL_NOPAD.encode(&shifted[..whole]))));
    }
    forms
}

struct Needle {
    kind: Option<Kind>,
    form: &'static str,
    bytes: Vec<u8>,
}

/// Needles by their first bytes, with a small table in front for the many places where nothing begins.
struct Index {
    begins: Vec<bool>,
    by_head: HashMap<[u8; HEAD], Vec<Needle>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { begins: vec![false; 1 << 16], by_head: HashMap::new() }
    }
}

impl Index {
    fn add(&mut self, kind: Option<Kind>, form: &'static str, bytes: Vec<u8>) {
        let Some(head) = bytes.first_chunk::<HEAD>().copied() else { return };
        self.begins[usize::from(u16::from_le_bytes([head[0], head[1]]))] = true;
        self.by_head.entry(head).or_default().push(Needle { kind, form, bytes });
    }

    fn hits<'a>(&'a self, hay: &'a [u8]) -> impl Iterator<Item = &'a Needle> {
        (0..hay.len().saturating_sub(HEAD - 1))
            .filter(|at| self.begins[usize::from(u16::from_le_bytes([hay[*at], hay[*at + 1]]))])
            .filter_map(|at| Some((at, self.by_head.get(hay[at..].first_chunk::<HEAD>()?)?)))
            .flat_map(move |(at, needles)| needles.iter().filter(move |needle| hay[at..].starts_with(&needle.bytes)))
    }
}
