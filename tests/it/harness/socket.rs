//! A conversation on a WebSocket by a plain client, as ElevenLabs' SDK has one. What it hears is recorded.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use valetkey::clock::deadline;

use super::Known;

const PATIENCE: Duration = Duration::from_secs(10);

/// An open conversation.
pub struct Talk {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    known: Rc<RefCell<Known>>,
    /// The subprotocol that was agreed on.
    pub protocol: Option<String>,
    /// The types of all events so far.
    pub heard: Vec<String>,
}

impl Talk {
    /// Opens a socket as a browser on `origin` would; else the refusal's status and body.
    pub async fn open(url: &str, origin: Option<&str>, known: Rc<RefCell<Known>>) -> Result<Self, (u16, String)> {
        let mut request = url.into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", "convai".parse().expect("a header"));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a header"));
        }
        #[expect(clippy::disallowed_methods, reason = "the test is the browser, not the house")]
        match connect_async(request).await {
            Ok((socket, answer)) => {
                let protocol = answer.headers().get("sec-websocket-protocol");
                let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(Self { socket, known, protocol, heard: Vec::new() })
            }
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                known.borrow_mut().record("refused upgrade", &[], body.clone());
                Err((answer.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(error) => panic!("no upgrade: {error}"),
        }
    }

    pub async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    /// The first frame of an SDK, with these variables.
    pub async fn begin(&mut self, variables: Value) {
        self.send(&json!({"type": "conversation_initiation_client_data", "dynamic_variables": variables})).await;
    }

    async fn next(&mut self) -> Option<Message> {
        let message = deadline(PATIENCE, self.socket.next()).await.expect("in time")?.ok()?;
        self.known.borrow_mut().record("conversation frame", &[], message.clone().into_data().to_vec());
        Some(message)
    }

    /// Waits for an event of this type.
    pub async fn event(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await.expect("still open") {
                Message::Text(text) => {
                    let event: Value = serde_json::from_str(&text).expect("JSON");
                    self.heard.push(event["type"].as_str().unwrap_or_default().to_owned());
                    if event["type"] == kind {
                        return event;
                    }
                }
                Message::Close(frame) => panic!("closed instead of {kind}: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Waits for the end and gives its code; 1006 when the line went dead.
    pub async fn closed_with(&mut self) -> u16 {
        loop {
            match self.next().await {
                Some(Message::Close(frame)) => return frame.map_or(1005, |frame| frame.code.into()),
                Some(_) => {}
                None => return 1006,
            }
        }
    }

    /// Says something and hears the answer.
    pub async fn ask(&mut self, text: &str) -> String {
        self.send(&json!({"type": "user_message", "text": text})).await;
        let event = self.event("agent_response").await;
        event["agent_response_event"]["agent_response"].as_str().expect("a text").to_owned()
    }

    pub async fn hang_up(mut self) {
        // The other side may have gone first.
        let _ = self.socket.close(None).await;
        while self.next().await.is_some() {}
    }
}
