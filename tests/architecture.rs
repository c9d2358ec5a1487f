//! The house rules that a compiler does not know, read from the tokens of `src/**`.
//!
//! 1. Stairs only go down: who may import whom is [`TABLE`]; everything else is a finding, and so is a cycle.
//! 2. Files stay under 600 lines; no `#[allow]`; every `#[expect]` gives a reason.
//! 3. Only `clock` and `outbound` name `tokio::time`; only `config` reads environment variables; only
//!    `audit` and the rooms construct `Exposed`.
//! 4. Every `sql!` text in the store names `tenant_id`, or its function asks for a `SystemScope` (AP-03).
//!
//! Tokens rather than a syntax tree, since a tree ends at every macro: `tokio::select!`, `sql!` and
//! attributes are looked into like anything else. `#[cfg(test)]` items are left out of 1, 3 and 4: a test may
//! build its fixture from any floor. `#[cfg(any(test, …))]` is shipped code and is not left out.
//! Every rule has a self-test that feeds it a bad snippet.

#[path = "architecture/self_tests.rs"]
mod self_tests;
#[path = "architecture/tokens.rs"]
mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use tokens::{
    Finding, Source, attribute, group, ident, is_colons, is_punct, item_end, leave_out_test_files, line_of, paths,
    read_sources, walk,
};

/// From bottom to top: a stone may stand on those before it. All of them are open to everyone above.
const STONES: &[&str] =
    &["crash", "clock", "secret", "schema", "ids", "config", "telemetry", "health", "shutdown", "invalid", "caller"];
const ROOMS: &[&str] = &["accounts", "connections", "conversations", "credentials", "events", "workspaces"];

/// Who may import whom besides the stones. `ROOMS` stands for every room.
const TABLE: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("crypto", &[]),
    ("outbound", &[]),
    ("providers", &["outbound", "crypto"]),
    ("elevenlabs", &["outbound", "crypto"]),
    ("audit", &["store", "crypto"]),
    ("keys", &["store", "crypto", "audit"]),
    ("events", &["store", "keys", "outbound", "audit"]),
    ("accounts", &["store", "crypto", "keys", "outbound", "audit"]),
    ("workspaces", &["store", "keys", "elevenlabs", "audit"]),
    ("credentials", &["store", "keys", "providers", "outbound", "audit"]),
    ("connections", &["credentials", "store", "keys", "providers", "audit"]),
    (
        "conversations",
        &["credentials", "connections", "workspaces", "store", "keys", "elevenlabs", "outbound", "audit"],
    ),
    ("jobs", &["ROOMS", "keys", "audit"]),
    ("http", &["ROOMS", "keys", "audit"]),
    // The house never imports the shed; only the command line opens its door.
    ("sandbox", &[]),
    ("app", &["store", "crypto", "outbound", "providers", "elevenlabs", "audit", "keys", "ROOMS", "jobs", "http"]),
    ("cli", &["app", "ROOMS", "keys", "audit", "sandbox"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Macros that live at the crate's root by Rust's rules, and the module whose they are.
const ROOT_MACROS: &[(&str, &str)] = &[("sql", "store")];

const MOST_LINES: usize = 600;
const MANY_LINES: usize = 400;

/// Store functions whose statements touch no tenant's data at all (name, why).
const NO_TENANT_DATA: &[(&str, &str)] = &[];

// ---- rule 1: stairs only go down --------------------------------------------------------------

/// What `path` means inside `module`, from the crate's root; `None` when it is no path of this crate.
fn resolve(path: &[String], module: &[String], is_main: bool) -> Option<Vec<String>> {
    let mut place = module.to_vec();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => place.clear(),
        "valetkey" if is_main => place.clear(),
        "self" => {}
        "super" => {
            place.pop();
        }
        _ => return None,
    }
    rest = &rest[1..];
    while rest.first().is_some_and(|word| word == "super") {
        place.pop();
        rest = &rest[1..];
    }
    place.extend(rest.iter().filter(|word| *word != "self").cloned());
    Some(place)
}

/// Every module that `source` reaches, with the line.
fn reached(source: &Source) -> Vec<(usize, Vec<String>)> {
    let mut found = vec![];
    let is_main = source.path == "main.rs";
    let mut note = |tokens: &[TokenTree], at: usize, module: &[String], line: usize| {
        let renamed = ident(tokens.get(at + 1)).as_deref() == Some("as");
        if !is_colons(tokens, at + 1) && !renamed {
            return;
        }
        found.extend(
            paths(tokens, at).iter().filter_map(|path| resolve(path, module, is_main)).map(|path| (line, path)),
        );
    };
    walk(&source.shipped(), &mut source.module(), &mut |tokens, at, module| {
        let token = &tokens[at];
        if let TokenTree::Literal(literal) = token {
            // `#[serde(with = "crate::…")]`
            let text = literal.to_string();
            let inside = text.trim_matches('"');
            if (inside.starts_with("crate::") || inside.starts_with("super::"))
                && !inside.contains(' ')
                && let Ok(parsed) = inside.parse::<TokenStream>()
            {
                note(&parsed.into_iter().collect::<Vec<_>>(), 0, module, line_of(token));
            }
        } else if at < 2 || !is_colons(tokens, at - 2) {
            note(tokens, at, module, line_of(token));
        }
    });
    found
}

fn allowed(top: &str) -> Option<BTreeSet<&'static str>> {
    if let Some(place) = STONES.iter().position(|stone| *stone == top) {
        return Some(STONES[..place].iter().copied().collect());
    }
    let (_, row) = TABLE.iter().find(|(module, _)| *module == top)?;
    let mut all: BTreeSet<_> = STONES.iter().copied().collect();
    all.extend(row.iter().filter(|name| **name != "ROOMS"));
    if row.contains(&"ROOMS") {
        all.extend(ROOMS);
    }
    Some(all)
}

