//! No function of the store goes without a story.

use std::fs;
use std::path::{Path, PathBuf};

use syn::{ImplItem, Item, Visibility};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Names of the public functions and methods of one file, outside of its tests.
fn public_functions(path: &Path) -> Vec<String> {
    let file = syn::parse_file(&fs::read_to_string(path).expect("a file")).expect("Rust");
    let mut names = vec![];
    for item in file.items {
        match item {
            Item::Fn(function) if is_public(&function.vis) => names.push(function.sig.ident.to_string()),
            Item::Impl(block) => names.extend(block.items.into_iter().filter_map(|item| match item {
                ImplItem::Fn(method) if is_public(&method.vis) => Some(method.sig.ident.to_string()),
                _ => None,
            })),
            _ => {}
        }
    }
    names
}

/// `Type::name` as an argument: `.map(Store::migrate)`.
fn is_handed_over(before: &str, rest: &str) -> bool {
    before.ends_with("::") && rest.starts_with(')')
}

/// True when `text` calls `name`, also as a path and not as a part of a longer name.
fn calls(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let rest = &text[at + name.len()..];
        !text[..at].ends_with(is_word) && (rest.starts_with('(') || is_handed_over(&text[..at], rest))
    })
}

#[test]
fn every_public_function_of_the_store_occurs_in_the_contract() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let stories: String =
        sources(&store.join("contract")).iter().map(|path| fs::read_to_string(path).expect("a story")).collect();
    let mut functions: Vec<String> = sources(&store)
        .iter()
        .filter(|path| !path.ends_with("testing.rs"))
        .flat_map(|path| public_functions(path))
        .collect();
    functions.sort();
    assert!(functions.len() > 100, "the store was not read whole: {}", functions.len());
    let untold: Vec<_> = functions.iter().filter(|name| !calls(&stories, name)).collect();
    assert!(untold.is_empty(), "no story calls {untold:?}");
}

#[test]
fn a_call_is_told_from_a_longer_name_and_from_a_mention() {
    assert!(calls("a::user_erase(tx)", "user_erase"));
    assert!(!calls("not_user_erase(tx)", "user_erase"));
    assert!(calls(".map(Store::migrate)", "migrate"));
    assert!(!calls("use user_erase;", "user_erase"));
    assert!(!calls("user_erased()", "user_erase"));
}
