"""Speed and memory, measured as ratios within one run or as peaks of one process."""
