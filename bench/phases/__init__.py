"""What is measured, one phase a module: `run(bench)` measures and adds its results."""
