"""The orchestrator: understands a query, plans who is asked and for how much, merges and answers.

`pipeline.Pipeline.search` is one search on one screen; `bandit` is the planning mathematics;
`learning` turns decisions and feedback into policy snapshots; `servicers` are the public door.
"""

from orchestrator.assembly import SERVICE

__all__ = ["SERVICE"]
