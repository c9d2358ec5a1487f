//! Slack's tokens (providers.md B.4): families of rotating tokens, the cap of two active access tokens,
//! single-use refresh tokens and what happens when a used one comes again.
//!
//! A family is what one app holds in one workspace for its bot, or for one user. Installing again adds to
//! the same family: that is the sharing hazard of B.4.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::state::{Account, Provider, World};
use crate::clock::Millis;

/// Live access tokens per family; refreshing beyond it ends the oldest (B.4).
const ACTIVE_TOKENS: usize = 2;

/// What happens when a used refresh token comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// The whole family dies, as RFC 9700 asks of strict servers.
    Family,
    /// Within this time after its first use it mints another pair, afterwards it is refused: Slack's own manner.
    Grace(Duration),
    /// It is refused and nothing else happens.
    Refuse,
}

/// What the pretend Slack remembers.
pub(super) struct SlackState {
    pub rotation: bool,
    pub reuse: Reuse,
    pub codes: BTreeMap<String, Code>,
    families: BTreeMap<FamilyKey, Family>,
}

/// A code that waits to be exchanged.
pub(super) struct Code {
    pub client_id: String,
    pub redirect_uri: Option<String>,
    pub account: &'static Account,
    pub bot_scopes: BTreeSet<String>,
    pub user_scopes: BTreeSet<String>,
    pub until: Millis,
    pub used: bool,
}

/// Whose tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// The app's bot in a workspace.
    Bot,
    /// One user, by Slack user id.
    User(&'static str),
}

/// What a family belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FamilyKey {
    pub client_id: String,
    pub team: &'static str,
    pub holder: Holder,
}

/// The tokens of one holder.
pub(super) struct Family {
    /// The user, or whoever installed the bot last.
    pub account: &'static Account,
    /// Scopes add up over installations (B.3).
    pub scopes: BTreeSet<String>,
    access: Vec<Access>,
    refresh: Vec<Refresh>,
}

struct Access {
    value: String,
    /// `None`: never, for apps without rotation.
    until: Option<Millis>,
    revoked: bool,
    /// Whether it was exchanged for tokens that rotate; it ends when they are first refreshed.
    exchanged: bool,
}

struct Refresh {
    value: String,
    used_at: Option<Millis>,
    revoked: bool,
}

/// What an installation or a refresh hands out.
pub(super) struct Pair {
    pub access: String,
    /// Present with rotation.
    pub refresh: Option<String>,
    /// Present with rotation.
    pub life: Option<Duration>,
}

impl Family {
    fn is_live(token: &Access, now: Millis) -> bool {
        !token.revoked && token.until.is_none_or(|until| now < until)
    }

    fn add(&mut self, access: String, until: Option<Millis>, refresh: Option<String>, now: Millis) {
        self.access.push(Access { value: access, until, revoked: false, exchanged: false });
        self.refresh.extend(refresh.map(|value| Refresh { value, used_at: None, revoked: false }));
        let live = self.access.iter_mut().filter(|token| token.until.is_some() && Self::is_live(token, now));
        let live: Vec<&mut Access> = live.collect();
        let surplus = live.len().saturating_sub(ACTIVE_TOKENS);
        live.into_iter().take(surplus).for_each(|oldest| oldest.revoked = true);
    }

    fn end(&mut self) -> usize {
        let alive = self.access.iter().filter(|token| !token.revoked).count();
        self.access.iter_mut().for_each(|token| token.revoked = true);
        self.refresh.iter_mut().for_each(|token| token.revoked = true);
        self.scopes.clear();
        alive
    }
}

impl SlackState {
    pub(super) fn new(rotation: bool) -> Self {
        let reuse = Reuse::Grace(Duration::from_secs(60));
        Self { rotation, reuse, codes: BTreeMap::new(), families: BTreeMap::new() }
    }

