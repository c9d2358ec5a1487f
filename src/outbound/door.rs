//! A request that waits at the door: its connection stands, its body leaves when somebody opens.
//!
//! Whoever has to write something down between "it can leave" and "it may have left" does so while the request waits. A
//! server that has read the head alone has seen nothing of a form, so as long as the body is here nothing was sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

/// The side of whoever lets a request out. Dropped unopened it calls the request off.
#[derive(Debug)]
pub struct Door {
    knock: Option<oneshot::Receiver<()>>,
    open: oneshot::Sender<()>,
}

/// The side of the request: give it to [`Request::waits_at`](super::Request::waits_at).
#[derive(Debug)]
pub struct Knock {
    knock: Option<oneshot::Sender<()>>,
    opened: oneshot::Receiver<()>,
    left: Left,
}

/// Tells whether the body has left, also when the request has come to its end.
#[derive(Clone, Debug, Default)]
pub struct Left(Arc<AtomicU8>);

const WAITS: u8 = 0;
const GONE: u8 = 1;
const SHUT: u8 = 2;

impl Left {
    /// Whether any of the body may be on its way. If not, it never will be: whoever has asked acts on it.
    #[must_use]
    pub fn shut(&self) -> bool {
        self.0.compare_exchange(WAITS, SHUT, Ordering::SeqCst, Ordering::SeqCst) == Err(GONE)
    }

    fn leaves(&self) -> bool {
        self.0.compare_exchange(WAITS, GONE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Door {
    /// A door for one request, with the side that knocks.
    #[must_use]
    pub fn new() -> (Self, Knock, Left) {
        let ((knock, knocks), (open, opened)) = (oneshot::channel(), oneshot::channel());
        let left = Left::default();
        (Self { knock: Some(knocks), open }, Knock { knock: Some(knock), opened, left: left.clone() }, left)
    }

    /// Returns once, when the request stands at the door; never when it has come to its end before that.
    pub async fn knocked(&mut self) {
        if let Some(knock) = &mut self.knock {
            let has_come = knock.await.is_ok();
            self.knock = None;
            if has_come {
                return;
            }
        }
        std::future::pending().await
    }

    /// Lets the request out.
    pub fn open(self) {
        // A request that has come to its end meanwhile has not left.
        let _ = self.open.send(());
    }
}

/// The body of a request that waits.
pub(super) struct Waiting {
    at: Knock,
    bytes: Option<Bytes>,
}

impl Waiting {
    pub(super) fn new(at: Knock, bytes: Bytes) -> Self {
        Self { at, bytes: Some(bytes) }
    }
}

impl Body for Waiting {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.bytes.is_none() {
            return Poll::Ready(None);
        }
        if let Some(knock) = self.at.knock.take() {
            let _ = knock.send(());
        }
        let opened = ready!(Pin::new(&mut self.at.opened).poll(cx));
        let bytes = self.bytes.take().ok_or(io::ErrorKind::NotConnected);
        Poll::Ready(Some(match (opened, bytes) {
            (Ok(()), Ok(bytes)) if self.at.left.leaves() => Ok(Frame::data(bytes)),
            _ => Err(io::Error::other("called off")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::super::testing::{call, gate_to, listener, read_request};
    use super::super::{Cause, OutboundError, Response};
    use super::*;
    use crate::clock;

    const PATIENCE: Duration = Duration::from_secs(20);

    type Asking = JoinHandle<Result<Response, OutboundError>>;

    /// A call that stands at its door, the server's end of its connection, and what the server has read so far.
    async fn at_the_door() -> (Door, Left, Asking, TcpStream, String) {
        let (port, listener) = listener().await;
        let (mut door, knock, left) = Door::new();
        let asking = tokio::spawn(async move { gate_to(port).send(call(port).waits_at(Some(knock))).await });
        let (mut stream, _) = listener.accept().await.expect("a connection");
        clock::deadline(PATIENCE, door.knocked()).await.expect("in time");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(stream.read_u8().await.expect("the head")));
        }
        (door, left, asking, stream, head)
    }

    #[tokio::test]
    async fn a_body_waits_for_its_door_and_leaves_whole() {
        // RL-06
        let (door, left, asking, mut stream, head) = at_the_door().await;
        assert!(head.to_ascii_lowercase().contains("\r\ncontent-length: 11\r\n"), "{head}");
        assert!(!head.contains("code=canary\r\n\r\n"));
        let early = stream.try_read(&mut [0; 16]).expect_err("nothing but the head is there");
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        door.open();
        let mut body = [0; 11];
        stream.read_exact(&mut body).await.expect("the body");
        assert_eq!((&body, left.shut()), (b"code=canary", true));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("written");
        assert_eq!(asking.await.expect("joined").expect("an answer").status, 200);
    }

    #[tokio::test]
    async fn a_call_that_is_called_off_never_shows_its_body() {
        // RL-06
        let (door, left, asking, mut stream, _) = at_the_door().await;
        drop(door);
        assert!(asking.await.expect("joined").is_err());
        let mut rest = Vec::new();
        // Closed in order or reset: what counts is that nothing came.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty() && !left.shut());
    }

    #[tokio::test]
    async fn who_is_cut_off_at_the_door_has_not_left() {
        let (door, left, asking, stream, _) = at_the_door().await;
        drop(stream);
        assert_eq!(asking.await.expect("joined").expect_err("cut"), OutboundError::Unknown(Cause::Reset));
        door.open();
        assert!(!left.shut(), "opened for nobody");
    }

    #[tokio::test]
    async fn what_was_answered_at_the_door_does_not_leave_afterwards() {
        // RL-06: the answer keeps the connection open, and hyper goes on asking for the body.
        let (door, left, asking, mut stream, _) = at_the_door().await;
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await.expect("written");
        assert_eq!(asking.await.expect("joined").expect("an answer").status, 502);
        assert!(!left.shut());
        door.open();
        let mut rest = Vec::new();
        let _ = clock::deadline(PATIENCE, stream.read_to_end(&mut rest)).await.expect("hung up");
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[tokio::test]
    async fn nobody_knocks_where_nothing_connects() {
        let (port, closed) = listener().await;
        drop(closed);
        let ((mut door, knock, left), gate) = (Door::new(), gate_to(port));
        tokio::select! {
            () = door.knocked() => panic!("nothing stands there"),
            answer = gate.send(call(port).waits_at(Some(knock))) => {
                assert_eq!(answer.expect_err("refused"), OutboundError::NotSent(Cause::Connect));
            }
        }
        assert!(!left.shut());
    }

    #[tokio::test]
    async fn the_usual_server_takes_a_head_and_a_body_that_comes_later_for_one_request() {
        let (port, listener) = listener().await;
        let (mut door, knock, _) = Door::new();
        let asking = tokio::spawn(async move { gate_to(port).send(call(port).waits_at(Some(knock))).await });
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await
        });
        door.knocked().await;
        door.open();
        assert!(serving.await.expect("served").ends_with("\r\n\r\ncode=canary"));
        assert!(asking.await.expect("joined").is_err(), "it has hung up");
    }
}
