//! `GET /admin` and `GET /admin/health`: is the tenant well, and what wants a look.

use axum::extract::State;

use super::views::{
    AdminPage, Denial, IntegrationBacklog, IntegrationRow, Moment, Provider, RefreshOutcome, RefreshingPage,
    StatusCount, Tone, TroubledRow,
};
use super::{Member, Page};
use crate::connections::{Backlog, Health, IntegrationHealth};
use crate::credentials::LATE;
use crate::http::{House, Problem};

/// For everybody who works at the tenant, viewers too.
pub(super) async fn show(State(house): State<House>, member: Member) -> Result<Page, Problem> {
    let Member { caller, page } = member;
    let overview = house.connections.overview(&caller).await?;
    let now = house.around.now();
    let integrations = overview.integrations.into_iter().map(|(one, connections)| IntegrationRow {
        tone: tone(&one.health),
        words: if connections == 0 && one.health == IntegrationHealth::Working {
            "Not used yet.".to_owned()
        } else {
            one.explanation
        },
        provider: Provider::new(&one.provider, &house.connections.provider_name(&one.provider)),
        connections,
        redirect_uri: house.connections.connects_by_consent(&one.provider).then_some(one.redirect_uri),
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

/// `GET /admin/health`: what waits to be refreshed, what fails, and why.
pub(super) async fn health(State(house): State<House>, member: Member) -> Result<Page, Problem> {
    let Member { caller, page } = member;
    let found = house.connections.refreshing(&caller).await?;
    let now = house.around.now();
    let provider = |id: &str| Provider::new(id, &house.connections.provider_name(id));
    let whole = found.integrations.iter().fold(Backlog::default(), |sum, (_, one)| sum.and(*one));
    let troubled = found.troubled.into_iter().map(|one| TroubledRow {
        id: one.id.to_string(),
        provider: provider(&one.provider),
        user: one.user,
        tone: match one.health {
            Health::Unsteady(_) | Health::EndsSoon(_) => Tone::Warn,
            Health::NeedsUser(_) | Health::Paused(_) => Tone::Bad,
            _ => Tone::Quiet,
        },
        words: one.explanation,
        code: one.reason.or(one.last_error),
    });
    let integrations = found.integrations.into_iter().map(|(one, backlog)| IntegrationBacklog {
        provider: provider(&one.provider),
        tone: tone(&one.health),
        words: one.explanation,
        policy: house.connections.brings_tokens(&one.provider).then_some(one.refresh_policy),
        backlog,
    });
    Ok(Page::of(&RefreshingPage {
        frame: page.frame,
        whole,
        oldest: whole.oldest_due.map(|due| Moment::relative(due, now)),
        late: whole.oldest_due.is_some_and(|due| due.after(LATE) < now),
        integrations: integrations.collect(),
        outcomes: found.outcomes.into_iter().map(|(failure, count)| RefreshOutcome { failure, count }).collect(),
        troubled: troubled.collect(),
    }))
}

/// The colour of how an integration is.
fn tone(health: &IntegrationHealth) -> Tone {
    match health {
        IntegrationHealth::Working => Tone::Good,
        IntegrationHealth::ClientRefused(_) | IntegrationHealth::RefusedWave => Tone::Bad,
        IntegrationHealth::Unreachable(_) | IntegrationHealth::RateLimited(_) | IntegrationHealth::Testing(_) => {
            Tone::Warn
        }
    }
}
