#!/bin/sh
# Run once by the image of PostgreSQL, on the empty cluster, as its superuser: the database, its owner, and the roles that
# log in, each with a password of the environment. What they may do `python -m app migrate` says (docs/roles.md).
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv owner OWNER_PASSWORD
\getenv write WRITE_PASSWORD
\getenv read READ_PASSWORD
\getenv backup BACKUP_PASSWORD
-- In a statement's text a password may get into a log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = panic;

CREATE ROLE tickhub_owner LOGIN CREATEROLE CREATEDB PASSWORD :'owner';
CREATE ROLE tickhub_write LOGIN PASSWORD :'write';
CREATE ROLE tickhub_backup LOGIN REPLICATION PASSWORD :'backup';
CREATE ROLE tickhub_read LOGIN PASSWORD :'read';
ALTER ROLE tickhub_read SET default_transaction_read_only = on;
ALTER ROLE tickhub_read SET statement_timeout = '60s';
ALTER ROLE tickhub_read SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE tickhub_read SET search_path = "$user", public, history;
-- Sessions and statements of all, in /metrics; the roles above may be changed by the owner.
GRANT pg_monitor TO tickhub_write;
GRANT tickhub_write, tickhub_read, tickhub_backup TO tickhub_owner WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;

CREATE DATABASE tickhub OWNER tickhub_owner;
REVOKE ALL ON DATABASE tickhub FROM PUBLIC;
GRANT CONNECT ON DATABASE tickhub TO tickhub_write, tickhub_read, tickhub_backup;
\connect tickhub
CREATE EXTENSION pg_stat_statements;
SQL
