//! The town of the demo: one process with the real vault in a temporary folder, the sandbox's providers and ElevenLabs
//! as its street, and a platform as its customer.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::accounts::{NewApiKey, NewMember, NewTenant};
use crate::app::{App, Rooms, RunningApp};
use crate::caller::{Caller, Role};
use crate::cli::trouble::Trouble;
use crate::clock::Surroundings;
use crate::config::{Config, ElevenLabsSettings, HiddenText, ProviderSettings};
use crate::keys::generate_key_file;
use crate::sandbox::elevenlabs::ElevenLabs;
use crate::sandbox::platform::{Acquaintances, Platform, PlatformError, Site, USER};
use crate::sandbox::{Sandbox, SandboxError, SandboxOptions};
use crate::secret::Secret;

/// Who may sign in to the vault's own pages.
pub(super) const MEMBER: &str = "owner@example.com";
const TENANT: &str = "demo";

/// What can be broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    RefreshTool,
    Unsanitized,
    GoogleRevoked,
    RefuseStart,
    SignedUrl,
}

impl Fault {
    pub(super) const ALL: [Self; 5] =
        [Self::RefreshTool, Self::Unsanitized, Self::GoogleRevoked, Self::RefuseStart, Self::SignedUrl];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RefreshTool => "refresh_tool",
            Self::Unsanitized => "unsanitized",
            Self::GoogleRevoked => "google_revoked",
            Self::RefuseStart => "refuse_start",
            Self::SignedUrl => "signed_url_500",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// A folder of one's own that is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    fn new(around: &Surroundings) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("valetkey-demo-{:016x}", u64::from_be_bytes(around.random())));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A file of this name in the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is left to be done about a folder that cannot be removed.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everybody of the demo, running.
#[derive(Debug)]
pub(super) struct Town {
    pub(super) around: Surroundings,
    pub(super) platform: Platform,
    pub(super) app: RunningApp,
    pub(super) sandbox: Sandbox,
    pub(super) elevenlabs: ElevenLabs,
    /// Of [`MEMBER`].
    pub(super) password: Secret,
    pub(super) folder: Folder,
}

impl Town {
    /// Starts everybody, makes a tenant as its operator would, and lets the platform set up its side.
    pub(super) async fn open(port: u16, fault: Option<Fault>) -> Result<Self, Trouble> {
        let around = Surroundings::system();
        let folder = Folder::new(&around)?;
        let site = Site::take(port).await?;
        let sandbox = Sandbox::start(SandboxOptions::new(around.clone())).await?;
        let elevenlabs = ElevenLabs::start(around.clone()).await.map_err(|error| Trouble::new(error.to_string()))?;
        let config = settings(&folder, &around, &sandbox, &elevenlabs, &site)?;
        let app = App::start(config, around.clone()).await?;
        let password = Secret::new(format!("demo-{:032x}", u128::from_be_bytes(around.random())));
        let key = move_in(app.rooms(), &site, &password).await?;
        let known = Acquaintances {
            around: around.clone(),
            vault: app.public_url().clone(),
            key,
            google: sandbox.google.clone(),
            control: sandbox.control.clone(),
            elevenlabs: elevenlabs.base.clone(),
            elevenlabs_key: Secret::new(elevenlabs.api_key()),
            sanitized: fault != Some(Fault::Unsanitized),
        };
        let platform = Platform::open(site, known)?;
        platform.prepare().await?;
        match fault {
            Some(Fault::RefreshTool | Fault::RefuseStart | Fault::SignedUrl) => {
                elevenlabs.fault(fault.map_or("", Fault::name));
            }
            Some(Fault::GoogleRevoked) => {
                let plant = json!({"provider": "google", "name": "invalid_grant", "on": "refresh", "times": 1000});
                sandbox.tell("/faults", &plant).await?;
            }
            Some(Fault::Unsanitized) | None => {}
        }
        Ok(Self { around, platform, app, sandbox, elevenlabs, password, folder })
    }

