//! Garbage from a token endpoint (RL-10): a typed failure, nothing changed, little memory, nobody kept waiting; and the
//! odd answers that are good all the same.
//!
//! One real process, a raw endpoint in the place of both providers. Each case has two connections at each provider: one
//! whose token has life left, one whose token has ended.

mod cases;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use valetkey::clock::Stopwatch;

use self::cases::{Case, Good, Made};
use crate::harness::{Client, Database, Got};
use crate::post::{Part, Post};
use crate::town::{Town, rfc3339, until};

/// Callers wait ten seconds; the rest is for a busy machine.
const CALLERS_DEADLINE: Duration = Duration::from_secs(14);
/// The most that the whole table may add to the process, in KiB.
const MOST_GROWTH: u64 = 8 * 1024;
/// So many cases at once.
const AT_ONCE: usize = 8;
const LIVING: &str = "living";
const ENDED: &str = "ended";

/// One case at one provider.
struct Trial<'a> {
    case: &'a Case,
    provider: &'static str,
    made: Made,
    platform: Client,
    /// By [`LIVING`] and [`ENDED`].
    connections: BTreeMap<&'static str, String>,
}

/// Tokens that say nothing of what they are for, so that what is said of them elsewhere is no find for the search.
fn good(name: &str, provider: &str, which: &str) -> Good {
    let token = |beginning: &str, part: &str| {
        let mut hasher = DefaultHasher::new();
        (name, provider, which, part).hash(&mut hasher);
        format!("{beginning}vkcanary-{:016x}", hasher.finish())
    };
    Good { access: token("ya29.", "new"), refresh: token("1//", "next"), sent: token("1//", "first") }
}

type Answers = BTreeMap<String, (fn(&Good) -> Vec<Part>, Good)>;

