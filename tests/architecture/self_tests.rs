//! Every rule is fed a bad snippet and has to see it.

use super::tokens::{Source, leave_out_test_files};
use super::{cycle, imports, lint_exceptions, reserved_words, tenant_predicates};

fn import_findings(path: &str, text: &str) -> usize {
    imports(&[Source::new(path, text)]).0.len()
}

#[test]
fn forbidden_imports_are_seen_in_every_spelling() {
    for bad in [
        "use crate::store::Tx;",
        "use crate::{clock::Millis, store};",
        "use crate::{ids, providers::{self, google}};",
        "fn f() { let _ = crate::crypto::seal(); }",
        "fn f(x: &super::super::outbound::Client) {}",
        "fn f() { tokio::select! { _ = crate::elevenlabs::call() => {} } }",
        "mod inner { use super::super::super::store::Tx; }",
        "#[serde(with = \"crate::store::text\")] struct S;",
        "use crate::sandbox::Street;",
        "use crate::app::App;",
        "use crate as house;",
        "use crate::*;",
        "use super::super::*;",
        "fn f() { crate::sql!(tx, \"select 1\"); }",
        "#[cfg(any(test, feature = \"sandbox\"))] mod m { use crate::store::Tx; }",
        "use crate::unknown::X;",
    ] {
        assert_ne!(import_findings("http/pages.rs", bad), 0, "{bad}");
    }
}

#[test]
fn permitted_imports_are_left_alone() {
    for good in [
        "use crate::{caller::Caller, connections, keys::Ring};",
        "use super::problem::Problem; use self::inner::X; pub(crate) struct S;",
        "#[cfg(test)] mod tests { use crate::store::Tx; }",
        "#[cfg(all(test, feature = \"sandbox\"))] mod tests { use crate::store::Tx; }",
        "fn f() { let text = \"crate::store is only mentioned\"; }",
        "// use crate::store::Tx;\nmod inner { use super::x; }",
    ] {
        assert_eq!(import_findings("http/pages.rs", good), 0, "{good}");
    }
}

#[test]
fn rows_of_stones_roof_and_shed_are_kept() {
    assert_eq!(import_findings("clock.rs", "use crate::caller::Caller;"), 1);
    assert_eq!(import_findings("caller.rs", "use crate::ids::UserId;"), 0);
    assert_eq!(import_findings("sandbox/mod.rs", "use crate::outbound::Client;"), 1);
    assert_eq!(import_findings("app.rs", "use crate::sandbox::Street;"), 1);
    assert_eq!(import_findings("cli/demo.rs", "use crate::sandbox::Street;"), 0);
    assert_eq!(import_findings("main.rs", "use valetkey::{cli, store};"), 1);
    assert_eq!(import_findings("attic.rs", ""), 1);
}

#[test]
fn a_cycle_is_seen_and_a_declared_test_file_is_left_out() {
    let ring = [Source::new("keys/mod.rs", "use crate::audit::x;"), Source::new("audit/mod.rs", "use crate::keys::x;")];
    assert!(cycle(&imports(&ring).1).is_some());
    let pair = || {
        vec![
            Source::new("http/mod.rs", "#[cfg(test)]\nmod tests;"),
            Source::new("http/tests.rs", "use crate::store::Tx;"),
        ]
    };
    assert_eq!(imports(&pair()).0.len(), 1);
    assert!(imports(&leave_out_test_files(pair())).0.is_empty());
}

#[test]
fn lint_exceptions_are_seen() {
    for bad in [
        "#[allow(dead_code)] fn f() {}",
        "#![allow(unused)]",
        "#[expect(dead_code)] fn f() {}",
        "#[cfg_attr(test, allow(dead_code))] fn f() {}",
    ] {
        assert_eq!(lint_exceptions(&Source::new("jobs.rs", bad)).len(), 1, "{bad}");
    }
    let good = "#[expect(dead_code, reason = \"why\")] fn allow() { x.expect(\"a\"); allow(); }";
    assert!(lint_exceptions(&Source::new("jobs.rs", good)).is_empty());
}

#[test]
fn reserved_words_are_seen() {
    for bad in [
        "fn f() { tokio::time::sleep(d); }",
        "use tokio::{sync, time::Duration};",
        "fn f() { std::env::var(\"X\"); }",
        "use std::env; fn f() { env::var_os(\"X\"); }",
        "use std::{env::vars, fs};",
        "fn f() { Exposed::new(x) }",
        "fn f() -> Exposed { Exposed { token } }",
    ] {
        assert!(!reserved_words(&Source::new("http/api.rs", bad)).is_empty(), "{bad}");
    }
    for (path, good) in [
        ("clock.rs", "fn f() { tokio::time::sleep(d); }"),
        ("config.rs", "fn f() { std::env::var(\"X\"); }"),
        ("credentials/read.rs", "fn f() { Exposed::new(x) }"),
        (
            "http/api.rs",
            "fn f(x: &Exposed) -> Exposed { std::env::args(); x.render() } impl Exposed {} impl A for Exposed {}",
        ),
    ] {
        assert!(reserved_words(&Source::new(path, good)).is_empty(), "{good}");
    }
}

#[test]
fn statements_without_a_tenant_are_seen() {
    for bad in [
        "async fn f(tx: &mut Tx) { sql!(tx, \"select 1 from users\").await }",
        "fn f<F: Fn(u8) -> Vec<u8>>(scope: TenantScope) { x(sql!(tx, \"delete from users\")); }",
        "const Q: &str = \"select id from users\"; impl A { fn f(&self) { sql!(tx, Q) } }",
        "fn f(text: &'static str) { sql!(tx, text) }",
        "fn f() { sql!(tx, \"select tenant_id from a\"); sql!(tx, \"select b from b\"); }",
    ] {
        assert_eq!(tenant_predicates(&Source::new("store/users.rs", bad)).len(), 1, "{bad}");
    }
    for good in [
        "fn f() { sql!(tx, \"select 1 from users where tenant_id = $1\") }",
        "const Q: &str = \"where tenant_id = $1\"; fn f() { sql!(tx, Q) }",
        "fn f(_: &SystemScope) { sql!(tx, \"select 1 from jobs\") }",
        "#[cfg(test)] mod tests { fn f() { sql!(tx, \"select 1\") } }",
    ] {
        assert!(tenant_predicates(&Source::new("store/users.rs", good)).is_empty(), "{good}");
    }
}
