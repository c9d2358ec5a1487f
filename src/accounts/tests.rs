//! The room on both databases: who gets in, and what is used once.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use tower_sessions::SessionStore as _;
use tower_sessions::session::{Id, Record};

use super::*;
use crate::audit::{Audit, Exposed};
use crate::caller::{Caller, Origin, Permission, Role};
use crate::clock::{Millis, SeededEntropy, TestClock};
use crate::crypto::derive::Purpose;
use crate::ids::{ApiKeyId, TenantId};
use crate::keys::EnvironmentKey;
use crate::secret::Secret;
use crate::shutdown;
use crate::store::audit::audit_list;
use crate::store::logins::logins_with_role;
use crate::store::sql;
use crate::store::testing::{TEST, on_both, scope_of};

const PASSWORD: &str = "correct horse battery staple";
const EMAIL: &str = "owner@example.org";
const RETURN: &str = "https://app.example/done";

struct Room {
    accounts: Accounts,
    clock: TestClock,
}

impl std::ops::Deref for Room {
    type Target = Accounts;

    fn deref(&self) -> &Accounts {
        &self.accounts
    }
}

async fn room(store: &Store) -> Room {
    let clock = TestClock::at(Millis(1_800_000_000_000));
    let around = Surroundings { clock: Arc::new(clock.clone()), entropy: Arc::new(SeededEntropy::new(3)) };
    let root = EnvironmentKey(Some(Secret::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")));
    let keys = Keys::open(&root, store, around.clone()).await.expect("keys");
    let mut tx = store.begin().await.unwrap();
    let audit_key = keys.installation_key(&mut tx, Purpose::Audit).await.expect("a key");
    tx.commit().await.unwrap();
    let (_, handle) = shutdown::channel();
    let accounts = Accounts::new(AccountsParts {
        audit: Audit::new(audit_key, around.clone(), store.clone(), handle),
        store: store.clone(),
        keys,
        around,
        outbound: Outbound::new(&[]).expect("a gate"),
        allow_private_peers: false,
    });
    Room { accounts, clock }
}

impl Room {
    async fn tenant(&self, name: &str) -> (Tenant, Caller) {
        let new = NewTenant { name: name.to_owned(), return_urls: vec![RETURN.to_owned()], ..NewTenant::default() };
        let tenant = self.tenant_create(new).await.expect("a tenant");
        let caller = Caller::operator(tenant.id.clone());
        (tenant, caller)
    }

    async fn key(&self, caller: &Caller, scopes: &[&str], allowed_ips: &[&str]) -> (ApiKey, Secret) {
        let new = NewApiKey {
            name: "back end".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            allowed_ips: limit(allowed_ips),
            expires_at: None,
        };
        let (key, secret) = self.api_key_create(caller, new).await.expect("a key");
        (key, shown(&secret))
    }

    async fn try_key(&self, text: &Secret, from: &str) -> Result<Caller, AccountsError> {
        self.api_key_authenticate(PresentedKey { text, origin: origin(from) }).await
    }

    async fn try_sign_in(
        &self,
        email: &str,
        password: &str,
        tenant: Option<&str>,
    ) -> Result<SignInOutcome, AccountsError> {
        let password = Secret::new(password);
        self.sign_in(SignIn { email, password: &password, tenant, origin: origin("203.0.113.9") }).await
    }
}

/// What the maker of a key is shown, once.
/// What a key is limited to; nothing for no limit.
fn limit(networks: &[&str]) -> Option<Vec<String>> {
    (!networks.is_empty()).then(|| networks.iter().map(|one| (*one).to_owned()).collect())
}

fn shown(exposed: &Exposed) -> Secret {
    Secret::new(serde_json::to_value(exposed).expect("JSON").as_str().expect("a text"))
}

fn origin(peer: &str) -> Origin {
    Origin { request_id: "req".to_owned(), peer: peer.parse::<IpAddr>().ok() }
}

fn member(email: &str, role: Option<Role>, user: Option<&str>) -> NewMember {
    NewMember { email: email.to_owned(), password: Secret::new(PASSWORD), role, user: user.map(str::to_owned) }
}

async fn actions(store: &Store, tenant: &TenantId) -> Vec<(String, String, Option<String>)> {
    let mut tx = store.read().await.unwrap();
    let rows = audit_list(&mut tx, &scope_of(tenant.as_str()), "", 100).await.unwrap();
    rows.into_iter().map(|row| (row.action, row.result, row.reason)).collect()
}

#[tokio::test]
async fn tenants_have_names_of_their_own_and_settings_that_fit() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, caller) = room.tenant("acme").await;
        let again = room.tenant_create(NewTenant { name: "acme".to_owned(), ..NewTenant::default() }).await;
        assert!(matches!(again, Err(AccountsError::Conflict(_))), "{again:?}");
        for odd in [
            NewTenant { name: " ".to_owned(), ..NewTenant::default() },
            NewTenant { name: "b".to_owned(), environment: Some("installation".to_owned()), ..NewTenant::default() },
            NewTenant {
                name: "b".to_owned(),
                return_urls: vec!["http://app.example".to_owned()],
                ..NewTenant::default()
            },
            NewTenant {
                name: "b".to_owned(),
                origins: vec!["https://app.example/".to_owned()],
                ..NewTenant::default()
            },
        ] {
            assert!(matches!(room.tenant_create(odd).await, Err(AccountsError::Invalid(_))));
        }
        assert_eq!(room.tenant_find("acme").await.unwrap().id, tenant.id);
        assert_eq!(room.tenant_list().await.unwrap().len(), 1);
        for hidden in ["installation", TenantId::installation().as_str(), "nobody"] {
            assert!(matches!(room.tenant_find(hidden).await, Err(AccountsError::NotFound(_))), "{hidden}");
        }
        let patch = SettingsPatch { origins: Some(vec!["https://app.example".to_owned()]), ..SettingsPatch::default() };
        room.settings_change(&caller, patch).await.unwrap();
        room.tenant_set_confirm(&tenant.id, "none").await.unwrap();
        let settings = room.settings(&caller).await.unwrap();
        assert_eq!(
            (settings.return_urls, settings.origins),
            (vec![RETURN.to_owned()], vec!["https://app.example".to_owned()])
        );
        assert_eq!(settings.confirm, "none");
        assert_eq!(actions(&store, &tenant.id).await.len(), 3, "made and changed twice");
    })
    .await;
}

