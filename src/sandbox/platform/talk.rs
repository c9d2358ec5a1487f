//! A conversation as whoever opened its socket sees it: a browser through the vault's relay, or a trusted back end
//! straight at ElevenLabs. It speaks the conversation protocol and keeps every byte that came in.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::PlatformError;
use crate::clock::deadline;

/// How long an answer may take, tools included.
const PATIENCE: Duration = Duration::from_secs(15);

/// An open conversation.
pub struct Talk {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    received: String,
    /// What the agent said first.
    pub greeting: String,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").field("received_bytes", &self.received.len()).finish_non_exhaustive()
    }
}

impl Talk {
    /// Opens the socket at `url` as the ElevenLabs SDK does, sends the initiation frame and waits for the greeting.
    /// `origin` is what a browser would send along.
    ///
    /// # Errors
    /// [`PlatformError::Talk`] when the socket cannot be opened or closes before the greeting.
    pub async fn open(url: &str, origin: Option<&str>, initiation: &Value) -> Result<Self, PlatformError> {
        let failed = |what: &'static str| PlatformError::Talk(what.to_owned());
        let mut request = url.into_client_request().map_err(|_| failed("the address is not a WebSocket address"))?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", http::HeaderValue::from_static("convai"));
        if let Some(origin) = origin.and_then(|origin| origin.parse().ok()) {
            headers.insert(http::header::ORIGIN, origin);
        }
        #[expect(clippy::disallowed_methods, reason = "the sandbox is not the house: it plays a browser")]
        let connecting = tokio_tungstenite::connect_async(request);
        let opened = deadline(PATIENCE, connecting).await.map_err(|_| failed("the socket did not open in time"))?;
        let (socket, _) = opened.map_err(|_| failed("the socket was refused"))?;
        let mut talk = Self { socket, received: String::new(), greeting: String::new() };
        talk.send(initiation).await?;
        talk.greeting = talk.answer().await?;
        Ok(talk)
    }

    /// The initiation frame of a browser: it has nothing to add.
    #[must_use]
    pub fn empty_initiation() -> Value {
        json!({"type": "conversation_initiation_client_data"})
    }

    /// Says something and waits for the agent's answer.
    ///
    /// # Errors
    /// [`PlatformError::Talk`] when the conversation ends first.
    pub async fn say(&mut self, text: &str) -> Result<String, PlatformError> {
        self.send(&json!({"type": "user_message", "text": text})).await?;
        self.answer().await
    }

    /// Waits until the other side has closed; gives the close code.
    ///
    /// # Errors
    /// [`PlatformError::Talk`] when it does not.
    pub async fn closed(&mut self) -> Result<u16, PlatformError> {
        let end = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => break frame.map_or(1005, |frame| frame.code.into()),
                    Some(Ok(message)) => self.keep(&message),
                    Some(Err(_)) | None => break 1006,
                }
            }
        };
        deadline(PATIENCE, end).await.map_err(|_| PlatformError::Talk("the socket stayed open".to_owned()))
    }

    /// Hangs up.
    pub async fn hang_up(&mut self) {
        // Whoever is already gone does not mind.
        let _ = self.socket.close(None).await;
        let _ = self.closed().await;
    }

    /// Every frame that came in, one a line.
    #[must_use]
    pub fn received(&self) -> &str {
        &self.received
    }

    async fn send(&mut self, frame: &Value) -> Result<(), PlatformError> {
        let gone = |_| PlatformError::Talk("the other side has hung up".to_owned());
        self.socket.send(Message::text(frame.to_string())).await.map_err(gone)
    }

    async fn answer(&mut self) -> Result<String, PlatformError> {
        let said = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => {
                        let why = frame.map_or_else(String::new, |frame| format!(": {} {}", frame.code, frame.reason));
                        return Err(PlatformError::Talk(format!("the other side ended it{why}")));
                    }
                    Some(Ok(message)) => {
                        self.keep(&message);
                        let frame: Value =
                            message.to_text().ok().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
                        if frame["type"] == "agent_response" {
                            let said = &frame["agent_response_event"]["agent_response"];
                            return Ok(said.as_str().unwrap_or_default().to_owned());
                        }
                        if frame["type"] == "ping" {
                            let event_id = &frame["ping_event"]["event_id"];
                            self.send(&json!({"type": "pong", "event_id": event_id})).await?;
                        }
                    }
                    Some(Err(_)) | None => return Err(PlatformError::Talk("the other side has hung up".to_owned())),
                }
            }
        };
        deadline(PATIENCE, said).await.map_err(|_| PlatformError::Talk("the agent did not answer".to_owned()))?
    }

    fn keep(&mut self, message: &Message) {
        if let Ok(text) = message.to_text() {
            self.received.push_str(text);
            self.received.push('\n');
        }
    }
}
