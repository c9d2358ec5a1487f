//! Platform keys: recognisable, checksummed, 256 bits, stored as a hash, shown once (AP-04, AP-06).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Accounts, AccountsError, BEFORE_ANY_SCOPE};
use crate::audit::{Action, Event, Exposed};
use crate::caller::{Caller, Origin, Permission, Permissions, Who};
use crate::clock::Millis;
use crate::crypto::tokens::{LIVE_KEY, SecretToken, TEST_KEY, has_valid_checksum, hash_token};
use crate::ids::{ApiKeyId, TenantId};
use crate::invalid::{Invalid, checked_name};
use crate::secret::Secret;
use crate::store::api_keys::{
    ApiKeyRow, api_key_by_hash, api_key_by_id, api_key_insert, api_key_list, api_key_revoke, api_key_touch,
};
use crate::store::bell::{Bell, ring_at_commit};
use crate::store::conversations::conversations_end_by_key;
use crate::store::tenants::tenant_own;
use crate::store::{from_json_list, to_json_list};

/// What a new key may do.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Chosen by people.
    pub name: String,
    /// Scope names, or just `all`.
    pub scopes: Vec<String>,
    /// Addresses and networks, 1 to 100; none means any, or those of the key that makes it.
    pub allowed_ips: Option<Vec<String>>,
    /// When it ends; none means never, or when the key that makes it ends.
    pub expires_at: Option<Millis>,
}

/// A platform key without its secret.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// `key_…`.
    pub id: ApiKeyId,
    /// Chosen by people.
    pub name: String,
    /// The last characters, so that people can tell keys apart.
    pub hint: String,
    /// Scope names.
    pub scopes: Vec<String>,
    /// Networks.
    pub allowed_ips: Vec<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When it ends.
    pub expires_at: Option<Millis>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Millis>,
    /// When it was revoked.
    pub revoked_at: Option<Millis>,
}

/// A key as a client presents it.
#[derive(Debug)]
pub struct PresentedKey<'a> {
    /// The text after `Bearer `.
    pub text: &'a Secret,
    /// Where the request comes from.
    pub origin: Origin,
}

