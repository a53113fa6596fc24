"""Speed of gradlab as ratios of one run; `python -m benchmarks` prints them beside targets."""
