"""The tables of cases, and triggers that keep what happened to a case from being rewritten."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SQLITE = """
CREATE TRIGGER case_events_append_only_{verb} BEFORE {verb} ON case_events
BEGIN SELECT RAISE(ABORT, 'case_events is append-only'); END
"""
POSTGRESQL = """
CREATE FUNCTION case_events_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'case_events is append-only'; END $$;
CREATE TRIGGER case_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON case_events
FOR EACH STATEMENT EXECUTE FUNCTION case_events_append_only()
"""


def upgrade() -> None:
    """Make them."""
    _cases()
    _parts()
    _mirrors()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL)
    else:
        for verb in ("UPDATE", "DELETE"):
            op.execute(SQLITE.format(verb=verb))


def _cases() -> None:
    """Cases and what happened to them."""
    op.create_table(
        "cases",
        sa.Column("id", BIG, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("opened_at", BIG, nullable=False),
        sa.Column("updated_at", BIG, nullable=False),
        sa.Column("last_seen", BIG, nullable=False),
        sa.Column("assignee", sa.String(length=128), nullable=True),
        sa.Column("snoozed_until", BIG, nullable=True),
        sa.Column("merged_into", BIG, nullable=True),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("at_risk", sa.JSON(), nullable=False),
        sa.Column("accounts", BIG, nullable=False),
        sa.Column("payments", BIG, nullable=False),
        sa.Column("frauds", BIG, nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("seen", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["merged_into"], ["cases.id"], name=op.f("fk_cases_merged_into")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cases")),
    )
    op.create_index(op.f("ix_cases_assignee"), "cases", ["assignee"])
    op.create_index(op.f("ix_cases_state_priority"), "cases", ["state", "priority"])
    op.create_table(
        "case_events",
        sa.Column("id", BIG, nullable=False),
        sa.Column("case_id", BIG, nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("journal_offset", BIG, nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_case_events_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_case_events")),
        sa.UniqueConstraint("journal_offset", name=op.f("uq_case_events_journal_offset")),
    )
    op.create_index(op.f("ix_case_events_case_id"), "case_events", ["case_id"])


def _parts() -> None:
    """What is in a case, and what ties it to others."""
    op.create_table(
        "case_rings",
        sa.Column("case_id", BIG, nullable=False),
        sa.Column("ring_id", sa.String(length=64), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("version", BIG, nullable=False),
        sa.Column("alerted", BIG, nullable=False),
        sa.Column("first_seen", BIG, nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("last_seen", BIG, nullable=False),
        sa.Column("at_risk", sa.JSON(), nullable=False),
        sa.Column("payments", BIG, nullable=False),
        sa.Column("frauds", BIG, nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_case_rings_case_id")),
        sa.PrimaryKeyConstraint("case_id", "ring_id", name=op.f("pk_case_rings")),
    )
    op.create_index(op.f("ix_case_rings_ring_id"), "case_rings", ["ring_id"])
    op.create_table(
        "case_entities",
        sa.Column("case_id", BIG, nullable=False),
        sa.Column("ring_id", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("member_role", sa.String(length=32), nullable=False),
        sa.Column("joined_at", BIG, nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_case_entities_case_id")),
        sa.PrimaryKeyConstraint("case_id", "ring_id", "role", "name", name=op.f("pk_case_entities")),
    )
    op.create_index(op.f("ix_case_entities_role_name"), "case_entities", ["role", "name"])
    op.create_table(
        "case_links",
        sa.Column("low", BIG, nullable=False),
        sa.Column("high", BIG, nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["high"], ["cases.id"], name=op.f("fk_case_links_high")),
        sa.ForeignKeyConstraint(["low"], ["cases.id"], name=op.f("fk_case_links_low")),
        sa.PrimaryKeyConstraint("low", "high", "role", "name", name=op.f("pk_case_links")),
    )
    op.create_index(op.f("ix_case_links_high"), "case_links", ["high"])


def _mirrors() -> None:
    """What mirrors the journal, or follows from it."""
    op.create_table(
        "verdicts",
        sa.Column("journal_offset", BIG, autoincrement=False, nullable=False),
        sa.Column("verdict_id", sa.String(length=128), nullable=False),
        sa.Column("ring_id", sa.String(length=64), nullable=False),
        sa.Column("case_id", BIG, nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("transaction_ids", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_verdicts_case_id")),
        sa.PrimaryKeyConstraint("journal_offset", name=op.f("pk_verdicts")),
        sa.UniqueConstraint("verdict_id", name=op.f("uq_verdicts_verdict_id")),
    )
    op.create_index(op.f("ix_verdicts_ring_id"), "verdicts", ["ring_id"])
    op.create_table(
        "alerts",
        sa.Column("transaction_id", sa.String(length=64), nullable=False),
        sa.Column("case_id", BIG, nullable=False),
        sa.Column("ring_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=128), nullable=False),
        sa.Column("amount", BIG, nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("paid_at", BIG, nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("raised_at", BIG, nullable=False),
        sa.Column("done_at", BIG, nullable=True),
        sa.Column("done_by", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_alerts_case_id")),
        sa.PrimaryKeyConstraint("transaction_id", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_case_id"), "alerts", ["case_id"])
    op.create_index(op.f("ix_alerts_done_at_raised_at"), "alerts", ["done_at", "raised_at"])
