//! `valetkey config`, and the one list of every setting.

use clap::Args;
use serde_json::Value;

use super::output::{Output, columns};
use super::session::Session;
use super::trouble::Trouble;

/// Every setting: its variable, its default, what it means. `<ID>` is a provider's id in upper case.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("VALETKEY_BIND", "127.0.0.1:8080", "the public listener; port 0 takes any free port"),
    ("VALETKEY_ADMIN_BIND", "127.0.0.1:8081", "health and metrics; never public"),
    ("VALETKEY_PUBLIC_URL", "http://127.0.0.1:8080", "the only source of redirect and tool URLs"),
    ("VALETKEY_DATABASE_URL", "sqlite:valetkey.db", "sqlite:FILE or postgres://USER@HOST/NAME"),
    ("VALETKEY_ROOT_KEY_FILE", "", "file with the root key: base64 of 32 bytes; wins over the next one"),
    ("VALETKEY_ROOT_KEY", "", "the root key itself, where no file can be mounted"),
    ("VALETKEY_OUTBOUND_ALLOW", "", "host:port list that may be loopback and plain http; for tests"),
    ("VALETKEY_TRUSTED_PROXIES", "", "networks whose forwarding headers count"),
    ("VALETKEY_ALLOW_PRIVATE_PEERS", "false", "private ranges allowed in a key's allowed_ips"),
    ("VALETKEY_TTL__HANDSHAKE", "600", "seconds: a connection being made"),
    ("VALETKEY_TTL__COMPLETION_CODE", "600", "seconds: the code with which a platform confirms"),
    ("VALETKEY_TTL__CONNECT_SESSION", "1800", "seconds: a connect link"),
    ("VALETKEY_TTL__SESSION", "86400", "seconds: a browser session, absolute"),
    ("VALETKEY_TTL__TICKET_MAX", "9000", "seconds: the longest life of a ticket"),
    ("VALETKEY_CATALOGUE_FILE", "", "TOML file with providers of your own, laid over the catalogue field by field"),
    ("VALETKEY_PROVIDERS__<ID>__AUTHORIZE_URL", "catalogue", "where the browser is sent"),
    ("VALETKEY_PROVIDERS__<ID>__TOKEN_URL", "catalogue", "where codes are exchanged"),
    ("VALETKEY_PROVIDERS__<ID>__REFRESH_URL", "catalogue", "where tokens are refreshed"),
    ("VALETKEY_PROVIDERS__<ID>__REVOKE_URL", "catalogue", "where tokens are revoked"),
    ("VALETKEY_PROVIDERS__<ID>__USERINFO_URL", "catalogue", "where the account is described"),
    ("VALETKEY_PROVIDERS__<ID>__JWKS_URL", "catalogue", "where the keys of id_tokens are published"),
    ("VALETKEY_PROVIDERS__<ID>__ISSUER", "catalogue", "the exact issuer of id_tokens"),
    ("VALETKEY_PROVIDERS__<ID>__API_BASE_URL", "catalogue", "the base of the provider's API"),
    ("VALETKEY_PROVIDERS__<ID>__PKCE", "catalogue", "off or s256"),
    ("VALETKEY_PROVIDERS__<ID>__REPLAY", "catalogue", "safe, grace:<seconds> or unsafe"),
    ("VALETKEY_ELEVENLABS__BASE_URL", "by region", "replaces the regional hosts"),
    ("VALETKEY_ELEVENLABS__PRIMARY_KEY_FILE", "", "the operator's own workspace: first API key; re-read on use"),
    ("VALETKEY_ELEVENLABS__SECONDARY_KEY_FILE", "", "second API key; re-read on use"),
    ("VALETKEY_ELEVENLABS__ACTIVE", "", "primary or secondary"),
    ("VALETKEY_SPOOL_DIR", "off", "where sealed rows wait when the database cannot take them"),
    ("VALETKEY_REFRESH__RATE_PER_CLIENT", "50", "refreshes a second for one OAuth client, all nodes together"),
    (
        "VALETKEY_REFRESH__IN_AIR_PER_CLIENT",
        "128",
        "refreshes in the air for one OAuth client, all nodes together; twice the rate or more",
    ),
    (
        "VALETKEY_REFRESH__WORKERS",
        "512",
        "refreshes in the air on one node; a provider takes a quarter of them at most",
    ),
    ("VALETKEY_LOG", "info", "log filter in RUST_LOG syntax"),
    #[cfg(feature = "crash-points")]
    ("VALETKEY_CRASH_POINT", "", "name:hit, where to die; only in builds for tests"),
];

/// Show the effective settings, without secrets
#[derive(Debug, Args)]
#[command(after_help = settings_help())]
pub(super) struct ShowConfig {
    #[command(flatten)]
    output: Output,
}

impl ShowConfig {
    pub(super) fn run(self, session: &Session) -> Result<(), Trouble> {
        let settings = serde_json::to_value(session.config()?).map_err(|error| Trouble::new(error.to_string()))?;
        let mut rows = Vec::new();
        flatten("VALETKEY", "_", &settings, &mut rows);
        self.output.say(&settings, &columns(&rows))
    }
}

/// Leaves as `VARIABLE  value`; the first level hangs on `VALETKEY_`, the deeper ones on `__`.
fn flatten(name: &str, joint: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}{joint}{}", field.to_uppercase()), "__", value, rows);
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| item.as_str().unwrap_or_default()).collect();
            rows.push((name.to_owned(), items.join(",")));
        }
        Value::Null => rows.push((name.to_owned(), String::new())),
        Value::String(text) => rows.push((name.to_owned(), text.clone())),
        other => rows.push((name.to_owned(), other.to_string())),
    }
}

fn settings_help() -> String {
    let rows: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|(name, default, meaning)| {
            let default = if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
            ((*name).to_owned(), format!("{meaning}{default}"))
        })
        .collect();
    format!(
        "Settings (in a TOML file the names are lower case, without VALETKEY_, and __ is a table):\n{}\n\nExamples:\n  \
         valetkey config\n  valetkey config --config valetkey.toml --json",
        columns(&rows)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, ProviderSettings};

    #[test]
    fn the_help_names_every_setting_and_no_other() {
        let mut config = Config::default();
        config.providers.insert("<id>".into(), ProviderSettings::default());
        let mut rows = Vec::new();
        flatten("VALETKEY", "_", &serde_json::to_value(&config).expect("serializes"), &mut rows);
        let real: BTreeSet<String> = rows.into_iter().map(|(name, _)| name).collect();
        let told: BTreeSet<String> = SETTINGS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(real, told);
    }

    #[test]
    fn the_help_tells_the_real_defaults() {
        let mut rows = Vec::new();
        flatten("VALETKEY", "_", &serde_json::to_value(Config::default()).expect("serializes"), &mut rows);
        for (name, value) in rows {
            let Some((_, told, _)) = SETTINGS.iter().find(|(known, ..)| *known == name) else { continue };
            if !value.is_empty() && value != "(hidden)" {
                assert_eq!(value, *told, "{name}");
            }
        }
    }
}
