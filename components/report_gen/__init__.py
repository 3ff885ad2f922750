"""ReportGen: one self-contained HTML page about a run, also when its model was refused."""
