"""The subcommands of `voxsrc`, one module a group."""