#[tokio::test]
async fn a_key_opens_its_tenant_with_its_scopes_until_it_is_revoked_ap_04() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, owner) = room.tenant("acme").await;
        let (_, neighbour) = room.tenant("other").await;
        let (key, secret) = room.key(&owner, &["tokens:read"], &[]).await;
        assert!(secret.expose().starts_with("vk_live_") && secret.expose().ends_with(&key.hint));

        let caller = room.try_key(&secret, "203.0.113.7").await.expect("opens");
        assert_eq!(caller.tenant(), &tenant.id);
        assert!(caller.may(Permission::TokensRead) && !caller.may(Permission::KeysWrite));
        let denied = room.api_key_list(&caller, "", 10).await;
        assert!(matches!(denied, Err(AccountsError::Denied(_))), "{denied:?}");
        let listed = room.api_key_list(&owner, "", 10).await.unwrap();
        assert_eq!((listed.len(), listed[0].last_used_at), (1, Some(room.around.now())));
        assert!(room.api_key_list(&neighbour, "", 10).await.unwrap().is_empty());

        let theirs = room.api_key_revoke(&neighbour, &key.id, false).await;
        assert!(matches!(theirs, Err(AccountsError::NotFound(_))), "{theirs:?}");
        room.api_key_revoke(&owner, &key.id, false).await.unwrap();
        let refused = room.try_key(&secret, "203.0.113.7").await;
        assert!(matches!(refused, Err(AccountsError::Unauthenticated)), "{refused:?}");
        let again = room.api_key_revoke(&owner, &ApiKeyId::stored(key.id.to_string()), false).await;
        assert!(matches!(again, Err(AccountsError::NotFound(_))), "{again:?}");
    })
    .await;
}

