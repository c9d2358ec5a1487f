//! The way into a user's own pages from a platform. Looking at the link uses nothing, because mail scanners and previews
//! open links (WB-12); pressing the button does.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};

use super::setup::link_gone;
use super::views::PortalPage;
use super::{Anyone, Nothing, Page, PageForm};
use crate::accounts::{AccountsError, Presence};
use crate::http::{House, Problem};
use crate::secret::Secret;

/// `GET /portal/{token}`.
pub(super) async fn show(
    State(house): State<House>,
    Path(token): Path<String>,
    anyone: Anyone,
) -> Result<Response, Problem> {
    match house.accounts.portal_look(&Secret::new(&*token)).await {
        Ok(()) => Ok(Page::of(&PortalPage { frame: anyone.frame, token }).into_response()),
        Err(AccountsError::Gone) => Ok(link_gone(anyone)),
        Err(error) => Err(error.into()),
    }
}

/// `POST /portal/{token}`: whoever was signed in in this browser is not any more.
pub(super) async fn enter(
    State(house): State<House>,
    Path(token): Path<String>,
    anyone: Anyone,
    PageForm(Nothing {}): PageForm<Nothing>,
) -> Result<Response, Problem> {
    match house.accounts.portal_enter(&Secret::new(token)).await {
        Ok(visit) => {
            anyone.browser.let_in(&Presence::Portal(visit)).await?;
            Ok(Redirect::to("/connections").into_response())
        }
        Err(AccountsError::Gone) => Ok(link_gone(anyone)),
        Err(error) => Err(error.into()),
    }
}
