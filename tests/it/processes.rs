//! Real processes of the program on one PostgreSQL database, with real time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use futures_util::future::join_all;
use serde_json::json;
use valetkey::clock::{Millis, Surroundings};

use crate::harness::{Account, Client, Database, Kind, Known, Street, http_client};
use crate::program::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_postgres_database_share_one_refresh() {
    // RL-02
    let Some(database) = Database::postgres().await else { return };
    let street = Street::open(&Surroundings::system(), true).await;
    let mut bench = Bench::new().with("VALETKEY_DATABASE_URL", &database.url());
    for (name, value) in street.sandbox.settings() {
        bench = bench.with(&name, &value);
    }
    let nodes = [bench.serve(), bench.serve()];
    bench.json(&["tenant", "create", "acme", "--environment", "test", "--json"]);
    let made = bench.json(&["api-key", "create", "--tenant", "acme", "--name", "b", "--scopes", "all", "--json"]);
    let known = Rc::new(RefCell::new(Known::default()));
    let clients = nodes.each_ref().map(|node| {
        let base = format!("http://{}", node.public).parse().expect("a URL");
        Client::new(http_client(), base, known.clone()).with_key(made["secret"].as_str().expect("a secret"))
    });

    street.integrate(&clients[0]).await;
    let tokens = street.slack_tokens(Account::ADA).await;
    let scopes: Vec<&str> = tokens["scope"].as_str().expect("scopes").split(',').collect();
    let row = json!({"user": "u-1", "provider": "slack", "account": {"id": Account::ADA.slack}, "credentials": [{
        "kind": "user", "access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
        "expires_at": Millis(1_700_000_000_000).rfc3339(), "scopes": scopes}]});
    street.tell("/rotation", json!({"reuse": "family"})).await;
    street.fault("slack", "refresh", "delay_ms:200", 1).await;
    let moved = clients[0].post("/v1/connections/import", &json!({"connections": [row]})).await.ok();
    let path = format!("/v1/connections/{}/token", moved["data"][0]["id"].as_str().expect("an id"));
    let body = json!({});
    let calls = (0..50).map(|number| clients[number % 2].post(&path, &body));
    let got: Vec<String> = join_all(calls)
        .await
        .iter()
        .map(|got| got.ok()["access_token"].as_str().expect("a token").to_owned())
        .collect();

    assert_eq!(got.len(), 50);
    assert_eq!(BTreeSet::from_iter(got).len(), 1, "all got the same token, whichever process they asked");
    assert_eq!(street.counter("slack/token_requests/refresh_token").await, 1);
    assert_eq!(street.counter("slack/reuses").await, 0);
    let mut known = std::mem::take(&mut *known.borrow_mut());
    database.record(&mut known, "at the end").await;
    for node in nodes {
        let (status, _, log) = node.stop("TERM");
        assert_eq!(status, Some(0), "{log}");
        known.record("log", &[], log.into_bytes());
    }
    known.learn(Kind::RootKey, std::fs::read_to_string(bench.path("root.key")).expect("the key").trim());
    street.confess(&mut known);
    let findings = known.search();
    assert!(findings.is_empty(), "secrets were found (SH-01): {findings:#?}");
    database.drop_database().await;
}