    /// Stops everybody. False when the vault could not finish in good order.
    pub(super) async fn close(self) -> bool {
        let Self { platform, app, sandbox, elevenlabs, folder, .. } = self;
        drop((platform, elevenlabs));
        let in_order = app.stop().await;
        drop((sandbox, folder));
        in_order
    }
}

/// The vault's settings: the sandbox as its street, its files in the folder, any free port.
fn settings(
    folder: &Folder,
    around: &Surroundings,
    sandbox: &Sandbox,
    elevenlabs: &ElevenLabs,
    site: &Site,
) -> Result<Config, Trouble> {
    let key_file = folder.file("root.key");
    generate_key_file(&key_file, around)?;
    let mut outbound_allow = sandbox.hosts();
    outbound_allow.extend([elevenlabs.base.authority().to_owned(), site.base.authority().to_owned()]);
    Ok(Config {
        bind: ([127, 0, 0, 1], 0).into(),
        admin_bind: ([127, 0, 0, 1], 0).into(),
        database_url: HiddenText(Secret::new(format!("sqlite:{}", folder.file("vault.db").display()))),
        root_key_file: Some(key_file),
        outbound_allow,
        providers: provider_settings(sandbox)?,
        elevenlabs: ElevenLabsSettings { base_url: Some(elevenlabs.base.clone()), ..ElevenLabsSettings::default() },
        ..Config::default()
    })
}

/// The sandbox names its settings as the environment would; here they are a value.
fn provider_settings(sandbox: &Sandbox) -> Result<BTreeMap<String, ProviderSettings>, Trouble> {
    let mut providers = Map::new();
    for (name, value) in sandbox.settings() {
        let path = name.strip_prefix("VALETKEY_PROVIDERS__").and_then(|rest| rest.split_once("__"));
        if let Some((provider, setting)) = path {
            let settings = providers.entry(provider.to_lowercase()).or_insert_with(|| json!({}));
            settings[setting.to_lowercase()] = Value::from(value);
        }
    }
    serde_json::from_value(Value::Object(providers)).map_err(|error| Trouble::new(error.to_string()))
}

/// What an operator does with `tenant create`, `api-key create` and `member create`; gives the platform key.
async fn move_in(rooms: &Rooms, site: &Site, password: &Secret) -> Result<Secret, Trouble> {
    let new = NewTenant {
        name: TENANT.to_owned(),
        environment: Some("test".to_owned()),
        return_urls: vec![site.return_url()],
        origins: vec![site.origin()],
        confirm: Some("platform".to_owned()),
    };
    let operator = Caller::operator(rooms.accounts.tenant_create(new).await?.id);
    let new =
        NewApiKey { name: "platform".to_owned(), scopes: vec!["all".to_owned()], allowed_ips: None, expires_at: None };
    let (_, exposed) = rooms.accounts.api_key_create(&operator, new).await?;
    let member = |email: &str, role, user: Option<&str>| NewMember {
        email: email.to_owned(),
        password: password.duplicate(),
        role,
        user: user.map(str::to_owned),
    };
    rooms.accounts.member_create(&operator, member(MEMBER, Some(Role::Owner), Some(USER))).await?;
    let shown = serde_json::to_value(&exposed).map_err(|error| Trouble::new(error.to_string()))?;
    Ok(Secret::new(shown.as_str().unwrap_or_default()))
}

impl From<PlatformError> for Trouble {
    fn from(error: PlatformError) -> Self {
        let next = match error {
            PlatformError::Listen(_) => "choose another --port, or leave it out to take a free one",
            _ => "run the demo again with VALETKEY_LOG=debug and look at the vault's log",
        };
        Self::new(error.to_string()).next(next)
    }
}

impl From<SandboxError> for Trouble {
    fn from(error: SandboxError) -> Self {
        Self::new(error.to_string())
    }
}
