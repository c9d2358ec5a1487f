//! The relay's door: a WebSocket that the ElevenLabs SDK opens with nothing but its `signed_url`.

use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::OpenApi;

use super::{Asked, Code, House, Problem, RequestContext};
use crate::clock::deadline;
use crate::conversations::{Frame, RelaySeat};
use crate::ids::ConversationId;
use crate::secret::Secret;

/// ElevenLabs' SDKs offer this subprotocol, and browsers fail a connection whose offer is not taken up.
const SUBPROTOCOL: &str = "convai";
/// One frame (RL-26).
const MOST_FRAME: usize = 1024 * 1024;
/// How long a browser that does not read is waited for at the end.
const GOODBYE: Duration = Duration::from_secs(2);
/// Frames that wait in each direction; with the frame limit this bounds memory (RL-24).
const WAITING: usize = 16;

/// Routes for relays.
pub(super) fn router() -> Router<House> {
    Router::new().route("/v1/conversations/{id}/relay", get(enter))
}

/// The SDK appends `source`, `version` and `environment`, which count for nothing.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    t: Option<String>,
}

/// The relay's call, for the document.
#[derive(OpenApi)]
#[openapi(paths(enter))]
pub(super) struct Calls;

/// Opens the conversation's WebSocket; the `signed_url` of a `relay` start is this address.
#[utoipa::path(get, path = "/v1/conversations/{id}/relay", tag = "conversations", operation_id = "enter_relay",
    params(
        ("id" = ConversationId, Path),
        ("t" = String, Query, description = "From the `signed_url`; works once"),
        ("Origin" = Option<String>, Header, description = "A browser's must be one of the tenant's registered origins"),
    ),
    responses((status = 101, description = "ElevenLabs' conversation protocol; the subprotocol `convai` is taken up")),
    security(()),
)]
async fn enter(
    State(house): State<House>,
    context: RequestContext,
    Path(id): Path<String>,
    Asked(entry): Asked<Entry>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let t = Secret::new(entry.t.unwrap_or_default());
    let Ok(upgrade) = upgrade else {
        house.conversations.look_at_relay(&id, &t).await?;
        return Err(Problem::new(Code::Malformed, "this address speaks WebSocket only"));
    };
    let browser_origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("garbled"));
    let seat = house.conversations.enter_relay(&id, &t, browser_origin, context.origin().clone()).await?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]).max_frame_size(MOST_FRAME).max_message_size(MOST_FRAME);
    Ok(upgrade.on_upgrade(move |socket| run(house, seat, socket)))
}

async fn run(house: House, seat: RelaySeat, socket: WebSocket) {
    let (mut to_browser, mut from_browser) = socket.split();
    let (client_in, from_client) = mpsc::channel(WAITING);
    let (to_client, mut client_out) = mpsc::channel(WAITING);
    let reading = async move {
        while let Some(Ok(message)) = from_browser.next().await {
            let frame = match message {
                Message::Text(text) => Frame::Text(text.as_str().to_owned()),
                Message::Close(frame) => frame.map_or_else(
                    || Frame::Close(1000, String::new()),
                    |frame| Frame::Close(frame.code, frame.reason.to_string()),
                ),
                // Pings are answered by the library; the protocol has no binary frames.
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => continue,
            };
            if client_in.send(frame).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some(frame) = client_out.recv().await {
            let last = matches!(frame, Frame::Close(..));
            let message = match frame {
                Frame::Text(text) => Message::Text(text.into()),
                Frame::Close(code, reason) => Message::Close(Some(CloseFrame { code, reason: reason.into() })),
            };
            if to_browser.send(message).await.is_err() || last {
                break;
            }
        }
    };
    // Reading ends with the browser or when the relay has let go of its end; then the relay says goodbye by itself.
    let (reading, mut writing) = (tokio::spawn(reading), tokio::spawn(writing));
    house.conversations.relay(seat, from_client, to_client).await;
    if deadline(GOODBYE, &mut writing).await.is_err() {
        writing.abort();
    }
    reading.abort();
}
