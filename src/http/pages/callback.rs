//! `GET /oauth/{provider}/callback/{integration}`: where providers send browsers back to.
//!
//! The query is read strictly (OA-14), the state is used up whatever comes of it, and the answer is a redirect to an
//! address without code or state (WB-05). What is not ours ends here, with a page of its own.

use std::collections::BTreeSet;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::cards::keep_start_link;
use super::page::keep_opener;
use super::results::{Ended, Kept, KeptMessage, lead_to};
use super::views::{Failure, Outcome, Provider, ResultPage};
use super::{Anyone, Page, handshake_cookie};
use crate::connections::{Callback, ConnectionsError, Ending, Finished, RedirectTo, Visitor};
use crate::http::{Code, House, Problem};
use crate::secret::Secret;

/// What an answer through the browser may not carry: tokens, and answers in another form (RFC 9700, 2.1.2).
const NEVER: [&str; 6] = ["access_token", "refresh_token", "id_token", "token_type", "response", "response_mode"];

/// Asking for the headers alone changes nothing.
pub(super) async fn only_get() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this address takes GET only")
}

/// A browser comes back.
pub(super) async fn arrive(
    State(house): State<House>,
    Path((provider, integration)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    anyone: Anyone,
) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let fields: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let polluted = is_polluted(&fields);
    let browser = handshake_cookie::presented(&headers);
    let caller = anyone.visitor.as_ref().and_then(|visitor| visitor.end_user.as_ref());
    let visitor = Visitor { browser: &browser, caller };
    let origin = anyone.context.origin().clone();
    if polluted {
        // Without its code: the states are used up and nothing is shown to the provider.
        for state in fields.iter().filter(|(name, _)| name == "state").map(|(_, value)| value).take(2) {
            let state = Some(Secret::new(state.as_str()));
            let callback =
                Callback { provider: provider.clone(), integration: integration.clone(), state, ..Callback::default() };
            match house.connections.finish(callback, visitor, origin.clone()).await {
                Ok(_)
                | Err(ConnectionsError::UnknownState | ConnectionsError::UsedState | ConnectionsError::OldState) => {}
                Err(error) => return Err(error.into()),
            }
        }
        return Ok(stopped(&house, anyone, &provider, Failure::NotOurs));
    }
    let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let callback = Callback {
        provider: provider.clone(),
        integration,
        state: field("state").map(Secret::new),
        code: field("code").map(Secret::new),
        error: field("error"),
        iss: field("iss"),
    };
    match house.connections.finish(callback, visitor, origin).await {
        Ok(ending) => go_on(&house, &anyone, ending).await,
        Err(ConnectionsError::UnknownState) => Ok(stopped(&house, anyone, &provider, Failure::NotOurs)),
        Err(ConnectionsError::UsedState) => Ok(stopped(&house, anyone, &provider, Failure::AlreadyUsed)),
        Err(ConnectionsError::OldState) => Ok(stopped(&house, anyone, &provider, Failure::TooLate)),
        Err(error) => Err(error.into()),
    }
}

/// Something is there twice, or is never there in an answer of the code flow.
fn is_polluted(fields: &[(String, String)]) -> bool {
    let mut seen = BTreeSet::new();
    let has = |wanted: &str| fields.iter().any(|(name, _)| name == wanted);
    fields.iter().any(|(name, _)| !seen.insert(name.as_str()) || NEVER.contains(&name.as_str()))
        || (has("code") && has("error"))
}

async fn go_on(house: &House, anyone: &Anyone, ending: Ending) -> Result<Response, Problem> {
    let (provider, ended, redirect) = match ending.finished {
        Finished::Connected { connection, redirect, .. } => {
            keep_start_link(house, &anyone.browser, &connection).await?;
            (connection.provider.clone(), Ended::connected(&connection), redirect)
        }
        Finished::AwaitingConfirmation { provider, redirect } => (provider, Ended::AwaitingConfirmation, redirect),
        Finished::Denied { provider, redirect } => (provider, Ended::Denied, redirect),
        Finished::Failed { provider, reason, redirect } => {
            (provider, Ended::Failed { reason: reason.to_owned() }, redirect)
        }
    };
    let popup = match redirect {
        // The person has something to do here first, which the platform cannot show.
        RedirectTo::Url(_) if matches!(ended, Ended::AwaitingStart { .. }) => None,
        // The registered return URL, compared when the link was made (WB-06).
        RedirectTo::Url(url) => return Ok(Redirect::to(&url).into_response()),
        RedirectTo::Popup { origin, connect_session, state, completion_code } => {
            Some(KeptMessage { origin, connect_session, state, completion_code })
        }
        RedirectTo::Here => None,
    };
    let is_popup = popup.is_some();
    let kept = Kept { provider, platform: ending.platform, ended, popup };
    let mut response = lead_to(house, &anyone.browser, &kept).await?;
    if is_popup {
        keep_opener(&mut response);
    }
    Ok(response)
}

/// The page for an answer that leads nowhere. Of a state that is another browser's or person's nothing is told.
fn stopped(house: &House, anyone: Anyone, provider: &str, why: Failure) -> Response {
    let platform = anyone.visitor.map_or_else(|| "the platform you came from".to_owned(), |known| known.tenant.name);
    let page = ResultPage {
        frame: anyone.frame,
        platform,
        provider: Provider::new(provider, &house.connections.provider_name(provider)),
        outcome: Outcome::Failed(why),
        popup: None,
    };
    Page::of(&page).status(StatusCode::BAD_REQUEST).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_only_in_its_one_form_oa_14() {
        let polluted =
            |query: &str| is_polluted(&form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>());
        for fine in
            ["state=s&code=c", "state=s&error=access_denied&error_description=x", "code=c&iss=i&scope=a&hd=b", ""]
        {
            assert!(!polluted(fine), "{fine}");
        }
        for bad in [
            "state=s&state=s&code=c",
            "state=s&code=c&code=d",
            "state=s&c%6fde=c&code=c",
            "state=s&code=c&iss=a&iss=b",
            "state=s&code=c&error=access_denied",
            "state=s&code=c&access_token=t",
            "state=s&id_token=t",
            "state=s&code=c&response_mode=fragment",
            "response=jwt",
        ] {
            assert!(polluted(bad), "{bad}");
        }
    }
}
