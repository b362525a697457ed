"""How an investigator and its console run: the service's settings, and a few of their own."""

from pathlib import Path

from pydantic import Field

from serve.settings import Settings


class InvestigatorSettings(Settings):
    """Settings of an investigator. Journal, model and thresholds are the service's: give both the same environment.

    Attributes:
        https: Whether browsers reach the console by HTTPS: its cookie is then never sent without.
        cases: Where cases are kept: an SQLAlchemy address, or a SQLite file; beside the journal if not given.
    """

    port: int = Field(8400, ge=1024, le=65535)
    https: bool = False
    cases: str | None = None

    @property
    def case_store(self) -> str | Path:
        """Where cases are kept."""
        return self.cases or self.journal.with_suffix(".cases.sqlite")
