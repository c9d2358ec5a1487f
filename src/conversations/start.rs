//! Starting a conversation: gate, needs, tokens in parallel, two commits around the call upstream.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::choose::Chosen;
use super::manage::RefreshToolKind;
use super::variables::{self, Basics, Variables, injected_names};
use super::{BY_SECRET, Conversations, ConversationsError, START_WINDOW};
use crate::audit::{Action, Durable, Event, Exposed};
use crate::caller::{Caller, Permission, TenantScope, Who};
use crate::clock::Millis;
use crate::credentials::{ReadWish, Which};
use crate::elevenlabs::Access;
use crate::ids::{ConnectionId, ConversationId, UserId};
use crate::invalid::{Invalid, checked_external_id};
use crate::keys::{Owner, Place, hash_of, mint};
use crate::schema::words;
use crate::secret::Secret;
use crate::store::conversations::{
    ConversationConnectionRow, ConversationRow, conversation_connection_insert, conversation_end, conversation_insert,
    conversation_mark_started,
};
use crate::store::users::user_ensure;
use crate::workspaces::{Agent, HandOver, Need};

words! {
    /// How a started conversation uses a connection.
    StartedHandOver: "inject" | "broker";
    /// Whether a started conversation has a connection.
    StartedStatus: "ready" | "not_connected";
}

/// Life that a handed-out token should have, unless the start says otherwise (RL-20).
const USUAL_LIFE: u64 = 600;
/// How long a relay link waits for its browser.
const RELAY_LIFE: Duration = Duration::from_secs(900);

/// Where the conversation happens.
///
/// Each has braces, since serde lets a kind without fields have any field beside its `type`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChannelRequest {
    /// A browser, with us between it and ElevenLabs.
    Relay {},
    /// A trusted back end that speaks the conversation protocol itself.
    Websocket {},
}

impl Default for ChannelRequest {
    fn default() -> Self {
        Self::Relay {}
    }
}

impl ChannelRequest {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Relay {} => "relay",
            Self::Websocket {} => "websocket",
        }
    }
}

/// A connection that a start names.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedConnection {
    /// Catalogue id.
    pub provider: String,
    /// Id, e-mail or label of the account.
    #[serde(default)]
    pub account: Option<String>,
    /// Whether the conversation can do without it.
    #[serde(default)]
    pub required: Option<bool>,
    /// How it gets to the agent.
    #[serde(default)]
    pub hand_over: Option<HandOver>,
}

/// A conversation to be started.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// ElevenLabs' id.
    pub agent_id: String,
    /// The tenant's own id of the user.
    #[schema(min_length = 1, max_length = 200)]
    pub user: String,
    /// Where it happens.
    #[serde(default)]
    pub channel: ChannelRequest,
    /// In place of the agent's needs.
    #[serde(default)]
    pub connections: Option<Vec<WantedConnection>>,
    /// Plain variables.
    #[serde(default)]
    pub dynamic_variables: BTreeMap<String, Value>,
    /// Seconds of life that injected tokens should have.
    #[serde(default)]
    #[schema(maximum = 7200)]
    pub min_ttl: Option<u64>,
}

/// One connection of a started conversation.
#[derive(Debug, Serialize, ToSchema)]
pub struct StartedConnection {
    /// Catalogue id.
    pub provider: String,
    /// `con_…`; none when it is missing.
    #[schema(required, value_type = Option<ConnectionId>)]
    pub connection: Option<String>,
    /// `inject` or `broker`.
    #[schema(value_type = StartedHandOver)]
    pub hand_over: &'static str,
    /// `ready` or `not_connected`.
    #[schema(value_type = StartedStatus)]
    pub status: &'static str,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub expires_at: Option<String>,
    /// The variables that hold it.
    pub variables: Vec<String>,
}