#[tokio::test]
async fn a_mistyped_unknown_or_expired_key_is_refused_alike() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (_, owner) = room.tenant("acme").await;
        let until = room.around.now().after(Duration::from_secs(60));
        let new = NewApiKey {
            name: "k".to_owned(),
            scopes: vec!["all".to_owned()],
            allowed_ips: None,
            expires_at: Some(until),
        };
        let (_, exposed) = room.api_key_create(&owner, new).await.unwrap();
        let secret = shown(&exposed);
        let mut mistyped = secret.expose().to_owned();
        let last = if mistyped.pop() == Some('0') { '1' } else { '0' };
        mistyped.push(last);
        let unknown = crate::keys::mint("vk_live", &room.around);
        for text in ["", "Bearer x", mistyped.as_str(), unknown.expose()] {
            let refused = room.try_key(&Secret::new(text), "203.0.113.7").await;
            assert!(matches!(refused, Err(AccountsError::Unauthenticated)), "{text}: {refused:?}");
        }
        room.try_key(&secret, "203.0.113.7").await.expect("in time");
        room.clock.advance(Duration::from_secs(60));
        let refused = room.try_key(&secret, "203.0.113.7").await;
        assert!(matches!(refused, Err(AccountsError::Unauthenticated)), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn a_key_is_used_from_its_own_networks_only_ap_06() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, owner) = room.tenant("acme").await;
        let (_, secret) = room.key(&owner, &["all"], &["203.0.113.0/24", "2001:db8::1"]).await;
        for good in ["203.0.113.200", "2001:db8::1"] {
            room.try_key(&secret, good).await.expect(good);
        }
        for bad in ["203.0.114.1", "2001:db8::2", "nowhere"] {
            let refused = room.try_key(&secret, bad).await;
            assert!(matches!(refused, Err(AccountsError::IpNotAllowed)), "{bad}: {refused:?}");
        }
        let denials = actions(&store, &tenant.id).await.into_iter().filter(|(_, result, _)| result == "denied").count();
        assert_eq!(denials, 3, "every one is in the book");
    })
    .await;
}

#[tokio::test]
async fn a_key_makes_no_key_that_could_do_more_than_itself() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (_, owner) = room.tenant("acme").await;
        let (_, secret) = room.key(&owner, &["keys:write", "users:write"], &[]).await;
        let caller = room.try_key(&secret, "203.0.113.7").await.unwrap();
        room.key(&caller, &["users:write"], &[]).await;
        for scope in ["tokens:read", "all"] {
            let new =
                NewApiKey { name: "k".to_owned(), scopes: vec![scope.to_owned()], allowed_ips: None, expires_at: None };
            let denied = room.api_key_create(&caller, new).await;
            assert!(matches!(denied, Err(AccountsError::Denied(_))), "{scope}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_outlives_and_outreaches_none_that_made_it() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (_, owner) = room.tenant("acme").await;
        let new = |networks: &[&str], expires_at: Option<i64>| NewApiKey {
            name: "k".to_owned(),
            scopes: vec!["keys:write".to_owned()],
            allowed_ips: limit(networks),
            expires_at: expires_at.map(Millis),
        };
        let end = room.around.now().0 + 60_000;
        let (maker, secret) =
            room.api_key_create(&owner, new(&["203.0.113.0/24", "2001:db8::/32"], Some(end))).await.unwrap();
        let secret = serde_json::to_value(&secret).unwrap().as_str().unwrap().to_owned();
        let caller = room.try_key(&Secret::new(secret), "203.0.113.7").await.unwrap();

        let (like, _) = room.api_key_create(&caller, new(&[], None)).await.unwrap();
        assert_eq!(
            (&like.allowed_ips, like.expires_at),
            (&maker.allowed_ips, Some(Millis(end))),
            "absent is the maker's"
        );
        let (less, _) = room.api_key_create(&caller, new(&["203.0.113.128/25"], Some(end - 1))).await.unwrap();
        assert_eq!((less.allowed_ips, less.expires_at), (vec!["203.0.113.128/25".to_owned()], Some(Millis(end - 1))));
        let refused =
            room.api_key_create(&caller, new(&["203.0.113.7", "203.0.112.0/23", "8.8.8.8"], Some(end + 1))).await;
        let Err(AccountsError::Invalid(invalid)) = refused else { panic!("{refused:?}") };
        let fields: Vec<_> = invalid.0.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["allowed_ips[1]", "allowed_ips[2]", "expires_at"]);
        // The operator and a key without limits have none to pass on.
        let (free, _) = room.api_key_create(&owner, new(&[], None)).await.unwrap();
        assert_eq!((free.allowed_ips.len(), free.expires_at), (0, None));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_e_mail_look_the_same_wb_11() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, operator) = room.tenant("acme").await;
        let login = room.member_create(&operator, member(EMAIL, Some(Role::Admin), None)).await.unwrap();
        let mut told = vec![];
        for (email, password, tenant) in [
            (EMAIL, "wrong horse battery staple", None),
            ("nobody@example.org", PASSWORD, None),
            ("not an e-mail", PASSWORD, None),
            (EMAIL, PASSWORD, Some("ten_other")),
        ] {
            let refused = room.try_sign_in(email, password, tenant).await.expect_err("refused");
            told.push(format!("{refused:?} {refused}"));
        }
        told.dedup();
        assert_eq!(told.len(), 1, "{told:?}");

        let outcome = room.try_sign_in(" Owner@Example.ORG ", PASSWORD, None).await.unwrap();
        let SignInOutcome::Done(session) = outcome else { panic!("{outcome:?}") };
        assert_eq!((&session.tenant, &session.login), (&tenant.id, &login));
        assert_eq!(room.login_email(&session).await.unwrap(), EMAIL);
        let (caller, user) = room.signed_in_caller(&session, origin("203.0.113.9")).await.unwrap();
        assert!(caller.may(Permission::SettingsWrite) && !caller.may(Permission::KeysWrite) && user.is_none());
        room.sign_out(&session, origin("203.0.113.9")).await.unwrap();
        let denied = actions(&store, &tenant.id).await.into_iter().filter(|(_, result, _)| result == "denied").count();
        assert_eq!(denied, 1, "a wrong password is in the book, a wrong name is nobody's");
    })
    .await;
}

