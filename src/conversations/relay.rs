//! The relay: keeps secrets out of the browser. The unmodified ElevenLabs SDK connects to us; we dial the real socket,
//! send the first frame with the secrets ourselves, drop what a client may not set, and pump frames.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use url::Url;

use super::start::{Initiation, StartData, start_data_place};
use super::variables::{self, Basics, Content};
use super::{BY_SECRET, Conversations, ConversationsError};
use crate::audit::{Action, Durable, Event};
use crate::caller::{Caller, Origin, Permission, TenantScope};
use crate::clock::{Millis, deadline};
use crate::ids::{ConversationId, TenantId, UserId};
use crate::keys::{Owner, hash_of};
use crate::outbound::Socket;
use crate::secret::Secret;
use crate::store::conversations::{
    ConversationRow, conversation_by_id, conversation_by_relay, conversation_connections, conversation_end,
    conversation_enter_relay, conversation_mark_started,
};
use crate::store::from_json_list;
use crate::store::tenants::tenant_own;

/// How long a browser may take to send its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);
const INITIATION: &str = "conversation_initiation_client_data";
/// What ElevenLabs may send and a browser must not see: whole tool answers.
const KEPT_FROM_BROWSERS: [&str; 2] = ["agent_tool_response_full_payload", "mcp_tool_call"];

/// A WebSocket frame, whoever's library it came from. Pings are answered by the libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// JSON text.
    Text(String),
    /// The end, with its code and reason.
    Close(u16, String),
}

/// A browser that may come in.
#[derive(Debug)]
pub struct RelaySeat {
    row: ConversationRow,
    caller: Caller,
    scope: TenantScope,
    data: StartData,
    durable: Durable,
}

/// The parts of a client's first frame that may count.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientInitiation {
    dynamic_variables: BTreeMap<String, Value>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

impl Conversations {
    /// Lets a browser into a relay: once, in time, from a registered origin. A refused origin uses nothing up.
    ///
    /// # Errors
    /// [`ConversationsError::Gone`] for an unknown, used or expired `t`; [`ConversationsError::OriginRefused`].
    pub async fn enter_relay(
        &self,
        id: &str,
        t: &Secret,
        browser_origin: Option<&str>,
        origin: Origin,
    ) -> Result<RelaySeat, ConversationsError> {
        let row = self.open_relay(id, t).await?;
        let caller = Caller::ticket(
            TenantId::stored(row.tenant_id.clone()),
            ConversationId::stored(row.id.clone()),
            UserId::stored(row.user_id.clone()),
            origin,
        );
        let scope = caller.require(Permission::ConnectionsRead)?;
        let event = Event::done(Action::RelayEntered, "conversation", &row.id)
            .of_user(Some(&row.user_id))
            .in_conversation(Some(&row.id));
        if let Some(browser_origin) = browser_origin {
            let mut tx = self.store.read().await?;
            let tenant = tenant_own(&mut tx, &scope).await?.ok_or(ConversationsError::Gone)?;
            if !from_json_list(&tenant.origins).iter().any(|registered| registered == browser_origin) {
                drop(tx);
                self.audit.note(&caller, &event.denied("origin")).await?;
                return Err(ConversationsError::OriginRefused);
            }
        }
        let mut tx = self.store.begin().await?;
        let row = conversation_enter_relay(&mut tx, BY_SECRET, &hash_of(t.expose()), self.around.now().0)
            .await?
            .ok_or(ConversationsError::Gone)?;
        let owner = Owner::User(TenantId::stored(row.tenant_id.clone()), UserId::stored(row.user_id.clone()));
        let sealed = row.start_data.clone().ok_or(ConversationsError::Gone)?;
        let data: StartData = self.keys.open_json(&mut tx, &owner, start_data_place(&row.id), &sealed).await?;
        let durable = self.audit.record_and_commit(tx, &caller, &event).await?;
        Ok(RelaySeat { row, caller, scope, data, durable })
    }

