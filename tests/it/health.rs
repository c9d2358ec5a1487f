//! What people are told about refreshing: in the API, on pages, by metrics and by the doctor.

use std::collections::BTreeSet;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use valetkey::caller::Role;
use valetkey::clock::{Clock, SystemClock};

use crate::harness::{Account, Database, Life, TestApp};
use crate::program::get;
use crate::town::Town;

#[tokio::test]
async fn whatever_keeps_a_token_from_being_refreshed_is_said_in_words_where_people_look() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let mut member = app.member(Role::Viewer).await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let path = format!("/v1/connections/{id}");
    let read = async |min_ttl: u64| {
        platform.post(&format!("{path}/token"), &json!({ "min_ttl": min_ttl })).await;
    };
    assert_eq!(platform.read(&path).await.ok()["explanation"], "It works, and is refreshed in time.");
    let page = member.get("/admin/health").await.text;
    assert!(page.contains("All is well.") && page.contains("Nothing is known to be wrong."), "{page}");

    // One failure: the token is lent all the same, and it is said why there is no better one.
    app.street.fault("google", "refresh", "http_502_html", 1).await;
    app.advance(45);
    read(1800).await;
    app.until("it is known", async || platform.read(&path).await.ok()["degraded"] == true).await;
    let shown = platform.read(&path).await.ok();
    let words = shown["explanation"].as_str().expect("words").to_owned();
    assert!(words.starts_with("Its token still has life, and is lent. The last refresh failed at Google"), "{words}");
    let page = member.get("/admin/health").await.text;
    let code = shown["last_error"].as_str().expect("a code");
    for text in ["Something wants a look.", words.as_str(), &id, "u-1", code, "1 failing"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let mut user = app.end_user(&platform, "u-1").await;
    let page = user.get(&format!("/connections/{id}")).await.text;
    assert!(page.contains("Working for now") && page.contains("What we have still works."), "{page}");

    // A client that is refused is the tenant's to mend, and is said as such.
    let client = |secret: &str| json!({"client_id": "client-1", "client_secret": secret, "scopes": ["openid"]});
    platform.put("/v1/integrations/google", &client("vkcanary-not-the-secret")).await.ok();
    app.advance(5);
    read(1800).await;
    let integration = async || platform.read("/v1/integrations/google").await.ok();
    app.until("it is known", async || integration().await["status"] == "misconfigured").await;
    let words = integration().await["explanation"].as_str().expect("words").to_owned();
    assert!(words.starts_with("Google refuses the client id or secret (invalid_client)."), "{words}");
    for page in ["/admin", "/admin/health"] {
        let page = member.get(page).await.text;
        assert!(page.contains(&words), "{page}");
    }
    let shown = platform.read(&path).await.ok();
    assert!(
        shown["explanation"].as_str().is_some_and(|words| words.ends_with("Its user has nothing to do.")),
        "{shown}"
    );
    let page = user.get(&format!("/connections/{id}")).await.text;
    assert!(page.contains("does not accept the platform’s own settings"), "{page}");

    platform.put("/v1/integrations/google", &client(app.street.client_secret())).await.ok();
    read(1800).await;
    app.until("it is fresh", async || platform.read(&path).await.ok()["degraded"] == false).await;
    assert_eq!(integration().await["explanation"], "Nothing is known to be wrong.");
    let page = member.get("/admin/health").await.text;
    assert!(page.contains("All is well.") && page.contains("Renewed"), "{page}");
    assert_eq!(user.get("/admin/health").await.status, 403, "not for end users");

    app.street.tell("/revoke", json!({"provider": "google"})).await;
    app.advance(59);
    read(1800).await;
    app.until("it is known", async || platform.read(&path).await.ok()["status"] == "needs_reauth").await;
    let page = app.member(Role::Admin).await.get("/admin/health").await.text;
    for text in ["The access was refused", "invalid_grant", "Google no longer accepts this access."] {
        assert!(page.contains(text), "{text}: {page}");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_coming_end_of_a_refresh_token_is_told_days_ahead() {
    // Google's refresh tokens of a client in testing end after seven days, whatever one does (fact sheet A.4).
    let app = TestApp::start().await;
    let platform = app.platform().await;
    let id = app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    let end = app.clock.now().after(Duration::from_secs(7 * 24 * 3600));
    app.rows(&format!("UPDATE credentials SET refresh_expires_at = {}", end.0)).await;
    let shown = async || platform.read(&format!("/v1/connections/{id}")).await.ok();
    let before = shown().await;
    assert_eq!(before["credentials"][0]["refresh_expires_at"], end.rfc3339());
    assert_eq!(before["explanation"], "It works, and is refreshed in time.", "there is still time");
    app.advance(4 * 24 * 60 + 1);
    app.until("it is refreshed", async || {
        shown().await["credentials"][0]["expires_at"] != before["credentials"][0]["expires_at"]
    })
    .await;
    let words = shown().await["explanation"].as_str().expect("words").to_owned();
    assert!(words.contains(&format!("ends its refresh token at {}", end.rfc3339())), "{words}");
    let mut user = app.end_user(&platform, "u-1").await;
    let page = user.get(&format!("/connections/{id}")).await.text;
    assert!(page.contains("Ends soon") && page.contains("in 2 days"), "{page}");
    let mut member = app.member(Role::Viewer).await;
    let page = member.get("/admin/health").await.text;
    assert!(page.contains("1 ending soon"), "{page}");
    app.finish().await;
}

#[tokio::test]
async fn metrics_and_the_doctor_tell_what_waits_and_why() {
    let spool = TempDir::new().expect("a folder");
    let mut town = Town::open(Database::sqlite(), &[("VALETKEY_SPOOL_DIR", spool.path().display().to_string())]).await;
    town.start_node();
    town.street.integrate(&town.platform(0)).await;
    let queued = town.google("u-1", Account::ADA, 7200).await;
    let doubtful = town.google("u-2", Account::GRACE, 7200).await;
    let late = town.slack("u-3", Account::ADA, 7200).await;
    assert_eq!(town.nodes.remove(0).stop("TERM"), Some(0));

    // Google has asked for a pause; one of its tokens waits for the end of that, and of another nobody knows what has
    // become. Slack's has been due for ten minutes, and no node runs.
    let now = SystemClock.now().0;
    let after = now + 300_000;
    let pause = format!("rate_limited_until = {after}, pace_at = {after}000");
    town.database.execute(&format!("UPDATE integrations SET {pause} WHERE provider = 'google'")).await;
    town.set_row(&queued, &format!("due_at = {after}, slot_at = {after}")).await;
    town.set_row(&doubtful, &format!("due_at = {after}, doubt_since = {now}, doubt_first_sent = {now}")).await;
    town.set_row(&late, &format!("due_at = {}", now - 600_000)).await;
    let report = town.bench.run(&["doctor", "--json"]);
    assert_eq!(report.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&report.stdout).expect("one JSON object");
    let check = report["checks"].as_array().expect("checks").iter().find(|one| one["name"] == "refreshing");
    let check = check.expect("the check");
    let detail = check["detail"].as_str().expect("words");
    assert!(detail.starts_with("1 overdue, the oldest for 6"), "{detail}");
    assert!(detail.contains("; 1 wait their turn (the last one for 2") && detail.ends_with(" 1 in doubt"), "{detail}");
    assert!(check["next"].as_str().is_some_and(|next| next.contains("valetkey serve")), "{check}");

    town.start_node();
    let admin = town.nodes[0].admin.clone();
    let metrics = || get(&admin, "/metrics", "");
    let renewed = "valetkey_refreshes_total{provider=\"slack\",outcome=\"fresh\"} 1";
    town.until("Slack's is refreshed", async || metrics().contains(renewed)).await;
    town.until("the numbers are known", async || metrics().contains("valetkey_refresh_in_doubt 1")).await;
    let shown = metrics();
    for line in ["valetkey_refresh_queued 1", "valetkey_integrations_held{state=\"rate_limited\"} 1"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let longest = town.nodes[0].metric("valetkey_refresh_longest_queue_seconds");
    assert!((200.0..300.0).contains(&longest), "{longest}");

    let guide = include_str!("../../docs/OPERATIONS.md");
    let told = guide.split('`').filter(|part| part.starts_with("valetkey_")).map(without_labels);
    // Nobody has misused a ticket here.
    let told: BTreeSet<&str> = told.filter(|name| *name != "valetkey_tickets_ended_total").collect();
    let lines = shown.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let there: BTreeSet<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(told, there, "what the guide tells of, and what there is");
    town.close().await;
}

#[tokio::test]
async fn a_metric_tells_how_long_the_longest_of_what_is_overdue_has_waited() {
    let app = TestApp::start().await;
    let platform = app.platform().await;
    app.google(&platform, "u-1", Account::ADA, Life::Fresh).await;
    app.google(&platform, "u-2", Account::GRACE, Life::Fresh).await;
    let now = app.clock.now().0;
    app.rows(&format!("UPDATE credentials SET due_at = {}", now - 30_000)).await;
    app.rows(&format!("UPDATE credentials SET due_at = {} WHERE id = (SELECT min(id) FROM credentials)", now - 90_000))
        .await;
    let recorder = PrometheusBuilder::new().build_recorder();
    // Of this thread only: other stories of this process tell the one that all share.
    let here = metrics::set_default_local_recorder(&recorder);
    app.rooms().credentials.refresh_numbers().await.expect("counts");
    drop(here);
    let told = recorder.handle().render();
    for line in ["valetkey_refresh_oldest_overdue_seconds 90", "valetkey_refresh_overdue 2"] {
        assert!(told.lines().any(|there| there == line), "{line}: {told}");
    }
    app.finish().await;
}

fn without_labels(metric: &str) -> &str {
    metric.split(['{', ' ']).next().unwrap_or(metric)
}