#[tokio::test]
async fn a_session_is_worth_what_its_login_is_worth_now() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, operator) = room.tenant("acme").await;
        room.member_create(&operator, member(EMAIL, None, Some("customer 7"))).await.unwrap();
        let again = room.member_create(&operator, member(EMAIL, Some(Role::Viewer), None)).await;
        assert!(matches!(again, Err(AccountsError::Conflict(_))), "{again:?}");
        let SignInOutcome::Done(session) = room.try_sign_in(EMAIL, PASSWORD, None).await.unwrap() else {
            panic!("one")
        };
        let (_, user) = room.signed_in_caller(&session, origin("203.0.113.9")).await.unwrap();
        let known = room.user(&operator, "customer 7").await.unwrap();
        assert_eq!(user.and_then(|caller| caller.user().cloned()), Some(known.id.clone()));

        let mut tx = store.begin().await.unwrap();
        sql!(tx, execute, "UPDATE logins SET disabled_at = 1 WHERE tenant_id = $1", tenant.id.as_str()).unwrap();
        tx.commit().await.unwrap();
        let gone = room.signed_in_caller(&session, origin("203.0.113.9")).await;
        assert!(matches!(gone, Err(AccountsError::Unauthenticated)), "{gone:?}");
        let gone = room.try_sign_in(EMAIL, PASSWORD, None).await;
        assert!(matches!(gone, Err(AccountsError::Unauthenticated)), "{gone:?}");
    })
    .await;
}

#[tokio::test]
async fn somebody_with_logins_at_two_tenants_says_which() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (one, first) = room.tenant("acme").await;
        let (_, second) = room.tenant("other").await;
        for operator in [&first, &second] {
            room.member_create(operator, member(EMAIL, Some(Role::Owner), None)).await.unwrap();
        }
        let outcome = room.try_sign_in(EMAIL, PASSWORD, None).await.unwrap();
        assert!(matches!(&outcome, SignInOutcome::Choose(tenants) if tenants.len() == 2), "{outcome:?}");
        let outcome = room.try_sign_in(EMAIL, PASSWORD, Some(one.id.as_str())).await.unwrap();
        assert!(matches!(&outcome, SignInOutcome::Done(session) if session.tenant == one.id), "{outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn logins_that_do_not_fit_are_refused_before_anything_is_written() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, operator) = room.tenant("acme").await;
        let short = NewMember { password: Secret::new("fourteen chars"), ..member(EMAIL, Some(Role::Owner), None) };
        for odd in [
            short,
            member("no-at-sign", Some(Role::Owner), None),
            member(EMAIL, None, None),
            member(EMAIL, None, Some("\n")),
        ] {
            let refused = room.member_create(&operator, odd).await;
            assert!(matches!(refused, Err(AccountsError::Invalid(_))), "{refused:?}");
        }
        assert_eq!(actions(&store, &tenant.id).await.len(), 1, "the tenant's making");
    })
    .await;
}

