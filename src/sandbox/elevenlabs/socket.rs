//! One conversation on the WebSocket (sections 2.4 to 2.6).
//!
//! The client speaks first, with the initiation frame; the first frame back is the metadata, unless
//! the start is refused. The stand-in never closes for silence: tests move the clock by hours.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::brain;
use super::rest::Pairs;
use super::sinks::Ending;
use super::start::{Admission, Call, Refused, admit};
use super::variables::render;
use super::world::Shared;
use crate::clock::deadline;
use crate::shutdown::Shutdown;

/// Time between pings, by the virtual clock.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long the initiation frame may take, by the virtual clock.
const INITIATION_LIMIT: Duration = Duration::from_secs(60);
/// How long the client may take to answer a close frame, in real time.
const CLOSING_LIMIT: Duration = Duration::from_secs(2);
/// What is sent whatever the agent lists.
const ALWAYS: [&str; 3] = ["conversation_initiation_metadata", "ping", "error"];
/// What is sent when the agent lists nothing.
const USUALLY: [&str; 6] =
    ["audio", "interruption", "agent_response", "user_transcript", "agent_tool_request", "agent_tool_response"];

/// `GET /v1/convai/conversation`: accepts with or without the subprotocol `convai`.
pub(super) async fn open(
    State((shared, running)): State<(Arc<Shared>, Shutdown)>,
    Query(pairs): Pairs,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let admission = admit(&shared, &pairs, &headers);
    upgrade.protocols(["convai"]).on_upgrade(move |socket| converse(shared, running, socket, admission))
}

async fn converse(shared: Arc<Shared>, running: Shutdown, socket: WebSocket, admission: Result<Admission, String>) {
    let id = admission.as_ref().map(|admission| admission.conversation_id.clone()).unwrap_or_default();
    let mut line = Line { socket, shared: shared.clone(), conversation_id: id, allowed: None, next_event: 1 };
    let started = match admission {
        Ok(admission) => match line.initiation(&running).await {
            Ok(Some(frame)) => Call::begin(shared.clone(), admission, frame),
            Ok(None) => return,
            Err(refused) => Err(refused),
        },
        Err(message) => Err(Refused::contract("unknown", message)),
    };
    match started {
        Ok(call) => talk(call, line, &running).await,
        Err(refused) => {
            shared.change(|world| world.counters.conversations_refused += 1);
            line.refuse(&refused).await;
        }
    }
}

async fn talk(mut call: Call, mut line: Line, running: &Shutdown) {
    line.allowed = allowed(&call.config);
    line.metadata().await;
    brain::greet(&mut call);
    let variables = call.all_variables();
    let greeting = render(call.config["agent"]["first_message"].as_str().unwrap_or_default(), &variables);
    if !greeting.is_empty() {
        brain::speak(&mut call, &mut line, &greeting).await;
    }
    line.ping().await;
    let (code, reason) = listen(&mut call, &mut line, running).await;
    let ending = Ending { reason: reason.to_owned(), error: None };
    let now = call.shared.around.now();
    call.shared.change(|world| world.sinks.finish(&call.id, ending, now));
    line.close(code, reason).await;
}

/// Hears frames until the conversation ends; answers the close code and the recorded reason.
async fn listen(call: &mut Call, line: &mut Line, running: &Shutdown) -> (u16, &'static str) {
    let clock = call.shared.around.clock.clone();
    let mut too_long = clock.sleep(call.limit());
    let mut ping_due = clock.sleep(PING_INTERVAL);
    loop {
        let heard = tokio::select! {
            biased;
            () = running.begun() => return (1011, "Server is shutting down"),
            () = &mut too_long => return (1000, "Conversation exceeded its maximum duration"),
            () = &mut ping_due => {
                ping_due = clock.sleep(PING_INTERVAL);
                line.ping().await;
                continue;
            }
            heard = line.socket.recv() => heard,
        };
        let text = match heard {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(frame))) => {
                let clean = frame.is_some_and(|frame| frame.code == 1000);
                return (1000, if clean { "Client ended the conversation" } else { "Client disconnected" });
            }
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => return (1000, "Client disconnected"),
        };
        let Ok(frame) = serde_json::from_str::<Value>(&text) else {
            let message = "Received a message that is not JSON".to_owned();
            line.error(&Refused::contract("invalid_message", message)).await;
            return (1008, "Invalid message received");
        };
        match frame["type"].as_str() {
            Some("user_message") => {
                let said = frame["text"].as_str().unwrap_or_default();
                if brain::hear(call, line, said).await == brain::Next::HangUp {
                    return (1000, "Agent ended the conversation");
                }
            }
            Some("contextual_update") => {
                let context = frame["text"].as_str().unwrap_or_default();
                call.shared.change(|world| world.sinks.write(&call.id, |record| record.context(context)));
            }
            // A second one changes nothing, but it shows what a relay let through.
            Some("conversation_initiation_client_data") => {
                call.shared.change(|world| world.sinks.receive(&call.id, &frame));
            }
            // Audio, pongs, activity and feedback need no answer here.
            _ => {}
        }
    }
}

