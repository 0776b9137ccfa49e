"""What was chosen for the graph of a model: kept with the run that found it."""

from __future__ import annotations

import json
from typing import Any

from tuning_db.database import TuningDatabase


def graph_of(database: TuningDatabase, model: str, target: str) -> dict[str, Any] | None:
    """What the last run that searched the graph of ``model`` on ``target`` (digests) found.

    As it was given to ``begin_run``, in its settings as "graph"; None where none did.
    """
    rows = database.rows(
        "SELECT json_extract(settings, '$.graph') FROM runs"
        " WHERE model = ? AND target = ? AND finished IS NOT NULL"
        " AND json_type(settings, '$.graph') = 'object' ORDER BY started DESC, id DESC LIMIT 1",
        (model, target),
    )
    return dict(json.loads(rows[0][0])) if rows else None
