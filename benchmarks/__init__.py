"""Speed of gradlab as ratios measured in one run; `python -m benchmarks` prints them beside targets."""
