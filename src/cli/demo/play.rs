//! The job, step by step: platform, person and agent act over HTTP and WebSocket only; what happened is read afterwards.

use serde_json::{Value, json};

use super::leaks::{Hidden, PLACES, Places, Search, counts, database_bytes};
use super::probes;
use super::stage::{Stage, print_of};
use super::tell::{Paper, Timeline};
use super::town::{Fault, Town};
use crate::cli::output::line;
use crate::cli::trouble::Trouble;
use crate::sandbox::CANARY;
use crate::sandbox::person::Person;
use crate::sandbox::platform::ACCOUNT;
use crate::telemetry;

/// Log lines that are shown when something failed.
const LAST_LINES: usize = 5;
/// What a variable holds that has nothing to hold.
const SENTINEL: &str = "not_connected";

/// Plays the job once.
///
/// # Errors
/// When the town could not be opened, a step failed or a secret was found.
pub(super) async fn once(port: u16, fault: Option<Fault>, as_json: bool) -> Result<(), Trouble> {
    let paper = Paper::default();
    let pen = paper.clone();
    telemetry::start_logs(Some("debug"), move || pen.clone(), true).map_err(|error| Trouble::new(error.to_string()))?;
    let mut timeline = Timeline::new(as_json);
    timeline.heading("The main job, once, on this machine");
    let opened = Town::open(port, fault).await.and_then(Stage::new);
    let mut stage = match opened {
        Ok(stage) => stage,
        Err(trouble) => {
            timeline.step("open", "The town opens", &Err("Not everybody could be started.".to_owned()));
            tell_log(&timeline, &paper);
            return answer(as_json, &timeline, false, &unsearched()).and(Err(trouble));
        }
    };
    let played = job(&mut stage, &mut timeline).await;
    stage.hang_up().await;
    tell_received(&stage, &timeline);
    timeline.heading("Where no secret may be");
    let (hits, clean) = look_for_leaks(&stage, &mut timeline, &paper, played.is_ok()).await;
    if played.is_err() {
        tell_log(&timeline, &paper);
    }
    let stopped = stage.town.close().await;
    timeline.step("stop", "Everything stops", &stopped_well(stopped));
    let ok = played.is_ok() && clean && stopped;
    answer(as_json, &timeline, ok, &hits)?;
    match played {
        Err(why) => Err(Trouble::new(why)),
        Ok(()) if !clean => Err(Trouble::new("a secret was found where none may be, or could not be looked for")),
        Ok(()) if !stopped => Err(Trouble::new("the vault did not stop in good order")),
        Ok(()) => Ok(()),
    }
}

/// The last word on stdout, for programs.
fn answer(as_json: bool, timeline: &Timeline, ok: bool, hits: &Value) -> Result<(), Trouble> {
    if !as_json {
        return Ok(());
    }
    line(&json!({"ok": ok, "steps": timeline.steps(), "canary_hits": hits}).to_string())
}

/// The counts when nothing could be searched: a zero would claim that somebody had looked.
fn unsearched() -> Value {
    PLACES.iter().map(|place| ((*place).to_owned(), Value::Null)).collect()
}

fn stopped_well(stopped: bool) -> Result<String, String> {
    if stopped {
        Ok("The vault finished what was in progress; the folder with its database and key is gone.".to_owned())
    } else {
        Err("The vault had to leave something unfinished.".to_owned())
    }
}

/// The steps, up to the first that fails.
async fn job(stage: &mut Stage, timeline: &mut Timeline) -> Result<(), String> {
    let mut tell = |name: &'static str, title: &str, outcome: Result<String, String>| {
        timeline.step(name, title, &outcome);
        outcome.map(drop).map_err(|why| format!("step {name} failed: {why}"))
    };
    tell("open", "The town opens", stage.opened())?;
    tell("connect_google", "A person connects Google", stage.connect("google", "Google").await)?;
    tell("connect_slack", "The same person connects Slack", stage.connect("slack", "Slack").await)?;
    tell("connect_telegram", "And Telegram", stage.connect_telegram().await)?;
    tell("sealed", "The vault has sealed the tokens", stage.sealed())?;
    tell("fresh", "And keeps them fresh", stage.fresh().await)?;
    tell("start", "A conversation starts through the relay", stage.start().await)?;
    tell("inject", "First way, inject: a tool uses the token", stage.inject().await)?;
    tell("expire", "In mid-call the token expires", stage.expire().await)?;
    tell("refresh_tool", "Second way, refresh tool: the agent gets a new one", stage.refresh().await)?;
    tell("broker_telegram", "Third way, broker: a Telegram message", stage.telegram().await)?;
    tell("broker_slack", "And a Slack message", stage.slack().await)?;
    tell("websocket", "A trusted back end starts a second conversation", stage.websocket().await)?;
    tell("end", "The conversations end", stage.end().await)?;
    tell("disconnect", "The person disconnects Google", stage.disconnect().await)
}

/// What went to ElevenLabs, with fingerprints in place of secrets.
fn tell_received(stage: &Stage, timeline: &Timeline) {
    timeline.heading("What ElevenLabs received (secrets as fingerprints)");
    let sinks = stage.town.elevenlabs.sinks();
    for (index, start) in sinks["received"].as_array().into_iter().flatten().enumerate() {
        timeline.text(&format!("Start of conversation {}:", index + 1));
        for (name, value) in start["frame"]["dynamic_variables"].as_object().into_iter().flatten() {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if name.starts_with("secret__") && shown != SENTINEL {
                timeline.pair(name, &print_of(&shown));
            } else {
                timeline.pair(name, &shown);
            }
        }
    }
    timeline.text("Tool calls it made:");
    for call in stage.town.elevenlabs.tool_calls().as_array().into_iter().flatten() {
        let status =
            call["status"].as_u64().map_or_else(|| "not sent".to_owned(), |status| format!("answered {status}"));
        let sent = format!("{status}; header {}", stage.header(call));
        timeline.pair(call["tool"].as_str().unwrap_or_default(), &sent);
    }
}