/// A started conversation, as the platform gets it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Started {
    /// `cnv_…`.
    #[schema(value_type = ConversationId)]
    pub id: String,
    /// ElevenLabs' id, when it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub conversation_id: Option<String>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    pub ticket_expires_at: String,
    /// `sanitized` or `status_only`.
    #[schema(value_type = RefreshToolKind)]
    pub refresh_tool: &'static str,
    /// What the agent may use.
    pub connections: Vec<StartedConnection>,
    /// Relay: ours. Websocket: the real one.
    #[schema(value_type = String, read_only, format = "uri")]
    pub signed_url: Exposed,
    /// Websocket: the first frame, with the secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub initiation: Option<Initiation>,
}

/// The first frame of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Initiation {
    /// `conversation_initiation_client_data`
    #[serde(rename = "type")]
    kind: &'static str,
    /// The tenant's own id of the user.
    user_id: String,
    /// Plain ones and, under names that begin with `secret__`, texts with the ticket and the tokens.
    #[schema(value_type = BTreeMap<String, Value>, read_only)]
    dynamic_variables: Variables,
}

impl Initiation {
    pub(super) fn new(user_id: String, dynamic_variables: Variables) -> Self {
        Self { kind: "conversation_initiation_client_data", user_id, dynamic_variables }
    }
}

/// What the relay must remember from the start to the first word. No token is in it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StartData {
    pub(super) user: String,
    pub(super) user_name: String,
    pub(super) ticket: String,
    pub(super) given: BTreeMap<String, Value>,
    pub(super) needs: Vec<Need>,
    pub(super) life: u64,
}

/// A start on its way.
struct Starting {
    id: ConversationId,
    user: UserId,
    ticket: Secret,
    ticket_expires_at: Millis,
    relay: Option<Secret>,
    agent: Agent,
    chosen: Vec<Chosen>,
    refresh_tool: &'static str,
}

impl Conversations {
    /// Starts a conversation.
    ///
    /// # Errors
    /// See [`ConversationsError`]; with 424 and 422 nothing was created upstream.
    pub async fn start(&self, caller: &Caller, request: StartRequest) -> Result<Started, ConversationsError> {
        let scope = caller.require(Permission::ConversationsWrite)?;
        checked_external_id("user", &request.user)?;
        variables::check(&request.dynamic_variables)?;
        let life = request.min_ttl.unwrap_or(USUAL_LIFE);
        if life > 7200 {
            return Err(Invalid::one("min_ttl", "must be at most 7200 seconds").into());
        }
        self.check_wanted(&request)?;
        let id = ConversationId::new(&self.around);
        let (agent, user) = self.admit(caller, &scope, &request).await?;
        let ticket_caller =
            Caller::ticket(scope.tenant_id().clone(), id.clone(), user.clone(), caller.origin().clone());
        let wanted = wanted(&request, &agent);
        let chosen = self.choose(&ticket_caller, &request.user, wanted, Duration::from_secs(life)).await?;
        if request.channel == (ChannelRequest::Websocket {})
            && chosen.iter().any(|one| one.found.as_ref().is_some_and(|found| found.injects))
        {
            caller.require(Permission::TokensRead)?;
        }
        let proven = self.workspaces.proven_paths(&agent.workspace_tenant, &agent.workspace, &agent.agent_id).await;
        let now = self.around.now();
        let window = START_WINDOW + Duration::from_secs(u64::try_from(agent.max_duration).unwrap_or(0));
        let starting = Starting {
            id,
            user,
            ticket: mint("vkt", &self.around),
            ticket_expires_at: now.after(window.min(Duration::from_secs(self.ttl.ticket_max))),
            relay: (request.channel == ChannelRequest::Relay {}).then(|| mint("vkr", &self.around)),
            agent,
            chosen,
            refresh_tool: if proven.is_empty() { "status_only" } else { "sanitized" },
        };
        self.first_commit(caller, &scope, &starting, &request, life).await?;
        match request.channel {
            ChannelRequest::Relay {} => self.start_relay(caller, &scope, starting).await,
            ChannelRequest::Websocket {} => {
                self.start_websocket(caller, &ticket_caller, &scope, starting, &request, life).await
            }
        }
    }

