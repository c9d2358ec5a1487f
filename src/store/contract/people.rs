//! Users, logins, sessions and one-time links.

use super::*;
use crate::store::logins::{LoginRow, login_by_id, login_insert, logins_by_email, logins_with_role};
use crate::store::sessions::{
    OneTimeLinkRow, link_delete_expired, link_insert, link_peek, link_use, session_change, session_delete,
    session_delete_expired, session_get, session_put,
};
use crate::store::users::{UserRow, user_by_external_id, user_by_id, user_erase, user_list, user_update_profile};

#[tokio::test]
async fn of_many_callers_who_need_a_user_one_makes_it_and_all_get_it() {
    in_a_house(async |store| {
        let made =
            race(&store, async |tx, n| user_ensure(tx, &a(), &format!("usr_new{n}"), "ext new", NOW).await).await;
        assert!(made.iter().all(|row| *row == made[0]), "{made:?}");
        let mut tx = store.begin().await.unwrap();
        let again = user_ensure(&mut tx, &a(), "usr_late", "ext new", NOW + 1).await.unwrap();
        assert_eq!(again, made[0], "it stays as it was made");
        let theirs = user_ensure(&mut tx, &b(), "usr_b", "ext new", NOW).await.unwrap();
        assert_eq!(theirs.tenant_id, B, "the same name at the neighbour is another user");
    })
    .await;
}

#[tokio::test]
async fn a_user_is_seen_by_its_tenant_and_by_itself_only() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        user_update_profile(&mut tx, &a(), USER, &bytes()).await.unwrap();
        user_update_profile(&mut tx, &b(), USER, b"overwritten").await.unwrap();
        let wanted = UserRow {
            tenant_id: A.to_owned(),
            id: USER.to_owned(),
            external_id: format!("ext {USER}"),
            profile: Some(bytes()),
            created_at: NOW,
            erased_at: None,
        };
        for scope in [a(), user_scope(A, USER)] {
            assert_eq!(user_by_id(&mut tx, &scope, USER).await.unwrap(), Some(wanted.clone()));
            let found = user_by_external_id(&mut tx, &scope, &wanted.external_id).await.unwrap();
            assert_eq!(found, Some(wanted.clone()));
        }
        for scope in [b(), user_scope(A, OTHER), user_scope(B, USER)] {
            assert_eq!(user_by_id(&mut tx, &scope, USER).await.unwrap(), None);
            assert_eq!(user_by_external_id(&mut tx, &scope, &wanted.external_id).await.unwrap(), None);
        }
        assert_eq!(ids(&user_list(&mut tx, &a(), "", 9).await.unwrap(), |row| &row.id), [USER, OTHER]);
        assert_eq!(ids(&user_list(&mut tx, &a(), USER, 9).await.unwrap(), |row| &row.id), [OTHER]);
        assert_eq!(ids(&user_list(&mut tx, &a(), "", 1).await.unwrap(), |row| &row.id), [USER]);
    })
    .await;
}

#[tokio::test]
async fn an_erased_user_is_gone_and_its_external_id_is_free_again() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        user_update_profile(&mut tx, &a(), USER, &bytes()).await.unwrap();
        assert!(!user_erase(&mut tx, &b(), USER, NOW).await.unwrap(), "not by the neighbour");
        assert!(user_erase(&mut tx, &a(), USER, NOW + 1).await.unwrap());
        assert!(!user_erase(&mut tx, &a(), USER, NOW + 2).await.unwrap(), "once");
        assert_eq!(user_by_id(&mut tx, &a(), USER).await.unwrap(), None);
        assert_eq!(user_by_external_id(&mut tx, &a(), &format!("ext {USER}")).await.unwrap(), None);
        assert_eq!(ids(&user_list(&mut tx, &a(), "", 9).await.unwrap(), |row| &row.id), [OTHER]);
        let next = user_ensure(&mut tx, &a(), "usr_9", &format!("ext {USER}"), NOW + 3).await.unwrap();
        assert_eq!((next.id.as_str(), next.profile), ("usr_9", None), "a new user, who inherits nothing");
    })
    .await;
}

fn login(id: &str, email_hash: &str, role: Option<&str>, user: Option<&str>) -> LoginRow {
    LoginRow {
        tenant_id: A.to_owned(),
        id: id.to_owned(),
        email_hash: email_hash.to_owned(),
        email: bytes(),
        password_hash: "$argon2id$…".to_owned(),
        role: role.map(str::to_owned),
        user_id: user.map(str::to_owned),
        created_at: NOW,
        disabled_at: None,
    }
}

