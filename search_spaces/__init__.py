"""What to run: YAML grids and the frozen specification that one trial is made of."""
