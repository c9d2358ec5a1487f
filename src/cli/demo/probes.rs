//! The self-test of the leak search: a made-up secret is really written into one thing of each kind, and must be found
//! in all seven. None of it touches the vault: ElevenLabs' three sinks and the browser are a second stand-in's, the
//! metrics a second recorder's, the database a second file, and the line in the log is taken out again.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::leaks::{Hidden, PLACES, Places, Search, database_bytes};
use super::tell::Paper;
use super::town::Town;
use crate::sandbox::elevenlabs::ElevenLabs;
use crate::sandbox::platform::{Platform, Talk};

/// Plants and searches; says how many of the seven were found.
pub(super) async fn self_test(town: &Town, paper: &Paper) -> Result<String, String> {
    let secret = format!("vkprobe-{}", HEXLOWER.encode(&town.around.random::<16>()));
    let places = plant(town, paper, &secret).await?;
    let search = Search::new(vec![Hidden { what: "probe".to_owned(), value: secret, browser_may: false }]);
    let hits = search.look(&places);
    let missed: Vec<&str> = PLACES.into_iter().filter(|place| !hits.iter().any(|hit| hit.place == *place)).collect();
    if missed.is_empty() {
        return Ok("A made-up secret was planted once in each of the 7 places, as it is or encoded: all 7 were found."
            .to_owned());
    }
    Err(format!("A planted secret was not found in {}; a count of zero would mean nothing.", missed.join(", ")))
}

async fn plant(town: &Town, paper: &Paper, secret: &str) -> Result<Places, String> {
    let (sinks, browser) = at_elevenlabs(town, secret).await?;
    let sink = |name: &str| sinks[name].to_string().into_bytes();
    Ok(Places::from([
        ("model_view", sink("model_view")),
        ("transcript", sink("transcript")),
        ("post_call", sink("post_call")),
        ("logs", in_the_log(paper, secret)),
        ("metrics", in_metrics(secret)),
        ("browser", browser),
        ("database", in_a_database(town, secret).await?),
    ]))
}

/// An agent that speaks a secret aloud: the worst that a prompt can do.
async fn at_elevenlabs(town: &Town, secret: &str) -> Result<(Value, Vec<u8>), String> {
    let stand_in = ElevenLabs::start(town.around.clone()).await.map_err(|error| error.to_string())?;
    let agent = json!({
        "name": "Leaky",
        "conversation_config": {"agent": {"first_message": "{{leak}}", "prompt": {"prompt": "{{leak}}"}}},
    });
    let url =
        Platform::open_agent(&stand_in.base, &stand_in.api_key(), agent).await.map_err(|error| error.to_string())?;
    let initiation = json!({
        "type": "conversation_initiation_client_data", "dynamic_variables": {"leak": secret},
    });
    let mut talk = Talk::open(&url, None, &initiation).await.map_err(|error| error.to_string())?;
    talk.hang_up().await;
    Ok((stand_in.sinks(), talk.received().as_bytes().to_vec()))
}

/// Through the same log as everything else; the line is cut out again.
fn in_the_log(paper: &Paper, secret: &str) -> Vec<u8> {
    let encoded = BASE64URL_NOPAD.encode(secret.as_bytes());
    tracing::debug!(probe = %encoded, "a leak on purpose");
    paper.cut(&encoded)
}

fn in_metrics(secret: &str) -> Vec<u8> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let label = HEXLOWER.encode(secret.as_bytes());
    metrics::with_local_recorder(&recorder, || metrics::counter!("probe_total", "leak" => label).increment(1));
    handle.render().into_bytes()
}

async fn in_a_database(town: &Town, secret: &str) -> Result<Vec<u8>, String> {
    let file = town.folder.file("probe.db");
    let encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let written = async {
        let mut connection = options.connect().await?;
        sqlx::query("CREATE TABLE probe (leak TEXT)").execute(&mut connection).await?;
        sqlx::query("INSERT INTO probe VALUES ($1)").bind(encoded).execute(&mut connection).await?;
        connection.close().await
    };
    written.await.map_err(|error| format!("the probe's database: {error}"))?;
    database_bytes(&file).map_err(|error| format!("the probe's database: {error}"))
}