/// What the endpoint says to a refresh token.
fn answers<'a>(cases: impl Iterator<Item = &'a Case>) -> Answers {
    let mut answers = Answers::new();
    for case in cases {
        for provider in ["google", "slack"] {
            for which in [LIVING, ENDED] {
                let first = good(case.name, provider, which);
                let again = Good { sent: first.refresh.clone(), ..good(case.name, provider, which) };
                answers.insert(first.sent.clone(), (case.parts, first));
                answers.insert(again.sent.clone(), (case.parts, again));
            }
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_token_endpoint_is_a_typed_failure_and_changes_nothing_rl_10() {
    let (accepted, garbage, slow) = (cases::accepted(), cases::garbage(), cases::slow());
    assert!(garbage.len() + slow.len() >= 60, "{} cases", garbage.len());
    let all = answers(accepted.iter().chain(&garbage).chain(&slow));
    assert_eq!(all.len(), 8 * (accepted.len() + garbage.len() + slow.len()), "each has a name of its own");
    let post = Post::open(move |token| all.get(token).map(|(parts, good)| parts(good)).unwrap_or_default()).await;
    let at = format!("http://{}/token", post.authority);
    let settings = [
        ("VALETKEY_PROVIDERS__GOOGLE__TOKEN_URL", at.clone()),
        ("VALETKEY_PROVIDERS__SLACK__TOKEN_URL", at),
        ("VALETKEY_OUTBOUND_ALLOW", post.authority.clone()),
    ];
    let mut town = Town::open(Database::sqlite(), &settings).await;
    town.start_node();
    // What a crowd of failures does to an integration is another story; here each case stands for itself.
    town.database
        .execute(
            "CREATE TRIGGER no_crowds AFTER UPDATE ON integrations BEGIN UPDATE integrations SET unanswered = 0,
             unreachable_since = NULL, outage = NULL, refused = 0, refused_since = NULL, retry_credit = 300
             WHERE tenant_id = NEW.tenant_id AND id = NEW.id; END",
        )
        .await;

    // The first round also is the one in which everything in the process grows to its usual size.
    run(&town, &post, &move_in(&town, &accepted).await).await;
    let (trials, waiting) = (move_in(&town, &garbage).await, move_in(&town, &slow).await);
    town.nodes[0].forget_peak();
    let before = town.nodes[0].memory("VmRSS");
    futures_util::join!(run(&town, &post, &trials), run(&town, &post, &waiting));
    let growth = town.nodes[0].memory("VmHWM").saturating_sub(before);
    let taken = post.traffic.taken.load(std::sync::atomic::Ordering::Relaxed);
    println!("{} cases of garbage; memory {before} KiB, at most {growth} KiB more", garbage.len() + slow.len());
    assert!(growth <= MOST_GROWTH, "{growth} KiB");
    assert!(taken < 512 * 1024 * 1024, "what is too long is not read to its end: {taken} bytes were taken");
    town.close().await;
}

/// The connections of every case.
async fn move_in<'a>(town: &Town, cases: &'a [Case]) -> Vec<Trial<'a>> {
    let usual = town.platform(0);
    town.street.integrate(&usual).await;
    let mut trials = Vec::new();
    for case in cases {
        for (provider, made) in [("google", &case.google), ("slack", &case.slack)] {
            let Some(made) = made.clone() else { continue };
            // What is said of an integration, or may be, stays among those it is said of.
            let alone = matches!(made, Made::RateLimited | Made::Misconfigured(_) | Made::Reauth(_));
            let platform = if alone {
                let name = format!("{provider}-{}", case.name.replace('_', "-"));
                let platform = town.platform_of(0, &town.tenant(&name));
                town.street.integrate_with(&platform, &format!("GOCSPX-of-{name}")).await;
                platform
            } else {
                usual.clone()
            };
            trials.push(Trial { case, provider, made, platform, connections: BTreeMap::new() });
        }
    }
    for trial in &mut trials {
        import(trial).await;
    }
    trials
}

async fn import(trial: &mut Trial<'_>) {
    let Trial { case, provider, .. } = trial;
    let rows: Vec<Value> = [LIVING, ENDED]
        .iter()
        .map(|which| {
            let good = good(case.name, provider, which);
            let first = good.access.replace("ya29.", "ya29.first-");
            let user = format!("{}-{which}", case.name);
            let account = if *provider == "slack" { format!("T0/U{}{which}", case.name.replace('_', "")) } else { user.clone() };
            json!({"user": user, "provider": provider, "account": {"id": account}, "credentials": [{"kind": "user",
                "access_token": first, "refresh_token": good.sent, "expires_at": rfc3339(36_000), "scopes": ["openid"]}]})
        })
        .collect();
    let moved = trial.platform.post("/v1/connections/import", &json!({"connections": rows})).await.ok();
    for (index, which) in [LIVING, ENDED].into_iter().enumerate() {
        trial.connections.insert(which, moved["data"][index]["id"].as_str().expect("an id").to_owned());
    }
}

async fn run(town: &Town, post: &Post, trials: &[Trial<'_>]) {
    let each = stream::iter(trials).map(|trial| async {
        // All that go wrong are named, not only the first.
        let outcome = AssertUnwindSafe(one(town, post, trial)).catch_unwind().await;
        // Nor does what the house goes on trying stand beside the cases that follow.
        for id in trial.connections.values() {
            town.set_row(id, "due_at = NULL").await;
        }
        outcome.is_err().then(|| format!("{} at {}", trial.case.name, trial.provider))
    });
    let wrong: Vec<String> = each.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a case must leave as it was.
const UNCHANGED: &str = "hex(access_token), hex(refresh_token), generation, consents";

async fn one(town: &Town, post: &Post, trial: &Trial<'_>) {
    let name = format!("{} at {}", trial.case.name, trial.provider);
    let (living, ended) = (&trial.connections[LIVING], &trial.connections[ENDED]);
    let before = [town.row(living, UNCHANGED).await, town.row(ended, UNCHANGED).await];
    town.age(&[living], 300).await;
    town.age(&[ended], -60).await;
    let watch = Stopwatch::start();
    let asked = async |id: &String| {
        let got = trial.platform.post(&format!("/v1/connections/{id}/token"), &json!({"min_ttl": 1800})).await;
        (got, watch.elapsed())
    };
    let ((lent, waited), (refused, waited_too)) = futures_util::join!(asked(living), asked(ended));
    assert!(waited.max(waited_too) < CALLERS_DEADLINE, "{name}: {waited:?} {waited_too:?}");
    if let Made::Stored(life) = trial.made {
        return stored(town, post, trial, life, [&lent, &refused]).await;
    }
    let lent = lent.ok();
    assert_eq!((&lent["degraded"], &lent["generation"]), (&json!(true), &json!(1)), "{name}: a living token is lent");
    let expected: &[u16] = match trial.made {
        Made::RateLimited => &[429],
        Made::Misconfigured(_) | Made::Reauth(_) => &[409],
        _ => &[502, 503],
    };
    assert!(expected.contains(&refused.status), "{name}: {} {}", refused.status, refused.text);
    for (which, was) in [LIVING, ENDED].into_iter().zip(before) {
        unchanged(town, post, trial, which, was).await;
    }
}

async fn unchanged(town: &Town, post: &Post, trial: &Trial<'_>, which: &str, was: Vec<String>) {
    let name = format!("{} at {}, {which}", trial.case.name, trial.provider);
    let id = &trial.connections[which];
    let seen = async || town.row(id, "phase, attempts > 0 OR last_error IS NOT NULL").await;
    until(&format!("{name}: it is settled"), Duration::from_secs(45), async || seen().await == ["idle", "1"]).await;
    assert_eq!(town.row(id, UNCHANGED).await, was, "{name}");
    let row =
        town.row(id, "status, doubt_since IS NOT NULL, doubt_likely_unspent, coalesce(last_error, reason, '')").await;
    let rotates = trial.provider == "slack";
    let wanted = match &trial.made {
        Made::Lost if rotates => ["active", "1", "0", "response_lost"],
        Made::Lost => ["active", "0", "0", "response_lost"],
        Made::ServerError(code) => ["active", "1", "1", code],
        Made::Failed(code) => ["active", "0", "0", code],
        Made::RateLimited => ["active", "0", "0", "rate_limited"],
        Made::Misconfigured(code) => ["active", "0", "0", code],
        Made::Reauth(reason) => ["needs_reauth", "0", "0", reason],
        Made::Stored(_) => unreachable!("looked at elsewhere"),
    };
    assert_eq!(row, wanted, "{name}");
    if rotates && matches!(trial.made, Made::Lost | Made::ServerError(_)) {
        assert_eq!(post.shown(&good(trial.case.name, trial.provider, which).sent), 1, "{name}: sent once");
    }
}

/// The answer was good: it is stored as it was meant, and the next refresh goes on from it.
async fn stored(town: &Town, post: &Post, trial: &Trial<'_>, life: i64, got: [&Got; 2]) {
    let name = format!("{} at {}", trial.case.name, trial.provider);
    for (which, got) in [LIVING, ENDED].into_iter().zip(got) {
        let good = good(trial.case.name, trial.provider, which);
        let mut lent = got.ok();
        if which == LIVING && lent["generation"] == 1 {
            // Whoever holds a token that lives is not kept waiting for long; a busy machine takes longer than that.
            let id = &trial.connections[which];
            let is_there = async || town.row(id, "generation").await == ["2"];
            until(&format!("{name}: it is stored"), CALLERS_DEADLINE, is_there).await;
            lent = trial.platform.post(&format!("/v1/connections/{id}/token"), &json!({})).await.ok();
        }
        assert_eq!((&lent["degraded"], &lent["generation"]), (&json!(false), &json!(2)), "{name}: {lent}");
        assert_eq!((&lent["access_token"], &lent["token_type"]), (&json!(good.access), &json!("Bearer")), "{name}");
        let left = lent["expires_in"].as_i64().expect("a life");
        assert!((life - 20..=life).contains(&left), "{name}: {left} of {life}");
        assert_eq!(post.shown(&good.sent), 1, "{name}: sent once");
    }
    // One of the two is asked again: which refresh token does it have now?
    let id = &trial.connections[LIVING];
    let good = good(trial.case.name, trial.provider, LIVING);
    trial.platform.request(reqwest::Method::POST, &format!("/v1/connections/{id}/refresh"), None).await.ok();
    let kept = ["refresh_token_empty", "refresh_token_null", "refresh_token_absent", "refresh_token_equal"];
    let kept = kept.contains(&trial.case.name) || trial.case.name.starts_with("form_encoded");
    let wanted = if kept { (2, 0) } else { (1, 1) };
    assert_eq!((post.shown(&good.sent), post.shown(&good.refresh)), wanted, "{name}");
    assert_eq!(town.row(id, "generation, status").await, ["3", "active"], "{name}");
}