    /// The family of a live access token, or Slack's error for it.
    pub(super) fn of_access(
        &self,
        value: &str,
        now: Millis,
    ) -> Result<(&FamilyKey, &Family, Option<Millis>), &'static str> {
        for (key, family) in &self.families {
            if let Some(token) = family.access.iter().find(|token| token.value == value) {
                return match (token.revoked, Family::is_live(token, now)) {
                    (true, _) => Err("token_revoked"),
                    (false, false) => Err("token_expired"),
                    (false, true) => Ok((key, family, token.until)),
                };
            }
        }
        Err("invalid_auth")
    }

    /// `auth.revoke`: with rotation the single token, access or refresh; without, the whole authorization (B.4).
    pub(super) fn revoke(&mut self, value: &str, dry_run: bool) -> Result<bool, &'static str> {
        for family in self.families.values_mut() {
            if let Some(at) = family.access.iter().position(|token| token.value == value) {
                match (family.access[at].revoked, dry_run, family.access[at].until) {
                    (true, ..) => return Err("token_revoked"),
                    (_, true, _) => return Ok(false),
                    (_, _, Some(_)) => family.access[at].revoked = true,
                    (_, _, None) => drop(family.end()),
                }
                return Ok(true);
            }
            if let Some(token) = family.refresh.iter_mut().find(|token| token.value == value) {
                if token.revoked || token.used_at.is_some() {
                    return Err("token_revoked");
                }
                token.revoked = !dry_run;
                return Ok(!dry_run);
            }
        }
        Err("invalid_auth")
    }

    /// Ends every family that `matches` accepts; returns how many access tokens were not revoked yet.
    pub(super) fn end_families(&mut self, matches: impl Fn(&FamilyKey, &Family) -> bool) -> usize {
        self.families.iter_mut().filter(|(key, family)| matches(key, family)).map(|(_, family)| family.end()).sum()
    }

    /// Every access token issued so far that expires at all counts as expired from now on.
    pub(super) fn expire_all(&mut self, now: Millis) {
        for token in self.families.values_mut().flat_map(|family| &mut family.access) {
            token.until = token.until.map(|until| until.min(now));
        }
    }
}

/// Installs the app once more for one holder: new tokens in the same family, or without rotation the old one again.
pub(super) fn install(
    world: &mut World,
    key: &FamilyKey,
    account: &'static Account,
    scopes: &BTreeSet<String>,
    life: Duration,
) -> (Pair, BTreeSet<String>) {
    let now = world.now();
    let fresh = Family { account, scopes: BTreeSet::new(), access: Vec::new(), refresh: Vec::new() };
    let family = world.slack.families.entry(key.clone()).or_insert(fresh);
    family.account = account;
    family.scopes.extend(scopes.iter().cloned());
    let scopes = family.scopes.clone();
    if !world.slack.rotation {
        let lasting = family.access.iter().find(|token| token.until.is_none() && !token.revoked);
        if let Some(token) = lasting {
            return (Pair { access: token.value.clone(), refresh: None, life: None }, scopes);
        }
    }
    (mint_pair(world, key, life, now), scopes)
}

/// Exchanges a refresh token for the next pair of its family.
///
/// The error is Slack's own: `invalid_refresh_token`, whatever the reason.
pub(super) fn refresh(
    world: &mut World,
    client_id: &str,
    value: &str,
    life: Duration,
) -> Result<(Pair, FamilyKey, BTreeSet<String>), &'static str> {
    const REFUSED: &str = "invalid_refresh_token";
    let (now, reuse) = (world.now(), world.slack.reuse);
    let found = world.slack.families.iter_mut().find_map(|(key, family)| {
        let at = family.refresh.iter().position(|token| token.value == value)?;
        Some((key.clone(), family, at))
    });
    let Some((key, family, at)) = found else { return Err(REFUSED) };
    if key.client_id != client_id || family.refresh[at].revoked {
        return Err(REFUSED);
    }
    let scopes = family.scopes.clone();
    family.access.iter_mut().filter(|token| token.exchanged).for_each(|token| token.revoked = true);
    match family.refresh[at].used_at {
        None => family.refresh[at].used_at = Some(now),
        Some(first) if matches!(reuse, Reuse::Grace(grace) if now < first.after(grace)) => {
            world.count(Provider::Slack).replays_in_grace += 1;
        }
        Some(_) => {
            if reuse == Reuse::Family {
                family.end();
            }
            world.count(Provider::Slack).reuses += 1;
            return Err(REFUSED);
        }
    }
    world.count(Provider::Slack).refreshes += 1;
    // A token of a rotating family goes on rotating, whatever new installations do.
    let pair = mint_rotating(world, &key, life, now);
    Ok((pair, key, scopes))
}

