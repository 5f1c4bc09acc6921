"""Long runs of chapter 8: what a network puts out."""
