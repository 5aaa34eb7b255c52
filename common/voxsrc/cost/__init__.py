"""What a run costs on Spot machines and on demand, and when it will have finished.

`job` has the expectation in closed form, `simulation` the distribution, `lines` the lines of a bill, `prices`
the price file, `workload` the hours of work of a recipe, `measured` the times that a training has recorded,
and `assumptions` those of one that has not; `estimate` puts them together, and `report` prints it.
"""
