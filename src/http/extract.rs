//! Arguments of handlers. Those that name a caller are proofs: a handler that has one ran its check.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Code, House, Problem, RequestContext};
use crate::accounts::PresentedKey;
use crate::caller::{Caller, Origin};
use crate::ids::NamesNothing;
use crate::invalid::Invalid;
use crate::secret::Secret;

/// The longest text that is looked at as a key.
const MOST_KEY: usize = 200;
/// Entries on a page when nothing is said, and at most.
const USUAL_LIMIT: usize = 50;
const MOST_LIMIT: usize = 100;

impl FromRequestParts<House> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &House) -> Result<Self, Problem> {
        // Every router has the entrance before it, so only a defect of ours gets here without.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::internal(NoEntrance))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a handler was reached without the entrance")]
struct NoEntrance;

/// A platform's back end, by `Authorization: Bearer vk_…`.
#[derive(Clone, Debug)]
pub struct PlatformCaller(pub Caller);

impl FromRequestParts<House> for PlatformCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, house).await?;
        let text = bearer(parts).ok_or_else(|| Problem::from(crate::accounts::AccountsError::Unauthenticated))?;
        let origin: Origin = context.origin().clone();
        let caller = house.accounts.api_key_authenticate(PresentedKey { text: &text, origin }).await?;
        context.recognise(&caller);
        Ok(Self(caller))
    }
}

/// The token of exactly one `Authorization: Bearer …` header (RFC 6750, 2.1; the scheme in any case, RFC 9110, 11.1).
pub(super) fn bearer(parts: &Parts) -> Option<Secret> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() || value.len() > MOST_KEY {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
}

/// The one id in the path. What cannot be an id names nothing: it is read as an id that nothing has, so that it is
/// answered like everything that is not there, after the caller's permission was looked at.
#[derive(Clone, Debug)]
pub struct PathId<T>(pub T);

impl<T: DeserializeOwned + NamesNothing + Send> FromRequestParts<House> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Problem> {
        let id = Path::<T>::from_request_parts(parts, house).await.ok().map(|Path(id)| id);
        id.or_else(T::of_nothing).map(Self).ok_or_else(Problem::not_found)
    }
}

/// The one text in the path that others chose, such as a tenant's own id of a user.
pub type PathText = PathId<String>;

/// What is asked for after the `?`. What cannot be read is a problem like every other.
#[derive(Clone, Debug)]
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<House> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, house).await;
        query.map(|Query(asked)| Self(asked)).map_err(|_| {
            Problem::new(Code::Malformed, "the query cannot be read: a parameter is missing, unknown or there twice")
        })
    }
}

/// `?limit=` (1 to 100, 50 by default) and `?cursor=`.
#[derive(Clone, Debug)]
pub struct Paging {
    limit: usize,
    cursor: Option<String>,
}

/// How a page is asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries on a page.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// A `next_cursor` of this list.
    cursor: Option<String>,
}

impl FromRequestParts<House> for Paging {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &House) -> Result<Self, Problem> {
        let Asked(query) = Asked::<PageQuery>::from_request_parts(parts, house).await?;
        let limit = match query.limit.as_deref().map(str::parse) {
            None => USUAL_LIMIT,
            Some(Ok(limit)) if (1..=MOST_LIMIT).contains(&limit) => limit,
            Some(_) => return Err(Invalid::one("limit", "must be a number from 1 to 100").into()),
        };
        Ok(Self { limit, cursor: query.cursor })
    }
}

impl Paging {
    /// The entry after which `list` goes on; empty at its beginning.
    ///
    /// # Errors
    /// 422 for a cursor that is not ours, or was made for another list or tenant.
    pub fn after(&self, house: &House, caller: &Caller, list: &str) -> Result<String, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(String::new()) };
        house
            .cursors
            .read(caller.tenant().as_str(), list, cursor)
            .ok_or_else(|| Invalid::one("cursor", "must be a next_cursor of this list").into())
    }

    /// How many entries to ask the room for: one more than is shown tells whether there are more.
    #[must_use]
    pub fn ask(&self) -> i64 {
        i64::try_from(self.limit + 1).unwrap_or(i64::MAX)
    }

    /// The page: `items` as [`Self::ask`]ed for, `id` what the cursor points at, `show` what is shown.
    #[must_use]
    pub fn page<T, U>(
        &self,
        (house, caller, list): (&House, &Caller, &str),
        mut items: Vec<T>,
        id: impl Fn(&T) -> String,
        show: impl Fn(T) -> U,
    ) -> List<U> {
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let last = items.last().filter(|_| more).map(id);
        let next_cursor = last.map(|id| house.cursors.write(caller.tenant().as_str(), list, &id));
        List { data: items.into_iter().map(show).collect(), next_cursor }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The entries.
    pub data: Vec<T>,
    /// For `?cursor=`; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn token(values: &[&str]) -> Option<String> {
        let mut request = Request::builder();
        for value in values {
            request = request.header(header::AUTHORIZATION, *value);
        }
        let (parts, ()) = request.body(()).expect("request").into_parts();
        bearer(&parts).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn exactly_one_bearer_header_counts() {
        assert_eq!(token(&["Bearer vk_test_x"]).as_deref(), Some("vk_test_x"));
        assert_eq!(token(&["bearer vk_test_x"]).as_deref(), Some("vk_test_x"));
        assert_eq!(token(&[]), None);
        assert_eq!(token(&["Basic dTpw"]), None);
        assert_eq!(token(&["vk_test_x"]), None);
        assert_eq!(token(&["Bearer a", "Bearer b"]), None);
        assert_eq!(token(&[&format!("Bearer {}", "x".repeat(300))]), None);
    }
}
