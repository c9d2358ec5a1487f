//! A wire to PostgreSQL that can be cut at the COMMIT of a transaction that stores tokens, and stays cut until it is mended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// When the wire is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Never.
    Not,
    /// Before the server sees the COMMIT: it has not happened.
    Before,
    /// When the server has answered, before anybody else sees the answer: it has happened.
    After,
    /// Before the server sees the COMMIT, and without a word to anybody: the wire swallows what is sent on it. Connections of
    /// that time stay as they are when it is mended.
    Silently,
}

/// The wire.
pub struct Cutter {
    /// The database's URL through the wire.
    pub url: String,
    state: Arc<State>,
}

struct State {
    server: String,
    next: Mutex<Cut>,
    /// False while it is cut.
    whole: watch::Sender<bool>,
    /// True while it swallows everything.
    silent: watch::Sender<bool>,
}

impl Cutter {
    /// A wire to the server of this URL.
    pub async fn to(url: &str) -> Self {
        let mut url: url::Url = url.parse().expect("a URL");
        let server = format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(listener.local_addr().expect("an address").port())).expect("a port");
        let (whole, silent) = (watch::Sender::new(true), watch::Sender::new(false));
        let state = Arc::new(State { server, next: Mutex::new(Cut::Not), whole, silent });
        let accepting = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if *accepting.whole.borrow() {
                    tokio::spawn(connection(stream, accepting.clone()));
                }
            }
        });
        Self { url: url.into(), state }
    }

    /// The next COMMIT of new tokens cuts the wire.
    pub fn cut_next(&self, when: Cut) {
        *self.state.next.lock().expect("a lock") = when;
    }

    /// From now on everything is swallowed, on every connection there is.
    pub fn fall_silent(&self) {
        self.state.silent.send_replace(true);
    }

    /// New connections get through again.
    pub fn mend(&self) {
        self.cut_next(Cut::Not);
        self.state.whole.send_replace(true);
        self.state.silent.send_replace(false);
    }
}

async fn connection(client: TcpStream, state: Arc<State>) {
    #[expect(clippy::disallowed_methods, reason = "the test is the outside, not the house")]
    let Ok(server) = TcpStream::connect(&state.server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (swallow, swallowing) = watch::channel(false);
    let (mut whole, mut silent) = (state.whole.subscribe(), state.silent.subscribe());
    let wire = std::pin::pin!(async {
        tokio::select! {
            _ = up(from_client, to_server, &state, swallow) => {}
            _ = down(from_server, to_client, &state, swallowing) => {}
            _ = whole.wait_for(|whole| !whole) => {}
        }
    });
    tokio::select! {
        biased;
        () = async { drop(silent.wait_for(|silent| *silent).await) } => {
            // Neither end hears that the other is gone.
            std::future::pending::<()>().await;
        }
        () = wire => {}
    }
}

/// Client to server, message by message (PostgreSQL's manual, "Message Formats").
async fn up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    state: &State,
    swallow: watch::Sender<bool>,
) -> std::io::Result<()> {
    // A request for TLS, which is declined, and the beginning have no type.
    loop {
        let length = client.read_u32().await?;
        let body = exactly(&mut client, length).await?;
        server.write_u32(length).await?;
        server.write_all(&body).await?;
        if body.get(..4) != Some(&80_877_103_u32.to_be_bytes()) {
            break;
        }
    }
    let (mut stores, mut marked) = (HashSet::new(), false);
    loop {
        let kind = client.read_u8().await?;
        let length = client.read_u32().await?;
        let body = exactly(&mut client, length).await?;
        let mut texts = body.split(|byte| *byte == 0);
        let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        match kind {
            b'P' if second.starts_with(b"UPDATE credentials SET access_token") => drop(stores.insert(first.to_vec())),
            b'B' if stores.contains(second) => marked = true,
            b'Q' if first.starts_with(b"COMMIT") && std::mem::take(&mut marked) => {
                let cut = std::mem::replace(&mut *state.next.lock().expect("a lock"), Cut::Not);
                match cut {
                    Cut::Not => {}
                    Cut::Before => {
                        state.whole.send_replace(false);
                        return Ok(());
                    }
                    Cut::After => drop(swallow.send_replace(true)),
                    Cut::Silently => {
                        state.silent.send_replace(true);
                        std::future::pending::<()>().await;
                    }
                }
            }
            b'Q' => marked = false,
            _ => {}
        }
        server.write_u8(kind).await?;
        server.write_u32(length).await?;
        server.write_all(&body).await?;
    }
}

/// Server to client; what comes when it is to be swallowed is the answer to the COMMIT.
async fn down(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    state: &State,
    swallowing: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let count = server.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        if *swallowing.borrow() {
            assert!(piece[..count].starts_with(b"C"), "the COMMIT was done");
            state.whole.send_replace(false);
            return Ok(());
        }
        client.write_all(&piece[..count]).await?;
    }
}

async fn exactly(client: &mut OwnedReadHalf, length: u32) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; usize::try_from(length).unwrap_or(0).saturating_sub(4)];
    client.read_exact(&mut body).await?;
    Ok(body)
}
