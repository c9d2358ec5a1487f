//! The first owner, by a link from `valetkey setup-link` (AD-01).

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::views::{Field, LinkGone, LinkGonePage, Moment, Notice, SetupPage};
use super::{Anyone, Page, PageForm};
use crate::accounts::{AccountsError, MIN_PASSWORD};
use crate::clock::Millis;
use crate::http::{House, Problem};
use crate::invalid::Invalid;
use crate::secret::Secret;

/// What somebody typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Typed {
    tenant_name: String,
    email: String,
    password: Secret,
}

/// `GET /setup/{token}`: shows the form and uses nothing.
pub(super) async fn show(
    State(house): State<House>,
    Path(token): Path<String>,
    anyone: Anyone,
) -> Result<Response, Problem> {
    match house.accounts.setup_until(&Secret::new(&*token)).await {
        Ok(until) => Ok(Page::of(&form(anyone, token, until)).into_response()),
        Err(AccountsError::Gone) => Ok(link_gone(anyone)),
        Err(error) => Err(error.into()),
    }
}

/// `POST /setup/{token}`: of any number of parallel set-ups one wins.
pub(super) async fn submit(
    State(house): State<House>,
    Path(token): Path<String>,
    anyone: Anyone,
    PageForm(typed): PageForm<Typed>,
) -> Result<Response, Problem> {
    let secret = Secret::new(&*token);
    let until = match house.accounts.setup_until(&secret).await {
        Ok(until) => until,
        Err(AccountsError::Gone) => return Ok(link_gone(anyone)),
        Err(error) => return Err(error.into()),
    };
    match house.accounts.set_up(&secret, &typed.tenant_name, typed.email.clone(), typed.password).await {
        Ok(_) => Ok(Redirect::to(&format!("/sign-in?done={}", Notice::SetUp.as_str())).into_response()),
        Err(AccountsError::Gone) => Ok(link_gone(anyone)),
        Err(AccountsError::Invalid(invalid)) => {
            let mut page = form(anyone, token, until);
            page.tenant_name = Field { value: typed.tenant_name, error: wrong(&invalid, "tenant_name") };
            page.email = Field { value: typed.email, error: wrong(&invalid, "email") };
            page.password_error = wrong(&invalid, "password");
            Ok(Page::of(&page).status(StatusCode::UNPROCESSABLE_ENTITY).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

fn form(anyone: Anyone, token: String, until: Millis) -> SetupPage {
    SetupPage {
        frame: anyone.frame,
        token,
        tenant_name: Field::default(),
        email: Field::default(),
        password_error: None,
        password_min: MIN_PASSWORD,
        expires: Moment::time_of_day(until),
    }
}

/// `must have …` becomes a sentence.
fn wrong(invalid: &Invalid, field: &str) -> Option<String> {
    invalid.0.iter().find(|error| error.field == field).map(|error| format!("This {}.", error.message))
}

/// 410, and the same for a link that never was.
pub(super) fn link_gone(anyone: Anyone) -> Response {
    let view = LinkGonePage {
        frame: anyone.frame,
        reason: LinkGone::Expired,
        platform: None,
        request_id: anyone.context.origin().request_id.clone(),
    };
    Page::of(&view).status(StatusCode::GONE).into_response()
}
