//! An answer of which the head has come: its body is read as a whole, or goes on piece by piece.

use std::fmt;

use ::http::StatusCode;
use ::http::header::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::answer::Response;
use super::http::{Limits, Wiped};
use super::{Cause, OutboundError};
use crate::clock::{self, Stopwatch};

/// The head of an answer, whatever its status; redirects are not followed. Dropping it ends the call. `Debug` shows the
/// status only.
pub struct Incoming {
    /// The HTTP status.
    pub status: u16,
    /// The headers as they came.
    pub headers: HeaderMap,
    pub(super) answer: reqwest::Response,
    pub(super) limits: Limits,
}

/// A body as it comes, never decompressed. An error is its end: what came before it is not the whole.
pub type Chunks = BoxStream<'static, Result<Bytes, OutboundError>>;

/// Why a body was not read to its end.
enum Unread {
    TooLarge,
    CutShort,
}

impl Incoming {
    /// The whole answer.
    ///
    /// # Errors
    /// [`OutboundError::TooLarge`], and [`OutboundError::Unknown`] for what came in part.
    pub async fn whole(mut self) -> Result<Response, OutboundError> {
        match clock::awake_deadline(self.limits.body, self.read()).await {
            Ok(Ok(body)) => Ok(Response { status: self.status, headers: self.headers, body: body.into_inner() }),
            Ok(Err(Unread::TooLarge)) => Err(self.too_large()),
            Ok(Err(Unread::CutShort)) | Err(clock::Elapsed) => Err(self.truncated()),
        }
    }

    /// The body piece by piece, within the same limits; time in which nobody asks for the next piece counts, too.
    ///
    /// # Errors
    /// What announces more than the limit, as with [`Incoming::whole`]. Whatever is wrong later is the last item.
    pub fn chunks(self) -> Result<Chunks, OutboundError> {
        if self.announced().is_some_and(|length| length > self.limits.max_bytes) {
            return Err(self.too_large());
        }
        let (watch, left) = (Stopwatch::start(), self.limits.max_bytes);
        let chunks = stream::try_unfold((self, left), move |(mut incoming, left)| async move {
            let time = incoming.limits.body.saturating_sub(watch.elapsed());
            let Ok(Ok(chunk)) = clock::deadline(time, incoming.answer.chunk()).await else {
                return Err(incoming.truncated());
            };
            let Some(chunk) = chunk else { return Ok(None) };
            let left = left.checked_sub(chunk.len()).ok_or_else(|| incoming.truncated())?;
            Ok(Some((chunk, (incoming, left))))
        });
        Ok(chunks.boxed())
    }

    async fn read(&mut self) -> Result<Wiped, Unread> {
        let most = self.limits.max_bytes;
        let announced = self.announced();
        if announced.is_some_and(|length| length > most) {
            return Err(Unread::TooLarge);
        }
        let mut body = Wiped::with_capacity(announced.unwrap_or(4096).min(most));
        while let Some(chunk) = self.answer.chunk().await.map_err(|_| Unread::CutShort)? {
            if body.len() + chunk.len() > most {
                return Err(Unread::TooLarge);
            }
            body.push(&chunk);
        }
        Ok(body)
    }

    fn announced(&self) -> Option<usize> {
        self.answer.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A call that succeeded had its effect, whatever has become of its answer.
    fn too_large(&self) -> OutboundError {
        let succeeded = StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success());
        if succeeded { self.truncated() } else { OutboundError::TooLarge { status: self.status } }
    }

    fn truncated(&self) -> OutboundError {
        OutboundError::Unknown(Cause::Truncated { status: self.status })
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::oneshot;

    use super::super::testing::{call, gate_to, listener, read_request, serve_once};
    use super::*;

    const TRUNCATED: OutboundError = OutboundError::Unknown(Cause::Truncated { status: 200 });

    #[tokio::test]
    async fn a_body_goes_on_while_it_still_comes() {
        let (port, listener) = listener().await;
        let (go_on, told) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await.expect("written");
            told.await.expect("somebody has the first half");
            stream.write_all(b"later").await.expect("written");
        });
        let incoming = gate_to(port).open(call(port)).await.expect("a head");
        assert_eq!((incoming.status, &incoming.headers["content-length"]), (200, &"10".parse().expect("a value")));
        let mut chunks = incoming.chunks().expect("within the limits");
        assert_eq!(chunks.next().await, Some(Ok(Bytes::from_static(b"first"))));
        go_on.send(()).expect("a server");
        assert_eq!(chunks.next().await, Some(Ok(Bytes::from_static(b"later"))));
        assert_eq!(chunks.next().await, None);
        serving.await.expect("served");
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_ends_with_an_error() {
        let (port, _serving) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\"").await;
        let chunks = gate_to(port).open(call(port)).await.expect("a head").chunks().expect("within the limits");
        let seen: Vec<_> = chunks.collect().await;
        assert_eq!(seen, [Ok(Bytes::from_static(b"{\"a\"")), Err(TRUNCATED)]);
    }

    #[tokio::test]
    async fn no_more_of_a_body_goes_on_than_the_limit_and_for_no_longer() {
        // SS-05: announced, not announced, and never at an end.
        let limits = Limits { max_bytes: 1000, body: Duration::from_millis(200), ..Limits::api() };
        for (status, expected) in [(200, TRUNCATED), (500, OutboundError::TooLarge { status: 500 })] {
            let (port, _serving) = serve_once(format!("HTTP/1.1 {status} X\r\nContent-Length: 1001\r\n\r\n")).await;
            let incoming = gate_to(port).open(call(port).limits(limits)).await.expect("a head");
            assert_eq!(incoming.chunks().err(), Some(expected));
        }
        let (port, _serving) = serve_once(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001))).await;
        let chunks =
            gate_to(port).open(call(port).limits(limits)).await.expect("a head").chunks().expect("unannounced");
        let seen: Vec<_> = chunks.collect().await;
        assert_eq!(seen.last(), Some(&Err(TRUNCATED)));
        assert!(seen.iter().flatten().map(Bytes::len).sum::<usize>() <= 1000);

        let (port, listener) = listener().await;
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").await.expect("written");
            stream
        });
        let chunks = gate_to(port).open(call(port).limits(limits)).await.expect("a head").chunks().expect("announced");
        let seen: Vec<_> = chunks.collect().await;
        assert_eq!(seen, [Ok(Bytes::from_static(b"{")), Err(TRUNCATED)]);
        drop(serving);
    }
}
