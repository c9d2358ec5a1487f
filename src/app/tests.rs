//! Several houses in one process, each with a clock and randomness of its own.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tower_sessions::SessionStore;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};

use super::*;
use crate::accounts::{NewTenant, Profile, Repeatable};
use crate::caller::{Caller, Origin};
use crate::clock::{Millis, SeededEntropy, TestClock};
use crate::config::HiddenText;
use crate::connections::{Begin, IntegrationDraft};
use crate::store::integrations::integration_pause;
use crate::store::testing::TEST;

const NEW_YEAR: Millis = Millis(1_798_761_600_000);

fn config(folder: &Path) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        bind: any,
        admin_bind: any,
        database_url: HiddenText(Secret::new(format!("sqlite:{}", folder.join("vault.db").display()))),
        root_key: Some(HiddenText(Secret::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))),
        ..Config::default()
    }
}

fn around(seed: u64) -> (TestClock, Surroundings) {
    let clock = TestClock::at(NEW_YEAR);
    (clock.clone(), Surroundings { clock: Arc::new(clock), entropy: Arc::new(SeededEntropy::new(seed)) })
}

#[tokio::test]
async fn several_houses_stand_in_one_process_and_close_in_good_order() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (_, first_around) = around(1);
    let (_, second_around) = around(2);
    let first = App::start(config(one.path()), first_around).await.expect("starts");
    let second = App::start(config(two.path()), second_around).await.expect("starts");
    assert_ne!(first.public, second.public);
    assert_eq!(first.public_url().as_str(), format!("http://{}/", first.public));

    let tenant = NewTenant { name: "acme".into(), ..NewTenant::default() };
    first.rooms().accounts.tenant_create(tenant.clone()).await.expect("made");
    second.rooms().accounts.tenant_create(tenant).await.expect("another house, another tenant");

    assert!(first.stop().await, "in good order");
    assert!(second.stop().await, "in good order");
}

#[tokio::test]
async fn the_command_line_sees_the_bound_address_of_the_house_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, surroundings) = around(3);
    let running = App::start(config(folder.path()), surroundings.clone()).await.expect("starts");
    let beside = App::open_for_cli(&config(folder.path()), surroundings.clone()).await.expect("opens beside it");
    assert_eq!((&beside.rooms.public_url, beside.is_found), (running.public_url(), true));
    beside.close().await;
    let told = |checks: Vec<Check>| checks.into_iter().find(|one| one.name == "public URL").expect("a check").detail;
    let looked = told(examine(&config(folder.path()), &surroundings).await);
    assert!(looked.contains(running.public_url().as_str()), "{looked}");

    // RL-30
    let again = App::start(config(folder.path()), surroundings.clone()).await;
    assert!(matches!(again, Err(StartError::Open(OpenError::InUse))), "one house per file");
    assert!(running.stop().await);
    let alone = App::open_for_cli(&config(folder.path()), surroundings.clone()).await.expect("opens");
    assert!(!alone.is_found, "the note went with the house");
    alone.close().await;
    for check in examine(&config(folder.path()), &surroundings).await {
        assert!(!check.detail.contains("127.0.0.1:0"), "port 0 is nobody's address: {}", check.detail);
    }
    let next = App::start(config(folder.path()), surroundings).await.expect("the file is free again");
    assert!(next.stop().await);
}

#[tokio::test]
async fn a_taken_address_is_named_by_its_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let mut config = config(folder.path());
    config.admin_bind = taken.local_addr().expect("an address");
    let refused = App::start(config, around(4).1).await.map(drop).expect_err("taken");
    assert!(refused.to_string().starts_with("VALETKEY_ADMIN_BIND"), "{refused}");
}

