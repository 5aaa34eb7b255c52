"""What a run costs on Spot machines and on demand, and when it will have finished.

`job` has the expectation in closed form, `simulation` the distribution, `prices` the price file, `workload`
the hours of work of a recipe, `estimate` puts them together, and `report` prints it. `interval` is the
trainer's rule of when to save.
"""
