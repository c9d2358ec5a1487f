//! "Log in with Telegram" at a certified authorization server in its manner: a client that authenticates by Basic, codes
//! that work once, no refresh token, a numeric id beside an opaque subject, and each of the three algorithms.

use valetkey::caller::Caller;
use valetkey::clock::Surroundings;
use valetkey::connections::IntegrationDraft;
use valetkey::sandbox::{Sandbox, SandboxOptions};
use valetkey::secret::Secret;

use crate::node::Node;
use crate::site::{Site, login, sign_in, tenant};

const SECRET: &str = "a-client-secret-of-the-test";
const EMAIL: &str = "ada@acme.example";
/// The id of the sandbox's bot, which is the client too.
const BOT_ID: &str = "123456";
const PERSON: &str = "987654321";

/// Signs in at the stranger, who signs with `algorithm`; what became of it.
async fn sign_in_with(node: &Node, algorithm: &str, more: &[&str]) {
    let sandbox = Sandbox::start(SandboxOptions::new(Surroundings::system())).await.expect("starts");
    let bots = sandbox.ask("/telegram/bots").await.expect("bots");
    let mut site = Site::new();
    site.meets_sandbox(&sandbox);
    let (tenant, redirect_uri) = site
        .prepare(async |rooms| {
            let tenant = tenant(rooms).await;
            login(rooms, &tenant, EMAIL, "u-1").await;
            let draft = IntegrationDraft {
                bot_token: bots["bots"][0]["token"].as_str().map(Secret::new),
                client_id: Some(BOT_ID.to_owned()),
                client_secret: Some(Secret::new(SECRET)),
                ..IntegrationDraft::default()
            };
            let operator = Caller::operator(tenant.id.clone());
            let made = rooms.connections.integration_put(&operator, "telegram", draft).await;
            (tenant, made.expect("an integration").redirect_uri)
        })
        .await;
    let mut arguments = vec!["--redirect-uri", &redirect_uri, "--client-id", BOT_ID, "--client-secret", SECRET];
    arguments.extend(["--algorithm", algorithm, "--person-id", PERSON]);
    arguments.extend(more);
    let manner = node.manner("telegram-manner.mjs", &arguments);
    site.meets("telegram", &manner, None);
    let house = site.open().await;
    let platform = site.platform(&tenant);

    let mut person = site.person();
    sign_in(&mut person, &site.base(), EMAIL).await;
    person.visit(&format!("{}/connections/connect/telegram", site.base())).await.expect("a page");
    person.submit("continue", &[("way", "consent")]).await.expect("submitted");
    let result = person.follow().await.expect("a page");
    assert_eq!(result.status, 200, "{algorithm}: {}", result.body);
    assert!(result.url.path().starts_with("/connections/result/"), "a clean address: {}", result.url);

    // The stranger has no Bot API, so that nobody has let the bot write yet: one step is left, and it is said.
    assert!(result.body.contains("One step left"), "{algorithm}: {}", result.body);
    let connection = platform.ok("GET", "/v1/connections?user=u-1", None).await["data"][0].take();
    assert_eq!(connection["account"]["id"], PERSON, "{algorithm}: the number, not the subject");
    assert_eq!(connection["status"], "awaiting_start", "{connection}");
    site.known.borrow_mut().learn_from_sandbox(&sandbox);
    site.finish_with_manner(house, &manner).await;
}

// OA-08, OA-09
#[tokio::test]
async fn whoever_signs_in_at_a_strict_telegram_is_known_by_number_with_each_algorithm() {
    let Some(node) = Node::with_counterparts() else { return };
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        sign_in_with(&node, algorithm, &[]).await;
    }
}

// OA-08: a code that only we could have exchanged stands in for the nonce (fact sheet C.1).
#[tokio::test]
async fn a_telegram_that_leaves_the_nonce_out_is_believed_all_the_same() {
    let Some(node) = Node::with_counterparts() else { return };
    sign_in_with(&node, "RS256", &["--without-nonce"]).await;
}