impl Accounts {
    /// Makes a key; its secret is given back this once. A key that makes another one is its measure: the new one has no
    /// scope that its maker lacks, ends no later, and may be used from nowhere else.
    ///
    /// # Errors
    /// [`AccountsError::Denied`], also for a scope that the maker lacks; [`AccountsError::Invalid`].
    pub async fn api_key_create(&self, caller: &Caller, new: NewApiKey) -> Result<(ApiKey, Exposed), AccountsError> {
        let scope = caller.require(Permission::KeysWrite)?;
        let mut tx = self.store.begin().await?;
        let maker = match caller.who() {
            Who::PlatformKey(id) => {
                let own = api_key_by_id(&mut tx, &scope, id.as_str()).await?;
                Some(own.ok_or(AccountsError::Unauthenticated)?)
            }
            _ => None,
        };
        let Checked { name, scopes, networks, expires_at } = self.checked_key(&new, maker.as_ref())?;
        if maker.is_some() {
            for permission in scopes.iter() {
                caller.require(permission)?;
            }
        }
        let tenant = tenant_own(&mut tx, &scope).await?.ok_or(AccountsError::NotFound("tenant"))?;
        let prefix = if tenant.environment == "production" { LIVE_KEY } else { TEST_KEY };
        let secret = SecretToken::generate(prefix, self.around.entropy.as_ref()).into_secret();
        let row = ApiKeyRow {
            tenant_id: scope.tenant().to_owned(),
            id: ApiKeyId::new(&self.around).to_string(),
            name,
            hint: last_characters(secret.expose()),
            secret_hash: hash_token(secret.expose()),
            scopes: to_json_list(&scopes.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>()),
            allowed_ips: to_json_list(&networks.iter().map(IpNet::to_string).collect::<Vec<_>>()),
            created_at: self.around.now().0,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        api_key_insert(&mut tx, &scope, &row).await?;
        let event = Event::done(Action::ApiKeyCreated, "api_key", &row.id);
        let durable = self.audit.record_and_commit(tx, caller, &event).await?;
        Ok((ApiKey::from(row), Exposed::new(secret, &durable)))
    }

    /// Who a presented key belongs to.
    ///
    /// # Errors
    /// [`AccountsError::Unauthenticated`] whatever is wrong with the key, [`AccountsError::IpNotAllowed`] when only the
    /// address is.
    pub async fn api_key_authenticate(&self, presented: PresentedKey<'_>) -> Result<Caller, AccountsError> {
        // A text without a right checksum was never a key of ours: no need to ask the database.
        if !has_valid_checksum(presented.text.expose()) {
            return Err(AccountsError::Unauthenticated);
        }
        let now = self.around.now();
        let mut tx = self.store.read().await?;
        let row = api_key_by_hash(&mut tx, BEFORE_ANY_SCOPE, &hash_token(presented.text.expose()), now.0).await?;
        drop(tx);
        let row = row.ok_or(AccountsError::Unauthenticated)?;
        let peer = presented.origin.peer;
        let scopes = from_json_list(&row.scopes).iter().filter_map(|text| Permission::parse(text)).collect();
        let caller = Caller::platform_key(
            TenantId::stored(row.tenant_id.clone()),
            ApiKeyId::stored(row.id.clone()),
            scopes,
            presented.origin,
        );
        if !may_come_from(&from_json_list(&row.allowed_ips), peer) {
            // A right key from a wrong place is what a leaked key looks like, so it is in the book (AP-06).
            let event = Event::done(Action::Denied, "api_key", &row.id).denied("ip_not_allowed");
            self.audit.note(&caller, &event).await?;
            return Err(AccountsError::IpNotAllowed);
        }
        if row.last_used_at.is_none_or(|at| at < now.0 - 60_000) {
            self.note_use(&caller, &row.id, now).await;
        }
        Ok(caller)
    }

    /// A tenant's keys.
    ///
    /// # Errors
    /// [`AccountsError::Denied`].
    pub async fn api_key_list(&self, caller: &Caller, after: &str, limit: i64) -> Result<Vec<ApiKey>, AccountsError> {
        let scope = caller.require(Permission::KeysWrite)?;
        let mut tx = self.store.read().await?;
        Ok(api_key_list(&mut tx, &scope, after, limit).await?.into_iter().map(ApiKey::from).collect())
    }

    /// Revokes a key at once, and if so wished the conversations that it has started.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`], [`AccountsError::Denied`].
    pub async fn api_key_revoke(
        &self,
        caller: &Caller,
        id: &ApiKeyId,
        end_conversations: bool,
    ) -> Result<(), AccountsError> {
        let scope = caller.require(Permission::KeysWrite)?;
        let mut tx = self.store.begin().await?;
        let now = self.around.now().0;
        if !api_key_revoke(&mut tx, &scope, id.as_str(), now).await? {
            return Err(AccountsError::NotFound("key"));
        }
        if end_conversations {
            conversations_end_by_key(&mut tx, &scope, id.as_str(), "key_revoked", now).await?;
            ring_at_commit(&mut tx, Bell::Revoked).await?;
        }
        self.audit.record_and_commit(tx, caller, &Event::done(Action::ApiKeyRevoked, "api_key", id.as_str())).await?;
        Ok(())
    }

    /// Last use is a help for people, not a fact that a request may fail for.
    async fn note_use(&self, caller: &Caller, id: &str, now: Millis) {
        let Some(scope) = Permission::ALL.iter().find_map(|one| caller.require(*one).ok()) else { return };
        let written = async {
            let mut tx = self.store.begin().await?;
            api_key_touch(&mut tx, &scope, id, now.0).await?;
            tx.commit().await
        };
        if let Err(error) = written.await {
            tracing::warn!(error = %error, "the last use of a key was not noted");
        }
    }

    fn checked_key(&self, new: &NewApiKey, maker: Option<&ApiKeyRow>) -> Result<Checked, Invalid> {
        let mut invalid = Invalid::default();
        let name = invalid.keep(checked_name("name", &new.name, 100));
        let scopes = invalid.keep(checked_scopes(&new.scopes));
        let networks = invalid.keep(checked_networks(new.allowed_ips.as_deref(), self.allow_private_peers));
        let networks = networks.and_then(|asked| invalid.keep(within_makers(asked, maker)));
        let latest = maker.and_then(|maker| maker.expires_at);
        let expires_at = new.expires_at.map(|at| at.0).or(latest);
        if expires_at.is_some_and(|at| at <= self.around.now().0) {
            invalid.add("expires_at", "must be in the future");
        } else if latest.is_some_and(|latest| expires_at.is_none_or(|at| at > latest)) {
            invalid.add("expires_at", "must not be after the end of the key that makes this one");
        }
        invalid.into_result()?;
        Ok(Checked {
            name: name.unwrap_or_default(),
            scopes: scopes.unwrap_or_default(),
            networks: networks.unwrap_or_default(),
            expires_at,
        })
    }
}

/// A new key as it will be.
struct Checked {
    name: String,
    scopes: Permissions,
    networks: Vec<IpNet>,
    expires_at: Option<i64>,
}

impl From<ApiKeyRow> for ApiKey {
    fn from(row: ApiKeyRow) -> Self {
        Self {
            id: ApiKeyId::stored(row.id),
            name: row.name,
            hint: row.hint,
            scopes: from_json_list(&row.scopes),
            allowed_ips: from_json_list(&row.allowed_ips),
            created_at: Millis(row.created_at),
            expires_at: row.expires_at.map(Millis),
            last_used_at: row.last_used_at.map(Millis),
            revoked_at: row.revoked_at.map(Millis),
        }
    }
}

/// An empty list allows every address; otherwise an unknown address is refused (AP-06).
fn may_come_from(networks: &[String], peer: Option<IpAddr>) -> bool {
    networks.is_empty()
        || peer.is_some_and(|peer| {
            networks.iter().filter_map(|text| text.parse::<IpNet>().ok()).any(|net| net.contains(&peer))
        })
}

fn last_characters(text: &str) -> String {
    text.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect()
}

fn checked_scopes(texts: &[String]) -> Result<Permissions, Invalid> {
    if texts.is_empty() {
        return Err(Invalid::one("scopes", "must name at least one scope, or all"));
    }
    if let [only] = texts
        && only == "all"
    {
        return Ok(Permissions::all());
    }
    let mut invalid = Invalid::default();
    let mut scopes = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match Permission::parse(text) {
            Some(permission) => scopes.push(permission),
            None => invalid.add(format!("scopes[{index}]"), "is not a scope; API.md section 2 lists them"),
        }
    }
    invalid.into_result()?;
    Ok(scopes.into_iter().collect())
}

