//! A provider that costs next to nothing: one task per connection, answers made of a counter. It notes when each call came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use valetkey::clock::{Stopwatch, pause};

pub struct Endpoint {
    /// `127.0.0.1:PORT`.
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    watch: Stopwatch,
    calls: Mutex<Vec<Duration>>,
    issued: AtomicU64,
    /// Milliseconds, from and up to.
    latency: (u64, u64),
}

impl Endpoint {
    /// Answers after a time between the two numbers of milliseconds.
    pub async fn start(latency: (u64, u64)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared =
            Arc::new(Shared { watch: Stopwatch::start(), calls: Mutex::default(), issued: AtomicU64::new(0), latency });
        let inside = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = inside.clone();
                tokio::spawn(async move {
                    // A connection that is dropped in the middle is none of ours.
                    let _ = serve(stream, &shared).await;
                });
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// When each call came, since the endpoint was started.
    pub fn calls(&self) -> Vec<Duration> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn count(&self) -> usize {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = whole(&read) {
                break end;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        read.drain(..end);
        shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(shared.watch.elapsed());
        let number = shared.issued.fetch_add(1, Ordering::Relaxed);
        let (from, to) = shared.latency;
        if to > 0 {
            pause(Duration::from_millis(from + number.wrapping_mul(7919) % (to - from + 1))).await;
        }
        let body = format!(r#"{{"access_token":"ya29.numbers-{number:012}","expires_in":3600,"token_type":"Bearer"}}"#);
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await?;
    }
}

/// Where the first request ends, when all of it is there.
fn whole(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let length = text.split("content-length:").nth(1)?.lines().next()?.trim().parse::<usize>().ok()?;
    (read.len() >= head + length).then_some(head + length)
}

/// The most calls in any second, wherever it begins.
pub fn busiest_second(calls: &[Duration]) -> usize {
    let mut sorted = calls.to_vec();
    sorted.sort_unstable();
    let mut most = 0;
    let mut last = 0;
    for first in 0..sorted.len() {
        while last < sorted.len() && sorted[last] - sorted[first] < Duration::from_secs(1) {
            last += 1;
        }
        most = most.max(last - first);
    }
    most
}
