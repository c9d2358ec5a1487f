//! Settings: a TOML file, then the environment (`VALETKEY_*`, `__` between levels), each key with a
//! default that works. Only this module reads the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::secret::Secret;

/// Everything an operator can set. Names are those of `API.md` section 1 without `VALETKEY_`, lower case.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener.
    pub bind: SocketAddr,
    /// Health and metrics; never public.
    pub admin_bind: SocketAddr,
    /// The only source of redirect and tool URLs. Unset means the default, or the bound address with port 0.
    #[serde(deserialize_with = "web_address")]
    pub public_url: Option<Url>,
    /// `sqlite:FILE` or `postgres://…`. May hold a password, so it is kept secret.
    pub database_url: HiddenText,
    /// File with the root key: base64 of 32 bytes.
    pub root_key_file: Option<PathBuf>,
    /// The root key itself, where no file can be mounted.
    pub root_key: Option<HiddenText>,
    /// Exact `host:port` pairs that may be loopback and plain http.
    #[serde(deserialize_with = "comma_separated")]
    pub outbound_allow: Vec<String>,
    /// Networks whose forwarding headers count.
    #[serde(deserialize_with = "comma_separated")]
    pub trusted_proxies: Vec<String>,
    /// Whether keys may be limited to private ranges.
    pub allow_private_peers: bool,
    /// Lifetimes in seconds.
    pub ttl: Ttl,
    /// A catalogue of providers that is laid over ours, field by field.
    pub catalogue_file: Option<PathBuf>,
    /// Endpoint overrides by provider id (lower case).
    pub providers: BTreeMap<String, ProviderSettings>,
    /// The ElevenLabs side.
    pub elevenlabs: ElevenLabsSettings,
    /// Where sealed rows wait when the database cannot take them; unset means off.
    pub spool_dir: Option<PathBuf>,
    /// How hard providers are asked for new tokens.
    pub refresh: RefreshSettings,
    /// Log filter in `RUST_LOG` syntax.
    pub log: Option<String>,
    /// Where to die; for tests of what a kill leaves behind.
    #[cfg(feature = "crash-points")]
    pub crash_point: Option<crate::crash::Aim>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_bind: SocketAddr::from(([127, 0, 0, 1], 8081)),
            public_url: None,
            database_url: HiddenText(Secret::new("sqlite:valetkey.db")),
            root_key_file: None,
            root_key: None,
            outbound_allow: Vec::new(),
            trusted_proxies: Vec::new(),
            allow_private_peers: false,
            ttl: Ttl::default(),
            catalogue_file: None,
            providers: BTreeMap::new(),
            elevenlabs: ElevenLabsSettings::default(),
            spool_dir: None,
            refresh: RefreshSettings::default(),
            log: None,
            #[cfg(feature = "crash-points")]
            crash_point: None,
        }
    }
}

/// Lifetimes, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ttl {
    /// A connection being made (OA-13).
    pub handshake: u64,
    /// The code with which a platform confirms a connection.
    pub completion_code: u64,
    /// A connect link.
    pub connect_session: u64,
    /// A browser session, absolute.
    pub session: u64,
    /// The longest a ticket may live, whatever the agent's maximum says.
    pub ticket_max: u64,
}

impl Default for Ttl {
    fn default() -> Self {
        Self { handshake: 600, completion_code: 600, connect_session: 1800, session: 86_400, ticket_max: 9000 }
    }
}

/// How hard providers are asked for new tokens (RL-09, RL-13, RL-17).
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RefreshSettings {
    /// Calls a second for one OAuth client, all nodes together. 1 to 10,000.
    pub rate_per_client: u32,
    /// Calls in the air for one OAuth client, all nodes together, and those that leave within the next second: less than
    /// twice the rate slows the sweep down. 1 to 10,000.
    pub in_air_per_client: u32,
    /// Calls of the sweep in the air on this node; one provider takes a quarter of them at most. Refreshes that readers wait for
    /// have berths of their own, half as many for each provider. 4 to 10,000.
    pub workers: u32,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self { rate_per_client: 50, in_air_per_client: 128, workers: 512 }
    }
}

/// What an operator may change about a catalogue provider: full URLs, for emulators and private clouds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderSettings {
    /// Where the browser is sent.
    pub authorize_url: Option<Url>,
    /// Where codes are exchanged and, unless `refresh_url` is set, tokens refreshed.
    pub token_url: Option<Url>,
    /// Where tokens are refreshed.
    pub refresh_url: Option<Url>,
    /// Where tokens are revoked.
    pub revoke_url: Option<Url>,
    /// Where the account is described.
    pub userinfo_url: Option<Url>,
    /// Where id_token keys are published.
    pub jwks_url: Option<Url>,
    /// The exact `iss` of id_tokens and authorization answers.
    pub issuer: Option<String>,
    /// The base of the provider's API, for the broker.
    pub api_base_url: Option<Url>,
    /// `off` or `s256`.
    pub pkce: Option<String>,
    /// `safe`, `grace:<seconds>` or `unsafe`.
    pub replay: Option<String>,
}

/// The operator's own ElevenLabs workspace and, for tests, another base URL.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElevenLabsSettings {
    /// Replaces the regional hosts for every workspace.
    pub base_url: Option<Url>,
    /// File with the operator's primary API key; re-read on use.
    pub primary_key_file: Option<PathBuf>,
    /// File with the operator's secondary API key; re-read on use.
    pub secondary_key_file: Option<PathBuf>,
    /// `primary` or `secondary`.
    pub active: Option<String>,
}

/// A setting that may hold a secret: it is read but never printed or written.
#[derive(Debug)]
pub struct HiddenText(pub Secret);

