//! One scene from the first start to the last look: the process dies, is started again, and is judged from outside.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use valetkey::clock::{Stopwatch, deadline, pause};
use valetkey::crash::{Aim, Point};

use super::scene::{Fate, Kind, Life, Scene, Story};
use super::vault::{Link, Read, Template, Vault};
use crate::harness::Account;

/// A lease, the wait for a slow answer, and what a busy machine adds.
const LEASE_IS_OVER: Duration = Duration::from_secs(75);
/// What was left of a lease is over.
const LEASE: Duration = Duration::from_secs(32);
/// A doubt on top.
const DOUBT_IS_OVER: Duration = Duration::from_secs(210);
/// How long a point may take to be reached.
const REACHED: Duration = Duration::from_secs(90);
/// Readers of a token with life are answered within this time after a restart: the bar, and what a machine that is busy
/// with all other tests is forgiven. Waiting for a dead process would take ten seconds.
pub const PROMPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// One kill.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub scene: Scene,
    pub kind: Kind,
    pub postgres: bool,
    pub life: Life,
    /// Do not wait for the end of a doubt: what readers get meanwhile is enough.
    pub briefly: bool,
}

/// How it ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The connection works on.
    Survived,
    /// `needs_reauth` with `rotation_response_lost`.
    Lost,
    /// `needs_reauth` as the provider wants it.
    Refused,
    /// Not waited for: readers are served, nothing was sent again.
    InDoubt,
}

/// How it ended badly.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It neither works nor says that it does not.
    Wedged(String),
    /// It looks better than it is.
    Stale(String),
    /// A token was spent twice, or given up without need.
    Spent(String),
    /// The scene was not played: a fault of the harness, or of the program before the kill.
    Unplayed(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wedged(what) => write!(f, "wedged: {what}"),
            Self::Stale(what) => write!(f, "stale: {what}"),
            Self::Spent(what) => write!(f, "spent: {what}"),
            Self::Unplayed(what) => write!(f, "not played: {what}"),
        }
    }
}

/// What came of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub case: Case,
    pub ended: Result<Ended, Fault>,
    /// The longest that a reader of a token with life waited after the restart.
    pub slowest: Duration,
    pub log: String,
}

/// Keeps a machine with few cores from starting everything at once, which would be measured as slow readers.
pub struct Gates {
    /// Preparing vaults can wait.
    pub prepare: Semaphore,
    /// Restarts cannot: a provider's grace runs on while a process is dead.
    pub restart: Semaphore,
}

impl Gates {
    pub fn new() -> Self {
        Self { prepare: Semaphore::new(1), restart: Semaphore::new(2) }
    }
}

/// Plays a case on a copy of the template.
pub async fn play(case: Case, template: &Template, gates: &Gates) -> Outcome {
    let spool = matches!(case.scene.story, Story::Spool | Story::Held | Story::Homecoming);
    let permit = gates.prepare.acquire().await.expect("open");
    let mut vault = Vault::new(template, case.kind, spool).await;
    let mut slowest = Duration::ZERO;
    let ended = match die(case, &mut vault, permit, gates).await {
        Ok(link) => live_on(case, &mut vault, gates, &link, &mut slowest).await,
        Err(fault) => Err(fault),
    };
    let log = if ended.is_err() { vault.last_words() } else { String::new() };
    vault.finish().await;
    Outcome { case, ended, slowest, log }
}

/// From the first start to the death that the scene is about.
async fn die(case: Case, vault: &mut Vault, prepared: SemaphorePermit<'_>, gates: &Gates) -> Result<Link, Fault> {
    let Case { scene, life, kind, .. } = case;
    let aim = scene.point.map(|point| Aim { point, hit: first_pass(point) }.to_string());
    let first = match scene.story {
        Story::Settling => Some(Aim { point: Point::AfterResponse, hit: 1 }.to_string()),
        Story::Homecoming | Story::Told => None,
        _ => aim.clone(),
    };
    if !vault.start(first).await {
        return Err(unplayed("it did not start"));
    }
    let link = vault.connect(&[Account::ADA]).await.remove(0);
    match scene.story {
        // More than once: a provider that does not rotate is given up at about the time of the first renewal.
        Story::Slow => vault.street.fault(kind.provider(), "refresh", "late_ms:25000", 10).await,
        Story::Refused => vault.street.fault(kind.provider(), "refresh", "http_429:1", 1).await,
        Story::Revoked => drop(vault.street.tell("/revoke", json!({"provider": kind.provider()})).await),
        Story::Spool | Story::Held | Story::Homecoming => vault.database.refuse_tokens().await,
        Story::Refresh | Story::Settling | Story::Told => {}
    }
    if life != Life::Ample {
        vault.age(life).await;
    }
    drop(prepared);
    match scene.story {
        Story::Told => killed_when_told(vault, &link, life).await?,
        Story::Held => {
            held(vault, &link, life).await?;
            vault.database.take_tokens().await;
            nudged_to_death(vault, &link, life, REACHED).await?;
        }
        Story::Homecoming => {
            held(vault, &link, life).await?;
            vault.tell_to_stop();
            if !vault.dies_within(REACHED).await {
                return Err(unplayed("it did not stop"));
            }
            vault.database.take_tokens().await;
        }
        Story::Spool => {
            nudged_to_death(vault, &link, life, REACHED).await?;
            vault.database.take_tokens().await;
        }
        _ => nudged_to_death(vault, &link, life, REACHED).await?,
    }
    vault.street.clear_faults().await;
    if matches!(scene.story, Story::Settling | Story::Homecoming) {
        let permit = gates.restart.acquire().await.expect("open");
        vault.start(aim).await;
        drop(permit);
        nudged_to_death(vault, &link, life, DOUBT_IS_OVER).await?;
    }
    Ok(link)
}

