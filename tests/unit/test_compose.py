"""The scaled deployment as written down: services, versions, secrets, supervision and the settings that were tried."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from margin_tasks.pipeline import airflow_runtime
from margin_tasks.pipeline.hostname import advertised_host
from margin_tasks.pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "deploy" / ".env.example").read_text(encoding="utf-8")

WORKERS = {"airflow-worker-1", "airflow-worker-2"}
COMPONENTS = {
    "airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", *WORKERS,
}  # fmt: skip
STORES = {"postgres", "redis", "object-store", "mail"}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|KEY")
GIVEN_BY_OTHERS = {"MARGIN_SMTP_PASSWORD", "MARGIN_WEBHOOK_SECRET"}
REFERENCE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


def locked_versions() -> dict[str, Version]:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {name: Version(version) for name, version in re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", lock, re.MULTILINE)}


def example_variables() -> dict[str, str]:
    lines = [line for line in EXAMPLE.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def environment(service: str) -> dict[str, str]:
    return SERVICES[service].get("environment", {})


def deploy_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", ROOT / "deploy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_service_of_the_deployment_is_there() -> None:
    assert set(SERVICES) == COMPONENTS | STORES | {"airflow-init"}


@pytest.mark.parametrize("service", sorted(STORES))
def test_image_versions_are_pinned(service: str) -> None:
    name, _, tag = SERVICES[service]["image"].partition(":")
    assert name
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z]+)?", tag), tag


def test_components_run_one_image_that_is_named_after_its_commit() -> None:
    images = {SERVICES[service]["image"] for service in COMPONENTS | {"airflow-init"}}
    assert len(images) == 1
    assert images.pop().startswith("margin-pipeline:${MARGIN_CODE_COMMIT:?")
    assert SERVICES["airflow-init"]["build"]["dockerfile"] == "deploy/Dockerfile"
    assert 'test -n "$MARGIN_CODE_COMMIT"' in DOCKERFILE


def test_airflow_of_the_image_is_the_locked_one() -> None:
    stated = re.search(r"^ARG AIRFLOW_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert stated is not None
    assert Version(stated[1]) == locked_versions()["apache-airflow"]
    assert 'test "$(airflow version)" = "$AIRFLOW_VERSION"' in DOCKERFILE


def test_the_image_knows_the_references_of_the_deadlines() -> None:
    # A DAG with a deadline of its own is refused by every component that does not load the plugin.
    assert "COPY plugins ./plugins" in DOCKERFILE
    assert "AIRFLOW__CORE__PLUGINS_FOLDER=/opt/margin/plugins" in DOCKERFILE


def test_celery_is_one_that_the_provider_can_import() -> None:
    # 5.7 removed a name that the locked provider imports; scheduler and workers would not start.
    assert locked_versions()["celery"] < Version("5.7")
    assert "apache-airflow-providers-celery" in locked_versions()


def test_image_is_built_from_the_lock_with_hashes_on_a_supported_python() -> None:
    assert "pip install --require-hashes --no-deps --requirement requirements.lock" in DOCKERFILE
    base = re.search(r"^FROM python:(\d+\.\d+\.\d+)-slim-bookworm$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.search(r'^requires-python = "(.+)"$', pyproject, re.MULTILINE)
    assert supported is not None
    assert Version(base[1]) in Requirement(f"python{supported[1]}").specifier
    assert "\nUSER margin\n" in DOCKERFILE


def test_what_the_image_copies_exists() -> None:
    copied = [word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignored, path


def test_every_variable_is_in_the_example_and_nothing_else_is() -> None:
    used = {match["name"] for match in REFERENCE.finditer(TEXT)}
    assert used == set(example_variables())


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    for match in REFERENCE.finditer(TEXT):
        if SECRET_NAME.search(match["name"]) or match["name"] == "MARGIN_CODE_COMMIT":
            expected = ("-", "") if match["name"] in GIVEN_BY_OTHERS else ("?", match["rest"])
            assert (match["how"], match["rest"]) == expected, match[0]
            assert example_variables()[match["name"]] == "", match["name"]


def test_no_secret_is_written_in_the_file() -> None:
    not_secret = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"}
    for service in SERVICES:
        for name, value in environment(service).items():
            if SECRET_NAME.search(name) and name not in not_secret:
                assert REFERENCE.fullmatch(value), f"{service}: {name}"
            for password in re.findall(r"://[^:@/]*:([^@]+)@", str(value)):
                assert REFERENCE.fullmatch(password), f"{service}: {name}"


@pytest.mark.parametrize("service", sorted(COMPONENTS | STORES))
def test_every_service_is_supervised_and_answers_for_its_health(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)


@pytest.mark.parametrize("service", sorted(COMPONENTS))
def test_a_component_takes_its_tasks_with_it_when_it_dies(service: str) -> None:
    assert SERVICES[service]["init"] is True


@pytest.mark.parametrize("service", sorted(WORKERS))
def test_workers_answer_for_themselves_under_their_own_name(service: str) -> None:
    worker = SERVICES[service]
    probe = worker["healthcheck"]["test"][1]
    assert "inspect ping" in probe
    assert '"celery@$$MARGIN_ADVERTISED_HOST"' in probe
    assert worker["command"][-2:] == ["--celery-hostname", f"celery@{service}"]
    app = re.search(r"--app (\S+)\.app ", probe)
    assert app is not None
    assert importlib.util.find_spec(app[1]) is not None


@pytest.mark.parametrize("service", sorted(COMPONENTS))
def test_components_share_the_settings_that_were_tried(service: str) -> None:
    settings = environment(service)
    assert settings["MARGIN_ADVERTISED_HOST"] == service
    assert settings["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://airflow-api-server:8080/execution/"
    assert settings["AIRFLOW__CORE__HOSTNAME_CALLABLE"] == "margin_tasks.pipeline.hostname.advertised_host"
    assert settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    for shared in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert len({environment(other)[shared] for other in COMPONENTS}) == 1
    assert settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg://airflow:")
    assert settings["AIRFLOW__CELERY__RESULT_BACKEND"].startswith("db+postgresql+psycopg://airflow:")
    assert settings["AIRFLOW__CELERY__BROKER_URL"].endswith("@redis:6379/0")
    assert int(settings["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]) == 86_400
    assert int(settings["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"]) == 300
    assert int(settings["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL"]) == 10
    assert int(settings["AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL"]) < 300
    assert settings["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"] == "8793"
    no_proxy = settings["NO_PROXY"].split(",")
    assert set(SERVICES) - {"airflow-init"} <= set(no_proxy)


def test_users_are_those_of_the_embedded_deployment() -> None:
    assert environment("airflow-api-server")["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == airflow_runtime.USERS


@pytest.mark.parametrize("service", sorted(WORKERS | {"airflow-init"}))
def test_only_those_who_touch_the_lake_know_its_keys(service: str) -> None:
    assert environment(service)["MARGIN_LAKE_CATALOG"].startswith("postgres:dbname=lake host=postgres ")
    assert "password" not in environment(service)["MARGIN_LAKE_CATALOG"]
    assert environment(service)["MARGIN_LAKE_DATA"].startswith("s3://")
    for other in COMPONENTS - WORKERS:
        assert not {"PGPASSWORD", "AWS_SECRET_ACCESS_KEY"} & set(environment(other))


def test_settings_of_the_project_have_the_names_that_it_reads() -> None:
    read_elsewhere = {"MARGIN_ADVERTISED_HOST", "MARGIN_SOURCE_URL"}
    known = {f"MARGIN_{name.upper()}" for name in Settings.model_fields} | read_elsewhere
    for service in SERVICES:
        assert {name for name in environment(service) if name.startswith("MARGIN_")} <= known


def test_notices_stay_in_the_house_until_a_channel_is_stated() -> None:
    defaults = {match["name"]: match["rest"] for match in REFERENCE.finditer(TEXT) if match["how"] == "-"}
    assert defaults["MARGIN_DELIVERY_CHANNELS"] == "outbox"
    for name in Settings.model_fields:
        if name.startswith(("delivery_", "smtp_", "webhook_")):
            variable = f"MARGIN_{name.upper()}"
            assert all(variable in environment(service) for service in WORKERS), variable
            assert variable not in environment("airflow-api-server"), variable


def test_order_of_start_waits_for_health_and_for_the_preparation() -> None:
    for service in COMPONENTS | {"airflow-init"}:
        for other, wanted in SERVICES[service]["depends_on"].items():
            expected = "service_completed_successfully" if other == "airflow-init" else "service_healthy"
            assert wanted["condition"] == expected
    assert all("airflow-init" in SERVICES[service]["depends_on"] for service in COMPONENTS)
    assert all("airflow-api-server" in SERVICES[service]["depends_on"] for service in WORKERS)
    assert {"postgres", "redis", "object-store"} == set(SERVICES["airflow-init"]["depends_on"])


def test_what_must_survive_is_on_named_volumes() -> None:
    mounted = {
        (service, volume.partition(":")[0]): volume.split(":")[1]
        for service, definition in SERVICES.items()
        for volume in definition.get("volumes", ())
        if volume.partition(":")[0] in COMPOSE["volumes"]
    }
    assert mounted["postgres", "postgres-data"] == "/var/lib/postgresql/data"
    assert mounted["redis", "redis-data"] == "/data"
    assert mounted["object-store", "object-data"] == "/data"
    for worker in WORKERS:
        assert mounted[worker, "margin-home"] == "/var/lib/margin"
    assert {volume for _, volume in mounted} == set(COMPOSE["volumes"])
    owned = re.search(r"install --directory --owner margin --group margin \\\n\s+(.+)\n", DOCKERFILE)
    assert owned is not None
    for (service, _), folder in mounted.items():
        assert service in STORES or folder in owned[1].split(), folder


def test_the_queue_survives_a_restart() -> None:
    assert "--appendonly yes" in SERVICES["redis"]["command"][-1]


def test_only_pages_are_published_and_only_on_this_machine() -> None:
    published = {service: definition["ports"] for service, definition in SERVICES.items() if "ports" in definition}
    assert set(published) == {"airflow-api-server", "mail"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert COMPOSE["networks"]["back"]["internal"] is True
    for service in ("postgres", "redis", "object-store"):
        assert SERVICES[service]["networks"] == ["back"]


def test_databases_are_separate_and_their_passwords_quoted_by_the_client() -> None:
    script = (ROOT / "deploy" / "postgres" / "10-databases.sh").read_text(encoding="utf-8")
    assert "create database airflow owner airflow;" in script
    assert "create database lake owner lake;" in script
    assert "password :'airflow_password'" in script
    assert "password :'lake_password'" in script


def test_made_up_secrets_fill_every_gap_and_differ_each_time() -> None:
    make_env = deploy_script("make_env")
    first, second = (make_env.filled_in(EXAMPLE, commit="abc1234") for _ in range(2))
    assert first != second
    values = dict(line.split("=", 1) for line in first.splitlines() if "=" in line and not line.startswith("#"))
    assert set(values) == set(example_variables())
    optional = {"MARGIN_SOURCE_URL", "MARGIN_SMTP_USER", "MARGIN_SMTP_CONNECTION", "MARGIN_WEBHOOK_URL"}
    assert {name for name, value in values.items() if not value} == optional | GIVEN_BY_OTHERS
    assert values["MARGIN_CODE_COMMIT"] == "abc1234"
    secrets = [value for name, value in values.items() if SECRET_NAME.search(name) and value]
    assert len(set(secrets)) == len(secrets) == 12
    assert all(re.fullmatch(r"[A-Za-z0-9_=-]{40,}", secret) for secret in secrets)
    assert len(values["AIRFLOW_FERNET_KEY"]) == 44


def test_secrets_that_are_in_use_are_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_env = deploy_script("make_env")
    monkeypatch.setattr(make_env, "FOLDER", tmp_path)
    (tmp_path / ".env").write_text("kept", encoding="utf-8")
    assert make_env.main() == 1
    assert (tmp_path / ".env").read_text(encoding="utf-8") == "kept"
    assert (ROOT / "deploy" / ".gitignore").read_text(encoding="utf-8").split() == [".env"]


def test_preparation_writes_the_passwords_for_their_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initialise = deploy_script("initialise")
    for name in ("OPERATIONS", "RISK", "AUDIT"):
        monkeypatch.setenv(f"{name}_PASSWORD", f"{name} secret")
    path = tmp_path / "passwords.json"
    initialise.write_passwords(path)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {
        "operations": "OPERATIONS secret", "risk": "RISK secret", "audit": "AUDIT secret",
    }  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600


def test_advertised_host_is_the_stated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARGIN_ADVERTISED_HOST", "airflow-worker-1")
    assert advertised_host() == "airflow-worker-1"
    monkeypatch.delenv("MARGIN_ADVERTISED_HOST")
    monkeypatch.setattr(sys.modules["socket"], "gethostname", lambda: "this-machine")
    assert advertised_host() == "this-machine"