#[tokio::test]
async fn what_has_ended_is_thrown_away_and_nothing_sooner() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, surroundings) = around(5);
    let app = App::open_for_cli(&config(folder.path()), surroundings).await.expect("opens");
    let Rooms { accounts, connections, .. } = app.rooms.clone();
    let new = NewTenant { name: "acme".into(), confirm: Some("none".into()), ..NewTenant::default() };
    let operator = Caller::operator(accounts.tenant_create(new).await.expect("made").id);

    let sessions = accounts.session_store(Duration::from_secs(3600));
    let mut record = Record { id: Id(0), data: HashMap::new(), expiry_date: OffsetDateTime::UNIX_EPOCH };
    sessions.create(&mut record).await.expect("kept");
    let write = Repeatable { key: "k".into(), route: "POST /v1/x".into(), payload: Vec::new() };
    accounts.idempotency_begin(&operator, &write).await.expect("taken");
    let draft = IntegrationDraft {
        client_id: Some("c".into()),
        client_secret: Some(Secret::new("s")),
        scopes: Some(vec!["https://www.googleapis.com/auth/gmail.readonly".into()]),
        ..IntegrationDraft::default()
    };
    connections.integration_put(&operator, "google", draft).await.expect("set");
    let user = accounts.user_put(&operator, "u-1", Profile::default()).await.expect("made");
    let person = Caller::end_user(operator.tenant().clone(), user.id, Origin::default());
    let begin = Begin { provider: "google", browser: &Secret::new("cookie"), reconnects: None };
    connections.begin(&person, begin).await.expect("begun");

    // A handshake lasts ten minutes, and a code may wait ten more for its platform.
    clock.advance(Duration::from_secs(1199));
    assert_eq!(connections.handshakes_expire().await.expect("looked"), 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(connections.handshakes_expire().await.expect("looked"), 1);
    assert_eq!(accounts.sessions_expire().await.expect("looked"), 0);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(accounts.sessions_expire().await.expect("looked"), 1);
    assert_eq!(accounts.answers_expire().await.expect("looked"), 0, "AP-11: kept for a day");
    clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(accounts.answers_expire().await.expect("looked"), 1);
    drop((accounts, connections, sessions));
    app.close().await;
}

#[tokio::test]
async fn the_doctor_says_that_nobody_refreshes_and_which_client_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, surroundings) = around(6);
    let config = config(folder.path());
    let app = App::open_for_cli(&config, surroundings.clone()).await.expect("opens");
    let Rooms { accounts, connections, .. } = app.rooms.clone();
    let tenant = accounts.tenant_create(NewTenant { name: "acme".into(), ..NewTenant::default() }).await.expect("made");
    let operator = Caller::operator(tenant.id.clone());
    let draft = IntegrationDraft {
        client_id: Some("c".into()),
        client_secret: Some(Secret::new("s")),
        ..IntegrationDraft::default()
    };
    let integration = connections.integration_put(&operator, "google", draft).await.expect("set");
    let end = NEW_YEAR.after(Duration::from_secs(3600)).rfc3339();
    let rows = serde_json::json!({"connections": [{"user": "u-1", "provider": "google", "account": {"id": "1"},
        "credentials": [{"kind": "user", "access_token": "ya29.a", "refresh_token": "1//r", "expires_at": end, "scopes": []}]}]});
    connections.import(&operator, serde_json::from_value(rows).expect("rows")).await.expect("imported");
    drop((accounts, connections));
    app.close().await;
    let told = async |name: &str| {
        let checks = examine(&config, &surroundings).await;
        checks.into_iter().find(|one| one.name == name).expect("a check")
    };
    assert!(told("refreshing").await.ok && told("integrations").await.ok, "nothing is due yet");

    clock.advance(Duration::from_secs(3600));
    let late = told("refreshing").await;
    assert!(!late.ok && late.detail.starts_with("1 overdue, the oldest for "), "{late:?}");
    assert!(late.next.is_some_and(|next| next.contains("valetkey serve")));
    let store = Store::open(database_url(&config)).await.expect("opens");
    let mut tx = store.begin().await.expect("a transaction");
    let (tenant, id) = (tenant.id.as_str(), integration.id.as_str());
    integration_pause(&mut tx, TEST, (tenant, id), NEW_YEAR.0, "invalid_client", 0).await.expect("paused");
    tx.commit().await.expect("committed");
    store.close().await;
    let held = told("integrations").await;
    assert_eq!((held.ok, held.detail.as_str()), (false, "google of acme is refused (invalid_client)"));
}

#[tokio::test]
async fn doctor_tells_of_spooled_answers_that_could_not_be_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = folder.path().join("spool");
    let config = Config { spool_dir: Some(spool.clone()), ..config(folder.path()) };
    let told = async || {
        let checks = examine(&config, &Surroundings::system()).await;
        checks.into_iter().find(|one| one.name == "spool").expect("a check")
    };
    assert!(told().await.ok, "not there yet");
    std::fs::create_dir(&spool).expect("made");
    std::fs::write(spool.join("crd_1.1.json"), "{}").expect("written");
    let waits = told().await;
    assert!(waits.ok && waits.detail.starts_with("1 refreshed tokens wait"), "{waits:?}");
    std::fs::write(spool.join("crd_2.1.unreadable"), "{}").expect("written");
    let aside = told().await;
    assert!(!aside.ok && aside.next.is_some_and(|next| next.contains(".json")), "{}", aside.detail);
}