/// `oauth.v2.exchange`: a token that never ends for a pair that rotates, once, when the app rotates.
pub(super) fn exchange_lasting(
    world: &mut World,
    client_id: &str,
    value: &str,
    life: Duration,
) -> Result<(Pair, FamilyKey, BTreeSet<String>), &'static str> {
    let now = world.now();
    if !world.slack.rotation {
        return Err("token_rotation_not_enabled");
    }
    let found = world.slack.families.iter_mut().find_map(|(key, family)| {
        let at = family.access.iter().position(|token| token.value == value && token.until.is_none())?;
        Some((key.clone(), family, at))
    });
    let (key, family, at) = found.filter(|(key, ..)| key.client_id == client_id).ok_or("invalid_token")?;
    match (family.access[at].revoked, std::mem::replace(&mut family.access[at].exchanged, true)) {
        (true, _) => return Err("token_revoked"),
        (false, true) => return Err("token_already_exchanged"),
        (false, false) => {}
    }
    let scopes = family.scopes.clone();
    let pair = mint_rotating(world, &key, life, now);
    Ok((pair, key, scopes))
}

fn mint_pair(world: &mut World, key: &FamilyKey, life: Duration, now: Millis) -> Pair {
    if world.slack.rotation {
        return mint_rotating(world, key, life, now);
    }
    let prefix = if key.holder == Holder::Bot { "xoxb-" } else { "xoxp-" };
    let access = world.mint(Provider::Slack, "access_token", prefix);
    if let Some(family) = world.slack.families.get_mut(key) {
        family.add(access.clone(), None, None, now);
    }
    Pair { access, refresh: None, life: None }
}

