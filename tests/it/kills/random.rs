//! SIGKILL at random moments, while readers, forced refreshes and the sweep are at work on three connections.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::{join_all, join3, select};
use futures_util::{StreamExt, pin_mut, stream};
use valetkey::clock::{Stopwatch, Surroundings, pause};

use super::play::{Case, Ended, Fault, Gates, Outcome, look, no_reuse, works};
use super::scene::{Kind, Life, Scene, Story};
use super::vault::{Link, Template, Vault};
use super::{ON_STAGE, on_stage_postgres, progress};
use crate::harness::Account;

/// Longer than a lease and a doubt.
const SETTLED: Duration = Duration::from_secs(220);
const ACCOUNTS: [Account; 3] = [Account::ADA, Account::GRACE, Account::OPS];

/// So many kills, spread over kinds and databases; a few without waiting for doubts when no number is given.
pub async fn play_all(kills: Option<usize>) -> Vec<(String, Outcome)> {
    let sqlite = Template::new(false).await.expect("SQLite is always there");
    let postgres = Template::new(true).await;
    let (gates, server) = (Gates::new(), on_stage_postgres());
    let databases = [(false, Some(&sqlite)), (true, postgres.as_ref())];
    let vaults = databases.iter().flat_map(|(is_postgres, template)| {
        Kind::ALL.into_iter().filter_map(move |kind| {
            let scene = Scene { story: Story::Told, point: None };
            let case = Case { scene, kind, postgres: *is_postgres, life: Life::Ample, briefly: kills.is_none() };
            template.map(|template| (case, template))
        })
    });
    let vaults: Vec<_> = vaults.collect();
    let count = kills.unwrap_or(vaults.len());
    let watch = Stopwatch::start();
    let mut playing = stream::iter((0..count).map(|number| vaults[number % vaults.len()]))
        .map(|(case, template)| {
            let (gates, server) = (&gates, &server);
            async move {
                let _place = if case.postgres { Some(server.acquire().await.expect("open")) } else { None };
                play(case, template, gates).await
            }
        })
        .buffer_unordered(ON_STAGE);
    let mut outcomes = Vec::with_capacity(count);
    while let Some(outcome) = playing.next().await {
        outcomes.push(("at a random moment".to_owned(), outcome));
        progress(outcomes.len(), count, &watch);
    }
    drop(playing);
    if let Some(template) = &postgres {
        template.drop_database().await;
    }
    outcomes
}

async fn play(case: Case, template: &Template, gates: &Gates) -> Outcome {
    let mut slowest = Duration::ZERO;
    let permit = gates.prepare.acquire().await.expect("open");
    let mut vault = Vault::new(template, case.kind, false).await;
    let restarted = killed_and_restarted(case, &mut vault, &mut slowest).await;
    drop(permit);
    let ended = match restarted {
        Ok((links, announced)) => settled(case, &vault, &links, &announced, &mut slowest).await,
        Err(fault) => Err(fault),
    };
    let log = if ended.is_err() { vault.last_words() } else { String::new() };
    vault.finish().await;
    Outcome { case, ended, slowest, log }
}

/// The connections, and those of which a request may have been on its way when the process died.
async fn killed_and_restarted(
    case: Case,
    vault: &mut Vault,
    slowest: &mut Duration,
) -> Result<(Vec<Link>, HashSet<String>), Fault> {
    if !vault.start(None).await {
        return Err(Fault::Unplayed("it did not start".to_owned()));
    }
    let links = vault.connect(&ACCOUNTS).await;
    // The window in which nobody knows whether a token was spent is as wide as the provider is slow.
    vault.street.fault(case.kind.provider(), "refresh", "late_ms:80", 100_000).await;
    let moment = Duration::from_millis(200 + u64::from(u16::from_be_bytes(Surroundings::system().random())) % 2800);
    {
        let (load, end) = (load(vault, &links), pause(moment));
        pin_mut!(load, end);
        select(load, end).await;
    }
    vault.kill();
    let died = Surroundings::system().now();
    vault.street.clear_faults().await;
    if !vault.start(None).await {
        return Err(Fault::Wedged("it does not start again".to_owned()));
    }
    // Only now: a commit that was under way may have been carried out after its client's death.
    let announced = vault.announced(died).await;
    for link in &links {
        look(case, vault, link, slowest).await?;
    }
    Ok((links, announced))
}

/// Readers, forced refreshes and the sweep, until it is dropped.
async fn load(vault: &Vault, links: &[Link]) {
    let readers = links.iter().chain(links).map(async |link| {
        loop {
            vault.read(link).await;
            pause(some(20)).await;
        }
    });
    let forced = links.iter().map(async |link| {
        loop {
            vault.refresh(link).await;
            pause(some(150)).await;
        }
    });
    let sweep = async {
        loop {
            vault.age(Life::Waning).await;
            pause(Duration::from_millis(700)).await;
        }
    };
    join3(join_all(readers), join_all(forced), sweep).await;
}

/// Something up to this many milliseconds.
fn some(millis: u64) -> Duration {
    Duration::from_millis(u64::from(u16::from_be_bytes(Surroundings::system().random())) % millis)
}

/// Every connection comes to an end that it can answer for; a loss is told if there is one.
async fn settled(
    case: Case,
    vault: &Vault,
    links: &[Link],
    announced: &HashSet<String>,
    slowest: &mut Duration,
) -> Result<Ended, Fault> {
    let ends = join_all(links.iter().map(async |link| {
        let mut slowest = Duration::ZERO;
        let ended = settled_one(case, vault, (link, announced.contains(&link.id)), &mut slowest).await;
        (ended, slowest)
    }));
    let mut worst = Ended::Survived;
    for (ended, waited) in ends.await {
        *slowest = (*slowest).max(waited);
        match ended? {
            Ended::Survived => {}
            other => worst = other,
        }
    }
    no_reuse(vault, case.kind).await?;
    Ok(worst)
}

/// Lost may be only what was announced (decision 0010).
async fn settled_one(
    case: Case,
    vault: &Vault,
    (link, was_announced): (&Link, bool),
    slowest: &mut Duration,
) -> Result<Ended, Fault> {
    let watch = Stopwatch::start();
    loop {
        look(case, vault, link, slowest).await?;
        let answer = vault.refresh(link).await;
        if answer.as_ref().is_some_and(|(status, _)| *status == 200) {
            return works(vault, link).await.map(|()| Ended::Survived);
        }
        let view = vault.view(link).await;
        if view["status"] == "needs_reauth" {
            let told = case.kind == Kind::Strict && view["reason"] == "rotation_response_lost";
            let honest = told && was_announced;
            return if honest { Ok(Ended::Lost) } else { Err(Fault::Spent(format!("given up without need: {view}"))) };
        }
        if case.briefly && case.kind == Kind::Strict {
            return Ok(Ended::InDoubt);
        }
        if watch.elapsed() > SETTLED {
            return Err(Fault::Wedged(format!("{answer:?}, {view}")));
        }
        pause(Duration::from_millis(if case.kind == Kind::Strict { 3000 } else { 900 })).await;
    }
}
