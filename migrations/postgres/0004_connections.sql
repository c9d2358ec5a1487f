-- A tenant's OAuth client at a provider.
CREATE TABLE integrations (
    tenant_id TEXT NOT NULL CONSTRAINT integrations_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    provider TEXT NOT NULL,
    client_id TEXT NOT NULL,
    client TEXT NOT NULL,
    client_secret BYTEA,
    bot_token BYTEA,
    signing_secret BYTEA,
    scopes TEXT NOT NULL,
    user_scopes TEXT NOT NULL,
    variables TEXT NOT NULL,
    status TEXT NOT NULL CONSTRAINT integrations_status_check CHECK (status IN ('active', 'misconfigured')),
    reason TEXT,
    probe_at BIGINT,
    rate_limited_until BIGINT,
    refresh_policy TEXT NOT NULL CONSTRAINT integrations_refresh_policy_check CHECK (refresh_policy IN ('always', 'active', 'on_demand')),
    active_days BIGINT NOT NULL,
    pace_at BIGINT NOT NULL,
    retry_credit BIGINT NOT NULL,
    retried_at BIGINT,
    answered BIGINT,
    unanswered BIGINT NOT NULL,
    unreachable_since BIGINT,
    silent_at BIGINT,
    outage TEXT,
    refused BIGINT NOT NULL,
    refused_since BIGINT,
    testing_since BIGINT,
    believed_until BIGINT,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    CONSTRAINT integrations_pkey PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX integrations_provider_key ON integrations (tenant_id, provider) WHERE deleted_at IS NULL;
CREATE INDEX integrations_id_idx ON integrations (id);
CREATE INDEX integrations_client_idx ON integrations (client) WHERE deleted_at IS NULL;

-- Every client that an integration has had. Tokens that one was granted live on when it gives way to another, or gets another secret.
CREATE TABLE integration_clients (
    tenant_id TEXT NOT NULL,
    integration_id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    client TEXT NOT NULL,
    CONSTRAINT integration_clients_pkey PRIMARY KEY (tenant_id, integration_id, revision, client),
    CONSTRAINT integration_clients_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
);
CREATE INDEX integration_clients_client_idx ON integration_clients (client);

-- One external account of one user (or of the tenant) at one provider.
CREATE TABLE connections (
    tenant_id TEXT NOT NULL CONSTRAINT connections_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    user_id TEXT,
    provider TEXT NOT NULL,
    integration_id TEXT,
    account_id TEXT NOT NULL,
    account BYTEA,
    target BYTEA,
    label TEXT NOT NULL,
    is_default BIGINT NOT NULL,
    status TEXT NOT NULL CONSTRAINT connections_status_check CHECK (status IN ('awaiting_start', 'active', 'needs_reauth', 'misconfigured', 'quarantined', 'revoked')),
    reason TEXT,
    asked_scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_used_at BIGINT,
    -- 1 while one of its credentials could not be refreshed; and the state that the outside was last told of.
    is_degraded BIGINT NOT NULL,
    told TEXT NOT NULL,
    deleted_at BIGINT,
    CONSTRAINT connections_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT connections_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT connections_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
);
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
    access_token BYTEA,
    refresh_token BYTEA,
    token_type TEXT NOT NULL,
    scopes TEXT NOT NULL,
    obtained_at BIGINT NOT NULL,
    expires_at BIGINT,
    refresh_expires_at BIGINT,
    generation BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    lease_owner TEXT,
    lease_until BIGINT,
    phase TEXT NOT NULL CONSTRAINT credentials_phase_check CHECK (phase IN ('idle', 'claimed', 'sent')),
    sent_at BIGINT,
    consents BIGINT NOT NULL,
    stored_fence BIGINT,
    doubt_first_sent BIGINT,
    doubt_since BIGINT,
    doubt_replays BIGINT NOT NULL,
    doubt_likely_unspent BIGINT NOT NULL,
    due_at BIGINT,
    slot_at BIGINT,
    warned_for BIGINT,
    status TEXT NOT NULL CONSTRAINT credentials_status_check CHECK (status IN ('active', 'needs_reauth', 'misconfigured', 'revoked')),
    reason TEXT,
    attempts BIGINT NOT NULL,
    next_attempt_at BIGINT,
    unrecognised_count BIGINT NOT NULL,
    unrecognised_since BIGINT NOT NULL,
    last_error TEXT,
    last_error_at BIGINT,
    last_refreshed_at BIGINT,
    last_used_at BIGINT NOT NULL,
    revoked_from BIGINT,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT,
    CONSTRAINT credentials_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT credentials_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
);
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
);
CREATE INDEX connection_credentials_credential_idx ON connection_credentials (tenant_id, credential_id);

