#!/usr/bin/env bash
# Runs once, when the database folder is new. The vault refuses a superuser, so it gets a role and a
# database of its own. The password goes in by a variable of psql, not as text of the statement.
set -euo pipefail
psql -X -v ON_ERROR_STOP=1 -v password="$DB_PASSWORD" --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
create role valetkey login nosuperuser nobypassrls nocreaterole nocreatedb password :'password';
create database valetkey owner valetkey encoding 'UTF8' template template0;
SQL