fn imports(sources: &[Source]) -> (Vec<Finding>, BTreeMap<String, BTreeSet<String>>) {
    let mut findings = vec![];
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let top = source.top();
        let Some(allowed) = allowed(&top) else {
            findings.push(source.finding(1, &format!("`{top}` stands in no row of the import table")));
            continue;
        };
        for (line, path) in reached(source) {
            let Some(target) = path.first().filter(|target| *target != "*") else {
                findings.push(source.finding(line, "imports or renames the crate's root as a whole"));
                continue;
            };
            let target =
                ROOT_MACROS.iter().find(|(name, _)| name == target).map_or(target.as_str(), |(_, owner)| owner);
            if target == top {
                continue;
            }
            graph.entry(top.clone()).or_default().insert(target.to_owned());
            if !allowed.contains(target) {
                findings.push(source.finding(line, &format!("`{top}` may not import `{target}`")));
            }
        }
    }
    (findings, graph)
}

/// One cycle of the graph, if there is any.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn descend(
        at: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        trail: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if trail.iter().any(|name| name == at) {
            trail.push(at.to_owned());
            return true;
        }
        if done.contains(at) {
            return false;
        }
        trail.push(at.to_owned());
        if graph.get(at).into_iter().flatten().any(|next| descend(next, graph, trail, done)) {
            return true;
        }
        trail.pop();
        done.insert(at.to_owned());
        false
    }
    let (mut trail, mut done) = (vec![], BTreeSet::new());
    graph.keys().any(|start| descend(start, graph, &mut trail, &mut done)).then_some(trail)
}

// ---- rules 2 to 4 -----------------------------------------------------------------------------

/// `#[allow(…)]` anywhere, and `#[expect(…)]` without a reason; in tests too.
fn lint_exceptions(source: &Source) -> Vec<Finding> {
    let mut findings = vec![];
    walk(&source.tokens(), &mut vec![], &mut |tokens, at, _| {
        let Some(inside) = attribute(tokens, at) else { return };
        walk(&inside, &mut vec![], &mut |tokens, at, _| {
            let Some(arguments) = group(tokens.get(at + 1), Delimiter::Parenthesis) else { return };
            let reason = arguments.iter().any(|token| ident(Some(token)).as_deref() == Some("reason"));
            match ident(tokens.get(at)).as_deref() {
                Some("allow") => {
                    findings.push(source.finding(line_of(&tokens[at]), "`allow`: say `expect` with a reason"))
                }
                Some("expect") if !reason => {
                    findings.push(source.finding(line_of(&tokens[at]), "`expect` without a reason"))
                }
                _ => {}
            }
        });
    });
    findings
}

