"""Brings a database to the tables of this version, wherever the scripts lie: in the checkout or the installed wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config

_HERE = Path(__file__).parent
_PACKAGED, _CHECKOUT = _HERE / "migration_scripts", _HERE.parent / "alembic"


def build_config(database_url: str) -> Config:
    """The configuration Alembic needs, without its ini file."""
    config = Config()
    config.set_main_option("script_location", str(_PACKAGED if _PACKAGED.exists() else _CHECKOUT).replace("%", "%%"))
    config.attributes["url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply what is missing, in one transaction; harmless when nothing is. Runs its own event loop."""
    command.upgrade(build_config(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Go back to an older revision; `base` is an empty database."""
    command.downgrade(build_config(database_url), revision)
