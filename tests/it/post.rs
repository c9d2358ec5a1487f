//! A token endpoint that says whatever it is told, byte for byte, and holds the time that it is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use valetkey::clock::{deadline, pause};

/// The longest that one connection is held open.
const LONGEST: Duration = Duration::from_secs(60);

/// A part of an answer.
#[derive(Clone, Debug)]
pub enum Part {
    /// At once.
    Bytes(Vec<u8>),
    /// This many times, as fast as they are taken.
    Flood(Vec<u8>, usize),
    /// One byte after the other, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// Nothing for this long.
    Pause(Duration),
    /// Nothing until the other side hangs up.
    Hold,
    /// The connection breaks with a reset instead of an end.
    Reset,
}

/// What has come in and gone out.
#[derive(Default)]
pub struct Traffic {
    /// The refresh token of every request.
    pub tokens: Mutex<Vec<String>>,
    /// Bytes of answers that were taken.
    pub taken: AtomicU64,
}

/// The endpoint.
pub struct Post {
    /// `127.0.0.1:port`.
    pub authority: String,
    pub traffic: Arc<Traffic>,
}

impl Post {
    /// Opens it; `answer` is asked with the refresh token of each request.
    pub async fn open(answer: impl Fn(&str) -> Vec<Part> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let authority = listener.local_addr().expect("an address").to_string();
        let traffic = Arc::new(Traffic::default());
        let (counted, answer) = (traffic.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(deadline(LONGEST, serve(stream, counted.clone(), answer.clone())));
            }
        });
        Self { authority, traffic }
    }

    /// How often this refresh token was shown.
    pub fn shown(&self, token: &str) -> usize {
        self.traffic.tokens.lock().expect("a lock").iter().filter(|known| *known == token).count()
    }
}

async fn serve(mut stream: TcpStream, traffic: Arc<Traffic>, answer: Arc<impl Fn(&str) -> Vec<Part>>) {
    let Some(body) = request(&mut stream).await else { return };
    let mut fields = url::form_urlencoded::parse(&body);
    let token = fields.find(|(name, _)| name == "refresh_token").map(|(_, value)| value.into_owned());
    let token = token.unwrap_or_default();
    traffic.tokens.lock().expect("a lock").push(token.clone());
    let parts = answer(&token);
    for part in parts {
        // Whoever has heard enough hangs up.
        if say(&mut stream, &traffic, part).await.is_none() {
            return;
        }
    }
    let _ = stream.shutdown().await;
    // An end with something unread would be a reset.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

async fn say(stream: &mut TcpStream, traffic: &Traffic, part: Part) -> Option<()> {
    match part {
        Part::Bytes(bytes) => write(stream, traffic, &bytes).await?,
        Part::Flood(piece, times) => {
            for _ in 0..times {
                write(stream, traffic, &piece).await?;
            }
        }
        Part::Drip(bytes, every) => {
            for byte in bytes {
                pause(every).await;
                write(stream, traffic, &[byte]).await?;
            }
        }
        Part::Pause(span) => pause(span).await,
        Part::Hold => drop(stream.read_to_end(&mut Vec::new()).await),
        Part::Reset => {
            #[expect(deprecated, reason = "a reset is what is wanted")]
            stream.set_linger(Some(Duration::ZERO)).ok()?;
            return None;
        }
    }
    Some(())
}

async fn write(stream: &mut TcpStream, traffic: &Traffic, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    traffic.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Some(())
}

/// The body of one request.
async fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut seen = Vec::new();
    loop {
        let head = seen.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let wanted = end + 4 + length.unwrap_or(0);
            if seen.len() >= wanted {
                return Some(seen[end + 4..wanted].to_vec());
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => seen.extend_from_slice(&piece[..count]),
        }
    }
}
