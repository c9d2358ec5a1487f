//! The provider has said yes and the database does not take it: nothing is lost, and nobody gets what is not durable.

use serde_json::{Value, json};

use crate::harness::{Account, Client, Life, TestApp, Wishes};

/// A connection whose token is being refreshed by the sweep while the database takes no tokens; it has life left.
async fn held(app: &TestApp, platform: &Client) -> String {
    app.street.tell("/rotation", json!({"reuse": "family"})).await;
    let id = app.slack(platform, "u-1", Account::ADA, Life::Fresh).await;
    app.database.refuse_tokens().await;
    // Of twelve hours, the last 72 to 144 minutes are when it is refreshed.
    app.advance(570);
    token(platform, &id).await;
    app.advance(80);
    app.until("the node says that it holds a token", async || {
        let (status, why) = app.ready().await;
        status == 503 && why.contains("held_tokens")
    })
    .await;
    assert_eq!(app.street.counter("slack/refreshes").await, 1);
    assert_eq!(token(platform, &id).await["generation"], 1, "nobody gets what is not durable (RL-04)");
    id
}

async fn token(platform: &Client, id: &str) -> Value {
    platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await.ok()
}

async fn comes_home(app: &TestApp, platform: &Client, id: &str) {
    app.until("the token has come home", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        token(platform, id).await["generation"] == 2
    })
    .await;
    app.until("the node is ready again", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        app.ready().await.0 == 200
    })
    .await;
    // The stored refresh token is the provider's last one.
    platform.request(reqwest::Method::POST, &format!("/v1/connections/{id}/refresh"), None).await.ok();
    assert_eq!(token(platform, id).await["generation"], 3);
    assert_eq!((app.street.counter("slack/refreshes").await, app.street.counter("slack/reuses").await), (2, 0));
}