    /// Whether a relay could be entered now, for a request that cannot enter it. Uses nothing up.
    ///
    /// # Errors
    /// [`ConversationsError::Gone`] for an unknown, used or expired `t`.
    pub async fn look_at_relay(&self, id: &str, t: &Secret) -> Result<(), ConversationsError> {
        self.open_relay(id, t).await.map(drop)
    }

    async fn open_relay(&self, id: &str, t: &Secret) -> Result<ConversationRow, ConversationsError> {
        let now = self.around.now().0;
        let mut tx = self.store.read().await?;
        let row = conversation_by_relay(&mut tx, BY_SECRET, &hash_of(t.expose())).await?;
        let is_open = |row: &ConversationRow| {
            row.id == id
                && row.ended_at.is_none()
                && row.relay_used_at.is_none()
                && row.relay_expires_at.is_some_and(|end| end > now)
        };
        row.filter(is_open).ok_or(ConversationsError::Gone)
    }

    /// Runs a relay until either side, the platform or the ticket's end closes it. Both channels are bounded by whoever
    /// made them, which is the back-pressure (RL-24).
    pub async fn relay(&self, seat: RelaySeat, mut from_client: mpsc::Receiver<Frame>, to_client: mpsc::Sender<Frame>) {
        let talk = async {
            match self.open_upstream(&seat, &mut from_client).await {
                Ok(Some(socket)) => self.pump(&seat, socket, &mut from_client, &to_client).await,
                Ok(None) => has_ended(),
                Err(error) => {
                    tracing::warn!(conversation = seat.row.id, error = %error, "a relay could not be opened");
                    Frame::Close(1011, "the conversation could not be started".to_owned())
                }
            }
        };
        // Whatever the talk is waiting for, its end is not.
        let close = tokio::select! {
            close = self.ending(&seat) => close,
            close = talk => close,
        };
        // A browser that is gone, or does not read, does not mind.
        let _ = deadline(GOODBYE, to_client.send(close)).await;
        if let Err(error) = self.close_books(&seat).await {
            tracing::warn!(conversation = seat.row.id, error = %error, "the end of a relay was not recorded; its ticket ends by time");
        }
    }

    async fn open_upstream(
        &self,
        seat: &RelaySeat,
        from_client: &mut mpsc::Receiver<Frame>,
    ) -> Result<Option<Socket>, ConversationsError> {
        let first = deadline(FIRST_FRAME, from_client.recv()).await.ok().flatten();
        let Some(Frame::Text(first)) = first else { return Err(ConversationsError::Gone) };
        let initiation = self.initiation(seat, &first).await?;
        let signed = self.sign(&seat.row.workspace_tenant_id, &seat.row.workspace_id, &seat.row.agent_id).await?;
        let url: Url = signed.url.expose().parse().map_err(|_| ConversationsError::NotFound("conversation socket"))?;
        if !self.elevenlabs.socket_host_is_known(&url) {
            return Err(ConversationsError::NotFound("conversation socket of a known host"));
        }
        let mut socket = self.outbound.websocket(&url, &[], None).await?;
        let frame = serde_json::to_string(&initiation).map_err(|_| ConversationsError::Gone)?;
        let (upstream, now) = (signed.conversation_id.as_deref(), self.around.now().0);
        let mut tx = self.store.begin().await?;
        let is_open = conversation_mark_started(&mut tx, &seat.scope, &seat.row.id, upstream, now).await?;
        tx.commit().await?;
        if !is_open {
            return Ok(None);
        }
        // Secrets leave only for a conversation that was open a moment ago.
        let sent = socket.send(Message::text(frame)).await;
        sent.map_err(|_| ConversationsError::NotFound("listening conversation socket"))?;
        Ok(Some(socket))
    }

