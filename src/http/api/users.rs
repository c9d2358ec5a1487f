//! End users, by the tenant's own id.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::accounts::{Profile, User};
use crate::caller::Permission;
use crate::http::{
    Answer, House, List, NoBody, PageQuery, Paging, PathId, PathText, PlatformCaller, Problem, Sent, idempotent,
};

const LIST: &str = "users";

/// An end user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserView {
    /// The tenant's own id.
    user: String,
    #[schema(required)]
    display_name: Option<String>,
    #[schema(required)]
    email: Option<String>,
    /// RFC 3339
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            user: user.external_id,
            display_name: user.profile.display_name,
            email: user.profile.email,
            created_at: user.created_at.rfc3339(),
        }
    }
}

/// What a tenant tells us about a user; absent fields stay.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UserProfile {
    /// How the user is called; 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    display_name: Option<String>,
    /// Only shown, never a key.
    email: Option<String>,
}

/// Makes a user, or changes what is known of one.
#[utoipa::path(
    put, path = "/v1/users/{user}", tag = "users", operation_id = "put_user",
    params(("user" = String, Path, description = "The tenant's own id, 1 to 200 characters")),
    request_body = Option<UserProfile>,
    responses((status = 200, description = "The user", body = UserView)),
)]
pub(super) async fn user_put(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(user): PathText,
    body: Sent<UserProfile>,
) -> Result<Response, Problem> {
    let (value, written) = body.open_or_default(&caller, Permission::UsersWrite)?;
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        let profile = Profile { display_name: value.display_name, email: value.email };
        Answer::ok(&UserView::from(rooms.accounts.user_put(&who, &user, profile).await?))
    })
    .await
}

/// The receipt of an erasure.
#[derive(Debug, Serialize, ToSchema)]
struct Erased {
    receipt: crate::connections::Receipt,
}

/// Erases a user: key, connections, conversations; then revokes at the providers.
#[utoipa::path(
    delete, path = "/v1/users/{user}", tag = "users", operation_id = "erase_user",
    params(("user" = String, Path, description = "The tenant's own id, 1 to 200 characters")),
    responses((status = 200, description = "The receipt", body = Erased)),
)]
pub(super) async fn user_erase(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(user): PathText,
    NoBody(written): NoBody,
) -> Result<Response, Problem> {
    let (rooms, who) = (house.clone(), caller.clone());
    idempotent(&house, &caller, written, async move {
        Answer::ok(&Erased { receipt: rooms.connections.erase_user(&who, &user).await? })
    })
    .await
}

/// A user.
#[utoipa::path(
    get, path = "/v1/users/{user}", tag = "users", operation_id = "get_user",
    params(("user" = String, Path, description = "The tenant's own id, 1 to 200 characters")),
    responses((status = 200, description = "The user", body = UserView)),
)]
pub(super) async fn user(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    PathId(user): PathText,
) -> Result<Json<UserView>, Problem> {
    Ok(Json(house.accounts.user(&caller, &user).await?.into()))
}

/// All users, in the order of their making.
#[utoipa::path(
    get, path = "/v1/users", tag = "users", operation_id = "list_users",
    params(PageQuery),
    responses((status = 200, description = "A page of users", body = List<UserView>)),
)]
pub(super) async fn users(
    State(house): State<House>,
    PlatformCaller(caller): PlatformCaller,
    paging: Paging,
) -> Result<Json<List<UserView>>, Problem> {
    let after = paging.after(&house, &caller, LIST)?;
    let users = house.accounts.user_list(&caller, &after, paging.ask()).await?;
    Ok(Json(paging.page((&house, &caller, LIST), users, |user| user.id.to_string(), UserView::from)))
}
