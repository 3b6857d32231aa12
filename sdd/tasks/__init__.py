"""Tasks: examples, prompts, verifiers. One module a task, each with `Config` and `make`."""