/// Words that only some modules may say.
fn reserved_words(source: &Source) -> Vec<Finding> {
    let top = source.top();
    let mut findings = vec![];
    walk(&source.shipped(), &mut vec![], &mut |tokens, at, _| {
        let line = line_of(&tokens[at]);
        for path in paths(tokens, at) {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            let time = matches!(path[..], ["tokio", "time", ..]);
            if time && !["clock", "outbound"].contains(&top.as_str()) {
                findings.push(source.finding(line, "`tokio::time` belongs to `clock` and `outbound`"));
            }
            let variable =
                matches!(path[..], ["std", "env", name, ..] | ["env", name, ..] if name == "*" || name.contains("var"));
            let starts = at < 2 || !is_colons(tokens, at - 2);
            if variable && starts && top != "config" {
                findings.push(source.finding(line, "only `config` reads environment variables"));
            }
        }
        let exposed = ident(tokens.get(at)).as_deref() == Some("Exposed") && constructs(tokens, at);
        if exposed && top != "audit" && !ROOMS.contains(&top.as_str()) {
            findings.push(source.finding(line, "`Exposed` is constructed by `audit` and the rooms only"));
        }
    });
    findings
}

/// `Name(…)`, `Name::…` or `Name {…}`, but not `-> Name {`, `impl Name {` or `impl X for Name {`.
fn constructs(tokens: &[TokenTree], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    let declared = before.is_some_and(|token| is_punct(token, '>'))
        || ["for", "impl", "struct", "enum"].contains(&ident(before).unwrap_or_default().as_str());
    let next = tokens.get(at + 1);
    is_colons(tokens, at + 1)
        || (!declared && (group(next, Delimiter::Parenthesis).is_some() || group(next, Delimiter::Brace).is_some()))
}

/// `sql!` texts in `src/store` without a tenant, in functions without a `SystemScope`.
fn tenant_predicates(source: &Source) -> Vec<Finding> {
    if source.top() != "store" {
        return vec![];
    }
    let tokens = source.shipped();
    let constants = text_constants(&tokens);
    let mut findings = vec![];
    walk(&tokens, &mut vec![], &mut |tokens, at, _| {
        let Some((name, parameters, body)) = function(tokens, at) else { return };
        if contains_ident(&parameters, "SystemScope") || NO_TENANT_DATA.iter().any(|(known, _)| *known == name) {
            return;
        }
        walk(&body, &mut vec![], &mut |tokens, at, _| {
            let Some((line, text)) = sql_text(tokens, at, &constants) else { return };
            if text.is_empty() {
                findings.push(source.finding(line, &format!("the text of `sql!` in `{name}` cannot be seen here")));
            } else if !text.contains("tenant_id") {
                findings.push(
                    source.finding(line, &format!("`sql!` in `{name}` names no tenant_id and has no SystemScope")),
                );
            }
        });
    });
    findings
}

/// Name, parameters and body of the function whose `fn` stands at `at`.
fn function(tokens: &[TokenTree], at: usize) -> Option<(String, Vec<TokenTree>, Vec<TokenTree>)> {
    if ident(tokens.get(at))? != "fn" {
        return None;
    }
    let name = ident(tokens.get(at + 1))?;
    let (mut depth, mut next) = (0_i32, at + 2);
    let parameters = loop {
        let token = tokens.get(next)?;
        let arrow = is_punct(&tokens[next - 1], '-');
        depth += i32::from(is_punct(token, '<')) - i32::from(is_punct(token, '>') && !arrow);
        if let (0, Some(parameters)) = (depth, group(Some(token), Delimiter::Parenthesis)) {
            break parameters;
        }
        next += 1;
    };
    let end = item_end(tokens, next);
    group(tokens.get(end - 1), Delimiter::Brace).map(|body| (name, parameters, body))
}

