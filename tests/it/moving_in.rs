//! Moving in: a platform that comes from elsewhere brings all its connections in one call.

use serde_json::{Value, json};
use valetkey::clock::Stopwatch;

use crate::crowds::{figure, size};
use crate::harness::{TestApp, Wishes};

fn rows() -> Vec<Value> {
    let row = |n: usize| {
        json!({"user": format!("u-{n}"), "provider": "google",
            "account": {"id": format!("{n:021}"), "email": format!("person{n}@example.com")},
            "credentials": [{"kind": "user", "access_token": format!("ya29.vkcanary-moved-{n}"),
                "refresh_token": format!("1//vkcanary-moved-{n}"), "expires_at": "2099-01-01T00:00:00Z",
                "scopes": ["openid", "email"]}]})
    };
    (0..size(400, 10_000)).map(row).collect()
}

#[tokio::test]
async fn all_connections_of_a_platform_move_in_at_once_or_none_does() {
    for wishes in Wishes::both() {
        let postgres = wishes.postgres;
        let Some(app) = TestApp::start_with(Wishes { quiet: true, ..wishes }).await else { continue };
        let platform = app.platform().await;
        let mut all = rows();
        let spoiled = all.len() / 3;
        let good = std::mem::replace(&mut all[spoiled]["credentials"][0]["access_token"], json!("ya29.\u{e9}"));
        let refused = platform.post("/v1/connections/import", &json!({"connections": all})).await;
        assert_eq!(refused.problem(), (422, "invalid".to_owned()));
        let errors = refused.json()["errors"].as_array().expect("errors").clone();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0]["field"], format!("connections[{spoiled}].credentials[0].access_token"));
        for table in ["connections", "credentials", "users"] {
            assert_eq!(app.rows(&format!("SELECT count(*) FROM {table}")).await, [["0"]], "{table}");
        }

        all[spoiled]["credentials"][0]["access_token"] = good;
        let watch = Stopwatch::start();
        let moved = platform.post("/v1/connections/import", &json!({"connections": all})).await.ok();
        figure(
            "moving in: PostgreSQL, connections, seconds",
            format!("{postgres}, {}, {:.1}", all.len(), watch.elapsed().as_secs_f64()),
        );
        let moved = moved["data"].as_array().expect("connections");
        assert_eq!(moved.len(), all.len());
        for n in (0..all.len()).step_by(37) {
            let (id, user) = (moved[n]["id"].as_str().expect("an id"), format!("u-{n}"));
            assert_eq!(moved[n]["user"], user.as_str(), "in the order they were sent");
            let token = platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await.ok();
            assert_eq!(token["access_token"], format!("ya29.vkcanary-moved-{n}"));
        }
        app.finish().await;
    }
}