/// Waits until nothing is spooled any more, and the node is ready.
async fn empties(app: &TestApp) {
    app.until("the spool is empty", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        app.spooled().is_empty() && app.ready().await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn without_a_spool_an_answer_is_held_in_memory_until_the_database_takes_it() {
    // RL-05
    for wishes in Wishes::both() {
        let Some(app) = TestApp::start_with(wishes).await else { continue };
        let platform = app.platform().await;
        let id = held(&app, &platform).await;
        // Much longer than it is tried before a spool would take it.
        for _ in 0..4 {
            app.advance(1);
            assert_eq!((app.ready().await.0, token(&platform, &id).await["generation"].as_i64()), (503, Some(1)));
        }
        app.database.take_tokens().await;
        comes_home(&app, &platform, &id).await;
        app.finish().await;
    }
}

#[tokio::test]
async fn with_a_spool_an_answer_outlives_its_process() {
    // RL-05
    for wishes in Wishes::both() {
        let Some(mut app) = TestApp::start_with(Wishes { spool: true, ..wishes }).await else { continue };
        let platform = app.platform().await;
        let id = held(&app, &platform).await;
        app.advance(2);
        app.until("the answer is spooled", async || {
            app.clock.advance(std::time::Duration::from_secs(1));
            app.spooled().len() == 1 && !app.ready().await.1.contains("held_tokens")
        })
        .await;
        let (status, why) = app.ready().await;
        assert!(status == 503 && why.contains("1 refreshed tokens wait in the spool"), "{why}");
        let file = app.spooled().remove(0);
        let text = std::fs::read_to_string(&file).expect("read");
        assert!(!text.contains("xoxe"), "sealed: {text}");

        // The database is not well yet: the answer waits, and an old token is served meanwhile.
        app.restart().await;
        let again = app.at_node(&platform, 0);
        assert_eq!((app.ready().await.0, token(&again, &id).await["generation"].as_i64()), (503, Some(1)));
        assert_eq!(app.spooled(), [file]);
        app.database.take_tokens().await;
        app.restart().await;
        let again = app.at_node(&platform, 0);
        comes_home(&app, &again, &id).await;
        assert!(app.spooled().is_empty());
        app.finish().await;
    }
}

#[tokio::test]
async fn rl_07_an_answer_that_comes_home_an_hour_later_finds_its_connection_in_doubt_and_not_given_up() {
    let mut app = TestApp::start_with(Wishes { spool: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    let id = held(&app, &platform).await;
    app.restart().await;
    let file = app.spooled().remove(0);
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).expect("moved");
    app.database.take_tokens().await;
    app.clock.advance(std::time::Duration::from_secs(3600));
    app.restart().await;
    let platform = app.at_node(&platform, 0);
    app.advance(1);
    app.until("the sweep has seen it", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        app.rows("SELECT phase FROM credentials").await == [["idle"]]
    })
    .await;
    let view = platform.read(&format!("/v1/connections/{id}")).await.ok();
    assert_eq!((&view["status"], &view["last_error"]), (&json!("active"), &json!("in_doubt")), "{view}");
    std::fs::rename(&aside, &file).expect("moved back");
    comes_home(&app, &platform, &id).await;
    assert!(app.rows("SELECT id FROM audit_entries WHERE action = 'connection.needs_reauth'").await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_disconnected_accounts_spooled_answer_is_revoked_and_not_kept() {
    // RL-37
    let mut app = TestApp::start_with(Wishes { spool: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    let id = held(&app, &platform).await;
    app.restart().await;
    assert_eq!(app.spooled().len(), 1, "a stop spools what cannot be stored (RL-32)");
    let platform = app.at_node(&platform, 0);
    platform.delete(&format!("/v1/connections/{id}")).await.ok();
    app.database.take_tokens().await;
    empties(&app).await;
    // Besides the stored access token, whose refresh token is spent; they may even be ended before the deletion has answered.
    assert_eq!(app.street.counter("slack/revocations").await, 1 + 2, "both tokens that came too late are ended");
    app.finish().await;
}

#[tokio::test]
async fn an_erased_users_spooled_answer_goes_with_the_key() {
    let mut app = TestApp::start_with(Wishes { spool: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    held(&app, &platform).await;
    app.restart().await;
    let file = app.spooled().remove(0);
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::remove_file(&file).expect("removed");
    app.database.take_tokens().await;
    app.restart().await;
    let platform = app.at_node(&platform, 0);
    platform.delete("/v1/users/u-1").await.ok();
    app.put_into_spool(&name, &text);
    empties(&app).await;
    let folder = file.parent().expect("a folder");
    assert_eq!(std::fs::read_dir(folder).expect("read").count(), 0, "nothing is set aside that nobody can open");
    app.finish().await;
}

#[tokio::test]
async fn a_spooled_answer_whose_account_was_disconnected_before_the_start_is_ended_at_its_provider() {
    // RL-37: nothing but the deleted row says then whose tokens these are. They wait until their end can be noted.
    let mut app = TestApp::start_with(Wishes { spool: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    let id = held(&app, &platform).await;
    app.restart().await;
    let file = app.spooled().remove(0);
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::remove_file(&file).expect("removed");
    app.database.take_tokens().await;
    app.restart().await;
    let platform = app.at_node(&platform, 0);
    platform.delete(&format!("/v1/connections/{id}")).await.ok();
    let before = app.street.counter("slack/revocations").await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON revocations BEGIN SELECT RAISE(FAIL, 'the disk is full'); END";
    app.database.execute(full).await;
    app.put_into_spool(&name, &text);
    app.until("a round has left it there", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        app.ready().await.1.contains("wait in the spool")
    })
    .await;
    app.database.execute("DROP TRIGGER full").await;
    empties(&app).await;
    assert!(app.street.counter("slack/revocations").await > before, "the late tokens are ended, too");
    app.finish().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_holds_up_no_other_answer() {
    // RL-05
    let mut app = TestApp::start_with(Wishes { spool: true, ..Wishes::default() }).await.expect("SQLite");
    let platform = app.platform().await;
    let id = held(&app, &platform).await;
    app.advance(2);
    app.until("the answer is spooled", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        app.spooled().len() == 1
    })
    .await;
    // Its name comes first, and not even root reads it.
    let in_the_way = app.spooled().remove(0).with_file_name("crd_0.0.json");
    std::fs::create_dir(&in_the_way).expect("made");
    app.database.take_tokens().await;
    app.restart().await;
    let again = app.at_node(&platform, 0);
    app.until("the token has come home", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        token(&again, &id).await["generation"] == 2
    })
    .await;
    app.until("its file is gone", async || app.spooled() == [in_the_way.clone()]).await;
    assert_eq!(app.ready().await.0, 503, "and somebody should look at what is left");
    std::fs::remove_dir(&in_the_way).expect("removed");
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_set_aside_and_not_deleted() {
    let mut app = TestApp::start_with(Wishes { spool: true, ..Wishes::default() }).await.expect("SQLite");
    let folder = app.spooled();
    assert!(folder.is_empty());
    app.put_into_spool("crd_1.1.json", "{\"version\":1}");
    app.restart().await;
    app.until("it is set aside", async || {
        app.clock.advance(std::time::Duration::from_secs(1));
        app.spooled().iter().all(|file| file.extension().is_some_and(|ending| ending == "unreadable"))
    })
    .await;
    assert_eq!(app.spooled().len(), 1);
    app.until("ready", async || app.ready().await.0 == 200).await;
    app.finish().await;
}