    fn check_wanted(&self, request: &StartRequest) -> Result<(), Invalid> {
        let mut invalid = Invalid::default();
        for (index, wanted) in request.connections.iter().flatten().enumerate() {
            if self.workspaces.known_provider(&wanted.provider).is_none() {
                invalid.add(format!("connections[{index}].provider"), self.workspaces.not_a_provider());
            }
        }
        invalid.into_result()
    }

    async fn admit(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        request: &StartRequest,
    ) -> Result<(Agent, UserId), ConversationsError> {
        let mut tx = self.store.begin().await?;
        let agent = self
            .workspaces
            .agent_in(&mut tx, scope, &request.agent_id)
            .await?
            .ok_or(ConversationsError::NotFound("agent"))?;
        let user =
            user_ensure(&mut tx, scope, UserId::new(&self.around).as_str(), &request.user, self.around.now().0).await?;
        let admitted = self.workspaces.may_use(&mut tx, scope, &user.id, &agent).await?;
        tx.commit().await?;
        if !admitted {
            let event = Event::done(Action::ConversationStarted, "agent", agent.id.as_str()).of_user(Some(&user.id));
            self.audit.note(caller, &event.denied("not_granted")).await?;
            return Err(ConversationsError::NotGranted("this user may not use this agent"));
        }
        Ok((agent, UserId::stored(user.id)))
    }

