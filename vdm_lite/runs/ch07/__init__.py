"""Long runs of chapter 7: noise schedules."""