fn contains_ident(tokens: &[TokenTree], wanted: &str) -> bool {
    let mut found = false;
    walk(tokens, &mut vec![], &mut |tokens, at, _| found |= ident(tokens.get(at)).as_deref() == Some(wanted));
    found
}

/// `const NAME: &str = "…";`
fn text_constants(tokens: &[TokenTree]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(tokens, &mut vec![], &mut |tokens, at, _| {
        if ident(tokens.get(at)).as_deref() == Some("const")
            && let Some(name) = ident(tokens.get(at + 1))
        {
            found.insert(name, texts(&tokens[at..item_end(tokens, at)], &BTreeMap::new()));
        }
    });
    found
}

fn texts(tokens: &[TokenTree], constants: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    walk(tokens, &mut vec![], &mut |tokens, at, _| match &tokens[at] {
        TokenTree::Literal(literal) if literal.to_string().contains('"') => text.push_str(&literal.to_string()),
        TokenTree::Ident(name) => text.push_str(constants.get(&name.to_string()).map_or("", String::as_str)),
        _ => {}
    });
    text
}

fn sql_text(tokens: &[TokenTree], at: usize, constants: &BTreeMap<String, String>) -> Option<(usize, String)> {
    let called = ident(tokens.get(at))? == "sql" && is_punct(tokens.get(at + 1)?, '!');
    let TokenTree::Group(arguments) = tokens.get(at + 2).filter(|_| called)? else { return None };
    Some((line_of(&tokens[at]), texts(&arguments.stream().into_iter().collect::<Vec<_>>(), constants)))
}

// ---- the house as it stands -------------------------------------------------------------------

fn each(rule: fn(&Source) -> Vec<Finding>) -> Vec<Finding> {
    leave_out_test_files(read_sources()).iter().flat_map(rule).collect()
}

#[track_caller]
fn assert_clean(findings: &[Finding]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn stairs_only_go_down() {
    let (findings, graph) = imports(&leave_out_test_files(read_sources()));
    assert_clean(&findings);
    assert_eq!(cycle(&graph), None);
}

#[test]
fn the_table_itself_has_no_cycle_and_names_every_room() {
    let modules = STONES.iter().copied().chain(TABLE.iter().map(|(module, _)| *module));
    let graph: BTreeMap<_, BTreeSet<_>> = modules
        .map(|module| (module.to_owned(), allowed(module).into_iter().flatten().map(str::to_owned).collect()))
        .collect();
    assert_eq!(cycle(&graph), None);
    assert!(ROOMS.iter().all(|room| graph.contains_key(*room)));
    assert!(graph.values().flatten().all(|target| graph.contains_key(target)));
}

#[test]
fn no_file_is_longer_than_a_story() {
    let mut findings = vec![];
    for source in read_sources() {
        match source.text.lines().count() {
            lines if lines > MOST_LINES => findings.push(source.finding(lines, "too long: split it by story")),
            lines if lines > MANY_LINES => eprintln!("getting long: src/{} has {lines} lines", source.path),
            _ => {}
        }
    }
    assert_clean(&findings);
}

#[test]
fn lint_exceptions_are_expected_and_give_a_reason() {
    assert_clean(&read_sources().iter().flat_map(lint_exceptions).collect::<Vec<_>>());
}

#[test]
fn time_environment_and_exposed_stay_where_they_belong() {
    assert_clean(&each(reserved_words));
}

/// AP-03, first wall.
#[test]
fn every_statement_on_tenant_data_names_its_tenant() {
    assert_clean(&each(tenant_predicates));
}

#[test]
fn the_root_only_lists_modules() {
    let root = read_sources().into_iter().find(|source| source.path == "lib.rs");
    assert!(
        root.is_some_and(|root| !contains_ident(&root.shipped(), "use")),
        "lib.rs re-exports nothing: import by floor"
    );
}
