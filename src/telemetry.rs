//! Logs to stderr: text on a terminal, JSON lines otherwise. Metrics for the admin listener.
//!
//! What may never be logged stands in `docs/LOGGING.md`: request and answer bodies, header values,
//! query strings, URLs that go out, provider error texts.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when `VALETKEY_LOG` says nothing.
const DEFAULT_FILTER: &str = "info,sqlx=warn,hyper=warn,reqwest=warn,rustls=warn,tungstenite=warn,h2=warn";
/// The only crate whose debug lines are written by our rules.
const OURS: &str = "valetkey";

/// Sets up the process-wide log. `filter` has `RUST_LOG` syntax. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be parsed.
pub fn start_logs<W>(filter: Option<&str>, writer: W, json: bool) -> Result<(), ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A log that is already set up (several apps in one test process) stays as it is.
    let _ = subscriber(filter, writer, json)?.try_init();
    Ok(())
}

/// The log without the process: for tests that listen to one house among several.
///
/// # Errors
/// When the filter cannot be parsed.
pub fn subscriber<W>(filter: Option<&str>, writer: W, json: bool) -> Result<impl Subscriber + Send + Sync, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter.unwrap_or(DEFAULT_FILTER))?;
    let text = tracing_subscriber::fmt::layer().with_ansi(false);
    let layer = if json {
        text.with_writer(writer).json().flatten_event(true).with_span_list(false).boxed()
    } else {
        text.with_target(false).with_writer(writer).boxed()
    };
    Ok(tracing_subscriber::registry().with(filter).with(filter_fn(may_be_logged)).with(layer))
}

/// Whatever `VALETKEY_LOG` asks for, other crates' lines below info stay unwritten: HTTP, WebSocket, session and TLS
/// libraries print URLs, header values and session ids there (LOGGING.md).
fn may_be_logged(line: &Metadata<'_>) -> bool {
    let is_ours = line.target().strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    is_ours || *line.level() <= Level::INFO
}

/// True when people, not programs, read stderr.
#[must_use]
pub fn stderr_is_for_people() -> bool {
    std::io::stderr().is_terminal()
}

/// Installs the process-wide metrics recorder, or joins the one that exists, and returns the handle that
/// renders it in the Prometheus text format.
#[must_use]
pub fn start_metrics() -> PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Somebody else's recorder may be installed in a test process; ours then stays empty.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("paper").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `filter` is set and every library has something to say.
    fn written(filter: &str, json: bool) -> String {
        let paper = Paper::default();
        let pen = paper.clone();
        let subscriber = subscriber(Some(filter), move || pen.clone(), json).expect("a filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "tungstenite", "GET wss://canary");
            tracing::trace!(target: "tokio_tungstenite::compat", "canary");
            tracing::debug!(target: "hyper::proto::h1", "canary");
            tracing::trace!(target: "hyper_util::client", "canary");
            tracing::debug!(target: "h2::codec", "canary");
            tracing::debug!(target: "reqwest::connect", "canary");
            tracing::debug!(target: "rustls::client", "canary");
            tracing::trace!(target: "axum::rejection", "canary");
            tracing::debug!(target: "valetkeyring", "canary");
            tracing::warn!(target: "h2::server", "a warning of a library");
            tracing::debug!(target: "valetkey::jobs", "our own detail");
        });
        let bytes = paper.0.lock().expect("paper").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn no_filter_makes_libraries_print_urls() {
        // SH-01: libraries log URLs and header values below info.
        for filter in ["trace", "debug,hyper=trace", "tungstenite=trace,valetkey=debug,h2=warn", "[{x}]=trace,trace"] {
            for json in [false, true] {
                let text = written(filter, json);
                assert!(!text.contains("canary"), "{filter}: {text}");
                assert!(text.contains("a warning of a library") && text.contains("our own detail"), "{filter}: {text}");
            }
        }
    }
}
