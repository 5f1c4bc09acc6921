"""Long runs of chapter 3: hierarchies of latents."""
