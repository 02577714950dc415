"""A sweep's time against what a good engineer writes with Ray Tune, TRL and PEFT; see `__main__`."""
