"""Opens the journal that the settings name: a SQLite file, or a Kafka topic with its local copy."""

from data.journal.protocol import Journal
from data.journal.sqlite import SqliteJournal
from serve.settings import Settings


def open_journal(settings: Settings, *, readonly: bool = False, window_us: int | None = None) -> Journal:
    """Open the journal of a service.

    Args:
        settings: They name it.
        readonly: Only read what is on this machine: of a topic, its local copy, which a writer moves on.
        window_us: How far back its readers look, microseconds: a topic that forgets earlier is refused.

    Raises:
        JournalError: It cannot be opened.
        ServeError: The file of Kafka options cannot be read.
    """
    if settings.journal_topic is None or readonly:
        return SqliteJournal(settings.journal, readonly=readonly)
    from data.journal.kafka import KafkaJournal  # the package that it needs is installed where Kafka is used

    options = settings.kafka_settings()
    return KafkaJournal(settings.journal_topic, settings.journal, options=options, window_us=window_us)