/// The events the agent lets out; none means the usual ones.
fn allowed(config: &Value) -> Option<BTreeSet<String>> {
    let listed = config["conversation"]["client_events"].as_array()?;
    Some(listed.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// The client's end of the socket; everything sent is kept in `client_events`.
pub(super) struct Line {
    socket: WebSocket,
    shared: Arc<Shared>,
    conversation_id: String,
    allowed: Option<BTreeSet<String>>,
    next_event: u64,
}

impl Line {
    /// The initiation frame, kept in `received`; None when the client went away.
    async fn initiation(&mut self, running: &Shutdown) -> Result<Option<Value>, Refused> {
        let mut too_late = self.shared.around.clock.sleep(INITIATION_LIMIT);
        loop {
            let heard = tokio::select! {
                () = running.begun() => return Ok(None),
                () = &mut too_late => {
                    let message = "No initiation data received in time".to_owned();
                    return Err(Refused { code: 1002, error_type: "transport_receive_timeout", message });
                }
                heard = self.socket.recv() => heard,
            };
            match heard {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap_or_default();
                    if frame["type"] != "conversation_initiation_client_data" {
                        let message = "The first message must be conversation_initiation_client_data".to_owned();
                        return Err(Refused::contract("invalid_message", message));
                    }
                    self.shared.change(|world| world.sinks.receive(&self.conversation_id, &frame));
                    return Ok(Some(frame));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            }
        }
    }

    async fn metadata(&mut self) {
        let event = json!({
            "conversation_id": self.conversation_id,
            "agent_output_audio_format": "pcm_16000", "user_input_audio_format": "pcm_16000",
        });
        self.emit("conversation_initiation_metadata", "conversation_initiation_metadata_event", event).await;
    }

    async fn ping(&mut self) {
        let event_id = self.event_id();
        self.emit("ping", "ping_event", json!({"event_id": event_id, "ping_ms": null})).await;
    }

    /// The number of the next event.
    pub fn event_id(&mut self) -> u64 {
        self.next_event += 1;
        self.next_event - 1
    }

    /// Sends an event if the agent's `client_events` let it out.
    pub async fn emit(&mut self, kind: &str, field: &str, payload: Value) {
        let listed = self.allowed.as_ref().map_or_else(|| USUALLY.contains(&kind), |allowed| allowed.contains(kind));
        if !listed && !ALWAYS.contains(&kind) {
            return;
        }
        let event = json!({"type": kind, field: payload});
        let frame = Message::Text(event.to_string().into());
        let kept = json!({"conversation_id": self.conversation_id, "event": event});
        self.shared.change(|world| world.sinks.client_events.push(kept));
        // Whoever hung up is noticed at the next receive.
        let _ = self.socket.send(frame).await;
    }

    async fn error(&mut self, refused: &Refused) {
        let event = json!({
            "code": refused.code, "error_type": refused.error_type, "message": refused.message,
            "reason": refused.message, "debug_message": null, "details": null,
        });
        self.emit("error", "error_event", event).await;
    }

    async fn refuse(mut self, refused: &Refused) {
        self.error(refused).await;
        self.close(refused.code, &refused.message).await;
    }

    /// Says goodbye and waits until the other side has heard it.
    async fn close(mut self, code: u16, reason: &str) {
        // A close frame has room for 123 bytes of reason (RFC 6455, section 5.5).
        let end = reason.floor_char_boundary(123);
        let frame = CloseFrame { code, reason: reason.get(..end).unwrap_or_default().into() };
        let _ = self.socket.send(Message::Close(Some(frame))).await;
        let _ = deadline(CLOSING_LIMIT, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
    }
}