/// The self-test and the search; gives the counts and whether all is well.
async fn look_for_leaks(stage: &Stage, timeline: &mut Timeline, paper: &Paper, played: bool) -> (Value, bool) {
    let tested = probes::self_test(&stage.town, paper).await;
    let tested = timeline.step("self_test", "Would a leak be found? One is planted in each place", &tested);
    let places = match places(stage, paper).await {
        Ok(places) => places,
        Err(why) => {
            timeline.step("leak_search", "Every place is searched for every secret", &Err(why));
            return (unsearched(), false);
        }
    };
    let empty = places.iter().find(|(_, bytes)| bytes.len() <= 2).map(|(place, _)| *place);
    let search = Search::new(hidden(stage));
    let hits = search.look(&places);
    let (secrets, forms) = search.size();
    let outcome = match hits.first() {
        // After a whole job something must be everywhere; after a broken one there may be nothing.
        None if played && empty.is_some() => {
            Err(format!("{} is empty, so a search of it proves nothing.", empty.unwrap_or_default()))
        }
        None => Ok(format!(
            "{secrets} secrets in {forms} forms (as they are, hex, base64, percent-encoded): none was found."
        )),
        Some(first) => {
            Err(format!("{} findings; the first: {} in {} at byte {}", hits.len(), first.what, first.place, first.at))
        }
    };
    let clean = timeline.step("leak_search", "Every place is searched for every secret", &outcome);
    let found = counts(&hits);
    for place in PLACES {
        let size = places.get(place).map_or(0, Vec::len);
        timeline.pair(place, &format!("{} found in {size} bytes", found[place]));
    }
    (found, tested && clean)
}

/// Everything that was written, shown or said.
async fn places(stage: &Stage, paper: &Paper) -> Result<Places, String> {
    let sinks = stage.town.elevenlabs.sinks();
    let sink = |name: &str| sinks[name].to_string().into_bytes();
    let mut person = Person::new().map_err(|error| error.to_string())?;
    let metrics = person.get(&format!("http://{}/metrics", stage.town.app.admin)).await.map_err(|e| e.to_string())?;
    let file = stage.town.folder.file("vault.db");
    let database = database_bytes(&file).map_err(|error| format!("the database's file cannot be read: {error}"))?;
    Ok(Places::from([
        ("model_view", sink("model_view")),
        ("transcript", sink("transcript")),
        ("post_call", sink("post_call")),
        ("logs", paper.read()),
        ("metrics", metrics.body.into_bytes()),
        ("browser", [stage.browser_saw(), sink("client_events")].concat()),
        ("database", database),
    ]))
}

/// Every secret that there is in the town.
fn hidden(stage: &Stage) -> Vec<Hidden> {
    let town = &stage.town;
    let never = |what: &str, value: &str| Hidden { what: what.to_owned(), value: value.to_owned(), browser_may: false };
    let mut hidden = vec![
        never("the marker of made-up secrets", CANARY),
        never("the person's password", town.password.expose()),
        never("the ElevenLabs key", &town.elevenlabs.api_key()),
    ];
    if let Ok(key) = std::fs::read_to_string(town.folder.file("root.key")) {
        hidden.push(never("the root key", key.trim_end()));
    }
    for issued in town.sandbox.issued() {
        hidden.push(never(&format!("{:?} {}", issued.provider, issued.kind), &issued.value));
    }
    for (what, secret) in town.platform.capabilities() {
        let browser_may = ["connect link", "completion code", "relay link"].contains(&what);
        hidden.push(Hidden { browser_may, ..never(what, secret.expose()) });
    }
    for cookie in stage.cookies() {
        hidden.push(Hidden { browser_may: true, ..never("a browser cookie", &cookie) });
    }
    for start in town.elevenlabs.sinks()["received"].as_array().into_iter().flatten() {
        for (name, value) in start["frame"]["dynamic_variables"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            if name.starts_with("secret__") && value != SENTINEL {
                hidden.push(never(name, value.trim_start_matches("Bearer ")));
            }
        }
    }
    // One secret under several names is one secret.
    let mut known: Vec<Hidden> = Vec::new();
    for one in hidden {
        if !known.iter().any(|other| other.value == one.value) && one.value != ACCOUNT {
            known.push(one);
        }
    }
    known
}

/// The last warnings of the vault's log, for whoever wants to know more.
fn tell_log(timeline: &Timeline, paper: &Paper) {
    let text = String::from_utf8_lossy(&paper.read()).into_owned();
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let is_loud = |line: &&Value| line["level"] == "WARN" || line["level"] == "ERROR";
    // That the demo's neighbours are on loopback is said at every start and explains nothing.
    let is_news = |line: &&Value| line.get("allowed").is_none();
    let loud: Vec<&Value> = lines.iter().filter(is_loud).filter(is_news).collect();
    if loud.is_empty() {
        return;
    }
    timeline.heading("The last warnings in the log");
    for line in loud.iter().skip(loud.len().saturating_sub(LAST_LINES)) {
        let said = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        timeline.text(&format!("{} {}: {}", said("level"), said("message"), said("error")));
    }
}
