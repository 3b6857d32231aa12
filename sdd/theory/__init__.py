"""Where training must end: optima and fixed points by enumeration, and what trained networks did instead.

`optima` holds the formulas, `fixed_points` joins them to the configs of the methods, `tabular` and
`expected` train a table by the methods themselves, `graphs` lists the answers to a concept graph,
`prediction` compares networks with the theory, and `bandit` is the smallest example.
"""
