//! Workspaces, shares, agents and grants.

use super::*;
use crate::store::agents::{
    GrantRow, agent_by_agent_id, agent_list, agent_put, grant_delete, grant_find, grant_list, grant_put,
};
use crate::store::workspaces::{
    workspace_by_id, workspace_by_name, workspace_list, workspace_share, workspace_shared, workspace_update,
};

#[tokio::test]
async fn a_workspace_is_found_by_name_in_its_tenant_and_by_both_ids_below_the_gates() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let row = WorkspaceRow {
            user_id: Some(USER.to_owned()),
            secondary_key: Some(vec![9]),
            ..workspace_row("wks_2", "eu")
        };
        workspace_insert(&mut tx, &a(), &row).await.unwrap();
        workspace_insert(&mut tx, &b(), &workspace_row("wks_3", "eu")).await.unwrap();
        assert_same(&workspace_by_name(&mut tx, &a(), "eu").await.unwrap().unwrap(), &row);
        assert_same(&workspace_by_id(&mut tx, TEST, A, "wks_2").await.unwrap().unwrap(), &row);
        assert!(workspace_by_id(&mut tx, TEST, B, "wks_2").await.unwrap().is_none());
        assert!(workspace_by_name(&mut tx, &b(), "main").await.unwrap().is_none());
        assert_eq!(ids(&workspace_list(&mut tx, &a()).await.unwrap(), |row| &row.name), ["eu", "main"]);
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| workspace_insert(tx, &a(), &workspace_row("wks_4", "eu")).await).await;
    })
    .await;
}

#[tokio::test]
async fn a_workspaces_keys_are_exchanged_without_touching_its_tool_header() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let mut row = workspace_row("wks_1", "main");
        (row.region, row.primary_key, row.secondary_key) = ("eu".to_owned(), None, Some(bytes()));
        (row.active_slot, row.updated_at) = ("secondary".to_owned(), NOW + 5);
        workspace_update(&mut tx, &b(), &WorkspaceRow { region: "in".to_owned(), ..row.clone() }).await.unwrap();
        assert_eq!(workspace_by_name(&mut tx, &a(), "main").await.unwrap().unwrap().region, "us");
        let altered = WorkspaceRow { tool_header: vec![], tool_header_hash: "other".to_owned(), ..row.clone() };
        workspace_update(&mut tx, &a(), &altered).await.unwrap();
        assert_same(&workspace_by_name(&mut tx, &a(), "main").await.unwrap().unwrap(), &row);
    })
    .await;
}

#[tokio::test]
async fn a_workspace_is_shared_with_one_tenant_for_one_agent() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        for _ in 0..2 {
            workspace_share(&mut tx, TEST, A, "wks_1", B, "agent_x", NOW).await.unwrap();
        }
        let shared = workspace_shared(&mut tx, &b(), "main", "agent_x").await.unwrap().unwrap();
        assert_same(&shared, &workspace_row("wks_1", "main"));
        assert!(workspace_shared(&mut tx, &b(), "main", "agent_y").await.unwrap().is_none(), "another agent");
        assert!(workspace_shared(&mut tx, &b(), "other", "agent_x").await.unwrap().is_none(), "another workspace");
        assert!(
            workspace_shared(&mut tx, &a(), "main", "agent_x").await.unwrap().is_none(),
            "nobody shared it with the owner"
        );
        assert!(workspace_by_name(&mut tx, &b(), "main").await.unwrap().is_none(), "sharing does not give it away");
    })
    .await;
}

#[tokio::test]
async fn an_agent_is_replaced_under_its_first_id_and_belongs_to_one_tenant() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        agent_put(&mut tx, &a(), &agent_row("agt_1", "agent_x")).await.unwrap();
        assert_same(
            &agent_by_agent_id(&mut tx, &a(), "agent_x").await.unwrap().unwrap(),
            &agent_row("agt_1", "agent_x"),
        );
        let changed = AgentRow {
            access: "granted".to_owned(),
            needs: "[]".to_owned(),
            client_variables: JSON.to_owned(),
            broker: JSON.to_owned(),
            max_duration: 60,
            updated_at: NOW + 5,
            ..agent_row("agt_2", "agent_x")
        };
        agent_put(&mut tx, &a(), &changed).await.unwrap();
        let wanted = AgentRow { id: "agt_1".to_owned(), ..changed };
        assert_same(&agent_by_agent_id(&mut tx, &a(), "agent_x").await.unwrap().unwrap(), &wanted);
        agent_put(&mut tx, &a(), &agent_row("agt_3", "agent_a")).await.unwrap();
        assert_eq!(ids(&agent_list(&mut tx, &a()).await.unwrap(), |row| &row.agent_id), ["agent_a", "agent_x"]);
        assert!(agent_list(&mut tx, &b()).await.unwrap().is_empty());
        assert!(agent_by_agent_id(&mut tx, &b(), "agent_x").await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert_conflict(&store, async |tx| agent_put(tx, &b(), &agent_row("agt_4", "agent_x")).await).await;
    })
    .await;
}

fn grant(user: &str, kind: &str, id: &str, level: &str) -> GrantRow {
    GrantRow {
        user_id: user.to_owned(),
        resource_type: kind.to_owned(),
        resource_id: id.to_owned(),
        permission_level: level.to_owned(),
        created_at: NOW,
    }
}

#[tokio::test]
async fn a_grant_is_one_per_user_and_thing_and_ends_once() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let granted = grant(USER, "agent", "agent_x", "viewer");
        grant_put(&mut tx, &a(), &granted).await.unwrap();
        assert_same(&grant_find(&mut tx, &a(), USER, "agent", "agent_x").await.unwrap().unwrap(), &granted);
        grant_put(&mut tx, &a(), &grant(USER, "agent", "agent_x", "admin")).await.unwrap();
        grant_put(&mut tx, &a(), &grant(OTHER, "voice", "v", "editor")).await.unwrap();
        let all = grant_list(&mut tx, &a(), None).await.unwrap();
        assert_eq!(ids(&all, |row| &row.permission_level), ["admin", "editor"]);
        assert_eq!(grant_list(&mut tx, &a(), Some(OTHER)).await.unwrap().len(), 1);
        assert!(grant_list(&mut tx, &b(), None).await.unwrap().is_empty());
        for (scope, user, kind) in [(b(), USER, "agent"), (a(), OTHER, "agent"), (a(), USER, "voice")] {
            assert!(grant_find(&mut tx, &scope, user, kind, "agent_x").await.unwrap().is_none());
            assert!(!grant_delete(&mut tx, &scope, user, kind, "agent_x").await.unwrap());
        }
        assert!(grant_delete(&mut tx, &a(), USER, "agent", "agent_x").await.unwrap());
        assert!(!grant_delete(&mut tx, &a(), USER, "agent", "agent_x").await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_grant_names_a_user_of_the_same_tenant() {
    in_a_house(async |store| {
        let mut tx = store.begin().await.unwrap();
        let refused = grant_put(&mut tx, &a(), &grant(STRANGER, "agent", "agent_x", "viewer")).await;
        assert!(matches!(refused, Err(StoreError::Defect(_))), "{refused:?}");
    })
    .await;
}
