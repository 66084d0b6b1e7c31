"""How `fullconv.nets.trace` reads a net: a graph of its calls, and what every tensor in it depends on.

`tracer` records the graph (`graph`), `calls` and `aliases` give its calls one form, `reader` goes through it in order;
`spots`, `effects`, `dimensions`, `resampling` and `invariance` say what each kind of call does to where data is read.
"""