    /// Our first frame: what the platform and the vault set, plus the few variables that the browser may.
    async fn initiation(&self, seat: &RelaySeat, first: &str) -> Result<Initiation, ConversationsError> {
        if kind_of(first).as_deref() != Some(INITIATION) {
            return Err(ConversationsError::NotFound("initiation in the first frame"));
        }
        let client: ClientInitiation =
            serde_json::from_str(first).map_err(|_| ConversationsError::NotFound("readable first frame"))?;
        let allowed: BTreeSet<String> = from_json_list(&seat.row.client_variables).into_iter().collect();
        let mut given = seat.data.given.clone();
        let mut dropped = client.others.keys().any(|name| !["type", "source_info"].contains(&name.as_str()));
        for (name, value) in client.dynamic_variables {
            let scalar = value.is_string() || value.is_number() || value.is_boolean();
            if allowed.contains(&name) && scalar && crate::workspaces::variable_name_is_plain(&name) {
                // What the start call set wins (API.md section 6, point 11).
                given.entry(name).or_insert(value);
            } else {
                dropped = true;
            }
        }
        if dropped {
            self.note_drop(seat, "initiation_fields").await?;
        }
        let ticket = Secret::new(&*seat.data.ticket);
        let basics = Basics {
            user: &seat.data.user,
            user_name: &seat.data.user_name,
            conversation: &seat.row.id,
            ticket: &ticket,
            given: &given,
        };
        let mut variables: BTreeMap<String, Content> = variables::basic(&basics, &seat.durable);
        let mut tx = self.store.read().await?;
        let used = conversation_connections(&mut tx, &seat.scope, &seat.row.id).await?;
        drop(tx);
        for row in used.iter().filter(|row| row.hand_over == "inject") {
            if let Some(need) = seat.data.needs.iter().find(|need| need.provider == row.provider) {
                self.inject(
                    &seat.caller,
                    &seat.scope,
                    &seat.row.id,
                    need,
                    &row.connection_id,
                    seat.data.life,
                    &mut variables,
                )
                .await?;
            }
        }
        variables::fill_gaps(&mut variables, seat.data.needs.iter());
        Ok(Initiation::new(seat.data.user.clone(), variables))
    }

    /// Resolves when the conversation is over, by whatever end but its own, or when the house stops (RL-32).
    async fn ending(&self, seat: &RelaySeat) -> Frame {
        let mut bells = self.bells.listen();
        loop {
            if self.has_ended(seat).await {
                return has_ended();
            }
            tokio::select! {
                () = self.shutdown.begun() => {
                    return Frame::Close(1001, "the service is restarting; start the conversation again".to_owned());
                }
                _ = bells.recv() => {}
                // Without a bell (another node's, or a lost one) it looks by itself.
                () = self.around.clock.sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn pump(
        &self,
        seat: &RelaySeat,
        socket: Socket,
        from_client: &mut mpsc::Receiver<Frame>,
        to_client: &mpsc::Sender<Frame>,
    ) -> Frame {
        let (mut up, mut down) = socket.split();
        loop {
            tokio::select! {
                frame = from_client.recv() => match frame {
                    Some(Frame::Text(text)) => match kind_of_client_frame(&text) {
                        Ok(()) => if up.send(Message::text(text)).await.is_err() { return gone_upstream() },
                        Err(reason) => if self.note_drop(seat, reason).await.is_err() { return has_ended() },
                    },
                    Some(Frame::Close(..)) | None => {
                        // The client's end is told upstream; whether it is heard no longer matters.
                        let _ = up.send(Message::Close(Some(CloseFrame { code: 1000.into(), reason: "User ended conversation".into() }))).await;
                        return Frame::Close(1000, String::new());
                    }
                },
                message = down.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        if may_be_seen(text.as_str()) && to_client.send(Frame::Text(text.as_str().to_owned())).await.is_err() {
                            return Frame::Close(1000, String::new());
                        }
                    }
                    Some(Ok(Message::Close(frame))) => return frame.map_or_else(|| Frame::Close(1000, String::new()), |frame| Frame::Close(passable(frame.code.into()), frame.reason.to_string())),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return gone_upstream(),
                },
            }
        }
    }

    /// Ended by the platform, by a disconnection or by time. A database that does not answer ends nothing.
    async fn has_ended(&self, seat: &RelaySeat) -> bool {
        if Millis(seat.row.ticket_expires_at) <= self.around.now() {
            return true;
        }
        let looked = async {
            let mut tx = self.store.read().await?;
            conversation_by_id(&mut tx, &seat.scope, &seat.row.id).await
        };
        matches!(looked.await, Ok(row) if row.as_ref().is_none_or(|row| row.ended_at.is_some()))
    }

    async fn note_drop(&self, seat: &RelaySeat, what: &'static str) -> Result<(), ConversationsError> {
        let event = Event::done(Action::RelayDropped, "conversation", &seat.row.id)
            .of_user(Some(&seat.row.user_id))
            .in_conversation(Some(&seat.row.id));
        self.audit.note(&seat.caller, &event.denied(what)).await?;
        Ok(())
    }

    async fn close_books(&self, seat: &RelaySeat) -> Result<(), ConversationsError> {
        let mut tx = self.store.begin().await?;
        if conversation_end(&mut tx, &seat.scope, &seat.row.id, "ended", "relay_closed", self.around.now().0).await? {
            let event = Event::done(Action::ConversationEnded, "conversation", &seat.row.id)
                .of_user(Some(&seat.row.user_id))
                .in_conversation(Some(&seat.row.id));
            self.audit.record_and_commit(tx, &seat.caller, &event).await?;
        }
        Ok(())
    }
}

/// How long a relay at most goes on after its end.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last frame waits for a browser that does not read.
const GOODBYE: Duration = Duration::from_secs(2);

fn has_ended() -> Frame {
    Frame::Close(1008, "the conversation has ended".to_owned())
}

fn gone_upstream() -> Frame {
    Frame::Close(1011, "the conversation was interrupted".to_owned())
}

/// Codes that may be sent: 1005, 1006 and 1015 are for the receiver's own use (RFC 6455 section 7.4.1).
fn passable(code: u16) -> u16 {
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => code,
        _ => 1011,
    }
}

