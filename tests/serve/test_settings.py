"""The service's settings: which source wins, what is refused in one line, and keys that nobody sees."""

import pickle
from pathlib import Path

import pytest

from serve.errors import ServeError
from serve.settings import Settings

KEY = "k3y-th4t-nobody-sees"


def keys(settings: Settings) -> list[str]:
    return [key.get_secret_value() for key in settings.api_keys]


def read(**given: object) -> Settings:
    return Settings.from_environment(model="m", **{"insecure": True, **given})


def test_an_argument_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read().port == 8000
    monkeypatch.setenv("RINGWATCH_PORT", "9001")
    assert read().port == 9001
    assert read(port=9002).port == 9002


def test_every_setting_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    values = {
        "insecure": "true",
        "open_metrics": "true",
        "challenge": "0",
        "review": "0.1",
        "decline": "0.9",
        "device": "cpu",
        "host": "::1",
    }
    values |= {
        "api_keys_file": str(tmp_path / "keys"),
        "keys_file": str(tmp_path / "keys.json"),
        "replicas": "3",
        "port": "4000",
        "cuda_memory": "1.5",
        "journal_topic": "kafka://broker:9092/journal",
    }
    for name in Settings.model_fields:
        if name not in ("api_keys", "model"):
            monkeypatch.setenv(f"RINGWATCH_{name.upper()}", values.get(name, "7"))
    monkeypatch.setenv("RINGWATCH_MODEL", "of the environment")
    settings = Settings.from_environment()
    assert settings.model == Path("of the environment")
    assert keys(settings) == [KEY]
    for name in set(Settings.model_fields) - {"api_keys", "model"}:
        assert getattr(settings, name) != Settings.model_fields[name].default, name


@pytest.mark.parametrize(
    "text", ["one,two", "one, two", " one ,two\n", "one\ntwo\n", "one\r\n two", ",one,,two,", "one,\n\ttwo"]
)
def test_blanks_and_line_breaks_around_a_key_are_no_part_of_it(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RINGWATCH_API_KEYS", text)
    assert keys(read(insecure=False)) == ["one", "two"]
    monkeypatch.delenv("RINGWATCH_API_KEYS")
    (tmp_path / "keys").write_bytes(text.encode())
    monkeypatch.setenv("RINGWATCH_API_KEYS_FILE", str(tmp_path / "keys"))
    assert keys(read(insecure=False)) == ["one", "two"]


@pytest.mark.parametrize("text", ["", " ", ",", "\n, \n"])
def test_keys_that_are_blank_are_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGWATCH_API_KEYS", text)
    assert read().api_keys == ()
    with pytest.raises(ServeError, match="set RINGWATCH_API_KEYS"):
        read(insecure=False)


def test_keys_come_from_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RINGWATCH_API_KEYS_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(ServeError, match=r"RINGWATCH_API_KEYS_FILE: cannot read .*nowhere: No such file"):
        read()
    (tmp_path / "nowhere").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ServeError, match="it is no text"):
        read()
    monkeypatch.setenv("RINGWATCH_API_KEYS", KEY)
    with pytest.raises(ServeError, match="either RINGWATCH_API_KEYS or RINGWATCH_API_KEYS_FILE"):
        read()


@pytest.mark.parametrize(
    ("given", "variables", "said"),
    [
        ({"port": 80}, {}, "port: "),
        ({}, {"RINGWATCH_PORT": "many"}, "port: "),
        ({}, {"RINGWATCH_QUEUE_ROWS": ""}, "queue_rows: "),
        ({"colour": "red"}, {}, "colour: "),
        ({"review": 0.7}, {}, "settings: thresholds must rise"),
        ({}, {"RINGWATCH_CUDA_MEMORY": "0"}, "cuda_memory: "),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_setting(
    given: dict[str, object], variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGWATCH_API_KEYS", KEY)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServeError) as raised:
        read(**given)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)
    assert KEY not in str(raised.value)
    assert "Value error" not in str(raised.value)


def test_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    for name, value in (("RINGWATCH_API_KEYS", KEY), ("RINGWATCH_API_KEYS_FILE", str(tmp_path / "keys"))):
        with monkeypatch.context() as only:
            only.setenv(name, value)
            settings = read()
            for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
                assert KEY not in shown
            assert keys(settings) == [KEY]


def test_a_replica_gets_what_was_set_and_not_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGWATCH_API_KEYS", KEY)
    sent = pickle.dumps(read(port=9002))
    monkeypatch.setenv("RINGWATCH_API_KEYS", "another")
    monkeypatch.setenv("RINGWATCH_PORT", "9003")
    received = pickle.loads(sent)
    assert (received.port, keys(received)) == (9002, [KEY])


def test_a_journal_that_is_an_address_names_a_topic_and_a_local_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(journal="kafka://one:9092,two:9092/payments")
    assert settings.journal_topic == "kafka://one:9092,two:9092/payments"
    assert settings.journal == Path("var/payments.sqlite")
    assert settings.snapshot_folder == Path("var/payments.snapshots")
    monkeypatch.setenv("RINGWATCH_JOURNAL", "kafka://one:9092/payments")
    assert read().journal_topic == "kafka://one:9092/payments"
    assert read(journal="other.sqlite").journal_topic is None
    elsewhere = read(journal="other.sqlite", journal_topic="kafka://one:9092/payments")
    assert (elsewhere.journal, elsewhere.journal_topic) == (Path("other.sqlite"), "kafka://one:9092/payments")
    with pytest.raises(ServeError, match="write it as kafka://host:port/topic"):
        read(journal="kafka://one/payments")
    with pytest.raises(ServeError, match="name the topic once"):
        read(journal="kafka://one:9092/payments", journal_topic="kafka://one:9092/payments")


def test_kafka_options_are_read_from_their_file_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# of the broker\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")
    settings = read(kafka_options=path)
    assert settings.kafka_settings() == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}
    assert "a=b" not in repr(settings)
    assert read().kafka_settings() == {}
    path.write_text("sasl.password=x\nsecret")
    with pytest.raises(ServeError, match=r"line 2: write name=value$"):
        settings.kafka_settings()
    with pytest.raises(ServeError, match="cannot read"):
        read(kafka_options=tmp_path / "none").kafka_settings()
