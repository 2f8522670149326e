"""Channels, events, callbacks and wishes: the stores that were made before there were revisions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "channels",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("title", sa.String(120), nullable=False),
        sa.Column("source", sa.String(2000), nullable=False),
        sa.Column("once", sa.Boolean(), nullable=False),
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False, unique=True),
        sa.Column("created", sa.Double(), nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("time", sa.Double(), nullable=False, index=True),
        sa.Column("kind", sa.String(80), nullable=False, index=True),
        sa.Column("subject", sa.String(120), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
    )
    op.create_table(
        "callbacks",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("url", sa.String(2000), nullable=False, unique=True),
        sa.Column("secret", sa.String(120), nullable=False),
        sa.Column("encoding", sa.String(10), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
    )
    op.create_table(
        "wishes",
        sa.Column("name", sa.String(60), primary_key=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("written", sa.Double(), nullable=False),
    )