fn kind_of(text: &str) -> Option<String> {
    serde_json::from_str::<Kind>(text).ok()?.kind
}

/// A frame of a client after its first one: JSON, and no second initiation however it is spelt.
fn kind_of_client_frame(text: &str) -> Result<(), &'static str> {
    match serde_json::from_str::<Kind>(text) {
        Ok(Kind { kind: Some(kind) }) if kind == INITIATION => Err("second_initiation"),
        Ok(_) => Ok(()),
        Err(_) => Err("unreadable_frame"),
    }
}

fn may_be_seen(text: &str) -> bool {
    kind_of(text).is_none_or(|kind| !KEPT_FROM_BROWSERS.contains(&kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_initiation_is_recognised_however_it_is_spelt() {
        for text in [
            r#"{"type":"conversation_initiation_client_data"}"#,
            r#"{"dynamic_variables":{},"type":"conversation\u005finitiation_client_data"}"#,
        ] {
            assert_eq!(kind_of_client_frame(text), Err("second_initiation"), "{text}");
        }
        assert_eq!(
            kind_of_client_frame(r#"{"type":"pong","type":"conversation_initiation_client_data"}"#),
            Err("unreadable_frame")
        );
        assert_eq!(kind_of_client_frame(r#"{"user_audio_chunk":"AAAA"}"#), Ok(()));
        assert_eq!(kind_of_client_frame("not json"), Err("unreadable_frame"));
    }

    #[test]
    fn whole_tool_answers_stay_away_from_browsers() {
        assert!(!may_be_seen(r#"{"type":"agent_tool_response_full_payload","x":1}"#));
        assert!(may_be_seen(r#"{"type":"agent_response"}"#));
    }

    #[test]
    fn close_codes_that_may_not_be_sent_become_internal_errors() {
        assert_eq!([1000, 1005, 1006, 1008, 1015, 4000].map(passable), [1000, 1011, 1011, 1008, 1011, 4000]);
    }
}
