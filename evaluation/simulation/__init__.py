"""Simulated users over real parts: what the mesh learns, how fast, and against whom.

`needs` and `traffic` say what is asked, `clicks` how users act, `world` and `warm_up` let the mesh
live and freeze what its generators find, `pages` and `replay` serve any plan from that quickly,
`contenders`, `comparison` and `drift` run the rivals, `*_study` look at memory, exploration and
personalisation, `pictures` and `results` report, and `run` does it all for `forage simulate`.
"""
