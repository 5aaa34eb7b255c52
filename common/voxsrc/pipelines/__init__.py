"""Kubeflow Pipelines components and pipelines, compiled by `python -m voxsrc.pipelines.compile`."""