fn first_pass(point: Point) -> u32 {
    // The spool is tried at the start.
    if point == Point::MidSpool { 2 } else { 1 }
}

/// What a user or a program does that leads to a refresh; not waited for.
async fn nudge(vault: &Vault, link: &Link, life: Life) -> Read {
    let patience = Duration::from_millis(1500);
    if life == Life::Ample {
        let _ = deadline(patience, vault.refresh(link)).await;
    }
    deadline(patience, vault.read(link)).await.unwrap_or(Read::Nothing)
}

async fn nudged_to_death(vault: &mut Vault, link: &Link, life: Life, limit: Duration) -> Result<(), Fault> {
    let watch = Stopwatch::start();
    while !vault.is_dead() {
        if watch.elapsed() > limit {
            return Err(unplayed("it did not come to the crash point"));
        }
        nudge(vault, link, life).await;
        pause(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn held(vault: &Vault, link: &Link, life: Life) -> Result<(), Fault> {
    let watch = Stopwatch::start();
    while !vault.readiness().await.contains("held_tokens") {
        if watch.elapsed() > REACHED {
            return Err(unplayed("no token was held"));
        }
        nudge(vault, link, life).await;
    }
    Ok(())
}

async fn killed_when_told(vault: &mut Vault, link: &Link, life: Life) -> Result<(), Fault> {
    let watch = Stopwatch::start();
    while watch.elapsed() < REACHED {
        if let Read::Token(token) = nudge(vault, link, life).await
            && token["generation"].as_i64() > Some(1)
        {
            vault.kill();
            return Ok(());
        }
    }
    Err(unplayed("nobody was told"))
}

/// From the restart to the verdict.
async fn live_on(
    case: Case,
    vault: &mut Vault,
    gates: &Gates,
    link: &Link,
    slowest: &mut Duration,
) -> Result<Ended, Fault> {
    let fate = case.scene.fate(case.kind);
    let sent = vault.counter("token_requests/refresh_token").await;
    let permit = gates.restart.acquire().await.expect("open");
    if !vault.start(None).await {
        return Err(Fault::Wedged("it does not start again".to_owned()));
    }
    look(case, vault, link, slowest).await?;
    drop(permit);
    let in_doubt = case.scene.waits_for_doubt(case.kind);
    let limit = if in_doubt { DOUBT_IS_OVER } else { LEASE_IS_OVER };
    let watch = Stopwatch::start();
    loop {
        let generation = look(case, vault, link, slowest).await?;
        let view = vault.view(link).await;
        let pending = case.life != Life::Ample || case.scene.refreshes_what_is_ample(case.postgres);
        if view["status"] == "needs_reauth" {
            return honestly_over(case, vault, link, &view).await;
        }
        if fate != Fate::Ended && (generation >= 2 || !pending) {
            works(vault, link).await?;
            return no_reuse(vault, case.kind).await.map(|()| Ended::Survived);
        }
        if case.briefly && in_doubt {
            if vault.counter("token_requests/refresh_token").await > sent {
                return Err(Fault::Spent("a doubtful token was sent again".to_owned()));
            }
            return no_reuse(vault, case.kind).await.map(|()| Ended::InDoubt);
        }
        if in_doubt && watch.elapsed() > LEASE && view["last_error"].is_null() {
            return Err(Fault::Stale(format!("in doubt, and it does not say so: {view}")));
        }
        if watch.elapsed() > limit {
            return Err(Fault::Wedged(format!("generation {generation}, {view}")));
        }
        // Dozens wait for doubts at once; asking all of them every second would be what they wait for.
        pause(Duration::from_millis(if in_doubt { 3000 } else { 900 })).await;
    }
}

/// One reader: answered in time while the token has life, with a token that works, and told when it is not the best one.
/// Gives the generation, 0 when there was no token.
pub async fn look(case: Case, vault: &Vault, link: &Link, slowest: &mut Duration) -> Result<i64, Fault> {
    let watch = Stopwatch::start();
    let read = vault.read(link).await;
    let took = watch.elapsed();
    match read {
        Read::Token(token) => {
            let generation = token["generation"].as_i64().unwrap_or_default();
            if case.life != Life::Over {
                *slowest = (*slowest).max(took);
            }
            if case.scene.story != Story::Revoked && !vault.is_accepted(&token["access_token"]).await {
                return superseded(vault, link, generation).await;
            }
            if generation == 1 && case.life == Life::Waning && token["degraded"] != json!(true) {
                return Err(Fault::Stale("an old token was lent as if it were a good one".to_owned()));
            }
            Ok(generation)
        }
        Read::Problem(status, code) if case.life != Life::Over => {
            Err(Fault::Wedged(format!("a token with life was not lent: {status} {code}")))
        }
        Read::Problem(..) => Ok(0),
        Read::Nothing => Err(Fault::Wedged("a reader got no answer".to_owned())),
    }
}

/// A provider may end a token while it is on its way to a reader: Slack has two live ones at most, and a replayed refresh
/// makes a third. Whoever comes back then must get the newer one.
async fn superseded(vault: &Vault, link: &Link, refused: i64) -> Result<i64, Fault> {
    let watch = Stopwatch::start();
    while watch.elapsed() < Duration::from_secs(5) {
        if let Read::Token(token) = vault.read(link).await {
            let generation = token["generation"].as_i64().unwrap_or_default();
            if generation > refused && vault.is_accepted(&token["access_token"]).await {
                return Ok(generation);
            }
        }
        pause(Duration::from_millis(100)).await;
    }
    Err(Fault::Stale(format!("generation {refused} is lent on and on, and the provider does not accept it")))
}

/// The user is asked to connect again. Was there need, is the reason true, and is what lives still lent?
async fn honestly_over(case: Case, vault: &Vault, link: &Link, view: &Value) -> Result<Ended, Fault> {
    let fate = case.scene.fate(case.kind);
    if fate == Fate::Survives {
        return Err(Fault::Spent(format!("given up without need: {view}")));
    }
    if fate == Fate::MayBeLost && view["reason"] != "rotation_response_lost" {
        return Err(Fault::Stale(format!("not the true reason: {view}")));
    }
    match (vault.read(link).await, case.life) {
        (Read::Problem(..), Life::Over) => {}
        (Read::Token(token), Life::Waning | Life::Ample) if token["degraded"] == json!(true) => {}
        (Read::Token(_), _) => {
            return Err(Fault::Stale("a token of a dead connection is lent as a good one".to_owned()));
        }
        _ => return Err(Fault::Wedged("a token with life was not lent after the loss".to_owned())),
    }
    no_reuse(vault, case.kind).await?;
    Ok(if fate == Fate::Ended { Ended::Refused } else { Ended::Lost })
}

/// The stored refresh token is the provider's current one: it can be spent, and what it brings is accepted.
pub async fn works(vault: &Vault, link: &Link) -> Result<(), Fault> {
    let watch = Stopwatch::start();
    let mut last = (0, Value::Null);
    while watch.elapsed() < Duration::from_secs(30) {
        match vault.refresh(link).await {
            Some((200, _)) => {
                let Read::Token(token) = vault.read(link).await else {
                    return Err(Fault::Wedged("no token after a refresh".to_owned()));
                };
                let accepted = vault.is_accepted(&token["access_token"]).await;
                return if accepted { Ok(()) } else { Err(Fault::Stale("a fresh token is not accepted".to_owned())) };
            }
            Some(answer) => last = answer,
            None => return Err(Fault::Wedged("no answer to a forced refresh".to_owned())),
        }
        pause(Duration::from_millis(500)).await;
    }
    let view = vault.view(link).await;
    let text = format!("a refresh answers {} {}; {view}", last.0, last.1);
    Err(if view["status"] == "active" { Fault::Wedged(text) } else { Fault::Stale(text) })
}

/// A strict provider has never seen a used token.
pub async fn no_reuse(vault: &Vault, kind: Kind) -> Result<(), Fault> {
    let reuses = if kind == Kind::Strict { vault.counter("reuses").await } else { 0 };
    if reuses == 0 { Ok(()) } else { Err(Fault::Spent(format!("{reuses} used tokens were shown again"))) }
}

fn unplayed(why: &str) -> Fault {
    Fault::Unplayed(why.to_owned())
}