#[tokio::test]
async fn a_login_is_found_by_e_mail_across_tenants_and_once_in_each() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        assert_eq!(logins_with_role(&mut tx, TEST).await.unwrap(), 0);
        login_insert(&mut tx, &a(), &login("mem_1", "e", None, Some(USER))).await.unwrap();
        assert_eq!(logins_with_role(&mut tx, TEST).await.unwrap(), 0, "an end user's login has no role");
        login_insert(&mut tx, &b(), &login("mem_2", "e", Some("owner"), None)).await.unwrap();
        assert_eq!(logins_with_role(&mut tx, TEST).await.unwrap(), 1);
        tx.commit().await.unwrap();

        let mut tx = store.read().await.unwrap();
        let found = logins_by_email(&mut tx, TEST, "e").await.unwrap();
        assert_same(&found[0], &login("mem_1", "e", None, Some(USER)));
        assert_eq!(ids(&found, |row| &row.tenant_id), [A, B]);
        assert!(logins_by_email(&mut tx, TEST, "f").await.unwrap().is_empty());
        assert!(login_by_id(&mut tx, TEST, A, "mem_1").await.unwrap().is_some());
        assert!(login_by_id(&mut tx, TEST, B, "mem_1").await.unwrap().is_none());
        drop(tx);
        assert_conflict(&store, async |tx| login_insert(tx, &a(), &login("mem_3", "e", Some("viewer"), None)).await)
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_login_needs_a_purpose_and_a_user_of_its_own_tenant() {
    in_a_house(async |store| {
        for row in [
            login("mem_1", "e", None, None),
            login("mem_1", "e", None, Some(STRANGER)),
            login("mem_1", "e", Some("king"), None),
        ] {
            let mut tx = store.begin().await.unwrap();
            let refused = login_insert(&mut tx, &a(), &row).await;
            assert!(matches!(refused, Err(StoreError::Defect(_))), "{refused:?}");
            tx.roll_back().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_is_read_until_it_ends_and_kept_in_one_row() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        session_put(&mut tx, TEST, "s", b"first", NOW + 5).await.unwrap();
        session_put(&mut tx, TEST, "s", &bytes(), NOW + 10).await.unwrap();
        session_put(&mut tx, TEST, "t", b"", NOW + 10).await.unwrap();
        session_put(&mut tx, TEST, "u", b"", NOW + 11).await.unwrap();
        assert_eq!(session_get(&mut tx, TEST, "s", NOW + 9).await.unwrap(), Some((bytes(), NOW + 10)));
        assert_eq!(session_get(&mut tx, TEST, "s", NOW + 10).await.unwrap(), None);
        assert!(session_change(&mut tx, TEST, "s", b"changed", NOW + 20, NOW + 9).await.unwrap());
        assert_eq!(session_get(&mut tx, TEST, "s", NOW + 9).await.unwrap(), Some((b"changed".to_vec(), NOW + 20)));
        assert!(!session_change(&mut tx, TEST, "s", b"late", NOW + 99, NOW + 20).await.unwrap(), "it has ended");
        session_delete(&mut tx, TEST, "s").await.unwrap();
        session_delete(&mut tx, TEST, "s").await.unwrap();
        assert!(!session_change(&mut tx, TEST, "s", b"late", NOW + 99, NOW).await.unwrap(), "it stays deleted");
        assert_eq!(session_get(&mut tx, TEST, "s", NOW).await.unwrap(), None);
        assert_eq!(session_delete_expired(&mut tx, TEST, NOW + 10).await.unwrap(), 1);
        assert_eq!(session_get(&mut tx, TEST, "u", NOW).await.unwrap(), Some((vec![], NOW + 11)));
    })
    .await;
}

fn link(token_hash: &str, purpose: &str) -> OneTimeLinkRow {
    OneTimeLinkRow {
        token_hash: token_hash.to_owned(),
        purpose: purpose.to_owned(),
        tenant_id: Some(A.to_owned()),
        user_id: Some(USER.to_owned()),
        return_url: Some("https://a.example/?x=1&y=ü".to_owned()),
        created_at: NOW,
        expires_at: NOW + 10,
        used_at: None,
    }
}

#[tokio::test]
async fn looking_at_a_link_does_not_use_it_wb_12_and_one_of_many_callers_does() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        link_insert(&mut tx, TEST, &link("l", "portal")).await.unwrap();
        for _ in 0..3 {
            let seen = link_peek(&mut tx, TEST, "l", "portal", NOW + 9).await.unwrap().unwrap();
            assert_same(&seen, &link("l", "portal"));
        }
        assert!(link_peek(&mut tx, TEST, "l", "portal", NOW + 10).await.unwrap().is_none(), "it ends");
        assert!(link_peek(&mut tx, TEST, "l", "setup", NOW).await.unwrap().is_none(), "it has one purpose");
        assert!(link_use(&mut tx, TEST, "l", "setup", NOW).await.unwrap().is_none());
        assert!(link_use(&mut tx, TEST, "l", "portal", NOW + 10).await.unwrap().is_none());
        tx.commit().await.unwrap();

        let used = race(&store, async |tx, _| link_use(tx, TEST, "l", "portal", NOW + 1).await).await;
        let winners: Vec<_> = used.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!((winners[0].user_id.as_deref(), winners[0].used_at), (Some(USER), Some(NOW + 1)));
        let mut tx = store.read().await.unwrap();
        assert!(link_peek(&mut tx, TEST, "l", "portal", NOW).await.unwrap().is_none());
        drop(tx);
        assert_conflict(&store, async |tx| link_insert(tx, TEST, &link("l", "portal")).await).await;
    })
    .await;
}

#[tokio::test]
async fn ended_links_are_deleted_and_live_ones_stay() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        link_insert(&mut tx, TEST, &link("l", "portal")).await.unwrap();
        link_insert(&mut tx, TEST, &OneTimeLinkRow { expires_at: NOW + 11, ..link("m", "portal") }).await.unwrap();
        assert_eq!(link_delete_expired(&mut tx, TEST, NOW + 10).await.unwrap(), 1);
        assert!(link_peek(&mut tx, TEST, "m", "portal", NOW).await.unwrap().is_some());
    })
    .await;
}
