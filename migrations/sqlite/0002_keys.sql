-- Root keys stay outside the database; their check values are here.
CREATE TABLE root_keys (
    id TEXT NOT NULL CONSTRAINT root_keys_pkey PRIMARY KEY,
    check_value BLOB NOT NULL,
    state TEXT NOT NULL CONSTRAINT root_keys_state_check CHECK (state IN ('active', 'retiring', 'retired')),
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX root_keys_active_key ON root_keys (state) WHERE state = 'active';

-- A tenant's key, wrapped by a root key.
CREATE TABLE tenant_keys (
    tenant_id TEXT NOT NULL CONSTRAINT tenant_keys_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    root_key_id TEXT NOT NULL CONSTRAINT tenant_keys_root_key_fkey REFERENCES root_keys (id),
    wrapped BLOB NOT NULL,
    state TEXT NOT NULL CONSTRAINT tenant_keys_state_check CHECK (state IN ('active', 'retiring', 'retired')),
    created_at INTEGER NOT NULL,
    CONSTRAINT tenant_keys_pkey PRIMARY KEY (tenant_id, id)
) STRICT;
CREATE UNIQUE INDEX tenant_keys_active_key ON tenant_keys (tenant_id) WHERE state = 'active';

-- The data key of one owner, wrapped by its tenant's key. Destroying the row's key erases the owner's secrets.
CREATE TABLE data_keys (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    owner_kind TEXT NOT NULL CONSTRAINT data_keys_owner_kind_check CHECK (owner_kind IN ('user', 'tenant', 'installation')),
    owner_id TEXT NOT NULL,
    tenant_key_id TEXT NOT NULL,
    wrapped BLOB,
    state TEXT NOT NULL CONSTRAINT data_keys_state_check CHECK (state IN ('active', 'retiring', 'destroyed')),
    created_at INTEGER NOT NULL,
    destroyed_at INTEGER,
    CONSTRAINT data_keys_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT data_keys_tenant_key_fkey FOREIGN KEY (tenant_id, tenant_key_id) REFERENCES tenant_keys (tenant_id, id)
) STRICT;
CREATE UNIQUE INDEX data_keys_active_key ON data_keys (tenant_id, owner_kind, owner_id) WHERE state = 'active';
CREATE INDEX data_keys_owner_idx ON data_keys (tenant_id, owner_kind, owner_id);
