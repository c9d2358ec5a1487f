//! Coming in and going out.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::views::{Notice, SignInPage, SignInStep, TenantChoice};
use super::visitor::local_path;
use super::{Anyone, Nothing, Page, PageForm};
use crate::accounts::{AccountsError, Presence, SignIn, SignInOutcome, Tenant};
use crate::http::{House, Problem};
use crate::secret::Secret;

/// The same for a wrong address and a wrong password (WB-11).
const NO_MATCH: &str = "That address and password do not match. Check both and try again.";

#[derive(Debug, Default, Deserialize)]
pub(super) struct Going {
    next: Option<String>,
}

/// What somebody typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Typed {
    email: String,
    password: Secret,
    tenant: Option<String>,
    next: Option<String>,
}

/// `GET /sign-in`. Who is in already goes on.
pub(super) async fn show(query: Result<Query<Going>, QueryRejection>, anyone: Anyone) -> Response {
    let next = query.ok().and_then(|Query(going)| going.next).filter(|text| local_path(text).is_some());
    if anyone.visitor.is_some() {
        return Redirect::to(next.as_deref().unwrap_or(anyone.frame.home())).into_response();
    }
    let step = SignInStep::Credentials { email: String::new() };
    Page::of(&SignInPage { frame: anyone.frame, step, error: None, next }).into_response()
}

/// `POST /sign-in`.
pub(super) async fn submit(
    State(house): State<House>,
    anyone: Anyone,
    PageForm(typed): PageForm<Typed>,
) -> Result<Response, Problem> {
    let origin = anyone.context.origin().clone();
    house.sign_in_limits().count(&typed.email, origin.peer)?;
    let next = typed.next.filter(|text| local_path(text).is_some());
    let tenant = typed.tenant.as_deref().filter(|text| !text.is_empty());
    let attempt = SignIn { email: &typed.email, password: &typed.password, tenant, origin };
    let page = |step, error| SignInPage { frame: anyone.frame.clone(), step, error, next: next.clone() };
    match house.accounts.sign_in(attempt).await {
        Ok(SignInOutcome::Done(signed_in)) => {
            anyone.browser.let_in(&Presence::SignedIn(signed_in)).await?;
            Ok(Redirect::to(next.as_deref().unwrap_or("/")).into_response())
        }
        Ok(SignInOutcome::Choose(tenants)) => {
            let tenants = tenants.into_iter().map(choice).collect();
            let step = SignInStep::ChooseTenant { email: typed.email, tenants, ask_password: true };
            Ok(Page::of(&page(step, None)).into_response())
        }
        Err(AccountsError::Unauthenticated) => {
            let step = SignInStep::Credentials { email: typed.email };
            Ok(Page::of(&page(step, Some(NO_MATCH.to_owned()))).status(StatusCode::UNAUTHORIZED).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /sign-out`: the session is dead at once, and the browser forgets what it kept of our pages (WB-08).
pub(super) async fn sign_out(
    State(house): State<House>,
    anyone: Anyone,
    PageForm(Nothing {}): PageForm<Nothing>,
) -> Result<Response, Problem> {
    if let Some(Presence::SignedIn(session)) = &anyone.presence {
        house.accounts.sign_out(session, anyone.context.origin().clone()).await?;
    }
    anyone.browser.end().await?;
    let target = format!("/sign-in?done={}", Notice::SignedOut.as_str());
    let forget = (HeaderName::from_static("clear-site-data"), "\"cache\", \"storage\"");
    Ok(([forget], Redirect::to(&target)).into_response())
}

fn choice(tenant: Tenant) -> TenantChoice {
    TenantChoice { id: tenant.id.to_string(), name: tenant.name, environment: tenant.environment }
}