async fn try_set_up(room: &Room, link: &Link, name: &str, email: &str) -> Result<SignedIn, AccountsError> {
    room.set_up(&link.token, name, email.to_owned(), Secret::new(PASSWORD)).await
}

async fn owners(store: &Store) -> i64 {
    let mut tx = store.read().await.unwrap();
    logins_with_role(&mut tx, TEST).await.unwrap()
}

#[tokio::test]
async fn set_up_makes_the_first_owner_and_closes_for_ever_ad_01() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (link, spare) = (room.setup_link().await.unwrap(), room.setup_link().await.unwrap());
        assert_eq!(room.setup_until(&link.token).await.unwrap(), link.expires_at);
        let mistyped = room.set_up(&link.token, "acme", EMAIL.to_owned(), Secret::new("short")).await;
        assert!(matches!(mistyped, Err(AccountsError::Invalid(_))), "{mistyped:?}");
        let session = try_set_up(&room, &link, "acme", EMAIL).await.expect("a mistyped form does not cost the link");
        let (caller, _) = room.signed_in_caller(&session, origin("203.0.113.9")).await.unwrap();
        assert!(caller.may(Permission::KeysWrite), "an owner");
        for used in [&link, &spare] {
            let gone = try_set_up(&room, used, "evil", "evil@example.org").await;
            assert!(matches!(gone, Err(AccountsError::Gone)), "{gone:?}");
            assert!(matches!(room.setup_until(&used.token).await, Err(AccountsError::Gone)));
        }
        assert!(matches!(room.setup_link().await, Err(AccountsError::Gone)));
        assert_eq!((owners(&store).await, room.tenant_list().await.unwrap().len()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_set_up_link_lasts_a_quarter_of_an_hour() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let link = room.setup_link().await.unwrap();
        room.clock.advance(Duration::from_secs(15 * 60));
        assert!(matches!(try_set_up(&room, &link, "acme", EMAIL).await, Err(AccountsError::Gone)));
        assert!(matches!(room.setup_until(&Secret::new("vkl_guess")).await, Err(AccountsError::Gone)));
        assert_eq!(owners(&store).await, 0);
    })
    .await;
}

#[tokio::test]
async fn of_parallel_set_ups_one_wins_with_one_link_and_with_several() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let shared = room.setup_link().await.unwrap();
        let own = room.setup_link().await.unwrap();
        let tries = [(&shared, "one"), (&shared, "two"), (&own, "three")];
        let tried = join_all(tries.map(|(link, name)| {
            let room = &room;
            async move { try_set_up(room, link, name, &format!("{name}@example.org")).await }
        }))
        .await;
        assert_eq!(tried.iter().filter(|tried| tried.is_ok()).count(), 1, "{tried:?}");
        assert!(tried.iter().all(|tried| matches!(tried, Ok(_) | Err(AccountsError::Gone))), "{tried:?}");
        assert_eq!(
            (owners(&store).await, room.tenant_list().await.unwrap().len()),
            (1, 1),
            "nothing of the others stays"
        );
    })
    .await;
}

#[tokio::test]
async fn set_up_can_take_a_tenant_that_is_there_and_costs_nothing_when_it_fails() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, operator) = room.tenant("acme").await;
        room.member_create(&operator, member(EMAIL, None, Some("customer 7"))).await.unwrap();
        let link = room.setup_link().await.expect("an end user's login does not close set-up");
        let taken = try_set_up(&room, &link, "acme", EMAIL).await;
        assert!(matches!(taken, Err(AccountsError::Conflict(_))), "{taken:?}");
        let session = try_set_up(&room, &link, "acme", "other@example.org").await.expect("the link is still good");
        assert_eq!(session.tenant, tenant.id);
    })
    .await;
}

