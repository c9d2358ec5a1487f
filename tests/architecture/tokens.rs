//! Reading: source files as tokens, with test code left out, and the paths in them.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

/// A place and what is wrong there.
pub(super) type Finding = String;

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// `store/bell.rs` → store, bell. The roots are called `main` and `lib`, with an empty path.
    pub(super) fn module(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if stem == "main" || stem == "lib" { vec![] } else { stem.split('/').map(str::to_owned).collect() }
    }

    pub(super) fn top(&self) -> String {
        self.module().first().cloned().unwrap_or_else(|| self.path.trim_end_matches(".rs").to_owned())
    }

    pub(super) fn tokens(&self) -> Vec<TokenTree> {
        match syn::parse_file(&self.text).and_then(|_| Ok(self.text.parse::<TokenStream>()?)) {
            Ok(tokens) => tokens.into_iter().collect(),
            Err(error) => panic!("src/{} does not parse: {error}", self.path),
        }
    }

    pub(super) fn shipped(&self) -> Vec<TokenTree> {
        without_tests(self.tokens())
    }

    pub(super) fn finding(&self, line: usize, what: &str) -> Finding {
        format!("src/{}:{line}: {what}", self.path)
    }
}

pub(super) fn read_sources() -> Vec<Source> {
    fn visit(folder: &Path, root: &Path, found: &mut Vec<Source>) {
        let Ok(entries) = fs::read_dir(folder) else { panic!("cannot read {}", folder.display()) };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.is_dir() {
                visit(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let Ok(text) = fs::read_to_string(&path) else { panic!("cannot read {}", path.display()) };
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                found.push(Source { path: name, text });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![];
    visit(&root, &root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "src/ was not found whole");
    found
}

/// Files that are test modules as a whole: `#[cfg(test)] mod tests;` in their parent, or `#![cfg(test)]`.
pub(super) fn leave_out_test_files(sources: Vec<Source>) -> Vec<Source> {
    let mut tests = vec![];
    for source in &sources {
        walk(&source.tokens(), &mut source.module(), &mut |tokens, at, module| {
            let end = if is_test_attribute(tokens, at) { item_end(tokens, at) } else { at };
            if let [.., TokenTree::Ident(word), TokenTree::Ident(name), last] = &tokens[at..end]
                && word == "mod"
                && is_punct(last, ';')
            {
                tests.push([module, &[name.to_string()]].concat());
            }
        });
    }
    sources.into_iter().filter(|source| !tests.iter().any(|test| source.module().starts_with(test))).collect()
}

pub(super) fn ident(token: Option<&TokenTree>) -> Option<String> {
    if let Some(TokenTree::Ident(word)) = token { Some(word.to_string()) } else { None }
}

pub(super) fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

pub(super) fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<Vec<TokenTree>> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group.stream().into_iter().collect()),
        _ => None,
    }
}

pub(super) fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at..at + 2), Some([a, b]) if is_punct(a, ':') && is_punct(b, ':'))
}

pub(super) fn line_of(token: &TokenTree) -> usize {
    token.span().start().line
}

/// The inside of `#[…]` or `#![…]` at `at`.
pub(super) fn attribute(tokens: &[TokenTree], at: usize) -> Option<Vec<TokenTree>> {
    if !is_punct(tokens.get(at)?, '#') {
        return None;
    }
    let inner = usize::from(tokens.get(at + 1).is_some_and(|token| is_punct(token, '!')));
    group(tokens.get(at + 1 + inner), Delimiter::Bracket)
}

/// `#[cfg(test)]` and `#[cfg(all(test, …))]`.
pub(super) fn is_test_attribute(tokens: &[TokenTree], at: usize) -> bool {
    let Some(inside) = attribute(tokens, at) else { return false };
    let Some(condition) = group(inside.get(1), Delimiter::Parenthesis) else { return false };
    let is_test = |tokens: &[TokenTree]| ident(tokens.first()).as_deref() == Some("test");
    let all = (ident(condition.first()).as_deref() == Some("all"))
        .then(|| group(condition.get(1), Delimiter::Parenthesis))
        .flatten();
    ident(inside.first()).as_deref() == Some("cfg")
        && (is_test(&condition) || all.is_some_and(|all| all.split(|token| is_punct(token, ',')).any(is_test)))
}

/// Behind the item that begins at `at`: after its first braces or its semicolon.
pub(super) fn item_end(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| is_punct(token, ';') || group(Some(token), Delimiter::Brace).is_some();
    tokens[at..].iter().position(ends).map_or(tokens.len(), |found| at + found + 1)
}

pub(super) fn without_tests(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let mut kept = vec![];
    let mut at = 0;
    while at < tokens.len() {
        if is_test_attribute(&tokens, at) {
            if is_punct(&tokens[at + 1], '!') {
                return vec![];
            }
            at = item_end(&tokens, at);
            continue;
        }
        kept.push(match &tokens[at] {
            TokenTree::Group(group) => {
                let inside = without_tests(group.stream().into_iter().collect());
                let mut copy = proc_macro2::Group::new(group.delimiter(), inside.into_iter().collect());
                copy.set_span(group.span());
                TokenTree::Group(copy)
            }
            other => other.clone(),
        });
        at += 1;
    }
    kept
}

/// Gets the tokens of one group, a place among them, and the inline module around them.
type Visit<'a> = &'a mut dyn FnMut(&[TokenTree], usize, &[String]);

/// Calls `visit(tokens, at, module)` for every token, inside groups too, with the inline module it stands in.
pub(super) fn walk(tokens: &[TokenTree], module: &mut Vec<String>, visit: Visit<'_>) {
    for (at, token) in tokens.iter().enumerate() {
        visit(tokens, at, module);
        let TokenTree::Group(inner) = token else { continue };
        let inside: Vec<_> = inner.stream().into_iter().collect();
        let named =
            at >= 2 && inner.delimiter() == Delimiter::Brace && ident(tokens.get(at - 2)).as_deref() == Some("mod");
        let name = if named { ident(tokens.get(at - 1)) } else { None };
        module.extend(name.clone());
        walk(&inside, module, visit);
        if name.is_some() {
            module.pop();
        }
    }
}

/// All paths that begin with the word at `at`: `a::b::{c, d::*}` gives a b c and a b d *.
pub(super) fn paths(tokens: &[TokenTree], at: usize) -> Vec<Vec<String>> {
    let Some(word) = ident(tokens.get(at)) else {
        return if tokens.get(at).is_some_and(|token| is_punct(token, '*')) {
            vec![vec!["*".to_owned()]]
        } else {
            vec![]
        };
    };
    if !is_colons(tokens, at + 1) {
        return vec![vec![word]];
    }
    let tails = match group(tokens.get(at + 3), Delimiter::Brace) {
        Some(inside) => inside.split(|token| is_punct(token, ',')).flat_map(|part| paths(part, 0)).collect(),
        None => paths(tokens, at + 3),
    };
    let join = |tail: Vec<String>| [vec![word.clone()], tail].concat();
    if tails.is_empty() { vec![vec![word]] } else { tails.into_iter().map(join).collect() }
}