fn mint_rotating(world: &mut World, key: &FamilyKey, life: Duration, now: Millis) -> Pair {
    let prefix = if key.holder == Holder::Bot { "xoxe.xoxb-1-" } else { "xoxe.xoxp-1-" };
    let access = world.mint(Provider::Slack, "access_token", prefix);
    let refresh = world.mint(Provider::Slack, "refresh_token", "xoxe-1-");
    if let Some(family) = world.slack.families.get_mut(key) {
        family.add(access.clone(), Some(now.after(life)), Some(refresh.clone()), now);
    }
    Pair { access, refresh: Some(refresh), life: Some(life) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Street, text};

    async fn installed(street: &Street) -> (String, String) {
        pair(&street.slack_connected("", "chat:write").await["authed_user"])
    }

    fn pair(answer: &Value) -> (String, String) {
        (text(answer, "access_token").to_owned(), text(answer, "refresh_token").to_owned())
    }

    /// What `auth.test` says about a token: empty when it works, otherwise Slack's error.
    async fn trouble(street: &Street, token: &str) -> String {
        text(&street.get(street.at_slack("api/auth.test"), token).await.json, "error").to_owned()
    }

    async fn reuse(street: &Street, manner: &str) {
        street.tell("/rotation", json!({"reuse": manner})).await;
    }

    #[tokio::test]
    async fn a_refresh_answers_at_the_top_level_and_the_old_access_token_lives_on() {
        let street = Street::start().await;
        let (access, refresh) = installed(&street).await;
        let answer = street.slack_refresh(&refresh).await;
        assert_eq!((text(&answer, "token_type"), answer["expires_in"].as_u64()), ("user", Some(43_200)));
        assert!(answer.get("authed_user").is_none());
        assert_eq!(
            (trouble(&street, &access).await, trouble(&street, &pair(&answer).0).await),
            (String::new(), String::new())
        );
    }

    #[tokio::test]
    async fn only_two_access_tokens_are_active_at_a_time() {
        let street = Street::start().await;
        let (first, refresh) = installed(&street).await;
        let (second, refresh) = pair(&street.slack_refresh(&refresh).await);
        let (third, _) = pair(&street.slack_refresh(&refresh).await);
        assert_eq!(trouble(&street, &first).await, "token_revoked");
        assert_eq!(trouble(&street, &second).await + &trouble(&street, &third).await, "");
        let (fourth, _) = installed(&street).await;
        assert_eq!(trouble(&street, &second).await, "token_revoked", "another installation shares the cap");
        assert_eq!(trouble(&street, &third).await + &trouble(&street, &fourth).await, "");
    }

    #[tokio::test]
    async fn reuse_ends_the_family_in_the_strict_manner() {
        let street = Street::start().await;
        reuse(&street, "family").await;
        let (_, refresh) = installed(&street).await;
        let (access, next) = pair(&street.slack_refresh(&refresh).await);
        assert_eq!(text(&street.slack_refresh(&refresh).await, "error"), "invalid_refresh_token");
        assert_eq!(trouble(&street, &access).await, "token_revoked");
        assert_eq!(text(&street.slack_refresh(&next).await, "error"), "invalid_refresh_token");
        assert_eq!((street.counter("slack", "reuses").await, street.counter("slack", "refreshes").await), (1, 1));
    }

    #[tokio::test]
    async fn reuse_within_the_grace_mints_another_pair_and_later_none() {
        let street = Street::start().await;
        reuse(&street, "grace:30").await;
        let (_, refresh) = installed(&street).await;
        let (access, next) = pair(&street.slack_refresh(&refresh).await);
        street.pass(29);
        let replayed = pair(&street.slack_refresh(&refresh).await);
        assert!(!replayed.0.is_empty() && replayed.0 != access);
        street.pass(1);
        assert_eq!(text(&street.slack_refresh(&refresh).await, "error"), "invalid_refresh_token");
        assert_eq!(text(&street.slack_refresh(&next).await, "error"), "", "the family lives");
        assert_eq!(
            (street.counter("slack", "reuses").await, street.counter("slack", "replays_in_grace").await),
            (1, 1)
        );
    }

    #[tokio::test]
    async fn reuse_in_the_plain_manner_is_refused_and_nothing_else() {
        let street = Street::start().await;
        reuse(&street, "none").await;
        let (_, refresh) = installed(&street).await;
        let (access, _) = pair(&street.slack_refresh(&refresh).await);
        assert_eq!(text(&street.slack_refresh(&refresh).await, "error"), "invalid_refresh_token");
        assert_eq!(trouble(&street, &access).await, "");
    }

    #[tokio::test]
    async fn without_rotation_tokens_stay_and_a_new_installation_gets_the_same_one() {
        let street = Street::start_with(|options| options.slack_rotation = false).await;
        let answer = street.slack_connected("", "chat:write").await;
        let user = &answer["authed_user"];
        assert!(text(user, "access_token").starts_with("xoxp-vkcanary"));
        assert!(user.get("refresh_token").is_none() && user.get("expires_in").is_none());
        let again = street.slack_connected("", "channels:read").await;
        assert_eq!(again["authed_user"]["access_token"], user["access_token"]);
        street.tell("/rotation", json!({"slack": "on"})).await;
        assert!(!installed(&street).await.1.is_empty());
    }

    #[tokio::test]
    async fn revoking_ends_one_rotating_token_or_a_whole_lasting_authorization() {
        let street = Street::start().await;
        let (access, refresh) = installed(&street).await;
        let revoke = |token: String, test: &'static str| {
            let street = &street;
            async move {
                let form = [("token", token.as_str()), ("test", test)];
                street.post(street.at_slack("api/auth.revoke"), &form).await.json
            }
        };
        assert_eq!(revoke(access.clone(), "1").await, json!({"ok": true, "revoked": false}), "a dry run");
        assert_eq!(revoke(access.clone(), "").await, json!({"ok": true, "revoked": true}));
        assert_eq!(text(&revoke(access, "").await, "error"), "token_revoked");
        let (_, next) = pair(&street.slack_refresh(&refresh).await);
        assert!(!next.is_empty(), "the refresh token outlived the access token (B.4)");
        assert_eq!(revoke(next.clone(), "").await["revoked"], true);
        assert_eq!(text(&street.slack_refresh(&next).await, "error"), "invalid_refresh_token");
        assert_eq!(text(&revoke("xoxp-unknown".to_owned(), "").await, "error"), "invalid_auth");
        assert_eq!(street.counter("slack", "revocations").await, 2);
    }

    #[tokio::test]
    async fn tokens_expire_after_twelve_hours_and_on_command() {
        let street = Street::start().await;
        let (access, refresh) = installed(&street).await;
        street.pass(43_199);
        assert_eq!(trouble(&street, &access).await, "");
        street.pass(1);
        assert_eq!(trouble(&street, &access).await, "token_expired");
        let (access, _) = pair(&street.slack_refresh(&refresh).await);
        street.tell("/expire", json!({"provider": "slack"})).await;
        assert_eq!(trouble(&street, &access).await, "token_expired");
        street.tell("/revoke", json!({"provider": "slack", "account": "ada@example.com"})).await;
        assert_eq!(trouble(&street, &access).await, "token_revoked");
    }
}
