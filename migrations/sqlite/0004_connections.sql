-- A tenant's OAuth client at a provider.
CREATE TABLE integrations (
    tenant_id TEXT NOT NULL CONSTRAINT integrations_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    provider TEXT NOT NULL,
    client_id TEXT NOT NULL,
    client TEXT NOT NULL,
    client_secret BLOB,
    bot_token BLOB,
    signing_secret BLOB,
    scopes TEXT NOT NULL,
    user_scopes TEXT NOT NULL,
    variables TEXT NOT NULL,
    status TEXT NOT NULL CONSTRAINT integrations_status_check CHECK (status IN ('active', 'misconfigured')),
    reason TEXT,
    probe_at INTEGER,
    rate_limited_until INTEGER,
    refresh_policy TEXT NOT NULL CONSTRAINT integrations_refresh_policy_check CHECK (refresh_policy IN ('always', 'active', 'on_demand')),
    active_days INTEGER NOT NULL,
    pace_at INTEGER NOT NULL,
    retry_credit INTEGER NOT NULL,
    retried_at INTEGER,
    answered INTEGER,
    unanswered INTEGER NOT NULL,
    unreachable_since INTEGER,
    silent_at INTEGER,
    outage TEXT,
    refused INTEGER NOT NULL,
    refused_since INTEGER,
    testing_since INTEGER,
    believed_until INTEGER,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    CONSTRAINT integrations_pkey PRIMARY KEY (tenant_id, id)
) STRICT;
CREATE UNIQUE INDEX integrations_provider_key ON integrations (tenant_id, provider) WHERE deleted_at IS NULL;
CREATE INDEX integrations_id_idx ON integrations (id);
CREATE INDEX integrations_client_idx ON integrations (client) WHERE deleted_at IS NULL;

-- Every client that an integration has had. Tokens that one was granted live on when it gives way to another, or gets another secret.
CREATE TABLE integration_clients (
    tenant_id TEXT NOT NULL,
    integration_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    client TEXT NOT NULL,
    CONSTRAINT integration_clients_pkey PRIMARY KEY (tenant_id, integration_id, revision, client),
    CONSTRAINT integration_clients_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
) STRICT;
CREATE INDEX integration_clients_client_idx ON integration_clients (client);

-- One external account of one user (or of the tenant) at one provider.
CREATE TABLE connections (
    tenant_id TEXT NOT NULL CONSTRAINT connections_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    user_id TEXT,
    provider TEXT NOT NULL,
    integration_id TEXT,
    account_id TEXT NOT NULL,
    account BLOB,
    target BLOB,
    label TEXT NOT NULL,
    is_default INTEGER NOT NULL,
    status TEXT NOT NULL CONSTRAINT connections_status_check CHECK (status IN ('awaiting_start', 'active', 'needs_reauth', 'misconfigured', 'quarantined', 'revoked')),
    reason TEXT,
    asked_scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_used_at INTEGER,
    -- 1 while one of its credentials could not be refreshed; and the state that the outside was last told of.
    is_degraded INTEGER NOT NULL,
    told TEXT NOT NULL,
    deleted_at INTEGER,
    CONSTRAINT connections_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT connections_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT connections_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
) STRICT;
CREATE UNIQUE INDEX connections_account_key ON connections (tenant_id, provider, account_id, COALESCE(user_id, '')) WHERE deleted_at IS NULL;
CREATE INDEX connections_user_idx ON connections (tenant_id, user_id, id);
CREATE INDEX connections_untold_idx ON connections (tenant_id, id)
    WHERE told <> CASE WHEN deleted_at IS NOT NULL THEN 'deleted' WHEN status = 'active' AND is_degraded = 1 THEN 'degraded' ELSE status END;

