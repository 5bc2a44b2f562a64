-- Roles for the service on PostgreSQL, so that the log stands against the programs that write it:
--
--   owner   owns the schema and applies migrations (`server migrate`)
--   app     the server with --no-migrate, and its commands: reads and appends to change_log, and has no right to change,
--           remove or truncate a row of it
--   worker  the cleanup worker; with --keep-log it removes the log's oldest rows, which the app cannot
--
-- A worker that runs without --keep-log can run as app.
--
-- Run it in the service's own database, after `server migrate`, as a superuser. Neither app nor worker may own the database:
-- whoever does can drop the log's table whatever is granted. One that does becomes the owner's by
-- `ALTER DATABASE flags OWNER TO flags_owner`.
--
--   psql -X -v owner=flags_owner -v app=flags_app -v worker=flags_worker -f scripts/postgres-roles.sql flags
--
-- (these names are taken where none is given). Roles that are not there are made, without a password: give them one with
-- \password, or let pg_hba.conf say how they sign in. Then:
--
--   DATABASE_URL=postgres://flags_owner@…/flags   server migrate
--   DATABASE_URL=postgres://flags_app@…/flags     server --no-migrate
--   DATABASE_URL=postgres://flags_worker@…/flags  cleanup-worker --keep-log 365d
--
-- It can be run again at any time, and does nothing by halves. Tables that later migrations of the owner add are open to
-- app and worker by themselves.

\set ON_ERROR_STOP on
\if :{?owner} \else \set owner flags_owner \endif
\if :{?app} \else \set app flags_app \endif
\if :{?worker} \else \set worker flags_worker \endif

BEGIN;

DO $$
BEGIN
    IF to_regclass('public.change_log') IS NULL THEN
        RAISE EXCEPTION 'there is no table change_log here: run `server migrate` first, or connect to the right database';
    END IF;
END
$$;

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', name)
FROM unnest(ARRAY[:'owner', :'app', :'worker']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- Nobody but the owner makes anything here, or takes anything away.
ALTER SCHEMA public OWNER TO :"owner";
REVOKE CREATE ON SCHEMA public FROM PUBLIC, :"app", :"worker";
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"app", :"worker";

-- What is there already is the owner's, except what belongs to extensions.
SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, :'owner')
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
    AND pg_get_userbyid(relowner) <> :'owner'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
\gexec
-- Sequences that belong to a table went with it.
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

-- What the owner adds later.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app", :"worker";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO :"app", :"worker";

-- What is there.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, :"app", :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"app", :"worker";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO :"app", :"worker";

-- The list of migrations is only looked at.
REVOKE INSERT, UPDATE, DELETE ON __diesel_schema_migrations FROM :"app", :"worker";

-- The log is only appended to.
REVOKE UPDATE, DELETE ON change_log FROM :"app";
REVOKE UPDATE ON change_log FROM :"worker";

-- Its head is one row that counts. Where the log begins is the worker's to say, as it removes the oldest rows.
REVOKE INSERT, UPDATE, DELETE ON log_head FROM :"app";
REVOKE INSERT, DELETE ON log_head FROM :"worker";
SELECT format('GRANT UPDATE (%s) ON log_head TO %I', string_agg(quote_ident(attname), ', '), :'app')
FROM pg_attribute
WHERE attrelid = 'log_head'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'lowest_revision')
\gexec

-- Whether it holds: a superuser may do anything whatever is granted, whoever makes roles may become most others, the
-- database's owner may drop it, and a member of a role may do what that may, or become it.
SELECT has_table_privilege(:'app', 'change_log', 'UPDATE, DELETE, TRUNCATE, TRIGGER')
    OR has_any_column_privilege(:'app', 'change_log', 'UPDATE')
    OR has_table_privilege(:'worker', 'change_log', 'UPDATE, TRUNCATE, TRIGGER')
    OR pg_has_role(:'app', :'worker', 'MEMBER')
    OR EXISTS (SELECT FROM pg_roles WHERE rolname IN (:'app', :'worker') AND (rolsuper OR rolcreaterole))
    OR EXISTS (
        SELECT FROM unnest(ARRAY[:'app', :'worker']) AS name, pg_database
        WHERE datname = current_database() AND (pg_has_role(name, datdba, 'MEMBER') OR pg_has_role(name, :'owner', 'MEMBER'))
    ) AS too_much \gset
\if :too_much
DO $$
BEGIN
    RAISE EXCEPTION 'app or worker may change the log all the same'
        USING HINT = 'they must be no superusers, create no roles, not own the database, and be no members of the owner, '
            'nor app one of worker';
END
$$;
\endif

COMMIT;