    async fn first_commit(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        starting: &Starting,
        request: &StartRequest,
        life: u64,
    ) -> Result<(), ConversationsError> {
        let now = self.around.now();
        let mut tx = self.store.begin().await?;
        let user_name = self.user_name(&mut tx, scope, &starting.user).await?.unwrap_or_else(|| request.user.clone());
        let start_data = StartData {
            user: request.user.clone(),
            user_name,
            ticket: starting.ticket.expose().to_owned(),
            given: request.dynamic_variables.clone(),
            needs: starting.chosen.iter().map(|one| one.need.clone()).collect(),
            life,
        };
        let owner = Owner::User(scope.tenant_id().clone(), starting.user.clone());
        let sealed = self.keys.seal_json(&mut tx, &owner, start_data_place(starting.id.as_str()), &start_data).await?;
        let row = ConversationRow {
            tenant_id: scope.tenant().to_owned(),
            id: starting.id.to_string(),
            user_id: starting.user.to_string(),
            agent_id: starting.agent.agent_id.clone(),
            workspace_tenant_id: starting.agent.workspace_tenant.clone(),
            workspace_id: starting.agent.workspace.clone(),
            api_key_id: match caller.who() {
                Who::PlatformKey(key) => Some(key.to_string()),
                _ => None,
            },
            channel: request.channel.as_str().to_owned(),
            status: "starting".to_owned(),
            upstream_id: None,
            ticket_hash: hash_of(starting.ticket.expose()),
            ticket_expires_at: starting.ticket_expires_at.0,
            relay_hash: starting.relay.as_ref().map(|relay| hash_of(relay.expose())),
            relay_expires_at: starting.relay.as_ref().map(|_| now.after(RELAY_LIFE).0),
            relay_used_at: None,
            start_data: starting.relay.is_some().then_some(sealed),
            refresh_tool: starting.refresh_tool.to_owned(),
            broker: serde_json::to_string(&starting.agent.broker).unwrap_or_else(|_| "{}".to_owned()),
            client_variables: crate::store::to_json_list(&starting.agent.client_variables),
            created_at: now.0,
            started_at: None,
            ended_at: None,
            end_reason: None,
        };
        conversation_insert(&mut tx, scope, &row).await?;
        for one in &starting.chosen {
            if let Some(found) = &one.found {
                let row = ConversationConnectionRow {
                    provider: one.need.provider.clone(),
                    connection_id: found.connection.id.to_string(),
                    credential_id: found.warm.credential.clone(),
                    hand_over: if found.injects { "inject" } else { "broker" }.to_owned(),
                    is_primary: i64::from(found.is_primary),
                    handed_generation: 0,
                };
                conversation_connection_insert(&mut tx, scope, starting.id.as_str(), &row).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    async fn start_relay(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        starting: Starting,
    ) -> Result<Started, ConversationsError> {
        let durable = self.second_commit(caller, scope, &starting, None).await?;
        let relay = starting.relay.as_ref().ok_or(ConversationsError::Gone)?;
        let base = self.public_url.as_str().trim_end_matches('/').replacen("http", "ws", 1);
        let url = Secret::new(format!("{base}/v1/conversations/{}/relay?t={}", starting.id, relay.expose()));
        Ok(started(starting, None, Exposed::new(url, &durable), None))
    }

    async fn start_websocket(
        &self,
        caller: &Caller,
        ticket: &Caller,
        scope: &TenantScope,
        starting: Starting,
        request: &StartRequest,
        life: u64,
    ) -> Result<Started, ConversationsError> {
        let signed =
            self.sign(&starting.agent.workspace_tenant, &starting.agent.workspace, &starting.agent.agent_id).await;
        let signed = match signed {
            Ok(signed) => signed,
            Err(error) => {
                self.fail(scope, starting.id.as_str(), "upstream_failed").await?;
                return Err(error);
            }
        };
        let durable = self.second_commit(caller, scope, &starting, signed.conversation_id.as_deref()).await?;
        let mut tx = self.store.read().await?;
        let user_name = self.user_name(&mut tx, scope, &starting.user).await?.unwrap_or_else(|| request.user.clone());
        drop(tx);
        let basics = Basics {
            user: &request.user,
            user_name: &user_name,
            conversation: starting.id.as_str(),
            ticket: &starting.ticket,
            given: &request.dynamic_variables,
        };
        let mut variables = variables::basic(&basics, &durable);
        for one in &starting.chosen {
            if let Some(found) = one.found.as_ref().filter(|found| found.injects) {
                self.inject(
                    ticket,
                    scope,
                    starting.id.as_str(),
                    &one.need,
                    found.connection.id.as_str(),
                    life,
                    &mut variables,
                )
                .await?;
            }
        }
        variables::fill_gaps(&mut variables, starting.chosen.iter().map(|one| &one.need));
        let initiation = Initiation::new(request.user.clone(), variables);
        Ok(started(starting, signed.conversation_id, Exposed::new(signed.url, &durable), Some(initiation)))
    }

    /// Lends one token into the variables and remembers which generation ElevenLabs has now.
    #[expect(clippy::too_many_arguments, reason = "one step of a start, with everything it is recorded under")]
    pub(super) async fn inject(
        &self,
        ticket: &Caller,
        scope: &TenantScope,
        conversation: &str,
        need: &Need,
        connection: &str,
        life: u64,
        variables: &mut Variables,
    ) -> Result<(), ConversationsError> {
        let want = ReadWish {
            which: Which::of_kind(need.credential.as_deref()),
            patience: super::choose::BUDGET,
            conversation: Some(conversation),
            ..ReadWish::token(connection, Duration::from_secs(life))
        };
        let token = match self.credentials.read(ticket, want).await {
            Ok(token) => token,
            // Between the first look and now it went away; what is optional is left out.
            Err(_) if !need.required => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut tx = self.store.begin().await?;
        crate::store::conversations::conversation_connection_handed(
            &mut tx,
            scope,
            conversation,
            connection,
            token.generation,
        )
        .await?;
        tx.commit().await?;
        variables::inject(variables, &need.provider, &token.secret, &token.durable);
        Ok(())
    }

    /// A signed URL of the real conversation socket. Never retried: a start must not happen twice.
    pub(super) async fn sign(
        &self,
        owner: &str,
        workspace: &str,
        agent: &str,
    ) -> Result<crate::elevenlabs::SignedUrl, ConversationsError> {
        let access = self.workspaces.access(owner, workspace).await?;
        Ok(self.elevenlabs.signed_url(Access { region: &access.region, api_key: &access.api_key }, agent).await?)
    }

    async fn second_commit(
        &self,
        caller: &Caller,
        scope: &TenantScope,
        starting: &Starting,
        upstream: Option<&str>,
    ) -> Result<Durable, ConversationsError> {
        let mut tx = self.store.begin().await?;
        if !conversation_mark_started(&mut tx, scope, starting.id.as_str(), upstream, self.around.now().0).await? {
            // Ended while it began, such as by a revoked key: nothing is handed out for it.
            return Err(ConversationsError::Gone);
        }
        let event = Event::done(Action::ConversationStarted, "conversation", starting.id.as_str())
            .of_user(Some(starting.user.as_str()))
            .in_conversation(Some(starting.id.as_str()));
        Ok(self.audit.record_and_commit(tx, caller, &event).await?)
    }

    async fn fail(&self, scope: &TenantScope, id: &str, reason: &str) -> Result<(), ConversationsError> {
        let mut tx = self.store.begin().await?;
        conversation_end(&mut tx, scope, id, "failed", reason, self.around.now().0).await?;
        tx.commit().await?;
        Ok(())
    }

    /// How the user is called, if the tenant has told us.
    async fn user_name(
        &self,
        tx: &mut crate::store::Tx,
        scope: &TenantScope,
        user: &UserId,
    ) -> Result<Option<String>, ConversationsError> {
        #[derive(Deserialize)]
        struct Named {
            display_name: Option<String>,
        }
        let Some(row) = crate::store::users::user_by_id(tx, scope, user.as_str()).await? else { return Ok(None) };
        let Some(sealed) = &row.profile else { return Ok(None) };
        let owner = Owner::User(scope.tenant_id().clone(), user.clone());
        let place = Place { record_kind: "user", record_id: &row.id, field: "profile", generation: 0 };
        let named: Named = self.keys.open_json(tx, &owner, place, sealed).await?;
        Ok(named.display_name)
    }

    /// Ends what has outlived its ticket.
    ///
    /// # Errors
    /// As every statement.
    pub async fn end_expired(&self) -> Result<u64, crate::store::StoreError> {
        let mut tx = self.store.begin_in_turn(BY_SECRET).await?;
        let ended =
            crate::store::conversations::conversations_end_expired(&mut tx, BY_SECRET, self.around.now().0).await?;
        tx.commit().await?;
        Ok(ended)
    }
}

pub(super) fn start_data_place(id: &str) -> Place<'_> {
    Place { record_kind: "conversation", record_id: id, field: "start_data", generation: 0 }
}

fn wanted(request: &StartRequest, agent: &Agent) -> Vec<(Need, Option<String>)> {
    match &request.connections {
        Some(list) => list.iter().cloned().map(|one| one.into_need(&agent.needs)).collect(),
        None => agent.needs.iter().cloned().map(|need| (need, None)).collect(),
    }
}

fn started(
    starting: Starting,
    conversation_id: Option<String>,
    signed_url: Exposed,
    initiation: Option<Initiation>,
) -> Started {
    Started {
        id: starting.id.to_string(),
        conversation_id,
        ticket_expires_at: starting.ticket_expires_at.rfc3339(),
        refresh_tool: starting.refresh_tool,
        connections: starting.chosen.iter().map(shown).collect(),
        signed_url,
        initiation,
    }
}

fn shown(one: &Chosen) -> StartedConnection {
    let injects = one.found.as_ref().map_or(one.need.hand_over != HandOver::Broker, |found| found.injects);
    StartedConnection {
        provider: one.need.provider.clone(),
        connection: one.found.as_ref().map(|found| found.connection.id.to_string()),
        hand_over: if injects { "inject" } else { "broker" },
        status: if one.found.is_some() { "ready" } else { super::NOT_CONNECTED },
        expires_at: one.found.as_ref().and_then(|found| found.warm.expires_at).map(Millis::rfc3339),
        variables: if injects { injected_names(&one.need.provider).to_vec() } else { Vec::new() },
    }
}
