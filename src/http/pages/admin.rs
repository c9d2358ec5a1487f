//! `GET /admin`: is the tenant well, and what wants a look.

use axum::extract::State;

use super::views::{AdminPage, Denial, IntegrationRow, IntegrationState, Moment, Provider, StatusCount};
use super::{Member, Page};
use crate::connections::Integration;
use crate::http::{House, Problem};

/// For everybody who works at the tenant, viewers too.
pub(super) async fn show(State(house): State<House>, member: Member) -> Result<Page, Problem> {
    let Member { caller, page } = member;
    let overview = house.connections.overview(&caller).await?;
    let now = house.around.now();
    let integrations = overview.integrations.into_iter().map(|(one, connections, wants_pause)| IntegrationRow {
        state: state(&one, connections, wants_pause),
        provider: Provider::new(&one.provider, &house.connections.provider_name(&one.provider)),
        connections,
        redirect_uri: house.connections.authorize_origin(&one.provider).is_some().then_some(one.redirect_uri),
    });
    let denials = overview.denials.into_iter().map(|one| Denial {
        at: Moment::relative(one.at, now),
        who: one.who,
        what: one.what,
        code: one.reason,
        request_id: one.request_id,
    });
    let statuses = overview.statuses.into_iter().map(|(status, count)| StatusCount { status, count });
    Ok(Page::of(&AdminPage {
        frame: page.frame,
        tenant: page.visitor.tenant.name,
        environment: page.visitor.tenant.environment,
        users: overview.users,
        running_conversations: overview.running_conversations,
        statuses: statuses.collect(),
        integrations: integrations.collect(),
        denials: denials.collect(),
    }))
}

fn state(integration: &Integration, connections: u64, wants_pause: bool) -> IntegrationState {
    match integration.status.as_str() {
        "misconfigured" => IntegrationState::ClientRefused,
        _ if wants_pause => IntegrationState::ProviderTrouble,
        _ if connections == 0 => IntegrationState::Untried,
        _ => IntegrationState::Working,
    }
}
