"""What of the paper holds: runs become lines, lines become verdicts, verdicts become a document."""
