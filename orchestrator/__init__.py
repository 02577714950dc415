"""The command line, the plan, the sweep and one trial's straight line; the only room that knows Ray."""
