"""Long runs of chapter 12: the denoiser."""
