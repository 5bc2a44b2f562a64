-- Creates PostgreSQL roles that protect the change log from the programs that write to it:
--
--   owner   Owns the schema and applies migrations (`server migrate`).
--   app     For the server (with --no-migrate) and its other commands. It can read change_log and append to it, but
--           cannot update, delete or truncate its rows.
--   worker  For the cleanup worker with --change-log-retention. It can also delete rows of change_log.
--
-- A cleanup worker without --change-log-retention can use the app role.
--
-- Run this script as a superuser, in the database of the service, after `server migrate`. Neither app nor worker may
-- own the database, because the owner of a database can drop every table in it. To change the owner of the database,
-- run `ALTER DATABASE flags OWNER TO flags_owner`.
--
--   psql -X -v owner=flags_owner -v app=flags_app -v worker=flags_worker -f scripts/postgres-roles.sql flags
--
-- The role names shown here are the defaults. The script creates missing roles without a password: set passwords with
-- \password, or configure another authentication method in pg_hba.conf. Then start the programs:
--
--   DATABASE_URL=postgres://flags_owner@…/flags   server migrate
--   DATABASE_URL=postgres://flags_app@…/flags     server --no-migrate
--   DATABASE_URL=postgres://flags_worker@…/flags  cleanup-worker --change-log-retention 365d
--
-- The script is idempotent and runs in one transaction. Tables that the owner adds in later migrations are accessible
-- to app and worker automatically.

\set ON_ERROR_STOP on
\if :{?owner} \else \set owner flags_owner \endif
\if :{?app} \else \set app flags_app \endif
\if :{?worker} \else \set worker flags_worker \endif

BEGIN;

DO $$
BEGIN
    IF to_regclass('public.change_log') IS NULL THEN
        RAISE EXCEPTION 'table change_log does not exist: run `server migrate` first, or connect to the correct database';
    END IF;
END
$$;

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', name)
FROM unnest(ARRAY[:'owner', :'app', :'worker']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- Only the owner can create and drop objects in the schema.
ALTER SCHEMA public OWNER TO :"owner";
REVOKE CREATE ON SCHEMA public FROM PUBLIC, :"app", :"worker";
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"app", :"worker";

-- Transfer existing objects to the owner, except those of extensions.
SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, :'owner')
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
    AND pg_get_userbyid(relowner) <> :'owner'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
\gexec
-- Sequences that belong to a table change their owner with the table.
SELECT format('ALTER SEQUENCE %s OWNER TO %I', oid::regclass, :'owner')
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' AND pg_get_userbyid(relowner) <> :'owner'
    AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype IN ('a', 'i', 'e')
    )
\gexec
SELECT format('ALTER ROUTINE %s OWNER TO %I', oid::regprocedure, :'owner')
FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND pg_get_userbyid(proowner) <> :'owner'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
\gexec

-- Privileges on objects that the owner creates later.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app", :"worker";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO :"app", :"worker";

-- Privileges on existing objects.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, :"app", :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"app", :"worker";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO :"app", :"worker";

-- app and worker only read the list of applied migrations.
REVOKE INSERT, UPDATE, DELETE ON __diesel_schema_migrations FROM :"app", :"worker";

-- app can only append to the change log. worker can also delete rows.
REVOKE UPDATE, DELETE ON change_log FROM :"app";
REVOKE UPDATE ON change_log FROM :"worker";

-- log_head has a single row. app can update all its columns except lowest_revision, which worker updates when it
-- removes the oldest rows of the change log.
REVOKE INSERT, UPDATE, DELETE ON log_head FROM :"app";
REVOKE INSERT, DELETE ON log_head FROM :"worker";
SELECT format('GRANT UPDATE (%s) ON log_head TO %I', string_agg(quote_ident(attname), ', '), :'app')
FROM pg_attribute
WHERE attrelid = 'log_head'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'lowest_revision')
\gexec

-- Check for privileges that bypass the restrictions above: superusers, roles that can create roles, the owner of the
-- database, and members of a role with more privileges.
SELECT has_table_privilege(:'app', 'change_log', 'UPDATE, DELETE, TRUNCATE, TRIGGER')
    OR has_any_column_privilege(:'app', 'change_log', 'UPDATE')
    OR has_table_privilege(:'worker', 'change_log', 'UPDATE, TRUNCATE, TRIGGER')
    OR pg_has_role(:'app', :'worker', 'MEMBER')
    OR EXISTS (SELECT FROM pg_roles WHERE rolname IN (:'app', :'worker') AND (rolsuper OR rolcreaterole))
    OR EXISTS (
        SELECT FROM unnest(ARRAY[:'app', :'worker']) AS name, pg_database
        WHERE datname = current_database() AND (pg_has_role(name, datdba, 'MEMBER') OR pg_has_role(name, :'owner', 'MEMBER'))
    ) AS has_excess_privileges \gset
\if :has_excess_privileges
DO $$
BEGIN
    RAISE EXCEPTION 'app or worker can still modify the change log'
        USING HINT = 'app and worker must not be superusers, create roles, own the database or be members of owner, '
            'and app must not be a member of worker';
END
$$;
\endif

COMMIT;