/// A list that is there names something: one that was filtered down to nothing must not open the key to everywhere.
fn checked_networks(texts: Option<&[String]>, allow_private: bool) -> Result<Vec<IpNet>, Invalid> {
    let Some(texts) = texts else { return Ok(Vec::new()) };
    let mut invalid = Invalid::default();
    if !(1..=100).contains(&texts.len()) {
        invalid.add("allowed_ips", "must have 1 to 100 entries; leave it out for a key without a limit");
    }
    let mut networks = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match checked_network(text, allow_private) {
            Ok(network) => networks.push(network),
            Err(why) => invalid.add(format!("allowed_ips[{index}]"), why),
        }
    }
    invalid.into_result().map(|()| networks)
}

/// What was asked for, where the maker may be used too; the maker's own networks when nothing was.
fn within_makers(asked: Vec<IpNet>, maker: Option<&ApiKeyRow>) -> Result<Vec<IpNet>, Invalid> {
    let makers: Vec<IpNet> = maker
        .map(|maker| from_json_list(&maker.allowed_ips).iter().filter_map(|text| text.parse().ok()).collect())
        .unwrap_or_default();
    if asked.is_empty() || makers.is_empty() {
        return Ok(if asked.is_empty() { makers } else { asked });
    }
    let mut invalid = Invalid::default();
    for (index, network) in asked.iter().enumerate() {
        if !makers.iter().any(|own| own.contains(network)) {
            let field = format!("allowed_ips[{index}]");
            invalid.add(field, "must be within the allowed_ips of the key that makes this one");
        }
    }
    invalid.into_result().map(|()| asked)
}

