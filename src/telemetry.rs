//! Logs to stderr: text on a terminal, JSON lines otherwise. Metrics for the admin listener.
//!
//! What may never be logged stands in `docs/LOGGING.md`: request and answer bodies, header values,
//! query strings, URLs that go out, provider error texts.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when `VALETKEY_LOG` says nothing. The HTTP and database libraries stay quiet because
/// their debug lines can carry URLs and values.
const DEFAULT_FILTER: &str = "info,sqlx=warn,hyper=warn,reqwest=warn,rustls=warn,tungstenite=warn,h2=warn";

/// Sets up the process-wide log. `filter` has `RUST_LOG` syntax. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be parsed.
pub fn start_logs<W>(filter: Option<&str>, writer: W, json: bool) -> Result<(), tracing_subscriber::filter::ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter.unwrap_or(DEFAULT_FILTER))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    // A log that is already set up (several apps in one test process) stays as it is.
    let _ = if json {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        registry.with(layer.with_target(false)).try_init()
    };
    Ok(())
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
