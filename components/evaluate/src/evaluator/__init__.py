"""The evaluate component: a model and trials in, scores, error rates with intervals and a report out."""