/// An address or network that a key may be limited to: bare addresses become /32 or /128, IPv4 in IPv6 clothes is IPv4,
/// as peers are. Networks that have private addresses in them are refused, and those that are no limit at all.
fn checked_network(text: &str, allow_private: bool) -> Result<IpNet, &'static str> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network.trunc(),
        Err(_) => IpNet::from(
            text.parse::<IpAddr>().map_err(|_| "must be an IP address or a network such as 203.0.113.0/24")?,
        ),
    };
    let network = unmapped(network);
    if network.prefix_len() == 0 {
        return Err("is every address there is; leave allowed_ips out for a key without a limit");
    }
    if !allow_private && NOT_PUBLIC.iter().any(|private| overlap(private, &network)) {
        return Err("must have public addresses only; the operator can allow private ranges");
    }
    Ok(network)
}

/// Addresses that nobody on the internet has (RFC 6890 and the IANA registries it began).
const NOT_PUBLIC: [IpNet; 13] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    // Multicast, reserved, broadcast.
    v4([224, 0, 0, 0], 3),
    // Unspecified and loopback.
    v6([0, 0, 0, 0, 0, 0, 0, 0], 127),
    // IPv4 in IPv6 clothes: a network around all of it is around 10.0.0.0/8 too.
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// Two networks have an address in common only when one has all of the other's.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn unmapped(network: IpNet) -> IpNet {
    match network.addr().to_canonical() {
        IpAddr::V4(v4) if network.prefix_len() >= 96 => {
            Ipv4Net::new(v4, network.prefix_len() - 96).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_normalised_and_private_ones_refused() {
        assert_eq!(checked_network("203.0.113.7", false).map(|n| n.to_string()), Ok("203.0.113.7/32".into()));
        assert_eq!(checked_network("2001:db8::1", false).map(|n| n.to_string()), Ok("2001:db8::1/128".into()));
        assert_eq!(checked_network("203.0.113.7/24", false).map(|n| n.to_string()), Ok("203.0.113.0/24".into()));
        for text in [
            "10.0.0.1",
            "192.168.0.0/16",
            "127.0.0.1",
            "::1",
            "fd00::/8",
            "100.64.0.1",
            "::ffff:10.0.0.1",
            "::ffff:10.0.0.0/104",
            "::ffff:0:0/95",
            "0.0.0.0/0",
            "::/0",
            // Public for the most part, with private networks in them.
            "128.0.0.0/1",
            "0.0.0.0/1",
            "172.0.0.0/8",
            "192.0.0.0/8",
            "f000::/4",
            "255.255.255.255",
            "example.org",
            "",
        ] {
            assert!(checked_network(text, false).is_err(), "{text}");
        }
        for text in ["8.0.0.0/7", "16.0.0.0/4", "172.32.0.0/11", "193.0.0.0/8", "2000::/3", "2606:4700::/32"] {
            assert_eq!(checked_network(text, false).map(|n| n.to_string()), Ok(text.to_owned()));
        }
        // A peer is never seen in IPv6 clothes.
        assert_eq!(checked_network("::ffff:203.0.113.7", false).map(|n| n.to_string()), Ok("203.0.113.7/32".into()));
        for text in ["127.0.0.1", "128.0.0.0/1", "10.0.0.0/8", "fd00::/8"] {
            assert!(checked_network(text, true).is_ok(), "{text}");
        }
        for text in ["0.0.0.0/0", "::/0", "1.2.3.4/0"] {
            assert!(checked_network(text, true).is_err(), "{text} says nothing");
        }
    }

    #[test]
    fn a_list_of_networks_that_is_there_names_some() {
        assert_eq!(checked_networks(None, false), Ok(Vec::new()));
        let many = vec!["203.0.113.7".to_owned(); 101];
        for wrong in [&[][..], &many] {
            let error = checked_networks(Some(wrong), false).expect_err("refused");
            assert_eq!(error.0[0].field, "allowed_ips", "{}", wrong.len());
        }
        assert_eq!(checked_networks(Some(&many[..100]), false).map(|list| list.len()), Ok(100));
    }

    #[test]
    fn scopes_are_deny_by_default_and_misspelt_ones_named() {
        assert!(checked_scopes(&[]).is_err());
        assert_eq!(checked_scopes(&["all".into()]), Ok(Permissions::all()));
        let error = checked_scopes(&["tokens:read".into(), "token:read".into()]).expect_err("misspelt");
        assert_eq!(error.0[0].field, "scopes[1]");
    }
}