-- One secret token set. Several connections may share one.
CREATE TABLE credentials (
    tenant_id TEXT NOT NULL CONSTRAINT credentials_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    integration_id TEXT,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner_kind TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    shared_as TEXT,
    access_token BLOB,
    refresh_token BLOB,
    token_type TEXT NOT NULL,
    scopes TEXT NOT NULL,
    obtained_at INTEGER NOT NULL,
    expires_at INTEGER,
    refresh_expires_at INTEGER,
    generation INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER,
    phase TEXT NOT NULL CONSTRAINT credentials_phase_check CHECK (phase IN ('idle', 'claimed', 'sent')),
    sent_at INTEGER,
    consents INTEGER NOT NULL,
    stored_fence INTEGER,
    doubt_first_sent INTEGER,
    doubt_since INTEGER,
    doubt_replays INTEGER NOT NULL,
    doubt_likely_unspent INTEGER NOT NULL,
    due_at INTEGER,
    slot_at INTEGER,
    warned_for INTEGER,
    status TEXT NOT NULL CONSTRAINT credentials_status_check CHECK (status IN ('active', 'needs_reauth', 'misconfigured', 'revoked')),
    reason TEXT,
    attempts INTEGER NOT NULL,
    next_attempt_at INTEGER,
    unrecognised_count INTEGER NOT NULL,
    unrecognised_since INTEGER NOT NULL,
    last_error TEXT,
    last_error_at INTEGER,
    last_refreshed_at INTEGER,
    last_used_at INTEGER NOT NULL,
    revoked_from INTEGER,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER,
    CONSTRAINT credentials_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT credentials_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
) STRICT;
CREATE UNIQUE INDEX credentials_shared_key ON credentials (tenant_id, integration_id, kind, shared_as) WHERE shared_as IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX credentials_due_idx ON credentials (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX credentials_integration_due_idx ON credentials (tenant_id, integration_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX credentials_slot_idx ON credentials (tenant_id, integration_id, slot_at) WHERE slot_at IS NOT NULL;
CREATE INDEX credentials_claimed_idx ON credentials (tenant_id, integration_id, lease_until) WHERE phase <> 'idle';
CREATE INDEX credentials_urgent_idx ON credentials (due_at) WHERE phase = 'sent' OR doubt_since IS NOT NULL;
CREATE INDEX credentials_revoked_idx ON credentials (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE connection_credentials (
    tenant_id TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    credential_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    CONSTRAINT connection_credentials_pkey PRIMARY KEY (tenant_id, connection_id, kind),
    CONSTRAINT connection_credentials_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id),
    CONSTRAINT connection_credentials_credential_fkey FOREIGN KEY (tenant_id, credential_id) REFERENCES credentials (tenant_id, id)
) STRICT;
CREATE INDEX connection_credentials_credential_idx ON connection_credentials (tenant_id, credential_id);

-- Tokens that nobody uses any more and that are still to be ended at their provider: of a deleted connection, or late ones.
CREATE TABLE revocations (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    credential_id TEXT NOT NULL,
    access_token BLOB,
    refresh_token BLOB,
    revision INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    CONSTRAINT revocations_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT revocations_credential_fkey FOREIGN KEY (tenant_id, credential_id) REFERENCES credentials (tenant_id, id)
) STRICT;
CREATE INDEX revocations_next_attempt_at_idx ON revocations (next_attempt_at);

-- A one-time link with which a platform lets its user connect.
CREATE TABLE connect_sessions (
    tenant_id TEXT NOT NULL CONSTRAINT connect_sessions_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    token_hash TEXT NOT NULL CONSTRAINT connect_sessions_token_hash_key UNIQUE,
    user_id TEXT NOT NULL,
    providers TEXT NOT NULL,
    scopes TEXT NOT NULL,
    return_url TEXT,
    mode TEXT NOT NULL CONSTRAINT connect_sessions_mode_check CHECK (mode IN ('redirect', 'popup')),
    state TEXT NOT NULL CONSTRAINT connect_sessions_state_check CHECK (state IN ('open', 'started', 'awaiting_confirmation', 'completed', 'denied', 'expired')),
    browser_hash TEXT,
    connection_id TEXT,
    completion_hash TEXT,
    completion_expires_at INTEGER,
    completion_attempts INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    CONSTRAINT connect_sessions_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT connect_sessions_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT connect_sessions_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id)
) STRICT;
CREATE INDEX connect_sessions_expires_at_idx ON connect_sessions (expires_at);

-- A connection being made: ten minutes, once.
CREATE TABLE handshakes (
    tenant_id TEXT NOT NULL CONSTRAINT handshakes_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    state_hash TEXT NOT NULL CONSTRAINT handshakes_state_hash_key UNIQUE,
    browser_hash TEXT NOT NULL,
    user_id TEXT NOT NULL,
    integration_id TEXT NOT NULL,
    integration_revision INTEGER NOT NULL,
    provider TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    scopes TEXT NOT NULL,
    verifier BLOB,
    nonce BLOB,
    code BLOB,
    connect_session_id TEXT,
    connection_id TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    consumed_at INTEGER,
    CONSTRAINT handshakes_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT handshakes_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT handshakes_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id),
    CONSTRAINT handshakes_connect_session_fkey FOREIGN KEY (tenant_id, connect_session_id) REFERENCES connect_sessions (tenant_id, id),
    CONSTRAINT handshakes_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id)
) STRICT;
CREATE INDEX handshakes_expires_at_idx ON handshakes (expires_at);
-- For counting those that are unfinished.
CREATE INDEX handshakes_live_idx ON handshakes (tenant_id, expires_at, user_id) WHERE consumed_at IS NULL;

-- A Telegram bot waits for its user to press Start.
CREATE TABLE telegram_starts (
    tenant_id TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    payload_hash TEXT NOT NULL,
    update_offset INTEGER NOT NULL,
    poll_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- 1 when the browser that asked for the link is asked whether it was its person who pressed Start; who it was, sealed.
    to_confirm INTEGER NOT NULL,
    pressed BLOB,
    CONSTRAINT telegram_starts_pkey PRIMARY KEY (tenant_id, connection_id),
    CONSTRAINT telegram_starts_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id)
) STRICT;
CREATE INDEX telegram_starts_poll_at_idx ON telegram_starts (poll_at);

-- What a provider has told us on its own, so that a repeated delivery is known.
CREATE TABLE notices (
    tenant_id TEXT NOT NULL,
    integration_id TEXT NOT NULL,
    id TEXT NOT NULL,
    heard_at INTEGER NOT NULL,
    CONSTRAINT notices_pkey PRIMARY KEY (tenant_id, integration_id, id),
    CONSTRAINT notices_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
) STRICT;
CREATE INDEX notices_heard_at_idx ON notices (heard_at);