/// Takes anything: a secret that happens to look like a number must not end in an error that quotes it.
impl<'de> Deserialize<'de> for HiddenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(Secret),
            Whole(i128),
            Number(f64),
            Yes(bool),
            Else(serde::de::IgnoredAny),
        }
        Ok(Self(match Any::deserialize(deserializer)? {
            Any::Text(text) => text,
            Any::Whole(number) => Secret::new(number.to_string()),
            Any::Number(number) => Secret::new(number.to_string()),
            Any::Yes(yes) => Secret::new(yes.to_string()),
            Any::Else(_) => Secret::new(""),
        }))
    }
}

impl Serialize for HiddenText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

/// The settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or variable holds something that does not fit.
    #[error("the settings are not valid: {0}. See `valetkey config --help` for every name and its default")]
    Invalid(Box<figment::Error>),
    /// The file that `--config` names is not there.
    #[error("the settings file {} cannot be read", .0.display())]
    Missing(PathBuf),
}

impl Config {
    /// Reads `file` (if any), then the environment.
    ///
    /// # Errors
    /// When the file is missing or a value does not fit its setting.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new().merge(Serialized::defaults(Defaults {}));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError::Missing(file.to_owned()));
            }
            figment = figment.merge(Toml::file(file));
        }
        figment
            .merge(Env::prefixed("VALETKEY_").split("__"))
            .extract()
            .map_err(|error| ConfigError::Invalid(Box::new(error)))
    }

    /// True when only the running `serve` knows where it is found: port 0 and no public URL.
    #[must_use]
    pub fn is_found_by_port(&self) -> bool {
        self.public_url.is_none() && self.bind.port() == 0
    }

    /// The public URL when it does not depend on the bound port: the setting, or the default while the port is
    /// fixed (API.md section 6, point 12).
    #[must_use]
    pub fn public_url_for(&self, bound: SocketAddr) -> Url {
        let text = if self.bind.port() == 0 { format!("http://{bound}/") } else { "http://127.0.0.1:8080/".to_owned() };
        self.public_url.clone().or_else(|| text.parse().ok()).unwrap_or_else(fallback_url)
    }
}

#[expect(clippy::expect_used, reason = "a constant that parses")]
fn fallback_url() -> Url {
    "http://127.0.0.1:8080/".parse().expect("a valid constant")
}

#[derive(Serialize)]
struct Defaults {}

/// An address that others are given: nothing but scheme, host, port and path. What it was is not told, since a URL may
/// have a password in it.
fn web_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let wrong = |why: &str| Err(serde::de::Error::custom(why));
    let Ok(url) = text.parse::<Url>() else {
        return wrong("it must be an absolute URL such as https://vault.example.com");
    };
    if !["http", "https"].contains(&url.scheme()) {
        return wrong("it must begin with https:// (http:// for tests)");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return wrong("it must not have a user name, a password, a query or a fragment");
    }
    Ok(Some(url))
}

fn comma_separated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::List(list) => list,
        Either::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut figment = Figment::new().merge(Serialized::defaults(Defaults {}));
        for (key, value) in pairs {
            figment = figment.merge((key.replace("__", "."), figment::value::Value::from(*value)));
        }
        figment.extract().map_err(|error| ConfigError::Invalid(Box::new(error)))
    }

    #[test]
    fn lists_are_comma_separated() {
        let config = load(&[("outbound_allow", "127.0.0.1:4000, localhost:5000")]).expect("valid");
        assert_eq!(config.outbound_allow, ["127.0.0.1:4000", "localhost:5000"]);
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        let error = load(&[("outbound_alow", "x:1")]).expect_err("unknown field");
        assert!(error.to_string().contains("outbound_alow"), "{error}");
    }

    #[test]
    fn secrets_are_not_written_back() {
        let config = load(&[("root_key", "dmtjYW5hcnk="), ("database_url", "postgres://u:pw@h/d")]).expect("valid");
        let text = serde_json::to_string(&config).expect("serializes");
        assert!(!text.contains("pw") && !text.contains("dmtjYW5hcnk"), "{text}");
    }

    #[test]
    fn the_public_url_is_a_web_address_and_nothing_more() {
        for text in ["https://vault.example", "http://127.0.0.1:8080/", "https://vault.example/under/a/path"] {
            assert_eq!(load(&[("public_url", text)]).expect(text).public_url, text.parse().ok());
        }
        for text in [
            "ftp://vault.example",
            "vault.example",
            "file:///etc/passwd",
            "https://u:canary@vault.example",
            "https://canary@vault.example",
            "https://vault.example/?canary=1",
            "https://vault.example/#canary",
            "",
        ] {
            let told = load(&[("public_url", text)]).expect_err(text).to_string();
            assert!(told.contains("public_url") && !told.contains("canary"), "{told}");
        }
    }

    #[test]
    fn a_secret_that_looks_like_a_number_is_never_quoted() {
        let config = Figment::new()
            .merge(Serialized::defaults(Defaults {}))
            .merge(("root_key", 12_345_678))
            .extract::<Config>()
            .expect("read as text");
        assert_eq!(config.root_key.expect("set").0.expose(), "12345678");
    }

    #[test]
    fn with_port_zero_the_bound_address_is_public() {
        let mut config = load(&[("bind", "127.0.0.1:0")]).expect("valid");
        let bound = SocketAddr::from(([127, 0, 0, 1], 4567));
        assert_eq!(config.public_url_for(bound).as_str(), "http://127.0.0.1:4567/");
        config.public_url = Some("https://vault.example/".parse().expect("url"));
        assert_eq!(config.public_url_for(bound).as_str(), "https://vault.example/");
    }
}
