//! How long a browser may stay signed in, by the clock of the story (WB-03).

use std::time::Duration;

use valetkey::caller::Role;

use crate::harness::{Client, TestApp, Wishes};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A house whose operator lets people stay signed in for 30 days.
async fn a_month_signed_in() -> TestApp {
    let wishes = Wishes { session_life: Some(30 * DAY), ..Wishes::default() };
    TestApp::start_with(wishes).await.expect("SQLite")
}

/// Whether the page is shown, and not the way to the sign-in page with a word about why.
async fn is_in(browser: &mut Client, path: &str) -> bool {
    let got = browser.get(path).await;
    match got.status {
        200 => true,
        303 => {
            assert!(got.header("location").starts_with("/sign-in?"), "{}", got.header("location"));
            assert!(got.header("location").ends_with("done=session-expired"), "{}", got.header("location"));
            false
        }
        other => panic!("{other}: {}", got.text),
    }
}

#[tokio::test]
async fn who_works_at_a_tenant_is_signed_out_after_an_hour_away() {
    // WB-03
    let app = TestApp::start().await;
    let mut owner = app.member(Role::Owner).await;
    for minutes in [1, 50, 59, 30, 59] {
        app.clock.advance(minutes * MINUTE);
        assert!(is_in(&mut owner, "/admin").await, "after {minutes} minutes");
    }
    app.clock.advance(66 * MINUTE);
    assert!(!is_in(&mut owner, "/admin").await);
    let again = owner.get("/admin").await;
    assert_eq!(again.status, 303, "the session is dead, not asleep");
    app.finish().await;
}

#[tokio::test]
async fn who_works_at_a_tenant_signs_in_once_a_day_however_busy_and_whatever_others_may() {
    // WB-03
    let app = a_month_signed_in().await;
    let mut owner = app.member(Role::Owner).await;
    for hour in 1..48 {
        app.clock.advance(30 * MINUTE);
        assert!(is_in(&mut owner, "/admin").await, "after {hour} half hours");
    }
    app.clock.advance(30 * MINUTE);
    assert!(!is_in(&mut owner, "/admin").await);
    app.finish().await;
}

#[tokio::test]
async fn an_end_user_may_be_away_for_longer() {
    // WB-03
    let app = a_month_signed_in().await;
    let mut user = app.login(None, Some("u-1")).await;
    app.clock.advance(29 * DAY);
    assert!(is_in(&mut user, "/connections").await);
    app.clock.advance(DAY);
    assert!(!is_in(&mut user, "/connections").await, "a month is all that the setting gives");
    app.finish().await;
}
