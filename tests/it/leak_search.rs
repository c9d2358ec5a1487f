//! The search proves itself: a secret planted in every sink, in every form, is found (SH-01).

use std::collections::BTreeSet;

use crate::harness::{Kind, Known, TestApp};
use crate::support::leaks::forms;

#[test]
fn a_secret_is_found_in_every_form_in_clear_and_cut_to_pieces() {
    // SH-01
    let secret = "Qp/7:x+Zk9=mN2_tR8-wL4vB";
    for (form, bytes) in forms(secret) {
        let mut known = Known::default();
        known.learn(Kind::Planted, secret);
        known.record("somewhere", &[], [b"before ", bytes.as_slice(), b" after"].concat());
        let found = known.search();
        assert!(found.iter().any(|one| one.kind == Some(Kind::Planted)), "{form} is not found");
    }
    let mut known = Known::default();
    known.learn(Kind::Planted, secret);
    known.record("a piece", &[], secret.as_bytes()[4..20].to_vec());
    known.record("too little", &[], secret.as_bytes()[4..19].to_vec());
    known.record("the word", &[], b"a vkcanary sings".to_vec());
    known.record("an exit", &[Kind::Planted], secret.as_bytes().to_vec());
    known.record("another's exit", &[Kind::AccessToken], secret.as_bytes().to_vec());
    let sinks: BTreeSet<String> = known.search().into_iter().map(|one| one.sink).collect();
    assert_eq!(sinks.into_iter().collect::<Vec<_>>(), ["a piece", "another's exit", "the word"]);
}

/// Plants one leak per sink and gives where the search found it.
async fn planted(app: TestApp) -> BTreeSet<String> {
    // Without the marker, so that other tests of this process do not find it in the metrics they share.
    let secret = format!("planted-{}", data_encoding::HEXLOWER.encode(&rand_bytes(&app)));
    app.known.borrow_mut().learn(Kind::Planted, &secret);
    tracing::debug!(target: "valetkey::planted", secret = %secret, "a careless line");
    metrics::counter!("valetkey_planted_total", "secret" => secret.clone()).increment(1);
    app.database.execute(&format!("UPDATE tenants SET name = '{secret}' WHERE name = 'acme'")).await;
    // A name is an answer that may carry no secret.
    let platform = app.platform_key(&["all"]).await;
    platform.read("/v1/me").await.ok();
    // What the agent is told, its model reads.
    let desk = app.desk(&platform, serde_json::json!({"needs": []})).await;
    let body = serde_json::json!({"agent_id": desk.agent_id, "user": "u-1", "channel": {"type": "websocket"},
        "dynamic_variables": {"topic": secret}});
    let mut started = platform.post("/v1/conversations", &body).await.ok();
    started["initiation"]["dynamic_variables"]["secret__user_google_authorization"] = "not_connected".into();
    let mut talk = app.talk_directly(&started).await;
    talk.event("conversation_initiation_metadata").await;
    assert_eq!(talk.ask("good morning").await, "You said: good morning");
    talk.hang_up().await;
    let findings = app.search().await;
    let of_mine = findings.into_iter().filter(|one| one.kind == Some(Kind::Planted));
    of_mine.map(|one| one.sink).collect()
}

fn rand_bytes(app: &TestApp) -> [u8; 16] {
    app.rooms().around.random()
}

#[tokio::test]
async fn a_secret_planted_in_every_sink_is_found() {
    // SH-01
    let found = planted(TestApp::start().await).await;
    for sink in ["log", "/metrics", "answer to GET /v1/me", "ElevenLabs model_view", "ElevenLabs post_call"] {
        assert!(found.contains(sink), "{sink} was not searched: {found:?}");
    }
    let files: Vec<_> = found.iter().filter(|sink| sink.starts_with("database vault.db")).collect();
    assert!(files.iter().any(|sink| sink.ends_with("-wal while it ran")), "{files:?}");
    assert!(files.iter().any(|sink| sink.ends_with("at rest")), "{files:?}");
}

#[tokio::test]
async fn a_secret_planted_in_postgres_is_found() {
    // SH-01
    let wishes = crate::harness::Wishes { postgres: true, ..Default::default() };
    let Some(app) = TestApp::start_with(wishes).await else { return };
    let found = planted(app).await;
    assert!(found.contains("database table tenants while it ran"), "{found:?}");
}

#[tokio::test]
#[should_panic(expected = "a story must end with")]
async fn an_app_that_is_not_searched_fails_its_test() {
    drop(TestApp::start().await);
}
