"""The plots of a report, one kind a module; `drawing` holds what they have in common."""
