#!/bin/sh
# Runs once, when the database folder is empty: one role and one database for Airflow's metadata, one for the lake's
# catalog. Neither role sees the other's database.
set -eu
psql --username "$POSTGRES_USER" --dbname postgres --set ON_ERROR_STOP=1 \
    --set airflow_password="$AIRFLOW_DB_PASSWORD" --set lake_password="$LAKE_DB_PASSWORD" <<'SQL'
create role airflow login password :'airflow_password';
create database airflow owner airflow;
revoke all on database airflow from public;
create role lake login password :'lake_password';
create database lake owner lake;
revoke all on database lake from public;
SQL
