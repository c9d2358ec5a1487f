-- Where a `serve` that took any free port really listens, for the commands beside it.
CREATE TABLE bound_addresses (
    name TEXT NOT NULL CONSTRAINT bound_addresses_pkey PRIMARY KEY CONSTRAINT bound_addresses_name_check CHECK (name IN ('public', 'admin')),
    url TEXT NOT NULL,
    noted_at BIGINT NOT NULL
);