-- Tokens that nobody uses any more and that are still to be ended at their provider: of a deleted connection, or late ones.
CREATE TABLE revocations (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    credential_id TEXT NOT NULL,
    access_token BYTEA,
    refresh_token BYTEA,
    revision BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_attempt_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT revocations_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT revocations_credential_fkey FOREIGN KEY (tenant_id, credential_id) REFERENCES credentials (tenant_id, id)
);
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
    completion_expires_at BIGINT,
    completion_attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT connect_sessions_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT connect_sessions_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT connect_sessions_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id)
);
CREATE INDEX connect_sessions_expires_at_idx ON connect_sessions (expires_at);

-- A connection being made: ten minutes, once.
CREATE TABLE handshakes (
    tenant_id TEXT NOT NULL CONSTRAINT handshakes_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    state_hash TEXT NOT NULL CONSTRAINT handshakes_state_hash_key UNIQUE,
    browser_hash TEXT NOT NULL,
    user_id TEXT NOT NULL,
    integration_id TEXT NOT NULL,
    integration_revision BIGINT NOT NULL,
    provider TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    scopes TEXT NOT NULL,
    verifier BYTEA,
    nonce BYTEA,
    code BYTEA,
    connect_session_id TEXT,
    connection_id TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    consumed_at BIGINT,
    CONSTRAINT handshakes_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT handshakes_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT handshakes_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id),
    CONSTRAINT handshakes_connect_session_fkey FOREIGN KEY (tenant_id, connect_session_id) REFERENCES connect_sessions (tenant_id, id),
    CONSTRAINT handshakes_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id)
);
CREATE INDEX handshakes_expires_at_idx ON handshakes (expires_at);
-- For counting those that are unfinished.
CREATE INDEX handshakes_live_idx ON handshakes (tenant_id, expires_at, user_id) WHERE consumed_at IS NULL;

-- A Telegram bot waits for its user to press Start.
CREATE TABLE telegram_starts (
    tenant_id TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    payload_hash TEXT NOT NULL,
    update_offset BIGINT NOT NULL,
    poll_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- 1 when the browser that asked for the link is asked whether it was its person who pressed Start; who it was, sealed.
    to_confirm BIGINT NOT NULL,
    pressed BYTEA,
    CONSTRAINT telegram_starts_pkey PRIMARY KEY (tenant_id, connection_id),
    CONSTRAINT telegram_starts_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id)
);
CREATE INDEX telegram_starts_poll_at_idx ON telegram_starts (poll_at);

-- What a provider has told us on its own, so that a repeated delivery is known.
CREATE TABLE notices (
    tenant_id TEXT NOT NULL,
    integration_id TEXT NOT NULL,
    id TEXT NOT NULL,
    heard_at BIGINT NOT NULL,
    CONSTRAINT notices_pkey PRIMARY KEY (tenant_id, integration_id, id),
    CONSTRAINT notices_integration_fkey FOREIGN KEY (tenant_id, integration_id) REFERENCES integrations (tenant_id, id)
);
CREATE INDEX notices_heard_at_idx ON notices (heard_at);
