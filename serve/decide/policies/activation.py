"""Policies of a journal for those who run no replica: reading which there are, and recording what one does."""

from pathlib import Path

from data.journal.protocol import Journal, Kind
from serve.decide.policies.book import PolicyBook
from serve.decide.policies.life import PolicyEvent
from serve.decide.policy import Policy, ThresholdPolicy
from serve.settings import Settings


def default_policy() -> Policy:
    """What decides where no policy is live: the thresholds of the environment's settings."""
    return ThresholdPolicy(Settings.from_environment(model=Path("unused"), insecure=True))


def policies_of(journal: Journal) -> PolicyBook:
    """The policies that a journal holds.

    Raises:
        JournalError: It cannot be read.
    """
    book = PolicyBook(default_policy())
    for events in journal.replay():
        if events.kind is Kind.POLICY:
            book.apply(events)
    return book


def record(journal: Journal, event: PolicyEvent) -> None:
    """Record what a policy does from the next payment on; durable afterwards. A service that runs takes it up.

    Raises:
        JournalError: It cannot be written.
    """
    with journal.begin() as commit:
        commit.append(Kind.POLICY, event.batch())
