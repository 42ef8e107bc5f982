"""What every table shares: the declarative base, constraint names, and the two column types used everywhere."""

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import DateTime, MetaData, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

# Fixed names let a migration drop what it made.
NAMING_CONVENTION = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}

Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
MomentNow = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
"""Set by the database's clock when the row is made."""


class Base(DeclarativeBase):
    """`str` is `text`: Postgres stores both alike, and no length is invented."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {str: Text, dict[str, Any]: JSONB, list[Any]: JSONB}  # noqa: RUF012 - SQLAlchemy's own form