#[tokio::test]
async fn a_portal_link_is_entered_once_and_lasts_half_an_hour() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (tenant, caller) = room.tenant("acme").await;
        let wanted = PortalLink { user: "customer 7", return_url: Some(RETURN) };
        let link = room.portal_link(&caller, wanted).await.unwrap();
        for _ in 0..2 {
            room.portal_look(&link.token).await.expect("looking does not use it (WB-12)");
        }
        let entered = join_all([0; 8].map(|_| room.portal_enter(&link.token))).await;
        let visits: Vec<_> = entered.into_iter().filter_map(Result::ok).collect();
        assert_eq!(visits.len(), 1);
        assert_eq!((&visits[0].tenant, visits[0].return_url.as_deref()), (&tenant.id, Some(RETURN)));
        assert!(matches!(room.portal_look(&link.token).await, Err(AccountsError::Gone)));
        let user = room.portal_caller(&visits[0], origin("203.0.113.9")).await.unwrap();
        assert_eq!(user.user(), Some(&visits[0].user));

        for odd in ["https://app.example/done/", "https://evil.example"] {
            let refused = room.portal_link(&caller, PortalLink { user: "customer 7", return_url: Some(odd) }).await;
            assert!(matches!(refused, Err(AccountsError::Invalid(_))), "{odd}");
        }
        let late = room.portal_link(&caller, PortalLink { user: "customer 7", return_url: None }).await.unwrap();
        room.clock.advance(Duration::from_secs(30 * 60));
        assert!(matches!(room.portal_enter(&late.token).await, Err(AccountsError::Gone)));
        let over = room.portal_caller(&visits[0], origin("203.0.113.9")).await;
        assert!(matches!(over, Err(AccountsError::Unauthenticated)), "{over:?}");
    })
    .await;
}

#[tokio::test]
async fn users_are_known_by_the_tenants_own_ids_and_their_names_are_sealed() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let (_, caller) = room.tenant("acme").await;
        let (_, neighbour) = room.tenant("other").await;
        let name = Profile { display_name: Some("Canary of a name".to_owned()), email: None };
        let made = room.user_put(&caller, "customer 7", name).await.unwrap();
        let email = Profile { display_name: None, email: Some("c7@example.org".to_owned()) };
        let changed = room.user_put(&caller, "customer 7", email).await.unwrap();
        assert_eq!(changed.id, made.id);
        let known = room.user(&caller, "customer 7").await.unwrap();
        assert_eq!(known.profile.display_name.as_deref(), Some("Canary of a name"), "absent fields stay");
        assert_eq!(known.profile.email.as_deref(), Some("c7@example.org"));
        assert!(matches!(room.user(&neighbour, "customer 7").await, Err(AccountsError::NotFound(_))));
        assert!(matches!(room.user_by_id(&neighbour, &made.id).await, Err(AccountsError::NotFound(_))));
        assert_eq!(room.user_list(&caller, "", 10).await.unwrap().len(), 1);
        let mut tx = store.read().await.unwrap();
        type Sealed = (Vec<u8>,);
        let (sealed,) = sql!(tx, one Sealed, "SELECT profile FROM users WHERE profile IS NOT NULL").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"Canary"));
    })
    .await;
}

#[tokio::test]
async fn browser_sessions_are_kept_sealed_and_hashed_and_end_for_good_wb_02() {
    on_both(async |store: Store| {
        let room = room(&store).await;
        let sessions = room.session_store(Duration::from_secs(3600));
        let mut record = Record {
            id: Id(0),
            data: Default::default(),
            expiry_date: tower_sessions::cookie::time::OffsetDateTime::UNIX_EPOCH,
        };
        record.data.insert("form".to_owned(), "canary-of-a-session".into());
        sessions.create(&mut record).await.unwrap();
        assert_ne!(record.id, Id(0), "ids come from us");
        let loaded = sessions.load(&record.id).await.unwrap().expect("there");
        assert_eq!(loaded.data, record.data);
        record.data.insert("more".to_owned(), 1.into());
        sessions.save(&record).await.unwrap();
        assert_eq!(sessions.load(&record.id).await.unwrap().expect("there").data, record.data);

        let mut tx = store.read().await.unwrap();
        let (hash, sealed) = sql!(tx, one(String, Vec<u8>), "SELECT id_hash, record FROM sessions").unwrap();
        drop(tx);
        assert!(!hash.contains(&record.id.to_string()) && !sealed.windows(6).any(|window| window == b"canary"));

        sessions.delete(&record.id).await.unwrap();
        sessions.save(&record).await.unwrap();
        assert!(sessions.load(&record.id).await.unwrap().is_none(), "a late save does not bring it back");

        sessions.create(&mut record).await.unwrap();
        room.clock.advance(Duration::from_secs(3600));
        assert!(sessions.load(&record.id).await.unwrap().is_none(), "it ends by our clock");
        assert_eq!(room.sessions_expire().await.unwrap(), 1);
    })
    .await;
}
