-- A platform in one environment. The row ten_0000… is the installation itself.
CREATE TABLE tenants (
    id TEXT NOT NULL CONSTRAINT tenants_pkey PRIMARY KEY,
    name TEXT NOT NULL CONSTRAINT tenants_name_key UNIQUE,
    environment TEXT NOT NULL CONSTRAINT tenants_environment_check CHECK (environment IN ('production', 'test', 'uat', 'installation')),
    confirm TEXT NOT NULL CONSTRAINT tenants_confirm_check CHECK (confirm IN ('platform', 'none')),
    return_urls TEXT NOT NULL,
    origins TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- An end user, known by the tenant's own id.
CREATE TABLE users (
    tenant_id TEXT NOT NULL CONSTRAINT users_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    external_id TEXT NOT NULL,
    profile BYTEA,
    created_at BIGINT NOT NULL,
    erased_at BIGINT,
    CONSTRAINT users_pkey PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX users_external_id_key ON users (tenant_id, external_id) WHERE erased_at IS NULL;

-- A way to sign in: e-mail and password in one tenant, with an optional role and an optional user.
CREATE TABLE logins (
    tenant_id TEXT NOT NULL CONSTRAINT logins_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    email_hash TEXT NOT NULL,
    email BYTEA NOT NULL,
    password_hash TEXT NOT NULL,
    role TEXT CONSTRAINT logins_role_check CHECK (role IN ('owner', 'admin', 'viewer')),
    user_id TEXT,
    created_at BIGINT NOT NULL,
    disabled_at BIGINT,
    CONSTRAINT logins_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT logins_email_key UNIQUE (tenant_id, email_hash),
    CONSTRAINT logins_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT logins_purpose_check CHECK (role IS NOT NULL OR user_id IS NOT NULL)
);
CREATE INDEX logins_email_hash_idx ON logins (email_hash);

-- Browser sessions: the cookie's value is known only as a hash, the record is sealed.
CREATE TABLE sessions (
    id_hash TEXT NOT NULL CONSTRAINT sessions_pkey PRIMARY KEY,
    record BYTEA NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

-- One-time links: the first owner's set-up, a user's portal.
CREATE TABLE one_time_links (
    token_hash TEXT NOT NULL CONSTRAINT one_time_links_pkey PRIMARY KEY,
    purpose TEXT NOT NULL CONSTRAINT one_time_links_purpose_check CHECK (purpose IN ('setup', 'portal')),
    tenant_id TEXT CONSTRAINT one_time_links_tenant_fkey REFERENCES tenants (id),
    user_id TEXT,
    return_url TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    CONSTRAINT one_time_links_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);
CREATE INDEX one_time_links_expires_at_idx ON one_time_links (expires_at);

-- A platform's API keys: only their hashes.
CREATE TABLE api_keys (
    tenant_id TEXT NOT NULL CONSTRAINT api_keys_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    hint TEXT NOT NULL,
    secret_hash TEXT NOT NULL CONSTRAINT api_keys_secret_hash_key UNIQUE,
    scopes TEXT NOT NULL,
    allowed_ips TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT,
    CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, id)
);

-- Answers to writes that were sent with an Idempotency-Key, sealed.
CREATE TABLE idempotency_keys (
    tenant_id TEXT NOT NULL CONSTRAINT idempotency_keys_tenant_fkey REFERENCES tenants (id),
    actor TEXT NOT NULL,
    route TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status BIGINT,
    answer BYTEA,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, actor, route, key_hash)
);
CREATE INDEX idempotency_keys_expires_at_idx ON idempotency_keys (expires_at);

INSERT INTO tenants (id, name, environment, confirm, return_urls, origins, created_at)
VALUES ('ten_00000000000000000000000000', 'installation', 'installation', 'none', '[]', '[]', 0);
