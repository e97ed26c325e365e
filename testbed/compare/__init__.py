"""What is measured against what: the schedule of rounds, records, statistics, verdicts."""
